"""What decides a conversation, and how well explanations find it: the turn, the chunk of it, the party.

Each method gives an importance to every group; truth says which groups decide. A method that hides asks with whole groups
hidden; the importances of all others are those of features, summed over each group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from crossexplain.coalitions import shapley
from crossexplain.coalitions.game import Game
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.data.conversations import MODALITIES, Batch, K, S, T
from crossexplain.evaluation.methods import explain
from crossexplain.evaluation.task import CannotRun
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Modality, Tokens, Vectors
from crossexplain.gradients.question import Question
from crossexplain.gradients.rounds import rounds

BY = ("turn", "chunk", "party")
TICKS = 6  # moments of a turn: two for each frame and each segment of the sound, three for each phrase
PHRASES = 2  # of a turn
LINES = {"words": PHRASES, "frames": K, "sound": S}  # chunks of a turn, by modality
BUDGET = 256  # coalitions an example, of methods that sample
MAPS = [f"fusion.layers.{i}.across#1" for i in range(2)]  # which turns of which modality the question attends to, hop by hop
ROUND_4 = "round 4: picked masked"


def modalities(model: nn.Module) -> list[Modality]:
    """Return how words, frames and sound are cut into features and hidden: nothing said, blank frames, silence."""
    return [Tokens("words", "words", model.layers["words"], mask_id=None),
            *(Vectors(name, name, model.layers[name], attention=f"{name}_present", layout="NTD") for name in MODALITIES[1:])]


@dataclass
class Case:
    """A model and held-out conversations with known truth.

    Attributes
    ----------
    model : torch.nn.Module
    batch : Batch
    """

    model: nn.Module
    batch: Batch

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def inputs(self) -> dict[str, Tensor]:
        """What the model takes."""
        return self.batch.inputs()

    @cached_property
    def modalities(self) -> list[Modality]:
        """How it is cut into features and hidden."""
        return modalities(self.model)

    @cached_property
    def question(self) -> Question:
        """The model asked about the conversations, with neutral baselines; the predicted answer is followed."""
        return Question(self.model, self.inputs, self.modalities)

    @cached_property
    def right(self) -> np.ndarray:
        """Which conversations the model answers rightly, (N,)."""
        return (self.question.whole()[:, 0] > 0).cpu().numpy() == self.batch.labels

    @cached_property
    def groups(self) -> dict[str, Groups]:
        """The groups, by what features are grouped by."""
        return {by: Groups(*self.batch.groups(by)) for by in BY}

    @cached_property
    def present(self) -> dict[str, np.ndarray]:
        """Which groups each conversation has, (N, G)."""
        return {by: groups.of(self.question.present).present().numpy() for by, groups in self.groups.items()}

    @cached_property
    def truth(self) -> dict[str, np.ndarray]:
        """Which groups decide, bool (N, G)."""
        known = self.batch.truth
        chunks = self.groups["chunk"].summed({name: torch.from_numpy(part).float() for name, part in known.chunks.items()})
        return {"turn": known.turns, "chunk": (sum(chunks.values()) > 0).numpy(), "party": known.parties}

    def game(self, by: str) -> Game:
        """The exact game of turns or parties."""
        return Game.about(self.question, self.groups[by])

    def summed(self, values: Mapping[str, Tensor], by: str) -> np.ndarray:
        """Sum importances of features, (N, F) by modality, over groups, (N, G)."""
        sums = sum(self.groups[by].summed({name: part.nan_to_num(0).float() for name, part in values.items()}).values())
        return self._there(sums.numpy(), by)

    def largest(self, values: Mapping[str, Tensor], by: str) -> np.ndarray:
        """Return the largest importance of a group's features, (N, G); the groups that have none come last."""
        found = torch.full(self.present[by].shape, -torch.inf)
        for name, part in values.items():
            owner = self.groups[by].owner[name]
            found.scatter_reduce_(1, owner.clamp(min=0), part.float().where(owner >= 0, -torch.inf), "amax")
        return self._there(found.numpy(), by)

    def _there(self, values: np.ndarray, by: str) -> np.ndarray:
        return np.where(self.present[by], values, np.nan)


