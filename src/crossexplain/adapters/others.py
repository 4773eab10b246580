"""Sound, video, tables, and models of one's own whose inputs say by name and shape what they are."""

import inspect
import re
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.adapters.draft import Adapted, Draft, Part, picture
from crossexplain.adapters.pictures import require_one_target
from crossexplain.checks import InputError, require_batch, require_finite
from crossexplain.gradients.modalities import Columns, ImageCells, Inputs, Modality, Vectors, Video, is_batched


class Waves(Modality):
    """A sound as it was sampled, (N, L), cut into stretches of nearly the same length.

    Parameters
    ----------
    name, input : str
        Word for it, and the model's keyword.
    layer : str, optional
        Where the gradient is read; by default the samples themselves, the only place where it is known which is whose.
    stretches : int
        How many.
    attention : str, optional
        Keyword of the mask (N, L) of samples that are no padding; a stretch of padding alone is no feature.

    Notes
    -----
    Baselines: ``"zero"`` (silence) and ``"data"`` (the same stretch of another sound).
    """

    baselines = ("zero", "data")
    unit = "stretches"

    def __init__(self, name: str = "sound", input: str = "input_values", layer: str | None = None, stretches: int = 8,
                 attention: str | None = None):
        self.name, self.input, self.layer = name, input, layer or f"input:{input}"
        self.stretches, self.attention = stretches, attention

    def features(self, inputs: Inputs) -> Tensor:
        """Return bool (N, F): True where a stretch holds more than padding."""
        samples = self.value(inputs)
        if samples.ndim != 2 or not samples.is_floating_point() or samples.shape[1] < self.stretches:
            raise InputError(f"got {self.name} as {samples.dtype} {tuple(samples.shape)}, expected floating samples (N, L), at "
                             f"least {self.stretches} of them; pass stretches=... for fewer.")
        require_batch(len(samples))
        require_finite(samples, self.name)
        heard = torch.ones_like(samples)
        if self.attention is not None:
            if not isinstance(inputs.get(self.attention), Tensor) or inputs[self.attention].shape != samples.shape:
                raise InputError(f"the mask {self.attention!r} of {self.name} is missing or not of the samples' shape "
                                 f"{tuple(samples.shape)}; pass that of the processor (return_attention_mask=True).")
            heard = (inputs[self.attention] != 0).to(samples.dtype)
        return self._over_stretches(heard) > 0

    def replace(self, inputs: Inputs, keep: Tensor, baseline: str, donor: Inputs | None) -> dict[str, Tensor]:
        """Return the samples with those of stretches outside ``keep`` replaced."""
        samples = self.value(inputs)
        other = self.value(donor) if baseline == "data" else samples.new_zeros(())
        return {self.input: torch.where(keep[:, self._stretch(samples)], samples, other)}

    def per_feature(self, values: Tensor, count: int) -> Tensor:
        """Sum over the samples of each stretch: (N, F)."""
        if values.ndim != 2:
            raise InputError(f"layer {self.layer!r} gives {tuple(values.shape)}, expected samples (N, L); read the gradient of "
                             f"{self.name} at the samples, layer=None.")
        return self._over_stretches(values)

    def _stretch(self, samples: Tensor) -> Tensor:
        length = samples.shape[1]
        return torch.arange(length, device=samples.device) * self.stretches // length

    def _over_stretches(self, values: Tensor) -> Tensor:
        zeros = values.new_zeros((len(values), self.stretches))
        return zeros.index_add(1, self._stretch(values), values)


def _sound(draft: Draft) -> Adapted:
    model = draft.model
    keys = parts.keywords(model)
    if parts.is_a(model, "AST.*"):
        _as_picture(draft, "input_values", "a spectrogram (N, time, frequency)")
    elif "input_values" in keys:
        mask = "attention_mask" if draft.given is not None and "attention_mask" in draft.given else None
        source = "the inputs" if mask else "none in the inputs that were passed"
        draft.add(Waves, "sound", input=("input_values", "model's forward(): samples"), attention=(mask, source))
    else:
        _as_picture(draft, "input_features", "a spectrogram (N, frequency, time)")
    require_one_target(draft)
    return draft.finish("a classifier of sounds")


