"""PyTorch's modes around, inside and at the making of a model: right by hand, or it is said why not."""

import warnings

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from crossexplain import Called, Game, capture, explain, preflight, rounds
from crossexplain.checks import InputError
from crossexplain.coalitions.sampling import sampled_shapley
from crossexplain.gradients import maps
from crossexplain.gradients.capture import NoGradient
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.question import Question

N = 6
GENERATOR = torch.Generator().manual_seed(0)
INPUTS = {"images": torch.rand(N, 1, 8, 8, generator=GENERATOR), "tokens": torch.randint(2, 9, (N, 3), generator=GENERATOR)}
PARTS = [ImageCells(), Tokens()]


class Tower(nn.Module):
    """A convolution; ``around`` is a mode that it runs under, or a function that runs it."""

    def __init__(self, around=None):
        super().__init__()
        self.conv, self.relu, self.around = nn.Conv2d(1, 4, 3), nn.ReLU(), around

    def see(self, images: Tensor) -> Tensor:
        return self.relu(self.conv(images))

    def forward(self, images: Tensor) -> Tensor:
        if self.around is None:
            return self.see(images)
        if isinstance(self.around, type):
            with self.around():
                return self.see(images)
        return self.around(self.see, images)


class Net(nn.Module):
    """A tower for the picture, an embedding for the text, and a head."""

    def __init__(self, around=None, product=False):
        super().__init__()
        torch.manual_seed(1)
        self.tower, self.embedding, self.head, self.product = Tower(around), nn.Embedding(9, 4), nn.Linear(8, 3), product

    def forward(self, images: Tensor, tokens: Tensor) -> Tensor:
        seen, read = self.tower(images).mean(dim=(2, 3)), torch.tanh(self.embedding(tokens)).mean(dim=1)
        return self.head(torch.cat([seen * read if self.product else seen, read], dim=1))


def by_hand(model: Net, places=("tower", "embedding"), column: int = 1) -> dict[str, Tensor]:
    """Gradients of one column by autograd, with the network written out."""
    with torch.inference_mode(False), torch.enable_grad():
        return _by_hand(Net(product=model.product).eval(), places, column)  # the same weights, without any mode


def _by_hand(model: Net, places, column: int) -> dict[str, Tensor]:
    images = INPUTS["images"].clone().requires_grad_()
    conv = model.tower.conv(images)
    tower, embedding = conv.relu(), model.embedding(INPUTS["tokens"])
    seen, read = tower.mean(dim=(2, 3)), torch.tanh(embedding).mean(dim=1)
    logits = model.head(torch.cat([seen * read if model.product else seen, read], dim=1))
    held = {"input:images": images, "tower.conv": conv, "tower": tower, "embedding": embedding}
    return dict(zip(places, torch.autograd.grad(logits[:, column].sum(), [held[place] for place in places])))


def assert_right(model: nn.Module, places=("tower", "embedding"), prefix: str = "", inputs=INPUTS) -> None:
    captured = capture(model, inputs, [place if ":" in place else prefix + place for place in places], target=1)
    for place, gradient in by_hand(model if isinstance(model, Net) else Net(), places).items():
        found = captured.gradients[place if ":" in place else prefix + place]
        assert torch.allclose(found, gradient, atol=1e-6), place


# ---------------------------------------------------------------- no_grad and inference_mode


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_around_the_call(mode):
    model = Net().eval()
    expected = rounds(model, INPUTS, PARTS, progress=False)
    with mode():
        made = {key: value.clone() for key, value in INPUTS.items()}
        target = torch.full((N,), 1)
        assert_right(model)
        found = rounds(model, INPUTS, PARTS, progress=False)
        assert torch.equal(capture(model, made, "tower", target).gradients["tower"], by_hand(model)["tower"])
        explained = explain(model, made, PARTS, "gradient norm", target=target)
        table = Game(model, made, PARTS, progress=False, target=target).values_of_all()
    for key, one in expected.passes.items():
        assert torch.allclose(found.passes[key].logits, one.logits, atol=1e-6)
        for name, values in one.importance.items():
            assert torch.allclose(found.passes[key].importance[name], values, atol=1e-5)
    assert_right(model, inputs=made)
    rounds(model, made, PARTS, progress=False)
    assert torch.allclose(explained.joint(), explain(model, INPUTS, PARTS, "gradient norm", target=target).joint())
    assert torch.allclose(table, Game(model, INPUTS, PARTS, progress=False, target=torch.full((N,), 1)).values_of_all())


