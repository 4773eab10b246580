"""The trained systems of the paper: a recipe joins data, a model and its training, one system a file.

:func:`load_or_train` returns any of them by name; ``RECIPES`` lists the names.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from torch import nn

from crossexplain.checks import require_one_of
from crossexplain.models import checkpoints
from crossexplain.models.training import History

WHERE = {  # name of a recipe, which is that of its checkpoint: the module that holds it
    "slim_vgg": "clutter", "reviews_minilm": "reviews", "collages": "collages", "collages_mnist": "collages",
    "pure_shortcut": "controls", "scenes_fusion": "scenes", "scenes_clip_vit": "scenes", "scenes_clip_cnn": "scenes",
    "scenes_one_stream": "one_stream", "scenes_decoder": "decoder",
    **dict.fromkeys(("conversations", "conversations_early", "conversations_late", "conversations_voices"), "conversations"),
    "flickr8k_fusion": "flickr8k", "flickr8k_clip_cnn": "flickr8k", "dialogues": "dialogues",
}


Kept = TypeVar("Kept", bound="Trained")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A trained model, what it was trained on, and how.

    Attributes
    ----------
    name : str
        Of the recipe.
    model : torch.nn.Module
        In eval mode, frozen.
    data
        What the recipe makes examples from; see its module.
    seed : int
    histories : dict of str to History
        Of each training by its step, in order; empty for a model that was loaded without them.
    card : dict
        Of the checkpoint; empty for a model that was trained just now.
    part : torch.nn.Module, optional
        What the checkpoint holds, where that is not the whole model.
    file : str, optional
        Name of the checkpoint, where that is not the name of the recipe.
    """

    name: str
    model: Any
    data: Any
    seed: int = 0
    histories: dict[str, History] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)
    part: nn.Module | None = None
    file: str | None = None

    @property
    def history(self) -> History | None:
        """Of the last training."""
        return next(reversed(self.histories.values()), None)

    @property
    def seconds(self) -> float:
        """Time that the trainings took; of a model that was loaded, the time on its card."""
        return sum(history.seconds for history in self.histories.values()) or self.card.get("seconds", 0.0)

    @property
    def courses(self) -> dict[str, dict[str, list[float]]]:
        """``"loss"`` and ``"validation"`` score of each epoch, by step."""
        return self.card.get("courses") or {step: {"loss": history.train_loss, "validation": history.validation_score}
                                            for step, history in self.histories.items()}


@dataclass(frozen=True)
class Recipe:
    """How one system of the paper is trained, loaded and described.

    Attributes
    ----------
    name : str
        Of the recipe and of its checkpoint.
    train : callable
        ``train(seed=, size=, progress=, resume=, **options)`` returns a :class:`Trained`. ``size`` is ``"page"``, or
        ``"small"`` for one epoch on a few examples, to see that everything runs; ``resume`` is a folder for the state of the
        training after each epoch, from which a training that was cut off goes on.
    load : callable
        ``load(seed=, size=, progress=, **options)`` returns a :class:`Trained` that was trained before, or None.
    card : callable
        ``card(trained)`` returns at least ``"data"`` and ``"accuracy"`` for the card of the checkpoint.
    profiles : bool
        Whether ``train`` and ``load`` take a ``profile``, ``"embedded"`` or ``"full"``.
    folder : callable, optional
        Returns the folder of the checkpoint; default, that of those that travel with the project.
    limit : int
        Greatest size of the checkpoint in bytes.
    """

    name: str
    train: Callable[..., Trained]
    load: Callable[..., Trained | None]
    card: Callable[[Any], dict[str, Any]]
    profiles: bool = False
    folder: Callable[[], Path] | None = None
    limit: int = checkpoints.LIMIT


class _Recipes(Mapping[str, Recipe]):
    """Recipes by name, each imported when it is asked for."""

    def __getitem__(self, name: str) -> Recipe:
        recipe: Recipe = import_module(f"{__name__}.{WHERE[name]}").RECIPES[name]
        return recipe

    def __iter__(self) -> Iterator[str]:
        return iter(WHERE)

    def __len__(self) -> int:
        return len(WHERE)


RECIPES: Mapping[str, Recipe] = _Recipes()


def load_or_train(name: str, profile: str = "embedded", seed: int = 0, *, retrain: bool = False, size: str = "page",
                  progress: bool = True, **options: Any) -> Trained:
    """Return a system of the paper as it travels with the book, or train it again.

    Parameters
    ----------
    name : str
        One of ``RECIPES``.
    profile : {"embedded", "full"}
        Whether to use the data and weights that travel with the book, or the full ones where the recipe has some.
    seed : int
        Of weights, examples and order; only used when training.
    retrain : bool
        True trains.
    size : {"page", "small"}
        ``"small"`` is one epoch on a few examples, to see that everything runs.
    progress : bool
        Show a progress bar.
    options
        Further arguments of the recipe.

    Returns
    -------
    Trained

    Raises
    ------
    crossexplain.checks.InputError
        For an unknown name or profile.
    crossexplain.models.weights.WeightsError
        If the checkpoint is missing or broken.
    """
    require_one_of(name, RECIPES, "recipe")
    require_one_of(profile, ("embedded", "full"), "profile")
    recipe, settings = RECIPES[name], {"seed": seed, "size": size, "progress": progress, **options}
    if recipe.profiles:
        settings["profile"] = profile
    return (None if retrain else recipe.load(**settings)) or recipe.train(**settings)


def keep(trained: Trained, folder: Path | None = None) -> Path:
    """Write the weights of a trained model and their card as a checkpoint.

    Parameters
    ----------
    trained : Trained
    folder : Path, optional
        Default: that of the recipe.

    Returns
    -------
    Path
        Of the weights.
    """
    recipe = RECIPES[trained.name]
    card = {**recipe.card(trained), "seed": trained.seed,
            "command": f"python -m crossexplain train {trained.name} --seed {trained.seed}",
            "seconds": round(trained.seconds, 1),
            "history": {step: asdict(history) for step, history in trained.histories.items()}}
    folder = recipe.folder() if folder is None and recipe.folder else folder
    return checkpoints.save(trained.part or trained.model, trained.file or trained.name, card, folder, recipe.limit)


def with_checkpoint(trained: Kept, folder: Path | None = None) -> Kept:
    """Return the model frozen, with the weights, card and histories of a checkpoint; arguments as for :func:`keep`."""
    card = checkpoints.load(trained.file or trained.name, trained.part or trained.model, folder)
    trained.model.requires_grad_(False).eval()
    return replace(trained, card=card, histories={step: History(**of) for step, of in card.get("history", {}).items()})


def state_file(resume: Path | None, name: str, seed: int, step: str = "training") -> Path | None:
    """Return the file for the state of a step of a training, or None where nothing is to be written."""
    return None if resume is None else Path(resume) / f"{name}_{seed}_{step}.pt"


def by_kind(right: ArrayLike, kinds: ArrayLike) -> dict[str, float]:
    """Return the share of right answers: ``"all"``, and of each kind.

    Examples
    --------
    >>> by_kind([True, False, True], ["even", "odd", "even"])
    {'all': 0.6666666666666666, 'even': 1.0, 'odd': 0.0}
    """
    shares, names = np.asarray(right, dtype=float), np.asarray(kinds)
    return {"all": float(shares.mean())} | {kind: float(shares[names == kind].mean()) for kind in dict.fromkeys(names.tolist())}
