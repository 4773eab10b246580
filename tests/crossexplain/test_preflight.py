import re

import pytest
import torch
from torch import nn

from crossexplain.checks import InputError
from crossexplain.coalitions.game import Game
from crossexplain.gradients.modalities import ImageCells, Tokens
from crossexplain.gradients.preflight import preflight

GENERATOR = torch.Generator().manual_seed(0)
LENGTHS = torch.arange(16) % 3 + 4
TOKENS = torch.randint(2, 12, (16, 6), generator=GENERATOR) * (torch.arange(6) < LENGTHS[:, None])
IMAGES = torch.rand(16, 1, 8, 8, generator=GENERATOR)
INPUTS = {"images": IMAGES, "tokens": TOKENS}


class Sound(nn.Module):
    """A small model with nothing wrong; subclasses plant one fault each."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm2d(4)
        self.embedding = nn.Embedding(12, 8)
        self.lstm = nn.LSTM(8, 8, batch_first=True)
        self.head = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 1))
        self.head[2].bias.data -= 0.094  # so that some examples are a yes and some a no

    def see(self, images):
        return self.drop(self.norm(self.conv(images))).relu().mean(dim=(2, 3))

    def read(self, tokens):
        steps, _ = self.lstm(self.embedding(tokens))
        return steps.masked_fill((tokens == 0)[..., None], -1.0).amax(dim=1)

    def forward(self, images, tokens):
        return self.head(torch.cat([self.see(images), self.read(tokens)], dim=1))[:, 0]


class LastStep(Sound):
    def read(self, tokens):
        steps, _ = self.lstm(self.embedding(tokens))
        return steps[torch.arange(len(tokens)), (tokens != 0).sum(dim=1) - 1]


class Vanished(Sound):
    def read(self, tokens):
        return super().read(tokens) * 1e-9


class Dead(Sound):
    def read(self, tokens):
        return super().read(tokens).detach().round() * 0


class Clamped(Sound):
    middle = 0.0

    def forward(self, images, tokens):
        return (super().forward(images, tokens) - self.middle).clamp(min=0)


class Random(Sound):
    def forward(self, images, tokens):
        return super().forward(images, tokens) + 0.1 * torch.randn(len(images))


class Touching(Sound):
    def forward(self, images, tokens):
        logit = super().forward(images, tokens)
        return logit - logit.mean()


class Attending(nn.Module):
    """One attention layer over words; ``raw`` adds the 0/1 mask to the scores as it is."""

    def __init__(self, raw):
        super().__init__()
        torch.manual_seed(0)
        self.raw = raw
        self.embedding, self.key, self.conv = nn.Embedding(12, 8), nn.Linear(8, 1), nn.Conv2d(1, 8, 3)
        self.head = nn.Linear(16, 1)

    def forward(self, images, tokens, mask):
        words = self.embedding(tokens)
        hidden = mask.float() if self.raw else torch.zeros(mask.shape).masked_fill(mask == 0, -torch.inf)
        weights = (self.key(words)[..., 0] + hidden).softmax(dim=1)
        seen = self.conv(images).relu().mean(dim=(2, 3))
        return self.head(torch.cat([(weights[..., None] * words).sum(dim=1), seen], dim=1))[:, 0]


def modalities(text_layer="embedding", **kwargs):
    return [ImageCells(layer="conv"), Tokens(layer=text_layer, **kwargs)]


def found(model, inputs=INPUTS, text_layer="embedding", **kwargs):
    return preflight(model, inputs, modalities(text_layer), **kwargs)


def test_a_sound_model_passes_and_says_what_was_checked():
    report = found(Sound().eval())
    assert report == [] and "nothing found" in str(report) and "zero positions" in report._repr_markdown_()


@pytest.mark.parametrize(
    ("model", "text_layer", "name", "says"),
    [
        (LastStep, "lstm", "zero positions", "'lstm'.*of the features of text have a gradient of exactly 0"),
        (Vanished, "embedding", "vanished branch", "gradient norm at text"),
        (Dead, "embedding", "vanished branch", "at text is 0"),
        (Random, "embedding", "not repeatable", "16 of 16 logits differ"),
        (Touching, "embedding", "examples touch", "alone has another logit than beside a second one"),
    ],
)
def test_each_planted_fault_is_found(model, text_layer, name, says):
    report = found(model().eval(), text_layer=text_layer)
    assert name in report.names
    finding = report[report.names.index(name)]
    assert re.search(says, finding.saw) and len(finding.why) > 30 and len(finding.do) > 20
    assert name in report._repr_markdown_() and finding.do in str(report)


def test_the_last_step_is_no_fault_at_the_embedding():
    assert "zero positions" not in found(LastStep().eval()).names


def test_a_clamped_logit_is_found():
    model = Clamped().eval()
    with torch.no_grad():
        model.middle = float(Sound.forward(model, **INPUTS).median())
    report = found(model)
    assert "clamped logit" in report.names and "of 16 examples have the logit 0 exactly" in report[0].saw


def test_dropout_and_batch_statistics_are_found_in_train_mode():
    names = found(Sound().train()).names
    assert {"dropout on", "batch statistics", "not repeatable"} <= set(names)
    model = Sound().eval()
    model.drop.train()
    assert found(model).names[:1] == ["dropout on"]


def test_the_raw_attention_mask_is_found_and_the_right_one_is_not():
    inputs = {**INPUTS, "mask": (TOKENS != 0).long()}
    kinds = modalities(attention="mask")
    raw = preflight(Attending(raw=True).eval(), inputs, kinds)
    assert "padding is read" in raw.names
    assert "of the gradient norm falls on padding" in raw[raw.names.index("padding is read")].saw
    assert "padding is read" not in preflight(Attending(raw=False).eval(), inputs, kinds).names


def test_a_mask_that_changes_nothing_is_found():
    report = found(Sound().eval(), {"images": torch.zeros(16, 1, 8, 8), "tokens": TOKENS})
    assert report.names == ["mask changes nothing"] and "same input as the unmasked view" in report[0].saw
    deaf = Dead().eval()
    assert "mask changes nothing" in found(deaf).names


def test_a_model_that_has_learned_nothing_is_found():
    labels = torch.arange(16) % 2
    names = found(Sound().eval(), labels=labels).names
    assert "no better than shuffled" in names and "no better than a rival" in names


def test_a_model_that_uses_both_passes_and_is_compared_with_the_most_frequent_class():
    bright = torch.arange(64) % 2
    first = torch.arange(64) // 2 % 2
    images = torch.zeros(64, 1, 8, 8) + 0.1 + 0.8 * bright[:, None, None, None]
    tokens = torch.stack([first + 2, torch.full((64,), 5)], dim=1)

    class Xor(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.embedding = nn.Conv2d(1, 1, 1, bias=False), nn.Embedding(12, 1)
            nn.init.ones_(self.conv.weight)
            self.embedding.weight.data = torch.arange(12.0)[:, None]

        def forward(self, images, tokens):
            light = self.conv(images).mean(dim=(1, 2, 3)) - 0.5
            word = self.embedding(tokens)[:, 0, 0] - 2.5
            return -light * word * 10

    labels = bright ^ first
    inputs = {"images": images, "tokens": tokens}
    report = found(Xor(), inputs, labels=labels)
    assert not {"no better than shuffled", "no better than a rival"} & set(report.names)
    report = found(Xor(), inputs, labels=torch.zeros(64, dtype=torch.long))
    assert "that of the most frequent class 1.000" in report[report.names.index("no better than a rival")].saw
    with pytest.raises(InputError, match="labels has 3 entries, the batch 64"):
        found(Xor(), inputs, labels=labels[:3])


@pytest.mark.parametrize(("change", "says"), [
    ({"labels": torch.arange(16) / 2}, "got labels as float32, expected whole class numbers"),
    ({"labels": ["yes"] * 16}, "got labels as <U3, expected whole"),
    ({"labels": torch.zeros(16, 1, dtype=torch.long)}, "16 entries, the batch 16 examples; pass one each, in the shape"),
])
def test_labels_that_are_none(change, says):
    with pytest.raises(InputError, match=says):
        found(Sound().eval(), **change)


@pytest.mark.parametrize("kinds", [[], ImageCells(), ["image"]])
def test_modalities_that_are_none(kinds):
    with pytest.raises(InputError, match="got modalities=.*expected a list of modalities"):
        preflight(Sound().eval(), INPUTS, kinds)


class Rounded(Sound):
    """Numbers are rounded on the way: the gradient is 0 everywhere, and every modality counts."""

    def forward(self, images, tokens):
        seen, read = 4 * self.see(images), 4 * self.read(tokens)
        return self.head(torch.cat([seen, read], dim=1).round())[:, 0]


class Detached(Sound):
    def read(self, tokens):
        return super().read(tokens).detach()


class Saturated(Sound):
    """The words decide a choice that has next to no slope."""

    def read(self, tokens):
        return (1e4 * (super().read(tokens) - 0.02)).sigmoid()


def finding(report, name):
    return report[report.names.index(name)]


@pytest.mark.parametrize(("model", "blind"), [(Rounded, ["image", "text"]), (Detached, ["text"]), (Saturated, ["text"])])
def test_no_gradient_is_told_from_no_influence(model, blind):
    report = found(model().eval())
    said = [one.saw for one in report if one.check == "no gradient"]
    assert len(said) == len(blind) and "vanished branch" not in report.names
    with torch.no_grad():  # what a mask moves, one example at a time
        whole, masked = (torch.cat([model().eval()(images[None], tokens[None]) for images, tokens in zip(*two)])
                         for two in ((IMAGES, TOKENS), (IMAGES, torch.where(TOKENS > 0, 1, 0))))
    largest = float(re.search(r"move by up to ([0-9.e+-]+)", said[-1])[1])
    assert largest >= float((whole - masked).abs().max()) - 1e-3 > 0
    assert re.search(f"gradient norm at {blind[-1]}", said[-1]) and "Game" in finding(report, "no gradient").do


def test_a_branch_that_no_mask_moves_is_no_missing_gradient():
    report = found(Dead().eval())
    assert "no gradient" not in report.names and "no mask of text moves the logits" in finding(report, "vanished branch").saw


class Bounded(Sound):
    """Clamped at both ends, or dead for some examples by a unit that is off."""

    low, high, off = -float("inf"), float("inf"), None

    def forward(self, images, tokens):
        logit = super().forward(images, tokens)
        if self.off is not None:
            return torch.where(torch.arange(len(logit)) % self.off == 0, logit.detach(), logit)
        return logit.clamp(self.low, self.high)


def test_dead_examples_are_counted_whatever_their_bounds():
    model = Bounded().eval()
    with torch.no_grad():
        logits = model(**INPUTS).sort().values
    model.low, model.high = float(logits[3:5].mean()), float(logits[-3:-1].mean())
    saw = finding(found(model), "clamped logit").saw
    assert saw.startswith(f"6 of 16 examples have the logit {model.low:g} or {model.high:g} exactly")
    assert "dead examples" not in found(model).names


def test_dead_examples_need_no_bound():
    model = Bounded().eval()
    model.off = 4
    report = preflight(model, INPUTS, modalities())
    assert "clamped logit" not in report.names
    saw = finding(report, "dead examples").saw
    assert saw == "4 of 16 examples have a gradient of 0 at every modality, such as 0, 4, 8, 12."


def test_several_columns_are_clamped_by_the_one_that_is_followed():
    class Two(Bounded):
        def forward(self, images, tokens):
            logit = super().forward(images, tokens)
            return torch.stack([logit, 0.5 + 0 * logit], dim=1)

    model = Two().eval()
    with torch.no_grad():
        model.low = float(model(**INPUTS)[:, 0].sort().values[3:5].mean())
    saw = finding(found(model, target=torch.zeros(16, dtype=torch.long)), "clamped logit").saw
    assert saw.startswith(f"4 of 16 examples have the logit {model.low:g} exactly")


def test_a_part_that_is_left_in_train_mode_is_named():
    class Scaled(nn.Tanh):
        """Does something else in train mode, the same each time."""

        def forward(self, values):
            return super().forward(values) * (2.0 if self.training else 1.0)

    model = Sound().eval()
    model.head[1] = Scaled().train()
    report = found(model)
    assert report.names == ["train mode"] and "1 part(s) of the model ('head.1') are in train mode." in report[0].saw
    model.norm.train()
    assert "batch statistics" in found(model).names
    model.norm.eval(), model.head[1].eval(), model.drop.train()
    assert "dropout on" in found(model).names
    model.drop.eval()
    assert found(model) == []


def test_gradients_that_underflow_are_told_from_a_relu():
    class Half(Sound):
        def see(self, images):
            return self.conv(images.half() if images.dtype != torch.float32 else images).relu().mean(dim=(2, 3)) * self.small

        def forward(self, images, tokens):
            seen = self.see(images).float()
            return self.head(torch.cat([seen, self.read(tokens)], dim=1))[:, 0]

    model = Half().eval()
    inputs = {"images": IMAGES.half(), "tokens": TOKENS}
    model.conv.half()
    model.small = 1.0
    fine = preflight(model, inputs, modalities())
    model.small = 2.0 ** -13
    lossy = preflight(model, inputs, modalities())
    assert "gradient underflows" not in fine.names

    def gradient(model, images, small):
        """Return the gradient at the convolution by autograd."""
        maps = model.conv(images).detach().requires_grad_()
        seen = (maps.relu().mean(dim=(2, 3)) * small).float()
        logit = model.head(torch.cat([seen, model.read(TOKENS)], dim=1)).sum()
        return torch.autograd.grad(logit, maps)[0].float()

    half = gradient(model, IMAGES.half(), model.small)
    whole = gradient(model.float(), IMAGES, model.small)
    saw = finding(lossy, "gradient underflows").saw
    share, zeros = (int(number) for number in re.findall(r"(\d+)%", saw))
    assert share == pytest.approx(100 * float((half - whole).norm() / whole.norm()), abs=2) and share > 5
    assert zeros == pytest.approx(100 * float((half == 0).float().mean()), abs=1) and "'conv'" in saw


def test_activations_that_differ_though_the_logits_agree():
    class Noisy(Sound):
        def see(self, images):
            return super().see(images) + 0 * self.tap(torch.rand(len(images), 4))

    model = Noisy()
    model.tap = nn.Identity()
    report = preflight(model.eval(), INPUTS, [ImageCells(), Tokens()])
    assert report == []
    report = preflight(model, INPUTS, [OfTap(), Tokens()])
    assert report.names == ["not repeatable"] and "activations at 'tap' differ" in report[0].saw


class OfTap(ImageCells):
    """Pixels whose gradient is read at a layer of noise."""

    def __init__(self):
        super().__init__(layer="tap")

    def per_feature(self, values, count):
        return values[:, :1].abs().expand(-1, count)


def test_a_mask_id_that_is_the_padding():
    report = preflight(Sound().eval(), INPUTS, [ImageCells(layer="conv"), Tokens(mask_id=0)])
    assert "The mask id of text is its padding id, 0." in finding(report, "mask is padding").saw
    none = preflight(Sound().eval(), INPUTS, [ImageCells(layer="conv"), Tokens(mask_id=None)])
    assert "mask is padding" not in none.names


def test_examples_that_a_mask_leaves_as_they_are_are_counted():
    black = IMAGES * (torch.arange(16) % 5 != 0)[:, None, None, None]
    report = found(Sound().eval(), {"images": black, "tokens": TOKENS})
    saw = finding(report, "mask changes nothing").saw
    assert saw == "With all of image replaced by 'zero' 4 of 16 examples, such as 0, 5, 10, 15, are the same input as before."
    assert "'mean', 'blur', 'data'" in finding(report, "mask changes nothing").do


@pytest.mark.parametrize("low", [200.0, -200.0])
def test_numbers_on_one_side_of_zero_are_found(low):
    class Price(Sound):
        def forward(self, images, tokens):
            return low + 10 * super().forward(images, tokens)

    report = found(Price().eval())
    assert report.names == ["one side of zero"] and "All 16 logits lie on one side of 0 (from " in report[0].saw
    few = {key: value[:8] for key, value in INPUTS.items()}
    assert preflight(Price().eval(), few, modalities()) == []  # a few answers on one side may be an accident


def test_outputs_within_0_and_1_are_found_however_they_come():
    class Share(Sound):
        def forward(self, images, tokens):
            return 0.5 + super().forward(images, tokens).clamp(-0.4, 0.4)

    class Sigmoid(Sound):
        def forward(self, images, tokens):
            return super().forward(images, tokens).sigmoid()

    class Softmax(Sound):
        def forward(self, images, tokens):
            logit = super().forward(images, tokens)
            return torch.stack([logit, -logit], dim=1).softmax(dim=1)

    share = found(Share().eval())
    assert share.names == ["within 0 and 1"] and re.search("All 16 outputs lie within 0 and 1, from 0.4", share[0].saw)
    few = {key: value[:8] for key, value in INPUTS.items()}
    assert preflight(Share().eval(), few, modalities()) == []
    for model in (Sigmoid(), Softmax()):
        report = found(model.eval())
        assert report.names == ["probabilities"] and "ends in a " in report[0].saw


@pytest.mark.parametrize(("output", "name"), [
    (lambda logit: torch.outer(logit, logit), "columns change"), (lambda logit: logit.squeeze() if len(logit) > 1 else logit[0],
                                                                   "an axis is dropped"),
])
def test_what_the_test_pass_of_a_question_finds_is_listed(output, name):
    class Odd(Sound):
        def forward(self, images, tokens):
            return output(super().forward(images, tokens))

    report = found(Odd().eval())
    assert report.names == [name] and "alled(model" in report[0].do


def test_the_report_says_what_is_judged():
    class Named(Sound):
        def forward(self, images, tokens):
            logit = super().forward(images, tokens)
            return {"hidden": torch.stack([logit] * 3, dim=1), "logits": torch.stack([logit, -logit], dim=1)}

    for report in (found(Named().eval()), found(LastStep().eval(), text_layer="lstm")):
        assert f"udged: {report.judged}" in str(report) and f"Judged: {report.judged}." in report._repr_markdown_()
    assert found(Named().eval()).judged == "output['logits'], 2 columns"
    assert found(Named().eval(), target=1).judged == "output['logits'], 2 columns, of which column 1"


class Decoder(nn.Module):
    """Reads its answer at the last place of a text, as decoders do; the words before it count, padding as told."""

    def __init__(self, told=True):
        super().__init__()
        torch.manual_seed(0)
        self.told, self.conv = told, nn.Conv2d(1, 8, 3)
        self.embedding, self.key, self.head = nn.Embedding(12, 8), nn.Linear(8, 1), nn.Linear(16, 1)

    def forward(self, images, tokens, mask):
        words = self.embedding(tokens)
        scores = self.key(words)[..., 0].masked_fill((mask == 0) & self.told, -torch.inf)
        read = (scores.softmax(dim=1)[..., None] * words).sum(dim=1) + words[:, -1]
        return self.head(torch.cat([read, self.conv(images).relu().mean(dim=(2, 3))], dim=1))[:, 0]


def padded(side):
    order = torch.arange(6) if side == "right" else torch.stack([torch.arange(6).roll(6 - int(n)) for n in LENGTHS])
    tokens = TOKENS if side == "right" else TOKENS.gather(1, order)
    return {**INPUTS, "tokens": tokens, "mask": (tokens != 0).long()}


def test_padding_on_the_side_where_a_decoder_reads_is_found():
    right, left = (preflight(Decoder().eval(), padded(side), modalities(attention="mask")) for side in ("right", "left"))
    assert "padding side" not in left.names and "tokenizer.padding_side = 'left'" in finding(right, "padding side").do
    with torch.no_grad():  # by hand: without its padding the text reads as with padding on the left
        whole = padded("right")
        short = {key: value[:1, :4] if key != "images" else value[:1] for key, value in whole.items()}
        of_short, of_left, of_right = (Decoder().eval()(**inputs)[0] for inputs in (short, padded("left"), whole))
    assert torch.allclose(of_short, of_left, atol=1e-6) and not torch.allclose(of_short, of_right, atol=1e-3)
    deaf = preflight(Decoder(told=False).eval(), padded("left"), modalities(attention="mask"))
    assert "reads padding as text" in finding(deaf, "padding side").saw
    told = modalities(attention="mask", padding_side="right")
    assert preflight(Decoder(told=False).eval(), {**padded("left"), "tokens": TOKENS.clamp(min=2), "mask": 1 + 0 * TOKENS},
                     modalities(attention="mask")) == []  # nothing is padded
    unpadded = {key: value[2::3] for key, value in padded("right").items()}
    assert (unpadded["mask"] == 1).all()
    assert "padding side" in preflight(Decoder().eval(), unpadded, told).names
    assert "padding side" not in preflight(Decoder().eval(), unpadded, modalities(attention="mask")).names


def test_an_encoder_does_not_mind_either_side():
    for side in ("right", "left"):
        report = preflight(Attending(raw=False).eval(), padded(side), modalities(attention="mask"))
        assert "padding side" not in report.names


class _Turned(torch.autograd.Function):
    """Hands values on, and their gradient with its sign turned."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class Turned(Sound):
    def read(self, tokens):
        return _Turned.apply(super().read(tokens))


