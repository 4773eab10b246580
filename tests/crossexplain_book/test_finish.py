"""Built pages are made light, and nothing that a reader sees gets lost."""

import base64
import io
import re

import numpy as np
import pydata_sphinx_theme
import pytest
from fontTools.ttLib import TTFont
from PIL import Image

from crossexplain_book.finish import _icons, finish, lazy, named, pruned, without_scripts

PAGE = """<html><head><script defer src="_static/scripts/fontawesome.js?digest=1"></script>
<script src="searchindex.js"></script><script src="_static/doctools.js"></script></head><body>
<li><a class="reference internal" href="cards/data.html">Data cards</a><details><summary><i class="fa-bars"></i></summary>
</details></li><pre><span class="kn">import</span> <span class="nn">a</span></pre>
<p class="seen">An <a class="reference internal" href="glossary.html#term-view">view</a>, <a class="reference internal"
href="a.html#term-none">none</a></p><img alt="noise" src="_images/noise.png" /><img alt="flat" src="_images/flat.png" />
<img src="data:image/png;base64,AAAA" /></body></html>"""
GLOSSARY = ('<dl><dt id="term-view">view<a href="#term-view">#</a></dt>'
            '<dd><p>An "example", of which parts are <b>hidden</b>.</p></dd></dl>')


@pytest.fixture
def site(tmp_path):
    """A site of three pages with two pictures and one large style sheet."""
    for folder in ("_images", "_static/styles", "_static/webfonts"):
        (tmp_path / folder).mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "_images/noise.png")
    Image.fromarray(np.zeros_like(noise) + 7).save(tmp_path / "_images/flat.png")
    (tmp_path / "_static/styles/theme.css").write_text(".seen{top:0}" + ".unseen{top:0}" * 3000)
    (tmp_path / "intro.html").write_text(PAGE)
    (tmp_path / "search.html").write_text(PAGE)
    (tmp_path / "glossary.html").write_text(GLOSSARY)
    finish(tmp_path)
    return tmp_path


def test_pictures_are_webp_have_their_room_and_wait(site):
    text = (site / "intro.html").read_text()
    assert '<img loading="lazy" width="400" height="300" alt="noise" src="_images/noise.webp" />' in text
    assert '<img src="data:image/png;base64,AAAA" />' in text  # a part of the page, which cannot wait
    with Image.open(site / "_images/flat.webp") as flat:
        assert np.array(flat.convert("RGB")).tolist() == (np.zeros((300, 400, 3), int) + 7).tolist()  # without loss
    assert not list(site.rglob("*.png"))


def test_scripts_that_no_page_needs_at_once_are_gone_but_the_search_keeps_its_index(site):
    page, search = ((site / name).read_text() for name in ("intro.html", "search.html"))
    assert re.findall(r'src="([^"]*\.js[^"]*)"', page) == ["_static/doctools.js"]
    assert "searchindex.js" in search and "fontawesome" not in search


def test_folds_have_names_and_terms_their_definition(site):
    text = (site / "intro.html").read_text()
    assert '<summary aria-label="Pages of Data cards">' in text
    here = named('<a class="current reference internal" href="#">Data cards</a><details open="open"><summary>')
    assert here.endswith('<summary aria-label="Pages of Data cards">')
    assert 'glossary.html#term-view" data-term="An &quot;example&quot;, of which parts are hidden.">' in text
    assert text.count("data-term") == 1


def test_code_keeps_the_colours_that_differ_from_the_text(site):
    assert '<pre><span class="kn">import</span> a</pre>' in (site / "intro.html").read_text()


def test_a_style_sheet_keeps_what_some_page_uses(site):
    assert (site / "_static/styles/theme.css").read_text() == ".seen{top:0}"


@pytest.mark.parametrize("css, kept", [
    ("a:hover{top:0}", "a:hover{top:0}"),
    (".no,.yes a{top:0}", ".yes a{top:0}"),
    ("@media (x:1){.no{top:0}.yes{top:0}}", "@media (x:1){.yes{top:0}}"),
    ("@media (x:1){.no{top:0}}", ""),
    ('.no:before{content:"}"}.yes{top:0}', ".yes{top:0}"),
    ("@import url(a.css);.no{top:0}", "@import url(a.css);"),
    ("@keyframes no{from{top:0}to{top:1px}}", "@keyframes no{from{top:0}to{top:1px}}"),
    (".yes:is(.no,.yes) b{top:0}", ".yes:is(.no,.yes) b{top:0}"),
    (".bs-tooltip-top .yes{top:0}", ".bs-tooltip-top .yes{top:0}"),
])
def test_rules_of_every_kind(css, kept):
    assert pruned(css, {"yes"}) == kept


def test_what_is_finished_stays_as_it_is():
    text = lazy(PAGE, {"noise.png": ("noise.webp", 4, 3)})
    assert lazy(text, {}) == text and without_scripts(without_scripts(text, search=False), search=False)


def test_the_font_of_icons_is_cut_to_those_that_are_used(tmp_path):
    theme = next(iter(pydata_sphinx_theme.__path__)) + "/theme/pydata_sphinx_theme/static"
    (tmp_path / "_static").symlink_to(theme)
    css = ('@font-face{font-family:F;src:url(../vendor/fontawesome/webfonts/fa-solid-900.woff2) format("woff2"),'
           'url(../vendor/fontawesome/webfonts/fa-solid-900.ttf) format("truetype")}'
           '.fa-bars:before{content:"\\f0c9"}:root{--load:"\uf019"}')
    font = base64.b64decode(re.search(r"base64,([^)]*)\)", _icons(css, tmp_path / "_static" / "styles"))[1])
    assert 500 < len(font) < 5_000 and {0xF0C9, 0xF019} == set(TTFont(io.BytesIO(font)).getBestCmap())
