"""Files of every kind that the package reads, damaged or made of odd things, and the loaders that read them."""

import gzip
import io
import json
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import cache, partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hypothesis import strategies as st
from PIL import Image

from benchmarks.studies.faults import files as whole
from benchmarks.studies.faults import jobs
from benchmarks.studies.inputs import Room
from benchmarks.studies.inputs.odd import JSONS, WORDS, changed, files, made
from crossexplain.checks import InputError
from crossexplain.data import dialogues, digits, flickr8k, photos, reviews, store, voices
from crossexplain.data.flickr8k_files import IMAGE_ARCHIVE, TOKENS
from crossexplain.models import checkpoints
from crossexplain.models.weights import WeightsError
from crossexplain.runs import explain_dataset, read
from crossexplain.runs.plan import Selection
from crossexplain.runs.results import MANIFEST
from crossexplain.runs.sources import open_source

MISSING = store.MissingSource, store.BrokenSource
PICTURES = "png", "jpeg", "gif", "bmp", "tiff", "webp", "ppm"
TALK = (b"7 2\n(2,1),(2,2)\n1 | Ann | neutral | Look | 0\n2 | Bob | joy | A cat! | 0\n\n8 1\n\n1 | Ann | fear | It | is | 0\n")
TABLE = b"image,text,label,score\na.png,a cat,1,0.5\na.png,\"two, cats\",0,\nb.png,a dog,1,1e3\n"
LINES = b'{"image": "a.png", "text": "a cat", "label": 1}\n{"image": "b.png", "text": ["a dog", "dogs"], "label": 2}\n'
REVIEWS = b"content,score,appId\nIt works,5,a\n\"No, it fails\",1,b\nHm,3,a\n"
SENTENCES = b"It works\t1\nIt fails\t0\n"


def rooms() -> Iterator[Room]:
    """Give every kind of file with its loader."""
    for form in PICTURES:
        yield _single(f"photograph ({form.upper()})", partial(_picture, form=form), photos.read, (InputError,), 2.0)
    yield _single("sound", _sound, voices.read_wave, (InputError, *MISSING), 2.0)
    yield Room("folder of sounds", st.tuples(_names("1_ann_2.wav"), files(made(_sound))), _placed, lambda path: voices.load(
        path.parent), (InputError, *MISSING))
    yield Room("dialogues", files(TALK), lambda _, drawn: drawn, dialogues.parse, (InputError,), 4.0)
    yield _single("digits (IDX)", _idx, digits.read_idx, (InputError,), 2.0)
    yield Room("table of reviews", files(REVIEWS), partial(_in, name="r.csv"), _reviews, (InputError,))
    yield Room("labelled sentences", files(SENTENCES), _sentences, _labelled, (InputError,))
    yield Room("Flickr8k's form", st.sampled_from(list(_flickr8k())).flatmap(lambda name: st.tuples(st.just(name), files(
        _flickr8k()[name]))), _among(_flickr8k), _captions, (InputError, *MISSING))
    yield from _of_models()
    yield from _of_runs()
    yield from _of_sources()


def _in(folder: Path, drawn: bytes, name: str) -> Path:
    (path := folder / name).write_bytes(drawn)
    return path


def _placed(folder: Path, drawn: tuple[str, bytes]) -> Path:
    return _in(folder, drawn[1], drawn[0])


def _single(name: str, write: Callable[[Path], object], ask: Callable[[Path], object], errors: tuple,
            weight: float = 1.0) -> Room:
    return Room(name, files(made(write)), partial(_in, name="file"), ask, errors, weight)


def _names(usual: str) -> st.SearchStrategy[str]:
    plain = [word for word in WORDS if word.strip(".~") and not set(word) & set("/\0\udcff") and len(word) < 99]
    return st.one_of(st.just(usual), st.sampled_from(plain).map(lambda word: f"{word}{Path(usual).suffix}"))


def _picture(path: Path, form: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, form)


@cache
def _png() -> bytes:
    return made(partial(_picture, form="png"))


def _sound(path: Path) -> None:
    with TemporaryDirectory() as folder:
        path.write_bytes(whole._sound(Path(folder)).read_bytes()[:300])


