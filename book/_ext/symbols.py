"""What the symbols of a formula mean, beside the formula: under the pointer, with the focus, and at a tap (terms.js shows it).

The words stand in ``book/symbols.toml``. Without scripts a formula is as it was.
"""

import html
import re
import tomllib
from pathlib import Path

MATH = re.compile(r'<(span|div) class="math notranslate nohighlight"([^>]*)>\s*(\\[(\[].*?\\[)\]])\s*</\1>', re.DOTALL)
WORDS = re.compile(r"\\(?:text|mathrm|operatorname|begin|end)\{[^{}]*\}|\\[,;!]|\\\\")  # no symbols of ours
# A symbol with its accent, its index, and the bracket after it: v(, \alpha_k, \hat y, w_c, x_{m,t}.
SYMBOL = re.compile(r"((?:\\hat )?(?:\\[A-Za-z]+|[A-Za-z]))(?:_(\{[^{}]*\}|\\?[A-Za-z0-9]+?))?(?![a-z])(\(?)")


def meanings(book: Path, page: str) -> dict[str, str]:
    """Return what symbols mean on a page, by their TeX: its own meanings before those of all pages."""
    tables = tomllib.loads((book / "symbols.toml").read_text("utf-8"))
    own = next((table for name, table in tables.items() if name != "all" and page.startswith(name)), {})
    return tables["all"] | own


def symbols_of(tex: str, known: dict[str, str]) -> list[str]:
    r"""Return the words for the symbols of a formula, each once, in the order in which they stand there.

    Examples
    --------
    >>> symbols_of(r"\alpha_k = \text{mean of } A_k(i, j)", {r"\alpha_k": "weight", "A": "activation", "k": "channel"})
    ['weight', 'activation', 'channel']
    """
    found: dict[str, None] = {}
    for base, index, bracket in SYMBOL.findall(WORDS.sub(" ", html.unescape(tex))):
        whole = f"{base}_{index}" if index else base
        parts = [whole] if whole in known else [f"{base}{bracket}", base, *re.findall(r"\\?[A-Za-z]+", index)]
        found |= dict.fromkeys(known[part] for part in parts if part in known)
    return list(found)


def explain(body: str, known: dict[str, str]) -> str:
    """Return the body of a page whose formulas carry the words; the tab key reaches as many as it takes for all words."""
    met: set[str] = set()

    def formula(match: re.Match) -> str:
        tag, more, tex = match.groups()
        if not (words := symbols_of(tex, known)):
            return match[0]
        stop = ' tabindex="0"' if tag == "div" or not met.issuperset(words) else ""
        met.update(words)
        text = html.escape("\n".join(words)).replace("\n", "&#10;")
        return f'<{tag} class="math notranslate nohighlight" data-term="{text}"{stop}{more}>\n{tex}</{tag}>'

    return MATH.sub(formula, body)


def add_words(app, pagename, templatename, context, doctree) -> None:
    """Give the formulas of a page their words."""
    if app.builder.name == "html" and 'class="math' in context.get("body", ""):
        context["body"] = explain(context["body"], meanings(Path(app.srcdir), pagename))


def setup(app) -> dict:
    """Register it with Sphinx."""
    app.connect("html-page-context", add_words)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
