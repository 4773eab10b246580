"""Dialogues with emotions and their causes: the format, and the head that reads them turn by turn."""

import numpy as np
import pytest
import torch

from crossexplain.checks import InputError
from crossexplain.contract import EncodesParts
from crossexplain.data.dialogues import EMOTIONS, Dialogue, DialogueError, Turn, load, parse
from crossexplain.data.store import MissingSource
from crossexplain.evaluation.methods import explain
from crossexplain.gradients.groups import Groups
from crossexplain.gradients.modalities import Vectors
from crossexplain.models.dialogue import DialogueHead
from crossexplain.models.weights import WeightsError
from crossexplain.recipes import dialogues as recipe
from crossexplain.recipes import load_or_train

FILE = b"""1 3
(2,1),(3,1), (3,3)
1 | Ann | neutral | I sold the car . | Made_Up: 0
2 | Bob | surprise | You did what ? | Made_Up: 1
3 | Ann | joy | And bought a boat ! | Made_Up: 2
2 1

1 | Cy | neutral | Nothing | happened . | Made_Up: 3
3 2
1 | Ann | fear | A wave ! | Made_Up: 4
2 | Bob | anger | I told you . | Made_Up: 5
"""


def made(n: int, seed: int) -> list[Dialogue]:
    """Return dialogues in which a turn is happy where the turn before asks, and else neutral."""
    random, said = np.random.default_rng(seed), (("Ann", "Did we win?"), ("Bob", "The bus is late."))
    dialogues = []
    for number in range(n):
        turns = [Turn(*(said[0][0], "neutral", said[0][1]) if (asks := random.random() < 0.5) else (said[1][0], "neutral",
                                                                                                   said[1][1]))]
        turns += [Turn("Joey", "joy" if asks else "neutral", "We talk."), Turn("Zoe", "neutral", "Hm.")]
        dialogues.append(Dialogue(number, tuple(turns), ((1, 0),) if asks else ()))
    return dialogues


def test_turns_and_pairs_are_read():
    one, two, three = parse(FILE)
    assert one == Dialogue(1, (Turn("Ann", "neutral", "I sold the car ."), Turn("Bob", "surprise", "You did what ?"),
                               Turn("Ann", "joy", "And bought a boat !")), ((1, 0), (2, 0), (2, 2)))
    assert one.causes(2) == (0, 2) and one.causes(0) == ()
    assert two.turns[0].text == "Nothing" and two.pairs == () == three.pairs
    assert parse(FILE.replace(b"\n", b"\r\n")) == [one, two, three]


@pytest.mark.parametrize("old, new, message", [
    (b"2 1\n", b"two 1\n", "line 6: expected the number of a dialogue and how many turns it has"),
    (b"2 1\n", b"2 0\n", "line 6: expected the number"),
    (b"(3,1), (3,3)", b"(3;1)", r"line 2: expected pairs such as '\(3,1\),\(3,3\)'"),
    (b"(2,1)", b"(2,4)", r"line 2: the pair \(2, 4\) names a turn that is not there; there are turns 1 to 3"),
    (b"2 | Bob | surprise", b"4 | Bob | surprise", "line 4: expected turn 2 as"),
    (b"surprise", b"bored", "line 4: got the emotion 'bored', expected one of neutral, joy"),
    (b"And bought a boat !", b" ", "line 5: turn 3 has no words"),
    (b"2 | Bob | anger | I told you . | Made_Up: 5\n", b"", "ends in dialogue 3, which has 1 of its 2 turns"),
    (b"Cy", b"\xff", "line 8: the byte 0xff is not UTF-8"),
])
def test_what_is_not_in_the_format_is_refused_with_its_line(old, new, message):
    with pytest.raises((DialogueError, ValueError), match=message):
        parse(FILE.replace(old, new, 1), "train.txt")


def test_parts_are_read_from_a_folder(tmp_path):
    for name in ("train.txt", "dev.txt"):
        (tmp_path / name).write_bytes(FILE)
    with pytest.raises(MissingSource, match="lacks test.txt"):
        load(tmp_path)
    (tmp_path / "test.txt").write_bytes(FILE)
    assert {name: len(part) for name, part in load(tmp_path).items()} == {"train": 3, "validation": 3, "test": 3}


def test_an_empty_file_is_refused():
    with pytest.raises(ValueError, match="is empty"):
        parse(b"\n\n", "test.txt")


@pytest.fixture
def windows():
    vectors = torch.arange(6.0)[:, None].expand(6, 4) + 1
    return recipe.Windows.of(parse(FILE), vectors)


def test_a_window_ends_in_the_turn_that_is_named(windows):
    inputs, labels = windows.batch(torch.tensor([2, 3]))
    assert labels.tolist() == [EMOTIONS.index("joy"), 0]
    assert inputs["present"].sum(dim=1).tolist() == [3, 1] and inputs["present"][:, -1].all()
    assert inputs["words"][0, :, 0].tolist() == [0] * 7 + [1, 2, 3] and inputs["words"][1, :, 0].tolist() == [0] * 9 + [4]
    assert inputs["speakers"][0, -3:, -1].tolist() == [1, 0, 1] and inputs["speakers"][0, :7].sum() == 0
    assert windows.causes[2].tolist() == [False] * 7 + [True, False, True]
    assert windows.by_others[2].tolist() == [False] * 8 + [True, False]
    assert windows.groups[0][-2:] == ["the turn before", "the turn itself"]


