import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from crossexplain.checks import InputError
from crossexplain.gradients.answers import Answer
from crossexplain.gradients.modalities import ImageCells, Tokens, Vectors
from crossexplain.gradients.question import Question
from crossexplain.gradients.rounds import feature_dividends, rounds, run_rounds
from crossexplain.gradients.verdict import _Judged, _settle, verdict
from crossexplain.gradients.views import FULL, NOTHING, Mask, Noise, Reorder
from crossexplain.models.clip import small_cnn
from support.known_rules import BASELINES, BRIGHT, INPUTS, MODALITIES, RULES, TOKENS, WORD, N, Toy


def run(rule="both added", **kwargs):
    settings = {"baselines": BASELINES, "progress": False} | kwargs
    return rounds(Toy(RULES[rule]).eval(), INPUTS, MODALITIES, **settings)


@pytest.mark.parametrize("answer", RULES)
def test_the_verdict_is_right_where_the_rule_is_known(answer):
    verdict = run(answer).verdict()
    assert verdict.answer == answer and verdict.support > 0.95
    assert set(verdict.answers) == {"zero + mask", "data"} and answer in str(verdict)


def test_either_is_told_from_added_by_examples_that_agree():
    light = WORD.float().sub(5.5).sign()
    inputs = {"images": torch.zeros(N, 1, 4, 4) + light[:, None, None, None], "tokens": TOKENS}
    model = Toy(lambda light, word: 2 * light + 0.1 * word + word.sign()).eval()
    assert rounds(model, inputs, MODALITIES, baselines=BASELINES, progress=False).verdict().answer == "either"


def test_the_dividend_is_zero_for_a_sum_and_the_product_for_a_product():
    added = run("both added")
    assert np.abs(added.dividend("zero + mask")).max() < 1e-4 and np.abs(added.dividend("data")).max() < 1e-4
    product = rounds(Toy(lambda light, word: light * word).eval(), INPUTS, MODALITIES, baselines=BASELINES[:1], progress=False)
    assert np.allclose(product.dividend("zero + mask"), product.margin("zero + mask", FULL), atol=1e-5)
    assert (product.margin("zero + mask", FULL) >= 0).all()  # evidence for the class that was predicted


@settings(deadline=None, max_examples=8)
@given(rows=st.integers(1, 200), seed=st.integers(0, 5))
def test_the_record_does_not_depend_on_how_many_rows_run_at_once(rows, seed):
    one, other = (run(rows=size, seed=seed, top=2) for size in (rows, 4096))
    for key in one.passes:
        assert torch.allclose(one.passes[key].logits, other.passes[key].logits, atol=1e-5)
        for name, values in one.passes[key].importance.items():
            assert torch.allclose(values, other.passes[key].importance[name], atol=1e-5)
    assert all(torch.equal(one.by_side[key].picked, other.by_side[key].picked) for key in one.by_side)


@pytest.mark.parametrize("answer", RULES)
def test_without_gradients_the_verdict_is_the_same(answer):
    whole, bare = run(answer, pick=None), run(answer, gradients=False)
    assert str(whole.verdict()) == str(bare.verdict()) and not bare.by_side
    assert (whole.each("data") == bare.each("data")).all() and whole.passes.keys() == bare.passes.keys()
    for view, one in bare.passes.items():
        assert torch.allclose(one.logits, whole.passes[view].logits, atol=1e-5) and not one.norms and not one.importance


@pytest.mark.parametrize("gradients", [True, False])
def test_without_gradients_no_graph_is_made(gradients):
    question = Question(Toy(RULES["both only"]).eval(), INPUTS, MODALITIES)
    question.test()  # looks at the model, by gradients too
    graphs = []
    question.model.register_forward_hook(lambda model, given, logit: graphs.append(logit.requires_grad))
    run_rounds(question, baselines=BASELINES, pick=None, gradients=gradients, progress=False)
    assert any(graphs) == gradients


@pytest.mark.parametrize("ask", [lambda record: record.paper_rule("data"), lambda record: record.norm_ratio("data", "image"),
                                 lambda record: record.by(None)])
