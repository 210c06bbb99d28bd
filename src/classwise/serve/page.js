"use strict";
// Images are sent one by one, a few at a time; the service joins those that wait. All text from outside becomes
// text nodes, never HTML.

const AT_ONCE = 4;
const TRIES = 8;
const SHOWN = 8; // bars before the rest is folded away
const RARE = 10; // training images below which a class is marked
const element = (id) => document.getElementById(id);
const state = { targets: {}, maxBytes: Infinity, waiting: [], running: 0, sent: 0, done: 0, failed: 0 };

function make(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) {
    node.textContent = text;
    node.dir = "auto";
  }
  return node;
}

function say(text) {
  element("problem").textContent = text;
  element("problem").hidden = !text;
}

async function readHealth() {
  const response = await fetch("health");
  if (!response.ok) throw new Error(`the service says ${response.status}`);
  const health = await response.json();
  state.targets = health.targets;
  state.maxBytes = health.max_bytes;
  element("model").textContent = health.model;
  document.title = `${health.model} · classwise`;
  const models = health.models > 1 ? `${health.models} models of ${health.backbone}` : health.backbone;
  const targets = Object.entries(health.targets).map(([name, target]) =>
    target.labels.length ? `${name} (${target.labels.length} labels)` : name);
  element("facts").textContent =
    `${models} · ${health.image_size.join(" × ")} pixels · ${targets.join(", ")} · classwise ${health.version}`;
}

// ---------------------------------------------------------------- images in

function add(files) {
  say("");
  const before = element("answers").firstChild; // the newest come first, in the order in which they were chosen
  for (const file of files) {
    const card = newCard(file);
    element("answers").insertBefore(card, before);
    state.sent += 1;
    if (file.size > state.maxBytes) {
      state.done += 1;
      showError(card, `${file.size.toLocaleString("en")} bytes; at most ${state.maxBytes.toLocaleString("en")} are taken`);
      continue;
    }
    state.waiting.push({ file, card });
  }
  element("controls").hidden = false;
  sendNext();
}

function sendNext() {
  while (state.running < AT_ONCE && state.waiting.length) {
    const { file, card } = state.waiting.shift();
    state.running += 1;
    send(file, card).finally(() => {
      state.running -= 1;
      state.done += 1;
      sendNext();
    });
  }
  const failed = state.failed ? `, ${state.failed} could not be used` : "";
  element("status").textContent = `${state.done - state.failed} of ${state.sent} images answered${failed}`;
}

async function send(file, card) {
  try {
    const answer = await ask(file);
    if (answer.error) showError(card, answer.error);
    else showAnswer(card, answer);
  } catch (error) {
    showError(card, error.message);
  }
}

async function ask(file) {
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    form.append("file", file, file.name || "pasted image");
    const response = await fetch("predict", { method: "POST", body: form });
    if (response.status === 503 && attempt < TRIES) {
      const seconds = Number(response.headers.get("Retry-After")) || 1;
      await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
      continue;
    }
    const body = await response.json().catch(() => ({})); // a proxy's refusals are no JSON
    if (body.images) return body.images[0];
    throw new Error(body.error || `the service says ${response.status}`);
  }
}

// ---------------------------------------------------------------- answers out

function newCard(file) {
  const card = make("article", "answer");
  const image = make("div", "image");
  const figure = make("figure");
  const preview = make("img");
  preview.alt = "";
  preview.src = URL.createObjectURL(file);
  preview.onload = () => URL.revokeObjectURL(preview.src);
  preview.onerror = () => figure.replaceChildren("no preview");
  figure.append(preview);
  image.append(figure, make("h2", "", file.name || "pasted image"));
  const result = make("div", "result", "waiting …");
  card.append(image, result);
  return card;
}

function showError(card, text) {
  state.failed += 1;
  card.classList.add("failed");
  card.querySelector(".result").replaceChildren(make("p", "problem", text));
}

