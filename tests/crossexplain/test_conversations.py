import dataclasses

import numpy as np
import pytest
import torch
from sklearn.ensemble import HistGradientBoostingClassifier

from crossexplain.checks import InputError
from crossexplain.data import conversations, digits, voices
from crossexplain.data.conversation_draws import values_of
from crossexplain.data.conversation_sounds import MELS, STEPS, TONES, Sounds, heard, mel_power
from crossexplain.data.conversation_truth import DIGIT
from crossexplain.data.conversation_words import FORMS, NUMBERS, decode
from crossexplain.data.conversations import (
    KIND_MODALITIES,
    KINDS,
    MODALITIES,
    NAMES,
    SIDE,
    ConversationQuestion,
    K,
    L,
    Reference,
    S,
    T,
    Turn,
    load,
    truth,
)

ALL = load()
BATCH = ALL.build("test", 1200, seed=0)
INPUTS = BATCH.inputs()
FEATURES = ("words", "frames", "sound")
PAIRS = ("words and frames", "words and sound", "frames and sound")
WHO = ("who by words", "who by frames", "who by sound")


def in_words(turns, text):
    """Answer a question word by word, with nothing shared with the package."""
    words = [word for word in text.replace("can you say ", "").replace("tell me ", "").split()]
    said = {"said": "said", "named": "said", "mentioned": "said", "dialled": "dialled", "keyed": "dialled", "tapped": "dialled"}
    verbs = said | dict.fromkeys(("showed", "shown", "presented", "displayed"), "shown")
    nth = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
    if "numbers" in words:
        if "turn" in words:
            chosen = [turns[nth.index(words[words.index("turn") - 1])]]
        else:
            chosen = [turn for turn in turns if turn.party in words]
        numbers = [getattr(turn, name) for turn in chosen for name in ("said", "shown", "dialled")]
        numbers = [number for number in numbers if number is not None]
        assert len(numbers) == 3
    else:
        numbers, places = [], []
        for i in [i for i, word in enumerate(words) if word in verbs]:
            if words[i + 1:i + 2] == ["in"]:
                places.append(nth.index(words[i + 3]))
            else:
                own = [t for t, turn in enumerate(turns)
                       if turn.party == words[i - 1] and getattr(turn, verbs[words[i]]) is not None]
                which = "before" if words[i + 1:] == ["before", "it"] else words[i - 4]
                own = [t for t in own if t < places[0]] if which == "before" else own
                assert which in ("first", "second", "last", "before") or len(own) == 1
                places.append(own[{"first": 0, "second": 1, "last": -1, "before": -1}.get(which, 0)])
            numbers.append(getattr(turns[places[-1]], verbs[words[i]]))
    limit = NUMBERS.index(words[-1]) if words[-1] in NUMBERS else None
    if {"even", "odd"} & set(words):
        return sum(numbers) % 2 == ("odd" in words)
    if {"add", "sum"} & set(words):
        return sum(numbers) > limit if "more" in words else sum(numbers) < limit
    if {"larger", "bigger", "greater"} & set(words):
        return numbers[0] > numbers[1] if limit is None else all(number > limit for number in numbers)
    if {"smaller", "lower", "less"} & set(words):
        return numbers[0] < numbers[1] if limit is None else all(number < limit for number in numbers)
    differ = {"different", "unequal"} & set(words) or "other" in words and "no" not in words
    return (numbers[0] == numbers[1]) != bool(differ)


def test_every_label_is_what_the_question_says_and_what_truth_says():
    for i in range(0, len(BATCH), 3):
        turns, question = BATCH.turns(i), BATCH.question_of(i)
        assert in_words(turns, question.text) == truth(turns, question) == BATCH.labels[i], question.text


@pytest.mark.parametrize("part", ["train", "validation", "test"])
def test_the_answer_is_yes_in_half_of_each_kind_and_each_unit(part):
    batch = ALL.build(part, 240, seed=1)
    assert batch.labels.dtype == bool
    assert {kind: (batch.kinds == kind).sum() for kind in KINDS} == dict.fromkeys(KINDS, 16)
    for of in (batch.kind, batch.unit):
        assert all(batch.labels[of == one].mean() == 0.5 for one in np.unique(of))


