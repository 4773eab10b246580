"""What it costs to ask a model everything: all coalitions of twelve players, by parts, whole, and as shapiq asks.

Four cells and eight groups of words have 4,096 coalitions. By parts the towers encode 16 + 256 versions of an example; the
whole model, and shapiq's exact computer, which knows nothing of parts, ask 4,096 times. All alternate in one run on the same
examples. Models: the early fusion of chapters 3 and 4 on collages, the dual encoder with convolutions on drawn scenes, and
where the data folder is set both models of Flickr8k.
"""

import csv
import os
from pathlib import Path

import numpy as np
import shapiq
import torch

from crossexplain.coalitions.game import Game
from crossexplain.coalitions.shapley import interactions, shapley
from crossexplain.data import collages
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.recipes import flickr8k, load_or_train, scenes
from crossexplain_book.bench import memory, row_of, seconds

GROUPS, EXAMPLES = 8, 8
PLAYERS, BATCHES = (6, 8, 10, 12, 14, 16), (1, 2, 4, 8, 16)  # of the curves
BASELINE = {"image": "zero", "text": "mask"}
TABLE = Path(__file__).parent.parent / "data/results/exact_cost.csv"


def of_collages(seed: int, n: int = EXAMPLES, words: int = GROUPS):
    """Return the model of chapters 3 and 4, n collages with sentences of so many words or more, and how they are hidden."""
    trained = load_or_train("collages", progress=False)
    found = collages.build(trained.data, 32 * n, "test", seed)
    long = np.flatnonzero((found.tokens().numpy() != 0).sum(axis=1) >= words)[:n]
    model = trained.model.eval()
    return model, found.select(long).inputs(), [ImageCells(), Tokens(layer=model.text_layer)]


def of_scenes(seed: int):
    """Return the dual encoder with convolutions, scenes with captions of eight words or more, and how they are hidden."""
    trained = load_or_train("scenes_clip_cnn", progress=False)
    pairs = trained.data.build("test", 16 * EXAMPLES, seed)
    pairs = pairs.select([i for i, caption in enumerate(pairs.captions) if len(caption.split()) >= GROUPS][:EXAMPLES])
    inputs = scenes.inputs(trained.model, pairs.images(), pairs.captions)
    return trained.model.eval(), inputs, [ImageCells(), Tokens(layer=trained.model.text_layer, special=(2, 3))]


def of_photographs(name: str, seed: int):
    """Return a model of Flickr8k, and some pairs."""
    encoded = flickr8k.encode(progress=False)
    model = load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded, progress=False).model
    pairs = encoded.flickr8k.pairs("test", seed)
    words = Tokens(layer=model.text_layer, mask_id=encoded.tokenizer.mask_token_id, pad_id=encoded.tokenizer.pad_token_id,
                   special=(encoded.tokenizer.cls_token_id, encoded.tokenizer.sep_token_id), attention="attention_mask")
    return model.eval(), encoded.inputs(pairs.image[:2], pairs.caption[:2]), [ImageCells(), words]


def game(setting, split: bool = True, groups: int = GROUPS, some: slice = slice(None)) -> Game:
    """Return a game whose table is not made yet."""
    model, inputs, modalities = setting
    inputs = {key: value[some] for key, value in inputs.items()}
    return Game(model, inputs, modalities, baselines=BASELINE, players={"text": groups}, split=split, progress=False)


def everything(table) -> None:
    """Make of a table what shapiq is asked for, too."""
    shapley(table)
    interactions(table)


def through_shapiq(whole: Game) -> None:
    """Let shapiq's exact computer ask the whole model, and make Shapley values and interactions of pairs."""
    def values(coalitions) -> np.ndarray:
        keep = torch.as_tensor(np.atleast_2d(coalitions).astype(bool))
        return whole(keep)[:, 0].numpy()

    computer = shapiq.ExactComputer(values, len(whole.names))
    computer("SV", 1)
    computer("SII", 2)


