// Which elements each program of a launch reads and writes, step by step.
const here = new URL(import.meta.url);
const beside = new URL("../explorers/", here);
const MOST = 16_384;
const LINED = 4096;

// The interactive figures' own parts; a plain script, which a page may have already.
async function parts() {
  if (typeof explorers === "undefined") {
    const sheet = document.createElement("link");
    Object.assign(sheet, { rel: "stylesheet", href: new URL("explorers.css", beside) });
    const script = document.createElement("script");
    script.src = new URL("frame.js", beside);
    const loaded = new Promise((yes, no) => {
      script.onload = yes;
      script.onerror = () => no(new Error("frame.js"));
    });
    document.head.append(sheet, script);
    await loaded;
  }
  return explorers;
}

const listed = (values) => `(${values.join(", ")}${values.length === 1 ? "," : ""})`;

// A program's indices, without the axes that a grid hasn't.
function programName(program, axes) {
  return listed(program.slice(0, axes));
}

function* elements(series) {
  for (let i = 0; i < series.length; i += 3) {
    const [first, step, count] = series.slice(i, i + 3);
    for (let k = 0; k < count; k++) yield first + k * step;
  }
}

// First, last and number of what an access touches.
function span(series) {
  let [low, high, count] = [Infinity, -Infinity, 0];
  for (let i = 0; i < series.length; i += 3) {
    const [first, step, times] = series.slice(i, i + 3);
    const last = first + step * (times - 1);
    low = Math.min(low, first, last);
    high = Math.max(high, first, last);
    count += times;
  }
  return { low, high, count };
}

// Rows and columns in which a tensor is drawn.
function arranged(shape) {
  const count = shape.reduce((a, b) => a * b, 1);
  let columns = shape.at(-1) ?? 1;
  if (shape.length < 2 && count > 64) {
    columns = 2 ** Math.min(8, Math.ceil(Math.log2(Math.sqrt(4 * count))));
  }
  const rows = Math.ceil(count / Math.max(1, columns));
  const shown = Math.min(rows, Math.max(1, Math.floor(MOST / Math.max(1, columns))));
  return { count, columns: Math.max(1, columns), rows, shown };
}

class Tensor {
  constructor(x, { name, shape }) {
    this.x = x;
    this.name = name;
    Object.assign(this, arranged(shape));
    const { columns, shown, count } = this;
    const whole = count <= shown * columns ? "" : `, its first ${shown} rows`;
    const title = x.make("div", { class: "run-tensor-name" }, `${name} ${listed(shape)}`);
    title.append(whole);
    this.layers = Object.fromEntries(
      ["past", "own", "need", "race", "outside"].map((kind) => [kind, x.path(kind, "")]),
    );
    const last = count - (shown - 1) * columns;
    const full = count >= shown * columns;
    const edge = full
      ? `M0 0h${columns}v${shown}h${-columns}z`
      : `M0 0h${columns}v${shown - 1}h${last - columns}v1h${-last}z`;
    const lines = [];
    if (shown * columns <= LINED) {
      for (let i = 1; i < shown; i++) lines.push(`M0 ${i}h${columns}`);
      for (let i = 1; i < columns; i++) {
        lines.push(`M${i} 0v${full || i < last ? shown : shown - 1}`);
      }
    }
    const svg = x.make(
      "svg:svg",
      {
        viewBox: `-1.5 -0.1 ${columns + 3} ${shown + 1.2}`,
        preserveAspectRatio: "xMinYMin",
        "aria-hidden": "true",
      },
      x.path("ground", edge),
      this.layers.past,
      this.layers.own,
      x.path("lines", lines.join("")),
      this.layers.need,
      this.layers.race,
      this.layers.outside,
    );
    // A cell is as large as a letter at most.
    svg.style.maxWidth = `${Math.max(8, Math.min(44, columns * 0.9 + 2))}rem`;
    this.node = x.make("div", { class: "run-tensor" }, title, svg);
  }

  cells(series, inset) {
    const side = 1 - 2 * inset;
    const d = [];
    for (const element of series) {
      const row = Math.floor(element / this.columns);
      if (row < 0 || row >= this.shown) continue;
      const column = element - row * this.columns;
      d.push(`M${column + inset} ${row + inset}h${side}v${side}h${-side}z`);
    }
    return d.join("");
  }

  set(layer, series, inset) {
    this.layers[layer].setAttribute("d", this.cells(series, inset));
  }

  // Where an element would be that isn't there: beside the first, or after the last.
  miss(element) {
    const at = element < 0 ? [-1.2, 0] : [this.count % this.columns || 0, null];
    if (at[1] === null) {
      const row = Math.min(this.shown, Math.floor(this.count / this.columns));
      at[1] = row;
    }
    const [column, row] = at;
    const cross = `M${column + 0.1} ${row + 0.1}l0.8 0.8m0 -0.8l-0.8 0.8`;
    this.layers.outside.setAttribute("d", cross);
  }

  clear() {
    for (const layer of Object.values(this.layers)) layer.setAttribute("d", "");
  }
}

const OPS = { load: "reads", store: "writes", atomic: "changes atomically" };

