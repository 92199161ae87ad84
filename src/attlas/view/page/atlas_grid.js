// @ts-check

/** The grid of all heads of an atlas, and what the pointer shows of one. */

/** @returns {Head[]} */
function ordered() {
  if (state.order === "layer") return heads;
  const [name, rising] = state.order.startsWith("-") ? [state.order.slice(1), true] : [state.order, false];
  const value = (head) => head.layer.values[name][head.index];
  return [...heads].sort((a, b) => (rising ? value(a) - value(b) : value(b) - value(a)));
}

/** @type {Map<string, HTMLButtonElement>} */
const buttons = new Map();
let columns = 1; // heads in a row of the grid, for the arrow keys
/** @type {Head[][]} */
let table2d = [];

function layOut() {
  const grid = byId("grid");
  const room = grid.clientWidth;
  const numbers = [...new Set(heads.map((head) => head.number))].sort((a, b) => a - b);
  const aligned = state.order === "layer";
  const gap = 4;
  const labels = [];
  let cell, across;
  if (aligned) {
    const [left, top] = [44, 34];
    const most = state.size === "large" ? 168 : Math.max(40, (innerHeight - grid.getBoundingClientRect().top - scrollY - 120) / numbers.length);
    const wide = Math.floor((room - left) / layers.length) - gap;
    across = state.size === "fit" && wide >= 24 && layers.length >= numbers.length;
    const counts = across ? [layers.length, numbers.length] : [numbers.length, layers.length];
    cell = Math.max(12, Math.min(Math.floor((room - left) / counts[0]) - gap, Math.floor(most)));
    const pitch = cell + gap;
    table2d = Array.from({ length: counts[1] }, () => new Array(counts[0]));
    layers.forEach((layer, l) =>
      layer.headNumbers.forEach((number) => {
        const [x, y] = across ? [l, numbers.indexOf(number)] : [numbers.indexOf(number), l];
        const head = heads.find((h) => h.layer === layer && h.number === number);
        table2d[y][x] = head;
        put(buttons.get(head.label), left + x * pitch, top + y * pitch, cell, cell);
      }),
    );
    const names = across ? ["layer →", "head ↓"] : ["head →", "layer ↓"];
    labels.push(label(names[0], left, 0), label(names[1], 0, top - 15));
    const step = Math.ceil(20 / pitch);
    (across ? layers.map((l) => l.layer) : numbers).forEach((n, i) => i % step === 0 && labels.push(label(String(n), left + i * pitch + cell / 2, 19, "middle")));
    (across ? numbers : layers.map((l) => l.layer)).forEach((n, i) => labels.push(label(String(n), left - 8, top + i * pitch + cell / 2 - 6, "end")));
    grid.style.height = `${top + counts[1] * pitch}px`;
  } else {
    const wanted = state.size === "large" ? 132 : 52;
    const list = ordered();
    columns = Math.max(1, Math.floor((room + gap) / (wanted + gap)));
    cell = Math.floor((room + gap) / columns) - gap;
    const height = cell + 18;
    const statistic = content.statistics.find((s) => s.name === state.order.replace("-", ""));
    table2d = [];
    list.forEach((head, i) => {
      const [x, y] = [(i % columns) * (cell + gap), Math.floor(i / columns) * height];
      (table2d[Math.floor(i / columns)] ||= []).push(head);
      put(buttons.get(head.label), x, y, cell, cell);
      const value = worded(statistic, head.layer.values[statistic.name][head.index]);
      const name = `L${head.layer.layer}·H${head.number}`;
      labels.push(label(cell > 90 ? `${name}  ${value}` : name, x + 1, y + cell + 3, "caption"));
    });
    grid.style.height = `${Math.ceil(list.length / columns) * height}px`;
  }
  for (const old of grid.querySelectorAll(".label")) old.remove();
  grid.append(...labels);
  return cell;
}

/** @param {string} text @param {number} x @param {number} y @param {string} [kind] */
function label(text, x, y, kind = "start") {
  const made = element("span", text, `label ${kind}`);
  made.style.left = `${x}px`;
  made.style.top = `${y}px`;
  if (kind === "middle") made.style.transform = "translateX(-50%)";
  if (kind === "end") made.style.transform = "translateX(-100%)";
  return made;
}

