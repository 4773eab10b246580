"""What a hunt over two hundred more models found: answers that were not true, and another library's errors."""

from functools import partial

import torch
from torch import nn

from benchmarks.strangers import by_hand, case, close, refused
from benchmarks.strangers.models import Pair, pairs
from crossexplain import Called, Game, ImageCells, Tokens, Vectors, adapt, explain, preflight, rounds
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.capture import NoGradient

PARTS = [ImageCells(layer="conv", grid=(2, 2)), Tokens()]
PADDED = torch.tensor([[5, 6, 7, 8], [3, 4, 0, 0], [2, 7, 5, 0]])


def _asked(model, inputs, *words):
    """Assert that everything that asks about gradients refuses."""
    for method in ("gradient norm", "gradient x input", "raw"):
        refused(lambda method=method: explain(model, inputs, PARTS, method), *words)
    refused(lambda: rounds(model, inputs, PARTS, progress=False), *words)


class _Read(Pair):
    """A :class:`Pair` whose words can be read in another way; padding has no part."""

    def read(self, tokens):
        real = (tokens != 0)[..., None].float()
        return (self.embedding(tokens).tanh() * real).sum(dim=1) / real.sum(dim=1)

    def logits(self, images, tokens):
        seen = torch.relu(self.conv(images)).mean(dim=(2, 3))
        return self.head(torch.cat([seen, self.read(tokens)], dim=1))


@case("D1")
def a_model_that_sorts_its_sentences():
    """Rows of a layer behind a sort by length are other examples: gradients there are refused, the game is right."""
    class Sorting(_Read):
        def read(self, tokens):
            order = (tokens != 0).sum(dim=1).argsort()
            return super().read(tokens[order])[order.argsort()]

    model, inputs = Sorting().eval(), {"images": pairs(3)["images"], "tokens": PADDED}
    _asked(model, inputs, "does not hold the examples in their order")
    refused(lambda: tokens.attribute(model, inputs, "embedding", special="keep"), "sorted in the model")
    plain = _Read().eval()
    plain.load_state_dict(model.state_dict())
    assert close(*(Game(of, inputs, PARTS, progress=False).values_of_all() for of in (model, plain)))


@case("D2")
def experts_with_room_for_one_example():
    """Experts that turn examples away when they are full let examples touch, in every batch but the smallest."""
    class Experts(_Read):
        def __init__(self):
            super().__init__()
            self.gate, self.experts = nn.Linear(3, 2), nn.ModuleList(nn.Linear(3, 3) for _ in range(2))

        def forward(self, images, tokens):
            logits = self.logits(images, tokens)
            chosen, out = self.gate(logits).argmax(dim=1), torch.zeros_like(logits)
            for number, expert in enumerate(self.experts):
                first = (chosen == number).nonzero()[:1, 0]
                out[first] = expert(logits[first])
            return out

    model, inputs = Experts().eval(), pairs(4)
    refused(lambda: Game(model, inputs, PARTS, progress=False).values_of_all(), "views of all examples", "as one batch")
    assert "examples touch" in preflight(model, inputs, PARTS).names


@case("D3")
def a_mask_that_is_true_at_padding():
    """A word that is deleted leaves what the mask of padding says at padding, which is True."""
    class Masked(_Read):
        def forward(self, images, tokens, padding):
            real = (~padding)[..., None].float()
            read = (self.embedding(tokens).tanh() * real).sum(dim=1) / real.sum(dim=1)
            return self.head(torch.cat([torch.relu(self.conv(images)).mean(dim=(2, 3)), read], dim=1))

    model = Masked().eval()
    inputs = {"images": pairs(3)["images"], "tokens": PADDED, "padding": PADDED == 0}
    parts = [PARTS[0], Tokens(along=("padding",))]
    values = explain(model, inputs, parts, "feature ablation", baselines={"text": "delete"}, target=0).values["text"]
    with torch.no_grad():
        for row, word in ((0, 1), (1, 0), (2, 2)):
            whole = [number for number in PADDED[row].tolist() if number]
            left = [number for place, number in enumerate(whole) if place != word]
            image = inputs["images"][row : row + 1]
            ends = [model(image, torch.tensor([ids]), torch.tensor([ids]) == 0)[0, 0] for ids in (whole, left)]
            assert close(values[row, word], ends[0] - ends[1])


