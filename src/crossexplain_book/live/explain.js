// What the package asks of the model, asked here: masks and what stands in, maps, word scores, rounds, exact values.
// A pair is {cells: [key, key, key, key], words: [number, ...]}; a key is the number of a stored digit, or "=" and a drawing.

const STAND_INS = [
  { name: "zero + mask", title: "empty paper, and [MASK] for words", image: "zero", text: "mask" },
  { name: "mean + pad", title: "the picture's mean grey, and padding for words", image: "mean", text: "pad" },
  { name: "data", title: "borrowed from other pairs", image: "data", text: "data" },
];
const PICKED = { text: 3, image: 1 }; // how many features round 4 masks, as in chapter 4
const GROUPS = 9; // players that a sentence has at most: a longer one is dealt into groups of neighbouring words
const KEPT = 64; // pictures, sentences and passes that are kept, the last used ones
const PLACES = MAP * MAP;
const MAPS = {
  "grad-cam": (a, g) => {
    const weights = Array.from({ length: CHANNELS }, (_, c) => mean(g.subarray(c * PLACES, (c + 1) * PLACES)));
    return summed(a, (v, i) => v * weights[(i / PLACES) | 0]);
  },
  "layer-cam": (a, g) => summed(a, (v, i) => Math.max(0, g[i]) * v),
};
const SCORES = {
  l2: (a, g) => norm(g),
  "activation x gradient": (a, g) => norm(g.map((v, k) => v * a[k])),
};

const mean = (x) => x.reduce((sum, v) => sum + v, 0) / x.length;
const norm = (x) => Math.sqrt(x.reduce((sum, v) => sum + v * v, 0));
const all = (count) => 2 ** count - 1; // a set of features as bits: bit k is feature k
const pause = () => new Promise((go) => setTimeout(go));

/** Sum activations (64, 14, 14), changed by a function of value and place, over the channels: (14, 14). */
function summed(activations, change) {
  const map = new Float64Array(PLACES);
  activations.forEach((v, i) => { map[i % PLACES] += change(v, i); });
  return map;
}

class Asker {
  constructor(bytes) {
    this.model = new Model(bytes);
    this.head = this.model.head;
    [this.seen, this.heard, this.passed] = [new Map(), new Map(), new Map()];
    this.lenders = this.head.lenders.map((row) => this.stored(row));
  }

  /** A row of the stored pairs, four cells and a sentence, as a pair. */
  stored(row) {
    const { sentence } = this.head.statements[row[4]];
    return { cells: row.slice(0, 4), words: sentence.split(" ").map((word) => this.head.vocabulary.indexOf(word)) };
  }

  /** Levels (64) from 0 to 16 of a digit: stored, or drawn (each level a digit of base 17). */
  levels(key) {
    if (typeof key === "string") return Uint8Array.from(key.slice(1), (sign) => parseInt(sign, 17));
    return this.model.levels.subarray(key * 64, key * 64 + 64);
  }

  /** A digit enlarged as the package does it, (28, 28) from 0 to 1. */
  digit(key) {
    const { enlarge } = this.head, levels = this.levels(key);
    const rows = new Float64Array(CELL * 8), y = new Float32Array(CELL * CELL);
    for (let r = 0; r < CELL; r++) {
      for (let s = 0; s < 8; s++) for (let k = 0; k < 8; k++) rows[r * 8 + s] += enlarge[r * 8 + k] * levels[k * 8 + s] / 16;
    }
    for (let r = 0; r < CELL; r++) {
      for (let s = 0; s < CELL; s++) {
        let sum = 0;
        for (let k = 0; k < 8; k++) sum += enlarge[s * 8 + k] * rows[r * 8 + k];
        y[r * CELL + s] = Math.min(1, Math.max(0, sum));
      }
    }
    return y;
  }

