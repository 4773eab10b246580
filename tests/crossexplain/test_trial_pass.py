"""The test pass of a question: what it finds, what it refuses with which words, and that what one types instead is right."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from crossexplain import Called, Game, capture, explain, preflight, rounds
from crossexplain.checks import InputError
from crossexplain.gradients import maps
from crossexplain.gradients.capture import NoGradient
from crossexplain.gradients.failures import quantised
from crossexplain.gradients.modalities import Columns, ImageCells, Tokens, Vectors
from crossexplain.gradients.question import Question
from crossexplain.gradients.rounds import feature_dividends

IMAGES = torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))
WORDS = torch.randint(2, 9, (6, 3), generator=torch.Generator().manual_seed(2))
PAIRS = {"images": IMAGES, "tokens": WORDS}
PARTS = [ImageCells(), Tokens()]


class Net(nn.Module):
    """Three logits of a picture and a sentence; ``form`` makes the output of them."""

    def __init__(self, form=lambda logits: logits):
        super().__init__()
        torch.manual_seed(0)
        self.embedding, self.head, self.form = nn.Embedding(9, 4), nn.Linear(5, 3), form

    def both(self, images, tokens):
        seen = 4 * (images[..., :2].mean(dim=(1, 2, 3)) - images[..., 2:].mean(dim=(1, 2, 3)))
        return self.head(torch.cat([seen[:, None], torch.tanh(self.embedding(tokens)).mean(dim=1)], dim=1))

    def forward(self, images, tokens):
        return self.form(self.both(images, tokens))


def doors(model, inputs=PAIRS, parts=PARTS, **options):
    """Everything that asks a question."""
    return [lambda: rounds(model, inputs, parts, progress=False, **options), lambda: Game(model, inputs, parts, **options),
            lambda: explain(model, inputs, parts, "exact shapley", **options),
            lambda: explain(model, inputs, parts, "gradient norm", **options),
            lambda: feature_dividends(model, inputs, parts, progress=False, **options)]


def values_of(model, inputs=PAIRS, parts=PARTS, **options):
    return Game(model, inputs, parts, progress=False, **options).values_of_all()


def counting(model):
    """Count the rows that go through a model."""
    rows = []
    return rows, model.register_forward_hook(lambda module, given, named, output: rows.append(len(named["tokens"])),
                                             with_kwargs=True)


def test_the_test_pass_is_two_examples_alone_and_together_and_does_not_count():
    model = Net().eval()
    rows, handle = counting(model)
    question = Question(model, PAIRS, PARTS)
    assert not rows, "nothing runs before something is asked"
    assert question.columns == 3 and sorted(rows) == [1, 1, 2, 8] and question.passes == 0
    question.whole()
    assert sorted(rows) == [1, 1, 2, 6, 8] and question.passes == 6
    with Question(model, PAIRS, PARTS).counted():
        pass
    handle.remove()
    rows, handle = counting(model)
    capture(model, PAIRS, "embedding")
    maps.attribute(model, PAIRS, "input:images", "saliency")
    handle.remove()
    assert rows == [6, 6, 2], "who only captures makes no test pass; maps look at two by themselves"


@pytest.mark.parametrize("similarities", [
    lambda logits: logits @ logits.T, lambda logits: (logits @ logits.T).log_softmax(dim=1),
    lambda logits: {"logits": logits @ logits.T}, lambda logits: torch.cdist(logits, logits),
])
def test_columns_that_change_with_the_batch_are_refused_with_the_pairs_to_type(similarities):
    model = Net(similarities).eval()
    for door in doors(model):
        with pytest.raises(InputError, match=r"1 column\(s\) for one example and 2 for two.*Called\(model, output=lambda"):
            door()
    for door in (lambda: capture(model, PAIRS, "embedding"), lambda: maps.attribute(model, PAIRS, "input:images", "saliency")):
        with pytest.raises(InputError, match="as many columns as there are examples"):
            door()


def test_of_similarities_the_pairs_that_one_types_are_right():
    def table(logits):
        return {"logits": 5 * logits @ logits.T}

    wrapped = Called(Net(table).eval(), output=lambda output: output["logits"].diagonal())
    by_hand = Net(lambda logits: 5 * (logits * logits).sum(dim=1)).eval()
    assert torch.allclose(values_of(wrapped), values_of(by_hand), atol=1e-4)
    found, expected = (rounds(model, PAIRS, PARTS, progress=False) for model in (wrapped, by_hand))
    for key, one in expected.passes.items():
        assert torch.allclose(found.passes[key].logits, one.logits, atol=1e-4)


def clips():
    text = {"vocab_size": 60, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 12, "eos_token_id": 3, "bos_token_id": 2, "pad_token_id": 1}
    vision = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32,
              "patch_size": 8}
    torch.manual_seed(0)
    yield CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)).eval()
    yield SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).eval()


@pytest.mark.parametrize("model", list(clips()), ids=["CLIP", "SigLIP"])
def test_a_clip_as_it_is_says_what_to_type_and_that_is_right(model):
    ids = torch.randint(5, 60, (4, 6), generator=torch.Generator().manual_seed(0))
    ids[:, 0], ids[:, -1] = 2, 3
    given = {"pixel_values": torch.rand(4, 3, 32, 32), "input_ids": ids}
    parts = [ImageCells(input="pixel_values"), Tokens(input="input_ids", layer="text_model.embeddings.token_embedding",
                                                      mask_id=4, pad_id=1, special=(2, 3))]
    pixels = "input:pixel_values"
    for door in (*doors(model, given, parts), lambda: capture(model, given, pixels), lambda: preflight(model, given, parts),
                 lambda: maps.attribute(model, given, pixels, "saliency")):
        with pytest.raises(InputError, match=r"output\['logits_per_image'\].diagonal\(\)"):
            door()

    class Pairs(nn.Module):
        def __init__(self):
            super().__init__()
            self.clip = model

        def forward(self, pixel_values, input_ids):
            return self.clip(pixel_values=pixel_values, input_ids=input_ids).logits_per_image.diagonal()

    inside = [parts[0], Tokens(input="input_ids", layer=f"clip.{parts[1].layer}", mask_id=4, pad_id=1, special=(2, 3))]
    wrapped = Called(model, output=lambda output: output["logits_per_image"].diagonal())
    expected = values_of(Pairs().eval(), given, inside)
    assert torch.allclose(values_of(wrapped, given, parts), expected, atol=1e-4)
    diagonal = values_of(model, given, parts, target=lambda output: output.logits_per_image.diagonal())
    assert torch.allclose(diagonal, expected, atol=1e-4)


@pytest.mark.parametrize(("form", "shape"), [(lambda z: z[:, :1].squeeze(), r"\(2,\), that of one \(\)"),
                                             (lambda z: z.squeeze(), r"\(2, 3\), that of one \(3,\)")])
def test_an_axis_that_is_dropped_with_one_example(form, shape):
    model = Net(form).eval()
    for door in doors(model):
        with pytest.raises(InputError, match=rf"two examples has shape {shape}.*\.squeeze\(-1\).*output\.reshape\("):
            door()
    one = {key: value[:1] for key, value in PAIRS.items()}
    for door in (*doors(model, one), lambda: capture(model, one, "embedding"),
                 lambda: maps.attribute(model, one, "input:images", "saliency")):
        with pytest.raises(InputError, match=r"\.squeeze\(-1\).*output\.reshape\("):
            door()
    columns = form(torch.rand(2, 3)).reshape(2, -1).shape[1]
    mended = Called(model, output=lambda output: output.reshape(-1) if columns == 1 else output.reshape(-1, columns))
    straight = Net(lambda z: z[:, 0] if columns == 1 else z).eval()
    assert torch.allclose(values_of(mended, one), values_of(straight, one), atol=1e-6)


class Touching(Net):
    """Examples that change each other."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.norm = nn.BatchNorm1d(3, track_running_stats=False) if how == "norm" else None

    def forward(self, images, tokens):
        logits = self.both(images, tokens)
        return self.norm(logits.repeat(2, 1) if len(logits) == 1 else logits)[: len(logits)] if self.how == "norm" else \
            logits - logits.mean(dim=0) if self.how == "mean" else len(logits) * logits.softmax(dim=0)


