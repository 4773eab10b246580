"""Verdicts on models whose rule is known: does the answer name what the model was built to rest on?"""

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.studies.fuzzing.asking import Arrays, Call
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source
from crossexplain import ImageCells, InputError, Tokens, rounds

ANSWERS = ("image alone", "text alone", "both added", "both only")
GOOD, BAD = 4, 5  # two words


class Rule(nn.Module):
    """Logits that are known functions of a number in the picture and a word."""

    def __init__(self, rules: list[str], output: str, offset: float):
        super().__init__()
        self.conv, self.embedding = nn.Conv2d(1, 1, 1, bias=False), nn.Embedding(6, 1)
        nn.init.ones_(self.conv.weight)
        self.embedding.weight.data = torch.tensor([0.0, 0, 0, 0, 1, -1])[:, None]
        self.rules, self.output, self.offset = rules, output, offset

    def forward(self, images: Tensor, tokens: Tensor) -> object:
        """Return the logits (N, C), as ``output`` says."""
        x, y = self.conv(images).mean(dim=(1, 2, 3)), self.embedding(tokens).mean(dim=(1, 2))
        values = {"image alone": 2 * x + 0.02 * y, "text alone": 2 * y + 0.02 * x, "both added": x + y,
                  "both only": 2 * x * y}
        logits = torch.stack([values[rule] for rule in self.rules], dim=1) + self.offset
        if self.output == "two classes":
            logits = torch.cat([-logits, logits], dim=1)
        return {"one axis": lambda: logits[:, 0], "features first": lambda: (torch.stack([x, x], dim=1), logits),
                "named": lambda: {"features": x, "logits": logits}, "sigmoid": lambda: logits.sigmoid()}.get(
                    self.output, lambda: logits)()


def judging(scene: Scene, source: Source) -> Call:
    """Ask for the verdict on a model of a known rule; of the scene, only the caller's mode counts."""
    rules = [source.pick("rule", ANSWERS)]
    output = source.pick("rule output", ("one column", "one axis", "two classes", "named", "labels", "features first",
                                         "sigmoid", "a price"))
    labels = output == "labels"
    if labels:
        rules = [source.pick(f"rule {k}", ANSWERS) for k in range(3)]
    asked = source.pick("label", (0, 1, 2, "all", "by function")) if labels else "no"
    model = Rule(rules, output, 40.0 if output == "a price" else 0.0).eval()
    n = source.pick("examples", (64, 48, 100))
    random = np.random.default_rng(source.pick("examples drawn", range(50)))
    signs = np.tile([[1, 1], [1, -1], [-1, 1], [-1, -1]], (n // 4, 1)).astype(np.float32)
    values = torch.from_numpy(signs * random.uniform(0.9, 1.1, signs.shape).astype(np.float32))
    inputs = {"images": values[:, 0, None, None, None].expand(-1, 1, 2, 2).contiguous(),
              "tokens": torch.where(values[:, 1:] > 0, GOOD, BAD).expand(-1, 2).contiguous()}
    modalities = [ImageCells(layer=source.pick("rule layer", (None, "conv"))), Tokens(layer="embedding")]
    baselines = source.pick("rule baselines", ("neutral", "usual"))
    target = {"all": [0, 1, 2], "by function": lambda logits: logits[:, 1], "no": None}.get(asked, asked)
    named = [rules[1]] if asked == "by function" else [rules[asked]] if isinstance(asked, int) else rules

    def ask() -> Arrays:
        with scene.mode():
            record = rounds(model, inputs, modalities, target=target, progress=False,
                            baselines=None if baselines == "usual" else [{"image": "zero", "text": "mask"}])
        records = record.values() if isinstance(record, dict) else [record]
        answers = [one.verdict(draws=200).answer for one in records]
        if "cannot tell" in answers:
            raise InputError(f"cannot tell: {answers}")
        return {"answers": np.array([ANSWERS.index(answer) if answer in ANSWERS else -1 for answer in answers])}

    def want() -> Arrays:
        if output == "sigmoid":
            raise NoTruth("the output is a probability")
        return {"answers": np.array([ANSWERS.index(rule) for rule in named])}

    return Call(ask, want, output not in ("features first", "sigmoid") and not (output == "a price"))
