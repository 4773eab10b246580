// Stored pairs of an image and a sentence: pick a word and see the map, pick a cell and see the words.

const plus = (x, digits = 2) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(digits);
const says = (logit) => `${logit > 0 ? "yes" : "no"} (logit ${plus(logit)})`;
const TOGETHER = [["by patch", "word by patch"], ["dividend", "dividend of word and cell"]]; // what has two sides, and a sign

/** What covering takes away from some values; what is smaller than the steps in which they are kept counts as nothing. */
function taken(before, after) {
  const least = 2e-4 * Math.max(...before.map(Math.abs), ...after.map(Math.abs));
  return before.map((v, k) => (Math.abs(v - after[k]) < least ? 0 : v - after[k]));
}

class Pairs {
  constructor(host, el) {
    Object.assign(this, { host, el, head: unpacked(host.get("data")), images: new Map(), at: 0 });
    this.maps = [...this.head.maps, ...TOGETHER.map(([key, title]) => [key, title, true])];
    this.scores = [...this.head.scores, ...TOGETHER.map(([key, title]) => [key, title, true])];
    this.state = this.read(host.get("state")) ?? { pair: 0, word: 0, cell: 0, map: 0, score: 0, change: 0 };
    this.build();
    host.on("change:state", () => this.change(this.read(host.get("state")) ?? {}, false));
    this.change({});
  }

  /** The state that a text stands for, or null. */
  read(text) {
    const [pair, word, cell, map, score, change, ...more] = text.split("~").map(Number), one = this.head.pairs[pair];
    const within = (v, high) => Number.isInteger(v) && v >= 0 && v < high;
    const fits = one && !more.length && within(word, one.words.length + 2) && within(cell, one.grid[0] * one.grid[1] + 2)
      && within(map, this.maps.length) && within(score, this.scores.length) && within(change, 2);
    return fits ? { pair, word, cell, map, score, change } : null;
  }

  written() {
    const { pair, word, cell, map, score, change } = this.state;
    return [pair, word, cell, map, score, change].join("~");
  }

  get one() {
    return this.head.pairs[this.state.pair];
  }

  array(name) {
    return this.head.arrays[`${this.state.pair} ${name}`];
  }

  /** The logit with a state of the words and one of the cells. */
  logit(word, cell) {
    const { shape, values } = this.array("logits");
    return values[word * shape[1] + cell];
  }

  /** What a word and a cell have together for the answer given; where one is 0, what covering the other takes away. */
  dividend(word, cell) {
    const sign = this.logit(0, 0) > 0 ? 1 : -1, v = (w, c) => this.logit(w, c);
    return sign * (word && cell ? v(0, 0) - v(word, 0) - v(0, cell) + v(word, cell) : v(0, 0) - v(word, cell));
  }

  /** The map of the state: its values, its rows and columns, and whether it has a sign. */
  heat() {
    const { word, map, change } = this.state, [key, , isSigned] = this.maps[map], words = this.one.words.length;
    if (key === "dividend") {
      const [rows, columns] = this.one.grid, all = Array.from({ length: rows * columns }, (_, c) => this.dividend(word, c + 1));
      return { values: all, rows, columns, isSigned };
    }
    const { shape: [, rows, columns], values } = this.array(key === "by patch" ? key : `map ${key}`), size = rows * columns;
    const of = (k) => values.subarray(k * size, (k + 1) * size);
    if (key === "by patch") {
      const chosen = word && word <= words ? [of(word - 1)] : this.one.words.map((_, k) => of(k));
      const sum = Float32Array.from({ length: size }, (_, i) => chosen.reduce((total, one) => total + one[i], 0));
      return { values: sum, rows, columns, isSigned };
    }
    if (!change) return { values: of(word), rows, columns, isSigned };
    return { values: taken(of(0), of(word)), rows, columns, isSigned: true };
  }

  /** The words' scores of the state: their values, and whether they have a sign. */
  said() {
    const { cell, score, change } = this.state, [key, , isSigned] = this.scores[score], { words, grid } = this.one;
    if (key === "dividend") return { values: words.map((_, k) => this.dividend(k + 1, cell)), isSigned };
    if (key === "by patch") {
      const { shape: [, rows, columns], values } = this.array(key), size = rows * columns;
      const row = (i) => Math.floor((Math.floor(i / columns) * grid[0]) / rows);
      const column = (i) => Math.floor(((i % columns) * grid[1]) / columns);
      const inside = (i) => !cell || cell > grid[0] * grid[1] || cell - 1 === row(i) * grid[1] + column(i);
      return { values: words.map((_, k) => values.subarray(k * size, (k + 1) * size)
        .reduce((sum, v, i) => (inside(i) ? sum + v : sum), 0)), isSigned };
    }
    const { values } = this.array(`score ${key}`), of = (k) => [...values.subarray(k * words.length, (k + 1) * words.length)];
    if (!change) return { values: of(cell), isSigned };
    return { values: taken(of(0), of(cell)), isSigned: true };
  }

