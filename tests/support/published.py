"""A small model of three classes for published pages, and what it says of an example with some of its features covered."""

import os

import pytest
import torch
from torch import Tensor, nn

from crossexplain import ImageCells, Tokens
from crossexplain_book.publish import runtime
from crossexplain_book.publish.exported import CannotExport

MODALITIES = [ImageCells(layer="tower"), Tokens(layer="embedding", mask_id=1)]


class Small(nn.Module):
    """A convolution and an embedding, multiplied; the same weights each time."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.tower, self.embedding, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Embedding(9, 6), nn.Linear(6, 3)
        self.eval()

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits (N, 3) of images (N, 3, 8, 8) and tokens (N, 4)."""
        seen = torch.tanh(self.tower(images)).amax(dim=(2, 3))
        return 3 * self.head(seen * torch.tanh(self.embedding(tokens)).sum(dim=1) + seen)


def batch(count: int) -> dict[str, Tensor]:
    """Return the first examples of an endless list, as far as 12."""
    generator = torch.Generator().manual_seed(2)
    images = torch.rand(12, 3, 8, 8, generator=generator)
    return {"images": images[:count], "tokens": torch.randint(2, 9, (12, 4), generator=generator)[:count]}


def covered(example: int, hidden: list[int]) -> dict[str, Tensor]:
    """Return an example with cells 0 to 3 and words 4 to 7 covered, by hand."""
    inputs = {key: value[example : example + 1].clone() for key, value in batch(12).items()}
    for feature in hidden:
        if feature < 4:
            row, column = divmod(feature, 2)
            inputs["images"][:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
        else:
            inputs["tokens"][:, feature - 4] = 1
    return inputs


def require_live() -> None:
    """Leave a test out where a model cannot be written as ONNX, or what runs it in a browser cannot be had."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package)
    if not runtime.kept().is_file() and os.environ.get("CROSSEXPLAIN_DOWNLOAD") == "0":
        pytest.skip("CROSSEXPLAIN_DOWNLOAD=0: what runs a model in a browser is not fetched")
    try:
        runtime.fetch()
    except CannotExport as error:
        pytest.skip(str(error))


@torch.no_grad()
def evidence_class(example: int) -> int:
    """Return the class that is predicted with nothing covered."""
    return int(Small()(**covered(example, [])).argmax())


@torch.no_grad()
def evidence_of(example: int, hidden: list[int]) -> tuple[float, int]:
    """Return the evidence for the class that is predicted with nothing covered, and the predicted class."""
    model = Small()
    full, logits = model(**covered(example, []))[0], model(**covered(example, hidden))[0]
    return float(logits[full.argmax()] - logits.mean()), int(logits.argmax())