def _idx(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0\0\x08\x03" + np.array([2, 3, 3], ">u4").tobytes() + bytes(18)))


def _found(path: Path) -> store.Found:
    return store.Found("a source", path, "a folder")


def _reviews(path: Path) -> object:
    with patch.object(store, "find", lambda name: _found(path)):
        return reviews.app_reviews()


def _sentences(folder: Path, drawn: bytes) -> Path:
    for name in ("amazon_cells", "imdb", "yelp"):
        (folder / f"{name}_labelled.txt").write_bytes(drawn if name == "imdb" else SENTENCES)
    return folder


def _labelled(folder: Path) -> object:
    with patch.object(store, "find", lambda name: _found(folder)):
        return reviews.labelled_sentences()


@cache
def _flickr8k() -> dict[str, bytes]:
    """Return the files of a small data set in the form of Flickr8k, its photographs in the archive."""
    names, picture, archive = [f"{i}.jpg" for i in range(6)], made(partial(_picture, form="jpeg")), io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for name in names:
            content.writestr(f"Flicker8k_Dataset/{name}", picture)
    lines = "".join(f"{name}#{k}\tphotograph {name[0]} shows {k} dogs\n" for name in names for k in range(2))
    lists = {"train": names[:2], "validation": names[2:4], "test": names[4:]}
    return {TOKENS: lines.encode(), IMAGE_ARCHIVE: archive.getvalue(),
            **{flickr8k.LISTS[split]: "\n".join(part).encode() for split, part in lists.items()}}


def _among(others: Callable[[], dict[str, bytes]]) -> Callable[[Path, tuple[str, bytes]], Path]:
    """Return what places whole files, one of them as it was drawn, and returns the folder."""
    def place(folder: Path, drawn: tuple[str, bytes]) -> Path:
        for name, content in {**others(), drawn[0]: drawn[1]}.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    return place


def _captions(folder: Path) -> None:
    data = flickr8k.load(folder, check=True, progress=False)
    data.images([0], 8)
    data.pairs("test", 0)


def _of_models() -> Iterator[Room]:
    for suffix in (".safetensors", ".pt"):
        yield Room(f"weights ({suffix})", files(made(partial(_weights, suffix=suffix))), partial(_in, name=f"w{suffix}"),
                   whole._read_weights, (WeightsError,))
    small = _tree("checkpoint")
    yield Room("checkpoint", files(small["small.safetensors"]).map(lambda drawn: ("small.safetensors", drawn)),
               _among(partial(_tree, "checkpoint")), _load_checkpoint, (WeightsError,))
    yield Room("card of a checkpoint", st.one_of(_json(small["small.json"]), files(small["small.json"])).map(
        lambda drawn: ("small.json", drawn)), _among(partial(_tree, "checkpoint")), _load_checkpoint, (WeightsError,))
    encoded = _tree("encodings")
    choices = st.one_of(*(st.tuples(st.just(name), _json(content) if name.endswith("json") else files(content))
                          for name, content in encoded.items() if not name.endswith("lock")))
    yield Room("kept encodings", choices, _among(partial(_tree, "encodings")), partial(_same, jobs._encode, "encodings"),
               (InputError, jobs.EncodingError), 0.3, mends=True)
    yield Room("state of a training", files(_tree("state")["state.pt"]).map(lambda drawn: ("state.pt", drawn)),
               _among(partial(_tree, "state")), jobs._train, (InputError,), 0.2, mends=True)  # which has no checksum
    yield Room("file in the cache", st.tuples(st.sampled_from(("cache/a/b.bin", "cache/.verified", "cache/.locks", "cache/a")),
               files(jobs.BODY[:2000], (jobs.BODY,))), _cached, _found_in_cache, (*MISSING, store.FetchError))


def _weights(path: Path, suffix: str) -> None:
    with TemporaryDirectory() as folder:
        path.write_bytes(whole._weights(Path(folder), suffix).read_bytes())


WORK: dict[str, Callable[[Path], object]] = {
    "checkpoint": lambda folder: whole._checkpoint(folder, ".json"), "encodings": jobs._encode, "state": jobs._train,
    "run": lambda folder: _run(folder / "results")}


@cache
def _tree(kind: str) -> dict[str, bytes]:
    """Return the files that some work leaves."""
    with TemporaryDirectory() as folder:
        WORK[kind](Path(folder))
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


@cache
def _right(kind: str, work: Callable[[Path], str]) -> str:
    with TemporaryDirectory() as folder:
        return work(Path(folder))


def _same(work: Callable[[Path], str], kind: str, folder: Path) -> None:
    """Work again, and expect what comes without a fault."""
    if work(folder) != _right(kind, work):
        raise AssertionError("another result, without a word")


def _json(content: bytes) -> st.SearchStrategy[bytes]:
    return changed(json.loads(content)).map(lambda value: json.dumps(value).encode())


def _load_checkpoint(folder: Path) -> None:
    checkpoints.read_card("small", folder)
    checkpoints.load("small", jobs.model(1), folder)


def _cached(folder: Path, drawn: tuple[str, bytes]) -> Path:
    (path := folder / drawn[0]).parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(drawn[1])
    return folder


def _found_in_cache(folder: Path) -> None:
    with jobs.registered(folder, "http://127.0.0.1:9/"):  # no server there
        if store.find("sample", offline=True).path.read_bytes() != jobs.BODY:
            raise AssertionError("another file than the published one")


def _run(out: Path) -> None:
    explain_dataset(jobs.small.subject(), jobs.small.Data(n=4, broken=()), out=out, part=2, batch=2, progress=False)


def _run_again(folder: Path) -> str:
    _run(folder / "results")
    return jobs.digest(*read(folder / "results").table.drop_columns(["seconds"]).to_pylist())


def _of_runs() -> Iterator[Room]:
    tree = _tree("run")
    parts = st.sampled_from([name for name in tree if name.endswith(".parquet")]).flatmap(
        lambda name: st.tuples(st.just(name), files(tree[name], (tree["results/part-000000.parquet"],))))
    manifest = st.one_of(_json(tree[f"results/{MANIFEST}"]), files(tree[f"results/{MANIFEST}"])).map(
        lambda drawn: (f"results/{MANIFEST}", drawn))
    placed = _among(partial(_tree, "run"))
    for name, drawn in (("part of a run", parts), ("manifest of a run", manifest)):
        yield Room(f"{name}, read", drawn, placed, _read, (InputError,))
        yield Room(f"{name}, run again", drawn, placed, partial(_same, _run_again, "run"), (InputError,), 0.15, mends=True)


def _read(folder: Path) -> None:
    results = read(folder / "results")
    results.logits()
    for name in results.modalities:
        results.importance("round 1", name)
    results.frame()


def _of_sources() -> Iterator[Room]:
    for name, content in (("table.csv", TABLE), ("table.tsv", TABLE.replace(b",", b"\t")), ("table.jsonl", LINES)):
        yield Room(f"table ({name[5:]})", files(content).map(lambda drawn, name=name: (name, drawn)), _with_pictures, _explored,
                   (InputError,), 2.0)
    yield Room("JSON lines of odd values", st.lists(changed(json.loads(LINES.splitlines()[1])), min_size=1, max_size=3).map(
        lambda rows: ("table.jsonl", b"\n".join(json.dumps(row).encode() for row in rows))), _with_pictures, _explored,
        (InputError,))
    yield Room("folder of pictures", st.tuples(_names("a.png"), files(_png())), _placed,
               lambda path: _explored(path.parent), (InputError,))
    yield Room("metadata of pictures", files(TABLE.replace(b"image", b"file_name")).map(lambda drawn: ("metadata.csv", drawn)),
               _with_pictures, lambda path: _explored(path.parent), (InputError,))
    yield Room("tar of odd members", st.tuples(_tars(), st.sampled_from(("a.tar", "a.tar.gz"))).map(
        lambda drawn: (drawn[1], gzip.compress(drawn[0], mtime=0) if drawn[1].endswith("gz") else drawn[0])), _placed,
        _explored, (InputError,))
    for name in ("a.tar", "a.tar.gz", "a.tar.xz"):
        yield Room(f"tar ({name[1:]})", files(_tar(name)).map(lambda drawn, name=name: (name, drawn)), _placed, _explored,
                   (InputError,))
    yield Room("Parquet", files(_parquet(TYPES[:4])).map(lambda drawn: ("a.parquet", drawn)), _placed, _explored,
               (InputError,), 2.0)
    yield Room("Parquet of odd columns", _parquets().map(lambda drawn: ("a.parquet", drawn)), _placed, _explored, (InputError,))
    saved = _saved()
    yield Room("folder of save_to_disk", st.sampled_from(list(saved)).flatmap(lambda name: st.tuples(st.just(name), files(
        saved[name]) if name.endswith("arrow") else st.one_of(_json(saved[name]), files(saved[name])))), _among(_saved),
        _explored, (InputError,))
    yield Room("names of sources", st.sampled_from(WORDS), lambda folder, drawn: folder / drawn.replace("/", ""), _explored,
               (InputError,), 0.2)


def _with_pictures(folder: Path, drawn: tuple[str, bytes]) -> Path:
    _in(folder, _png(), "a.png")
    return _placed(folder, drawn)


def _explored(path: Path) -> None:
    """Open a source as a run does: survey it, and load each of its first examples."""
    source = open_source(path)
    Selection(source).survey()
    json.dumps(source.describe())
    for entry in islice(source.entries(), 20):
        try:
            entry.load()
        except InputError:
            continue


MEMBERS = "1.png", "1.txt", "1.json", "1.cls", "2.png", "a/1.png", "../1.png", "/1.png", "é.png", ".x", "1", "1.", "x" * 200
KINDS = tarfile.REGTYPE, tarfile.REGTYPE, tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE


def _packed(members: list[tuple[str, bytes, bytes]], form: int = tarfile.PAX_FORMAT) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode="w", format=form) as archive:
            for name, kind, content in members:
                info = tarfile.TarInfo(name)
                info.type, info.linkname = kind, "1.png"
                info.size = len(content) if kind == tarfile.REGTYPE else 0
                archive.addfile(info, io.BytesIO(content))
        return file.getvalue()


