/** What all charts have in common: the colours and the letters of the page that they stand in. */

import type uPlot from "uplot";

export interface Look {
  /** The page's colour of a name, such as "--accent". */
  readonly colour: (name: string) => string;
  /** An axis as every chart has it. */
  readonly axis: uPlot.Axis;
}

/** How a chart looks within an element; `size` is the room that its numbers have beside it. */
export function lookWithin(root: HTMLElement, size: number): Look {
  const style = getComputedStyle(root);
  const colour = (name: string): string => style.getPropertyValue(name).trim();
  const axis: uPlot.Axis = {
    stroke: colour("--faint"),
    font: `11px ${style.fontFamily}`,
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
    size,
    gap: 4,
  };
  return { colour, axis };
}