def test_what_reads_norms_says_that_they_were_left_out(ask):
    with pytest.raises(InputError, match="gradients=False"):
        ask(run(gradients=False))


def test_all_rounds_share_one_scale_and_keep_their_raw_norms():
    record = run("both only")
    for name in record.modalities:
        largest = torch.stack([run.importance[name].amax(dim=1) for run in record.passes.values() if run.importance])
        assert torch.allclose(largest.amax(dim=0), torch.ones(N), atol=1e-5) and (record.scale[name] > 0).all()
    full = record.passes["data", FULL]
    raw = full.importance["text"] * record.scale["text"][:, None]
    assert torch.allclose(raw.norm(dim=1)[::2], full.norms["text"][::2], rtol=1e-3)  # those without padding
    assert (record.passes["zero + mask", "text masked"].importance["text"] == 0).all()
    assert record.features["text"].equal(TOKENS != 0)


def test_the_gradients_are_those_of_single_passes_by_hand():
    record = run("both only", control=False)
    model = Toy(RULES["both only"]).eval()
    for i in (0, 7):
        pixels = torch.zeros(1, 1, 4, 4, requires_grad=True)  # the image masked by zero
        vectors = model.embedding(TOKENS[i : i + 1]).detach().requires_grad_()
        logit = model.rule(pixels.mean(dim=(1, 2, 3)), vectors[..., 0].sum(dim=1))
        gradient = torch.autograd.grad(logit.sum(), vectors)[0]
        found = record.passes["zero + mask", "image masked"]
        assert found.logits[i].item() == pytest.approx(logit.item(), abs=1e-6)
        assert found.norms["text"][i].item() == pytest.approx(gradient.norm().item(), abs=1e-6)


def test_round_four_masks_what_round_two_picks():
    record = run("both only", top={"text": 2, "image": 1})
    end = record.by_side["zero + mask", "text"]
    assert end.picked.sum(dim=1).eq(2).all() and not (end.picked & (TOKENS == 0)).any()
    assert record.by_side["zero + mask", "image"].picked.sum(dim=1).eq(1).all()
    ends = {pick: run("both only", pick=pick).by_side["data", "text"] for pick in ("round 1", "cross")}
    assert all(end.picked.sum(dim=1).eq(1).all() for end in ends.values())
    for values in (*end.similarity, *end.similarity_random):
        defined = values[~values.isnan()]
        assert len(values) == N and (defined <= 1 + 1e-5).all() and (defined >= -1 - 1e-5).all()
    assert run(control=False).by_side["data", "text"].similarity_random is None


def test_the_cross_gradient_is_zero_for_a_sum_and_not_for_a_product():
    assert float(run("both added").by_side["data", "text"].cross.max()) < 1e-5
    assert float(run("both only").by_side["data", "text"].cross.max()) > 0.1


def test_what_carries_an_interaction_is_the_first_word_and_nothing_in_a_sum():
    model = Toy(lambda light, word: light * word).eval()
    found = feature_dividends(model, INPUTS, MODALITIES, progress=False)
    assert torch.allclose(found["text"][:, 0], (BRIGHT * model.embedding(WORD)[:, 0]).abs().detach(), atol=1e-5)
    assert float(found["text"][:, 1:].abs().max()) < 1e-5 and found["image"].shape == (N, 4)
    assert torch.allclose(found["image"].sum(dim=1), found["text"][:, 0], atol=1e-4)  # four equal cells
    none = feature_dividends(Toy(RULES["both added"]).eval(), INPUTS, MODALITIES, baseline="data", progress=False)
    assert max(float(values.abs().max()) for values in none.values()) < 1e-4


def test_several_classes_are_followed_through_all_views():
    record = rounds(Toy(RULES["both only"], classes=3).eval(), INPUTS, MODALITIES, baselines=BASELINES, progress=False)
    assert record.passes["data", "image masked"].logits.shape == (N, 3) and set(record.target.tolist()) == {0, 2}
    assert record.verdict().answer == "both only"
    fixed = rounds(Toy(RULES["both only"], classes=3).eval(), INPUTS, MODALITIES, target=2, progress=False)
    assert fixed.target.eq(1).all() and fixed.passes["data", FULL].logits.shape == (N, 1)  # the third logit itself
    each = rounds(Toy(RULES["both only"], classes=3).eval(), INPUTS, MODALITIES, target=torch.full((N,), 2), progress=False)
    assert each.target.eq(2).all() and each.passes["data", FULL].logits.shape == (N, 3)


