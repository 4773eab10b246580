"""The printed book: its pages and its bytes, from the pages that ``make book`` left."""

import tempfile
from pathlib import Path

from crossexplain_book import Build, find_root


def rows() -> list[dict]:
    """Return one row for the pages and one for the bytes of the whole book as PDF."""
    import pikepdf

    from crossexplain_book.kit.pdf import make_pdf

    with tempfile.TemporaryDirectory() as folder:
        pdf = make_pdf(Build(find_root(Path(__file__).parent)), Path(folder) / "book.pdf")
        with pikepdf.open(pdf) as opened:
            counted = {"pdf.pages": (len(opened.pages), "pages of A4"), "pdf.bytes": (pdf.stat().st_size, "bytes")}
    return [{"id": key, "value": value, "low": value, "high": value, "n": 1, "unit": unit}
            for key, (value, unit) in counted.items()]
