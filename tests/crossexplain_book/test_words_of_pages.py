"""Words of any script: what is drawn is the word, at the place where it is read, or it is refused by name."""

import warnings

import numpy as np
import pytest
from bs4 import BeautifulSoup
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from IPython.core.formatters import DisplayFormatter
from matplotlib import font_manager
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from crossexplain.checks import InputError
from crossexplain.intervals import Interval
from crossexplain_book import figures
from crossexplain_book.pictures import HtmlPicture, Picture, named
from crossexplain_book.writing import columns, directed, from_right, left_to_right, lettering, spelled_out

KIT = {"alt": "Made-up words whose finding is plain", "caption": "A finding. Read it so.", "name": "fig-x"}
HALF = Interval(0.5, 0.4, 0.6, 10)
CHINESE = "一只 小狗 在 草地".split()
ARABIC = "قطة صغيرة على العشب".split()
HEBREW = "שלום עולם יפה".split()
SPECIAL = ["$x_1$", "$5", r"\alpha", r"\$", "_it_", "^2", "{a}", "<b>", "&amp;", "a&b", '"', "'", "%", "#1", "**", "`", "|", ""]


@pytest.fixture
def own_fonts(monkeypatch):
    """Only the fonts that come with matplotlib, whatever else is installed here."""
    fonts = [entry for entry in font_manager.fontManager.ttflist if "mpl-data" in entry.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", fonts)
    return fonts


def drawn(*words: str, **options) -> Picture:
    return figures.tokens([list(words)], [np.linspace(0, 1, len(words))], **KIT, **options)


def ink(text: str, **options) -> bytes:
    """Return the pixels of a text, cut to what is drawn, as the figures draw it or with other fonts."""
    figure = Figure(figsize=(3, 0.6), dpi=100)
    FigureCanvasAgg(figure)
    artist = figure.text(0.1, 0.3, text, fontsize=20, parse_math=False, family=options.get("family", "monospace"))
    if not options:
        Picture(figure, **KIT)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())[..., 0] < 128  # (H, W)
    assert artist.get_text() == text
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    return b"" if not len(rows) else pixels[rows[0]:rows[-1] + 1, columns[0]:columns[-1] + 1].tobytes()


def missing(text: str) -> bytes:
    """Return the pixels of a text in the font whose every glyph says that there is none."""
    return ink(text, family="Last Resort High-Efficiency")


def places(picture: Picture) -> list[str]:
    """Return the words of the first line from the left."""
    texts = [text for text in picture.figure.axes[0].texts if text.get_fontsize() > 7]
    return [text.get_text().lstrip("\u200e\u200f") for text in sorted(texts, key=lambda text: text.get_position()[0])]


@pytest.mark.parametrize("words", [ARABIC, HEBREW, ["😀", "😂", "😎"], ["Ωμέγα", "слово", "Ġword", "▁word", "naïve"]],
                         ids=["Arabic", "Hebrew", "emoji", "Greek, Russian, pieces"])
def test_what_is_drawn_is_the_word_and_no_box(own_fonts, words):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # matplotlib warns of each glyph that it does not find
        assert isinstance(drawn(*words), Picture) and drawn(*words).png()
        pictures = [ink(word) for word in words]
    assert len(set(pictures)) == len(words), "different words look alike"
    assert all(pictures) and not set(pictures) & {missing(word) for word in words}


def test_arabic_letters_are_joined_and_accents_stand_on_their_letter(own_fonts):
    joined, apart = ink("\u0628\u0628\u0628"), ink("\u0628\u200c\u0628\u200c\u0628")
    assert joined != apart  # the sign in between forbids to join
    assert ink("cafe\u0301") == ink("café") != ink("cafe")


@pytest.mark.parametrize("words", [CHINESE, ["dog", "🐶"], ["👩‍👩‍👧"], ["नमस्ते", "दुनिया"], ["สวัสดี"]])
def test_words_that_no_font_has_are_text_for_the_browser(own_fonts, words):
    picture = drawn(*words)
    assert isinstance(picture, HtmlPicture)
    assert [tag.text for tag in BeautifulSoup(picture.html(), "html.parser").select(".ce-token-word")] == words
    with pytest.raises(InputError, match=r"'fig-x' is HTML and has no PNG: no installed font can draw '.' [(]U[+].*words.html"):
        picture.png()


