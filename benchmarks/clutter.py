"""How well the slim VGG of chapter 1 names digits that it was never trained on, over three seeds."""

from crossexplain.data import clutter as pictures
from crossexplain.models.training import accuracy
from crossexplain.recipes import clutter

SEEDS, IMAGES = 3, 4000


def rows(seed: int = 0) -> list[dict]:
    """Train one network a seed; the value is their mean, low the worst and high the best."""
    shares, seconds = [], []
    for s in range(seed, seed + SEEDS):
        trained = clutter.train(seed=s, progress=False)
        test = pictures.build(trained.data, IMAGES, "test", s)
        shares.append(accuracy(clutter.logits(trained.model, test.images), test.labels))
        seconds.append(trained.history.seconds)
    return [
        {"id": "slim_vgg.accuracy", "value": sum(shares) / SEEDS, "low": min(shares), "high": max(shares),
         "n": SEEDS * IMAGES, "unit": "share"},
        {"id": "slim_vgg.training.seconds", "value": sum(seconds) / SEEDS, "low": min(seconds), "high": max(seconds),
         "n": SEEDS, "unit": "s"},
    ]