# Methods

Scores = Callable[[Case, int], dict[str, np.ndarray]]  # a case and a seed -> by "turn", "chunk", "party" scores (N, G)


def of_features(method: str, **options) -> Scores:
    """Return a method whose importances of features are summed over groups."""
    def scores(case: Case, seed: int) -> dict[str, np.ndarray]:
        values = explain(case.model, case.inputs, case.modalities, method, seed=seed, **options).values
        return {by: case.summed(values, by) for by in BY}

    return scores


def of_groups(method: str, **options) -> Scores:
    """Return a method that hides whole groups."""
    def scores(case: Case, seed: int) -> dict[str, np.ndarray]:
        return {by: explain(case.model, case.inputs, case.modalities, method, groups=groups, seed=seed,
                            **options).joint().numpy() for by, groups in case.groups.items()}

    return scores


def exact(index: str) -> Scores:
    """Return values of all coalitions of turns, of parties, and of the chunks of each turn with the other turns shown."""
    def scores(case: Case, seed: int) -> dict[str, np.ndarray]:
        tables = {by: case.game(by).values_of_all().numpy() for by in ("turn", "party")}
        found = {by: case._there(getattr(shapley, index)(table), by) for by, table in tables.items()}
        return found | {"chunk": within(case, index)}

    return scores


def within(case: Case, index: str) -> np.ndarray:
    """Return the exact values of the chunks of each turn, all other turns shown, (N, chunks)."""
    game, names = case.game("chunk"), case.groups["chunk"].names
    turn_of, many = _places()[0][[names.index(name) for name in game.names]], sum(LINES.values())
    bits = (torch.arange(2**many)[:, None] >> torch.arange(many) & 1).bool()
    found = np.full(case.present["chunk"].shape, np.nan)
    for turn in range(T):
        own, rows = (turn_of == turn).nonzero()[:, 0], torch.from_numpy(case.present["turn"][:, turn]).nonzero()[:, 0]
        if len(rows):
            some = bits[:2**len(own), :len(own)]  # (coalitions, chunks of the turn)
            keep = torch.ones(len(rows), len(some), len(game.names), dtype=torch.bool)
            keep[:, :, own] = some
            values = game.values(keep.flatten(0, 1), rows.repeat_interleave(len(some))).reshape(len(rows), -1)
            columns = [names.index(game.names[k]) for k in own]
            found[np.ix_(rows.numpy(), columns)] = getattr(shapley, index)(values.numpy())
    return case._there(found, "chunk")


def _places() -> tuple[Tensor, Tensor]:
    """Return the turn of each chunk, and its number among the chunks of its turn; phrases, frames and segments in a row."""
    turns = torch.cat([torch.arange(T).repeat_interleave(many) for many in LINES.values()])
    starts = np.cumsum([0, *LINES.values()])
    places = torch.cat([start + torch.arange(many).repeat(T) for start, many in zip(starts, LINES.values())])
    return turns, places


