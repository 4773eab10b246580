// Stored photographs: choose layer and method of the map, and slide how much of what it calls hottest is covered.

const withSign = (x) => (x < 0 ? "-" : "+") + Math.abs(x).toFixed(2);

class Photographs {
  constructor(host, el) {
    Object.assign(this, { host, el, head: unpacked(host.get("data")), images: new Map() });
    this.steps = this.head.arrays["0 logits"].shape[1] - 1;
    this.state = this.read(host.get("state")) ?? { photo: 0, layer: 0, method: 0, step: 0 };
    this.build();
    host.on("change:state", () => this.change(this.read(host.get("state")) ?? {}, false));
    this.change({});
  }

  /** The state that a text stands for, or null. */
  read(text) {
    const numbers = text.split("~").map(Number), { photographs, layers, methods } = this.head;
    const most = [photographs.length, layers.length, methods.length, this.steps + 1];
    const fits = numbers.length === 4 && numbers.every((v, k) => Number.isInteger(v) && v >= 0 && v < most[k]);
    return fits ? Object.fromEntries(["photo", "layer", "method", "step"].map((key, k) => [key, numbers[k]])) : null;
  }

  written() {
    const { photo, layer, method, step } = this.state;
    return [photo, layer, method, step].join("~");
  }

  build() {
    const select = (key, label, titles) => {
      const onchange = (event) => this.change({ [key]: Number(event.target.value) });
      const options = titles.map((title, k) => make("option", { value: k }, title));
      this[`${key}Choice`] = make("select", { onchange }, ...options);
      return make("label", {}, `${label} `, this[`${key}Choice`]);
    };
    this.say = make("p", { role: "status", class: "ce-lab-say" });
    this.picture = make("canvas", { role: "img" });
    this.overlay = make("canvas", { role: "img", class: "ce-lab-smooth" });
    this.scale = make("p", {});
    this.slider = make("input", { type: "range", min: 0, max: this.steps, step: 1,
      oninput: () => this.change({ step: Number(this.slider.value) }) });
    this.curve = make("canvas", { role: "img", class: "ce-lab-curve", width: 520, height: 190 });
    this.note = make("p", { role: "status" });
    const { photographs, layers, methods } = this.head;
    const root = make("div", { class: "ce-lab-live" }, make("style", {}, STYLE),
      make("div", { class: "ce-lab-row" }, select("photo", "Photograph", photographs.map(({ title }) => title)),
        select("layer", "Layer", layers.map(([title]) => title)), select("method", "Map", methods.map(([, title]) => title))),
      make("div", { class: "ce-lab-pictures" }, make("div", {}, this.picture), make("div", {}, this.overlay)), this.scale,
      make("div", { class: "ce-lab-row" }, make("label", {}, "Cover the hottest ", this.slider)), this.say, this.curve,
      make("div", { class: "ce-lab-row" }, make("button", { type: "button",
        onclick: () => linked(this.host, this.written(), this.note) }, "copy a link to this state")), this.note);
    root.photographs = this; // for tests
    this.el.append(root);
  }

  change(changes, keep = true) {
    const before = this.written();
    Object.assign(this.state, changes);
    this.show();
    if (this.written() !== before && keep) {
      this.host.set("state", this.written());
      this.host.save_changes();
    }
  }

  array(name) {
    return this.head.arrays[`${this.state.photo} ${name}`];
  }

  heat() {
    const { layer, method } = this.state, { layers, methods } = this.head;
    const { shape: [, rows, columns], values } = this.array(`${layers[layer][1]} ${methods[method][0]}`);
    return { values, rows, columns, isSigned: methods[method][2] };
  }

  /** The row of a map among the orders in which the photograph was covered; the last one is random. */
  row() {
    return this.state.layer * this.head.methods.length + this.state.method;
  }

  /** The logits of the class as more and more is covered, by the present map and in random order. */
  logits() {
    const { shape: [rows, columns], values } = this.array("logits");
    const of = (row) => [...values.subarray(row * columns, (row + 1) * columns)];
    return { hottest: of(this.row()), random: of(rows - 1) };
  }

  show() {
    const { photo, layer, method, step } = this.state, { asked } = this.head.photographs[photo];
    for (const key of ["photo", "layer", "method"]) this[`${key}Choice`].value = this.state[key];
    this.slider.value = step;
    const share = `${Math.round((100 * step) / this.steps)} %`, { hottest, random } = this.logits();
    this.slider.setAttribute("aria-valuetext", share);
    const { shape: [, columns, named], values } = this.array("classes"), at = (this.row() * columns + step) * named;
    const likely = Array.from({ length: named }, (_, k) => `${this.head.names[values[at + k]]} `
      + `${Math.round(100 * this.array("chances").values[at + k])} %`).join(", ");
    this.say.textContent = `${step ? `With the hottest ${share} covered the` : "The"} network reads ${likely}. The logit of `
      + `${asked} is ${withSign(hottest[step])}${step ? `, with nothing covered ${withSign(hottest[0])}, and with as much `
      + `covered at random ${withSign(random[step])}` : ""}.`;
    this.draw(hottest, random);
    this.showPictures();
    this.title = `${this.head.methods[method][1]} at ${this.head.layers[layer][0]}`;
  }