@case("D4")
def dropout_that_is_always_on():
    """Maps and word scores of a model that draws in eval mode are refused, as everything else is."""
    class Drawing(_Read):
        def forward(self, images, tokens):
            return self.head(nn.functional.dropout(torch.cat([self.conv(images).mean(dim=(2, 3)), self.read(tokens)], 1), 0.5))

    model, inputs = Drawing().eval(), pairs(3)
    refused(lambda: maps.attribute(model, inputs, "conv"), "draws at random")
    refused(lambda: tokens.attribute(model, inputs, "embedding", special="keep"), "draws at random")

    class Unused(_Read):
        """Draws a number that decides nothing, as transformers' layer drop does."""

        def forward(self, images, tokens):
            return self.logits(images, tokens) if torch.rand(()) < 2 else None

    assert maps.attribute(Unused().eval(), inputs, "conv").shape == (3, 6, 6)


@case("D5")
def word_scores_where_examples_touch():
    """Word scores of a model that subtracts the mean of its batch are refused, whether or not the batch is cut."""
    class Centred(_Read):
        def read(self, tokens):
            read = super().read(tokens)
            return read - read.mean(dim=0)

    model, inputs = Centred().eval(), pairs(5)
    for size in (2, 64):
        refused(lambda size=size: tokens.attribute(model, inputs, "embedding", special="keep", batch_size=size), "touch")


class _Fails(torch.autograd.Function):
    """Has a backward that asserts, as Reformer's has in eval mode."""

    @staticmethod
    def forward(ctx, values):
        return values.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise AssertionError("use model.train()")


@case("D6")
def a_backward_pass_of_its_own_that_fails():
    """What a step's own backward raises is refused, with the methods that need none."""
    class Failing(_Read):
        def read(self, tokens):
            return _Fails.apply(super().read(tokens))

    model, inputs = Failing().eval(), pairs(3)
    refused(lambda: explain(model, inputs, PARTS, "raw"), "the backward pass fails", "use model.train()", "need no gradient")
    refused(lambda: preflight(model, inputs, PARTS), "the backward pass fails")
    assert Game(model, inputs, PARTS, progress=False).values_of_all().isfinite().all()


@case("D7")
def probabilities_without_a_graph():
    """A sigmoid whose output is detached is seen: the game refuses it, and what needs a gradient says that there is none."""
    class Detached(_Read):
        def forward(self, images, tokens):
            return self.logits(images, tokens)[:, 0].sigmoid().detach()

    model, inputs = Detached().eval(), pairs(3)
    refused(lambda: Game(model, inputs, PARTS, progress=False).values_of_all(), "ends in a sigmoid")
    refused(lambda: maps.attribute(model, inputs, "conv"), "detached", kind=NoGradient)


@case("D8")
def integrated_gradients_at_a_norm_within_a_block():
    """At a norm that a residual path goes round they miss what goes round it, and are refused; before it they are complete."""
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.row, self.norm, self.mix, self.head = nn.Identity(), nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 1)

        def forward(self, rows):
            rows = self.row(rows)
            return self.head((rows + self.mix(self.norm(rows))).square().sum(dim=1))[:, 0]

    model, inputs = Block().eval(), {"rows": 2 + torch.rand(2, 3, 4)}
    for method in ("integrated gradients", "gradient shap"):
        refused(lambda method=method: explain(model, inputs, [Vectors("rows", "rows", layer="norm")], method), "goes round")
    found = explain(model, inputs, [Vectors("rows", "rows", layer="row")], "integrated gradients").joint().sum(dim=1)
    with torch.no_grad():
        gained = model(**inputs) - model(torch.zeros(2, 3, 4))
        assert close(found, gained * model(**inputs).sign(), 1e-2)


@case("D9")
def a_decoder_that_counts_padding_in_front():
    """BERT as a language model, padded in front: its places are counted from the first word, as of the prompt alone."""
    from transformers import BertConfig, BertLMHeadModel

    model = BertLMHeadModel(BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, pad_token_id=0,
                                       intermediate_size=16, max_position_embeddings=12, is_decoder=True)).eval()
    ids = torch.tensor([[2, 11, 12, 13], [0, 2, 21, 22]])
    adapted = adapt(model, answer=9, special=(2,), pad_id=0, mask_id=None)
    inputs = adapted.inputs({"input_ids": ids, "attention_mask": (ids != 0).long()})
    values = explain(adapted.model, inputs, adapted.modalities, "feature ablation", target=adapted.target,
                     baselines="delete").values["text"]

    def odds(*numbers):
        after = model(input_ids=torch.tensor([numbers])).logits[0, -1].log_softmax(dim=0)[9]
        return after - torch.log1p(-after.exp())

    with torch.no_grad():
        assert close(values[1, 2], odds(2, 21, 22) - odds(2, 22)) and close(values[0, 3], odds(2, 11, 12, 13) - odds(2, 11, 12))