  /** The collage (56, 56) with some cells hidden. */
  pixels(cells, hidden = 0, standIn = STAND_INS[0], lender = this.lenders[0]) {
    const y = new Float32Array(SIDE * SIDE), four = cells.map((key) => this.digit(key));
    const grey = mean(four.map(mean));
    four.forEach((own, cell) => {
      const hide = (hidden >> cell) & 1;
      const shown = hide && standIn.image === "data" ? this.digit(lender.cells[cell]) : own;
      const flat = hide && standIn.image !== "data" ? (standIn.image === "mean" ? grey : 0) : null;
      for (let i = 0; i < own.length; i++) {
        const row = (cell >> 1) * CELL + ((i / CELL) | 0);
        y[row * SIDE + (cell & 1) * CELL + (i % CELL)] = flat ?? shown[i];
      }
    });
    return y;
  }

  /** Word numbers with some words hidden. */
  tokens(words, hidden = 0, standIn = STAND_INS[0], lender = this.lenders[0]) {
    const borrowed = standIn.text === "data";
    if (borrowed && hidden === all(words.length)) return lender.words; // the whole other sentence, with its length
    const other = (t) => (borrowed ? lender.words[t % lender.words.length] : standIn.text === "mask" ? MASK : PAD);
    return words.map((word, t) => ((hidden >> t) & 1 ? other(t) : word));
  }

  /** What the tower sees of a collage with some cells hidden. */
  look(cells, hidden, standIn, lender = this.lenders[0]) {
    const shown = cells.map((key, cell) => ((hidden >> cell) & 1 ? (standIn.image === "data" ? lender.cells[cell] : "") : key));
    const name = hidden && standIn.image === "mean" ? `mean of ${cells}, ${hidden}` : shown.join();
    return kept(this.seen, name, () => this.model.see(this.pixels(cells, hidden, standIn, lender)));
  }

  /** What the LSTM reads of a sentence with some words hidden. */
  hear(words, hidden, standIn, lender = this.lenders[0]) {
    const tokens = this.tokens(words, hidden, standIn, lender);
    return kept(this.heard, tokens.join(), () => ({ ...this.model.read(tokens), tokens }));
  }

  /** One pass with some cells and words hidden -> {logit, gradients at map and words, seen, tokens}. */
  pass(pair, cells, words, standIn, lender = this.lenders[0]) {
    const name = [pair.cells, cells, pair.words, words, standIn.name, this.lenders.indexOf(lender)].join("|");
    return kept(this.passed, name, () => {
      const seen = this.look(pair.cells, cells, standIn, lender), heard = this.hear(pair.words, words, standIn, lender);
      return { ...this.model.explain(seen, heard), seen, tokens: heard.tokens };
    });
  }

  /** What a reader sees of a pass: the answer, the map of the evidence for it, and a score for each word left. */
  explained(pair, cells, words, standIn, map = "grad-cam", score = "l2") {
    const passed = this.pass(pair, cells, words, standIn), { seen, tokens, logit } = passed;
    const toward = logit > 0 ? passed.map : passed.map.map((g) => -g);
    const embedding = this.model.w["embedding.weight"];
    const scores = pair.words.map((_, t) => (words >> t) & 1 || tokens.length <= t ? NaN : SCORES[score](
      embedding.subarray(tokens[t] * 64, tokens[t] * 64 + 64), passed.words.subarray(t * 64, t * 64 + 64)));
    const digits = [0, 1, 2, 3].map((cell) => best(seen.named.subarray(cell * DIGITS, cell * DIGITS + DIGITS)));
    return { logit, heat: MAPS[map](seen.features, toward).map((v) => Math.max(0, v)), scores, digits };
  }

  /** Several logits of a pair under a stand-in, each the mean over those it borrows from, as a verdict needs them. */
  views(pair, standIn) {
    const none = { cells: [0, all(4)], words: [0, all(pair.words.length)] };
    const lenders = standIn.image === "data" ? this.lenders : this.lenders.slice(0, 1);
    const logit = (cells, words, from, to = from) => this.model.match(this.look(pair.cells, cells, standIn, from),
      this.hear(pair.words, words, standIn, to)).logit;
    return {
      full: logit(0, 0),
      image: mean(lenders.map((of) => logit(0, none.words[1], of))),
      text: mean(lenders.map((of) => logit(none.cells[1], 0, of))),
      nothing: mean(lenders.flatMap((of) => lenders.map((to) => logit(none.cells[1], none.words[1], of, to)))),
    };
  }