def _tars() -> st.SearchStrategy[bytes]:
    contents = [b"a cat", b"7", b'{"label": "x"}', b'{"image": 1, "txt": []}', *(json.dumps(one).encode() for one in JSONS)]
    member = st.tuples(st.sampled_from(MEMBERS), st.sampled_from(KINDS), st.one_of(
        st.sampled_from(contents), files(_png())))
    return st.builds(_packed, st.lists(member, max_size=6), st.sampled_from((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT)))


@cache
def _tar(name: str) -> bytes:
    content = _packed([("1.png", tarfile.REGTYPE, _png()), ("1.txt", tarfile.REGTYPE, b"a cat"),
                       ("1.json", tarfile.REGTYPE, b'{"label": 1}'), ("2.png", tarfile.REGTYPE, b"")])
    import lzma

    return {"a.tar": bytes, "a.tar.gz": gzip.compress, "a.tar.xz": lzma.compress}[name](content)


@cache
def _values() -> dict[str, pa.Array]:
    picture = _png()
    stored = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return {
        "text": pa.array(["a cat", "a dog"]),
        "image": pa.array([{"bytes": picture, "path": "a.png"}, {"bytes": None, "path": "b"}], stored),
        "label": pa.array([1, None]), "score": pa.array([0.5, float("nan")]), "bytes": pa.array([picture, b"x"]),
        "large": pa.array([picture, None], pa.large_binary()), "lists": pa.array([["a", "b"], []]), "none": pa.nulls(2),
        "struct": pa.array([{"bytes": 1}, {"bytes": 2}]), "other": pa.array([{"x": "a"}, None]),
        "dictionary": pa.array(["a.png", None]).dictionary_encode(), "day": pa.array([0, 1], pa.date32()),
        "decimal": pa.array([1, 2]).cast(pa.decimal128(30, 2)), "unsigned": pa.array([2**64 - 1, 0], pa.uint64()),
        "map": pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        "dates": pa.array([0, 1], pa.timestamp("ns", "UTC")),
        "half": pa.array(np.array([1, 2], np.float16)), "view": pa.array(["a", "b"], pa.string_view()),
        "bool": pa.array([True, None])}


TYPES = "text", "image", "label", "score"
COLUMNS = "image", "text", "key", "id", "caption", "label", "", "a.b", "🙂", "image.path", "__key__"


def _parquet(types: tuple[str, ...], names: tuple[str, ...] | None = None) -> bytes:
    table = pa.Table.from_arrays([_values()[one] for one in types], list(names or types))
    with io.BytesIO() as file:
        pyarrow.parquet.write_table(table, file)
        return file.getvalue()


def _parquets() -> st.SearchStrategy[bytes]:
    columns = st.lists(st.tuples(st.sampled_from(list(_values())), st.sampled_from(COLUMNS)), min_size=1, max_size=4,
                       unique_by=lambda column: column[1])
    return columns.map(lambda pairs: _parquet(*zip(*pairs)))


@cache
def _saved() -> dict[str, bytes]:
    """Return what Hugging Face's save_to_disk leaves."""
    table = pa.table({name: _values()[name] for name in TYPES})
    with io.BytesIO() as file:
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        content = file.getvalue()
    return {"state.json": json.dumps({"_data_files": [{"filename": "data.arrow"}], "_split": None}).encode(),
            "data.arrow": content}
