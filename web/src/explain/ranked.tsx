/** The tokens that an explanation marks most: a list that can be read, heard and clicked, with another's scores beside. */

import { useMemo, useState } from "preact/hooks";

import { inLine } from "../parts/glyphs";
import { figures } from "../parts/numbers";
import { Token } from "../parts/token";
import type { Explanation } from "./answer";
import { ranked } from "./ranking";

interface Props {
  /** One, or two that are compared. */
  readonly all: readonly Explanation[];
  readonly tokens: readonly string[] | null;
  readonly onPick: (token: number) => void;
}

const LISTED = 40;

export function RankedTokens({ all, tokens, onPick }: Props) {
  const [chosen, setChosen] = useState(0);
  const by = Math.min(chosen, all.length - 1);
  const rows = useMemo(() => ranked(all.map(({ scores }) => scores), by, LISTED), [all, by]);
  const signed = all.some((one) => one.signed);
  const answers = all[by]?.answers ?? null;
  return (
    <div class="ranked">
      <table>
        <thead>
          <tr>
            <th scope="col" colSpan={2}>
              marked most
            </th>
            {all.map(({ target }, i) => (
              <th key={i} scope="col" aria-sort={i === by ? "descending" : "none"} title={inLine(target.name)}>
                {all.length > 1 ? (
                  <button type="button" class="link" onClick={() => setChosen(i)}>
                    {named(all, i)}
                    {i === by && " ▾"}
                  </button>
                ) : (
                  named(all, 0)
                )}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map(({ token, scores, ranks }) => (
            <tr key={token} class={token === answers ? "answers" : undefined}>
              <td class="words">
                <button type="button" class="plain" onClick={() => onPick(token)}>
                  {tokens ? <Token text={tokens[token] ?? ""} position={token} /> : "token"}
                </button>
              </td>
              <td class="position">
                {token}
                {token === answers && <span title="the model answers here"> ◂</span>}
              </td>
              {scores.map((score, i) => (
                <td key={i} class="score">
                  <i class={(score ?? 0) < 0 ? "bar against" : "bar"} style={{ width: `${widthOf(score, all[i]?.end ?? null).toFixed(1)}%` }} />
                  <span>{score === null ? "–" : figures(score)}</span>
                  {all.length > 1 && <span class="rank" title="its place in this explanation">{ranks[i] ?? "–"}.</span>}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
      <p class="key">
        <span>
          <i />
          {signed ? "speaks for it" : "relevant"}
        </span>
        {signed && (
          <span>
            <i class="against" />
            speaks against it
          </span>
        )}
        {all[0]?.end != null && <span>full colour from {figures(all[0].end)}</span>}
        {answers !== null && <span>◂ and a line below: where the model answers</span>}
      </p>
    </div>
  );
}

/** Two of one method are told apart by what they explain. */
function named(all: readonly Explanation[], i: number): string {
  const { name = "", target } = all[i] ?? {};
  const alike = all.some((other, j) => j !== i && other.name === name);
  return alike && target ? `${name} ${inLine(target.name)}` : name;
}

const widthOf = (score: number | null, end: number | null): number => (score === null || !end ? 0 : Math.min(100, (100 * Math.abs(score)) / end));
