"""The four rounds from both ends, against the bare forward passes of the same views, on collages and on photographs.

Sixty-four pairs come from Flickr8k where the data folder is set, each photograph with its own caption or another's; else drawn
scenes take their place, and the unit says so. The rounds and the bare passes alternate in one run, so that a busy machine slows
both.
"""

import os
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from crossexplain.data import collages
from crossexplain.gradients.capture import capture
from crossexplain.gradients.modalities import ImageCells, Modality, Tokens
from crossexplain.gradients.rounds import rounds
from crossexplain.recipes import flickr8k, load_or_train, scenes
from crossexplain_book.bench import memory, row_of, seconds

EXAMPLES, SINGLE = 256, 96  # collages; rows that go through the model one by one
PAIRS, AT_ONCE = 64, 256  # photographs with captions; rows that go through the model at once
NEUTRAL = {"image": "zero", "text": "mask"}  # their one baseline: a row of photographs takes fifty times as long
KEYS = {"fusion": "fusion", "clip_cnn": "clip"}  # of the models that read photographs


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    return [*of_collages(seed, repeats), *(row for name in KEYS for row in of_photographs(name, seed, repeats))]


def of_collages(seed: int, repeats: int) -> list[dict]:
    """Measure the rounds on collages, with one pass a view and example beside them."""
    trained = load_or_train("collages")
    model, inputs = trained.model, collages.build(trained.data, EXAMPLES, "test", seed).inputs()
    modalities = [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)]
    ours, bare, batches = contenders(model, inputs, modalities, seed)
    passes = sum(len(batch["tokens"]) for batch in batches)
    layers = [modality.layer for modality in modalities]

    def naive():
        for row in range(SINGLE):
            capture(model, {key: value[row : row + 1] for key, value in batches[0].items()}, layers)

    naive()
    over, naive_over = [], []
    for _ in range(repeats):
        taken, alone, single = seconds(ours), seconds(bare), seconds(naive)
        over.append(taken / alone)
        naive_over.append(single / SINGLE * passes / taken)
    return [
        row_of("speed.rounds.over_forward", over,
               f"time of the rounds / time of the bare forward passes of the same {passes:,} rows"),
        row_of("speed.rounds.naive_over_ours", naive_over,
               f"time of one pass a view and example (from {SINGLE} of them) / time of the rounds"),
        *memory("rounds", {"ours": ours, "forward": bare}),
    ]


def of_photographs(name: str, seed: int, repeats: int) -> list[dict]:
    """Measure the rounds on photographs with captions: early fusion, or the dual encoder with convolutions."""
    real = bool(os.environ.get("CROSSEXPLAIN_DATA"))
    model, inputs, modalities = (of_flickr8k if real else of_scenes)(name, seed)
    ours, bare, batches = contenders(model, inputs, modalities, seed, baselines=[NEUTRAL], rows=AT_ONCE)
    over = [seconds(ours) / seconds(bare) for _ in range(repeats)]
    views = sum(len(batch["tokens"]) for batch in batches)
    return [row_of(f"speed.rounds.{KEYS[name]}.over_forward", over,
                   f"time of the rounds / time of the bare forward passes of the same {views:,} rows, {PAIRS} pairs of "
                   + ("Flickr8k" if real else "drawn scenes"))]


def of_flickr8k(name: str, seed: int) -> tuple[nn.Module, dict[str, Tensor], list[Modality]]:
    """Return a model of photographs, 64 test pairs of Flickr8k, and how they are hidden."""
    encoded = flickr8k.encode()
    model, pairs = load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded).model, encoded.flickr8k.pairs("test", seed)
    some = torch.randperm(len(pairs.labels), generator=torch.Generator().manual_seed(seed))[:PAIRS].numpy()
    words = Tokens(layer=model.text_layer, mask_id=encoded.tokenizer.mask_token_id, pad_id=encoded.tokenizer.pad_token_id,
                   special=(encoded.tokenizer.cls_token_id, encoded.tokenizer.sep_token_id), attention="attention_mask")
    return (model, encoded.inputs(pairs.image[some], pairs.caption[some]),
            [ImageCells(layer=model.image_layer, grid=(6, 6)), words])


def of_scenes(name: str, seed: int) -> tuple[nn.Module, dict[str, Tensor], list[Modality]]:
    """Return a model of scenes, 64 test pairs, and how they are hidden."""
    trained = load_or_train(f"scenes_{name}")
    model, pairs = trained.model, trained.data.build("test", PAIRS, seed)
    inputs = scenes.inputs(model, trained.data.images(pairs.image), pairs.captions)
    return model, inputs, [ImageCells(layer=model.image_layer, grid=(6, 6)), Tokens(layer=model.text_layer, special=(2, 3))]


def contenders(model: nn.Module, inputs: dict[str, Tensor], modalities: Sequence[Modality], seed: int,
               **settings) -> tuple[Callable, Callable, list[dict]]:
    """Return the rounds, the bare forward passes of all rows that they send through the model, and these rows, in batches."""
    def ours():
        return rounds(model, inputs, modalities, progress=False, seed=seed, **settings)

    seen: list[dict] = []
    listening = model.register_forward_pre_hook(lambda _, __, given: seen.append(given), with_kwargs=True)
    ours()  # also the warm-up
    listening.remove()
    batches = [{key: value.detach() for key, value in batch.items()} for batch in seen if len(batch["tokens"]) > 1]

    @torch.no_grad()
    def bare():
        for batch in batches:
            model(**batch)

    bare()
    return ours, bare, batches
