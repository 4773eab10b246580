"""The collage lab in a real browser, from a file: how soon it loads and follows, and whether it says what PyTorch says.

The page is the one that the book shows. All 200 stored pairs are explained in it and here: logits, maps, word scores and rounds
under three stand-ins, with and without parts covered, exact values of some pairs, and the verdict over the first 2, 3, ... 200
pairs. What it is compared with is the PyTorch model with the same weights, in half precision.
"""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright
from torch import Tensor

from crossexplain import Game, ImageCells, Mask, Tokens, rounds
from crossexplain.coalitions.shapley import interactions, shapley
from crossexplain.gradients import maps, tokens
from crossexplain.gradients.verdict import Verdict, verdict
from crossexplain.gradients.views import FULL, NOTHING, Views, masked
from crossexplain_book import chromium, live
from crossexplain_book.bench import row_of

SIZES = range(2, live.PAIRS + 1)  # over how many pairs verdicts are reached
STAND_INS = ({"image": "zero", "text": "mask"}, {"image": "mean", "text": "pad"}, {"image": "data", "text": "data"})
MAPS, SCORES = ("grad-cam", "layer-cam"), ("l2", "activation x gradient")
EXACT = (1, 6, 34)  # stored pairs whose exact values are compared, one under each stand-in
NAMES = ("image", "text")
# Norm above which the directions of two gradients are compared. Where the tower's softmax is saturated, its gradient is a
# difference of nearly equal numbers, of which PyTorch's single precision keeps few digits; the page has twice as many.
STEEP = 0.01


def rows(seed: int = 0, repeats: int = 5) -> list[dict]:
    """Return the rows ``page.live.*``; ``repeats`` loads, six times as many changes, and as many exact tables."""
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder)) as page:
        loads = []
        for _ in range(repeats):
            page.reload()
            loads.append(page.evaluate(START))
        changes = page.evaluate(CHANGES, 6 * repeats)
        exact = [page.evaluate(EXACTLY) for _ in range(repeats)]
        theirs, ours = asked(page, seed), reference(seed)
        size = (Path(folder) / live.SCRIPT).stat().st_size
    worst = {what: value for what, value in differences(theirs, ours).items() if what != "cosines"}
    equal = [mine[0] == other[0] for mine, other in zip(ours["verdicts"], theirs["verdicts"])]
    return [
        row_of("page.live.load_seconds", loads, "s from a click to the live lab, from a file"),
        row_of("page.live.change_ms", changes, "ms from a changed digit, cell or word to answer, map and scores"),
        row_of("page.live.exact_seconds", exact, "s for the values of all 8,192 sets of 13 players"),
        row_of("page.live.max_difference", [*worst.values()], f"largest difference from PyTorch in {', '.join(worst)}", max),
        row_of("page.live.verdicts_equal", [sum(equal)], f"of {len(equal)} verdicts, over the first 2, 3, ... pairs")
        | {"n": len(equal)},
        row_of("page.live.bytes", [size], "bytes of the script that a page loads on first use"),
    ]


@contextmanager
def opened(folder: Path) -> Iterator[Page]:
    """Open the lab in a browser of its own; errors on the page are raised at the end."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox", "--disable-gpu"])
        page, errors = browser.new_context(offline=True).new_page(), []
        page.set_default_timeout(0)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(written(folder).as_uri())
        yield page
        browser.close()
    assert not errors, errors


def written(folder: Path) -> Path:
    """Write the lab as a page of the book has it, with its script, and return the page's path."""
    path = folder / "chapters" / "lab.html"
    path.parent.mkdir()
    live.write(folder)
    path.write_text(f"<!doctype html><html lang='en'><meta charset='utf-8'><meta name='viewport' "
                    f"content='width=device-width'><title>lab</title>{lab().html()}</html>", "utf-8")
    return path


def lab() -> live.CollageLab:
    """Return the lab in its first state."""
    return live.CollageLab(name="fig-live", caption="The lab in its first state. Start it to change it.")


def covers(seed: int) -> list[tuple[int, int, int]]:
    """Return for each stored pair what is covered, as bits: cells, words, and the number of the stand-in."""
    draw = np.random.default_rng(seed)
    lengths = (live.kept_pairs().tokens() != 0).sum(dim=1).tolist()
    return [(int(draw.integers(16)), int(draw.integers(2**length)), k % 3) for k, length in enumerate(lengths)]


def asked(page: Page, seed: int, rounded: int = live.PAIRS, sizes: Sequence[int] = SIZES) -> dict:
    """Return what the lab on a page says of all stored pairs: of some their rounds, and verdicts over the first few."""
    page.evaluate(READY)
    return page.evaluate(ASK, {"covers": covers(seed), "maps": MAPS, "scores": SCORES, "exact": EXACT, "rounded": rounded,
                               "sizes": list(sizes)})


def verdict_of(n: int) -> Verdict:
    """Return the package's verdict over the first n stored pairs."""
    model, inputs = live.model(), live.kept_pairs().inputs(range(n))
    sides = [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)]
    return rounds(model, inputs, sides, baselines=list(STAND_INS), donors=live.lenders().inputs(), pick=None,
                  progress=False).verdict()