  /** Draw the two curves: the logit by the share that is covered. */
  draw(hottest, random) {
    const { width, height } = this.curve, pen = this.curve.getContext("2d"), { step } = this.state;
    const low = Math.min(...hottest, ...random), span = Math.max(...hottest, ...random) - low || 1;
    const x = (k) => 50 + ((width - 70) * k) / this.steps, y = (v) => 15 + (height - 50) * (1 - (v - low) / span);
    pen.clearRect(0, 0, width, height);
    pen.font = "13px sans-serif";
    pen.fillStyle = "#22262b";
    for (const v of [low, low + span]) pen.fillText(withSign(v), 2, y(v) + 4);
    pen.fillText("0 %", x(0) - 8, height - 8);
    pen.fillText("covered: 100 %", x(this.steps) - 84, height - 8);
    for (const [values, colour, dash] of [[random, "#5b6770", [5, 4]], [hottest, "#c8553d", []]]) {
      Object.assign(pen, { strokeStyle: colour, lineWidth: 2 });
      pen.setLineDash(dash);
      pen.beginPath();
      values.forEach((v, k) => pen[k ? "lineTo" : "moveTo"](x(k), y(v)));
      pen.stroke();
    }
    pen.fillStyle = "#c8553d";
    pen.beginPath();
    pen.arc(x(step), y(hottest[step]), 5, 0, 2 * Math.PI);
    pen.fill();
    this.curve.setAttribute("aria-label", `The logit of ${this.head.photographs[this.state.photo].asked} as more is covered: `
      + `the hottest first ${hottest.map(withSign).join(", ")}; in random order ${random.map(withSign).join(", ")}`);
  }

  async image(which) {
    const source = this.head.photographs[this.state.photo][which];
    if (!this.images.has(source)) {
      const image = make("img", { src: source });
      await image.decode();
      this.images.set(source, image);
    }
    return this.images.get(source);
  }

  async showPictures() {
    const drawn = this.written(), [image, blurred] = [await this.image("image"), await this.image("blurred")];
    if (drawn !== this.written()) return; // another state was chosen meanwhile
    const { naturalWidth: width, naturalHeight: height } = image, { values, rows, columns, isSigned } = this.heat();
    const pen = this.picture.getContext("2d", { willReadFrequently: true });
    const large = stretched(values, rows, columns, height, width);
    const top = Math.max(...values.map(Math.abs)), { photo, step } = this.state;
    Object.assign(this.picture, { width, height });
    pen.drawImage(image, 0, 0);
    overlaid(this.overlay, this.picture, large.map((v) => v / (top || 1)), isSigned);
    const whole = pen.getImageData(0, 0, width, height);
    pen.drawImage(blurred, 0, 0);
    const soft = pen.getImageData(0, 0, width, height).data;
    const order = Uint32Array.from(large.keys()).sort((a, b) => large[b] - large[a] || a - b);
    for (const i of order.subarray(0, Math.ceil((step * order.length) / this.steps))) {
      whole.data.set(soft.subarray(4 * i, 4 * i + 4), 4 * i);
    }
    pen.putImageData(whole, 0, 0);
    const name = this.head.photographs[photo], covered = `the hottest ${Math.round((100 * step) / this.steps)} % covered`;
    this.picture.setAttribute("aria-label", `the photograph ${name.title}, ${step ? covered : "nothing covered"}`);
    const at = values.findIndex((v) => Math.abs(v) === top);
    const where = `row ${Math.floor(at / columns) + 1}, column ${(at % columns) + 1} of ${rows} x ${columns}`;
    this.overlay.setAttribute("aria-label", `${this.title}: ${top ? `strongest in ${where}` : "nothing"}`);
    this.scale.textContent = `The photograph, and ${this.title} upon it, ${top ? `strongest in ${where}` : "which is empty"}. `
      + `${isSigned ? "Red speaks for" : "The brighter, the more evidence for"} ${name.asked}`
      + `${isSigned ? ", blue against it" : ""}. `
      + "Below, the logit as the hottest (line) or any pixels (dashed) are covered.";
  }
}

function render({ model, el }) {
  new Photographs(model, el);
}

export default { render };
