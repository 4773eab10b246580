"""The HTML of an explorer of conversations: the turns side by side, buttons that mute, and a script that looks answers up."""

import html
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
from PIL import Image

from crossexplain_book.pictures import BOX, COLOURS, INK, PAPER
from crossexplain_book.strips import EMPTY, Strip

ENOUGH = 0.75  # share of the evidence from which some modalities carry an answer, as for verdicts
NOTHING_LEFT = "The model says so with everything muted, too: nothing that is left speaks for this answer."


def conversation(strip: Strip, keep: Mapping[str, np.ndarray] | None, label: str) -> str:
    """Return a conversation as a table, a column for each turn; with buttons if ``keep`` is None, else with what is muted."""
    def cell(kind: str, value: str, inner: str, style: str = "") -> str:
        look = f' style="{style}"' if style else ""
        if keep is not None:
            return f"<span{look}>{inner}</span>"
        return f'<button type="button" aria-pressed="false" data-{kind}="{html.escape(value)}"{look}>{inner}</button>'

    unseen = '<span class="ce-unseen">mute </span>' if keep is None else ""
    heads = "".join(
        f'<th scope="col">{cell("turn", str(t), f"{unseen}turn {t + 1}")}'
        f'{cell("party", party, f"{unseen}{_sign(strip, t)} {html.escape(party)}", f"color:{strip.colour(t)}")}</th>'
        for t, party in enumerate(strip.parties))
    rows = ""
    for name in strip.names:
        cells = ""
        for t in range(len(strip)):
            muted = ' class="ce-muted"' if keep is not None and not keep[name][t] else ""
            inner = f"<em>{EMPTY[name]}</em>"
            if strip.has(name, t):
                inner = cell("part", f"{name} {t}", _part(strip, name, t, keep is None))
            cells += f"<td{muted}>{inner}</td>"
        rows += f'<tr><th scope="row">{cell("modality", name, unseen + name)}</th>{cells}</tr>'
    question = f'<p class="ce-question">{html.escape(strip.question)}</p>' if strip.question else ""
    label = html.escape(label or "The turns of the conversation, side by side; the table scrolls sideways")
    return (f'{question}<div class="ce-turns" tabindex="0" role="group" aria-label="{label}"><table><thead><tr><td></td>{heads}'
            f"</tr></thead><tbody>{rows}</tbody></table></div>")


def _sign(strip: Strip, turn: int) -> str:
    return f'<span aria-hidden="true">{strip.sign(turn)}</span>'


def _part(strip: Strip, name: str, turn: int, clickable: bool) -> str:
    """Return what is said, shown or heard in a turn as HTML; of a button, with what a click does."""
    words = f"the {name} of turn {turn + 1}, {html.escape(strip.parties[turn])}"
    if name == "words":
        unseen = f'<span class="ce-unseen">mute {words}: </span>' if clickable else ""
        return f'{unseen}<span style="color:{strip.colour(turn)}">{html.escape(" ".join(strip.words[turn]))}</span>'
    if name == "frames":
        pixels, size = np.concatenate(list(np.nan_to_num(strip.frames[turn], nan=1.0)), axis=1), "width:5.5rem"
    else:
        finite = strip.sound[np.isfinite(strip.sound)]
        low, high = finite.min(), finite.max()
        pixels = (np.nan_to_num(strip.sound[turn], nan=low).T[::-1] - low) / ((high - low) or 1.0)
        size = "width:5.5rem;height:3rem"
    buffer = BytesIO()
    Image.fromarray(np.uint8(255 * np.clip(pixels, 0, 1))).save(buffer, "png", optimize=True)
    alt = f"{'mute' if clickable else 'here you see'} {words}"
    return f'<img alt="{alt}" src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}" style="{size}">'


def dividend_table(dividends: Mapping[tuple[str, ...], float], digits: int) -> str:
    """Return the dividends of the non-empty subsets as a small table; blue speaks for no, red for yes."""
    subsets = [subset for subset in dividends if subset]
    top = max(abs(dividends[subset]) for subset in subsets) or 1.0
    heads = "".join(f'<th scope="col">{" + ".join(subset)}</th>' for subset in subsets)
    shown = {subset: f"{round(dividends[subset], digits) + 0.0:+.{digits}f}" for subset in subsets}
    cells = "".join(f'<td style="background:{_colour(dividends[subset] / top)}">{shown[subset]}</td>' for subset in subsets)
    words = "Dividends of what is left: what each subset adds to the logit beyond all smaller ones, red for yes, blue for no."
    return (f'<p>{words}</p><div class="ce-turns" tabindex="0" role="group" aria-label="Dividends; the table scrolls sideways">'
            f'<table class="ce-dividends"><thead><tr>{heads}</tr></thead><tbody><tr>{cells}</tr></tbody></table></div>')


