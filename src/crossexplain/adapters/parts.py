"""Where the parts of other people's models are: what they take, their word embeddings, their blocks and attention modules."""

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn

# What the projections of an attention module are called. A module that has one of them, and none of whose parts has,
# is the innermost: it is the one that makes the map.
PROJECTIONS = {"query", "q_proj", "q_lin", "q", "qkv", "c_attn", "Wqkv", "query_proj", "in_proj", "q_head", "query_key_value"}
CROSS = re.compile(r"cross|EncDecAttention|encoder_attn|visual_attention")  # attention of one sequence to another
FRONT = {"cls_token": 1, "class_embedding": 1, "distillation_token": 1, "dist_token": 1}  # parameters, one token each


def classes_of(model: nn.Module) -> list[str]:
    """Return the name of a model's class and of those it is derived from, the nearest first."""
    return [kind.__name__ for kind in type(model).__mro__]


def is_a(model: nn.Module, *patterns: str) -> bool:
    """Return whether a model's class, or one that it is derived from, has a name that fits one of the patterns."""
    return any(re.fullmatch(pattern, name) for name in classes_of(model) for pattern in patterns)


def config_of(model: nn.Module) -> Any:
    """Return a model's configuration; of one without, an object that holds nothing."""
    return getattr(model, "config", None)


def text_config(model: nn.Module) -> Any:
    """Return the configuration of the part that reads words, which is the whole where there is no other."""
    config = config_of(model)
    return getattr(config, "text_config", None) or config


def picture_config(model: nn.Module) -> Any:
    """Return the configuration of the part that sees pictures, which is the whole where there is no other."""
    config = config_of(model)
    return getattr(config, "vision_config", None) or getattr(config, "image_config", None) or config


def keywords(model: nn.Module) -> list[str]:
    """Return the keywords that a model's forward names, in their order."""
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    return [name for name, parameter in inspect.signature(model.forward).parameters.items() if parameter.kind in kinds]


def takes(model: nn.Module, key: str) -> bool:
    """Return whether a model can be called with a keyword, by name or because it takes any."""
    parameters = inspect.signature(model.forward).parameters
    return key in parameters or any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())


def names(model: nn.Module, key: str) -> bool:
    """Return whether a model's forward names a keyword, or names no input at all, as one that hands on what it is given."""
    return key in keywords(model) or not keywords(model) and takes(model, key)


def name_of(model: nn.Module, part: nn.Module) -> str | None:
    """Return the dotted name of a part of a model."""
    return next((name for name, module in model.named_modules() if module is part and name), None)


def named(model: nn.Module, *paths: str) -> str | None:
    """Return the first of several dotted names that the model has."""
    known = {name for name, _ in model.named_modules()}
    return next((path for path in paths if path in known), None)


def word_embedding(model: nn.Module) -> str | None:
    """Return the name of the layer that embeds the words that a model reads first, or None where it cannot be told."""
    reader: Any = model
    if getattr(config_of(model), "is_encoder_decoder", False) and hasattr(model, "get_encoder"):
        reader = reader.get_encoder()  # the decoder has an embedding of its own, of the same weights
    try:
        part = reader.get_input_embeddings()
    except (AttributeError, NotImplementedError):
        part = None
    if isinstance(part, nn.Embedding) and (name := name_of(model, part)):
        return f"{name}@0" if is_shared(model, part) else name
    listed = [name for name, module in model.named_modules() if isinstance(module, nn.Embedding)
              and re.search(r"(word_embeddings?|token_embedding|embed_tokens|tok_embeddings|wte)$", name)]
    return listed[0] if len(listed) == 1 else None


def is_shared(model: Any, embedding: nn.Module) -> bool:
    """Return whether a decoder calls the embedding once more, after the encoder."""
    encodes = getattr(config_of(model), "is_encoder_decoder", False) and hasattr(model, "get_decoder")
    return bool(encodes) and getattr(model.get_decoder(), "embed_tokens", None) is embedding


def encoder(model: Any) -> str:
    """Return the name of the encoder of a model that has ``get_encoder()``, ``""`` where that is no part with a name."""
    return name_of(model, model.get_encoder()) or ""


def within(name: str, tower: str) -> bool:
    """Return whether a dotted name lies in a part of the model; everything lies in ``""``."""
    return not tower or name == tower or name.startswith(f"{tower}.")


def self_attention(model: nn.Module, tower: str = "") -> list[str]:
    """Return the names of the innermost self-attention modules of a part of a model, in their order."""
    listed = []
    for name, module in model.named_modules():
        own = {child for child, _ in module.named_children()}
        if within(name, tower) and own & PROJECTIONS and re.search("att", f"{type(module).__name__} {name}", re.IGNORECASE):
            listed.append(name)
    innermost = [name for name in listed if not any(other != name and within(other, name) for other in listed)]
    return [name for name in innermost if not CROSS.search(name)]


def wants_attentions(model: nn.Module, modules: Sequence[str]) -> bool:
    """Return whether attention modules give their maps only when they are told ``output_attentions=True``."""
    parts = [model.get_submodule(name.partition("#")[0].partition("@")[0]) for name in modules]
    return any("output_attentions" in inspect.signature(part.forward).parameters for part in parts)


def blocks(model: nn.Module, tower: str = "") -> list[str]:
    """Return the names of the blocks of a transformer: the longest list of modules of one kind that all have attention."""
    attention = self_attention(model, tower)
    best: list[str] = []
    for name, module in model.named_modules():
        if within(name, tower) and isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module):
            inner = [f"{name}.{child}" for child, _ in module.named_children()]
            alike = len({type(part) for part in module.children()}) == 1
            if alike and len(inner) > len(best) and all(any(within(a, block) for a in attention) for block in inner):
                best = inner
    return best


def embeddings(model: nn.Module, tower: str = "") -> str | None:
    """Return the name of the module that lays patches and special tokens side by side."""
    return next((name for name, _ in model.named_modules() if within(name, tower) and name.endswith("embeddings")
                 and not re.search(r"(patch|word|position|type|tok)_?embeddings$", name)), None)


def front_tokens(module: nn.Module) -> int:
    """Return how many special tokens a module puts in front of the patches: of the class, of distillation, registers."""
    own = dict(module.named_parameters(recurse=False))
    registers = own.get("register_tokens")
    return sum(FRONT.get(name, 0) for name in own) + (0 if registers is None else registers.shape[1])


def is_eager(model: nn.Module) -> bool:
    """Return whether attention maps are computed at all; other implementations never hold one."""
    config = text_config(model)
    return getattr(config, "_attn_implementation", "eager") in ("eager", None)


def numbers(value: object) -> Iterator[int]:
    """Yield the whole numbers in an id or a list of ids."""
    for entry in value if isinstance(value, (list, tuple)) else [value]:
        if isinstance(entry, int) and not isinstance(entry, bool) and entry >= 0:
            yield entry


def ids_in(config: object, pattern: str) -> list[int]:
    """Return the token ids that a configuration names under keys that fit a pattern, without those that are too large."""
    if config is None:
        return []
    values = config.to_dict() if hasattr(config, "to_dict") else vars(config)
    words = getattr(config, "vocab_size", None)
    listed = [number for key, value in values.items() if re.fullmatch(pattern, key) for number in numbers(value)]
    return [number for number in dict.fromkeys(listed) if words is None or number < words]
