// What the predictions of several pairs rest on: crossexplain.gradients.verdict for two modalities and one logit, with the
// same bootstrap samples, drawn by numpy's generator, so that it gives the same answer.

const ENOUGH = 0.75, SOME = 0.1, NEAR = 0.2, SURE = 0.95, LIKELY = 0.9, FLAT = 1e-9, DRAWS = 1000;
const CANNOT_TELL = "cannot tell", BOTH_ONLY = "both only", OTHER = { image: "text", text: "image" };
const partly = (name) => `partly ${name}, partly both`;

/** numpy's default generator (PCG64) from a state: numbers from 0 to 1. */
function generator({ state, inc }) {
  const factor = 47026247687942121848144207491837523525n;
  let now = BigInt(state);
  const step = BigInt(inc);
  return () => {
    now = BigInt.asUintN(128, now * factor + step);
    const mixed = BigInt.asUintN(64, (now >> 64n) ^ now), turn = now >> 122n;
    return Number(BigInt.asUintN(64, (mixed >> turn) | (mixed << (64n - turn))) >> 11n) / 2 ** 53;
  };
}

/** A binomial number of n at chance p, by inversion as numpy draws it. */
function binomial(random, n, p) {
  if (n === 0 || p === 0) return 0;
  if (p > 0.5) return n - binomial(random, n, 1 - p);
  const q = 1 - p, none = Math.exp(n * Math.log1p(-p)), bound = Math.trunc(Math.min(n, n * p + 10 * Math.sqrt(n * p * q + 1)));
  let x = 0, chance = none, u = random();
  while (u > chance) {
    x++;
    if (x > bound) {
      x = 0;
      chance = none;
      u = random();
    } else {
      u -= chance;
      chance = ((n - x + 1) * p * chance) / (x * q);
    }
  }
  return x;
}

/** Weights of n examples in the sample itself and in bootstrap samples of it: (1 + draws) arrays of n. */
function bootstrap(n, start, draws = DRAWS) {
  const random = generator(start), weights = [new Float64Array(n).fill(1 / n)];
  for (let d = 0; d < draws; d++) {
    const row = new Float64Array(n);
    let left = n, chance = 1;
    for (let k = 0; k < n - 1 && left > 0; k++) {
      row[k] = binomial(random, left, 1 / n / chance);
      left -= row[k];
      chance -= 1 / n;
    }
    if (left > 0) row[n - 1] = left;
    weights.push(row.map((count) => count / n));
  }
  return weights;
}

/** Squared correlation, in each sample, of a sum of views with the full one; values: {view: columns of n}. */
function variation(values, weights) {
  const names = Object.keys(values), covariance = {};
  const averages = (x) => Float64Array.from(weights, (w) => {
    let sum = 0;
    for (let i = 0; i < w.length; i++) sum += w[i] * x[i];
    return sum;
  });
  const means = Object.fromEntries(names.map((name) => [name, values[name].map(averages)]));
  names.forEach((one, i) => names.slice(i).forEach((other) => {
    const at = (k) => values[one].reduce((sum, x, c) => sum + x[k] * values[other][c][k], 0);
    const product = Float64Array.from(values[one][0], (_, k) => at(k));
    const both = averages(product).map((v, s) => v - means[one].reduce((sum, m, c) => sum + m[s] * means[other][c][s], 0));
    covariance[`${one} ${other}`] = covariance[`${other} ${one}`] = both;
  }));
  return (factors) => Float64Array.from(weights, (_, s) => {
    let along = 0, own = 0;
    for (const [view, f] of factors) {
      along += f * covariance[`${view} full`][s];
      for (const [other, g] of factors) own += f * g * covariance[`${view} ${other}`][s];
    }
    const size = own * covariance["full full"][s];
    return size > FLAT ** 2 ? Math.min(1, Math.max(0, along / Math.sqrt(size))) ** 2 : 0;
  });
}

/** What each part accounts for under one baseline, in each sample: {image, text, sum}; null where the logits hardly vary. */
function reach(views, weights) {
  const centre = (x) => { const middle = mean(x); return Float64Array.from(x, (v) => v - middle); };
  const spread = Math.sqrt(mean(centre(views.full).map((v) => v * v)));
  if (spread < FLAT) return null;
  const scale = spread < 1 ? 2 ** -Math.floor(Math.log2(spread)) : 1;
  const each = (change) => Object.fromEntries(Object.entries(views).map(([view, x]) => [view, change(x)]));
  const varies = variation(each((x) => [centre(x).map((v) => v * scale)]), weights);
  const changes = variation(each((x) => [x.map((v) => Number(!(v > 0))), x.map((v) => Number(v > 0))]), weights);
  const alone = (view) => {
    const answered = changes([[view, 1]]);
    return varies([[view, 1]]).map((v, s) => Math.max(v, answered[s]));
  };
  return { image: alone("image"), text: alone("text"), sum: varies([["image", 1], ["text", 1], ["nothing", -1]]) };
}

