// What the book's interactive figures share. These are plain scripts and not modules,
// which no browser loads for a page that was opened as a file.
"use strict";

const explorers = (() => {
  const calm = matchMedia("(prefers-reduced-motion: reduce)");

  // An element, or one of SVG where the name says so: "svg:path".
  function make(name, attributes = {}, ...children) {
    const svg = name.startsWith("svg:");
    const node = svg
      ? document.createElementNS("http://www.w3.org/2000/svg", name.slice(4))
      : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  }

  // Squares of side one less a gap, one path for all of them.
  function squares(places, gap = 0.12) {
    const side = 1 - gap;
    return places
      .map(([row, column]) => {
        const [x, y] = [column + gap / 2, row + gap / 2].map((at) => +at.toFixed(3));
        return `M${x} ${y}h${side}v${side}h${-side}z`;
      })
      .join("");
  }

  const path = (kind, d) => make("svg:path", { class: kind, d });
  const text = (kind, x, y, size, words) =>
    make("svg:text", { class: kind, x, y, "font-size": size }, words);

  function field(text, control) {
    return make("label", { class: "explorer-field" }, make("span", {}, text), control);
  }

  // A list of choices; `change` gets the number of the one that is taken.
  function select(text, choices, at, change) {
    const list = make("select");
    const fill = (names, chosen) => {
      list.replaceChildren(
        ...names.map((name, i) => make("option", { value: i }, name)),
      );
      list.value = chosen;
    };
    fill(choices, at);
    list.addEventListener("change", () => change(Number(list.value)));
    return { node: field(text, list), fill };
  }

  // A slider, with what it stands at in words beside it.
  function range(text, change) {
    const input = make("input", { type: "range" });
    const shown = make("span", { class: "explorer-value", "aria-hidden": "true" });
    input.addEventListener("input", () => change(Number(input.value)));
    const set = (value, least, most, words) => {
      Object.assign(input, { min: least, max: most, value });
      input.setAttribute("aria-valuetext", words);
      shown.textContent = words;
    };
    const node = make("div", { class: "explorer-range" }, field(text, input), shown);
    return { node, set };
  }

  function button(text, press) {
    const node = make("button", { type: "button" }, text);
    node.addEventListener("click", press);
    return node;
  }

  // Steps forth and back, by hand or by itself; `go` draws a step.
  function player(noun, go, pause = 1100) {
    let at = 0;
    let count = 1;
    let timer = null;
    const slider = range(noun, (to) => stop(to));
    const back = button("Back", () => stop(at - 1));
    const step = button("Step", () => stop(at + 1));
    const play = button("Play", () => (timer ? stop(at) : start()));

    function show(to) {
      at = Math.max(0, Math.min(count - 1, to));
      slider.set(at, 0, count - 1, `${at + 1} of ${count}`);
      // Not `disabled`, which would take the focus away from who presses it.
      back.setAttribute("aria-disabled", at === 0);
      step.setAttribute("aria-disabled", at === count - 1);
      go(at);
    }
    function stop(to) {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
      show(to);
    }
    function start() {
      play.textContent = "Pause";
      timer = setInterval(() => (at === count - 1 ? stop(at) : show(at + 1)), pause);
      show(at === count - 1 ? 0 : at);
    }
    const row = make("div", { class: "explorer-row" }, back, step);
    // Who asked for less motion steps by hand.
    if (!calm.matches) row.append(play);
    row.append(slider.node);
    // Begin anew, with as many steps.
    const reset = (steps, to = 0) => {
      count = steps;
      stop(to);
    };
    return { node: row, reset };
  }

  // A sentence on what is seen, read out once the reader pauses.
  function voice() {
    const node = make("p", { class: "explorer-said", role: "status" });
    let timer = null;
    const say = (text) => {
      clearTimeout(timer);
      const tell = () => (node.textContent = text);
      if (node.textContent) timer = setTimeout(tell, 200);
      else tell();
    };
    return { node, say };
  }

  // A table whose first row and first column are heads.
  function table(rows) {
    const [head, ...body] = rows;
    const cells = (row) =>
      row.map((text, i) =>
        i ? make("td", {}, `${text}`) : make("th", { scope: "row" }, `${text}`),
      );
    const heads = head.map((text) =>
      text ? make("th", { scope: "col" }, text) : make("td"),
    );
    return make(
      "table",
      { class: "explorer-table" },
      make("thead", {}, make("tr", {}, ...heads)),
      make("tbody", {}, ...body.map((row) => make("tr", {}, ...cells(row)))),
    );
  }

  const counted = (number, noun) =>
    `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;

  // Put a live figure in the place of each still one of a name.
  function add(name, start) {
    for (const box of document.querySelectorAll(`[data-explorer="${name}"]`)) {
      const live = make("div", { class: "explorer-live" });
      start(live, JSON.parse(box.querySelector("script").textContent));
      box.append(live);
      // The still picture is for paper from now on.
      box.classList.add("running");
    }
  }

  return {
    add, button, counted, field, make, path, player, range, select, squares, table,
    text, voice,
  };
})();
