"""Capture: the same numbers as torch.autograd by hand, and a model that nobody can tell was looked into."""

from collections import namedtuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from crossexplain.checks import InputError
from crossexplain.gradients.capture import capture


class Small(nn.Module):
    """A convolution, a ReLU in place, and a classifier: what every chapter's image model is made of."""

    def __init__(self, classes: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.norm(self.conv(images))).mean(dim=(2, 3)))


@pytest.fixture
def model() -> Small:
    torch.manual_seed(0)
    return Small().eval()


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def hooks(model: nn.Module) -> int:
    """Number of hooks of any kind in a model."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def state(model: nn.Module) -> dict:
    """Everything that a caller could see change."""
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    return {
        "tensors": tensors,
        "flags": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": hooks(model),
        "identities": [id(value) for value in (*model.parameters(), *model.buffers())],
    }


def assert_same(before: dict, after: dict) -> None:
    tensors, others = before.pop("tensors"), after.pop("tensors")
    assert before == after and tensors.keys() == others.keys()
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)


# ---------------------------------------------------------------- the numbers


def by_hand(model: Small, images: Tensor, index: Tensor) -> dict[str, Tensor]:
    """Activations and gradients of the same network written without in-place operations and without hooks."""
    images = images.clone().requires_grad_()
    conv = model.conv(images)
    norm = model.norm(conv)
    relu = norm.clamp(min=0)
    pooled = relu.mean(dim=(2, 3))
    logits = model.head(pooled)
    places = {"input:0": images, "conv": conv, "norm": norm, "relu": relu, "head": logits}
    score = logits.gather(1, index[:, None]).sum()
    gradients = torch.autograd.grad(score, list(places.values()))
    return {name: (place.detach(), gradient) for (name, place), gradient in zip(places.items(), gradients)}


@pytest.mark.parametrize("layer", ["input:0", "conv", "norm", "relu", "head"])
@pytest.mark.parametrize("training", [False, True])
def test_one_place_equals_autograd_by_hand(model, images, layer, training):
    model.train(training)
    index = torch.tensor([0, 1, 2, 0, 1])
    activation, gradient = by_hand(model, images, index)[layer]
    captured = capture(model, images, layer, target=index, any_mode=True)
    assert torch.allclose(captured.activations[layer], activation, atol=1e-6)
    assert torch.allclose(captured.gradients[layer], gradient, atol=1e-6)


def test_all_places_at_once_equal_autograd_by_hand(model, images):
    index = torch.tensor([2, 1, 0, 0, 2])
    expected = by_hand(model, images, index)
    captured = capture(model, images, list(expected), target=index)
    assert list(captured.activations) == list(captured.gradients) == list(expected)
    for name, (activation, gradient) in expected.items():
        assert torch.allclose(captured.activations[name], activation, atol=1e-6), name
        assert torch.allclose(captured.gradients[name], gradient, atol=1e-6), name


@given(
    st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 4), st.integers(2, 4), st.integers(0, 2**31 - 1)
)
@settings(max_examples=40, deadline=None)
def test_any_stack_of_layers_equals_autograd(widths, examples, classes, seed):
    """Whatever subset of layers is asked for, each has the gradient that it has alone."""
    generator = torch.Generator().manual_seed(seed)
    layers = [nn.Flatten()]
    for before, after in zip([3, *widths], [*widths, classes]):
        layers += [nn.Linear(before, after), nn.Tanh()]
    model = nn.Sequential(*layers[:-1])
    inputs = torch.rand(examples, 3, generator=generator)
    index = torch.randint(classes, (examples,), generator=generator)
    chosen = [str(at) for at in range(1, len(model)) if torch.rand((), generator=generator) < 0.5] or ["1"]
    captured = capture(model, inputs, chosen, target=index)

    value, kept = inputs.clone().requires_grad_(), {}
    for at, layer in enumerate(model):
        value = kept[str(at)] = layer(value)
    expected = torch.autograd.grad(value.gather(1, index[:, None]).sum(), [kept[name] for name in chosen])
    for name, gradient in zip(chosen, expected):
        assert torch.allclose(captured.activations[name], kept[name], atol=1e-6)
        assert torch.allclose(captured.gradients[name], gradient, atol=1e-6)


@given(st.integers(1, 6), st.integers(0, 2**31 - 1))
@settings(max_examples=25, deadline=None)
def test_an_example_is_alone_in_its_batch(examples, seed):
    torch.manual_seed(seed)
    model, images = Small().eval(), torch.rand(examples, 1, 6, 6)
    together = capture(model, images, ["conv", "relu"], target=1)
    for at in range(examples):
        alone = capture(model, images[at : at + 1], ["conv", "relu"], target=1)
        for name in ("conv", "relu"):
            assert torch.allclose(together.gradients[name][at], alone.gradients[name][0], atol=1e-6)


def test_the_score_is_the_logit_that_was_asked_for(model, images):
    logits = model(images).detach()
    predicted = capture(model, images, "conv")
    assert torch.equal(predicted.output, logits) and torch.equal(predicted.target, logits.argmax(dim=1))
    assert torch.allclose(predicted.score, logits.max(dim=1).values)
    assert torch.allclose(capture(model, images, "conv", target=2).score, logits[:, 2])
    margin = capture(model, images, "conv", target=lambda output: output[:, 0] - output[:, 1])
    assert margin.target is None and torch.allclose(margin.score, logits[:, 0] - logits[:, 1])


@pytest.mark.parametrize("shape", [(-1,), (-1, 1)])
def test_a_single_logit_speaks_for_one_and_its_negative_for_zero(images, shape):
    torch.manual_seed(0)
    model = nn.Sequential(Small(1).eval(), nn.Flatten(0) if shape == (-1,) else nn.Identity())
    yes, no = (capture(model, images, "0.conv", target=index) for index in (1, 0))
    assert torch.equal(yes.score, model(images).detach().reshape(-1)) and torch.equal(no.score, -yes.score)
    assert torch.allclose(yes.gradients["0.conv"], -no.gradients["0.conv"])
    assert torch.equal(capture(model, images, "0.conv").score, yes.score)
    predicted = capture(model, images, "0.conv", target="predicted")
    assert (predicted.score >= 0).all() and torch.equal(predicted.target, (yes.score > 0).long())


# ---------------------------------------------------------------- nothing is left behind


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_as_it_was(model, images, training):
    model.train(training)
    model.head.weight.requires_grad_(False)
    model.relu.eval()
    before = state(model)
    capture(model, images, ["conv", "relu", "input:0"], any_mode=True)
    assert_same(before, state(model))


def test_gradients_that_were_there_stay_what_they_were(model, images):
    model(images).sum().backward()
    kept = [parameter.grad.clone() for parameter in model.parameters()]
    capture(model, images, "conv")
    assert all(torch.equal(parameter.grad, grad) for parameter, grad in zip(model.parameters(), kept))


class Fails(nn.Module):
    """Fails after its layer has run."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(2)

    def forward(self, x: Tensor) -> Tensor:
        self.norm(x)
        raise RuntimeError("out of memory")