@pytest.mark.parametrize("product", [False, True])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inside_a_tower(mode, product):
    model = Net(mode, product).eval()
    assert_right(model)
    assert_right(model, ["embedding"])
    for place in ("tower.conv", "input:images"):
        with pytest.raises(NoGradient, match="computed under no_grad"):
            capture(model, INPUTS, place, 1)
    assert rounds(model, INPUTS, [ImageCells(layer="tower"), Tokens()], progress=False).modalities == ("image", "text")
    with pytest.raises(NoGradient):
        rounds(model, INPUTS, PARTS, progress=False)


class Decorated(Net):
    @torch.inference_mode()
    def see(self, images):
        return self.tower(images).mean(dim=(2, 3))

    def forward(self, images, tokens):
        seen, read = self.see(images), torch.tanh(self.embedding(tokens)).mean(dim=1)
        return self.head(torch.cat([seen * read, read], dim=1))


def test_inside_a_decorated_method():
    expected = by_hand(Net(product=True), ["embedding"])["embedding"]
    assert torch.allclose(capture(Decorated().eval(), INPUTS, "embedding", 1).gradients["embedding"], expected, atol=1e-6)
    with torch.inference_mode():
        pass
    assert torch.ones(1).is_inference() is False and torch.is_grad_enabled()