def _colour(share: float) -> str:
    """Return the ground of a value between -1 and 1: white at 0, at most so strong that dark ink can be read on it."""
    end = (239, 138, 98) if share > 0 else (103, 169, 207)
    red, green, blue = (round(255 + (part - 255) * min(abs(share), 1.0)) for part in end)
    return f"rgb({red},{green},{blue})"


def known(strip: Strip) -> str:
    """Return what is known to decide, folded."""
    if not strip.deciding.any():
        return ""
    turns = []
    for t in np.flatnonzero(strip.deciding):
        chunks = []
        for name, known in strip.chunks.items():
            places = np.flatnonzero(known[t])
            if name == "words" and len(places):
                chunks.append(f"the words '{' '.join(strip.words[t][k] for k in places)}'")
            elif len(places):
                chunks.append(f"{'frame' if name == 'frames' else 'segment'} {', '.join(str(k + 1) for k in places)}")
        turns.append(f"turn {t + 1} ({strip.parties[t]})" + (f": {listed(chunks)}" if chunks else ""))
    return f"<details><summary>What is known to decide</summary>{html.escape('; '.join(turns))}.</details>"


def listed(words: Sequence[str]) -> str:
    """Return words as a sentence lists them.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


STYLE = f"""
.ce-conversation {{background: {PAPER}; color: {INK}; padding: .5rem .7rem; font-size: .85rem; text-align: left}}
.ce-conversation p {{margin: .3rem 0}}
.ce-question {{font-weight: 700}}
.ce-turns {{overflow-x: auto}}
.ce-conversation table {{border-collapse: separate; border-spacing: 3px; display: table; width: auto; margin: .3rem 0}}
.ce-conversation :is(th, td) {{border: 0; padding: 0 .15rem 0 0; text-align: left; vertical-align: top;
  background: none; color: {INK}}}