def before_it(batch):
    """Return the conversations whose second number is the one before the first, and a way to ask about others' digits."""
    rows = np.flatnonzero(batch.references[:, 1, 1] == FORMS.index("before"))
    modality, _, place = batch.references[rows, 1].T
    return rows, modality, place, batch.references[rows, 0, 2]


@pytest.mark.parametrize("kind", PAIRS)
def test_a_number_before_another_has_foils_that_do_not_count(kind):
    batch = ALL.build("train", 640, seed=5, kinds=[kind])
    rows, modality, place, it = before_it(batch)
    assert 0.1 < len(rows) / len(batch) < 0.5 and (place < it).all()
    assert all(batch.labels[batch.unit == unit].mean() == 0.5 for unit in batch.unit[rows])
    named = set()
    for i, m, near, anchor in zip(rows, modality, place, it):
        turns, question = batch.turns(i), batch.question_of(i)
        assert question.text.endswith("before it") and question.references[1].form == "before"
        own = [t for t, turn in enumerate(turns) if turn.party == turns[near].party and batch.digits[i, t, m] >= 0]
        assert max(t for t in own if t <= anchor) == near and any(t > anchor for t in own)
        name, named = DIGIT[MODALITIES[m]], named | {question.references[0].form}
        for t in own:  # another digit there, or none
            value = getattr(turns[t], name)
            other = [truth([*turns[:t], dataclasses.replace(turns[t], **{name: new}), *turns[t + 1:]], question)
                     for new in range(10) if new != value]
            assert (set(other) != {batch.labels[i]}) == (t == near)
            gone = [*turns[:t], dataclasses.replace(turns[t], **{name: None}), *turns[t + 1:]]
            assert t == near or truth(gone, question) == batch.labels[i]
    assert named == {"only", "first", "second", "last", "turn"}


def test_a_number_before_another_is_not_known_by_a_simpler_name():
    batch = ALL.build("train", 1600, seed=6, kinds=["words and sound"])
    rows, modality, place, _ = before_it(batch)
    own = (batch.party[rows] == batch.party[rows, place][:, None]) & (batch.digits[rows, :, modality[0]] >= 0)
    first, last = own.argmax(axis=1), T - 1 - own[:, ::-1].argmax(axis=1)
    assert 0.4 < (first == place).mean() < 0.8 and not (last == place).any()


def test_the_last_number_of_a_party_and_the_one_before_it_may_have_an_earlier_one():
    batch = ALL.build("train", 1600, seed=5, kinds=["order by words"])
    rows, _, place, it = before_it(batch)
    own = (batch.party[rows] == batch.party[rows, place][:, None]) & (batch.digits[rows, :, 0] >= 0)
    assert set(own.sum(axis=1)) == {2, 3} and 0.1 < len(rows) / len(batch) < 0.4
    assert all(np.flatnonzero(one)[-2:].tolist() == [near, anchor] for one, near, anchor in zip(own, place, it))


def best_of_subset(batch, seen):
    """Share that is right of who knows each example by heart, but for the modalities that it does not see."""
    parts = [batch.question, batch.party] + [batch.digits[:, :, i] for i in range(3) if MODALITIES[i] in seen]
    keys = np.concatenate([*parts, batch.seeds], axis=1)  # the seeds: each turn is recognised wherever it stands
    _, number = np.unique(keys, axis=0, return_inverse=True)
    yes = np.bincount(number, batch.labels)
    return np.maximum(yes, np.bincount(number) - yes).sum() / len(batch)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("redundant", "added")])
def test_who_lacks_a_deciding_modality_is_right_in_half_and_the_others_do_not_help(kind):
    batch = ALL.build("train", 160, seed=4, kinds=[kind])
    for mask in range(8):
        seen = {name for i, name in enumerate(MODALITIES) if mask >> i & 1}
        assert best_of_subset(batch, seen) == (1.0 if seen >= set(KIND_MODALITIES[kind]) else 0.5), seen


