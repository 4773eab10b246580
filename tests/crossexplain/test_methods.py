import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertModel
from transformers.modeling_outputs import SequenceClassifierOutput

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.evaluation import modality_shares
from crossexplain.evaluation.methods import METHODS, every_pair, explain, find, registry
from crossexplain.evaluation.task import CannotRun, Explanation, Method, Scored
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.attention import RELEVANCE, ROLLOUT
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.gradients.question import Question
from crossexplain.models import clip
from crossexplain.models.cnn_lstm import AfterTower, CnnLstm
from crossexplain.models.fusion import Fusion
from crossexplain.models.towers import ConvTower, EncoderTower
from support.toy import HAND, PARTS, Product

# Two warnings of other libraries are expected: Captum announces the hooks of every DeepLIFT, and shapiq says where it is
# given more coalitions than there are. All other warnings are errors.
pytestmark = [pytest.mark.filterwarnings("error"),
              pytest.mark.filterwarnings("ignore:Setting forward, backward hooks and attributes:UserWarning"),
              pytest.mark.filterwarnings("ignore:Not all budget is required:UserWarning")]
TOKENS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 8, 9, 3, 0, 0, 0], [2, 9, 10, 11, 4, 5, 3]])
PATHS = {"integrated gradients", "gradient shap"}  # need a layer that nothing goes round; CLIP's is a norm within a block


def fusion():
    config = BertConfig(vocab_size=12, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                        max_position_embeddings=10)
    return Fusion(ConvTower((4, 4, 8, 8, 8)), EncoderTower(BertModel(config)), width=16)


MADE = {
    "fusion": (fusion, (3, 32, 32)),
    "clip_cnn": (lambda: clip.small_cnn(12, 10), (3, 24, 24)),
    "clip_vit": (lambda: clip.small_vit(12, 10, side=24, patch=12, width=16, layers=2), (3, 24, 24)),
    "cnn_lstm": (lambda: CnnLstm(12), (1, 56, 56)),
    "behind tower": (lambda: AfterTower(CnnLstm(12)), None),
}


@pytest.fixture(params=MADE, scope="module")
def case(request):
    torch.manual_seed(0)
    make, shape = MADE[request.param]
    model = make().eval()
    if shape is None:
        picture, inputs = Vectors("image", "seen"), {"seen": torch.rand(3, 4, 10).softmax(dim=2)}
    else:
        grid = (1, 1) if request.param == "fusion" else (2, 2)
        picture, inputs = ImageCells(layer=model.image_layer, grid=grid), {"images": torch.rand(3, *shape)}
    modalities = [picture, Tokens(layer=model.text_layer, special=(2, 3))]
    return request.param, model, inputs | {"tokens": TOKENS}, modalities


@pytest.mark.parametrize("method", registry())
def test_every_method_on_every_model_gives_finite_values_or_says_why_not(case, method):
    kind, model, inputs, modalities = case
    before = {name: value.clone() for name, value in model.state_dict().items()}
    try:
        found = explain(model, inputs, modalities, method, budget=64)
    except InputError as error:
        of_images = {name for name, of in registry().items() if "image" in of.needs}
        may_refuse = {RELEVANCE, ROLLOUT, "deeplift"} | (of_images if kind == "behind tower" else {"grad-cam in time"})
        may_refuse |= PATHS if kind == "clip_vit" else set()
        assert method in may_refuse and len(str(error)) > 20
        return
    there = {modality.name: modality.features(inputs) for modality in modalities}
    if registry()[method].whole:
        there = {name: part.any(dim=1, keepdim=True) for name, part in there.items()}
    for name, values in found.values.items():
        assert values.shape == there[name].shape and torch.equal(values.isnan(), ~there[name])
        assert values[there[name]].isfinite().all()
        assert registry()[method].signed or (values[there[name]] >= -1e-6).all()
    assert found.passes >= 1 and found.seconds > 0 and found.joint().shape == (3, sum(part.shape[1] for part in there.values()))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert not model._forward_hooks and not model._forward_pre_hooks


