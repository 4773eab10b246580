"""Models and data by the words of a command line."""

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("pyarrow")

from benchmarks.studies import killed
from crossexplain import InputError, rounds
from crossexplain.runs import explain_dataset, known, read
from support import tiny_clip


def test_a_model_of_the_book_on_drawn_scenes(tmp_path):
    subject, data = known.model("scenes_fusion"), known.DrawnScenes(n=12)
    explain_dataset(subject, data, ["rounds", "grad-cam"], tmp_path / "out", batch=6, progress=False)
    found, examples = read(tmp_path / "out"), [entry.load() for entry in data.entries()]
    record = rounds(subject.model, subject.inputs(examples), subject.modalities, baselines=[{}], control=False, progress=False)
    np.testing.assert_allclose(found.logits()["zero + mask"]["full"], record.passes["zero + mask", "full"].logits, atol=2e-5)
    words = [subject.words(example) for example in examples]
    assert [len(row) for row in found.importance("cross", "text")] == list(map(len, words))
    assert found.manifest["grids"] == {"image": [6, 6]} and len(found.importance("grad-cam", "image")[0]) == 36
    assert found.table["column_label"].to_pylist() == [1, 1, 0, 0] * 3 and found.table["key"][0].as_py() == "foil-0-00000"


def test_a_folder_of_transformers_and_pictures_of_pillow(tmp_path):
    tiny_clip.write(tmp_path / "clip")

    class Photographs(killed.Data):
        def load(self, i):
            pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
            return {"image": Image.fromarray(pixels), "text": ["a dog", "a cat runs", "dog"][i % 3]}

    subject = known.model(str(tmp_path / "clip"))
    done = explain_dataset(subject, Photographs(12), out=tmp_path / "out", batch=4, progress=False)
    found = read(tmp_path / "out")
    assert (done.examples, done.failed) == (12, 0) and found.manifest["configuration"]["model"]["name"] == "clip"
    lengths = [len(subject.words(Photographs().load(i))) for i in range(12)]
    assert [len(row) for row in found.importance("cross", "text")] == lengths


def test_pictures_are_squares_of_one_size():
    tensor = torch.rand(3, 10, 20)
    assert known.pixels(tensor, 8).shape == (3, 8, 8)
    assert torch.equal(known.pixels(Image.new("L", (9, 9), 255), 9), torch.ones(3, 9, 9))
    with pytest.raises(InputError, match="expected one of Pillow"):
        known.pixels("cat.jpg", 8)


def test_a_name_with_a_colon_is_a_function_where_python_finds_its_module():
    assert known.data("benchmarks.studies.killed:data") == killed.Data()
    assert known._is_call("json:loads")
    assert not any(map(known._is_call, ("flickr8k:test", "flickr8k:test:hard", "no.such:thing", "a.csv")))
