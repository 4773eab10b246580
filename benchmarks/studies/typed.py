"""What a reader types for one and the same result, here and with a library of others; each pair is run and compared.

A line is a line of code of at most 88 columns; imports of either side are not counted.
"""

import torch

from benchmarks.studies.zoo import pairs, pictures, texts

IMPORTS = """
import numpy as np, shapiq, torch
from captum.attr import FeatureAblation
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from crossexplain import adapt, explain
from crossexplain.gradients.maps import attribute, upsample
"""
# task -> (the model of the zoo, library of others, what is typed here, what is typed there); both leave `values`
TASKS = {
    "Grad-CAM of a vision transformer, scaled to 1 and as large as the pictures": (
        lambda: pictures.hugging_face("ViT"),
        "grad-cam",
        """
adapted = adapt(model)
layer = adapted.layers["image"]
heat = attribute(adapted.model, batch, layer, "grad-cam", target=0, sign="for")
heat = upsample(heat, 32) - upsample(heat, 32).amin((1, 2), keepdim=True)
values = heat / heat.amax((1, 2), keepdim=True)
""",
        """
class Logits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, pixels):
        return self.model(pixel_values=pixels).logits

def lay_out(tokens):
    return tokens[:, 1:].transpose(1, 2).reshape(len(tokens), -1, 4, 4)

layers = [model.vit.layers[0]]
targets = [ClassifierOutputTarget(0)] * 2
with GradCAM(Logits(model), layers, reshape_transform=lay_out) as cam:
    values = torch.from_numpy(cam(batch["pixel_values"], targets))
""",
    ),
    "each cell and each word of CLIP's pairs hidden for itself": (
        lambda: pairs.dual("CLIP"),
        "captum",
        """
adapted = adapt(model)
asked = dict(baselines={"image": "zero", "text": "pad"}, target=1)
told = explain(adapted.model, batch, adapted.modalities, "feature ablation", **asked)
values = told.joint().nan_to_num()
""",
        """
def score(cells, words):
    pixels = batch["pixel_values"] * cells.repeat_interleave(16, 2).repeat_interleave(16, 3)
    hidden = is_word & (words == 0)
    ids = batch["input_ids"].masked_fill(hidden, 0)
    mask = batch["attention_mask"].masked_fill(hidden, 0)
    output = model(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    return output.logits_per_image.diagonal()

ids = batch["input_ids"]
is_word = (ids != 2) & (ids != 3) & (batch["attention_mask"] != 0)
whole = torch.ones(len(ids), 1, 2, 2), torch.ones(ids.shape)
numbers = torch.arange(4).reshape(1, 1, 2, 2), torch.arange(4, 4 + ids.shape[1])[None]
cells, words = FeatureAblation(score).attribute(whole, (0, 0), feature_mask=numbers)
values = torch.cat([cells.flatten(1), words * is_word], dim=1)
""",
    ),
    "exact Shapley values of the words of two sentences": (
        lambda: texts.encoder("BERT"),
        "shapiq",
        """
adapted = adapt(model, special=(2, 3), mask_id=4)
told = explain(adapted.model, batch, adapted.modalities, "exact shapley", target=0)
values = told.values["text"].nan_to_num()
""",
        """
ids = batch["input_ids"]
values = torch.zeros(ids.shape)
for row in range(len(ids)):
    one = {key: value[row : row + 1] for key, value in batch.items()}
    here = (ids[row] != 0) & (ids[row] != 2) & (ids[row] != 3)
    places = here.nonzero()[:, 0]

    def game(coalitions):
        rows = one["input_ids"].repeat(len(coalitions), 1)
        rows[:, places] = rows[:, places].masked_fill(torch.tensor(~coalitions), 4)
        mask = one["attention_mask"].expand(len(rows), -1)
        return model(input_ids=rows, attention_mask=mask).logits[:, 0].numpy()

    with torch.no_grad():
        computer = shapiq.ExactComputer(game, len(places))
        found = computer("SV", 1)
    values[row, places] = torch.tensor([found[(i,)] for i in range(len(places))]).float()
""",
    ),
}


def lines_of(code: str) -> int:
    """Return how many lines of code there are."""
    return sum(bool(line.strip()) for line in code.splitlines())


def run(code: str, animal: object) -> torch.Tensor:
    """Return the values that what is typed leaves."""
    place = {"model": animal.model.requires_grad_(True), "batch": animal.batch}
    exec(IMPORTS + code, place)  # noqa: S102  what is counted is what runs
    return torch.as_tensor(place["values"]).double()


def table() -> list[dict]:
    """Return a line for each task: how many lines are typed here and there, and what."""
    return [
        {"task": task, "library": library, "lines_here": lines_of(here), "lines_there": lines_of(there),
         "here": here.strip(), "there": there.strip()}
        for task, (_, library, here, there) in TASKS.items()
    ]
