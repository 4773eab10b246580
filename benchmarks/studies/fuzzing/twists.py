"""What can be unusual about a model and its inputs, and whether a plain reader would still expect an answer."""

import collections
from collections.abc import Callable
from types import SimpleNamespace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.studies.fuzzing.models import Plain
from benchmarks.studies.fuzzing.parts import PAD, Words
from benchmarks.studies.fuzzing.scenes import Scene
from benchmarks.studies.fuzzing.source import Source

NAMES = ("a", "word", "слово", "言葉", "كلمة", "λέξη")  # one an example, of several scripts
HALVES = torch.float16, torch.bfloat16


class Twist(NamedTuple):
    """Something unusual: where it fits, and what it does to a scene."""

    do: Callable[[Scene, Source], None]
    fits: Callable[[Scene], bool]


TWISTS: dict[str, Twist] = {}


def twist(source: Source, scene: Scene, name: str) -> None:
    """Bring one unusual thing into a scene."""
    chosen = source.pick(name, ["nothing", *(key for key, twist in TWISTS.items()
                                             if key not in scene.notes and "final" not in scene.notes and twist.fits(scene))])
    if chosen != "nothing":
        scene.notes.add(chosen)
        TWISTS[chosen].do(scene, source)


def _is(name: str, fits: Callable[[Scene], bool] = lambda scene: True):
    def add(do: Callable) -> Callable:
        TWISTS[name] = Twist(do, fits)
        return do

    return add


def _untouched(scene: Scene) -> bool:
    """Whether the model is still what is passed to the package, and the inputs are a dictionary of its keywords."""
    return scene.model is scene.net and not scene.net.extra and scene.net.output == "logits"


def _floats(scene: Scene, change: Callable[[Tensor], Tensor]) -> None:
    scene.inputs = {key: change(value) if isinstance(value, Tensor) and value.is_floating_point() and key != "attention_mask"
                    else value for key, value in scene.inputs.items()}


# ---------------------------------------------------------------- where an answer is expected


@_is("frozen")
def _frozen(scene, source):
    scene.net.requires_grad_(False)


@_is("the caller is under no_grad")
def _no_grad(scene, source):
    scene.mode = torch.no_grad


@_is("the caller is under inference_mode")
def _inference(scene, source):
    scene.mode = torch.inference_mode


@_is("checkpointing")
def _checkpointing(scene, source):
    scene.net.recompute = True
    scene.unexpected.add("checkpointing")


@_is("double precision", lambda scene: not scene.half)
def _double(scene, source):
    scene.net.double()
    _floats(scene, Tensor.double)
    scene.changed()


@_is("half precision", lambda scene: "double precision" not in scene.notes)
def _half(scene, source):
    dtype = source.pick("half", HALVES)
    scene.net.to(dtype)
    _floats(scene, lambda value: value.to(dtype))
    scene.half = dtype
    scene.changed()


@_is("usual output", _untouched)
def _usual_output(scene, source):
    scene.net.output = source.pick("output", ("one axis", "named", "model output", "one entry"))


@_is("declared output", _untouched)
def _declared_output(scene, source):
    from crossexplain import Called

    kinds = {"features first": 1, "scores": "scores", "nested": lambda output: output["answer"]["logits"],
             "own class without logits": lambda output: output.scores}
    if scene.net.join == "dual":
        kinds = {"similarities": torch.diagonal}
    scene.net.output = source.pick("output", kinds)
    scene.model = Called(scene.net, output=kinds[scene.net.output]).eval()


@_is("a declared probability", lambda scene: _untouched(scene) and scene.net.join != "dual" and not scene.half)
def _declared_probability(scene, source):
    from crossexplain import Called

    scene.net.output = "sigmoid"
    scene.model = Called(scene.net, output=torch.logit).eval()
    scene.notes.add("half precision")  # in which logits would be rounding
    scene.rough = True
    scene.unexpected.add("probability")  # where the model is sure, its logit is infinite