def test_the_model_is_as_it_was_after_an_error_in_the_forward_pass():
    model = Fails().train()
    before = state(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        capture(model, torch.rand(4, 2), "norm", any_mode=True)
    assert_same(before, state(model))


@pytest.mark.parametrize("bad", [{"layers": "no.such"}, {"target": 9}, {"target": lambda output: output.sum()}])
def test_the_model_is_as_it_was_after_bad_input(model, images, bad):
    before = state(model)
    with pytest.raises(InputError):
        capture(model, images, **{"layers": ["conv", "relu"], **bad})
    assert_same(before, state(model))


def test_inputs_are_neither_changed_nor_marked(model, images):
    kept = images.clone()
    overwrites = nn.Sequential(nn.ReLU(inplace=True), model)
    signed = images - 0.5
    signed_kept = signed.clone()
    capture(model, images, ["input:0", "conv"])
    capture(overwrites, signed, "input:0")
    assert torch.equal(images, kept) and torch.equal(signed, signed_kept)
    assert not images.requires_grad and not signed.requires_grad and images.grad is None


def test_what_was_captured_is_detached_and_safe_from_later_layers(model, images):
    captured = capture(model, images, ["norm", "relu"])
    assert (captured.activations["norm"] < 0).any(), "the ReLU in place has overwritten what came before it"
    assert (captured.activations["relu"] >= 0).all()
    for tensor in (captured.output, captured.score, *captured.activations.values(), *captured.gradients.values()):
        assert not tensor.requires_grad and tensor.grad_fn is None


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_the_callers_mode_does_not_matter_and_is_kept(model, images, mode):
    expected = capture(model, images, "conv").gradients["conv"]
    with mode():
        enabled, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = capture(model, images, ["conv", "input:0"]).gradients["conv"]
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == (enabled, inference)
    assert torch.allclose(found, expected)


def test_inputs_made_in_inference_mode():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 2)

        def forward(self, x: Tensor, weights: Tensor) -> Tensor:
            return (self.linear(x) * weights).sum(dim=1)

    with torch.inference_mode():
        x, weights = torch.rand(3, 2), torch.rand(3, 2)
    for layers in (["linear"], ["input:0", "linear"], ["input:1"]):
        captured = capture(Two(), (x, weights), layers)
        assert "linear" not in layers or torch.equal(captured.gradients["linear"], weights)


