// The leaderboard: choose what is measured, sort, filter, and set two methods side by side.

const signedTwo = (x) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(2);
const inOrder = (a, b) => (typeof a === "number" ? b - a : a.localeCompare(b)); // numbers from the largest, words from A

class Board {
  constructor(host, el) {
    const data = host.get("data"); // a DataView of a widget, an array of a page
    Object.assign(this, { host, el });
    this.head = JSON.parse(new TextDecoder().decode(new Uint8Array(data.buffer, data.byteOffset, data.byteLength)));
    this.found = new Map(this.head.rows.map((row) => [row.slice(0, 3).join("\n"), row.slice(3)]));
    this.first = { topic: 0, model: 0, kind: 0, column: 2 + Number(this.head.topics[0].passes), up: 0, a: -1, b: -1, text: "" };
    this.state = this.read(host.get("state")) ?? this.first;
    this.build();
    host.on("change:state", () => this.change(this.read(host.get("state")) ?? {}, false));
    this.change({});
  }

  /** The state that a text stands for, or null. */
  read(text) {
    const [numbers, text_] = [text.split("~").slice(0, 7).map(Number), decodeURIComponent(text.split("~")[7] ?? "")];
    const [topic, model, kind, column, up, a, b] = numbers, { topics, models, kinds, methods } = this.head;
    const within = (v, low, high) => Number.isInteger(v) && v >= low && v < high;
    const fits = numbers.length === 7 && within(topic, 0, topics.length) && within(model, 0, models.length + 1)
      && within(kind, 0, kinds.length + 1) && within(column, 0, 2 + Number(topics[topic].passes) + topics[topic].metrics.length)
      && within(up, 0, 2) && within(a, -1, methods.length) && within(b, -1, methods.length);
    return fits ? { topic, model, kind, column, up, a, b, text: text_ } : null;
  }

  written() {
    const { topic, model, kind, column, up, a, b, text } = this.state;
    return [topic, model, kind, column, up, a, b, encodeURIComponent(text)].join("~");
  }

  build() {
    const { topics, models, kinds, methods } = this.head;
    const select = (key, label, titles, first = 0, name = label) => {
      this[key] = make("select", { "aria-label": name,
        onchange: (event) => this.change({ [key]: Number(event.target.value) }) },
        ...titles.map((title, k) => make("option", { value: k + first }, title)));
      return make("label", {}, `${label} `, this[key]);
    };
    const named = ["no method", ...methods.map(([name]) => name)];
    this.text = make("input", { type: "search", size: 16, oninput: () => this.change({ text: this.text.value }) });
    this.count = make("p", { role: "status" });
    this.table = make("table", {});
    this.beside = make("div", {});
    this.note = make("p", { role: "status" });
    this.el.append(make("div", { class: "ce-lab-live" }, make("style", {}, STYLE),
      make("div", { class: "ce-lab-row" }, select("topic", "What is measured", topics.map(({ title }) => title)),
        select("model", "Model", ["all models", ...models]), select("kind", "Kind of method", ["all kinds", ...kinds]),
        make("label", {}, "Name contains ", this.text)),
      this.count,
      make("div", { class: "ce-lab-scroll ce-lab-tall", tabindex: 0, role: "group", "aria-label": "Scores; the table scrolls" },
        this.table),
      make("h3", {}, "Two methods side by side"),
      make("div", { class: "ce-lab-row" }, select("a", "Compare", named, -1, "first method"),
        select("b", "with", named, -1, "second method"),
        make("button", { type: "button", onclick: () => this.change({ ...this.first }) }, "begin again"),
        make("button", { type: "button", onclick: () => linked(this.host, this.written(), this.note) },
          "copy a link to this state")),
      this.beside, this.note));
  }

  change(changes, keep = true) {
    const { topic, column } = changes, before = this.written(), { topics } = this.head;
    if (topic !== undefined && topic !== this.state.topic && column === undefined) {
      changes = { ...changes, column: 2 + Number(topics[topic].passes), up: 0 };
    }
    Object.assign(this.state = { ...this.state }, changes);
    this.show();
    if (this.written() !== before && keep) {
      this.host.set("state", this.written());
      this.host.save_changes();
    }
  }

  /** What was measured of a method on a model: value, low, high, n. */
  of(model, method, metric) {
    return this.found.get([model, method, metric].join("\n"));
  }

