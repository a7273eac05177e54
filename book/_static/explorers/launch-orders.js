// Which tiles of a product are computed together, and which tiles they need. The order
// comes from the page, where the package's own function has put it.
"use strict";

// The rows of A and the columns of B for some of C's tiles, numbered row by row.
explorers.needs = (tiles, columns) => ({
  rows: [...new Set(tiles.map((tile) => Math.floor(tile / columns)))],
  columns: [...new Set(tiles.map((tile) => tile % columns))],
});

// Different tiles that each wave reads, if `programs` of them run in step.
explorers.waves = (order, grid, programs) => {
  const found = [];
  for (let i = 0; i < order.length; i += programs) {
    const needs = explorers.needs(order.slice(i, i + programs), grid.columns);
    found.push((needs.rows.length + needs.columns.length) * grid.depth);
  }
  return found;
};

explorers.add("launch-orders", (live, data) => {
  const { make, counted, path, text } = explorers;
  let grid = data.grids[data.grid];
  let group = data.group;
  let programs = grid.programs;
  let wave = 0;

  const said = explorers.voice();
  const numbers = make("div");
  const panels = [0, 1].map(() => {
    const title = make("p", { class: "explorer-title" });
    const svg = make("svg:svg", { "aria-hidden": "true" });
    return { title, svg, node: make("div", {}, title, svg) };
  });

  const grids = explorers.select(
    "Tiles of C",
    data.grids.map((x) => `${x.rows} by ${x.columns}`),
    data.grid,
    (at) => {
      grid = data.grids[at];
      group = grid.groups.includes(group) ? group : grid.groups.at(-1);
      programs = grid.programs;
      fill();
    },
  );
  const groups = explorers.select("Rows in a strip", [], 0, (at) => {
    group = grid.groups[at];
    play.reset(waves(), wave);
  });
  const width = explorers.range("Programs at a time", (value) => {
    programs = value;
    fill();
  });
  const play = explorers.player("Wave", (at) => {
    wave = at;
    draw();
  });

  const waves = () => Math.ceil((grid.rows * grid.columns) / programs);

  function fill() {
    const most = grid.rows * grid.columns;
    groups.fill(grid.groups, grid.groups.indexOf(group));
    width.set(programs, 1, most, `${programs}`);
    play.reset(waves());
  }

  function panel({ title, svg }, name, order) {
    const { rows, columns, depth } = grid;
    const first = wave * programs;
    const place = (tile) => [Math.floor(tile / columns), tile % columns];
    const now = order.slice(first, first + programs);
    const needs = explorers.needs(now, columns);
    const c = depth + 1;
    const steps = [...Array(depth).keys()];
    const all = (m, n) => Array.from({ length: m * n }, (_, i) => [(i / n) | 0, i % n]);
    const at = (x, y, list) =>
      explorers.squares(list.map(([row, column]) => [row + y, column + x]));
    const line = (tiles) => {
      const points = tiles.map(place).map(([y, x]) => `${c + x + 0.5} ${c + y + 0.5}`);
      return `M${points.join("L")}`;
    };
    // Letters of one size, whatever the picture is scaled by.
    const em = (c + columns) / 19;
    const count = (needs.rows.length + needs.columns.length) * depth;
    title.textContent = name;
    svg.setAttribute("viewBox", `0 0 ${c + columns} ${c + rows + 1.3 * em}`);
    svg.replaceChildren(
      path("cell", at(0, c, all(rows, depth))),
      path("cell", at(c, 0, all(depth, columns))),
      path("cell", at(c, c, all(rows, columns))),
      path("need", at(0, c, needs.rows.flatMap((y) => steps.map((x) => [y, x])))),
      path("need", at(c, 0, needs.columns.flatMap((x) => steps.map((y) => [y, x])))),
      path("past", at(c, c, order.slice(0, first).map(place))),
      path("own", at(c, c, now.map(place))),
      path("way", line(order)),
      path("way on", line(now)),
      text("count", 0, depth / 2, 2.1 * em, count),
      text("note", 0, depth / 2 + 1.2 * em, 0.85 * em, "tiles read"),
      text("name", depth / 2, c + rows + em, 0.9 * em, "A"),
      text("name", c + columns / 2, c + rows + em, 0.9 * em, "C"),
      text("name", c - 0.6 * em, 0.8 * em, 0.9 * em, "B"),
    );
    return { count, asked: 2 * now.length * depth, needs };
  }

  function draw() {
    const orders = [grid.orders[0], grid.orders[grid.groups.indexOf(group)]];
    const names = ["Row by row", group > 1 ? `Strips of ${group}` : "Strips of 1, the same"];
    const [plain, strips] = panels.map((x, i) => panel(x, names[i], orders[i]));
    const total = orders.map((order) =>
      explorers.waves(order, grid, programs).reduce((sum, x) => sum + x, 0),
    );
    const row = (head, ...values) => [head, ...values.map((x) => x.toLocaleString("en"))];
    numbers.replaceChildren(
      explorers.table([
        ["", ...names],
        row("Tiles asked for in this wave", plain.asked, strips.asked),
        row("Different ones", plain.count, strips.count),
        row("Different ones, added up over all waves", ...total),
      ]),
    );
    const first = wave * programs;
    const last = Math.min(first + programs, grid.rows * grid.columns) - 1;
    const who = first === last ? `program ${first}` : `programs ${first} to ${last}`;
    const { rows, columns } = strips.needs;
    said.say(
      `Wave ${wave + 1} of ${waves()}, ${who}. In strips of ${group} it needs ` +
        `${counted(rows.length, "row")} of A and ${counted(columns.length, "column")} ` +
        `of B, ${strips.count} different tiles; row by row, ${plain.count}.`,
    );
  }

  live.append(
    make("div", { class: "explorer-row" }, grids.node, groups.node, width.node),
    play.node,
    make("div", { class: "explorer-pair" }, ...panels.map((x) => x.node)),
    said.node,
    numbers,
  );
  fill();
});
