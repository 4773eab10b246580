// What the reader sees and touches. `render` is called by anywidget in JupyterLab and by a few lines on a page of the book:
// model.get("data") holds the bytes of the model, model.get("state") the state as text, which a page keeps in its address.

const CORNERS = ["upper left", "upper right", "lower left", "lower right"], BRUSH = 2.3, PAD_SIDE = 32, MORE = 20;
const TITLES = { "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", l2: "gradient norm", "activation x gradient": "activation x gradient" };
const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"]
  .map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));
const STYLE = `
.ce-lab-live{background:#fdfdfb;color:#22262b;padding:.6rem .7rem;font-size:.9rem;text-align:left;color-scheme:light;line-height:1.45}
.ce-lab-live *{box-sizing:border-box}
.ce-lab-live p{margin:.35rem 0;max-width:42rem}
.ce-lab-live h4{margin:.8rem 0 .2rem;font-size:1rem;color:#22262b}
.ce-lab-live :is(button,select,input){font:inherit;color:#22262b;background:#fff;border:1px solid #8a8f94;border-radius:.25rem;
padding:.2rem .5rem;min-height:2rem;max-width:100%;margin:0}
.ce-lab-live button{cursor:pointer}
.ce-lab-live :is(button,select,input,canvas,.ce-lab-scroll):focus-visible{outline:3px solid #33628f;outline-offset:1px}
.ce-lab-live button[aria-pressed=true]{border:2px dashed #22262b;text-decoration:line-through}
.ce-lab-row,.ce-lab-pictures{display:flex;flex-wrap:wrap;gap:.35rem .6rem;align-items:center;margin:.35rem 0}
.ce-lab-row label{display:inline-flex;flex-wrap:wrap;gap:.35rem;align-items:center;max-width:100%}
.ce-lab-pictures{align-items:flex-start}
.ce-lab-pictures>div{position:relative;width:min(224px,42vw);min-width:0}
.ce-lab-pictures canvas{width:100%;display:block;image-rendering:pixelated;border:1px solid #8a8f94;aspect-ratio:1}
.ce-lab-pictures canvas.ce-lab-smooth{image-rendering:auto}
.ce-lab-cells{position:absolute;inset:0 0 auto;aspect-ratio:1;display:grid;grid-template:1fr 1fr/1fr 1fr}
.ce-lab-live .ce-lab-cells button{background:none;border:0;border-radius:0;min-height:0;touch-action:none}
.ce-lab-live .ce-lab-cells button[aria-current=true]{box-shadow:inset 0 0 0 3px #c8553d}
.ce-lab-live .ce-lab-palette button{padding:2px;line-height:0;touch-action:none;min-width:2.5rem}
.ce-lab-palette canvas{width:2.1rem;image-rendering:pixelated}
.ce-lab-drawing{touch-action:none;width:min(192px,60vw);aspect-ratio:1;border:2px solid #33628f;image-rendering:pixelated;cursor:crosshair}
.ce-lab-ghost{position:fixed;pointer-events:none;z-index:9;width:3.5rem;opacity:.8}
.ce-lab-words small{display:block;font-size:.75em}
.ce-lab-scroll{overflow-x:auto}
.ce-lab-live table{border-collapse:collapse;display:table;width:auto;margin:.3rem 0;font-size:.85rem}
.ce-lab-live :is(td,th){border:1px solid #d5d5cf;padding:.15rem .4rem;text-align:left;font-weight:400;background:none;color:#22262b}
.ce-lab-live th{font-weight:600}
.ce-lab-live .ce-lab-alert{border-left:4px solid #c8553d;padding-left:.6rem}
.ce-lab-bar{display:inline-block;height:.7rem;background:#b2182b;vertical-align:middle}
.ce-lab-bar.ce-lab-against{background:#2166ac}
@media print{.ce-lab-live :is(button:not([aria-pressed=true]):not(.ce-lab-words *),select,input,.ce-lab-palette){display:none}}`;