def test_a_function_of_the_output_can_be_followed():
    record = rounds(Toy(RULES["both only"], classes=3).eval(), INPUTS, MODALITIES, progress=False,
                    target=lambda output: output[:, 1])
    assert record.passes["data", FULL].logits.shape == (N, 1) and record.verdict().answer == "both only"


def test_three_modalities():
    class Three(nn.Module):
        def forward(self, a, b, c):
            return (3 * a * b).sum(dim=(1, 2)) + 0.1 * c.sum(dim=(1, 2))

    draws = torch.randn(3, N, 2, 1, generator=torch.Generator().manual_seed(2))
    inputs = dict(zip("abc", draws))
    record = rounds(Three().eval(), inputs, [Vectors(name, name) for name in "abc"], progress=False)
    assert record.verdict().answer == "both only" and ("zero", "b+c masked") in record.passes
    assert ("data", NOTHING) in record.passes and record.verdict().flips["data"]["c"].value < 0.1


def test_own_views_are_recorded_under_their_names():
    record = run(extra={"noise": {"image": Noise(0.1)}, "order": {"text": Reorder(1)}})
    assert set(record.extra) == {"noise", "order"}
    assert np.allclose(record.margin("data", "order"), record.margin("data", FULL), atol=1e-5)  # a sum knows no order
    assert not record.flips("data", "order").any()


def test_baselines_that_disagree_and_few_examples_give_no_answer():
    def rule(light, word):
        """Image alone, unless the word is missing: then nothing counts."""
        return torch.where(word == 0, 0 * light, 3 * light + 0.01 * word)

    verdict = rounds(Toy(rule).eval(), INPUTS, MODALITIES, baselines=BASELINES, progress=False).verdict()
    assert verdict.answer == "cannot tell" and "baselines disagree" in verdict.reason
    assert verdict.answers["data"] == "image alone"
    flat = rounds(Toy(lambda light, word: 0 * light * word).eval(), INPUTS, MODALITIES, progress=False)
    assert flat.verdict().answer == "cannot tell" and "hardly vary" in flat.verdict().reason
    with pytest.raises(InputError, match="at least 2 examples, got 1"):
        run().verdict(where=np.arange(N) == 0)


def test_the_papers_rule_reads_norms_and_classes():
    assert run("image alone").paper_rule() == "image alone"
    assert run("text alone").paper_rule() == "text alone"
    assert run("both added").paper_rule(classes=False) == "either"  # the gradient of a sum is the same everywhere
    assert run("both added").paper_rule() == "both only"  # though nothing interacts


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"modalities": [Tokens()]}, "expected two or more"),
        ({"pick": "round 3"}, "got pick 'round 3', expected one of 'round 2'"),
        ({"by": "norm"}, "got by 'norm', expected one of 'gradient'"),
        ({"baselines": "grey"}, "got baseline of image 'grey', expected one of 'zero', 'mean', 'blur', 'data'"),
        ({"baselines": [{"image": "zero", "sound": "zero"}]}, "baselines names 'sound', the modalities are 'image', 'text'"),
        ({"top": 0}, "got top=0 for"),
        ({"top": "2"}, "got top='2' for image, expected a whole number"),
        ({"top": {"txt": 3}}, "top names 'txt', the modalities are 'image', 'text'"),
        ({"modalities": ImageCells()}, "got modalities=.*expected a list of modalities"),
        ({"modalities": ["image", "text"]}, "got modalities=.'image', 'text'.*ImageCells"),
        ({"modalities": [ImageCells(), Tokens(mask_id=12)]}, "hold.* 'tokens' 0 to 12.*'embedding' 0 to 11"),
        ({"extra": {"x": {"image": "zero"}}}, "view 'x' changes image by 'zero', expected a Mask"),
        ({"extra": {"x": Noise(0.1)}}, "view 'x' is Noise, expected a mapping"),
        ({"baselines": []}, "got no baseline"),
        ({"target": 7}, "class 7, the model has classes 0 to 1"),
        ({"target": -1}, "class -1, the model has classes 0 to 1"),
        ({"target": 0.5}, "whole class indices"),
        ({"target": torch.tensor([0, 1, 1])}, "3 entries, the batch has 96"),
        ({"target": "image"}, "got target='image', expected 'predicted'"),
        ({"extra": {"full": {}}}, "got own views named 'full'"),
        ({"extra": {"all masked": {}, "image masked": {}, "text picked masked": {}}},
         "'all masked', 'image masked', 'text picked masked', which.*other names"),
        ({"modalities": [ImageCells(), Tokens(layer="embeding")]}, "no layer 'embeding'.*'embedding'"),
    ],
)
def test_settings_that_make_no_sense_are_refused_with_advice(change, says):
    settings = {"modalities": MODALITIES, "progress": False} | change
    modalities = settings.pop("modalities")
    with pytest.raises(InputError, match=says):
        rounds(Toy(RULES["both added"]).eval(), INPUTS, modalities, **settings)