def test_a_classifier_of_fewer_modalities_learns_nothing():
    for kind in ("words and frames", "parity"):
        train, test = (ALL.build(part, 1600, seed=0, kinds=[kind]) for part in ("train", "test"))
        lacking = [np.where(np.arange(3) == MODALITIES.index("frames"), -1, values_of(one.digits, one.references))
                   for one in (train, test)]
        columns = [np.concatenate([values, one.flipped[:, None]], axis=1) for values, one in zip(lacking, (train, test))]
        model = HistGradientBoostingClassifier(random_state=0).fit(columns[0], train.labels)
        assert abs(model.score(columns[1], test.labels) - 0.5) < 1e-9


def test_each_modality_of_the_redundant_kind_is_enough():
    batch = ALL.build("train", 160, seed=4, kinds=["redundant"])
    assert all(best_of_subset(batch, {name}) == 1.0 for name in MODALITIES)
    assert best_of_subset(batch, set()) == 0.5


@pytest.mark.parametrize("kind", WHO)
def test_the_same_content_by_others_turns_the_answer_round(kind):
    batch = ALL.build("test", 80, seed=0, kinds=[kind])
    one, other = np.arange(80).reshape(-1, 4)[:, :2].ravel(), np.arange(80).reshape(-1, 4)[:, 2:].ravel()
    assert (batch.labels[one] != batch.labels[other]).all() and (batch.party[one] != batch.party[other]).any(1).all()
    first, second = batch.inputs(one), batch.inputs(other)
    same = [name for name in first if name not in ("party", "sound")]  # a digit is dialled in the timbre of the party
    assert all(torch.equal(first[name], second[name]) for name in same)


@pytest.mark.parametrize("kind", ["order by words", "order by frames", "order by sound"])
def test_the_same_turns_at_other_times_turn_the_answer_round(kind):
    batch = ALL.build("test", 80, seed=0, kinds=[kind])
    inputs = batch.inputs()
    for start in range(0, 80, 4):
        for i in (start, start + 1):
            assert batch.labels[i] != batch.labels[i + 2]
            for name in ("party", *FEATURES):
                turns = [inputs[name][j].reshape(T, -1) for j in (i, i + 2)]
                assert sorted(map(tuple, turns[0].tolist())) == sorted(map(tuple, turns[1].tolist()))


def test_a_unit_differs_in_what_decides_and_in_nothing_else():
    """Every feature that differs within a unit, of the kinds whose turns stay in place, is a deciding chunk."""
    for kind in ("words", "frames", "sound", "words and frames", "frames and sound", "parity", "redundant", "added"):
        batch = ALL.build("train", 64, seed=2, kinds=[kind])
        inputs, chunks = batch.inputs(), batch.truth.chunks
        for name in ("frames", "sound"):
            for unit in np.unique(batch.unit):
                rows = np.flatnonzero(batch.unit == unit)
                differs = (inputs[name][rows] != inputs[name][rows[:1]]).any(2).numpy().any(0)
                assert (differs <= chunks[name][rows[0]]).all()
        assert torch.equal(inputs["question"], inputs["question"][np.unique(batch.unit, return_index=True)[1]][
            np.unique(batch.unit, return_inverse=True)[1]])


def test_the_truth_of_a_batch_is_that_of_its_references():
    decided = BATCH.truth
    for i in range(0, len(BATCH), 7):
        turns, question = BATCH.turns(i), BATCH.question_of(i)
        places = [(place, MODALITIES.index(one.modality)) for place, one in
                  zip(conversations.places_of(turns, question.references), question.references)]
        assert set(map(tuple, np.argwhere(decided.cells[i]))) == set(places)
        assert set(np.flatnonzero(decided.turns[i])) == {turn for turn, _ in places}
        assert {NAMES[p] for p in np.flatnonzero(decided.parties[i])} == {turns[turn].party for turn, _ in places}
        for name, width in (("words", L), ("frames", K), ("sound", S)):
            chunks = {turn * width + at for turn, m in places if MODALITIES[m] == name for at in turns[turn].chunks[name]}
            assert set(np.flatnonzero(decided.chunks[name][i])) == chunks
            assert bool(chunks) == (name in KIND_MODALITIES[BATCH.kinds[i]])
        said = [decode(INPUTS["words"][i][at:at + 1]) for at in np.flatnonzero(decided.words[i])]
        assert said == [NUMBERS[turns[turn].said] for turn, m in sorted(places) if m == 0]


