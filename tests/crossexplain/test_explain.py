"""What explain refuses, with which words, and what it makes of models and inputs of other people's kinds."""

import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.evaluation.methods import METHODS, explain, registry
from crossexplain.evaluation.task import CannotRun, Method, Scored
from crossexplain.gradients.attention import RELEVANCE
from crossexplain.gradients.modalities import Columns, ImageCells, Tokens, Vectors, Video
from support.toy import HAND, PARTS, Product

pytestmark = [pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes:UserWarning"),
              pytest.mark.filterwarnings("ignore:Not all budget is required:UserWarning")]


def test_options_and_numbers_that_are_none_are_refused_with_what_there_is():
    model = Product().eval()
    with pytest.raises(InputError, match="has no option 'n_steps', nor any other"):
        explain(model, HAND, PARTS, "kernel shap", n_steps=4)
    with pytest.raises(InputError, match="the option 'steps', expected one of 'n_steps', 'internal.*did you mean 'n_steps'"):
        explain(model, HAND, PARTS, "integrated gradients", steps=4)
    with pytest.raises(InputError, match="the option 'key'"):
        explain(model, HAND, PARTS, "saliency", key="grad-cam")
    for wrong in (0, -1, 2.5, True, "64", 2**32):
        with pytest.raises(InputError, match="got budget=.*expected a whole number, 1 or more"):
            explain(model, HAND, PARTS, "sampled shapley", budget=wrong)
    for wrong in (-1, None, 0.5):
        with pytest.raises(InputError, match="got seed=.*expected a whole number, 0 or more"):
            explain(model, HAND, PARTS, "kernel shap", seed=wrong)
    with pytest.raises(InputError, match="did you mean 'kernel shap'"):
        explain(model, HAND, PARTS, "Kernel SHAP")
    for wrong in (None, ["kernel shap"]):
        with pytest.raises(InputError, match="got method=.*expected the name of one method"):
            explain(model, HAND, PARTS, wrong)
    for method in ("kernel shap", "shapiq shapley"):
        with pytest.raises(InputError, match="got budget=7 for examples of up to 6 features, expected at least 8"):
            explain(model, HAND, PARTS, method, budget=7)
    for wrong in (0, 1.5, True):
        with pytest.raises(InputError, match="got window=.*1 or more"):
            explain(model, HAND, PARTS, "occlusion", window=wrong)
    with pytest.raises(InputError, match="got game='all'"):
        explain(model, HAND, PARTS, "exact shapley", game="all")


@pytest.mark.parametrize("method", registry())
def test_every_option_that_is_listed_is_taken(method):
    for option in registry()[method].options:
        with pytest.raises(InputError) as refused:
            explain(Product().eval(), HAND, PARTS, method, **{option: object()})
        assert "the option" not in str(refused.value) and "has no option" not in str(refused.value)


def test_attention_is_asked_for_by_modality():
    model = Product().eval()
    for wrong, says in ((["a"], "got attention as list"), ({"txt": ["a"]}, "did you mean 'text'")):
        with pytest.raises(InputError, match=says):
            explain(model, HAND, PARTS, RELEVANCE, attention=wrong)
    inputs, parts = HAND | {"seen": torch.rand(1, 2, 3)}, [*PARTS, Vectors("seen", "seen")]
    with pytest.raises(CannotRun, match="'seen' is neither"):
        explain(model, inputs, parts, RELEVANCE, attention={"seen": ["a"]})


def test_an_error_of_another_library_says_which_method_and_what_else_there_is(monkeypatch):
    def broken(task):
        raise RuntimeError("a shape\nand a second line")

    def own(task):
        raise InputError("our own words")

    def warned(task):
        raise UserWarning("as the caller asked")

    for run, kind, says in ((broken, CannotRun, "^Broken does not run on this model: RuntimeError: a shape. 'sampled shapley'"),
                            (own, InputError, "^our own words$"), (warned, UserWarning, "as the caller asked")):
        monkeypatch.setitem(METHODS, "broken", Method("broken", "Broken", "", run, False))
        with pytest.raises(kind, match=says) as error:
            explain(Product().eval(), HAND, PARTS, "broken")
        assert (error.value.__cause__ is not None) == (run is broken)


