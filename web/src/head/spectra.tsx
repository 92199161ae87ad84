/** The singular values of what a head has learnt: of its query-key product, and of its value-output product. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";

import { lookWithin } from "../parts/chart";
import { theme } from "../state/theme";

interface Props {
  readonly qk: readonly number[];
  readonly ov: readonly number[];
}

const HEIGHT = 132;

export function Spectra({ qk, ov }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const shade = theme.value;
  useEffect(() => {
    const root = place.current;
    if (!root) return undefined;
    const { colour, axis } = lookWithin(root, 34);
    const count = Math.max(qk.length, ov.length);
    const relative = (values: readonly number[]): (number | null)[] =>
      Array.from({ length: count }, (_, i) => (values[i] === undefined ? null : values[i] / (values[0] || 1)));
    const chart = new uPlot(
      {
        width: root.clientWidth,
        height: HEIGHT,
        legend: { show: false },
        cursor: { show: false },
        padding: [6, 6, 0, 0],
        scales: { x: { time: false }, y: { range: [0, 1] } },
        axes: [{ ...axis, size: 20 }, axis],
        series: [
          {},
          { stroke: colour("--bar"), width: 1.75, points: { show: false } },
          { stroke: colour("--accent"), width: 1.75, points: { show: false } },
        ],
      },
      [Array.from({ length: count }, (_, i) => i + 1), relative(qk), relative(ov)],
      root,
    );
    const watcher = new ResizeObserver(() => chart.setSize({ width: root.clientWidth, height: HEIGHT }));
    watcher.observe(root);
    return () => {
      watcher.disconnect();
      chart.destroy();
    };
  }, [qk, ov, shade]);
  const rank = (values: readonly number[]): number => {
    const total = values.reduce((sum, value) => sum + value, 0);
    const entropy = values.reduce((sum, value) => (value > 0 ? sum - (value / total) * Math.log(value / total) : sum), 0);
    return Math.exp(entropy);
  };
  return (
    <figure class="spectra">
      <figcaption>
        Singular values over the largest: <b class="qk">QK</b> (effective rank {rank(qk).toFixed(1)}), <b class="ov">OV</b> ({rank(ov).toFixed(1)})
      </figcaption>
      <div ref={place} />
    </figure>
  );
}
