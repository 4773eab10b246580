// What the reader sees and touches. `render` is called by anywidget in JupyterLab and by a few lines on a page of the book:
// model.get("data") holds the bytes of the model, model.get("state") the state as text, which a page keeps in its address.

const CORNERS = ["upper left", "upper right", "lower left", "lower right"], BRUSH = 2.3, PAD_SIDE = 32, MORE = 20;
const TITLES = { "grad-cam": "Grad-CAM", "layer-cam": "LayerCAM", l2: "gradient norm" };
const signed = (x, digits = 2) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(digits);
const answer = (logit) => `${logit > 0 ? "yes" : "no"} (logit ${signed(logit)})`;
const bit = (set, k) => Boolean((set >> k) & 1);

/** Smallest number of letters to change, add or leave out from one word to another. */
function distance(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, k) => k);
  for (let i = 1; i <= a.length; i++) {
    const before = row;
    row = [i];
    for (let k = 1; k <= b.length; k++) {
      row.push(Math.min(before[k] + 1, row[k - 1] + 1, before[k - 1] + Number(a[i - 1] !== b[k - 1])));
    }
  }
  return row[b.length];
}

/** Whether a sentence is true of four digits, as crossexplain.data.collages.holds says it. */
function holds(digits, { task, cells, count }) {
  const extreme = { largest: Math.max(...digits), smallest: Math.min(...digits) }[task];
  const marked = digits.map((d) => (extreme === undefined ? d % 2 === (task === "odd" ? 1 : 0) : d === extreme));
  const number = marked.filter(Boolean).length, wanted = extreme === undefined ? count : 1;
  const placed = !cells.length || (number > 0 && cells.includes(marked.indexOf(true)));
  return placed && (wanted === null ? number > 0 : number === wanted);
}

/** A drawing (32, 32) of ink or none, as large as the box, as the levels of a stored digit: "=" and 64 digits of base 17. */
function drawn(bitmap) {
  const rows = [], columns = [];
  bitmap.forEach((v, i) => { if (v) { rows.push((i / PAD_SIDE) | 0); columns.push(i % PAD_SIDE); } });
  if (!rows.length) return `=${"0".repeat(64)}`;
  const top = Math.min(...rows), height = Math.max(...rows) - top + 1;
  const left = Math.min(...columns), width = Math.max(...columns) - left + 1;
  const scale = PAD_SIDE / Math.max(height, width), levels = new Uint8Array(64);
  for (let y = 0; y < PAD_SIDE; y++) {
    for (let x = 0; x < PAD_SIDE; x++) {
      const r = Math.floor((y - PAD_SIDE / 2 + 0.5) / scale + height / 2);
      const s = Math.floor((x - PAD_SIDE / 2 + 0.5) / scale + width / 2);
      const inside = r >= 0 && s >= 0 && r < height && s < width;
      if (inside && bitmap[(top + r) * PAD_SIDE + left + s]) levels[(y >> 2) * 8 + (x >> 2)]++;
    }
  }
  return `=${Array.from(levels, (v) => v.toString(17)).join("")}`;
}

const KEYS = { standIn: STAND_INS.map(({ name }) => name), map: Object.keys(MAPS), score: Object.keys(SCORES) };
const UNTOUCHED = { hide: { cells: 0, words: 0 }, standIn: KEYS.standIn[0], map: KEYS.map[0], score: KEYS.score[0] };

/** A state as text, for an address: cells, words, what is covered, and the three choices. */
function written({ cells, words, hide, ...chosen }) {
  const choices = Object.keys(KEYS).map((key) => KEYS[key].indexOf(chosen[key]));
  return [cells.join("."), words.map((w) => w.toString(36)).join("."), hide.cells, hide.words, ...choices].join("~");
}

