"""Spoken digits: the 3,000 recordings of the Free Spoken Digit Dataset, six people who say each digit fifty times."""

import hashlib
import io
import re
import wave
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossexplain.checks import InputError
from crossexplain.data import store
from crossexplain.data.examples import SPLITS

RATE = 8000  # samples a second
FULL_SCALE = 32768  # of a 16-bit sample
DIGEST = "ddb17656a0bca4c5ddace082be188ca630516dc2ef1110afe3c4e9cc71173de4"  # SHA-256 of all, in order of their names
SPEAKERS = {"train": ("george", "jackson", "lucas"), "validation": ("nicolas",), "test": ("theo", "yweweler")}
TAKES = {"train": range(15, 50), "validation": range(10, 15), "test": range(10)}  # the publisher's test part is takes 0 to 4
_NAME = re.compile(r"(\d)_([a-z]+)_(\d+)\.wav")


class WaveError(InputError):
    """A recording cannot be read, or is not what was expected; the message says which, and what to do."""


@dataclass(frozen=True)
class Voices:
    """Recordings of single digits.

    Attributes
    ----------
    waves : list of N ndarrays, float32
        Each of its own length; -1 to 1, ``RATE`` samples a second.
    digits : ndarray of int64, shape (N,)
    speakers : ndarray of str, shape (N,)
    takes : ndarray of int64, shape (N,)
        Which of the recordings of this digit by this speaker.
    source : str
        Where they are from.
    """

    waves: list[np.ndarray]
    digits: np.ndarray
    speakers: np.ndarray
    takes: np.ndarray
    source: str

    def __len__(self) -> int:
        return len(self.waves)


def load(folder: str | Path | None = None) -> Voices:
    """Load all recordings, in order of their names.

    Parameters
    ----------
    folder : path, optional
        Of recordings of your own, named ``{digit}_{speaker}_{take}.wav``. Default: the published ones, checked by their hash.

    Returns
    -------
    Voices

    Raises
    ------
    crossexplain.data.store.MissingSource
        If there is no folder of recordings; the message says how to fetch the published ones.
    crossexplain.data.store.BrokenSource
        If they are not the published ones.
    WaveError
        For a recording that is empty, cut off, or not of one channel, 16 bits and 8,000 samples a second.
    """
    if folder is None:
        found = store.find("voices")
        contents, source = _contents(found.path), f"Free Spoken Digit Dataset, {found.origin}"
        if hashlib.sha256(b"".join(contents.values())).hexdigest() != DIGEST:
            raise store.BrokenSource(f"{found.path} holds {len(contents):,} recordings, which together are not the 3,000 that "
                                     f"were published; place those there, or name another folder in CROSSEXPLAIN_DATA.")
    else:
        contents, source = _contents(Path(folder)), f"the folder {Path(folder).name}"
    digits, speakers, takes = zip(*(parts.groups() for name in contents if (parts := _NAME.fullmatch(name))))
    return Voices([read_wave(content, name) for name, content in contents.items()], np.array(digits, dtype=np.int64),
                  np.array(speakers), np.array(takes, dtype=np.int64), source)


def split(voices: Voices, speakers: Mapping[str, tuple[str, ...]] = SPEAKERS) -> dict[str, np.ndarray]:
    """Divide recordings so that no speaker is in two parts, and no number of a take.

    Two speakers are left for the test, so that two parties of a conversation can have voices of their own there.

    Parameters
    ----------
    voices : Voices
    speakers : mapping of str to sequence of str
        Who is in each part; to divide in other ways.

    Returns
    -------
    dict of str to ndarray of int64
        Numbers of the recordings under ``"train"``, ``"validation"`` and ``"test"``.

    Raises
    ------
    InputError
        If somebody is in two parts, or a part has no recording.
    """
    if set(speakers) != set(SPLITS) or len(everybody := sum(map(tuple, speakers.values()), ())) != len(set(everybody)):
        raise InputError(f"got the speakers {dict(speakers)}, expected those of {', '.join(SPLITS)}, nobody in two of them.")
    parts = {name: np.flatnonzero(np.isin(voices.speakers, speakers[name]) & np.isin(voices.takes, TAKES[name]))
             for name in SPLITS}
    if empty := [name for name, part in parts.items() if not len(part)]:
        raise InputError(f"no recording is left for {' and '.join(empty)}: there are the speakers "
                         f"{', '.join(np.unique(voices.speakers))}; takes {TAKES[empty[0]][0]} to {TAKES[empty[0]][-1]} are "
                         f"needed of {', '.join(speakers[empty[0]])}.")
    return parts


