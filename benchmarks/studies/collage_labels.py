"""How wrong the labels are that the paper's builder of collages gives, and how much the sentence alone says of them."""

import numpy as np

from crossexplain.data.collages import KINDS, SENTENCES, STATEMENTS, Collages, truth_table


def wrong_labels(collages: Collages) -> dict[str, float]:
    """Measure which share of the labels is wrong, by :func:`crossexplain.data.collages.holds`.

    Parameters
    ----------
    collages : Collages

    Returns
    -------
    dict of str to float
        Shares of all pairs: ``"all"``; ``"ties"`` (several digits are the largest) and ``"half true"`` (the other corner lies
        in the named half too), which add up to it; ``"place"``, the share among the sentences about the largest and the
        smallest digit; and ``"lenient"``, the share of all pairs that stays wrong for a reader who takes a sentence about
        any of several largest digits for true.
    """
    truth = truth_table()[np.ravel_multi_index(tuple(collages.digits.T), (10,) * 4), collages.sentence_id]
    wrong = truth != collages.labels
    place = collages.kind < KINDS.index("even, precise")
    tied = place & (collages.deciding_cells.sum(axis=1) > 1)
    places = np.array([np.isin(range(4), statement.cells) for statement in STATEMENTS.values()])  # (66, 4)
    named = places[collages.sentence_id] & collages.deciding_cells  # (N, 4)
    lenient = np.where(place, named.any(axis=1), truth) != collages.labels
    return {
        "all": float(wrong.mean()),
        "ties": float((wrong & tied).mean()),
        "half true": float((wrong & ~tied).mean()),
        "place": float(wrong[place].mean()) if place.any() else 0.0,
        "lenient": float(lenient.mean()),
    }


def text_alone(train: Collages, test: Collages) -> float:
    """Return how often the sentence alone predicts the label: the best guess for each sentence, learned and tested.

    Parameters
    ----------
    train, test : Collages
        Drawn independently.

    Returns
    -------
    float
        Share of right guesses on ``test``; 0.5 is chance.
    """
    votes = np.bincount(train.sentence_id, 2 * train.labels - 1, minlength=len(SENTENCES))
    return float(((votes > 0)[test.sentence_id] == test.labels).mean())
