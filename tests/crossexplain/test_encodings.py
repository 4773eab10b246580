"""Encodings: the features that the model gives, whatever happened while they were written."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
import torch
from torch import nn

from crossexplain.data import flickr8k, store
from crossexplain.models import bert, vgg
from crossexplain.models.encodings import EncodingError, encode
from crossexplain.recipes import encodings as recipe

needs_data = pytest.mark.skipif(not os.environ.get("CROSSEXPLAIN_DATA"), reason="CROSSEXPLAIN_DATA is not set")
N = 50


class Inputs:
    """Vectors, or sentences of different lengths; counts how many were asked for."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.vectors = torch.randn(N, 6, generator=generator)
        self.lengths = torch.randint(1, 9, (N,), generator=generator).tolist()
        self.names = [f"input {i}" for i in range(N)]
        self.asked = []

    def batch(self, indices):
        self.asked += indices
        return {"input": self.vectors[indices]}

    def sentences(self, indices):
        self.asked += indices
        mask = torch.arange(max(self.lengths[i] for i in indices)) < torch.tensor([self.lengths[i] for i in indices])[:, None]
        return {"ids": torch.tensor(indices)[:, None] * mask, "mask": mask.long()}


class Reader(nn.Module):
    """Gives each token a vector that depends on sentence and place."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(N, 4, _weight=torch.arange(4.0 * N).reshape(N, 4) / 100)

    def forward(self, ids, mask):
        return self.embedding(ids) + torch.arange(ids.shape[1])[:, None]


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU()).eval()


@pytest.fixture
def inputs():
    return Inputs()


def run(model, inputs, folder, **named):
    named = {"settings": {"layer": "last"}, "shard_size": 8, "batch_size": 3, "progress": False, **named}
    return encode(model, inputs.batch, inputs.names, folder, **named)


def shards(folder):
    """Return the shards that are finished: those with their note."""
    return sorted(note.with_suffix(".npy") for note in folder.glob("*/[0-9]*.json"))


def test_features_are_those_of_the_model(model, inputs, tmp_path):
    found = run(model, inputs, tmp_path)
    truth = torch.cat([model(part) for part in inputs.vectors.split(3)]).detach()
    assert len(found) == N and found.shape == (5,)
    assert torch.allclose(found[range(N)], truth, rtol=5e-4, atol=1e-6)
    assert torch.equal(found[torch.tensor([41, 3, 3])], found[range(N)][[41, 3, 3]]) and found[[]].shape == (0, 5)


def test_features_take_two_bytes_a_number(model, inputs, tmp_path):
    found = run(model, inputs, tmp_path)
    assert found[range(N)].dtype == torch.float32
    assert sum(np.load(path).nbytes for path in found.folder.glob("*.npy")) == N * 5 * 2


def test_nothing_is_encoded_twice(model, inputs, tmp_path):
    first = run(model, inputs, tmp_path)
    assert sorted(inputs.asked) == list(range(N))
    again = run(model, inputs, tmp_path)
    assert len(inputs.asked) == N and torch.equal(first[range(N)], again[range(N)])


def test_other_weights_settings_or_inputs_are_another_encoding(model, inputs, tmp_path):
    folders = {run(model, inputs, tmp_path).folder, run(model, inputs, tmp_path, settings={"layer": "first"}).folder}
    inputs.names[3] = "another content"
    folders.add(run(model, inputs, tmp_path).folder)
    with torch.no_grad():
        model[0].bias[0] += 1e-6
    folders.add(run(model, inputs, tmp_path).folder)
    assert len(folders) == 4
    about = json.loads((run(model, inputs, tmp_path).folder / "about.json").read_text())
    assert about["settings"] == {"layer": "last"} and about["number"] == N and about["model"] == "Sequential"


@pytest.mark.parametrize("sort", [False, True])
def test_rows_of_texts_of_different_lengths(inputs, tmp_path, sort):
    reader = Reader().eval()
    lengths = inputs.lengths if sort else None
    found = encode(reader, inputs.sentences, inputs.names, tmp_path, settings={}, mask="mask", lengths=lengths,
                   shard_size=8, batch_size=3, progress=False)
    assert found.shape == (4,) and len(found) == N
    if sort:
        assert [inputs.lengths[i] for i in inputs.asked] == sorted(inputs.lengths)
    some = [17, 2, 49]
    values, mask = found.padded(some)
    assert mask.sum(1).tolist() == [inputs.lengths[i] for i in some] and values.shape[:2] == mask.shape
    for row, i in zip(values, some):
        n = inputs.lengths[i]
        assert torch.allclose(row[:n], reader.embedding.weight[i] + torch.arange(n)[:, None], atol=1e-2)
        assert not row[n:].any()
    assert torch.equal(found[some], values[mask])


def test_other_shapes_than_a_vector(model, inputs, tmp_path):
    found = run(model, inputs, tmp_path, forward=lambda input: model(input)[:, :4].reshape(-1, 2, 2, 1))
    assert found.shape == (2, 2, 1) and found[[3, 4]].shape == (2, 2, 2, 1)
    for wrong in (50, -1):
        with pytest.raises(IndexError, match=f"input {wrong} was asked for, there are 50"):
            found[[wrong]]


SLOW = """
    import sys, time
    import torch
    from crossexplain.models.encodings import encode
    from test_encodings import Inputs
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU()).eval()
    inputs = Inputs()
    def slow(input):
        time.sleep(0.05)
        return model(input)
    found = encode(model, inputs.batch, inputs.names, sys.argv[1], settings={"layer": "last"}, shard_size=8, batch_size=3,
                   forward=slow, progress=False)
    print(len(inputs.asked))
