"""An error came and did not help: it says what came, what was expected and what to type, or the call is right."""

import warnings
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.strangers import case, close, doors, refused, right_or_refused
from benchmarks.strangers.hugging_face import T5Classifier, sentences
from benchmarks.strangers.models import DRAWN, Packed, Pair, Rule, pairs, signs
from crossexplain import Called, Game, ImageCells, Tokens, Vectors, Video, capture, explain, preflight, rounds
from crossexplain.gradients import maps, tokens

NORM, RELEVANCE = "gradient norm", "attention-relevance"


@dataclass
class Outputs:
    """What a model may return: an object of its author's own."""

    scores: Tensor
    hidden: Tensor


@case("B1")
def outputs_that_hold_their_tensors_deeper():
    """Of a nested dict, a list of lists or a dataclass a function takes what counts; without one the message names it."""
    forms = {"dict": (lambda z: {"out": {"scores": z}}, lambda output: output["out"]["scores"][:, 1]),
             "list": (lambda z: [[z]], lambda output: output[0][0][:, 1]),
             "dataclass": (lambda z: Outputs(z, z), lambda output: output.scores[:, 1])}
    inputs, modalities = signs(), [ImageCells(), Tokens()]
    for name, (form, take) in forms.items():
        model = Rule(lambda seen, said, form=form: form(torch.stack([-seen, seen], dim=1))).eval()
        found = rounds(model, inputs, modalities, target=take, progress=False).verdict()
        assert found.answer == "image alone", name
        for door in doors(model, inputs, modalities).values():
            right_or_refused(door, lambda value: name == "dataclass", "target")  # noqa: B023


@case("B2")
def a_layer_that_gives_a_packed_sequence():
    """A capture at an LSTM that packs says that the sequence is packed."""
    inputs = {"images": torch.rand(3, 1, 8, 8), "tokens": torch.randint(2, 20, (3, 5)), "lengths": torch.tensor([5, 3, 4])}
    refused(partial(capture, Packed().eval(), inputs, "lstm"), "packed")


class _Batched(Pair):
    """Takes its inputs in one piece, which :meth:`taken` opens."""

    def forward(self, batch):
        return self.logits(*self.taken(batch))


class _OfDict(_Batched):
    @staticmethod
    def taken(batch):
        return batch["images"], batch["tokens"]


class _OfList(_Batched):
    @staticmethod
    def taken(batch):
        return batch


@dataclass
class Batch:
    """A batch as an object of its author's own."""

    images: Tensor
    tokens: Tensor


class _OfDataclass(_Batched):
    @staticmethod
    def taken(batch):
        return batch.images, batch.tokens


@case("B3")
def inputs_in_one_piece():
    """A model that takes one dict, list or dataclass is called through a function; handed over as it is, that is said."""
    flat, modalities = pairs(), [ImageCells(), Tokens()]
    plain = Pair().eval()
    expected = explain(plain, flat, modalities, NORM).joint()
    ways = {_OfDict: lambda model, inputs: model(inputs), _OfList: lambda model, inputs: model(list(inputs.values())),
            _OfDataclass: lambda model, inputs: model(Batch(**inputs))}
    pieces = {_OfDict: {"batch": flat}, _OfList: ([flat["images"], flat["tokens"]],), _OfDataclass: Batch(**flat)}
    for kind, way in ways.items():
        model = kind().eval()
        model.load_state_dict(plain.state_dict())
        assert close(explain(Called(model, way), flat, modalities, NORM).joint(), expected), kind.__name__
        refused(partial(capture, model, pieces[kind], "embedding"), "Called(")
        for door in doors(model, pieces[kind], modalities).values():
            refused(door, "Called(")


@case("B4")
def what_came_in_place_of_a_tensor():
    """An array, a list of tensors or nothing in place of a tensor: the message says which it was."""
    inputs, modalities, model = pairs(), [ImageCells(), Tokens()], Pair().eval()
    for value, name in ((inputs["images"].numpy(), "ndarray"), (list(inputs["images"]), "list"), (None, "NoneType")):
        for door in doors(model, inputs | {"images": value}, modalities).values():
            refused(door, name, "tensor")
    refused(partial(explain, model, inputs | {"tokens": inputs["tokens"].tolist()}, modalities), "list", "tensor")


