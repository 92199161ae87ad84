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
  // with two maps, both tell of the same place; its tokens are those of the one that is pointed at
  const over = matrices.find(({ name }) => name === hovered?.over) ?? first;
  return (
    <div class="map-readout">
      <Where page={page} matrix={over} extent={extent} selected={hovered === null} />
      {matrices.map((matrix) => (
        <div key={matrix.name} class="map-value">
          {matrices.length > 1 && <span class="map-of">{matrix.title}</span>}
          <Value
            page={page}
            matrix={matrix}
            extent={extent}
            rest={hovered ? REST : 0}
            control={controlOf(matrix.name)}
            arrived={shared.arrived.value}
          />
        </div>
      ))}
    </div>
  );
}

interface ValueProps {
  readonly page: Page;
  readonly matrix: ShownMatrix;
  readonly extent: Extent;
  readonly rest: number;
  readonly control: MatrixMapControl | undefined;
  /** Another number once there is more to read. */
  readonly arrived: number;
}

/** What a matrix has at a place, which may lie beyond its end where another one is longer. */
function Value({ page, matrix, extent, rest, control }: ValueProps) {
  const { queries, keys } = matrix.pyramid;
  if (extent.row >= queries || extent.col >= keys) {
    return <span>ends before this place: {whole(queries)} queries, {whole(keys)} keys</span>;
  }
  if (isEntry(extent)) return <Entry page={page} matrix={matrix} row={extent.row} col={extent.col} rest={rest} />;
  // the cell that is drawn here may be another one: the last ones end with their matrix, and a long one has larger ones
  const drawn = control?.read(extent.col, extent.row);
  return <Aggregate matrix={matrix} extent={drawn?.extent ?? extent} value={drawn?.value ?? null} />;
}

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
  if (value !== null && Number.isNaN(value)) return <span>hidden: {size} that no query may see</span>;
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
