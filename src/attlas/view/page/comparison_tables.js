// @ts-check

/** Two tables that sort by any of their columns: a row a head, and a row a weight matrix. */

const CHUNK = 150; // rows that are added at a time, as the reader scrolls

/**
 * The order of rows by a value; what is not known comes last, whichever way.
 * @param {any[]} values @param {boolean} rising
 */
function orderOf(values, rising) {
  const order = (a, b) => (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", { numeric: true }));
  return Array.from(values, (_, i) => i).sort((i, j) => {
    const [one, other] = [values[i], values[j]];
    const missing = Number(one === null) - Number(other === null);
    return missing || (one === null ? 0 : rising ? order(one, other) : order(other, one)) || i - j;
  });
}

/** A heading that can be clicked. @param {string} name @param {string} label @param {string} meaning @param {string} sort @param {boolean} words */
function heading(name, label, meaning, sort, words) {
  const cell = element("th", undefined, words ? "words" : "");
  cell.scope = "col";
  // The first column counts up, numbers count down, unless they are turned round.
  const rising = sort.startsWith("-") !== (name === "name");
  cell.setAttribute("aria-sort", sort.replace("-", "") === name ? (rising ? "ascending" : "descending") : "none");
  const button = element("button", label);
  button.type = "button";
  button.title = meaning;
  button.dataset.sort = name;
  cell.append(button);
  return cell;
}

/**
 * Draw a table that sorts.
 * @param {any} place @param {{columns: Column[], values: Record<string, any[]>, names: any[], label: string, sort: string, name: (row: number) => any, told: (column: any, row: number) => string}} table
 */
function sortTable(place, table) {
  const sort = table.sort.replace("-", "");
  const top = element("tr");
  top.append(heading("name", table.label, "", table.sort, true));
  for (const column of table.columns) top.append(heading(column.name, column.label || "its token", meaningOf(column), table.sort, table.values[column.name].some((value) => typeof value === "string")));
  const [head, body, made] = [element("thead"), element("tbody"), element("table")];
  head.append(top);
  made.append(head, body);
  const rising = table.sort.startsWith("-") !== (sort === "name");
  const order = sort === "name" ? orderOf(table.names, rising) : orderOf(table.values[sort], rising);
  const sizes = (table.values[sort] ?? []).filter((value) => typeof value === "number").map(Math.abs);
  const most = Math.max(0, ...sizes);
  const rowOf = (index) => {
    const row = element("tr");
    const name = rowHeading();
    name.append(table.name(index));
    row.append(name);
    for (const column of table.columns) {
      const value = table.values[column.name][index];
      const cell = element("td", table.told(column, index), typeof value === "string" ? "words" : value === null ? "faint" : "");
      if (column.name === sort && typeof value === "number" && most) {
        cell.classList.add("sorted");
        cell.style.setProperty("--share", `${(100 * Math.abs(value)) / most}%`);
      }
      row.append(cell);
    }
    return row;
  };
  let shown = 0;
  const grow = () => {
    body.append(...order.slice(shown, shown + CHUNK).map(rowOf));
    shown += CHUNK;
    place.more?.disconnect();
    if (shown < order.length && body.lastElementChild) place.more?.observe(body.lastElementChild);
  };
  place.more?.disconnect();
  place.more = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && grow(), { root: place, rootMargin: "600px" });
  place.replaceChildren(made);
  grow();
}

/** Sort by what was clicked, and the other way when it is clicked again. @param {string} id @param {"sort" | "modules"} key */
function listenToTable(id, key) {
  byId(id).addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button?.dataset.open) change({ head: button.dataset.open });
    if (!button?.dataset.sort) return;
    const name = button.dataset.sort;
    change({ [key]: state[key] === name ? `-${name}` : name });
    byId(id).querySelector(`[data-sort="${CSS.escape(name)}"]`).focus();
  });
}

// ---- heads ---------------------------------------------------------------------------------------------------------------

/** The groups of columns that there are. */
const groups = [...new Set(content.columns.map((column) => column.group))];
/** Columns of a group that have a name of their own; the others stand beside them on the cards. @param {string} group */
const columnsIn = (group) => content.columns.filter((column) => column.group === group && (column.label || column.name.endsWith("_token")));

function makeTables() {
  for (const group of groups) {
    const label = element("label");
    const input = Object.assign(element("input"), { type: "radio", name: "group", value: group });
    input.addEventListener("change", () => change({ group }));
    label.append(input, element("span", group));
    byId("groups").append(label);
  }
  byId("groups").hidden = groups.length < 2;
  listenToTable("heads", "sort");
  listenToTable("modules", "modules");
  const count = content.modules.names.length;
  const loss = content.facts.mergeDtype ? ` Merging is into ${content.facts.mergeDtype}.` : "";
  byId("modules-facts").textContent = `${count.toLocaleString("en")} ${count === 1 ? "matrix" : "matrices"} that ${content.kind === "adapter" ? "the adapter changes" : "were compared"}.${loss} Click a heading to sort by it.`;
}

function drawHeads() {
  check("group", state.group);
  const shown = columnsIn(state.group);
  const sort = columns.has(state.sort.replace("-", "")) && !shown.some((column) => column.name === state.sort.replace("-", "")) ? "name" : state.sort;
  sortTable(byId("heads"), {
    columns: shown,
    values: content.values,
    names: heads.map((head) => head.index),
    label: "head",
    sort,
    name: (row) => {
      const button = element("button", heads[row].label, "chip");
      button.type = "button";
      button.dataset.open = heads[row].label;
      button.setAttribute("aria-label", `Card of ${titleOf(heads[row])}`);
      return button;
    },
    told: (column, row) => told(column, content.values[column.name][row]),
  });
}

/** Heads in the order of the table. @returns {Head[]} */
function inOrder() {
  const [name, back] = [state.sort.replace("-", ""), state.sort.startsWith("-")];
  const order = name === "name" ? orderOf(heads.map((_, i) => i), !back) : orderOf(content.values[name], back);
  return order.map((i) => heads[i]);
}

function drawModules() {
  const { names, values } = content.modules;
  sortTable(byId("modules"), {
    columns: content.modules.columns,
    values,
    names,
    label: "module",
    sort: state.modules,
    name: (row) => element("code", names[row]),
    told: (column, row) => told(column, values[column.name][row]),
  });
}
