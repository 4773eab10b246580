"""Made-up conversations and tables of answers, for the tests of what draws and explores them."""

import numpy as np

from crossexplain_book.strips import Strip

SAID = ["the number that i saw was seven", "no", "", "that was larger than what you said before lunch"]


def talk(turns: int = 4, seed: int = 0, values: bool = True) -> Strip:
    """Return a conversation; its second turn decides, by its second frame, its first word and its last segment of sound."""
    rng = np.random.default_rng(seed)
    words = [SAID[t % len(SAID)].split() for t in range(turns)]
    frames, sound = rng.random((turns, 3, 6, 6)), rng.normal(size=(turns, 12, 8))
    frames[0], sound[-1] = np.nan, np.nan
    deciding = np.arange(turns) == min(1, turns - 1)
    sizes = {"words": [len(row) for row in words], "frames": [3] * turns, "sound": [3] * turns}
    place = {"words": 0, "frames": 1, "sound": 2}
    chunks = {name: [deciding[t] & (np.arange(of[t]) == place[name]) for t in range(turns)] for name, of in sizes.items()}
    drawn = {name: [rng.normal(size=size) for size in of] for name, of in sizes.items()}
    return Strip([("ben", "mia", "zoe")[t % 3] for t in range(turns)], words, frames, sound, "was seven shown before it?",
                 drawn if values else None, deciding, chunks)


def table(turns: int = 4, kind: str = "parity", seed: int = 0) -> np.ndarray:
    """Return logits of all mutings: "parity" needs the three parts of turn 2, "words" its words, "either" words or sound."""
    keep = (np.arange(2 ** (3 * turns))[:, None] >> np.arange(3 * turns)) & 1
    words, frames, sound = (keep[:, place * turns + 1] for place in range(3))
    signal = {"parity": words * frames * sound, "words": words, "either": np.maximum(words, sound)}[kind]
    noise = keep @ np.random.default_rng(seed).normal(0, 0.02, 3 * turns)
    return 4.0 * signal - 2.0 + noise
