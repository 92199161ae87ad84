/** What is under the pointer, or else what is selected, in words and with its exact number. */

import { useEffect, useState } from "preact/hooks";

import { figures, times, whole } from "../parts/numbers";
import { Token } from "../parts/token";
import type { CellAnswer, Reduce } from "../protocol";
import { reasonOf } from "../state/loaded";
import { notify } from "../state/notices";
import type { Page } from "../state/page";
import { valueOf } from "../state/loaded";
import { view } from "../state/view";
import type { MatrixMapControl } from "./map";
import type { Extent } from "./pyramid";
import { EntryAsker, isEntry } from "./reading";
import type { Shared } from "./shared";
import type { ShownMatrix } from "./shown";
import { reduceOf } from "./shown";

interface Props {
  readonly page: Page;
  readonly shared: Shared;
  readonly matrices: readonly ShownMatrix[];
  readonly controlOf: (name: string) => MatrixMapControl | undefined;
}

/** How long the pointer rests before its entry is asked for. */
const REST = 60;

const AGGREGATE: Readonly<Record<Reduce, string>> = { max: "largest", mean: "mean", mass: "mass", lift: "lift" };

export function Readout({ page, shared, matrices, controlOf }: Props) {
  const hovered = shared.hovered.value;
  const { row, col } = view.value;
  const [first] = matrices;
  if (!first) return null;
  const extent = hovered?.extent ?? (row !== null && col !== null ? { row, rowEnd: row + 1, col, colEnd: col + 1 } : null);
  if (!extent) {
    return <p class="map-readout quiet">Point at the map to read it. A click selects the largest entry of a cell; a double click goes there.</p>;
  }
  // with two maps, both tell of the same place; the one that is pointed at comes first in sight anyway
  return (
    <div class="map-readout">
      <Where page={page} matrix={first} extent={extent} selected={hovered === null} />
      {matrices.map((matrix) => (
        <div key={matrix.name} class="map-value">
          {matrices.length > 1 && <span class="map-of">{matrix.title}</span>}
          {isEntry(extent) ? (
            <Entry page={page} matrix={matrix} row={extent.row} col={extent.col} rest={hovered ? REST : 0} />
          ) : (
            <Aggregate matrix={matrix} extent={extent} value={valueOfCell(controlOf(matrix.name), extent)} />
          )}
        </div>
      ))}
    </div>
  );
}

const valueOfCell = (control: MatrixMapControl | undefined, extent: Extent): number | null =>
  control?.read(extent.col, extent.row)?.value ?? null;

function Where({ page, matrix, extent, selected }: { readonly page: Page; readonly matrix: ShownMatrix; readonly extent: Extent; readonly selected: boolean }) {
  const { pyramid } = matrix;
  const known = valueOf(page.tokens(matrix.capture).value);
  const tokens = known?.length === pyramid.keys ? known : null;
  const shift = pyramid.keys - pyramid.queries;
  return (
    <p class="map-where">
      {selected && <span class="map-of">selected</span>}
      query <Positions from={extent.row} end={extent.rowEnd} tokens={tokens} shift={shift} />
      {" → "}key <Positions from={extent.col} end={extent.colEnd} tokens={tokens} shift={0} />
    </p>
  );
}

interface PositionsProps {
  readonly from: number;
  readonly end: number;
  readonly tokens: readonly string[] | null;
  readonly shift: number;
}

function Positions({ from, end, tokens, shift }: PositionsProps) {
  if (end - from > 1) return <b>{`${whole(from)} – ${whole(end - 1)}`}</b>;
  const token = tokens?.[from + shift];
  return (
    <>
      <b>{whole(from)}</b>
      {token !== undefined && <Token text={token} position={from + shift} />}
    </>
  );
}

function Aggregate({ matrix, extent, value }: { readonly matrix: ShownMatrix; readonly extent: Extent; readonly value: number | null }) {
  const reduce = reduceOf(matrix, view.value.reduce);
  const size = `${extent.rowEnd - extent.row} × ${extent.colEnd - extent.col} entries`;
  const name = matrix.signed && reduce === "max" ? "largest difference" : AGGREGATE[reduce];
  const number = value === null ? "…" : reduce === "lift" ? times(value) : figures(value, 4);
  return (
    <span>
      {name} of {size}: <b class="number">{number}</b>
    </span>
  );
}

interface EntryProps {
  readonly page: Page;
  readonly matrix: ShownMatrix;
  readonly row: number;
  readonly col: number;
  readonly rest: number;
}

function Entry({ page, matrix, row, col, rest }: EntryProps) {
  const [answer, setAnswer] = useState<{ readonly of: string; readonly cell: CellAnswer } | null>(null);
  const of = `${matrix.name} ${row} ${col}`;
  useEffect(() => {
    const asker = new EntryAsker(page.transport, rest);
    asker.ask(matrix.name, row, col, (cell) => setAnswer({ of, cell }), (error) => notify(reasonOf(error), "error"));
    return () => asker.stop();
  }, [of, rest, page, matrix, row, col]);
  const cell = answer?.of === of ? answer.cell : null;
  if (!cell) return <span class="quiet">…</span>;
  if (!cell.visible) return <span>hidden: this query may not see this key</span>;
  return (
    <span>
      {matrix.signed ? "A − A′ = " : "A = "}
      <b class="number">{cell.exact}</b>
      {cell.lift !== null && <i title="the entry over an even spread of its row over the keys it may see">lift {times(cell.lift)}</i>}
      {cell.score !== null && <i title="the scaled product of query and key, before the softmax">score {figures(cell.score, 4)}</i>}
      {cell.rank !== null && <i title="1 is the largest entry of the row">rank {whole(cell.rank)} in its row</i>}
      {Math.abs(cell.row_sum - 1) > 1e-4 && !matrix.signed && <i title="what the row's entries sum to">row sums to {figures(cell.row_sum, 4)}</i>}
    </span>
  );
}