/** The answer of each sample. */
function answers(parts, enough = ENOUGH) {
  return Array.from(parts.sum, (sum, s) => {
    const image = parts.image[s] >= enough, text = parts.text[s] >= enough, more = parts.image[s] - parts.text[s];
    if (image && text) return "either";
    if (image || text) return `${image ? "image" : "text"} alone`;
    if (sum >= enough) return "both added";
    return more >= SOME ? partly("image") : -more >= SOME ? partly("text") : BOTH_ONLY;
  });
}

/** Share of the bootstrap samples that give each answer, the most frequent first: [[answer, share], ...]. */
function often(given) {
  const counts = new Map();
  given.slice(1).forEach((answer) => counts.set(answer, (counts.get(answer) ?? 0) + 1));
  return [...counts].map(([answer, count]) => [answer, count / (given.length - 1)]).sort((a, b) => b[1] - a[1]);
}

/** {baseline: {full, image, text, nothing: logits of n pairs}} -> {answer, support, answers, reach, reason}. */
function verdict(logits, start) {
  const names = Object.keys(logits), weights = bootstrap(logits[names[0]].full.length, start);
  const judged = names.map((name) => {
    const parts = reach(logits[name], weights), given = parts ? answers(parts) : weights.map(() => CANNOT_TELL);
    return { name, parts, answer: given[0], often: often(given) };
  });
  for (const one of judged) {
    one.share = (...of) => one.often.reduce((sum, [answer, share]) => sum + (of.includes(answer) ? share : 0), 0);
    one.support = one.share(one.answer);
  }
  const told = judged.map((one) => `${one.name}: ${one.answer} (${Math.round(100 * one.support)} % of samples)`).join("; ");
  const first = (of) => of && { image: of.image[0], text: of.text[0], sum: of.sum[0] };
  const kept = { answers: Object.fromEntries(judged.map((one) => [one.name, one.answer])), told,
    reach: Object.fromEntries(judged.map(({ name, parts }) => [name, first(parts)])) };
  return { ...(settled(judged) ?? byMean(judged) ?? unsettled(judged)), ...kept };
}

/** One answer of all baselines, or the one that covers all likely ones; else null. */
function settled(judged) {
  const likely = new Set(judged.flatMap(({ often: shares }) => {
    let before = 0;
    return shares.filter(([, share]) => { const is = before < SURE; before += share; return is; }).map(([answer]) => answer);
  }));
  const answer = common([...likely], judged);
  if (!answer) return null;
  return { answer, support: Math.min(...judged.map((one) => one.share(...likely))),
    reason: likely.size === 1 ? "every stand-in says so" : "no other answer fits all samples and stand-ins" };
}

function common(likely, judged) {
  if (likely.length === 1) return likely[0] === CANNOT_TELL ? null : likely[0];
  const sure = [...new Set(judged.filter((one) => one.support >= SURE).map((one) => one.answer))];
  const are = (...words) => likely.length === 2 && words.every((word) => likely.includes(word));
  for (const name of sure.length < 2 ? ["image", "text"] : []) {
    if (are(partly(name), BOTH_ONLY)) {
      const { part, more } = partAndMore(name, judged);
      if (more < LIKELY || (part < SOME && sure[0] === BOTH_ONLY)) return BOTH_ONLY;
      return more >= (1 + SURE) / 2 && part >= SOME ? partly(name) : null;
    }
    if (are(partly(name), `${name} alone`)) return sure[0] ?? partly(name);
  }
  return null;
}

/** What one modality accounts for, and in which share of the samples more than the other; in the mean over the baselines. */
function partAndMore(name, judged) {
  const [own, others] = [name, OTHER[name]].map((of) => average(judged.map(({ parts }) => parts[of])));
  return { part: own[0], more: mean(own.slice(1).map((v, s) => Number(v > others[s + 1]))) };
}

/** What the mean over the baselines says, if its samples are sure and no baseline is far from saying so; else null. */
function byMean(judged) {
  if (judged.some((one) => one.answer === CANNOT_TELL)) return null;
  const middle = (part) => average(judged.map((one) => one.parts[part]));
  const parts = { image: middle("image"), text: middle("text"), sum: middle("sum") };
  const [answer, support] = often(answers(parts))[0];
  const near = judged.every((one) => [1, 1 - NEAR, 1 + NEAR].some((f) => answers(one.parts, ENOUGH * f)[0] === answer));
  const reason = "the mean over the stand-ins says so, and none is far from it";
  return support >= SURE && near ? { answer, support, reason } : null;
}

function unsettled(judged) {
  const sure = new Set(judged.filter((one) => one.support >= SURE).map((one) => one.answer));
  const different = new Set(judged.map((one) => one.answer));
  const reason = sure.size > 1 ? "the stand-ins disagree" : different.size > 1 ? "the stand-ins differ, and not all are sure"
    : different.has(CANNOT_TELL) ? "the logits hardly vary" : `${[...different][0]} is likely but not sure`;
  return { answer: CANNOT_TELL, support: Math.min(...judged.map((one) => one.support)), reason };
}
