"""A traceback of another library came: the answer is right instead, or refused in our own words."""

import copy
import warnings
from functools import partial

import torch
from torch import nn

from benchmarks.strangers import by_hand, case, close, doors, refused, right_or_refused
from benchmarks.strangers.hugging_face import (
    Diagonal,
    blip,
    dual,
    last_token,
    llava,
    lxmert,
    vilt,
    visual_bert,
    words_of,
)
from benchmarks.strangers.models import DRAWN, FirstWord, Pair, Prompted, Towered, pairs
from crossexplain import Called, Game, ImageCells, Tokens, Vectors, capture, explain, rounds
from crossexplain.coalitions import shapley
from crossexplain.evaluation.task import CannotRun
from crossexplain.gradients.tokens import merge_words

NORM = "gradient norm"
ASKED = (NORM, "cross gradient", "integrated gradients", "feature ablation", "sampled shapley")


class _Tensor(nn.Module):
    """One tensor of a model's output, and nothing else: what is right for outputs that hold more."""

    def __init__(self, model, name):
        super().__init__()
        self.model, self.name = model, name

    def forward(self, **inputs):
        return getattr(self.model(**inputs), self.name)


@case("C1")
def outputs_of_hugging_face():
    """ViLT, VisualBERT and LXMERT are explained by every kind of method as a wrapper that returns their logits is."""
    for make, name in ((vilt, "logits"), (visual_bert, "logits"), (lxmert, "question_answering_score")):
        model, inputs, parts = make(2)
        wrapper, inside = _Tensor(model, name).eval(), [_inside(part) for part in parts]
        for method in (NORM, "integrated gradients", "exact shapley"):
            expected = _explained(wrapper, inputs, inside, method)
            assert close(_explained(model, inputs, parts, method), expected, 1e-3), (type(model).__name__, method)


def _inside(part):
    """Return a modality for a wrapper that calls its model ``model``."""
    other = copy.copy(part)
    if not part.layer.startswith("input:"):
        other.layer = f"model.{part.layer}"
    return other


def _explained(model, inputs, modalities, method, **settings):
    return explain(model, inputs, modalities, method, budget=32, **settings).joint()


@case("C1")
def tuples_and_dicts_of_logits():
    """A tuple with one tensor, a dict with logits and BLIP's matching head are explained as their logits are."""
    inputs, modalities, plain = pairs(4), [ImageCells(), Tokens()], Pair().eval()
    for form in (lambda z: (z,), lambda z: {"logits": z, "features": z[:, :2]}):
        model = Called(plain, lambda of, given, form=form: form(of(**given)))
        for method in ASKED:
            expected = _explained(plain, inputs, modalities, method)
            assert close(_explained(model, inputs, modalities, method), expected), method
    model, inputs, modalities = blip(2)
    wrapped = Called(model, output="itm_score")
    found = explain(wrapped, inputs, modalities, "feature ablation", target=torch.tensor([0, 1])).values["image"]
    with torch.no_grad():
        hidden = inputs | {"pixel_values": inputs["pixel_values"].clone()}
        hidden["pixel_values"][..., :16, :16] = 0
        whole, without = (model(**given).itm_score for given in (inputs, hidden))
    gained = (whole - whole.mean(dim=1, keepdim=True) - without + without.mean(dim=1, keepdim=True)).diagonal()
    assert close(found[:, 0], gained)


@case("C2")
def a_function_as_target():
    """The logit of one token after a prompt is explained by a function, as a model that returns it alone is."""
    model, inputs, parts = llava(2)
    # With the last word padded the answer would be read at its place; a prompt ends with what is no word.
    refused(lambda: explain(model, inputs, parts, NORM, target=last_token), "reads its answer at the place of that word")
    inputs["input_ids"][:, -1], parts[1].special = 49, (*parts[1].special, 49)

    class One(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, **given):
            return last_token(self.model(**given))

    inside = [_inside(part) for part in parts]
    for method in (NORM, "feature ablation", "exact shapley", "cross gradient"):
        found = explain(model, inputs, parts, method, target=last_token).joint()
        assert close(found, explain(One().eval(), inputs, inside, method).joint()), method
    table = Game(model, inputs, parts, target=last_token, progress=False).values_of_all()
    assert close(torch.from_numpy(shapley.shapley(table.numpy())).nansum(dim=1),
                 explain(model, inputs, parts, "exact shapley", target=last_token).joint().nansum(dim=1), 1e-4)


