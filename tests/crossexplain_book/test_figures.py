import matplotlib
import numpy as np
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib.colors import to_rgb
from PIL import Image

from crossexplain.intervals import Interval
from crossexplain_book import figures
from crossexplain_book.page import CLAIM, ClaimError, Page, Quiz, table
from crossexplain_book.pictures import ink_on

WORDS = {"alt": "A made-up picture whose finding is plain", "caption": "A finding.", "name": "fig-x"}
RNG = np.random.default_rng(0)
IMAGES, HEATS = RNG.random((2, 3, 16, 16)), RNG.normal(size=(2, 4, 4))
SOME = Interval(0.5, 0.4, 0.6, 10)

PICTURES = {
    "maps": lambda: figures.maps(IMAGES, HEATS, signed=True, titles=["a", "b"], boxes=[[1, 1, 5, 5]] * 2, **WORDS),
    "grey": lambda: figures.maps(IMAGES[:, :1], np.abs(HEATS), **WORDS),
    "gallery": lambda: figures.gallery(IMAGES, {"one": HEATS, "two": HEATS * 0}, signed=True, **WORDS),
    "one scale": lambda: figures.gallery(IMAGES, {"one": HEATS, "two": HEATS / 9}, signed=True, shared=True, **WORDS),
    "rounds": lambda: figures.tokens([["a", "b"]] * 2, [[1.0, 2.0], [0.1, 0.2]], shared=True, **WORDS),
    "tokens": lambda: figures.tokens([["a", "b"] * 30, ["c"]], [RNG.normal(size=60), [0.0]], signed=True, **WORDS),
    "example": lambda: figures.example(IMAGES[0], HEATS[0], ["a", "b"], [1.0, np.nan], signed=(True, False), **WORDS),
    "one scale for words": lambda: figures.example(IMAGES[0], HEATS[0] ** 2, ["a"] * 20, np.zeros(20), largest=9.0, **WORDS),
    "intervals": lambda: figures.intervals({"x": SOME, "y": SOME}, xlabel="share", baseline=0.5, **WORDS),
    "ratios": lambda: figures.intervals({"x": SOME}, xlabel="ratio", baseline=1.0, logx=True, **WORDS),
    "groups": lambda: figures.intervals({"a": {"x": SOME}, "b": {"x": SOME, "y": SOME}}, xlabel="share", **WORDS),
    "ranking": lambda: figures.ranking(IMAGES, HEATS, ["1. a cat, +3.2", "2. $5 and a dog"], signed=True,
                                       **WORDS),
    "absent": lambda: figures.absent("fig-absent", "The weights of this picture are not here."),
    "heat map": lambda: figures.heat_map(HEATS[0], list("abcd"), list("wxyz"), label="share", signed=True, numbers=".1f",
                                         bold=[1], after=[2], **WORDS),
    "curves": lambda: figures.curves({"a": ([1, 2], [1, 2]), "b": ([1, 2], [2, 1], [1, 0], [3, 2])}, xlabel="epoch",
                                     ylabel="share", **WORDS),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_picture_draws_something_on_an_opaque_ground(name, tmp_path):
    path = PICTURES[name]().save(tmp_path / "a folder" / "x.png")
    pixels = np.asarray(Image.open(path).convert("RGBA"))
    assert (pixels[..., 3] == 255).all() and pixels[0, 0, :3].min() > 245
    assert len(np.unique(pixels.reshape(-1, 4), axis=0)) > 20
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]


def test_a_picture_takes_its_words_along_and_needs_them():
    data, metadata = DisplayFormatter().format(PICTURES["intervals"]())
    assert data["image/png"] and metadata["crossexplain"].items() >= WORDS.items()
    with pytest.raises(ValueError, match="has 2 words"):
        figures.curves({"a": ([1], [1])}, xlabel="", ylabel="", alt="a curve", caption="x", name="fig-y")
    with pytest.raises(ValueError, match="caption is empty"):
        figures.curves({"a": ([1], [1])}, xlabel="", ylabel="", **{**WORDS, "caption": " "})
    with pytest.raises(ValueError, match="2 words and scores of shape"):
        figures.example(IMAGES[0], HEATS[0], ["a", "b"], [1.0], **WORDS)
    with pytest.raises(ValueError, match="2 tokens and 1 scores"):
        figures.tokens([["a", "b"]], [[1.0]], **WORDS)