# ---------------------------------------------------------------- only what is asked for


class Watched(nn.Module):
    """Remembers whether its input had a graph."""

    def __init__(self):
        super().__init__()
        self.graphs = []

    def forward(self, x: Tensor) -> Tensor:
        self.graphs.append(x.requires_grad)
        return x * 2


def test_before_the_first_captured_layer_there_is_no_graph():
    model = nn.Sequential(nn.Linear(2, 2), Watched(), nn.Linear(2, 2), Watched(), nn.Linear(2, 1))
    capture(model, torch.rand(3, 2), "2")
    assert model[1].graphs == [False] and model[3].graphs == [True]


def test_without_gradients_there_is_no_graph_at_all(images):
    model = nn.Sequential(nn.Embedding(5, 2), Watched(), nn.Flatten(), nn.Linear(6, 1))
    captured = capture(model, torch.randint(5, (4, 3)), ["0", "1", "input:0"], gradients=False)
    assert model[1].graphs == [False] and captured.gradients == {}
    assert captured.activations["0"].shape == (4, 3, 2) and captured.activations["input:0"].dtype == torch.int64


# ---------------------------------------------------------------- any module


Pair = namedtuple("Pair", "first second")


class Tuples(nn.Module):
    """Gives a tuple, a named tuple or a mapping."""

    def __init__(self, kind: str):
        super().__init__()
        self.kind, self.linear = kind, nn.Linear(2, 2)

    def forward(self, x: Tensor):
        y = self.linear(x)
        return {"tuple": (y, x), "named": Pair(y, x), "mapping": {"word": "text", "y": y, "x": x}, "list": [y, x]}[
            self.kind
        ]


class Reads(nn.Module):
    """Uses both entries of what :class:`Tuples` gives."""

    def __init__(self, kind: str):
        super().__init__()
        self.inner = Tuples(kind)

    def forward(self, x: Tensor) -> Tensor:
        found = self.inner(x)
        if isinstance(found, Pair):
            return (found.first * found.second).sum(dim=1)
        first, second = (found["y"], found["x"]) if isinstance(found, dict) else found
        return (first * second).sum(dim=1)


@pytest.mark.parametrize("kind", ["tuple", "named", "mapping", "list"])
def test_of_a_structure_the_first_tensor_is_captured_and_the_rest_handed_on(kind):
    model, x = Reads(kind), torch.rand(3, 2)
    captured = capture(model, x, "inner")
    assert torch.allclose(captured.gradients["inner"], x)
    assert torch.allclose(captured.output, model(x).detach())


class Twice(nn.Module):
    """Calls one layer twice, as a shared tower is."""

    def __init__(self):
        super().__init__()
        self.shared, self.unused = nn.Linear(2, 2), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(torch.tanh(self.shared(x))).sum(dim=1)


def test_each_call_of_a_repeated_layer_has_its_own_gradient():
    torch.manual_seed(0)
    model, x = Twice(), torch.rand(4, 2)
    captured = capture(model, x, ["shared@0", "shared@1"])
    assert torch.equal(captured.gradients["shared@1"], torch.ones(4, 2))
    first = captured.activations["shared@0"]
    expected = (model.shared.weight.sum(dim=0) * (1 - torch.tanh(first) ** 2)).detach()
    assert torch.allclose(captured.gradients["shared@0"], expected, atol=1e-6)


def test_a_repeated_layer_has_to_be_told_apart_and_an_unused_one_is_named():
    model, x = Twice(), torch.rand(4, 2)
    with pytest.raises(InputError, match=r"ran 2 times.*'shared@0' or 'shared@1'"):
        capture(model, x, "shared")
    with pytest.raises(InputError, match=r"call 2 does not exist"):
        capture(model, x, "shared@2")
    with pytest.raises(InputError, match=r"'unused' exists but.*never called it.*'shared'"):
        capture(model, x, "unused")
    assert hooks(model) == 0


