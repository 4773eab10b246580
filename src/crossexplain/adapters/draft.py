"""What an adapter decides about a model, what the caller decides otherwise, and what comes of both."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from crossexplain.adapters import parts
from crossexplain.checks import InputError, require_one_of
from crossexplain.gradients.called import Called
from crossexplain.gradients.capture import Target
from crossexplain.gradients.modalities import ImageCells, Modality, Tokens

CHOSEN = "your choice"
NO_ATTENTION = "the model has no self-attention"
UNSET = object()  # of a choice that has no default: without it the adapter refuses
Batch = Mapping[str, Any]
Step = Callable[[dict[str, Any], Batch], dict[str, Any]]  # makes inputs of the inputs so far, and of what the processor gave


@dataclass(frozen=True)
class Adapted:
    """A model of other people's with all that the rounds, games and maps have to be told about it; prints as a table.

    Attributes
    ----------
    model : torch.nn.Module
        The model, or a :class:`~crossexplain.gradients.called.Called` where its raw output is not what is judged.
    modalities : list of Modality
        How each modality is cut into features and hidden.
    target : int, callable, "predicted" or None
        As for :class:`~crossexplain.gradients.question.Question`.
    for_maps : list of Modality
        The same, with pictures read at the last layer that still has a place for each part of them, where maps such as Grad-CAM
        are made, and not at their pixels.
    layers : dict of str to str
        By modality, where it is read for maps.
    attention : dict of str to tuple of str
        By modality, the self-attention modules for attention relevance, as :func:`~crossexplain.evaluation.methods.explain`
        takes them; missing where the model gives no maps.
    family : str
        What kind of model it was taken for.
    choices : list of (str, str, str)
        The rows of the table: what was chosen, the choice, and where it comes from.
    """

    model: nn.Module
    modalities: list[Modality]
    for_maps: list[Modality]
    target: Target
    layers: dict[str, str]
    attention: dict[str, tuple[str, ...]]
    family: str
    choices: list[tuple[str, str, str]]
    steps: tuple[Step, ...] = field(default=(), repr=False)

    def inputs(self, batch: Batch) -> dict[str, Any]:
        """Return what a processor or tokenizer gave as the adapted model takes it, one row an example.

        Parameters
        ----------
        batch : mapping, or Tensor
            What the processor returned, as tensors; of a model of one modality its tensor alone will do.

        Returns
        -------
        dict
            Without entries that are None or labels; with pictures (N, C, H, W) where the processor cuts them into patches, and
            with what the modalities own: which tokens are the prompt's template, which word each token is a piece of.
        """
        keys = [modality.input for modality in self.modalities]
        if isinstance(batch, Tensor) and len(keys) == 1:
            batch = {keys[0]: batch}
        if not hasattr(batch, "items"):
            raise InputError(f"got a batch of type {type(batch).__name__}, expected what the processor gives, a mapping with "
                             f"{', '.join(map(repr, keys))}.")
        kept = {key: value for key, value in batch.items() if value is not None and key not in ("labels", "offset_mapping")}
        for step in self.steps:
            kept = step(kept, batch)
        return kept

    def __str__(self) -> str:
        rows = [("what", "chosen", "from"), *self.choices]
        widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
        lines = [f"{row[0]:<{widths[0]}}  {row[1]:<{widths[1]}}  {row[2]}".rstrip() for row in rows]
        return "\n".join([self.family, "-" * len(self.family), *lines])

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        rows = [("what", "chosen", "from"), ("---",) * 3, *self.choices]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)
        return f"**{self.family}**\n\n{table}"


@dataclass
class Part:
    """One modality as it is going to be made.

    Attributes
    ----------
    kind : type
        Class of the modality.
    arguments : dict of str to (object, str)
        Of its constructor, each with where it comes from.
    layer : str, optional
        A layer for maps and scores, where it is another than the modality is read at.
    at : dict
        Arguments that go with that layer, if the modality is to be read there.
    """

    kind: type[Modality]
    arguments: dict[str, tuple[Any, str]]
    layer: str | None = None
    at: dict[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Word for the modality."""
        return str(self.arguments["name"][0])

    @property
    def parameters(self) -> list[str]:
        """What the constructor can be told beside the name."""
        return [key for key in inspect.signature(self.kind.__init__).parameters if key not in ("self", "name")]


