"""A model with its inputs, drawn at random, and what is unusual about it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from benchmarks.studies.fuzzing import models
from benchmarks.studies.fuzzing.models import Hearing, Net, Reading, Sight, Towers, Watching, Weighing
from benchmarks.studies.fuzzing.oracle import Truth
from benchmarks.studies.fuzzing.parts import BEGIN, END, PAD, Film, Part, Picture, Row, Table, Words
from benchmarks.studies.fuzzing.source import Source

TOWERS = {
    "image + text": ("sight", "reading"), "image + sound": ("sight", "hearing"), "text + sound": ("reading", "hearing"),
    "image + text + sound": ("sight", "reading", "hearing"), "table + text": ("weighing", "reading"),
    "video + text": ("watching", "reading"),
}


@dataclass
class Scene:
    """A drawn model, its inputs, and the answers by hand.

    Attributes
    ----------
    net : Net
        The model itself.
    model : nn.Module
        What is passed to the package: the same, wrapped or not.
    inputs : mapping
    parts : list of Part
    own : set of str
        Keys of what has one entry an example.
    unexpected : set of str
        Why a plain reader would not expect an answer: an unusual model, or something that was not declared.
    refuse : str
        Why no answer is right; empty where there is one.
    refuse_modalities : str
        Why no answer is right where the modalities are passed as well.
    mode : callable
        The context in which the caller asks.
    half : torch.dtype, optional
        Which half precision, if any.
    rough : bool
        Rows that run together differ from each by itself, as where values are quantised by the range of the batch.
    classes : int
        Columns of logits.
    """

    net: Net
    model: nn.Module
    inputs: Mapping
    parts: list[Part]
    own: set[str]
    classes: int
    unexpected: set[str] = field(default_factory=set)
    refuse: str = ""
    refuse_modalities: str = ""
    mode: Callable = torch.enable_grad
    half: torch.dtype | None = None
    rough: bool = False
    donors: Mapping | None = None
    notes: set[str] = field(default_factory=set)

    def __post_init__(self):
        self._truth: Truth | None = None

    @property
    def n(self) -> int:
        """Number of examples."""
        return len(self.truth.inputs[self.parts[0].key])

    def examples(self, rows: slice) -> dict:
        """Return the inputs of some examples, of what has one entry an example."""
        return {key: value[rows] if key in self.own and hasattr(value, "__getitem__") and not isinstance(value, dict) else value
                for key, value in self.inputs.items()}

    @property
    def truth(self) -> Truth:
        """The answers by hand; of the model and the inputs as they were when it was first asked for."""
        if self._truth is None:
            self._truth = Truth(self.net, self.inputs, self.own, self.parts, self.donors, bool(self.half))
        return self._truth

    def changed(self) -> None:
        """Forget the answers by hand: the model or its inputs are others now."""
        self._truth = None

    def modalities(self) -> list:
        """Return the adapters of the package."""
        return [part.modality() for part in self.parts]

    def taken(self) -> dict:
        """Return the inputs that the model takes."""
        own = {key for part in self.parts if isinstance(part, Words) for key in (part.special_mask, part.words)}
        return {key: value for key, value in self.inputs.items() if key not in own}


def draw(source: Source, twist: Callable[[Source, Scene, str], None]) -> Scene:
    """Draw a model, its inputs, and at most two things that are unusual about them, which ``twist`` brings in."""
    towers = TOWERS[source.pick("modalities", TOWERS, usual=0.5)]
    n, width, classes = source.pick("n", (2, 3, 4, 1, 5)), source.pick("width", (3, 2, 4)), source.pick("classes", (2, 1, 3, 4))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(source.pick("weights", range(1000)))
        scene = _built(source, towers, n, width, classes)
        for number in range(source.pick("twists", (0, 1, 2), usual=0.4)):
            twist(source, scene, f"twist {number}")
        scene.truth  # noqa: B018  while the random numbers are set aside
    return scene


# ---------------------------------------------------------------- the plain model


def _built(source: Source, towers: tuple[str, ...], n: int, width: int, classes: int) -> Scene:
    inputs, own, parts, modules = {}, set(), [], {}
    for name in towers:
        part, module, given = _BUILDERS[name](source, n, width)
        parts.append(part)
        modules[name] = module
        inputs |= given
        own |= set(given)
    pooled = "bag" not in getattr(modules.get("reading"), "kind", "")
    joins = ["concat", "product", "sum"]
    if len(towers) == 2 and pooled:
        joins += ["cross", "dual"]
        joins += ["joint"] if set(towers) <= {"sight", "reading", "hearing"} else []
    join = source.pick("join", joins)
    classes = 1 if join == "dual" else classes
    not_taken = {part.special_mask for part in parts if isinstance(part, Words)}
    not_taken |= {part.words for part in parts if isinstance(part, Words)}
    takes = tuple(key for key in inputs if key not in not_taken)
    reads = source.pick("padding", ("is left out", "is read"))
    towers_alone = set(takes) == {"images", "tokens"} and join in ("concat", "product", "sum")
    of = Towers if towers_alone and source.pick("towers", ("whole", "split"), usual=0.7) == "split" else Net
    net = of(modules, takes, width, classes, join, "words" if reads == "is left out" else "padding too").eval()
    scene = Scene(net, net, inputs, parts, own, classes)
    if join == "joint":
        _joint(source, scene)
    if of is Towers:
        scene.notes.add("towers")
        takes = {"images", "tokens"}
    return scene


def _sight(source: Source, n: int, width: int) -> tuple[Part, nn.Module, dict]:
    kind = source.pick("image", ("conv", "batch norm", "group norm", "channels last", "patches", "patches first"))
    rows, columns = source.pick("rows", (2, 3, 1, 4)), source.pick("columns", (2, 1, 3, 4))
    channels = source.pick("channels", (1, 3, 2 * rows))
    special = source.pick("image.special", (0, 1, 2, 3)) if kind.startswith("patches") else 0
    grids = [(r, c) for r in _divisors(rows) for c in _divisors(columns) if r * c <= 4]
    grid = source.pick("grid", sorted(grids, key=lambda grid: -grid[0] * grid[1]))
    layers = {
        "conv": {"pixels": "", "conv": "", "pool": "", "act": "NCHW"}, "batch norm": {"pixels": "", "norm": "", "pool": ""},
        "group norm": {"norm": "", "pixels": ""}, "channels last": {"norm": "", "cut": "", "mix": "NHWC", "pixels": ""},
        "patches": {"block": "NTD", "pixels": "", "mix": "NTD", "norm": "NTD", "cut": ""},
        "patches first": {"block": "TND", "mix": "TND", "pixels": ""},
    }[kind]
    layer = source.pick("image.layer", layers)
    layout = layers[layer] or ("NHWC" if kind == "channels last" and layer == "norm" else "NCHW")
    declared = {"layout": layers[layer]} if layers[layer] else {}
    if layout in ("NTD", "TND"):
        declared["patches"] = (rows, columns)
    if columns <= 2 and channels not in (1, 3) and "layout" not in declared:
        declared["layout"] = layout  # pictures of two or four columns may be taken for such with their colours last
    images = torch.randn(n, channels, 2 * rows, 2 * columns)
    name = "input:images" if layer == "pixels" else f"sight.{layer}"
    part = Picture("image", "images", name, layout, declared, ("images",), grid=grid, patches=(rows, columns),
                   offset=special)
    module = Sight(kind, channels, width, special)
    if kind == "batch norm":
        module.norm.running_mean.normal_(), module.norm.running_var.uniform_(0.5, 2)
    return part, module, {"images": images}


def _divisors(number: int) -> list[int]:
    return [d for d in (1, 2, 3, 4) if number % d == 0 and number // d >= 1]


def _reading(source: Source, n: int, width: int) -> tuple[Part, nn.Module, dict]:
    kind = source.pick("text", ("embedding", "lstm", "gru", "encoder", "block", "packed", "lstm first", "gru first",
                                "encoder first", "block first", "bag", "packed first"))
    count, ends = source.pick("tokens", (3, 2, 4)), source.pick("ends", ("none", "both"), usual=0.6)
    special = (BEGIN, END) if ends == "both" else ()
    total = count + len(special)
    lengths = [max(1, min(count, count - source.pick(f"short {i}", (0, 1, 2)))) for i in range(n)]
    side = source.pick("side", ("right", "left")) if kind != "packed" and kind != "packed first" else "right"
    ids = torch.randint(4, models.WORDS, (n, total))
    attention = torch.zeros(n, total, dtype=torch.long)
    for i, length in enumerate(lengths):
        row = ([BEGIN] if special else []) + ids[i, :length].tolist() + ([END] if special else [])
        fill = [PAD] * (total - len(row))
        ids[i] = torch.tensor(row + fill if side == "right" else fill + row)
        attention[i] = torch.tensor([1] * len(row) + [0] * len(fill) if side == "right" else [0] * len(fill) + [1] * len(row))
    given, declared = {"tokens": ids}, {}
    layer = "reading.embedding"
    if kind not in ("embedding", "bag", "packed", "packed first"):
        layer = source.pick("text.layer", (layer, "reading.mixer"))
    part = Words("text", "tokens", layer, "TND" if kind.endswith("first") else "NTD", declared, special=special, side=side)
    if kind.endswith("first"):
        declared["layout"] = "TND"
    if side == "left" or all(length == count for length in lengths):
        declared["padding_side"] = side  # which the batch does not show, or where the model does read places
    if kind.startswith("packed"):
        given["lengths"] = attention.sum(dim=1)
        part.lengths = declared["lengths"] = "lengths"
    elif kind != "bag" and source.pick("attention mask", ("no", "yes")) == "yes":
        given["attention_mask"] = attention.to(source.pick("mask type", (torch.long, torch.bool, torch.float32, torch.int32)))
        part.attention = declared["attention"] = "attention_mask"
    if kind in ("embedding", "block", "encoder"):
        _beside(source, part, given, n, total, count)
    part.travels = tuple(["tokens", *part.along, *part.stay, *[key for key in (part.attention, part.lengths) if key]])
    part.baselines = tuple(b for b in part.baselines if _answered(part, b, kind))
    return part, Reading(kind, width, tuple(given)), given


def _beside(source: Source, part: Words, given: dict, n: int, total: int, count: int) -> None:
    """Add what belongs to words, to places, or to no one but the adapter."""
    beside = source.pick("beside", ("nothing", "types", "segments", "places", "word numbers", "template"), usual=0.6)
    if beside in ("types", "segments"):
        key = {"types": "token_type_ids", "segments": "segments"}[beside]
        given[key] = torch.randint(0, 3, (n, total)).masked_fill(given["tokens"] == PAD, 0)
        part.along = (key,)
        part.declared |= {"along": (key,)}
    elif beside == "places":
        given["position_ids"] = torch.randint(0, 16, (n, total))
        part.stay = ("position_ids",)
        part.declared |= {"stay": ("position_ids",)}
    elif beside == "word numbers":
        numbers, pieces = torch.full((n, total), -1), source.pick("pieces", ("two a word", "mixed"))
        for i in range(n):
            tokens = [t for t in range(total) if int(given["tokens"][i, t]) > END]
            for order, t in enumerate(tokens):
                numbers[i, t] = order // 2 if pieces == "two a word" else max(0, order - 1)
        given["word_numbers"] = numbers
        part.words = part.declared["words"] = "word_numbers"
        part.count = int(numbers.max()) + 1
        part.baselines = tuple(b for b in part.baselines if b != "data")
    elif beside == "template":
        template = torch.zeros(n, total, dtype=torch.bool)
        for i in range(n):
            tokens = [t for t in range(total) if int(given["tokens"][i, t]) > END]
            template[i, tokens[0]] = len(tokens) > 1
        given["template"] = template
        part.special_mask = part.declared["special_mask"] = "template"
        part.baselines = tuple(b for b in part.baselines if b != "data")


def _answered(part: Words, baseline: str, kind: str) -> bool:
    """Whether a baseline leaves something for the model to attend to, and a length that can be packed."""
    something = bool(part.special)
    if part.special_mask is not None:
        something = something or False
    if baseline == "delete" and part.lengths is not None:
        return something
    return something or baseline in ("mask", "data") or (part.attention is None and not kind.startswith("encoder"))


def _hearing(source: Source, n: int, width: int) -> tuple[Part, nn.Module, dict]:
    count = source.pick("sounds", (2, 3, width))
    layer = source.pick("sound.layer", ("input:sound", "hearing.linear", "hearing"))
    given, declared = {"sound": torch.randn(n, count, width)}, {}
    part = Row("sound", "sound", layer, "NTD", declared, ("sound",))
    if source.pick("sound mask", ("no", "yes"), usual=0.6) == "yes":
        mask = torch.ones(n, count, dtype=torch.long)
        for i in range(n):
            mask[i, count - source.pick(f"quiet {i}", range(count)):] = 0
        given["sound_mask"] = mask
        part.mask = declared["attention"] = "sound_mask"
        part.baselines = ("zero",)
    else:
        part.by_reader = source.pick("adapter", ("of the package", "of the reader"), usual=0.7) == "of the reader"
    return part, Hearing(width), given


def _weighing(source: Source, n: int, width: int) -> tuple[Part, nn.Module, dict]:
    columns = source.pick("columns of the table", (3, 2, 4))
    part = Table("table", "table", "input:table", "NT", {}, ("table",))
    return part, Weighing(columns, width), {"table": torch.randn(n, columns)}


def _watching(source: Source, n: int, width: int) -> tuple[Part, nn.Module, dict]:
    channels, frames = source.pick("video channels", (1, 3)), source.pick("frames", (2, 3, 4))
    grid = source.pick("video grid", ((1, 2, 2), (1, 1, 2)) + (((2, 1, 2),) if frames % 2 == 0 else ()))
    part = Film("video", "film", "input:film", "NCTHW", {"layout": "NCTHW"}, ("film",), grid=grid)
    return part, Watching(channels, width), {"film": torch.randn(n, channels, frames, 2, 2)}


_BUILDERS = {"sight": _sight, "reading": _reading, "hearing": _hearing, "weighing": _weighing, "watching": _watching}


def _joint(source: Source, scene: Scene) -> None:
    """Read modalities at the sequence that they share, each at its own positions."""
    layer = source.pick("joint.layer", ("own", "joint", "after"))
    if layer == "own":
        return
    start = 0
    for part, (sequence, _) in zip(scene.parts, scene.net.sequences(scene.inputs)):
        length = sequence.shape[1]
        if isinstance(part, Row):
            part.by_reader = False  # which reads the first positions
        part.layer, part.layout, part.offset = layer, "NTD", start
        part.declared["layout"] = "NTD"
        part.declared["positions"] = slice(start, start + length)
        if isinstance(part, Picture):
            part.offset = start + length - part.patches[0] * part.patches[1]  # special tokens come first
            part.declared["positions"] = slice(part.offset, start + length)
            part.declared["patches"] = part.patches
        start += length
