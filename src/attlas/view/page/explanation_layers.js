// @ts-check

/** The strip of layers: what was passed down to each part of the text, from the top layer to the lowest. */

const cursor = { row: -1, bin: -1 };

/** Which tokens a bin holds, from and up to. @param {number} bin @param {number} bins @returns {[number, number]} */
const tokensOf = (bin, bins) => [Math.floor((bin * content.tokens) / bins), Math.floor(((bin + 1) * content.tokens) / bins)];

/** The size that is shown in full colour, as in shading.py. @param {Float32Array} row @param {number} answers the bin where the model answers */
function fullOf(row, answers) {
  let sizes = Array.from(row, Math.abs);
  const rest = sizes.filter((_, bin) => bin !== answers);
  if (rest.some((size) => size > 0)) sizes = rest;
  const sum = sizes.reduce((total, size) => total + size, 0);
  const others = (answers === 0 ? sizes : sizes.slice(1)).sort((a, b) => b - a);
  if (others.reduce((total, size) => total + size, 0) <= 0.05 * sum) return Math.max(...sizes);
  return others[Math.floor(others.length / 200)] || others[0];
}

function drawStrip() {
  const table = viewNow().tables.layers;
  byId("flow").hidden = !table;
  if (!table) return;
  const [rows, bins] = table.shape;
  const numbers = numbersOf(table);
  const height = Math.max(6, Math.min(20, Math.round(300 / rows)));
  const canvas = /** @type {HTMLCanvasElement} */ (element("canvas"));
  const wide = Math.max(1, Math.round(1600 / bins));
  Object.assign(canvas, { width: bins * wide, height: rows * height, tabIndex: 0 });
  canvas.style.height = `${rows * height}px`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Relevance below each of ${rows} layers, along the text. The arrow keys go through it, Enter goes to the text.`);
  const drawing = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
  const style = getComputedStyle(document.documentElement);
  const [positive, negative, ink] = ["--for", "--against", "--ink"].map((name) => style.getPropertyValue(name).trim());
  const position = answersAt();
  const answers = position === null ? -1 : Array.from({ length: bins }, (_, bin) => bin).findIndex((bin) => position < tokensOf(bin, bins)[1]);
  const draw = () => {
    drawing.clearRect(0, 0, canvas.width, canvas.height);
    for (let row = 0; row < rows; row++) {
      const values = numbers.subarray(row * bins, (row + 1) * bins);
      const end = fullOf(values, answers);
      for (let bin = 0; bin < bins; bin++) {
        const strength = end ? Math.min(1, Math.abs(values[bin]) / end) : 0;
        if (strength < 0.02) continue;
        drawing.globalAlpha = strength;
        drawing.fillStyle = values[bin] > 0 ? positive : negative;
        drawing.fillRect(bin * wide, (rows - 1 - row) * height, wide, height);
      }
    }
    drawing.globalAlpha = 1;
    if (cursor.row < 0 || cursor.row >= rows || cursor.bin >= bins) return;
    drawing.strokeStyle = ink;
    drawing.lineWidth = 2;
    drawing.strokeRect(cursor.bin * wide - 1, (rows - 1 - cursor.row) * height, wide + 2, height);
  };
  const read = (row, bin) => {
    Object.assign(cursor, { row: Math.max(0, Math.min(rows - 1, row)), bin: Math.max(0, Math.min(bins - 1, bin)) });
    draw();
    const values = numbers.subarray(cursor.row * bins, (cursor.row + 1) * bins);
    const total = values.reduce((sum, value) => sum + Math.abs(value), 0);
    const value = values[cursor.bin];
    const [start, stop] = tokensOf(cursor.bin, bins);
    const where = stop - start > 1 ? `tokens ${start.toLocaleString("en")} to ${(stop - 1).toLocaleString("en")}` : `token ${start.toLocaleString("en")}`;
    const share = total ? `, ${percent(Math.abs(value) / total)} of the layer's` : "";
    byId("strip-reading").textContent = `Layer ${cursor.row} · ${where} “${shortened(wordsOf(start, stop), 70)}” · ${figures(value)}${share}`;
  };
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    return [rows - 1 - Math.floor((rows * (event.clientY - box.top)) / box.height), Math.floor((bins * (event.clientX - box.left)) / box.width)];
  };
  canvas.addEventListener("pointermove", (event) => read(...placeOf(event)));
  canvas.addEventListener("focus", () => canvas.matches(":focus-visible") && read(cursor.row < 0 ? rows - 1 : cursor.row, Math.max(0, cursor.bin)));
  canvas.addEventListener("keydown", (event) => {
    const move = ARROWS[/** @type {keyof ARROWS} */ (event.key)];
    if (move && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      read(cursor.row - move[1], cursor.bin + move[0]);
    }
    if (event.key === "Enter" && cursor.bin >= 0) visit(pieceOf[tokensOf(cursor.bin, bins)[0]]);
  });
  canvas.addEventListener("click", () => cursor.bin >= 0 && visit(pieceOf[tokensOf(cursor.bin, bins)[0]]));
  draw();
  const names = element("div", undefined, "rows");
  names.append(element("span", `layer ${rows - 1}`), element("span", "0"));
  const ends = element("div", undefined, "ends");
  ends.append(element("span", "first token"), element("span", "last token"));
  byId("strip").replaceChildren(...(rows > 1 ? [names] : [element("div", "layer 0", "rows")]), canvas, ends);
  byId("strip-reading").textContent = "Point at a place to read it; a click goes there in the text.";
}
