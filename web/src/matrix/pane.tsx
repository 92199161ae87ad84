/** One map on the page: its title, and the places that its control draws into. */

import { useEffect, useRef } from "preact/hooks";

import { MatrixMapControl } from "./map";
import type { Shared } from "./shared";
import type { ShownMatrix } from "./shown";

interface Props {
  readonly matrix: ShownMatrix;
  readonly shared: Shared;
  readonly titled: boolean;
  /** Whether it stands beside one whose queries are the same, and needs no names for them. */
  readonly beside: boolean;
  /** Told of the control while the map is there, and of null when it goes. */
  readonly onControl: (name: string, control: MatrixMapControl | null) => void;
}

export function MatrixPane({ matrix, shared, titled, beside, onControl }: Props) {
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => {
    if (!place.current) return undefined;
    const root = place.current;
    const canvas = (name: string): HTMLCanvasElement => one(root, `canvas.${name}`) as HTMLCanvasElement;
    const places = {
      map: one(root, ".map-zoom"),
      overlay: canvas("map-overlay"),
      top: canvas("map-top"),
      left: canvas("map-left"),
      received: canvas("map-received"),
      entropy: canvas("map-entropy"),
      distance: canvas("map-distance"),
      sink: canvas("map-sink"),
      names: {
        received: one(root, ".map-received-name"),
        entropy: one(root, ".map-entropy-name"),
        distance: one(root, ".map-distance-name"),
      },
    };
    const control = new MatrixMapControl(places, matrix, shared);
    onControl(matrix.name, control);
    return () => {
      onControl(matrix.name, null);
      control.destroy();
    };
  }, [matrix, shared, onControl]);
  const { queries, keys } = matrix.pyramid;
  const kind = ["map-pane", shared.sink.value && "with-sink", matrix.signed && "without-tracks", beside && "beside"];
  return (
    <div class={kind.filter(Boolean).join(" ")} ref={place}>
      {titled && <h3 class="map-title">{matrix.title}</h3>}
      <span class="map-name map-received-name" title="what each key receives: the sum of its column" />
      <span class="map-name map-entropy-name" title="how widely each query spreads its attention, in nats" />
      <span class="map-name map-distance-name" title="how far back each query looks on average, in tokens" />
      <canvas class="map-received" aria-hidden="true" />
      <canvas class="map-top" aria-hidden="true" />
      <canvas class="map-left" aria-hidden="true" />
      <canvas class="map-sink" aria-hidden="true" />
      <div class="map-frame">
        <div class="map-zoom" role="img" aria-label={`Map of ${matrix.title}: ${queries} queries by ${keys} keys`} />
        <canvas class="map-overlay" aria-hidden="true" />
      </div>
      <canvas class="map-entropy" aria-hidden="true" />
      <canvas class="map-distance" aria-hidden="true" />
    </div>
  );
}

function one(root: Element, selector: string): HTMLElement {
  const found = root.querySelector<HTMLElement>(selector);
  if (!found) throw new Error(`the map has no ${selector}`);
  return found;
}
