"""The explorer of conversations without a browser: what is muted is what is asked, and what is stored answers alike."""

import gzip
from base64 import b64decode

import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter

from crossexplain.checks import InputError
from crossexplain_book.assemble import CONTROLS
from crossexplain_book.explorers import ConversationExplorer, Heard
from crossexplain_book.strips import Strip
from support.talks import table, talk

KIT = {"name": "fig-talk", "caption": "An explorer. Read it so."}
TABLES = {0: table(4), 1: table(3, "either", 1), 2: table(4, "words", 2)}
TALKS = [talk(4), talk(3, seed=1), talk(4, seed=2)]


@pytest.fixture
def explorer():
    return ConversationExplorer(None, TALKS, stored=TABLES, labels=[True, False, True], **KIT)


def ticks(explorer, kind: str) -> dict:
    return {tick.description: tick for tick in explorer.boxes[kind].children}


def test_what_is_ticked_is_what_is_asked():
    asked = []

    def ask(example, keep):
        asked.append((example, keep))
        return TABLES[example][keep @ (1 << np.arange(keep.shape[1]))]

    explorer = ConversationExplorer(ask, TALKS, **KIT)
    ticks(explorer, "turn")["turn 4, ben"].value = True
    ticks(explorer, "party")["zoe"].value = True
    ticks(explorer, "modality")["sound"].value = True
    {tick.tooltip: tick for tick in explorer.parts.children}["mute the frames of turn 2, mia"].value = True
    example, keep = asked[-1]
    assert example == 0 and keep.shape == (9, 12)  # eight subsets of what is left, and all
    left = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool).reshape(-1)  # words, frames, sound
    assert (keep[-2] == left).all() and keep[-1].all() and not keep[0].any()
    assert (keep[1].reshape(3, 4) == [[1, 1, 0, 0], [0] * 4, [0] * 4]).all()
    heard = explorer.read(0, turns=[3], parties=["zoe"], modalities=["sound"], parts=[("frames", 1)])
    assert heard.logit == pytest.approx(TABLES[0][left @ (1 << np.arange(12))]) and heard.before == TABLES[0][-1]
    assert f"no (logit {heard.logit:+.2f})" in explorer.message and f"yes (logit {heard.before:+.2f})" in explorer.message


def test_dividends_add_up_and_name_the_order():
    values = {(): -2.0, ("a",): -2.0, ("b",): -1.5, ("c",): -2.0, ("a", "b"): -1.5, ("a", "c"): -2.0, ("b", "c"): -1.5,
              ("a", "b", "c"): 2.5}
    heard = Heard(values, 2.5)
    assert heard.dividends == pytest.approx({(): -2, ("a",): 0, ("b",): 0.5, ("c",): 0, ("a", "b"): 0, ("a", "c"): 0,
                                             ("b", "c"): 0, ("a", "b", "c"): 4})
    assert sum(heard.dividends.values()) == pytest.approx(heard.logit) and heard.rests_on == [("a", "b", "c")]


@pytest.mark.parametrize(("example", "muted", "subsets", "words"), [
    (0, {}, [("words", "frames", "sound")], "rests on the words, the frames and the sound together."),
    (1, {}, [("words",), ("sound",)], "rests on the words alone, or on the sound alone."),
    (1, {"modalities": ["words"]}, [("sound",)], "rests on the sound alone."),
    (2, {"turns": [0, 2, 3]}, [("words",)], "rests on the words alone."),
])
def test_what_an_answer_rests_on(explorer, example, muted, subsets, words):
    from crossexplain_book.conversation_explorer import rest

    heard = explorer.read(example, **muted)
    assert heard.rests_on == subsets and rest(heard.rests_on).endswith(words)


def test_an_answer_that_is_the_same_with_everything_muted_rests_on_nothing(explorer):
    assert explorer.read(0, turns=range(4)).rests_on == []
    for tick in explorer.boxes["turn"].children:
        tick.value = True
    assert "with everything muted, too" in explorer.message and "12 of 12 parts muted" in explorer.picture.alt


def test_another_conversation_begins_with_nothing_muted(explorer):
    ticks(explorer, "turn")["turn 1, ben"].value = True
    explorer.conversation.value = 1
    assert not any(tick.value for tick in explorer._ticks()) and len(explorer.parts.children) == 9
    assert "nothing muted" in explorer.picture.alt and "The truth is no." in explorer.message
    ticks(explorer, "modality")["words"].value = True
    assert "the words of turn 3" in explorer.picture.alt


