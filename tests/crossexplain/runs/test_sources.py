"""Every kind of source: what is read, and what each fault does to one example or to all."""

import gzip
import io
import json
import os
import shutil
import tarfile
from importlib.util import find_spec
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image

from crossexplain.checks import InputError
from crossexplain.runs.plan import SourceGone
from crossexplain.runs.sources import of_dataset, open_source
from crossexplain.runs.sources.archives import MEMBER

WORDS = ["a red cup", "two blue balls on sand", "<script>alert(1)</script>"]


def picture(shade: int = 0, side: int = 8) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side + 1), (shade, 10, 20)).save(file, "png")
    return file.getvalue()


def loaded(source) -> list:
    """Return key, shade of the picture, text and columns of each example, or the reason why it failed."""
    found = []
    for entry in source.entries():
        try:
            inputs = entry.load()
        except InputError as error:
            found.append((entry.key, str(error), entry.columns))
            continue
        image = inputs.get("image")
        found.append((entry.key, image and image.getpixel((0, 0))[0], inputs.get("text"), entry.columns))
    return found


def pictures(folder: Path, names=("0.png", "1.png", "2.png")) -> None:
    for shade, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(shade))


def write(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines) + "\n", "utf-8")
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    opened = gzip.open(path, "wb") if path.suffix == ".gz" else open(path, "wb")
    with opened as file, tarfile.open(fileobj=file, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(first: int = 0) -> dict[str, bytes]:
    members = {}
    for i, words in enumerate(WORDS, first):
        members[f"d/{i:06d}.png"] = picture(i)
        members[f"d/{i:06d}.txt"] = words.encode()
        members[f"d/{i:06d}.json"] = json.dumps({"key": str(i), "caption": words, "width": 8, "score": i or 0.5}).encode()
    return members


class TestTables:
    def test_csv_with_types_and_keys(self, tmp_path):
        pictures(tmp_path)
        path = write(tmp_path / "t.csv", "path,caption,label,score,code", f'0.png,"{WORDS[0]}",1,0.5,007',
                     f"1.png,{WORDS[1]},0,,010", f"0.png,{WORDS[2]},1,2,1")
        source = open_source(path)
        assert dict(source.columns) == {"label": int, "score": float, "code": str, "image": str, "words": int}
        assert loaded(source) == [
            ("0.png#0", 0, WORDS[0], {"label": 1, "score": 0.5, "code": "007", "image": "0.png", "words": 3}),
            ("1.png#0", 1, WORDS[1], {"label": 0, "score": None, "code": "010", "image": "1.png", "words": 5}),
            ("0.png#1", 0, WORDS[2], {"label": 1, "score": 2.0, "code": "1", "image": "0.png", "words": 1})]
        assert source.describe() == {"format": "csv", "files": [["t.csv", path.stat().st_size]], "image": "path",
                                     "text": "caption"}
        assert [entry.key for entry in source.entries()] == [entry.key for entry in source.entries()], "may be begun anew"

    def test_json_lines_with_several_captions(self, tmp_path):
        pictures(tmp_path)
        path = write(tmp_path / "t.jsonl", json.dumps({"id": "x", "image": "0.png", "captions": WORDS[:2], "tags": [1]}),
                     json.dumps({"id": "y", "image": "1.png", "captions": WORDS[2:], "label": 3}))
        assert [(key, text) for key, _, text, _ in loaded(open_source(path))] == [
            ("x#0", WORDS[0]), ("x#1", WORDS[1]), ("y#0", WORDS[2])]
        assert "tags" not in open_source(path).columns

    def test_texts_alone(self, tmp_path):
        path = write(tmp_path / "t.tsv", "sentence\tlabel", f"{WORDS[0]}\tgood", "x\tbad")
        assert loaded(open_source(path)) == [("000000", None, WORDS[0], {"label": "good", "words": 3}),
                                             ("000001", None, "x", {"label": "bad", "words": 1})]

    def test_one_example_fails_and_the_others_do_not(self, tmp_path):
        pictures(tmp_path)
        (tmp_path / "1.png").write_bytes(picture()[:40])
        bomb = io.BytesIO()
        Image.new("1", (20_000, 20_000)).save(bomb, "png")
        (tmp_path / "bomb.png").write_bytes(bomb.getvalue())
        os.symlink("loop.png", tmp_path / "loop.png")
        lines = ["0.png,fine", "1.png,cut off", "absent.png,x", ",none", "2.png,  ", "bomb.png,x", "loop.png,x", "2.png,fine"]
        rows = loaded(open_source(write(tmp_path / "t.csv", "image,text", *lines)))
        assert [row[2] == "fine" for row in rows] == [True, *[False] * 6, True]
        for row, words in zip(rows[1:7], ("cannot be read", "absent.png", "no picture", "text is empty", "pixels", "loop.png")):
            assert words in row[1]

    @pytest.mark.parametrize("lines, words", [
        (["image,text", "../x.png,y"], "outside"), (["image,text", "/etc/passwd,y"], "outside"),
        (["image,text", "nowhere.png,y"], "none of the first 1"), (["image,text"], "no row"), ([""], "no row"),
        (["a,b", "c,d"], "image= and text="),
        (["image,path,text", "0.png,0.png,x"], "may each be the image"), (["image,image", "a,b"], "distinct"),
        (["image,text", "0.png,a,b"], "line 2 of t.csv has 3 cells"), (["image,text", '0.png,"open'], "line 2")])
    def test_faults_of_a_whole_table(self, tmp_path, lines, words):
        pictures(tmp_path)
        with pytest.raises(InputError, match=words):
            open_source(write(tmp_path / "t.csv", *lines))

    @pytest.mark.parametrize("content", [b"\xff\xfei\x00", b"image,text\n0.png,\xe9\n"])
    def test_another_encoding(self, tmp_path, content):
        pictures(tmp_path)
        (tmp_path / "t.csv").write_bytes(content)
        with pytest.raises(InputError, match="UTF-8"):
            open_source(tmp_path / "t.csv")

    @pytest.mark.parametrize("line", ["{", "[1]", "[" * 100_000])
    def test_lines_that_are_no_objects(self, tmp_path, line):
        with pytest.raises(InputError, match="line 1 of t.jsonl"):
            open_source(write(tmp_path / "t.jsonl", line))

    def test_unknown_column(self, tmp_path):
        pictures(tmp_path)
        with pytest.raises(InputError, match="did you mean 'text'"):
            open_source(write(tmp_path / "t.csv", "image,text", "0.png,x"), text="texts")

    def test_root(self, tmp_path):
        pictures(tmp_path / "elsewhere")
        path = write(tmp_path / "t.csv", "image,text", f"{tmp_path}/elsewhere/0.png,x", "1.png,y")
        assert [row[1] for row in loaded(open_source(path, root=tmp_path / "elsewhere"))] == [0, 1]

    def test_the_disk_is_taken_away(self, tmp_path):
        pictures(tmp_path / "disk")
        entries = list(open_source(write(tmp_path / "disk" / "t.csv", "image,text", "0.png,x")).entries())
        shutil.rmtree(tmp_path / "disk")
        with pytest.raises(SourceGone, match="bring it back"):
            entries[0].load()


    def test_texts_that_are_no_unicode_and_numbers_that_are_names(self, tmp_path):
        line = json.dumps({"id": "\ud800", "text": "x", "tag": "\udcff", "phash": 2**64})
        (entry,) = open_source(write(tmp_path / "t.jsonl", line)).entries()
        assert (entry.key, entry.columns) == ("\\ud800", {"tag": "\\udcff", "phash": None, "words": 1})
        path = write(tmp_path / "t.csv", "text,phash,year", "x,18446744073709551615,1999", "y,7,2000")
        assert dict(open_source(path).columns) == {"phash": str, "year": int, "words": int}

    def test_names_that_no_file_can_have(self, tmp_path):
        pictures(tmp_path)
        rows = loaded(open_source(write(tmp_path / "t.csv", "image,text", "0.png,fine", f"{'x' * 5000},long", "a\0b,zero")))
        assert [len(row) for row in rows] == [4, 3, 3]
        with pytest.raises(InputError, match="there is no"):
            open_source("x" * 5000)


class TestFolders:
    def test_metadata(self, tmp_path):
        pictures(tmp_path, ("train/0.png", "train/1.png"))
        write(tmp_path / "metadata.csv", "file_name,text,id", f"train/0.png,{WORDS[0]},b", f"train/1.png,{WORDS[1]},a")
        assert [row[:3] for row in loaded(open_source(tmp_path))] == [("b", 0, WORDS[0]), ("a", 1, WORDS[1])]

    def test_classes(self, tmp_path):
        pictures(tmp_path, ("cat/b.png", "dog/a.png", "cat/.hidden.png"))
        assert loaded(open_source(tmp_path)) == [("cat/b.png#0", 0, None, {"image": "cat/b.png", "label": "cat"}),
                                                 ("dog/a.png#0", 1, None, {"image": "dog/a.png", "label": "dog"})]

    def test_nothing_known(self, tmp_path):
        write(tmp_path / "readme.md", "x")
        with pytest.raises(InputError, match="holds readme.md, expected a table"):
            open_source(tmp_path)
        with pytest.raises(InputError, match="there is no"):
            open_source(tmp_path / "absent.csv")


class TestFlickr8k:
    @pytest.fixture
    def folder(self, tmp_path):
        pictures(tmp_path / "Images", [f"{i}.jpg" for i in range(6)])
        write(tmp_path / "Flickr8k.token.txt", *(f"{i}.jpg#{k}\tcaption {i} {k}" for i in range(6) for k in range(2)))
        for part, images in {"train": (0, 1), "dev": (2, 3), "test": (4, 5)}.items():
            write(tmp_path / f"Flickr_8k.{part}Images.txt", *(f"{i}.jpg" for i in images))
        return tmp_path

    def test_captions_and_foils(self, folder):
        rows = loaded(open_source(f"{folder}:test"))
        assert [row[0] for row in rows] == ["4.jpg#0", "4.jpg#1", "5.jpg#0", "5.jpg#1"]
        assert rows[2] == ("5.jpg#0", 5, "caption 5 0", {"label": 1, "split": "test", "image": "5.jpg", "words": 3})
        rows = loaded(open_source(f"{folder}:test:random"))
        assert [row[3]["label"] for row in rows] == [1] * 4 + [0] * 4
        assert len({row[0] for row in rows}) == 8
        assert all(row[2].split()[1] != str(row[1]) for row in rows[4:])
        assert len(loaded(open_source(folder))) == 12

    def test_unknown_split_and_kind(self, folder):
        with pytest.raises(InputError, match="the split"):
            open_source(f"{folder}:tests")
        with pytest.raises(InputError, match="kind of foils"):
            open_source(f"{folder}:test:easy")

    def test_damaged_photograph_costs_itself_alone(self, folder):
        (folder / "Images" / "4.jpg").write_bytes(b"x")
        assert [len(row) for row in loaded(open_source(f"{folder}:test"))] == [3, 3, 4, 4]


class TestArchives:
    @pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
    def test_samples(self, tmp_path, name):
        source = open_source(tar(tmp_path / name, samples()))
        assert dict(source.columns) == {"shard": str, "key": str, "width": int, "score": float, "image": str, "words": int}
        assert loaded(source)[1] == ("d/000001", 1, WORDS[1], {"shard": name, "key": "1", "width": 8, "score": 1.0,
                                                              "image": "d/000001.png", "words": 5})
        assert [row[2] for row in loaded(source)] == WORDS
        assert list(tmp_path.iterdir()) == [tmp_path / name], "nothing is unpacked"

    def test_several_shards(self, tmp_path):
        tar(tmp_path / "s-00.tar", samples())
        tar(tmp_path / "s-01.tar", samples(3))
        for name in ("s-{00..01}.tar", "s-*.tar", ""):
            assert [row[0] for row in loaded(open_source(f"{tmp_path}/{name}"))] == [f"d/{i:06d}" for i in range(6)]
        assert loaded(open_source(tmp_path, key="shard_key"))[0][0] == "s-00.tar/d/000000"
        with pytest.raises(InputError, match="there is no file"):
            open_source(f"{tmp_path}/s-{{00..02}}.tar")
        with pytest.raises(InputError, match="stands for"):
            open_source(f"{tmp_path}/s-{{0..9999999}}.tar")

    def test_one_sample_fails(self, tmp_path):
        members = samples()
        members["d/000000.json"] = b"{"
        members["d/000001.png"] = picture()[:30]
        del members["d/000002.png"]
        rows = loaded(open_source(tar(tmp_path / "s.tar", members | {"e.png": picture(9), "e.txt": b"fine"})))
        for row, words in zip(rows, ("000000.json cannot be read", "cannot be read as an image", "no picture")):
            assert words in row[1]
        assert rows[3][1:3] == (9, "fine")

    @pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "a/../../evil.png"])
    def test_outside_names_are_refused(self, tmp_path, name):
        with pytest.raises(InputError, match="outside of the archive"):
            open_source(tar(tmp_path / "s.tar", {name: picture()}))

    @pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE,
                                      tarfile.GNUTYPE_SPARSE])
    def test_links_and_devices_are_refused(self, tmp_path, kind):
        with tarfile.open(tmp_path / "s.tar", "w") as archive:
            info = tarfile.TarInfo("a.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
        with pytest.raises(InputError, match="link, a device|no whole tar"):
            open_source(tmp_path / "s.tar")

    def test_bombs_are_refused(self, tmp_path):
        with open(tmp_path / "s.tar", "wb") as file:  # a member larger than is read, of which nothing is written
            info = tarfile.TarInfo("a.png")
            info.size = MEMBER + 1
            file.write(info.tobuf())
        with pytest.raises(InputError, match="at most"):
            open_source(tmp_path / "s.tar")
        zeros = bytes(1 << 20)
        with gzip.open(tmp_path / "s.tar.gz", "wb") as file:
            for i in range(100):
                info = tarfile.TarInfo(f"{i}.png")
                info.size = len(zeros)
                file.write(info.tobuf() + zeros)
        with pytest.raises(InputError, match="200 times its size"):
            open_source(tmp_path / "s.tar.gz")

    def test_a_header_that_asks_for_the_memory_is_refused(self, tmp_path):
        info = tarfile.TarInfo("x")
        info.type, info.size = tarfile.XHDTYPE, 1 << 40
        (tmp_path / "s.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT))
        with pytest.raises(InputError, match="at once"):
            open_source(tmp_path / "s.tar")

    @pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
    def test_every_truncation_is_found(self, tmp_path, name):
        whole = tar(tmp_path / name, samples()).read_bytes()
        step = max(len(whole) // 40, 1)
        for end in range(0, len(whole) - tarfile.RECORDSIZE if name == "s.tar" else len(whole) - 9, step):
            (tmp_path / name).write_bytes(whole[:end])
            with pytest.raises(InputError):
                loaded(open_source(tmp_path / name))

    def test_a_header_broken_in_the_middle_is_found(self, tmp_path):
        content = bytearray(tar(tmp_path / "s.tar", samples()).read_bytes())
        second = content.index(b"d/000001.png")
        content[second] ^= 1
        (tmp_path / "s.tar").write_bytes(content)
        with pytest.raises(InputError, match="no whole tar"):
            open_source(tmp_path / "s.tar")


class TestColumns:
    @pytest.fixture
    def pa(self):
        return pytest.importorskip("pyarrow")

    def table(self, pa, first: int = 0):
        images = [{"bytes": picture(i), "path": None if i == 1 else f"{i}.png"} for i in range(first, first + 3)]
        return pa.table({"image": images, "caption": WORDS, "label": [0, 1, None], "tags": [[1], [], [2]]})

    def test_parquet(self, pa, tmp_path):
        from pyarrow import parquet

        parquet.write_table(self.table(pa), tmp_path / "a.parquet", row_group_size=2)
        parquet.write_table(self.table(pa, 3), tmp_path / "b.parquet")
        source = open_source(tmp_path)
        assert dict(source.columns) == {"label": int, "image": str, "words": int}
        assert [row[:3] for row in loaded(source)] == [
            ("0.png#0", 0, WORDS[0]), ("a:000001#0", 1, WORDS[1]), ("2.png#0", 2, WORDS[2]),
            ("3.png#0", 3, WORDS[0]), ("4.png#0", 4, WORDS[1]), ("5.png#0", 5, WORDS[2])]

    def test_binary_and_path_columns(self, pa, tmp_path):
        from pyarrow import parquet

        pictures(tmp_path)
        parquet.write_table(pa.table({"image": [picture(7)], "text": [WORDS]}), tmp_path / "a.parquet")
        assert [row[:3] for row in loaded(open_source(tmp_path / "a.parquet"))] == [
            (f"a:000000#{k}", 7, words) for k, words in enumerate(WORDS)]
        parquet.write_table(pa.table({"file_name": ["0.png", "2.png"], "text": WORDS[:2]}), tmp_path / "metadata.parquet")
        assert [row[:3] for row in loaded(open_source(tmp_path))] == [("0.png#0", 0, WORDS[0]), ("2.png#0", 2, WORDS[1])]

    def test_save_to_disk(self, pa, tmp_path):
        table = self.table(pa)
        with pa.ipc.new_stream(str(tmp_path / "data.arrow"), table.schema) as file:
            file.write_table(table, max_chunksize=2)
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data.arrow"}]}))
        assert [row[:3] for row in loaded(open_source(tmp_path))] == [
            ("0.png#0", 0, WORDS[0]), ("data:000001#0", 1, WORDS[1]), ("2.png#0", 2, WORDS[2])]
        (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "../x.arrow"}]}))
        with pytest.raises(InputError, match="outside"):
            open_source(tmp_path)

    def test_a_picture_that_is_none(self, pa, tmp_path):
        from pyarrow import parquet

        images = [{"bytes": None, "path": "x.png"}, {"bytes": b"", "path": None}, {"bytes": b"GIF", "path": None}, None]
        parquet.write_table(pa.table({"image": images, "text": ["x"] * 4}), tmp_path / "a.parquet")
        rows = loaded(open_source(tmp_path / "a.parquet"))
        for row, words in zip(rows, ("only its name", "no picture", "image", "no picture")):
            assert words in row[1]

    def test_truncated_and_different_files(self, pa, tmp_path):
        from pyarrow import parquet

        parquet.write_table(self.table(pa), tmp_path / "a.parquet")
        whole = (tmp_path / "a.parquet").read_bytes()
        for end in (0, 3, len(whole) // 2, len(whole) - 1):
            (tmp_path / "b.parquet").write_bytes(whole[:end])
            with pytest.raises(InputError, match="b.parquet cannot be read"):
                open_source(tmp_path / "b.parquet")
        parquet.write_table(pa.table({"image": [b""], "text": ["x"]}), tmp_path / "b.parquet")
        with pytest.raises(InputError, match="the same in all files"):
            open_source(tmp_path)


class Numbered(torch.utils.data.Dataset):
    targets = torch.tensor([1, 0])
    columns = {"place": ["a", "b"]}

    def __len__(self):
        return 2

    def __getitem__(self, i):
        return Image.new("RGB", (2, 2), (i, 0, 0)), ["one", ""][i]


class TestDataset:
    def test_items_by_number(self):
        rows = loaded(of_dataset(Numbered(), "mine:make"))
        assert rows == [("000000", 0, "one", {"place": "a", "targets": 1}),
                        ("000001", "the text is empty.", {"place": "b", "targets": 0})]

    def test_mappings_and_own_keys(self):
        data = Numbered()
        data.keys = lambda: ["x", "y"]
        source = of_dataset([{"images": torch.ones(1), "text": "x"}], "mine:make")
        assert next(source.entries()).load()["images"].tolist() == [1.0]
        assert [entry.key for entry in of_dataset(data, "m").entries()] == ["x", "y"]

    def test_refused(self):
        with pytest.raises(InputError, match="no stable ids"):
            of_dataset(iter([1]), "mine:make")
        data = Numbered()
        data.keys = ["x"]
        with pytest.raises(InputError, match="keys of m has 1 entries"):
            of_dataset(data, "m")


class TestDamage:
    """Files with random damage are read, or refused in words; no other error comes out."""

    def kinds(self, folder: Path) -> dict[str, Path]:
        pictures(folder)
        cells = [f'{i}.png,"{words}",{i}' for i, words in enumerate(WORDS)]
        objects = [json.dumps({"image": f"{i}.png", "text": words, "label": i}) for i, words in enumerate(WORDS)]
        made = {"csv": write(folder / "t.csv", "image,text,label", *cells), "jsonl": write(folder / "t.jsonl", *objects),
                "tar": tar(folder / "s.tar", samples()), "tar.gz": tar(folder / "s.tar.gz", samples())}
        if find_spec("pyarrow"):
            import pyarrow as pa
            from pyarrow import parquet

            images = [{"bytes": picture(i), "path": f"{i}.png"} for i in range(3)]
            parquet.write_table(pa.table({"image": images, "text": WORDS}), folder / "a.parquet")
            made["parquet"] = folder / "a.parquet"
        return made

    @pytest.mark.parametrize("kind", ["csv", "jsonl", "tar", "tar.gz", "parquet"])
    def test_random_damage(self, tmp_path, kind):
        made = self.kinds(tmp_path)
        if kind not in made:
            pytest.skip("pyarrow is not installed")
        whole, random = made[kind].read_bytes(), Random(0)
        outcomes = set()
        for i in range(200):
            content = bytearray(whole)
            for _ in range(random.choice((1, 1, 3, 30))):
                place = random.randrange(len(content))
                how = random.randrange(3)
                if how == 0:
                    content[place] ^= 1 << random.randrange(8)
                elif how == 1:
                    del content[place : place + random.randrange(1, 40)]
                else:
                    content[place:place] = random.randbytes(random.randrange(1, 40))
                if not content:
                    break
            path = tmp_path / f"damaged{i}.{kind}"
            path.write_bytes(content)
            try:
                outcomes.add(len(loaded(open_source(path))))
            except InputError:
                outcomes.add("refused")
            path.unlink()
        assert "refused" in outcomes