def test_a_heat_map_is_centred_at_zero_leaves_undefined_cells_empty_and_names_its_rows():
    values = np.array([[1.0, -4.0, np.nan], [0.0, 2.0, 3.0]])
    axis, bar = figures.heat_map(values, ["a", "b"], ["x", "y", "z"], label="share", signed=True, numbers=".0f", bold=[1],
                                 **WORDS).figure.axes
    mesh = axis.collections[0]
    assert mesh.get_clim() == (-4, 4) and bar.get_ylabel() == "share" and mesh.get_array().mask.sum() == 1
    assert [text.get_text() for text in axis.texts] == ["1", "-4", "0", "2", "3"]
    assert [label.get_fontweight() for label in axis.get_xticklabels()] == ["normal", "bold", "normal"]
    with pytest.raises(ValueError, match=r"shape \(2, 3\) for 2 rows and 2 columns"):
        figures.heat_map(values, ["a", "b"], ["x", "y"], label="share", **WORDS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_maps_with_holes_are_refused(value):
    holes = HEATS.copy()
    holes[1, 0, :2] = value
    with pytest.raises(ValueError, match="heat maps hold 2 values that are NaN or infinite"):
        figures.maps(IMAGES, holes, **WORDS)
    with pytest.raises(ValueError, match="heat maps of 'two' hold 2 values"):
        figures.gallery(IMAGES, {"one": HEATS, "two": holes}, **WORDS)


def test_there_is_one_score_and_one_cue_for_each_token():
    with pytest.raises(ValueError, match="sentence 1 has 1 tokens and 2 scores"):
        figures.tokens([["a", "b"], ["c"]], [[1.0, 2.0], [1.0, 2.0]], **WORDS)
    with pytest.raises(ValueError, match="sentence 0 has 2 tokens and 1 cues"):
        figures.tokens([["a", "b"]], [[1.0, 2.0]], cues=[[True]], **WORDS)


def test_a_figure_of_pyplot_is_not_shown_twice():
    import matplotlib.pyplot as plt

    figure, _ = plt.subplots()
    figures.Picture(figure, **WORDS)
    assert not plt.fignum_exists(figure.number)


def test_a_claim_that_the_run_does_not_bear_out_stops_the_page():
    page = Page("01")
    claim = page.claim("01-better", "It beats chance.", Interval(0.8, 0.7, 0.9, 50), above=0.5)
    assert "**Claim holds.**" in str(claim) and claim.data[CLAIM]["claim"] == "01-better"
    with pytest.raises(ClaimError, match="does not hold.*Measured 0.800.* interval to lie above 0.750"):
        page.claim("01-much-better", "It beats it by far.", Interval(0.8, 0.7, 0.9, 50), above=0.75)
    with pytest.raises(ClaimError):
        page.claim("01-worse", "It is worse.", Interval(0.8, 0.7, 0.9, 50), below=0.85)
    with pytest.raises(ValueError, match="got 2 rules"):
        page.claim("01-two", "Two.", SOME, above=0.1, below=0.9)
    page.claim("01-alike", "It is chance.", SOME, about=(0.4, 0.6))
    with pytest.raises(ClaimError, match="between 0.450 and 0.550"):  # the value would lie there, but not its interval
        page.claim("01-unknown", "It is chance.", SOME, about=(0.45, 0.55))
    assert "The paper's claim does not hold" in str(page.claim("01-p", "P.", SOME, about=(0.7, 0.8), paper=True))
    assert "does not hold" in str(Page("01", size="small").claim("01-s", "S.", SOME, above=0.9))


@pytest.mark.parametrize(("rule", "needs"), [({"above": 0.5}, "above 0.50"), ({"below": 0.5}, "below 0.50"),
                                             ({"about": (0.4, 0.6)}, "between 0.40 and 0.60"),
                                             ({"above": 0}, "above 0"), ({"about": (-0.1, 0)}, "between -0.10 and 0"),
                                             ({"about": (0.5, 0.5)}, "at 0.50"), ({"about": (0, 0)}, "at 0")])
@pytest.mark.parametrize(("n", "basis"), [(1, "over 1 reply"), (2, "over 2 replies"), (1000, "over 1,000 replies")])
@pytest.mark.parametrize("value", [-1.5, 0.0, 0.5, 1.0])
def test_what_was_measured_for_a_claim_is_one_sentence(rule, needs, n, basis, value):
    page = Page("01", size="small")
    words = str(page.claim("01-a", "All is well.", Interval(value, value, value, n), **rule, spec=".2f", unit="reply",
                           plural="replies"))
    sentence = f"Measured {value:.2f} [{value:.2f}, {value:.2f}] {basis}; the claim needs the whole interval to lie {needs}."
    assert words.endswith(f"All is well. {sentence}")
    bare = str(page.claim("01-a", "All is well.", Interval(value, value, value, n), **rule, spec=".2f"))
    assert bare.endswith(sentence.replace(basis, f"with n = {n:,}"))


@pytest.mark.parametrize("key", ["share", "01", "01-", "02-share", "01.share", "01-the_share", "01-Share", "01--share"])
def test_a_key_names_chapter_and_thing(key):
    for record in (lambda page: page.number(key, 1), lambda page: page.claim(key, "It is.", SOME, above=0)):
        with pytest.raises(ValueError, match=f"got the key '{key}', expected .*'01"):
            record(Page("01"))


def test_a_page_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="'embedded' or 'full'"):
        Page("01", profile="huge")
    with pytest.raises(ValueError, match="'page' or 'small'"):
        Page("01", size="tiny")


