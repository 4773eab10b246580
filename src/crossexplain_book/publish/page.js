// A published page: what the model says of an example with some of its parts covered, from answers that were stored.

const signed = (x, digits = 3) => (x === null ? "none" : (x < 0 ? "-" : "+") + Math.abs(x).toPrecision(digits));
const ORANGE = [252, 141, 98], BLUE = [103, 169, 207];

class Published {
  constructor(host, el) {
    Object.assign(this, { host, head: host.get("data"), state: { example: 0, hidden: [], method: 0 } });
    this.places = this.head.examples.map((one) => one.sets && new Map(one.sets.map((set, k) => [set, k])));
    this.read(host.get("state"));
    this.build(el);
    host.on("change:state", () => { this.read(host.get("state")); this.show(); });
    this.show();
  }

  /** The example that is shown, its number of features, and the number of each modality's first feature. */
  get example() { return this.head.examples[this.state.example]; }
  get starts() { return this.example.words.map((_, m) => this.example.words.slice(0, m).flat().length); }

  /** Take a state from a text; what is none changes nothing. */
  read(text) {
    const [example, hidden, method] = text.split("~").map((part) => part.split(".").filter(Boolean).map(Number));
    const of = this.head.examples[example], count = of?.words.flat().length;
    if (!method || !of || !this.head.methods[method] || !hidden.every((k) => Number.isInteger(k) && k >= 0 && k < count)) return;
    this.state = { example: example[0], hidden: [...new Set(hidden)].sort((a, b) => a - b), method: method[0] };
  }

  written() {
    const { example, hidden, method } = this.state;
    return [example, hidden.join("."), method].join("~");
  }

  change(changes) {
    Object.assign(this.state, changes);
    this.host.set("state", this.written());
    this.host.save_changes();
    this.show();
  }

  /** Where the answer for a set of covered features was stored. */
  place(hidden, example) {
    const places = this.places[example];
    return places ? places.get(hidden.join(".")) : hidden.reduce((bits, i) => bits + 2 ** i, 0);
  }

  /** What was stored for a set of covered features; null where nothing was. */
  stored(hidden) {
    const { example } = this, k = this.place(hidden, this.state.example);
    return k === undefined ? null : { evidence: example.evidence[k], predicted: example.predicted[k] };
  }

  cover(numbers) {
    const { hidden } = this.state, all = numbers.every((k) => hidden.includes(k));
    const rest = hidden.filter((k) => !numbers.includes(k));
    this.change({ hidden: all ? rest : [...rest, ...numbers].sort((a, b) => a - b) });
  }

  build(el) {
    const { examples, methods } = this.head, button = (text, onclick) => make("button", { type: "button", onclick }, text);
    const choice = (label, titles, key, change) => {
      const options = titles.map((title, value) => make("option", { value }, title));
      this[key] = make("select", { onchange: (event) => change(+event.target.value) }, ...options);
      return make("div", { class: "ce-lab-row" }, make("label", {}, `${label} `, this[key]));
    };
    const titles = examples.map(({ words, label }, k) => {
      const spoken = this.head.modalities.map(({ grid }, m) => (grid ? "" : words[m].join(" "))).filter(Boolean).join("; ");
      return `${k + 1}${spoken && ": "}${spoken.slice(0, 60)}${label === null ? "" : ` (${label})`}`;
    });
    this.say = make("p", { role: "status" });
    this.more = make("p", {});
    this.parts = make("div", {});
    this.line = make("p", {});
    this.rounds = make("div", {});
    this.each = make("p", {});
    this.linked = make("p", { role: "alert", hidden: true });
    this.starter = button("start the model in this page", () => this.start());
    this.started = make("p", { role: "note" });
    const several = this.head.modalities.length > 1, heading = (text) => make("h3", {}, text);
    el.replaceChildren(make("div", { class: "ce-lab-live" },
      choice("Example", titles, "exampleChoice", (example) => this.change({ example, hidden: [] })), this.say, this.more,
      make("div", { class: "ce-lab-row" }, button("uncover all", () => this.change({ hidden: [] })),
        button("copy a link to this state", () => this.link()), ...(this.head.live ? [this.starter] : [])),
      this.linked, this.started,
      choice("Scores", methods.map(([, title]) => title), "methodChoice", (method) => this.change({ method })), this.parts,
      this.line, ...(several ? [heading("The four rounds of this example"), this.rounds] : []),
      heading(`What the answers rest on, over ${this.head.n} examples`),
      ...this.head.verdict.map((line) => make("p", {}, line)), this.each,
      heading("How this page was made"),
      make("p", {}, `The answers were stored when the page was written. What stands in for what is covered: ${this.head.baseline}. `
        + (this.head.single ? `Evidence for "${this.head.classes[1]}" is the logit, for "${this.head.classes[0]}" its negative.`
          : "Evidence for a class is its logit, less the mean of all classes.")),
      ...this.made().map((line) => make("p", {}, line)), ...this.head.refused.map(([title, reason]) => make("p", {}, `No scores of ${title}: ${reason}`))));
  }

