/** How the maps of the atlas are shown: what a pixel says, in what colours, which heads, and in what order. */

import { Choice } from "../parts/choice";
import { ColourKey } from "../parts/colour_key";
import { Menu } from "../parts/menu";
import { scoreName } from "../protocol";
import type { Measured } from "../state/measured";
import { usePage } from "../state/page";
import type { Scale } from "../state/view";
import { change, view, withRole, withSize, withSort, withStatistic } from "../state/view";
import { ShadeControls } from "./shade";

export type Order = "layer" | "highest" | "lowest";

interface Props {
  readonly measured: Measured;
  readonly statistic: string;
  readonly colours: Uint32Array;
  readonly scale: Scale;
}

export function AtlasControls({ measured, statistic, colours, scale }: Props) {
  const { atlas } = usePage();
  const { sort, role, size } = view.value;
  const order: Order = sort === "layer" ? "layer" : sort.startsWith("-") ? "lowest" : "highest";
  const setOrder = (to: Order): void => change(withSort(to === "layer" ? "layer" : to === "lowest" ? `-${statistic}` : statistic));
  const having = new Set(Object.values(measured.roles).flat());
  const label = (name: string): string => measured.scores.find((info) => info.name === scoreName(name))?.label ?? name;
  const roles = measured.scores.map((info) => info.name.slice(scoreName("").length)).filter((name) => having.has(name));
  const option = ({ name, label }: { readonly name: string; readonly label: string }) => ({ value: name, label });
  const shares = atlas.statistics.filter((info) => info.unit === "share");
  const half = (name: string, label: string) => ({ value: `${name}>0.5`, label: `${label} above half` });
  const chosen = role ?? "";
  const listed = chosen === "" || roles.includes(chosen) || shares.some((info) => `${info.name}>0.5` === chosen);
  const groups = [
    { label: null, options: [{ value: "", label: "all heads" }, ...(listed ? [] : [{ value: chosen, label: chosen }])] },
    ...(roles.length ? [{ label: "role", options: roles.map((name) => ({ value: name, label: label(name) })) }] : []),
    { label: "attention", options: shares.map((info) => half(info.name, info.label)) },
  ];
  return (
    <form class="controls" aria-label="How the atlas is shown" onSubmit={(event) => event.preventDefault()}>
      <ShadeControls />
      <ColourKey colours={colours} scale={scale} />
      <Menu
        label="Statistic"
        groups={[
          { label: null, options: atlas.statistics.map(option) },
          ...(measured.scores.length ? [{ label: "score of a role", options: measured.scores.map(option) }] : []),
        ]}
        value={statistic}
        onChange={(name) => change(withStatistic(name))}
      />
      <Choice
        label="Order"
        options={[
          { value: "layer", label: "By layer" },
          { value: "highest", label: "Highest", meaning: "the highest of the statistic first" },
          { value: "lowest", label: "Lowest", meaning: "the lowest of the statistic first" },
        ]}
        value={order}
        onChange={setOrder}
      />
      <Menu label="Show" groups={groups} value={chosen} onChange={(to) => change(withRole(to || null))} />
      <Choice
        label="Size"
        options={[
          { value: "fit", label: "Fit" },
          { value: "large", label: "Large" },
        ]}
        value={size}
        onChange={(to) => change(withSize(to))}
      />
    </form>
  );
}
