// Buttons under the code that can be run. What runs it is fetched when one is pressed.
"use strict";

(() => {
  const script = document.currentScript;
  // A page that was opened as a file can start no worker.
  if (!location.protocol.startsWith("http")) return;
  const address = new URL(`lab.mjs?v=${script.dataset.version}`, script.src);
  let lab = null;

  for (const place of document.querySelectorAll(".run-place")) {
    const puzzle = place.dataset.run.startsWith("puzzle-");
    const bar = document.createElement("div");
    bar.className = "run-bar";
    const button = (text, action) => {
      const made = document.createElement("button");
      made.type = "button";
      made.textContent = text;
      made.setAttribute("aria-label", `${text}: ${place.dataset.what}`);
      made.addEventListener("click", async () => {
        made.setAttribute("aria-busy", "true");
        try {
          lab ??= import(address);
          (await lab).open(place, bar, action);
        } catch (error) {
          lab = null;
          bar.append(` This could not be loaded: ${error.message}`);
        }
        made.removeAttribute("aria-busy");
      });
      bar.append(made);
    };
    if (!puzzle) button("Run", "run");
    button(puzzle ? "Solve it here" : "Edit", "edit");
    place.append(bar);
  }
})();