class StraightThrough(Sound):
    """What is seen is rounded, and the gradient goes straight through."""

    def see(self, images):
        seen = super().see(images)
        return seen + (seen.mul(40).round() / 40 - seen).detach()


class Doubled(Sound):
    """Half of the logit has a gradient."""

    def forward(self, images, tokens):
        logit = super().forward(images, tokens)
        return logit + logit.detach()


@pytest.mark.parametrize(("model", "layers", "by"), [(Turned, ["embedding"], 100), (StraightThrough, ["conv"], 100),
                                                     (Doubled, ["conv", "embedding"], 33)])
def test_a_gradient_that_is_no_slope_is_found(model, layers, by):
    said = [one.saw for one in found(model().eval()) if one.check == "gradient is no slope"]
    assert [re.search("values at '(.*?)'", saw)[1] for saw in said] == layers
    assert all(f"by {by}% of the size of both" in saw for saw in said)


def _detached(values):
    return torch.sigmoid(values).detach()


def _without_graph(values):
    with torch.set_grad_enabled(False):
        return torch.stack([values, -values], dim=1).softmax(dim=1)[:, 0] * 1.0


@pytest.mark.parametrize("end", [_detached, _without_graph])
def test_probabilities_are_seen_where_no_graph_leads_to_them(end):
    class Ended(Sound):
        def forward(self, images, tokens):
            return end(super().forward(images, tokens))

    model = Ended().eval()
    assert found(model).names[:2] == ["probabilities", "no gradient"]
    with pytest.raises(InputError, match="output ends in a (sigmoid|softmax)"):
        Game(model, INPUTS, modalities(), progress=False).values_of_all()
    scaled = Sound.forward  # what is scaled, or met by anything else, is a logit

    class Scaled(Sound):
        def forward(self, images, tokens):
            return 4 * end(scaled(self, images, tokens)) - 2

    assert "probabilities" not in found(Scaled().eval()).names
