/** A part of the side that can be folded. */

import type { ComponentChildren } from "preact";
import { useId } from "preact/hooks";

import { Icon } from "./icon";

interface Props {
  readonly title: string;
  readonly open: boolean;
  readonly onToggle: (open: boolean) => void;
  /** What stands at the right of the title. */
  readonly tools?: ComponentChildren;
  readonly children: ComponentChildren;
}

export function Panel({ title, open, onToggle, tools, children }: Props) {
  const id = useId();
  return (
    <section class={open ? "panel open" : "panel"} aria-labelledby={id}>
      <header>
        <h2 id={id}>
          <button type="button" class="plain" aria-expanded={open} onClick={() => onToggle(!open)}>
            <Icon name={open ? "down" : "right"} />
            {title}
          </button>
        </h2>
        {open && tools}
      </header>
      {open && <div class="body">{children}</div>}
    </section>
  );
}