def test_a_number_is_kept_as_myst_nb_glues_it():
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output
    from myst_nb import glue

    InteractiveShell.instance()
    try:
        with capture_output() as shown:
            Page("01").number("01-share-both", 0.1234, ".1%")
            glue("01-share-both", "12.3%", display=False)
    finally:
        InteractiveShell.clear_instance()
    ours, theirs = shown.outputs
    assert (ours.data, ours.metadata) == (theirs.data, theirs.metadata)


def test_numbers_travel_as_glue_and_provenance_names_the_sources(capsys):
    from types import SimpleNamespace

    page = Page("01", seed=3)
    page.number("01-share-both", 0.1234, ".1%")
    assert page.numbers == {"01-share-both": "12.3%"}
    source = SimpleNamespace(name="mnist", origin="folder")
    assert page.source(source) is source
    text = str(page.provenance())
    assert "| seed | 3 |" in text and "| source of mnist | folder |" in text and "torch" in text
    assert "| makers of mnist | " in text and "terms: " in text, "licences ask for names"


def test_an_exercise_says_what_is_wrong_and_never_stops_the_notebook():
    def check(answer):
        assert answer(2) == 4, "for 2 it should give 4"

    def empty(x):
        raise NotImplementedError

    page = Page("01")
    assert "still empty" in str(page.attempt(check, empty))
    assert "for 2 it should give 4" in str(page.attempt(check, lambda x: x))
    assert "**Not yet:**" in str(page.attempt(check, lambda x: 1 / 0))
    assert "**Right:**" in str(page.attempt(check, lambda x: 2 * x))


def test_a_quiz_has_one_right_answer_and_replies_without_a_script():
    quiz = Quiz("01", [("Is <b> safe?", [("yes", True, "It is `a < b`."), ("no", False, "Look again.")])])
    page = quiz._repr_html_()
    assert "<code>a &lt; b</code>" in page and "Is &lt;b&gt; safe?" in page and "Look again." in page
    assert "<script" not in page and "http" not in page
    with pytest.raises(ValueError, match="exactly one right"):
        Quiz("01", [("?", [("a", True, ""), ("b", True, "")])])


def test_a_table_escapes_its_bars():
    assert "x\\|y" in str(table(["a"], [["x|y"]]))


def test_provenance_carries_the_sources_that_the_run_used():
    from types import SimpleNamespace

    from crossexplain_book.page import RUN

    page = Page("01")
    page.source(SimpleNamespace(name="mnist", origin="data folder"))
    bundle = page.provenance()._repr_mimebundle_()
    assert bundle[RUN] == {"sources": {"mnist": "data folder"}}
    assert "| source of mnist | data folder |" in bundle["text/markdown"]


def test_eight_series_are_told_apart():
    drawn = [figures.intervals({str(i): {"x": SOME} for i in range(8)}, xlabel="share", **WORDS),
             figures.curves({str(i): ([1, 2], [1, 2]) for i in range(8)}, xlabel="x", ylabel="y", **WORDS)]
    for picture in drawn:
        handles = picture.figure.axes[0].get_legend().legend_handles
        looks = {(handle.get_marker(), handle.get_color(), handle.get_markerfacecolor()) for handle in handles}
        assert len(looks) == 8


@pytest.mark.parametrize("name", ["Oranges", "RdBu_r", "inferno", "viridis"])
def test_text_on_every_colour_of_a_map_can_be_read(name):
    def luminance(colour):
        return sum(share * (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)
                   for share, part in zip((0.2126, 0.7152, 0.0722), colour))

    for face in matplotlib.colormaps[name](np.linspace(0, 1, 256)):
        dark, light = sorted((luminance(face), luminance(to_rgb(ink_on(face)))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (face, ink_on(face))