class _Film(nn.Module):
    """Frames of a video through one convolution each, the mean over time, and words; the second frame counts twice."""

    def __init__(self):
        super().__init__()
        self.conv, self.embedding, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Embedding(DRAWN, 4), nn.Linear(8, 3)

    def forward(self, video, tokens):
        frames = torch.relu(self.conv(video.flatten(0, 1))).mean(dim=(2, 3)).unflatten(0, video.shape[:2])
        seen = frames.mean(dim=1) + frames[:, 1]
        return self.head(torch.cat([seen, self.embedding(tokens).mean(dim=1)], dim=1))


@case("B5")
def a_video():
    """Five axes as a picture point to the modality for videos, whose cells in space and time sum to what autograd gives."""
    model, inputs = _Film().eval(), {"video": torch.rand(3, 4, 3, 8, 8), "tokens": torch.randint(2, DRAWN, (3, 3))}
    for door in doors(model, inputs, [ImageCells("video", "video"), Tokens()]).values():
        refused(door, "Video")
    film = inputs["video"].clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(film, inputs["tokens"])[:, 0].sum(), film)
    squares = slope.square().sum(dim=2).reshape(3, 2, 2, 2, 4, 2, 4).sum(dim=(2, 4, 6))  # time, rows, columns
    seen = Video("video", "video", grid=(2, 2, 2), layout="NTCHW")
    found = explain(model, inputs, [seen, Tokens()], NORM, target=lambda output: output[:, 0]).values["video"]
    assert close(found, squares.flatten(1).sqrt())
    right_or_refused(partial(maps.attribute, model, inputs, "conv", "grad-cam"), lambda heat: len(heat) == 3)


@case("B7")
def an_output_that_loses_its_batch_axis():
    """A model that ends in squeeze() is told so, not that it was given one example."""
    class Squeezed(Pair):
        def forward(self, images, tokens):
            return self.logits(images, tokens).squeeze()

    for outputs in (1, 3):
        model, inputs, modalities = Squeezed(outputs=outputs).eval(), pairs(12), [ImageCells(), Tokens()]
        for door in doors(model, inputs, modalities).values():
            refused(door, "squeeze")
        assert any("squeeze" in str(finding) for finding in preflight(model, inputs, modalities))


@case("B9")
def weights_that_are_elsewhere():
    """A model whose weights accelerate has put away is asked where it runs, or said to be offloaded."""
    from accelerate import cpu_offload

    plain, inputs, modalities = Pair().eval(), pairs(), [ImageCells(), Tokens()]
    expected = explain(plain, inputs, modalities, "occlusion").joint()
    away = cpu_offload(Pair().eval(), execution_device=torch.device("cpu"), state_dict=plain.state_dict())
    right_or_refused(lambda: explain(away, inputs, modalities, "occlusion").joint(), expected, "offload")
    slopes = capture(plain, inputs, "embedding", 1).gradients["embedding"]
    right_or_refused(lambda: capture(away, inputs, "embedding", 1).gradients["embedding"], slopes, "offload")


