"""The sections of the page: of one run, and of two side by side."""

import json
from collections.abc import Iterable, Sequence

import numpy as np

from crossexplain.gradients.verdict import ENOUGH
from crossexplain.intervals import Interval
from crossexplain.runs.results import differences
from crossexplain_book.report.examples import Reader, Rule, rules, shown
from crossexplain_book.report.markup import Html, Section, drawn, joined, section, table, tag
from crossexplain_book.report.measures import COMPARED, FEW, JUDGED, Pair, Run, Slice

LISTED = 20  # failures, and rows of long tables, that are shown
NO_ROUNDS = "The run has no rounds, whose views a verdict is read from; run with --method rounds to have them."


def paragraph(*words: object, kind: str = "") -> Html:
    """Return a paragraph."""
    return tag("p", *words, class_=kind) if kind else tag("p", *words)


def percent(interval: Interval) -> str:
    """Return a share as per cent."""
    return f"{interval:.1%}"


def overview(run: Run) -> Html:
    """Say in a few lines what was run, what it found, and what to look at first."""
    total = len(run.ok)
    what = (f"{run.configuration['model']['name']}, explained by {', '.join(run.configuration['methods'])}: {run.n:,} of "
            f"{total:,} examples, {total - run.n:,} failed.")
    parts = [paragraph(what)]
    if run.has_rounds:
        parts.append(paragraph(tag("strong", f"{run.verdict.answer}. "), run.verdict.reason,
                               f" (support {run.verdict.support:.2f})", kind="finding"))
    else:
        parts.append(paragraph(NO_ROUNDS))
    looks = list(_first_looks(run))
    if looks:
        parts += [tag("h3", "What to look at first"), tag("ol", *(tag("li", look) for look in looks))]
    return tag("section", *parts, id="finding")


def _first_looks(run: Run) -> Iterable[Html]:
    failed = len(run.ok) - run.n
    if failed:
        reason, count, _ = run.failures()[0]
        yield joined([tag("a", f"{failed:,} examples failed", href="#failures"), f", {count:,} of them because: {reason}"])
    if run.has_rounds and (hidden := run.hidden()):
        yield joined([tag("a", f"{len(hidden)} of {len(run.slices)} slices say something else", href="#slices"),
                      f", the largest is {hidden[0]}: {hidden[0].judged.answer} ({hidden[0].n:,} examples)."])
    if run.right is not None and (run.right == 0).any():
        yield joined([tag("a", "Predictions that are wrong", href="#examples"), f": {percent(run.mean(run.right == 0))}, "
                      f"n = {run.n:,}; those of which the model is surest come first."])


def dominance(run: Run) -> Section:
    """Say what the predictions rest on: of all together, of single ones."""
    if not run.has_rounds:
        return section("What the predictions rest on", "dominance", paragraph(NO_ROUNDS))
    rows = [("their sum" if part == "sum" else f"{part} alone", baseline, drawn(reach, mark=ENOUGH, colour=i % 6))
            for baseline, parts in run.verdict.reach.items() for i, (part, reach) in enumerate(parts.items())]
    flips = [(f"{name} masked", baseline, drawn(share, colour=i)) for baseline, parts in run.verdict.flips.items()
             for i, (name, share) in enumerate(parts.items())]
    note = f" from {JUDGED:,} examples drawn at random" if run.n > JUDGED else ""
    single = [(answer, drawn(share)) for answer, share in run.shares.items()]
    drawn_by = "pictures, whose examples are drawn together" if run.groups is not None else "examples"
    return section(
        "What the predictions rest on", "dominance",
        paragraph(f"How much of the variation of the logits each part accounts for{note}. From {ENOUGH:g} on, the dashed line, "
                  f"a part carries the predictions. All intervals are 95 % bootstrap over {drawn_by}."),
        table(("part", "baseline", "accounts for"), rows, "What each part accounts for"),
        table(("view", "baseline", "share of predictions that change"), flips, "Predictions that change"),
        paragraph("What single predictions rest on, each measured from the middle of all. Near the threshold a small change "
                  "decides: read the shares, not one example."),
        table(("answer", f"share of {run.n:,}"), single, "Answers of single examples") if single else None)


