/** Which tokens count most in what is read now: a list that can be read, heard and clicked. */

import { figures, weight } from "../parts/numbers";
import { Token } from "../parts/token";
import type { Reading } from "../state/reading";
import { largest } from "./shade";

interface Props {
  readonly reading: Reading;
  readonly tokens: readonly string[] | null;
  readonly aside: boolean;
  /** How many tokens come before the first query. */
  readonly shift: number;
  readonly onPick: (token: number) => void;
}

const LISTED = 24;

/** What the list lists. */
function Caption({ reading, token, at }: { readonly reading: Reading; readonly token: string | undefined; readonly at: number }) {
  if (reading.by === "received") return <span>most attention received, from all tokens</span>;
  const named = token === undefined ? null : <Token text={token} position={at} />;
  return (
    <span>
      {reading.by === "row" ? "looked at most by" : "look most at"} {at} <code>{named}</code>
    </span>
  );
}

export function TopTokens({ reading, tokens, aside, shift, onPick }: Props) {
  const { values, by } = reading;
  const from = by === "col" ? shift : 0;
  const at = reading.at + (by === "row" ? shift : 0);
  const best = largest(values, LISTED, aside);
  const most = Math.abs(values[best[0] ?? 0] ?? 0);
  const worded = by === "received" ? (value: number) => figures(value) : weight;
  const first = values[0] ?? 0;
  return (
    <div class="top">
      <p class="faint">
        <Caption reading={reading} token={tokens?.[at]} at={at} />
        {aside && (
          <span>
            first token aside: <b>{worded(first)}</b>
          </span>
        )}
      </p>
      <ol>
        {best.map((place) => {
          const value = values[place] ?? 0;
          const i = place + from;
          return (
            <li key={i}>
              <button type="button" class="plain" onClick={() => onPick(i)}>
                <span class="words">{tokens ? <Token text={tokens[i] ?? ""} position={i} /> : "token"}</span>
                <span class="position">{i}</span>
                <span class="value">{worded(value)}</span>
                <i class={value < 0 ? "bar against" : "bar"} style={{ width: `${((100 * Math.abs(value)) / most).toFixed(1)}%` }} />
              </button>
            </li>
          );
        })}
      </ol>
    </div>
  );
}
