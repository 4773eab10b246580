// The model of chapters 3 and 4: forward, and backward from the logit to the tower's last map and to the words.
// Arrays are flat and row by row; their shapes stand in the comments. Batch norm is folded into the convolutions.

const CELL = 28, SIDE = 56, MAP = 14, CHANNELS = 64, DIGITS = 10, PAD = 0, MASK = 1, TEMPERATURE = 2;
const CONVOLUTIONS = [[0, 56, true], [4, 28, false], [7, 28, true], [11, 14, false], [14, 14, false], [17, 14, false]];
const NORMALISED = 1e-5; // eps of the layer norms

/** The number that 16 bits stand for in half precision. */
function fromHalf(half) {
  const exponent = (half >> 10) & 31, size = 2 ** ((exponent || 1) - 25) * ((half & 1023) + (exponent ? 1024 : 0));
  return half & 0x8000 ? -size : size;
}

/** Bytes as `packed` of the Python module wrote them -> {head, tensors: {name: Float32Array}, levels}. */
function unpack(bytes) {
  const size = new DataView(bytes.buffer, bytes.byteOffset, 4).getUint32(0, true);
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, 4 + size)));
  const body = bytes.slice(4 + size), tensors = {};
  const number = Float32Array.from({ length: 65536 }, (_, half) => fromHalf(half));
  for (const { name, start, count } of head.tensors) {
    const half = new Uint16Array(body.buffer, start, count);
    tensors[name] = new Float32Array(count);
    for (let i = 0; i < count; i++) tensors[name][i] = number[half[i]];
  }
  return { head, tensors, levels: body.subarray(head.levels) };
}

/** Convolve planes (channels, side + 2, side + 2) by 3 x 3, bordered by zeros; bias and ReLU; two outputs at a time. */
function convolve(x, channels, side, weight, bias) {
  const row = side + 2, plane = row * row, y = new Float32Array(bias.length * plane);
  const a = new Float64Array(plane), b = new Float64Array(plane);
  for (let o = 0; o < bias.length; o += 2) {
    a.fill(bias[o]);
    b.fill(bias[o + 1]);
    for (let c = 0; c < channels; c++) {
      const k = weight.subarray((o * channels + c) * 9), l = weight.subarray(((o + 1) * channels + c) * 9);
      const k0 = k[0], k1 = k[1], k2 = k[2], k3 = k[3], k4 = k[4], k5 = k[5], k6 = k[6], k7 = k[7], k8 = k[8];
      const l0 = l[0], l1 = l[1], l2 = l[2], l3 = l[3], l4 = l[4], l5 = l[5], l6 = l[6], l7 = l[7], l8 = l[8];
      for (let r = 1; r <= side; r++) {
        let p = r * row + 1, q = c * plane + p;
        let t0 = x[q - row - 1], t1 = x[q - row], m0 = x[q - 1], m1 = x[q], u0 = x[q + row - 1], u1 = x[q + row];
        for (const end = p + side; p < end; p++, q++) {
          const t2 = x[q - row + 1], m2 = x[q + 1], u2 = x[q + row + 1];
          a[p] += k0 * t0 + k1 * t1 + k2 * t2 + k3 * m0 + k4 * m1 + k5 * m2 + k6 * u0 + k7 * u1 + k8 * u2;
          b[p] += l0 * t0 + l1 * t1 + l2 * t2 + l3 * m0 + l4 * m1 + l5 * m2 + l6 * u0 + l7 * u1 + l8 * u2;
          t0 = t1; t1 = t2; m0 = m1; m1 = m2; u0 = u1; u1 = u2;
        }
      }
    }
    for (let r = 1; r <= side; r++) {
      for (let p = r * row + 1, end = p + side; p < end; p++) {
        if (a[p] > 0) y[o * plane + p] = a[p];
        if (b[p] > 0) y[(o + 1) * plane + p] = b[p];
      }
    }
  }
  return y;
}

