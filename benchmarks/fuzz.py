"""How often the package is wrong about a model that it has never seen: drawn models, inputs and calls against answers by hand.

Each draw is right, refused by an ``InputError``, wrong, or ends in an error of another kind. Refusing everything would be no
way out: of the draws where a plain reader would expect an answer, the share that is refused is counted too. A line is printed
for each fault, and ``python -m benchmarks.studies.fuzzing.draws SEED DRAW`` repeats it and finds the plainest such draw.
"""

import torch

from benchmarks.studies.fuzzing.draws import FOREIGN, LEFT, REFUSED_PLAIN, RIGHT, WRONG, counted
from crossexplain_book.bench import row_of

DRAWS = 10_000


def rows(seed: int = 0) -> list[dict]:
    """Count what becomes of ten thousand draws."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # the models are so small that more would wait for each other
    try:
        kinds, expected = counted(seed, DRAWS)
    finally:
        torch.set_num_threads(threads)
    answered = {"id": "fuzz.right", "value": float(kinds[RIGHT]), "low": float(kinds[RIGHT]), "high": float(kinds[RIGHT]),
                "n": DRAWS, "unit": "draws answered, and rightly"}
    refused = kinds[REFUSED_PLAIN] / max(1, expected)
    return [row_of("fuzz.draws", [DRAWS], "models, inputs and calls drawn"), answered,
            {**row_of("fuzz.wrong", [kinds[WRONG]], "draws with an answer that is not right"), "n": DRAWS},
            {**row_of("fuzz.foreign_errors", [kinds[FOREIGN] + kinds[LEFT]],
                      "draws that end in an error that is no InputError, or leave the model changed"), "n": DRAWS},
            {**row_of("fuzz.refused_plain", [refused], "share of the draws that a plain reader would expect an answer to"),
             "n": expected}]


if __name__ == "__main__":
    for row in rows():
        print(row["id"], row["value"], row["unit"])
