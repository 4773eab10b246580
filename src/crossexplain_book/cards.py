"""What the registry of data and weights says of a source, as Markdown for its card."""

from crossexplain.data.registry import SOURCES, File
from crossexplain.data.store import megabytes
from crossexplain_book.page import table


def source_tables(name: str) -> dict[str, str]:
    """Return what is assembled into the card of a source.

    Parameters
    ----------
    name : str
        Of the source, and of the card without its ending.

    Returns
    -------
    dict of str to str
        ``"source"``: name, authors, terms, size and files with their hashes. ``"fetch"``: how to get it.
    """
    source = SOURCES[name]
    facts = "\n".join([
        f'- **Name:** `{name}`, as in `crossexplain.data.store.find("{name}")`', f"- **Origin:** {source.authors}",
        f"- **Terms:** {source.terms}", f"- **Size:** {megabytes(source.size)}",
    ])
    forms = "\n\nor\n\n".join(_files(form) for form in source.forms or (source.package_files,))
    fetch = (f"```\npython -m crossexplain fetch {name}\n```\n\n"
             "The command asks first, checks the hashes, and puts the files into the local cache. "
             "Or place them in a data folder under the names above, and name that folder in `CROSSEXPLAIN_DATA`.")
    return {"source": f"{facts}\n\n{forms}", "fetch": fetch}


def _files(form: tuple[File, ...]) -> str:
    rows = [(f"`{file.path}`", f"{file.size:,}", "<br>".join(f"`{digest}`" for digest in file.hashes) or "none")
            for file in form]
    return str(table(("file", "bytes", "hash"), rows))