/** An element with attributes, listeners (on...) and children. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== false && value !== undefined) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

const signed = (x, digits = 2) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(digits);
const answer = (logit) => `${logit > 0 ? "yes" : "no"} (logit ${signed(logit)})`;
const bits = (set, count) => Array.from({ length: count }, (_, k) => (set >> k) & 1);

/** Smallest number of letters to change, add or leave out from one word to another. */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, k) => k);
  for (let i = 1; i <= a.length; i++) {
    row = row.reduce((now, above, k) => [...now, k ? Math.min(above + 1, now[k - 1] + 1, row[k - 1] + (a[i - 1] !== b[k - 1])) : i], []);
  }
  return row[b.length];
}

/** Whether a sentence is true of four digits, as crossexplain.data.collages.holds says it. */
function holds(digits, { task, cells, count }) {
  const extreme = { largest: Math.max(...digits), smallest: Math.min(...digits) }[task];
  const marked = digits.map((d) => (extreme === undefined ? d % 2 === (task === "odd" ? 1 : 0) : d === extreme));
  const number = marked.filter(Boolean).length, wanted = extreme === undefined ? count : 1;
  return (wanted === null ? number > 0 : number === wanted) && (!cells.length || (number > 0 && cells.includes(marked.indexOf(true))));
}

/** Draw values (side, side) from 0 to 1 on a canvas, each by a function that gives its colour. */
function paint(canvas, values, side, colour) {
  canvas.width = canvas.height = side;
  const picture = new ImageData(side, side);
  values.forEach((v, i) => picture.data.set([...colour(v, i), 255], 4 * i));
  canvas.getContext("2d").putImageData(picture, 0, 0);
}

const ink = (v) => [253, 253, 251].map((paper, k) => Math.round(paper + ([34, 38, 43][k] - paper) * v));

function inferno(share) {
  const at = Math.min(share, 1) * (INFERNO.length - 1), k = Math.min(Math.floor(at), INFERNO.length - 2);
  return INFERNO[k].map((v, c) => v + (INFERNO[k + 1][c] - v) * (at - k));
}

/** Enlarge a map (14, 14) to the picture's 56 x 56, bilinearly. */
function enlarged(heat) {
  return Float64Array.from({ length: SIDE * SIDE }, (_, i) => {
    const place = (p) => Math.min(MAP - 1, Math.max(0, (p + 0.5) / 4 - 0.5));
    const y = place((i / SIDE) | 0), x = place(i % SIDE), r = y | 0, s = x | 0, down = Math.min(r + 1, 13), right = Math.min(s + 1, 13);
    const line = (row) => heat[row * MAP + s] * (1 - x + s) + heat[row * MAP + right] * (x - s);
    return line(r) * (1 - y + r) + line(down) * (y - r);
  });
}

/** A drawing (32, 32) of ink or none, as large as the box, as the levels of a stored digit: "=" and 64 digits of base 17. */
function drawn(bitmap) {
  const rows = [], columns = [];
  bitmap.forEach((v, i) => { if (v) { rows.push((i / PAD_SIDE) | 0); columns.push(i % PAD_SIDE); } });
  if (!rows.length) return `=${"0".repeat(64)}`;
  const top = Math.min(...rows), left = Math.min(...columns), height = Math.max(...rows) - top + 1, width = Math.max(...columns) - left + 1;
  const scale = PAD_SIDE / Math.max(height, width), levels = new Uint8Array(64);
  for (let y = 0; y < PAD_SIDE; y++) {
    for (let x = 0; x < PAD_SIDE; x++) {
      const r = Math.floor((y - PAD_SIDE / 2 + 0.5) / scale + height / 2), s = Math.floor((x - PAD_SIDE / 2 + 0.5) / scale + width / 2);
      const inside = r >= 0 && s >= 0 && r < height && s < width;
      if (inside && bitmap[(top + r) * PAD_SIDE + left + s]) levels[(y >> 2) * 8 + (x >> 2)]++;
    }
  }
  return `=${Array.from(levels, (v) => v.toString(17)).join("")}`;
}

