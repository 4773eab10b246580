"""What looks at the pages sees what is wrong with one that was made wrong on purpose."""

import pytest

from benchmarks.studies import seen

WRONG = """<!doctype html><html lang="en"><head><title>t</title><link rel="stylesheet" href="look.css"></head><body><main>
<article><h1>Text</h1><button id="good">named</button><button id="plain" style="outline:none">no sign</button>
<div tabindex="0" id="trap" onkeydown="if (event.key === 'Tab') event.preventDefault()">trap</div><a href="#x">after it</a>
<figure><img alt="a picture that is wider than a sheet of paper" style="width:900px;height:9px"
src="data:image/gif;base64,R0lGODlhAQABAAAAACw=">
</figure></article></main><script>window.drawFormulas = () => Promise.resolve();
const picture = new Image(); picture.src = "https://outside.invalid/a.png"</script></body></html>"""


@pytest.fixture(scope="module")
def wrong(browser, tmp_path_factory):
    """A page that is wrong, opened, and what it loaded."""
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "look.css").write_text("body { margin: 0 }")
    (folder / "page.html").write_text(WRONG)
    context = browser.new_context(offline=True, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    yield page, seen.opened(page, (folder / "page.html").as_uri()), folder
    context.close()


def test_what_a_page_loads_is_weighed_and_what_it_asks_of_the_outside_is_named(wrong):
    _, opening, folder = wrong
    assert opening.bytes == sum(path.stat().st_size for path in folder.iterdir())
    assert opening.outside == ["https://outside.invalid/a.png"] and opening.paint > 0


def test_a_control_without_a_sign_and_one_behind_a_trap_are_found(wrong):
    found = seen.walk(wrong[0])
    assert any(words.startswith("no sign") and 'id="plain"' in words for words in found)
    assert any(words.startswith("not reached") and "after it" in words for words in found)
    assert not any('id="good"' in words for words in found)


def test_a_picture_wider_than_a_sheet_is_found(wrong):
    assert len(seen.on_paper(wrong[0])) == 1 and wrong[0].viewport_size == {"width": 1280, "height": 900}


@pytest.mark.skipif(not seen.axe(), reason="axe-core is not installed: pip install axe-playwright-python")
def test_axe_core_is_heard_where_it_is_serious(wrong):
    page = wrong[0]
    assert not seen.violations(page, seen.axe())
    page.evaluate("document.querySelector('#good').textContent = ''")
    assert [words.partition(":")[0] for words in seen.violations(page, seen.axe())] == ["button-name"]
