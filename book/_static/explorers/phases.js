// The loop of specialised warps, moment by moment. What happened comes from the page,
// where the package has run its kernels; what slots and barriers make of it is as in
// `tilebook.hopper.moments`.
"use strict";

explorers.ring = (() => {
  // How far everything is before anything has happened.
  function begin(parts, stages) {
    const barriers = {};
    const add = (name, several, count) => {
      for (let i = 0; i < several; i++) {
        barriers[`${name}[${i}]`] = { count, phase: 0, arrivals: 0, tiles: 0 };
      }
    };
    add("arrived", stages, 1);
    add("free", stages, parts);
    if (parts === 1) add("handed", 2, 1);
    const slots = Array.from({ length: stages }, () => ({
      chunk: null, tiles: 0, given: true, readers: 0,
    }));
    return { parts, asked: 0, slots, barriers, waits: {} };
  }

  // Arrivals and tiles at a barrier; true if its phase is over by that.
  function arrive(ring, name, tiles = 0, arrivals = 1) {
    const barrier = ring.barriers[name];
    barrier.arrivals += arrivals;
    barrier.tiles += tiles;
    const over = barrier.arrivals === barrier.count && !barrier.tiles;
    if (over) {
      barrier.phase += 1;
      barrier.arrivals = 0;
    }
    return over;
  }

  // Takes a moment in; says whether a phase is over.
  function happen(ring, [who, what, on, parity]) {
    const slot = ring.slots[on];
    if (what === "waits") ring.waits[who] = [on, parity];
    if (["asks", "begins", "goes"].includes(what)) delete ring.waits[who];
    if (what === "asks") {
      const tiles = ring.parts + 1;
      Object.assign(slot, { chunk: ring.asked, tiles, given: false });
      ring.asked += 1;
      return arrive(ring, `arrived[${on}]`, tiles);
    }
    if (what === "brings") {
      slot.tiles -= 1;
      return arrive(ring, `arrived[${on}]`, -1, 0);
    }
    if (what === "begins") slot.readers += 1;
    if (what === "ends") slot.readers -= 1;
    if (what === "hands") return arrive(ring, `handed[${on}]`);
    if (what !== "frees") return false;
    const over = arrive(ring, `free[${on}]`);
    slot.given ||= over;
    return over;
  }

  function state({ tiles, readers, given }) {
    if (tiles) return readers ? "overwritten" : "on its way";
    if (readers) return "being read";
    return given ? "empty" : "full";
  }

  // What `Ring.seen` of the package has.
  const seen = ({ slots, barriers, waits }) => ({
    slots: slots.map((slot) => [slot.chunk, state(slot)]),
    barriers: Object.fromEntries(
      Object.entries(barriers).map(([name, x]) => [
        name,
        [x.phase, x.count - x.arrivals, x.tiles],
      ]),
    ),
    waits: { ...waits },
  });

  // The chunk that is due to a consumer by its count of products.
  const due = (parts, consumer, count, steps) =>
    parts === 2
      ? count
      : (2 * Math.floor(count / steps) + consumer) * steps + (count % steps);

  // A run from the page's texts.
  const run = (data, kernel, mistake, stages, steps) => {
    const [text, end] = data.runs[`${kernel} ${mistake}`][stages * data.steps.length + steps];
    const letters = [...data.letters];
    return { moments: [...text].map((x) => data.moments[letters.indexOf(x)]), end };
  };
  return { begin, due, happen, run, seen, state };
})();