const KEYS = { standIn: STAND_INS.map(({ name }) => name), map: Object.keys(MAPS), score: Object.keys(SCORES) };

const UNTOUCHED = { hide: { cells: 0, words: 0 }, ...Object.fromEntries(Object.keys(KEYS).map((key) => [key, KEYS[key][0]])) };

/** A state as text, for an address: cells, words, what is covered, and the three choices. */
function written({ cells, words, hide, ...chosen }) {
  const choices = Object.keys(KEYS).map((key) => KEYS[key].indexOf(chosen[key]));
  return [cells.join("."), words.map((w) => w.toString(36)).join("."), hide.cells, hide.words, ...choices].join("~");
}

/** The state that a text stands for; null where it stands for none. */
function readState(text, { vocabulary, labels, length }) {
  const parts = text.split("~"), cells = (parts[0] ?? "").split(".").map((key) => (key.startsWith("=") ? key : Number(key || NaN)));
  const words = (parts[1] ?? "").split(".").map((word) => parseInt(word, 36)), numbers = parts.slice(2).map(Number);
  const known = (key) => (typeof key === "string" ? /^=[0-9a-g]{64}$/.test(key) : Number.isInteger(key) && key >= 0 && key < labels.length);
  const fits = cells.length === 4 && cells.every(known) && words.length <= length && numbers.length === 5
    && words.every((w) => w > MASK && w < vocabulary.length) && numbers[0] <= all(4) && numbers[1] <= all(words.length);
  const choices = Object.keys(KEYS).map((key, k) => [key, KEYS[key][numbers[2 + k]]]);
  if (!fits || !numbers.every((v) => Number.isInteger(v) && v >= 0) || choices.some(([, choice]) => choice === undefined)) return null;
  return { cells, words, hide: { cells: numbers[0], words: numbers[1] }, ...Object.fromEntries(choices) };
}

class Lab {
  constructor(host, el) {
    const data = host.get("data");
    Object.assign(this, { host, el, asker: new Asker(new Uint8Array(data.buffer ?? data, data.byteOffset ?? 0, data.byteLength)) });
    this.head = this.asker.head;
    this.asked = new Map(); // pairs seen so far: what their views say
    this.next = 0; // stored pair
    this.chosen = 0; // cell
    this.hands = Array.from({ length: 10 }, (_, d) => [...this.head.labels.keys()].filter((k) => this.head.labels[k] === d));
    this.state = readState(host.get("state"), this.head) ?? { ...this.asker.stored(this.head.pairs[0]), ...UNTOUCHED };
    this.build();
    host.on("change:state", () => {
      const state = readState(host.get("state"), this.head);
      if (state && written(state) !== written(this.state)) this.change(state, false);
    });
    this.change({});
  }