def test_the_predicted_class_is_followed_by_default_and_by_name():
    for classes in (1, 3):
        model = Toy(RULES["both only"], classes).eval()
        named, default = (rounds(model, INPUTS, MODALITIES, target=target, progress=False) for target in ("predicted", None))
        assert named.target.equal(default.target)
        assert np.array_equal(named.margin("data", FULL), default.margin("data", FULL))
    with pytest.raises(InputError, match="class 9, the model has classes 0 to 2"):
        feature_dividends(model, INPUTS, MODALITIES, target=9, progress=False)


@pytest.mark.parametrize(("change", "says"), [
    ({"where": np.array([0, 5, 7, 9])}, r"got where as int64 \(4,\), expected bool \(96,\).*np.isin"),
    ({"where": np.ones(N // 2, bool)}, r"bool \(48,\), expected bool \(96,\)"),
    ({"where": np.ones(2 * N, bool)}, r"bool \(192,\)"),
    ({"draws": 0}, "draws=0, expected.*at least one bootstrap sample"),
    ({"enough": 75}, "enough=75 .*at most 1"),
])
def test_a_verdict_about_what_was_not_asked_is_refused(change, says):
    with pytest.raises(InputError, match=says):
        run().verdict(**change)


def test_a_verdict_about_some_examples_is_about_these():
    record, some = run(), np.isin(np.arange(N), [0, 5, 7, 9])
    assert record.verdict(where=some).reach["data"]["image"].n == 4
    few = rounds(Toy(RULES["both added"]).eval(), {key: value[some] for key, value in INPUTS.items()}, MODALITIES,
                 baselines=[{"image": "zero", "text": "mask"}], donors=INPUTS, progress=False).verdict()
    assert few.reach["zero + mask"]["image"].value == pytest.approx(
        record.verdict(where=some).reach["zero + mask"]["image"].value, abs=1e-5)


def test_baselines_that_differ_without_being_sure_ask_for_more_examples():
    def settled(**said):
        """Settle answers of baselines, each with its support."""
        judged = {baseline: _Judged(Answer(word, ()), {Answer(word, ()): support, Answer("either", ()): 1 - support},
                                    *[None] * 8) for baseline, (word, support) in said.items()}
        answer, reason, support = _settle(judged, ["image", "text"])
        assert support == pytest.approx(min(support for _, support in said.values()))
        return answer.word, reason

    answer, reason = settled(zero=("both only", 1.0), data=("image alone", 0.5))
    assert answer == "cannot tell" and "not all of them are sure" in reason and "use more examples" in reason
    assert "the baselines disagree" in settled(zero=("both only", 1.0), data=("image alone", 0.97))[1]
    assert settled(zero=("both added", 1.0), data=("both added", 0.96))[0] == "both added"
    assert "likely but not sure" in settled(zero=("both added", 1.0), data=("both added", 0.9))[1]


@pytest.mark.parametrize(("ask", "says"), [
    (lambda record: record.margin("zero", FULL), "got baseline 'zero', expected.*did you mean 'zero [+] mask'"),
    (lambda record: record.flips("data", "txt masked"), "got view 'txt masked', expected.*did you mean 'text masked'"),
    (lambda record: record.dividend("grey"), "got baseline 'grey', expected one of"),
    (lambda record: record.paper_rule("zero"), "got baseline 'zero', expected one of"),
    (lambda record: record.norm_ratio("data", "img"),
     "got modality 'img', expected one of 'image', 'text'; did you mean 'image'"),
])
def test_a_name_that_is_not_in_the_record_gets_the_nearest(ask, says):
    with pytest.raises(InputError, match=says):
        ask(run())


def test_a_model_in_train_mode_is_refused():
    with pytest.raises(InputError, match="call model.eval"):
        rounds(Toy(RULES["both added"]).train(), INPUTS, MODALITIES)


def test_a_modality_without_a_baseline_gets_its_neutral_one():
    assert run(baselines=[{"image": "zero"}]).baselines == ("zero + mask",)


def test_views_are_named_by_the_record():
    record = run()
    assert (record.without("text"), record.only("image"), record.picked("text")) == \
        ("text masked", "text masked", "text picked masked")
    assert record.picked("image", at_random=True) == "image random masked"
    assert {("data", record.picked(name, at_random)) for name in record.modalities for at_random in (False, True)} <= \
        set(record.passes)


def test_names_of_the_last_version_warn_and_give_the_same():
    record = run()
    with pytest.warns(DeprecationWarning, match="Record.ends is now called by_side"):
        assert record.ends is record.by_side
    side = record.by_side["data", "text"]
    with pytest.warns(DeprecationWarning, match="FromSide.alike_random is now called similarity_random"):
        assert side.alike_random is side.similarity_random


def test_a_verdict_needs_logits_by_view_and_no_record():
    record = run("both only")
    logits = {baseline: {view: one.logits for (of, view), one in record.passes.items() if of == baseline}
              for baseline in record.baselines}
    assert verdict(logits, record.modalities) == record.verdict()
    del logits["data"][NOTHING]
    with pytest.raises(InputError, match="logits of baseline 'data' lack the views 'all masked'"):
        verdict(logits, record.modalities)


def test_one_example_can_be_recorded_and_does_not_stand_in_for_itself():
    one, model = {key: value[:1] for key, value in INPUTS.items()}, Toy(RULES["both only"]).eval()
    record = rounds(model, one, MODALITIES, progress=False)
    assert record.baselines == ("zero + mask",) and record.dividend("zero + mask").shape == (1,)
    with pytest.raises(InputError, match="borrows from another example, and the only one.*donors="):
        rounds(model, one, MODALITIES, baselines="data", progress=False)
    lent = rounds(model, one, MODALITIES, donors={key: value[1:] for key, value in INPUTS.items()}, progress=False)
    assert lent.baselines == ("zero + mask", "data") and len(lent) == 1


@pytest.mark.parametrize("layer", ["input:images", "eye"])
def test_a_model_that_leaves_a_modality_aside_gets_its_answer(layer):
    class Deaf(Toy):
        def __init__(self):
            super().__init__(lambda light, word: 3 * word)
            self.eye = nn.Identity()

        def forward(self, images, tokens):
            return super().forward(self.eye(images), tokens)

    record = rounds(Deaf().eval(), INPUTS, [ImageCells(layer=layer), Tokens()], progress=False)
    assert record.verdict().answer == "text alone" and (record.passes["data", FULL].norms["image"] == 0).all()
    assert np.isnan(record.norm_ratio("data", "image")).all() and record.paper_rule() == "text alone"


def test_a_modality_that_counts_but_has_no_gradient_is_refused():
    model = Toy(lambda light, word: light.detach() + word).eval()
    with pytest.raises(InputError, match="does not depend on 'input:images'.*detached"):
        rounds(model, INPUTS, MODALITIES, progress=False)
    assert feature_dividends(model, INPUTS, MODALITIES, progress=False)["image"].shape == (N, 4)  # masks need no gradient


@pytest.mark.parametrize("how", ["named", "aside", "all alike"])
def test_a_tower_that_reads_more_than_its_input_gets_all_rows(how):
    """What is handed to a layer beside its input belongs to all rows, whether as a keyword or on the layer itself."""
    class Tower(nn.Module):
        def forward(self, x, gain=None):
            gain = self.gain if gain is None else gain
            return x * gain

    class Conditioned(Toy):
        def __init__(self):
            super().__init__(RULES["both only"])
            self.tower = Tower()

        def forward(self, images, tokens):
            gain = tokens[:, :1, None, None].float()
            self.tower.gain = gain
            return super().forward(self.tower(images, gain=gain) if how == "named" else self.tower(images), tokens)

    images = torch.zeros(N, 1, 4, 4) + (torch.arange(N) % (1 if how == "all alike" else 2))[:, None, None, None]
    inputs, modalities = {"images": images, "tokens": TOKENS}, [ImageCells(layer="tower"), Tokens()]
    record = rounds(Conditioned().eval(), inputs, modalities, progress=False)
    plain = rounds(Conditioned().eval(), inputs, modalities, sharing=False, progress=False)
    for key, run in record.passes.items():
        assert torch.allclose(run.logits, plain.passes[key].logits, atol=1e-5)


def test_a_tower_sees_equal_images_once_and_the_record_is_the_same():
    class Towered(Toy):
        def __init__(self):
            super().__init__(RULES["both only"])
            self.tower = nn.Conv2d(1, 2, 3, padding=1)
            self.rows = []
            self.tower.register_forward_hook(lambda _, given, __: self.rows.append(len(given[0])))

        def forward(self, images, tokens):
            return super().forward(self.tower(images).tanh(), tokens)

    torch.manual_seed(0)
    model = Towered().eval()
    modalities = [ImageCells(layer="tower"), Tokens()]
    record = rounds(model, INPUTS, modalities, progress=False)
    shared, model.rows = sum(model.rows), []
    plain = rounds(model, INPUTS, modalities, sharing=False, progress=False)
    assert shared < 0.5 * sum(model.rows)
    for key, run in record.passes.items():
        assert torch.allclose(run.logits, plain.passes[key].logits, atol=1e-5)
        for name in run.norms:
            assert torch.allclose(run.norms[name], plain.passes[key].norms[name], atol=1e-5)
    assert torch.allclose(record.by_side["data", "image"].cross, plain.by_side["data", "image"].cross, atol=1e-5)


class Nested(Toy):
    """A tower that is read inside, with or without a way around what is read."""

    def __init__(self, skip=False):
        super().__init__(RULES["both only"])
        torch.manual_seed(0)
        self.tower, self.skip, self.rows = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Sequential(nn.Tanh())), skip, []
        self.tower[0].register_forward_hook(lambda _, given, __: self.rows.append(len(given[0])))
        if skip:
            self.tower[1].forward = lambda maps: maps + self.tower[1][0](maps)

    def forward(self, images, tokens):
        return super().forward(self.tower(images), tokens)


@pytest.mark.parametrize("skip", [False, True])
def test_all_of_a_tower_that_leads_to_a_layer_within_it_sees_equal_images_once(skip):
    model, modalities = Nested(skip).eval(), [ImageCells(layer="tower.1.0"), Tokens()]
    record = rounds(model, INPUTS, modalities, progress=False)
    shared, model.rows = sum(model.rows), []
    plain = rounds(model, INPUTS, modalities, sharing=False, progress=False)
    assert skip or shared < 0.5 * sum(model.rows)  # what goes around the layer would miss its rows: then all of them run
    for key, run in record.passes.items():
        assert torch.allclose(run.logits, plain.passes[key].logits, atol=1e-5)
        for name in run.norms:
            assert torch.allclose(run.norms[name], plain.passes[key].norms[name], atol=1e-5)
            assert torch.allclose(run.importance[name], plain.passes[key].importance[name], atol=1e-5)
    assert torch.allclose(record.by_side["data", "image"].cross, plain.by_side["data", "image"].cross, atol=1e-5)


def test_a_clip_and_its_two_encoders_can_be_read():
    from transformers import CLIPConfig, CLIPModel

    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(text_config={**small, "vocab_size": 20, "max_position_embeddings": 8, "eos_token_id": 19},
                        vision_config={**small, "image_size": 8, "patch_size": 4}, projection_dim=8)
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    ids = torch.randint(3, 18, (6, 8), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, 5], ids[:, 6:] = 18, 19, 0
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "return_dict": True,
              "pixel_values": torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))}
    modalities = [
        ImageCells(input="pixel_values", layer="vision_model.embeddings", grid=(2, 2)),
        Tokens(input="input_ids", layer="text_model.embeddings", mask_id=None, special=(18, 19), attention="attention_mask"),
    ]
    record = rounds(model, inputs, modalities, target=lambda output: output.logits_per_image.diagonal(), progress=False)
    assert record.features["text"].sum(dim=1).eq(4).all() and record.baselines == ("zero + pad", "data")
    with torch.no_grad():
        assert torch.allclose(record.passes["data", FULL].logits[:, 0], model(**inputs).logits_per_image.diagonal(), atol=1e-4)
    assert record.passes["data", FULL].importance["image"].gt(0).all()
    of_words = feature_dividends(model, inputs, modalities, target=lambda output: output.logits_per_image.diagonal(),
                                 progress=False)["text"]
    assert of_words.shape == (6, 8) and (of_words[:, [0, 5, 6, 7]] == 0).all()