def read_wave(recording: str | Path | bytes, name: str | None = None) -> np.ndarray:
    """Return the samples of a recording, float32 from -1 to 1.

    Parameters
    ----------
    recording : path or bytes
        A wav file of one channel, 16 bits and ``RATE`` samples a second, or its content.
    name : str, optional
        What to call it in an error; default, that of the file.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If there is no such file.
    WaveError
        If it is empty, cut off, or in another format.
    """
    if not isinstance(recording, bytes):
        path, name = Path(recording), name or Path(recording).name
        if not path.is_file():
            raise store.MissingSource(f"there is no recording {path}.")
        recording = path.read_bytes()
    name = name or "the recording"
    if not recording:
        raise WaveError(f"{name} is empty (0 bytes); copy or fetch it again.")
    try:
        with wave.open(io.BytesIO(recording)) as stream:
            form = stream.getnchannels(), 8 * stream.getsampwidth(), stream.getframerate()
            expected, content = stream.getnframes(), stream.readframes(stream.getnframes())
    except (wave.Error, EOFError, RuntimeError) as error:  # the last where a chunk is longer than it may be
        raise WaveError(f"{name} is no whole wav file with whole numbers as samples ({error or 'it ends in its head'}); copy "
                        "it again, or save it as 16-bit PCM.") from error
    if form != (1, 16, RATE):
        raise WaveError(f"{name} has {form[0]} channel{'s'[:form[0] > 1]}, {form[1]} bits and {form[2]:,} samples a second, "
                        f"expected 1 channel, 16 bits and {RATE:,}; convert it, as with `sox IN -c 1 -b 16 -r {RATE} OUT`.")
    if len(content) < 2 * expected or not expected:
        raise WaveError(f"{name} has {len(content) // 2:,} of the {expected:,} samples that its head names; copy it again.")
    return check_wave(np.frombuffer(content, "<i2").astype(np.float32) / FULL_SCALE, name)


def check_wave(samples: np.ndarray, name: str = "the sound") -> np.ndarray:
    """Return samples if they are one row of finite numbers from -1 to 1; raise a :class:`WaveError` if not.

    Examples
    --------
    >>> check_wave(np.array([0.0, np.nan]))
    Traceback (most recent call last):
    ...
    crossexplain.data.voices.WaveError: the sound has 1 sample that is no number (the first at 1), expected -1 to 1.
    """
    samples = np.asarray(samples)
    if samples.ndim != 1 or not samples.size or not np.issubdtype(samples.dtype, np.floating):
        raise WaveError(f"{name} has shape {samples.shape} of {samples.dtype}, expected (n,) of float, n at least 1.")
    if len(bad := np.flatnonzero(~np.isfinite(samples))):
        raise WaveError(f"{name} has {len(bad)} sample{'s that are' if len(bad) > 1 else ' that is'} no number "
                        f"(the first at {bad[0]}), expected -1 to 1.")
    if (peak := float(np.abs(samples).max())) > 1:
        raise WaveError(f"{name} reaches {peak:.4g}, expected -1 to 1; divide 16-bit samples by {FULL_SCALE:,}.")
    return samples


def _contents(path: Path) -> dict[str, bytes]:
    """Return the recordings of a folder by name and in order."""
    files = sorted(path.glob("*.wav"), key=lambda file: file.name)
    if not files:
        raise store.MissingSource(f"{path} {'holds no wav file' if path.is_dir() else 'is no folder of recordings'}.")
    if wrong := [file.name for file in files if not _NAME.fullmatch(file.name)]:
        raise WaveError(f"{path} holds {wrong[0]}, expected names like 7_jackson_32.wav: digit, speaker, take.")
    return {file.name: file.read_bytes() for file in files}