  /** Lay out everything that stays; `show` fills it. */
  build() {
    const part = (name, ...children) => (this[name] = make("div", { class: `ce-lab-row ce-lab-${name}` }, ...children));
    const heading = (text) => make("h4", {}, text);
    this.say = make("p", { role: "status" });
    this.alert = make("p", { role: "alert", class: "ce-lab-alert", hidden: true });
    this.picture = make("canvas", { role: "img" });
    this.overlay = make("canvas", { role: "img", class: "ce-lab-smooth" });
    this.scale = make("p", {});
    this.cells = CORNERS.map((corner, k) => make("button", { type: "button", onkeydown: (event) => this.key(event, k) }));
    this.cells.forEach((cell, k) => this.draggable(cell, () => this.state.cells[k], () => this.choose(k), (to) => this.swap(k, to)));
    const palette = this.hands.map((hand, digit) => {
      const picture = make("canvas", {}), button = make("button", { type: "button", "aria-label": `put a ${digit} into the chosen cell` }, picture);
      paint(picture, this.asker.digit(hand[0]), CELL, ink);
      let turn = 0;
      this.draggable(button, () => hand[turn % hand.length], () => this.put(this.chosen, hand[turn++ % hand.length]),
        (to) => this.put(to, hand[turn++ % hand.length]));
      return button;
    });
    this.sentence = make("select", { "aria-label": "a sentence of the data", onchange: () => this.type(this.sentence.value) },
      make("option", { value: "" }, "your own sentence"), ...this.options());
    this.typed = make("input", { "aria-label": "type a sentence of the data's words", size: 44, autocomplete: "off",
      onchange: () => this.type(this.typed.value) });
    const choose = (key, label, titles) => make("label", {}, `${label} `, (this[`${key}Choice`] = make("select", {
      onchange: (event) => this.change({ [key]: event.target.value }) }, ...titles.map(([value, title]) => make("option", { value }, title)))));
    const titled = (table) => Object.keys(table).map((key) => [key, TITLES[key]]);
    this.rounds = make("div", {});
    this.judged = make("p", { role: "status" });
    this.more = make("button", { type: "button", onclick: () => this.askMore() }, `ask ${MORE} stored pairs more`);
    this.ask = make("button", { type: "button", onclick: () => this.exactly() });
    this.values = make("div", {});
    this.el.append(make("div", { class: "ce-lab-live" }, make("style", {}, STYLE), this.say, this.alert,
      make("div", { class: "ce-lab-pictures" }, make("div", {}, this.picture, make("div", { class: "ce-lab-cells" }, ...this.cells)),
        make("div", {}, this.overlay)), this.scale,
      make("p", {}, "Click a cell, then a digit; or drag digits into cells, and cells onto each other. Each click brings the next writer's."),
      part("palette", ...palette), part("tools",
        make("button", { type: "button", onclick: () => this.draw() }, "draw into the chosen cell"),
        make("button", { type: "button", onclick: () => this.another() }, "next stored pair"),
        make("button", { type: "button", onclick: () => this.change({ hide: { cells: 0, words: 0 } }) }, "uncover all"),
        make("button", { type: "button", onclick: () => this.link() }, "copy a link to this state")),
      part("pad"), heading("The sentence: choose, or type"), part("sentences", this.sentence, this.typed),
      heading("Cover words and cells: click them"), part("words"), part("covers"),
      part("choices", choose("standIn", "What stands in", STAND_INS.map(({ name, title }) => [name, title])),
        choose("map", "Map", titled(MAPS)), choose("score", "Word scores", titled(SCORES))),
      heading("The four rounds, from both ends"), this.rounds,
      heading("What the answers rest on"), this.judged, make("div", { class: "ce-lab-row" }, this.more),
      heading("Exact values"), make("div", { class: "ce-lab-exact" }, this.ask, this.values)));
  }

  options() {
    const groups = new Map();
    this.head.statements.slice(0, this.head.balanced).forEach(({ sentence, task, precision }) => {
      const kind = `${task}, ${precision}`;
      if (!groups.has(kind)) groups.set(kind, make("optgroup", { label: kind }));
      groups.get(kind).append(make("option", { value: sentence }, sentence));
    });
    return groups.values();
  }

  /** Take a change of the state, show what follows at once, and a moment later what needs more passes. */
  change(changes, keep = true) {
    const before = written(this.state);
    Object.assign(this.state, changes);
    this.alert.hidden = true;
    this.show();
    if (written(this.state) !== before && keep) {
      this.host.set("state", written(this.state));
      this.host.save_changes();
    }
    clearTimeout(this.later);
    this.later = setTimeout(() => this.follow(), 150);
  }

  standIn() {
    return STAND_INS.find(({ name }) => name === this.state.standIn);
  }

  spoken() {
    return this.state.words.map((word) => this.head.vocabulary[word]);
  }

