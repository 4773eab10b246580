"""How many photographs and captions a second go through the frozen towers and to the disk.

A sample of Flickr8k, spread over the whole of it, goes through EfficientNet-Lite0 and MiniLM into an empty folder: reading
the files, the towers, checksums and writing counted. The minutes are those of 14,000 photographs, of which 6,000 are mirror
images, and 40,000 captions at the median rates. Needs the data folder. Rows with ``squeezenet`` were measured before.
"""

import statistics
import tempfile
import time
from pathlib import Path

from crossexplain.data import flickr8k
from crossexplain.recipes import encodings

PHOTOGRAPHS, CAPTIONS = 256, 2048


def rows(repeats: int = 5) -> list[dict]:
    """Return the rows of the table."""
    data = flickr8k.load(progress=False)
    towers = encodings.load_towers()
    images = range(0, len(data.names), len(data.names) // PHOTOGRAPHS)
    captions = range(0, len(data.captions), len(data.captions) // CAPTIONS)
    rates = {"photographs": [], "captions": []}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as empty:
            where = Path(empty)
            started = time.perf_counter()
            encodings.encode_photographs(towers.network, data, images, False, where)
            between = time.perf_counter()
            encodings.encode_captions(towers.encoder, towers.tokenizer, data, captions, False, where)
            rates["photographs"].append(len(images) / (between - started))
            rates["captions"].append(len(captions) / (time.perf_counter() - between))
    minutes = [14_000 / a / 60 + 40_000 / b / 60 for a, b in zip(rates["photographs"], rates["captions"])]
    return [*(row_of(f"speed.encodings.lite0.{name}_per_second", values, f"{name}/s, median")
              for name, values in rates.items()),
            row_of("speed.encodings.lite0.minutes", minutes, "min for 14,000 photographs and 40,000 captions, median")]


def row_of(name: str, values: list[float], unit: str) -> dict:
    """Return a row with the median and the range of repeated measurements."""
    return {"id": name, "value": statistics.median(values), "low": min(values), "high": max(values), "n": len(values),
            "unit": unit}
