"""Work that is cut off: killed, stopped, run twice at once, on a full, read-only or vanished disk; then it is asked again."""

import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.studies import killed as small
from benchmarks.studies.faults import LOST, RIGHT, SILENT, TOLD, Fault, Outcome, asked
from crossexplain.checks import InputError
from crossexplain.data import store
from crossexplain.data.registry import SOURCES, File, Source
from crossexplain.files import digest, write_whole
from crossexplain.models import checkpoints
from crossexplain.models.encodings import EncodingError, encode
from crossexplain.models.training import TensorBatches, fit
from crossexplain.models.weights import WeightsError
from crossexplain.runs import Stopped, explain_dataset, read
from crossexplain_book.cli import main

BODY = bytes(range(256)) * 800  # of the file that is fetched
CACHE = "cache"
PAGE = b"<!DOCTYPE html><html><body>Please log in</body></html>"
PATIENCE = 60.0  # seconds until a child that does not end is taken for hanging
ROOM = "4m"  # size of the small disk
KILLS = 20  # of each job


@dataclass(frozen=True)
class Job:
    """Work that writes into a folder and can be asked again.

    Attributes
    ----------
    name : str
    work : callable
        ``work(folder)`` returns what can be compared: the same for every call that ends.
    errors : tuple of exceptions
        That are documented.
    """

    name: str
    work: Callable[[Path], str]
    errors: tuple[type[Exception], ...]


def model(seed: int = 0) -> nn.Module:
    """Return a small model."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64)).eval()


def sums(tensors) -> str:
    """Return the digest of tensors."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(tensor.detach().contiguous().numpy().tobytes())
    return total.hexdigest()


def _vectors(count: int) -> Tensor:
    return torch.rand(count, 16, generator=torch.Generator().manual_seed(1))


def _encode(folder: Path) -> str:
    vectors = _vectors(400)
    features = encode(model(), lambda rows: {"input": vectors[rows]}, [str(i) for i in range(400)], folder / "encodings",
                      settings={}, batch_size=8, shard_size=16, progress=False)
    return sums([features[list(range(400))]])


def _train(folder: Path) -> str:
    inputs = _vectors(256)
    data, trained = TensorBatches({"input": inputs}, (inputs[:, 0] > 0.5).long()), nn.Sequential(model(), nn.Linear(64, 2))
    with torch.no_grad():
        trained[1].weight.fill_(0.01)
        trained[1].bias.zero_()
    fit(trained, data, None, epochs=8, lr=1e-2, seed=0, loss=nn.functional.cross_entropy, batch_size=32, progress=False,
        checkpoint=folder / "state.pt", device="cpu")
    return sums(trained.state_dict().values())


def _keep(folder: Path) -> str:
    card = {"data": "none", "seed": 0, "command": "none", "accuracy": 0.5}
    for seed in range(10):
        checkpoints.save(model(seed), "small", card, folder)
    loaded = model()
    checkpoints.load("small", loaded, folder)
    return sums(loaded.state_dict().values())


def _write(folder: Path) -> str:
    for number in range(40):
        write_whole(folder / "file.bin", lambda part, fill=number: part.write_bytes(bytes([fill]) * 500_000))
    content = (folder / "file.bin").read_bytes()
    return "whole" if content == content[:1] * 500_000 else "torn"  # whoever wrote last


def _explain(folder: Path) -> str:
    out = folder / "results"
    explain_dataset(small.subject(), small.Data(), small.METHODS, out, part=small.PART, batch=small.BATCH, progress=False)
    return digest(*read(out).table.drop_columns(["seconds"]).to_pylist())