  /** Prediction, map and words of the present state. */
  show() {
    const { cells, words, hide, map, score } = this.state, standIn = this.standIn(), sentence = this.spoken().join(" ");
    const now = this.asker.explained(this.state, hide.cells, hide.words, standIn, map, score);
    const covered = hide.cells || hide.words, before = covered ? this.asker.pass(this.state, 0, 0, standIn).logit : now.logit;
    const labels = cells.map((key) => (typeof key === "string" ? null : this.head.labels[key]));
    const statement = this.head.statements.find((one) => one.sentence === sentence);
    const truth = !statement ? "" : labels.includes(null) ? " Whether it is true is yours to say, since a digit is drawn."
      : ` The truth is ${holds(labels, statement) ? "yes" : "no"}.`;
    this.say.textContent = `The model says ${answer(now.logit)}${covered ? `; with nothing covered it says ${answer(before)}` : ""}. `
      + `It reads the digits ${now.digits.join(", ")}.${truth}`;
    const pixels = this.asker.pixels(cells, hide.cells, standIn), top = Math.max(...now.heat), heat = enlarged(now.heat);
    paint(this.picture, pixels, SIDE, ink);
    paint(this.overlay, heat, SIDE, (v, i) => inferno(top ? v / top : 0).map((c, k) => 0.72 * c + 0.28 * ink(pixels[i])[k]));
    this.picture.setAttribute("aria-label", `a collage of the digits ${labels.map((d) => d ?? "drawn").join(", ")}`);
    const strongest = CORNERS[best(Float64Array.from(CORNERS, (_, k) => mean(now.heat.filter((_, i) => 2 * (i >= 98) + (i % MAP >= 7) === k))))];
    this.overlay.setAttribute("aria-label", `${TITLES[map]}: evidence for the answer, ${top ? `most of it ${strongest}` : "there is none"}`);
    this.scale.textContent = `Left the collage, right ${TITLES[map]} upon it: the brighter, the more evidence for the answer given, up to ${top.toPrecision(3)}.`;
    this.cells.forEach((cell, k) => {
      cell.setAttribute("aria-label", `${CORNERS[k]} cell, ${labels[k] === null ? "a drawing" : `a ${labels[k]}`}${(hide.cells >> k) & 1 ? ", covered" : ""}`);
      cell.setAttribute("aria-current", k === this.chosen);
    });
    this.fillToggles(this.words, this.spoken(), "words", now.scores);
    this.fillToggles(this.covers, CORNERS, "cells");
    this.sentence.value = statement && [...this.sentence.options].some((option) => option.value === sentence) ? sentence : "";
    this.typed.value = sentence;
    for (const key of Object.keys(KEYS)) this[`${key}Choice`].value = this.state[key];
    const players = this.asker.groups(words).at(-1) + 5;
    this.ask.textContent = `ask the model about all ${(2 ** players).toLocaleString("en")} sets of ${players} cells and words`;
    if (this.valued !== this.question()) this.values.replaceChildren();
  }

  /** What exact values are of: the pair and what stands in. */
  question() {
    return `${this.state.cells} ${this.state.words} ${this.state.standIn}`;
  }

  /** Buttons that cover; those that are there keep their focus. */
  fillToggles(box, names, what, scores) {
    if (box.children.length !== names.length) {
      box.replaceChildren(...names.map((_, k) => make("button", { type: "button", onclick: () => {
        const hide = { ...this.state.hide };
        hide[what] ^= 1 << k;
        this.change({ hide });
      } })));
    }
    const top = scores && Math.max(...scores.map((v) => v || 0));
    names.forEach((name, k) => {
      const share = scores && top ? scores[k] / top : NaN, button = box.children[k];
      button.replaceChildren(name, ...(scores ? [make("small", {}, share >= 0 ? share.toFixed(2) : "covered")] : []));
      button.setAttribute("aria-pressed", Boolean((this.state.hide[what] >> k) & 1));
      button.setAttribute("aria-label", `cover ${what === "cells" ? "the cell " : `word ${k + 1}, `}${name}${share >= 0 ? `, score ${share.toFixed(2)}` : ""}`);
      button.style.background = share >= 0 ? `rgb(${[252, 141, 98].map((c) => Math.round(255 + (c - 255) * share * 0.8))})` : "#fff";
    });
  }

