// Which thread holds which element of a tile: a blocked layout by the rule by which
// Triton makes a linear layout of it.
"use strict";

// Where each bit of a register's, a lane's and a warp's number leads.
explorers.bases = ({ size, lanes, warps, order }, shape) => {
  const covered = [1, 1];
  const dealt = (counts) => {
    const steps = [];
    for (const axis of order) {
      for (let left = counts[axis]; left > 1; left /= 2) {
        const step = [0, 0];
        // What would leave the tile leads nowhere: those threads hold copies.
        if (covered[axis] < shape[axis]) step[axis] = covered[axis];
        covered[axis] *= 2;
        steps.push(step);
      }
    }
    return steps;
  };
  const [register, lane, warp] = [size, lanes, warps].map(dealt);
  const rest = shape.map((side, axis) => Math.max(1, side / covered[axis]));
  return { register: [...register, ...dealt(rest)], lane, warp };
};

// Where a number's set bits lead together.
explorers.led = (steps, number) =>
  steps.reduce(
    (at, step, bit) => ((number >> bit) & 1 ? [at[0] ^ step[0], at[1] ^ step[1]] : at),
    [0, 0],
  );

// By element, the lowest warp, lane and register that hold it, as [w, l, r].
explorers.owners = (bases, [rows, columns]) => {
  const { led } = explorers;
  const found = Array(rows * columns);
  for (let w = 2 ** bases.warp.length - 1; w >= 0; w--) {
    for (let l = 2 ** bases.lane.length - 1; l >= 0; l--) {
      for (let r = 2 ** bases.register.length - 1; r >= 0; r--) {
        const parts = [led(bases.warp, w), led(bases.lane, l), led(bases.register, r)];
        const [row, column] = [0, 1].map((i) => parts[0][i] ^ parts[1][i] ^ parts[2][i]);
        found[row * columns + column] = [w, l, r];
      }
    }
  }
  return found;
};

