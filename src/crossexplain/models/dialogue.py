"""A small head over the turns of a dialogue that names the emotion of the last one."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from crossexplain.checks import InputError, require_one_of
from crossexplain.models.conversation import Attention


class DialogueHead(nn.Module):
    """Names the emotion of the last turn from what it says, and from what is said before it by whom.

    The last turn is read by itself; then it attends to all turns, and what it finds there is added to the logits. During
    training some of the earlier turns are hidden, so that a hidden turn is nothing unknown.
    It is a :class:`~crossexplain.contract.EncodesParts`: each turn is a part.

    Parameters
    ----------
    features, speakers : int
        Lengths of the vectors of words and of speakers.
    turns : int
        Turns of a window, T; the last of them is named.
    classes : int
    width : int
    dropout, hidden : float
        ``hidden`` is the share of earlier turns that are hidden during training.
    context : bool
        False reads the last turn alone.

    Attributes
    ----------
    attention : str
        Name of the module that attends; its second output is the map, (N, heads, 1, T).
    """

    attention = "attend"

    def __init__(self, features: int, speakers: int, turns: int, classes: int, width: int = 64, dropout: float = 0.5,
                 hidden: float = 0.25, context: bool = True):
        super().__init__()
        self.hidden, self.context = hidden, context
        self.read = nn.Sequential(nn.Dropout(dropout), nn.Linear(features, width), nn.GELU())
        self.own = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, classes))
        if context:
            self.who, self.age = nn.Linear(speakers, width), nn.Parameter(0.02 * torch.randn(turns, width))
            self.first, self.pairs, self.attend = nn.LayerNorm(width), nn.Linear(width, 2 * width), Attention(width)
            self.dense = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Dropout(0.3),
                                       nn.Linear(2 * width, width))
            last = nn.Linear(width, classes)
            self.out = nn.Sequential(nn.LayerNorm(width), last)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def forward(self, words: Tensor, speakers: Tensor, present: Tensor) -> Tensor:
        """Return logits (N, C).

        Parameters
        ----------
        words : Tensor, shape (N, T, features)
            What each turn says; 0 stands for a turn of which nothing is known.
        speakers : Tensor, shape (N, T, speakers)
            Who speaks.
        present : Tensor of bool, shape (N, T)
            Which turns there are, the last one among them.

        Raises
        ------
        InputError
            Where the last turn is missing, or the shapes do not fit.
        """
        inputs = {"words": words, "speakers": speakers, "present": present}
        return self.join({name: self.encode(name, inputs) for name in ("words", "speakers")}, inputs)

    def encode(self, name: str, inputs: Mapping[str, Tensor]) -> Tensor:
        """Return a vector a turn of what is said, or of who speaks, (R, T, D)."""
        require_one_of(name, ("words", "speakers"), "modality")
        given = inputs[name]
        if given.ndim != 3:
            raise InputError(f"got {name} of shape {tuple(given.shape)}, expected a vector a turn, (N, T, D).")
        return self.read(given) if name == "words" else self.who(given) if self.context else given[..., :0]

    def join(self, parts: Mapping[str, Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Return logits (R, C) of encoded turns; ``inputs`` holds ``present``."""
        read, present = parts["words"], inputs["present"].bool()
        if present.shape != read.shape[:2] or not present[:, -1].all():
            raise InputError(f"got present of shape {tuple(present.shape)} for {tuple(read.shape[:2])} turns, expected one "
                             "entry a turn, and the last turn, whose emotion is named, always there.")
        own: Tensor = self.own(read[:, -1])
        if not self.context:
            return own
        if parts["speakers"].shape[:2] != read.shape[:2] or read.shape[1] != len(self.age):
            raise InputError(f"got {tuple(read.shape[:2])} turns and {tuple(parts['speakers'].shape[:2])} speakers, expected "
                             f"{len(self.age)} turns of each example; pad a shorter dialogue in front, with present=False.")
        turns = read + parts["speakers"]
        if self.training:
            kept = torch.rand_like(turns[..., :1]) >= self.hidden
            turns = turns * (kept | (torch.arange(turns.shape[1], device=turns.device) == turns.shape[1] - 1)[:, None])
        turns = turns + self.age
        normed, last = self.first(turns), turns[:, -1]
        last = last + self.attend(normed[:, -1:], self.pairs(normed), present)[0][:, 0]
        logits: Tensor = own + self.out(last + self.dense(last))
        return logits