def reference(seed: int, rounded: int = live.PAIRS, sizes: Sequence[int] = SIZES) -> dict:
    """Return the same from PyTorch and the package."""
    model, inputs, lent = live.model(), live.kept_pairs().inputs(), live.lenders().inputs()
    sides = [ImageCells(layer=model.image_layer), Tokens(layer=model.text_layer)]
    record = rounds(model, inputs, sides, baselines=list(STAND_INS), donors=lent, top={"text": 3, "image": 1}, control=False,
                    progress=False)
    found = {"full": _explained(model, inputs), "covered": _explained(model, _covered(inputs, sides, lent, covers(seed)))}
    for i, (_, words, _) in enumerate(covers(seed)):
        for method in SCORES:  # a covered word has no score
            found["covered"][method][i, [bool(words >> k & 1) for k in range(found["covered"][method].shape[1])]] = torch.nan
    for label in record.baselines:
        of = {view: record.passes[label, view] for view in (FULL, *map(masked, NAMES), NOTHING)}
        found[label] = {"logits": [of[view].logits[:, 0] for view in (FULL, "text masked", "image masked", NOTHING)]}
        for name in NAMES:
            other, = (one for one in NAMES if one != name)
            fourth = record.passes[label, record.picked(name)]
            norms = [of[FULL].norms[name], of[masked(other)].norms[name], of[masked(name)].norms[other], fourth.norms[other]]
            side = record.by_side[label, name]
            found[label][name] = {"norms": torch.stack(norms, dim=1)[:rounded], "picked": side.picked[:rounded],
                                  "cosine": side.similarity.cosine[:rounded]}
    found["verdicts"] = [_verdict(record, n) for n in sizes]
    found["exact"] = [_exact(model, inputs, lent, sides, example, STAND_INS[k]) for k, example in enumerate(EXACT)]
    return found


def _explained(model, inputs) -> dict[str, Tensor]:
    with torch.no_grad():
        found = {"logit": model(**inputs)}
    found |= maps.attribute(model, inputs, model.image_layer, MAPS)
    return found | tokens.attribute(model, inputs, model.text_layer, SCORES, special="keep")


def _covered(inputs, sides, lent, covered) -> dict[str, Tensor]:
    """Return the inputs with parts of each pair covered, borrowed from the first lender."""
    parts = []
    for i, (cells, words, stand_in) in enumerate(covered):
        one = {key: values[i : i + 1] for key, values in inputs.items()}
        keep = {"image": [not cells >> k & 1 for k in range(4)],
                "text": [not words >> k & 1 for k in range(one["tokens"].shape[1])]}
        plan = {name: Mask(torch.tensor(keep[name]), STAND_INS[stand_in][name], torch.tensor([0])) for name in NAMES}
        parts.append(Views(one, sides, {"covered": plan}, lent, allow_empty=True).inputs)
    return {key: torch.cat([part[key] for part in parts]) for key in inputs}


def _verdict(record, n: int) -> list:
    """Return answer and support of the first n pairs."""
    views = {label: {view: record.passes[label, view].logits[:n] for view in (FULL, "text masked", "image masked", NOTHING)}
             for label in record.baselines}
    said = verdict(views, NAMES)
    return [said.answer, round(said.support, 6)]


def _exact(model, inputs, lent, sides, example: int, stand_in: dict) -> dict:
    one = {key: values[example : example + 1] for key, values in inputs.items()}
    game = Game(model, one, sides, baselines=stand_in, donors=lent, players={"text": 9}, progress=False)
    table = game.values_of_all()[0].numpy()
    table = table[: 2 ** int(game.present[0].sum())]  # the last players may be none
    return {"values": table, "phi": shapley(table), "pairs": interactions(table)}


def differences(theirs: dict, ours: dict) -> dict[str, float]:
    """Return the largest difference in each kind of answer; what was picked has to be the same.

    Cosines amplify the rounding of small gradients, by the ratio of 1 to their norm.
    """
    worst: dict[str, float] = {}

    def compare(what: str, mine, other) -> None:
        mine, other = (np.array(values.numpy() if isinstance(values, Tensor) else values, float) for values in (mine, other))
        assert mine.shape == other.shape, f"{what}: {mine.shape} and {other.shape}"
        assert (np.isnan(mine) == np.isnan(other)).all(), what
        worst[what] = max(worst.get(what, 0.0), float(np.nan_to_num(np.abs(mine - other)).max(initial=0)))

    for state in ("full", "covered"):
        for what, kind in (("logit", "logits"), *((name, "maps") for name in MAPS)):
            compare(kind, ours[state][what].flatten(1 if ours[state][what].ndim > 1 else 0), theirs[state][what])
        for method in SCORES:
            for mine, other in zip(ours[state][method].numpy(), theirs[state][method]):
                compare("words", mine[: len(other)], np.array(other, dtype=float))
    for label in ours.keys() - {"full", "covered", "verdicts", "exact"}:
        compare("logits", torch.stack(ours[label]["logits"]), theirs[label]["logits"])
        for name in NAMES:
            side, other_side = ours[label][name], theirs[label][name]
            steep = (side["norms"][:, 2:] > STEEP).all(dim=1)
            compare("norms", side["norms"], other_side["norms"])
            compare("cosines", side["cosine"][steep], np.array(other_side["cosine"])[steep])
            for mine, other in zip(side["picked"], other_side["picked"]):
                assert set(mine.nonzero()[:, 0].tolist()) == set(other), f"{label}, {name}: picked {other}"
    for mine, other in zip(ours["exact"], theirs["exact"]):
        for what in ("values", "phi", "pairs"):
            compare("exact values", mine[what], other[what])
    return worst