def rows(seed: int = 0, repeats: int = 3) -> list[dict]:
    """Return the rows of the table, and write the curves."""
    found = [*measured("fusion", of_collages(seed), "collages", repeats, peer=True),
             *measured("dual", of_scenes(seed), "drawn scenes", repeats, peer=False)]
    if os.environ.get("CROSSEXPLAIN_DATA"):
        for name in ("fusion", "clip_cnn"):
            setting = of_photographs(name, seed)
            taken = [seconds(lambda setting=setting: game(setting).values_of_all()) / 2 for _ in range(repeats)]
            found.append(row_of(f"exact.flickr8k.lite0.{name}.seconds", taken,
                                "s an example, 12 players, photographs of Flickr8k"))
    return [*found, *curves(seed)]


def measured(key: str, setting, what: str, repeats: int, peer: bool) -> list[dict]:
    """Measure one model: by parts on all examples, whole and through shapiq on one of them, in turns."""
    one = slice(0, 1)
    game(setting, some=one).values_of_all()  # warm-up
    ours, whole_over, shapiq_over, apart = [], [], [], []
    for _ in range(repeats):
        made = []
        ours.append(seconds(lambda made=made: made.append(game(setting).values_of_all())) / EXAMPLES)
        whole = game(setting, split=False, some=one)
        whole_over.append(seconds(whole.values_of_all) / ours[-1])
        apart.append(float((whole.values_of_all()[0] - made[0][0]).abs().max()))
        if peer:
            asked = game(setting, split=False, some=one)
            table = made[0][:1].numpy()
            own = ours[-1] + seconds(lambda table=table: everything(table))
            shapiq_over.append(seconds(lambda asked=asked: through_shapiq(asked)) / own)
    found = [
        row_of(f"exact.{key}.seconds", ours, f"s an example, 12 players, {what}"),
        row_of(f"exact.{key}.whole_over_ours", whole_over, f"time of 4,096 passes of the whole model / ours, {what}"),
    ]
    if peer:
        found += [
            row_of("exact.shapiq_over_ours", shapiq_over,
                   "time of shapiq's exact Shapley values and interactions of the same model / ours"),
            row_of("exact.max_difference", apart, "largest difference of a value by parts and whole, logits"),
            *memory("exact", {"ours": lambda: game(setting).values_of_all(),
                              "whole": lambda: game(setting, split=False, some=one).values_of_all()}),
        ]
    return found


def curves(seed: int) -> list[dict]:
    """Measure how the cost grows with players and with examples, write it, and return the fitted exponents."""
    setting, lines = of_collages(seed, max(BATCHES), max(PLAYERS) - 4), []
    for players in PLAYERS:
        taken = min(seconds(lambda p=players: game(setting, groups=p - 4, some=slice(0, 2)).values_of_all()) for _ in range(2))
        lines.append({"axis": "players", "size": players, "seconds": taken / 2})
    for batch in BATCHES:
        taken = min(seconds(lambda b=batch: game(setting, some=slice(0, b)).values_of_all()) for _ in range(2))
        lines.append({"axis": "examples", "size": batch, "seconds": taken})
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(line | {"seconds": f"{line['seconds']:.4g}"} for line in lines)
    by = {axis: np.array([(line["size"], line["seconds"]) for line in lines if line["axis"] == axis]).T
          for axis in ("players", "examples")}
    last = by["players"][:, -3:]  # where the head is all that counts
    per_player = np.polyfit(last[0], np.log2(last[1]), 1)[0]
    per_example = np.polyfit(*np.log(by["examples"]), 1)[0]
    return [
        {"id": "exact.cost.per_player", "value": per_player, "low": per_player, "high": per_player, "n": 3,
         "unit": "slope of log2 seconds against players, 12 to 16; 1 is a doubling with each"},
        {"id": "exact.cost.per_example", "value": per_example, "low": per_example, "high": per_example, "n": len(BATCHES),
         "unit": "exponent of seconds against examples, 1 to 16"},
    ]
