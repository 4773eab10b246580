"""Flickr8k's files: read as published, and every way in which a copy can be wrong is said in one line."""

import hashlib
import logging
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossexplain.data import flickr8k, photos, store
from crossexplain.data.flickr8k_files import IMAGE_ARCHIVE, TEXT_ARCHIVE, CaptionError
from support.serving import serve

needs_data = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"), reason="CROSSEXPLAIN_DATA is not set")
WORDS = "dog cat child boat tree ball snow river street horse".split()


def caption(image: int, number: int) -> str:
    return f"a {WORDS[image % 10]} {number} beside a {WORDS[image // 10 + number]} ."


@pytest.fixture
def folder(tmp_path):
    """A small copy: 12 images of different sizes, the captions of each, and the lists 8, 2, 2."""
    where = tmp_path / "mine"
    (where / "Images").mkdir(parents=True)
    names = [f"{i}_größe.jpg" for i in range(12)]
    for i, name in enumerate(names):
        Image.new("RGB", (20 + i, 30 - i), (20 * i, 0, 0)).save(where / "Images" / name)
    write(where, [f"{name}#{n}\t{caption(i, n)}" for i, name in enumerate(names) for n in range(5)])
    for split, some in {"train": names[:8], "validation": names[8:10], "test": names[10:]}.items():
        (where / flickr8k.LISTS[split]).write_text("\n".join(some) + "\n", encoding="utf-8")
    expert = f"{names[0]}\t{names[1]}#2\t1\t2\t4\n{names[0]}\tgone.jpg#2\t1\t1\t1\n"
    (where / "ExpertAnnotations.txt").write_text(expert, encoding="utf-8")
    (where / "CrowdFlowerAnnotations.txt").write_text(f"{names[0]}\t{names[3]}#0\t0.25\t1\t3\n", encoding="utf-8")
    return where


def write(folder, lines, encoding="utf-8"):
    (folder / flickr8k.TOKENS).write_bytes(("\n".join(lines) + "\n").encode(encoding))


def lines(folder):
    return (folder / flickr8k.TOKENS).read_text(encoding="utf-8").splitlines()


