// Where a figure reaches into the margin, the list of sections steps aside as long as the figure is on the screen.
addEventListener("DOMContentLoaded", () => {
  const list = document.querySelector(".bd-sidebar-secondary"), shown = new Set();
  if (!list) return;
  const watcher = new IntersectionObserver(changes => {
    changes.forEach(({isIntersecting, target}) => shown[isIntersecting ? "add" : "delete"](target));
    list.classList.toggle("ce-aside", shown.size > 0);
  });
  document.querySelectorAll("figure:has(img.ce-wide, .ce-strip)").forEach(figure => watcher.observe(figure));
});

// A table that scrolls sideways can be reached with the keyboard.
addEventListener("load", () => document.querySelectorAll(".bd-article table").forEach(table => {
  if (table.scrollWidth > table.clientWidth) table.tabIndex = 0;
}));