class Draft:
    """What is decided so far about one model.

    Parameters
    ----------
    model : torch.nn.Module
    processor : object, optional
        A processor or a tokenizer.
    inputs : mapping of str to Tensor, optional
        A few examples.
    choices : dict
        What the caller has chosen.
    """

    def __init__(self, model: nn.Module, processor: Any, inputs: Batch | None, choices: dict[str, Any]):
        self.model, self.processor, self.given = model, processor, inputs
        self.choices, self.used = dict(choices), set[str]()
        self.tokenizer: Any = getattr(processor, "tokenizer", None) or \
            (processor if hasattr(processor, "all_special_ids") else None)
        self.parts: list[Part] = []
        self.missing: list[str] = []
        self.rows: list[tuple[str, str, str]] = []
        self.attention: dict[str, tuple[str, ...]] = {}
        self.steps: list[Step] = []
        self.call: Callable[[nn.Module, dict[str, Any]], object] | None = None
        self.output: Any = None
        self.common: tuple[str, ...] = ()
        self.target: Target = None

    # Choices

    def choose(self, key: str, default: object = UNSET, why: str = "", need: str = "") -> Any:
        """Return the caller's choice under a key, or a default; without either, note what has to be passed."""
        self.used.add(key)
        if key in self.choices:
            return self.choices[key]
        if default is UNSET:
            self.missing.append(f"{key}=...: {need}")
            return None
        return default

    def note(self, what: str, chosen: object, why: str = "") -> None:
        """Add a row to the table."""
        self.rows.append((what, str(chosen), why))

    def add(self, kind: type[Modality], name: str, deep: str | None = None, at: Mapping[str, object] | None = None,
            **arguments: tuple[object, str]) -> Part:
        """Add a modality; each argument is a pair of a value and where it comes from. The others are of :class:`Part`."""
        part = Part(kind, {"name": (name, ""), **arguments}, deep, dict(at or {}))
        self.parts.append(part)
        return part

    # Words

    def words(self, name: str = "text", key: str = "input_ids", layer: str | None = None, extra_special: Iterable[int] = (),
              mask: str | None = "attention_mask", find: bool = True, **arguments: tuple[object, str]) -> Part:
        """Add a modality of words: which ids are no words, which hides one, and where each has a vector.

        ``find`` looks for that layer where none is given.
        """
        tokenizer, config = self.tokenizer, parts.text_config(self.model)
        layer = layer or (parts.word_embedding(self.model) if find else None)
        if layer is None and not self.chosen("layer", name):
            self.missing.append(f"{name}_layer=...: the name of the layer that embeds the words")
        of_ids, known = ("config", config) if tokenizer is None else ("the tokenizer", tokenizer)
        mask_id, pad_id = getattr(known, "mask_token_id", None), getattr(known, "pad_token_id", None)
        if isinstance(pad_id, (list, tuple)):
            pad_id = pad_id[0]
        special, source = self._special(name, list(extra_special), pad_id)
        if pad_id is None and not self.chosen("pad_id", name):
            self.missing.append("pad_id=...: the id of the padding, which also stands where words are deleted")
        has_mask = mask is not None and parts.names(self.model, mask) and self._names(mask)
        others: dict[str, Any] = {"layout": ("NTD", "of the word embedding")} | arguments
        part = self.add(
            Tokens, name, layer, input=(key, "model's forward()"), layer=(layer, "the word embedding"), pad_id=(pad_id, of_ids),
            mask_id=(mask_id, of_ids if mask_id is not None else "none is known, so words are not hidden by [MASK]"),
            special=(special, source), **others,
            attention=(mask if has_mask else None, "model's forward()" if has_mask else "the processor gives none"))
        self._whole_words(part)
        return part

    def chosen(self, argument: str, name: str) -> bool:
        """Return whether the caller chose an argument of a modality."""
        return argument in self.choices or f"{name}_{argument}" in self.choices

    def _special(self, name: str, extra: list[int], pad_id: int | None) -> tuple[tuple[int, ...], str]:
        """Return the ids that are no words. The padding is among them only where it has another part to play, as CLIP's has."""
        roles = "bos", "eos", "cls", "sep", "unk", "mask"
        if self.tokenizer is not None:
            known = {getattr(self.tokenizer, f"{role}_token_id", None) for role in roles}
            ids = [number for number in self.tokenizer.all_special_ids if number != pad_id or number in known]
            return tuple(dict.fromkeys([*ids, *extra])), "the tokenizer" + (" and config" if extra else "")
        ids = parts.ids_in(parts.text_config(self.model), r"(bos|eos|cls|sep)_token_id")
        if not ids and not self.chosen("special", name):
            self.missing.append("special=...: the ids that are no words, such as [CLS] and [SEP] (or pass the tokenizer; "
                                "special=() if there are none)")
        return tuple(dict.fromkeys([*ids, *extra])), "config; no tokenizer was passed"

    def _names(self, key: str) -> bool:
        """Return whether the inputs hold a key, as far as it can be told."""
        if self.given is not None:
            return key in self.given
        return self.tokenizer is None or key in getattr(self.tokenizer, "model_input_names", [key])

    def _whole_words(self, part: Part) -> None:
        """Make whole words the features, where the caller asks for it."""
        if self.choose("whole_words", False):
            from crossexplain.gradients.modalities import word_numbers

            part.arguments["words"] = ("word_numbers", "whole_words=True")
            self.steps.append(lambda inputs, batch: {"word_numbers": word_numbers(batch), **inputs})

    # Attention

    def maps_of(self, name: str, modules: Sequence[str], entry: int = 1, why: str = NO_ATTENTION) -> None:
        """Name the self-attention modules of a modality, where they give their maps; without any, ``why`` there are none."""
        own = self.choices.get("attention_modules", {})
        if isinstance(own, Mapping) and name in own:
            self.attention[name] = tuple(own[name])
            self.note(f"{name}: attention", f"{len(own[name])} modules", CHOSEN)
        elif not modules:
            self.note(f"{name}: attention", "none", why)
        elif not parts.is_eager(self.model):
            self.note(f"{name}: attention", "none", "its maps are not kept; load the model with attn_implementation='eager'")
        elif parts.wants_attentions(self.model, modules) and not parts.takes(self.model, "output_attentions"):
            self.note(f"{name}: attention", "none", "the model does not take output_attentions=True")
        else:
            self.attention[name] = tuple(f"{module}#{entry}" if entry != 1 else module for module in modules)
            self.note(f"{name}: attention", f"{modules[0]} ... ({len(modules)})", "self-attention modules")

    # The result

    def finish(self, family: str) -> Adapted:
        """Return what was adapted, or say what has to be passed."""
        self.used |= {"target", "attention_modules", "whole_words"}
        if self.missing:
            raise InputError(f"{type(self.model).__name__} ({family}) does not say everything; pass "
                             f"{'; '.join(dict.fromkeys(self.missing))}.")
        modalities = [self._made(part) for part in self.parts]
        self._require_known()
        target = self.choices.get("target", self.target)
        model = self.model
        modules = [module for listed in self.attention.values() for module in listed]
        if modules and parts.wants_attentions(self.model, modules):
            call = self.call or (lambda model, inputs: model(**inputs))
            self.call = lambda model, inputs: call(model, {**inputs, "output_attentions": True})
        if self.call is not None or self.output is not None:
            model = Called(self.model, self.call, output=self.output, common=self.common)
        for_maps = [self._read_for_maps(part) or modality for part, modality in zip(self.parts, modalities)]
        layers = {modality.name: modality.layer for modality in for_maps}
        target_text = "the predicted class" if target is None else _text_of(target)
        last = ("target", target_text, CHOSEN if "target" in self.choices else "default")
        rows = [*self._table(modalities, layers), *self.rows, last]
        return Adapted(model, modalities, for_maps, target, layers, self.attention, f"{type(self.model).__name__}: {family}",
                       rows, tuple(self.steps))

    def _read_for_maps(self, part: Part) -> Modality | None:
        """Make a modality once more, read at its layer for maps; None where it has none, or the caller chose one."""
        if part.layer is None or part.arguments.get("layer", (None, ""))[1] == CHOSEN:
            return None
        given = {key: value for key, (value, _) in part.arguments.items()}
        return part.kind(**given | {"layer": part.layer} | part.at)

    def _key(self, part: Part, argument: str) -> str | None:
        """Return the key under which the caller chose an argument of a modality; alone it is enough where no other has it."""
        own = f"{part.name}_{argument}"
        if own in self.choices:
            return own
        sharers = [other.name for other in self.parts if argument in other.parameters]
        if argument in self.choices and len(sharers) > 1:
            raise InputError(f"got {argument}={self.choices[argument]!r}, which {' and '.join(sharers)} have; pass "
                             f"{' or '.join(f'{name}_{argument}=...' for name in sharers)}.")
        return argument if argument in self.choices else None

    def _made(self, part: Part) -> Modality:
        """Make a modality of its arguments and of what the caller chose otherwise."""
        chosen = {argument: (self.choices[key], CHOSEN) for argument in part.parameters
                  if (key := self._key(part, argument))}
        layer = chosen.get("layer", part.arguments.get("layer", (None,)))[0]
        if part.layer is not None and layer == part.layer:  # what goes with our layer goes along
            part.arguments |= {key: (value, "goes with the layer") for key, value in part.at.items()}
        elif layer != part.arguments.get("layer", (None,))[0]:  # and does not go with another
            for key in ("layout", "positions", "patches"):
                part.arguments.pop(key, None)
        part.arguments |= chosen
        return part.kind(**{key: value for key, (value, _) in part.arguments.items()})

    def _require_known(self) -> None:
        """Raise for a choice that nobody asked for."""
        of_parts = {key for part in self.parts for argument in part.parameters for key in (argument, f"{part.name}_{argument}")}
        for key in self.choices:
            require_one_of(key, sorted(self.used | of_parts), "the choice")

    def _table(self, modalities: Sequence[Modality], layers: Mapping[str, str]) -> list[tuple[str, str, str]]:
        rows = []
        for part, modality in zip(self.parts, modalities):
            rows.append((part.name, f"{part.kind.__name__} of {modality.input!r}", part.arguments["input"][1]))
            rows.append(("  read at", modality.layer, part.arguments.get("layer", (None, "the input itself"))[1]))
            if layers.get(part.name) not in (None, modality.layer):
                rows.append(("  maps at", layers[part.name], "the last layer with a place for each part"))
            for key, (value, why) in part.arguments.items():
                if key not in ("name", "input", "layer"):
                    rows.append((f"  {key}", _text_of(value), why))
            rows.append(("  hidden by", ", ".join(modality.baselines), "the first unless you choose"))
        return rows


def _text_of(value: object) -> str:
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    return "none" if value is None else ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


def picture(draft: Draft, key: str, layer: str | None = None, at: Mapping[str, object] | None = None, name: str = "image",
            kind: type[Modality] = ImageCells, why: str = "model's forward()") -> Part:
    """Add a modality of pictures, read at their pixels."""
    return draft.add(kind, name, layer, at, input=(key, why))


def require_tensor(value: object, what: str) -> Tensor:
    """Return a tensor, or say what came."""
    if not isinstance(value, Tensor):
        raise InputError(f"got {what} as {type(value).__name__}, expected a tensor; pass return_tensors='pt' to the processor.")
    return value


def same_rows(values: Tensor, what: str) -> Tensor:
    """Return the one row that all rows of a tensor are, or refuse."""
    if not torch.equal(values, values[:1].expand_as(values)):
        raise InputError(f"the {what} of the examples differ ({values.tolist()[:4]} ...); pass pictures of one size, or "
                         "explain those of each size by themselves.")
    return values[0]
