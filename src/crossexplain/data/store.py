"""The store finds every data set and every weight file, checks it, and says where it is.

It looks in the folder that ``CROSSEXPLAIN_DATA`` names, then in the local cache (``CROSSEXPLAIN_CACHE``, else the user's
cache folder) and in the installed packages, and downloads into the cache what is allowed (``CROSSEXPLAIN_DOWNLOAD=1``, or a
yes to a question). Nothing here touches the network unasked.

A file is handed out whole and verified, or not at all: a download goes to a temporary file, is hashed there, and only then
takes its name. Hashing a large file at each start would be slow, so the cache remembers the size and the time of
change of what was verified; :func:`fetch` does not trust that and hashes again.
"""

import contextlib
import errno
import gzip
import hashlib
import logging
import os
import shlex
import shutil
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from glob import escape
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pooch
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

from crossexplain.data.registry import SOURCES, File, Source
from crossexplain.files import write_whole

log = logging.getLogger(__name__)

TIMEOUT = (10, 30)  # seconds to wait for a connection, and for the next bytes
CHUNK, SLOWEST = 4096, 60  # bytes that are read at a time, and the most seconds that they may take
WAIT = 3600  # seconds to wait for another process that fetches the same source
SMALL = 4 << 20  # bytes; smaller files are hashed each time, since that is as fast as remembering


class MissingSource(FileNotFoundError):
    """A data set or weight file is nowhere to be found; the message says what to do."""


