"""The store against a real server on this machine that misbehaves in every way a server can."""

import gzip
import hashlib
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from crossexplain.data import store
from crossexplain.data.digits import load
from crossexplain.data.registry import SOURCES, File, Source
from crossexplain.files import embedded_folder
from support.serving import serve

BODY = bytes(range(256)) * 800
SHA256 = "sha256:" + hashlib.sha256(BODY).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
DATA = os.environ.get("CROSSEXPLAIN_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="CROSSEXPLAIN_DATA is not set")


class Server(ThreadingHTTPServer):
    """Answers by the first part of the path; ``asked`` is every path that was asked for."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked, self.over = [], threading.Event()

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append(self.path)
        kind = self.path.split("/")[1]
        if kind == "missing":
            return self.send_error(404)
        if kind == "silent":
            return self.server.over.wait()
        body = {"page": PAGE, "other": BODY[::-1], "large": BODY * 20}.get(kind, BODY)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("short", "hanging"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self.server.over.wait() if kind == "hanging" else None
        if kind == "dripping":
            return self.drip(body)
        if kind == "slow":
            for at in range(0, len(body), 4096):
                self.wfile.write(body[at : at + 4096])
                if self.server.over.wait(0.05):
                    return None
        else:
            self.wfile.write(body)

    def drip(self, data: bytes) -> None:
        """Send a little now and then, never so late that a time-out for silence ends it."""
        for at in range(0, len(data), 512):
            self.wfile.write(data[at : at + 512])
            self.wfile.flush()
            if self.server.over.wait(0.1):
                return

    def log_message(self, *_):
        """Keep the tests' output quiet."""


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.over.set()
        running.shutdown()
        thread.join()


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache, under a name with spaces, accents and a script other than Latin; no data folder; no leave."""
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    monkeypatch.delenv("CROSSEXPLAIN_DOWNLOAD", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "räume und データ" / "a cache"
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(folder))
    return folder


@pytest.fixture
def sample(monkeypatch, server, cache):
    """Register a source of one file that the server answers in the way named."""

    def register(kind: str = "good", size: int = len(BODY), hashes=(SHA256,), names=("b.bin",)) -> Source:
        files = tuple(File(f"a/{name}", size, hashes, server.address(f"{kind}/{name}")) for name in names)
        folder = "a" if len(files) > 1 else None
        source = Source("sample", "a sample", "this test", "none", forms=(files,), folder=folder)
        monkeypatch.setitem(SOURCES, "sample", source)
        return source

    return register


def yes(question: str) -> bool:
    return True


def contents(folder: Path) -> list[str]:
    """Return every file of a cache but locks and stamps."""
    return sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and ".verified" not in path.parts
    )


def python(code: str, address: str, **more) -> subprocess.Popen:
    """Start a second Python that fetches a sample of its own account."""
    program = (
        "import sys\nfrom crossexplain.data import store\nfrom crossexplain.data.registry import *\n"
        f"file = File('a/b.bin', {len(BODY)}, ({SHA256!r},), {address!r})\n"
        "SOURCES['sample'] = Source('sample', 'a sample', 'this test', 'none', forms=((file,),))\n"
    ) + code
    return subprocess.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, **more)


FETCH = "print(store.fetch('sample', ask=lambda question: True).origin)"


# ---------------------------------------------------------------- the order, and the network only with leave


def test_missing_source_names_file_size_origin_and_command(sample, server):
    sample()
    with pytest.raises(store.MissingSource) as error:
        store.find("sample")
    for part in ("a/b.bin", "205 kB", "this test", "-m crossexplain fetch sample", "CROSSEXPLAIN_DOWNLOAD=1"):
        assert part in str(error.value)
    assert server.asked == []


def test_nothing_touches_the_network_unasked(sample, server, monkeypatch):
    sample()
    assert not store.is_available("sample")
    with pytest.raises(store.MissingSource):
        store.fetch("sample", ask=lambda question: False)
    monkeypatch.setenv("CROSSEXPLAIN_DOWNLOAD", "0")
    with pytest.raises(store.MissingSource):
        store.find("sample")
    monkeypatch.setenv("CROSSEXPLAIN_DOWNLOAD", "1")
    with pytest.raises(store.MissingSource, match="was not found"):
        store.find("sample", offline=True)
    assert server.asked == []


def test_question_says_what_how_much_from_where_and_the_terms(sample):
    sample()
    asked = []
    found = store.fetch("sample", ask=lambda question: asked.append(question) or True)
    assert found.origin == "download" and found.path.read_bytes() == BODY
    assert all(part in asked[0] for part in ("a sample", "205 kB", "127.0.0.1", "Terms: none"))


def test_order_is_data_folder_then_cache_then_download(sample, server, cache, monkeypatch, tmp_path):
    sample()
    monkeypatch.setenv("CROSSEXPLAIN_DOWNLOAD", "1")
    assert store.find("sample").origin == "download"
    found = store.find("sample")
    assert (found.origin, found.path) == ("local cache", cache / "a" / "b.bin")
    data = tmp_path / "Daten"
    (data / "a").mkdir(parents=True)
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(data))
    assert store.find("sample").origin == "local cache"  # the folder is there, the file is not
    (data / "a" / "b.bin").write_bytes(BODY)
    found = store.find("sample")
    assert (found.origin, found.path) == ("data folder", data.resolve() / "a" / "b.bin")
    assert server.asked == ["/good/b.bin"]


def test_relative_data_folder_gives_an_absolute_path(sample, monkeypatch, tmp_path):
    sample()
    (tmp_path / "data" / "a").mkdir(parents=True)
    (tmp_path / "data" / "a" / "b.bin").write_bytes(BODY)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CROSSEXPLAIN_DATA", "data")
    assert store.find("sample").path.is_absolute()


def test_data_folder_that_is_none_is_an_error(sample, monkeypatch, tmp_path):
    sample()
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(store.MissingSource, match="nowhere.*no folder"):
        store.find("sample")


def test_only_what_is_missing_is_fetched(sample, server, cache):
    sample(names=("one.bin", "two.bin", "three.bin"))
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "two.bin").write_bytes(BODY)
    found = store.fetch("sample", yes)
    assert found.path == cache / "a"
    assert server.asked == ["/good/one.bin", "/good/three.bin"]


def test_the_command_that_fetches_is_the_one_that_works_here(monkeypatch, tmp_path):
    names = tmp_path / "env" / "bin", tmp_path / "elsewhere"
    for folder in names:
        folder.mkdir(parents=True)
        (folder / "python").write_text("")
        (folder / "python").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(names[0] / "python"))
    monkeypatch.setenv("PATH", str(names[0]))
    assert store.command("fetch", "x") == "python -m crossexplain fetch x"
    monkeypatch.setenv("PATH", str(names[1]))
    assert store.command("fetch", "x") == f"{names[0] / 'python'} -m crossexplain fetch x"
    monkeypatch.chdir(tmp_path)
    assert store.command("fetch", "x") == "env/bin/python -m crossexplain fetch x"


def test_unknown_name_lists_the_known(cache):
    with pytest.raises(ValueError, match="no source 'mnits'.*mnist"):
        store.find("mnits")


# ---------------------------------------------------------------- servers that misbehave


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("short", "broken|IncompleteRead|more expected"),
        ("other", "expected 204,800 bytes and sha256"),
        ("missing", "404"),
        ("page", "54 bytes.*expected 204,800 bytes and sha256"),
        ("hanging", "timed out"),
        ("silent", "timed out"),
        ("dripping", "too slow: 4,096 bytes in [0-9.]+ s, expected at most 0.4 s"),
    ],
)
def test_bad_answers_leave_nothing_and_say_why(sample, cache, monkeypatch, kind, says):
    if kind in ("hanging", "silent"):  # of the others a busy machine may keep one waiting as long
        monkeypatch.setattr(store, "TIMEOUT", (1, 0.5))
    if kind == "dripping":
        monkeypatch.setattr(store, "SLOWEST", 0.4)
    sample(kind)
    with pytest.raises(store.FetchError, match=says) as error:
        store.fetch("sample", yes)
    assert "nothing was kept" in str(error.value) and "fetch sample" in str(error.value)
    assert contents(cache) == []


def test_after_a_bad_answer_the_next_try_succeeds(sample, cache):
    sample("short")
    with pytest.raises(store.FetchError):
        store.fetch("sample", yes)
    sample("good")
    assert store.fetch("sample", yes).path.read_bytes() == BODY
    assert contents(cache) == ["a/b.bin"]


def test_no_server_at_all(sample, server, cache, monkeypatch):
    source = sample()
    gone = File("a/b.bin", len(BODY), (SHA256,), "http://127.0.0.1:9/b.bin")
    monkeypatch.setitem(SOURCES, "sample", Source(*(source.name, "", "", ""), forms=((gone,),)))
    with pytest.raises(store.FetchError, match="refused"):
        store.fetch("sample", yes)
    assert contents(cache) == []


# ---------------------------------------------------------------- a cache that is broken, full, locked, or shared


def test_corrupted_cached_file_is_detected_and_repaired(sample, server, cache, caplog):
    sample()
    path = store.fetch("sample", yes).path
    path.write_bytes(BODY[:-1] + b"?")
    with pytest.raises(store.BrokenSource, match="hash.*fetch sample"):
        store.find("sample")
    with caplog.at_level(logging.WARNING):
        assert store.find("sample", ask=yes).origin == "download"
    assert path.read_bytes() == BODY and "fetched again" in caplog.text


def test_failed_repair_keeps_the_broken_file_visible(sample, cache):
    sample()
    path = store.fetch("sample", yes).path
    path.write_bytes(b"broken")
    sample("missing")
    with pytest.raises(store.FetchError, match="404"):
        store.fetch("sample", yes)
    with pytest.raises(store.BrokenSource):
        store.find("sample")


def test_corrupted_file_in_the_data_folder_is_an_error_and_not_touched(sample, server, cache, monkeypatch, tmp_path):
    sample()
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b.bin").write_bytes(PAGE)
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(tmp_path))
    with pytest.raises(store.BrokenSource, match="54 bytes.*expected 204,800 bytes.*unset CROSSEXPLAIN_DATA"):
        store.find("sample", ask=yes)
    assert (tmp_path / "a" / "b.bin").read_bytes() == PAGE and server.asked == []


def test_source_without_an_address_says_where_to_place_it(cache, monkeypatch):
    source = Source("sample", "a sample", "a friend", "none", forms=((File("a/b.bin", 3, (SHA256,)),),))
    monkeypatch.setitem(SOURCES, "sample", source)
    with pytest.raises(store.MissingSource, match="no address.*data folder"):
        store.find("sample", ask=yes)
    (cache / "a").mkdir(parents=True)
    (cache / "a" / "b.bin").write_bytes(b"bad")
    with pytest.raises(store.BrokenSource, match="delete the file"):
        store.find("sample", ask=yes)


def test_large_file_is_hashed_once_and_again_when_it_changes(sample, cache, monkeypatch):
    monkeypatch.setattr(store, "SMALL", 1000)
    hashed = []
    digest = store._digest
    monkeypatch.setattr(store, "_digest", lambda path, expected: hashed.append(path) or digest(path, expected))
    sample()
    path = store.fetch("sample", yes).path
    store.find("sample")
    hashed.clear()
    store.find("sample")
    assert hashed == []
    store.fetch("sample")  # asks nobody: the file is there, and is hashed whatever was remembered
    assert hashed == [path]
    path.write_bytes(BODY[::-1])
    with pytest.raises(store.BrokenSource):
        store.find("sample")


def test_full_disk_is_seen_before_the_download(sample, server, cache):
    sample(size=1 << 60)
    with pytest.raises(store.FetchError, match="full.*needed"):
        store.fetch("sample", yes)
    assert server.asked == [] and contents(cache) == []


@pytest.mark.skipif(sys.platform == "win32", reason="this system limits no file size")
def test_file_size_limit_in_the_middle_of_a_download(server, cache):
    """What a full disk does to a write, without the right to mount one."""
    limit = f"import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" \
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(BODY) // 2},) * 2)\n"
    process = python(limit + FETCH, server.address("good/b.bin"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1 and "FetchError" in errors and "File too large" in errors
    assert contents(cache) == []


def test_full_disk_in_the_middle_of_a_download(sample, cache, monkeypatch, small_disk):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(small_disk))
    sample("large")  # 4 MB come where 0.2 MB were announced
    with pytest.raises(store.FetchError, match="is full.*No space left"):
        store.fetch("sample", yes)
    assert contents(small_disk) == []
    sample("good")
    assert store.fetch("sample", yes).path.read_bytes() == BODY


@pytest.fixture
def powerless():
    """Run as a user who may not write everywhere, also where the tests run as root."""
    if not hasattr(os, "geteuid"):
        pytest.skip("this system has no user ids")
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        root = os.geteuid() == 0

        def drop():
            if root:
                os.seteuid(65534)

        yield Path(folder), drop
        if root:
            os.seteuid(0)
        for path in Path(folder).rglob("*"):
            path.chmod(0o755)


def test_read_only_cache_serves_and_says_that_it_cannot_be_filled(sample, monkeypatch, powerless):
    monkeypatch.setattr(store, "SMALL", 1000)
    folder, drop = powerless
    (folder / "cache" / "a").mkdir(parents=True)
    (folder / "cache" / "a" / "b.bin").write_bytes(BODY)
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(folder / "cache"))
    sample()
    (folder / "cache").chmod(0o555)
    (folder / "cache" / "a").chmod(0o555)
    drop()
    assert store.find("sample").origin == "local cache"
    sample(names=("other.bin",))
    with pytest.raises(store.FetchError, match="cannot use the cache.*Permission denied.*CROSSEXPLAIN_CACHE"):
        store.fetch("sample", yes)


def test_cache_below_a_file(sample, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "file" / "cache"))
    sample()
    with pytest.raises(store.FetchError, match="cannot use the cache"):
        store.fetch("sample", yes)


def test_kill_in_the_middle_of_a_fetch(sample, server, cache):
    process = python(FETCH, server.address("slow/b.bin"))
    until = time.monotonic() + 60
    while not any(part.stat().st_size for part in cache.glob("a/*.part")) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    assert 0 < next(cache.glob("a/*.part")).stat().st_size < len(BODY)
    assert not (cache / "a" / "b.bin").exists()
    sample()
    with pytest.raises(store.MissingSource):
        store.find("sample")
    assert store.fetch("sample", yes).path.read_bytes() == BODY
    assert contents(cache) == ["a/b.bin"]


def test_two_processes_fetch_once(server, cache):
    processes = [python(FETCH, server.address("slow/b.bin")) for _ in range(2)]
    outcomes = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outcomes
    assert "download" in outcomes[0][0] + outcomes[1][0]
    assert server.asked == ["/slow/b.bin"]
    assert contents(cache) == ["a/b.bin"] and (cache / "a" / "b.bin").read_bytes() == BODY


# ---------------------------------------------------------------- hashes


def test_recompressed_gzip_is_the_same_data(sample, cache):
    sample(hashes=("md5:none", "gunzip-md5:" + hashlib.md5(BODY).hexdigest()))
    (cache / "a").mkdir(parents=True)
    path = cache / "a" / "b.bin"
    for level in (1, 9):
        path.write_bytes(gzip.compress(BODY, level))
        assert store.find("sample").origin == "local cache"
    path.write_bytes(gzip.compress(BODY)[:-20])
    with pytest.raises(store.BrokenSource):
        store.find("sample")


def test_first_digits_of_a_hash_are_enough(sample):
    sample(hashes=(SHA256[: len("sha256:") + 8],))
    assert store.fetch("sample", yes).origin == "download"


# ---------------------------------------------------------------- what is in the registry


def test_embedded_sources_are_always_there(cache):
    for name in ("sklearn-digits", "minilm"):
        found = store.find(name)
        assert found.origin.startswith("embedded: ") and found.path.is_dir()


def test_package_that_is_not_installed(cache, monkeypatch):
    source = Source("sample", "a sample", "", "", package=("no-such", "no_such_module", "x"), package_files=[File("y", 1)])
    monkeypatch.setitem(SOURCES, "sample", source)
    with pytest.raises(store.MissingSource, match="no-such, which is not installed.*pip install"):
        store.find("sample")


def test_package_whose_file_is_not_the_published_one(cache, monkeypatch):
    wrong = File("digits.csv.gz", 1, ("sha256:none",))
    source = Source("sample", "", "", "", package=("scikit-learn", "sklearn", "datasets/data"), package_files=[wrong])
    monkeypatch.setitem(SOURCES, "sample", source)
    with pytest.raises(store.BrokenSource, match="install the package again"):
        store.find("sample")


def test_registry_is_complete():
    for name, source in SOURCES.items():
        assert name == source.name and source.what and source.authors and source.terms and source.size
        assert bool(source.forms) != bool(source.package)
        for file in (file for form in source.forms for file in form):
            assert file.url is None or (file.url.startswith("https://") and file.hashes), file
            assert file.size and not file.path.startswith("/")
        for file in source.download:
            assert file.url.rpartition("/")[2], file
        assert len(source.forms and source.forms[0]) < 2 or source.folder


def test_each_source_says_which_chapters_read_it():
    root = embedded_folder().parent
    readers = ("notebooks", "*.ipynb"), ("src/crossexplain/recipes", "*.py"), ("benchmarks/studies", "*.py")
    texts = [path.read_text("utf-8") for folder, ending in readers for path in (root / folder).glob(ending)]
    by_loaders = {"sklearn-digits", "flickr8k", "voices", "skimage-photographs", "sklearn-photographs", "matplotlib-photograph"}
    for name in SOURCES.keys() - by_loaders:  # the rest is asked for by name
        named = any(f'"{name}"' in text or f'\\"{name}\\"' in text for text in texts)
        assert named == bool(SOURCES[name].chapters), name


def test_every_source_has_a_card():
    cards = embedded_folder() / "cards"
    assert {path.stem for path in cards.glob("*.md")} == set(SOURCES)
    assert all("\n% assembled: source\n" in path.read_text("utf-8") for path in cards.glob("*.md"))


def test_torchvision_names_agree_with_the_hashes():
    names = [file for source in SOURCES.values() for file in source.download if file.path.endswith(".pth")]
    assert len(names) == 3
    for file in names:
        assert file.hashes[0].startswith("sha256:" + file.path.partition(".")[0].rpartition("-")[2])


def test_a_hub_folder_is_fetched_file_by_file_and_loads(monkeypatch, cache, tmp_path):
    """bert-base-uncased's way, with a BERT of one layer."""
    import transformers

    made = tmp_path / "made"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "app"]
    made.mkdir()
    (made / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(str(made / "vocab.txt")).save_pretrained(made)
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    transformers.BertModel(transformers.BertConfig(vocab_size=len(words), **sizes)).save_pretrained(made)
    published = SOURCES["bert-base-uncased"]
    names = [Path(file.path).name for file in published.download]
    with serve(made) as address:
        files = tuple(
            File(file.path, 1, (f"sha256:{hashlib.sha256((made / name).read_bytes()).hexdigest()}",), address + name)
            for file, name in zip(published.download, names)
        )
        here = Source(published.name, published.what, "", "", (files,), published.folder)
        monkeypatch.setitem(SOURCES, published.name, here)
        found = store.fetch(published.name, yes)
    assert sorted(path.name for path in found.path.iterdir()) == sorted(names)
    tokens = transformers.AutoTokenizer.from_pretrained(found.path)(["good app"], return_tensors="pt")
    assert tokens["input_ids"].tolist() == [[2, 5, 6, 3]]
    assert transformers.AutoModel.from_pretrained(found.path)(**tokens).last_hidden_state.shape == (1, 4, 8)


def test_only_what_has_no_hash_may_be_a_folder(tmp_path):
    assert store._complaint(tmp_path, File("photographs", 1)) is None
    assert "there is no file" in store._complaint(tmp_path, File("weights.bin", 1, ("sha256:00",)))


@needs_data
@pytest.mark.parametrize(
    "name", ["mnist", "squeezenet1_0", "imagenet-classes", "photos", "app-reviews", "labelled-sentences", "flickr8k"]
)
def test_real_data_folder(name, monkeypatch, tmp_path):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path))
    found = store.fetch(name)
    assert found.origin == "data folder" and found.path.exists()


@needs_data
def test_real_mnist_served_over_http(monkeypatch, cache):
    """The whole way: a server that holds MNIST, a download, its hashes, and the loader."""
    source = SOURCES["mnist"]
    with serve(Path(DATA).resolve()) as address:
        files = tuple(File(file.path, file.size, file.hashes, address + file.path) for file in source.download)
        here = Source(source.name, source.what, source.authors, source.terms, (files,), source.folder)
        monkeypatch.setitem(SOURCES, "mnist", here)
        monkeypatch.setenv("CROSSEXPLAIN_DOWNLOAD", "1")
        digits = load("mnist")
    assert digits.found.origin == "download" and digits.images.shape == (70_000, 28, 28)
