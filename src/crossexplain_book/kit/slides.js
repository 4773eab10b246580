// Start the slides, and make what is too high for one slide as high as it.
const HEIGHT = 760;
function fit(section) {
  const box = section.querySelector(".fit"), room = HEIGHT - section.querySelector("h2").offsetHeight - 80;
  if (!box || section.dataset.fitted || !box.scrollHeight) return;
  section.dataset.fitted = "1";
  if (box.scrollHeight > room) box.style.zoom = Math.max(0.4, room / box.scrollHeight);
  if (box.scrollWidth > box.clientWidth + 2) box.style.zoom = Math.max(0.4, (box.style.zoom || 1) * box.clientWidth / box.scrollWidth);
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
