/** What becomes of the model's answer while text is taken away, or put back: by this method's order, and by chance. */

import { useEffect, useMemo, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { lookWithin } from "../parts/chart";
import { figures } from "../parts/numbers";
import { theme } from "../state/theme";
import type { Faithfulness } from "./answer";
import type { Line, Plot } from "./plots";
import { endsOf, plotOf } from "./plots";

const HEIGHT = 138;

const WORDS = {
  deletion: ["Taken away", "the most relevant first: a faithful order makes it fall early"],
  insertion: ["Put back", "the most relevant first: a faithful order makes it rise early"],
} as const;

/** Told apart by how they are dashed, too: colours alone are not seen by everybody. */
const DASHES: readonly (readonly number[])[] = [[6, 4], [2, 3], [8, 3, 2, 3], [1, 5]];
const TONES = ["--faint", "--bar", "--accent", "--select"] as const;

interface Props {
  readonly faithfulness: Faithfulness;
  readonly name: string;
  readonly quantity: string;
}

export function Curves({ faithfulness, name, quantity }: Props) {
  const plots = useMemo(() => (["deletion", "insertion"] as const).map((kind) => plotOf(faithfulness.curves, kind, name)), [faithfulness, name]);
  const shown = plots.filter((plot) => plot !== null);
  const [first] = shown;
  if (!first) return null;
  const ends = endsOf(shown);
  return (
    <div class="curves">
      <ul class="lines">
        {[...first.lines].reverse().map((line) => (
          <li key={line.name}>
            <svg viewBox="0 0 22 8" width="22" height="8" aria-hidden="true">
              <line x1="0" x2="22" y1="4" y2="4" {...strokeOf(line, first)} />
            </svg>
            {line.name}
            {line.name === "random" && first.band && " (95 % of the orders between the shades)"}
          </li>
        ))}
      </ul>
      {shown.map((plot) => (
        <CurvePlot key={plot.kind} plot={plot} ends={ends} quantity={quantity} />
      ))}
      {!first.band && <p class="faint small">So few passes did not suffice for random orders beside it: ask for curves, and they are drawn.</p>}
    </div>
  );
}

const styleOf = (line: Line, plot: Plot): { readonly tone: string; readonly dash: readonly number[]; readonly width: number } => {
  if (line.own) return { tone: "--ink", dash: [], width: 2.25 };
  const at = plot.lines.filter((one) => !one.own).indexOf(line);
  return { tone: TONES[at % TONES.length] ?? "--faint", dash: DASHES[at % DASHES.length] ?? [], width: 1.5 };
};

const strokeOf = (line: Line, plot: Plot) => {
  const { tone, dash, width } = styleOf(line, plot);
  return { style: { stroke: `var(${tone})`, strokeWidth: `${width}px`, strokeDasharray: dash.join(" ") } };
};

interface PlotProps {
  readonly plot: Plot;
  readonly ends: readonly [number, number];
  readonly quantity: string;
}

function CurvePlot({ plot, ends, quantity }: PlotProps) {
  const place = useRef<HTMLDivElement>(null);
  const shade = theme.value;
  const [low, high] = ends;
  useEffect(() => {
    const root = place.current;
    if (!root) return undefined;
    const chart = drawn(root, plot, [low, high]);
    const watcher = new ResizeObserver(() => chart.setSize({ width: root.clientWidth, height: HEIGHT }));
    watcher.observe(root);
    return () => {
      watcher.disconnect();
      chart.destroy();
    };
  }, [plot, low, high, shade]);
  const [title, meaning] = WORDS[plot.kind];
  const last = plot.lines.map((line) => `${line.name} ends at ${figures(line.values.at(-1) ?? NaN)}`).join(", ");
  return (
    <figure>
      <figcaption>
        <b>{title}</b>, {meaning} <span class="faint">({quantity || "value"})</span>
      </figcaption>
      <div ref={place} role="img" aria-label={`${title}: ${quantity} against the share of the text; ${last}`} />
    </figure>
  );
}

function drawn(root: HTMLElement, plot: Plot, ends: readonly [number, number]): uPlot {
  const { colour, axis } = lookWithin(root, 38);
  const hidden: uPlot.Series = { width: 0, points: { show: false } };
  const lines = plot.lines.map((line): uPlot.Series => {
    const { tone, dash, width } = styleOf(line, plot);
    return { stroke: colour(tone), width, dash: [...dash], points: { show: false }, spanGaps: true };
  });
  return new uPlot(
    {
      width: root.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { show: false },
      padding: [6, 22, 0, 0],
      scales: { x: { time: false, range: [0, 1] }, y: { range: [ends[0], ends[1]] } },
      axes: [
        { ...axis, size: 20, splits: () => [0, 0.25, 0.5, 0.75, 1], values: (_, all) => all.map((share) => `${100 * share} %`) },
        { ...axis, space: 26, values: (_, all) => all.map((value) => figures(value)) },
      ],
      series: [{}, ...(plot.band ? [hidden, hidden] : []), ...lines],
      ...(plot.band ? { bands: [{ series: [1, 2] as [number, number], fill: `color-mix(in srgb, ${colour("--even")} 30%, transparent)` }] } : {}),
    },
    [
      [...plot.shares],
      // the upper end of a band comes first
      ...(plot.band ? [[...plot.band.high], [...plot.band.low]] : []),
      ...plot.lines.map((line) => [...line.values]),
    ],
    root,
  );
}