@case("C3")
def rounds_on_outputs_that_grow_with_the_batch():
    """CLIP, SigLIP, BLIP's cosines and class vectors as many as examples: refused, and right with what was asked for."""
    for kind in ("clip", "siglip"):
        model, inputs, parts = dual(kind, 8)
        refused(partial(rounds, model, inputs, parts, progress=False), "diagonal()")
        refused(partial(rounds, model, inputs, parts, rows=16, progress=False), "diagonal()")
        wrapper = Diagonal(model).eval()
        inside = [parts[0], words_of(wrapper, pad_id=1, attention=None)]
        expected = rounds(wrapper, inputs, inside, progress=False)
        found = rounds(model, inputs, parts, target=lambda output: output.logits_per_image.diagonal(), progress=False)
        for key, of in expected.passes.items():
            assert close(found.passes[key].logits, of.logits, 1e-3), key
    model, inputs, parts = blip(4)
    refused(partial(rounds, model, inputs | {"use_itm_head": False}, parts, progress=False))
    model, inputs = Prompted().eval(), pairs(5, words=3) | {"classes": torch.randn(5, 4)}
    right_or_refused(partial(rounds, model, inputs, [ImageCells(), Tokens()], progress=False),
                     lambda record: record.passes[record.baselines[0], "full"].logits.shape == (5, 5), "common")


@case("C5")
def a_flat_dict_for_a_model_that_takes_none():
    """A model that takes its inputs by position or in one piece says how to call it, and does as it is told."""
    class Star(Pair):
        def forward(self, *args):
            return self.logits(*args)

    class Positional(Pair):
        def forward(self, first, second, /):
            return self.logits(first, second)

    class OneDict(Pair):
        def forward(self, batch):
            return self.logits(batch["images"], batch["tokens"])

    flat, modalities, plain = pairs(), [ImageCells(), Tokens()], Pair().eval()
    for kind in (Star, Positional, OneDict):
        model = kind().eval()
        model.load_state_dict(plain.state_dict())
        for door in [*doors(model, flat, modalities).values(), partial(capture, model, flat, "conv")]:
            refused(door, "Called(")
        call = (lambda of, given: of(given)) if kind is OneDict else (lambda of, given: of(*given.values()))
        found = explain(Called(model, call), flat, modalities, "occlusion").joint()
        assert close(found, explain(plain, flat, modalities, "occlusion").joint())


@case("C6")
def words_first_in_rounds():
    """Layers that hold (T, N, D) in rounds, with more examples than words: right when told, asked for when not."""
    model, inputs = FirstWord(nn.LSTM(4, 4)).eval(), {"images": torch.rand(8, 1, 8, 8), "tokens": torch.randint(2, 20, (8, 5))}
    expected = by_hand(model, inputs, "embedding")[1].norm(dim=2).T
    for layout in ("TND", None):
        record = rounds(model, inputs, [ImageCells(), Tokens(layout=layout)], target=0, progress=False)
        full = record.passes[record.baselines[0], "full"]
        assert close(full.importance["text"] * record.scale["text"][:, None], expected), layout


