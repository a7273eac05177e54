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

// The theme's menu has arrows without a name: each opens the pages below a link.
function named() {
  for (const arrow of document.querySelectorAll("nav summary")) {
    const link = arrow.closest("li")?.querySelector("a");
    if (!arrow.textContent.trim() && link) {
      arrow.ariaLabel = `Pages below ${link.textContent.trim()}`;
    }
  }
}

window.addEventListener("load", named);
window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