  /** Whether the model can run in the page, and how near its answers are. */
  made() {
    const { live, why } = this.head;
    if (!live) return why ? [`The model does not run in this page: ${why}.`] : [];
    const { answers, logit, score } = live.parity;
    return [`The model can run in this page, forward and back, written as ONNX. Of ${answers} answers that were compared with `
      + `PyTorch's when the page was written, logits differ by ${logit.toExponential(1)} at most, scores by ${score.toExponential(1)} of the largest.`];
  }

  /** Load the model, and compare its answers with those that were stored. */
  async start() {
    const { example } = this.state, count = this.example.words.flat().length;
    this.starter.disabled = true;
    this.started.textContent = "Loading the model.";
    try {
      const live = await Running.started(this.head.live), sets = [[], ...Array.from({ length: Math.min(count, 7) }, (_, k) => [k])];
      let apart = 0;
      for (const set of sets) {
        const told = this.evidence(example, await live.ask(example, set));
        apart = Math.max(apart, Math.abs(told - this.head.examples[example].evidence[this.place(set, example)]));
      }
      this.live = live;
      this.starter.hidden = true;
      this.started.textContent = `The model answers here: any parts may be covered. ${sets.length} of its answers differ from the `
        + `stored ones by ${apart.toPrecision(2)} at most.`;
      this.show();
    } catch (error) {
      this.starter.disabled = false;
      this.started.textContent = `The model cannot be started (${error.message ?? error}); the stored answers stand.`;
    }
  }

  evidence(example, { logits }) {
    return this.head.live.weights[example][0].reduce((sum, weight, k) => sum + weight * logits[k], 0);
  }

  /** Ask the model about the state that is shown, and show what it says unless the reader has gone on. */
  async follow() {
    const { example, hidden, method } = this.state, key = this.written(), [name] = this.head.methods[method];
    let found = null;
    try {
      found = await this.live.ask(example, hidden, this.head.live.methods[name]);
    } catch (error) {
      this.started.textContent = `The model fails on this state (${error.message ?? error}); the stored answers stand.`;
    }
    if (!found || this.written() !== key) return;
    const { logits } = found, predicted = logits.length > 1 ? logits.indexOf(Math.max(...logits)) : Number(logits[0] > 0);
    const scores = name in this.head.live.methods ? this.head.modalities.map((modality, m) => {
      const all = found[`${name}:${modality.name}`];
      return all ? this.head.live.present[example][m].map((k) => all[k]) : null;
    }) : null;
    this.now = { key, scores, evidence: this.evidence(example, found), predicted };
    this.show();
  }

  show() {
    const { example, state } = this, { classes } = this.head, here = this.now?.key === this.written() ? this.now : null;
    const now = here ?? this.stored(state.hidden), whole = this.stored([]), names = example.words.flat();
    const followed = classes[example.followed];
    const spoken = ({ evidence, predicted }) => `"${classes[predicted]}" (evidence for "${followed}" ${signed(evidence)})`;
    const truth = example.label === null ? "" : ` The truth is "${example.label}".`;
    this.say.textContent = !state.hidden.length ? `The model says ${spoken(whole)}.${truth}`
      : now ? `With ${state.hidden.length} covered the model says ${spoken(now)}; with nothing covered ${spoken(whole)}.${truth}`
        : this.live ? "Asking the model." : `No answer is stored for these ${state.hidden.length} covered parts together: single `
          + `parts, whole modalities, each of them with one part of another, and ${example.sets.length} covers in all are. With `
          + `nothing covered the model says ${spoken(whole)}.`;
    this.more.textContent = this.together(names);
    this.exampleChoice.value = state.example;
    this.methodChoice.value = state.method;
    this.showParts(here?.scores);
    if (this.head.modalities.length > 1) this.showRounds(followed);
    this.each.textContent = example.each ? `This example's own answer rests on: ${example.each}.` : "";
    if (this.live && !here) this.follow();
  }

  /** Say whether the two parts that are covered do more together than apart. */
  together(names) {
    const { hidden } = this.state, starts = this.starts;
    if (hidden.length !== 2) return "";
    const [a, b, both] = [[hidden[0]], [hidden[1]], hidden].map((set) => this.stored(set)?.evidence);
    if (both === undefined) return "";
    const whole = this.stored([]).evidence, [first, second] = hidden.map((k) => `"${names[k]}"`);
    return `Covered alone, ${first} changes the evidence by ${signed(a - whole)} and ${second} by ${signed(b - whole)}; together `
      + `they change it by ${signed(both - whole)}, so their interaction is ${signed(whole - a - b + both)}.`;
  }