  /** The paper's four rounds from both ends -> {text: {...}, image: {...}}, each with norms, what was picked, likeness. */
  rounds(pair, standIn) {
    const everything = { image: all(4), text: all(pair.words.length) }, full = this._round(pair, {}, standIn);
    const without = { image: this._round(pair, { image: everything.image }, standIn),
      text: this._round(pair, { text: everything.text }, standIn) };
    const side = (own, other) => {
      const picked = largest(without[other].importance[own], PICKED[own]);
      const fourth = this._round(pair, { [own]: picked.reduce((bits, k) => bits | (1 << k), 0) }, standIn);
      return { picked, norms: [full.norms[own], without[other].norms[own], without[own].norms[other], fourth.norms[other]],
        logits: [full, without[other], without[own], fourth].map(({ logit }) => logit),
        first: full.importance[own], second: without[other].importance[own],
        cosine: cosine(without[own].gradient[other], fourth.gradient[other]) };
    };
    return { text: side("text", "image"), image: side("image", "text") };
  }

  /** The mean over those borrowed from of logit, gradients, their norms and the norm at each feature. */
  _round(pair, hide, standIn) {
    const lenders = standIn.image === "data" && (hide.image || hide.text) ? this.lenders : this.lenders.slice(0, 1);
    const passes = lenders.map((of) => this.pass(pair, hide.image ?? 0, hide.text ?? 0, standIn, of));
    const size = this.head.length * 64;
    const at = (name) => passes.map((passed) => (name === "image" ? passed.map : padded(passed.words, size)));
    const both = (read) => ({ image: read("image"), text: read("text") });
    const words = (g) => pair.words.map((_, t) => norm(g.subarray(t * 64, t * 64 + 64)));
    const features = (name, g) => (name === "image" ? cellNorms(g) : words(g));
    return { logit: mean(passes.map(({ logit }) => logit)), gradient: both((name) => average(at(name))),
      norms: both((name) => mean(at(name).map(norm))),
      importance: both((name) => average(at(name).map((g) => Float64Array.from(features(name, g))))) };
  }

  /** The player of each word: itself, or of a long sentence its group. */
  groups(words) {
    return words.map((_, t) => (words.length <= GROUPS ? t : Math.floor((t * GROUPS) / words.length)));
  }

  /** Values of all sets of players, (2 ** P), cells first: the evidence for the answer with only the set left. */
  async values(pair, standIn, step = () => {}) {
    const { model } = this, { w } = model, groups = this.groups(pair.words), count = groups[groups.length - 1] + 1;
    const cells = [], texts = [];
    for (let keep = 0; keep < 16; keep++) {
      const { y } = model.dense("seen", this.look(pair.cells, all(4) ^ keep, standIn).picture);
      cells.push(linear(w["fusion.0.weight"], y, w["fusion.0.bias"], 512));
      step(keep / 32);
      await pause();
    }
    this._readAll(pair.words, groups, standIn, (keep, vector) => {
      texts[keep] = linear(w["fusion.0.weight"], model.dense("said", vector).y, new Float64Array(256), 512, 256);
    });
    const values = new Float64Array(16 << count);
    for (let text = 0; text < texts.length; text++) {
      for (let cell = 0; cell < 16; cell++) values[(text << 4) | cell] = this._head(cells[cell], texts[text]);
      if (text % 64 === 63) { step(0.5 + text / texts.length / 2); await pause(); }
    }
    const sign = values[values.length - 1] > 0 ? 1 : -1;
    return values.map((v) => sign * v);
  }

