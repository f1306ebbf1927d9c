"use strict";
// Sends a file, shows the lines that come back.  The file's name stays in the browser; answers are escaped on the server.

const drop = document.querySelector("#drop");
const chosen = drop.querySelector("input");
const result = document.querySelector("#result");
const said = document.querySelector("#said");
const largest = Number(drop.dataset.bytes);
let running = null;  // what is being sent or answered

chosen.addEventListener("change", () => {
  if (chosen.files.length) read(chosen.files[0]);
  chosen.value = "";  // else the same file could not be chosen again
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();  // else the browser would open the file in the page's place
    drop.classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop" && event.dataTransfer.files.length) read(event.dataTransfer.files[0]);
  });
}

/** Sends one file and shows its answer as it comes; another file takes its place. */
async function read(file) {
  if (running) running.abort();
  const mine = running = new AbortController();
  const show = (...what) => { if (running === mine) put(file, ...what); };
  show(waiting("sending the file"));
  let last = null;
  try {
    if (file.size > largest) throw new Refusal(`A file must have at most ${largest / 2 ** 20} MB.`);
    if (!file.size) throw new Refusal("A file must not be empty.");
    const response = await fetch("read", {
      method: "POST", body: file, headers: { "Content-Type": "application/octet-stream" }, signal: mine.signal,
    });
    if (!response.ok) throw new Refusal((await response.json()).refused, response.status === 429);
    for await (const line of lines(response.body)) {
      if (line.refused) throw new Refusal(line.refused);
      if (line.step) last = line.step;
      if (line.html) show(answered(line), line.checked ? line.said : "");
      else if (line.before && last === "reading the file") show(waiting(`in line, ${line.before} before you`));
      else if (!("before" in line)) show(waiting(last));
      last = line.html ? (line.checked ? "done" : "checking") : last;
    }
    if (last !== "done") throw new Refusal("The connection ended before the answer was whole.", true);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (!(error instanceof Refusal)) error = new Refusal("The page's server could not be reached.", true);
    show(refused(error, file), `The file was not read. ${error.message}`);
  }
}

class Refusal extends Error {
  constructor(sentence, again = false) { super(sentence); this.again = again; }
}

/** Objects from lines of JSON. */
async function* lines(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const whole = (rest + value).split("\n");
    rest = whole.pop();
    for (const line of whole) yield JSON.parse(line);
  }
}

/** Puts an element in the answer's place, with the file's name where it belongs, and says a sentence. */
function put(file, element, sentence = "") {
  for (const place of element.querySelectorAll(".file")) place.textContent = file.name;
  result.replaceChildren(element);
  said.textContent = sentence;
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

function waiting(step) {
  const element = box("box busy", text("strong", "", "file"), text("p", `${step} …`));
  element.setAttribute("aria-busy", "true");
  return element;
}

function refused(error, file) {
  const heading = text("h2", " was not read");
  heading.prepend(text("span", "", "file"));
  const element = box("box bad", heading, text("p", error.message), text("p", "Nothing was computed."));
  if (error.again) {
    const button = text("button", "Try again");
    button.addEventListener("click", () => read(file));
    element.append(button);
  }
  return element;
}

function answered(line) {
  const element = document.createElement("div");
  element.innerHTML = line.html;
  return element;
}
