"""Models and data sets by the words that a command line takes: names of the book, folders, and ``module:function``."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional

from crossexplain.adapters import adapt
from crossexplain.checks import InputError
from crossexplain.data import scenes
from crossexplain.data.photos import square
from crossexplain.data.scene_words import split_words
from crossexplain.files import digest
from crossexplain.gradients.modalities import ImageCells, Inputs, Tokens
from crossexplain.runs.explainer import Explainable
from crossexplain.runs.plan import Entry, Source

OF_SCENES = "scenes_fusion", "scenes_clip_vit", "scenes_clip_cnn"
OF_PHOTOGRAPHS = "flickr8k_fusion", "flickr8k_clip_cnn"
SCENES = {"scenes": "foil", "scenes-random": "random"}  # name of the drawn data: its kind of pairs
PAIRS = 2000  # of drawn data
Examples = list[Mapping[str, object]]


def model(spec: str) -> Explainable:
    """Return what a run is told to explain.

    Parameters
    ----------
    spec : str
        A model of the book that takes a picture and a text (``"scenes_fusion"``, ``"flickr8k_clip_cnn"``); a folder as
        ``save_pretrained`` of transformers writes it, with its processor; or ``"module:function"``, which returns an
        :class:`~crossexplain.runs.explainer.Explainable`.

    Raises
    ------
    InputError
        For anything else.
    """
    if spec in OF_SCENES:
        return _of_scenes(spec)
    if spec in OF_PHOTOGRAPHS:
        return _of_photographs(spec)
    if (Path(spec) / "config.json").is_file():
        return _of_folder(Path(spec))
    if ":" in spec:
        made, code = called(spec)
        if not isinstance(made, Explainable):
            raise InputError(f"{spec}() gave a {type(made).__name__}, expected a crossexplain.runs.Explainable(model, "
                             "modalities, inputs).")
        return replace(made, name=spec, code=code)
    raise InputError(f"got the model {spec!r}, expected one of {', '.join((*OF_SCENES, *OF_PHOTOGRAPHS))}, a folder with the "
                     "config.json of a model of transformers, or module:function.")


def data(spec: str, **columns: str) -> Source:
    """Return the data set that a run is told to read.

    Parameters
    ----------
    spec : str
        ``"scenes"`` (drawn pictures with captions and foils), ``"scenes-random"``, ``"module:function"`` that returns a
        source or a dataset of PyTorch, or a path that :mod:`crossexplain.runs.sources` reads.
    **columns
        What its columns are called, for data that is read from a path.
    """
    if spec in SCENES:
        return DrawnScenes(SCENES[spec])
    made: Any = called(spec)[0] if _is_call(spec) else None
    if hasattr(made, "entries"):
        source: Source = made
        return source
    from crossexplain.runs import sources

    return sources.open_source(spec, **columns) if made is None else sources.of_dataset(made, spec)


def _is_call(spec: str) -> bool:
    """Return whether a name is module:function of a module that Python finds, and not flickr8k:test."""
    module, _, name = spec.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        return False
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def called(spec: str) -> tuple[object, str]:
    """Return what ``module:function`` returns, and a hash of the module's code."""
    module, _, name = spec.partition(":")
    try:
        function: Callable[[], object] = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"got {spec!r}, expected module:function, which Python finds from here ({error}).") from error
    path = inspect.getsourcefile(import_module(module))
    return function(), digest(Path(path)) if path else ""


