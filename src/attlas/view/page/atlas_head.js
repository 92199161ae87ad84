// @ts-check

/** One head of an atlas, enlarged. */

/** Where things are in the large figure; set by `drawHead`. */
let frame = { x: 0, y: 0, width: 1, height: 1 };

function drawHead() {
  const dialog = byId("head");
  const head = headOf(state.head);
  if (!head) {
    if (dialog.open) dialog.close();
    return;
  }
  const { layer } = head;
  byId("head-title").replaceChildren(...titled(placeOf(head), roleOf(known?.of(head.label))));
  byId("head-title").title = layer.name;
  const size = `${layer.queries.toLocaleString("en")} queries × ${layer.keys.toLocaleString("en")} keys`;
  const cell = `${figures(layer.queries / layer.rows)} × ${figures(layer.keys / layer.cols)} tokens`;
  byId("head-facts").textContent = `${size} · a cell is ${cell}`;
  if (!dialog.open) {
    showCard(undefined);
    byId("head-controls").append(byId("shared"));
    dialog.showModal();
    dialog.scrollTop = 0;
    byId("map").focus({ preventScroll: true });
  }
  drawNumbers(head);
  drawKnown(head);
  drawFigure(head);
  drawReading(head);
}

/** @param {Head} head */
function drawNumbers(head) {
  const { values, evenValues, topKey } = head.layer;
  byId("numbers").replaceChildren(
    ...content.statistics.map((s) => {
      const row = element("tr");
      const name = rowHeading(s.label);
      name.title = s.meaning;
      const even = evenValues[s.name][Math.min(head.index, evenValues[s.name].length - 1)];
      row.append(name, element("td", worded(s, values[s.name][head.index])), element("td", worded(s, even)));
      return row;
    }),
  );
  const key = topKey[head.index];
  const text = textOf(head.layer, "key", key, key + 1);
  const share = percent(values.top_key_share[head.index]);
  byId("top-key").replaceChildren(`Most attention, ${share}, goes to token ${key.toLocaleString("en")}`, ...(text ? [" ", element("code", shortened(text, 40))] : []));
  byId("module").textContent = `Module ${head.layer.name}`;
}

/** For which head, and how wide, `drawKnown` has drawn. */
let knownFor = "";

/** What is known beside the map. @param {Head} head */
function drawKnown(head) {
  const card = known?.of(head.label);
  // It does not follow the cursor; and a link that is replaced while it is pressed would never be followed.
  const now = `${head.label} ${byId("side").clientWidth}`;
  if (now === knownFor) return;
  knownFor = now;
  const did = Boolean(card && known.roles.length);
  const learnt = Boolean(card && (known.columns.length || known.edges.length));
  byId("did").hidden = !did;
  byId("learnt").hidden = !learnt;
  if (did) byId("roles").replaceChildren(rolesTable(known, card));
  if (!learnt) return;
  const width = byId("side").clientWidth;
  byId("feather").replaceChildren(...(known.track("qk", card) ? [largeFeather(known, card, width)] : []));
  const kernel = kernelFigure(known, card, width);
  byId("kernel").replaceChildren(...(kernel ? [element("h3", "How far back it looks, by its weights"), kernel] : []));
  const open = (other) => {
    if (!headOf(other.label)) return; // it is not among the heads that were drawn
    change({ head: other.label });
    byId("map").focus({ preventScroll: true });
  };
  byId("from").replaceChildren(edgesList(known, card, "to", open));
  byId("to").replaceChildren(edgesList(known, card, "from", open));
  byId("composed").hidden = !known.edges.length;
  byId("weights").replaceChildren(...numbersTable(known, card, known.columns).children);
}

/** @param {Head} head */
function drawFigure(head) {
  const canvas = byId("map");
  const context = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const room = byId("figure").clientWidth;
  const narrow = room < 560;
  const tall = Math.max(300, byId("head").clientHeight - byId("figure").offsetTop - 22);
  const track = narrow ? 34 : 46;
  const left = narrow ? 62 : 150;
  const top = 8;
  const right = 2 * (track + 10) + 14;
  const below = track + 12 + (narrow ? 40 : 104);
  const { rows, cols } = head.layer;
  // Whole device pixels a cell, so that all cells are alike.
  const ratio = devicePixelRatio;
  const whole = (room, cells) => Math.max(1, Math.floor((room * ratio) / cells)) * (cells / ratio);
  const side = Math.min(room - left - right, tall - top - below);
  // Where that would waste much room, or does not fit, cells may differ by a pixel.
  const fitted = (cells) => (whole(side, cells) > side || whole(side, cells) < 0.85 * side ? side : whole(side, cells));
  const [width, height] = [fitted(cols), fitted(rows)];
  frame = { x: left, y: top, width, height };
  const [full, deep] = [left + width + right, top + height + below];
  canvas.width = Math.round(full * ratio);
  canvas.height = Math.round(deep * ratio);
  canvas.style.width = `${full}px`;
  canvas.style.height = `${deep}px`;
  context.scale(ratio, ratio);

  const small = document.createElement("canvas");
  paint(small, head, 1);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, left, top, width, height);
  const focused = canvas.matches(":focus-visible");
  context.strokeStyle = colour(focused ? "accent" : "line");
  context.lineWidth = focused ? 2 : 1;
  context.strokeRect(left - 0.5, top - 0.5, width + 1, height + 1);

  const own = numbersOf(head.layer, head.index);
  const even = evenOf(head);
  drawRowTrack(context, left + width + 10, track, own.entropy, even.entropy, "entropy", "nats", colour);
  drawRowTrack(context, left + width + 20 + track, track, own.distance, even.distance, "distance", "tokens", colour);
  drawReceived(context, top + height + 10, track, own.received, even.received, colour, narrow);
  drawAxes(context, head, track, narrow, colour);
  if (state.row >= 0) drawCross(context, head, colour);
}