/** The state that a text stands for; null where it stands for none. */
function readState(text, { vocabulary, labels, length }) {
  const [first = "", second = "", ...rest] = text.split("~"), numbers = rest.map(Number);
  const whole = (v) => Number.isInteger(v) && v >= 0;
  const cells = first.split(".").map((key) => (key.startsWith("=") ? key : Number(key || NaN)));
  const words = second.split(".").map((word) => parseInt(word, 36));
  const known = (key) => (typeof key === "string" ? /^=[0-9a-g]{64}$/.test(key) : whole(key) && key < labels.length);
  const choices = Object.keys(KEYS).map((key, k) => [key, KEYS[key][numbers[2 + k]]]);
  const fits = cells.length === 4 && cells.every(known)
    && words.length <= length && words.every((word) => word > MASK && word < vocabulary.length)
    && numbers.length === 5 && numbers.every(whole) && numbers[0] <= all(4) && numbers[1] <= all(words.length)
    && choices.every(([, choice]) => choice !== undefined);
  if (!fits) return null;
  return { cells, words, hide: { cells: numbers[0], words: numbers[1] }, ...Object.fromEntries(choices) };
}

class Lab {
  constructor(host, el) {
    const data = host.get("data"); // a DataView of a widget, an array of a page
    Object.assign(this, { host, el, asker: new Asker(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)) });
    this.head = this.asker.head;
    this.asked = new Map(); // pairs seen so far: what their views say
    this.next = 0; // stored pair
    this.chosen = 0; // cell
    this.hands = Array.from({ length: 10 }, () => []); // the stored digits of each kind, each by another writer
    this.head.labels.forEach((digit, k) => this.hands[digit].push(k));
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
    const heading = (text) => make("h3", {}, text);
    this.say = make("p", { role: "status", class: "ce-lab-say" });
    this.alert = make("p", { role: "alert", class: "ce-lab-alert", hidden: true });
    this.picture = make("canvas", { role: "img" });
    this.overlay = make("canvas", { role: "img", class: "ce-lab-smooth" });
    this.scale = make("p", {});
    this.cells = CORNERS.map((corner, k) => make("button", { type: "button", onkeydown: (event) => this.key(event, k) }));
    this.cells.forEach((cell, k) => {
      this.draggable(cell, () => this.state.cells[k], () => this.choose(k), (to) => this.swap(k, to));
    });
    const palette = this.hands.map((hand, digit) => {
      const picture = make("canvas"), name = `put a ${digit} into the chosen cell`;
      const button = make("button", { type: "button", "aria-label": name }, picture);
      paint(picture, this.asker.digit(hand[0]), CELL, ink);
      let turn = 0;
      const put = (to = this.chosen) => this.put(to, hand[turn++ % hand.length]);
      this.draggable(button, () => hand[turn % hand.length], () => put(), put);
      return button;
    });
    this.sentence = make("select", { "aria-label": "a sentence of the data", onchange: () => this.type(this.sentence.value) },
      make("option", { value: "" }, "your own sentence"), ...this.options());
    this.typed = make("input", { "aria-label": "type a sentence of the data's words", size: 44, autocomplete: "off",
      onchange: () => this.type(this.typed.value) });
    const choose = (key, label, titles) => {
      const options = titles.map(([value, title]) => make("option", { value }, title));
      this[`${key}Choice`] = make("select", { onchange: (event) => this.change({ [key]: event.target.value }) }, ...options);
      return make("label", {}, `${label} `, this[`${key}Choice`]);
    };
    const titled = (table) => Object.keys(table).map((key) => [key, TITLES[key] ?? key]);
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    this.rounds = make("div", {});
    this.judged = make("p", { role: "status" });
    this.more = button(`ask ${MORE} stored pairs more`, () => this.askMore());
    this.ask = button("", () => this.exactly());
    this.values = make("div", {});
    this.el.append(make("div", { class: "ce-lab-live" }, make("style", {}, STYLE), this.say, this.alert,
      make("div", { class: "ce-lab-pictures" },
        make("div", {}, this.picture, make("div", { class: "ce-lab-cells" }, ...this.cells)), make("div", {}, this.overlay)),
      this.scale, make("p", {}, "Click a cell, then a digit; or drag digits into cells, and cells onto each other. "
        + "Each click brings the next writer's."),
      part("palette", ...palette),
      part("tools", button("draw into the chosen cell", () => this.draw()), button("next stored pair", () => this.another()),
        button("uncover all", () => this.change({ hide: UNTOUCHED.hide })),
        button("copy a link to this state", () => this.link())),
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
    const { cells, words, hide, map, score } = this.state, standIn = this.standIn();
    const now = this.asker.explained(this.state, hide.cells, hide.words, standIn, map, score);
    const labels = cells.map((key) => (typeof key === "string" ? null : this.head.labels[key]));
    this.tell(now, labels);
    this.showPictures(now.heat, this.asker.pixels(cells, hide.cells, standIn));
    this.picture.setAttribute("aria-label", `a collage of the digits ${labels.map((d) => d ?? "drawn").join(", ")}`);
    this.cells.forEach((cell, k) => {
      const what = labels[k] === null ? "a drawing" : `a ${labels[k]}`;
      cell.setAttribute("aria-label", `${CORNERS[k]} cell, ${what}${bit(hide.cells, k) ? ", covered" : ""}`);
      cell.setAttribute("aria-current", k === this.chosen);
    });
    this.fillToggles(this.words, this.spoken(), "words", now.scores);
    this.fillToggles(this.covers, CORNERS, "cells");
    for (const key of Object.keys(KEYS)) this[`${key}Choice`].value = this.state[key];
    const players = this.asker.groups(words).at(-1) + 5;
    this.ask.textContent = `ask the model about all ${(2 ** players).toLocaleString("en")} sets of ${players} cells and words`;
    if (this.valued !== this.question()) this.values.replaceChildren();
  }

  /** Say the answer, the digits that the tower reads, and the truth where it is known; keep the sentence's fields in step. */
  tell(now, labels) {
    const { hide } = this.state, sentence = this.spoken().join(" ");
    const before = () => answer(this.asker.pass(this.state, 0, 0, this.standIn()).logit);
    const known = this.head.statements.findIndex((one) => one.sentence === sentence);
    const truth = known < 0 ? "" : labels.includes(null) ? " Whether it is true is yours to say, since a digit is drawn."
      : ` The truth is ${holds(labels, this.head.statements[known]) ? "yes" : "no"}.`;
    const covered = hide.cells || hide.words ? `; with nothing covered it says ${before()}` : "";
    const read = now.digits.join(", ");
    this.say.textContent = `The model says ${answer(now.logit)}${covered}. It reads the digits ${read}.${truth}`;
    this.sentence.value = known >= 0 && known < this.head.balanced ? sentence : "";
    this.typed.value = sentence;
  }

  showPictures(heat, pixels) {
    const top = Math.max(...heat), title = TITLES[this.state.map];
    paint(this.picture, pixels, SIDE, ink);
    paint(this.overlay, enlarged(heat), SIDE, (v, i) => {
      const paper = ink(pixels[i]);
      return inferno(top ? v / top : 0).map((c, k) => 0.72 * c + 0.28 * paper[k]);
    });
    const strongest = CORNERS[best(Float64Array.from(CORNERS, (_, k) => mean(heat.filter((_, i) => cellOf(i) === k))))];
    const where = top ? `most of it ${strongest}` : "there is none";
    this.overlay.setAttribute("aria-label", `${title}: evidence for the answer, ${where}`);
    this.scale.textContent = `The collage, and ${title} upon it: the brighter, the more evidence for the answer given, `
      + `up to ${top.toPrecision(3)}.`;
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
      const scored = scores && scores[k] >= 0, share = scored && top ? scores[k] / top : 0, button = box.children[k];
      const place = what === "cells" ? "the cell" : `word ${k + 1},`;
      button.replaceChildren(name, ...(scores ? [make("small", {}, scored ? share.toFixed(2) : "covered")] : []));
      button.setAttribute("aria-pressed", bit(this.state.hide[what], k));
      button.setAttribute("aria-label", `cover ${place} ${name}${scored ? `, score ${share.toFixed(2)}` : ""}`);
      button.style.background = scored ? tint([252, 141, 98], 0.8 * share) : "#fff";
    });
  }

  /** Rounds, and the verdict over the pairs seen so far. */
  follow() {
    this.showRounds();
    this.remember(this.state);
    this.judge();
  }

  showRounds() {
    const found = this.asker.rounds(this.state, this.standIn()), words = this.spoken();
    const table = ({ picked, norms, logits, cosine: alike }, own) => {
      const other = OTHER[own], times = (a, b) => `${(norms[a] / norms[b]).toFixed(2)} times round ${b + 1}`;
      const named = picked.map((k) => (own === "text" ? `'${words[k]}'` : `the cell ${CORNERS[k]}`)).join(", ");
      const rows = [["nothing", own, ""], [`the whole ${other}`, own, times(1, 0)], [`the whole ${own}`, other, ""],
        [named, other, `${times(3, 2)}, cosine ${alike.toFixed(2)}`]];
      return scrolled(`Rounds from the ${own}'s end`, ["round", "masked", "answer", "gradient at", "norm", "compared"],
        rows.map(([hidden, at, more], k) => [`${k + 1}`, hidden, answer(logits[k]), at, norms[k].toPrecision(3), more]));
    };
    this.rounds.replaceChildren(table(found.text, "text"), table(found.image, "image"),
      make("p", {}, "Of the whole pair, whatever is covered above. Round 4 masks what round 2 finds largest: three words, or "
        + "one cell."));
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
    const column = (k, view) => pairs.map((of) => of[k][view]);
    const views = (k) => Object.fromEntries(["full", "image", "text", "nothing"].map((view) => [view, column(k, view)]));
    const said = verdict(Object.fromEntries(STAND_INS.map(({ name }, k) => [name, views(k)])), this.head.bootstrap);
    const share = (of) => `image ${of.image.toFixed(2)}, text ${of.text.toFixed(2)}, their sum ${of.sum.toFixed(2)}`;
    const shares = Object.entries(said.reach).map(([name, of]) => `${name}: ${of ? share(of) : "logits hardly vary"}`);
    this.judged.textContent = `Verdict over the ${pairs.length} pairs seen so far: ${said.answer} (support `
      + `${said.support.toFixed(2)}); ${said.reason} (${said.told}). Share of the logit's variation accounted for, `
      + `${shares.join("; ")}.`;
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
    const group = (g) => words.filter((_, t) => groups[t] === g).join(" ");
    const names = [...CORNERS, ...Array.from({ length: groups.at(-1) + 1 }, (_, g) => group(g))];
    const step = (share) => { this.ask.textContent = `asking: ${Math.round(100 * share)} %`; };
    this.ask.disabled = true;
    const values = await this.asker.values({ ...this.state }, this.standIn(), step);
    this.ask.disabled = false;
    if (question === this.question()) this.showValues(values, names);
    this.valued = question;
    this.show();
  }

  showValues(values, names) {
    const { phi, pairs } = shapley(values), crossed = pairs.slice(0, 4).map((row) => [...row.slice(4)]);
    const whole = values.at(-1), nothing = values[0], size = (x) => Math.max(...x.map(Math.abs));
    const top = size(phi), together = size(crossed.flat());
    const bar = (v) => make("span", { class: v < 0 ? "ce-lab-bar ce-lab-against" : "ce-lab-bar",
      style: `width:${6 * Math.abs(v) / top}rem` });
    const ground = (v) => tint(v > 0 ? [239, 138, 98] : [103, 169, 207], Math.abs(v) / together);
    const cell = (v) => make("td", { style: `background:${ground(v)}` }, signed(v));
    this.values.replaceChildren(
      make("p", {}, "Shapley values: what each cell and word adds to the evidence for the answer, over all orders. They add up "
        + `to ${signed(whole - nothing)}, from ${signed(nothing)} with nothing left to ${signed(whole)} with everything. Red `
        + "speaks for the answer, blue against."),
      scrolled("Shapley values", ["player", "value", ""], names.map((name, k) => [name, signed(phi[k]), bar(phi[k])])),
      make("p", {}, "Pairs of a cell and a word: the Shapley interaction, what both have together beyond what each adds "
        + "alone."),
      scrolled("Interactions of cells and words", ["", ...names.slice(4)],
        crossed.map((row, k) => [CORNERS[k], ...row.map(cell)])));
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
    this.change({ ...this.asker.stored(this.head.pairs[this.next++ % this.head.pairs.length]), hide: UNTOUCHED.hide });
  }

  /** Take a sentence that a reader chose or typed, or say which word is not one of the data's. */
  type(text) {
    const { vocabulary, length } = this.head, words = text.toLowerCase().split(/\s+/).filter(Boolean);
    const unknown = words.find((word) => vocabulary.indexOf(word) <= MASK);
    if (!words.length || unknown || words.length > length) {
      const near = unknown && vocabulary.slice(2).reduce((a, b) => (distance(unknown, b) < distance(unknown, a) ? b : a));
      this.alert.textContent = unknown ? `"${unknown}" is no word of the data; the nearest is "${near}".`
        : `Got ${words.length} words, expected 1 to ${length}.`;
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
      const far = begun && Math.hypot(event.clientX - begun.clientX, event.clientY - begun.clientY) >= 6;
      if (!begun || (!ghost && !far)) return;
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
        const across = (event.clientX - box.left) / box.width, down = (event.clientY - box.top) / box.height;
        return across >= 0 && across < 1 && down >= 0 && down < 1;
      });
      const moved = ghost !== null;
      ghost?.remove();
      begun = ghost = null;
      if (moved) {
        button.dataset.moved = "1"; // the click that may follow is none
        setTimeout(() => delete button.dataset.moved);
        if (over >= 0) drop(over);
      }
    });
    button.addEventListener("pointercancel", () => { ghost?.remove(); begun = ghost = null; });
    button.addEventListener("click", () => {
      if (!button.dataset.moved) click();
    });
  }

  /** Open or close the pad on which a digit is drawn, by pointer, or by arrows with the space bar as the pen. */
  draw() {
    if (this.pad.children.length) { this.pad.replaceChildren(); return; }
    const bitmap = new Uint8Array(PAD_SIDE * PAD_SIDE), pen = { x: 16, y: 16, down: false };
    const canvas = make("canvas", { class: "ce-lab-drawing", tabindex: 0, role: "application",
      "aria-label": "drawing pad: draw with the pointer, or move with the arrows; the space bar lowers and lifts the pen" });
    const show = () => paint(canvas, bitmap, PAD_SIDE, (v, i) => (i === pen.y * PAD_SIDE + pen.x ? [200, 85, 61] : ink(v)));
    const stroke = (x, y) => {
      const steps = Math.max(1, Math.ceil(Math.hypot(x - pen.x, y - pen.y)));
      for (let k = 0; k <= steps; k++) {
        const cx = pen.x + ((x - pen.x) * k) / steps, cy = pen.y + ((y - pen.y) * k) / steps;
        bitmap.forEach((_, i) => {
          if (Math.hypot((i % PAD_SIDE) - cx, ((i / PAD_SIDE) | 0) - cy) < BRUSH) bitmap[i] = 1;
        });
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
      return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => v * PAD_SIDE - 0.5);
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
    const clear = () => {
      bitmap.fill(0);
      show();
      canvas.focus();
    };
    this.pad.append(canvas, make("button", { type: "button", onclick: clear }, "clear the pad"));
    show();
    canvas.focus();
  }
}

function render({ model, el }) {
  const lab = new Lab(model, el);
  return () => clearTimeout(lab.later);
}

export { Asker, STAND_INS, drawn, readState, shapley, verdict, written };
export default { render };
