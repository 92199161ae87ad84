// @ts-check
"use strict";

/**
 * What all pages share. A page is several such files joined into one script. Data flows one way: `content` (what was
 * measured) and `state` (what is shown, mirrored in the address) go into drawing functions; events change `state` and call
 * `render`. All text enters through `textContent` or a canvas. Each page has a `state`, `fromAddress` and `render` of its own.
 */

const content = JSON.parse(document.getElementById("content").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

/** @param {string} tag @param {string} [text] @param {string} [name] @returns {any} */
function element(tag, text, name) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  return made;
}

/** The heading of a table's row. @param {string} [text] @returns {any} */
const rowHeading = (text) => Object.assign(element("th", text), { scope: "row" });

/** The entries of a list: what each pair is called, and what it is. @param {any[][]} pairs */
const definitions = (pairs) => pairs.flatMap(([name, words]) => [element("dt", name), element("dd", words)]);

/** Show which of some choices is made. @param {string} name @param {string} value */
function check(name, value) {
  for (const input of /** @type {any} */ (document.getElementsByName(name))) input.checked = input.value === value;
}

/** Which way each arrow key goes: to the right, and down. */
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

/** What drawings are written in; the address of it would be one more that this page has no need to name. */
const DRAWING = document.querySelector("svg").namespaceURI;

/** An element of a drawing. @param {string} tag @param {Record<string, string | number>} [attributes] @param {...any} children @returns {any} */
function drawn(tag, attributes = {}, ...children) {
  const made = document.createElementNS(DRAWING, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, String(value));
  made.append(...children);
  return made;
}

// ---- the address ---------------------------------------------------------------------------------------------------------

/** Show what the address asks for, now and whenever somebody edits it. */
function followAddress() {
  Object.assign(state, fromAddress());
  render();
  addEventListener("hashchange", () => {
    const before = { ...state };
    Object.assign(state, fromAddress());
    render(before);
  });
}

/** Put what is shown into the address. @param {string} hash */
function setAddress(hash) {
  if (location.protocol === "about:") return; // in a notebook's frame, which has no address of its own
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// ---- numbers -------------------------------------------------------------------------------------------------------------

/** Bytes of a base64 text. @param {string} text */
const bytesOf = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

/** Codes as `packed` of encoding.py wrote them: low bytes, then high bytes. @param {string} text */
async function unpack(text) {
  const stream = new Blob([bytesOf(text)]).stream().pipeThrough(new DecompressionStream("deflate"));
  const planes = new Uint8Array(await new Response(stream).arrayBuffer());
  const half = planes.length / 2;
  const codes = new Uint16Array(half);
  for (let i = 0; i < half; i++) codes[i] = planes[i] | (planes[half + i] << 8);
  return codes;
}

/** What a code stands for. */
const VALUES = Float32Array.from({ length: 65536 }, (_, code) =>
  code === 0 ? 0 : 2 ** ((code - 1) / content.coding.steps + content.coding.floor),
);

// ---- words ---------------------------------------------------------------------------------------------------------------

/** @param {number} value @param {number} [digits] */
function figures(value, digits = 3) {
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    const [digit, power] = value.toExponential(digits - 1).split("e");
    return `${digit.replace("-", "−")}·10${[...String(Number(power))].map((c) => (c === "-" ? "⁻" : "⁰¹²³⁴⁵⁶⁷⁸⁹"[Number(c)])).join("")}`;
  }
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "−");
}
const percent = (value) => (value > 0 && value < 5e-5 ? "< 0.01 %" : `${figures(100 * value)} %`);
const weight = (value) => (value >= 1e-3 || value === 0 ? percent(value) : figures(value, 2));
const times = (value) => (value > 0 && value < 0.1 ? `1/${figures(1 / value, 2)}` : `${figures(value)}×`);

/** @param {{unit: string}} statistic @param {number} value */
function worded(statistic, value) {
  if (statistic.unit === "share") return percent(value);
  if (statistic.unit === "times") return times(value);
  return statistic.unit ? `${figures(value)} ${statistic.unit}` : figures(value);
}

/** @param {string} text @param {number} length */
function shortened(text, length) {
  const characters = [...text];
  return characters.length > length ? `${characters.slice(0, length - 1).join("")}…` : text;
}

/** Put the card beside something. @param {any} card @param {DOMRect} box */
function beside(card, box) {
  const [width, height] = [card.offsetWidth, card.offsetHeight];
  const right = box.right + 12 + width < innerWidth;
  card.style.left = `${Math.max(8, right ? box.right + 12 : box.left - 12 - width)}px`;
  card.style.top = `${Math.max(8, Math.min(innerHeight - height - 8, box.top - 30))}px`;
}