/** @param {HTMLElement} item @param {number} x @param {number} y @param {number} width @param {number} height */
function put(item, x, y, width, height) {
  Object.assign(item.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
}

/** Heads whose small map is not what the state says; painted when they come into view. */
const stale = new Set();
let cellSize = 40;
const watcher = new IntersectionObserver(
  (entries) => {
    for (const entry of entries) {
      const head = headOf(entry.target.getAttribute("data-head"));
      /** @type {any} */ (entry.target).inView = entry.isIntersecting;
      if (entry.isIntersecting && head && stale.delete(head)) paintSmall(head);
    }
  },
  { rootMargin: "300px" },
);

/** @param {Head} head */
function paintSmall(head) {
  const canvas = buttons.get(head.label).firstElementChild;
  const factor = Math.max(1, Math.floor(Math.max(head.layer.rows, head.layer.cols) / (cellSize * devicePixelRatio)));
  paint(/** @type {HTMLCanvasElement} */ (canvas), head, factor);
  /** @type {HTMLElement} */ (canvas).style.imageRendering = factor === 1 && head.layer.cols < cellSize * devicePixelRatio ? "pixelated" : "auto";
}

function drawGrid() {
  cellSize = layOut();
  for (const head of heads) {
    if (/** @type {any} */ (buttons.get(head.label)).inView) paintSmall(head);
    else stale.add(head);
  }
}

/** A head as cards name it. @param {Head} head */
const placeOf = (head) => ({ layer: head.layer.layer, head: head.number });

/** @param {string | null} text @returns {Head | undefined} */
const headOf = (text) => heads.find((head) => head.label === text);

function makeGrid() {
  const grid = byId("grid");
  for (const head of heads) {
    const button = element("button", undefined, "cell");
    button.type = "button";
    button.dataset.head = head.label;
    button.tabIndex = -1;
    const role = roleOf(known?.of(head.label));
    button.setAttribute("aria-label", `Layer ${head.layer.layer}, head ${head.number}${role ? `, ${role}` : ""}`);
    button.append(element("canvas"));
    buttons.set(head.label, button);
    grid.append(button);
    watcher.observe(button);
  }
  buttons.get(heads[0].label).tabIndex = 0;
  const target = (event) => headOf(event.target.closest?.(".cell")?.dataset.head);
  grid.addEventListener("click", (event) => target(event) && change({ head: target(event).label }));
  grid.addEventListener("pointerover", (event) => event.pointerType !== "touch" && showCard(target(event)));
  grid.addEventListener("pointerleave", () => showCard(undefined));
  grid.addEventListener("focusin", (event) => event.target.matches(":focus-visible") && showCard(target(event)));
  grid.addEventListener("focusout", () => showCard(undefined));
  grid.addEventListener("keydown", (event) => {
    const head = target(event);
    const move = ARROWS[event.key];
    if (!head || !move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const y = table2d.findIndex((row) => row.includes(head));
    const next = table2d[y + move[1]]?.[table2d[y].indexOf(head) + move[0]];
    if (next) rove(next);
  });
}

/** Give a head the focus. @param {Head} head */
function rove(head) {
  for (const button of buttons.values()) button.tabIndex = -1;
  const button = buttons.get(head.label);
  button.tabIndex = 0;
  button.focus();
}

/** Show what is known of a head beside its cell. @param {Head | undefined} head */
function showCard(head) {
  const card = byId("card");
  card.hidden = !head || byId("head").open;
  if (card.hidden) return;
  const canvas = card.querySelector("canvas");
  paint(canvas, head, 1);
  canvas.style.imageRendering = "pixelated";
  card.querySelector("h2").replaceChildren(...titled(placeOf(head), roleOf(known?.of(head.label))));
  card.querySelector("dl").replaceChildren(
    ...definitions(content.statistics.map((s) => [s.label, worded(s, head.layer.values[s.name][head.index])])),
  );
  beside(card, buttons.get(head.label).getBoundingClientRect());
}
