"""The printed book: its pages and its bytes, from the pages that ``make book`` left."""

import tempfile
from pathlib import Path

from crossexplain_book import Build, find_root


def rows() -> list[dict]:
    """Return one row for the pages and one for the bytes of the whole book as PDF; none where the book was not built."""
    import pikepdf

    from crossexplain_book.kit.pdf import make_pdf

    build = Build(find_root(Path(__file__).parent))
    if not (build.html / "index.html").is_file():
        print(f"  no pages in {build.html}: type `make book` first")
        return []
    with tempfile.TemporaryDirectory() as folder:
        pdf = make_pdf(build, Path(folder) / "book.pdf")
        with pikepdf.open(pdf) as opened:
            counted = {"pdf.pages": (len(opened.pages), "pages of A4"), "pdf.bytes": (pdf.stat().st_size, "bytes")}
    return [{"id": key, "value": value, "low": value, "high": value, "n": 1, "unit": unit}
            for key, (value, unit) in counted.items()]