def test_a_digit_is_in_one_or_two_frames_and_in_one_segment():
    holding = BATCH._holding()
    frames, sound = holding["frames"].reshape(-1, K).sum(1), holding["sound"].reshape(-1, S).sum(1)
    shown, dialled = BATCH.digits[:, :, 1].ravel() >= 0, BATCH.digits[:, :, 2].ravel() >= 0
    assert set(frames[shown]) == {1, 2} and not frames[~shown].any()
    assert set(sound[dialled]) == {1} and not sound[~dialled].any()


def test_emptied_conversations_hold_no_digit_and_keep_the_rest():
    inputs, holding = BATCH.emptied().inputs(), BATCH._holding()
    assert not any(number in {*range(9, 26)} for number in inputs["words"].unique().tolist())
    for name in ("frames", "sound"):
        assert torch.equal(inputs[f"{name}_present"], INPUTS[f"{name}_present"])
        assert ((inputs[name] != INPUTS[name]).any(2).numpy() == holding[name]).all()
    assert torch.equal(inputs["question"], INPUTS["question"]) and torch.equal(inputs["party"], INPUTS["party"])


def test_inputs_are_as_described_and_ragged():
    n = len(BATCH)
    assert INPUTS["frames"].shape == (n, T * K, SIDE**2) and INPUTS["sound"].shape == (n, T * S, MELS * STEPS)
    assert INPUTS["words"].shape == (n, T * L) and INPUTS["party"].shape == (n, T)
    assert 0 <= INPUTS["frames"].min() and INPUTS["frames"].max() <= 1 and INPUTS["sound"].min() == 0
    for name in ("frames", "sound"):
        assert not INPUTS[name][~INPUTS[f"{name}_present"]].any() and torch.isfinite(INPUTS[name]).all()
    assert set(INPUTS["frames_present"].reshape(-1, K).sum(1).tolist()) == {0, 1, 2, 3}
    turns = (INPUTS["party"] > 0).sum(1)
    assert turns.unique().tolist() == [4, 5, 6, 7, 8]
    assert {len(set(row[row > 0].tolist())) for row in INPUTS["party"]} == {2, 3, 4}
    assert ALL.build("train", 120, 0, turns=6).party.astype(bool).sum(1).tolist() == [6] * 120
    some = BATCH.inputs([5, 700])
    assert all(torch.equal(some[name], INPUTS[name][[5, 700]]) for name in INPUTS)
    batch, labels = BATCH.batch([5])
    assert labels.dtype == torch.bool and batch["party"].shape == (1, T)