@_is("declared inputs", _untouched)
def _declared_inputs(scene, source):
    from crossexplain import Called

    scene.net.extra = "one argument"
    takes = scene.net.takes
    scene.model = Called(scene.net, lambda model, inputs: model({"batch": {key: inputs[key] for key in takes}}))


def _takes_more(scene: Scene) -> bool:
    return _untouched(scene) and scene.net.join != "dual" and "towers" not in scene.notes


@_is("a list of names", _takes_more)
def _names(scene, source):
    scene.inputs = {**scene.inputs, "names": [source.pick(f"name {i}", NAMES) for i in range(scene.n)]}
    scene.net.takes += ("names",)
    scene.own.add("names")
    scene.changed()


@_is("a whole number an example", _takes_more)
def _index(scene, source):
    scene.inputs = {**scene.inputs, "index": torch.tensor([source.pick(f"index {i}", range(90, 94)) for i in range(scene.n)])}
    scene.net.takes += ("index",)
    scene.own.add("index")
    scene.changed()


@_is("a number for all", _takes_more)
def _temperature(scene, source):
    value = source.pick("temperature", (torch.tensor(2.0), torch.tensor([2.0]), 2.0))
    value = value.to(scene.net.head.weight.dtype) if isinstance(value, Tensor) else value
    scene.inputs = {**scene.inputs, "temperature": value}
    scene.net.takes += ("temperature",)
    scene.changed()


@_is("a flag", _takes_more)
def _flag(scene, source):
    scene.inputs = {**scene.inputs, "flag": source.pick("flag", (True, False, None))}
    scene.net.takes += ("flag",)
    scene.changed()


@_is("a layer that runs twice", lambda scene: _takes_more(scene) and not scene.net.blind and "images" in scene.inputs
     and hasattr(scene.net.sight, "conv"))
def _twice(scene, source):
    scene.net.blind = "twice sight"
    (part,) = [part for part in scene.parts if part.key == "images"]
    if part.layer.startswith("sight"):
        which = source.pick("call of the layer", ("@0", "@1", ""))
        part.layer += which
        if which == "":
            scene.unexpected.add("runs twice")
    scene.changed()


def _table_of_classes(scene, source, same: bool):
    width = scene.net.head.in_features
    rows = scene.n if same else source.pick("classes in the table", [c for c in (2, 3, 4, 5) if c != scene.n])
    scene.inputs = {**scene.inputs, "classes": torch.randn(rows, width).to(scene.net.head.weight.dtype)}
    scene.net.takes += ("classes",)
    scene.classes = rows
    scene.changed()


def _takes_a_table(scene: Scene) -> bool:
    return _takes_more(scene) and scene.n > 1


@_is("a table of other length", _takes_a_table)
def _table_of_other_length(scene, source):
    _table_of_classes(scene, source, same=False)


@_is("a declared table", _takes_a_table)
def _declared_table(scene, source):
    from crossexplain import Called

    _table_of_classes(scene, source, same=True)
    scene.model = Called(scene.net, common=("classes",)).eval()


@_is("equal pictures", lambda scene: "images" in scene.inputs and scene.n > 1)
def _equal_pictures(scene, source):
    images = scene.inputs["images"].clone()
    images[1:] = images[source.pick("equal to", (0, scene.n - 1))]
    scene.inputs = {**scene.inputs, "images": images}
    scene.changed()


@_is("equal examples", lambda scene: scene.n > 1)
def _equal_examples(scene, source):
    own = {key: value for key, value in scene.inputs.items() if isinstance(value, Tensor) and key in scene.own}
    scene.inputs = {**scene.inputs, **{key: torch.cat([value[:1], value[:1], value[2:]]) for key, value in own.items()}}
    scene.changed()


@_is("not contiguous")
def _not_contiguous(scene, source):
    scene.inputs = {key: value.transpose(0, 1).contiguous().transpose(0, 1) if isinstance(value, Tensor) and value.ndim > 1
                    else value for key, value in scene.inputs.items()}


