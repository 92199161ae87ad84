// @ts-check

/** Figures that the arrow keys can walk through, and the card that shows what stands at one place. */

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