def test_values_that_promise_a_sum_are_held_to_it(monkeypatch):
    def halved(task):
        return Scored({name: part / 2 for name, part in METHODS["exact shapley"].run(task).values.items()})

    monkeypatch.setitem(METHODS, "halved", Method("halved", "Halved (mine)", "", halved, True, efficient=True))
    with pytest.raises(CannotRun, match="^Halved's values miss the change of the logit by 50%: the budget"):
        explain(Product().eval(), HAND, PARTS, "halved")


class Masking(Product):
    """Words that are not attended count half."""

    def forward(self, images, tokens, attention_mask):
        words = self.embedding(tokens)[..., 0] * (0.5 + attention_mask / 2)
        return images.flatten(1)[:, 0] * words[:, 0] + words[:, 1]


def test_what_cannot_go_in_steps_from_hidden_to_shown_is_refused():
    inputs, model = HAND | {"attention_mask": torch.ones(1, 2)}, Masking().eval()
    parts = [PARTS[0], Tokens(attention="attention_mask", special=(2,))]
    found = explain(model, inputs, parts, "integrated gradients")
    assert found.joint().nansum().item() == pytest.approx(1 * 2 + 3, abs=1e-4)
    for method in ("integrated gradients", "gradient shap", "deeplift"):
        with pytest.raises(CannotRun, match="change 'attention_mask' too, which cannot go in steps"):
            explain(model, inputs, parts, method, baselines={"text": "pad"})


class Later(nn.Module):
    """The picture is read again behind the words."""

    def __init__(self):
        super().__init__()
        self.embedding, self.both = nn.Embedding(4, 4), nn.Identity()

    def forward(self, images, tokens):
        return self.both(self.embedding(tokens) + images.flatten(1)[:, None]).sum(dim=(1, 2))


def test_a_layer_behind_another_one_is_not_replaced():
    with pytest.raises(CannotRun, match="'both' come from another layer that is read"):
        explain(Later().eval(), HAND, [ImageCells(), Tokens(layer="both")], "integrated gradients")
    together = [Tokens(layer="both"), Vectors("again", "again", layer="both")]
    inputs = {"tokens": torch.tensor([[2, 3]]), "again": torch.ones(1, 2, 4)}

    class Twice(Later):
        def forward(self, tokens, again):
            return (self.both(self.embedding(tokens) + again) ** 2).sum(dim=(1, 2))

    values = explain(Twice().eval(), inputs, together, "integrated gradients").values
    assert torch.equal(values["text"], values["again"]), "two modalities that are read at one place have its values"


