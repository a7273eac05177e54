// Python, NumPy and Triton's interpreter, away from the page, which can end them.
const home = new URL("../runtime/", self.location);
const version = new URL(self.location).searchParams.get("v");

// Whatever asks for a file: this site has all that there is.
const fetched = self.fetch.bind(self);
self.fetch = (what, options) => {
  const address = new URL(what.url ?? what, home);
  if (address.origin !== home.origin) {
    return Promise.reject(new TypeError(`Nothing is loaded from ${address.host}.`));
  }
  return fetched(what, options);
};
for (const name of ["XMLHttpRequest", "WebSocket", "EventSource", "WebTransport"]) {
  delete self[name];
}

const START = `
import os, sys
os.environ["TRITON_INTERPRET"] = "0"
sys.path.insert(0, "/lib/book")
from tilebook import browser
browser.start()
from tilebook.browser.running import run_json
run_json("import triton.language as tl", len)
`;
const STEPS = ["Python", "NumPy", "Triton", "the book's package"];
const step = (number) => {
  self.postMessage({ type: "loading", number, of: STEPS.length, what: STEPS[number] });
};

// Text goes to the page a few times a second, not once a word.
function speaker() {
  let kept = "";
  let last = 0;
  const flush = () => {
    if (kept) self.postMessage({ type: "said", text: kept });
    kept = "";
    last = performance.now();
  };
  const say = (text) => {
    kept += text;
    if (performance.now() - last > 80) flush();
  };
  return { say, flush };
}

async function archive(name) {
  const answer = await fetch(new URL(`${name}?v=${version}`, home));
  if (!answer.ok) throw new Error(`${name}: ${answer.status}`);
  return answer.arrayBuffer();
}

async function start() {
  step(0);
  const parts = [archive("triton.zip"), archive("tilebook.zip")];
  const { loadPyodide } = await import(new URL("pyodide.mjs", home));
  const python = await loadPyodide({ indexURL: home.href });
  step(1);
  await python.loadPackage("numpy", { messageCallback: () => {} });
  step(2);
  for (const part of await Promise.all(parts)) {
    python.unpackArchive(part, "zip", { extractDir: "/lib/book" });
  }
  step(3);
  python.runPython(START);
  return python.globals.get("run_json");
}

const ready = start();
ready.then(
  () => self.postMessage({ type: "ready" }),
  (error) => self.postMessage({ type: "broken", text: String(error.message ?? error) }),
);

self.onmessage = async ({ data }) => {
  const { say, flush } = speaker();
  try {
    const run = await ready;
    const result = run(data.source, say);
    flush();
    self.postMessage({ type: "done", result: JSON.parse(result) });
  } catch (error) {
    flush();
    // Python itself has ended, as when memory runs out.
    self.postMessage({ type: "broken", text: String(error.message ?? error) });
  }
};
