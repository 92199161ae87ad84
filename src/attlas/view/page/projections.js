// @ts-check

/** The state of the page of projections, its address, its header, and the card of one head. */

const AMOUNTS = [40, 80, 160, 320];
const state = { kinds: "qkv", edges: 80, sort: "layer", head: "" };

// ---- cards ---------------------------------------------------------------------------------------------------------------

/** Show a small card beside a figure's item. @param {Card} card @param {Element} item */
function showCard(card, item) {
  if (byId("head").open) return;
  const box = byId("card");
  box.hidden = false;
  box.querySelector(".small").replaceChildren(feather(known, card, 190, 130));
  box.querySelector("h2").textContent = titleOf(card);
  box.querySelector(".said").textContent = roleOf(card);
  const rows = known.columns.filter((column) => typeof known.values[column.name][card.index] === "number").slice(0, 8);
  box.querySelector("dl").replaceChildren(...definitions(rows.map((column) => [column.label, told(column, known.values[column.name][card.index])])));
  beside(box, item.getBoundingClientRect());
}

function drawCard() {
  const dialog = byId("head");
  const card = known.of(state.head);
  if (!cardOpen(card)) return;
  byId("head-title").replaceChildren(...titled(card, roleOf(card)));
  byId("head-facts").textContent = content.modules?.[card.index] ?? "";
  const parts = byId("figures");
  parts.replaceChildren();
  const width = Math.max(280, parts.clientWidth);
  const add = (title, figure, legend) => {
    const section = element("section");
    section.append(element("h3", title), figure, element("p", legend, "legend"));
    parts.append(section);
  };
  add("Singular values, beside those of random weights of the same shape (dashed)", largeFeather(known, card, width), "");
  const kernel = kernelFigure(known, card, width);
  if (kernel) add("How far back it looks, by its weights and the rotary encoding", kernel, known.track("measured", card) ? "Bars: share of each offset, from the mean query and key. Line: the attention that was measured at that offset." : "Share of each offset, from the mean query and key.");
  byId("did").hidden = !known.roles.length;
  if (known.roles.length) byId("did").replaceChildren(byId("did").firstElementChild, rolesTable(known, card), element("p", "Score with its interval; the tick is the baseline; ✓ is above it.", "legend"));
  const open = (other) => change({ head: other.label });
  byId("from").replaceChildren(edgesList(known, card, "to", open));
  byId("to").replaceChildren(edgesList(known, card, "from", open));
  byId("numbers").replaceChildren(...numbersTable(known, card, known.columns).children);
  // A link that was followed is gone, and the keys with it.
  if (!dialog.contains(document.activeElement)) dialog.focus({ preventScroll: true });
}

// ---- state ---------------------------------------------------------------------------------------------------------------

/** Read the address; what is not a choice there is ignored. */
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const read = { kinds: "qkv", edges: 80, sort: "layer", head: "" };
  const kinds = wanted.get("kinds");
  if (kinds !== null && /^q?k?v?$/.test(kinds)) read.kinds = kinds;
  if (AMOUNTS.includes(Number(wanted.get("edges")))) read.edges = Number(wanted.get("edges"));
  const sort = wanted.get("sort") ?? "";
  if (["layer", "role"].includes(sort.replace(/^-/, "")) || known.columns.some((column) => column.name === sort.replace(/^-/, ""))) read.sort = sort;
  read.head = known.of(wanted.get("head"))?.label ?? "";
  return read;
}

function toAddress() {
  const parts = new URLSearchParams();
  if (state.kinds !== "qkv") parts.set("kinds", state.kinds);
  if (state.edges !== 80) parts.set("edges", String(state.edges));
  if (state.sort !== "layer") parts.set("sort", state.sort);
  if (state.head) parts.set("head", state.head);
  setAddress(parts.toString());
}

/** Change what is shown. @param {Partial<typeof state>} changes */
function change(changes) {
  const before = { ...state };
  Object.assign(state, changes);
  toAddress();
  render(before);
}

/** Draw what differs from before. @param {typeof state} [before] */
function render(before) {
  const differs = (...names) => !before || names.some((name) => before[name] !== state[name]);
  const controls = byId("graph-controls").elements;
  for (const kind of ["q", "k", "v"]) controls[kind].checked = state.kinds.includes(kind);
  check("edges", String(state.edges));
  if (differs("kinds", "edges")) drawGraph();
  if (differs("sort")) drawTable();
  if (differs("head")) drawCard();
}

function makeHeader() {
  const { facts, parameters } = content;
  byId("title").textContent = content.model;
  const line = [`${facts.layers} layers × ${facts.heads} heads`];
  if (facts.kvHeads !== facts.heads) line.push(`${facts.kvHeads} key and value heads`);
  line.push(`width ${facts.dim} of ${facts.width.toLocaleString("en")}`);
  if (content.error !== null) line.push(`views checked against the model's own queries, keys and values: worst relative error ${figures(content.error, 2)}`);
  byId("facts").textContent = line.join(" · ");
  const millions = (count) => (count >= 1e6 ? `${figures(count / 1e6)} M` : count.toLocaleString("en"));
  const total = parameters.reduce((sum, [, count]) => sum + count, 0);
  for (const [name, count] of parameters.filter(([, count]) => count)) {
    const share = element("span", undefined, name);
    share.style.flex = `${count / total} 1 0`;
    byId("parameters").append(share);
    const item = element("li");
    item.append(element("span", undefined, `swatch ${name}`), `${name} ${millions(count)}, ${percent(count / total)}`);
    byId("parameter-names").append(item);
  }
  byId("level").textContent = known.level ? `${figures(known.level)} (root mean square)` : "a level that this page does not know";
}

async function start() {
  known = await readCards();
  makeHeader();
  makeGraph();
  makeSpectra();
  makeTable();
  makeCard(sorted);
  layOutSpectra();
  drawRanks();
  drawPredictions();
  followAddress();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar that comes and goes
    width = innerWidth;
    layOutSpectra();
    drawRanks();
    drawGraph();
    drawCard();
  });
  document.documentElement.dataset.ready = "true";
}

start();