@_is("inputs that ask for a gradient")
def _asking(scene, source):
    _floats(scene, lambda value: value.clone().requires_grad_())


@_is("another mapping")
def _mapping(scene, source):
    scene.inputs = source.pick("mapping", (collections.OrderedDict, collections.UserDict))(scene.inputs)


@_is("32-bit ids", lambda scene: "tokens" in scene.inputs)
def _short_ids(scene, source):
    scene.inputs = {**scene.inputs, "tokens": scene.inputs["tokens"].int()}


@_is("a module of two names", lambda scene: any(part.layer.startswith("reading.") for part in scene.parts))
def _two_names(scene, source):
    scene.net.also = scene.net.reading
    for part in scene.parts:
        part.layer = part.layer.replace("reading.", "also.")
    scene.changed()


@_is("an unused tower", lambda scene: not scene.net.blind)
def _unused(scene, source):
    scene.net.blind = f"unused {source.pick('blind', scene.net.towers)}"
    scene.changed()


# ---------------------------------------------------------------- where it may be refused


@_is("something undeclared", lambda scene: any(part.declared for part in scene.parts))
def _undeclared(scene, source):
    every = [(part, key) for part in scene.parts for key in part.declared]
    names = [f"{part.name}.{key}" for part, key in every]
    part, key = every[names.index(source.pick("undeclared", names))]
    del part.declared[key]
    if key == "padding_side" and (scene.inputs[part.key] != PAD).all():
        part.side = "right"  # what is filled where nothing was declared and no example is padded
    if isinstance(part, Words) and key == "attention" and part.attention is not None:
        part.baselines = ("mask",)
    if key in ("special_mask", "words"):
        scene.refuse_modalities = f"the model does not take {key}"
    scene.unexpected.add(f"{part.name}.{key} undeclared")


@_is("unusual output", _untouched)
def _unusual_output(scene, source):
    kinds = ["features first", "logits first", "scores", "nested", "own class", "own class without logits", "lists",
             "squeezed", "sigmoid", "softmax", "whole numbers"]
    scene.net.output = source.pick("output", ["similarities"] if scene.net.join == "dual" else kinds)
    scene.net.squashed = True
    scene.changed()
    if scene.net.output == "whole numbers":
        scene.refuse = "whole numbers have no gradient and are no evidence"
    scene.unexpected.add(scene.net.output)


@_is("an undeclared table", _takes_a_table)
def _undeclared_table(scene, source):
    _table_of_classes(scene, source, same=True)
    scene.unexpected.add("table")


@_is("one argument", _untouched)
def _one_argument(scene, source):
    scene.net.extra = "one argument"
    scene.refuse = "the model takes no keywords"
    scene.unexpected.add("one argument")


@_is("train mode", lambda scene: scene.net.join in ("concat", "cross", "joint"))
def _train(scene, source):
    scene.truth  # noqa: B018
    scene.net.train()
    scene.unexpected.add("train")


@_is("a part in train mode", lambda scene: scene.net.join in ("concat", "cross", "joint"))
def _part_in_train(scene, source):
    scene.truth  # noqa: B018
    norms = [module for module in scene.net.modules() if isinstance(module, nn.BatchNorm2d)]
    source.pick("part", [scene.net.dropout, *norms][::-1]).train()
    scene.unexpected.add("train")


@_is("examples that touch", lambda scene: _untouched(scene) and scene.net.join != "dual" and scene.n > 1
     and "towers" not in scene.notes)
def _touching(scene, source):
    scene.net.extra = "touching"
    scene.changed()
    scene.unexpected.add("touching")


