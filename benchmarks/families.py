"""Which models work: a small random model of each family, adapted, and each method held against what is right by hand.

Every family is asked by every method that may fit it. An answer is right if it is what plain autograd, a loop over single
examples, or the definition gives; a refusal is one in this package's own words. All else is counted as wrong or foreign.
"""

import csv
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.studies import typed, zoo
from benchmarks.studies.zoo import decoders, others, pairs, pictures, texts
from crossexplain import Game, InputError, explain, preflight, rounds
from crossexplain.adapters import adapt
from crossexplain.adapters.draft import NO_ATTENTION
from crossexplain.gradients import tokens
from crossexplain.gradients.modalities import ImageCells, Tokens

TABLE = Path(__file__).parent.parent / "data/results/families.csv"
ANIMALS = {**pairs.ANIMALS, **decoders.ANIMALS, **texts.ANIMALS, **pictures.ANIMALS, **others.ANIMALS}
RIGHT, WRONG, REFUSED, FOREIGN, NOT = "right", "wrong", "refused", "foreign", "not for it"


class Asked:
    """One animal, adapted, and what is right for it."""

    def __init__(self, animal: zoo.Animal):
        choices = {f"{side.name}_grid": side.grid for side in animal.sides if hasattr(side, "grid")} | animal.choices
        inputs, self.donors = choices.pop("inputs", None), choices.pop("donors", None)
        self.animal, self.adapted = animal, adapt(animal.model, None, inputs, **choices)
        self.inputs = self.adapted.inputs(animal.batch)
        self.sides = [next(side for side in animal.sides if side.name == m.name) for m in self.adapted.modalities]
        animal.sides = self.sides
        self.baselines = {side.name: _baseline(side) for side in self.sides}
        self.numbers = range(len(animal.examples))
        self._tables: list | None = None

    @property
    def arguments(self) -> tuple:
        """What every entry point is given first."""
        return self.adapted.model, self.inputs, self.adapted.modalities

    @property
    def settings(self) -> dict:
        """The baselines, donors and target."""
        return {"baselines": self.baselines, "target": self.adapted.target, "donors": self.donors}

    @property
    def tables(self) -> list:
        """The evidence of every set of features of each example, by a plain loop."""
        if self._tables is None:
            self._tables = [zoo.table(self.animal, number) for number in self.numbers]
        return self._tables

    def close(self, found: object, expected: object, sizes: object = None) -> bool:
        """Return whether numbers are alike up to rounding, a share of the largest, or of the sizes that were added up."""
        found, expected = torch.as_tensor(found).double(), torch.as_tensor(expected).double()
        sizes = expected if sizes is None else torch.as_tensor(sizes).double()
        size = max(1e-6, float(sizes.abs().max())) if sizes.numel() else 1.0
        return found.shape == expected.shape and bool((found - expected).abs().max() <= self.animal.tolerance * size)

    def present(self, number: int, values: dict) -> list[list[float]]:
        """Return the values of the features that an example has, by modality in order."""
        listed = []
        for modality in self.adapted.modalities:
            here = modality.features(self.inputs)[number]
            listed.append(values[modality.name][number][here].tolist())
        return listed


def _baseline(side: object) -> str:
    return side.how if isinstance(side, zoo.Words) else getattr(side, "baseline", "zero")


def _flat(parts: list[list[float]]) -> list[float]:
    return [value for part in parts for value in part]


def game(asked: Asked) -> bool:
    """The value of every set of features, from the game."""
    played = Game(*asked.arguments, **asked.settings, progress=False)
    found = played.values_of_all()
    for number in asked.numbers:
        here = played.present[number].tolist()
        columns = [
            sum(1 << place for bit, place in enumerate(i for i, there in enumerate(here) if there) if index >> bit & 1)
            for index in range(len(asked.tables[number]))
        ]
        if not asked.close(found[number, columns], asked.tables[number]):
            return False
    return True


def by_explain(
    method: str, expected: Callable[[Asked, int], list[float]], sizes: Callable | None = None
) -> Callable[[Asked], bool]:
    """Return the check of a method of ``explain`` against one number for each feature."""

    def check(asked: Asked) -> bool:
        told = explain(*asked.arguments, method, **asked.settings)
        return all(
            asked.close(
                _flat(asked.present(number, told.values)), expected(asked, number), sizes and sizes(asked, number)
            )
            for number in asked.numbers
        )

    return check


