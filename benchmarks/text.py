"""How much scores of tokens cost in time and memory, beside the bare forward pass of the same sentences.

Every round times the bare forward pass and the scores in turn and takes the ratio within the round, so that a busy
machine slows both alike; the value is the median over rounds, low and high their range.
"""

import torch

from crossexplain.data import reviews
from crossexplain.gradients.tokens import METHODS, attribute
from crossexplain.recipes import load_or_train
from crossexplain_book.bench import memory, row_of, seconds

SENTENCES = 256


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows of the table, from twice ``repeats`` rounds."""
    reader = load_or_train("reviews_minilm")
    texts = reviews.build(3 * (SENTENCES // 3 + 1), "test", seed).texts[:SENTENCES]
    encoded, model = reader.encode(texts), reader.model
    gradient_only = [name for name, method in METHODS.items() if method.read is not None]

    @torch.no_grad()
    def forward():
        return model(**encoded.inputs)

    def scores():
        return attribute(model, encoded.inputs, model.text_layer, gradient_only, special_tokens=encoded.special)

    def with_attention():
        return attribute(model, encoded.inputs, model.text_layer, list(METHODS), special_tokens=encoded.special,
                         attention=model.attention_layers)

    calls = {"forward": forward, "scores": scores, "with_attention": with_attention}
    for call in calls.values():  # what is done only once counts for nobody
        call()
    rounds = [{name: seconds(call) for name, call in calls.items()} for _ in range(2 * repeats)]
    per_forward = {name: [r[name] / r["forward"] for r in rounds] for name in ("scores", "with_attention")}
    return [
        row_of("speed.text.over_forward", per_forward["scores"], "x the bare forward"),
        row_of("speed.text.with_attention_over_forward", per_forward["with_attention"], "x the bare forward"),
        row_of("speed.text.seconds", [r["scores"] for r in rounds], f"s for {SENTENCES} sentences"),
        *memory("text", calls),
    ]
