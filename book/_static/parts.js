// The parts of a picture that carries them (data-parts) answer: terms.js shows their words, arrow keys walk from one to the next.
addEventListener("DOMContentLoaded", () => document.querySelectorAll("img[data-parts]").forEach(image => {
  const box = document.createElement("span"), over = document.createElement("span");
  box.className = "ce-parts";
  over.setAttribute("role", "group");
  over.setAttribute("aria-label", "parts of this picture; arrow keys walk from one to the next");
  const parts = JSON.parse(image.dataset.parts).map(([left, top, width, height, words], k) => {
    const part = document.createElement("button");
    Object.assign(part, {type: "button", tabIndex: k ? -1 : 0});
    Object.assign(part.style, {left: `${left}%`, top: `${top}%`, width: `${width}%`, height: `${height}%`});
    part.dataset.term = words;
    part.setAttribute("aria-label", words);
    part.addEventListener("keydown", event => {
      const step = {ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1}[event.key];
      if (!step) return;
      event.preventDefault();
      parts[(k + step + parts.length) % parts.length].focus();
    });
    return part;
  });
  image.replaceWith(box);
  over.append(...parts);
  box.append(image, over);
}));
