// The model of a page, run by onnxruntime-web: started by the reader, asked about an example with some of its parts covered.

const ARRAYS = { float32: Float32Array, int64: BigInt64Array, int32: Int32Array, bool: Uint8Array, uint8: Uint8Array };

/** The bytes of a text in base64 that was compressed with gzip. */
async function unpacked(text) {
  const signs = atob(text), packed = Uint8Array.from({ length: signs.length }, (_, i) => signs.charCodeAt(i));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

function loaded(source) {
  return new Promise((done, fail) => {
    const script = make("script", { src: source, onload: done, onerror: () => fail(new Error(`${source} is missing`)) });
    document.head.append(script);
  });
}

class Running {
  /** Load what runs a graph, and the graph. */
  static async started(head) {
    for (const source of head.sources) await loaded(source);
    const { module, wasm } = window.crossexplainOrt;
    const ort = await import(URL.createObjectURL(new Blob([module], { type: "text/javascript" })));
    Object.assign(ort.env.wasm, { numThreads: 1, wasmBinary: await unpacked(wasm) });
    const data = await unpacked(window.crossexplainModel ?? document.getElementById("model").textContent), [start, length] = head.graph;
    const session = await ort.InferenceSession.create(new Uint8Array(data, start, length), { executionProviders: ["wasm"] });
    return Object.assign(new Running(), { head, ort, data, session, last: Promise.resolve() });
  }

  /** The logits, and the scores of each method by modality, with some features covered; `map` asks what maps are about. */
  ask(example, hidden, map = false) {
    this.last = this.last.catch(() => null).then(() => this.run(example, hidden, map)); // one at a time
    return this.last;
  }

  async run(example, hidden, map) {
    const { head, ort, data, session } = this, feeds = {}, covered = new Set(hidden);
    head.inputs.forEach(({ name, kind, shape }, k) => {
      const [value, standIn, owner] = head.examples[example][k].map(([start, count], part) =>
        new (part === 2 ? Int16Array : ARRAYS[kind])(data, start, count));
      const given = value.slice();
      owner.forEach((of, i) => { if (covered.has(of)) given[i] = standIn[i]; });
      feeds[name] = new ort.Tensor(kind, given, shape);
    });
    const weights = head.weights[example][map ? 1 : 0];
    feeds[head.follow] = new ort.Tensor("float32", Float32Array.from(weights), [1, weights.length]);
    const fed = Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]])), found = await session.run(fed);
    return Object.fromEntries(head.outputs.map((name) => [name, Array.from(found[name].data)]));
  }
}
