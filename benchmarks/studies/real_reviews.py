"""The sentiment classifier of chapter 2, tuned on sentences that people wrote."""

from crossexplain.checks import require_one_of
from crossexplain.data import reviews
from crossexplain.recipes.reviews import Reader, find_encoder, tune

REAL = {  # loader, epochs, most tokens of a text
    "labelled-sentences": (reviews.labelled_sentences, 4, 96),
    "app-reviews": (reviews.app_reviews, 2, 64),
}


def train_on(name: str, seed: int = 0, size: str = "page", progress: bool = True, profile: str = "full") -> Reader:
    """Tune an encoder and a head on real sentences.

    Parameters
    ----------
    name : {"labelled-sentences", "app-reviews"}
        Two classes, or three by the number of stars.
    seed, size, progress, profile
        As for :func:`crossexplain.recipes.reviews.train`; the seed also divides the sentences into 70 % train, 10 %
        validation and 20 % test.

    Returns
    -------
    Reader
        ``data`` are the test sentences.

    Raises
    ------
    crossexplain.data.store.MissingSource
        If the sentences are not available.
    """
    require_one_of(name, REAL, "sentences")
    loader, epochs, length = REAL[name]
    parts = reviews.divide(loader(), seed)
    if size == "small":
        parts, epochs = {part: sentences.select(range(48)) for part, sentences in parts.items()}, 1
    return tune(find_encoder(profile), parts, epochs, length, seed, progress)
