// @ts-check

/** The state of the page of an explanation, its address, its header, and how the explanation was made. */

const state = { target: 0, view: 0, by: "token", shade: "score" };
const CHOICES = { by: ["token", "span"], shade: ["score", "rank"] };

/** Read the address; what is not a choice there is ignored. */
function fromAddress() {
  const wanted = new URLSearchParams(location.hash.slice(1));
  const read = { ...state, by: content.spans ? "span" : "token", shade: "score", target: 0 };
  for (const [name, choices] of Object.entries(CHOICES)) if (choices.includes(wanted.get(name))) read[name] = wanted.get(name);
  const target = Number(wanted.get("target") ?? 0);
  if (Number.isInteger(target) && target >= 0 && target < content.targets.length) read.target = target;
  const named = content.views.findIndex((view) => view.target === read.target && view.name === wanted.get("method"));
  read.view = named >= 0 ? named : bestOf(read.target);
  return read;
}

function toAddress() {
  const parts = new URLSearchParams();
  if (state.target) parts.set("target", String(state.target));
  if (state.view !== bestOf(state.target)) parts.set("method", viewNow().name);
  if (content.spans && state.by !== "span") parts.set("by", state.by);
  if (state.shade !== "score") parts.set("shade", state.shade);
  setAddress(parts.toString());
}

/** Change what is shown. @param {Partial<typeof state>} changes */
function change(changes) {
  const before = { ...state };
  const method = viewNow().name;
  Object.assign(state, changes);
  if (viewNow().target !== state.target) {
    const same = content.views.findIndex((view) => view.target === state.target && view.name === method);
    state.view = same >= 0 ? same : bestOf(state.target);
  }
  toAddress();
  render(before);
}

/** Draw what differs from before. @param {typeof state} [before] */
function render(before) {
  const differs = (...names) => !before || names.some((name) => before[name] !== state[name]);
  for (const name of Object.keys(CHOICES)) check(name, state[name]);
  byId("target").value = String(state.target);
  if (differs("target")) {
    drawHeader();
    drawAgreement();
  }
  if (differs("target", "view")) {
    const focused = document.activeElement?.getAttribute("name") === "view";
    drawMethods();
    if (focused) /** @type {HTMLElement} */ (byId("methods").querySelector("input:checked")).focus();
    drawTop();
    drawStrip();
    drawCurves();
    drawMeasures();
    drawAbout();
  }
  if (differs("target", "view", "by", "shade")) colourText();
}

/** @param {any} target */
function valueOf(target) {
  if (target.value === null) return "";
  if (target.unit !== "log-probability") return `${target.unit ? `${target.unit} ` : ""}${figures(target.value)}`;
  return `probability ${percent(Math.exp(target.value))} (log ${figures(target.value)})`;
}

function drawHeader() {
  const target = content.targets[state.target];
  byId("title").textContent = `Why ${target.name || "this answer"}?`;
  const facts = [content.title, content.model, `${content.tokens.toLocaleString("en")} tokens`];
  facts.push(`answered ${target.place}`, valueOf(target));
  byId("facts").textContent = facts.filter(Boolean).join(" · ");
}

function drawAbout() {
  const view = viewNow();
  const rows = [["model", `${content.model || "a module"}${content.fingerprint ? `, fingerprint ${content.fingerprint}` : ""}`], ["attlas", content.version], ...view.about];
  byId("about").replaceChildren(...definitions(rows));
}

function makeControls() {
  byId("choice").hidden = content.targets.length < 2;
  content.targets.forEach((target, i) => byId("target").append(new Option(`${target.name || "answer"} ${target.place}`, String(i))));
  byId("target").addEventListener("change", () => change({ target: Number(byId("target").value) }));
  byId("controls").addEventListener("change", (event) => change({ [event.target.name]: event.target.value }));
  byId("methods").addEventListener("change", (event) => event.target.name === "view" && change({ view: Number(event.target.value) }));
  for (const id of ["choice", "controls"]) byId(id).addEventListener("submit", (event) => event.preventDefault());
}

async function start() {
  codes = await unpack(content.codes);
  placeTables(content.views);
  makeControls();
  makeText();
  followAddress();
  dark.addEventListener("change", drawStrip);
  document.documentElement.dataset.ready = "true";
}

start();
