// What scrolls sideways has to be reachable by keyboard, and only that.
function reachable() {
  const wide = "pre, .pst-scrollable-table-container, mjx-container[display]";
  for (const box of document.querySelectorAll(wide)) {
    if (box.scrollWidth > box.clientWidth) {
      box.tabIndex = 0;
    } else if (box.tabIndex === 0) {
      box.removeAttribute("tabindex");
    }
  }
}

window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