def _command(folder: Path) -> str:
    """Explain by the command; raise :class:`Ended` with its last line unless it ends well."""
    told, out = io.StringIO(), folder / "results"
    with redirect_stderr(told), redirect_stdout(io.StringIO()):
        code = main(["explain", "--model", f"{small.__name__}:subject", "--data", f"{small.__name__}:data", "--out", str(out),
                     "--part", str(small.PART), "--batch", str(small.BATCH)])
    if code:
        raise Ended(f"code {code}: {told.getvalue().strip().splitlines()[-1]}")
    return digest(*read(out).table.drop_columns(["seconds"]).to_pylist())


class Ended(Exception):
    """A command ended with another code than 0; the message is its last line."""


TRAIN = Job("training", _train, (InputError, OSError))
EXPLAIN = Job("explaining a data set", _explain, (InputError, Stopped))
JOBS = (
    EXPLAIN,
    Job("the command explain", _command, (Ended,)),
    Job("encoding", _encode, (EncodingError, InputError)),
    TRAIN,
    Job("checkpoint", _keep, (WeightsError, OSError)),
    Job("one file", _write, (OSError,)),
)


class _Answer(BaseHTTPRequestHandler):
    """Answers by the first part of the path, in every way that a server can."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        body = {"page": PAGE, "other bytes": BODY[::-1], "other%20bytes": BODY[::-1]}.get(kind, BODY)
        if kind == "missing":
            return self.send_error(404)
        if kind == "silent":
            return self.server.over.wait()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind in ("short", "hanging"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self.server.over.wait() if kind == "hanging" else None
        for at in range(0, len(body), 8192):
            self.wfile.write(body[at : at + 8192])
            time.sleep(0.004 if kind == "slow" else 0)
        return None

    def log_message(self, *_) -> None:
        """Say nothing."""


@contextmanager
def server() -> Iterator[str]:
    """Serve on this machine alone; give the address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Answer) as running:
        running.daemon_threads, running.over = True, threading.Event()
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{running.server_port}/"
        finally:
            running.over.set()
            running.shutdown()
            thread.join()


@contextmanager
def registered(folder: Path, address: str) -> Iterator[None]:
    """Let a source of one file be known, with a cache in a folder and no data folder."""
    file = File("a/b.bin", len(BODY), ("sha256:" + hashlib.sha256(BODY).hexdigest(),), address)
    source = Source("sample", "a sample", "this bench", "none", forms=((file,),))
    settings = {"CROSSEXPLAIN_CACHE": str(folder / CACHE), "CROSSEXPLAIN_DATA": "", "CROSSEXPLAIN_DOWNLOAD": "",
                "NO_PROXY": "127.0.0.1"}
    with patch.dict(SOURCES, {"sample": source}), patch.dict(os.environ, settings), patch.object(store, "TIMEOUT", (1, 1)):
        yield


def _fetch(address: str, folder: Path) -> str:
    with registered(folder, address):
        return hashlib.sha256(store.fetch("sample", ask=lambda question: True).path.read_bytes()).hexdigest()


FETCHED = (store.FetchError, store.MissingSource, store.BrokenSource)


class Child:
    """A process of its own that does a job; :meth:`ended` gives what it returned, an exception, or None if it was killed.

    It is a fork of a process that has done nothing but import: a fork of one with threads may never end.
    """

    def __init__(self, call: Callable[[], object]):
        self.reading, writing = small.CONTEXT.Pipe(duplex=False)
        self.process = small.CONTEXT.Process(target=_work, args=(call, writing))
        self.process.start()
        writing.close()

    def ended(self) -> object:
        """Wait for the end."""
        found = None
        if self.reading.poll(PATIENCE):
            with suppress(EOFError):
                found = self.reading.recv()
        else:
            self.stop()
        self.process.join()
        return found

    def stop(self, by: int = signal.SIGKILL) -> None:
        """Send a signal."""
        with suppress(ProcessLookupError):
            os.kill(self.process.pid, by)


