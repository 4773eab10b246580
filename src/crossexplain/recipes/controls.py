"""Small models of the chapter's architecture that learn a control in seconds, on what a frozen tower sees."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from crossexplain.data import controls
from crossexplain.data.collages import VOCABULARY, Collages
from crossexplain.data.digits import Digits
from crossexplain.models.cnn_lstm import DIGITS, CnnLstm, Tower
from crossexplain.models.training import accuracy
from crossexplain.recipes.collages import look, train_fusion

SPEAKS = 1 / 3  # of the control "either", the share of training pairs in which both speak: else one alone could be learned


class BehindTower(nn.Module):
    """A :class:`~crossexplain.models.cnn_lstm.CnnLstm` that is given what its tower sees instead of the picture.

    Parameters
    ----------
    whole : CnnLstm
        Shares its weights.
    """

    text_layer = "whole.embedding"

    def __init__(self, whole: CnnLstm):
        super().__init__()
        self.whole = whole

    def forward(self, seen: Tensor, tokens: Tensor) -> Tensor:
        """Return the logit, shape (N,).

        Parameters
        ----------
        seen : Tensor, shape (N, 4, 10)
            Probabilities of the digits of each cell, as :meth:`CnnLstm.see` gives them.
        tokens : Tensor, shape (N, T), int64
        """
        return self.whole.match(seen.flatten(1), self.whole.read(tokens))


@dataclass(frozen=True)
class Control:
    """A trained control.

    Attributes
    ----------
    kind : str
    answer : str
        What its predictions rest on.
    whole : CnnLstm
        On pictures and tokens.
    fusion : BehindTower
        The same weights on what the tower sees: faster.
    test : Collages
        Held out; of "either", pairs in which both speak.
    seen : Tensor, shape (N, 4, 10)
        What the tower sees in the test pictures.
    accuracy : float
        On the test pairs. The additive labels are drawn, so the best possible is about 0.88.
    seconds : float
        Of training the fusion.
    """

    kind: str
    answer: str
    whole: CnnLstm
    fusion: BehindTower
    test: Collages
    seen: Tensor
    accuracy: float
    seconds: float


def train(kind: str, digits: Digits, tower: Tower, seed: int, *, pairs: int = 2000, held_out: int = 256,
          epochs: int = 24, width: int = 64, p: float = 1.0) -> Control:
    """Train one control.

    Parameters
    ----------
    kind : str
        See :func:`crossexplain.data.controls.build`.
    digits : Digits
    tower : Tower
        Trained to name digits; stays as it is.
    seed : int
        Of data, weights and order.
    pairs, held_out : int
        Training pairs; validation and test pairs each.
    epochs, width : int
        Of the fusion.
    p : float
        Share of the shortcut.

    Returns
    -------
    Control
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        whole = CnnLstm(len(VOCABULARY), width=width)
    whole.tower = tower.requires_grad_(False).eval()
    share = SPEAKS if kind == "either" else p  # in validation too: a model that reads one alone must not look best
    shares = {"train": share, "validation": share, "test": p}
    sets = {split: controls.build(kind, digits, pairs if split == "train" else held_out, split, seed, of)
            for split, of in shares.items()}
    looked = {split: look(whole, collages) for split, collages in sets.items()}
    history = train_fusion(whole, looked["train"], looked["validation"], seed=seed, epochs=epochs, progress=False)
    seen = looked["test"].inputs["seen"].reshape(-1, 4, DIGITS)
    fusion = BehindTower(whole.requires_grad_(False).eval()).eval()
    with torch.no_grad():
        right = accuracy(fusion(seen, sets["test"].tokens()), looked["test"].labels)
    return Control(kind, controls.ANSWERS[kind], whole, fusion, sets["test"], seen, right, history.seconds)
