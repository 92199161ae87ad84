/** The only place where the text of a token becomes part of the page. */

import { flowing, pieces, quoted } from "./glyphs";

interface Props {
  readonly text: string;
  readonly position: number;
  /** Within running text spaces stay spaces and lines end; otherwise each is a sign. */
  readonly flow?: boolean;
  /** Whether it is the first of a block of running text, which stands on a new line anyway. */
  readonly begins?: boolean;
  /** Whether resting the pointer on it tells the string and the position; the text has a card of its own for that. */
  readonly titled?: boolean;
}

/** Words of running text keep the direction of their line; what could turn it is shown as a sign, so nothing else can. */
export function Token({ text, position, flow = false, begins = false, titled = true }: Props) {
  const parts = flow ? flowing(text, begins) : pieces(text);
  const title = titled ? `${quoted(text)} at position ${position}` : undefined;
  return (
    <span class={flow ? (begins ? "token flow begins" : "token flow") : "token"} title={title} dir={flow ? undefined : "auto"}>
      {parts.length === 0 ? <i class="sign">∅</i> : parts.map((part, i) => (part.sign ? <i key={i} class="sign">{part.text}</i> : part.text))}
    </span>
  );
}