explorers.add("phases", (live, data) => {
  const { make, counted, path, text } = explorers;
  const { begin, due, happen, run, seen, state } = explorers.ring;
  const WRONG = ["loses", "misreads"];
  const narrow = matchMedia("(width <= 576px)");
  let chosen = { ...data.chosen };
  let offered = [];
  let told = { moments: [], end: "" };
  let rings = [];
  let words = [];
  let bars = [];
  let depth = 2;
  let at = 0;

  const said = explorers.voice();
  const numbers = make("div", { class: "explorer-tables" });
  const svg = make("svg:svg", { class: "explorer-lanes", "aria-hidden": "true" });
  const choose = (label, key, names, values = names) =>
    explorers.select(label, names, values.indexOf(chosen[key]), (i) => {
      chosen[key] = values[i];
      fill();
    });
  const kernels = choose("Kernel", "kernel", data.kernels.map((x) => x.name));
  const stages = choose("Slots", "stages", data.stages);
  const steps = choose("Chunks of a tile", "steps", data.steps);
  const mistakes = explorers.select("Mistake", [], 0, (i) => {
    chosen.mistake = offered[i][0];
    fill();
  });
  const play = explorers.player("Moment", draw, 600);

  // The parity of the last phase that is over; of none it is 1.
  const passing = (phase) => (phase + 1) % 2;
  const capital = (name) => name[0].toUpperCase() + name.slice(1);
  const kernel = () => data.kernels.find((x) => x.name === chosen.kernel);

  // A moment in words, when `ring` has taken it in and a phase may be over.
  function tell([who, what, on, parity], ring, over, count) {
    const slot = ring.slots[on];
    const done = (name) => {
      const { phase, count: all, arrivals } = ring.barriers[name];
      return over
        ? `Phase ${phase - 1} of ${name} is over; who waits for parity ${passing(phase)} may go on.`
        : `${name} lacks ${counted(all - arrivals, "arrival")} more.`;
    };
    const through = (name) => `is let through at ${name}, parity ${parity},`;
    const Who = who === "producer" ? "The producer" : capital(who);
    switch (what) {
      case "waits": {
        const last = passing(ring.barriers[on].phase);
        return `${Who} waits at ${on} for parity ${parity}; the last phase that is over has ${last}.`;
      }
      case "goes":
        return `${Who} ${through(`handed[${on}]`)} and it is its turn.`;
      case "asks":
        return `${Who} ${through(`free[${on}]`)} and asks for chunk ${slot.chunk} in slot ${on}: arrived[${on}] has its arrival and lacks ${counted(slot.tiles, "tile")}.`;
      case "brings":
        return over
          ? `The copy engine has brought the last tile of chunk ${slot.chunk}. ${done(`arrived[${on}]`)}`
          : `The copy engine has brought a tile of chunk ${slot.chunk}; ${slot.tiles} to come.`;
      case "begins":
        return `${Who} ${through(`arrived[${on}]`)} and begins the product of what is in slot ${on}.`;
      case "ends":
        return `The product that ${who} began in slot ${on} is done.`;
      case "frees":
        return `${Who} frees slot ${on}. ${done(`free[${on}]`)}`;
      case "hands":
        return `${Who} hands over. ${done(`handed[${on}]`)}`;
      case "stores":
        return `${Who} writes sums to shared memory, for the copy engine to store.`;
      case "takes":
        return `The copy engine has taken what consumer ${on} wrote.`;
      case "misreads": {
        const there = slot.tiles ? "is still on its way" : "is there";
        const wanted = due(ring.parts, +who.at(-1), count, chosen.steps);
        const what = slot.chunk === null ? "nothing is there" : `chunk ${slot.chunk} ${there}`;
        return `Wrong: chunk ${wanted} is due to ${who}, and in slot ${on} ${what}.`;
      }
      default:
        return `Wrong: the copy engine writes into slot ${on}, which ${who} is still reading.`;
    }
  }

  function outcome(ring) {
    const tiles = Math.ceil(kernel().chunks / chosen.steps);
    if (told.end === "right" || told.end === "wrong") {
      const luck =
        told.end === "right" && chosen.mistake !== "none"
          ? " The mistake doesn't show here."
          : "";
      return `All ${tiles} tiles are stored, and the product is ${told.end}.${luck}`;
    }
    if (told.end !== "stuck") return `Nothing of this is defined: ${told.end}.`;
    const who = Object.entries(ring.waits).map(
      ([name, [on, parity]]) => `${name} waits at ${on} for parity ${parity}`,
    );
    return `Nobody can go on: ${who.join("; ")}.`;
  }

  // What took a while, by lane, from one moment to another; the rest are marks.
  function fill() {
    offered = data.mistakes.filter(([name]) => data.runs[`${chosen.kernel} ${name}`]);
    if (!offered.some(([name]) => name === chosen.mistake)) chosen.mistake = "none";
    mistakes.fill(
      offered.map(([, label]) => label),
      offered.findIndex(([name]) => name === chosen.mistake),
    );
    const places = [data.stages.indexOf(chosen.stages), data.steps.indexOf(chosen.steps)];
    told = run(data, chosen.kernel, chosen.mistake, ...places);
    const ring = begin(kernel().parts, chosen.stages);
    const begun = {};
    const under = {};
    depth = 2;
    const open = {};
    rings = [seen(ring)];
    words = [];
    bars = [];
    const start = (key, lane, kind, from, label = "") => {
      const bar = { lane, kind, from, to: Infinity, label };
      bars.push(bar);
      (open[key] ??= []).push(bar);
      return bar;
    };
    const stop = (key, to) => Object.assign(open[key]?.shift() ?? {}, { to });
    const slots = ring.slots.map(() => ({ state: "empty" }));
    told.moments.forEach((moment, i) => {
      const [who, what, on] = moment;
      const count = begun[who] ?? 0;
      const over = happen(ring, moment);
      words.push(tell(moment, ring, over, count - 1));
      rings.push(seen(ring));
      const mark = (kind, label = "") =>
        bars.push({ lane: who, kind, from: i, to: i + 1, label });
      if (what === "waits") start(`${who} waits`, who, "wait", i, on);
      if (["asks", "begins", "goes"].includes(what)) stop(`${who} waits`, i);
      if (what === "asks") mark("ask", ring.slots[on].chunk);
      if (what === "brings") mark("tile", on);
      if (what === "begins") {
        begun[who] = count + 1;
        // Products that are under way side by side stand below one another.
        const free = [0, 1, 2].find((row) => (under[`${who} ${row}`] ?? 0) <= i);
        const bar = start(`${who} ${on}`, `${who} ${free}`, "product", i, ring.slots[on].chunk ?? "?");
        under[bar.lane] = Infinity;
        depth = Math.max(depth, free + 1);
      }
      if (what === "ends") under[stop(`${who} ${on}`, i + 1).lane] = i + 1;
      if (what === "frees" || what === "hands") mark(what);
      if (what === "stores") start(`store ${on}`, who, "store", i);
      if (what === "takes") stop(`store ${on}`, i + 1);
      if (WRONG.includes(what)) mark("wrong", "!");
      ring.slots.forEach((slot, n) => {
        const now = state(slot);
        if (now === slots[n].state && slot.chunk === slots[n].chunk) return;
        stop(`slot ${n}`, i);
        slots[n] = { state: now, chunk: slot.chunk };
        if (now !== "empty") start(`slot ${n}`, `slot ${n}`, now, i, slot.chunk ?? "?");
      });
    });
    words.push(outcome(ring));
    rings.push(seen(ring));
    const wrong = told.moments.findIndex((moment) => WRONG.includes(moment[1]));
    const trouble = wrong < 0 ? told.moments.length : wrong;
    const first = Math.min(data.at, told.moments.length);
    play.reset(words.length, chosen.mistake === "none" ? first : trouble);
  }

  const rows = (count, name) => [...Array(count).keys()].map((n) => `${name} ${n}`);
  const lanes = () => [
    ["Producer", ["producer"]],
    ["Copy engine", ["copy engine"]],
    ["Slots", rows(chosen.stages, "slot")],
    ...["consumer 0", "consumer 1"].map((who) => [capital(who), [...rows(depth, who), who]]),
  ];

  function picture() {
    const wide = narrow.matches ? 23 : 44;
    const from = Math.max(0, Math.min(at + 1, told.moments.length) - wide);
    const parts = [];
    const tops = {};
    let y = 0;
    for (const [name, of] of lanes()) {
      parts.push(text("note", 0, y + 0.75, 0.72, name));
      y += 1;
      for (const lane of of) {
        parts.push(make("svg:rect", { class: "ground", x: 0, y, width: wide, height: 0.92 }));
        if (lane.startsWith("slot")) parts.push(text("down", -0.3, y + 0.72, 0.72, lane.at(-1)));
        tops[lane] = y;
        y += 1;
      }
      y += 0.25;
    }
    const until = Math.min(at + 1, told.moments.length);
    for (const bar of bars) {
      const left = Math.max(bar.from, from) - from;
      const right = Math.min(bar.to, until) - from;
      if (bar.from >= until || right <= left) continue;
      const top = tops[bar.lane];
      const kind = `bar-${bar.kind.replaceAll(" ", "-")}`;
      const width = right - left;
      const shape = { class: kind, x: left + 0.05, y: top + 0.06, width: width - 0.1, height: 0.8 };
      if (bar.kind === "wait") Object.assign(shape, { y: top + 0.36, height: 0.2 });
      if (["frees", "hands"].includes(bar.kind)) {
        parts.push(make("svg:circle", { class: kind, cx: left + 0.5, cy: top + 0.46, r: 0.26 }));
        continue;
      }
      parts.push(make("svg:rect", shape));
      const label = `${bar.label}`;
      if (bar.kind !== "wait" && label.length * 0.42 <= width) {
        const on = ["on its way", "full"].includes(bar.kind) ? "on" : "in";
        parts.push(text(on, left + width / 2, top + 0.72, 0.72, label));
      }
    }
    const now = until - from;
    parts.push(path("chosen", `M${now} 0V${y}`));
    svg.setAttribute("viewBox", `-1 0 ${wide + 1.2} ${y}`);
    svg.replaceChildren(...parts);
  }

  // What stands at a barrier, and who waits there.
  function line(name, [phase, arrivals, tiles], waits) {
    const lacks = [];
    if (arrivals) lacks.push(counted(arrivals, "arrival"));
    if (tiles) lacks.push(counted(tiles, "tile"));
    const who = Object.entries(waits)
      .filter(([, [on]]) => on === name)
      .map(([waiting, [, parity]]) => `${waiting}, for ${parity}`);
    return [name, phase, passing(phase), lacks.join(", "), who.join("; ")];
  }

  // What a moment is about: a slot, a barrier.
  function touched([, what, on]) {
    if (what === "waits") return [on];
    if (what === "hands" || what === "goes") return [`handed[${on}]`];
    if (what === "stores" || what === "takes") return [];
    if (what === "frees") return [`slot ${on}`, `free[${on}]`];
    return [`slot ${on}`, `arrived[${on}]`];
  }

  function draw(to) {
    at = to;
    picture();
    const { slots, barriers, waits } = rings[at + 1];
    const tables = [
      [["", "chunk", "state"], ...slots.map(([chunk, what], n) => [`slot ${n}`, chunk ?? "", what])],
      [
        ["", "phase", "passes", "lacks", "who waits"],
        ...Object.entries(barriers).map(([name, x]) => line(name, x, waits)),
      ],
    ].map(explorers.table);
    const about = at < told.moments.length ? touched(told.moments[at]) : [];
    for (const row of tables.flatMap((table) => [...table.tBodies[0].rows])) {
      row.classList.toggle("current", about.includes(row.cells[0].textContent));
    }
    numbers.replaceChildren(...tables);
    said.say(words[at]);
  }

  narrow.addEventListener("change", picture);
  live.append(
    make("div", { class: "explorer-row" }, kernels.node, stages.node, steps.node, mistakes.node),
    play.node,
    svg,
    said.node,
    numbers,
  );
  fill();
});