def sampled(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return sampled Shapley values, of chunks from ``BUDGET`` coalitions."""
    found = {}
    for by in BY:
        game, names = case.game(by), case.groups[by].names
        found[by] = np.full(case.present[by].shape, np.nan)
        found[by][:, [names.index(name) for name in game.names]] = sampled_shapley(game, BUDGET, seed).numpy()
    return found


def of_rounds(case: Case, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Return the readings of the four rounds, by method and group: the gradient's length in each round, as the paper does."""
    record = rounds(case.model, case.inputs, case.modalities, baselines=[case.question.baselines], control=False,
                    progress=False, seed=seed)
    baseline = record.baselines[0]

    def importance(view: str) -> dict[str, Tensor]:
        return record.passes[baseline, view].importance

    picked = {name: sum(importance(record.picked(other))[name] for other in record.modalities if other != name)
              for name in record.modalities}
    readings = {"round 1: gradient": importance("full"),
                "rounds 2 and 3: others masked": {name: importance(record.only(name))[name] for name in record.modalities},
                ROUND_4: picked,
                "cross gradient": {name: record.by_side[baseline, name].cross for name in record.modalities}}
    return {title: {by: case.summed(values, by) for by in BY} for title, values in readings.items()}


def attention_relevance(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return the attention of the question to the turns times its gradient, where that is above 0 (Chefer et al. 2021)."""
    read = case.question.captured(layers=[*case.question.layers, *MAPS])  # maps (N, heads, states, 3 * T)
    relevance = sum((read.activations[one] * read.gradients[one]).clamp(min=0).mean(dim=1).sum(dim=1) for one in MAPS)
    of_turns = case._there(relevance.unflatten(1, (len(MODALITIES), T)).sum(dim=1).detach().numpy(), "turn")
    return {"turn": of_turns, "party": by_party(case, of_turns, case.batch.party)}


def by_party(case: Case, of_turns: np.ndarray, party: np.ndarray) -> np.ndarray:
    """Sum values of turns (N, T) over the parties whose numbers (N, T) are given, (N, parties)."""
    many = len(case.groups["party"])
    sums = np.stack([np.where(party == 1 + i, np.nan_to_num(of_turns), 0).sum(axis=1) for i in range(many)], axis=1)
    return case._there(sums, "party")


# What needs no model


def at_random(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return a draw."""
    random = np.random.default_rng(seed)
    return {by: case._there(random.random(case.present[by].shape), by) for by in BY}


def recency(before: int) -> Scores:
    """Return the last turn, or so many turns before it."""
    def scores(case: Case, seed: int) -> dict[str, np.ndarray]:
        place = np.arange(T) - (case.batch.party > 0).sum(axis=1, keepdims=True) + 1 + before  # 0: the turn that is meant
        of_turns = case._there(-np.abs(place).astype(float), "turn")
        turns = _places()[0].numpy()
        return {"turn": of_turns, "chunk": np.where(case.present["chunk"], of_turns[:, turns] + 1e-3 * np.arange(len(turns)),
                                                    np.nan),
                "party": by_party(case, (place == 0).astype(float), case.batch.party)}

    return scores


def loudness(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return how loud the loudest segment of a group is."""
    loud = {"sound": case.inputs["sound"].mean(dim=2)}
    return {by: case.largest(loud, by) for by in BY}


def motion(case: Case, seed: int) -> dict[str, np.ndarray]:
    """Return how much the frames of a group differ from the frame before."""
    frames = case.inputs["frames"].unflatten(1, (T, K))
    moved = torch.zeros(frames.shape[:3])
    moved[:, :, 1:] = (frames[:, :, 1:] - frames[:, :, :-1]).abs().mean(dim=3)
    moved[:, :, 0] = moved[:, :, 1]
    return {by: case.largest({"frames": moved.flatten(1)}, by) for by in BY}


BLIND: dict[str, Scores] = {"random": at_random, "the last turn": recency(0), "the turn before": recency(1),
                            "loudness": loudness, "motion": motion}
METHODS: dict[str, Scores] = {
    "exact Shapley": exact("shapley"),
    "exact Banzhaf": exact("banzhaf"),
    "gradient x input": of_features("gradient x input"),
    "Grad-CAM in time": of_features("grad-cam in time"),
    "attention relevance": attention_relevance,
    "occlusion by group": of_groups("feature ablation"),
}
SLOW: dict[str, Scores] = {  # asked about fewer conversations: most are of other libraries
    "sampled Shapley": sampled,
    "dividend of the group": of_groups("feature dividends"),
    "integrated gradients (Captum)": of_features("integrated gradients", n_steps=20, complete=False),
    "gradient SHAP (Captum)": of_features("gradient shap"),
    "DeepLIFT (Captum)": of_features("deeplift"),
    "KernelSHAP (Captum)": of_groups("kernel shap", budget=80),
    "Shapley sampling (Captum)": of_groups("shapley sampling", budget=64),
    "KernelSHAP (shapiq)": of_groups("shapiq shapley", budget=128),
}


def scores_of(case: Case, seed: int, methods: Mapping[str, Scores]) -> dict[str, dict[str, np.ndarray] | str]:
    """Return the scores of each method by group, or the reason why it cannot run."""
    found = {}
    for title, method in methods.items():
        try:
            found[title] = method(case, seed)
        except CannotRun as reason:
            found[title] = str(reason)
    return found


# Metrics


def recall(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return whether the group with the highest score decides, (N,); of equal ones, the share that do. NaN is no group.

    Examples
    --------
    >>> recall(np.array([[1.0, 3.0, np.nan], [2.0, 2.0, 1.0]]), np.array([[False, True, False], [True, False, False]])).tolist()
    [1.0, 0.5]
    """
    scores = np.where(np.isnan(scores), -np.inf, scores)
    top = scores == scores.max(axis=1, keepdims=True)
    return (top & truth).sum(axis=1) / top.sum(axis=1)


def reciprocal_rank(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return 1 / the rank of the highest group that decides, (N,); equal ones share the middle of their ranks."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    best = np.where(truth, scores, -np.inf).max(axis=1, keepdims=True)
    return 1 / (1 + (scores > best).sum(axis=1) + ((scores == best) & ~truth).sum(axis=1) / 2)


def overlap(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the overlap in time of the deciding chunks with as many chunks of the highest scores, (N,).

    It is the time that both cover over the time that one of them covers; (N, chunks) each.
    """
    order = np.argsort(np.argsort(-np.where(np.isnan(scores), -np.inf, scores), axis=1, kind="stable"), axis=1)
    chosen = order < truth.sum(axis=1, keepdims=True)
    ours, known = (some.astype(int) @ ticks() > 0 for some in (chosen, truth))
    return (ours & known).sum(axis=1) / (ours | known).sum(axis=1)


def ticks() -> np.ndarray:
    """Return which moments of a conversation each chunk covers, (chunks, T * TICKS)."""
    turns, covered = _places()[0].numpy(), np.zeros((sum(LINES.values()) * T, T * TICKS), dtype=int)
    within_turn = np.concatenate([np.tile(np.arange(many), T) for many in LINES.values()])
    length = np.concatenate([np.full(T * many, TICKS // many) for many in LINES.values()])
    for chunk, (turn, i, long) in enumerate(zip(turns, within_turn, length)):
        covered[chunk, turn * TICKS + i * long:turn * TICKS + (i + 1) * long] = 1
    return covered


METRICS = {"turn recall": ("turn", recall), "turn reciprocal rank": ("turn", reciprocal_rank),
           "chunk recall": ("chunk", recall), "chunk reciprocal rank": ("chunk", reciprocal_rank),
           "time overlap": ("chunk", overlap), "party right": ("party", recall)}


def chances(case: Case) -> dict[str, np.ndarray]:
    """Return the expected recall of a draw, (N,)."""
    return {f"{by} {'right' if by == 'party' else 'recall'}":
            (case.truth[by] & case.present[by]).sum(axis=1) / case.present[by].sum(axis=1) for by in BY}


def permuted(case: Case, of_turns: np.ndarray, seed: int) -> np.ndarray:
    """Return whether the party is right where the turns of each conversation exchange their parties at random, (N,)."""
    random, party = np.random.default_rng(seed), case.batch.party.copy()
    for row in party:
        there = np.flatnonzero(row)
        row[there] = row[random.permutation(there)]
    return recall(by_party(case, of_turns, party), case.truth["party"])
