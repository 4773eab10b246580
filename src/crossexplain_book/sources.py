"""Every source of data and weights, and where it is now."""

from dataclasses import dataclass

from crossexplain.data.registry import SOURCES, Source
from crossexplain.data.store import BrokenSource, Found, find


@dataclass(frozen=True)
class Entry:
    """A source and where it is now: ``found``, or the ``problem`` in words and whether a file is present and ``broken``."""

    source: Source
    found: Found | None
    problem: str | None
    broken: bool = False

    @property
    def state(self) -> str:
        """Where it was found, ``"missing"`` or ``"broken"``."""
        return self.found.origin if self.found else "broken" if self.broken else "missing"


def sources() -> list[Entry]:
    """Return every source and where it is; reads no network, whatever is allowed."""
    entries = []
    for source in SOURCES.values():
        try:
            entries.append(Entry(source, find(source.name, offline=True), None))
        except OSError as error:
            entries.append(Entry(source, None, str(error), isinstance(error, BrokenSource)))
    return entries
