// @ts-check

/** The graph of compositions: layers from left to right, the heads of each in the order that lets edges run straight. */

const NODE = 9; // radius
const ROW = 29; // between the middles of two nodes of a layer

/** The edges that the state asks for. */
function chosenEdges() {
  return known.edges.filter((edge) => state.kinds.includes(edge.kind)).slice(0, state.edges);
}

/**
 * Where each node stands. Heights start in the heads' order and settle where their edges pull them; after each step the
 * nodes of a layer are pushed apart again.
 * @param {Edge[]} edges @param {number} width
 */
function layered(edges, width) {
  const numbers = [...new Set(known.cards.map((card) => card.layer))];
  const [left, right, top] = [26, 26, 26];
  const step = (width - left - right) / Math.max(1, numbers.length - 1);
  const x = new Map(numbers.map((layer, i) => [layer, left + i * step]));
  const nodes = new Map();
  for (const edge of edges) for (const card of [edge.from, edge.to]) nodes.set(card, nodes.get(card) ?? { card, x: x.get(card.layer), y: 0, pull: [] });
  for (const edge of edges) {
    const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
    const weight = edge.score / Math.sqrt(edge.to.layer - edge.from.layer);
    from.pull.push([to, weight]);
    to.pull.push([from, weight]);
  }
  const layers = numbers.map((layer) => [...nodes.values()].filter((node) => node.card.layer === layer).sort((a, b) => a.card.head - b.card.head));
  for (const layer of layers) layer.forEach((node, i) => (node.y = (i - (layer.length - 1) / 2) * ROW));
  for (let round = 0; round < 60; round++) {
    for (const layer of layers) {
      for (const node of layer) {
        const total = node.pull.reduce((sum, [, weight]) => sum + weight, 0);
        const wanted = node.pull.reduce((sum, [other, weight]) => sum + weight * other.y, 0) / total;
        node.y += 0.7 * (0.97 * wanted - node.y);
      }
      layer.sort((a, b) => a.y - b.y || a.card.head - b.card.head);
      spread(layer);
    }
  }
  const ys = [...nodes.values()].map((node) => node.y);
  const [low, high] = ys.length ? [Math.min(...ys), Math.max(...ys)] : [0, 0];
  for (const node of nodes.values()) node.y += top + NODE - low;
  return { nodes, x, height: top + high - low + 2 * NODE + 30 };
}

/** Push the nodes of a layer apart, each way as little as the order allows: neighbours that collide move as one block. */
function spread(layer) {
  /** @type {{nodes: any[], middle: number}[]} */
  const blocks = [];
  for (const node of layer) {
    let block = { nodes: [node], middle: node.y };
    for (let last = blocks.at(-1); last; last = blocks.at(-1)) {
      const room = ((last.nodes.length + block.nodes.length) / 2) * ROW;
      if (block.middle - last.middle >= room - 1e-9) break;
      blocks.pop();
      const count = last.nodes.length + block.nodes.length;
      // Both halves would stand where they are on average.
      const shifted = last.middle + ((block.nodes.length * ROW) / 2);
      const other = block.middle - ((last.nodes.length * ROW) / 2);
      block = { nodes: [...last.nodes, ...block.nodes], middle: (shifted * last.nodes.length + other * block.nodes.length) / count };
    }
    blocks.push(block);
  }
  for (const { nodes, middle } of blocks) nodes.forEach((node, i) => (node.y = middle + (i - (nodes.length - 1) / 2) * ROW));
}

/**
 * @param {{x: number, y: number}} from @param {{x: number, y: number}} to @param {number} layers how many the edge spans
 * @param {number} aside how far it keeps from the straight way, where several edges join the same two heads
 */