@_is("something else in place of a tensor")
def _no_tensor(scene, source):
    scene.truth  # noqa: B018
    part = scene.parts[source.pick("which", range(len(scene.parts)))]
    value = scene.inputs[part.key].detach()
    kinds = {"array": lambda: value.float().numpy(), "list": lambda: list(value), "nothing": lambda: None,
             "dictionary": lambda: {"values": value}, "object": lambda: SimpleNamespace(values=value),
             "lists": lambda: value.tolist()}
    scene.inputs = {**scene.inputs, part.key: kinds[source.pick("kind of value", kinds)]()}
    scene.notes.add("final")
    scene.unexpected.add("no tensor")


@_is("a wrong keyword")
def _wrong_keyword(scene, source):
    scene.truth  # noqa: B018
    key = scene.parts[source.pick("which", range(len(scene.parts)))].key
    scene.inputs = {key[:-1] if name == key else name: value for name, value in scene.inputs.items()}
    scene.refuse = "the keyword is not known"
    scene.notes.add("final")
    scene.unexpected.add("wrong keyword")


@_is("a keyword too much", lambda scene: scene.net.extra != "one argument")  # where the caller hands on what he names
def _extra_keyword(scene, source):
    scene.truth  # noqa: B018
    value = source.pick("extra value", ("text", 3, None, [1, 2]))
    scene.inputs = {**scene.inputs, "extra": value}
    scene.refuse = "the model does not take it"
    scene.notes.add("final")
    scene.unexpected.add("keyword")


@_is("a tower without a graph", lambda scene: not scene.net.blind)
def _blind(scene, source):
    kind = source.pick("blind kind", ("no_grad", "inference", "rounded"))
    scene.net.blind = f"{kind} {source.pick('blind', scene.net.towers)}"
    scene.changed()
    scene.unexpected.add(scene.net.blind)


@_is("built under inference_mode")
def _inference_weights(scene, source):
    scene.truth  # noqa: B018
    with torch.inference_mode():
        for module in scene.net.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = nn.Parameter(parameter.detach().clone(), requires_grad=False)
    scene.notes.add("final")
    scene.unexpected.add("inference weights")


@_is("in a wrapper", _untouched)
def _wrapped(scene, source):
    scene.model = nn.DataParallel(scene.net).eval()
    scene.unexpected.add("wrapper")


@_is("offloaded", lambda scene: _untouched(scene) and not scene.half)
def _offloaded(scene, source):
    from accelerate import cpu_offload

    scene.truth  # noqa: B018
    cpu_offload(scene.net, torch.device("cpu"))
    scene.notes.add("final")
    scene.unexpected.add("offloaded")


@_is("quantised", lambda scene: _untouched(scene) and not scene.notes & {"double precision", "half precision"}
     and "train" not in scene.unexpected)
def _quantised(scene, source):
    scene.net = torch.ao.quantization.quantize_dynamic(scene.net, {nn.Linear}, torch.qint8)
    scene.model = scene.net
    scene.changed()
    scene.notes |= {"final"}
    scene.rough = True
    scene.unexpected.add("quantised")


def _is_simple(scene: Scene) -> bool:
    return (_untouched(scene) and set(scene.inputs) == {"images", "tokens"} and hasattr(scene.net.sight, "conv")
            and scene.net.reading.kind in ("embedding", "lstm") and not scene.notes - {"towers"} and scene.net.join != "dual")


@_is("scripted, traced or compiled", _is_simple)
def _compiled(scene, source):
    kind = source.pick("by", ("script", "trace", "compile"))
    scene.net = Plain(scene.net).eval()
    picture, text = scene.parts
    picture.layer, picture.layout = ("input:images" if picture.layer.startswith("input:") else "sight"), "NCHW"
    picture.declared, text.declared = {}, {}
    text.layer, text.layout, text.side = "reading", "NTD", text.side
    scene.changed()
    scene.truth  # noqa: B018
    if kind == "script":
        scene.model = torch.jit.script(scene.net)
    elif kind == "trace":
        scene.model = torch.jit.trace(scene.net, example_kwarg_inputs=dict(scene.inputs), check_trace=False)
    else:
        scene.model = torch.compile(scene.net, backend="eager")
    scene.notes.add("final")
    scene.unexpected.add(kind)