  build() {
    const select = (key, label, options) => {
      const onchange = (event) => this.change({ [key]: Number(event.target.value) });
      this[`${key}Choice`] = make("select", { onchange }, ...options);
      return make("label", {}, `${label} `, this[`${key}Choice`]);
    };
    const button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const pairs = this.head.pairs.map(({ title, words }, k) => make("option", { value: k }, `${title}: ${words.join(" ")}`));
    const titled = (rows) => rows.map(([, title], k) => make("option", { value: k }, title));
    this.say = make("p", { role: "status", class: "ce-lab-say" });
    this.picture = make("canvas", { role: "img" });
    this.overlay = make("canvas", { role: "img", class: "ce-lab-smooth" });
    this.grid = make("div", { class: "ce-lab-cells", role: "group", "aria-label": "cells; the arrows move between them",
      onkeydown: (event) => this.key(event) });
    this.scale = make("p", {});
    this.words = make("div", { class: "ce-lab-row ce-lab-words" });
    this.best = make("p", {});
    this.note = make("p", { role: "status" });
    this.changing = make("input", { type: "checkbox", onchange: () => this.change({ change: Number(this.changing.checked) }) });
    const all = () => this.one.words.length + 1, whole = () => this.one.grid[0] * this.one.grid[1] + 1;
    const root = make("div", { class: "ce-lab-live" }, make("style", {}, STYLE),
      make("div", { class: "ce-lab-row" }, select("pair", "Model and pair", pairs)),
      this.say,
      make("div", { class: "ce-lab-pictures" }, make("div", {}, this.picture, this.grid), make("div", {}, this.overlay)),
      this.scale, make("h3", {}, "Click a word, or a cell of the picture: it is covered"), this.words, this.best,
      make("div", { class: "ce-lab-row" }, button("cover all words", () => this.change({ word: all() })),
        button("cover the whole picture", () => this.change({ cell: whole() })),
        button("uncover", () => this.change({ word: 0, cell: 0 })),
        button("copy a link to this state", () => linked(this.host, this.written(), this.note))),
      make("div", { class: "ce-lab-row" }, select("map", "Map, for the word", titled(this.maps)),
        select("score", "Word scores, for the cell", titled(this.scores)),
        make("label", {}, this.changing, " what covering changes")), this.note);
    root.pairs = this; // for tests
    this.el.append(root);
  }

  change(changes, keep = true) {
    const before = this.written();
    const { words, grid } = this.one, known = (one) => `${one.words} ${one.grid}`;
    Object.assign(this.state, changes);
    if (changes.word === undefined && known(this.one) !== known({ words, grid })) this.state.word = this.state.cell = 0;
    for (const [key, rows] of [["map", this.maps], ["score", this.scores]]) { // not every pair has a map of words by patches
      if (rows[this.state[key]][0] === "by patch" && !this.array("by patch")) this.state[key] = 0;
    }
    this.show();
    if (this.written() !== before && keep) {
      this.host.set("state", this.written());
      this.host.save_changes();
    }
  }

  show() {
    for (const key of ["pair", "map", "score"]) this[`${key}Choice`].value = this.state[key];
    for (const [key, rows] of [["map", this.maps], ["score", this.scores]]) {
      this[`${key}Choice`].options[rows.length - 2].disabled = !this.array("by patch");
    }
    this.changing.checked = Boolean(this.state.change);
    this.tell();
    this.showCells();
    this.showWords();
    this.showPictures();
  }

  tell() {
    const { word, cell } = this.state, { title, words, grid, truth } = this.one, sure = this.logit(word, cell);
    const named = [word > words.length ? "all words" : word && `the word "${words[word - 1]}"`,
      cell > grid[0] * grid[1] ? "the whole picture" : cell && `the cell in ${this.place(cell - 1)}`].filter(Boolean);
    const whole = says(this.logit(0, 0)), given = `The truth is ${truth ? "yes" : "no"}.`, model = `the model (${title})`;
    this.say.textContent = named.length ? `With ${named.join(" and ")} covered ${model} says ${says(sure)}; with nothing `
      + `covered ${whole}. ${given}` : `${model[0].toUpperCase()}${model.slice(1)} says ${whole}. ${given}`;
    if (word && cell) this.say.textContent += ` With ${named[0]} alone covered the logit is ${plus(this.logit(word, 0))}, with `
      + `${named[1]} alone ${plus(this.logit(0, cell))}: what both have together for the answer, their dividend, is `
      + `${plus(this.dividend(word, cell))}.`;
  }

  place(cell) {
    const columns = this.one.grid[1];
    return `row ${Math.floor(cell / columns) + 1}, column ${(cell % columns) + 1}`;
  }