@pytest.fixture
def tiny_font(own_fonts, tmp_path, monkeypatch):
    """A font of two characters, a square and a cross, and one that it lists and leaves empty."""
    def outline(*corners):
        pen = TTGlyphPen(None)
        for path in corners:
            pen.moveTo(path[0])
            for corner in path[1:]:
                pen.lineTo(corner)
            pen.closePath()
        return pen.glyph()

    builder = FontBuilder(1000, isTTF=True)
    names = [".notdef", "small", "dog", "empty"]
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord("小"): "small", ord("狗"): "dog", ord("空"): "empty"})
    builder.setupGlyf({".notdef": outline(), "empty": outline(),
                       "small": outline([(50, 0), (50, 800), (850, 800), (850, 0)]),
                       "dog": outline([(50, 350), (50, 450), (850, 450), (850, 350)],
                                      [(400, 0), (400, 800), (500, 800), (500, 0)])})
    builder.setupHorizontalMetrics({name: (900, 50) for name in names})
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Two Characters", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(tmp_path / "two.ttf")
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(own_fonts))
    font_manager.fontManager.addfont(tmp_path / "two.ttf")


def test_a_font_that_has_the_characters_is_found_and_used(tiny_font):
    assert lettering("小狗", font_manager.FontProperties(family="monospace")) == (["monospace", "Two Characters"], "")
    assert isinstance(drawn("小狗", "dog"), Picture)
    assert len({ink("小"), ink("狗"), missing("小")}) == 3
    assert isinstance(drawn("小狗", "空"), HtmlPicture)  # the font lists it and draws nothing, as fonts of coloured pictures do


@pytest.mark.parametrize(("draw", "named"), [
    (lambda: figures.heat_map([[1.0]], ["a"], ["小狗"], label="x", **KIT), "'小'.*U[+]5C0F"),
    (lambda: figures.gallery(np.zeros((1, 1, 4, 4)), {"狗": np.ones((1, 2, 2))}, **KIT), "'狗'.*U[+]72D7"),
    (lambda: figures.maps(np.zeros((1, 1, 4, 4)), np.ones((1, 2, 2)), titles=["🐶"], **KIT), "U[+]1F436"),
    (lambda: figures.curves({"小": ([1, 2], [1, 2])}, xlabel="x", ylabel="y", **KIT), "Noto Sans"),
    (lambda: figures.intervals({"小": HALF}, xlabel="x", **KIT), "tokens_html"),
])
def test_labels_that_no_font_has_are_refused_by_name(own_fonts, draw, named):
    with pytest.raises(InputError, match=named):
        draw()


