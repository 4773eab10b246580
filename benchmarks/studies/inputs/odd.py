"""What may be drawn: bytes of a whole file with some damage, JSON with another value in it, words that nobody would type."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import strategies as st

WORDS = (
    "", " ", "-1", "0", "1", "2", "nan", "inf", "1e400", "-0", "99999999999999999999", "0x10", "1/2", "2/1", "-1/0", "٣", "ü",
    "🙂", "a\nb", "\t", "../..", "/", ".", "~", "x" * 300, "a,b", ",", "a=b", "=", "--", "-", "*", "[", "{0..9}", "%s", "{}",
    "None", "true", "a:b", ":", "::", "os:getcwd", "\udcff", "'", '"', "$HOME", "a b", "\x00")
JSONS = (None, True, False, 0, -1, 1, 2**63, 0.5, math.inf, math.nan, "", "x", "\ud800", [], [[]], [None], {}, {"a": 1},
         "0" * 400)


@st.composite
def damaged(draw: Callable, whole: bytes) -> bytes:
    """Draw a file that was whole, with one to three damages: cut, overwritten, repeated, with bytes put in or taken out."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 3))):
        at, length = draw(st.integers(0, len(content))), draw(st.sampled_from((1, 1, 2, 4, 16, 500)))
        kind = draw(st.sampled_from(("other", "other", "other", "cut", "out", "in", "again", "0", "255", "text")))
        if kind == "cut":
            del content[at:]
        elif kind == "out":
            del content[at : at + length]
        elif kind == "again":
            content[at:at] = content[at : at + length]
        elif kind == "other":
            content[at : at + min(length, 4)] = draw(st.binary(min_size=1, max_size=4))
        elif kind == "in":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "text":
            content[at:at] = draw(st.sampled_from(WORDS)).encode("utf-8", "surrogatepass")
        else:
            content[at : at + length] = bytes([int(kind)]) * length
    return bytes(content)


def files(whole: bytes, others: tuple[bytes, ...] = ()) -> st.SearchStrategy[bytes]:
    """Draw damaged files, now and then one of another kind, or noise."""
    return st.one_of(damaged(whole), damaged(whole), damaged(whole), st.binary(max_size=200),
                     st.sampled_from((b"", b"\0" * 64, b"<!DOCTYPE html><html></html>", b"PK\x03\x04", whole, *others)))


@st.composite
def changed(draw: Callable, whole: object) -> object:
    """Draw a value of JSON with one or two of its entries replaced, removed, or put under another name."""
    value = _copy(whole)
    for _ in range(draw(st.integers(1, 2))):
        value = _changed(draw, value)
    return value


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _copy(one) for name, one in value.items()}
    return [_copy(one) for one in value] if isinstance(value, list) else value


def _changed(draw: Callable, value: Any) -> Any:
    inner = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inner or draw(st.integers(0, 5)) == 0:
        return _copy(draw(st.sampled_from(JSONS)))
    name = draw(st.sampled_from(inner))
    what = draw(st.sampled_from(("into", "into", "into", "out", "renamed")))
    if what == "into" or isinstance(value, list):
        value[name] = _changed(draw, value[name])
    elif what == "out":
        del value[name]
    else:
        value[draw(st.sampled_from(("", "x", "\ud800", "key")))] = value.pop(name)
    return value


def words() -> st.SearchStrategy[str]:
    """Draw a word of a command line."""
    return st.one_of(st.sampled_from(WORDS), st.text(max_size=8), st.integers().map(str), st.floats().map(str))


@cache
def made(write: Callable[[Path], object]) -> bytes:
    """Return the content of a file that ``write`` writes."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        write(path)
        return path.read_bytes()
