"""What PyTorch says of a state of the collage lab, read from the text that its page keeps in the address."""

import re

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from benchmarks.live import STAND_INS
from crossexplain import ImageCells, Tokens
from crossexplain.data import digits
from crossexplain.gradients.views import Mask, Views
from crossexplain_book import live

SIDES = (ImageCells(layer=live.model().image_layer), Tokens(layer=live.model().text_layer))


def pair_of(state: str) -> tuple[dict[str, Tensor], dict[str, list[bool]], int]:
    """Return the inputs of a state, which features are kept, and the number of the stand-in."""
    cells, words, hidden_cells, hidden_words, stand_in, *_ = state.split("~")
    bank, tests = load_digits().images, digits.split(digits.load("sklearn"), seed=0)["test"]
    levels = [np.array([int(sign, 17) for sign in cell[1:]]).reshape(8, 8) if cell[0] == "=" else bank[tests[int(cell)]]
              for cell in cells.split(".")]
    four = torch.from_numpy(digits.enlarge(np.stack(levels) / 16)).reshape(2, 2, 28, 28)
    tokens = torch.tensor([[int(word, 36) for word in words.split(".")]])
    keep = {"image": [not int(hidden_cells) >> k & 1 for k in range(4)],
            "text": [not int(hidden_words) >> k & 1 for k in range(tokens.shape[1])]}
    return {"images": four.transpose(1, 2).reshape(1, 1, 56, 56), "tokens": tokens}, keep, int(stand_in)


def logit_of(state: str) -> float:
    """Return the logit of a state, with what is covered."""
    inputs, keep, stand_in = pair_of(state)
    plan = {name: Mask(torch.tensor(keep[name]), STAND_INS[stand_in][name], torch.tensor([0])) for name in keep}
    covered = Views(inputs, SIDES, {"covered": plan}, lent(inputs["tokens"].shape[1]), allow_empty=True).inputs
    with torch.no_grad():
        return float(live.model()(**covered)[0])


def lent(length: int) -> dict[str, Tensor]:
    """Return what is borrowed from, its sentences cut or padded to some length; whole sentences are only borrowed uncut."""
    inputs = live.lenders().inputs()
    return {**inputs, "tokens": inputs["tokens"][:, :length]}


def state_of(page) -> str:
    """Return the state in the address of a page."""
    return page.evaluate("location.href").partition("#lab=")[2]


def said(text: str) -> float:
    """Return the logit that a sentence names first."""
    return float(re.search(r"\(logit ([+-][\d.]+)\)", text)[1])
