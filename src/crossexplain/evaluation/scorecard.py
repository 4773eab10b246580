"""All scores of an explanation in one table: what each asks, which way is better, and what it cannot see."""

from collections.abc import Callable
from typing import NamedTuple

from crossexplain.evaluation import faithfulness, sanity
from crossexplain.evaluation import truth as metrics


class Metric(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    function : callable
        Gives one number an example, or (``randomised_weights``) one for each layer.
    better : str
        ``"higher"`` or ``"lower"``.
    low, high : float
        What it can be at worst and best, whichever way; infinite where it has the model's units.
    chance : float or None
        What scores that know nothing get on average, where that is one number.
    sides : str
        ``"joint"`` for players of all modalities in one order (``among`` limits it to one), ``"each"`` for one at a time,
        ``"image"`` for pixels alone.
    weakness : str
    source : str
    """

    function: Callable
    better: str
    low: float
    high: float
    chance: float | None
    sides: str
    weakness: str
    source: str


INF = float("inf")
METRICS: dict[str, Metric] = {
    "area between curves": Metric(
        faithfulness.area_between, "higher", -INF, INF, 0.0, "joint",
        "Half-emptied inputs are unlike anything the model was trained on, and a sum ranks well that misses every interaction.",
        "Petsiuk et al. 2018; both sides at once: Baniecki et al. 2025"),
    "insertion": Metric(
        faithfulness.insertion_area, "higher", -INF, INF, None, "joint",
        "Rewards finding what suffices first, so that of two redundant features either will do.", "Petsiuk et al. 2018"),
    "deletion": Metric(
        faithfulness.deletion_area, "lower", -INF, INF, None, "joint",
        "Falls as fast for features whose absence confuses the model as for those that it uses.", "Petsiuk et al. 2018"),
    "synergistic faithfulness": Metric(
        faithfulness.synergistic_faithfulness, "higher", -INF, INF, 0.0, "joint",
        "Depends on how many players are kept, and is 0 for every explanation of a model that only adds its modalities.",
        "Ky et al. 2026"),
    "coalition R2": Metric(
        faithfulness.coalition_r2, "higher", -INF, 1.0, None, "joint",
        "Asks for contributions in the model's units, and no sum explains an exclusive or.", "Baniecki et al. 2025"),
    "coalition rank": Metric(
        faithfulness.coalition_rank, "higher", -1.0, 1.0, 0.0, "joint",
        "No sum orders an exclusive or, so that right explanations of interactions score low.",
        "Bhatt et al. 2020; Baniecki et al. 2025"),
    "infidelity": Metric(
        faithfulness.infidelity, "lower", 0.0, INF, None, "joint",
        "In squared units of the logit: comparable between methods on one model, not between models.", "Yeh et al. 2019"),
    "ROAD": Metric(
        faithfulness.road, "higher", -INF, INF, 0.0, "image",
        "Filling from neighbours hides fine detail well and large objects badly: their outline stays.", "Rong et al. 2022"),
    "pointing game": Metric(
        metrics.pointing_game, "higher", 0.0, 1.0, None, "image",
        "One pixel decides; a map of noise round one lucky pixel wins, and a large box is easy to hit.", "Zhang et al. 2018"),
    "energy in the box": Metric(
        metrics.energy_in_box, "higher", 0.0, 1.0, None, "image",
        "A model that rightly looks at the context of the object loses.", "Wang et al. 2020"),
    "relevance mass": Metric(
        metrics.relevance_mass, "higher", 0.0, 1.0, None, "each",
        "One cue with all the relevance scores 1, though the others were missed.", "Arras et al. 2022"),
    "relevance rank": Metric(
        metrics.relevance_rank, "higher", 0.0, 1.0, None, "each",
        "Blind to how far the cues are ahead, and coarse where there is one cue.", "Arras et al. 2022"),
    "cue AUROC": Metric(
        metrics.cue_auroc, "higher", 0.0, 1.0, 0.5, "each",
        "A person's cues: a model that decides by a shortcut is explained rightly and scores low.", "Arras et al. 2022"),
    "recall at k": Metric(
        metrics.recall_at, "higher", 0.0, 1.0, None, "each",
        "Cannot reach 1 where there are more cues than k, and is easy in short sentences.", "standard in retrieval"),
    "randomised weights": Metric(
        sanity.randomised_weights, "lower", -1.0, 1.0, None, "each",
        "Noise passes with full marks: it asks whether the weights matter, not whether they are read rightly.",
        "Adebayo et al. 2018"),
    "shuffled labels": Metric(
        sanity.shuffled_labels, "lower", -1.0, 1.0, None, "each",
        "Costs a training, and a model that memorises may still look at what is salient.", "Adebayo et al. 2018"),
    "random logit": Metric(
        sanity.random_logit, "lower", -1.0, 1.0, None, "each",
        "Says nothing with one logit: the other class is the same gradient with the other sign.", "Sixt et al. 2020"),
    "max-sensitivity": Metric(
        sanity.max_sensitivity, "lower", 0.0, INF, None, "each",
        "A constant explanation is best, and a model that does jump is punished for being explained.", "Yeh et al. 2019"),
    "rank stability": Metric(
        sanity.rank_stability, "higher", -1.0, 1.0, 0.0, "joint",
        "An explanation that ignores the baseline, or the model, is perfectly stable.", "Sturmfels et al. 2020"),
}