@pytest.mark.parametrize("share", [0.5, 0.45, 0.2, None])
def test_one_modality_alone_carries_every_example_whichever_heap_is_larger(share):
    generator, n = torch.Generator().manual_seed(0), 1000
    first = torch.randn(n, generator=generator)
    if share is not None:  # two heaps, one for each class
        first = torch.where(torch.arange(n) < share * n, 3.0, -3.0) + 0.2 * first

    class First(torch.nn.Module):
        def forward(self, images, tokens):
            return images[:, 0, 0] + 0 * tokens[:, 0, 0]

    inputs = {"images": first[:, None, None], "tokens": torch.randn(n, 1, 1, generator=generator)}
    record = rounds(First().eval(), inputs, [Vectors("image", "images"), Vectors("text", "tokens")], baselines=["zero", "data"],
                    pick=None, progress=False)
    for baseline in record.baselines:
        carried = (record.each(baseline) == "image alone").mean()
        assert carried > (0.99 if share is not None else 0.9), baseline  # in one heap some stand in the middle itself


def test_the_rounds_read_words_where_they_stand_once_others_are_deleted():
    torch.manual_seed(0)
    model = small_cnn(12, 10).eval()
    images, short = torch.rand(1, 3, 24, 24), torch.tensor([[2, 6, 7, 3, 0, 0]])
    inputs = {"images": images, "tokens": torch.tensor([[2, 5, 6, 7, 3, 0]])}
    picture = ImageCells(layer=model.image_layer)
    text = Tokens(layer=model.text_layer, special=(2, 3))
    keep = torch.tensor([[True, False, True, True, True, True]])
    gone = {"gone": {"text": Mask(keep, "delete")}}
    long = rounds(model, inputs, [picture, text], baselines=[{"image": "zero", "text": "delete"}], extra=gone, progress=False)
    written = rounds(model, {"images": images, "tokens": short}, [picture, text],
                     baselines=[{"image": "zero", "text": "delete"}], target=long.target, progress=False)
    kind = "zero + delete"
    assert long.extra["gone"].logits == pytest.approx(written.passes[kind, FULL].logits, abs=1e-5)
    there, here = (record.scale["text"] * values[0] for record, values in
                   ((long, long.extra["gone"].importance["text"]), (written, written.passes[kind, FULL].importance["text"])))
    assert there[[2, 3]].tolist() == pytest.approx(here[[1, 2]].tolist(), rel=1e-4) and there[1] == 0
