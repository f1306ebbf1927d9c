"use strict";
// Sends files, one after the other, and shows the lines that come back.  A file's name stays in the browser; answers are
// escaped on the server.

const drop = document.querySelector("#drop");
const chosen = drop.querySelector("input");
const result = document.querySelector("#result");
const said = document.querySelector("#said");
const table = document.querySelector("#files");
const viewer = new Viewer(document.querySelector("#viewer"));
const largest = Number(drop.dataset.bytes);
let running = null;  // what is being sent or answered
let current = null;  // the file whose answer is in view
let chosenFinding = null;  // of several, the number of the one that is looked at
const rows = [];  // of the table: a file and what was found

chosen.addEventListener("change", () => {
  if (chosen.files.length) readAll([...chosen.files]);
  chosen.value = "";  // else the same file could not be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();  // else the browser would open the file in the page's place
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) readAll([...event.dataTransfer.files]);
  });
}
document.querySelector("#save").addEventListener("click", save);
document.querySelector("#print").addEventListener("click", () => window.print());
window.addEventListener("beforeprint", () => {
  document.querySelector("#printed").textContent = `Printed ${new Date().toLocaleString("en-GB")}`;
});

/** Reads files in a row; others take their place. */
async function readAll(files) {
  running?.abort();
  const mine = running = new AbortController();
  for (const [number, file] of files.entries()) {
    if (mine.signal.aborted) return;
    await read(file, mine, files.length > 1 ? ` (${number + 1} of ${files.length})` : "");
  }
}

/** Sends one file and shows its answer as it comes. */
async function read(file, mine, which) {
  const show = (...what) => { if (running === mine) put(file, ...what); };
  viewer.clear();
  show(waiting(`sending the file${which}`), "Reading a file.");
  let last = null;
  try {
    if (file.size > largest) throw new Refusal(`A file must have at most ${largest / 2 ** 20} MB.`);
    if (!file.size) throw new Refusal("A file must not be empty.");
    const response = await fetch("read", {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: mine.signal,
    });
    if (!response.ok) throw new Refusal((await response.json()).refused, response.status === 429);
    let picture = null, parts = [];
    for await (const line of lines(response.body)) {
      if (line.refused) throw new Refusal(line.refused);
      if (line.picture) picture = line.picture;
      else if (line.part) parts.push(Uint8Array.from(atob(line.part), (letter) => letter.charCodeAt(0)));
      else if (line.html) {
        show(answered(line), line.checked ? line.said : "");
        last = line.checked ? "done" : "checking";
        if (line.checked) note(file, { found: line.numbers });
      } else if (line.step) {
        last = line.step;
        if (parts.length && running === mine) {
          await viewer.load(picture, new Blob(parts, { type: "image/png" }));
          parts = [];
        }
        show(waiting(last + which));
      } else if (line.before && last === "reading the file") show(waiting(`in line, ${line.before} before you`));
    }
    if (last !== "done") throw new Refusal("The connection ended before the answer was whole.", true);
  } catch (error) {
    if (error.name === "AbortError" || running !== mine) return;
    if (!(error instanceof Refusal)) error = new Refusal("The page's server could not be reached.", true);
    viewer.clear();
    note(file, { refused: error.message });
    show(refused(error, file), `The file was not read. ${error.message}`);
  }
}

class Refusal extends Error {
  constructor(sentence, again = false) { super(sentence); this.again = again; }
}

/** Objects from lines of JSON. */
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = [];
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const [first, ...others] = value.split("\n");
    rest.push(first);
    for (const next of others) {
      yield JSON.parse(rest.join(""));
      rest = [next];
    }
  }
}

/** Puts an element in the answer's place, with the file's name where it belongs, and says a sentence. */
function put(file, element, sentence = "") {
  current = file;
  mark();
  for (const place of element.querySelectorAll(".file")) place.textContent = file.name;
  (element.querySelector("section.finding:not([hidden]) .place") ?? element.querySelector(".place") ?? element)
    .append(viewer.element);
  result.replaceChildren(element);
  viewer.later();
  if (sentence) said.textContent = sentence;
}

function box(className, ...children) {
  const element = document.createElement("div");
  element.className = className;
  element.append(...children);
  return element;
}