function curve(from, to, layers, aside) {
  const reach = (to.x - from.x) * 0.48;
  // An edge that runs level would cross the nodes between its ends: let it swing.
  const swing = layers > 1 && Math.abs(to.y - from.y) < ROW ? 10 + 5 * Math.min(layers, 8) : 0;
  const side = (from.x + from.y) % 2 < 1 ? -1 : 1;
  const bend = side * swing + aside;
  const f = (value) => value.toFixed(1);
  return `M${f(from.x)},${f(from.y)}C${f(from.x + reach)},${f(from.y + bend)} ${f(to.x - reach)},${f(to.y + bend)} ${f(to.x)},${f(to.y)}`;
}

function drawGraph() {
  const place = byId("graph");
  const edges = chosenEdges();
  const width = Math.max(place.clientWidth, 24 * new Set(known.cards.map((card) => card.layer)).size + 52);
  const { nodes, x, height } = layered(edges, width);
  const figure = drawn("svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group", "aria-label": "Graph of compositions" });
  const pitch = x.size > 1 ? (width - 52) / (x.size - 1) : width;
  [...x].forEach(([layer, at], i) => {
    figure.append(drawn("line", { class: "column", x1: at, x2: at, y1: 4, y2: height - 22 }));
    if (i % Math.ceil(22 / pitch)) return;
    const tick = drawn("text", { class: "tick", x: at, y: height - 6, "text-anchor": "middle" });
    tick.textContent = i ? String(layer) : `layer ${layer}`;
    if (!i) tick.setAttribute("text-anchor", "start"), tick.setAttribute("x", "2");
    figure.append(tick);
  });
  const strength = (edge) => edge.z ?? edge.score;
  const [least, most] = extent(edges.map(strength));
  const lines = [];
  for (const edge of [...edges].reverse()) {
    const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
    const alike = edges.filter((other) => other.from === edge.from && other.to === edge.to);
    const d = curve(from, to, edge.to.layer - edge.from.layer, 13 * (alike.indexOf(edge) - (alike.length - 1) / 2));
    const share = most > least ? (strength(edge) - least) / (most - least) : 1;
    const line = drawn("path", { class: `edge ${edge.kind}`, d, "stroke-width": (1.2 + 4.3 * share).toFixed(2) });
    const hit = drawn("path", { class: "hit", d });
    hit.addEventListener("pointerenter", () => showEdge(figure, edge, hit));
    hit.addEventListener("pointerleave", () => unlit(figure));
    lines.push({ edge, line, hit });
  }
  figure.append(...lines.map(({ line }) => line), ...lines.map(({ hit }) => hit));
  const items = [...nodes.values()]
    .sort((a, b) => a.card.index - b.card.index)
    .map((node) => {
      const [reads, read] = ["to", "from"].map((end) => edges.filter((edge) => edge[end] === node.card).length);
      const item = drawn("g", { class: "node", role: "button", "data-head": node.card.label, "aria-label": `${titleOf(node.card)}: reads from ${reads}, is read by ${read}` });
      const number = drawn("text", { x: node.x, y: node.y });
      number.textContent = String(node.card.head);
      item.append(drawn("circle", { cx: node.x, cy: node.y, r: NODE }), number);
      if (tellingRole(node.card)) item.classList.add("role");
      item.place = [node.x, node.y];
      item.card = node.card;
      return item;
    });
  const words = roleWords(edges, nodes, width);
  figure.append(...items, ...words);
  figure.lines = lines;
  figure.named = [...items, ...words];
  walk(figure, items, {
    open: (item) => change({ head: item.card.label }),
    show: (item) => {
      light(figure, (edge) => edge.from === item.card || edge.to === item.card, [item.card]);
      showCard(item.card, item);
    },
    hide: () => unlit(figure),
  });
  place.replaceChildren(figure);
  const [low, high] = extent(edges.map((edge) => edge.score));
  const chance = known.level ? `, where chance is ${figures(known.level, 2)}` : "";
  byId("graph-facts").textContent = edges.length
    ? `The ${edges.length} compositions of two heads that stand out most: scores from ${figures(low, 2)} to ${figures(high, 2)}${chance}. The wider, the farther above chance. Numbers are heads.`
    : "None of these kinds is among the strongest compositions.";
}

