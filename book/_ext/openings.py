"""The finding of a chapter answers to the pointer: its picture carries where its parts lie and what they are (parts.js)."""

import html
import json
import re
from pathlib import Path


def parts_of(notebook: Path) -> dict[str, list]:
    """Return the parts of the pictures that an executed chapter opens with, by the picture's name."""
    if not notebook.is_file():
        return {}
    found = {}
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        if "finding" in cell["metadata"].get("tags", []):
            about = [output.get("metadata", {}).get("crossexplain", {}) for output in cell.get("outputs", [])]
            found |= {one["name"]: one["parts"] for one in about if one.get("parts")}
    return found


def marked(body: str, parts: dict[str, list]) -> str:
    """Return the body of a page whose pictures carry their parts."""
    for name, places in parts.items():
        carried = f' data-parts="{html.escape(json.dumps(places, ensure_ascii=False))}"'
        picture = rf'<figure[^>]*id="{re.escape(name)}"[^>]*>\s*(?:<div[^>]*>\s*)*<img'
        body = re.sub(picture, lambda found, carried=carried: found[0] + carried, body, count=1)
    return body


def add_parts(app, pagename, templatename, context, doctree) -> None:
    """Give the opening picture of a chapter its parts."""
    if app.builder.name == "html" and pagename.startswith("chapters/") and context.get("body"):
        executed = Path(app.srcdir).parent / "pages" / f"{pagename.removeprefix('chapters/')}.ipynb"
        context["body"] = marked(context["body"], parts_of(executed))


def setup(app) -> dict:
    """Register it with Sphinx."""
    app.connect("html-page-context", add_parts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