/** A track beside the rows: filled from the left, with the even spread as a line. */
function drawRowTrack(context, x, width, own, even, name, unit, colour) {
  const { y, height } = frame;
  let most = 1e-9;
  for (const value of own) most = Math.max(most, value);
  for (const value of even) most = Math.max(most, value);
  const step = height / own.length;
  context.fillStyle = colour("bar");
  own.forEach((value, i) => context.fillRect(x, y + i * step, (value / most) * width, Math.max(step, 0.5)));
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.beginPath();
  even.forEach((value, i) => context.lineTo(x + (value / most) * width, y + (i + 0.5) * (height / even.length)));
  context.stroke();
  context.fillStyle = colour("faint");
  const narrow = width < 40;
  context.font = `${narrow ? 9 : 11}px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "left";
  context.textBaseline = "top";
  context.fillText(name, x, y + height + 5);
  context.fillText(narrow ? `≤ ${figures(most, 2)}` : `0 to ${figures(most, 2)}`, x, y + height + 18);
  if (!narrow) context.fillText(unit, x, y + height + 31);
}

/** The track under the columns: what each key receives, as a logarithm of its lift over the even spread. */
function drawReceived(context, y, height, own, even, colour, narrow) {
  const { x, width } = frame;
  const reach = 8; // powers of two, up and down
  const step = width / own.length;
  const middle = y + height / 2;
  const colours = TABLES[`lift-${dark.matches ? "dark" : "light"}`];
  own.forEach((value, i) => {
    if (even[i] === 0) return;
    const lift = Math.max(-1, Math.min(1, Math.log2(Math.max(value, 1e-30) / even[i]) / reach));
    const at = 3 * (lift > 0 ? 215 : 48);
    context.fillStyle = `rgb(${colours[at]},${colours[at + 1]},${colours[at + 2]})`;
    context.fillRect(x + i * step, lift > 0 ? middle - (lift * height) / 2 : middle, Math.max(step, 0.5), (Math.abs(lift) * height) / 2);
  });
  context.strokeStyle = colour("ink");
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, middle);
  context.lineTo(x + width, middle);
  context.stroke();
  context.fillStyle = colour("faint");
  context.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  context.textAlign = "right";
  context.textBaseline = "middle";
  if (!narrow) {
    context.fillText("received (lift)", x - 42, middle);
  }
  context.font = `10px ${getComputedStyle(document.body).fontFamily}`;
  context.fillText("256×", x - 4, y + 4);
  context.fillText("1×", x - 4, middle);
  context.fillText("1/256", x - 4, y + height - 3);
}

function drawAxes(context, head, track, narrow, colour) {
  const { x, y, width, height } = frame;
  const { layer } = head;
  const family = getComputedStyle(document.body).fontFamily;
  const most = narrow ? 0 : 13;
  const draw = (axis, cells, length, at, turn) => {
    const step = Math.max(1, Math.ceil(15 / ((axis === "key" ? width : height) / cells)));
    for (let cell = 0; cell < cells; cell += step) {
      const [from, to] = span(cell, cells, length);
      context.save();
      context.translate(...at(cell));
      if (turn) context.rotate(-Math.PI / 2);
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.font = `10.5px ${family}`;
      context.fillStyle = colour("faint");
      const position = from.toLocaleString("en");
      context.fillText(position, 0, 0);
      const letters = turn ? most - 5 : most;
      const text = most ? shortened(squeezed(textOf(layer, axis, from, Math.min(to, from + 40))).replace(/^[·⏎]+(?=[^·⏎])/, ""), letters) : "";
      context.fillStyle = colour("ink");
      context.font = `10.5px ${style.mono}`;
      context.fillText(text, -(context.measureText(layer.keys.toLocaleString("en")).width + 12), 0);
      context.restore();
    }
  };
  const style = { mono: getComputedStyle(document.documentElement).getPropertyValue("--mono") };
  draw("query", layer.rows, layer.queries, (cell) => [x - 6, y + ((cell + 0.5) * height) / layer.rows], false);
  draw("key", layer.cols, layer.keys, (cell) => [x + ((cell + 0.5) * width) / layer.cols, y + height + track + 18], true);
}

function drawCross(context, head, colour) {
  const { x, y, width, height } = frame;
  const { rows, cols } = head.layer;
  const [w, h] = [width / cols, height / rows];
  const [cx, cy] = [x + state.col * w, y + state.row * h];
  context.strokeStyle = colour("ink");
  context.globalAlpha = 0.35;
  context.lineWidth = 1;
  context.beginPath();
  context.moveTo(x, cy + h / 2);
  context.lineTo(x + width, cy + h / 2);
  context.moveTo(cx + w / 2, y);
  context.lineTo(cx + w / 2, y + height);
  context.stroke();
  context.globalAlpha = 1;
  context.strokeStyle = colour("accent");
  context.lineWidth = 2;
  context.strokeRect(cx - 1.5, cy - 1.5, w + 3, h + 3);
}

/** @param {Head} head */
function drawReading(head) {
  const { layer } = head;
  const into = byId("reading");
  if (state.row < 0) {
    into.replaceChildren(element("dd", "Point at the map, or move the cursor with the arrow keys."));
    into.firstElementChild.style.gridColumn = "1 / -1";
    return;
  }
  const at = state.row * layer.cols + state.col;
  const own = numbersOf(layer, head.index);
  const even = evenOf(head);
  const [q0, q1] = span(state.row, layer.rows, layer.queries);
  const [k0, k1] = span(state.col, layer.cols, layer.keys);
  const reach = (from, to) => (to - from === 1 ? from.toLocaleString("en") : `${from.toLocaleString("en")} to ${(to - 1).toLocaleString("en")}`);
  const items = [];
  const add = (name, value, kind) => items.push(element("dt", name), element("dd", value, kind));
  const described = (name, axis, from, to) => {
    add(name, reach(from, to));
    const text = textOf(layer, axis, from, to);
    if (text) add("", shortened(squeezed(text), 150), "text");
  };
  if (even.mean[at] === 0) {
    add("hidden", "these queries may not see these keys");
  } else {
    const most = state.cell === "max";
    add("lift", times(most ? own.max[at] / even.max[at] : own.mean[at] / even.mean[at]), "big");
    add("mean", `${weight(own.mean[at])}, lift ${times(own.mean[at] / even.mean[at])}`);
    add("largest", `${weight(own.max[at])}, lift ${times(own.max[at] / even.max[at])}`);
  }
  described(q1 - q0 === 1 ? "query" : "queries", "query", q0, q1);
  described(k1 - k0 === 1 ? "key" : "keys", "key", k0, k1);
  into.replaceChildren(...items);
}

/** Set the cursor from a point on the large figure. @param {PointerEvent} event */
function pointAt(event) {
  const head = headOf(state.head);
  const box = byId("map").getBoundingClientRect();
  const col = Math.floor(((event.clientX - box.left - frame.x) / frame.width) * head.layer.cols);
  const row = Math.floor(((event.clientY - box.top - frame.y) / frame.height) * head.layer.rows);
  const inside = col >= 0 && row >= 0 && col < head.layer.cols && row < head.layer.rows;
  if (inside && (col !== state.col || row !== state.row)) change({ row, col });
}

function makeHead() {
  const [dialog, map] = [byId("head"), byId("map")];
  const beside = (step) => {
    const list = ordered();
    const at = list.findIndex((head) => head.label === state.head);
    change({ head: list[(at + step + list.length) % list.length].label });
  };
  byId("previous").addEventListener("click", () => beside(-1));
  byId("next").addEventListener("click", () => beside(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => {
    byId("controls").prepend(byId("shared"));
    const head = headOf(state.head);
    change({ head: "", row: -1, col: -1 });
    if (head) rove(head);
  });
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  map.addEventListener("pointermove", pointAt);
  map.addEventListener("pointerdown", pointAt);
  for (const event of ["focus", "blur"]) map.addEventListener(event, () => render({ ...state, row: NaN }));
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const head = headOf(state.head);
    // In a group of choices the arrows belong to the group.
    const move = event.target.matches("input") ? undefined : { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
    const choice = { l: { scale: "lift" }, g: { scale: "log" }, r: { scale: "raw" }, m: { cell: "mean" }, x: { cell: "max" } }[event.key];
    if (event.key === "[") beside(-1);
    else if (event.key === "]") beside(1);
    else if (choice) change(choice);
    else if (move) {
      event.preventDefault();
      const step = event.shiftKey ? 8 : 1;
      const clip = (value, length) => Math.max(0, Math.min(length - 1, value));
      const [row, col] = state.row < 0 ? [0, 0] : [state.row + step * move[0], state.col + step * move[1]];
      change({ row: clip(row, head.layer.rows), col: clip(col, head.layer.cols) });
    }
  });
}
