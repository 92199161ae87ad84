// @ts-check

/** Figures of heads, which the arrow keys can walk through, and the card of one head. */

/**
 * Let the items of a figure be reached by keyboard: Tab enters it once, the arrows go to the nearest item that way.
 * @param {Element} figure @param {any[]} items elements with `place: [x, y]`, in any unit
 * @param {{open?: (item: any) => void, show?: (item: any) => void, hide?: () => void}} on
 */
function walk(figure, items, on) {
  items.forEach((item, i) => item.setAttribute("tabindex", i === 0 ? "0" : "-1"));
  const itemOf = (event) => items.find((item) => item === event.target || item.contains(event.target));
  const visit = (item) => {
    for (const other of items) other.setAttribute("tabindex", other === item ? "0" : "-1");
    item.focus();
  };
  figure.addEventListener("keydown", (event) => {
    const item = itemOf(event);
    if (!item || event.ctrlKey || event.metaKey || event.altKey) return;
    const move = ARROWS[/** @type {keyof ARROWS} */ (event.key)];
    if (move) {
      event.preventDefault();
      const next = nearest(items, item, move);
      if (next) visit(next);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      on.open?.(item);
    }
  });
  figure.addEventListener("click", (event) => itemOf(event) && on.open?.(itemOf(event)));
  figure.addEventListener("pointerover", (event) => {
    const item = event.pointerType === "touch" ? undefined : itemOf(event);
    if (item) on.show?.(item);
  });
  figure.addEventListener("pointerout", (event) => itemOf(event) && on.hide?.());
  figure.addEventListener("focusin", (event) => {
    if (event.target.matches(":focus-visible") && itemOf(event)) on.show?.(itemOf(event));
  });
  figure.addEventListener("focusout", () => on.hide?.());
}

/** The item that lies nearest in a direction; what lies aside counts threefold. */
function nearest(items, from, [dx, dy]) {
  let best, least = Infinity;
  for (const item of items) {
    const [x, y] = [item.place[0] - from.place[0], item.place[1] - from.place[1]];
    const ahead = x * dx + y * dy;
    if (ahead <= 0.01) continue;
    const distance = ahead + 3 * Math.abs(x * dy + y * dx);
    if (distance < least) [best, least] = [item, distance];
  }
  return best;
}

/**
 * Put the cells of a figure of heads in their places: layers across where they fit so, else downward.
 * @param {any} grid @param {any[]} cells @param {(cell: any) => {layer: number, head: number}} of
 * @param {{gap: number, fits: number, widths: [number, number], height: (width: number) => number}} sizes in pixels; cells narrower than `fits` do not fit
 */
function layOut(grid, cells, of, sizes) {
  const order = (values) => [...new Set(values)].sort((a, b) => a - b);
  const [layers, numbers] = [order(cells.map((cell) => of(cell).layer)), order(cells.map((cell) => of(cell).head))];
  const [left, top, { gap }] = [44, 34, sizes];
  const across = layers.length >= numbers.length && (grid.clientWidth - left) / layers.length - gap >= sizes.fits;
  const [over, down] = across ? [layers, numbers] : [numbers, layers];
  const [least, most] = sizes.widths;
  const width = Math.max(least, Math.min(most, (grid.clientWidth - left) / over.length - gap));
  const height = sizes.height(width);
  for (const cell of cells) {
    const { layer, head } = of(cell);
    const [column, row] = across ? [layer, head] : [head, layer];
    const [x, y] = [left + over.indexOf(column) * (width + gap), top + down.indexOf(row) * (height + gap)];
    Object.assign(cell.style, { left: `${x}px`, top: `${y}px`, width: `${width}px`, height: `${height}px` });
    cell.place = [x, y];
  }
  for (const old of grid.querySelectorAll(".label")) old.remove();
  const label = (text, x, y, shift) => {
    const made = element("span", text, "label");
    Object.assign(made.style, { left: `${x}px`, top: `${y}px`, transform: `translateX(${shift})` });
    grid.append(made);
  };
  label(across ? "layer →" : "head →", left, 0, "0");
  label(across ? "head ↓" : "layer ↓", 0, top - 15, "0");
  const step = Math.ceil(20 / (width + gap));
  over.forEach((number, i) => i % step === 0 && label(String(number), left + i * (width + gap) + width / 2, 19, "-50%"));
  down.forEach((number, i) => label(String(number), left - 8, top + i * (height + gap) + height / 2 - 6, "-100%"));
  grid.style.height = `${top + down.length * (height + gap)}px`;
}

// ---- the card of one head ------------------------------------------------------------------------------------------------

function hideCard() {
  byId("card").hidden = true;
}

/** Open the large card where a head is chosen, or close it. @param {any} head @returns {boolean} whether it is open */
function cardOpen(head) {
  const dialog = byId("head");
  if (!head) {
    if (dialog.open) dialog.close();
    return false;
  }
  if (!dialog.open) {
    hideCard();
    dialog.returnTo = document.activeElement;
    dialog.showModal();
    dialog.focus({ preventScroll: true });
    dialog.scrollTop = 0;
  }
  return true;
}

/** Let the large card go to the heads beside its own, and close. @param {() => {label: string}[]} order heads as they are sorted now */
function makeCard(order) {
  const dialog = byId("head");
  const step = (by) => {
    const list = order();
    const at = list.findIndex((head) => head.label === state.head);
    change({ head: list[(at + by + list.length) % list.length].label });
  };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  dialog.addEventListener("close", () => {
    change({ head: "" });
    dialog.returnTo?.focus?.();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "[") step(-1);
    if (event.key === "]") step(1);
  });
}