/** Largest of each 2 x 2 of bordered planes of a side, as bordered planes of half the side. */
function halve(x, side) {
  const row = side + 2, half = side / 2 + 2, planes = x.length / (row * row), y = new Float32Array(planes * half * half);
  for (let c = 0; c < planes; c++) {
    for (let r = 1; r < half - 1; r++) {
      for (let s = 1; s < half - 1; s++) {
        const q = c * row * row + (2 * r - 1) * row + 2 * s - 1;
        y[(c * half + r) * half + s] = Math.max(x[q], x[q + 1], x[q + row], x[q + row + 1]);
      }
    }
  }
  return y;
}

/** weight (out, in) times x (in), plus bias; `from` skips columns of a wider weight. */
function linear(weight, x, bias, columns = x.length, from = 0) {
  const y = new Float64Array(bias.length), count = x.length;
  for (let o = 0, at = from; o < y.length; o++, at += columns) {
    let sum = bias[o];
    for (let i = 0; i < count; i++) sum += weight[at + i] * x[i];
    y[o] = sum;
  }
  return y;
}

/** The gradient of a linear layer's input, (in), from that of its output. */
function linearBack(weight, gradient, count, columns = count, from = 0) {
  const back = new Float64Array(count);
  for (let o = 0, at = from; o < gradient.length; o++, at += columns) {
    const g = gradient[o];
    if (g) for (let i = 0; i < count; i++) back[i] += g * weight[at + i];
  }
  return back;
}

const relu = (x) => x.map((value) => Math.max(0, value));
const reluBack = (y, gradient) => gradient.map((g, i) => (y[i] > 0 ? g : 0));

function layerNorm(x, weight, bias) {
  const mean = x.reduce((sum, v) => sum + v, 0) / x.length;
  const scale = 1 / Math.sqrt(x.reduce((sum, v) => sum + (v - mean) ** 2, 0) / x.length + NORMALISED);
  const unit = Float64Array.from(x, (v) => (v - mean) * scale);
  return { unit, scale, y: unit.map((v, i) => v * weight[i] + bias[i]) };
}

function layerNormBack({ unit, scale }, weight, gradient) {
  const g = gradient.map((v, i) => v * weight[i]), n = g.length;
  const mean = g.reduce((sum, v) => sum + v, 0) / n, along = g.reduce((sum, v, i) => sum + v * unit[i], 0) / n;
  return g.map((v, i) => scale * (v - mean - unit[i] * along));
}

const sigmoid = (x) => 1 / (1 + Math.exp(-x));

class Model {
  constructor(bytes) {
    const { head, tensors, levels } = unpack(bytes);
    Object.assign(this, { head, w: tensors, levels });
    this.width = tensors["lstm.weight_hh_l0"].length ** 0.5 / 2;
    this.bias = [0, 1].map((l) => tensors[`lstm.bias_ih_l${l}`].map((v, i) => v + tensors[`lstm.bias_hh_l${l}`][i]));
    this.taken = new Map(); // what the first layer makes of each word
  }

  /** Pixels (56, 56) from 0 to 1 -> {features (64, 14, 14), named (4, 10) logits of digits, picture (40) probabilities}. */
  see(pixels) {
    let x = new Float32Array((SIDE + 2) ** 2), channels = 1;
    for (let r = 0; r < SIDE; r++) x.set(pixels.subarray(r * SIDE, (r + 1) * SIDE), (r + 1) * (SIDE + 2) + 1);
    for (const [layer, side, pool] of CONVOLUTIONS) {
      const bias = this.w[`tower.features.${layer + 1}.bias`];
      x = convolve(x, channels, side, this.w[`tower.features.${layer}.weight`], bias);
      channels = bias.length;
      if (pool) x = halve(x, side);
    }
    const features = new Float32Array(CHANNELS * MAP * MAP), row = MAP + 2;
    for (let c = 0; c < CHANNELS; c++) {
      for (let r = 0; r < MAP; r++) {
        const at = (c * row + r + 1) * row + 1;
        features.set(x.subarray(at, at + MAP), (c * MAP + r) * MAP);
      }
    }
    const named = new Float64Array(4 * DIGITS);
    this._windows((digit, cell, at, weight) => { named[cell * DIGITS + digit] += features[at] * weight; });
    for (let i = 0; i < named.length; i++) named[i] += this.w["tower.name.bias"][i % DIGITS];
    return { features, named, picture: softmaxEach(named) };
  }