@pytest.mark.parametrize("how", ["norm", "mean", "softmax"])
def test_examples_that_touch_are_refused_and_preflight_finds_them(how):
    model = Touching(how).eval()
    for door in doors(model):
        with pytest.raises(InputError, match="alone has another logit than beside a second one.*batch norm without statistics"):
            door()
    assert preflight(model, PAIRS, PARTS).names[0] == ("batch statistics" if how == "norm" else "examples touch")
    assert [found.check for found in Question(model, PAIRS, PARTS, any_mode=True).problems()] == ["examples touch"]


@pytest.mark.parametrize("function", [None, lambda output: output[:, 0] - output.mean(dim=1)])
def test_examples_that_touch_are_seen_where_there_is_but_one(function):
    one = {key: value[:1] for key, value in PAIRS.items()}
    for form in (lambda logits: logits - logits.mean(dim=0), lambda logits: logits @ logits.T):
        for door in doors(Net(form).eval(), one, target=function):
            with pytest.raises(InputError, match="alone has another logit than beside|1 column.s. for one example and 2 fo"):
                door()


def test_attention_of_pytorch_is_no_quantised_layer():
    """It holds a layer called NonDynamicallyQuantizableLinear, and hides no examples that touch."""
    class Attends(Touching):
        def __init__(self):
            super().__init__("mean")
            self.encoder = nn.TransformerEncoderLayer(3, 1, batch_first=True)

        def forward(self, images, tokens):
            return self.encoder(super().forward(images, tokens)[:, None])[:, 0]

    assert not quantised(Attends())
    with pytest.raises(InputError, match="alone has another logit than beside a second one"):
        Game(Attends().eval(), PAIRS, PARTS)