def test_a_whole_forward_under_no_grad_can_be_asked_without_gradients_alone():
    class Sealed(Net):
        forward = torch.no_grad()(Net.forward)

    model, plain = Sealed().eval(), Net().eval()
    for place in ("tower", "embedding"):
        with pytest.raises(NoGradient, match="'sampled shapley', 'kernel shap' or 'occlusion', need no gradient"):
            capture(model, INPUTS, place, 1)
    target = torch.full((N,), 1)
    tables = [Game(one, INPUTS, PARTS, target=target, progress=False).values_of_all() for one in (model, plain)]
    assert torch.allclose(*tables)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_at_the_making_of_the_model(mode):
    with mode():
        model = Net(product=True).eval()
        model.register_buffer("scale", torch.ones(1))
    parameters, buffers = dict(model.named_parameters()), dict(model.named_buffers())
    assert_right(model)
    rounds(model, INPUTS, PARTS, progress=False)
    assert explain(model, INPUTS, PARTS, "gradient norm").joint().isfinite().all()
    assert all(parameters[name] is one for name, one in model.named_parameters()), "the weights are the same objects"
    assert all(buffers[name] is one for name, one in model.named_buffers())


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_a_recurrent_layer_made_in_inference_mode(kind):
    class Reads(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding, self.states, self.head = nn.Embedding(9, 4), kind(4, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, tokens):
            return self.head(self.states(self.embedding(tokens))[0].amax(dim=1))

    with torch.inference_mode():
        model = Reads().eval()
    plain, given = Reads().eval(), {"tokens": INPUTS["tokens"]}
    expected, found = (capture(one, given, ["embedding", "states"], 1).gradients for one in (plain, model))
    assert all(torch.allclose(found[name], expected[name], atol=1e-6) for name in expected)


def test_a_tensor_made_in_inference_mode_that_is_no_weight_is_named():
    class Holds(Net):
        def forward(self, images, tokens):
            return super().forward(images, tokens) * self.scale

    model = Holds().eval()
    with torch.inference_mode():
        model.scale = torch.ones(3)
    with pytest.raises(InputError, match=r"made under torch.inference_mode\(\): make it outside"):
        capture(model, INPUTS, "tower")


# ---------------------------------------------------------------- checkpoints


def _checkpoint(reentrant):
    return lambda function, images: checkpoint(function, images, use_reentrant=reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("places", [("tower", "embedding"), ("tower.conv",), ("tower.conv", "tower"), ("input:images",),
                                    ("input:images", "tower.conv", "embedding")])
def test_gradient_checkpointing(reentrant, places):
    model = Net(_checkpoint(reentrant)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of the older kind's warnings about inputs without gradient either
        assert_right(model, places)
    record = rounds(model, INPUTS, [ImageCells(layer="tower.conv"), Tokens()], progress=False)
    expected = rounds(Net().eval(), INPUTS, [ImageCells(layer="tower.conv"), Tokens()], progress=False)
    for name, values in expected.passes["data", "full"].importance.items():
        assert torch.allclose(record.passes["data", "full"].importance[name], values, atol=1e-5)


def test_checkpoints_work_as_before_afterwards():
    model = Net(_checkpoint(True)).eval()
    capture(model, INPUTS, "tower.conv")
    calls = []
    handle = model.tower.conv.register_forward_hook(lambda *_: calls.append(1))
    model(INPUTS["images"].clone().requires_grad_(), INPUTS["tokens"]).sum().backward()
    handle.remove()
    assert len(calls) == 2, "once on the way there and once on the way back"


def test_a_transformer_of_hugging_face_that_checkpoints():
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    model = ViTForImageClassification(ViTConfig(image_size=32, patch_size=8, num_labels=3, **sizes)).eval()
    given = {"pixel_values": torch.rand(2, 3, 32, 32)}
    place = next(name for name, _ in model.named_modules() if name.endswith("layers.0") or name.endswith("layer.0"))
    expected = capture(model, given, place, 1).gradients[place]
    model.gradient_checkpointing_enable()
    assert torch.equal(capture(model, given, place, 1).gradients[place], expected)


# ---------------------------------------------------------------- compiled, parallel, scripted


@pytest.mark.parametrize("called_before", [False, True])
def test_a_compiled_model_is_read_by_either_name(called_before):
    torch._dynamo.reset()
    model = torch.compile(Net().eval(), backend="eager")
    if called_before:
        with torch.no_grad():
            model(**INPUTS)
    assert_right(model, prefix="_orig_mod.")
    assert_right(model)
    found = explain(model, INPUTS, [ImageCells(layer="_orig_mod.tower"), Tokens(layer="_orig_mod.embedding")], "gradient norm")
    expected = explain(Net().eval(), INPUTS, [ImageCells(layer="tower"), Tokens()], "gradient norm")
    assert torch.allclose(found.joint(), expected.joint(), atol=1e-6)
    heat = maps.attribute(model, INPUTS, "_orig_mod.tower")
    assert torch.allclose(heat, maps.attribute(Net().eval(), INPUTS, "tower"), atol=1e-6)


def test_a_model_compiled_in_place_and_one_with_a_compiled_part():
    torch._dynamo.reset()
    model = Net().eval()
    model.compile(backend="eager")
    with torch.no_grad():
        model(**INPUTS)
    assert_right(model, ["tower.conv", "embedding"])
    inside = Net().eval()
    inside.tower = torch.compile(inside.tower, backend="eager")
    with torch.no_grad():
        inside(**INPUTS)
    found = capture(inside, INPUTS, "tower._orig_mod.conv", 1).gradients["tower._orig_mod.conv"]
    assert torch.allclose(found, by_hand(Net(), ["tower.conv"])["tower.conv"], atol=1e-6)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: nn.DataParallel(model).eval(), lambda model: Called(
    nn.DataParallel(model))])
def test_data_parallel(wrap):
    model = wrap(Net().eval())
    assert_right(model, prefix="module.")
    assert_right(model)
    record = rounds(model, INPUTS, [ImageCells(layer="module.tower"), Tokens(layer="module.embedding")], progress=False)
    expected = rounds(Net().eval(), INPUTS, [ImageCells(layer="tower"), Tokens()], progress=False)
    assert record.verdict() == expected.verdict()
    with pytest.raises(InputError, match="no layer 'module.towr'; the nearest names are 'tower'"):
        capture(model, INPUTS, "module.towr")


@pytest.mark.parametrize("kind", ["script", "trace"])
def test_a_scripted_or_traced_model_is_read_at_its_inputs_and_refused_by_name_elsewhere(kind):
    model = torch.jit.script(Net().eval()) if kind == "script" else \
        torch.jit.trace(Net().eval(), example_kwarg_inputs=INPUTS, check_trace=False)
    assert_right(model, ["input:images"])
    for door in (lambda: capture(model, INPUTS, "embedding", 1), lambda: capture(model, INPUTS, "tower.conv"),
                 lambda: rounds(model, INPUTS, PARTS, progress=False), lambda: maps.attribute(model, INPUTS, "tower")):
        with pytest.raises(InputError, match="scripted or traced model .*pass the model that it was made from"):
            door()
    with pytest.raises(InputError, match="no layer 'towr'; the nearest names are 'tower'"):
        capture(model, INPUTS, "towr")
    target = torch.full((N,), 1)
    tables = [Game(one, INPUTS, PARTS, target=target, progress=False).values_of_all() for one in (model, Net().eval())]
    assert torch.allclose(*tables, atol=1e-6)


def test_a_scripted_part_is_refused_by_name_and_the_rest_is_read():
    model = Net().eval()
    model.tower = torch.jit.script(model.tower)
    assert_right(model, ["input:images", "embedding"])
    for layer in ("tower", "tower.conv"):
        with pytest.raises(InputError, match=f"layer '{layer}' is part of a scripted"):
            capture(model, INPUTS, layer)


# ---------------------------------------------------------------- weights that are elsewhere, or quantised


def test_a_model_whose_weights_are_offloaded():
    accelerate = pytest.importorskip("accelerate")
    model = accelerate.cpu_offload(Net().eval(), execution_device=torch.device("cpu"))
    assert next(model.parameters()).device.type == "meta"
    flags = [one.requires_grad for one in model.parameters()]
    assert_right(model, ["input:images", "tower", "embedding"])
    assert [one.requires_grad for one in model.parameters()] == flags
    record = rounds(model, INPUTS, PARTS, progress=False)
    assert record.verdict() == rounds(Net().eval(), INPUTS, PARTS, progress=False).verdict()


def test_a_model_without_weights_says_so():
    with pytest.raises(InputError, match="the model is on meta; there the weights have no numbers: load them"):
        rounds(Net().eval().to("meta"), INPUTS, PARTS, progress=False)


def quantised() -> nn.Module:
    with pytest.warns(DeprecationWarning, match="torch.ao.quantization is deprecated"):
        return torch.ao.quantization.quantize_dynamic(Net().eval(), {nn.Linear}, dtype=torch.qint8)


def test_a_quantised_model_is_named_and_asked_without_gradients():
    model = quantised()
    for door in (lambda: capture(model, INPUTS, "embedding"), lambda: rounds(model, INPUTS, PARTS, progress=False)):
        with pytest.raises(NoGradient, match=r"quantised \('head'.*Game, and explain with 'sampled shapley', 'kernel shap'"):
            door()
    target = torch.full((N,), 1)
    game = Game(model, INPUTS, PARTS, target=target, progress=False)
    exact = Game(Net().eval(), INPUTS, PARTS, target=target, progress=False)
    near = 0.1 * exact.values_of_all().abs().max()
    assert (game.values_of_all() - exact.values_of_all()).abs().max() < near
    assert (sampled_shapley(game, 64) - sampled_shapley(exact, 64)).abs().max() < near
    for method in ("kernel shap", "occlusion"):
        found, expected = (explain(one, INPUTS, PARTS, method, target=target).joint() for one in (model, Net().eval()))
        assert (found - expected).abs().max() < near


# ---------------------------------------------------------------- precision


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 2e-2), (torch.bfloat16, 8e-2), (torch.float64, 1e-6)])
def test_other_precisions(dtype, close):
    model = Net().eval().to(dtype)
    given = {**INPUTS, "images": INPUTS["images"].to(dtype)}
    for place, gradient in by_hand(Net()).items():
        found = capture(model, given, place, 1).gradients[place].float()
        assert (found - gradient).abs().max() <= close * gradient.abs().max()
    assert rounds(model, given, [ImageCells(layer="tower"), Tokens()], progress=False).target.shape == (N,)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_pictures_in_another_precision_than_the_weights(dtype):
    model = Net().eval().to(dtype)
    for door in (lambda: capture(model, INPUTS, "tower"), lambda: rounds(model, INPUTS, PARTS, progress=False),
                 lambda: explain(model, INPUTS, PARTS, "occlusion"), lambda: Game(model, INPUTS, PARTS),
                 lambda: preflight(model, INPUTS, PARTS), lambda: maps.attribute(model, INPUTS, "tower")):
        with pytest.raises(InputError, match=f"the weights are {dtype}: convert 'images' with .to\\({dtype}\\)"):
            door()