def _shapley(asked: Asked, number: int) -> list[float]:
    return zoo.shapley(asked.tables[number]).tolist()


def _ablation(asked: Asked, number: int) -> list[float]:
    values = asked.tables[number]
    return [values[-1] - values[len(values) - 1 - (1 << player)] for player in range(len(values).bit_length() - 1)]


def _evidence(asked: Asked, number: int) -> list[float]:
    return asked.tables[number].tolist()


def _norm(asked: Asked, number: int) -> list[float]:
    return _flat(zoo.gradients(asked.animal, number, "norm"))


def _times(asked: Asked, number: int) -> list[float]:
    return _flat(zoo.gradients(asked.animal, number, "times"))


def _sizes(asked: Asked, number: int) -> list[float]:
    return _flat(zoo.gradients(asked.animal, number, "sizes"))


class NotForIt(Exception):
    """A method that is about something that the family has not."""


def four_rounds(asked: Asked) -> bool:
    """The rounds: logits with nothing masked and with each modality masked, and the gradient of round 1."""
    if len(asked.sides) < 2:
        raise NotForIt("the rounds are about two modalities or more")
    record = rounds(*asked.arguments, **asked.settings | {"baselines": [asked.baselines]}, progress=False)
    label = record.baselines[0]
    full = record.passes[label, "full"]
    for number in asked.numbers:
        example = asked.animal.examples[number]
        with torch.no_grad():
            if not asked.close(full.logits[number], asked.animal.logits(asked.animal.model, example)):
                return False
            for side in asked.sides:
                views = [asked.animal.logits(asked.animal.model, one) for one in zoo.masked(asked.animal, side, number)]
                if not asked.close(
                    record.passes[label, f"{side.name} masked"].logits[number], torch.stack(views).mean(dim=0)
                ):
                    return False
        norms = zoo.gradients(asked.animal, number, "norm", of_logit=True)
        found = {name: values * record.scale[name][:, None] for name, values in full.importance.items()}
        if not all(asked.close(*pair) for pair in zip(asked.present(number, found), norms)):
            return False
    return isinstance(record.verdict().answer, str)


def picture_map(asked: Asked) -> bool:
    """Grad-CAM at the layer that the adapter names, summed over the cells."""
    pictures_read = [m for m in asked.adapted.for_maps if isinstance(m, ImageCells)]
    if not pictures_read:
        raise NotForIt("there is no picture")
    if pictures_read[0].layer.startswith("input:"):
        raise InputError(
            "no layer is known in which the parts of a picture have their places; it is read at the pixels."
        )
    model, inputs, _ = asked.arguments
    told = explain(model, inputs, asked.adapted.for_maps, "grad-cam", **asked.settings)
    side = next(side for side in asked.sides if side.name == pictures_read[0].name)
    found = told.values[side.name]
    if asked.animal.maps is None:
        return bool(found.isfinite().all())
    return all(asked.close(found[number], side.pooled(zoo.grad_cam(asked.animal, number))) for number in asked.numbers)


def word_scores(asked: Asked) -> bool:
    """Gradient times input at the words."""
    words = next((m for m in asked.adapted.modalities if isinstance(m, Tokens)), None)
    if words is None:
        raise NotForIt("there are no words")
    target = asked.adapted.target
    found = tokens.attribute(
        asked.adapted.model,
        asked.inputs,
        words.layer,
        "gradient x input",
        target if target is not None else "predicted",
        special="keep",
    )
    for number in asked.numbers:
        side = next(side for side in asked.sides if side.name == words.name)
        expected = zoo.of_logit(asked.animal, number, side)
        sizes = zoo.gradients(asked.animal, number, "sizes", of_logit=True)[asked.sides.index(side)]
        if not asked.close(found[number][words.features(asked.inputs)[number]], expected, sizes):
            return False
    return True