function described(event, launch, axes, source) {
  const [program, op, tensor, line, series] = event;
  const { low, high, count } = span(series);
  const name = launch.tensors[tensor].name;
  const many = `${count} element${count === 1 ? "" : "s"} of ${name}`;
  const where = count ? `, ${low}${count > 1 ? ` to ${high}` : ""}` : "";
  const code = (source[line - 1] ?? "").trim();
  return (
    `Program ${programName(launch.programs[program], axes)} ${OPS[op]} ` +
    `${many}${where}. Line ${line}: ${code}`
  );
}

// Steps of a launch: each access, or all of a program's.
function grouped(launch, whole) {
  const steps = [];
  for (const event of launch.events) {
    const last = steps.at(-1);
    if (whole && last && last[0][0] === event[0]) last.push(event);
    else steps.push([event]);
  }
  return steps;
}

export async function show(holder, trace, text) {
  const x = await parts();
  const source = text.split("\n");
  holder.className = "explorer run-steps";
  const pictures = x.make("div", { class: "run-tensors" });
  const { node: voice, say } = x.voice();
  const notes = x.make("ul", { class: "run-notes" });
  let [at, whole, now] = [0, true, null];

  const launches = trace.launches;
  const failedIn = (number) =>
    trace.outside && number === launches.length - 1 ? trace.outside : null;

  function go(step) {
    const { launch, tensors, steps, axes, outside, races } = now;
    for (const tensor of tensors) tensor.clear();
    const past = tensors.map(() => new Set());
    for (const event of steps.slice(0, step).flat()) {
      if (event[1] !== "load") for (const i of elements(event[4])) past[event[2]].add(i);
    }
    const events = steps[step] ?? [];
    const reads = tensors.map(() => new Set());
    const writes = tensors.map(() => new Set());
    for (const [, op, tensor, , series] of events) {
      const kind = op === "load" ? reads : writes;
      for (const i of elements(series)) kind[tensor].add(i);
    }
    tensors.forEach((tensor, i) => {
      tensor.set("past", past[i], 0);
      tensor.set("own", writes[i], 0);
      tensor.set("need", reads[i], 0.27);
      tensor.set("race", races[i], 0.06);
    });
    if (outside && step === steps.length) {
      const tensor = tensors.find((one) => one.name === outside.tensor);
      tensor?.miss(outside.element);
      const program = programName(outside.program, axes);
      const code = (source[outside.line - 1] ?? "").trim();
      say(
        `Program ${program}: ${outside.op} of ${outside.tensor}[${outside.element}], ` +
          `which has ${outside.elements} elements. Line ${outside.line}: ${code}`,
      );
    } else if (events.length === 1) {
      say(described(events[0], launch, axes, source));
    } else if (events.length) {
      const program = programName(launch.programs[events[0][0]], axes);
      const amounts = (sets) =>
        tensors
          .map((tensor, i) => (sets[i].size ? `${sets[i].size} of ${tensor.name}` : ""))
          .filter(Boolean)
          .join(", ");
      const [read, written] = [amounts(reads), amounts(writes)];
      const parts = [read && `reads ${read}`, written && `writes ${written}`];
      say(`Program ${program} ${parts.filter(Boolean).join("; ")}.`);
    } else {
      say("Nothing is touched.");
    }
  }

  const player = x.player("step", go, 700);
  const choices = ["program by program", "access by access"];
  const by = x.select("Steps", choices, 0, (i) => {
    whole = i === 0;
    begin();
  });
  const names = launches.map(({ kernel }, i) => `${i + 1}: ${kernel}`);
  const which = x.select("Launch", names, 0, (i) => {
    at = i;
    begin();
  });

  function begin() {
    const outside = failedIn(at);
    const launch = launches[at] ?? { tensors: [], programs: [], events: [], races: [] };
    const tensors = launch.tensors.map((tensor) => new Tensor(x, tensor));
    const every = outside ? [...launch.programs, outside.program] : launch.programs;
    const largest = [0, 1, 2].map((i) => Math.max(0, ...every.map((p) => p[i])));
    const axes = largest[2] ? 3 : largest[1] ? 2 : 1;
    const races = tensors.map(() => new Set());
    for (const race of launch.races) {
      for (const i of elements(race.runs)) races[race.tensor].add(i);
    }
    now = { launch, tensors, axes, outside, races, steps: grouped(launch, whole) };
    pictures.replaceChildren(...tensors.map((tensor) => tensor.node));
    const said = launch.races.map(({ text }) => text);
    if (launch.cut) said.push("The picture stops here; the launch went on.");
    if (trace.more) said.push(`${x.counted(trace.more, "access")} of later launches.`);
    notes.replaceChildren(...said.map((text) => x.make("li", {}, text)));
    notes.hidden = !said.length;
    const count = now.steps.length + (outside ? 1 : 0);
    player.reset(Math.max(1, count), outside ? count - 1 : 0);
  }

  const row = x.make("div", { class: "explorer-row" }, by.node);
  if (launches.length > 1) row.prepend(which.node);
  const legend = x.make("p", { class: "run-legend" });
  const kinds = [
    ["need", "read"],
    ["own", "written"],
    ["past", "written before"],
    ["race", "race"],
    ["outside", "out of bounds"],
  ];
  for (const [kind, words] of kinds) {
    const mark = x.make("span", { class: `run-mark ${kind}`, "aria-hidden": "true" });
    legend.append(x.make("span", {}, mark, words));
  }
  holder.replaceChildren(row, player.node, pictures, legend, voice, notes);
  if (trace.outside) at = Math.max(0, launches.length - 1);
  begin();
}
