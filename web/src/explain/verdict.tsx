/** Whether an explanation can be trusted, in words: what was measured of it, and what must be said beside it. */

import { inLine } from "../parts/glyphs";
import { figures } from "../parts/numbers";
import type { Explanation, Faithfulness, Measure } from "./answer";

const MARKS = { "more faithful than chance": "more", "less faithful than chance": "less", "cannot tell": "open" } as const;

export function VerdictMark({ faithfulness }: { readonly faithfulness: Faithfulness | null }) {
  if (!faithfulness) return <span class="verdict none">not measured</span>;
  return <span class={`verdict ${MARKS[faithfulness.verdict]}`}>{faithfulness.verdict}</span>;
}

export function Trust({ found }: { readonly found: Explanation }) {
  const { faithfulness, cautions } = found;
  return (
    <section class="trusted" aria-label="How far it can be trusted">
      <p class="summary">
        {faithfulness ? inLine(faithfulness.summary) : UNMEASURED}
      </p>
      {faithfulness?.verdict === "cannot tell" && <p class="faint small">{OPEN}</p>}
      {cautions.map((caution) => (
        <p key={caution} class="caution">
          {inLine(caution)}
        </p>
      ))}
    </section>
  );
}

const UNMEASURED =
  "Its faithfulness was not measured: nothing here says whether the model needed what is coloured.";
const OPEN = "That is an answer: on this text, these scores could not be told from chance.";

/** Every measure beside what other orders reach. */
export function Measures({ faithfulness }: { readonly faithfulness: Faithfulness }) {
  const orders = [...new Set(faithfulness.measures.flatMap(({ baselines }) => Object.keys(baselines)))];
  return (
    <details class="measures">
      <summary>All measures, from {faithfulness.passes} forward passes</summary>
      <div class="wide">
        <table>
          <thead>
            <tr>
              <th scope="col">measure</th>
              <th scope="col">this method</th>
              <th scope="col">better than random by</th>
              <th scope="col" title="how often chance does as well">
                chance
              </th>
              {orders.map((order) => (
                <th key={order} scope="col">
                  {spaced(order)}
                </th>
              ))}
            </tr>
          </thead>
          <tbody>
            {faithfulness.measures.map((measure) => (
              <tr key={measure.name}>
                <th scope="row" title={measure.unit}>
                  {spaced(measure.name)}
                </th>
                <td>{said(measure.value)}</td>
                <td>{advantage(measure)}</td>
                <td>{measure.p === null ? "–" : `${figures(100 * measure.p, 2)} %`}</td>
                {orders.map((order) => (
                  <td key={order} class="faint">
                    {said(measure.baselines[order] ?? null)}
                  </td>
                ))}
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </details>
  );
}

const spaced = (name: string): string => name.replaceAll("_", " ");
const said = (value: number | null): string => (value === null ? "–" : figures(value));
const signed = (value: number): string => `${value > 0 ? "+" : ""}${figures(value, 2)}`;

function advantage({ advantage: by, low, high }: Measure): string {
  if (by === null) return "–";
  return low === null || high === null ? signed(by) : `${signed(by)} (${signed(low)} to ${signed(high)})`;
}