.ce-conversation td {{min-width: 5.5rem; max-width: 7rem; overflow-wrap: anywhere}}
.ce-conversation tr:first-child td:first-child {{min-width: 0}}
.ce-conversation tbody th {{vertical-align: middle; font-weight: 400}}
.ce-conversation thead :is(th > span, button) {{display: block}}
.ce-conversation img {{display: block; max-width: none; image-rendering: pixelated}}
.ce-conversation em {{color: #5f666c; font-size: .8em}}
.ce-conversation button {{font: inherit; color: {INK}; text-align: left; background: none; border: 1px solid #b9b9b2;
  padding: .1rem .2rem; border-radius: .2rem; cursor: pointer; width: 100%}}
.ce-conversation .ce-controls button {{width: auto; padding: .1rem .6rem}}
.ce-conversation :is(button, select, .ce-turns):focus-visible {{outline: 2px solid {COLOURS[0]}; outline-offset: 1px}}
.ce-conversation button[aria-pressed=true] {{border: 2px dashed {INK}; text-decoration: line-through}}
.ce-muted img {{opacity: .12}}
.ce-muted span {{text-decoration: line-through; opacity: .6}}
.ce-conversation .ce-dividends :is(td, th) {{min-width: 3.2rem; padding: .15rem .25rem; text-align: center; font-weight: 400}}
.ce-conversation .ce-unseen {{position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  white-space: nowrap}}
.ce-conversation details {{margin-top: .4rem}}
.ce-conversation details[open] {{border-left: 4px solid {BOX}; padding-left: .6rem}}
.ce-conversation select {{font: inherit; color: {INK}; background: {PAPER}; max-width: 100%}}"""

SCRIPT = r"""
document.querySelectorAll(".ce-conversation:not([data-ready]) > .ce-one").forEach(function (one) {
  var names = one.dataset.names.split(" "), turns = +one.dataset.turns, step = +one.dataset.step, table = null;
  var buttons = Array.from(one.querySelectorAll("button")), all = (1 << turns * names.length) - 1;
  var is = function (b) { return b.getAttribute("aria-pressed") === "true"; };
  var press = function (b, now) { b.setAttribute("aria-pressed", now); };
  var pressed = function (kind, value) {
    return buttons.some(function (b) { return b.dataset[kind] === String(value) && is(b); });
  };
  var parties = Array.from(one.querySelectorAll("[data-party]"), function (b) { return b.dataset.party; });
  var signed = function (x) { return (x < 0 ? "-" : "+") + Math.abs(x).toFixed(1); };
  var said = function (x) { return (x > 0 ? "yes" : "no") + " (logit " + signed(x) + ")"; };
  var subsets = [];
  for (var s = 0; s < 1 << names.length; s++) { subsets.push(s); }
  var members = function (s) { return names.filter(function (name, m) { return s >> m & 1; }); };
  var inside = function (a, b) { return (a & b) === a; };
  var show = function () {
    var keep = 0;
    names.forEach(function (name, m) {
      for (var t = 0; t < turns; t++) {
        var muted = pressed("modality", name) || pressed("turn", t) || pressed("party", parties[t])
          || pressed("part", name + " " + t);
        if (!muted) { keep |= 1 << m * turns + t; }
        var cell = one.querySelector('[data-part="' + name + " " + t + '"]');
        if (cell) { cell.parentElement.classList.toggle("ce-muted", muted); }
      }
    });
    var value = subsets.map(function (s) {
      var mask = 0;
      names.forEach(function (name, m) { if (s >> m & 1) { mask |= (1 << turns) - 1 << m * turns; } });
      return table[keep & mask] * step;
    });
    var whole = value[value.length - 1], sign = whole > 0 ? 1 : -1, gain = sign * (whole - value[0]);
    var carry = subsets.filter(function (s) { return gain > 0 && sign * (value[s] - value[0]) >= ENOUGH * gain; });
    var least = carry.filter(function (s) { return !carry.some(function (o) { return o !== s && inside(o, s); }); });
    var rests = least.map(function (s) {
      var of = members(s).map(function (name) { return "the " + name; }), last = of.pop();
      return of.length ? of.join(", ") + " and " + last + " together" : last + " alone";
    });
    one.querySelector("[role=status]").textContent = "The model says " + said(whole) + "; with nothing muted it says "
      + said(table[all] * step) + "." + one.dataset.truth + " "
      + (rests.length ? "The answer rests on " + rests.join(", or on ") + "." : one.dataset.nothing);
    var dividend = {};
    subsets.forEach(function (s) {
      dividend[members(s).join(" + ")] = subsets.reduce(function (sum, o) {
        return inside(o, s) ? sum + ((members(s).length - members(o).length) % 2 ? -1 : 1) * value[o] : sum;
      }, 0);
    });
    var box = one.querySelector(".ce-dividends");
    var shown = Array.from(box.querySelectorAll("th"), function (head) { return dividend[head.textContent]; });
    var top = Math.max.apply(null, shown.map(Math.abs)) || 1;
    box.querySelectorAll("td").forEach(function (cell, i) {
      var share = shown[i] / top, end = share > 0 ? [239, 138, 98] : [103, 169, 207];
      cell.textContent = signed(Math.abs(shown[i]) < 0.05 ? 0 : shown[i]);
      cell.style.background = "rgb(" + end.map(function (p) { return Math.round(255 + (p - 255) * Math.abs(share)); }) + ")";
    });
  };
  buttons.forEach(function (button) {
    button.addEventListener("click", function () {
      var now = !is(button), party = button.dataset.party;
      buttons.forEach(function (b) {  // a party has a button in each of its turns
        if (b === button || (party !== undefined && b.dataset.party === party)) { press(b, now); }
      });
      if (table) { show(); }
    });
  });
  one.addEventListener("mute", function (event) {  // the numbers of the buttons that shall be pressed, and no others
    buttons.forEach(function (b, i) { press(b, event.detail.indexOf(i) >= 0); });
    if (table) { show(); }
  });
  var bytes = Uint8Array.from(atob(one.querySelector("script").textContent), function (c) { return c.charCodeAt(0); });
  new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer().then(function (buffer) {
    table = new Int8Array(buffer);
    show();
  });
});
document.querySelectorAll(".ce-conversation:not([data-ready])").forEach(function (box) {
  box.dataset.ready = "1";
  var ones = Array.from(box.querySelectorAll(".ce-one")), select = box.querySelector("select");
  var sign = "#talk=", mute = function (one, numbers) { one.dispatchEvent(new CustomEvent("mute", { detail: numbers })); };
  var choose = function (k) {
    ones.forEach(function (one, i) { one.hidden = i !== k; });
    if (select) { select.value = k; }
  };
  var keep = function () {  // the conversation and what is muted, in the address
    var k = ones.findIndex(function (one) { return !one.hidden; }), pressed = [];
    ones[k].querySelectorAll("button").forEach(function (b, i) {
      if (b.getAttribute("aria-pressed") === "true") { pressed.push(i.toString(36)); }
    });
    history.replaceState(null, "", sign + k + "~" + pressed.join("."));
  };
  var follow = function () {
    var parts = location.hash.slice(sign.length).split("~"), k = +parts[0];
    if (!location.hash.startsWith(sign) || !ones[k] || parts.length !== 2) { return false; }
    choose(k);
    mute(ones[k], parts[1].split(".").map(function (number) { return parseInt(number, 36); }));
    return true;
  };
  if (select) { select.addEventListener("change", function () { choose(+select.value); keep(); }); }
  box.addEventListener("click", function (event) {
    if (event.target.closest(".ce-reset")) { ones.forEach(function (one) { mute(one, []); }); }
    if (event.target.closest("button")) { keep(); }
  });
  window.addEventListener("hashchange", follow);
  if (follow()) { box.scrollIntoView(); }
});""".replace("ENOUGH", str(ENOUGH))
