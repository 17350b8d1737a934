"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const ALL = "mean";
const SHOWN = 15; // rows of the lists of heads

for (const part of data.parts) {
  const bytes = Uint8Array.from(atob(part.weights), (letter) => letter.charCodeAt(0));
  part.values = new DataView(bytes.buffer);
}

/** The weights of one query in one head, as the numbers of its keys; without sinks when `drop`. */
function rowOf(part, layer, head, query, drop) {
  const keys = part.keys.length;
  const start = ((layer * part.heads.length + head) * part.queries.length + query) * keys;
  const row = Array.from({ length: keys }, (_, i) => part.values.getUint16(2 * (start + i), true) / 65535);
  if (!drop) return { row, removed: 0 };
  let removed = 0;
  for (const sink of part.sinks) { removed += row[sink]; row[sink] = 0; }
  const rest = row.reduce((sum, value) => sum + value, 0);
  return { row: row.map((value) => (rest > 0 ? value / rest : 0)), removed };
}

/** The same for what is picked: one head, or the mean over heads and layers that stand for "mean". */
function pickedRow(part, query) {
  const layers = $("layer").value === ALL ? part.layers.map((_, i) => i) : [Number($("layer").value)];
  const heads = $("head").value === ALL ? part.heads.map((_, i) => i) : [Number($("head").value)];
  const sum = new Array(part.keys.length).fill(0);
  let removed = 0;
  for (const layer of layers) for (const head of heads) {
    const one = rowOf(part, layer, head, query, $("sink").checked);
    one.row.forEach((value, i) => { sum[i] += value; });
    removed += one.removed;
  }
  const count = layers.length * heads.length;
  return { row: sum.map((value) => value / count), removed: removed / count };
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function options(id, entries, chosen) {
  $(id).replaceChildren(...entries.map(([value, text]) => {
    const option = element("option", text, { value });
    if (String(value) === String(chosen)) option.setAttribute("selected", "");
    return option;
  }));
  $(id).value = String(chosen);
}

const part = () => data.parts[Number($("part").value)];
const heat = (cell, weight) => { cell.style.background = `rgba(var(--heat), ${(0.85 * weight).toFixed(3)})`; };
const headers = (names) => {
  const row = element("tr");
  row.append(...names.map((name) => element("th", name, { scope: "col" })));
  return row;
};

function showMatrix() {
  const now = part(), drop = $("sink").checked;
  const top = headers(["from \\ to", ...now.keys, ...(drop ? ["removed"] : [])]);
  if (drop) for (const sink of now.sinks) top.children[sink + 1].className = "sink";
  const rows = now.queries.map((label, query) => {
    const line = element("tr"), { row, removed } = pickedRow(now, query);
    line.append(element("th", label, { scope: "row", class: "left", tabindex: "0" }));
    row.forEach((weight, key) => {
      const cell = element("td", weight.toFixed(3));
      heat(cell, weight);
      cell.addEventListener("click", () => { $("from").value = String(query); $("to").value = String(key); showLists(); });
      line.append(cell);
    });
    if (drop) line.append(element("td", removed.toFixed(3)));
    for (const event of ["mouseenter", "focusin"]) line.addEventListener(event, () => showRow(query, line));
    return line;
  });
  $("matrix").replaceChildren(element("caption", "Weight from the token of the row to the token of the column"), top, ...rows);
  $("about").textContent = `${now.layers.length} layers, ${now.heads.length} of ${now.allHeads} heads` +
    (now.kvHeads < now.allHeads ? ` (${now.allHeads / now.kvHeads} neighbours share a key/value head)` : "") +
    (now.causal ? ". This model reads from left to right: no token sees a later one." : ".") +
    (drop ? " Sinks are struck out; the rest of every row sums to 1 again." : "");
}

/** The outgoing weights of the row under the pointer or the focus, strongest first. */
function showRow(query, line) {
  const now = part(), { row, removed } = pickedRow(now, query);
  for (const other of $("matrix").children) other.className = other === line ? "on" : "";
  const best = row.map((weight, key) => [weight, key]).sort((a, b) => b[0] - a[0]).slice(0, 8);
  $("row").textContent = `${now.queries[query]} looks at: ` +
    best.map(([weight, key]) => `${now.keys[key]} (${key}) ${weight.toFixed(3)}`).join(", ") +
    ($("sink").checked ? `; ${removed.toFixed(3)} was on sinks` : "");
}

function headRow(cells, layer, head) {
  const line = element("tr"), name = element("td"), now = part();
  const button = element("button", `${now.layers[layer]}.${now.heads[head]}`, { type: "button", "aria-label": `show layer ${now.layers[layer]}, head ${now.heads[head]}` });
  button.addEventListener("click", () => { $("layer").value = String(layer); $("head").value = String(head); showMatrix(); });
  name.append(button);
  line.append(name, ...cells.map((cell) => element("td", cell)));
  return line;
}

/** All heads by the weight between the two picked tokens. */
function showFinder() {
  const now = part(), query = Number($("from").value), key = Number($("to").value), drop = $("sink").checked;
  const found = [];
  now.layers.forEach((_, layer) => now.heads.forEach((_, head) => {
    const { row, removed } = rowOf(now, layer, head, query, drop);
    found.push([row[key], layer, head, removed]);
  }));
  found.sort((a, b) => b[0] - a[0]);
  const rows = found.slice(0, SHOWN).map(([weight, layer, head, removed]) =>
    headRow([weight.toFixed(3), ...(drop ? [removed.toFixed(3)] : [])], layer, head));
  $("finder").replaceChildren(headers(["layer.head", "weight", ...(drop ? ["removed"] : [])]), ...rows);
}

function showPatterns() {
  const now = part(), rows = [], names = Object.keys(now.scores);
  for (const name of names) {
    const found = now.scores[name].flatMap((row, layer) => row.map((score, head) => [score, layer, head]));
    found.sort((a, b) => b[0] - a[0]);
    for (const [score, layer, head] of found.slice(0, 3)) rows.push(headRow([name, score.toFixed(3)], layer, head));
  }
  $("patterns").replaceChildren(headers(["layer.head", "pattern", "score"]), ...rows);
  $("meaning").textContent = "Mean weight that goes " + names.map((name) => `${data.patterns[name]} (${name})`).join("; ") + ".";
}

function showLists() { showFinder(); showPatterns(); }

function choosePart() {
  const now = part(), last = now.queries.length - 1;
  options("layer", [...now.layers.map((layer, i) => [i, layer]), [ALL, "mean"]], now.layers.length - 1);
  options("head", [...now.heads.map((head, i) => [i, head]), [ALL, "mean"]], now.heads.length > 1 ? ALL : 0);
  options("from", now.queries.map((label, i) => [i, `${i} ${label}`]), Math.min(last, data.start.from ?? last));
  options("to", now.keys.map((label, i) => [i, `${i} ${label}`]), Math.min(now.keys.length - 1, data.start.to ?? 0));
  showMatrix();
  showLists();
  $("row").textContent = "";
}

$("sink").checked = Boolean(data.start.drop);
options("part", data.parts.map((one, i) => [i, one.part]), 0);
$("part").addEventListener("change", choosePart);
for (const id of ["layer", "head"]) $(id).addEventListener("change", showMatrix);
for (const id of ["from", "to"]) $(id).addEventListener("change", showLists);
$("sink").addEventListener("change", () => { showMatrix(); showLists(); });
choosePart();
