// A small editor of Python: a text field over its own text in colours.
const WORDS =
  "False None True and as assert async await break class continue def del elif else " +
  "except finally for from global if import in is lambda nonlocal not or pass raise " +
  "return try while with yield";
const BUILTINS =
  "abs bool dict enumerate float int len list max min print range round set sorted " +
  "str sum tuple zip";
const PARTS = [
  ["c1", String.raw`#[^\n]*`],
  ["s", String.raw`[fFrRbB]{0,2}(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$))`],
  ["s", String.raw`[fFrRbB]{0,2}(?:"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?)`],
  ["nd", String.raw`(?<=^[ \t]*)@[\w.]+`],
  ["mi", String.raw`\b(?:0[xX][\da-fA-F_]+|\d[\d_]*(?:\.\d*)?(?:[eE][-+]?\d+)?)`],
  ["k", String.raw`\b(?:${WORDS.replaceAll(" ", "|")})\b`],
  ["nb", String.raw`(?<!\.)\b(?:${BUILTINS.replaceAll(" ", "|")})\b`],
  ["o", String.raw`[-+*/%=<>!&|^~@]+`],
];
const TOKENS = new RegExp(PARTS.map(([, x]) => `(${x})`).join("|"), "gm");
const INDENT = "    ";

// The text as nodes, its words in the classes that the pages' own code has.
export function coloured(text) {
  const whole = document.createDocumentFragment();
  let at = 0;
  for (const found of text.matchAll(TOKENS)) {
    whole.append(text.slice(at, found.index));
    const word = document.createElement("span");
    word.className = PARTS[found.slice(1).findIndex((x) => x !== undefined)][0];
    word.textContent = found[0];
    whole.append(word);
    at = found.index + found[0].length;
  }
  whole.append(`${text.slice(at)}\n`);
  return whole;
}

export class Editor {
  // `run` is called on Ctrl+Enter, `changed` with the text after each change.
  constructor(label, { run, changed }) {
    this.node = document.createElement("div");
    this.node.className = "run-editor highlight";
    this.numbers = document.createElement("div");
    this.numbers.className = "run-numbers";
    this.numbers.setAttribute("aria-hidden", "true");
    this.shown = document.createElement("pre");
    this.shown.setAttribute("aria-hidden", "true");
    this.field = document.createElement("textarea");
    Object.assign(this.field, { spellcheck: false, wrap: "off", rows: 1 });
    this.field.setAttribute("aria-label", label);
    for (const name of ["autocapitalize", "autocomplete", "autocorrect"]) {
      this.field.setAttribute(name, "off");
    }
    const sheet = document.createElement("div");
    sheet.className = "run-sheet";
    sheet.append(this.shown, this.field);
    this.node.append(this.numbers, sheet);
    this.changed = changed;
    this.run = run;
    // After Escape the next Tab leaves the editor, as it does everywhere else.
    this.leaving = false;
    this.field.addEventListener("input", () => this.update());
    this.field.addEventListener("keydown", (event) => this.pressed(event));
    this.field.addEventListener("blur", () => (this.leaving = false));
  }

  get text() {
    return this.field.value;
  }

  set text(text) {
    this.field.value = text;
    this.draw();
  }

  update() {
    this.mark([]);
    this.draw();
    this.changed(this.text);
  }

  draw() {
    this.shown.replaceChildren(coloured(this.text));
    const count = this.text.split("\n").length;
    if (this.numbers.childElementCount !== count) {
      const line = (_, i) => {
        const number = document.createElement("span");
        number.textContent = i + 1;
        return number;
      };
      this.numbers.replaceChildren(...Array.from({ length: count }, line));
    }
  }

  // Show where an error came from.
  mark(lines) {
    for (const [i, number] of [...this.numbers.children].entries()) {
      number.classList.toggle("wrong", lines.includes(i + 1));
    }
  }

  // Typing for the reader, so that undo takes it back.
  insert(text) {
    if (!document.execCommand("insertText", false, text)) {
      const { selectionStart: from, selectionEnd: to } = this.field;
      this.field.setRangeText(text, from, to, "end");
      this.update();
    }
  }

  // Replace whole lines from the first to the last that the selection touches.
  lines(change) {
    const { selectionStart: from, selectionEnd: to, value } = this.field;
    const first = value.lastIndexOf("\n", from - 1) + 1;
    const end = value.indexOf("\n", to > from && value[to - 1] === "\n" ? to - 1 : to);
    const last = end < 0 ? value.length : end;
    const old = value.slice(first, last);
    const text = old.split("\n").map(change).join("\n");
    if (text === old) return;
    this.field.setSelectionRange(first, last);
    this.insert(text);
    if (from === to) {
      const at = Math.max(first, from + text.length - old.length);
      this.field.setSelectionRange(at, at);
    } else {
      this.field.setSelectionRange(first, first + text.length);
    }
  }

  pressed(event) {
    const { key, ctrlKey, metaKey, shiftKey, altKey } = event;
    const plain = !ctrlKey && !metaKey && !altKey;
    const { selectionStart: from, selectionEnd: to, value } = this.field;
    const before = value.slice(value.lastIndexOf("\n", from - 1) + 1, from);
    if (key === "Escape") {
      this.leaving = true;
      return;
    }
    const leaving = this.leaving;
    if (key !== "Shift") this.leaving = false;
    if (key === "Enter" && (ctrlKey || metaKey)) {
      event.preventDefault();
      this.run();
    } else if (key === "Tab" && plain && !leaving) {
      event.preventDefault();
      if (shiftKey) this.lines((line) => line.replace(/^ {1,4}/, ""));
      else if (value.slice(from, to).includes("\n")) {
        this.lines((line) => (line ? INDENT + line : line));
      } else this.insert(INDENT.slice(before.length % INDENT.length));
    } else if (key === "Enter" && plain && !shiftKey) {
      event.preventDefault();
      const indent = before.match(/^ */)[0];
      const deeper = /:\s*(#.*)?$/.test(before) ? INDENT : "";
      this.insert(`\n${indent}${deeper}`);
    } else if (key === "Backspace" && plain && from === to && /^( {4})+$/.test(before)) {
      event.preventDefault();
      this.field.setSelectionRange(from - INDENT.length, from);
      document.execCommand("delete");
    } else if (key === "/" && (ctrlKey || metaKey)) {
      event.preventDefault();
      const noted = this.noted();
      const note = (line) => (line.trim() ? line.replace(/^( *)/, "$1# ") : line);
      this.lines((line) => (noted ? line.replace(/^( *)# ?/, "$1") : note(line)));
    }
  }

  // Whether each of the chosen lines is a comment.
  noted() {
    const { selectionStart: from, selectionEnd: to, value } = this.field;
    const first = value.lastIndexOf("\n", from - 1) + 1;
    const end = value.indexOf("\n", to);
    const chosen = value.slice(first, end < 0 ? value.length : end).split("\n");
    return chosen.every((line) => /^ *#/.test(line) || !line.trim());
  }
}
