/** The one card that shows what the pointer, or the focus, rests on. */

import { signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

interface Hovered {
  readonly box: DOMRect;
  readonly content: ComponentChildren;
}

const hovered = signal<Hovered | null>(null);

export const showHover = (box: DOMRect, content: ComponentChildren): void => void (hovered.value = { box, content });
export const hideHover = (): void => {
  if (hovered.peek()) hovered.value = null;
};

const GAP = 10;

export function HoverCard() {
  const place = useRef<HTMLDivElement>(null);
  const { value } = hovered;
  useLayoutEffect(() => {
    const card = place.current;
    if (!card || !value) return;
    const { box } = value;
    const [width, height] = [card.offsetWidth, card.offsetHeight];
    // below and to the right of what it tells of, where there is room; it never covers it
    const below = box.bottom + GAP + height < innerHeight;
    const wide = box.width > innerWidth / 3;
    const left = wide || below ? Math.min(box.left, innerWidth - width - GAP) : box.right + GAP;
    const right = left + width + GAP < innerWidth ? left : box.left - GAP - width;
    card.style.left = `${Math.max(GAP, below ? left : right)}px`;
    card.style.top = `${below ? box.bottom + GAP : Math.max(GAP, Math.min(box.top, innerHeight - height - GAP))}px`;
  });
  if (!value) return null;
  return (
    <div ref={place} class="hover" role="tooltip">
      {value.content}
    </div>
  );
}
