"""The four rounds from both ends on 256 collages, against the bare forward passes of the same views and one pass a view."""

import torch

from crossexplain.bench import memory, seconds, spread
from crossexplain.data import collages
from crossexplain.gradients.capture import capture
from crossexplain.gradients.rounds import rounds
from crossexplain.gradients.views import ImageCells, Tokens
from crossexplain.recipes.collages import load_or_train

EXAMPLES, SINGLE = 256, 96  # collages; rows that go through the model one by one


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Measure ratios within one run, alternating, so that a busy machine slows both sides."""
    trained = load_or_train()
    model, inputs = trained.model, collages.build(trained.digits, EXAMPLES, "test", seed).inputs()
    modalities = [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)]

    def ours():
        return rounds(model, inputs, modalities, progress=False, seed=seed)

    seen: list[dict] = []
    listening = model.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    ours()  # also the warm-up
    listening.remove()
    batches = [{key: value.detach() for key, value in batch.items()} for batch in seen if len(batch["tokens"]) > 1]
    passes = sum(len(batch["tokens"]) for batch in batches)
    layers = [modality.layer for modality in modalities]

    @torch.no_grad()
    def bare():
        for batch in batches:
            model(**batch)

    def naive():
        for row in range(SINGLE):
            capture(model, {key: value[row : row + 1] for key, value in batches[0].items()}, layers)

    bare()
    naive()
    over, naive_over = [], []
    for _ in range(repeats):
        taken, alone, single = seconds(ours), seconds(bare), seconds(naive)
        over.append(taken / alone)
        naive_over.append(single / SINGLE * passes / taken)
    return [
        spread("speed.rounds.over_forward", over,
               f"time of the rounds / time of the bare forward passes of the same {passes:,} rows"),
        spread("speed.rounds.naive_over_ours", naive_over,
               f"time of one pass a view and example (from {SINGLE} of them) / time of the rounds"),
        *memory("rounds", {"ours": ours, "forward": bare}),
    ]
