"""Conversations with real voices: how good the model is on strangers' voices, and whether explanations point to the right one.

The sound of a turn is a recording of the Free Spoken Digit Dataset; nobody who is heard in the test was heard in training.
Asked are held-out conversations in which a sound decides and which are answered rightly: has the sound of a party whose voice
decides the largest importance of all parties? The null deals the parties of each conversation's turns anew. The table is kept
in ``voices.csv`` too. Needs the data folder.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch

from benchmarks.studies.turns import Case, by_party, recall
from crossexplain.coalitions import shapley
from crossexplain.coalitions.game import Game
from crossexplain.data.conversations import KINDS, MODALITIES, Batch
from crossexplain.evaluation.methods import explain
from crossexplain.files import embedded_folder, write_whole
from crossexplain.gradients.groups import Groups
from crossexplain.intervals import Interval, mean_interval, share_interval
from crossexplain.recipes import Trained, by_kind, load_or_train
from crossexplain.recipes import conversations as recipe
from crossexplain.recipes.conversations import Namer

NAME, TABLE, SOUND = "conversations_voices", "voices.csv", MODALITIES.index("sound")
TEST, ASKED = 40 * 8 * len(KINDS), 4 * 8 * len(KINDS)  # conversations for the accuracy, and for the explanations


def rows(seed: int = 0) -> list[dict]:
    """Return the rows of the table."""
    trained = load_or_train(NAME, profile="full", progress=False)
    test = trained.data.build("test", TEST, seed)
    right = (recipe.logits(trained.model, test).numpy() > 0) == test.labels
    of_kinds = by_kind(right, test.kinds)
    worst = min(KINDS, key=of_kinds.get)
    heard = test.truth.modalities[:, SOUND]
    found = {"accuracy": (of_unit(right, test, seed), "share of conversations"),
             "worst_kind": (of_unit(right[test.kinds == worst], test.select(test.kinds == worst), seed),
                            f"share of conversations, kind {worst}"),
             "sound_decides": (of_unit(right[heard], test.select(heard), seed), "share of those in which a sound decides"),
             "digits": (digits(trained, seed), "share of turns of strangers whose digit, or its absence, is heard"),
             **parties(trained, seed)}
    lines = pd.DataFrame([{"what": name, **interval._asdict(), "unit": unit} for name, (interval, unit) in found.items()])
    write_whole(embedded_folder() / "results" / TABLE, lambda part: lines.to_csv(part, index=False, float_format="%.4f"))
    return [{"id": f"fsdd.{name}", **interval._asdict(), "unit": unit} for name, (interval, unit) in found.items()]


def of_unit(values: np.ndarray, batch: Batch, seed: int) -> Interval:
    """Return the mean of values with its interval; conversations that were drawn together stand or fall together."""
    return mean_interval(values.astype(float), seed, groups=batch.unit)


@torch.no_grad()
def digits(trained: Trained, seed: int) -> Interval:
    """Return how many digits of conversations are found among the vectors of training turns that are nearest to each turn."""
    bank = recipe.bank(trained.model, trained.data, 200)["sound"]  # (11, B, D)
    turns = recipe.Turns(trained.data, "sound", "test", 2000)
    torch.manual_seed(seed)
    drawn, truth = turns.batch(torch.arange(2000))
    vectors = trained.model.towers["sound"](drawn["rows"], drawn["present"])[:, 0]
    head = Namer(trained.model.towers["sound"]).head
    nearest = torch.cdist(vectors, bank.flatten(0, 1)).topk(9, largest=False).indices // bank.shape[1]
    named = torch.nn.functional.one_hot(nearest, head.out_features).sum(dim=1).argmax(dim=1)
    return share_interval(int((named == truth).sum()), len(truth))


def parties(trained: Trained, seed: int) -> dict[str, tuple[Interval, str]]:
    """Return how often each method points to the voice of a right party, and how often it would with parties dealt anew."""
    batch = trained.data.build("test", ASKED, seed + 1)
    batch = batch.select(batch.truth.modalities[:, SOUND])
    batch = batch.select((recipe.logits(trained.model, batch).numpy() > 0) == batch.labels)
    case, random = Case(trained.model, batch), np.random.default_rng(seed)
    sounding = batch.given[:, :, SOUND] & (batch.party > 0)  # turns with a sound, (N, T)
    decides = batch.truth.cells[:, :, SOUND]
    dealt = batch.party.copy()
    for row in dealt:
        there = np.flatnonzero(row)
        row[there] = row[random.permutation(there)]
    found, unit = {}, f"share of {len(batch)} conversations in which a sound decides and that are answered rightly"
    for title, method in METHODS.items():
        of_turns = np.where(sounding, np.nan_to_num(method(case)), np.nan)
        for null, party in ((False, batch.party), (True, dealt)):
            hit = right_party(case, of_turns, party, decides, sounding)
            key = f"{'null' if null else 'party'}.{title}"
            found[key] = of_unit(hit, batch, seed), f"{unit}; parties dealt anew" if null else unit
    deciding, all_heard = ((of_parties(case, turns, batch.party) > 0).sum(axis=1) for turns in (decides, sounding))
    chance = deciding / all_heard
    return found | {"party.chance": (of_unit(chance, batch, seed), unit)}


def right_party(case: Case, of_turns: np.ndarray, party: np.ndarray, decides: np.ndarray, sounding: np.ndarray) -> np.ndarray:
    """Return whether the party with the largest sum over its sounding turns is one whose sound decides, (N,)."""
    sums = np.where(of_parties(case, sounding, case.batch.party) > 0, of_parties(case, np.nan_to_num(of_turns), party), np.nan)
    return recall(sums, of_parties(case, decides, case.batch.party) > 0)


def of_parties(case: Case, of_turns: np.ndarray, party: np.ndarray) -> np.ndarray:
    """Sum values of turns over parties, (N, parties)."""
    return np.nan_to_num(by_party(case, of_turns.astype(float), party))


def sounds(case: Case) -> Groups:
    """Return the sounds of the turns as groups; words and frames stay."""
    return case.groups["turn"].apart("sound")


def of_features(key: str) -> Callable[[Case], np.ndarray]:
    """Return a method whose importances of segments are summed over each turn."""
    def scores(case: Case) -> np.ndarray:
        values = explain(case.model, case.inputs, case.modalities, key).values["sound"]
        return case.groups["turn"].summed({"sound": values.nan_to_num(0)})["sound"].numpy()

    return scores


def occlusion(case: Case) -> np.ndarray:
    """Return what is lost with the sound of each turn hidden, (N, T)."""
    return explain(case.model, case.inputs, case.modalities, "feature ablation", groups=sounds(case)).joint().numpy()


def exact(case: Case) -> np.ndarray:
    """Return the exact Shapley values of the sounds of the turns, words and frames shown, (N, T)."""
    game = Game.about(case.question, sounds(case))
    found = np.full((len(case), len(sounds(case))), np.nan)
    found[:, [sounds(case).names.index(name) for name in game.names]] = shapley.shapley(game.values_of_all().numpy())
    return found


METHODS = {"gradient": of_features("gradient norm"), "cross_gradient": of_features("cross gradient"),
           "gradient_x_input": of_features("gradient x input"), "occlusion": occlusion, "exact_shapley": exact}