@pytest.mark.parametrize("method", ["gradient shap", "kernel shap", "shapley sampling", "sampled shapley", "shapiq shapley"])
def test_what_is_drawn_is_drawn_from_the_seed_alone(case, method):
    kind, model, inputs, modalities = case
    before = np.random.get_state()[1].copy(), torch.random.get_rng_state()
    budget = 6 if method == "sampled shapley" else 32  # with more it has all coalitions of these, and is exact
    anyway = {"complete": False} if method in PATHS else {}
    found = [explain(model, inputs, modalities, method, budget=budget, seed=seed, **anyway).joint() for seed in (1, 1, 2)]
    assert torch.equal(found[0].nan_to_num(), found[1].nan_to_num())
    assert not torch.equal(found[0].nan_to_num(), found[2].nan_to_num()), "another seed draws others"
    assert (np.random.get_state()[1] == before[0]).all() and torch.equal(torch.random.get_rng_state(), before[1])


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if method.efficient] + ["integrated gradients"])
def test_values_sum_to_what_the_logit_gains_where_the_method_promises_it(case, method):
    kind, model, inputs, modalities = case
    try:
        found = explain(model, inputs, modalities, method, budget=64)
    except CannotRun:
        pytest.skip("does not run here")
    hidden = dict(inputs)
    for modality in modalities:
        nothing = torch.zeros_like(modality.features(inputs))
        hidden |= modality.replace(inputs, nothing, modality.baselines[0], None)
    with torch.no_grad():
        full, empty = model(**inputs), model(**hidden)
    gained = (full - empty) * (2 * (full > 0).float() - 1)
    tolerance = 0.15 * float(gained.abs().max()) if method == "integrated gradients" else 1e-3
    assert torch.allclose(found.joint().nansum(dim=1).float(), gained, atol=tolerance)


@pytest.mark.parametrize("method", ["sampled shapley", "shapley sampling", "shapiq shapley", "shapiq pairs", "kernel shap"])
def test_shapley_values_by_hand(method):
    found = explain(Product().eval(), HAND, PARTS, method, budget=500)
    # 1 * 2 shared by two, and 4 for the second cell
    tolerance = 0.4 if method in ("shapley sampling", "kernel shap") else 1e-3
    assert torch.allclose(found.joint()[0].float(), torch.tensor([1.0, 4, 0, 0, 1, 0]), atol=tolerance)
    if method == "shapiq pairs":
        assert found.pairs.shape == (1, 4, 2) and found.pairs[0, 0, 0].item() == pytest.approx(2, abs=1e-3)
        assert found.pairs[0].abs().sum().item() == pytest.approx(2, abs=1e-2)


def test_gradients_ablation_and_dividends_by_hand():
    model = Product().eval()
    found = {name: explain(model, HAND, PARTS, name).joint()[0].tolist()
             for name in ("gradient norm", "gradient x input", "feature ablation", "feature dividends")}
    assert found["gradient norm"] == pytest.approx([2, 1, 0, 0, 1, 0])
    assert found["gradient x input"] == pytest.approx([2, 4, 0, 0, 2, 0])
    assert found["feature ablation"] == pytest.approx([2, 4, 0, 0, 2, 0])
    assert found["feature dividends"] == pytest.approx([2, 0, 0, 0, 2, 0])


def test_deeplift_runs_where_every_layer_has_a_rule():
    class Layers(Product):
        def __init__(self):
            super().__init__()
            self.one, self.relu, self.two = nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 1)

        def match(self, seen, said):
            return self.two(self.relu(self.one(torch.cat([seen, said], dim=1))))[:, 0]

    torch.manual_seed(0)
    model = Layers().eval()
    found = explain(model, HAND, PARTS, "deeplift")
    nothing = {"images": torch.zeros(1, 1, 2, 2), "tokens": torch.ones(1, 2, dtype=torch.long)}
    gained = (model(**HAND) - model(**nothing)) * (2 * (model(**HAND) > 0).float() - 1)
    assert found.joint().sum().item() == pytest.approx(gained.item(), abs=1e-5)


def test_attention_is_read_from_the_modules_that_are_named():
    model = clip.small_vit(12, 10, side=24, patch=12, width=16, layers=2).eval()
    inputs = {"images": torch.rand(3, 3, 24, 24), "tokens": TOKENS}
    modalities = [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer, special=(2, 3))]
    modules = {"text": [name for name, _ in model.named_modules() if name.endswith("self_attn") and "text" in name],
               "image": [name for name, _ in model.named_modules() if name.endswith("self_attn") and "vision" in name][1:]}
    for method in (RELEVANCE, ROLLOUT):
        found = explain(model, inputs, modalities, method, attention=modules)
        assert found.values["image"].shape == (3, 4) and (found.values["text"].nan_to_num() >= 0).all()
        assert (found.values["text"].nansum(dim=1) > 0).all()


def test_passes_are_counted():
    model = Product().eval()
    assert explain(model, HAND, PARTS, "gradient norm").passes == 3  # forward, and back for two
    assert explain(model, HAND, PARTS, "feature ablation").passes == 7  # whole, and each of six features hidden
    assert explain(model, HAND, PARTS, "sampled shapley", budget=6).passes == 6  # masks that each tower looks at


