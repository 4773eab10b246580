// The definition of a term of the glossary beside its link, and what the symbols of a formula mean: under the pointer, with the
// focus, and at the first tap.
addEventListener("DOMContentLoaded", () => {
  const tip = document.createElement("span"), termOf = event => event.target.closest?.("[data-term]");
  let shown, tapped, leaving;
  tip.className = tip.id = "ce-tip";
  tip.setAttribute("role", "tooltip");
  tip.hidden = true;
  (document.querySelector("main") ?? document.body).append(tip);

  const hide = () => { shown?.removeAttribute("aria-describedby"); shown = null; tip.hidden = true; };
  const show = link => {
    clearTimeout(leaving);
    if (shown === link) return;
    hide();
    (shown = link).setAttribute("aria-describedby", tip.id);
    tip.textContent = link.dataset.term;
    tip.hidden = false;
    const place = link.getClientRects()[0], below = place.bottom + 4, room = innerHeight - tip.offsetHeight - 4;
    tip.style.left = `${Math.max(8, Math.min(place.left, document.documentElement.clientWidth - tip.offsetWidth - 8))}px`;
    tip.style.top = `${below <= room ? below : place.top - tip.offsetHeight - 4}px`;
  };
  addEventListener("pointerover", event => {
    const link = termOf(event);
    if (link && event.pointerType !== "touch") show(link);
    else if (event.target === tip) clearTimeout(leaving);
  });
  addEventListener("pointerout", event => { if (shown && event.pointerType !== "touch") leaving = setTimeout(hide, 300); });
  addEventListener("focusin", event => termOf(event) ? show(termOf(event)) : hide());
  addEventListener("keydown", event => { if (event.key === "Escape") hide(); });
  addEventListener("scroll", hide, {passive: true});
  addEventListener("pointerdown", event => {
    tapped = event.pointerType === "touch" && shown !== termOf(event) && termOf(event);
    if (!termOf(event) && event.target !== tip) hide();
  });
  addEventListener("click", event => {
    if (!tapped || termOf(event) !== tapped) return;
    event.preventDefault();
    show(tapped);
    tapped = null;
  });
});
