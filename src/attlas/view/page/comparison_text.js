// @ts-check

/** The text, coloured by what gained and what lost attention, and the tokens with the largest changes. */

const LISTED = 10;
const TYPICAL = 0.985; // the share of tokens that are below full colour, so that one sink does not leave the others pale

/** A table's numbers; see `signed_codes` of encoding.py. @param {{at: number, count: number, most: number, numbers?: Float32Array}} table */
function numbersOf(table) {
  table.numbers ??= Float32Array.from(codes.subarray(table.at, table.at + table.count), (code) =>
    code & content.against ? -VALUES[code ^ content.against] * table.most : VALUES[code] * table.most,
  );
  return table.numbers;
}

/** The codes of all tables, one after the other. @type {Uint16Array} */
let codes = new Uint16Array();

async function readTables() {
  if (!content.codes) return;
  codes = await unpack(content.codes);
  let at = 0;
  for (const name of ["received", "moved", "maps"]) {
    for (const table of content.text.tables[name]) {
      table.at = at;
      at += table.count;
    }
  }
}

/** A size that a share of numbers is below. @param {ArrayLike<number>} values @param {number} share */
function quantile(values, share) {
  const sizes = Float32Array.from(values, Math.abs).filter((size) => size > 0).sort();
  return sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(share * sizes.length))] : 0;
}

/** @type {any[]} */
let spans = [];

function makeText() {
  byId("text-section").hidden = !content.text;
  if (!content.text) return;
  const { tokens, rows, chosen } = content.text;
  const every = rows.length === tokens.length ? "all" : `${rows.length.toLocaleString("en")} of`;
  byId("text-facts").textContent = `How much more, or less, of a query's attention a token has in the tuned model: the mean over ${every} ${tokens.length.toLocaleString("en")} queries.`;
  spans = tokens.map((token, at) => {
    const shown = element("span", token);
    shown.tabIndex = -1;
    shown.at = at;
    return shown;
  });
  byId("text").append(...spans);
  const choice = byId("whose");
  choice.append(Object.assign(element("option", "all heads, their mean"), { value: "" }));
  for (const index of [...chosen].sort((a, b) => a - b)) choice.append(Object.assign(element("option", titleOf(heads[index])), { value: heads[index].label }));
  choice.addEventListener("change", () => change({ whose: choice.value }));
  const box = byId("text");
  box.addEventListener("pointerover", (event) => event.target.at !== undefined && showToken(event.target));
  box.addEventListener("pointerout", hideCard);
  box.addEventListener("focusin", (event) => event.target.at !== undefined && showToken(event.target));
  box.addEventListener("focusout", hideCard);
}

/** What each token gained, for whom the text is coloured. */
function gainedNow() {
  const head = byLabel.get(state.whose);
  return numbersOf(content.text.tables.received[head ? mapOf.get(head.index) + 1 : 0]);
}

function colourText() {
  if (!content.text) return;
  byId("whose").value = state.whose;
  const values = gainedNow();
  const full = quantile(values, TYPICAL);
  spans.forEach((shown, at) => {
    const strength = full ? Math.round(100 * Math.min(1, Math.abs(values[at]) / full)) : 0;
    const name = strength ? (values[at] > 0 ? "gain" : "loss") : "";
    if (shown.className !== name) shown.className = name;
    if (strength) shown.style.setProperty("--strength", `${strength}%`);
  });
  byId("text-key").replaceChildren(...keyOf(`lost ${weight(full)} of attention`, `gained ${weight(full)}, and more`, true));
  const order = Array.from(values, (_, at) => at).sort((a, b) => values[b] - values[a]);
  listChanges("gained", order.filter((at) => values[at] > 0), values);
  listChanges("lost", order.reverse().filter((at) => values[at] < 0), values);
}

/** @param {string} id @param {number[]} order @param {Float32Array} values */
function listChanges(id, order, values) {
  const most = Math.abs(values[order[0]] ?? 0);
  byId(id).replaceChildren(
    ...order.slice(0, LISTED).map((at) => {
      const [item, button, bar] = [element("li"), element("button"), element("span", undefined, "size")];
      button.type = "button";
      bar.style.width = `${Math.max(1, (100 * Math.abs(values[at])) / most)}%`;
      button.append(element("span", around(at), "words"), element("span", signed(values[at], weight), "value"), bar);
      button.addEventListener("click", () => visit(spans[at]));
      item.append(button);
      return item;
    }),
  );
}

/** A token and its place. @param {number} at */
const around = (at) => `${at.toLocaleString("en")}  ${shortened(tokenOf(at), 24)}`;

/** Go to a token. @param {any} shown */
function visit(shown) {
  shown.focus({ preventScroll: true });
  const [box, frame] = [shown.getBoundingClientRect(), byId("text")];
  const outer = frame.getBoundingClientRect();
  if (box.top < outer.top + 30 || box.bottom > outer.bottom - 30) frame.scrollTop += box.top - outer.top - frame.clientHeight / 3;
  if (outer.bottom < 80 || outer.top > innerHeight - 80) frame.scrollIntoView({ block: "nearest" });
}

/** @param {any} shown */
function showToken(shown) {
  const value = gainedNow()[shown.at];
  const card = byId("card");
  card.hidden = false;
  card.querySelector("h2").textContent = tokenOf(shown.at);
  card.querySelector("dl").replaceChildren(...definitions([["token", shown.at.toLocaleString("en")], [value < 0 ? "lost" : "gained", weight(Math.abs(value))]]));
  beside(card, shown.getBoundingClientRect());
}
