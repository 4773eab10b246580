"""Ways into a page beside reading it: run it, edit it, cite it, see when it ran; and a search that finds terms first.

Links to the project's address appear where ``repository: url`` of ``_config.yml`` names one; nothing is loaded from there.
"""

import html
import json
import re
from pathlib import Path
from urllib.parse import quote

import yaml

ROOT = Path(__file__).resolve().parents[2]
GOALS = '<section id="you-will-be-able-to">'  # of a chapter; the ways in stand before it


def source_of(page: str) -> str | None:
    """Return the file of the project that a page is made from, or None where it is made from code."""
    if page.startswith("chapters/"):
        path = f"notebooks/{page.removeprefix('chapters/')}.ipynb"
    elif page.startswith("cards/sources/"):
        path = f"data/cards/{page.removeprefix('cards/sources/')}.md"
    else:
        path = f"book/{page}.md"
    return path if (ROOT / path).is_file() else None


def links(page: str, repository: str, branch: str) -> dict[str, str]:
    """Return where a page can be run and edited, by what a reader sees.

    Parameters
    ----------
    page : str
        Its name, without ``.html``.
    repository : str
        Address of the project; empty if it has none.
    branch : str
    """
    path = source_of(page)
    if not path or not repository:
        return {}
    edit = {"Edit this page": f"{repository}/{'blob' if path.endswith('.ipynb') else 'edit'}/{branch}/{quote(path)}"}
    hosted = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)/?", repository)
    if not hosted or not path.startswith("notebooks/"):
        return edit
    # Binder installs what environment.yml lists, with the project itself, and opens the notebook in JupyterLab.
    notebook = quote(f"lab/tree/{path}", safe="")
    return {"Run it in Binder": f"https://mybinder.org/v2/gh/{hosted[1]}/{branch}?urlpath={notebook}", **edit}


def citation(title: str) -> str:
    """Return how to cite a page, as BibTeX, from CITATION.cff."""
    cff = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
    authors = " and ".join(author.get("name") or author["family-names"] for author in cff["authors"])
    return (f"@misc{{crossexplain,\n  title   = {{{cff['title']}}},\n  author  = {{{{{authors}}}}},\n"
            f"  version = {{{cff['version']}}},\n  note    = {{Page: {title}}}\n}}")


def last_run(pages: Path, name: str) -> str:
    """Return when a chapter ran, from its record; empty if there is none."""
    try:
        return f"Last run {json.loads((pages / f'{name}.json').read_text('utf-8'))['finished']}"
    except (OSError, ValueError, KeyError):
        return ""


def add_ways(app, pagename, templatename, context, doctree) -> None:
    """Put the ways in before the goals of a chapter, and at the end of any other page."""
    body = context.get("body")
    if not body or doctree is None:
        return
    theme = app.config.html_theme_options
    found = links(pagename, theme.get("repository_url") or "", theme.get("repository_branch") or "main")
    entries = [f'<a href="{html.escape(address)}">{label}</a>' for label, address in found.items()]
    chapter = GOALS in body
    if chapter:
        stamp = last_run(Path(app.srcdir).parent / "pages", pagename.removeprefix("chapters/"))
        entries = [*entries, '<a href="../runtime.html">' + stamp + "</a>"] if stamp else entries
    line = f'<p class="ce-screen ce-ways">{" · ".join(entries)}</p>' if entries else ""
    if chapter or pagename == app.config.root_doc:
        title = re.sub("<[^>]+>", "", context.get("title", ""))
        line += ('<details class="ce-screen ce-ways"><summary>Cite this page</summary><pre tabindex="0">'
                 f"{html.escape(citation(title))}</pre></details>")
    context["body"] = body.replace(GOALS, line + GOALS, 1) if chapter else body + line


def terms_first(app, config) -> None:
    """Let the search list terms of the glossary before anything else."""
    config.html_search_scorer = str(Path(__file__).with_name("terms_first.js"))


def setup(app) -> dict:
    """Register both with Sphinx."""
    app.connect("config-inited", terms_first)
    app.connect("html-page-context", add_ways)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