@pytest.mark.parametrize("inside", [False, True])
def test_autocast_around_and_inside(inside):
    class Cast(Net):
        def forward(self, images, tokens):
            with torch.autocast("cpu", torch.bfloat16, enabled=inside):
                return super().forward(images, tokens)

    model = Cast().eval() if inside else Net().eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=not inside):
        captured = capture(model, INPUTS, ["tower", "embedding"], 1)
        record = rounds(model, INPUTS, PARTS, progress=False)
    for place, gradient in by_hand(Net()).items():
        assert (captured.gradients[place].float() - gradient).abs().max() <= 0.1 * gradient.abs().max()
    assert record.verdict().answer == rounds(Net().eval(), INPUTS, PARTS, progress=False).verdict().answer


# ---------------------------------------------------------------- what fails inside a model


@pytest.mark.parametrize(("changed", "says"), [
    ({"images": torch.rand(N, 3, 8, 8)}, r"'images' float32 \(., 3, 8, 8\), 'tokens' int64 \(., 3\)\) with RuntimeError"),
    ({"images": torch.rand(N, 2, 8, 8)}, "fails on its inputs.*compare the shapes"),
    ({"tokens": INPUTS["tokens"] + 5}, "an embedding was asked for an id that it does not have.*have 'embedding' 0 to 8"),
    ({"more": torch.rand(N, 2)}, r"Net.forward takes \(images.*tokens.*\) and is called with the keywords .*'more'"),
])
def test_what_a_model_raises_says_what_came(changed, says):
    model = Net().eval()
    parts = [ImageCells(grid=(1, 1)), Tokens(mask_id=2)]
    for door in (lambda: capture(model, {**INPUTS, **changed}, "tower"),
                 lambda: rounds(model, {**INPUTS, **changed}, parts, progress=False),
                 lambda: Game(model, {**INPUTS, **changed}, parts), lambda: explain(model, {**INPUTS, **changed}, parts)):
        with pytest.raises(InputError, match=f"(?s){says}"):
            door()