explorers.add("layouts", (live, data) => {
  const { make, counted, led, path, text } = explorers;
  const written = (list) => `[${list.join(", ")}]`;
  const layout = { ...data.layout };
  let shape = data.shape;
  let [row, column] = data.element;
  let bases, owners;

  const choose = (text, choices, now, change) =>
    explorers.select(
      text,
      choices.map(written),
      choices.findIndex((x) => written(x) === written(now)),
      (at) => {
        change(choices[at]);
        lay();
      },
    ).node;
  const lists = [
    choose("Tile", data.shapes, shape, (x) => (shape = x)),
    ...[
      ["sizePerThread", "size"],
      ["threadsPerWarp", "lanes"],
      ["warpsPerCTA", "warps"],
      ["order", "order"],
    ].map(([text, key]) =>
      choose(text, data.choices[key], layout[key], (x) => (layout[key] = x)),
    ),
  ];
  const slide = (text, change) =>
    explorers.range(text, (value) => {
      change(value);
      draw();
    });
  const rowAt = slide("Row", (value) => (row = value));
  const columnAt = slide("Column", (value) => (column = value));
  const threadAt = slide("Thread", (value) => {
    const [a, b] = [led(bases.warp, value >> 5), led(bases.lane, value & 31)];
    [row, column] = [a[0] ^ b[0], a[1] ^ b[1]];
  });
  const said = explorers.voice();
  const way = make("div");
  const svg = make("svg:svg", { class: "explorer-tile", "aria-hidden": "true" });
  svg.addEventListener("click", (event) => {
    const point = new DOMPoint(event.clientX, event.clientY);
    const at = point.matrixTransform(svg.getScreenCTM().inverse());
    const inside = (value, side) => Math.max(0, Math.min(side - 1, Math.floor(value)));
    row = inside(at.y, shape[0]);
    column = inside(at.x, shape[1]);
    draw();
  });

  function lay() {
    bases = explorers.bases(layout, shape);
    owners = explorers.owners(bases, shape);
    row = Math.min(row, shape[0] - 1);
    column = Math.min(column, shape[1] - 1);
    draw();
  }

  // Lines where the owner changes from one element to the next.
  function edges(differ) {
    const [rows, columns] = shape;
    let d = "";
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < columns; x++) {
        const here = owners[y * columns + x];
        if (x && differ(here, owners[y * columns + x - 1])) d += `M${x} ${y}v1`;
        if (y && differ(here, owners[(y - 1) * columns + x])) d += `M${x} ${y}h1`;
      }
    }
    return d;
  }

  function draw() {
    const [rows, columns] = shape;
    const [warp, lane, register] = owners[row * columns + column];
    const thread = 32 * warp + lane;
    const threads = 2 ** (bases.warp.length + bases.lane.length);
    const registers = 2 ** bases.register.length;
    const copies = (threads * registers) / (rows * columns);
    rowAt.set(row, 0, rows - 1, `${row}`);
    columnAt.set(column, 0, columns - 1, `${column}`);
    threadAt.set(thread, 0, threads - 1, `${thread}`);

    const places = (test) =>
      owners.flatMap((x, i) => (test(x) ? [[Math.floor(i / columns), i % columns]] : []));
    const own = places(([w, l]) => w === warp && l === lane);
    const tick = (kind, x, y, at) => svg.append(text(kind, x, y, edge / 2.4, at));
    const step = Math.max(rows, columns) / 4;
    const wide = columns > rows;
    const edge = columns / (wide ? 16 : 12);
    svg.setAttribute("viewBox", `${-edge} ${-edge / 1.6} ${columns + edge} ${rows + edge / 1.6}`);
    svg.classList.toggle("wide", wide);
    svg.replaceChildren(
      make("svg:rect", { class: "ground", width: columns, height: rows }),
      path("warp", explorers.squares(places(([w]) => w === warp), 0)),
      path("own", explorers.squares(own, 0)),
      path("thin", edges((a, b) => a[0] !== b[0] || a[1] !== b[1])),
      path("thick", `${edges((a, b) => a[0] !== b[0])}M0 0h${columns}v${rows}h${-columns}z`),
      make("svg:rect", { class: "chosen", x: column, y: row, width: 1, height: 1 }),
    );
    for (let at = 0; at < columns; at += step) tick("along", at, -edge / 6, at);
    for (let at = 0; at < rows; at += step) tick("down", -edge / 6, at + edge / 3, at);
    // A register's number in each of the thread's elements, where it can be read.
    if (columns <= 16) {
      for (const [y, x] of own) {
        const number = owners[y * columns + x][2];
        svg.append(text("inside", x + 0.5, y + 0.68, 0.5, number));
      }
    }

    const sum = (steps, number) => {
      const set = steps.filter((_, bit) => (number >> bit) & 1).map(written);
      const to = set.length > 1 ? ` = ${written(led(steps, number))}` : "";
      return set.length ? set.join(" + ") + to : "[0, 0]";
    };
    way.replaceChildren(
      explorers.table([
        ["", "number", "leads to"],
        ["register", `${register} of ${registers}`, sum(bases.register, register)],
        ["lane", `${lane} of ${2 ** bases.lane.length}`, sum(bases.lane, lane)],
        ["warp", `${warp} of ${2 ** bases.warp.length}`, sum(bases.warp, warp)],
        ["together", "", written([row, column])],
      ]),
    );
    const held = copies > 1 ? ` ${copies} threads hold each element; this is the first.` : "";
    said.say(
      `Element [${row}, ${column}] is in register ${register} of lane ${lane} of warp ` +
        `${warp}, which is thread ${thread} of ${threads}. A thread holds ` +
        `${counted(registers, "element")}.${held}`,
    );
  }

  live.append(
    make("div", { class: "explorer-row" }, ...lists),
    make("div", { class: "explorer-row" }, rowAt.node, columnAt.node, threadAt.node),
    svg,
    said.node,
    way,
  );
  lay();
});