def test_labels_of_any_script_that_a_font_has_are_drawn(own_fonts):
    labels = ["قطة", "שלום", "😀", "$a$ and $b$"]
    pictures = [figures.heat_map(np.eye(4), labels, labels, label="x", bold=[0], **KIT),
                figures.intervals({label: HALF for label in labels}, xlabel="x", **KIT),
                figures.curves({label: ([1, 2], [1, 2]) for label in labels}, xlabel="x", ylabel="y", **KIT),
                figures.gallery(np.zeros((1, 1, 4, 4)), {label: np.ones((1, 2, 2)) for label in labels}, titles=labels[:1],
                                **KIT)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert all(picture.png() for picture in pictures)
    for picture in pictures:
        texts = [text for text in picture.figure.findobj(lambda artist: hasattr(artist, "get_parse_math"))
                 if text.get_text() in labels]
        assert len(texts) >= 4 and not any(text.get_parse_math() for text in texts)


@pytest.mark.parametrize("word", [word for word in SPECIAL if word])
def test_signs_of_formulas_and_of_html_are_drawn_as_they_are(word):
    (text,) = (text for text in drawn(word).figure.axes[0].texts if text.get_text() == word)
    figure = text.figure
    FigureCanvasAgg(figure)
    width = text.get_window_extent(figure.canvas.get_renderer()).width
    text.set_text("n" * len(word))  # as many letters of a font in which all have one width
    assert abs(text.get_window_extent(figure.canvas.get_renderer()).width - width) <= 0.08 * width + 4


def test_the_text_for_the_browser_holds_each_word_once_its_number_and_its_colour():
    scores = np.linspace(-1, 1, len(SPECIAL))
    scores[3] = np.nan
    options = {"titles": ["<i>$a$</i>"], "cues": [np.arange(len(SPECIAL)) == 1], "signed": True}
    picture, text = (make([SPECIAL], [scores], **options, **KIT) for make in (figures.tokens, figures.tokens_html))
    page = BeautifulSoup(text.html(), "html.parser")
    assert [tag.text for tag in page.select(".ce-token-word")] == SPECIAL
    assert page.select_one(".ce-tokens-title").text == "<i>$a$</i>" and not page.select("i, b")
    assert page.select_one("[role=group]")["aria-label"] == KIT["alt"]
    assert [tag.text for tag in page.select(".ce-token-cue .ce-token-word")] == [SPECIAL[1]]
    assert [tag.text for tag in page.select(".ce-token-none .ce-token-word")] == [SPECIAL[3]]
    numbers = [tag.text for tag in page.select(".ce-token-score")]
    assert numbers == [t.get_text() for t in picture.figure.axes[0].texts if t.get_fontsize() < 7]
    faces = [to_hex(patch.get_facecolor()) for patch in picture.figure.axes[0].patches]
    assert [tag["style"].split(";")[0].removeprefix("background:") for tag in page.select(".ce-token-word")] == faces


def test_the_text_for_the_browser_is_a_figure_of_the_page(tmp_path):
    text = figures.tokens_html([ARABIC], [[0.1, 0.2, 0.3, 0.4]], **KIT)
    data, metadata = DisplayFormatter().format(text)
    assert data["text/html"] == text.html() and data["text/plain"] == KIT["alt"] and metadata["crossexplain"] == KIT
    page = BeautifulSoup(text.save(tmp_path / "x.html").read_text("utf-8"), "html.parser")
    assert page.select_one(".ce-tokens-line")["dir"] == "rtl" and page.meta["charset"] == "utf-8"
    with pytest.raises(ValueError, match="has 2 words"):
        figures.tokens_html([["a"]], [[1.0]], **{**KIT, "alt": "two words"})
    with pytest.raises(ValueError, match="sentence 0 has 1 tokens and 2 scores"):
        figures.tokens_html([["a"]], [[1.0, 2.0]], **KIT)


@pytest.mark.parametrize(("words", "expected"), [
    (ARABIC, ARABIC[::-1]),
    (["he", "said", *HEBREW, "twice"], ["he", "said", *HEBREW[::-1], "twice"]),
    (["אני", "אוהב", "New", "York", "!"], ["!", "New", "York", "אוהב", "אני"]),
    (["מחיר", "12", "ש"], ["ש", "12", "מחיר"]),
    (["שלום", "(", "hello", ")", "world"], ["world", ")", "hello", "(", "שלום"]),
    (["12", "(", "a", ")"], ["12", "(", "a", ")"]),
    (["x"], ["x"]),
])
def test_the_first_word_stands_where_its_script_begins(words, expected):
    assert places(drawn(*words)) == expected


def test_a_sentence_from_the_right_ends_at_the_right_edge_and_wraps_there():
    words = ARABIC * 6
    axis = drawn(*words, titles=["عنوان"]).figure.axes[0]
    texts = [text for text in axis.texts if 7 < text.get_fontsize() < 9]
    texts.sort(key=lambda text: (text.get_position()[1], -text.get_position()[0]))
    assert [text.get_text().lstrip("\u200f") for text in texts] == words
    right = {}
    for patch in axis.patches:
        right[patch.get_y()] = max(right.get(patch.get_y(), 0), patch.get_x() + patch.get_width())
    assert len(right) > 1 and all(abs(edge - axis.get_xlim()[1]) < 0.01 for edge in right.values())
    (title,) = (text for text in axis.texts if text.get_fontweight() == "bold")
    assert title.get_ha() == "right" and title.get_position()[0] == axis.get_xlim()[1]


def test_brackets_of_a_word_face_the_way_in_which_it_is_read():
    assert directed("(", True) == "\u200f(" and directed("(", False) == "("
    assert ink(directed("(", True)) == ink(")") != ink("(")
    assert directed("(שלום", False)[0] == "\u200e"


def test_control_characters_are_spelled_out_and_wide_ones_have_room():
    assert spelled_out("a\tb\x00\u2028\ud800") == r"a\tb\x00\u2028\ud800"
    assert drawn("one\ntwo", "\x07").png() and "one\\ntwo" in places(drawn("one\ntwo", "\x07"))
    assert (columns("小狗"), columns("caf\u0065\u0301"), columns("👩\u200d👩")) == (4, 4, 4)
    assert named("小狗在草") == "'小' (U+5C0F), '狗' (U+72D7), '在' (U+5728) and 1 more"


def test_an_example_whose_words_no_font_has_is_a_picture_with_text_below(own_fonts):
    example = figures.example(np.zeros((1, 8, 8)), np.ones((2, 2)), CHINESE, [0.1, np.nan, 0.3, 0.4], title="一 $a$", **KIT)
    page = BeautifulSoup(example.html(), "html.parser")
    assert page.img["alt"] == KIT["alt"] and page.img["src"].startswith("data:image/png")
    assert [tag.text for tag in page.select(".ce-token-word")] == CHINESE
    assert page.select_one(".ce-tokens-title").text == "一 $a$"
    assert isinstance(figures.example(np.zeros((1, 8, 8)), np.ones((2, 2)), HEBREW, [0.1, 0.2, 0.3], **KIT), Picture)


def test_a_line_without_letters_is_read_from_the_left():
    assert from_right(["12", "!", "3"]) == (False, [False] * 3) and from_right([]) == (False, [])
    assert left_to_right(False, []) == []
