// Buttons under the code that can be run. What runs it is fetched when one is pressed.
"use strict";

(() => {
  const script = document.currentScript;
  // A page that was opened as a file can start no worker.
  if (!location.protocol.startsWith("http")) return;
  const beside = (name) => new URL(`${name}?v=${script.dataset.version}`, script.src);
  const places = [...document.querySelectorAll(".run-place")];
  const progress = document.querySelector(".run-progress");
  let lab = null;

  function node(name, className, text = "") {
    const made = document.createElement(name);
    Object.assign(made, { className, textContent: text });
    return made;
  }

  // A button that says for those who don't see it what it is for.
  function button(text, what, press) {
    const made = node("button", "", text);
    made.type = "button";
    if (what) made.setAttribute("aria-label", `${text}: ${what}`);
    made.addEventListener("click", async () => {
      made.setAttribute("aria-busy", "true");
      try {
        await press();
      } catch (error) {
        made.parentNode?.append(` This could not be loaded: ${error.message}`);
      }
      made.removeAttribute("aria-busy");
    });
    return made;
  }

  async function open(place, action) {
    lab ??= import(beside("lab.mjs"));
    lab.catch(() => (lab = null));
    return (await lab).open(place, action);
  }

  function solved(name) {
    try {
      return localStorage.getItem(`tilebook.solved.${name}`) !== null;
    } catch {
      return false;
    }
  }

  for (const place of places) {
    const { run: name, what } = place.dataset;
    const puzzle = name.startsWith("puzzle-");
    const bar = node("div", "run-bar");
    if (!puzzle) bar.append(button("Run", what, () => open(place, "run")));
    const text = puzzle ? "Solve it here" : "Edit";
    bar.append(button(text, what, () => open(place, "edit")));
    place.append(bar);
  }

  // Which puzzles are solved, beside each and above all of them.
  function count() {
    const puzzles = places.filter((place) => place.dataset.run.startsWith("puzzle-"));
    const right = puzzles.filter((place) => solved(place.dataset.run));
    for (const place of right) {
      const bar = place.querySelector(".run-bar");
      if (!bar.querySelector(".run-solved")) bar.append(node("span", "run-solved", "Solved"));
    }
    if (!progress) return;
    const said = progress.querySelector("span") ?? node("span", "run-status");
    said.textContent = `${right.length} of ${puzzles.length} solved in this browser.`;
    if (said.isConnected) return;
    const save = async () => (await import(beside("export.mjs"))).save();
    progress.append(said, button("Save as a notebook", "", save));
  }

  document.addEventListener("tilebook-solved", count);
  count();
  const scratch = document.querySelector('.run-place[data-run^="scratch."]');
  if (scratch) open(scratch, "show");
})();
