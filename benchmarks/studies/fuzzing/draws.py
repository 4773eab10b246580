"""One draw: asked, compared with the answer by hand, judged; and the smallest draw that shows the same fault.

    python -m benchmarks.studies.fuzzing.draws 0 17          # draw 17 of seed 0
    python -m benchmarks.studies.fuzzing.draws "{'text': 'lstm', ...}"   # choices that differ from the plainest
"""

import ast
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch

from benchmarks.studies.fuzzing.asking import Skip, different, sizes
from benchmarks.studies.fuzzing.explaining import explaining
from benchmarks.studies.fuzzing.judging import judging
from benchmarks.studies.fuzzing.mistakes import erring
from benchmarks.studies.fuzzing.oracle import NoTruth
from benchmarks.studies.fuzzing.reading import capturing, mapping, scoring
from benchmarks.studies.fuzzing.rounding import checking, dividing, playing, reordering, running_rounds
from benchmarks.studies.fuzzing.scenes import Scene, draw
from benchmarks.studies.fuzzing.source import Source
from benchmarks.studies.fuzzing.twists import twist
from crossexplain import InputError

CALLS: dict[str, Callable] = {
    "capture": capturing, "rounds": running_rounds, "explain": explaining, "maps": mapping, "tokens": scoring, "game": playing,
    "feature dividends": dividing, "preflight": checking, "another order": reordering,
    "a mistake": erring, "verdict": judging,
}
WEIGHTS = {"explain": 8, "rounds": 3, "game": 2, "a mistake": 2}  # how often a call is drawn; others once
TOLERANCE, OF_ROUGH = 1e-4, 0.25  # relative: usually, and of values rounded by the batch
OF_HALF = {torch.float16: (0.1, 0.0), torch.bfloat16: (0.3, 0.05)}  # of half precision, and the least size of what is rounded
RIGHT, REFUSED, REFUSED_PLAIN, WRONG, FOREIGN, LEFT = "right", "refused", "refused plain", "wrong", "foreign", "left behind"
FAULTS = WRONG, FOREIGN, LEFT


@dataclass(frozen=True)
class Outcome:
    """What became of a draw.

    Attributes
    ----------
    kind : str
        ``"right"``, ``"refused"``, ``"refused plain"`` where a plain reader would expect an answer, ``"wrong"``,
        ``"foreign"`` for an error that is no InputError, ``"left behind"`` where the model is not as it was.
    what : str
        The difference, or the message.
    picks : dict of str to str
        The choices that are not the plainest.
    expected : bool
        Whether a plain reader would expect an answer.
    """

    kind: str
    what: str
    picks: dict[str, str]
    expected: bool = False


def run(source: Source) -> Outcome | None:
    """Draw a scene and a call, and judge the answer; None where the draw does not fit together."""
    with warnings.catch_warnings(record=True):  # thousands of draws would say the same thousands of times
        warnings.simplefilter("always")
        scene = draw(source, twist)
        name = source.pick("call", [name for name in CALLS for _ in range(WEIGHTS.get(name, 1))])
        try:
            call = CALLS[name](scene, source)
        except Skip:
            return None
        before = _state(scene)
        try:
            got, error = call.ask(), None
        except InputError as refusal:
            got, error = None, refusal
        except Exception as foreign:  # noqa: BLE001
            return Outcome(FOREIGN, _last_line(foreign), source.picks, call.expected)
        if _state(scene) != before:
            return Outcome(LEFT, "hooks, modes or flags of the model are not as they were", source.picks, call.expected)
        if error is not None:
            return Outcome(REFUSED_PLAIN if call.expected else REFUSED, f"{type(error).__name__}: {error}", source.picks,
                           call.expected)
        try:
            want = call.want()
        except NoTruth as reason:
            return Outcome(WRONG, f"an answer where none is right ({reason})", source.picks, call.expected)
        (tolerance, least), of = (TOLERANCE * call.loose, 0.0), {}
        if scene.half or scene.rough:
            tolerance, least = OF_HALF[scene.half] if scene.half else (OF_ROUGH, 0.0)
            differences = {"": "logits"} if call.of_logits else call.differences
            of = sizes(want, differences, float(scene.truth.whole().abs().max()))
        apart = different(got, want, tolerance, max(call.size, least), of)
        return Outcome(WRONG if apart else RIGHT, apart, source.picks, call.expected)


def _state(scene: Scene) -> list:
    """Return what a call must leave as it was."""
    return [(module.training, len(module._forward_hooks), len(module._forward_pre_hooks),
             [parameter.requires_grad for parameter in module.parameters(recurse=False)]) for module in scene.net.modules()]


def _last_line(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/crossexplain/" in frame.filename and "/benchmarks/" not in frame.filename]
    at = f"{ours[-1].filename.rpartition('/crossexplain/')[2]}:{ours[-1].lineno}" if ours else \
        f"{frames[-1].filename.rpartition('/')[2]}:{frames[-1].lineno}"
    return f"{type(error).__name__} at {at}: {str(error)[:300]}"


def draws(seed: int, count: int) -> Iterator[tuple[int, Outcome]]:
    """Yield numbered draws until there are enough that fit together."""
    number = done = 0
    while done < count:
        outcome = run(Source.seeded(seed, number))
        if outcome is not None:
            done += 1
            yield number, outcome
        number += 1


def smallest(outcome: Outcome) -> Outcome:
    """Return the plainest draw that shows the same kind of fault: choices are put back one after the other."""
    picks, shrinks = dict(outcome.picks), True
    while shrinks:
        shrinks = False
        for name in list(picks):
            fewer = {key: value for key, value in picks.items() if key != name}
            again = repeated(fewer)
            if again is not None and again.kind == outcome.kind and _alike(again, outcome):
                picks, outcome, shrinks = dict(again.picks), again, True
                break
    return outcome


def _alike(one: Outcome, other: Outcome) -> bool:
    return one.kind == WRONG and one.what[:9] == other.what[:9] or one.kind != WRONG and one.what[:40] == other.what[:40]


def repeated(picks: Mapping[str, str]) -> Outcome | None:
    """Run a draw by its choices."""
    return run(Source.repeated(picks))


def line(seed: int, number: int, outcome: Outcome) -> str:
    """Return one line by which a draw can be repeated."""
    return f"seed {seed}, draw {number}: {outcome.kind}: {outcome.picks}: {outcome.what}"


def main(arguments: list[str]) -> None:
    """Repeat one draw, or run some and print what is wrong."""
    torch.set_num_threads(1)
    if len(arguments) == 1:
        print(repeated(ast.literal_eval(arguments[0])))
        return
    seed, number = int(arguments[0]), int(arguments[1])
    outcome = run(Source.seeded(seed, number))
    print(outcome)
    if outcome is not None and outcome.kind in (*FAULTS, REFUSED_PLAIN):
        print("smallest:", smallest(outcome))


def counted(seed: int, count: int, say: Callable[[str], None] = print) -> tuple[Counter, int]:
    """Return how many draws came out how, and of how many a plain reader would expect an answer; faults are said."""
    kinds, expected = Counter(), 0
    for number, outcome in draws(seed, count):
        kinds[outcome.kind] += 1
        expected += outcome.expected
        if outcome.kind in FAULTS:
            say(line(seed, number, outcome))
    return kinds, expected


if __name__ == "__main__":
    main(sys.argv[1:])
