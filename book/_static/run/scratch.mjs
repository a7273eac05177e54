// A program in a link, and a launch for a kernel that came without one.
const MARK = "p=";
const LAUNCH = "# A launch for the kernel above; change what doesn't fit.";

const bytes = (text) => new TextEncoder().encode(text);

async function through(stream, data) {
  const piped = new Blob([data]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(piped).arrayBuffer());
}

// The page's address with a program in its fragment, which no server is sent.
export async function linked(text) {
  const packed = await through(new CompressionStream("deflate-raw"), bytes(text));
  const letters = Array.from(packed, (byte) => String.fromCharCode(byte)).join("");
  const safe = btoa(letters).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  const address = new URL(location.href);
  address.hash = MARK + safe;
  return address.href;
}

// The program of a link, if there is one that can be read.
export async function received(hash = location.hash) {
  if (!hash.startsWith(`#${MARK}`)) return null;
  try {
    const safe = hash.slice(1 + MARK.length);
    const letters = atob(safe.replaceAll("-", "+").replaceAll("_", "/"));
    const packed = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const data = await through(new DecompressionStream("deflate-raw"), packed);
    return new TextDecoder().decode(data);
  } catch {
    return null;
  }
}

// The last kernel of a text: its name and its parameters.
export function kernel(text) {
  const found = [...text.matchAll(/^@triton\.jit.*\ndef (\w+)\(([^]*?)\)\s*:/gm)].at(-1);
  if (!found) return null;
  const plain = found[2].replace(/#.*$/gm, "");
  const parts = plain.split(",").map((part) => part.trim()).filter(Boolean);
  const parameters = parts.map((part) => ({
    name: part.match(/^\w+/)?.[0] ?? "",
    fixed: /constexpr/.test(part),
    given: /=/.test(part),
  }));
  return { name: found[1], parameters: parameters.filter(({ name }) => name) };
}

// Lines that launch a kernel on tensors of one shape.
export function launch(text, shape) {
  const found = kernel(text);
  if (!found) return null;
  const sizes = shape.split(/[\s,x×]+/).filter(Boolean).map(Number);
  if (!sizes.length || sizes.some((size) => !Number.isInteger(size) || size < 0)) return null;
  const listed = sizes.join(", ");
  const lines = [LAUNCH];
  const pointers = found.parameters.filter(({ name }) => /_ptr$|_desc$/.test(name));
  const into = pointers.filter(({ name }) => /^(out|z|c|y)_/.test(name)).slice(-1);
  const outputs = into.length ? into : pointers.slice(-1);
  const plain = (name) => name.replace(/_ptr$|_desc$/, "");
  for (const { name } of pointers) {
    const make = outputs.some((one) => one.name === name) ? "empty" : "normal";
    lines.push(`${plain(name)} = ${make}(${listed})`);
  }
  const count = sizes.reduce((a, b) => a * b, 1);
  const blocks = {};
  const last = sizes.at(-1);
  let strides = 0;
  const values = found.parameters.filter(({ given }) => !given).map(({ name, fixed }) => {
    if (pointers.some((one) => one.name === name)) return plain(name);
    if (fixed) {
      const power = 2 ** Math.ceil(Math.log2(Math.max(2, last)));
      blocks[name] = sizes.length > 1 ? Math.min(16, power) : Math.min(128, power);
      return `${name}=${blocks[name]}`;
    }
    if (/stride/.test(name) && pointers.length) {
      const of = pointers[Math.floor(strides / sizes.length) % pointers.length];
      return `${plain(of.name)}.stride(${strides++ % sizes.length})`;
    }
    if (sizes.length > 1 && /^(m|h|rows|M)$/.test(name)) return `${sizes[0]}`;
    if (sizes.length > 1) return `${last}`;
    return `${count}`;
  });
  const axes = new Set([...text.matchAll(/program_id\((?:axis=)?(\d)/g)].map((x) => +x[1]));
  const named = Object.values(blocks);
  const tiles = (size, block) => (block ? `cdiv(${size}, ${block})` : `${size}`);
  let grid = `(${tiles(count, named[0])},)`;
  if (sizes.length > 1) {
    const [rows, columns] = [tiles(sizes[0], named[0]), tiles(last, named[1] ?? named[0])];
    const flat = named.length > 1 ? `${rows} * ${columns}` : `${sizes[0]}`;
    grid = axes.has(1) ? `(${rows}, ${columns})` : `(${flat},)`;
  }
  lines.push(`${found.name}[${grid}](${values.join(", ")})`);
  lines.push(...outputs.map(({ name }) => `print(shown(${plain(name)}))`));
  return lines.join("\n");
}

// The text with its launch written anew.
export function withLaunch(text, shape) {
  const lines = launch(text, shape);
  if (lines === null) return null;
  const at = text.indexOf(LAUNCH);
  const above = (at < 0 ? text : text.slice(0, at)).trimEnd();
  const tools = "from tilebook.browser.bench import cdiv, empty, normal, shown";
  const head = above.includes(tools) ? "" : `${tools}\n`;
  const needed = ["import triton", "import triton.language as tl"];
  const missing = needed.filter((line) => !above.split("\n").includes(line));
  return `${missing.map((line) => `${line}\n`).join("")}${head}${above}\n\n\n${lines}\n`;
}