function showAnswer(card, answer) {
  card.answer = answer;
  const result = card.querySelector(".result");
  const names = Object.keys(answer.targets);
  const parts = names.map((name) => targetPart(name, answer.targets[name]));
  if (answer.joint) {
    const p = answer.joint.probability === undefined ? "" : `, probability ${percent(answer.joint.probability)}`;
    parts.push(make("p", "joint soft", `joint class ${answer.joint.number}${p}${answer.joint.abstain ? ", not certain enough" : ""}`));
  }
  result.replaceChildren(...parts);
}

function targetPart(name, answer) {
  const part = make("section", "target");
  part.append(make("h3", "", name));
  const predicted = make("p", "predicted");
  part.append(predicted);
  if (answer.type === "regression" || answer.type === "ranking") {
    predicted.append(make("span", "", String(Number((answer.value ?? answer.score).toPrecision(6)))));
    return part;
  }
  const labels = answer.labels ?? [answer.label];
  predicted.append(make("span", "", labels.length ? labels.join(", ") : "none of the labels"));
  if (answer.probability !== undefined) predicted.append(" ", make("small", "", percent(answer.probability)));
  if (answer.abstain) part.append(make("p", "abstains", "less probable than decision.abstain asks for: look at it yourself"));
  part.append(...bars(name, answer, new Set(labels)));
  return part;
}

function bars(name, answer, predicted) {
  const counts = new Map(Object.entries(state.targets[name]?.training_images ?? {}));
  const rows = answer.top
    ? answer.top.map(({ label, probability }) => [label, probability])
    : Object.entries(answer.probabilities);
  const order = element("order").value;
  const labels = state.targets[name]?.labels ?? [];
  const place = new Map(labels.map((label, number) => [label, number]));
  const countOf = ([label]) => counts.get(label) ?? Number.MAX_VALUE; // the difference of two infinities is NaN
  if (order === "rarest") rows.sort((a, b) => countOf(a) - countOf(b) || b[1] - a[1]);
  else if (order === "probability") rows.sort((a, b) => b[1] - a[1]);
  else rows.sort((a, b) => (place.get(a[0]) ?? 0) - (place.get(b[0]) ?? 0));
  const items = rows.map(([label, p]) => bar(label, p, counts.get(label), predicted.has(label)));
  if (items.length <= SHOWN + 4) return [list(items)];
  const more = make("details");
  more.append(make("summary", "", `${items.length - SHOWN} further labels`), list(items.slice(SHOWN)));
  return [list(items.slice(0, SHOWN)), more];
}

function list(items) {
  const node = make("ul", "bars");
  node.append(...items);
  return node;
}

function bar(label, p, count, isPredicted) {
  const item = make("li", isPredicted ? "is-predicted" : "");
  const text = make("span");
  text.append(make("span", "label", label));
  if (count !== undefined) {
    text.append(" ", make("span", count < RARE ? "count rare" : "count", `trained on ${count.toLocaleString("en")}`));
  }
  const track = make("span", "track");
  const fill = make("div", "fill");
  fill.style.width = `${Math.max(0.4, 100 * p)}%`;
  track.append(fill);
  item.append(text, make("span", "p", percent(p)), track);
  return item;
}

function percent(p) {
  if (p > 0 && p < 0.0005) return "< 0.1%";
  if (p < 1 && p > 0.9995) return "> 99.9%";
  return `${(100 * p).toFixed(1)}%`;
}

// ---------------------------------------------------------------- events

element("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
element("order").addEventListener("change", () => {
  for (const card of element("answers").children) if (card.answer) showAnswer(card, card.answer);
});
element("clear").addEventListener("click", () => {
  state.waiting = [];
  state.sent = state.running;
  state.done = state.failed = 0;
  element("answers").replaceChildren();
  element("controls").hidden = true;
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  else say("Found no file in what was dropped; images of other pages have to be saved first.");
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) add(event.clipboardData.files);
});
readHealth().catch((error) => say(`The service cannot be reached: ${error.message}`));