def test_the_evidence_is_that_for_the_followed_class():
    model = Product().eval()
    yes, no = (explain(model, HAND, PARTS, "feature ablation", target=target).joint() for target in (1, 0))
    assert torch.allclose(yes, -no) and yes[0, 1] == 4


def test_joint_has_nan_for_a_modality_of_which_the_method_does_not_speak():
    explained = Explanation("", {"text": torch.tensor([[1.0, 2.0, torch.nan]])}, None, True, 1, 1, {"image": 2, "text": 3})
    assert explained.joint().isnan().tolist() == [[True, True, False, False, True]]


def test_a_new_method_is_one_function_and_one_line(monkeypatch):
    def ones(task):
        return Scored({name: present.float() for name, present in task.question.present.items()})

    monkeypatch.setitem(METHODS, "ones", Method("ones", "Ones", "", ones, False))
    assert explain(Product().eval(), HAND, PARTS, "ones").joint().tolist() == [[1.0] * 6]


def test_a_new_map_and_a_new_word_score_are_explained_by_name(monkeypatch):
    monkeypatch.setitem(maps.METHODS, "energy", maps.Method(lambda a, g: (a**2).sum(dim=1), "its square", "2026"))
    monkeypatch.setitem(tokens.METHODS, "value", tokens.Method(lambda a, g: a.sum(dim=-1), True, "the vector itself"))
    parts = [ImageCells(layer="input:images"), Tokens(layer="embedding")]
    assert explain(Product().eval(), HAND, parts, "energy").values["image"].tolist() == [[1, 16, 25, 36]]
    assert explain(Product().eval(), HAND, parts, "value").values["text"].tolist() == [[2, 3]]
    with pytest.raises(CannotRun, match="needs a modality of type Tokens"):
        explain(Product().eval(), HAND, parts[:1], "value")


def test_every_method_has_one_key_and_one_title():
    titles = [method.title for method in registry().values()]
    assert len(set(titles)) == len(titles) and all(key == method.key for key, method in registry().items())
    with pytest.warns(DeprecationWarning, match="'cross' is called 'cross gradient' now"):
        assert find("cross").title == "cross gradient"


class Named(nn.Module):
    """A model whose output is an object that holds logits, as those of Hugging Face."""

    def __init__(self):
        super().__init__()
        self.model = Product()

    def forward(self, images, tokens):
        return SequenceClassifierOutput(logits=self.model(images, tokens)[:, None])


@pytest.mark.parametrize("method", ["gradient x input", "cross gradient", "sampled shapley", "feature ablation",
                                    "exact shapley", "shapiq shapley"])
def test_outputs_of_hugging_face_and_a_function_as_target_give_the_same_values(method):
    parts = [ImageCells(), Tokens(layer="model.embedding")]
    expected = explain(Product().eval(), HAND, [parts[0], Tokens(layer="embedding")], method).joint()
    model = Named().eval()
    assert torch.allclose(explain(model, HAND, parts, method).joint(), expected, atol=1e-6)
    scored = explain(model, HAND, parts, method, target=lambda output: output.logits[:, 0]).joint()
    assert torch.allclose(scored, expected, atol=1e-6)


WITHOUT = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("captum", "shapiq", "pytorch_grad_cam"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocker())
import torch
from torch import nn
from crossexplain.evaluation.task import CannotRun
from crossexplain.evaluation.methods import explain
from crossexplain.gradients.modalities import ImageCells, Tokens
class Product(nn.Module):
    def forward(self, images, tokens):
        return images[:, 0, 0, 0] * (tokens[:, 0] - 1)
inputs = {"images": torch.full((1, 3, 4, 4), 2.0), "tokens": torch.tensor([[4, 5]])}
found = explain(Product().eval(), inputs, [ImageCells(grid=(1, 1)), Tokens()], "exact shapley")
print(found.joint().tolist())
for method in ("occlusion", "shapiq pairs", "grad-cam (library)"):
    try:
        explain(Product().eval(), inputs, [ImageCells(grid=(1, 1)), Tokens()], method)
    except CannotRun as reason:
        print(reason)