def relevance(asked: Asked) -> bool:
    """Attention maps times their gradients."""
    if not asked.adapted.attention:
        reasons = [
            why for what, chosen, why in asked.adapted.choices if what.endswith(": attention") or what == "attention"
        ]
        if set(reasons) <= {NO_ATTENTION}:
            raise NotForIt("there is no attention")
        raise InputError(f"no attention map can be read: {'; '.join(dict.fromkeys(reasons))}.")
    told = explain(*asked.arguments, "attention-relevance", **asked.settings, attention=asked.adapted.attention)
    for name, found in told.values.items():
        if name not in asked.animal.attention:  # of the modules that the adapter names, the maps by hand
            modules = [module.partition("#")[0].partition("@")[0] for module in asked.adapted.attention[name]]
            axes = asked.animal.maps[1] if asked.animal.maps else ()
            asked.animal.attention[name] = (modules, 1, axes[0] if isinstance(axes, tuple) and axes else 0)
        side = next(side for side in asked.sides if side.name == name)
        for number in asked.numbers:
            expected = zoo.relevance_of(asked.animal, number, side)
            here = next(m for m in asked.adapted.modalities if m.name == name).features(asked.inputs)[number]
            if not asked.close(found[number][here], expected):
                return False
    return True


def checked(asked: Asked) -> bool:
    """The checks before the rounds run."""
    return isinstance(preflight(*asked.arguments, target=asked.adapted.target), list)


METHODS: dict[str, Callable[[Asked], bool]] = {
    "rounds": four_rounds,
    "game": game,
    "exact shapley": by_explain("exact shapley", _shapley, _evidence),
    "gradient norm": by_explain("gradient norm", _norm),
    "gradient x input": by_explain("gradient x input", _times, _sizes),
    "feature ablation (Captum)": by_explain("feature ablation", _ablation, _evidence),
    "Grad-CAM": picture_map,
    "word scores": word_scores,
    "attention relevance": relevance,
    "preflight": checked,
}


def outcome(check: Callable[[Asked], bool], asked: Asked) -> tuple[str, str]:
    """Return what came of a method on an animal, and the reason of a refusal or the error."""
    try:
        return (RIGHT if check(asked) else WRONG), ""
    except NotForIt as error:
        return NOT, str(error)
    except InputError as error:
        return REFUSED, str(error)
    except Exception as error:  # the point is to see whose error it is
        return FOREIGN, f"{type(error).__name__}: {error}"


def judged(name: str) -> list[dict]:
    """Return a line for each method on one animal."""
    animal = (ANIMALS.get(name) or pictures.larger()[name])()
    line = {"family": animal.family, "kind": animal.kind}
    try:
        asked = Asked(animal)
    except InputError as error:
        return [line | {"method": method, "outcome": REFUSED, "reason": str(error)} for method in METHODS]
    except Exception as error:
        return [
            line | {"method": method, "outcome": FOREIGN, "reason": f"{type(error).__name__}: {error}"}
            for method in METHODS
        ]
    lines = []
    for method, check in METHODS.items():
        came, reason = outcome(check, asked)
        lines.append(line | {"method": method, "outcome": came, "reason": reason})
    return lines


def rows(seed: int = 0) -> list[dict]:
    """Judge every family, write the table, and return how many are right, wrong, and broken by another library's error."""
    names = [*ANIMALS, *pictures.larger()]
    lines = [line for name in names for line in judged(name)]
    _write(TABLE, lines)
    _write(TABLE.with_name("typed.csv"), typed.table())
    families = {_without_size(line["family"]) for line in lines if line["outcome"] == RIGHT}
    wrong, foreign = (sum(line["outcome"] == which for line in lines) for which in (WRONG, FOREIGN))
    counts = [
        ("adapters.families", len(families), len(names), "families of models that are explained right; n models"),
        ("adapters.wrong", wrong, len(lines), "answers that are not right"),
        ("adapters.foreign_errors", foreign, len(lines), "errors of other libraries"),
        *(
            (f"adapters.lines.{line['library']}", line["lines_there"] / line["lines_here"], 1, f"lines / ours: {line['task']}")
            for line in typed.table()
        ),
    ]
    return [{"id": key, "value": value, "low": value, "high": value, "n": n, "unit": unit} for key, value, n, unit in counts]


def _without_size(family: str) -> str:
    """Return a family's name; models of torchvision that differ in their size are one."""
    kinds = pictures.KINDS if family.startswith("torchvision ") else ()
    return next((f"torchvision {kind}" for kind in kinds if kind in family), family)


def _write(table: Path, lines: list[dict]) -> None:
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