  show() {
    const { topic, model, kind, column, up, a, b, text } = this.state;
    if (this.drawn !== topic) this.fill(topic);
    for (const key of ["topic", "model", "kind", "a", "b"]) this[key].value = this.state[key];
    if (this.text.value !== text) this.text.value = text;
    const wanted = text.trim().toLowerCase(), [first, second] = [a, b].map((k) => this.head.methods[k]?.[0]);
    const lines = this.lines.map((line) => {
      const shown = (!model || line.cells[0] === this.head.models[model - 1]) && (!kind || line.kind === kind - 1)
        && line.cells[1].toLowerCase().includes(wanted);
      line.row.hidden = !shown;
      line.pick.setAttribute("aria-pressed", line.cells[1] === first || line.cells[1] === second);
      return { ...line, shown };
    });
    lines.sort(({ cells: x }, { cells: y }) => {
      if (x[column] === undefined || y[column] === undefined) return (x[column] === undefined) - (y[column] === undefined);
      return (up ? -1 : 1) * inOrder(x[column], y[column]);
    });
    this.body.append(...lines.map(({ row }) => row));
    const rising = typeof this.lines[0].cells[column] === "string" ? !up : Boolean(up);
    this.heads.forEach((head, k) => {
      head.setAttribute("aria-sort", k !== column ? "none" : rising ? "ascending" : "descending");
    });
    const shown = lines.filter((line) => line.shown), name = this.heads[column].textContent;
    this.count.textContent = `${shown.length} of ${lines.length} rows, sorted by ${name}`
      + `${shown.length ? `; ${shown[0].cells[1]} on ${shown[0].cells[0]} stands first` : ""}.`;
    for (const part of [this.table, this.beside]) part.classList.toggle("ce-lab-one", model > 0);
    this.compare(first, second);
  }

  /** Fill the table with the rows of a topic; filters and order change nothing of them. */
  fill(topic) {
    const { metrics, passes } = this.head.topics[topic], { models, methods } = this.head;
    this.drawn = topic;
    this.lines = models.flatMap((model) => methods.map(([method, kind]) => {
      const found = metrics.map((metric) => this.of(model, method, metric)), cost = found.find(Boolean)?.[4];
      const cells = [model, method, ...(passes ? [cost] : []), ...found.map((of) => of?.[0])];
      return { cells, kind, any: found.some(Boolean) };
    })).filter(({ any }) => any);
    for (const line of this.lines) {
      line.pick = make("button", { type: "button", "aria-label": `compare ${line.cells[1]}`,
        onclick: () => this.choose(line.cells[1]) }, line.cells[1]);
      const written = (v, k) => (v === undefined ? "" : k === 2 && passes ? v.toFixed(0) : v.toFixed(2));
      line.row = make("tr", {}, make("td", {}, line.cells[0]), make("td", {}, line.pick),
        ...line.cells.slice(2).map((v, k) => make("td", {}, written(v, k + 2))));
    }
    this.heads = ["model", "method", ...(passes ? ["passes"] : []), ...metrics].map((name, k) => make("th", { scope: "col" },
      make("button", { type: "button", onclick: () => this.sort(k) }, name)));
    this.body = make("tbody", {});
    this.table.replaceChildren(make("thead", {}, make("tr", {}, ...this.heads)), this.body);
  }

  sort(column) {
    this.change({ column, up: column === this.state.column ? 1 - this.state.up : 0 });
  }

  /** Take a method among the two, or out of them; a third takes the place of the first. */
  choose(method) {
    const k = this.head.methods.findIndex(([name]) => name === method), { a, b } = this.state;
    if (a === k) this.change({ a: b, b: -1 });
    else if (b === k) this.change({ b: -1 });
    else if (a < 0) this.change({ a: k });
    else this.change(b < 0 ? { b: k } : { a: b, b: k });
  }

  /** The two methods on the models that are shown: values, intervals, and the difference with its interval. */
  compare(a, b) {
    if (!a || !b || a === b) {
      this.beside.replaceChildren(make("p", {}, "Choose two methods here, or click their names in the table."));
      return;
    }
    const models = this.state.model ? [this.head.models[this.state.model - 1]] : this.head.models, rows = [];
    const named = ([value, low, high]) => `${value.toFixed(2)} [${low.toFixed(2)}, ${high.toFixed(2)}]`;
    for (const model of models) {
      for (const metric of this.head.topics[this.state.topic].metrics) {
        const [x, y] = [a, b].map((method) => this.of(model, method, metric));
        if (!x && !y) continue;
        const cells = [x, y].map((of, k) => (of ? named(of) : this.head.notes[`${model}\n${[a, b][k]}`] ?? "not measured"));
        if (!x || !y) { rows.push([model, metric, ...cells, "", "", ""]); continue; }
        const { value, low, high } = difference(x, y);
        const said = low > 0 ? `${a} is higher` : high < 0 ? `${b} is higher` : "no difference is shown";
        rows.push([model, metric, ...cells, `${signedTwo(value)} [${signedTwo(low)}, ${signedTwo(high)}]`, said,
          `${Math.min(x[3], y[3])}`]);
      }
    }
    this.beside.replaceChildren(scrolled("Two methods side by side", ["model", "metric", a, b, "difference", "in words", "n"],
      rows), make("p", {}, "In brackets: 95 % intervals. That of a difference is made from the other two as if they were of "
      + "different examples (Zou and Donner 2008); both methods were measured on the same ones, so it is likely too wide."));
  }
}

/** The difference of two values with intervals that know nothing of each other: value, low, high. */
function difference([a, aLow, aHigh], [b, bLow, bHigh]) {
  return { value: a - b, low: a - b - Math.hypot(a - aLow, bHigh - b), high: a - b + Math.hypot(aHigh - a, b - bLow) };
}

function render({ model, el }) {
  new Board(model, el);
}

export { difference };
export default { render };