  showCells() {
    const [rows, columns] = this.one.grid, { cell } = this.state, count = rows * columns;
    if (this.grid.children.length !== count) {
      this.grid.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`;
      this.grid.replaceChildren(...Array.from({ length: count }, (_, k) => make("button", { type: "button",
        onclick: () => this.change({ cell: this.state.cell === k + 1 ? 0 : k + 1 }) })));
    }
    this.at = Math.min(this.at, count - 1);
    [...this.grid.children].forEach((button, k) => {
      button.tabIndex = k === this.at ? 0 : -1;
      button.setAttribute("aria-label", `cover the cell in ${this.place(k)}`);
      button.setAttribute("aria-pressed", cell === k + 1 || cell === count + 1);
    });
  }

  key(event) {
    const [rows, columns] = this.one.grid, focused = [...this.grid.children].indexOf(document.activeElement);
    const way = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    if (!way) return;
    const row = Math.floor(focused / columns) + way[0], column = (focused % columns) + way[1], to = row * columns + column;
    event.preventDefault();
    if (row < 0 || row >= rows || column < 0 || column >= columns) return;
    this.at = to;
    this.showCells();
    this.grid.children[to].focus();
  }

  showWords() {
    const { words } = this.one, { word } = this.state, { values, isSigned } = this.said();
    const top = Math.max(...values.map(Math.abs));
    if (this.words.children.length !== words.length) {
      this.words.replaceChildren(...words.map((_, k) => make("button", { type: "button",
        onclick: () => this.change({ word: this.state.word === k + 1 ? 0 : k + 1 }) })));
    }
    words.forEach((name, k) => {
      const share = top ? values[k] / top : 0, button = this.words.children[k], pressed = word === k + 1 || word > words.length;
      const text = isSigned ? plus(share) : share.toFixed(2), colour = isSigned && share < 0 ? [103, 169, 207] : [239, 138, 98];
      button.replaceChildren(name, make("small", {}, text));
      button.setAttribute("aria-pressed", pressed);
      button.setAttribute("aria-label", `cover word ${k + 1}, ${name}, score ${text}`);
      button.style.background = tint(colour, 0.9 * Math.abs(share));
    });
    const strongest = values.findIndex((v) => Math.abs(v) === top), title = this.scores[this.state.score][1];
    this.best.textContent = top ? `The largest score (${title}${this.changed()}) is that of "${words[strongest]}", `
      + `${values[strongest].toPrecision(3)}; below each word stands its share of it.` : `No word has a score (${title}).`;
  }

  /** Draw the picture, with what is covered, and the map upon it. */
  async showPictures() {
    const { pair, cell } = this.state, [rows, columns] = this.one.grid, drawn = this.written();
    if (!this.images.has(pair)) {
      const image = make("img", { src: this.one.image });
      await image.decode();
      this.images.set(pair, image);
    }
    if (drawn !== this.written()) return; // another state was chosen meanwhile
    const image = this.images.get(pair), { naturalWidth: width, naturalHeight: height } = image;
    const heat = this.heat(), top = Math.max(...heat.values.map(Math.abs));
    const pen = this.picture.getContext("2d", { willReadFrequently: true });
    Object.assign(this.picture, { width, height });
    pen.drawImage(image, 0, 0);
    const large = stretched(heat.values, heat.rows, heat.columns, height, width).map((v) => v / (top || 1));
    overlaid(this.overlay, this.picture, large, heat.isSigned);
    pen.fillStyle = "#9a9fa4";
    for (let k = 0; k < rows * columns; k++) {
      const top = Math.floor(k / columns) / rows, left = (k % columns) / columns;
      if (cell === k + 1 || cell > rows * columns) {
        pen.fillRect(left * width, top * height, width / columns, height / rows);
      }
    }
    this.picture.setAttribute("aria-label", `the picture of the pair "${this.one.words.join(" ")}"`);
    const at = heat.values.findIndex((v) => Math.abs(v) === top), title = this.maps[this.state.map][1];
    const where = `row ${Math.floor(at / heat.columns) + 1}, column ${(at % heat.columns) + 1} of ${heat.rows} x `
      + `${heat.columns}`;
    this.overlay.setAttribute("aria-label", `${title}: ${top ? `strongest in ${where}` : "nothing"}`);
    const colours = heat.isSigned ? "Red speaks for the answer that the whole pair gets, blue against it"
      : "The brighter, the more evidence for the answer that the whole pair gets";
    this.scale.textContent = `The picture, and ${title} upon it${this.changed()}, ${top ? `strongest in ${where} with `
      + `${heat.values[at].toPrecision(3)}` : "which is empty"}. ${colours}; colours are shares of this map's largest value.`;
  }

  changed() {
    return this.state.change && (this.state.word || this.state.cell) ? ", what covering takes away" : "";
  }
}

function render({ model, el }) {
  new Pairs(model, el);
}

export default { render };