  /** Visit every weight of the layer that names digits: digit, cell, place in the features, weight. */
  _windows(visit) {
    const weight = this.w["tower.name.weight"], half = MAP / 2;
    for (let digit = 0, k = 0; digit < DIGITS; digit++) {
      for (let c = 0; c < CHANNELS; c++) {
        for (let r = 0; r < half; r++) {
          for (let s = 0; s < half; s++, k++) {
            const at = (c * MAP + r) * MAP + s;
            visit(digit, 0, at, weight[k]);
            visit(digit, 1, at + half, weight[k]);
            visit(digit, 2, at + half * MAP, weight[k]);
            visit(digit, 3, at + half * MAP + half, weight[k]);
          }
        }
      }
    }
  }

  /** The state of both layers before the first word. */
  begin() {
    return [0, 1].map(() => ({ h: new Float64Array(this.width), c: new Float64Array(this.width) }));
  }

  /** One step of both layers of the LSTM with a word (its number) -> the new state, with what the way back needs. */
  step(state, word) {
    if (!this.taken.has(word)) {
      const embedded = this.w["embedding.weight"].subarray(word * 64, word * 64 + 64);
      this.taken.set(word, linear(this.w["lstm.weight_ih_l0"], embedded, this.bias[0]));
    }
    const first = this._cell(0, this.taken.get(word), state[0]);
    return [first, this._cell(1, linear(this.w["lstm.weight_ih_l1"], first.h, this.bias[1]), state[1])];
  }

  _cell(layer, taken, before) {
    const n = this.width, sums = linear(this.w[`lstm.weight_hh_l${layer}`], before.h, taken);
    const gates = sums.map((v, k) => (k >= 2 * n && k < 3 * n ? Math.tanh(v) : sigmoid(v))); // in, forget, new, out
    const c = before.c.map((v, k) => gates[n + k] * v + gates[k] * gates[2 * n + k]), squashed = c.map(Math.tanh);
    return { gates, c, squashed, h: squashed.map((v, k) => v * gates[3 * n + k]), before };
  }

  /** Word numbers (T) -> {vector (64): the largest of each unit over the words, states, at: the step that it is from}. */
  read(tokens) {
    const vector = new Float64Array(this.width).fill(-1), at = new Int32Array(this.width).fill(-1), states = [];
    let state = this.begin();
    tokens.forEach((word, t) => {
      states.push((state = this.step(state, word)));
      if (word !== PAD) state[1].h.forEach((v, k) => { if (v > vector[k]) { vector[k] = v; at[k] = t; } });
    });
    return { vector, states, at };
  }

  /** One modality's dense layer, (256): of `picture` (40) or `vector` (64). */
  dense(which, x) {
    const normed = layerNorm(x, this.w[`${which}.0.weight`], this.w[`${which}.0.bias`]);
    return { normed, y: relu(linear(this.w[`${which}.1.weight`], normed.y, this.w[`${which}.1.bias`])) };
  }

  /** What `see` and `read` gave -> the logit, and all layers on the way. */
  match(seen, read) {
    const { w } = this, left = this.dense("seen", seen.picture), right = this.dense("said", read.vector);
    const half = linear(w["fusion.0.weight"], left.y, w["fusion.0.bias"], 512);
    const first = relu(linear(w["fusion.0.weight"], right.y, half, 512, 256));
    const second = relu(linear(w["fusion.2.weight"], first, w["fusion.2.bias"]));
    return { left, right, first, second, logit: linear(w["fusion.4.weight"], second, w["fusion.4.bias"])[0] };
  }