@case("C7")
def every_mode_of_autograd():
    """Called under no_grad or inference_mode, with inputs or a model made there, every method gives what it gives without."""
    inputs, modalities, model = pairs(4), [ImageCells(), Tokens()], Pair().eval()
    expected = {method: _explained(model, inputs, modalities, method) for method in ASKED}
    record = rounds(model, inputs, modalities, progress=False)
    at_conv = [ImageCells(layer="conv"), Tokens()]
    library = _explained(model, inputs, at_conv, "grad-cam (library)")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            made = {key: value * 1 for key, value in inputs.items()}
            built = Pair().eval()
            built.load_state_dict(model.state_dict())
            inside = {method: _explained(model, made, modalities, method) for method in ASKED}
            again = rounds(model, made, modalities, progress=False)
        for method, right in expected.items():
            assert close(inside[method], right), (mode.__name__, method, "called there")
            assert close(_explained(model, made, modalities, method), right), (mode.__name__, method, "inputs made there")
            assert close(_explained(built, inputs, modalities, method), right), (mode.__name__, method, "built there")
        assert close(_explained(built, made, at_conv, "grad-cam (library)"), library), mode.__name__
        assert again.verdict().answers == record.verdict().answers
        assert close(capture(built, inputs, "conv", 1).gradients["conv"], capture(model, inputs, "conv", 1).gradients["conv"])


@case("C7")
def a_tower_that_runs_without_a_graph():
    """At a tower that runs under no_grad or inference_mode itself the gradient is that of a tower that does not."""
    inputs = pairs(4)
    plain = Towered(torch.enable_grad).eval()
    expected = capture(plain, inputs, "tower", 1).gradients["tower"]
    for mode in (torch.no_grad, torch.inference_mode):
        model = Towered(mode).eval()
        model.load_state_dict(plain.state_dict())
        assert close(capture(model, inputs, "tower", 1).gradients["tower"], expected), mode.__name__
        found = explain(model, inputs, [ImageCells(layer="tower"), Tokens()], NORM).joint()
        assert close(found, explain(plain, inputs, [ImageCells(layer="tower"), Tokens()], NORM).joint()), mode.__name__


@case("C9")
def four_thousand_words():
    """A game of thousands of words is refused with its number of players, not by an overflow."""
    inputs = {"images": torch.rand(2, 1, 8, 8), "tokens": torch.randint(2, DRAWN, (2, 4096))}
    game = Game(Pair().eval(), inputs, [ImageCells(), Tokens()], progress=False)
    refused(game.values_of_all, "4100 players")
    refused(partial(explain, Pair().eval(), inputs, [ImageCells(), Tokens()], "exact shapley"), "4100 players")


@case("C10")
def targets_that_are_none():
    """A target out of range, negative, of another length or type is refused by every door with what it was."""
    inputs, modalities, model = pairs(6), [ImageCells(), Tokens()], Pair().eval()
    for target, words in ((7, ("7", "0 to 2")), (-1, ("-1",)), (torch.tensor([0, 1]), ("2 entries", "6")),
                          (torch.zeros(6), ("float",)), ("surprise", ("'predicted'",)),
                          (lambda output: output, ("one number an example",))):
        for door in doors(model, inputs, modalities, target=target).values():
            refused(door, *words)
    assert close(explain(model, inputs, modalities, "occlusion", target="predicted").joint(),
                 explain(model, inputs, modalities, "occlusion").joint())


@case("C11")
def half_precision():
    """In half precision every method is near what it gives in single precision, or says why it cannot run."""
    plain, inputs = Pair().eval(), pairs(3, side=16)
    parts, target = [ImageCells(layer="conv"), Tokens()], torch.tensor([0, 1, 2])
    for kind in (torch.bfloat16, torch.float16):
        half = Pair().to(kind).eval()
        half.load_state_dict(plain.state_dict())
        plain.load_state_dict({key: value.float() for key, value in half.state_dict().items()})  # the same weights
        given = inputs | {"images": inputs["images"].to(kind)}
        single = inputs | {"images": given["images"].float()}
        for method in ("integrated gradients", "gradient shap", "shapiq shapley", NORM, "grad-cam (library)",
                       "eigen-cam (library)", "grad-cam", "eigen-cam", "occlusion", "l2"):
            expected = _explained(plain, single, parts, method, target=target)
            size = 0.05 * float(expected.nan_to_num().abs().max()) + 1e-3
            right_or_refused(lambda: _explained(half, given, parts, method, target=target),  # noqa: B023
                             lambda found: close(found, expected, size), "float()")  # noqa: B023