function text(tag, content, className = "") {
  const element = document.createElement(tag);
  element.textContent = content;
  element.className = className;
  return element;
}

function button(content, act) {
  const element = text("button", content);
  element.type = "button";
  element.addEventListener("click", act);
  return element;
}

function waiting(step) {
  const element = box("box busy", text("strong", "", "file"), text("p", `${step} …`));
  element.setAttribute("aria-busy", "true");
  return element;
}

function refused(error, file) {
  const heading = text("h2", " was not read");
  heading.prepend(text("span", "", "file"));
  const element = box("box bad", heading, text("p", error.message), text("p", "Nothing was computed."));
  if (error.again) element.append(button("Try again", () => readAll([file])));
  return element;
}

function answered(line) {
  const element = document.createElement("div");
  element.innerHTML = line.html;
  const choices = [...element.querySelectorAll("input[name=finding]")];
  if (choices.length) {
    const likeliest = line.numbers.reduce((most, one, at) => one.probability > line.numbers[most].probability ? at : most, 0);
    for (const [number, choice] of choices.entries()) {
      choice.addEventListener("change", () => { chosenFinding = number; choose(element, number); });
    }
    choose(element, chosenFinding ?? likeliest);
  } else {
    const map = element.querySelector("img.map");
    if (map) viewer.lay(map);
  }
  return element;
}

/** Shows the answer and the map of one of several findings. */
function choose(element, number) {
  const sections = [...element.querySelectorAll("section.finding")];
  for (const [at, section] of sections.entries()) section.hidden = at !== number;
  element.querySelectorAll("input[name=finding]")[number].checked = true;
  const place = sections[number].querySelector(".place");
  if (element.contains(viewer.element)) place.append(viewer.element);  // else `put` does, when the answer is shown
  viewer.lay(sections[number].querySelector("img.map"));
}

/** Writes a file's numbers, or why it has none, into the table. */
function note(file, found) {
  const known = rows.findIndex((row) => row.file === file);
  rows.splice(known < 0 ? rows.length : known, known < 0 ? 0 : 1, { file, ...found });
  table.hidden = false;
  table.querySelector("tbody").replaceChildren(...rows.map((row) => {
    const line = document.createElement("tr"), name = document.createElement("th");
    name.scope = "row";
    name.append(button(row.file.name, () => readAll([row.file])));
    const found = row.found ?? [], interval = (one) => `${percent(one.low)} to ${percent(one.high)}`;
    const numbers = found.length > 1 ? [box("several", ...found.map((one) => text("div",
      `${one.class} ${percent(one.probability)} (${interval(one)})`)))]
      : found.length ? [percent(found[0].probability), interval(found[0])] : ["not read", ""];
    const cells = numbers.map((content) => { const cell = text("td", ""); cell.append(content); return cell; });
    if (cells.length === 1) cells[0].colSpan = 2;
    line.append(name, ...cells, text("td", row.refused ?? remarks(found)));
    return line;
  }));
  mark();
}

/** Tells the row of the file in view from the others: a report is of one patient and names no other. */
function mark() {
  for (const [number, line] of [...table.querySelectorAll("tbody tr")].entries()) {
    line.classList.toggle("now", rows[number].file === current);
  }
}

/** What is to be said of a file's answers, each sentence once. */
function remarks(found) {
  return [...new Set(found.flatMap((one) => one.doubts))].join(" ");
}

function percent(share) {
  return share < 0.01 ? "under 1\u00a0%" : share > 0.99 ? "over 99\u00a0%" : `${Math.round(100 * share)}\u00a0%`;
}

/** Saves the table for a spreadsheet; what begins like a formula is made a text. */
function save() {
  const cell = (value) => {
    const written = String(value ?? ""), safe = /^[=+\-@\t\r]/.test(written) && isNaN(written) ? `'${written}` : written;
    return /[",\r\n']/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const names = ["file", "class", "probability", "interval_low", "interval_high", "remarks", "model", "note"];
  const lines = rows.flatMap((row) => (row.found ?? [{}]).map((one) => [row.file.name, one.class, one.probability,
    one.low, one.high, row.refused ?? one.doubts.join(" "), document.querySelector("h1").textContent, document.title]));
  const content = [names, ...lines].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(["\ufeff", content], { type: "text/csv;charset=utf-8" }));
  link.download = "radiographs.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
