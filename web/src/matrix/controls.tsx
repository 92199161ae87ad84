/** What the map shows and how: the reducer, the scale, what is set aside, and ways to move. */

import type { Signal } from "@preact/signals";

import { Choice } from "../parts/choice";
import { Switch } from "../parts/switch";
import type { Reduce } from "../protocol";
import type { Page } from "../state/page";
import type { ScaleKind } from "../state/view";
import { change, kindsOf, view, withKind, withReduce, withSink } from "../state/view";
import { kindShown } from "./scales";
import type { ShownMatrix } from "./shown";
import { reduceOf } from "./shown";

const MEANINGS: Readonly<Record<Reduce, string>> = {
  lift: "attention over an even spread: 1 is as attended as chance",
  max: "the largest entry of a cell",
  mean: "the mean of a cell's entries",
  mass: "the sum of a cell's entries",
};

interface Props {
  readonly page: Page;
  readonly matrix: ShownMatrix;
  readonly following: Signal<boolean>;
  readonly onDiagonal: () => void;
  readonly onWhole: () => void;
  readonly onZoom: (factor: number) => void;
}

export function Controls({ page, matrix, following, onDiagonal, onWhole, onZoom }: Props) {
  const { reduce, scale, sink } = view.value;
  const reducers = page.atlas.reducers.filter((one) => !(matrix.signed && one === "lift"));
  const shown = reduceOf(matrix, reduce);
  const kinds = kindsOf(shown);
  return (
    <div class="map-controls" role="toolbar" aria-label="The map">
      <Choice
        label="Shows"
        named={false}
        value={shown}
        options={reducers.map((value) => ({ value, label: value, meaning: MEANINGS[value] }))}
        onChange={(value) => change(withReduce(value))}
      />
      {kinds.length > 1 && (
        <Choice
          label="Scale"
          named={false}
          value={kindShown(scale.kind, matrix.signed)}
          options={kinds.map((value: ScaleKind) => ({ value, label: value }))}
          onChange={(value) => change(withKind(value))}
        />
      )}
      <Switch
        label="first token aside"
        on={sink}
        meaning="The first column often soaks up what a head has no use for. Aside, it is a strip of its own and does not count in the range."
        onChange={(on) => change(withSink(on))}
      />
      <span class="map-moves">
        <button type="button" aria-pressed={following.value} title="Go to the diagonal and keep to it (d)" onClick={onDiagonal}>
          diagonal
        </button>
        <button type="button" title="The whole matrix (0)" onClick={onWhole}>
          whole
        </button>
        <button type="button" aria-label="Zoom out" title="Zoom out (−)" onClick={() => onZoom(1 / 1.6)}>
          −
        </button>
        <button type="button" aria-label="Zoom in" title="Zoom in (+)" onClick={() => onZoom(1.6)}>
          +
        </button>
      </span>
    </div>
  );
}