def test_attention_maps_are_read_as_the_second_entry():
    class Attends(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.attention, self.head = nn.Embedding(7, 4), nn.MultiheadAttention(4, 1, batch_first=True), \
                nn.Linear(4, 2)

        def forward(self, tokens: Tensor) -> Tensor:
            x = self.embed(tokens)
            return self.head(self.attention(x, x, x, need_weights=True)[0].mean(dim=1))

    torch.manual_seed(0)
    model, tokens = Attends().eval(), torch.randint(7, (3, 5))
    captured = capture(model, {"tokens": tokens}, ["embed", "attention"])
    assert captured.gradients["attention"].shape == (3, 5, 4)
    found = capture(model, {"tokens": tokens}, "attention#1", gradients=False)
    assert torch.allclose(found.activations["attention#1"].sum(dim=-1), torch.ones(3, 5))
    with pytest.raises(InputError, match="name a layer before"):
        capture(model, {"tokens": tokens}, "attention#1")
    with pytest.raises(InputError, match="no tensor 2"):
        capture(model, {"tokens": tokens}, ["embed", "attention#2"])


@pytest.mark.parametrize("by", ["dict", "tuple", "list"])
def test_inputs_by_name_and_by_position(by):
    class Two(nn.Module):
        def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
            return (images * tokens[:, :1]).sum(dim=1)

    images, tokens = torch.rand(3, 2), torch.arange(6).reshape(3, 2)
    inputs = {"dict": {"images": images, "tokens": tokens}, "tuple": (images, tokens), "list": [images, tokens]}[by]
    name = "input:images" if by == "dict" else "input:0"
    assert torch.equal(capture(Two(), inputs, name).gradients[name], tokens[:, :1].expand(3, 2).float())


def test_recurrent_layer_in_eval_mode():
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.head = nn.LSTM(2, 3, num_layers=2, batch_first=True), nn.Linear(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.lstm(x)[0].amax(dim=1))[:, 0]

    model, x = Recurrent().eval(), torch.rand(4, 5, 2)
    captured = capture(model, x, ["input:0", "lstm"])
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf).sum(), leaf)
    assert torch.allclose(captured.gradients["input:0"], expected, atol=1e-6)


def test_logits_of_a_named_output():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> dict:
            return {"hidden": x, "logits": self.linear(x)}

    captured = capture(Named(), torch.rand(4, 2), "linear")
    assert captured.output.shape == (4, 3) and captured.gradients["linear"].sum() == 4


def test_predicted_turns_the_sign_of_a_single_logit_that_says_no():
    model, x = nn.Linear(2, 1), torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0, 0.0]]))
        model.bias.zero_()
    found = capture(model, x, "input:0", target="predicted")
    assert found.target.tolist() == [1, 0] and found.score.tolist() == [2.0, 2.0]
    assert found.gradients["input:0"][:, 0].tolist() == [2.0, -2.0]
    classes = capture(nn.Linear(2, 3), x, "input:0", target="predicted")
    assert torch.equal(classes.target, classes.output.argmax(dim=1))
    with pytest.raises(InputError, match="got target='best', expected 'predicted'"):
        capture(model, x, "input:0", target="best")


class Table(nn.Module):
    """Similarities of all pictures with all others."""

    def __init__(self, named: bool = False):
        super().__init__()
        self.named, self.conv = named, nn.Conv2d(1, 4, 3)

    def forward(self, images: Tensor) -> object:
        vectors = self.conv(images).mean(dim=(2, 3))
        table = vectors @ vectors.T
        return {"features": vectors, "similarities": table} if self.named else table


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("gradients", [False, True])
def test_a_function_of_similarities_reads_the_pairs_alone(images, named, gradients):
    model = Table(named).eval()

    def table(output):
        return output["similarities"] if named else output

    same = images[:1].expand(3, -1, -1, -1).contiguous()  # whose columns hold the same numbers
    for pictures in (images, same):
        for function in (lambda output: table(output)[:, 0], lambda output: table(output).softmax(dim=1).diagonal()):
            with pytest.raises(InputError, match=r"similarities of all with all.*output\.diagonal"):
                capture(model, pictures, "conv", function, gradients)
        pairs = capture(model, pictures, "conv", lambda output: table(output).diagonal(), gradients)
        alone = [capture(model, picture[None], "conv", lambda output: table(output)[:, 0]) for picture in pictures]
        assert torch.allclose(pairs.score, torch.cat([one.score for one in alone]))
        if gradients:
            assert torch.allclose(pairs.gradients["conv"], torch.cat([one.gradients["conv"] for one in alone]), atol=1e-6)
