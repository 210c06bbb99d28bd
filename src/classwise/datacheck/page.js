"use strict";
// Shows the findings of a check. Everything from the data is set as text (textContent, alt, value), never as markup.

const data = JSON.parse(byId("data").textContent);
const CARDS_A_BLOCK = 24; // as many rows of cards in one, two, three and four columns
const MARGIN = 1500; // pixels around the window in which cards are built
const WIDE = 4; // a card with more images takes the whole width

const filter = { severities: new Set(), kinds: new Set(), class: "", split: "", text: "" };
let order = "worst";
let shown = data.findings.map((_, place) => place); // places of findings, filtered and ordered
let current = -1; // place in `shown` of the finding that is marked
let opened = 0; // and of the one that is enlarged
let blockHeight = 2800; // pixels, of a block that has not been built yet
const imageBlocks = new Map();

const searchTexts = data.findings.map((finding) =>
  [...finding.rows.map((row) => data.rows[row].id), ...finding.others].join("\n").toLowerCase(),
);

// --- building elements

function byId(id) {
  return document.getElementById(id);
}

function element(tag, { className = "", text = "", children = [] } = {}) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

function button(text, pressed) {
  const made = element("button", { text });
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

// A name that may be wrapped behind its separators; a long one is cut in the middle, since paths differ at their ends.
function nameParts(name, most) {
  const kept = most - 14;
  const text = name.length > most ? `${name.slice(0, 13)}…${name.slice(-kept)}` : name;
  return text.split(/(?<=\/)/).flatMap((part) => [part, document.createElement("wbr")]);
}

function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

// --- images: a block of them is decoded when the first of it is shown

function imageOf(row) {
  const block = Math.floor(row / data.rows_a_block);
  if (!imageBlocks.has(block)) {
    imageBlocks.set(block, JSON.parse(byId(`images-${block}`).textContent));
  }
  return imageBlocks.get(block)[row % data.rows_a_block];
}

function labelText(place) {
  const { target, label } = data.classes[place];
  return data.targets > 1 ? `${target}: ${label}` : label;
}

function figure(row, rows, enlarge) {
  const { id, split, labels, why } = data.rows[row];
  const uri = imageOf(row);
  let image;
  if (uri) {
    image = element("img", { className: uri.startsWith("data:image/png") ? "small" : "" });
    image.src = uri;
    image.alt = `Image of row ${id}`;
    image.decoding = "async";
  } else {
    image = element("span", { className: "missing", text: why });
  }
  if (enlarge) {
    const enlarging = button("", enlarge);
    enlarging.title = "Enlarge";
    enlarging.append(image);
    if (!uri) enlarging.setAttribute("aria-label", `Row ${id}: ${why}`);
    image = enlarging;
  }
  const most = enlarge ? (rows.length > 2 ? 34 : 48) : Infinity;
  const name = element("bdi", { className: "id", children: nameParts(id, most) });
  name.title = id;
  const caption = element("figcaption", { children: [name] });
  if (split >= 0) {
    caption.append(element("div", { className: "of", children: [element("bdi", { text: data.splits[split] })] }));
  }
  for (const label of labels) {
    // What the rows do not have in common stands out.
    const differs = rows.some((other) => !data.rows[other].labels.includes(label));
    const text = element("bdi", { className: differs ? "other" : "", text: labelText(label) });
    caption.append(element("div", { className: "of", children: [text] }));
  }
  return element("figure", { children: [image, caption] });
}

function images(finding, enlarge) {
  const { rows } = finding;
  const size = rows.length > WIDE ? " many" : rows.length > 2 ? " three" : "";
  return element("div", {
    className: `images${size}`,
    children: rows.map((row) => figure(row, rows, enlarge)),
  });
}

function title(finding) {
  const [severity, word] = data.severities[finding.severity];
  const made = element("h3", {
    children: [
      element("span", { className: `tag ${severity}`, text: word }),
      element("span", { text: data.kinds[finding.kind] }),
    ],
  });
  if (finding.shown_value) {
    const value = element("span", { className: "value", text: finding.shown_value });
    value.title = "The number by which findings of this kind are ranked";
    made.append(value);
  }
  return made;
}

function facts(finding) {
  const made = element("dl", { className: "facts" });
  for (const [name, text] of finding.facts) {
    made.append(element("dt", { text: name }), element("dd", { children: [element("bdi", { text })] }));
  }
  return made;
}

function content(finding, enlarge) {
  const words = [element("p", { className: "advice", children: [element("bdi", { text: finding.advice })] })];
  if (finding.not_shown) {
    words.unshift(element("p", { className: "more", text: `and ${count(finding.not_shown, "more row")}` }));
  }
  // On a card with several images there is no room for facts; enlarged it shows them.
  if (finding.facts.length && (!enlarge || finding.rows.length < 2)) words.push(facts(finding));
  if (!finding.rows.length) return [title(finding), ...words];
  const shownImages = images(finding, enlarge);
  if (finding.rows.length > 1) return [title(finding), shownImages, ...words];
  // A single image leaves room for the words beside it.
  shownImages.append(element("div", { children: words }));
  return [title(finding), shownImages];
}

// --- the list: cards are built a block at a time near the window, and removed again far from it

function card(position) {
  const finding = data.findings[shown[position]];
  const made = element("article", {
    className: finding.rows.length > WIDE ? "card wide" : "card",
    children: content(finding, () => open(position)),
  });
  made.tabIndex = -1;
  made.dataset.position = position;
  made.setAttribute("aria-label", `Finding ${position + 1} of ${shown.length}`);
  made.addEventListener("focusin", () => {
    current = position;
  });
  return made;
}

function build(block) {
  if (block.childElementCount) return;
  const start = Number(block.dataset.start);
  const end = Math.min(start + CARDS_A_BLOCK, shown.length);
  for (let position = start; position < end; position += 1) block.append(card(position));
  block.style.minHeight = "";
}

function clear(block) {
  if (!block.childElementCount || block.contains(document.activeElement)) return;
  block.style.minHeight = `${block.offsetHeight}px`;
  block.replaceChildren();
}

const observer = new IntersectionObserver(
  (entries) => {
    for (const { isIntersecting, target } of entries) (isIntersecting ? build : clear)(target);
  },
  { rootMargin: `${MARGIN}px 0px` },
);

function showList() {
  observer.disconnect();
  const blocks = [];
  for (let start = 0; start < shown.length; start += CARDS_A_BLOCK) {
    const block = element("div", { className: "block" });
    block.dataset.start = start;
    block.style.minHeight = `${blockHeight}px`;
    blocks.push(block);
  }
  byId("list").replaceChildren(...blocks);
  if (blocks.length) {
    build(blocks[0]);
    if (blocks.length > 1) {
      blockHeight = blocks[0].offsetHeight;
      for (const block of blocks.slice(1)) block.style.minHeight = `${blockHeight}px`;
    }
  }
  for (const block of blocks) observer.observe(block);
  current = -1;
  byId("status").textContent = statusText(count(data.findings.length, "finding"));
}

function statusText(all) {
  if (shown.length === data.findings.length) return all;
  return shown.length ? `${shown.length.toLocaleString("en")} of ${all}` : `None of ${all} is like that.`;
}

function cardAt(position) {
  const block = byId("list").children[Math.floor(position / CARDS_A_BLOCK)];
  build(block);
  return block.children[position % CARDS_A_BLOCK];
}

// --- filters

function matches(finding, place) {
  if (filter.severities.size && !filter.severities.has(finding.severity)) return false;
  if (filter.kinds.size && !filter.kinds.has(finding.kind)) return false;
  if (filter.text && !searchTexts[place].includes(filter.text)) return false;
  if (filter.class !== "") {
    const wanted = Number(filter.class);
    if (!finding.rows.some((row) => data.rows[row].labels.includes(wanted))) return false;
  }
  if (filter.split === "across") {
    return new Set(finding.rows.map((row) => data.rows[row].split)).size > 1;
  }
  return filter.split === "" || finding.rows.some((row) => data.rows[row].split === Number(filter.split));
}

function firstId(finding) {
  return finding.rows.length ? data.rows[finding.rows[0]].id : "";
}

const ORDERS = {
  worst: (a, b) => a - b,
  kind: (a, b) => data.findings[a].kind - data.findings[b].kind || a - b,
  value: (a, b) => (data.findings[b].value ?? -Infinity) - (data.findings[a].value ?? -Infinity) || a - b,
  id: (a, b) => {
    const [one, other] = [firstId(data.findings[a]), firstId(data.findings[b])];
    return one < other ? -1 : one > other ? 1 : a - b;
  },
};

function update() {
  shown = [];
  data.findings.forEach((finding, place) => {
    if (matches(finding, place)) shown.push(place);
  });
  shown.sort(ORDERS[order]);
  for (const [name, numbers] of [["severities", filter.severities], ["kind-buttons", filter.kinds]]) {
    for (const made of byId(name).children) {
      made.setAttribute("aria-pressed", String(numbers.has(Number(made.dataset.number))));
    }
  }
  // Whoever is far down the list would otherwise look at its end, or below it.
  const top = byId("browser").getBoundingClientRect().top;
  showList();
  if (top < 0) byId("browser").scrollIntoView();
}

function toggle(numbers, number) {
  if (!numbers.delete(number)) numbers.add(number);
  update();
}

function reset() {
  filter.severities.clear();
  filter.kinds.clear();
  filter.class = "";
  filter.split = "";
  filter.text = "";
  order = "worst";
  for (const id of ["search", "class", "split"]) byId(id).value = "";
  byId("order").value = order;
  update();
}

function addToggles(id, names, key, numbers) {
  names.forEach((name, number) => {
    const total = data.findings.filter((finding) => finding[key] === number).length;
    if (!total) return;
    const made = button("", () => toggle(numbers, number));
    const hint = key === "severity" ? name[0].toLowerCase() : number < 9 ? String(number + 1) : "";
    const words = element("span", { children: hint ? [element("kbd", { text: hint }), name] : [name] });
    made.append(words, element("span", { className: "n", text: total.toLocaleString("en") }));
    made.dataset.number = number;
    made.setAttribute("aria-pressed", "false");
    byId(id).append(made);
  });
}

function addOptions(select, names) {
  for (const [value, text] of names) {
    const option = element("option", { text });
    option.value = value;
    select.append(option);
  }
}

function prepareFilters() {
  addToggles("severities", data.severities.map(([, word]) => word), "severity", filter.severities);
  addToggles("kind-buttons", data.kinds, "kind", filter.kinds);
  const offered = data.classes.map((_, place) => place).filter((place) => data.classes[place].offered);
  addOptions(byId("class"), offered.map((place) => [place, labelText(place)]));
  addOptions(byId("split"), data.splits.map((name, place) => [place, name]));
  byId("class-filter").hidden = offered.length < 2;
  byId("split-filter").hidden = data.splits.length < 2;
  for (const name of ["class", "split"]) {
    byId(name).addEventListener("change", (event) => {
      filter[name] = event.target.value;
      update();
    });
  }
  byId("order").addEventListener("change", (event) => {
    order = event.target.value;
    update();
  });
  byId("search").addEventListener("input", (event) => {
    filter.text = event.target.value.toLowerCase();
    update();
  });
  byId("reset").addEventListener("click", reset);
  byId("show-keys").addEventListener("click", () => byId("keys").showModal());
  byId("keys-close").addEventListener("click", () => byId("keys").close());
}

// --- going through the findings

function isInView(made) {
  const { top, bottom } = made.getBoundingClientRect();
  return bottom > 0 && top < innerHeight;
}

function move(step) {
  if (!shown.length) return;
  // Whoever has scrolled away goes on from there, not from what was marked before.
  const built = [...document.querySelectorAll(".card")];
  const marked = built.find((made) => Number(made.dataset.position) === current);
  if (marked && isInView(marked)) mark(current + step);
  else mark(Number((built.find(isInView) ?? cardAt(0)).dataset.position));
}

function mark(position) {
  current = Math.min(Math.max(position, 0), shown.length - 1);
  const marked = cardAt(current);
  marked.scrollIntoView({ block: "nearest" });
  marked.focus({ preventScroll: true });
}

function columns() {
  // Of the grid: cards beside the first one have its top.
  const block = byId("list").children[Math.floor(current / CARDS_A_BLOCK)];
  return getComputedStyle(block).gridTemplateColumns.split(" ").length;
}

function open(position) {
  opened = position;
  const finding = data.findings[shown[position]];
  byId("large-place").textContent = `Finding ${(position + 1).toLocaleString("en")} of ${shown.length.toLocaleString("en")}`;
  byId("large-content").replaceChildren(...content(finding, null));
  byId("large-content").firstChild.id = "large-title";
  byId("large-previous").disabled = position === 0;
  byId("large-next").disabled = position === shown.length - 1;
  const dialog = byId("large");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  const position = opened + by;
  if (position >= 0 && position < shown.length) open(position);
}

function prepareDialog() {
  byId("large-previous").addEventListener("click", () => step(-1));
  byId("large-next").addEventListener("click", () => step(1));
  byId("large-close").addEventListener("click", () => byId("large").close());
  // The browser gives the focus back to the card that was left; the one looked at last is marked.
  byId("large").addEventListener("close", () => mark(opened));
}

// --- keys

const MOVES = { j: 1, ArrowRight: 1, k: -1, ArrowLeft: -1 };

function focusOn(id) {
  byId("filters").open = true;
  byId(id).focus();
}

function press(id, number) {
  [...byId(id).children].find((made) => Number(made.dataset.number) === number)?.click();
}

function moveFromCard(key) {
  if (key === "ArrowDown") move(columns());
  else if (key === "ArrowUp") move(-columns());
  else if (key === "Home") mark(0);
  else if (key === "End") mark(shown.length - 1);
  else if (key === "Enter") open(current);
  else return false;
  return true;
}

function command(key) {
  if (key in MOVES) move(MOVES[key]);
  else if ("swi".includes(key)) press("severities", "swi".indexOf(key));
  else if (/^[1-9]$/.test(key)) press("kind-buttons", Number(key) - 1);
  else if (key === "0") reset();
  else if (key === "/") focusOn("search");
  else if (key === "c") focusOn("class");
  else if (key === "p") focusOn("split");
  else if (key === "o") focusOn("order");
  else if (key === "?") byId("keys").showModal();
  else return false;
  return true;
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  const { key, target } = event;
  let isDone = false;
  if (byId("large").open) {
    if (key in MOVES) {
      step(MOVES[key]);
      isDone = true;
    }
  } else if (target.matches("input, select")) {
    if (key === "Escape") target.blur();
  } else {
    isDone = (target.matches(".card") && moveFromCard(key)) || command(key);
  }
  if (isDone) event.preventDefault();
}

prepareFilters();
prepareDialog();
document.addEventListener("keydown", pressed);
// Beside the list the filters are always open; above it, where they would hide it, they are not.
const besideList = matchMedia("(min-width: 60.01rem)");
byId("filters").open = besideList.matches;
besideList.addEventListener("change", () => {
  byId("filters").open = besideList.matches;
});
byId("browser").hidden = false;
update();
