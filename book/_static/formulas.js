// Draws formulas when the first of them comes near, or as soon as the reader does anything; until then none of it is loaded.
(() => {
  const here = document.currentScript.src.replace(/[^/]*$/, "");
  let drawn;
  window.drawFormulas = () => drawn ??= new Promise((done, failed) => {
    if (!document.querySelector(".math")) return done();
    window.MathJax = {...window.MathJax, tex: {packages: {"[+]": ["ams"]}}, startup: {...window.MathJax?.startup, typeset: true},
      loader: {load: ["core", "input/tex-base", "[tex]/ams", "output/chtml", "a11y/assistive-mml"]}};
    const script = document.createElement("script");
    script.onload = () => MathJax.startup.promise.then(done, failed);
    script.onerror = failed;
    script.src = `${here}mathjax/startup.js`;
    document.head.append(script);
  });
  const wait = () => {
    const near = new IntersectionObserver(seen => seen.some(place => place.isIntersecting) && drawFormulas(), {rootMargin: "0px 0px 25%"});
    document.querySelectorAll(".math").forEach(formula => near.observe(formula));
    for (const sign of ["scroll", "keydown", "pointerdown", "beforeprint"])
      addEventListener(sign, () => drawFormulas(), {once: true, passive: true});
  };
  document.readyState === "loading" ? addEventListener("DOMContentLoaded", wait) : wait();
})();
