// @ts-check

/** The state of an atlas, its address, and its header. */

/** Read the address; what is not a choice there is ignored. */
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const read = { scale: "lift", cell: "mean", size: "fit", order: "layer", head: "", row: -1, col: -1 };
  for (const [name, choices] of Object.entries(CHOICES)) if (choices.includes(wanted.get(name))) read[name] = wanted.get(name);
  const order = wanted.get("order") ?? "";
  if (content.statistics.some((s) => s.name === order.replace(/^-/, ""))) read.order = order;
  const head = headOf(wanted.get("head"));
  if (head) {
    read.head = head.label;
    const [row, col] = (wanted.get("at") ?? "").split(",").map(Number);
    if (Number.isInteger(row) && Number.isInteger(col) && row >= 0 && col >= 0 && row < head.layer.rows && col < head.layer.cols) Object.assign(read, { row, col });
  }
  return read;
}

function toAddress() {
  const parts = new URLSearchParams();
  if (state.scale !== "lift") parts.set("scale", state.scale);
  if (state.cell !== "mean") parts.set("cell", state.cell);
  if (state.size !== "fit") parts.set("size", state.size);
  if (state.order !== "layer") parts.set("order", state.order);
  if (state.head) parts.set("head", state.head);
  if (state.head && state.row >= 0) parts.set("at", `${state.row},${state.col}`);
  setAddress(parts.toString().replace("%2C", ","));
}

/** Change what is shown. @param {Partial<typeof state>} changes */
function change(changes) {
  const before = { ...state };
  Object.assign(state, changes);
  const head = headOf(state.head);
  if (head && (state.row >= head.layer.rows || state.col >= head.layer.cols)) Object.assign(state, { row: -1, col: -1 });
  toAddress();
  render(before);
}

/** Draw what differs from before. @param {typeof state} [before] */
function render(before) {
  const differs = (...names) => !before || names.some((name) => before[name] !== state[name]);
  for (const name of Object.keys(CHOICES)) check(name, state[name]);
  byId("order").value = state.order;
  if (differs("scale", "cell", "size", "order")) {
    drawKey();
    drawGrid();
  }
  if (differs("scale", "cell", "head", "row", "col")) drawHead();
}

function makeHeader() {
  byId("title").textContent = content.title;
  const first = layers[0];
  const most = Math.max(...layers.map((layer) => layer.heads));
  const facts = [content.model, `${layers.length} layers × ${most} heads`];
  if (content.tokens) facts.push(`${content.tokens.length.toLocaleString("en")} tokens`);
  const entries = first.queries * first.keys;
  const size = entries >= 1e6 ? `${figures(entries / 1e6, 2)} million` : entries.toLocaleString("en");
  facts.push(`${heads.length.toLocaleString("en")} matrices of ${size} entries`);
  if (content.error !== null) facts.push(`checked against the model's own output: worst relative error ${figures(content.error, 2)}`);
  byId("facts").textContent = facts.join(" · ");
  const order = byId("order");
  order.append(new Option("layer and head", "layer"));
  for (const s of content.statistics) {
    const group = element("optgroup");
    group.label = s.label;
    group.append(new Option(`${s.label}, highest first`, s.name), new Option(`${s.label}, lowest first`, `-${s.name}`));
    order.append(group);
  }
  for (const id of ["shared", "controls"]) {
    byId(id).addEventListener("change", (event) => {
      event.stopPropagation();
      change({ [event.target.name]: event.target.value });
    });
  }
  byId("controls").addEventListener("submit", (event) => event.preventDefault());
}

async function start() {
  codes = await unpack(content.codes);
  known = await readCards();
  place();
  makeHeader();
  makeGrid();
  makeHead();
  followAddress();
  const again = () => render();
  dark.addEventListener("change", again);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width && !byId("head").open) return; // a phone's address bar that comes and goes
    width = innerWidth;
    again();
  });
  document.documentElement.dataset.ready = "true";
}

start();