def test_a_stand_in_can_be_chosen():
    asks = {"silence": lambda example, keep: keep.sum(axis=1) - 6.0, "data": lambda example, keep: torch.ones(len(keep))}
    explorer = ConversationExplorer(asks, TALKS[:1], **KIT)
    assert "yes (logit +6.00)" in explorer.message
    explorer.stand_in.value = "data"
    assert "yes (logit +1.00)" in explorer.message and explorer.read(0, "silence").logit == 6
    assert explorer.page().markup == explorer.picture.markup  # nothing is stored


def test_a_conversation_without_sound_or_frames_has_only_what_it_has():
    strip = Strip(["ben", "mia"], [["yes"], ["no"]])
    explorer = ConversationExplorer(None, [strip], stored={0: [-1.0, 0.5, 1.0, 2.0]}, **KIT)
    assert explorer.read(0).values == {(): -1.0, ("words",): 2.0} and len(explorer.parts.children) == 2


def test_the_page_holds_every_answer_and_none_changes_its_sign(explorer):
    data, metadata = DisplayFormatter().format(explorer)
    assert CONTROLS in data and metadata["crossexplain"]["name"] == KIT["name"] and len(data["text/html"]) < 150_000
    page = BeautifulSoup(data["text/html"], "html.parser")
    assert page.select_one(".ce-conversation")["aria-label"] == explorer.picture.alt
    ones = page.select(".ce-one")
    assert len(ones) == 3 and [one.has_attr("hidden") for one in ones] == [False, True, True]
    assert [option.text for option in page.select("option")] == [f"{i}: was seven shown before it?" for i in (1, 2, 3)]
    for one, stored in zip(ones, TABLES.values()):
        small = np.frombuffer(gzip.decompress(b64decode(one.script.text)), np.int8)
        assert ((small > 0) == (stored > 0)).all() and np.abs(small * float(one["data-step"]) - stored).max() < 0.02
    for button in page.select("button[aria-pressed]"):
        text = " ".join([button.get_text(), *(image["alt"] for image in button.select("img"))])
        assert text.split()[0] == "mute" and button["aria-pressed"] == "false"
    assert all(len(image["alt"].split()) >= 6 for image in page.select("img"))
    assert "turn 2 (mia): the words 'no', frame 2 and segment 3." in page.details.text
    assert all(image["src"].startswith("data:") for image in page.select("[src]")) and "http" not in data["text/html"]


def test_markup_in_words_is_shown_as_it_is():
    strip = Strip(['<b>"x"'], [["<i>a</i>", "$x$"]], question="<script>")
    explorer = ConversationExplorer(None, [strip], stored={0: [-1.0, 1.0]}, **KIT)
    page = BeautifulSoup(explorer.page().markup, "html.parser")
    assert not page.select("b, i") and "<i>a</i> $x$" in page.select_one("td").text + page.select("td")[1].text
    assert page.select_one("[data-party]")["data-party"] == '<b>"x"' and page.select_one(".ce-question").text == "<script>"
    assert page.select_one("[data-part]")["data-part"] == "words 0"


@pytest.mark.parametrize(("make", "why"), [
    (lambda: ConversationExplorer(None, TALKS, stored={0: np.zeros(7)}, **KIT), r"7 logits of conversation 0.* = 4,096"),
    (lambda: ConversationExplorer(None, TALKS, stored={0: np.full(4096, np.nan)}, **KIT), "0 of them finite"),
    (lambda: ConversationExplorer(None, TALKS, stored=TABLES, start=5, **KIT), "cannot begin with conversation 5"),
    (lambda: ConversationExplorer(None, TALKS, **KIT), "cannot begin with conversation 0, there are .. in stored"),
    (lambda: ConversationExplorer(lambda example, keep: [1.0], TALKS, **KIT), "asked for 9 logits, got 1"),
])
def test_what_does_not_fit_is_refused(make, why):
    with pytest.raises(InputError, match=why):
        make()


def test_every_control_has_a_label(explorer):
    assert all(control.description for control in [*explorer._watched, explorer.conversation])
