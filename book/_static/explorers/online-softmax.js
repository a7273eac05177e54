// The online recurrence, chunk by chunk: the state of some terms is their largest, m,
// and d, the sum of exponentials of the terms less m.
"use strict";

explorers.recurrence = (() => {
  // inf - inf is no number, so of an infinite m nothing is subtracted.
  const base = (m) => (Number.isFinite(m) ? m : 0);
  const state = (terms) => {
    const m = Math.max(-Infinity, ...terms.filter((x) => !Number.isNaN(x)));
    return { m, d: terms.reduce((sum, x) => sum + Math.exp(x - base(m)), 0) };
  };
  const merge = (a, b) => {
    const m = Math.max(a.m, b.m);
    const [fa, fb] = [a, b].map((x) => Math.exp(x.m - base(m)));
    return { m, d: a.d * fa + b.d * fb, rescale: fa };
  };
  // What `tilebook.softmax.recurrence.trace` has: a line for each chunk.
  const trace = (row, chunk) => {
    let found = { m: -Infinity, d: 0 };
    const lines = [];
    for (let i = 0; i < row.length; i += chunk) {
      const own = state(row.slice(i, i + chunk));
      found = merge(found, own);
      lines.push({ chunk: lines.length, largest: own.m, ...found });
    }
    return lines;
  };
  return { base, state, trace };
})();

explorers.add("online-softmax", (live, data) => {
  const { make, path, text } = explorers;
  const { base, state, trace } = explorers.recurrence;
  const NAMES = { inf: Infinity, "-inf": -Infinity, "+inf": Infinity, nan: NaN };
  const HIGH = 3;
  let row = data.row;
  let chunk = data.chunk;
  let lines = [];

  const short = (x, digits = 4) => {
    if (Number.isNaN(x)) return "nan";
    if (!Number.isFinite(x)) return x > 0 ? "inf" : "−inf";
    return `${+x.toPrecision(digits)}`.replace(/^-/, "−").replace(/e-/, "e−");
  };

  const said = explorers.voice();
  const error = make("p", { class: "explorer-error", role: "alert" });
  const steps = make("div");
  const svg = make("svg:svg", { class: "explorer-bars", "aria-hidden": "true" });
  const input = make("input", {
    type: "text",
    autocomplete: "off",
    spellcheck: "false",
    value: row.join(" "),
  });
  const play = explorers.player("Chunk", draw);
  const sizes = explorers.select("Numbers in a chunk", data.chunks, data.chunks.indexOf(chunk), (at) => {
    chunk = data.chunks[at];
    begin();
  });

  // The numbers that were typed, or what is wrong with them.
  function read() {
    const words = input.value.split(/[\s,;]+/).filter(Boolean);
    const found = words.map((x) => NAMES[x.toLowerCase()] ?? Number(x));
    const bad = words.find((x, i) => Number.isNaN(found[i]) && x.toLowerCase() !== "nan");
    let wrong = "";
    if (bad) wrong = `“${bad}” is no number.`;
    else if (!found.length || found.length > data.most) {
      wrong = `Between 1 and ${data.most} numbers, please.`;
    }
    error.textContent = wrong;
    input.setAttribute("aria-invalid", wrong !== "");
    if (wrong) return;
    row = found;
    begin();
  }
  function put(numbers) {
    input.value = numbers.map((x) => short(x, 17).replace(/−/g, "-")).join(" ");
    read();
  }
  function shuffled() {
    const numbers = [...row];
    for (let i = numbers.length - 1; i > 0; i--) {
      const j = Math.floor(Math.random() * (i + 1));
      [numbers[i], numbers[j]] = [numbers[j], numbers[i]];
    }
    return numbers;
  }
  input.addEventListener("input", read);

  function begin() {
    lines = trace(row, chunk);
    svg.setAttribute("viewBox", `0 0 ${Math.max(12, row.length)} ${HIGH + 1.1}`);
    svg.replaceChildren(
      make("svg:rect", { class: "now", y: 0, height: HIGH + 1.1 }),
      path("thin", `M0 ${HIGH}h${row.length}`),
      ...row.map((x, i) => make("svg:rect", { class: "bar", x: i + 0.14, width: 0.72 })),
      ...row.map((x, i) => {
        const words = short(x, 3);
        const size = 0.42 * Math.min(1, 3.6 / words.length);
        return text("inside", i + 0.5, HIGH + 0.75, size, words);
      }),
    );
    play.reset(lines.length);
  }

  function draw(at) {
    const { m, d, largest, rescale } = lines[at];
    const done = Math.min(row.length, (at + 1) * chunk);
    const band = svg.querySelector(".now");
    band.setAttribute("x", at * chunk);
    band.setAttribute("width", done - at * chunk);
    svg.querySelectorAll(".bar").forEach((bar, i) => {
      const term = i < done ? Math.exp(row[i] - base(m)) : 0;
      const high = Number.isNaN(term) ? 0 : Math.min(1, term) * (HIGH - 0.2);
      // As styles, so that a change of height is a motion where motion is wanted.
      bar.style.y = `${HIGH - high}px`;
      bar.style.height = `${high}px`;
      bar.classList.toggle("old", i < at * chunk);
    });

    const full = state(row);
    const blank = ["", "", "", ""];
    const body = lines.map((x, i) => [
      i + 1,
      ...(i > at ? blank : [short(x.largest), short(x.rescale), short(x.m), short(x.d, 7)]),
    ]);
    const table = explorers.table([
      ["chunk", "its largest", "rescale", "m", "d"],
      ...body,
      ["two passes", "", "", short(full.m), short(full.d, 7)],
    ]);
    table.tBodies[0].rows[at].classList.add("current");
    table.tBodies[0].rows[lines.length].classList.add("total");
    steps.replaceChildren(table);

    const before = at ? lines[at - 1] : { m: -Infinity, d: 0 };
    let what = `its largest, ${short(largest)}, is no new maximum, and nothing is rescaled.`;
    if (!at) what = `m is its largest, ${short(m)}; there is no earlier sum to rescale.`;
    else if (m > before.m) {
      what =
        `its largest, ${short(m)}, is a new maximum. The sum so far, ` +
        `${short(before.d)}, is multiplied by e^(${short(before.m)} − ${short(m)}) = ` +
        `${short(rescale)}, which leaves ${short(before.d * rescale)}.`;
    }
    said.say(`Chunk ${at + 1} of ${lines.length}: ${what} m\u00a0=\u00a0${short(m)}, d\u00a0=\u00a0${short(d, 7)}.`);
  }

  const numbers = explorers.field("Row", input);
  numbers.classList.add("wide");
  live.append(
    make(
      "div",
      { class: "explorer-row" },
      numbers,
      sizes.node,
      explorers.button("Shuffle", () => put(shuffled())),
      explorers.button("Reset", () => put(data.row)),
    ),
    error,
    play.node,
    svg,
    said.node,
    steps,
  );
  begin();
});