@case("D10")
def two_calls_of_one_embedding_mixed_up():
    """A question and an answer that are read at each other's call of their embedding: its layer does not follow it."""
    class Two(_Read):
        def forward(self, question, answer):
            second, first = self.read(answer), self.read(question)
            return self.head(torch.cat([first, second], dim=1))

    model, inputs = Two().eval(), {"question": PADDED, "answer": PADDED.flip(0)}
    mixed, right = ([Tokens("question", "question", f"embedding@{one}"), Tokens("answer", "answer", f"embedding@{other}")]
                    for one, other in ((0, 1), (1, 0)))
    for door in (partial(explain, method="raw"), partial(rounds, progress=False)):
        refused(partial(door, model, inputs, mixed), "'embedding@0' of question stays the same", "changes with answer")
        door(model, inputs, right)


@case("D11")
def masks_and_pairs_of_positions_on_the_last_axis():
    """An additive mask (N, 1, 1, T), or a graph (N, T, T), would not move with deleted words; other ids in their place do."""
    class Attends(_Read):
        def forward(self, images, tokens, mask):
            words = self.embedding(tokens).tanh()
            weights = words.sum(dim=2, keepdim=True).mT + (mask[:, 0] if mask.ndim == 4 else mask.log())
            read = (weights.softmax(dim=2) @ words).mean(dim=1)
            return self.head(torch.cat([torch.relu(self.conv(images)).mean(dim=(2, 3)), read], dim=1))

    model, images, real = Attends().eval(), pairs(3)["images"], (PADDED != 0).float()
    text = Tokens(mask_id=1)
    for mask in (real.log()[:, None, None], (real[:, None] * torch.rand(3, 4, 4) + 1e-9)):
        inputs = {"images": images, "tokens": PADDED, "mask": mask}
        for along in ((), ("mask",) if mask.ndim == 3 else ()):
            parts = [PARTS[0], Tokens(along=along)]
            refused(lambda inputs=inputs, parts=parts: Game(model, inputs, parts, baselines={"text": "delete"}, progress=False)
                    .values_of_all(), "'mask'", "last axis", "use another baseline")
        found = explain(model, inputs, [PARTS[0], text], "feature ablation", baselines={"text": "mask"},
                        target=torch.zeros(3, dtype=torch.long)).values["text"]
        with torch.no_grad():
            hidden = {**inputs, "tokens": PADDED.index_fill(1, torch.tensor([1]), 1)}
            moved = _less_the_mean(model(**inputs)) - _less_the_mean(model(**hidden))
        assert close(found[:, 1], moved)


def _less_the_mean(logits):
    return logits[:, 0] - logits.mean(dim=1)


@case("D12")
def a_text_padded_in_front_of_a_model_that_counts_places():
    """BART padded in front counts its places from the padding: without a word it would be asked another question."""
    from transformers import BartConfig, BartForSequenceClassification

    torch.manual_seed(0)
    model = BartForSequenceClassification(BartConfig(
        vocab_size=30, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=16, num_labels=3, pad_token_id=0, bos_token_id=2,
        eos_token_id=3)).eval()
    adapted = adapt(model, special=(2, 3), pad_id=0, mask_id=1)
    rows = {"right": [[2, 5, 6, 7, 3], [2, 8, 9, 3, 0]], "left": [[2, 5, 6, 7, 3], [0, 2, 8, 9, 3]]}

    def ask(side):
        ids = torch.tensor(rows[side])
        inputs = adapted.inputs({"input_ids": ids, "attention_mask": (ids != 0).long()})
        return explain(adapted.model, inputs, adapted.modalities, "feature ablation", target=0,
                       baselines="delete").values["text"]

    refused(partial(ask, "left"), "padded on the left", "padding on the right alone", "tokenizer.padding_side = 'right'")
    with torch.no_grad():
        whole, less = (model(input_ids=torch.tensor([ids])).logits[0, 0] for ids in ([2, 8, 9, 3], [2, 9, 3]))
        assert close(ask("right")[1, 1], whole - less)