class BrokenSource(OSError):
    """A file is present, but its content is not the published one."""


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
    origin : str
        In words: ``"data folder"``, ``"local cache"``, ``"download"``, ``"embedded: PACKAGE VERSION"``.
    """

    name: str
    path: Path
    origin: str


def find(name: str, ask: Callable[[str], bool] | None = None, offline: bool = False) -> Found:
    """Return where a source is: data folder, local cache, an allowed download, or an installed package.

    Parameters
    ----------
    name : str
        A name of :data:`SOURCES`.
    ask : callable, optional
        Is asked a question before a download that ``CROSSEXPLAIN_DOWNLOAD=1`` does not allow; True downloads.
    offline : bool
        Download nothing, whatever is allowed.

    Returns
    -------
    Found

    Raises
    ------
    MissingSource
        If it is nowhere; the message names its size, where it comes from and the command that fetches it.
    BrokenSource
        If a file is present and its hash is wrong (in the cache only if it may not be downloaded again).
    FetchError
        If a download was allowed and failed.
    InputError
        For an unknown name.

    Examples
    --------
    >>> find("sklearn-digits").origin.startswith("embedded: scikit-learn")
    True
    """
    source = _entry(name)
    _note(name)
    found = _find(source, ask, offline)
    log.info("%s: %s", name, found.origin)
    return found


def is_available(name: str) -> bool:
    """Return whether a source is on this machine; nothing is downloaded, whatever is allowed."""
    try:
        find(name, offline=True)
    except OSError:
        return False
    return True


def fetch(name: str, ask: Callable[[str], bool] | None = None) -> Found:
    """Like :func:`find`, but hash every file again and so repair what has changed in the cache since."""
    return _find(_entry(name), ask, trust=False)


def data_folder() -> Path | None:
    """Return the folder that ``CROSSEXPLAIN_DATA`` names, or None.

    Raises
    ------
    MissingSource
        If it names something that is no folder.
    """
    named = os.environ.get("CROSSEXPLAIN_DATA")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise MissingSource(f"CROSSEXPLAIN_DATA names {folder.absolute()}, which is no folder; correct or unset it.")
    return folder.resolve()


def cache() -> Path:
    """Return the folder of the local cache (``CROSSEXPLAIN_CACHE``); it need not exist."""
    return Path(os.environ.get("CROSSEXPLAIN_CACHE") or pooch.os_cache("crossexplain")).expanduser().absolute()


def command(*words: str) -> str:
    """Return a command of this package as it can be typed now: with ``python`` only where that is the Python that runs.

    Examples
    --------
    >>> command("fetch", "mnist").endswith("-m crossexplain fetch mnist")
    True
    """
    python, typed = Path(sys.executable), shutil.which("python")
    if typed and Path(typed).parent == python.parent:
        python = Path("python")
    elif python.is_relative_to(Path.cwd()):  # the environment is not activated
        python = python.relative_to(Path.cwd())
    return shlex.join([str(python), "-m", "crossexplain", *words])


def megabytes(size: float) -> str:
    """Return a size in words.

    Examples
    --------
    >>> megabytes(35_363), megabytes(4_998_816), megabytes(553_433_881)
    ('35 kB', '5.0 MB', '553 MB')
    """
    if size < 1e6:
        return f"{size / 1e3:.0f} kB"
    return f"{size / 1e6:.1f} MB" if size < 99.95e6 else f"{size / 1e6:.0f} MB"


def _note(name: str) -> None:
    """Write what was looked for, found or not, to the file that ``CROSSEXPLAIN_LOOKED_FOR`` names: a chapter that did
    without a source has to run again once the source is available."""
    if file := os.environ.get("CROSSEXPLAIN_LOOKED_FOR"):
        with open(file, "a", encoding="utf-8") as stream:
            stream.write(f"{name}\n")


def _entry(name: str) -> Source:
    if not isinstance(name, str) or name not in SOURCES:
        from crossexplain.checks import InputError  # imports torch, which the store does not need

        raise InputError(f"there is no source {name!r}; the sources are {', '.join(SOURCES)}.")
    return SOURCES[name]


def _find(source: Source, ask: Callable[[str], bool] | None, offline: bool = False, trust: bool = True) -> Found:
    for origin, root, files, remedy in _places(source):
        complaints = [text for file in files if (text := _complaint(root / file.path, file, trust))]
        if not complaints:
            within = source.folder or ("" if source.package else files[0].path)
            return Found(source.name, root / within, origin)
        if origin == "local cache" and source.download and not offline and _allowed(source, ask):
            return _download(source)
        raise BrokenSource(f"{source.name} in the {origin.removeprefix('embedded: ')}: {'; '.join(complaints)}; {remedy}")
    if source.download and not offline and _allowed(source, ask):
        return _download(source)
    raise MissingSource(_missing(source))


def _places(source: Source) -> Iterator[tuple[str, Path, Sequence[File], str]]:
    """Yield where a source is present, whole or broken: origin, folder, files, and what to do if they are broken."""
    mend = "delete the file and place the published one there."
    if source.download:
        mend = f"mend it with `{command('fetch', source.name)}`."
    places = (("data folder", data_folder(), "replace the file, or unset CROSSEXPLAIN_DATA."), ("local cache", cache(), mend))
    for origin, root, remedy in places:
        present = (form for form in source.forms if root and all(os.path.exists(root / file.path) for file in form))
        if root and (form := next(present, None)):
            yield origin, root, form, remedy
    distribution, module, within = source.package or (None, "", "")
    if distribution and (spec := find_spec(module)) and spec.origin:
        root = Path(spec.origin).parent / within
        yield f"embedded: {distribution} {version(distribution)}", root, source.package_files, "install the package again."


def _missing(source: Source) -> str:
    """Return what to say of a source that is nowhere: what it is, where it was looked for and how to get it."""
    if source.package:
        return (f"{source.name} ({source.what}) comes with the package {source.package[0]}, which is not installed; "
                "install the book's extra: pip install 'crossexplain[book]'.")
    data = data_folder()
    lacking = [file.path for file in source.download or source.forms[0] if not (data and os.path.exists(data / file.path))]
    how = "It has no address to fetch it from: place it in a data folder under this name."
    if source.download:
        how = f"Fetch it with `{command('fetch', source.name)}`, or allow downloads with CROSSEXPLAIN_DOWNLOAD=1."
    return (
        f"{source.name} ({source.what}, {megabytes(source.size)}) was not found: {', '.join(lacking)} "
        f"{'is' if len(lacking) == 1 else 'are'} neither in the data folder ({data or 'CROSSEXPLAIN_DATA is not set'}) nor "
        f"in the local cache ({cache()}). It comes from {source.authors}; terms: {source.terms}. {how}"
    )


def _allowed(source: Source, ask: Callable[[str], bool] | None) -> bool:
    if os.environ.get("CROSSEXPLAIN_DOWNLOAD") == "1":
        return True
    hosts = ", ".join(sorted({urlsplit(file.url).netloc for file in source.download if file.url}))
    question = f"Download {source.name} ({source.what}, {megabytes(source.size)}) from {hosts}? Terms: {source.terms}."
    return bool(ask and ask(question))


def _complaint(path: Path, file: File, trust: bool = True) -> str | None:
    """Return what is wrong with a file, or None; a large one that has not changed since it was right is trusted."""
    if not (path.is_file() if file.hashes else path.exists()):  # what has no hash may be a folder of many files
        return f"there is no file {path}"
    stat = path.stat()
    if stat.st_size <= SMALL or not file.hashes:
        return _difference(path, file)
    stamp = cache() / ".verified" / hashlib.sha256(os.fsencode(path)).hexdigest()[:32]
    state = f"{stat.st_size} {stat.st_mtime_ns} {' '.join(file.hashes)}"
    if trust and stamp.is_file() and stamp.read_text() == state:
        return None
    if text := _difference(path, file):
        return text
    with contextlib.suppress(OSError):  # a read-only cache remembers nothing, and all still works
        write_whole(stamp, lambda part: part.write_text(state))
    return None


def _difference(path: Path, file: File) -> str | None:
    """Return how the content of a file differs from the published one, or None."""
    digests = [_digest(path, expected) for expected in file.hashes]
    if not digests or any(digest.startswith(expected) for digest, expected in zip(digests, file.hashes)):
        return None
    return (f"{path} has {path.stat().st_size:,} bytes and the hash {digests[0]}, expected {file.size:,} bytes and "
            f"{file.hashes[0]}")


def _digest(path: Path, expected: str) -> str:
    kind = expected.partition(":")[0]
    with path.open("rb") as raw, gzip.open(raw) if kind == "gunzip-md5" else raw as stream:
        try:
            return f"{kind}:{hashlib.file_digest(stream, kind.removeprefix('gunzip-')).hexdigest()}"
        except (EOFError, zlib.error, gzip.BadGzipFile):
            return f"{kind}:(not a whole gzip file)"


def _download(source: Source) -> Found:
    """Fetch what is missing or broken of a source into the cache; one process at a time."""
    root = cache()
    with _locked(root, source.name):
        for file in source.download:
            path = root / file.path
            if complaint := _complaint(path, file, trust=False):
                level = logging.WARNING if path.exists() else logging.INFO
                log.log(level, "%s: %s; it is fetched again", source.name, complaint)
                _fetch_file(source, file, path)
    return Found(source.name, root / (source.folder or source.download[0].path), "download")


@contextlib.contextmanager
def _locked(root: Path, name: str) -> Iterator[None]:
    """Let no other process fetch the same source meanwhile."""
    lock = FileLock(root / ".locks" / f"{name}.lock")
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            log.warning("another process is fetching %s; waiting for it", name)
            lock.acquire(timeout=WAIT)
    except OSError as error:
        raise FetchError(
            f"{name}: cannot use the cache {root}: {error.strerror or error}; "
            "name a folder that you may write to in CROSSEXPLAIN_CACHE."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _fetch_file(source: Source, file: File, path: Path) -> None:
    def write(part: Path) -> None:
        # Without this header some servers compress what is already compressed, and the bytes would not be the file's.
        headers = {"Accept-Encoding": "identity"}
        with _Progress() as progress:
            pooch.HTTPDownloader(progress, CHUNK, timeout=TIMEOUT, headers=headers)(file.url, str(part), None)
        if text := _difference(part, file):
            raise OSError(f"the server sent something else: {text.replace(str(part), path.name)}")

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for rest in path.parent.glob(f".{escape(path.name)}.*.part"):  # of a process that was killed
            rest.unlink()
        if (free := shutil.disk_usage(path.parent).free) < file.size:
            raise OSError(errno.ENOSPC, f"{megabytes(file.size)} needed, {megabytes(free)} free")
        write_whole(path, write)
    except OSError as error:
        full = error.errno == errno.ENOSPC
        why = f"the disk of {path.parent} is full ({error.strerror})" if full else str(error)
        raise FetchError(
            f"{source.name}: {file.url} was not fetched, nothing was kept: {why}. "
            f"Try again with `{command('fetch', source.name)}`, or place the file in the data folder."
        ) from error


class _Progress(tqdm):  # type: ignore[type-arg]  # generic in its stubs alone
    """The progress bar of a download; it gives up a server that is too slow."""

    def __init__(self) -> None:
        super().__init__(unit="B", unit_scale=True, ncols=79)
        self.last = time.monotonic()

    def __bool__(self) -> bool:
        return True  # tqdm's is False where a server does not say how much it sends, and pooch would leave the bar alone

    def update(self, n: float | None = 1) -> None:
        super().update(n)
        seconds = time.monotonic() - self.last
        if seconds > SLOWEST:
            raise OSError(f"the server is too slow: {n:,} bytes in {seconds:.1f} s, expected at most {SLOWEST} s")
        self.last = time.monotonic()
