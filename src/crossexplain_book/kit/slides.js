// Start the slides, and make what is too high for one slide as high as it.
const HEIGHT = 760;
function fit(section) {
  const box = section.querySelector(".fit"), room = HEIGHT - section.querySelector("h2").offsetHeight - 80;
  if (!box || section.dataset.fitted || !box.scrollHeight) return;
  section.dataset.fitted = "1";
  let zoom = 1;  // smaller text has longer lines, so it is measured again after each step
  while (zoom > 0.4 && box.scrollHeight * zoom > room) box.style.zoom = zoom -= 0.03;
  if (box.scrollWidth > box.clientWidth + 2) box.style.zoom = Math.max(0.4, zoom * box.clientWidth / box.scrollWidth);
}
Reveal.initialize({
  width: 1280, height: HEIGHT, margin: 0.02, center: false, hash: true, transition: "none", slideNumber: "c/t", pdfMaxPagesPerSlide: 1,
  plugins: [RevealNotes],
});
const fitAll = () => document.querySelectorAll(".slides section").forEach(fit);
const formulas = () => (window.MathJax && MathJax.startup ? MathJax.startup.promise : Promise.resolve());
Reveal.on("slidechanged", event => fit(event.currentSlide));
Reveal.on("ready", event => formulas().then(() => fit(event.currentSlide)));
Reveal.on("pdf-ready", () => formulas().then(() => { fitAll(); window.fitted = true; }));