def _work(call: Callable[[], object], writing: Connection) -> None:
    """Do a job and send what came of it, an exception included."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    try:
        found: object = call()
    except BaseException as error:  # the parent looks at it, whatever it is
        found = error
    try:
        writing.send(found)
    except Exception:  # an error that holds something that cannot be sent
        writing.send(RuntimeError(str(found)))


def again(call: Callable[[], object]) -> object:
    """Return what a call gives in a process of its own, or raise its error."""
    found = Child(call).ended()
    if isinstance(found, BaseException):
        raise found
    return found


def faults() -> Iterator[Fault]:
    """Give every job with every way in which it is cut off."""
    for job in JOBS:
        for what, cut in CUTS.items():
            yield Fault(job.name, what, "told, nothing lost, and the same call goes on", partial(cut, job))
        yield Fault(job.name, f"killed {KILLS} times at random moments", "the same call goes on, with the same result",
                    partial(killed, job), slow=True)
        yield Fault(job.name, "two at once", "both end with the same result", partial(_twice, job))
        yield Fault(job.name, "the clock set back a year", "the same result", partial(_clock, job))
        for what, name in NAMES.items():
            yield Fault(job.name, f"a folder with {what}", "the same result", partial(_named, name, job))
        yield Fault(job.name, "a folder that is a loop of links", "told", partial(_loop, job))
    for kind in ("page", "missing", "other bytes", "short", "silent", "hanging"):
        yield Fault("fetching", f"a server that answers: {kind}", "told, nothing kept; a good server gives it afterwards",
                    partial(_bad_server, kind), slow=kind in ("silent", "hanging"))
    yield Fault("fetching", "no server", "told, nothing kept; a server gives it afterwards", partial(_bad_server, None))
    yield Fault("fetching", f"killed {KILLS} times at random moments", "the same call gives the whole file", _killed_fetch,
                slow=True)
    yield Fault("fetching", "two at once", "both give the whole file", _two_fetch)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """Mount a small disk, where that is allowed."""
    place = folder / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", place], check=True, capture_output=True)


def can_mount() -> bool:
    """Return whether a small disk can be had here."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with small_disk(Path(folder)):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False


def _goes_on(job: Job, folder: Path, right: str, before: Outcome) -> Outcome:
    """Return the outcome of a fault, after the job was asked again without it."""
    if before.kind not in (TOLD, RIGHT):
        return before
    after = asked(lambda: again(partial(job.work, folder)), right, ())
    return before if after.kind == RIGHT else Outcome(LOST, f"asked again: {after.words}")


def _right(job: Job, folder: Path) -> str:
    place = folder / "whole"
    place.mkdir()
    return str(again(partial(job.work, place)))


def _full(job: Job, folder: Path) -> Outcome:
    right = _right(job, folder)
    with small_disk(folder) as disk:
        filler = disk / "filler"
        with suppress(OSError), filler.open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(4096))
        found = asked(lambda: again(partial(job.work, disk)), right, job.errors)
        filler.unlink()
        return _goes_on(job, disk, right, found)


def _read_only(job: Job, folder: Path) -> Outcome:
    right = _right(job, folder)
    with small_disk(folder) as disk:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True, capture_output=True)
        found = asked(lambda: again(partial(job.work, disk)), right, job.errors)
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True, capture_output=True)
        return _goes_on(job, disk, right, found)


def _vanished(job: Job, folder: Path) -> Outcome:
    right, place = _right(job, folder), folder / "place"
    place.mkdir()
    child = Child(partial(job.work, place))
    time.sleep(0.03)
    shutil.rmtree(place, ignore_errors=True)
    found = child.ended()
    outcome = asked(lambda: _given(found), right, job.errors)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return _goes_on(job, place, right, outcome)


def _given(found: object) -> object:
    if isinstance(found, BaseException):
        raise found
    return found


def _file_in_place(job: Job, folder: Path) -> Outcome:
    right, place = _right(job, folder), folder / "place"
    place.write_text("a file")
    outcome = asked(lambda: again(partial(job.work, place)), right, job.errors)
    place.unlink()
    place.mkdir()
    return _goes_on(job, place, right, outcome)