@pytest.mark.parametrize("error", [RuntimeError("CUDA out of memory."), torch.OutOfMemoryError("no"), KeyboardInterrupt()])
def test_what_is_no_matter_of_the_inputs_comes_through(error):
    class Fails(Net):
        def forward(self, images, tokens):
            raise error

    with pytest.raises(type(error)) as got:
        capture(Fails().eval(), INPUTS, "tower")
    assert got.value is error


def test_a_step_without_a_derivative():
    class Step(torch.autograd.Function):
        @staticmethod
        def forward(context, values):
            return values.round()

        @staticmethod
        def backward(context, slope):
            raise NotImplementedError("no way back")

    class Rounded(Net):
        def forward(self, images, tokens):
            return super().forward(images, tokens) + Step.apply(self.embedding.weight[tokens].mean(dim=(1, 2)))[:, None] + \
                Step.apply(images.mean(dim=(1, 2, 3)))[:, None]

    with pytest.raises(InputError, match="the backward pass fails .*no way back.*'occlusion', need no gradient"):
        capture(Rounded().eval(), INPUTS, "input:images")


def test_inputs_that_the_model_overwrites_stay_as_they_are():
    class Overwrites(Net):
        def forward(self, images, tokens):
            images -= 0.5
            tokens.clamp_(max=5)
            return super().forward(images, tokens)

    class Careful(Net):
        def forward(self, images, tokens):
            return super().forward(images - 0.5, tokens.clamp(max=5))

    given = {key: value.clone() for key, value in INPUTS.items()}
    model, plain = Overwrites().eval(), Careful().eval()
    for places in (["tower"], ["input:images", "embedding"]):
        expected, found = capture(plain, INPUTS, places, 1), capture(model, given, places, 1)
        assert all(torch.allclose(found.gradients[name], expected.gradients[name], atol=1e-6) for name in places)
    target = torch.full((N,), 1)
    assert torch.allclose(Game(model, given, PARTS, target=target, progress=False).values_of_all(),
                          Game(plain, INPUTS, PARTS, target=target, progress=False).values_of_all(), atol=1e-6)
    rounds(model, given, PARTS, progress=False)
    preflight(model, given, PARTS)
    assert all(torch.equal(given[key], value) for key, value in INPUTS.items())