@case("C12")
def a_mask_that_is_missing():
    """Vectors whose mask was not passed say so as words do."""
    class Heard(nn.Module):
        def forward(self, sound, images):
            return sound.mean(dim=(1, 2)) + images.mean(dim=(1, 2, 3))

    inputs = {"sound": torch.rand(5, 4, 3), "images": torch.rand(5, 1, 8, 8)}
    modalities = [Vectors("sound", "sound", attention="sound_mask"), ImageCells()]
    for given in (inputs, inputs | {"sound_mask": torch.ones(5, 3)}):
        for door in doors(Heard().eval(), given, modalities).values():
            refused(door, "sound_mask")


@case("C14")
def a_scripted_model():
    """A scripted model has no layers to read: that is said by every door that reads one."""
    inputs, modalities = pairs(), [ImageCells(), Tokens()]
    with warnings.catch_warnings(record=True):  # PyTorch's, that this will go
        scripted = torch.jit.script(Pair().eval())
    refused(partial(capture, scripted, inputs, "conv", 1), "script")
    refused(partial(rounds, scripted, inputs, modalities, progress=False), "script")
    refused(partial(explain, scripted, inputs, modalities, NORM), "script")
    at_inputs = [ImageCells(), Tokens(layer="input:tokens")]
    right_or_refused(lambda: explain(scripted, inputs, at_inputs, "occlusion").joint(), lambda found: found.isfinite().all())


@case("C16")
def word_numbers_as_tokenizers_give_them():
    """Word numbers come as lists with None, and merge as those with -1 do."""
    scores = torch.tensor([[9.0, 1.0, 2.0, 3.0, 9.0], [9.0, 4.0, 5.0, 9.0, 9.0]])
    numbers = [[None, 0, 0, 1, None], [None, 0, 1, None, None]]
    written = torch.tensor([[-1 if word is None else word for word in row] for row in numbers])
    assert merge_words(scores, written).tolist() == [[3.0, 3.0], [4.0, 5.0]]
    assert close(merge_words(scores, numbers), merge_words(scores, written))


@case("C17")
def places_of_the_picture_that_were_hidden():
    """Placeholders of patches that are not said to be special give an error that names the ids that were replaced."""
    model, inputs, (picture, _) = llava(2)
    words = words_of(model, 64, mask_id=None, special=(1,), padding_side="left")
    for door in doors(model, inputs, [picture, words], target=last_token).values():
        refused(door, "50", "special")


@case("C19")
def inputs_that_the_model_itself_refuses():
    """One example of a squeezed model, single for half precision, grey or transparent pictures: all in our own words."""
    class Squeezed(Pair):
        def forward(self, images, tokens):
            return self.logits(images, tokens).squeeze()

    modalities, one = [ImageCells(), Tokens()], pairs(1)
    for door in doors(Squeezed().eval(), one, modalities).values():
        refused(door, "squeeze")
    for door in doors(Pair().half().eval(), pairs(), modalities).values():
        refused(door, "half")
    for channels in (1, 4):
        for door in doors(Pair(3).eval(), pairs(4, channels=channels), modalities).values():
            refused(door, "channels")


@case("C10")
def a_method_that_needs_what_is_not_there():
    """Methods say what they need, options that do not exist are listed, and no library's error comes through."""
    inputs, modalities, model = pairs(3), [ImageCells(), Tokens()], Pair().eval()
    refused(partial(explain, model, inputs, modalities, "Kernel SHAP"), "'kernel shap'")
    refused(partial(explain, model, inputs, modalities, "occlusion", windows=2), "windows", "window")
    for budget in (0, -3, 2.5, True, "many"):
        refused(partial(explain, model, inputs, modalities, "kernel shap", budget=budget), "budget")
    refused(partial(explain, model, inputs, modalities[:1], "grad-cam"), "layer", kind=CannotRun)
    refused(partial(explain, model, inputs, modalities[:1], "cross gradient"), "two")
    refused(partial(explain, model, inputs, modalities, "emap"), "one logit", kind=CannotRun)
