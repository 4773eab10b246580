"""Figures of conversations: every turn, party and modality is drawn where and how it is known, or refused by name."""

import numpy as np
import pytest
from bs4 import BeautifulSoup
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from PIL import Image

from crossexplain.checks import InputError
from crossexplain.intervals import Interval
from crossexplain_book import figures, readers
from crossexplain_book.strips import BOX, EMPTY, PAPER, PARTY_COLOURS, Strip
from support.talks import talk

KIT = {"alt": "A made-up conversation whose finding is plain", "caption": "A finding. Read it so.", "name": "fig-x"}
HALF = Interval(0.5, 0.4, 0.6, 10)
DIVIDENDS = {("words",): Interval(0.1, -0.1, 0.3, 9), "frames": -0.4, "sound": 0.0, ("words", "frames"): HALF,
             ("words", "frames", "sound"): Interval(4.0, 3.5, 4.4, 9), (): -1.0}


def texts(picture) -> list[str]:
    return [text.get_text() for axis in picture.figure.axes for text in axis.texts]


def drawn_boxes(picture, colour) -> list[Rectangle]:
    return [patch for patch in picture.figure.axes[0].patches if patch.get_edgecolor()[:3] == to_rgb(colour)]


@pytest.mark.parametrize(("turns", "values"), [(1, True), (4, False), (8, True), (40, True)])
def test_a_strip_of_any_length_is_drawn_on_an_opaque_ground(turns, values, tmp_path):
    path = figures.film_strip(talk(turns, values=values), **KIT).save(tmp_path / "x.png")
    pixels = np.asarray(Image.open(path).convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and pixels[0, 0, :3].min() > 245
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 20
    assert path.stat().st_size < 60_000 * (turns + 1)


@pytest.mark.parametrize("turns", [6, 8])
def test_up_to_eight_turns_fit_beside_both_side_bars(turns):
    assert figures.film_strip(talk(turns), **KIT).figure.get_figwidth() * 100 <= 696


def test_turns_parties_words_and_what_is_missing_are_named():
    shown = texts(figures.film_strip(talk(4), **KIT))
    assert [word for word in shown if word.startswith("turn")] == ["turn 1", "turn 2", "turn 3", "turn 4"]
    assert [name for name in shown if name[2:] in ("ben", "mia", "zoe")] == ["● ben", "■ mia", "▲ zoe", "● ben"]
    assert shown.count("larger") == 2 and "decides" in shown  # a word stands in the conversation and in its attribution
    assert shown.count(EMPTY["words"]) == 2 and shown.count(EMPTY["frames"]) == 1 and shown.count(EMPTY["sound"]) == 1


def test_what_decides_is_framed_and_a_deciding_word_is_underlined():
    strip = talk(4)
    marked, plain = (figures.film_strip(Strip(strip.parties, strip.words, strip.frames, strip.sound, values=strip.values,
                                              **known), **KIT)
                     for known in ({"deciding": strip.deciding, "chunks": strip.chunks}, {}))
    assert len(drawn_boxes(marked, BOX)) == 6 and not drawn_boxes(plain, BOX)  # turn, frame and segment, above and below
    assert len(marked.figure.axes[0].lines) - len(plain.figure.axes[0].lines) == 2
    assert "decides" not in texts(plain)


def test_all_modalities_share_one_scale_and_zero_is_white():
    strip = talk(4)
    values = {name: [np.zeros_like(row) for row in rows] for name, rows in strip.values.items()}
    values["sound"][1][2], values["frames"][2][0], values["words"][1][0] = 2.0, -2.0, np.nan
    picture = figures.film_strip(Strip(strip.parties, strip.words, strip.frames, strip.sound, values=values), **KIT)
    axis, bar = picture.figure.axes
    faces = {tuple(np.round(patch.get_facecolor(), 3)) for patch in axis.patches if patch.get_fill()}
    assert len(faces) == 4 and bar.get_xlim() == (-2, 2)  # for, against, nothing, and white for what has no value
    assert {"+2.0", "-2.0", "+0.0"} <= set(texts(picture)) and "-0.0" not in texts(picture)


def test_a_long_word_is_cut_and_signs_stay_what_they_are():
    words = [["antidisestablishmentarianism" * 3, "$x$"], ["قطة", "صغيرة"]]
    strip = Strip(["$ben$_with_a_name_that_never_ends", "дядя"], words)
    shown = texts(figures.film_strip(strip, **KIT))
    assert any(word.startswith("antidis") and word.endswith("…") for word in shown) and "$x$" in shown and "■ дядя" in shown


def test_a_name_that_no_font_has_is_refused_by_name(monkeypatch):
    fonts = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    with pytest.raises(InputError, match="no installed font can draw '小'"):
        figures.film_strip(Strip(["小明"], [["yes"]]), **KIT)


def test_a_strip_scrolls_by_itself_and_counts_as_one_picture():
    picture = figures.film_strip(talk(8), **KIT)
    data, metadata = DisplayFormatter().format(picture)
    page = BeautifulSoup(data["text/html"], "html.parser")
    assert data["image/png"] and metadata["crossexplain"].items() >= KIT.items() and page.img["alt"] == KIT["alt"]
    assert "overflow-x:auto" in page.div["style"] and page.div["tabindex"] == "0" and "max-width:none" in page.img["style"]


def luminance(colour) -> float:
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("colour", PARTY_COLOURS)
def test_a_party_can_be_read_on_paper(colour):
    assert (luminance(PAPER) + 0.05) / (luminance(colour) + 0.05) >= 4.5


@pytest.mark.parametrize(("change", "why"), [
    ({"parties": []}, "at least one turn"),
    ({"words": [["a"]]}, "words of 1 turns and the parties of 2"),
    ({"frames": np.zeros((3, 1, 4, 4))}, r"frames of shape \(3, 1, 4, 4\), expected .*T = 2"),
    ({"sound": np.zeros((2, 4))}, r"sound of shape \(2, 4\)"),
    ({"deciding": [True]}, r"deciding of shape \(1,\)"),
    ({"values": {"smell": [[1.0], [1.0]]}}, "'smell', the strip has frames, words, sound"),
    ({"values": {"words": [[1.0], [1.0]]}}, r"words are \[1, 1\] by turn, expected \[2, 1\]"),
    ({"values": {"frames": [[1.0, np.inf], [1.0, 1.0]]}}, "infinity"),
    ({"chunks": {"sound": [[True], [True, False]]}}, r"chunks of sound are \[1, 2\]"),
])
def test_what_does_not_fit_is_refused(change, why):
    fits = {"parties": ["ben", "mia"], "words": [["a", "b"], ["c"]], "frames": np.zeros((2, 2, 4, 4)),
            "sound": np.zeros((2, 6, 3))}
    Strip(**fits)
    with pytest.raises(InputError, match=why):
        Strip(**(fits | change))


def test_a_curve_of_turns_marks_the_turn_that_decides_and_draws_shares():
    picture = figures.turn_curve({"one": [1.0, -3.0, 0.0], "two": [HALF] * 3}, deciding=[False, True, False],
                                 parties=["ben", "mia", "$b$"], **KIT)
    axis = picture.figure.axes[0]
    assert axis.lines[0].get_ydata().tolist() == [0.25, -0.75, 0.0] and axis.lines[1].get_ydata().tolist() == [0.5] * 3
    (band,) = [patch for patch in axis.patches if isinstance(patch, Rectangle)]
    assert band.get_x() < 2 < band.get_x() + band.get_width() and "decides" in texts(picture)
    assert [label.get_text() for label in axis.get_xticklabels()] == ["1\nben", "2\nmia", "3\n$b$"]
    raw = figures.turn_curve({"one": [1.0, -3.0]}, shares=False, **KIT)
    assert raw.figure.axes[0].lines[0].get_ydata().tolist() == [1.0, -3.0]
    with pytest.raises(InputError, match=r"got \[2, 3\] turns"):
        figures.turn_curve({"one": [1.0, 2.0]}, deciding=[True, False, False], **KIT)
    with pytest.raises(InputError, match="'one' hold NaN"):
        figures.turn_curve({"one": [1.0, np.nan]}, **KIT)


def test_parties_keep_their_colour_in_all_methods():
    rows = {"one": {"ben": HALF, "mia": HALF}, "two": {"mia": HALF}}
    figure = figures.party_shares(rows, expected={"ben": 0.3, "mia": 0.7}, **KIT).figure
    axis = figure.axes[0]
    dots = [(line.get_color(), line.get_marker()) for line in axis.lines if line.get_marker() not in ("None", None, "")]
    assert sorted(dots) == sorted([(PARTY_COLOURS[0], "o"), (PARTY_COLOURS[1], "s"), (PARTY_COLOURS[1], "s")])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["ben", "mia", "by its turns alone"] and [t.get_text() for t in axis.get_yticklabels()] == ["one", "two"]
    figures.party_shares({"ben": HALF}, **KIT)


def test_a_lattice_shows_every_subset_once_and_marks_what_is_clear_of_zero():
    axis, bar = figures.lattice(DIVIDENDS, **KIT).figure.axes
    boxes = {text.get_text().split("\n")[0]: text for text in axis.texts}
    assert set(boxes) == {"nothing", "words", "frames", "sound", "words + frames", "words + sound", "frames + sound",
                          "words + frames + sound"}
    assert boxes["words + frames + sound"].get_text().split("\n")[1:] == ["+4.00", "[+3.50, +4.40]"]
    assert boxes["words + sound"].get_text() == "words + sound" and bar.get_xlim() == (-4, 4)
    wide = {name for name, text in boxes.items() if text.get_bbox_patch().get_linewidth() > 2}
    assert wide == {"words + frames", "words + frames + sound"}
    heights = {name: text.get_position()[1] for name, text in boxes.items()}
    assert heights["nothing"] < heights["words"] == heights["sound"] < heights["words + sound"]
    assert heights["words + sound"] < heights["words + frames + sound"]
    assert len(axis.lines) == 12  # the edges of a cube


def test_a_lattice_writes_no_minus_before_a_zero():
    axis, _ = figures.lattice({"words": -0.001, "frames": Interval(0.2, -0.004, 0.4, 9), "sound": -0.01}, **KIT).figure.axes
    numbers = {text.get_text().split("\n")[0]: text.get_text().split("\n")[1:] for text in axis.texts}
    assert numbers["words"] == ["+0.00"] and numbers["sound"] == ["-0.01"]
    assert numbers["frames"] == ["+0.20", "[+0.00, +0.40]"]


def test_a_lattice_of_something_else_is_refused():
    figures.lattice({"image": 1.0, "text": 0.0, ("image", "text"): HALF}, **KIT)
    with pytest.raises(InputError, match=r"got the modalities \['words'\]"):
        figures.lattice({"words": 1.0}, **KIT)
    with pytest.raises(InputError, match=r"names \['taste'\]"):
        figures.lattice(DIVIDENDS | {("taste", "words"): 1.0}, **KIT)


def test_a_generated_conversation_is_drawn_as_it_is():
    data = pytest.importorskip("crossexplain.data.conversations")
    batch = data.load().build("test", 8 * len(data.KINDS), 0)
    for i in range(0, len(batch), 7):
        turns, inputs = batch.turns(i), batch.inputs([i])
        rows = {name: np.arange(data.T * width) for name, width in data.WIDTH.items()}
        strip = readers.conversation(batch, i, rows)
        assert list(strip.parties) == [turn.party for turn in turns] and strip.question.endswith("?")
        assert [" ".join(words) for words in strip.words] == [turn.words for turn in turns]
        for t, turn in enumerate(turns):
            assert all(strip.has(name, t) == (name not in turn.without) for name in data.MODALITIES)
            for name, known in strip.chunks.items():
                assert not known[t].any() or tuple(np.flatnonzero(known[t])) == turn.chunks[name]
                assert list(strip.values[name][t]) == list(rows[name][t * data.WIDTH[name]:][:len(known[t])])
        k = np.argmax(np.isfinite(strip.frames[:, 0, 0, 0]))
        assert np.allclose(strip.frames[k, 0].reshape(-1), inputs["frames"][0, k * data.K])
        loud = inputs["sound"][0].reshape(data.T, data.S, data.MELS, data.STEPS)[:len(turns)].numpy()
        s = np.argmax(np.isfinite(strip.sound[:, 0, 0]))
        assert np.allclose(strip.sound[s, data.STEPS:2 * data.STEPS].T, loud[s, 1])
    figures.film_strip(strip, **KIT).png()