  /** Logit with its gradients: at the map (64, 14, 14) and at each word (T, 64). */
  explain(seen, read) {
    const { w } = this, passed = this.match(seen, read);
    const second = reluBack(passed.second, Float64Array.from(w["fusion.4.weight"]));
    const first = reluBack(passed.first, linearBack(w["fusion.2.weight"], second, 256));
    const through = (which, side, from, x) => {
      const dense = reluBack(side.y, linearBack(w["fusion.0.weight"], first, 256, 512, from));
      return layerNormBack(side.normed, w[`${which}.0.weight`], linearBack(w[`${which}.1.weight`], dense, x.length));
    };
    return { logit: passed.logit, map: this._mapBack(seen.picture, through("seen", passed.left, 0, seen.picture)),
      words: this._wordsBack(read, through("said", passed.right, 256, read.vector)) };
  }

  _mapBack(picture, gradient) {
    const named = new Float64Array(gradient.length), map = new Float64Array(CHANNELS * MAP * MAP);
    for (let cell = 0; cell < 4; cell++) {
      let along = 0;
      for (let k = cell * DIGITS; k < (cell + 1) * DIGITS; k++) along += picture[k] * gradient[k];
      for (let k = cell * DIGITS; k < (cell + 1) * DIGITS; k++) named[k] = picture[k] * (gradient[k] - along) / TEMPERATURE;
    }
    this._windows((digit, cell, at, weight) => { map[at] += named[cell * DIGITS + digit] * weight; });
    return map;
  }

  _wordsBack({ states, at }, gradient) {
    const n = this.width, words = new Float64Array(states.length * 64);
    const next = [0, 1].map(() => ({ h: new Float64Array(n), c: new Float64Array(n) })); // from the step after
    for (let t = states.length - 1; t >= 0; t--) {
      at.forEach((step, k) => { if (step === t) next[1].h[k] += gradient[k]; });
      const second = this._cellBack(1, states[t][1], next[1]);
      linearBack(this.w["lstm.weight_ih_l1"], second, n).forEach((g, k) => { next[0].h[k] += g; });
      const first = this._cellBack(0, states[t][0], next[0]);
      words.set(linearBack(this.w["lstm.weight_ih_l0"], first, 64), t * 64);
    }
    return words;
  }

  /** The gradient of the gates' sums (256); `next` becomes the gradient of the state before. */
  _cellBack(layer, { gates, squashed, before }, next) {
    const n = this.width, sums = new Float64Array(4 * n);
    for (let k = 0; k < n; k++) {
      const i = gates[k], f = gates[n + k], g = gates[2 * n + k], o = gates[3 * n + k];
      const c = next.c[k] + next.h[k] * o * (1 - squashed[k] ** 2);
      sums[k] = c * g * i * (1 - i);
      sums[n + k] = c * before.c[k] * f * (1 - f);
      sums[2 * n + k] = c * i * (1 - g * g);
      sums[3 * n + k] = next.h[k] * squashed[k] * o * (1 - o);
      next.c[k] = c * f;
    }
    next.h = linearBack(this.w[`lstm.weight_hh_l${layer}`], sums, n);
    return sums;
  }
}

/** Logits (4, 10) of digits -> their probabilities at the model's temperature. */
function softmaxEach(named) {
  const y = named.map((v) => v / TEMPERATURE);
  for (let cell = 0; cell < 4; cell++) {
    const part = y.subarray(cell * DIGITS, (cell + 1) * DIGITS), top = Math.max(...part);
    part.forEach((v, k) => { part[k] = Math.exp(v - top); });
    const sum = part.reduce((total, v) => total + v, 0);
    part.forEach((v, k) => { part[k] = v / sum; });
  }
  return y;
}