def test_a_model_that_returns_its_input():
    class Same(nn.Module):
        def forward(self, values):
            return values

    values = torch.rand(3, 2)
    captured = capture(Same(), {"values": values}, "input:values", 1)
    assert captured.gradients["input:values"].tolist() == [[0.0, 1.0]] * 3 and torch.equal(captured.output, values)
    assert captured.output.data_ptr() != values.data_ptr() and not values.requires_grad


# ---------------------------------------------------------------- layers of all kinds


class Kinds(nn.Module):
    """Layers under two names, in lists and dicts, called in other ways than by a call."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.shared = nn.Embedding(9, 4)
        self.text = nn.ModuleDict({"words": self.shared, "mix": nn.ModuleList([nn.Linear(4, 4), nn.ReLU(inplace=True)])})
        self.functional, self.around, self.left, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, tokens):
        read = self.text["words"](input=tokens)
        for layer in self.text["mix"]:
            read = layer(read)
        return self.head(self.around.forward(F.linear(read, self.functional.weight, self.functional.bias)).mean(dim=1))


def test_a_layer_may_be_called_by_each_of_its_names():
    model, given = Kinds().eval(), {"tokens": INPUTS["tokens"]}
    leaf = model.shared(INPUTS["tokens"]).detach().requires_grad_()
    first, second = model.text["mix"]
    read = model.around(model.functional(second(first(leaf)))).mean(dim=1)
    (expected,) = torch.autograd.grad(model.head(read)[:, 0].sum(), leaf)
    for name in ("shared", "text.words"):
        assert torch.allclose(capture(model, given, name, 0).gradients[name], expected, atol=1e-7)
    both = capture(model, given, ["text.words", "text.mix.0"], 0)
    assert set(both.gradients) == {"text.words", "text.mix.0"}
    with pytest.raises(InputError, match="no layer 'text.word'; the nearest names are 'text.words'"):
        capture(model, given, "text.word")


@pytest.mark.parametrize(("layer", "why"), [
    ("functional", r"as by layer.forward\(x\) or F.linear\(x, layer.weight\)"), ("around", "used without a call"),
    ("left", "it is left out"), ("text.mix", "a list of layers, of which one can be read"), ("text", "a list of layers"),
])
def test_a_layer_that_is_never_called_says_why_that_may_be(layer, why):
    with pytest.raises(InputError, match=f"layer '{layer}' exists but the forward pass never called it.*{why}"):
        capture(Kinds().eval(), {"tokens": INPUTS["tokens"]}, layer)


def test_lazy_layers():
    class Lazy(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.LazyLinear(3)

        def forward(self, images):
            return self.head(self.norm(self.conv(images)).mean(dim=(2, 3)))

    model, given = Lazy().eval(), {"images": INPUTS["images"]}
    for door in (lambda: capture(model, given, "conv"), lambda: Question(model, given, [ImageCells()]).whole()):
        with pytest.raises(InputError, match="lazy layers.*call model\\(\\*\\*inputs\\) once"):
            door()
    model(**given)
    assert capture(model, given, "conv").gradients["conv"].shape == (N, 4, 6, 6)


def test_hooks_of_the_users_own_stay_and_are_called():
    model, seen, slopes = Net().eval(), [], []
    handles = [model.tower.register_forward_hook(lambda module, given, output: seen.append(1) or output * 2),
               model.tower.register_forward_pre_hook(lambda module, given: (given[0] + 1,)),
               model.head.register_full_backward_hook(lambda module, inward, outward: slopes.append(1))]
    leaf = (2 * Net().eval().tower(INPUTS["images"] + 1)).detach().requires_grad_()
    read = torch.tanh(model.embedding(INPUTS["tokens"])).mean(dim=1)
    logits = Net().eval().head(torch.cat([leaf.mean(dim=(2, 3)), read], dim=1))
    (expected,) = torch.autograd.grad(logits[:, 1].sum(), leaf)
    captured = capture(model, INPUTS, "tower", 1)
    assert torch.allclose(captured.activations["tower"], leaf)
    assert torch.allclose(captured.gradients["tower"], expected, atol=1e-6)
    assert seen and slopes and len(model.tower._forward_hooks) == len(model.tower._forward_pre_hooks) == 1
    assert len(model.head._backward_hooks) == 1
    for handle in handles:
        handle.remove()


def test_functional_call_inside_reaches_the_layers():
    class Inside(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, images, tokens):
            weights = {name: value * 1 for name, value in self.net.named_parameters()}
            return torch.func.functional_call(self.net, weights, (images, tokens))

    assert_right(Inside().eval(), prefix="net.")


# ---------------------------------------------------------------- attention that gives no map


def test_attention_without_a_map_says_what_to_do():
    encoder = nn.TransformerEncoderLayer(4, 1, batch_first=True, dropout=0.0)
    model = nn.Sequential(nn.Embedding(9, 4), encoder, nn.Flatten(), nn.Linear(12, 2)).eval()
    with pytest.raises(InputError, match="need_weights=False, as nn.TransformerEncoderLayer and torchvision do"):
        capture(model, INPUTS["tokens"], ["0", "1.self_attn", "1.self_attn#1"])


# ---------------------------------------------------------------- packed sequences


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_a_packed_sequence_is_named(kind):
    class Packs(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.states, self.head = nn.Embedding(9, 4), kind(4, 3, batch_first=True), nn.Linear(3, 2)

        def forward(self, tokens):
            packed = nn.utils.rnn.pack_padded_sequence(self.embedding(tokens), torch.full((len(tokens),), 3), batch_first=True)
            states, _ = self.states(packed)
            return self.head(nn.utils.rnn.pad_packed_sequence(states, batch_first=True)[0].amax(dim=1))

    model, given = Packs().eval(), {"tokens": INPUTS["tokens"]}
    with pytest.raises(InputError, match="layer 'states' gives a packed sequence.*capture before it is packed"):
        capture(model, given, "states")
    assert capture(model, given, "embedding").gradients["embedding"].shape == (N, 3, 4)


# ---------------------------------------------------------------- train mode


class Forgotten(Net):
    """Drops half of what it sees, by a function or by a layer, or normalises by the batch."""

    def __init__(self, how: str):
        super().__init__()
        self.how, self.drop, self.norm = how, nn.Dropout(0.5 if how == "layer" else 0.0), nn.BatchNorm2d(4)

    def forward(self, images, tokens):
        seen = self.tower(images)
        seen = self.norm(seen) if self.how == "norm" else seen
        seen = F.dropout(seen, 0.5, self.training) if self.how == "function" else self.drop(seen)
        return self.head(torch.cat([seen.mean(dim=(2, 3)), self.embedding(tokens).mean(dim=1)], dim=1))


@pytest.mark.parametrize("how", ["layer", "function", "norm"])
def test_train_mode_is_refused_at_every_door(how):
    model = Forgotten(how)
    doors = [lambda: capture(model, INPUTS, "tower"), lambda: maps.attribute(model, INPUTS, "tower"),
             lambda: rounds(model, INPUTS, PARTS), lambda: Game(model, INPUTS, PARTS), lambda: explain(model, INPUTS, PARTS)]
    for door in doors:
        with pytest.raises(InputError, match="call model.eval"):
            door()
    assert capture(model, INPUTS, "tower", any_mode=True).output.shape == (N, 3)
    assert preflight(model, INPUTS, PARTS).names


@pytest.mark.parametrize(("how", "part"), [("layer", "drop"), ("norm", "norm")])
def test_one_part_back_in_train_mode_is_named_at_every_door(how, part):
    model = Forgotten(how).eval()
    getattr(model, part).train()
    for door in (lambda: capture(model, INPUTS, "tower"), lambda: maps.attribute(model, INPUTS, "tower"),
                 lambda: rounds(model, INPUTS, PARTS), lambda: Game(model, INPUTS, PARTS)):
        with pytest.raises(InputError, match=rf"1 part\(s\) of the model \('{part}'\) are in train mode"):
            door()


def test_capture_takes_a_mode_that_makes_no_difference():
    model = Net().train()
    assert_right(model)
    assert all(module.training for module in model.modules())