  /** Rounds, and the verdict over the pairs seen so far. */
  follow() {
    this.showRounds();
    this.remember(this.state);
    this.judge();
  }

  showRounds() {
    const found = this.asker.rounds(this.state, this.standIn()), words = this.spoken(), other = { text: "image", image: "text" };
    const table = ({ picked, norms, logits, cosine: alike }, own) => {
      const named = picked.map((k) => (own === "text" ? `'${words[k]}'` : `the cell ${CORNERS[k]}`)).join(", ");
      const rows = [["1", "nothing", own, ""], ["2", `the whole ${other[own]}`, own, `${(norms[1] / norms[0]).toFixed(2)} times round 1`],
        ["3", `the whole ${own}`, other[own], ""], ["4", named, other[own], `${(norms[3] / norms[2]).toFixed(2)} times round 3, cosine ${alike.toFixed(2)}`]];
      return scrolled(`Rounds from the ${own}'s end`, ["round", "masked", "answer", "gradient at", "norm", "compared"],
        rows.map(([round, hidden, at, compared], k) => [round, hidden, answer(logits[k]), at, norms[k].toPrecision(3), compared]));
    };
    this.rounds.replaceChildren(table(found.text, "text"), table(found.image, "image"),
      make("p", {}, "Of the whole pair, whatever is covered above. Round 4 masks what round 2 finds largest: three words, or one cell."));
  }

  /** Keep what the views of a pair say, under every stand-in. */
  remember(pair) {
    const name = `${pair.cells} ${pair.words}`;
    if (!this.asked.has(name)) this.asked.set(name, STAND_INS.map((standIn) => this.asker.views(pair, standIn)));
  }

  judge() {
    const pairs = [...this.asked.values()];
    if (pairs.length < 2) {
      this.judged.textContent = "A verdict speaks of several pairs: change a digit or the sentence, or ask stored pairs.";
      return;
    }
    const logits = Object.fromEntries(STAND_INS.map(({ name }, k) => [name, Object.fromEntries(["full", "image", "text", "nothing"]
      .map((view) => [view, pairs.map((of) => of[k][view])]))]));
    const said = verdict(logits, this.head.bootstrap);
    const shares = Object.entries(said.reach).map(([name, of]) => `${name}: ${of ? `image ${of.image.toFixed(2)}, text ${of.text.toFixed(2)}, their sum ${of.sum.toFixed(2)}` : "logits hardly vary"}`);
    this.judged.textContent = `Verdict over the ${pairs.length} pairs seen so far: ${said.answer} (support ${said.support.toFixed(2)}); `
      + `${said.reason} (${said.told}). Share of the logit's variation accounted for, ${shares.join("; ")}.`;
  }

  async askMore() {
    this.more.disabled = true;
    for (let k = 0; k < MORE; k++) {
      this.remember(this.asker.stored(this.head.pairs[this.next++ % this.head.pairs.length]));
      this.more.textContent = `asked ${k + 1} of ${MORE}`;
      await pause();
    }
    this.more.disabled = false;
    this.more.textContent = `ask ${MORE} stored pairs more`;
    this.judge();
  }

  /** Ask about all sets of players, and show Shapley values and the interactions of cells and words. */
  async exactly() {
    const question = this.question(), groups = this.asker.groups(this.state.words), words = this.spoken();
    const names = [...CORNERS, ...Array.from({ length: groups.at(-1) + 1 }, (_, g) => words.filter((_, t) => groups[t] === g).join(" "))];
    this.ask.disabled = true;
    const values = await this.asker.values({ ...this.state }, this.standIn(), (share) => { this.ask.textContent = `asking: ${Math.round(100 * share)} %`; });
    this.ask.disabled = false;
    if (question === this.question()) this.showValues(values, names);
    this.valued = question;
    this.show();
  }

