// As much of a browser as the attention page needs. Reads {data, script, steps} from stdin, runs the script, picks
// what the steps say, and prints the tables as texts and which elements were made.
"use strict";
const given = JSON.parse(require("fs").readFileSync(0, "utf8"));
const made = {};

class Element {
  constructor(name) { this.name = name; this.children = []; this.text = ""; this.style = {}; this.heard = {}; this.value = ""; }
  set textContent(text) { this.text = String(text); this.children = []; }
  get textContent() { return this.text + this.children.map((child) => child.textContent).join(""); }
  setAttribute(key, value) { this[key] = value; }
  append(...children) { this.children.push(...children); }
  replaceChildren(...children) { this.children = children; }
  addEventListener(event, heard) { this.heard[event] = heard; }
}

const known = {};
for (const id of ["data", "part", "layer", "head", "from", "to", "sink", "about", "matrix", "row", "finder", "patterns", "meaning"]) {
  known[id] = new Element(id);
}
known.data.textContent = given.data;
const document = {
  getElementById: (id) => known[id],
  createElement: (name) => { made[name] = (made[name] || 0) + 1; return new Element(name); },
};
new Function("document", "atob", given.script)(document, (text) => Buffer.from(text, "base64").toString("latin1"));
for (const [id, value] of given.steps) {
  if (id === "sink") known.sink.checked = true; else known[id].value = value;
  known[id].heard.change();
}
const last = known.matrix.children[known.matrix.children.length - 1];
last.heard.mouseenter();
if (!known.row.textContent.includes("looks at")) throw new Error("no row is shown under the pointer");
const table = (id) => known[id].children.map((line) => line.children.length ? line.children.map((cell) => cell.textContent) : [line.textContent]);
console.log(JSON.stringify({ matrix: table("matrix"), finder: table("finder"), patterns: table("patterns"), made }));