def _signal(by: int, job: Job, folder: Path) -> Outcome:
    right, place = _right(job, folder), folder / "place"
    place.mkdir()
    child = Child(partial(job.work, place))
    time.sleep(0.03)
    child.stop(by)
    child.ended()
    return _goes_on(job, place, right, Outcome(RIGHT))


CUTS = {
    "a full disk": _full,
    "a read-only disk": _read_only,
    "its folder removed meanwhile": _vanished,
    "a file in place of its folder": _file_in_place,
    "interrupted (SIGINT)": partial(_signal, signal.SIGINT),
    "ended (SIGTERM)": partial(_signal, signal.SIGTERM),
}
NAMES = {"letters of many scripts": "räume 数据 🙂", "a very long name": "x" * 200, "spaces and quotes": "a  'b' \"c\" $d"}


def killed(job: Job, folder: Path, kills: int = KILLS, seed: int = 0) -> Outcome:
    """Kill a job at random moments, each time in a new folder, and ask it again there."""
    right, dice = _right(job, folder), random.Random(seed)
    started = time.perf_counter()
    again(partial(job.work, _new(folder, "timed")))
    whole = time.perf_counter() - started
    for number in range(kills):
        place = _new(folder, f"kill {number}")
        child = Child(partial(job.work, place))
        time.sleep(dice.uniform(0, whole))
        child.stop()
        child.ended()
        if (outcome := _goes_on(job, place, right, Outcome(RIGHT))).kind != RIGHT:
            return outcome
    return Outcome(RIGHT, f"{kills} kills")


def _new(folder: Path, name: str) -> Path:
    (place := folder / name).mkdir()
    return place


def _twice(job: Job, folder: Path) -> Outcome:
    right, place = _right(job, folder), _new(folder, "place")
    children = [Child(partial(job.work, place)) for _ in range(2)]
    for found in [child.ended() for child in children]:
        if (outcome := asked(partial(_given, found), right, job.errors)).kind != RIGHT:
            return outcome
    return Outcome(RIGHT)


def _clock(job: Job, folder: Path) -> Outcome:
    right, place = _right(job, folder), _new(folder, "place")
    again(partial(job.work, place))

    return asked(lambda: again(partial(_a_year_ago, job.work, place)), right, job.errors)


def _a_year_ago(work: Callable[[Path], str], place: Path) -> str:
    now = time.time
    with patch.object(time, "time", lambda: now() - 365 * 86_400):
        return work(place)


def _named(name: str, job: Job, folder: Path) -> Outcome:
    return asked(lambda: again(partial(job.work, _new(folder, name))), _right(job, folder), job.errors)


def _loop(job: Job, folder: Path) -> Outcome:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return asked(lambda: again(partial(job.work, folder / "a")), None, (*job.errors, OSError))


def _bad_server(kind: str | None, folder: Path) -> Outcome:
    right = hashlib.sha256(BODY).hexdigest()
    with server() as address:
        bad = f"{address}{kind}/b.bin".replace(" ", "%20") if kind else "http://127.0.0.1:9/b.bin"
        found = asked(lambda: _fetch(bad, folder), right, FETCHED)
        kept = [path for path in (folder / CACHE).rglob("b.bin*")]
        if found.kind != TOLD or kept:
            return found if found.kind != TOLD else Outcome(SILENT, f"kept {kept[0].name}")
        after = asked(lambda: _fetch(f"{address}good/b.bin", folder), right, FETCHED)
        return found if after.kind == RIGHT else Outcome(LOST, after.words)


def _killed_fetch(folder: Path) -> Outcome:
    with server() as address:
        return killed(Job("fetching", partial(_fetch, f"{address}slow/b.bin"), FETCHED), folder)


def _two_fetch(folder: Path) -> Outcome:
    with server() as address:
        return _twice(Job("fetching", partial(_fetch, f"{address}slow/b.bin"), FETCHED), folder)