/** The roles of heads as words above them, those of the strongest edges first, as far as there is room. */
function roleWords(edges, nodes, width) {
  const taken = [...nodes.values()].map(({ x, y }) => [x - NODE, y - NODE, x + NODE, y + NODE]);
  const words = [];
  for (const node of new Set(edges.flatMap((edge) => [nodes.get(edge.from), nodes.get(edge.to)]))) {
    if (!tellingRole(node.card)) continue;
    const text = roleOf(node.card);
    const long = 7 * text.length; // about as wide as the letters are
    // Above the node, below it, before it or behind it: wherever nothing else stands.
    const places = [
      [node.x - long / 2, node.y - NODE - 14],
      [node.x - long / 2, node.y + NODE + 3],
      [node.x - NODE - 4 - long, node.y - 6],
      [node.x + NODE + 4, node.y - 6],
    ];
    const free = ([x, y]) => x > 0 && x + long < width && !taken.some(([left, top, right, bottom]) => x < right && left < x + long && y < bottom && top < y + 12);
    const place = places.find(free);
    if (!place) continue;
    taken.push([place[0], place[1], place[0] + long, place[1] + 12]);
    const word = drawn("text", { class: "word", x: place[0] + long / 2, y: place[1] + 10 });
    word.textContent = text;
    word.card = node.card;
    words.push(word);
  }
  return words;
}

/** The smallest and the largest of some numbers. @param {number[]} values */
const extent = (values) => (values.length ? [Math.min(...values), Math.max(...values)] : [0, 0]);

/** Let some edges and what they join stand out. */
function light(figure, wanted, cards) {
  const lit = new Set(cards);
  for (const { edge, line } of figure.lines) {
    const chosen = wanted(edge);
    line.classList.toggle("lit", chosen);
    if (chosen) lit.add(edge.from).add(edge.to);
  }
  for (const item of figure.named) item.classList.toggle("lit", lit.has(item.card));
  figure.classList.add("lit");
}

function unlit(figure) {
  figure.classList.remove("lit");
  hideCard();
}

/** @param {any} figure @param {Edge} edge @param {Element} hit */
function showEdge(figure, edge, hit) {
  light(figure, (other) => other === edge, []);
  const card = byId("card");
  card.hidden = false;
  card.querySelector(".small").replaceChildren();
  card.querySelector("h2").textContent = `${edge.from.label} → ${edge.to.label}`;
  card.querySelector(".said").textContent = `${KINDS[edge.kind]}-composition: ${edge.from.label} ${KIND_MEANING[edge.kind].replace("its", `${edge.to.label}’s`)}`;
  const items = [["score", figures(edge.score)], ["chance", known.level ? figures(known.level) : "–"]];
  if (edge.z !== null) items.push(["standard deviations above", figures(edge.z)]);
  card.querySelector("dl").replaceChildren(...definitions(items));
  const box = hit.getBoundingClientRect();
  beside(card, new DOMRect(box.x + box.width / 2, box.y + box.height / 2, 0, 0));
}

function makeGraph() {
  const amounts = byId("amounts");
  for (const [i, amount] of AMOUNTS.entries()) {
    if (i && AMOUNTS[i - 1] >= known.edges.length) break;
    const label = element("label");
    const input = element("input");
    Object.assign(input, { type: "radio", name: "edges", value: String(amount) });
    label.append(input, element("span", String(Math.min(amount, known.edges.length))));
    amounts.append(label);
  }
  byId("graph-controls").addEventListener("change", (event) => {
    if (event.target.name === "edges") change({ edges: Number(event.target.value) });
    else {
      const kinds = ["q", "k", "v"].filter((kind) => byId("graph-controls").elements[kind].checked).join("");
      change({ kinds });
    }
  });
  byId("graph-controls").addEventListener("submit", (event) => event.preventDefault());
}
