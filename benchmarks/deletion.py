"""Do the words and cells that score highest matter to the models of photographs?

Sixty-four test pairs of Flickr8k. A photograph has sixteen cells, and its mean colour hides a cell; the mask hides a word.
Each method orders the words, and the cells; they are put in and taken out in its order, and the area between the two curves of
the model's own logit is what the method scores: 0 is no order. In units of what a whole pair changes, on average over pairs.
``deletion.csv`` keeps the whole table, which chapter 5 shows; the rows hold the gradient of round 1. Intervals are 95 %
bootstrap over photographs. Needs the data folder; encodings take six minutes the first time, then about ten minutes of two
cores. What was measured of a model is kept under ``_build/deletion``, so that a run that was cut off goes on.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from crossexplain.coalitions.game import Game
from crossexplain.evaluation import faithfulness
from crossexplain.evaluation.methods import explain, registry
from crossexplain.evaluation.truth import random_scores
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.recipes import Trained, load_or_train
from crossexplain.recipes import flickr8k as recipe
from crossexplain_book.bench import code_hash

PAIRS, CELLS, ROWS = 64, (4, 4), 48
BASELINE = {"image": "mean", "text": "mask"}
RANDOM, GRADIENT, SHAPLEY = "random", "gradient norm", "sampled shapley"
METHODS = {registry()[key].title: key for key in (GRADIENT, "gradient norm, other masked", "cross gradient", "gradient x input",
                                                  "grad-cam", "layer-cam", SHAPLEY)}
MASKS = 64  # that each tower looks at for the Shapley values of a pair
PARTS = {"text": "words", "image": "cells"}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return what round 1 scores, and keep the table."""
    encoded = recipe.encode()
    for name in recipe.NAMES:
        load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded)
    tables = Parallel(n_jobs=len(recipe.NAMES))(delayed(once)(name, seed) for name in recipe.NAMES)
    table = pd.concat([part.assign(model=name, pairs=PAIRS) for name, part in zip(recipe.NAMES, tables)], ignore_index=True)
    write_whole(embedded_folder() / "results" / "deletion.csv",
                lambda part: table.to_csv(part, index=False, float_format="%.4f"))
    return [{"id": f"flickr8k.lite0.{line.model}.deletion.{line.part}", "value": line.value, "low": line.low, "high": line.high,
             "n": line.pairs, "unit": "area by the gradient of round 1, in units of what a whole pair changes"}
            for line in table[table.method == registry()[GRADIENT].title].itertuples()]


def once(name: str, seed: int) -> pd.DataFrame:
    """Return the table of a model, measured with one core unless the same code has measured it before."""
    path = embedded_folder().parent / "_build" / "deletion" / f"{code_hash(Path(__file__))}-{seed}-{name}.csv"
    if not path.is_file():
        torch.set_num_threads(1)
        encoded = recipe.encode(progress=False)
        table = measured(load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded), seed)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: table.to_csv(part, index=False))
    return pd.read_csv(path)


def measured(trained: Trained, seed: int, n: int = PAIRS) -> pd.DataFrame:
    """Return one line for each method and part, words or cells."""
    encoded, pairs = trained.data, trained.data.flickr8k.pairs("test", seed)
    some = np.random.default_rng(seed).choice(len(pairs.labels), min(n, len(pairs.labels)), replace=False)
    inputs = encoded.inputs(pairs.image[some], pairs.caption[some])
    sides = [ImageCells(layer=trained.model.image_layer, grid=CELLS), Tokens(**encoded.words)]
    game = Game(trained.model, inputs, sides, baselines=BASELINE, rows=ROWS, progress=False)
    lines = []
    for method in tqdm([RANDOM, *METHODS], desc=trained.card.get("name", "deletion"), mininterval=5):
        found = faithfulness.areas(game, scores_of(trained, game, method, seed), seed, pairs.image[some])
        lines += [{"part": PARTS[name], "method": method, **area._asdict()} for name, area in found.items()]
    return pd.DataFrame(lines)


def scores_of(trained: Trained, game: Game, method: str, seed: int) -> np.ndarray:
    """Return a method's scores of all players, (N, P); NaN where it does not speak of a modality, or there is no player."""
    if method == RANDOM:
        return random_scores(game.present.numpy(), seed)
    options = {"budget": MASKS} if METHODS[method] == SHAPLEY else {}
    found = []
    for part in np.array_split(np.arange(len(game)), -(-len(game) // 8)):  # a whole model takes much memory a photograph
        given = {key: value[part] for key, value in game.inputs.items()}
        found.append(explain(trained.model, given, game.modalities, METHODS[method], baselines=BASELINE,
                                   target=game.target[part], seed=seed, **options).values)
    values = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    scores = game.joint(values).numpy()
    scores[:, [name not in values for name in game.names]] = np.nan
    return scores
