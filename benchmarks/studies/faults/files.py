"""Broken files of every kind that the package reads: empty, cut off, with other bytes, swapped, missing, a folder."""

import pickle
import wave
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.studies.faults import SILENT, Fault, Outcome, asked
from benchmarks.studies.faults.jobs import BODY, CACHE, TRAIN, model, registered, sums
from crossexplain.checks import InputError
from crossexplain.data import photos, store, voices
from crossexplain.data.flickr8k_files import IMAGE_ARCHIVE, TOKENS, Files, lines_of
from crossexplain.models import checkpoints
from crossexplain.models.weights import WeightsError, read_weights

CARD = {"data": "none", "seed": 0, "command": "none", "accuracy": 0.5}


@dataclass(frozen=True)
class Reader:
    """How a kind of file is made and read.

    Attributes
    ----------
    name : str
    make : callable
        ``make(folder)`` writes whole files and returns the one that is damaged.
    read : callable
        ``read(path)`` returns something that can be compared.
    errors : tuple of exceptions
        That are documented.
    checked : bool
        Whether the format has a checksum, so that another byte can be seen.
    """

    name: str
    make: Callable[[Path], Path]
    read: Callable[[Path], object]
    errors: tuple[type[Exception], ...]
    checked: bool = True


def _weights(folder: Path, suffix: str) -> Path:
    path = folder / f"weights{suffix}"
    if suffix == ".pt":
        torch.save(model().state_dict(), path)
    else:
        checkpoints.save_file(model().state_dict(), path)
    return path


def _read_weights(path: Path) -> str:
    return sums(read_weights(path, model(), "the model").values())


def _checkpoint(folder: Path, suffix: str) -> Path:
    return checkpoints.save(model(), "small", CARD, folder).with_suffix(suffix)


def _read_checkpoint(path: Path) -> str:
    loaded = model(1)
    card = checkpoints.load("small", loaded, path.parent)
    return sums(loaded.state_dict().values()) + card["data"]


def _state(folder: Path) -> Path:
    TRAIN.work(folder)
    return folder / "state.pt"


def _read_state(path: Path) -> str:
    return TRAIN.work(path.parent)


def _cached(folder: Path) -> Path:
    path = folder / CACHE / "a/b.bin"
    path.parent.mkdir(parents=True)
    path.write_bytes(BODY)
    return path


def _read_cached(path: Path) -> bytes:
    with registered(path.parents[2], "http://127.0.0.1:9/"):  # no server there
        return store.find("sample", offline=True).path.read_bytes()


def _picture(folder: Path, form: str) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    path = folder / f"picture.{form}"
    Image.fromarray(pixels).save(path)
    return path


def _sound(folder: Path) -> Path:
    path = folder / "0_who_0.wav"
    with wave.open(str(path), "wb") as stream:
        stream.setparams((1, 2, voices.RATE, 0, "NONE", ""))
        stream.writeframes((1000 * np.sin(np.arange(800))).astype("<i2").tobytes())
    return path


def _captions(folder: Path) -> Path:
    (folder / "Images").mkdir()
    path = folder / TOKENS
    path.write_text("\n".join(f"photo{i}.jpg#0\tein Hund läuft" for i in range(8)), "utf-8")
    return path


READERS = (
    Reader("weights (safetensors)", partial(_weights, suffix=".safetensors"), _read_weights, (WeightsError,), checked=False),
    Reader("weights (state dict)", partial(_weights, suffix=".pt"), _read_weights, (WeightsError,), checked=False),
    Reader("checkpoint", partial(_checkpoint, suffix=".safetensors"), _read_checkpoint, (WeightsError,)),
    Reader("card of a checkpoint", partial(_checkpoint, suffix=".json"), _read_checkpoint, (WeightsError,), checked=False),
    Reader("state of a training", _state, _read_state, (InputError,), checked=False),
    Reader("file in the cache", _cached, _read_cached, (store.MissingSource, store.BrokenSource)),
    Reader("photograph (PNG)", partial(_picture, form="png"), lambda path: sums([photos.read(path)]), (InputError,)),
    Reader("photograph (JPEG)", partial(_picture, form="jpg"), lambda path: sums([photos.read(path)]), (InputError,),
           checked=False),
    Reader("sound", _sound, lambda path: voices.read_wave(path).tobytes(), (InputError, store.MissingSource), checked=False),
    Reader("captions", _captions, lambda path: lines_of(Files(path.parent).text(TOKENS), TOKENS),
           (InputError, store.MissingSource), checked=False),
)


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _other_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[2 * len(content) // 3] ^= 0xFF
    path.write_bytes(bytes(content))


def _web_page(path: Path) -> None:
    path.write_bytes(b"<!DOCTYPE html><html><body>\xff\xfe Please log in</body></html>")


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES = {"empty": _empty, "cut off in the middle": _cut, "another byte": _other_byte, "a web page in its place": _web_page,
           "missing": Path.unlink, "a folder in its place": _folder}


def faults() -> Iterator[Fault]:
    """Give every kind of file with every damage that can be seen in it, and files that are meant to harm."""
    for reader in READERS:
        for what, damage in DAMAGES.items():
            if what == "another byte" and not reader.checked:
                continue
            # A text that is cut off at a line's end is a shorter text: nothing says how long it was.
            if reader.name == "captions" and what in ("empty", "cut off in the middle"):
                continue
            yield Fault(reader.name, what, "told, or made again", partial(_damaged, reader, damage))
    yield Fault("weights (state dict)", "a pickle that runs code", "refused, nothing runs", _running)
    yield Fault("photograph (PNG)", "a small file of 400 million pixels", "refused before it is decoded", _picture_bomb)
    yield Fault("archive of photographs", "a name outside of its folder", "nothing is written outside", _slip)
    yield Fault("archive of photographs", "600 MB in a small file", "refused before it is unpacked", _archive_bomb)


def _damaged(reader: Reader, damage: Callable[[Path], object], folder: Path) -> Outcome:
    path = reader.make(folder)
    right = reader.read(path)
    damage(path)
    return asked(lambda: reader.read(path), right, reader.errors)


class _Harm:
    """When unpickled, writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def _running(folder: Path) -> Outcome:
    path, mark = folder / "weights.pt", folder / "ran"
    path.write_bytes(pickle.dumps({"weight": _Harm(mark)}, protocol=2))
    found = asked(lambda: _read_weights(path), None, (WeightsError,))
    return Outcome(SILENT, "the code ran") if mark.exists() else found


def _picture_bomb(folder: Path) -> Outcome:
    path = folder / "bomb.png"
    Image.new("1", (20_000, 20_000)).save(path)
    return asked(lambda: photos.read(path), None, (InputError,))


def _slip(folder: Path) -> Outcome:
    place = folder / "inner"
    place.mkdir()
    with zipfile.ZipFile(place / IMAGE_ARCHIVE, "w") as content:
        content.writestr("../../outside.jpg", b"x")
    read = asked(lambda: Files(place).open("outside.jpg").read(), b"x", (InputError,))
    outside = list(folder.rglob("outside.jpg"))
    return Outcome(SILENT, f"wrote {outside[0]}") if outside else read


def _archive_bomb(folder: Path) -> Outcome:
    with zipfile.ZipFile(folder / IMAGE_ARCHIVE, "w", zipfile.ZIP_DEFLATED) as content, content.open("a.jpg", "w") as member:
        for _ in range(600):
            member.write(bytes(1 << 20))
    return asked(lambda: len(Files(folder).open("a.jpg").read()), None, (InputError,))