def by_slice(run: Run) -> Section:
    """Say what the predictions of slices rest on, those that differ from the whole first."""
    if not run.has_rounds or not run.slices:
        why = f"No column divides the examples into slices of {FEW} or more." if run.has_rounds else NO_ROUNDS
        return section("Slices", "slices", paragraph(why))
    hidden = run.hidden()
    ordered = [*hidden, *(part for part in run.slices if part not in hidden)]
    columns = {part.column: [one for one in run.slices if one.column == part.column] for part in hidden}
    turned = [column for column, parts in columns.items()
              if len({one.judged.answer for one in parts}) == 1 and all(one in hidden for one in parts)]
    simpson = f" All slices by {', '.join(turned)} agree with each other and not with the whole: look at them, not at it." \
        if turned else ""
    share = 0.05 * len(run.slices)
    text = (f"{len(run.slices)} slices of {FEW} examples or more were judged; {len(hidden)} surely say something else than "
            f"the whole, which says {run.verdict.answer}.{simpson} Among as many slices that do not differ, up to about "
            f"{share:.1g} may seem to by chance.")
    return section("Slices", "slices", paragraph(text), table(
        ("slice", "n", "rests on", *(f"{name} alone accounts for" for name in run.modalities), "right"),
        [_slice_row(run, part, part in hidden) for part in ordered], "Slices, those that differ from the whole first"))


def _slice_row(run: Run, part: Slice, differs: bool) -> list[object]:
    reach = next(iter(part.judged.reach.values()))
    labelled = run.right is not None and not np.isnan(run.right[part.where & run.ok]).all()
    right = percent(run.mean(run.right, part.where)) if labelled else ""
    answer = tag("span", part.judged.answer, class_="clear") if differs else part.judged.answer
    return [str(part), f"{part.n:,}", answer,
            *(drawn(reach[name], mark=ENOUGH, colour=i) for i, name in enumerate(run.modalities)), right]


def methods(run: Run, agreement: Sequence[tuple[str, str, str, np.ndarray]]) -> Section:
    """Say how alike methods rank the features of each example."""
    rows = [(f"{one} and {other}", modality, drawn(run.mean(values), -1, 1, mark=0))
            for modality, one, other, values in agreement if not np.isnan(values[run.ok]).all()]
    if not rows:
        return section("Methods against each other", "methods", paragraph("The run has no two methods to compare."))
    note = f" on {COMPARED:,} examples drawn at random" if run.n > COMPARED else ""
    return section("Methods against each other", "methods", paragraph(
        f"Rank correlation of the sizes of importances in the same example{note}: 1 is the same order of features, 0 none in "
        "common."), table(("methods", "modality", "rank correlation"), rows, "How alike methods rank features"))


def examples(run: Run, chosen: Sequence[Rule], reader: Reader | None) -> Section:
    """Show the examples that rules choose."""
    note = None if reader else paragraph("These are numbers only, since results hold no inputs: name the data with --data to "
                                         "see pictures and words.")
    parts = [joined([tag("h3", rule.title), paragraph(rule.why), *(shown(run, row, reader) for row in rule.rows)])
             for rule in chosen]
    return section("Examples to look at", "examples", note, *parts)


def failures(*runs: Run) -> Section:
    """List why examples failed."""
    rows = [(reason, run.name, f"{count:,}", ", ".join(keys) + (" ..." if count > len(keys) else ""))
            for run in runs for reason, count, keys in run.failures()]
    if not rows:
        return section("Failures", "failures", paragraph("No example failed."))
    more = paragraph(f"{len(rows) - LISTED:,} more reasons are in the results.") if len(rows) > LISTED else None
    listed = table(("reason", "run", "examples", "keys"), rows[:LISTED], "Why examples failed")
    return section("Failures", "failures", listed, more)


def cost(*runs: Run) -> Section:
    """Say what runs took."""
    rows = []
    for run in runs:
        seconds = np.array([value for value in run.column("seconds") if value is not None], float)
        rows.append((run.name, f"{seconds.sum() / 60:.1f}", f"{1000 * np.median(seconds):.1f}",
                     f"{len(seconds) / max(seconds.sum(), 1e-9):.1f}", f"{(run.size or 0) / len(run.ok):,.0f}",
                     f"{sum(bool(flags) for flags in run.column('flags')):,}"))
    head = ("run", "minutes, all processes together", "ms an example, median", "examples a second, one process",
            "bytes an example on the disk", "examples with a flag")
    return section("Cost", "cost", table(head, rows, "Cost"))


