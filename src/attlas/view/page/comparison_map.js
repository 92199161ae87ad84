// @ts-check

/** One head's map of what moved, A′ − A, with what its keys gained above it and how far its rows moved beside it. */

const TRACK = 46; // width of a track
const EDGE = 6;
const FULL = 0.97; // the share of cells that are below full colour, so that one sink does not leave the others pale

/** Where the map is in its canvas; set by `drawMap`. */
let place = { x: 0, y: 0, side: 1, cells: 1, at: /** @type {[number, number] | null} */ (null) };

/** The first token of a cell. @param {number} cell @param {number} cells */
const firstOf = (cell, cells) => Math.floor((cell * content.text.tokens.length) / cells);

/** The colours that the page is drawn in now, as numbers. @param {...string} names */
function colours(...names) {
  const probe = element("span");
  byId("map").append(probe);
  const found = names.map((name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  });
  probe.remove();
  return found;
}

/** Red, green and blue. @param {string} colour */
const parts = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);

/** @param {Head} head */
function drawMap(head) {
  const which = mapOf.get(head.index);
  const there = which !== undefined;
  byId("map-section").hidden = !content.text;
  byId("map-key").hidden = !there;
  byId("reading").hidden = false;
  if (!content.text) return;
  if (!there) {
    byId("map").replaceChildren();
    byId("reading").textContent = "This page has no map of this head: it holds those whose attention moved most. attlas compare --maps draws more.";
    return;
  }
  let canvas = byId("map").querySelector("canvas");
  if (!canvas) {
    canvas = element("canvas");
    canvas.tabIndex = 0;
    listenToMap(canvas);
    byId("map").replaceChildren(canvas);
  }
  const { size, tables } = content.text;
  const values = numbersOf(tables.maps[which]);
  const words = wordsFit(size);
  const [left, top] = words ? [84, TRACK + 84] : [52, TRACK + 8];
  const room = byId("map").clientWidth - left - TRACK - 2 * EDGE;
  const side = Math.max(140, Math.min(room, 600, innerHeight - top - 230));
  place = { x: left, y: top, side, cells: size, at: place.cells === size ? place.at : null };
  const [width, height] = [left + side + EDGE + TRACK, top + side + (words ? 4 : 30)];
  const scale = Math.min(3, Math.max(1, devicePixelRatio));
  Object.assign(canvas, { width: Math.round(width * scale), height: Math.round(height * scale) });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  canvas.setAttribute("aria-label", `What moved in ${titleOf(head)}: queries downward, keys to the right. Arrow keys go from cell to cell.`);
  canvas.setAttribute("role", "img");
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const full = quantile(values, FULL);
  paintCells(pen, values, full);
  const [ink, faint, line, gain, loss, heat] = colours("ink", "faint", "line", "gain", "loss", "heat");
  pen.strokeStyle = line;
  pen.strokeRect(left - 0.5, top - 0.5, side + 1, side + 1);
  paintGained(pen, numbersOf(tables.received[which + 1]), gain, loss, faint);
  paintMoved(pen, numbersOf(tables.moved[which]), heat, faint);
  paintTicks(pen, faint, words);
  if (place.at) paintCursor(pen, ink, place.at);
  const tokens = content.text.tokens.length / size;
  byId("map-key").replaceChildren(...keyOf(`−${weight(full)}`, `+${weight(full)}, and more`, true, element("span", `a cell: mean of ${figures(tokens)} × ${figures(tokens)} tokens`), element("span", "above: what each key gained or lost"), element("span", "at the right: how far each row moved")));
  read(values);
}

/** Whether every token's word has a line of its own. @param {number} size */
const wordsFit = (size) => size === content.text.tokens.length && size <= 40;

/** @param {any} pen @param {Float32Array} values @param {number} full */
function paintCells(pen, values, full) {
  const { x, y, side, cells: n } = place;
  const [ground, gain, loss] = colours("raised", "gain", "loss").map(parts);
  const small = Object.assign(document.createElement("canvas"), { width: n, height: n });
  const brush = small.getContext("2d");
  const image = brush.createImageData(n, n);
  values.forEach((value, i) => {
    const share = full ? Math.min(1, Math.abs(value) / full) : 0;
    const colour = value < 0 ? loss : gain;
    for (let part = 0; part < 3; part++) image.data[4 * i + part] = ground[part] + share * (colour[part] - ground[part]);
    image.data[4 * i + 3] = 255;
  });
  brush.putImageData(image, 0, 0);
  pen.imageSmoothingEnabled = false;
  pen.drawImage(small, x, y, side, side);
}