@pytest.mark.parametrize("n", [1, 6])
def test_a_recurrent_layer_that_takes_the_examples_for_steps(n):
    """The first example is what it is alone; those after it depend on it."""
    class Steps(Net):
        def __init__(self):
            super().__init__()
            self.lstm = nn.LSTM(4, 4)  # batch_first=False

        def both(self, images, tokens):
            seen = images.mean(dim=(1, 2, 3))[:, None]
            return self.head(torch.cat([seen, self.lstm(self.embedding(tokens))[0].mean(dim=1)], dim=1))

    for door in doors(Steps().eval(), {key: value[:n] for key, value in PAIRS.items()}):
        with pytest.raises(InputError, match="The last example alone has another logit than beside.*batch_first=True"):
            door()


@pytest.mark.parametrize("function", [lambda output: output[:, 0], lambda output: output[:, -1],
                                      lambda output: output.softmax(dim=1)[:, 0]])
@pytest.mark.parametrize("n", [1, 6])
def test_a_function_that_reads_one_column_of_similarities(n, function):
    model = Net(lambda logits: logits @ logits.T).eval()
    for door in doors(model, {key: value[:n] for key, value in PAIRS.items()}, target=function):
        with pytest.raises(InputError, match="alone has another logit than beside"):
            door()


@pytest.mark.parametrize("function", [lambda output: output[:, 0], lambda output: 2 * output[:, -1] - output[:, 0] / 2])
def test_examples_that_touch_are_seen_where_all_are_the_same(function):
    model, same = Net(lambda logits: logits @ logits.T).eval(), {key: value[:1].expand(3, *value.shape[1:]).contiguous()
                                                                 for key, value in PAIRS.items()}
    for door in doors(model, same, target=function):
        with pytest.raises(InputError, match="alone has another logit than beside"):
            door()
    of_pairs = values_of(model, same, target=lambda output: output.diagonal())
    alone = torch.cat([values_of(Net(lambda logits: logits.square().sum(dim=1)).eval(), same)])
    assert torch.allclose(of_pairs, alone, atol=1e-5)


class RoundsByLength(Net):
    """Rounds otherwise beside longer texts, as recurrent layers do whose steps have other numbers of rows."""

    def __init__(self, touching=False):
        super().__init__()
        self.touching = touching

    def forward(self, images, tokens):
        logits, words = self.both(images, tokens), 10 * (tokens != 0).sum()
        return (logits + words) - words - self.touching * logits.mean(dim=0)


def test_rounding_in_half_precision_is_told_from_examples_that_touch():
    inputs = {"images": IMAGES.bfloat16(), "tokens": WORDS.masked_fill(torch.arange(3) >= torch.arange(6)[:, None] % 3 + 1, 0)}
    half = RoundsByLength().eval().bfloat16()
    one, two = (half(**{key: value[:n] for key, value in inputs.items()}) for n in (1, 2))
    assert (one[0] - two[0]).abs().max() > 0.02 * two.abs().max()
    assert Question(half, inputs, PARTS).columns == 3
    assert "examples touch" not in preflight(half, inputs, PARTS).names
    touching = RoundsByLength(touching=True).eval().bfloat16()
    with pytest.raises(InputError, match="alone has another logit than beside"):
        Game(touching, inputs, PARTS)
    assert "examples touch" in preflight(touching, inputs, PARTS).names