def pack(folder, where):
    """Put a copy into the two archives, as they were published: with what Mac OS adds."""
    where.mkdir()
    with zipfile.ZipFile(where / TEXT_ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in folder.glob("*.txt"):
            archive.write(path, path.name)
    with zipfile.ZipFile(where / IMAGE_ARCHIVE, "w") as archive:
        for path in sorted((folder / "Images").iterdir()):
            archive.write(path, f"Flicker8k_Dataset/{path.name}")
            archive.writestr(f"__MACOSX/Flicker8k_Dataset/{path.name}", "not a photograph")
    return where


def test_a_copy_is_read_as_published(folder):
    data = flickr8k.load(folder)
    assert len(data.names) == 12 and len(data.captions) == 60 and not data.problems
    assert [len(part) for part in data.splits.values()] == [8, 2, 2]
    assert data.captions[7] == caption(1, 2) and data.image_of[7] == 1 and data.keys[7] == "1_größe.jpg#2"
    assert data.captions_of("test").tolist() == list(range(50, 60)) and data.captions_of([1, 0]).tolist()[:2] == [5, 6]
    images = data.images([0, 11], 16)
    assert images.shape == (2, 3, 16, 16) and images.dtype == torch.float32
    assert abs(images[1, 0].mean().item() - 220 / 255) < 0.02
    assert repr(data) == ("12 images (8 train, 2 validation, 2 test), 60 captions, from folder that was named")


def test_judgements(folder):
    data = flickr8k.load(folder)
    expert, crowd = data.judgements("expert"), data.judgements("crowd")
    assert expert.left_out == 1 and expert.scores.tolist() == [[1, 2, 4]]
    assert (expert.image.tolist(), expert.caption.tolist()) == ([0], [7])
    assert crowd.scores.tolist() == [[1, 3]] and data.keys[crowd.caption[0]].startswith("3_")
    with pytest.raises(ValueError, match="'people', expected one of 'expert', 'crowd'"):
        data.judgements("people")


@pytest.mark.parametrize("line", ["a.jpg\tb.jpg#2\t1\t2", "a.jpg\tb.jpg#2\t1\t2\t9", "a.jpg\tb.jpg#2\tone\t2\t3", "a.jpg"])
def test_a_damaged_judgement_is_named(folder, line):
    (folder / "ExpertAnnotations.txt").write_text(f"0_größe.jpg\t1_größe.jpg#2\t1\t2\t4\n{line}\n", encoding="utf-8")
    with pytest.raises(CaptionError, match="ExpertAnnotations.txt, line 2: expected an image, a caption"):
        flickr8k.load(folder).judgements("expert")


def test_the_two_archives_are_read_as_they_are(folder, tmp_path):
    packed = pack(folder, tmp_path / "packed")
    there, here = flickr8k.load(packed, check=True, progress=False), flickr8k.load(folder)
    assert there.captions == here.captions and not there.problems
    assert torch.equal(there.images(range(12), 24), here.images(range(12), 24))
    assert there.fingerprints(range(12)) == here.fingerprints(range(12))
    assert there.judgements("expert").scores.tolist() == here.judgements("expert").scores.tolist()
    assert sorted(path.name for path in packed.iterdir()) == [IMAGE_ARCHIVE, TEXT_ARCHIVE]


def test_the_store_finds_the_archives_in_a_data_folder(folder, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    packed = pack(folder, tmp_path / "data" / "flickr8k")
    source = store.SOURCES["flickr8k"]
    form = tuple(store.File(file.path, file.size) for file in source.forms[-1])
    assert {file.path for file in form} == {f"flickr8k/{path.name}" for path in packed.iterdir()}
    monkeypatch.setitem(store.SOURCES, "flickr8k", store.Source("flickr8k", "", "", "", (source.forms[0], form), "flickr8k"))
    monkeypatch.setenv("CROSSEXPLAIN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))
    data = flickr8k.load()
    assert len(data.names) == 12 and data.found.origin == "data folder"


def test_an_allowed_download_brings_the_archives_once(folder, tmp_path, monkeypatch):
    packed = pack(folder, tmp_path / "served")
    published = store.SOURCES["flickr8k"]
    monkeypatch.delenv("CROSSEXPLAIN_DATA", raising=False)
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(store.MissingSource, match="Flickr8k_text.zip, .*1118 MB|1118 MB.*Flickr8k_text.zip"):
        flickr8k.load()
    with serve(packed) as address:
        form = tuple(store.File(file.path, 1, (f"md5:{hashlib.md5((packed / Path(file.path).name).read_bytes()).hexdigest()}",),
                                address + Path(file.path).name) for file in published.download)
        here = store.Source("flickr8k", "", "", "", (published.forms[0], form), published.folder)
        monkeypatch.setitem(store.SOURCES, "flickr8k", here)
        monkeypatch.setenv("CROSSEXPLAIN_DOWNLOAD", "1")
        assert flickr8k.load().found.origin == "download"
    again = flickr8k.load()
    assert again.found.origin == "local cache" and len(again.names) == 12 and again.images([3], 8).shape == (1, 3, 8, 8)


def test_an_archive_that_was_cut_off(folder, tmp_path):
    packed = pack(folder, tmp_path / "packed")
    whole = (packed / IMAGE_ARCHIVE).read_bytes()
    (packed / IMAGE_ARCHIVE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CaptionError, match="Flickr8k_Dataset.zip is no whole zip file.*again"):
        flickr8k.load(packed)


def test_a_damaged_photograph_in_an_archive_is_left_out(folder, tmp_path, caplog):
    packed = pack(folder, tmp_path / "packed")
    path = packed / IMAGE_ARCHIVE
    photo = (folder / "Images" / "3_größe.jpg").read_bytes()
    path.write_bytes(path.read_bytes().replace(photo[100:200], bytes(100), 1))
    data = flickr8k.load(packed)
    with pytest.raises(photos.PhotoError, match="_größe.jpg cannot be unpacked"):
        data.images(range(12), 8)
    assert len(flickr8k.load(packed, check=True, progress=False).names) == 11


@pytest.mark.parametrize("missing", ["Images", flickr8k.TOKENS, flickr8k.LISTS["test"], "ExpertAnnotations.txt"])
def test_a_missing_file_is_named(folder, missing):
    (folder / missing).rename(folder / "elsewhere")
    with pytest.raises(store.MissingSource, match=missing):
        flickr8k.load(folder).judgements("expert")


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(store.MissingSource, match="there is no folder .*nowhere"):
        flickr8k.load(tmp_path / "nowhere")


def test_no_image_is_in_two_splits_and_no_caption_in_two_pairs_of_different_splits(folder):
    data = flickr8k.load(folder)
    assert len(set(np.concatenate(list(data.splits.values())).tolist())) == 12
    for split in data.splits:
        pairs = data.pairs(split, seed=0)
        assert set(pairs.image.tolist()) == set(data.splits[split].tolist())
        assert set(pairs.caption.tolist()) == set(data.captions_of(split).tolist())


@pytest.mark.parametrize("negatives", flickr8k.NEGATIVES)
@pytest.mark.parametrize("seed", range(5))
def test_negatives_are_of_other_images_and_neither_side_alone_tells_anything(folder, negatives, seed):
    data = flickr8k.load(folder)
    pairs = data.pairs("train", seed, negatives)
    n = len(pairs) // 2
    assert n == 40 and pairs.labels.tolist() == [1] * n + [0] * n
    match = data.image_of[pairs.caption] == pairs.image
    assert np.array_equal(match, pairs.labels == 1)
    for side in (pairs.image, pairs.caption):
        assert np.array_equal(np.sort(side[:n]), np.sort(side[n:]))
    again, other = data.pairs("train", seed, negatives), data.pairs("train", seed + 100, negatives)
    assert np.array_equal(pairs.caption, again.caption) and not np.array_equal(pairs.caption, other.caption)
    assert np.array_equal(pairs.select([1, 50]).labels, [1, 0])


def test_hard_negatives_read_alike(folder):
    data = flickr8k.load(folder)

    def shared(pairs):
        n = len(pairs) // 2
        both = [(set(data.captions[a].split()), set(data.captions[b].split())) for a, b in
                zip(pairs.caption[:n], pairs.caption[n:])]
        return np.mean([len(a & b) / len(a | b) for a, b in both])

    assert shared(data.pairs("train", 0, "hard")) > shared(data.pairs("train", 0, "random")) + 0.1


def test_a_negative_never_has_the_words_of_a_caption_of_the_image(folder):
    same = [line.replace(caption(1, 0), caption(0, 0).replace("a dog", "A  Dog")) for line in lines(folder)]
    write(folder, same)
    data = flickr8k.load(folder)
    words = [" ".join(text.lower().split()) for text in data.captions]
    for seed in range(20):
        for negatives in flickr8k.NEGATIVES:
            pairs = data.pairs("train", seed, negatives)
            n = len(pairs) // 2
            own = {i: {words[c] for c in data.captions_of([i])} for i in range(12)}
            assert not [i for i in range(n, 2 * n) if words[pairs.caption[i]] in own[pairs.image[i]]]


def test_pairs_that_cannot_be_made(folder):
    (folder / flickr8k.LISTS["test"]).write_text("11_größe.jpg\n", encoding="utf-8")
    data = flickr8k.load(folder)
    with pytest.raises(ValueError, match="'test' has too few images"):
        data.pairs("test", 0)
    with pytest.raises(ValueError, match="'dev', expected one of 'train', 'validation', 'test'"):
        data.pairs("dev", 0)
    with pytest.raises(ValueError, match="'easy', expected one of 'random', 'hard'"):
        data.pairs("train", 0, "easy")
    with pytest.raises(ValueError, match="got no index"):
        data.images([], 8)


@pytest.mark.parametrize(("line", "message"), [
    ("0_größe.jpg#9 a dog in the snow .", "line 61: expected IMAGE#NUMBER, a tab .*'0_größe.jpg#9 a dog"),
    ("0_größe.jpg\ta dog in the snow .", "line 61: expected IMAGE#NUMBER, a tab"),
    ("0_größe.jpg#one\ta dog .", "line 61: expected IMAGE#NUMBER, a tab"),
    ("../../secret.jpg#1\ta dog .", "line 61: expected IMAGE#NUMBER, a tab"),
    ("0_größe.jpg#0\tanother dog .", "line 61: 0_größe.jpg#0 is already in line 1;"),
])
def test_a_damaged_caption_is_named_with_its_line(folder, line, message):
    write(folder, [*lines(folder), line])
    with pytest.raises(CaptionError, match=f"Flickr8k.token.txt, {message}"):
        flickr8k.load(folder)


@pytest.mark.parametrize(("encoding", "message"), [
    ("latin-1", "line 1: the byte 0xf6 is not UTF-8; save the file again as UTF-8"),
    ("utf-16", "is UTF-16, expected UTF-8; save it again"),
])
def test_a_wrong_encoding_is_named(folder, encoding, message):
    write(folder, lines(folder), encoding)
    with pytest.raises(CaptionError, match=message):
        flickr8k.load(folder)


def test_an_empty_caption_file(folder):
    (folder / flickr8k.TOKENS).write_bytes(b"\n\n")
    with pytest.raises(CaptionError, match="Flickr8k.token.txt is empty"):
        flickr8k.load(folder)


def test_a_byte_order_mark_and_the_line_ends_of_windows_change_nothing(folder):
    whole = flickr8k.load(folder)
    for path in folder.glob("*.txt"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    again = flickr8k.load(folder)
    assert again.captions == whole.captions and again.keys == whole.keys and not again.problems


def test_captions_of_any_kind_are_kept_as_they_are(folder):
    some = {"5": "", "6": "dog " * 300, "7": "🐕‍🦺 runs 🏃🏽‍♀️", "8": "كلب يركض على الشاطئ", "9": "two\u2028lines"}
    write(folder, [*lines(folder), *(f"0_größe.jpg#{number}\t{text}" for number, text in some.items())])
    data = flickr8k.load(folder)
    kept = dict(zip(data.keys, data.captions))
    assert data.problems == ("1 caption without a word, left out: 0_größe.jpg#5.",)
    assert "0_größe.jpg#5" not in kept and len(kept["0_größe.jpg#6"].split()) == 300
    assert kept["0_größe.jpg#7"] == some["7"] and kept["0_größe.jpg#8"] == some["8"]
    assert kept["0_größe.jpg#9"] == "two lines" and len(data.captions) == 64
    pairs = data.pairs("train", 0, "hard")
    assert len(pairs) == 2 * 44 and not np.intersect1d(pairs.caption[44:], data.captions_of([0]))[10:].size


def test_missing_and_broken_images_are_listed_once_with_a_count(folder, caplog):
    images = folder / "Images"
    (images / "1_größe.jpg").unlink()
    for i in (2, 10):
        (images / f"{i}_größe.jpg").write_bytes(b"")
    whole = (images / "3_größe.jpg").read_bytes()
    (images / "3_größe.jpg").write_bytes(whole[: len(whole) // 2])
    with caplog.at_level(logging.WARNING):
        data = flickr8k.load(folder, check=True, progress=False)
    assert data.problems == (
        "1 image absent, left out with 5 captions: 1_größe.jpg.",
        "2 images empty (0 bytes), left out with 10 captions: 2_größe.jpg, 10_größe.jpg.",
        "1 image damaged, left out with 5 captions: 3_größe.jpg.",
        "3 images of Flickr_8k.trainImages.txt without a readable file or a caption, left out: "
        "1_größe.jpg, 2_größe.jpg, 3_größe.jpg.",
        "1 image of Flickr_8k.testImages.txt without a readable file or a caption, left out: 10_größe.jpg.",
    )
    assert [record.getMessage() for record in caplog.records] == [f"mine: {line}" for line in data.problems]
    assert len(data.names) == 8 and len(data.captions) == 40 and data.images(range(8), 8).shape[0] == 8
    assert set(data.image_of[data.captions_of("train")]) == set(data.splits["train"])


def test_an_image_that_breaks_while_it_is_read_is_named(folder):
    data = flickr8k.load(folder)
    (folder / "Images" / "3_größe.jpg").write_bytes(b"<html>")
    with pytest.raises(photos.PhotoError, match="3_größe.jpg cannot be read"):
        data.images(range(12), 8)


def test_no_image_at_all(folder):
    for path in (folder / "Images").iterdir():
        path.unlink()
    with pytest.raises(CaptionError, match="no caption is left whose image is there; 12 images absent"):
        flickr8k.load(folder)


def test_an_image_belongs_to_one_split(folder):
    with (folder / flickr8k.LISTS["test"]).open("a", encoding="utf-8") as file:
        file.write("0_größe.jpg\n")
    with pytest.raises(CaptionError, match="testImages.txt names 0_größe.jpg, which Flickr_8k.trainImages.txt names"):
        flickr8k.load(folder)


@needs_data
def test_the_real_folder(caplog):
    with caplog.at_level(logging.WARNING):
        data = flickr8k.load()
    assert not caplog.records  # the one problem is known
    assert len(data.names) == 8091 and len(data.captions) == 40_455
    assert np.array_equal(np.bincount(data.image_of), np.full(8091, 5))
    assert {split: len(part) for split, part in data.splits.items()} == {"train": 6000, "validation": 1000, "test": 1000}
    assert len(set(np.concatenate(list(data.splits.values())).tolist())) == 8000
    assert len(data.problems) == 1
    assert data.problems[0].startswith("2 images absent, left out with 5 captions: 2258277193_586949ec62.jpg")
    assert data.images(data.splits["test"][:20], 227).std(dim=(1, 2, 3)).min() > 0.02


@needs_data
@pytest.mark.parametrize("negatives", flickr8k.NEGATIVES)
def test_real_pairs(negatives):
    data = flickr8k.load()
    pairs = data.pairs("test", 0, negatives)
    assert len(pairs) == 10_000 and set(pairs.image.tolist()) == set(data.splits["test"].tolist())
    assert not (data.image_of[pairs.caption[5000:]] == pairs.image[5000:]).any()
    assert np.array_equal(np.sort(pairs.caption[:5000]), np.sort(pairs.caption[5000:]))


@needs_data
def test_real_judgements_agree_with_who_wrote_the_caption():
    data = flickr8k.load()
    for kind, shape in (("expert", (5822, 3)), ("crowd", (47_830, 2))):
        judged = data.judgements(kind)
        assert judged.scores.shape == shape and not judged.left_out
        own = data.image_of[judged.caption] == judged.image
        marks = judged.scores.mean(axis=1) if kind == "expert" else judged.scores[:, 0] / judged.scores.sum(axis=1)
        assert marks[own].mean() > marks[~own].mean() + 0.5
