// @ts-check

/** The state of the page of a comparison, its address, and its header. */

/** What heads are coloured and sorted by at first: how far attention moved, or how much weights changed. */
const FIRST = content.values.moved ? "moved" : "qk_relative";
const usual = () => ({ colour: FIRST, whose: "", group: groups.includes("attention") ? "attention" : "weights", sort: FIRST, modules: "name", head: "" });
const state = usual();

/** Read the address; what is not a choice there is ignored. */
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const read = usual();
  const colour = wanted.get("colour");
  if (Object.values(content.colours).flat().includes(colour)) read.colour = colour;
  const group = wanted.get("group");
  if (groups.includes(group)) read.group = group;
  const whose = byLabel.get(wanted.get("whose"));
  if (whose && mapOf.has(whose.index)) read.whose = whose.label;
  for (const [key, known] of [["sort", columns], ["modules", new Map(content.modules.columns.map((column) => [column.name, column]))]]) {
    const sort = wanted.get(key) ?? "";
    if (known.has(sort.replace(/^-/, "")) || sort.replace(/^-/, "") === "name") read[key] = sort;
  }
  read.head = byLabel.get(wanted.get("head"))?.label ?? "";
  return read;
}

function toAddress() {
  const [parts, plain] = [new URLSearchParams(), usual()];
  for (const name of Object.keys(plain)) if (state[name] !== plain[name]) parts.set(name, state[name]);
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
  if (differs("colour")) colourGrid();
  if (differs("whose")) colourText();
  if (differs("group", "sort")) drawHeads();
  if (differs("modules")) drawModules();
  if (differs("head")) drawCard();
}

function makeHeader() {
  const { facts } = content;
  byId("title").textContent = content.title;
  const count = (number, one, many) => `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
  const line = [content.kind === "adapter" ? "an adapter" : "two models", `${count(facts.layers, "layer", "layers")}, ${count(facts.heads, "head", "heads")}`, `${count(facts.modules, "weight matrix", "weight matrices")} compared`];
  if (facts.tokens !== null) line.push(`a text of ${count(facts.tokens, "token", "tokens")}, ${facts.rows === facts.tokens ? "all rows" : `${count(facts.rows, "row", "rows")} of each matrix`} measured`);
  byId("facts").textContent = line.join(" · ");
  const said = [];
  if (facts.divergence !== null) {
    said.push(`output: ${figures(facts.divergence)} nats from the base's (KL, mean of tokens ${facts.window[0].toLocaleString("en")} to ${(facts.window[1] - 1).toLocaleString("en")})`);
    if (facts.correlation !== null) said.push(`estimated and measured effects of heads agree in rank by ${figures(facts.correlation, 2)}`);
  }
  for (const [name, why] of Object.entries(content.reasons)) said.push(`no ${name === "moved" ? "attention" : "explanation of the output"}: ${why}`);
  byId("outcome").textContent = [...said, ...content.notes].join(" · ");
  byId("note-moved").hidden = facts.tokens === null;
  byId("note-explains").hidden = !content.values.restore_estimate;
}

async function start() {
  await readTables();
  makeHeader();
  makeGrid();
  makeText();
  makeTables();
  makeCard(inOrder);
  layOutGrid();
  followAddress();
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth === width) return; // a phone's address bar that comes and goes
    width = innerWidth;
    layOutGrid();
    drawCard();
  });
  dark.addEventListener("change", drawCard); // its map is painted in the page's colours
  document.documentElement.dataset.ready = "true";
}

start();