  showValues(values, names) {
    const { phi, pairs } = shapley(values), top = Math.max(...phi.map(Math.abs)), whole = values.at(-1), nothing = values[0];
    const bar = (v) => make("span", { class: `ce-lab-bar${v < 0 ? " ce-lab-against" : ""}`, style: `width:${(6 * Math.abs(v) / top).toFixed(2)}rem` });
    const together = Math.max(...pairs.slice(0, 4).map((row) => Math.max(...row.slice(4).map(Math.abs))));
    const cell = (v) => make("td", { style: `background:rgb(${(v > 0 ? [239, 138, 98] : [103, 169, 207]).map((c) => Math.round(255 + (c - 255) * Math.abs(v) / together))})` }, signed(v));
    this.values.replaceChildren(
      make("p", {}, `Shapley values: what each cell and word adds to the evidence for the answer, over all orders. They add up to ${signed(whole - nothing)}, `
        + `from ${signed(nothing)} with nothing left to ${signed(whole)} with everything. Red speaks for the answer, blue against.`),
      scrolled("Shapley values", ["player", "value", ""], names.map((name, k) => [name, signed(phi[k]), bar(phi[k])])),
      make("p", {}, "Pairs of a cell and a word: the Shapley interaction, what both have together beyond what each adds alone."),
      scrolled("Interactions of cells and words", ["", ...names.slice(4)], CORNERS.map((corner, k) => [corner, ...[...pairs[k].slice(4)].map(cell)])));
  }

  choose(cell) {
    this.chosen = cell;
    this.show();
  }

  put(cell, key) {
    this.chosen = cell;
    this.change({ cells: this.state.cells.map((old, k) => (k === cell ? key : old)) });
  }

  swap(from, to) {
    const cells = [...this.state.cells];
    [cells[from], cells[to]] = [cells[to], cells[from]];
    this.chosen = to;
    this.change({ cells });
  }

  key(event, cell) {
    if (/^[0-9]$/.test(event.key)) {
      const hand = this.hands[event.key], old = hand.indexOf(this.state.cells[cell]);
      this.put(cell, hand[(old + 1) % hand.length]);
    }
  }

  another() {
    this.change({ ...this.asker.stored(this.head.pairs[this.next++ % this.head.pairs.length]), hide: { cells: 0, words: 0 } });
  }

  /** Take a sentence that a reader chose or typed, or say which word is not one of the data's. */
  type(text) {
    const { vocabulary, length } = this.head, words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const unknown = words.find((word) => vocabulary.indexOf(word) <= MASK);
    if (!words.length || unknown || words.length > length) {
      const near = unknown && vocabulary.slice(2).reduce((a, b) => (distance(unknown, b) < distance(unknown, a) ? b : a));
      this.alert.textContent = unknown ? `"${unknown}" is no word of the data; the nearest is "${near}".` : `Got ${words.length} words, expected 1 to ${length}.`;
      this.alert.hidden = false;
      return;
    }
    this.change({ words: words.map((word) => vocabulary.indexOf(word)), hide: { ...this.state.hide, words: 0 } });
  }

  async link() {
    this.host.set("state", written(this.state));
    this.host.save_changes();
    const address = this.host.address?.() ?? written(this.state);
    try {
      await navigator.clipboard.writeText(address);
      this.alert.textContent = "The link is copied.";
    } catch {
      this.alert.textContent = `The link: ${address}`;
    }
    this.alert.hidden = false;
  }