"""


def start(folder):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(
        [os.path.dirname(__file__), *filter(None, [os.environ.get("PYTHONPATH")])])}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(SLOW), str(folder)], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_killed_process_costs_one_shard(model, inputs, tmp_path):
    process = start(tmp_path)
    deadline = time.monotonic() + 120
    while len(shards(tmp_path)) < 2 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = len(shards(tmp_path))
    assert 2 <= done < 7
    half = shards(tmp_path)[0].parent / ".00006.npy.x.part"
    half.write_bytes(b"half")
    found = run(model, inputs, tmp_path)
    assert len(inputs.asked) == N - 8 * done and not half.exists()
    assert torch.equal(found[range(N)], run(model, Inputs(), tmp_path / "uncut")[range(N)])


def test_two_processes_encode_once(tmp_path):
    both = [start(tmp_path) for _ in range(2)]
    out = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0], out
    assert sum(int(text) for text, _ in out) == N


@pytest.mark.parametrize("damage", ["flipped", "short", "empty", "other", "note"])
def test_a_damaged_shard_is_made_again(model, inputs, tmp_path, damage, caplog):
    truth = run(model, inputs, tmp_path)[range(N)].clone()
    path = shards(tmp_path)[2]
    whole = path.read_bytes()
    if damage == "note":
        path.with_suffix(".json").write_text("{")
    path.unlink()  # not written over: the first call's memory map would change with it
    path.write_bytes({"flipped": whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:], "short": whole[:-3], "empty": b"",
                      "note": whole, "other": shards(tmp_path)[-1].read_bytes()}[damage])
    inputs.asked.clear()
    found = run(model, inputs, tmp_path)
    assert inputs.asked == list(range(16, 24)) and torch.equal(found[range(N)], truth)
    assert "is damaged; it is made again" in caplog.text


def test_a_limit_on_the_size_of_files_loses_nothing(model, inputs, tmp_path):
    code = textwrap.dedent("""
        import resource, signal, sys
        import torch
        from crossexplain.models.encodings import EncodingError, encode
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        model = torch.nn.Linear(4, 4000).eval()
        limited = []
        def batch(indices):
            if indices[0] == 16:
                resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
            return {"input": torch.ones(len(indices), 4)}
        try:
            encode(model, batch, [str(i) for i in range(40)], sys.argv[1], settings={}, shard_size=8, progress=False)
        except EncodingError as error:
            print(error)
    """)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert "00002.npy was not written" in done.stdout and "2 finished shards are kept" in done.stdout, done.stderr
    assert len(shards(tmp_path)) == 2 and not list(tmp_path.glob("*/.*.part"))


def test_a_full_disk_is_said_and_loses_nothing(inputs, small_disk):
    wide = nn.Linear(6, 5000).eval()  # 80 kB a shard
    (small_disk / "other").write_bytes(bytes(300_000))

    def batch(indices):
        if indices[0] == 32 and not (small_disk / "more").exists():  # another program fills the disk meanwhile
            (small_disk / "more").write_bytes(bytes(300_000))
        return inputs.batch(indices)

    with pytest.raises(EncodingError, match="the disk is full. [4-6] finished shards are kept: make room"):
        encode(wide, batch, inputs.names, small_disk, settings={}, shard_size=8, progress=False)
    with pytest.raises(EncodingError, match="takes 0.. MB more and .* has 0.. MB free"):
        encode(wide, inputs.batch, inputs.names, small_disk, settings={}, shard_size=8, progress=False)
    done = len(shards(small_disk))
    (small_disk / "other").unlink()
    inputs.asked.clear()
    found = encode(wide, inputs.batch, inputs.names, small_disk, settings={}, shard_size=8, progress=False)
    assert inputs.asked == list(range(8 * done, N))
    assert torch.allclose(found[range(N)], wide(inputs.vectors), rtol=1e-3, atol=1e-3)


def test_a_folder_that_cannot_be_written(model, inputs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EncodingError, match="cannot write into .*file.*name a folder that you may write to"):
        run(model, inputs, tmp_path / "file")


def test_an_input_that_cannot_be_read_stops_the_run_and_keeps_the_rest(model, inputs, tmp_path):
    inputs.vectors[20, 0] = float("nan")
    with pytest.raises(EncodingError, match="features of 'input 20' are not finite in half precision"):
        run(model, inputs, tmp_path)
    assert len(shards(tmp_path)) == 2
    inputs.vectors[20, 0] = 0
    inputs.asked.clear()
    run(model, inputs, tmp_path)
    assert inputs.asked[0] == 16


def test_features_too_large_for_half_precision_are_named(inputs, tmp_path):
    reader = Reader().eval()
    with torch.no_grad():
        reader.embedding.weight[13] = 1e6
    with pytest.raises(EncodingError, match="'input 13' are not finite in half precision"):
        encode(reader, inputs.sentences, inputs.names, tmp_path, settings={}, mask="mask", lengths=inputs.lengths,
               shard_size=8, progress=False)


@pytest.mark.parametrize(("change", "message"), [
    ({"lengths": [1, 2]}, "got 2 lengths for 50 inputs"),
    ({"forward": lambda input: input[:1]}, "the model gave 1 rows for 3 inputs"),
])
def test_settings_that_cannot_be_used(model, inputs, tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        run(model, inputs, tmp_path, **change)


def test_a_model_in_training_and_no_input(model, inputs, tmp_path):
    inputs.names = []
    with pytest.raises(ValueError, match="expected a list of at least one"):
        run(model, inputs, tmp_path)
    with pytest.raises(ValueError, match="training mode, where dropout changes"):
        run(model.train(), inputs, tmp_path)


def test_neither_writing_nor_reading_holds_more_than_a_shard(tmp_path):
    code = textwrap.dedent("""
        import resource, sys
        import torch
        from crossexplain.models.encodings import encode
        def anonymous():
            with open("/proc/self/status") as file:
                return next(int(line.split()[1]) for line in file if line.startswith("RssAnon")) / 1024
        model = torch.nn.Linear(4, 250_000).eval()  # half a megabyte an input, 400 MB in all
        before, highest = anonymous(), 0
        def batch(indices):
            global highest
            highest = max(highest, anonymous())
            return {"input": torch.ones(len(indices), 4)}
        found = encode(model, batch, [str(i) for i in range(800)], sys.argv[1], settings={}, batch_size=8, shard_size=16,
                       progress=False)
        total = sum(float(found[range(start, start + 8)][:, 0].sum()) for start in range(0, 800, 8))
        print(highest - before, anonymous() - before)
    """)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    writing, reading = map(float, done.stdout.split())
    assert writing < 150 and reading < 150, done.stdout


@needs_data
@pytest.mark.parametrize("name, shape", [("squeezenet1_0", (512, 13, 13)), (vgg.LITE, (1280, 7, 7))])
def test_photographs_through_the_real_towers(tmp_path, name, shape):
    data, model = flickr8k.load(), vgg.load_imagenet(name, store.find(name).path)
    images = data.splits["test"][:20]
    for mirrored in (False, True):
        maps = recipe.encode_photographs(model, data, images, progress=False, where=tmp_path, mirrored=mirrored)
        assert maps.shape == shape and len(maps) == 20
        with torch.no_grad():
            pictures = data.images(images, model.size)
            truth = model(pictures.flip(3) if mirrored else pictures)
            assert torch.allclose(model.head(maps[range(20)]), truth, atol=0.05) and truth.std() > 0.5
    assert len(list(tmp_path.iterdir())) == 2


@needs_data
def test_captions_through_the_real_tower(tmp_path):
    data = flickr8k.load()
    images = data.splits["test"][:20]
    folder = store.find("minilm").path
    encoder, tokenizer = bert.load(folder, 2).encoder, bert.load_tokenizer(folder)
    some = data.captions_of(images)
    states = recipe.encode_captions(encoder, tokenizer, data, some, progress=False, where=tmp_path)
    assert states.shape == (384,) and len(states) == 100
    values, mask = states.padded([3, 50, 99])
    for row, kept, caption in zip(values, mask, some[[3, 50, 99]]):
        inputs = tokenizer([data.captions[caption]], return_tensors="pt")
        with torch.no_grad():
            alone = encoder(**inputs).last_hidden_state[0]
        assert len(alone) == kept.sum() and torch.allclose(row[kept], alone, atol=5e-3)


def test_captions_of_any_kind_through_a_real_encoder(tmp_path):
    texts = ["dog", "dog " * 300, "🐕‍🦺 runs 🏃🏽‍♀️", "كلب يركض على الشاطئ"]
    data = flickr8k.Flickr8k(["a.jpg"], texts, np.zeros(4, np.int64), [f"a.jpg#{i}" for i in range(4)], {}, None)
    folder = store.find("minilm").path
    encoder, tokenizer = bert.load(folder, 2).encoder, bert.load_tokenizer(folder)
    states = recipe.encode_captions(encoder, tokenizer, data, range(4), progress=False, where=tmp_path)
    values, mask = states.padded(range(4))
    assert mask.sum(1)[:2].tolist() == [3, 64] and (mask.sum(1) > 2).all() and torch.isfinite(values).all()
