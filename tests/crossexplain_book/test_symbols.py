"""The symbols of formulas have words, one place says which, and the tab key reaches all of them."""

import importlib.util
import json
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRUCTURE = re.compile(r"\\[A-Za-z]+|[A-Za-z]")


@pytest.fixture(scope="module")
def symbols():
    spec = importlib.util.spec_from_file_location("symbols", ROOT / "book" / "_ext" / "symbols.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def formulas(notebook: Path) -> list[str]:
    cells = json.loads(notebook.read_text("utf-8"))["cells"]
    return [tex for cell in cells if cell["cell_type"] == "markdown"
            for tex in re.findall(r"\$\$(.+?)\$\$", "".join(cell["source"]), re.DOTALL)]


@pytest.mark.parametrize("notebook", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem[:2])
def test_every_letter_of_a_formula_on_a_line_of_its_own_has_words(symbols, notebook):
    known, missing = symbols.meanings(ROOT / "book", f"chapters/{notebook.stem}"), set()
    for tex in formulas(notebook):
        for base, index, bracket in symbols.SYMBOL.findall(symbols.WORDS.sub(" ", tex)):
            names = {f"{base}_{index}", f"{base}{bracket}", base} & set(known)
            missing |= {f"{base}_{index}" if index else base} if not names and re.fullmatch("[A-Za-z]", base) else set()
    assert not missing, f"{notebook.stem}: book/symbols.toml has no words for {', '.join(sorted(missing))}"


def test_every_chapter_that_is_named_exists():
    tables = tomllib.loads((ROOT / "book" / "symbols.toml").read_text("utf-8"))
    stems = [f"chapters/{path.stem}" for path in (ROOT / "notebooks").glob("*.ipynb")] + ["notation"]
    assert all(name == "all" or any(stem.startswith(name) for stem in stems) for name in tables)


def test_a_symbol_is_known_with_its_index_its_accent_and_its_bracket(symbols):
    known = {"v(": "evidence", r"\alpha_k": "weight", "A": "activation", "k": "channel", r"\hat y": "label"}
    assert symbols.symbols_of(r"v(\text{all A}) + \cos(u, v)", known) == ["evidence"]
    assert symbols.symbols_of(r"\sum_k \alpha_k A_k &lt; \hat y", known) == ["channel", "weight", "activation", "label"]


def test_words_travel_with_formulas_and_the_tab_key_stops_where_there_are_new_ones(symbols):
    def written(tag: str, tex: str) -> str:
        return f'<{tag} class="math notranslate nohighlight">{tex}</{tag}>'

    body = written("span", r"\(a\)") + written("span", r"\(a\)") + written("div", r"\[a + b\]") + written("span", r"\(c\)")
    found = symbols.explain(body, {"a": 'the "first"', "b": "<b>"})
    assert found.count("tabindex") == 2 and found.count("data-term") == 3
    assert 'data-term="the &quot;first&quot;&#10;&lt;b&gt;"' in found and found.endswith(written("span", r"\(c\)"))