@case("B10")
def attention_that_keeps_its_maps():
    """PyTorch's own encoder throws its attention maps away: the message names need_weights and no other library."""
    class Encoded(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(DRAWN, 4), nn.Linear(4, 3)
            layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
            self.mix = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

        def forward(self, tokens):
            return self.head(self.mix(self.embedding(tokens)).mean(dim=1))

    model, inputs = Encoded().eval(), {"tokens": torch.randint(2, DRAWN, (3, 4))}
    error = refused(partial(tokens.attribute, model, inputs, "embedding", RELEVANCE, special="keep",
                            attention=["mix.layers.0.self_attn"]), "need_weights")
    assert "Hugging Face" not in str(error)


@case("B11")
def attention_maps_of_other_families():
    """DeBERTa gives its maps on demand, T5 as its third entry: both are read rightly, or named in the message."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    inputs = sentences(3, 6)
    deberta = DebertaV2ForSequenceClassification(DebertaV2Config(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3,
        max_position_embeddings=32, relative_attention=True, pos_att_type=["c2p"], attn_implementation="eager")).eval()
    names = ["deberta.encoder.layer.0.attention.self"]
    asked = partial(tokens.attribute, deberta, layer="deberta.embeddings", method=RELEVANCE, special="keep", attention=names)
    refused(partial(asked, inputs), "output_attentions")
    assert asked(inputs | {"output_attentions": True}).shape == (3, 6)
    t5 = T5Classifier().eval()
    names = [f"t5.encoder.block.{block}.layer.0.SelfAttention" for block in (0, 1)]
    asked = partial(tokens.attribute, t5, inputs, "t5.encoder.embed_tokens", "attention-rollout", special="keep")
    with torch.no_grad():
        kept = t5.t5(**inputs, output_attentions=True).attentions
    rolled = torch.eye(6)
    for weights in kept:
        rolled = (weights.mean(dim=1) + torch.eye(6)) / 2 @ rolled
    assert close(asked(attention=[f"{name}#2" for name in names]), rolled.mean(dim=1)), "the entry is named"
    right_or_refused(partial(asked, attention=names), rolled.mean(dim=1), "#")


@case("B12")
def a_traced_model():
    """A traced or scripted model has no layers to read: that is said, and its inputs can still be read."""
    model, inputs = Pair().eval(), pairs()
    expected = capture(model, inputs, "input:images", 1).gradients["input:images"]
    with warnings.catch_warnings(record=True):  # PyTorch's, that this will go
        traced = torch.jit.trace(model, example_kwarg_inputs=inputs)
    refused(partial(capture, traced, inputs, "conv", 1), "script")
    right_or_refused(lambda: capture(traced, inputs, "input:images", 1).gradients["input:images"], expected, "script")


@case("B13")
def a_module_under_two_names():
    """A layer that is known under two names can be read by both."""
    class Shared(Pair):
        def __init__(self):
            super().__init__()
            self.text = nn.ModuleDict({"words": self.embedding})

    model, inputs = Shared().eval(), pairs()
    expected = capture(model, inputs, "embedding", 1).gradients["embedding"]
    right_or_refused(lambda: capture(model, inputs, "text.words", 1).gradients["text.words"], expected, "'embedding'")


@case("B15")
def one_call_of_an_encoder_for_two_pictures():
    """Grad-CAM by the library at the second call of a shared encoder is that of the picture that went through it then."""
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.head = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), nn.Linear(8, 3)

        def forward(self, colour, depth):
            return self.head(torch.cat([self.encoder(colour).mean(dim=(2, 3)), self.encoder(depth).mean(dim=(2, 3))], dim=1))

    inputs = {"colour": torch.rand(4, 1, 8, 8), "depth": torch.rand(4, 1, 8, 8)}
    parts = [ImageCells(name, name, layer=f"encoder@{i}") for i, name in enumerate(inputs)]
    model = Twice().eval()
    own, library = (explain(model, inputs, parts, method).values for method in ("hires-cam", "hires-cam (library)"))
    assert set(own) == set(library) == {"colour", "depth"}
    for name in own:  # the library scales each map by itself, and cells of a few pixels are summed after enlarging
        both = torch.stack([own[name].flatten(), library[name].flatten()])
        assert not own[name].any() or torch.corrcoef(both)[0, 1] > 0.7, name
    found = explain(model, inputs, parts, "integrated gradients").joint()
    assert found.isfinite().all()


@case("B17")
def a_quantised_model():
    """Where quantised layers give no gradient that is said, and what works without one is named and does work."""
    with warnings.catch_warnings(record=True):  # PyTorch's, that this will go
        model = torch.ao.quantization.quantize_dynamic(Pair().eval(), {nn.Linear}, dtype=torch.qint8)
    inputs, modalities = pairs(), [ImageCells(), Tokens()]
    refused(partial(rounds, model, inputs, modalities, progress=False), "quanti")
    refused(partial(capture, model, inputs, "embedding"), "quanti")
    table = Game(model, inputs, modalities, progress=False).values_of_all()
    assert table.isfinite().all() and close(explain(model, inputs, modalities, "exact shapley").joint().sum(dim=1),
                                            table[:, -1] - table[:, 0], 1e-4)


@case("B18")
def padding_is_no_player():
    """Sentences padded far beyond their words have as many players as words, and their Shapley values are the same."""
    inputs, model = pairs(4, words=4), Rule(lambda seen, said: seen * said + said).eval()
    inputs["tokens"] = inputs["tokens"].clamp(max=3)
    longer = inputs | {"tokens": torch.nn.functional.pad(inputs["tokens"], (0, 17))}
    expected = explain(model, inputs, [ImageCells(), Tokens()], "exact shapley").values["text"]
    found = explain(model, longer, [ImageCells(), Tokens()], "exact shapley").values["text"]
    assert close(found[:, :4], expected) and found[:, 4:].isnan().all()


@case("B5")
def vectors_of_frames():
    """Frames as vectors (N, T, D) say that they have to be flat, and then work."""
    model, inputs = _Film().eval(), {"video": torch.rand(3, 4, 3, 8, 8), "tokens": torch.randint(2, DRAWN, (3, 3))}
    refused(partial(explain, model, inputs, [Vectors("video", "video"), Tokens()], NORM), "Video")
