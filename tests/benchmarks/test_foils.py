"""Captions with one word changed: each is false as far as people have told."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks.studies import foils
from benchmarks.studies.foil_pairs import FoilPairs

CAPTIONS = ["Two dogs run on the beach .", "A brown dog chases a red ball .", "An orange dog near the sea .",
            "A man sits behind a big tree .", "Somebody rests ."]


@dataclass(frozen=True)
class Copy:
    """Two photographs with three and two captions."""

    captions: list = field(default_factory=lambda: CAPTIONS)
    splits: dict = field(default_factory=lambda: {"test": np.array([0, 1])})

    def captions_of(self, images):
        return np.array([i for image in images for i in ((0, 1, 2), (3, 4))[image]])


def test_one_word_is_changed_and_the_new_one_is_said_nowhere():
    found = foils.build(Copy(), seed=1)
    assert found.caption.tolist() == [0, 1, 2, 3] and found.image.tolist() == [0, 0, 0, 1]
    for caption, text, change in zip(found.caption, found.texts, found.changes):
        old, new = CAPTIONS[caption].lower().split(), text.lower().split()
        differ = [(a, b) for a, b in zip(old, new) if a != b]
        assert len(old) == len(new) and len(differ) == 1 and change == " -> ".join(differ[0])
    assert foils.build(Copy(), seed=1).texts == found.texts and found.kinds == ["animal", "thing", "animal", "person"]


def test_the_rarer_of_two_words_is_told_without_a_photograph():
    told = Copy(captions=["Two dogs and two cats .", "Two dogs .", "Three horses ."], splits={"train": np.array([0])})
    some = foils.Foils(*[np.zeros(3, int)] * 2, [""] * 3, ["count"] * 3, ["two -> three", "cats -> dogs", "four -> five"])
    assert foils.rarer(told, some).tolist() == [1, 0, 0.5]


@pytest.mark.parametrize("kind, caption, new, never", [
    ("count", 0, {"Three", "Four", "Five", "Six", "Seven"}, {"Two", "One"}),
    ("animal", 0, {"horses", "birds", "cats", "cows"}, {"horse"}),
    ("action", 0, {"jump", "sit", "stand", "walk", "swim", "climb", "sleep", "dance", "eat", "dig"}, {"jumping", "hold"}),
    ("place", 0, {"street", "field", "snow", "forest", "pool", "desert", "kitchen"}, {"ocean", "snowy"}),
    ("colour", 1, {"blue", "green", "white", "black", "purple", "pink", "grey", "gray"}, {"orange", "brown", "tan"}),
    ("person", 3, {"woman", "boy", "girl"}, {"men"}),
])
def test_words_change_for_their_kind_in_their_form(kind, caption, new, never):
    known = set(foils.WORD.findall(" ".join(CAPTIONS[:3] if caption < 3 else CAPTIONS[3:]).lower()))
    found = {word for _, word in foils.changes(CAPTIONS[caption], kind, known)}
    assert found <= new | {"yellow"} and len(found) >= 3 and not found & never


def test_what_comes_close_is_no_foil():
    assert not foils.changes("One dog runs .", "count", {"one", "dog"}), "in the singular grammar alone would tell"
    assert not foils.changes("A boat on a lake .", "place", {"boat", "pond", "river", "ocean", "rock", "house"})
    words = {word for _, word in foils.changes("An orange ball .", "colour", {"orange", "ball"})}
    assert not words, "no other colour keeps its article"


def test_a_run_reads_every_caption_and_right_after_it_its_foil():
    told = SimpleNamespace(names=["beach.jpg", "tree.jpg"], keys=[f"key {i}" for i in range(5)], splits=Copy().splits,
                           captions=CAPTIONS, image_of=np.array([0, 0, 0, 1, 1]),
                           captions_of=lambda which: Copy().captions_of([0, 1] if which == "test" else which))
    entries = list((source := FoilPairs(told)).entries())
    assert source.describe()["foils"] == 4 and len({entry.key for entry in entries}) == len(entries) == 9
    assert [entry.columns["label"] for entry in entries] == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    for caption, foil in zip(entries[:8:2], entries[1:8:2]):
        (name, text), (same, changed) = caption.load.args, foil.load.args
        assert foil.key == f"{caption.key}|foil" and name == same == caption.columns["image"] == foil.columns["image"]
        old, new = foil.columns["change"].split(" -> ")
        assert changed.lower() == text.lower().replace(old, new, 1) and caption.columns["kind"] == foil.columns["kind"]
    assert entries[8].columns["kind"] == "none"  # "Somebody rests ." has no word to change