@pytest.mark.parametrize("share", [0.5, 0.02])
def test_examples_that_touch_a_little_are_seen_too_and_rounding_is_not(share):
    touching = Net(lambda logits: logits - share * logits.mean(dim=0)).eval()
    with pytest.raises(InputError, match="alone has another logit than beside a second one"):
        Game(touching, PAIRS, PARTS)
    half = Net().eval().bfloat16()
    assert Question(half, {**PAIRS, "images": IMAGES.bfloat16()}, PARTS).columns == 3


class Drawn(Net):
    """Draws at random in eval mode too, or counts how often it was called."""

    def __init__(self, how):
        super().__init__()
        self.how, self.calls = how, 0

    def forward(self, images, tokens):
        self.calls += 1
        logits = self.both(images, tokens)
        return nn.functional.dropout(logits, 0.5) if self.how == "dropout" else logits + 0.01 * torch.randn(logits.shape) \
            if self.how == "noise" else logits + self.calls


@pytest.mark.parametrize("how", ["dropout", "noise", "calls"])
def test_what_is_drawn_or_kept_from_call_to_call_is_refused(how):
    torch.manual_seed(0)
    for door in doors(Drawn(how).eval()):
        with pytest.raises(InputError, match="other logits when it is asked again.*functional dropout"):
            door()


# ---------------------------------------------------------------- what belongs to all examples


class ZeroShot(Net):
    """Pictures and words against class vectors that are handed in, (C, 3)."""

    def forward(self, images, tokens, classes):
        return 3 * self.both(images, tokens) @ classes.T


