"use strict";
// Makes the page easier to inspect: tables that sort, values beside the pointer, images enlarged. Without this script
// nothing is missing, only less handy. Everything from the data is set as text or copied as a node, never as markup.

const LEAST_ROWS = 3; // a table with fewer is read as quickly as it is sorted
const GAP = 14; // pixels between the pointer and its values

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(className, text, pressed) {
  const made = element("button", className, text);
  made.type = "button";
  made.addEventListener("click", pressed);
  return made;
}

// --- tables: a click on a head sorts by its column: upwards, downwards, and back to the order of the page

function numberIn(text) {
  // The number that the text begins with, but for a mark; what follows may be an interval or a unit.
  const found = text.replaceAll(",", "").replaceAll("−", "-").match(/^†?\s*([+-]?\d+(\.\d+)?(e-?\d+)?)/);
  return found ? Number(found[1]) : null;
}

function valuesOf(rows, column) {
  const texts = rows.map((row) => row.cells[column]?.textContent.trim() ?? "");
  if (column === 0) return texts;
  const numbers = texts.map(numberIn);
  // A dash stands for a value that is not there; words in a column make it one of words.
  const isNumeric = texts.every((text, place) => numbers[place] !== null || !/\p{L}/u.test(text));
  return isNumeric ? numbers : texts;
}

const collator = new Intl.Collator(undefined, { numeric: true });

function compared(one, other) {
  return typeof one === "number" ? one - other : collator.compare(one, other);
}

function sortBy(table, head, original) {
  const next = { ascending: "descending", descending: "" };
  const now = head.getAttribute("aria-sort");
  const direction = now in next ? next[now] : "ascending";
  for (const other of table.tHead.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
  if (direction) head.setAttribute("aria-sort", direction);

  const values = valuesOf(original, head.cellIndex);
  const sign = direction === "descending" ? -1 : 1;
  const order = original.map((_, place) => place);
  if (direction) {
    order.sort((a, b) => {
      const [one, other] = [values[a], values[b]];
      // What has no value comes last, whichever way.
      if (one === null || other === null) return (one === null) - (other === null) || a - b;
      return sign * compared(one, other) || a - b;
    });
  }
  table.tBodies[0].append(...order.map((place) => original[place]));
}

function makeSortable(table) {
  const original = [...table.tBodies[0].rows];
  if (original.length < LEAST_ROWS) return;
  for (const head of table.tHead.rows[0].cells) {
    if (!head.textContent.trim()) continue;
    const made = button("sort", "", () => sortBy(table, head, original));
    made.append(...head.childNodes);
    head.append(made);
  }
}

// --- values beside the pointer, in place of the browser's own, which are slow and out of reach of a finger

const tip = element("div", "tip");
let held = null; // what the tip is about: its title is taken away meanwhile, or the browser would show it too

function titleNode(target) {
  // In SVG the title is an element: a shape's own, or that of the group around it.
  for (let shape = target; shape instanceof SVGElement; shape = shape.parentNode) {
    const first = shape.firstElementChild;
    if (first?.localName === "title") return first;
  }
  return null;
}

function letGo() {
  if (!held) return;
  held.restore();
  held = null;
  tip.hidden = true;
}

function hold(event) {
  letGo();
  const node = titleNode(event.target);
  const owner = event.target.closest("[title]");
  const text = node ? node.textContent : owner?.title;
  if (!text) return;
  if (node) {
    node.textContent = "";
    held = { restore: () => { node.textContent = text; } };
  } else {
    owner.removeAttribute("title");
    held = { restore: () => { owner.title = text; } };
  }
  tip.textContent = text;
  (dialog.open ? dialog : document.body).append(tip); // above everything, also above the enlarged image
  tip.hidden = false;
  follow(event);
}

function follow(event) {
  if (!held) return;
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.min(event.clientX + GAP, innerWidth - width - GAP);
  const isLow = event.clientY + GAP + height > innerHeight;
  tip.style.left = `${Math.max(GAP / 2, left)}px`;
  tip.style.top = `${isLow ? Math.max(0, event.clientY - GAP - height) : event.clientY + GAP}px`;
}

function prepareTips() {
  tip.hidden = true;
  tip.ariaHidden = "true"; // a screen reader reads the titles themselves
  document.addEventListener("pointerover", hold);
  document.addEventListener("pointermove", follow);
  document.documentElement.addEventListener("pointerleave", letGo);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") letGo();
  });
}

// --- images: a click enlarges; arrow keys go on to the next, Escape closes

const links = [...document.querySelectorAll("a.enlarge")];
const dialog = element("dialog", "large");
const place = element("p", "place");
const content = element("div", "content");
let opened = 0;

function open(number) {
  opened = number;
  const tile = links[number].closest("li");
  const images = element("div", "images");
  for (const small of links[number].querySelectorAll("img")) {
    const image = small.cloneNode();
    image.removeAttribute("title");
    images.append(image);
  }
  const words = tile.querySelector("dl").cloneNode(true);
  content.replaceChildren(images, words, element("p", "id", tile.dataset.name));
  place.textContent = `${number + 1} of ${links.length}`;
  dialog.ariaLabel = `Image ${tile.dataset.name}`;
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}

function step(by) {
  open((opened + by + links.length) % links.length);
}

function prepareImages() {
  if (!links.length) return;
  const bar = element("div", "actions");
  bar.append(
    place,
    button("", "Previous", () => step(-1)),
    button("", "Next", () => step(1)),
    button("", "Close", () => dialog.close()),
  );
  dialog.append(bar, content);
  document.body.append(dialog);
  links.forEach((link, number) => {
    link.ariaHasPopup = "dialog";
    link.addEventListener("click", (event) => {
      event.preventDefault();
      open(number);
    });
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  // Of the clicks outside of its content, only those on its backdrop have the dialog itself as their target.
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
  // Whoever has gone on to another image is where that one is.
  dialog.addEventListener("close", () => links[opened].focus());
}

for (const table of document.querySelectorAll("table.sortable")) makeSortable(table);
prepareTips();
prepareImages();