@case("D13")
def maps_of_a_model_whose_pictures_touch_or_are_sorted():
    """A map belongs to its own picture: of sorted pictures, or of such as are centred by the batch, there is none."""
    class Pictures(_Read):
        def __init__(self, how):
            super().__init__()
            self.how = how

        def forward(self, images, lengths):
            order = lengths.argsort() if self.how == "sorted" else torch.arange(len(images))
            maps = torch.relu(self.conv(images[order]))
            maps = maps - maps.mean(dim=0) if self.how == "centred" else maps
            return self.head(maps.mean(dim=(2, 3)).repeat(1, 3)[:, : self.head.in_features])[order.argsort()]

    inputs = {"images": pairs(3)["images"], "lengths": torch.tensor([3, 1, 2])}
    for how in ("sorted", "centred"):
        for given in (inputs, list(inputs.values())):
            refused(lambda how=how, given=given: maps.attribute(Pictures(how).eval(), given, "conv"), "touch", "sorted")
    plain = Pictures("plain").eval()
    values, slopes = by_hand(plain, inputs, "conv")
    heat = maps.attribute(plain, inputs, "conv", "hires-cam", target=0, sign="for", positive=False)
    assert close(heat, (values * slopes).sum(dim=1))


@case("D14")
def a_mask_that_marks_padding():
    """PyTorch's own attention takes True for padding: read as words, its padding would be all that is explained."""
    class Attends(_Read):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(self.embedding.embedding_dim, 1, batch_first=True)

        def forward(self, images, tokens, padding):
            words = self.embedding(tokens)
            read = self.attention(torch.ones_like(words[:, :1]), words, words, key_padding_mask=padding)[0][:, 0]
            return self.head(torch.cat([torch.relu(self.conv(images)).mean(dim=(2, 3)), read], dim=1))

    torch.manual_seed(0)
    model, tokens = Attends().eval(), PADDED[1:]
    inputs = {"images": pairs(2)["images"], "tokens": tokens, "padding": tokens == 0}
    parts = [PARTS[0], Tokens(attention="padding")]
    refused(lambda: explain(model, inputs, parts, "gradient norm", target=0), "key_padding_mask", "1 for tokens", "Called(")
    turned = Called(model, lambda model, given: model(**{**given, "padding": given["padding"] == 0}))
    found = explain(turned, {**inputs, "padding": tokens != 0}, parts, "gradient norm", target=0).values["text"]
    slopes = by_hand(model, inputs, "embedding")[1]
    assert close(found[tokens != 0], slopes.norm(dim=2)[tokens != 0]) and found[tokens == 0].isnan().all()


@case("D15")
def pictures_and_words_that_are_moved_before_they_are_read():
    """A layer after a flip has everything at other places: there is no map of it, but at the pixels there is."""
    class Moves(_Read):
        def __init__(self, look, order):
            super().__init__()
            self.look, self.order = look, order

        def forward(self, images, tokens):
            return super().forward(self.look(images), self.order(tokens))

    def same(of):
        return of

    inputs = pairs(3)
    torch.manual_seed(0)
    for look in (lambda of: of.flip(3), lambda of: of.roll(4, 2)):
        model = Moves(look, same).eval()
        for ask in (lambda model=model: explain(model, inputs, PARTS, "gradient norm"),
                    lambda model=model: rounds(model, inputs, PARTS, progress=False)):
            refused(ask, "layer 'conv' holds image at other places than the input does")
    _asked(Moves(same, lambda of: of.flip(1)).eval(), inputs, "layer 'embedding' holds text at other places")
    model = Moves(lambda of: of.flip(3), same).eval()
    refused(lambda: maps.attribute(model, inputs, "conv"), "at other places", "read the input itself")
    found = explain(model, inputs, [ImageCells(grid=(2, 2)), PARTS[1]], "gradient x input", target=0).values["image"]
    pixels = inputs["images"].clone().requires_grad_()
    slopes, = torch.autograd.grad(model(pixels, inputs["tokens"])[:, 0].sum(), pixels)
    assert close(found, nn.functional.avg_pool2d(inputs["images"] * slopes, 4).flatten(1) * 16)