/** What each key gained, upward, or lost, downward. */
function paintGained(pen, values, gain, loss, faint) {
  const { x, side } = place;
  const bins = Math.min(values.length, Math.round(side));
  const sums = new Float32Array(bins);
  values.forEach((value, at) => (sums[Math.floor((at * bins) / values.length)] += value));
  const full = Math.max(quantile(sums, 0.99), 1e-12);
  const middle = TRACK / 2;
  sums.forEach((sum, i) => {
    const size = Math.min(1, Math.abs(sum) / full) * middle;
    pen.fillStyle = sum < 0 ? loss : gain;
    pen.fillRect(x + (i * side) / bins, sum < 0 ? middle : middle - size, Math.max(1, side / bins - 0.3), size);
  });
  pen.fillStyle = faint;
  pen.fillRect(x, middle - 0.25, side, 0.5);
}

/** How far each measured row moved. */
function paintMoved(pen, values, heat, faint) {
  const { x, y, side } = place;
  const most = Math.max(...values, 1e-12);
  const n = content.text.tokens.length;
  const height = Math.max(1, side / values.length - 0.3);
  pen.fillStyle = heat;
  values.forEach((value, i) => pen.fillRect(x + side + EDGE, y + (content.text.rows[i] / n) * side, (value / most) * TRACK, height));
  pen.fillStyle = faint;
  pen.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  pen.textAlign = "right";
  pen.fillText(percent(most), x + side + EDGE + TRACK, y - 4);
}

/** Words of all tokens where they fit, numbers of some elsewhere. */
function paintTicks(pen, faint, words) {
  const { x, y, side, cells: n } = place;
  const family = getComputedStyle(document.body).fontFamily;
  pen.fillStyle = faint;
  pen.font = `11px ${family}`;
  if (words) {
    for (let i = 0; i < n; i++) {
      const word = shortened(tokenOf(i), 11);
      const at = ((i + 0.5) * side) / n;
      pen.textAlign = "right";
      pen.fillText(word, x - 5, y + at + 4);
      pen.save();
      pen.translate(x + at + 3, y - 5);
      pen.rotate(-Math.PI / 2);
      pen.textAlign = "left";
      pen.fillText(word, 0, 0);
      pen.restore();
    }
    return;
  }
  const total = content.text.tokens.length;
  const round = 10 ** Math.floor(Math.log10(total / 2));
  const unit = Math.max(1, [1, 2, 5, 10].map((step) => step * round).find((step) => total / step <= 8) ?? total);
  for (let token = 0; token < total; token += unit) {
    const at = (token / total) * side;
    pen.textAlign = "right";
    pen.fillText(token.toLocaleString("en"), x - 5, y + at + (token ? 4 : 9));
    pen.textAlign = token ? "center" : "left";
    pen.fillText(token.toLocaleString("en"), x + at, y + side + 15);
  }
  pen.textAlign = "right";
  pen.fillText("key →", x + side, y + side + 28);
  pen.textAlign = "left";
  pen.fillText("query ↓", 0, y - 6);
}

function paintCursor(pen, ink, [row, column]) {
  const { x, y, side, cells: n } = place;
  pen.strokeStyle = ink;
  pen.lineWidth = 1;
  pen.strokeRect(x + (column * side) / n - 1, y + (row * side) / n - 1, side / n + 2, side / n + 2);
}

// ---- reading it ----------------------------------------------------------------------------------------------------------

/** A cell's tokens, and what they say. @param {number} cell */
function spanOf(cell) {
  const [first, last] = [firstOf(cell, place.cells), firstOf(cell + 1, place.cells) - 1];
  const words = content.text.tokens.slice(first, last + 1).map((_, i) => tokenOf(first + i)).join("");
  return { places: first === last ? first.toLocaleString("en") : `${first.toLocaleString("en")}–${last.toLocaleString("en")}`, words: shortened(words, 44) };
}

/** Say what stands under the cursor. @param {Float32Array} values */
function read(values) {
  const box = byId("reading");
  if (!place.at) {
    box.textContent = "Point at a cell, or go there with the arrow keys, to read it.";
    return;
  }
  const [row, column] = place.at;
  const [query, key] = [spanOf(row), spanOf(column)];
  const value = values[row * place.cells + column];
  box.replaceChildren("query ", query.places, " ", element("code", query.words), " → key ", key.places, " ", element("code", key.words), `: ${column > row && value === 0 ? "not seen" : signed(value, weight)}`);
}

/** @param {any} canvas */
function listenToMap(canvas) {
  const go = (row, column) => {
    const most = place.cells - 1;
    place.at = [Math.max(0, Math.min(most, row)), Math.max(0, Math.min(most, column))];
    drawMap(byLabel.get(state.head));
  };
  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = [event.offsetX - place.x, event.offsetY - place.y];
    if (x < 0 || y < 0 || x >= place.side || y >= place.side) return;
    const [row, column] = [y, x].map((at) => Math.floor((at / place.side) * place.cells));
    if (place.at?.[0] !== row || place.at?.[1] !== column) go(row, column);
  });
  canvas.addEventListener("keydown", (event) => {
    const move = ARROWS[/** @type {keyof ARROWS} */ (event.key)];
    if (!move || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const step = event.shiftKey ? 8 : 1;
    const [row, column] = place.at ?? [0, 0];
    go(row + step * move[1], column + step * move[0]);
  });
}