def test_what_the_turn_itself_says_can_be_hidden(windows):
    blind = recipe.Windows.of(windows.dialogues, windows.vectors, own=False).select([2]).inputs()
    assert blind["words"][0, :, 0].tolist() == [0] * 7 + [1, 2, 0]
    assert blind["present"][0, -1] and blind["speakers"][0, -1].any()


def test_windows_of_long_dialogues_are_cut(windows):
    turns = tuple(Turn("Ann", "neutral", str(i)) for i in range(40))
    long = recipe.Windows.of([Dialogue(1, turns, ((39, 0), (39, 38)))], torch.arange(40.0)[:, None])
    assert long.select([39]).inputs()["words"][0, :, 0].tolist() == list(range(30, 40))
    assert long.select([39]).causes[0].tolist() == [False] * 8 + [True, False]


def head(**settings):
    torch.manual_seed(0)
    model = DialogueHead(4, recipe.SPEAKERS, recipe.TURNS, len(EMOTIONS), width=16, **settings).eval()
    if model.context:
        torch.nn.init.normal_(model.out[1].weight)
    return model


def test_parts_join_to_the_same_logits_and_ragged_batches_equal_single_examples(windows):
    model, inputs = head(), windows.inputs()
    assert isinstance(model, EncodesParts)
    whole = model(**inputs)
    parts = {name: model.encode(name, inputs) for name in ("words", "speakers")}
    assert torch.allclose(model.join(parts, inputs), whole)
    for i in range(len(windows)):
        assert torch.allclose(model(**windows.select([i]).inputs())[0], whole[i], atol=1e-6)
    alone = head(context=False)
    first = alone(**inputs)
    assert torch.equal(alone(**inputs | {"speakers": torch.zeros_like(inputs["speakers"])}), first)


def test_what_is_not_there_does_not_count(windows):
    model, inputs = head(), windows.inputs()
    absent = ~inputs["present"][..., None]
    assert torch.allclose(model(**inputs | {"words": inputs["words"].masked_fill(absent, 9.0)}), model(**inputs), atol=1e-6)
    with pytest.raises(ValueError, match="the last turn, whose emotion is named, always there"):
        model(**inputs | {"present": torch.zeros_like(inputs["present"])})


@pytest.mark.parametrize("turns", [1, 4])
def test_a_window_of_another_length_is_refused(windows, turns):
    inputs = {name: part[:, -turns:] for name, part in windows.inputs().items()}
    with pytest.raises(InputError, match=r"expected 10 turns of each example; pad a shorter dialogue in front"):
        head()(**inputs)
    assert head(context=False)(**inputs).shape == (len(windows), 7)
    with pytest.raises(InputError, match=r"10\) turns and .*9\) speakers"):
        head()(**windows.inputs() | {"speakers": windows.inputs()["speakers"][:, 1:]})


def test_values_of_turns_sum_to_what_they_gain(windows):
    model, some = head(), windows.select([1, 2])
    inputs, modalities = some.inputs(), [Vectors("words", "words", layout="NTD"), Vectors("speakers", "speakers", layout="NTD")]
    values = explain(model, inputs, modalities, "exact shapley", target=some.labels, groups=Groups(*some.groups)).joint()
    assert values.isnan().sum(dim=1).tolist() == [8, 7]
    hidden = model(**inputs | {name: torch.zeros_like(inputs[name]) for name in ("words", "speakers")})
    gained = [(of - of.mean(dim=1, keepdim=True))[torch.arange(2), some.labels] for of in (model(**inputs), hidden)]
    assert torch.allclose(values.nansum(dim=1).float(), gained[0] - gained[1], atol=1e-4)


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    parts = {"train": made(60, 0), "validation": made(20, 1), "test": made(20, 2)}
    return recipe.encode(parts, progress=False, where=tmp_path_factory.mktemp("encodings"))


def test_the_head_learns_what_only_the_turn_before_tells_and_is_kept(encoded, tmp_path, monkeypatch):
    monkeypatch.setenv("CROSSEXPLAIN_CACHE", str(tmp_path))
    monkeypatch.setitem(recipe.TRAINING, "page", (30, 5e-3))
    trained = load_or_train("dialogues", encoded=encoded, progress=False, dropout=0.1)
    test = trained.data["test"]
    named = trained.model(**test.inputs()).argmax(dim=1) == test.labels
    assert named.all() and trained.card["accuracy"]["validation"] == 1
    assert [path.suffix for path in sorted((tmp_path / "heads").iterdir())] == [".json", ".safetensors"]
    again = load_or_train("dialogues", encoded=encoded, progress=False, dropout=0.1)
    assert torch.equal(again.model(**test.inputs()), trained.model(**test.inputs())) and again.histories == trained.histories
    alone = recipe.train(encoded=encoded, progress=False, context=False)
    told = alone.model(**test.inputs()).argmax(dim=1)[test.turn == 1]
    assert len(set(told.tolist())) == 1, "the same words are given two emotions without their dialogue"
    monkeypatch.setattr(recipe.checkpoints, "load", lambda *_: (_ for _ in ()).throw(WeightsError("damaged")))
    assert recipe.load(encoded=encoded) is None