@dataclass(frozen=True)
class DrawnScenes:
    """Drawn pictures with captions, half of them true; see :mod:`crossexplain.data.scenes`.

    Parameters
    ----------
    kind : {"foil", "random"}
    n : int
        A multiple of 4.
    seed : int
    """

    kind: str = "foil"
    n: int = PAIRS
    seed: int = 0
    columns = {"label": int, "kind": str, "words": int, "image": str}

    def describe(self) -> dict[str, object]:
        """Return what tells these scenes from others."""
        return {"format": "scenes", "kind": self.kind, "pairs": self.n, "seed": self.seed}

    def entries(self) -> Iterator[Entry]:
        """Give the pairs."""
        for i, (caption, label, kind) in enumerate(zip(self._pairs.captions, self._pairs.labels.tolist(), self._pairs.kinds)):
            yield Entry(f"{self.kind}-{self.seed}-{i:05d}", partial(self._load, i),
                        {"label": label, "kind": kind, "words": len(caption.split()), "image": f"scene {self._pairs.image[i]}"})

    def _load(self, i: int) -> dict[str, object]:
        return {"image": self._pairs.images([i])[0], "text": self._pairs.captions[i]}

    @cached_property
    def _pairs(self) -> scenes.Pairs:
        return scenes.load().build("test", self.n, self.seed, self.kind)


def pixels(picture: object, side: int) -> Tensor:
    """Return the middle square of a picture of Pillow, or of a tensor (3, H, W) from 0 to 1, as (3, side, side)."""
    if isinstance(picture, Image.Image):
        picture = functional.to_image(picture.convert("RGB")).as_subclass(Tensor)
        picture = functional.to_dtype(picture, torch.float32, scale=True)
    if not isinstance(picture, Tensor) or picture.ndim != 3 or len(picture) != 3:
        raise InputError(f"got the picture as {type(picture).__name__}, expected one of Pillow, or a tensor (3, H, W).")
    return square(picture, side)[0]


def _pictures(examples: Examples, side: int) -> Tensor:
    return torch.stack([pixels(example["image"], side) for example in examples])


def _of_scenes(name: str) -> Explainable:
    from crossexplain.recipes import load_or_train
    from crossexplain.recipes.scenes import inputs

    net = load_or_train(name, progress=False).model
    modalities = [ImageCells(layer=net.image_layer, grid=(6, 6)), Tokens(layer=net.text_layer, special=(2, 3))]
    return Explainable(net, modalities, lambda examples: inputs(net, _pictures(examples, scenes.SIDE), _texts(examples)), name,
                       words=lambda example: split_words(str(example["text"])))


def _of_photographs(name: str) -> Explainable:
    from crossexplain.recipes import flickr8k

    trained = flickr8k.travelling(name.removeprefix("flickr8k_"))
    net, towers = trained.model, trained.data
    modalities = [ImageCells(layer=net.image_layer, grid=(7, 7)), Tokens(**towers.words)]
    return Explainable(net, modalities, lambda examples: towers.inputs_of(_pictures(examples, towers.network.size),
                                                                         _texts(examples)), name,
                       words=lambda example: _pieces(towers.tokenizer, example))


def _of_folder(folder: Path) -> Explainable:
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
    kind = getattr(transformers, (config.architectures or ["none"])[0], None)
    if kind is None:
        raise InputError(f"{folder.name}/config.json names no class of transformers; write module:function.")
    net = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True, attn_implementation="eager").eval()
    processor = transformers.AutoProcessor.from_pretrained(folder, local_files_only=True)

    def inputs(examples: Examples) -> Inputs:
        given = {"images": [example["image"] for example in examples], "text": _texts(examples)}
        return adapted.inputs(processor(**given, padding=True, truncation=True, return_tensors="pt"))

    adapted = adapt(net, processor)
    return Explainable(adapted.model, adapted.modalities, inputs, folder.name, adapted.target, adapted.attention,
                       words=lambda example: _pieces(processor.tokenizer, example))


def _pieces(tokenizer: Any, example: Mapping[str, object]) -> list[str]:
    """Return the pieces of a text that are no special ones, as a tokenizer cuts it."""
    numbers = tokenizer(str(example["text"]), truncation=True)["input_ids"]
    return list(tokenizer.convert_ids_to_tokens([number for number in numbers if number not in tokenizer.all_special_ids]))


def _texts(examples: Examples) -> list[str]:
    return [str(example["text"]) for example in examples]