READY = """() => window.labModule ??= (async () => {
    if (!window.crossexplainLab) await new Promise((go) => {
        const script = document.createElement("script");
        script.src = document.querySelector(".ce-lab").dataset.src;
        script.onload = go;
        document.head.append(script);
    });
    const blob = new Blob([crossexplainLab.module], {type: "text/javascript"});
    window.labModule = await import(URL.createObjectURL(blob));
    window.asker = new labModule.Asker(Uint8Array.from(atob(crossexplainLab.data), (c) => c.charCodeAt(0)));
})()"""
ASK = """async ({covers, maps, scores, exact, rounded, sizes}) => {
    const {STAND_INS, verdict, shapley} = labModule, pairs = asker.head.pairs.map((row) => asker.stored(row));
    const explained = (pair, ...state) => {
        const of = maps.map((map, k) => asker.explained(pair, ...state, map, scores[k]));
        return {logit: of[0].logit, ...Object.fromEntries(maps.map((map, k) => [map, [...of[k].heat]])),
                ...Object.fromEntries(scores.map((score, k) => [score, of[k].scores.map((v) => v === v ? v : null)]))};
    };
    const columns = (rows) => Object.fromEntries(Object.keys(rows[0]).map((key) => [key, rows.map((row) => row[key])]));
    const found = {full: columns(pairs.map((pair) => explained(pair, 0, 0, STAND_INS[0]))),
                   covered: columns(pairs.map((pair, i) => {
                       const [cells, words, standIn] = covers[i];
                       return explained(pair, cells, words, STAND_INS[standIn]);
                   }))};
    const logits = {};
    for (const standIn of STAND_INS) {
        const views = columns(pairs.map((pair) => asker.views(pair, standIn)));
        logits[standIn.name] = views;
        const rounds = columns(pairs.slice(0, rounded).map((pair) => asker.rounds(pair, standIn)));
        const kept = (sides) => columns(sides.map(({norms, cosine, picked}) => ({norms, cosine, picked})));
        found[standIn.name] = {logits: [views.full, views.image, views.text, views.nothing], text: kept(rounds.text),
                               image: kept(rounds.image)};
    }
    found.verdicts = sizes.map((n) => {
        const some = Object.fromEntries(Object.entries(logits).map(([name, views]) =>
            [name, Object.fromEntries(Object.entries(views).map(([view, x]) => [view, x.slice(0, n)]))]));
        const said = verdict(some, asker.head.bootstrap);
        return [said.answer, Math.round(1e6 * said.support) / 1e6];
    });
    found.exact = [];
    for (const [k, example] of exact.entries()) {
        const values = await asker.values(pairs[example], STAND_INS[k]), {phi, pairs: both} = shapley(values);
        found.exact.push({values: [...values], phi: [...phi], pairs: both.map((row) => [...row])});
    }
    return found;
}"""
START = """() => new Promise((done) => {
    const box = document.querySelector(".ce-lab"), began = performance.now();
    const live = () => box.querySelector(".ce-lab-live [role=status]")?.textContent;
    const look = () => live() && requestAnimationFrame(() => done((performance.now() - began) / 1000));
    new MutationObserver(look).observe(box, {childList: true, subtree: true});
    box.querySelector("button").click();
})"""
CHANGES = """async (count) => {
    const box = document.querySelector(".ce-lab-live"), status = box.querySelector("[role=status]"), times = [];
    const groups = [".ce-lab-palette button", ".ce-lab-covers button", ".ce-lab-words button"];
    for (let k = 0; k < count; k++) {
        await new Promise((go) => setTimeout(go, 1500));
        await new Promise(requestIdleCallback);  // the rounds and the verdict of the change before are done
        const buttons = box.querySelectorAll(groups[k % 3]), began = performance.now();
        buttons[(5 * k) % buttons.length].click();
        await new Promise(requestAnimationFrame);
        times.push(performance.now() - began);
    }
    return times;
}"""
EXACTLY = """() => new Promise((done) => {
    document.querySelectorAll(".ce-lab-exact table").forEach((table) => table.remove());
    const button = document.querySelector(".ce-lab-exact button"), began = performance.now();
    new MutationObserver((_, watch) => document.querySelector(".ce-lab-exact table")
        && (watch.disconnect(), done((performance.now() - began) / 1000)))
        .observe(document.querySelector(".ce-lab-exact"), {childList: true, subtree: true});
    button.click();
})"""