  /** The logit of the two halves of the first fusion layer, (256) each. */
  _head(left, right) {
    const { w } = this.model, weight = w["fusion.2.weight"], bias = w["fusion.2.bias"], last = w["fusion.4.weight"];
    const x = new Float64Array(256), active = [];
    for (let k = 0; k < 256; k++) if ((x[k] = left[k] + right[k]) > 0) active.push(k);
    const turned = (this.turned ??= transposed(weight, 256)), y = Float64Array.from(bias);
    for (const k of active) for (let o = 0, at = k * 256, v = x[k]; o < 256; o++) y[o] += v * turned[at + o];
    let logit = w["fusion.4.bias"][0];
    for (let o = 0; o < 256; o++) if (y[o] > 0) logit += y[o] * last[o];
    return logit;
  }

  /** Read a sentence with every set of its groups kept; sets that begin alike share their steps. */
  _readAll(words, groups, standIn, take) {
    const { model } = this, hiddenWords = this.tokens(words, all(words.length) - 1, standIn); // all but the first
    const hidden = [this.tokens(words, 1, standIn)[0], ...hiddenWords.slice(1)];
    const walk = (state, vector, t, keep) => {
      if (t === words.length) return take(keep, vector);
      for (const stay of [0, 1]) {
        let now = state, most = vector, u = t;
        for (; u < words.length && groups[u] === groups[t]; u++) {
          const word = stay ? words[u] : hidden[u];
          now = model.step(now, word);
          if (word !== PAD) most = most.map((v, k) => Math.max(v, now[1].h[k]));
        }
        walk(now, most, u, keep | (stay << groups[t]));
      }
    };
    walk(model.begin(), new Float64Array(model.width).fill(-1), 0, 0);
    // With all words hidden the whole other sentence is borrowed.
    if (standIn.text === "data") take(0, this.hear(words, all(words.length), standIn).vector);
  }
}

/** What was computed before under a name, or is now; the last used are kept. */
function kept(memory, name, compute) {
  const found = memory.get(name) ?? compute();
  memory.delete(name);
  memory.set(name, found);
  if (memory.size > KEPT) memory.delete(memory.keys().next().value);
  return found;
}

const best = (x) => x.indexOf(x.reduce((a, b) => Math.max(a, b)));
/** The mean of some arrays, entry by entry. */
function average(arrays) {
  const sum = Float64Array.from(arrays[0]);
  for (const one of arrays.slice(1)) one.forEach((v, i) => { sum[i] += v; });
  return arrays.length > 1 ? sum.map((v) => v / arrays.length) : sum;
}

const padded = (x, length) => { const y = new Float64Array(length); y.set(x); return y; };

/** The features with the largest importance, the first of equal ones first. */
function largest(importance, count) {
  return [...importance.keys()].sort((i, j) => importance[j] - importance[i] || i - j).slice(0, count);
}

function cosine(a, b) {
  return a.reduce((sum, v, i) => sum + v * b[i], 0) / (norm(a) * norm(b));
}

/** The cell that a place of the map (14, 14) lies in. */
const cellOf = (place) => 2 * Number(place >= PLACES / 2) + Number(place % MAP >= MAP / 2);

/** Norm of a gradient (64, 14, 14) over the channels and places of each cell. */
function cellNorms(gradient) {
  const square = summed(gradient, (v) => v * v), cells = new Float64Array(4);
  square.forEach((v, i) => { cells[cellOf(i)] += v; });
  return cells.map(Math.sqrt);
}

function transposed(weight, side) {
  return Float32Array.from(weight, (_, i) => weight[(i % side) * side + ((i / side) | 0)]);
}

/** Shapley values (P) and Shapley interactions of all pairs (P, P) from the values of all sets (2 ** P). */
function shapley(values) {
  const players = Math.log2(values.length), dividends = Float64Array.from(values), phi = new Float64Array(players);
  const pairs = Array.from(phi, () => new Float64Array(players));
  for (let k = 0; k < players; k++) {
    for (let set = 0; set < values.length; set++) if ((set >> k) & 1) dividends[set] -= dividends[set ^ (1 << k)];
  }
  for (let set = 1; set < values.length; set++) {
    const members = [...phi.keys()].filter((k) => (set >> k) & 1);
    for (const k of members) {
      phi[k] += dividends[set] / members.length;
      for (const l of members) if (l !== k) pairs[k][l] += dividends[set] / (members.length - 1);
    }
  }
  return { phi, pairs };
}