"""


def test_our_methods_need_no_other_library_and_others_say_what_to_install():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    values, *reasons = done.stdout.splitlines()
    assert values == "[[3.0, 3.0, 0.0]]"
    assert reasons == [f"{name} is not installed; type `pip install {name}`." for name in ("captum", "shapiq", "grad-cam")]


def test_what_cannot_run_says_why():
    model = Product().eval()
    reasons = {"grad-cam": "name a layer", "grad-cam (library)": "at the pixels", RELEVANCE: "name its modules",
               "deeplift": "miss the change of the logit"}
    for method, why in reasons.items():
        with pytest.raises(CannotRun, match=why):
            explain(model, HAND, PARTS, method)
    with pytest.raises(InputError, match="there is no method"):
        explain(model, HAND, PARTS, "magic")
    with pytest.raises(InputError, match="eval"):
        explain(Product(), HAND, PARTS)
    with pytest.raises(InputError, match="donors"):
        explain(model, HAND, PARTS, baselines={"image": "data"})


class Masked(nn.Module):
    """Another model, to which only attended words count."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images, tokens, attention_mask):
        return self.model(images, tokens) * (1 + attention_mask[:, 0] + 2 * attention_mask[:, 1])


def test_scores_of_whole_modalities_on_an_interaction_and_a_sum():
    sign = torch.tensor([1.0, 1, -1, -1])
    inputs = {"images": torch.zeros(4, 1, 2, 2) + sign[:, None, None, None],
              "tokens": torch.tensor([[2, 2], [3, 3], [2, 2], [3, 3]])}

    class Rule(Product):
        def __init__(self, xor):
            super().__init__()
            self.xor = xor

        def match(self, seen, said):
            word = 2 * said[:, 0] - 5  # -1 or 1
            return 5 * (seen[:, 0] * word if self.xor else seen[:, 0] + 2 * word)

    xor, added = Rule(True).eval(), Rule(False).eval()
    every = every_pair(Question(xor, inputs, PARTS))
    assert torch.allclose(every.diagonal(), xor(**inputs)) and every[0, 1] == 5 and every[1, 0] == -5
    found = {name: explain(xor, inputs, PARTS, name) for name in ("intershap", "dime", "emap")}
    assert found["emap"].pairs is None and all(of.passes == 4 for of in found.values())
    for name in ("dime", "emap"):
        assert found[name].joint().abs().max() < 1e-6, "an exclusive or has no parts"
    assert found["dime"].pairs.flatten().tolist() == pytest.approx([5] * 4)  # for the answer given, whichever it is
    published = modality_shares.intershap(modality_shares.intershap_values(every))
    sizes = torch.cat([found["intershap"].pairs[:, :, 0], found["intershap"].joint()], dim=1).mean(dim=0).abs()
    assert (sizes / sizes.sum()).tolist() == pytest.approx([published.interaction, published.first, published.second])
    assert published.interaction > 0.9
    with pytest.raises(CannotRun, match="predicted class"):
        explain(xor, inputs, PARTS, "intershap", target=1)
    with pytest.raises(CannotRun, match="about two modalities, got 1"):
        explain(xor, inputs, PARTS[:1], "emap")
    masked = Masked(added).eval()
    more = inputs | {"attention_mask": torch.tensor([[1, 1], [1, 0], [0, 1], [1, 1]])}
    words = Tokens(attention="attention_mask")
    one_way, other_way = (every_pair(Question(masked, more, parts)) for parts in ([words, PARTS[0]], [PARTS[0], words]))
    assert torch.equal(one_way, other_way.T)
    split = explain(added, inputs, PARTS, "dime")
    assert split.pairs.abs().max() < 1e-6
    assert split.joint()[:2].tolist() == [pytest.approx([-5, 10]), pytest.approx([5, 10])]  # a no to (1, -1), a yes to (1, 1)
    share = explain(added, inputs, PARTS, "mm-shap", baselines={"image": "zero", "text": "mask"})
    assert torch.allclose(share.joint().sum(dim=1), torch.ones(4).double()) and (share.values["text"] > 0.5).all()


def test_exact_values_of_a_product_are_known_and_groups_share_theirs():
    model = Product().eval()
    exact = explain(model, HAND, PARTS, "exact shapley")
    assert torch.allclose(exact.joint()[0].float(), torch.tensor([1.0, 4, 0, 0, 1, 0]), atol=1e-5)
    assert exact.passes == 2 ** int((~exact.joint()[0].isnan()).sum())
    game = Game(model, HAND, PARTS, players={PARTS[1].name: 1})
    grouped = explain(model, HAND, PARTS, "exact shapley", game=game)
    assert grouped.values[PARTS[1].name][0].tolist() == pytest.approx([0.5, 0.5]), "its two features share what the group has"
    across = explain(model, HAND, PARTS, "exact interactions")
    assert across.pairs[0, 0, 0].item() == pytest.approx(2, abs=1e-5)
    with pytest.raises(InputError, match="the game is about"):
        explain(model, HAND, PARTS, "exact shapley", target=0, game=game)
