"""Models that are called in their own way, and outputs of which one part is judged: right, or refused with what to type."""

import copy
import re
from collections import namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from crossexplain import Called, Game, capture, explain, preflight, rounds
from crossexplain.checks import InputError
from crossexplain.gradients import maps
from crossexplain.gradients.called import calling_of
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.question import Question
from crossexplain.models.clip import small_vit

N = 8
GENERATOR = torch.Generator().manual_seed(0)
IMAGES, TOKENS = torch.rand(N, 1, 4, 4, generator=GENERATOR), torch.randint(2, 9, (N, 3), generator=GENERATOR)
FLAT = {"images": IMAGES, "tokens": TOKENS}
PARTS = [ImageCells(), Tokens()]
Pair = namedtuple("Pair", "first second")


class Base(nn.Module):
    """Three logits of a picture and a sentence."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embedding, self.head = nn.Embedding(9, 4), nn.Linear(5, 3)

    def both(self, images: Tensor, tokens: Tensor) -> Tensor:
        seen = images[..., :2].mean(dim=(1, 2, 3)) - 3 * images[..., 2:].mean(dim=(1, 2, 3))
        return self.head(torch.cat([seen[:, None], torch.tanh(self.embedding(tokens)).mean(dim=1)], dim=1))


class Flat(Base):
    """Called as everything else here is."""

    def forward(self, images, tokens):
        return self.both(images, tokens)


@dataclass
class Batch:
    images: Tensor
    tokens: Tensor


class Star(Base):
    def forward(self, *args):
        return self.both(*args)


class Positional(Base):
    def forward(self, x, y, /):
        return self.both(x, y)


class OneDict(Base):
    def forward(self, batch):
        return self.both(batch["images"], batch["tokens"])


class OneList(Base):
    def forward(self, pair):
        return self.both(*pair)


class OneDataclass(Base):
    def forward(self, batch):
        return self.both(batch.images, batch.tokens)


class ByName(Base):
    def forward(self, *, images, tokens, **ignored):
        return self.both(images, tokens)


CALLS = {
    Star: lambda model, inputs: model(inputs["images"], inputs["tokens"]),
    Positional: lambda model, inputs: model(inputs["images"], inputs["tokens"]),
    OneDict: lambda model, inputs: model(inputs),
    OneList: lambda model, inputs: model([inputs["images"], inputs["tokens"]]),
    OneDataclass: lambda model, inputs: model(Batch(**inputs)),
    ByName: None,
}


def wrong(model, inputs=FLAT) -> list:
    """Ask at every door, and return the errors."""
    doors = [lambda: rounds(model, inputs, PARTS, progress=False), lambda: preflight(model, inputs, PARTS),
             lambda: explain(model, inputs, PARTS, "occlusion"), lambda: Game(model, inputs, PARTS, progress=False),
             lambda: capture(model, inputs, "embedding"), lambda: maps.attribute(model, inputs, "input:images", "saliency")]
    errors = []
    for door in doors:
        with pytest.raises(InputError) as error:
            door()
        errors.append(str(error.value))
    return errors


@pytest.mark.parametrize("kind", CALLS)
def test_a_model_with_a_call_of_its_own_gives_what_the_flat_one_gives(kind):
    plain, model = Flat().eval(), Called(kind().eval(), CALLS[kind])
    expected = capture(plain, FLAT, ["embedding", "input:images"], target=1)
    found = capture(model, FLAT, ["embedding", "input:images"], target=1)
    for name, gradient in expected.gradients.items():
        assert torch.equal(found.gradients[name], gradient)
    assert torch.equal(Game(model, FLAT, PARTS, progress=False).values_of_all(),
                       Game(plain, FLAT, PARTS, progress=False).values_of_all())


@pytest.mark.parametrize("kind", [kind for kind in CALLS if CALLS[kind]])
def test_without_the_wrapper_every_door_says_which_lines_to_type(kind):
    for said in wrong(kind().eval()):
        assert f"{kind.__name__}.forward takes (" in said and "from crossexplain import Called" in said
        assert "Called(model, lambda model, inputs: model(" in said and "'tokens': tokens" in said


def test_the_lines_that_are_given_work():
    said = wrong(OneDict().eval())[0]
    lines = [line.strip() for line in said.splitlines() if line.startswith("    ")]
    names = {"model": OneDict().eval(), "images": IMAGES, "tokens": TOKENS}
    exec("\n".join(lines), names)
    assert capture(names["model"], names["inputs"], "embedding").output.shape == (N, 3)


@pytest.mark.parametrize(("inputs", "says"), [
    ({"batch": FLAT}, "as dict that holds tensors"), ({"batch": Batch(IMAGES, TOKENS)}, "as Batch that holds tensors"),
    ((IMAGES, TOKENS), "got inputs as tuple"), (Batch(IMAGES, TOKENS), "got inputs as Batch"), ([IMAGES, TOKENS], "as list"),
    (None, "got inputs as NoneType"), (IMAGES, "got inputs as Tensor"),
])
def test_inputs_that_are_not_flat_are_refused_with_the_lines_of_the_wrapper(inputs, says):
    for door in (lambda: rounds(OneDict().eval(), inputs, PARTS), lambda: Game(OneDict().eval(), inputs, PARTS),
                 lambda: explain(OneDict().eval(), inputs, PARTS, "exact shapley")):
        with pytest.raises(InputError, match=f"(?s){says}.*from crossexplain import Called"):
            door()


@pytest.mark.parametrize("inputs", [({"images": IMAGES, "tokens": TOKENS},), {"batch": FLAT}, ([IMAGES, TOKENS],),
                                    (Batch(IMAGES, TOKENS),), Batch(IMAGES, TOKENS), {"images": IMAGES.numpy()}])
def test_capture_says_so_too(inputs):
    with pytest.raises(InputError, match="(?s)from crossexplain import Called.*Called\\(model, lambda"):
        capture(OneDict().eval(), inputs, "embedding")


@pytest.mark.parametrize(("extra", "says"), [
    (np.ones((N, 2)), "'extra' as ndarray .*torch.as_tensor"), ({"a": torch.ones(N)}, "'extra' as dict that holds tensors"),
    ((torch.ones(N), torch.ones(N)), "'extra' as tuple that holds tensors"),
])
def test_an_input_that_is_no_modality_and_no_tensor(extra, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        Question(ByName().eval(), {**FLAT, "extra": extra}, PARTS)


def test_what_needs_no_cutting_is_handed_on():
    class Settings(Base):
        def forward(self, images, tokens, scale=1.0, mode="plain", mask=None):
            return self.both(images, tokens) * (scale if mode == "twice" and mask is None else 0)

    given = {**FLAT, "scale": 2.0, "mode": "twice", "mask": None}
    assert torch.allclose(Question(Settings().eval(), given, PARTS).whole(), 2 * Flat()(**FLAT))


def test_a_list_with_one_entry_an_example_is_cut_like_a_tensor():
    class Listed(Base):
        def forward(self, images, tokens, boxes, names):
            assert len(boxes) == len(names) == len(images)
            more = torch.stack([box.sum() * len(name) for box, name in zip(boxes, names)])
            return self.both(images, tokens) + more[:, None] * torch.arange(3)

    boxes, names = [torch.rand(i + 1, 4) for i in range(N)], ["a" * i for i in range(N)]
    whole = Listed()(IMAGES, TOKENS, boxes, names)
    question = Question(Listed().eval(), {**FLAT, "boxes": boxes, "names": names}, PARTS, rows=3, target=torch.full((N,), 2))
    assert torch.allclose(question.whole(), whole, atol=1e-6)
    everything = torch.ones(2, 7, dtype=torch.bool)
    expected = (whole[:, 2] - whole.mean(dim=1))[[5, 0]].double()
    assert torch.allclose(question.values(everything, torch.tensor([5, 0])), expected, atol=1e-5)


# ---------------------------------------------------------------- which part of the output


@dataclass
class Out:
    scores: Tensor
    hidden: Tensor


class Gives(Base):
    """The logits and the features of the text in some form."""

    def __init__(self, form):
        super().__init__()
        self.form = form

    def forward(self, images, tokens):
        return self.form(self.embedding.weight[tokens].mean(dim=1), self.both(images, tokens))


SEVERAL = {  # the form, and what one types to get the logits
    "tuple": (lambda f, z: (f, z), 1),
    "list": (lambda f, z: [f, z], 1),
    "named tuple": (lambda f, z: Pair(f, z), "second"),
    "dict": (lambda f, z: {"features": f, "scores": z}, "scores"),
    "nested dict": (lambda f, z: {"out": {"scores": z}}, lambda output: output["out"]["scores"]),
    "nested list": (lambda f, z: [[z]], lambda output: output[0][0]),
    "dataclass": (lambda f, z: Out(z, f), "scores"),
    "object": (lambda f, z: type("Anything", (), {})(), None),
}


@pytest.mark.parametrize("name", [name for name in SEVERAL if name != "object"])
def test_of_several_tensors_none_is_taken_silently_and_the_one_that_is_named_is_right(name):
    form, output = SEVERAL[name]
    for said in wrong(Gives(form).eval()):
        assert "say which one is judged" in said and "Called(model, output=lambda output: output" in said
        assert "function as target" in said
    model, plain = Called(Gives(form).eval(), output=output), Flat().eval()
    expected = capture(plain, FLAT, "embedding")
    found = capture(model, FLAT, "embedding")
    assert torch.equal(found.output, expected.output) and torch.equal(found.gradients["embedding"],
                                                                      expected.gradients["embedding"])
    assert torch.equal(Game(model, FLAT, PARTS, progress=False).values_of_all(),
                       Game(plain, FLAT, PARTS, progress=False).values_of_all())


def test_the_message_names_the_tensors_and_where_they_are():
    with pytest.raises(InputError, match=r"dict with output\['out'\]\['scores'\] \(8, 3\), and none"):
        capture(Gives(SEVERAL["nested dict"][0]).eval(), FLAT, "embedding")
    with pytest.raises(InputError, match=r"Out with output.scores \(8, 3\), output.hidden \(8, 4\)"):
        capture(Gives(SEVERAL["dataclass"][0]).eval(), FLAT, "embedding")
    with pytest.raises(InputError, match="Anything with no tensor"):
        capture(Gives(SEVERAL["object"][0]).eval(), FLAT, "embedding")


@pytest.mark.parametrize("form", [
    lambda f, z: {"loss": z.mean(), "logits": z}, lambda f, z: (z.mean(), z), lambda f, z: (z,), lambda f, z: {"only": z},
    lambda f, z: (f.argmax(dim=1), z), lambda f, z: {"hidden": f, "logits": z}, lambda f, z: Out(z, None),
    lambda f, z: (z, None, [f, f]), lambda f, z: {"scores": z, "words": ["a"], "names": {"x": f}},
])
def test_one_that_is_named_logits_or_is_the_only_one_with_axes_is_taken(form):
    found = capture(Gives(form).eval(), FLAT, "embedding")
    assert torch.equal(found.output, capture(Flat().eval(), FLAT, "embedding").output)


@pytest.mark.parametrize("name", SEVERAL)
def test_a_function_gets_the_output_as_it_is(name):
    form, output = SEVERAL[name]
    if output is None:
        def form(f, z):
            made = SEVERAL["object"][0](f, z)
            made.inside = z
            return made

        output = "inside"

    def pick(given):
        part = output(given) if callable(output) else getattr(given, output) if hasattr(given, str(output)) else given[output]
        return part[:, 2]

    model = Gives(form).eval()
    expected = capture(Flat().eval(), FLAT, "embedding", target=2)
    found = capture(model, FLAT, "embedding", target=pick)
    assert torch.equal(found.gradients["embedding"], expected.gradients["embedding"])
    assert torch.equal(found.score, expected.score)
    question = Question(model, FLAT, PARTS, target=pick)
    assert torch.allclose(question.whole()[:, 0], expected.score) and question.columns == 1
    record = rounds(model, FLAT, PARTS, target=pick, progress=False)
    assert torch.allclose(record.passes[record.baselines[0], "full"].logits[:, 0], expected.score)


@pytest.mark.parametrize(("target", "says"), [
    (lambda output: output.scores[:, 0], "fails with AttributeError"), (lambda output: output[:, 7], "fails with IndexError"),
    (lambda output: output[:, 0].argmax(), r"gave torch.int64 \(\)"), (lambda output: output.long()[:, 0], "gave torch.int64"),
    (lambda output: None, "gave NoneType"),
])
def test_a_function_that_does_not_fit_the_output(target, says):
    for door in (lambda: capture(Flat().eval(), FLAT, "embedding", target=target),
                 lambda: Game(Flat().eval(), FLAT, PARTS, target=target),
                 lambda: explain(Flat().eval(), FLAT, PARTS, "occlusion", target=target)):
        with pytest.raises(InputError, match=says):
            door()


@pytest.mark.parametrize(("form", "says"), [
    (lambda f, z: z.argmax(dim=1), "torch.int64, expected floating logits.*before any argmax"),
    (lambda f, z: z > 0, "torch.bool, expected floating"), (lambda f, z: torch.complex(z, z), "complex64.*real part"),
    (lambda f, z: z[:, :, None].expand(-1, -1, 5), r"shape \((8|2), 3, 5\) for . example.*target=lambda"),
    (lambda f, z: z.mean(), r"shape \(\) for"), (lambda f, z: None, "NoneType with no tensor"),
    (lambda f, z: z.T, r"shape \(3, 8\)|The output|column"), (lambda f, z: z.flatten(), r"shape \((24|6),\) for . examples"),
])
def test_outputs_that_are_no_logits(form, says):
    for said in wrong(Gives(form).eval()):
        assert re.search(says, said), said


def test_a_single_column_counts_like_a_single_number():
    class One(Base):
        def forward(self, images, tokens):
            return self.both(images, tokens)[:, :1]

    class Bare(Base):
        def forward(self, images, tokens):
            return self.both(images, tokens)[:, 0]

    values = [Game(kind().eval(), FLAT, PARTS, progress=False).values_of_all() for kind in (One, Bare)]
    assert torch.equal(*values)


def test_a_part_that_is_not_there_is_named_with_those_that_are():
    for output, says in (("score", "a dict with 'features', 'scores'"), (5, "a dict")):
        with pytest.raises(InputError, match=f"names no part of the output, {says}"):
            capture(Called(Gives(SEVERAL["dict"][0]).eval(), output=output), FLAT, "embedding")
    with pytest.raises(InputError, match=r"a tuple with 0, 1; name one"):
        capture(Called(Gives(SEVERAL["tuple"][0]).eval(), output=2), FLAT, "embedding")
    with pytest.raises(InputError, match="gives one tensor.*pass target="):
        capture(Called(Flat().eval(), output=1), FLAT, "embedding")


# ---------------------------------------------------------------- the wrapper is the model


def test_layers_weights_and_mode_are_those_of_the_model():
    inner = small_vit(12, 6, side=24, width=16, layers=2)
    model = Called(Called(inner, common=("a",)), common=["b"], drop=("c",))
    assert [name for name, _ in model.named_modules() if name] == [name for name, _ in inner.named_modules() if name]
    assert model.get_submodule(inner.image_layer) is inner.get_submodule(inner.image_layer)
    assert model.state_dict().keys() == inner.state_dict().keys() and model.image_layer == inner.image_layer
    assert [id(one) for one in model.parameters()] == [id(one) for one in inner.parameters()]
    assert model.training and inner.eval() is inner and not model.training
    model.train()
    assert inner.training and inner.clip.training
    model.eval()
    assert not any(part.training for part in inner.modules()) and calling_of(model)[2:] == (("b", "a"), ("c",))
    other = copy.deepcopy(model).double()
    assert next(other.wrapped_model.parameters()).dtype == torch.float64 != next(inner.parameters()).dtype


def test_layers_may_have_the_names_of_the_wrappers_arguments():
    class Named(Base):
        def __init__(self):
            super().__init__()
            self.output, self.call, self.drop, self.common = nn.Linear(3, 3), nn.Identity(), nn.Dropout(0.5), nn.Identity()

        def forward(self, images, tokens):
            return self.common(self.drop(self.call(self.output(self.both(images, tokens)))))

    inner = Named().eval()
    expected = capture(inner, FLAT, "output", 1)
    model = Called(Called(inner, output=lambda logits: 2 * logits, drop=("more",)), common=("classes",))
    assert isinstance(inner.output, nn.Linear) and model.output is inner.output and model.drop is inner.drop
    assert torch.equal(capture(model, FLAT, "output", 1).gradients["output"], 2 * expected.gradients["output"])
    assert Game(model, {**FLAT, "more": torch.ones(N)}, PARTS, progress=False).values_of_all().isfinite().all()


@pytest.mark.parametrize(("make", "says"), [
    (lambda: Called(len), "got a model of type builtin_function_or_method"), (lambda: Called("clip"), "of type str"),
    (lambda: Called(Flat(), common="classes"), "common='classes', expected a sequence"),
    (lambda: Called(Flat(), drop=[1]), r"drop=\[1\], expected a sequence"),
    (lambda: capture(lambda images: images, FLAT, "0"), "got a model of type function.*pass the module"),
    (lambda: Question(lambda images: images, FLAT, PARTS), "got a model of type function"),
    (lambda: capture(type("Pipe", (), {"model": Flat()})(), FLAT, "0"), "of type Pipe.*pass its .model"),
])
def test_what_is_no_model_is_refused(make, says):
    with pytest.raises(InputError, match=says):
        make()


def test_a_wrapped_model_of_two_towers_is_asked_by_its_towers():
    inner = small_vit(12, 6, side=24, width=16, layers=2).eval()
    tokens = torch.tensor([[2, 5, 7, 3], [2, 6, 8, 3]])
    given = {"images": torch.rand(2, 3, 24, 24), "tokens": tokens}
    parts = [ImageCells(), Tokens(special=(2, 3))]
    plain = Game(inner, given, parts, progress=False)
    for model in (Called(inner), Called(Called(inner), drop=("more",))):
        wrapped = Game(model, given, parts, progress=False)
        assert wrapped.splits and torch.equal(wrapped.values_of_all(), plain.values_of_all())
    other = Game(Called(inner, output=lambda logits: 2 * logits), given, parts, progress=False)
    assert not other.splits, "the towers do not know what is made of the logits"
    assert torch.allclose(other.values_of_all(), 2 * plain.values_of_all(), atol=1e-4)


def test_what_only_a_modality_reads_goes_no_further():
    inner = small_vit(12, 6, side=24, width=16, layers=2).eval()
    given = {"images": torch.rand(2, 3, 24, 24), "tokens": torch.tensor([[2, 5, 7, 3], [2, 6, 8, 3]]),
             "marks": torch.tensor([[False, True, False, False]] * 2)}
    parts = [ImageCells(), Tokens(special=(2, 3), layer=inner.text_layer, special_mask="marks")]
    question = Question(inner, given, parts)
    assert torch.allclose(question.whole()[:, 0], inner(given["images"], given["tokens"]), atol=1e-5)
    assert calling_of(question.model).drop == ("marks",) and question.present["text"].sum(dim=1).tolist() == [1, 1]
    towers, whole = Game(inner, given, parts, progress=False), Game(inner, given, parts, split=False, progress=False)
    assert towers.splits and torch.allclose(towers.values_of_all(), whole.values_of_all(), atol=1e-4)
    assert question.captured().gradients[inner.text_layer].shape[:2] == (2, 4)