class TwoPictures(nn.Module):
    """One encoder for both, the second counts three times."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU())

    def forward(self, left, right):
        return self.encoder(left).sum(dim=(1, 2, 3)) + 3 * self.encoder(right).sum(dim=(1, 2, 3))


@pytest.mark.parametrize("method", ["hires-cam", "hires-cam (library)", "grad-cam", "saliency", "gradient norm",
                                    "integrated gradients"])
def test_each_of_two_pictures_is_read_where_it_passes(method):
    torch.manual_seed(0)
    model = TwoPictures().eval()
    model.encoder[0].weight.data = torch.tensor([1.0, 2.0])[:, None, None, None]
    inputs = {"left": torch.rand(2, 1, 4, 4) + 0.1, "right": torch.rand(2, 1, 4, 4) + 0.1}
    parts = [ImageCells(name, name, layer=f"encoder@{i}") for i, name in enumerate(inputs)]
    values = explain(model, inputs, parts, method).values
    assert set(values) == {"left", "right"}
    for name, times in (("left", 1), ("right", 3)):
        quarters = inputs[name][:, 0].unfold(1, 2, 2).unfold(2, 2, 2).sum(dim=(3, 4)).flatten(1)
        if method.endswith("(library)"):  # which scales each map by itself
            assert torch.corrcoef(torch.stack([values[name].flatten(), quarters.flatten()]))[0, 1] > 0.8
        elif method == "gradient norm":  # of eight places, two channels each
            assert torch.allclose(values[name], torch.full_like(quarters, times * 8**0.5))
        elif method == "saliency":
            assert torch.allclose(values[name], torch.full_like(quarters, times * 4.0))
        else:  # weights 1 and 2 of the two channels
            assert torch.allclose(values[name], 3 * times * quarters, rtol=1e-3), name


def test_the_library_grad_cam_leaves_the_callers_gradients_alone():
    model = TwoPictures().eval()
    model(torch.rand(1, 1, 4, 4), torch.rand(1, 1, 4, 4)).sum().backward()
    before = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    inputs = {"left": torch.rand(2, 1, 4, 4), "right": torch.rand(2, 1, 4, 4)}
    explain(model, inputs, [ImageCells("left", "left", layer="encoder@0"), ImageCells("right", "right", layer="encoder@1")],
            "grad-cam (library)")
    assert all(torch.equal(before[name], weight.grad) for name, weight in model.named_parameters())


def test_one_feature_has_all_that_is_gained():
    inputs = {"images": torch.full((1, 1, 2, 2), 2.0), "tokens": torch.tensor([[3]])}
    parts = [ImageCells(grid=(1, 1))]

    class Bright(nn.Module):
        def forward(self, images, tokens):
            return images.sum(dim=(1, 2, 3))

    for method in ("kernel shap", "shapley sampling", "exact shapley", "sampled shapley", "feature ablation", "occlusion"):
        assert explain(Bright().eval(), inputs, parts, method).joint().tolist() == [[8.0]], method
    with pytest.raises(CannotRun, match="needs two features"):
        explain(Bright().eval(), inputs, parts, "shapiq shapley")
    with pytest.raises(CannotRun, match="'image' is the only one"):
        explain(Bright().eval(), inputs, parts, "cross gradient")


def test_whole_modalities_are_swapped_with_all_that_belongs_to_them():
    model, alone = Product().eval(), {key: value[:1] for key, value in HAND.items()}
    with pytest.raises(CannotRun, match="swaps modalities between examples, and there is one"):
        explain(model, alone, PARTS, "emap")

    class Asked(Product):
        def forward(self, images, tokens, question):
            return super().forward(images, tokens) + question

    inputs = {"images": torch.rand(3, 1, 2, 2), "tokens": torch.randint(2, 4, (3, 2)), "question": torch.rand(3)}
    with pytest.raises(CannotRun, match="'question' belong to no modality"):
        explain(Asked().eval(), inputs, PARTS, "dime")


class WordsFirst(nn.Module):
    """Words stand first in the layer, (T, N, D); each counts by its place."""

    def __init__(self):
        super().__init__()
        self.embedding, self.turned = nn.Embedding(9, 2), nn.Identity()

    def forward(self, tokens):
        words = self.turned(self.embedding(tokens.t()))
        return (words.sum(dim=2) * torch.arange(1.0, len(words) + 1)[:, None]).sum(dim=0)


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize("method", ["integrated gradients", "gradient shap", "gradient x input", "raw"])
def test_a_layer_with_the_words_first_is_read_example_by_example(method, n):
    torch.manual_seed(0)
    model, tokens = WordsFirst().eval(), torch.randint(2, 9, (n, 4))
    with torch.no_grad():
        model.embedding.weight[1] = 0  # the mask says nothing
        logit, value = model(tokens), model.embedding(tokens).sum(dim=2) * torch.arange(1.0, 5)  # (N, T)
    found = explain(model, {"tokens": tokens}, [Tokens(layer="turned", layout="TND")], method).values["text"]
    expected = torch.arange(1.0, 5).expand(n, 4) * 2 if method == "raw" else value
    assert torch.allclose(found, expected * (2 * (logit > 0).float() - 1)[:, None], atol=1e-4)


def test_occlusion_hides_neighbours_of_a_video_together_and_columns_one_by_one():
    class Corner(nn.Module):
        """The first place of the first frame counts, and the first two columns."""

        def forward(self, video, table):
            return video[:, 0, 0, 0, 0] + table[:, 0] + 2 * table[:, 1]

    inputs = {"video": torch.ones(1, 3, 1, 3, 3), "table": torch.ones(1, 3)}
    parts = [Video("video", "video", grid=(3, 3, 3), layout="NTCHW"), Columns("table", "table")]
    values = explain(Corner().eval(), inputs, parts, "occlusion", baselines={"video": "zero", "table": "zero"}).values
    shown = values["video"].reshape(3, 3, 3)  # windows of 2 x 2 x 2 cells, of which one holds the first cell
    assert shown[0, 0, 0] == 1 and shown[0, 1, 1] == 1 / 4 and not shown[2].any() and not shown[:, 2].any()
    assert values["table"].tolist() == [[1, 2, 0]]


def test_a_method_about_pictures_needs_no_layer_of_the_words():
    class Bag(nn.Module):
        """The words have one vector together."""

        def __init__(self):
            super().__init__()
            self.bag = nn.EmbeddingBag(9, 1)

        def forward(self, images, tokens):
            return images.sum(dim=(1, 2, 3)) + self.bag(tokens)[:, 0]

    inputs = {"images": torch.rand(2, 1, 2, 2), "tokens": torch.randint(2, 9, (2, 3))}
    parts = [ImageCells(), Tokens(layer="bag")]
    assert explain(Bag().eval(), inputs, parts, "saliency", target=1).values["image"].tolist() == [[1.0] * 4] * 2
    with pytest.raises(InputError, match="layer 'bag'"):
        explain(Bag().eval(), inputs, parts, "l2")


class Residual(nn.Module):
    """A token of the class and two patches, a residual block, and the class token read; the block's parts have names."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cut, self.row, self.norm, self.mix = nn.Linear(2, 4), nn.Identity(), nn.LayerNorm(4), nn.Linear(4, 4)
        self.block, self.head = nn.Identity(), nn.Linear(4, 1)

    def forward(self, patches):
        row = self.row(torch.cat([torch.zeros(len(patches), 1, 4), self.cut(patches)], dim=1))
        row = self.block(row + self.mix(self.norm(row)) + row.mean(dim=1, keepdim=True))
        return self.head(4 * row[:, 0] + row[:, 1:].sum(dim=1))[:, 0] ** 3


