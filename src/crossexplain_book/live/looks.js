// Elements, pictures, colours and tables of the lab.

const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"]
  .map((hex) => [0, 2, 4].map((k) => parseInt(hex.slice(k, k + 2), 16)));

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

/** White, tinted by a share of a colour. */
function tint(colour, share) {
  return `rgb(${colour.map((c) => Math.round(255 + (c - 255) * share))})`;
}

/** Enlarge a map (14, 14) to the picture's 56 x 56, bilinearly. */
function enlarged(heat) {
  return Float64Array.from({ length: SIDE * SIDE }, (_, i) => {
    const place = (p) => Math.min(MAP - 1, Math.max(0, (p + 0.5) / 4 - 0.5));
    const y = place((i / SIDE) | 0), x = place(i % SIDE), r = y | 0, s = x | 0;
    const down = Math.min(r + 1, MAP - 1), right = Math.min(s + 1, MAP - 1);
    const line = (row) => heat[row * MAP + s] * (1 - x + s) + heat[row * MAP + right] * (x - s);
    return line(r) * (1 - y + r) + line(down) * (y - r);
  });
}

/** A table that scrolls by itself where the page is narrow. */
function scrolled(label, heads, rows) {
  const cell = (inner) => (inner instanceof Element && inner.tagName === "TD" ? inner : make("td", {}, inner));
  const name = `${label}; the table scrolls sideways`;
  return make("div", { class: "ce-lab-scroll", tabindex: 0, role: "group", "aria-label": name },
    make("table", {}, make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...row.map(cell))))));
}

/** What `packed` of packing.py wrote: the head, and its arrays by name, each with its shape and its values. */
function unpacked(data) { // a DataView of a widget, an array of a page
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice(); // begun at 0
  const length = new DataView(bytes.buffer).getUint32(0, true), begin = 4 + length;
  const head = JSON.parse(new TextDecoder().decode(bytes.subarray(4, begin)));
  for (const [name, { start, shape, bytes: each }] of Object.entries(head.arrays)) {
    const count = shape.reduce((a, b) => a * b, 1), at = begin + start, size = count / shape[0];
    const steps = new Float32Array(bytes.buffer, at, each === 4 ? count : shape[0]);
    const levels = each === 4 ? [] : new (each === 2 ? Int16Array : Int8Array)(bytes.buffer, at + 4 * shape[0], count);
    const values = each === 4 ? steps : Float32Array.from(levels, (v, i) => v * steps[Math.floor(i / size)]);
    head.arrays[name] = { shape, values };
  }
  return head;
}

/** Enlarge a map (rows, columns) to (height, width), bilinearly, as `upsample` does. */
function stretched(heat, rows, columns, height, width) {
  const place = (p, n, size) => Math.min(n - 1, Math.max(0, ((p + 0.5) * n) / size - 0.5));
  return Float32Array.from({ length: height * width }, (_, i) => {
    const y = place(Math.floor(i / width), rows, height), x = place(i % width, columns, width), r = y | 0, s = x | 0;
    const down = Math.min(r + 1, rows - 1), right = Math.min(s + 1, columns - 1);
    const line = (row) => heat[row * columns + s] * (1 - x + s) + heat[row * columns + right] * (x - s);
    return line(r) * (1 - y + r) + line(down) * (y - r);
  });
}

/** Lay a map, as a share of its largest value, upon the pixels of a canvas; with a sign red speaks for and blue against. */
function overlaid(canvas, picture, heat, isSigned) {
  const { width, height } = picture, from = picture.getContext("2d").getImageData(0, 0, width, height).data;
  const to = new ImageData(width, height);
  Object.assign(canvas, { width, height });
  heat.forEach((share, i) => {
    const at = 4 * i, grey = 0.3 * from[at] + 0.59 * from[at + 1] + 0.11 * from[at + 2];
    const colour = isSigned ? (share > 0 ? [178, 24, 43] : [33, 102, 172]) : inferno(Math.max(share, 0));
    const weight = isSigned ? 0.85 * Math.min(Math.abs(share), 1) : 0.72, paper = isSigned ? 255 - 0.5 * (255 - grey) : grey;
    for (let c = 0; c < 3; c++) to.data[at + c] = weight * colour[c] + (1 - weight) * paper;
    to.data[at + 3] = 255;
  });
  canvas.getContext("2d").putImageData(to, 0, 0);
}

/** Give the page's address, or the state where there is none, to the clipboard; else show it. */
async function linked(host, state, note) {
  host.set("state", state);
  host.save_changes();
  const address = host.address?.() ?? state;
  try {
    await navigator.clipboard.writeText(address);
    note.textContent = "The link is copied.";
  } catch {
    note.textContent = `The link: ${address}`;
  }
}