  /** Let a press choose, and a press that moves drag a digit to another cell; with keys a click chooses. */
  draggable(button, what, click, drop) {
    let begun = null, ghost = null;
    button.addEventListener("pointerdown", (event) => { begun = event; button.setPointerCapture(event.pointerId); });
    button.addEventListener("pointermove", (event) => {
      if (!begun || (!ghost && Math.hypot(event.clientX - begun.clientX, event.clientY - begun.clientY) < 6)) return;
      if (!ghost) {
        ghost = make("canvas", { class: "ce-lab-ghost" });
        paint(ghost, this.asker.digit(what()), CELL, ink);
        this.el.firstChild.append(ghost);
      }
      ghost.style.left = `${event.clientX - 28}px`;
      ghost.style.top = `${event.clientY - 28}px`;
    });
    button.addEventListener("pointerup", (event) => {
      const over = ghost && this.cells.findIndex((cell) => {
        const box = cell.getBoundingClientRect();
        return event.clientX >= box.left && event.clientX < box.right && event.clientY >= box.top && event.clientY < box.bottom;
      });
      const moved = ghost !== null;
      ghost?.remove();
      begun = ghost = null;
      if (moved) {
        button.dataset.moved = "1"; // the click that follows is none
        if (over >= 0) drop(over);
      }
    });
    button.addEventListener("pointercancel", () => { ghost?.remove(); begun = ghost = null; });
    button.addEventListener("click", () => {
      if (button.dataset.moved) delete button.dataset.moved;
      else click();
    });
  }

  /** Open or close the pad on which a digit is drawn, by pointer, or by arrows with the space bar as the pen. */
  draw() {
    if (this.pad.children.length) { this.pad.replaceChildren(); return; }
    const bitmap = new Uint8Array(PAD_SIDE * PAD_SIDE), pen = { x: 16, y: 16, down: false };
    const canvas = make("canvas", { class: "ce-lab-drawing", tabindex: 0, role: "application",
      "aria-label": "drawing pad: draw with the pointer, or move with the arrows and lower or lift the pen with the space bar" });
    const show = () => paint(canvas, bitmap, PAD_SIDE, (v, i) => (v ? ink(1) : i === pen.y * PAD_SIDE + pen.x ? [200, 85, 61] : ink(0)));
    const stroke = (x, y) => {
      const steps = Math.max(1, Math.ceil(Math.hypot(x - pen.x, y - pen.y)));
      for (let k = 0; k <= steps; k++) {
        const cx = pen.x + ((x - pen.x) * k) / steps, cy = pen.y + ((y - pen.y) * k) / steps;
        for (let i = 0; i < bitmap.length; i++) if (Math.hypot((i % PAD_SIDE) - cx, ((i / PAD_SIDE) | 0) - cy) < BRUSH) bitmap[i] = 1;
      }
    };
    const move = (x, y) => {
      [x, y] = [x, y].map((v) => Math.min(PAD_SIDE - 1, Math.max(0, Math.round(v))));
      if (pen.down) stroke(x, y);
      Object.assign(pen, { x, y });
      show();
    };
    const done = () => { if (bitmap.some(Boolean)) this.put(this.chosen, drawn(bitmap)); };
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * PAD_SIDE - 0.5, ((event.clientY - box.top) / box.height) * PAD_SIDE - 0.5];
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pen.down = false;
      move(...at(event));
      pen.down = true;
      move(...at(event));
    });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons) move(...at(event)); });
    canvas.addEventListener("pointerup", () => { pen.down = false; done(); });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-2, 0], ArrowRight: [2, 0], ArrowUp: [0, -2], ArrowDown: [0, 2] }[event.key];
      if (!way && event.key !== " ") return;
      event.preventDefault();
      if (!way) pen.down = !pen.down;
      move(pen.x + (way?.[0] ?? 0), pen.y + (way?.[1] ?? 0));
      if (!way && !pen.down) done();
    });
    this.pad.append(canvas, make("button", { type: "button", onclick: () => { bitmap.fill(0); show(); canvas.focus(); } }, "clear the pad"));
    show();
    canvas.focus();
  }
}

/** A table that scrolls by itself where the page is narrow. */
function scrolled(label, heads, rows) {
  const cell = (inner) => (inner instanceof Element && inner.tagName === "TD" ? inner : make("td", {}, inner));
  return make("div", { class: "ce-lab-scroll", tabindex: 0, role: "group", "aria-label": `${label}; the table scrolls sideways` },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell))))));
}

function render({ model, el }) {
  const lab = new Lab(model, el);
  return () => clearTimeout(lab.later);
}

export { Asker, STAND_INS, drawn, readState, shapley, verdict, written };
export default { render };
