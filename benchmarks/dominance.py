"""Is the image dominant? Early fusion and a dual encoder on all 5,000 test captions of Flickr8k, and on as many foils.

Each caption with its photograph, and with another photograph's caption in its place; the rounds of chapter 4 with one
modality hidden as a whole, four stand-ins for photographs and three for captions. ``dominance.csv`` keeps the whole table,
which chapter 5 shows. Intervals are 95 % bootstrap over photographs. Needs the data folder, and encodings, which take six
minutes the first time; then about a quarter of an hour of two cores, one for each model; the row ``seconds`` says how long.
What was measured of a model is kept under ``_build/dominance``, so that a run that was cut off goes on.
"""

import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed

from crossexplain.coalitions import sampling
from crossexplain.coalitions.game import Game
from crossexplain.data.flickr8k import Pairs
from crossexplain.evaluation import modality_shares
from crossexplain.evaluation.precomputed import Precomputed, precompute
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.rounds import rounds as run_rounds
from crossexplain.intervals import mean_interval
from crossexplain.models import bert
from crossexplain.recipes import Trained, load_or_train
from crossexplain.recipes import flickr8k as recipe
from crossexplain.recipes.encodings import LONGEST, Encoded
from crossexplain_book.bench import code_hash

BASELINES = [{"image": "mean", "text": "mask"}, {"image": "blur", "text": "pad"}, {"image": "zero", "text": "mask"}, "data"]
# Pairs whose Shapley values are estimated, masks that each tower looks at for one pair, and cells: about as many as words.
SAMPLE, MASKS, CELLS = 64, 64, (4, 4)
ANSWERS = {"image": "image alone", "text": "text alone", "both": "both only"}


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of both models, and keep the table."""
    encoded = recipe.encode()
    trained = {name: load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded) for name in recipe.NAMES}
    known, started = None, time.perf_counter()
    if not all(kept_at(name, seed).is_file() for name in recipe.NAMES):
        known = looked(trained["fusion"], asked(encoded, seed))  # once, for both: they have the same towers
    looking = time.perf_counter() - started
    ask = Parallel(n_jobs=len(recipe.NAMES))
    tables = dict(zip(recipe.NAMES, ask(delayed(once)(name, seed, known, looking) for name in recipe.NAMES)))
    keep(tables)
    took = [float(table.value[table.measure == "seconds"].item()) for table in tables.values()]
    return [*(row for name in recipe.NAMES for row in chosen(name, tables[name])),
            {"id": "flickr8k.lite0.dominance.seconds", "value": max(took), "low": min(took), "high": max(took), "n": len(took),
             "unit": "s for both models beside each other, one core each; encoded and trained before"}]


def kept_at(name: str, seed: int) -> Path:
    """Return where the table of a model is kept: another file for other code and another seed."""
    return embedded_folder().parent / "_build" / "dominance" / f"{code_hash(Path(__file__))}-{seed}-{name}.csv"


def once(name: str, seed: int, known: Precomputed | None, looking: float) -> pd.DataFrame:
    """Return the table of a model, measured with one core unless the same code has measured it before.

    ``known`` is what the towers saw of everything, and took ``looking`` seconds.
    """
    path = kept_at(name, seed)
    if not path.is_file():
        torch.set_num_threads(1)
        encoded, started = recipe.encode(progress=False), time.perf_counter() - looking
        trained = load_or_train(f"flickr8k_{name}", seed=seed, encoded=encoded)
        table = measured(trained, asked(encoded, seed), known.of(trained.model), seed)
        took = {"baseline": "", "part": "", "measure": "seconds", "value": time.perf_counter() - started}
        table = pd.concat([table, pd.DataFrame([took])], ignore_index=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, lambda part: table.to_csv(part, index=False))
    return pd.read_csv(path)


def keep(tables: dict[str, pd.DataFrame]) -> None:
    """Write the table of the models."""
    table = pd.concat([part[part.measure != "seconds"].assign(model=name) for name, part in tables.items()], ignore_index=True)
    table = table.astype({"n": int, "pairs": int})
    write_whole(embedded_folder() / "results" / "dominance.csv",
                lambda part: table.to_csv(part, index=False, float_format="%.4f"))


def chosen(name: str, table: pd.DataFrame) -> list[dict]:
    """Return the rows of a model: shares with stand-ins borrowed from other pairs, and the two scores from elsewhere."""
    key = "flickr8k.lite0.dominance" + ("" if name == "fusion" else f".{name}")
    every = table[table.part == "all"].set_index(["measure", "baseline"])
    wanted = {what: ((answer, "data"), "share of pairs, stand-ins from other pairs") for what, answer in ANSWERS.items()}
    wanted |= {"text_share": (("text share, MM-SHAP", "mean + mask"), "mean over pairs, Shapley values"),
               "perceptual.image": (("perceptual score, image", "dealt anew"), "accuracy lost"),
               "perceptual.text": (("perceptual score, text", "dealt anew"), "accuracy lost")}
    return [{"id": f"{key}.{what}", **{column: float(every.loc[place, column]) for column in ("value", "low", "high")},
             "n": int(every.loc[place, "pairs"]), "unit": unit} for what, (place, unit) in wanted.items()]


class Question(NamedTuple):
    """The pairs, their photographs and captions, each once, and which of them each pair has."""

    pairs: Pairs
    images: np.ndarray
    texts: dict[str, torch.Tensor]
    given: dict[str, torch.Tensor]


def asked(encoded: Encoded, seed: int) -> Question:
    """Return what both models are asked."""
    pairs = encoded.flickr8k.pairs("test", seed)
    images, captions = np.unique(pairs.image), np.unique(pairs.caption)
    read = bert.encode(encoded.tokenizer, [encoded.flickr8k.captions[i] for i in captions], LONGEST, truncate=True).inputs
    texts = {"tokens": read["input_ids"], "attention_mask": read["attention_mask"]}
    given = {"images": torch.from_numpy(np.searchsorted(images, pairs.image)),
             "tokens": torch.from_numpy(np.searchsorted(captions, pairs.caption))}
    return Question(pairs, images, texts, given)


def looked(trained: Trained, question: Question) -> Precomputed:
    """Let the towers look at everything once."""
    encoded, prepared = trained.data, {"image": ("mean", "blur", "zero"), "text": ("mask", "pad")}
    return precompute(
        trained.model, lambda some: encoded.flickr8k.images(question.images[some], encoded.network.size), len(question.images),
        question.texts, ImageCells(layer=trained.model.image_layer, grid=(6, 6)), Tokens(**encoded.words), prepared)


def measured(trained: Trained, question: Question, known: Precomputed, seed: int) -> pd.DataFrame:
    """Return the table of a model: one line a baseline, part of the pairs, and measure."""
    record = run_rounds(known.model, question.given, known.modalities, baselines=BASELINES, pick=None, seed=seed, progress=True)
    found = modality_shares.dominance_frame(record, parts(question), question.pairs.image, seed)
    return pd.concat([found, beside(trained, question, known, seed)], ignore_index=True)


def parts(question: Question) -> dict[str, np.ndarray]:
    """Return which pairs are in which part: by label, and by the length of the caption."""
    pairs, length = question.pairs, question.texts["attention_mask"].sum(dim=1)[question.given["tokens"]].numpy()
    short = length <= np.median(length)
    return {"all": np.ones(len(short), bool), "match": pairs.labels == 1, "no match": pairs.labels == 0,
            "short captions": short, "long captions": ~short}


def beside(trained: Trained, question: Question, known: Precomputed, seed: int) -> pd.DataFrame:
    """Return what others read: MM-SHAP's text share on a sample of pairs, and the perceptual score on all."""
    pairs, encoded = question.pairs, trained.data
    labels = torch.from_numpy(pairs.labels)
    lost = modality_shares.perceptual_scores(known.model, question.given, labels, pairs.image, seed=seed)
    lines = [{"baseline": "dealt anew", "part": "all", "measure": f"perceptual score, {name}", **value._asdict(),
              "pairs": len(pairs.labels)} for name, value in lost.items()]
    some = np.random.default_rng(seed).choice(len(pairs.labels), SAMPLE, replace=False)
    sample = encoded.inputs(pairs.image[some], pairs.caption[some])
    sides = [ImageCells(layer=trained.model.image_layer, grid=CELLS), Tokens(**encoded.words)]
    game = Game(trained.model, sample, sides, baselines={"image": "mean", "text": "mask"}, rows=16, progress=False)
    values = game.shared(sampling.sampled_shapley(game, MASKS, seed))
    share = mean_interval(modality_shares.size_shares(values)["text"], seed, groups=pairs.image[some])
    return pd.DataFrame([*lines, {"baseline": "mean + mask", "part": "all", "measure": "text share, MM-SHAP",
                                  **share._asdict(), "pairs": SAMPLE}])
