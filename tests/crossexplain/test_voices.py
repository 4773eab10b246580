"""Recordings of spoken digits: read as they are, or refused with what is wrong."""

import struct
import wave

import numpy as np
import pytest

from crossexplain.data import voices
from crossexplain.data.store import BrokenSource, MissingSource
from crossexplain.data.voices import RATE, WaveError, check_wave, load, read_wave, split


def write(path, samples, rate=RATE, channels=1, width=2):
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(channels)
        stream.setsampwidth(width)
        stream.setframerate(rate)
        stream.writeframes(np.asarray(samples).astype({1: "u1", 2: "<i2"}[width]).tobytes())
    return path


@pytest.fixture
def folder(tmp_path):
    """Recordings of six speakers, two digits, takes of each part."""
    rng = np.random.default_rng(0)
    everybody = [name for names in voices.SPEAKERS.values() for name in names]
    for digit in (0, 7):
        for speaker in everybody:
            for take in (0, 9, 10, 14, 15, 49):
                write(tmp_path / f"{digit}_{speaker}_{take}.wav", rng.integers(-2000, 2000, 50 + take))
    return tmp_path


def test_samples_are_those_that_were_written(tmp_path):
    path = write(tmp_path / "3_ann_0.wav", [0, 16384, -32768, 1])
    samples = read_wave(path)
    assert samples.dtype == np.float32 and samples.tolist() == [0, 0.5, -1, 1 / 32768]
    assert read_wave(path.read_bytes()).tolist() == samples.tolist()


def test_recordings_come_with_digit_speaker_and_take(folder):
    found = load(folder)
    assert len(found) == 72 and found.digits.tolist() == [0] * 36 + [7] * 36
    first = found.waves[0]
    assert (found.speakers[0], found.takes[0], len(first)) == ("george", 0, 50)
    assert first.tolist() == read_wave(folder / "0_george_0.wav").tolist()
    assert "folder" in found.source


def test_no_speaker_and_no_take_is_in_two_parts(folder):
    found = load(folder)
    parts = split(found)
    assert sorted(parts) == ["test", "train", "validation"]
    assert [len(parts[name]) for name in ("train", "validation", "test")] == [12, 4, 8]
    for of in (found.speakers, found.takes):
        sets = [set(of[part].tolist()) for part in parts.values()]
        assert sum(map(len, sets)) == len(set().union(*sets))
    others = split(found, {"train": ("theo",), "validation": ("lucas",), "test": ("george", "nicolas")})
    assert set(found.speakers[others["test"]]) == {"george", "nicolas"}


def test_a_division_that_shares_a_speaker_or_leaves_a_part_empty_is_refused(folder):
    found = load(folder)
    with pytest.raises(voices.InputError, match="nobody in two of them"):
        split(found, {"train": ("theo",), "validation": ("theo",), "test": ("lucas",)})
    with pytest.raises(voices.InputError, match="no recording is left for test: .* takes 0 to 9 are needed of zoe"):
        split(found, {"train": ("theo",), "validation": ("lucas",), "test": ("zoe",)})


@pytest.mark.parametrize("rate, channels, width", [(16000, 1, 2), (8000, 2, 2), (8000, 1, 1)])
def test_another_format_is_refused_with_what_came(tmp_path, rate, channels, width):
    path = write(tmp_path / "x.wav", [100] * 8, rate, channels, width)
    came = f"x.wav has {channels} channels?, {8 * width} bits and {rate:,} samples a second, expected"
    with pytest.raises(WaveError, match=came):
        read_wave(path)


def test_empty_cut_off_and_missing_files_are_refused(tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(WaveError, match=r"empty.wav is empty \(0 bytes\)"):
        read_wave(tmp_path / "empty.wav")
    whole = write(tmp_path / "whole.wav", range(100)).read_bytes()
    for size, message in ((20, "is no whole wav file"), (100, "has 28 of the 100 samples that its head names")):
        with pytest.raises(WaveError, match=message):
            read_wave(whole[:size], "cut.wav")
    with pytest.raises(WaveError, match="has 0 of the 0 samples"):
        read_wave(write(tmp_path / "nothing.wav", []))
    with pytest.raises(WaveError, match="is no whole wav file"):
        read_wave(b"ID3 this is another format", "song.mp3")
    with pytest.raises(MissingSource, match="there is no recording"):
        read_wave(tmp_path / "absent.wav")


def test_floating_samples_in_a_file_are_refused(tmp_path):
    content = struct.pack("<ffff", float("nan"), 0, 0, 0)
    form = struct.pack("<IHHIIHH", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    head = b"RIFF" + struct.pack("<I", 36 + len(content)) + b"WAVEfmt " + form
    with pytest.raises(WaveError, match="unknown format: 3"):
        read_wave(head + b"data" + struct.pack("<I", len(content)) + content)


@pytest.mark.parametrize("samples, message", [
    ([0.0, np.nan, np.inf], r"2 samples that are no number \(the first at 1\)"), ([0.5, 2.5], "reaches 2.5, expected -1 to 1"),
    ([], "has shape"), ([[0.0]], r"has shape \(1, 1\)"), ([1, 2], "of int64, expected"),
])
def test_samples_that_are_no_sound_are_refused(samples, message):
    with pytest.raises(WaveError, match=message):
        check_wave(np.array(samples))


def test_folders_without_recordings_or_with_other_names_are_refused(tmp_path):
    with pytest.raises(MissingSource, match="holds no wav file"):
        load(tmp_path)
    with pytest.raises(MissingSource, match="is no folder of recordings"):
        load(tmp_path / "absent")
    write(tmp_path / "hello.wav", [1])
    with pytest.raises(WaveError, match="holds hello.wav, expected names like 7_jackson_32.wav"):
        load(tmp_path)


def test_the_data_folder_has_to_hold_the_published_recordings(folder, tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "fsdd").mkdir(parents=True)
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(data))
    with pytest.raises(MissingSource, match="fsdd/recordings is neither in the data folder"):
        load()
    (data / "fsdd" / "recordings").symlink_to(folder)
    with pytest.raises(BrokenSource, match="holds 72 recordings, which together are not the 3,000 that were published"):
        load()
