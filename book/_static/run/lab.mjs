// What happens under code that is run: an editor, the output, and Python in a worker.
import { Editor } from "./editor.mjs";

const here = new URL(import.meta.url);
const version = here.searchParams.get("v");
const at = (name) => new URL(`${name}?v=${version}`, here);
const LONGEST = 60_000;
const NOTE =
  "Triton's interpreter ran this: programs one after another, sums in another order " +
  "than on a GPU, and in a time that says nothing about one.";
const key = (name) => `tilebook.program.${name}`;
const solvedKey = (name) => `tilebook.solved.${name}`;
const groups = new Map();
const benches = new Map();

function make(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

// A browser that forbids storage keeps nothing, and works.
export const kept = {
  get(name) {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  },
  program(name) {
    return this.get(key(name));
  },
  solved(name) {
    return this.get(solvedKey(name));
  },
  set(name, value) {
    try {
      if (value === null) localStorage.removeItem(name);
      else localStorage.setItem(name, value);
    } catch {
      return;
    }
  },
};

// The program of a name, from its chapter's file.
async function program(name) {
  const group = name.includes(".") ? name.split(".")[0] : "puzzles";
  if (!groups.has(group)) {
    const address = at(`../runtime/programs/${group}.json`);
    const loading = fetch(address).then((answer) => answer.json());
    groups.set(group, loading);
    loading.catch(() => groups.delete(group));
  }
  return (await groups.get(group))[name];
}

// Python, one program at a time; ending one ends Python, and a new one is started.
const python = {
  worker: null,
  ready: false,
  running: null,
  waiting: [],

  start() {
    this.ready = false;
    this.worker = new Worker(at("worker.mjs"), { type: "module" });
    this.worker.onmessage = ({ data }) => this.told(data);
    this.worker.onerror = (event) => this.told({ type: "broken", text: event.message });
  },

  run(source, to) {
    this.waiting.push({ source, to });
    if (!this.worker) this.start();
    this.next();
  },

  next() {
    const loading = this.waiting[0]?.to ?? null;
    if (this.running) {
      for (const { to } of this.waiting) to.state("Waits for another program.");
    } else if (this.waiting.length && this.ready) {
      this.running = this.waiting.shift();
      this.running.to.state("Running ...");
      this.worker.postMessage({ source: this.running.source });
    } else if (loading && !this.ready) {
      loading.state("Loading ...");
    }
  },

  told(data) {
    const to = this.running?.to ?? this.waiting[0]?.to;
    if (data.type === "loading") {
      to?.state(`Loading ${data.what} (${data.number + 1} of ${data.of}) ...`);
    } else if (data.type === "ready") {
      this.ready = true;
      this.next();
    } else if (data.type === "said") {
      to?.said(data.text);
    } else if (data.type === "done") {
      this.running = null;
      to?.done(data.result);
      this.next();
    } else if (data.type === "broken") {
      const left = this.running ? [this.running, ...this.waiting] : this.waiting;
      this.running = null;
      this.waiting = [];
      this.worker.terminate();
      this.worker = null;
      for (const { to } of left) to.broken(data.text);
    }
  },

  stop(to) {
    this.waiting = this.waiting.filter((one) => one.to !== to);
    if (this.running?.to !== to) return;
    this.running = null;
    this.worker.terminate();
    this.start();
    this.next();
  },
};

export class Bench {
  constructor(place, name, original) {
    const bar = place.querySelector(".run-bar");
    Object.assign(this, { place, bar, name, original });
    this.what = place.dataset.what;
    this.puzzle = name.startsWith("puzzle-");
    // The code that the editor takes the place of, where there is some.
    const above = place.previousElementSibling;
    this.shown = above?.matches('[class*="highlight-"]') ? above : null;
    this.busy = false;
    const button = (text, press) => {
      const made = make("button", { type: "button" }, text);
      made.setAttribute("aria-label", `${text}: ${this.what}`);
      made.addEventListener("click", press);
      return made;
    };
    this.buttons = {
      run: button(this.puzzle ? "Check" : "Run", () => this.run()),
      edit: button("Edit", () => this.edit()),
      stop: button("Stop", () => this.stop()),
      reset: button("Reset", () => this.reset()),
    };
    this.status = make("span", { class: "run-status", role: "status" });
    const solved = bar.querySelector(".run-solved");
    bar.replaceChildren(...Object.values(this.buttons), this.status);
    if (solved) bar.append(solved);
    this.output = make("div", { class: "run-output", hidden: "" });
    place.append(this.output);
    this.text = kept.program(name) ?? original;
    this.refresh();
  }

  // Put a text into the editor, as if it had been typed.
  write(text) {
    this.edit();
    this.editor.text = text;
    this.editor.update();
  }

  // What only the page for any kernel has: a launch for shapes, and a link.
  async extend() {
    const scratch = await import(at("scratch.mjs"));
    const shape = make("input", { type: "text", value: "1000", size: "8" });
    const label = make("label", { class: "run-shape" }, "Shape", shape);
    const launch = make("button", { type: "button" }, "Write a launch");
    launch.addEventListener("click", () => {
      const text = scratch.withLaunch(this.text, shape.value);
      if (text === null) this.state("There is no kernel, or the shape is none.");
      else this.write(text);
    });
    const share = make("button", { type: "button" }, "Copy a link");
    share.addEventListener("click", async () => {
      const link = await scratch.linked(this.text);
      history.replaceState(null, "", link);
      try {
        await navigator.clipboard.writeText(link);
        this.state(`Copied: a link of ${link.length} characters.`);
      } catch {
        this.state("The link is the page's address now.");
      }
    });
    this.status.before(label, launch, share);
    const sent = await scratch.received();
    if (sent !== null) {
      this.editor.text = this.text = sent;
      this.refresh();
      this.state("This program came with the link: read it before you run it.");
    }
  }

  refresh() {
    const { run, edit, stop, reset } = this.buttons;
    // Not `disabled`, which would take the focus away from who pressed it.
    run.setAttribute("aria-disabled", this.busy);
    edit.hidden = Boolean(this.editor);
    stop.hidden = !this.busy;
    reset.hidden = this.text === this.original;
  }

  state(text) {
    this.status.textContent = text;
  }

  edit(focus = true) {
    if (!this.editor) {
      const changed = (text) => {
        this.text = text;
        kept.set(key(this.name), text === this.original ? null : text);
        this.refresh();
      };
      const label = `Program: ${this.what}. Escape, then Tab leaves the editor.`;
      this.editor = new Editor(label, { run: () => this.run(), changed });
      this.editor.text = this.text;
      this.place.prepend(this.editor.node);
      if (this.shown) this.shown.hidden = true;
      this.place.classList.add("editing");
      this.refresh();
    }
    if (focus) this.editor.field.focus({ preventScroll: true });
  }

  reset() {
    this.text = this.original;
    kept.set(key(this.name), null);
    if (this.editor) {
      this.editor.text = this.original;
      this.editor.mark([]);
      this.editor.field.focus({ preventScroll: true });
    }
    this.output.hidden = true;
    this.state("As it was.");
    this.refresh();
  }

  run() {
    if (this.busy) return;
    this.busy = true;
    this.length = 0;
    this.printed = make("pre", { "aria-label": "Output", tabindex: "0" });
    this.output.replaceChildren();
    this.output.hidden = true;
    this.editor?.mark([]);
    this.refresh();
    python.run(this.text, this);
  }

  stop() {
    if (!this.busy) return;
    python.stop(this);
    this.finish("Stopped.");
    this.buttons.run.focus({ preventScroll: true });
  }

  finish(text) {
    this.busy = false;
    this.state(text);
    this.refresh();
  }

  said(text) {
    if (!this.printed.isConnected) {
      this.output.prepend(this.printed);
      this.output.hidden = false;
    }
    if (this.length > LONGEST) return;
    this.length += text.length;
    this.printed.append(text);
    if (this.length > LONGEST) this.printed.append("\n... and more, not shown.");
  }

  done(result) {
    const { error, trace, seconds } = result;
    if (error) this.failed(error);
    const time = `${seconds < 0.01 ? "under 0.01" : seconds.toFixed(2)} s`;
    this.finish(`${error ? "Ended with an error" : "Done"}, ${time}.`);
    if (this.puzzle && !error) this.judge();
    if (trace?.launches.length || trace?.outside) {
      this.draw(trace);
      this.output.append(make("p", { class: "run-note" }, NOTE));
    }
  }

  broken(text) {
    this.finish(`Python has ended: ${text}`);
  }

  failed({ kind, message, lines }) {
    const source = this.text.split("\n");
    const text = kind ? `${kind}: ${message}` : message;
    const box = make("pre", { class: "run-error", tabindex: "0" }, text);
    box.setAttribute("aria-label", "Error");
    for (const line of lines) {
      box.append(`\n  line ${line}:  ${(source[line - 1] ?? "").trim()}`);
    }
    this.output.append(box);
    this.output.hidden = false;
    this.editor?.mark(lines);
  }

  // A check that passes prints so; what it prints is kept with the answer.
  judge() {
    const right = new RegExp(`^${this.name}: right`, "m");
    if (!right.test(this.printed.textContent)) return;
    kept.set(solvedKey(this.name), this.text);
    this.state("Solved. This browser remembers it.");
    document.dispatchEvent(new CustomEvent("tilebook-solved", { detail: this.name }));
  }

  draw(trace) {
    const marks = [];
    const races = trace.launches.reduce((sum, launch) => sum + launch.races.length, 0);
    if (races) marks.push(races === 1 ? "a race" : `${races} races`);
    if (trace.outside) marks.push("an access out of bounds");
    const more = marks.length ? `, with ${marks.join(" and ")}` : "";
    const title = make("summary", {}, `What each program touches${more}`);
    const box = make("details", { class: "run-picture" }, title);
    const fill = async () => {
      if (!box.open || box.childElementCount > 1) return;
      const holder = make("div");
      box.append(holder);
      const { show } = await import(at("picture.mjs"));
      show(holder, trace, this.text);
    };
    box.addEventListener("toggle", fill);
    this.output.append(box);
    this.output.hidden = false;
    if (marks.length) box.open = true;
  }
}

export async function open(place, action) {
  const name = place.dataset.run;
  if (!benches.has(name)) {
    const original = await program(name);
    if (!benches.has(name)) benches.set(name, new Bench(place, name, original));
  }
  const bench = benches.get(name);
  if (action === "show") {
    bench.edit(false);
    await bench.extend();
  } else if (action === "edit") {
    bench.edit();
  } else {
    bench.run();
    bench.buttons.run.focus({ preventScroll: true });
  }
  return bench;
}
