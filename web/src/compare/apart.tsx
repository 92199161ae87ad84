/** One line that says how far two matrices are apart: as a whole, and where most of what is in sight. */

import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";

import type { ShownMatrix } from "../matrix/shown";
import type { Extent } from "../matrix/pyramid";
import type { Sight } from "../matrix/zoomer";
import { figures, percent, whole } from "../parts/numbers";
import type { PeakAnswer } from "../protocol";
import { differenceName, paths } from "../protocol";
import type { Loaded } from "../state/loaded";
import { WAITING, fill } from "../state/loaded";
import { usePage } from "../state/page";
import type { Window } from "../state/view";
import { change, select, view } from "../state/view";
import { cut, peakIn } from "./peak";

interface ComparisonAnswer {
  readonly frobenius: number;
  readonly relative: number;
  readonly total_variation: { readonly mean: number; readonly max: number; readonly rows: readonly { readonly row: number; readonly value: number }[] };
}

interface Props {
  readonly first: string;
  readonly second: string;
  readonly matrix: ShownMatrix;
  /** What is in sight now; null while the map is not there. */
  readonly sight: () => Sight | null;
  readonly onGo: (row: number, col: number) => void;
}

/** Somebody who pans does not want each place searched. */
const SETTLED = 300;

export function Apart({ first, second, matrix, sight, onGo }: Props) {
  const { transport } = usePage();
  const name = differenceName(first, second);
  const compared = useSignal<Loaded<ComparisonAnswer>>(WAITING);
  const peak = useSignal<Loaded<PeakAnswer>>(WAITING);
  const { window } = view.value;
  useEffect(() => {
    const controller = new AbortController();
    compared.value = WAITING;
    fill(compared, transport.json(paths.comparison(first, second), controller.signal) as Promise<ComparisonAnswer>);
    return () => controller.abort();
  }, [first, second, transport, compared]);
  useEffect(() => {
    const controller = new AbortController();
    peak.value = WAITING;
    const timer = setTimeout(() => fill(peak, peakIn(name, matrix.pyramid, seen(matrix, window, sight()), transport, controller.signal)), SETTLED);
    return () => {
      clearTimeout(timer);
      controller.abort();
    };
    // the same matrix and window are the same question, whatever else is drawn anew
  }, [name, window, transport, peak]);
  const go = (row: number, col: number): void => {
    change(select(row, col));
    onGo(row, col);
  };
  const [far, most] = [compared.value, peak.value];
  return (
    <p class="apart">
      <b>How far apart</b>
      {far.state === "waiting" && <span class="faint">…</span>}
      {far.state === "refused" && <span class="faint">{far.reason}</span>}
      {far.state === "here" && (
        <span>
          <span title="half the sum of the absolute differences of a row: 0 for equal rows, 1 for rows that share no key">
            a row moves <b class="number">{percent(far.value.total_variation.mean)}</b> of its attention on average
          </span>
          {far.value.total_variation.rows[0] && (
            <>
              , at most <b class="number">{percent(far.value.total_variation.max)}</b> in{" "}
              <button type="button" class="link" onClick={() => go(far.value.total_variation.rows[0]?.row ?? 0, view.peek().col ?? 0)}>
                query {whole(far.value.total_variation.rows[0].row)}
              </button>
            </>
          )}
        </span>
      )}
      {most.state === "here" &&
        (most.value.value === 0 ? (
          <span>no difference in sight</span>
        ) : (
          <span>
            largest in sight{" "}
            <button type="button" class="link" onClick={() => go(most.value.row, most.value.col)}>
              {most.value.value > 0 ? "+" : ""}
              {figures(most.value.value)} at query {whole(most.value.row)} → key {whole(most.value.col)}
            </button>
          </span>
        ))}
      {most.state === "waiting" && <span class="faint">…</span>}
      {most.state === "refused" && <span class="faint">{most.reason}</span>}
    </p>
  );
}

/** The entries in sight; all of them where nothing else was chosen. */
function seen({ pyramid }: ShownMatrix, window: Window | null, sight: Sight | null): Extent {
  const all = { row: 0, rowEnd: pyramid.queries, col: 0, colEnd: pyramid.keys };
  if (!window) return all;
  const height = sight ? (window.width * sight.height) / sight.width : window.width;
  const [row, col] = [Math.floor(window.y), Math.floor(window.x)];
  return cut(all, { row, rowEnd: Math.ceil(window.y + height), col, colEnd: Math.ceil(window.x + window.width) }) ?? all;
}