  showParts(now) {
    const { example, state, starts } = this, [key, title, line, hasSign] = this.head.methods[state.method];
    const scores = now ?? example.scores[key], focus = document.activeElement?.dataset?.part;
    const tops = scores.map((part) => Math.max(0, ...(part ?? []).map((v) => Math.abs(v ?? 0)))); // gradients have other units
    const boxes = this.head.modalities.map(({ name, unit, grid }, m) => {
      const words = example.words[m], numbers = words.map((_, i) => starts[m] + i), covered = (k) => state.hidden.includes(k);
      const value = (i) => (scores[m] ? scores[m][i] : null), top = tops[m] || 1;
      const colour = (v) => tint(v < 0 ? BLUE : ORANGE, 0.9 * Math.abs(v ?? 0) / top);
      const part = (i, ...inner) => make("button", { type: "button", "data-part": numbers[i],
        "aria-pressed": String(covered(numbers[i])), title: words[i], onclick: () => this.cover([numbers[i]]),
        "aria-label": `cover ${unit} ${words[i]}${value(i) === null ? "" : `, score ${signed(value(i))}`}` }, ...inner);
      const all = make("button", { type: "button", "data-part": `all${m}`, onclick: () => this.cover(numbers),
        "aria-pressed": String(numbers.every(covered)) }, `cover all of ${name}`);
      const heading = make("h3", {}, name), rows = make("div", { class: "ce-lab-row" }, all);
      if (!grid) {
        const buttons = words.map((word, i) => {
          const one = part(i, word, make("small", {}, value(i) === null ? "no score" : signed(value(i))));
          one.style.background = colour(value(i));
          return one;
        });
        return make("section", {}, heading, make("div", { class: "ce-lab-row ce-page-features" }, ...buttons), rows);
      }
      const laid = { class: "ce-page-cells", style: `grid-template:repeat(${grid[0]},1fr)/repeat(${grid[1]},1fr)` };
      const ground = (v) => (hasSign ? colour(v) : `rgb(${inferno(v / top).map(Math.round)})`);
      const overlay = words.map((_, i) => make("span", { style: value(i) === null ? "" : `background:${ground(value(i))};opacity:.72` }));
      const drawn = (alt, ...over) => {
        const image = make("img", { src: example.pictures[m], alt });
        image.onload = () => image.classList.toggle("ce-small", image.naturalWidth <= 64);
        return make("div", { class: "ce-page-picture" }, image, make("div", laid, ...over));
      };
      const best = words.map((_, i) => Math.abs(value(i) ?? 0)), strongest = words[best.indexOf(Math.max(...best))];
      const map = value(0) === null ? `no map: ${title} gives none for ${name}` : `${title}, strongest at ${strongest}`;
      return make("section", {}, heading, make("div", { class: "ce-lab-pictures" },
        drawn(`${name} of example ${state.example + 1}, as the model sees it`, ...words.map((_, i) => part(i))), drawn(map, ...overlay)), rows);
    });
    this.parts.replaceChildren(...boxes);
    this.parts.querySelector(`[data-part="${focus}"]`)?.focus();
    const largest = this.head.modalities.map(({ name }, m) => `${name} ${scores[m] ? tops[m].toPrecision(3) : "none"}`);
    this.line.textContent = `Scores: ${line}. ${hasSign ? "Orange speaks for the followed class, blue against it" : "The stronger "
      + "a word's colour, and the brighter a cell, the larger the score"}; the largest: ${largest.join(", ")}. They are of the `
      + `example ${now ? "as it is covered, computed in this page" : "with nothing covered"}.`;
  }

  showRounds(followed) {
    const names = this.head.modalities.map(({ name }) => name), { classes } = this.head;
    const cosine = (v) => (v === null ? "no gradient" : v.toFixed(2).replace("-0.00", "0.00"));
    const alike = (of) => (of ? `all of ${of[0]}: ${cosine(of[1])}; a random choice: ${cosine(of[2])}` : "");
    const rows = this.example.rounds.map((one) => [one.covered, classes[one.predicted], signed(one.evidence),
      ...one.norms.map((norm) => (norm === null ? "" : norm.toPrecision(3))), alike(one.alike)]);
    this.rounds.replaceChildren(scrolled("The four rounds", ["covered", "answer", `evidence for "${followed}"`,
      ...names.map((name) => `gradient at ${name}`), "cosine with covering"], rows),
      make("p", {}, "Round 1 covers nothing. Round 2 covers all but one modality and picks that one's features with the largest "
        + "gradient; round 3 covers that modality itself, round 4 the picked features alone. If rounds 3 and 4 are alike (cosine "
        + "near 1, and less so for features at random), what was picked carries the interaction."));
  }

  async link() {
    const address = this.host.address();
    try {
      await navigator.clipboard.writeText(address);
      this.linked.textContent = "The link is copied.";
    } catch {
      this.linked.textContent = `The link: ${address}`;
    }
    this.linked.hidden = false;
  }
}

(function () {
  const sign = "#page=", heard = [], values = { data: JSON.parse(document.getElementById("data").textContent) };
  const fromAddress = () => (location.hash.startsWith(sign) ? decodeURIComponent(location.hash.slice(sign.length)) : "");
  values.state = fromAddress();
  const host = {
    get: (name) => values[name],
    set: (name, value) => { values[name] = value; },
    save_changes: () => history.replaceState(null, "", sign + values.state),
    on: (event, call) => heard.push(call),
    address: () => location.href,
  };
  new Published(host, document.getElementById("page"));
  window.addEventListener("hashchange", () => { values.state = fromAddress(); heard.forEach((call) => call()); });
})();
