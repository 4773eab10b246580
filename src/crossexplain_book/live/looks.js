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