def test_a_seed_gives_the_same_and_another_seed_or_part_something_else():
    first, again, other = (ALL.build("train", 120, seed) for seed in (3, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(first.inputs().values(), again.inputs().values()))
    assert (first.party != other.party).any()
    assert (first.party != ALL.build("test", 120, 3).party).any()


def test_parts_share_no_digit_and_no_sound():
    parts = {part: ALL.build(part, 120, 0) for part in ("train", "validation", "test")}
    held = digits.split(digits.load("sklearn"))
    assert {name: len(batch.frames_of.tiles) for name, batch in parts.items()} == {name: len(one) for name, one in held.items()}
    sounds = [np.concatenate(batch.sounds_of.digits).reshape(-1, MELS * STEPS) for batch in parts.values()]
    assert len(np.unique(np.concatenate(sounds), axis=0)) == sum(map(len, sounds))


def test_groups_partition_what_is_there():
    for by, many in (("turn", T), ("party", len(NAMES)), ("chunk", T * (2 + K + S))):
        names, owner = BATCH.groups(by)
        assert len(names) == many == len(set(names))
        for name, numbers in owner.items():
            present = INPUTS["words"] > 0 if name == "words" else INPUTS[f"{name}_present"]
            assert torch.equal(numbers >= 0, present) and numbers.max() < many
            turn = torch.arange(numbers.shape[1]) // (numbers.shape[1] // T)
            if by == "turn":
                assert (numbers[present] == turn.expand_as(numbers)[present]).all()
            elif by == "party":
                assert (numbers[present] == INPUTS["party"].gather(1, turn.expand_as(numbers))[present] - 1).all()
            else:
                label = [int(each.split()[-1]) - 1 for each in names]
                assert (torch.tensor(label)[numbers[present]] == turn.expand_as(numbers)[present]).all()
    with pytest.raises(InputError, match="'turn'"):
        BATCH.groups("speaker")


def test_tones_are_where_the_standard_says():
    edges = 700 * (10 ** (np.linspace(*2595 * np.log10(1 + np.array([150, 3800]) / 700), MELS + 2) / 2595) - 1)
    time = np.arange(3840) / 8000
    for low, high in TONES.values():
        power = mel_power(np.sin(2 * np.pi * low * time) + np.sin(2 * np.pi * high * time)).mean(1)
        assert {np.abs(edges[1:-1] - tone).argmin() for tone in (low, high)} <= set(np.argsort(power)[-4:])
    assert TONES["1"] == (697, 1209) and TONES["0"] == (941, 1336)
    assert heard(mel_power(np.zeros(3840))).max() == 0


def test_own_conversations_of_one_turn_one_party_or_without_a_modality():
    asked = ConversationQuestion("above", (Reference("words", "ben"),), threshold=4)
    two = [Turn("ben", said=3), Turn("ben", shown=9, without=("sound", "words"))]
    batch = ALL.of([[Turn("ben", said=7)], two], [asked] * 2)
    inputs = batch.inputs()
    assert batch.labels.tolist() == [True, False] and (inputs["party"] > 0).sum(1).tolist() == [1, 2]
    assert not inputs["words"][1, L:].any() and not inputs["sound_present"][1, S:].any() and not inputs["sound"][1, S:].any()
    assert inputs["frames_present"][1, K:].any()
    assert batch.turns(0)[0].said == 7 and "seven" in batch.turns(0)[0].words
    assert dataclasses.replace(batch.question_of(1), text="") == asked


def test_before_it_is_the_nearest_number_before_the_turn_of_the_first_one():
    turns = [Turn("mia", said=1), Turn("ben", shown=3), Turn("mia", said=5), Turn("mia", shown=4), Turn("ben", shown=7, said=2),
             Turn("mia", said=7)]
    near = Reference("words", "mia", "before")
    for first, number in ((Reference("frames", "ben", "second"), 5), (Reference("frames", "ben", "first"), 1),
                          (Reference("frames", form="turn", turn=3), 5)):
        shown = turns[conversations.places_of(turns, [first])[0]].shown
        for said in range(10):
            changed = [dataclasses.replace(turn, said=said) if turn.said == number else turn for turn in turns]
            assert truth(changed, ConversationQuestion("same", (first, near))) == (said == shown)
            assert truth(changed, ConversationQuestion("more", (first, near))) == (shown > said)
    batch = ALL.of([turns], [ConversationQuestion("same", (Reference("frames", "ben", "last"), near), flipped=True)])
    assert batch.labels.tolist() == [True] and np.flatnonzero(batch.truth.turns[0]).tolist() == [2, 4]
    assert batch.question_of(0).text.endswith("that mia " + batch.question_of(0).text.split()[-3] + " before it")


def test_no_question_is_cut_off():
    ends = {decode(row).split()[-1] for row in ALL.build("train", 6000, seed=7).question}
    verbs = "said named mentioned showed presented displayed shown dialled keyed tapped gave".split()
    assert ends <= {*verbs, *NUMBERS, "turn", "it", "number"}, ends


ASKED = ConversationQuestion("above", (Reference("words", "ben"),), threshold=4)


@pytest.mark.parametrize(("turns", "question", "message"), [
    ([], ASKED, "has 0 turns, expected 1 to 8"),
    ([Turn("ben", said=1)] + [Turn("mia")] * 39, ASKED, "has 40 turns, expected 1 to 8; cut"),
    ([Turn("bne", said=1)], ASKED, "like it: 'ben'"),
    ([Turn("ben", said=10)], ASKED, "said=10, expected a digit"),
    ([Turn("ben", said=float("nan"))], ASKED, "said=nan, expected a digit"),
    ([Turn("ben", said=1, without=("words",))], ASKED, "none in what it is without"),
    ([Turn("ben", without=("text",))], ASKED, "what a turn is without"),
    ([Turn("ben", shown=1)], ASKED, "has 0 such number"),
    ([Turn("ben", said=1), Turn("ben", said=2)], ASKED, "has 2 such number"),
    ([Turn("ben", said=1)], ConversationQuestion("same", ASKED.references), "got 1 references"),
    ([Turn("ben", said=1)], ConversationQuestion("above", (Reference("words", form="turn", turn=3),)), "has 0 such number"),
    ([Turn("ben", shown=1), Turn("mia", said=1)], ConversationQuestion("same", (
        Reference("frames", "ben"), Reference("words", "mia", "before"))), "has 0 such number"),
    ([Turn("ben", said=1)], ConversationQuestion("above", (Reference("words", "ben", "before"),)), "before \\(the first"),
    ([Turn("ben", said=1)], ConversationQuestion("larger", ASKED.references), "the task"),
])
def test_what_cannot_be_a_conversation_is_told(turns, question, message):
    with pytest.raises(InputError, match=message):
        ALL.of([turns], [question])


@pytest.mark.parametrize(("arguments", "message"), [
    ({"split": "dev"}, "the split"), ({"n": 100}, "multiple of 120"), ({"kinds": ["gist"]}, "the kind"),
    ({"turns": 1}, "from 3 to 8"), ({"turns": 40}, "from 3 to 8"), ({"turns": 4.5}, "a whole number"),
])
def test_what_cannot_be_built_is_told(arguments, message):
    with pytest.raises(InputError, match=message):
        ALL.build(**{"split": "train", "n": 120, "seed": 0} | arguments)
    with pytest.raises(InputError, match="the source"):
        load("radio")


@pytest.mark.parametrize(("wave", "rate", "message"), [
    (np.zeros(4000), 16000, "got a sound of 16000 samples a second, expected 8000; resample"),
    (np.zeros(0), 8000, "at least one sample"), (np.zeros((2, 3, 4)), 8000, "average the channels"),
    ([0.0, np.nan, np.inf], 8000, "2 of 3 samples are NaN"),
])
def test_a_sound_that_cannot_be_read_is_told(wave, rate, message):
    with pytest.raises(InputError, match=message):
        mel_power(wave, rate)


def test_sounds_of_waves_take_any_length_and_say_what_is_missing():
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, n).astype(np.float32) for n in range(300, 300 + 200 * 20, 200)]
    speakers = ["ann"] * 10 + ["bob"] * 10
    sounds = Sounds.of_waves(waves, np.tile(np.arange(10), 2), speakers, "train")
    assert len(sounds.digits) == 20 and sounds.digits[13].shape == (1, MELS, STEPS)
    drawn = sounds.draw(np.array([0, 1]), np.array([3, -1]), np.array([5, 6]))
    assert drawn.shape == (2, S, MELS, STEPS) and np.isfinite(drawn).all()
    with pytest.raises(InputError, match="lacks a digit"):
        Sounds.of_waves(waves[:19], np.arange(19) % 10, speakers[:19], "train")


def test_real_voices_keep_everything_but_the_sound():
    try:
        real = voices.load()
    except FileNotFoundError as missing:
        pytest.skip(str(missing))
    batch = load("fsdd").build("test", 1200, seed=0)
    inputs = batch.inputs()
    assert all(torch.equal(inputs[name], INPUTS[name]) for name in INPUTS if name != "sound")
    assert (inputs["sound"] != INPUTS["sound"]).any() and torch.isfinite(inputs["sound"]).all()
    parts = voices.split(real)
    assert not set(real.speakers[parts["train"]]) & set(real.speakers[parts["test"]])