def _as_picture(draft: Draft, key: str, what: str) -> None:
    """Read a spectrogram (N, H, W) as a picture of one channel."""
    def pictures_of(batch: dict[str, Any], _: object) -> dict[str, Any]:
        return {**batch, key: batch[key][:, None]} if batch[key].ndim == 3 else batch

    draft.call = lambda model, inputs: model(**{**inputs, key: inputs[key][:, 0]})
    draft.steps.append(pictures_of)
    picture(draft, key, name="sound", why=f"model's forward(): {what}, as a picture of one channel")
    draft.note("  inputs", "adapted.inputs(batch)", "gives the spectrogram its channel, (N, 1, H, W)")


def _video(draft: Draft) -> Adapted:
    key = next((key for key in ("pixel_values", "pixel_values_videos") if key in parts.keywords(draft.model)), None)
    if key is None:
        raise InputError(f"{type(draft.model).__name__} takes no pixel_values; name the modality yourself, as in "
                         "Video(input=...).")
    draft.add(Video, "video", input=(key, "model's forward(): frames"), layout=("NTCHW", "how its processor gives frames"))
    require_one_target(draft)
    return draft.finish("a classifier of videos")


FAMILIES = (
    (lambda model: parts.is_a(model, r".*ForVideoClassification"), _video),
    (lambda model: parts.is_a(model, r".*ForAudioClassification|.*ForSequenceClassification")
     and {"input_values", "input_features"} & set(parts.keywords(model)) and "input_ids" not in parts.keywords(model), _sound),
)

# Models of one's own

# What keywords are taken for. A name alone is not enough: the example has to be of the kind too.
NAMES = {
    "picture": r"images?|imgs?|pictures?|photos?|pixels?|pixel_values|x|input|inputs",
    "words": r"input_ids|tokens?|ids|words?|text|texts|captions?|sentences?|questions?",
    "video": r"videos?|frames?|clips?|pixel_values(_videos)?|x|input|inputs",
    "sound": r"sounds?|audio|waves?|waveforms?|input_values|speech|samples",
    "numbers": r"numbers?|numeric|numerical|tables?|tabular|features?|x_num|continuous",
    "categories": r"categor(y|ies|ical)|x_cat|cats|codes?",
    "vectors": r"\w*(embeds?|embeddings?|vectors?|feats?|features|seen|regions|boxes|graph|nodes|sensors?|series)\w*",
}
PLAIN = {"picture": "image", "words": "text", "video": "video", "sound": "sound", "numbers": "numbers",
         "categories": "categories", "vectors": "vectors"}


def kind_of(key: str, value: object) -> str | None:
    """Return what an input is, of its name and its shape, or None where they do not say it."""
    if not isinstance(value, Tensor):
        return None
    shapes = {"picture": value.is_floating_point() and value.ndim == 4, "video": value.is_floating_point() and value.ndim == 5,
              "words": value.dtype in (torch.int64, torch.int32) and value.ndim == 2,
              "categories": value.dtype in (torch.int64, torch.int32) and value.ndim == 2,
              "sound": value.is_floating_point() and value.ndim == 2, "numbers": value.is_floating_point() and value.ndim == 2,
              "vectors": value.is_floating_point() and value.ndim == 3}
    listed = [kind for kind, fits in shapes.items() if fits and re.fullmatch(NAMES[kind], key, re.IGNORECASE)]
    return listed[0] if len(listed) == 1 else None


def _own(draft: Draft) -> Adapted:
    """Adapt a model whose inputs have names and shapes that say what they are."""
    model, given = draft.model, draft.given
    if given is None:
        raise unknown(draft)
    taken, left = parts.keywords(model), []
    n = _rows(given)
    for key, value in given.items():
        kind = None if key in _read_alone(draft) else kind_of(key, value)
        if kind is None:
            left.append(key)
        elif key in taken or parts.takes(model, key):
            _add(draft, kind, key, value)
    known = [key for key in left if re.search("mask|length|lens|position|type_ids|segment", key)]
    strange = [key for key in left if key not in {*known, *_read_alone(draft)} and is_batched(given[key], n)]
    if strange or not draft.parts:
        raise unknown(draft, strange)
    draft.note("judged", "the output", "one logit, or one for each class")
    return draft.finish("a model of your own")