def test_integrated_gradients_are_held_to_what_they_promise():
    model, inputs = Residual().eval(), {"patches": 3 * torch.rand(2, 2, 2)}
    found = {}
    for layer, says in (("row", None), ("norm", "miss .*% of what the evidence changes by .* the rest goes round them"),
                        ("block", "positions that are no feature, such as a class token")):
        parts = [Vectors("image", "patches", layer=layer, positions=slice(1, None))]
        for method in ("integrated gradients", "gradient shap"):
            if says is not None and not (method == "gradient shap" and layer == "block"):
                with pytest.raises(CannotRun, match=says):
                    explain(model, inputs, parts, method)
        found[layer] = explain(model, inputs, parts, "integrated gradients", complete=says is None).joint()
    with torch.no_grad():
        by_hand = model(**inputs) - model(torch.zeros(2, 2, 2))
    sign = 2 * (model(**inputs) > 0).double() - 1
    assert torch.allclose(found["row"].sum(dim=1), sign * by_hand, rtol=1e-3)
    assert not torch.allclose(found["norm"].sum(dim=1), sign * by_hand, rtol=0.01)
    with pytest.raises(CannotRun, match="n_steps=1 are too few; pass more"):
        explain(model, inputs, [Vectors("image", "patches", layer="row", positions=slice(1, None))], "integrated gradients",
                n_steps=1)