def made(run: Run) -> Html:
    """Say what the run was made with."""
    text = json.dumps(run.configuration, indent=1, ensure_ascii=False)
    return tag("details", tag("summary", f"What {run.name} was made with"), tag("pre", text))


def one_run(run: Run, reader: Reader | None) -> list[Html]:
    """Return all sections of the page of one run."""
    agreement = run.agreement()
    chosen = rules(run, agreement)
    if reader:
        reader.require(run)
        reader.read({str(run.column("key")[row]) for rule in chosen for row in rule.rows})
    return [overview(run), dominance(run), by_slice(run), methods(run, agreement), examples(run, chosen, reader), failures(run),
            cost(run), made(run)]


def two_runs(pair: Pair, reader: Reader | None) -> list[Html]:
    """Return all sections of the page of two runs."""
    first, second = pair.first, pair.second
    values = pair.values()
    gaps = {name: pair.difference(*both) for name, both in values.items() if not all(np.isnan(one).all() for one in both)}
    lost = f"{first.n - pair.n:,} of {first.name} and {second.n - pair.n:,} of {second.name} have no counterpart."
    head = [paragraph(f"{pair.n:,} examples were explained by both, and are compared one by one; {lost}"),
            paragraph("What differs in how they were made: ",
                      differences(first.configuration, second.configuration) or "nothing")]
    for run in (first, second):
        if run.has_rounds:
            head.append(paragraph(tag("strong", f"{run.name}: {run.verdict.answer}. "), run.verdict.reason, kind="finding"))
    rows = [(name, f"{np.nanmean(values[name][0]):.1%}", f"{np.nanmean(values[name][1]):.1%}", _gap(gap))
            for name, gap in gaps.items()]
    drawn_by = "pictures, whose examples are drawn together" if first.groups is not None else "examples"
    return [tag("section", *head, id="finding"),
            section("What changed", "changed", paragraph(
                f"Shares of the {pair.n:,} common examples; the difference is {second.name} less {first.name}, paired, with "
                f"the 95 % bootstrap interval over {drawn_by}. Bold: the interval leaves 0 out."),
                table(("share of examples", first.name, second.name, "difference"), rows, "What changed"), _crossed(pair)),
            _slices_of_two(pair, values, gaps), _examples_of_two(pair, reader), failures(first, second),
            cost(first, second), made(first), made(second)]


def _gap(gap: Interval) -> Html:
    text = f"{100 * gap.value:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] points"
    return tag("span", text, class_="clear number" if gap.low > 0 or gap.high < 0 else "number")


def _crossed(pair: Pair) -> Html | None:
    """Return how many examples went from which answer to which."""
    first, second = pair.first.answers[pair.rows[0]], pair.second.answers[pair.rows[1]]
    if not (pair.first.has_rounds and pair.second.has_rounds):
        return None
    before, after = list(pair.first.shares), list(pair.second.shares)
    rows = [(one, *(f"{int(((first == one) & (second == other)).sum()):,}" for other in after)) for one in before]
    return table((f"{pair.first.name}, down; {pair.second.name}, across", *after), rows, "From which answer to which")


def _slices_of_two(pair: Pair, values: dict, gaps: dict[str, Interval]) -> Section:
    """Say in which slices the measure that changed most changed most."""
    if not gaps:
        return Html("")
    name = max(gaps, key=lambda one: abs(gaps[one].value))
    found = [(part, int(where.sum()), pair.difference(*values[name], where)) for part, where in pair.slices()
             if not all(np.isnan(one[where]).all() for one in values[name])]
    found.sort(key=lambda one: -abs(one[2].value))
    rows = [(part, f"{n:,}", _gap(gap)) for part, n, gap in found[:LISTED]]
    text = f"The share that changed most is: {name}. {len(found)} slices of {FEW} examples or more, the largest changes first."
    return section("Where it changed", "slices", paragraph(text), table(("slice", "n", "difference"), rows, "By slice"))


def _examples_of_two(pair: Pair, reader: Reader | None) -> Section:
    chosen = pair.changed()[:5]
    if reader:
        reader.read({str(pair.first.column("key")[pair.rows[0][i]]) for i in chosen})
    parts = [joined([shown(run, int(pair.rows[k][i]), reader if reader and k == 0 else None, f"{run.name}:")
                     for k, run in enumerate((pair.first, pair.second))]) for i in chosen]
    return section("Examples that changed most", "examples", paragraph(
        "Those that rest on something else now, by the change of the evidence for the followed class."), *parts)
