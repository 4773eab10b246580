"""How far models of photographs and captions agree with people, whose marks come with Flickr8k."""

import numpy as np
from scipy.stats import spearmanr

from crossexplain.data.flickr8k import Pairs
from crossexplain.intervals import Interval
from crossexplain.models.two_towers import JoinedTowers
from crossexplain.recipes.encodings import Encoded
from crossexplain.recipes.flickr8k import logits


def agreement(model: JoinedTowers, encoded: Encoded, kind: str, seed: int = 0, draws: int = 200) -> Interval:
    """Return Spearman's rank correlation of logits with what people said of photographs and captions.

    Parameters
    ----------
    model, encoded
        As for :func:`crossexplain.recipes.flickr8k.logits`.
    kind : {"expert", "crowd"}
        Mean of three experts' marks, or the share of people who said yes.
    seed, draws : int
        Of the bootstrap over photographs.

    Returns
    -------
    Interval
        95 %; ``n`` is the number of pairs.
    """
    judged = encoded.flickr8k.judgements(kind)
    known = np.isin(judged.image, encoded.images) & np.isin(judged.caption, encoded.captions)
    image, scores = judged.image[known], judged.scores[known]
    # Experts: three marks; crowd: how many said yes, how many no.
    marks = scores.mean(axis=1) if kind == "expert" else scores[:, 0] / scores.sum(axis=1)
    scored = logits(model, encoded, Pairs(image, judged.caption[known], np.zeros(len(image), int))).numpy()
    rows = [np.flatnonzero(image == number) for number in np.unique(image)]
    rng, rhos = np.random.default_rng(seed), []
    for _ in range(draws):
        drawn = np.concatenate([rows[k] for k in rng.integers(len(rows), size=len(rows))])
        rhos.append(spearmanr(scored[drawn], marks[drawn]).statistic)
    return Interval(float(spearmanr(scored, marks).statistic), *np.quantile(rhos, [0.025, 0.975]).tolist(), len(marks))