class Held(Net):
    """The same with the classes held inside."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images, tokens):
        return 3 * self.both(images, tokens) @ self.classes.T


@pytest.mark.parametrize("n", [1, 2, 3, 6])
@pytest.mark.parametrize("classes", [1, 2, 3, 6, 14])
def test_an_input_of_all_examples_is_found_whatever_its_length(n, classes):
    vectors = torch.randn(classes, 3, generator=torch.Generator().manual_seed(classes))
    some = {key: value[:n] for key, value in PAIRS.items()}
    model, held = ZeroShot().eval(), Held(vectors).eval()
    expected = values_of(held, some)
    for one in (model, Called(model, common=("classes",))):
        assert torch.allclose(values_of(one, {**some, "classes": vectors}), expected, atol=1e-4)
    if classes == n > 1:
        with pytest.raises(InputError, match=r"as many columns as there are examples.*common=\('its name',\)"):
            capture(model, {**some, "classes": vectors}, "embedding")
    for one in (Called(model, common=("classes",)), *([model] if classes != n or n == 1 else [])):
        found = capture(one, {**some, "classes": vectors}, "embedding").gradients["embedding"]
        assert torch.allclose(found, capture(held, some, "embedding").gradients["embedding"], atol=1e-5)
    question = Question(model, {**some, "classes": vectors}, PARTS, rows=3)
    assert question.common == ("classes",) and torch.allclose(question.whole(), held(**some), atol=1e-5)
    keep = torch.rand(14, 7, generator=torch.Generator().manual_seed(3)) > 0.5
    rows = torch.arange(14) % n
    assert torch.allclose(question.values(keep, rows), Question(held, some, PARTS).values(keep, rows), atol=1e-4), \
        "nor is it cut where as many rows as it has go through the model"


@pytest.mark.parametrize("n", [1, 2, 6])
def test_a_number_for_all_is_not_cut(n):
    class Tempered(Net):
        def forward(self, images, tokens, temperature):
            return self.both(images, tokens)[:, :2] / temperature

    some, temperature = {key: value[:n] for key, value in PAIRS.items()}, torch.tensor([2.0])
    expected = values_of(Net(lambda logits: logits[:, :2] / 2).eval(), some)
    assert torch.allclose(values_of(Tempered().eval(), {**some, "temperature": temperature}), expected, atol=1e-5)


def test_the_length_of_a_single_example_of_one_word_is_cut():
    """A packed text takes as many rows as there are lengths: one would be broadcast to all views, all with the same words."""
    class Packed(Net):
        def forward(self, images, tokens, lengths):
            row = pack_padded_sequence(self.embedding(tokens), lengths, batch_first=True, enforce_sorted=False)
            return self.both(images, tokens) * pad_packed_sequence(row, batch_first=True)[0].sum(dim=(1, 2))[:, None]

    inputs, model = {"images": IMAGES[:1], "tokens": torch.tensor([[7, 0]]), "lengths": torch.tensor([1])}, Packed().eval()
    question = Question(model, inputs, [ImageCells(grid=(1, 1)), Tokens(mask_id=1)])
    assert question.common == ()
    rows = [model(seen * inputs["images"], torch.tensor([[word, 0]]), inputs["lengths"]) for seen in (0, 1) for word in (1, 7)]
    expected = [float((logits[0, question.target[0]] - logits.mean()).detach()) for logits in rows]
    keep = torch.tensor([[False, False, False], [False, True, False], [True, False, False], [True, True, False]])
    assert question.values(keep, torch.zeros(4, dtype=torch.long)).tolist() == pytest.approx(expected, rel=1e-4)


class Positions(Net):
    def forward(self, images, tokens, positions, weights):
        return self.both(images, tokens) + (positions * tokens).float().mean(dim=1, keepdim=True) * weights[:, None]


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_positions_of_all_and_weights_of_each(n):
    positions, weights = torch.arange(3), torch.rand(6, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7)
    some = {key: value[:n] for key, value in PAIRS.items()}
    model, given = Positions().eval(), {**some, "positions": positions, "weights": weights[:n]}
    question = Question(model, given, PARTS, rows=2)
    assert torch.allclose(question.whole(), model(**given), atol=1e-5)
    keep = torch.ones(4, 7, dtype=torch.bool)
    rows = torch.tensor([0, n - 1, 0, n - 1])
    logits = model(**given).double()
    expected = (logits.amax(dim=1) - logits.mean(dim=1))[rows]
    assert torch.allclose(question.values(keep, rows), expected, atol=1e-4)


def test_what_can_be_read_in_two_ways_is_refused_until_one_is_named():
    class Either(Net):
        """A table from which each example takes its own row, or the last one where there is no own."""

        def forward(self, images, tokens, table):
            own = table if len(table) == len(images) else table[-1:].expand(len(images), -1)
            return self.both(images, tokens) + own

    model, table = Either().eval(), 5 * torch.rand(6, 3, generator=torch.Generator().manual_seed(0))
    for door in doors(model, {**PAIRS, "table": table}):
        with pytest.raises(InputError, match=r"'table' have as many rows as there are examples, 6,.*common=\('table',\)"):
            door()
    common = Called(model, common=["table"])
    question = Question(common, {**PAIRS, "table": table}, PARTS)
    alone = question.logits(question.examples(torch.tensor([2])))
    assert torch.allclose(alone, Net().eval()(IMAGES[2:3], WORDS[2:3]) + table[-1], atol=1e-5)


# ---------------------------------------------------------------- probabilities


ENDS = {
    "sigmoid": lambda z: torch.sigmoid(z[:, 0]), "sigmoid of a column": lambda z: torch.sigmoid(z[:, :1]),
    "sigmoids of labels": torch.sigmoid, "softmax": lambda z: z.softmax(dim=1), "nn.Softmax": nn.Softmax(dim=1),
    "nn.Sigmoid": lambda z: nn.Sigmoid()(z[:, 0]),
    "no and yes": lambda z: torch.stack([1 - z[:, 0].sigmoid(), z[:, 0].sigmoid()], dim=1),
    "squeezed": lambda z: torch.sigmoid(z[:, :1, None]).squeeze(-1).squeeze(-1),
    "clamped": lambda z: z[:, 0].sigmoid().clamp(1e-6),
    "of the other": lambda z: 1 - torch.sigmoid(z[:, 0]), "named": lambda z: {"logits": torch.sigmoid(z[:, 0])},
    "normalised": lambda z: z.exp() / z.exp().sum(dim=1, keepdim=True), "hard": lambda z: nn.functional.hardsigmoid(z[:, 0]),
    "detached": lambda z: z.softmax(dim=1).detach(),
    "mean of two": lambda z: torch.stack([z.sigmoid(), z.sigmoid()]).mean(dim=0),
    "as double": lambda z: torch.sigmoid(z[:, 0]).double(), "product": lambda z: z[:, 0].sigmoid() * z[:, 1].sigmoid(),
}


@pytest.mark.parametrize("name", ENDS)
@pytest.mark.parametrize("frozen", [False, True])
def test_probabilities_are_refused_and_preflight_lists_them(name, frozen):
    model = Net(ENDS[name]).eval().requires_grad_(not frozen)
    for door in doors(model):
        with pytest.raises(InputError, match=r"ends in a (hard )?(sigmoid|softmax): its numbers lie between 0.*Called\(model"):
            door()
    problem, = Question(model, PAIRS, PARTS, any_mode=True).problems()
    assert problem.check == "probabilities" and problem.do.startswith("Return what goes into the")


@pytest.mark.parametrize("name", ["sigmoid", "softmax", "squeezed"])
def test_capture_refuses_probabilities_too(name):
    for door in (lambda: capture(Net(ENDS[name]).eval(), PAIRS, "embedding"),
                 lambda: maps.attribute(Net(ENDS[name]).eval(), PAIRS, "input:images", "saliency")):
        with pytest.raises(InputError, match=r"ends in a (sigmoid|softmax).*type model = Called\(model, output=torch\."):
            door()
    assert capture(Net(ENDS[name]).eval(), PAIRS, "embedding", target=lambda p: p.reshape(6, -1)[:, 0]).score.max() < 1


def test_a_sigmoid_under_no_grad_is_seen_too():
    class Sealed(Net):
        @torch.no_grad()
        def forward(self, images, tokens):
            return torch.sigmoid(self.both(images, tokens)[:, 0])

    with pytest.raises(InputError, match="ends in a sigmoid"):
        Game(Sealed().eval(), PAIRS, PARTS)


@pytest.mark.parametrize(("end", "output"), [("softmax", torch.log), ("sigmoid", torch.logit)])
def test_what_one_types_gives_the_logits_back(end, output):
    mended = Called(Net(ENDS[end]).eval(), output=output)
    straight = Net(lambda z: z[:, 0] if end == "sigmoid" else z).eval()
    assert torch.allclose(values_of(mended), values_of(straight), atol=1e-3)
    assert rounds(mended, PAIRS, PARTS, progress=False).target.tolist() == \
        rounds(straight, PAIRS, PARTS, progress=False).target.tolist()


@pytest.mark.parametrize("form", [lambda z: z.log_softmax(dim=1), torch.tanh, lambda z: z * z.sigmoid(), lambda z: z.relu() + 1,
                                  lambda z: z - z.sigmoid(), lambda z: 3 * z.softmax(dim=1), nn.functional.silu])
def test_what_only_looks_alike_is_taken(form):
    assert Question(Net(form).eval(), PAIRS, PARTS).columns == 3


def test_a_function_may_ask_for_a_probability():
    def chance(logits):
        return logits.softmax(dim=1)[:, 1]

    table = values_of(Net().eval(), target=chance)
    expected = torch.stack([chance(Net().eval()(**PAIRS))[i] for i in range(6)])
    assert torch.allclose(table[:, -1], expected.double(), atol=1e-6)


# ---------------------------------------------------------------- targets


def test_an_index_is_the_logit_of_that_column_itself():
    """Label 0 rests on the picture, label 1 on the text, label 2 on both: each is judged by itself."""
    class Labels(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding.from_pretrained(torch.tensor([[0.0], [0.0], [-1.0], [1.0]]))

        def forward(self, images, tokens):
            a = 8 * (images[..., :4].mean(dim=(1, 2, 3)) - images[..., 4:].mean(dim=(1, 2, 3)))
            b = self.embedding(tokens).sum(dim=(1, 2))
            return torch.stack([a, b, a * b], dim=1)

    generator = torch.Generator().manual_seed(0)
    images, tokens = torch.rand(200, 1, 8, 8, generator=generator), torch.randint(2, 4, (200, 1), generator=generator)
    given = {"images": images, "tokens": tokens}
    model = Labels().eval()
    some, whole = {key: value[:5] for key, value in given.items()}, model(**given)
    for label, answer in enumerate(["image alone", "text alone", "both only"]):
        question = Question(model, given, PARTS, target=label)
        assert question.columns == 1 and question.scored and question.target.tolist() == [1] * 200
        assert torch.equal(question.whole()[:, 0], whole[:, label]) and question.judged.endswith(f"of which column {label}")
        assert rounds(model, given, PARTS, target=label, progress=False).verdict().answer == answer
        shapley = explain(model, some, PARTS, "exact shapley", target=label).values
        gained = values_of(model, some, target=label)
        total = sum(part.nansum(dim=1) for part in shapley.values()).double()
        assert torch.allclose(total, gained[:, -1] - gained[:, 0], atol=1e-5)
        assert torch.allclose(gained[:, -1], whole[:5, label].double(), atol=1e-6), "for all of them, also where it says no"
        for name, part in shapley.items():
            if answer == f"{'text' if name == 'image' else 'image'} alone":
                assert part.abs().nansum() < 1e-5, "the other modality has no part in this label"
        slopes = question.captured().gradients["embedding"]
        leaf = model.embedding(given["tokens"]).detach().requires_grad_()
        a = 8 * (given["images"][..., :4].mean(dim=(1, 2, 3)) - given["images"][..., 4:].mean(dim=(1, 2, 3)))
        b = leaf.sum(dim=(1, 2))
        (expected,) = torch.autograd.grad(torch.stack([a + 0 * b, b, a * b], dim=1)[:, label].sum(), leaf)
        assert torch.allclose(slopes, expected, atol=1e-6)


def test_classes_one_an_example_count_less_the_mean_and_words_mean_the_predicted_one():
    model, logits = Net().eval(), Net().eval()(**PAIRS).double()
    whole = torch.ones(6, 7, dtype=torch.bool)
    for target, column in ((torch.tensor([0, 1, 2, 0, 1, 2]),) * 2, (torch.tensor(2), torch.full((6,), 2)),
                           (None, logits.argmax(dim=1)), ("predicted", logits.argmax(dim=1))):
        found = Question(model, PAIRS, PARTS, target=target).values(whole, torch.arange(6))
        expected = logits.gather(1, column[:, None])[:, 0] - logits.mean(dim=1)
        assert torch.allclose(found, expected, atol=1e-5)


def test_of_a_single_logit_an_index_says_yes_or_no():
    model = Net(lambda logits: logits[:, 0]).eval()
    logit, whole = model(**PAIRS).double(), torch.ones(6, 7, dtype=torch.bool)
    for target, sign in ((1, 1), (0, -1)):
        found = Question(model, PAIRS, PARTS, target=target).values(whole, torch.arange(6))
        assert torch.allclose(found, sign * logit, atol=1e-6)


@pytest.mark.parametrize("target", [None, "predicted", 1, torch.tensor([0, 1, 2, 0, 1, 2]), lambda logits: logits[:, 1]])
def test_what_is_handed_to_capture_follows_the_same_logit(target):
    question = Question(Net().eval(), PAIRS, PARTS, target=target)
    found = capture(question.model, question.inputs, "embedding", question.logit_target)
    column = torch.ones(6, dtype=torch.long) if callable(target) else torch.as_tensor(
        question.logit_target).expand(6)
    expected = capture(question.model, question.inputs, "embedding", column).gradients["embedding"]
    sign = (2 * question.target - 1)[:, None, None] if callable(target) else 1
    assert torch.allclose(found.gradients["embedding"], sign * expected, atol=1e-6)
    evidence = question.evidence_of(question.model(**question.inputs), torch.arange(6))
    assert evidence.requires_grad and torch.allclose(evidence.double(), question.values(torch.ones(6, 7, dtype=torch.bool),
                                                                                         torch.arange(6)), atol=1e-5)


@pytest.mark.parametrize(("target", "says"), [
    (7, "holds class 7, the model has classes 0 to 2"), (-1, "holds class -1"),
    (torch.tensor([0, 1]), "2 entries, the batch has 6"),
    (torch.zeros(6), "dtype torch.float32, expected whole class indices"), (0.5, "whole class indices"), (True, "torch.bool"),
    ("yes", "got target='yes'"), ([0, 1, 2], "rounds alone takes a list, of labels"), ({"a": 1}, "expected one class index"),
    (torch.tensor([0, 1, 2, 0, 1, 9]), "holds class 9"),
])
def test_targets_are_refused_with_the_same_words_at_every_door(target, says):
    model = Net().eval()
    for door in doors(model, target=target)[1:4]:
        with pytest.raises(InputError, match=says):
            door()


# ---------------------------------------------------------------- a gradient of zero


class Rounds(Net):
    """Rounds what it sees or reads, or computes it without a graph."""

    def __init__(self, how, where):
        super().__init__()
        self.how, self.where = how, where

    def forward(self, images, tokens):
        how = {"round": lambda values: (8 * values).round() / 8, "sign": torch.sign, "detach": torch.Tensor.detach,
               "ints": lambda values: (8 * values).long().float() / 8}[self.how]
        read = torch.tanh(self.embedding(tokens))
        images, read = (how(images - 0.5), read) if self.where == "image" else (images, how(read))
        seen = images[..., :2].mean(dim=(1, 2, 3)) - images[..., 2:].mean(dim=(1, 2, 3))
        return self.head(torch.cat([4 * seen[:, None], read.mean(dim=1)], dim=1))


@pytest.mark.parametrize("where", ["image", "text"])
@pytest.mark.parametrize("how", ["round", "sign", "detach", "ints"])
def test_a_gradient_of_zero_where_a_mask_matters_is_an_error(how, where):
    model = Rounds(how, where).eval()
    place = "input:images" if where == "image" else "embedding"
    with pytest.raises(NoGradient, match=f"(?s)depend on '{place}'.*with {where} hidden the logits .* move by up to"):
        Question(model, PAIRS, PARTS).reached()
    assert values_of(model).isfinite().all(), "which needs no gradient"


def test_a_modality_that_is_left_aside_is_no_error():
    class TextAlone(Net):
        def forward(self, images, tokens):
            return self.both(torch.ones_like(images), tokens)

    question = Question(TextAlone().eval(), PAIRS, PARTS)
    assert question.reached() == {"image": False, "text": True}
    passes = question.passes
    assert question.reached() == {"image": False, "text": True} and question.passes == passes, "looked into once"
    both = Question(Net().eval(), PAIRS, PARTS)
    assert both.reached() == {"image": True, "text": True} and both.passes == 3


def test_one_dead_example_is_no_proof_of_a_missing_gradient():
    class Clamped(Net):
        def forward(self, images, tokens):
            return (self.both(images, tokens)[:, 0] - middle).relu()

    logits = Net().both(**PAIRS)[:, 0].detach()
    middle = float(logits.sort().values[3])
    given = {key: value.roll(-int(logits.argmin()), 0) for key, value in PAIRS.items()}  # the first is dead, others live
    assert not Clamped()(**given)[0] and Clamped()(**given).any()
    assert Question(Clamped().eval(), given, PARTS).reached() == {"image": True, "text": True}


# ---------------------------------------------------------------- baselines, donors, rows


@pytest.mark.parametrize(("options", "says"), [
    ({"baselines": ["zero"]}, r"got baselines=\['zero'\], expected one name"), ({"baselines": 3}, "got baselines=3"),
    ({"baselines": {"image": 5}}, "got baseline of image 5"), ({"baselines": "masc"}, "got baseline of image 'masc'"),
    ({"baselines": {3: "zero"}}, "baselines names 3"), ({"rows": 0}, "got rows=0, expected the most rows"),
    ({"rows": "x"}, "got rows='x'"), ({"rows": 2.5}, r"got rows=2\.5"),
])
def test_options_that_do_not_fit(options, says):
    with pytest.raises(InputError, match=says):
        Question(Net().eval(), PAIRS, PARTS, **options)


@pytest.mark.parametrize(("donors", "says"), [
    ({"images": torch.rand(2, 3, 4, 4), "tokens": WORDS[:2]}, r"donors have shape \(3, 4, 4\) an example as 'images'"),
    ({"tokens": WORDS[:2]}, "donors have nothing as 'images'"), (3, "got donors as int, expected a dict"),
    ({"images": IMAGES[:2], "tokens": WORDS[:2, :2]}, r"donors have shape \(2,\) an example as 'tokens', the inputs \(3,\)"),
])
def test_donors_that_do_not_fit(donors, says):
    with pytest.raises(InputError, match=says):
        values_of(Net().eval(), baselines="data", donors=donors)


def test_one_example_of_a_table_that_can_only_borrow_is_tried_all_the_same():
    """A table's first stand-in is another example's row, and there is no other example."""
    class Table(nn.Module):
        def forward(self, table, sound):
            return table.sum(dim=1) + sound.sum(dim=(1, 2))

    inputs = {"table": torch.tensor([[1.0, 2.0]]), "sound": torch.tensor([[[3.0]]])}
    question = Question(Table().eval(), inputs, [Columns("table", "table"), Vectors("sound", "sound")])
    assert question.whole().tolist() == [[6.0]]