def _rows(given: Inputs) -> int:
    return max((len(value) for value in given.values() if isinstance(value, Tensor) and value.ndim > 1), default=0)


def _add(draft: Draft, kind: str, key: str, value: Tensor) -> Part:
    """Add the modality of one input."""
    name = PLAIN[kind] if not any(part.name == PLAIN[kind] for part in draft.parts) else key
    of_input: dict[str, Any] = {"input": (key, f"its name, and {value.dtype} {tuple(value.shape)}".replace("torch.", ""))}
    mask = _mask_of(draft, key, value)
    if kind == "picture":
        return draft.add(ImageCells, name, **of_input)
    if kind == "words":
        return _own_words(draft, name, key, mask, of_input)
    if kind in ("vectors", "sound"):
        return draft.add(Vectors if kind == "vectors" else Waves, name, **of_input,
                         attention=(mask, "the only mask of its shape" if mask else "none"))
    return draft.add(Video if kind == "video" else Columns, name, **of_input)


def _mask_of(draft: Draft, key: str, value: Tensor) -> str | None:
    """Return the keyword of the mask that goes with an input, if there is one and only one that can."""
    listed = [other for other, mask in (draft.given or {}).items() if "mask" in other and isinstance(mask, Tensor)
              and mask.shape == value.shape[:2]]
    return listed[0] if len(listed) == 1 else None


def _own_words(draft: Draft, name: str, key: str, mask: str | None, of_input: dict[str, Any]) -> Part:
    """Add words, read at the layer that embeds them, which one pass finds."""
    shown = {other: value for other, value in (draft.given or {}).items() if other not in _read_alone(draft)}
    part = draft.words(name, key, embedded_by(draft.model, shown, key), mask=mask, find=False)
    part.arguments |= of_input | {"attention": (mask, "the only mask of its shape" if mask else "none")}
    return part


def _read_alone(draft: Draft) -> set[object]:
    """Return the keys of inputs that the caller named for a modality, and that the model does not get."""
    return {value for key, value in draft.choices.items() if re.search(r"(^|_)(special_mask|words)$", key)}


@torch.no_grad()
def embedded_by(model: nn.Module, given: Inputs, key: str) -> str | None:
    """Return the name of the one embedding that is given an input as it is, in one pass."""
    calls: list[str] = []
    names = {module: name for name, module in model.named_modules() if isinstance(module, nn.Embedding)}
    handles = [module.register_forward_hook(lambda module, arguments, output: calls.append(names[module])
                                            if arguments and torch.equal(arguments[0], given[key]) else None)
               for module in names]
    try:
        model(**given)
    except Exception as error:  # whatever the model raises, it is the model's own
        raise InputError(f"{type(model).__name__} cannot be called with the inputs {list(given)}: {error}") from error
    finally:
        for handle in handles:
            handle.remove()
    return calls[0] if len(calls) == 1 else None


def unknown(draft: Draft, strange: Iterable[str] = ()) -> InputError:
    """Return what to say of a model that is not known: what came, and the lines to type instead."""
    model = draft.model
    if hasattr(parts.config_of(model), "to_dict") and not strange:
        headed = parts.is_a(model, r".*(For[A-Z]|LMHead).*")
        what = "is of a family that is not known yet" if headed else "gives vectors and no logits"
        return InputError(f"{type(model).__name__} {what}; load it with a head (AutoModelFor...), or put your own on it, "
                          "Called(model, output=lambda output: head(output.last_hidden_state[:, 0])), and pass adapt(that, "
                          "inputs=...) or name the modalities yourself.")
    signature = ", ".join(inspect.signature(model.forward).parameters)
    which = f" what {', '.join(map(repr, strange))} is;" if strange else " what each input is;"
    first = "pass a few examples, adapt(model, inputs=...), or " if draft.given is None else ""
    return InputError(
        f"{type(model).__name__} is no family that is known, and its forward({signature}) does not say{which} {first}name its "
        "modalities yourself: rounds(model, inputs, [ImageCells('image', input='...'), Tokens('text', input='...', "
        "layer='...', mask_id=..., pad_id=..., special=(...))]). Where the output is no logits (N,) or (N, classes), put the "
        "model into Called(model, output=...).")


LAST = ((lambda model: True, _own),)
