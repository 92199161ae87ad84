/** What is known of a head, beside its cell. */

import { useLayoutEffect, useRef } from "preact/hooks";

import type { StatisticInfo } from "../protocol";
import { scoreName } from "../protocol";
import { worded } from "../parts/numbers";
import type { Measured } from "../state/measured";
import type { Maps } from "./maps";
import type { HeadPlace } from "./order";
import { statisticOf } from "./order";
import { put } from "./sheet";

interface Props {
  readonly head: HeadPlace;
  readonly maps: Maps;
  readonly statistics: readonly StatisticInfo[];
  readonly measured: Measured;
}

const SIDE = 176;

export function HeadHover({ head, maps, statistics, measured }: Props) {
  const canvas = useRef<HTMLCanvasElement>(null);
  useLayoutEffect(() => {
    const paint = (): boolean => {
      const picture = maps.picture(head, SIDE * devicePixelRatio);
      if (picture && canvas.current) put(canvas.current, picture);
      return picture !== null;
    };
    if (paint()) return undefined;
    // the map is on its way while somebody waits for it
    const timer = setInterval(() => paint() && clearInterval(timer), 200);
    return () => clearInterval(timer);
  });
  const roles = measured.roles[head.label] ?? [];
  const known = statistics.filter((info) => statisticOf(head, info.name, measured) !== null);
  return (
    <div class="head-hover">
      <canvas ref={canvas} width={1} height={1} style={{ width: `${SIDE}px`, height: `${SIDE}px` }} />
      <div>
        <h2>
          Layer {head.layer.layer}, head {head.head}
        </h2>
        {roles.length > 0 && (
          <p class="badges">
            {roles.map((role) => (
              <span key={role} class="badge">
                {measured.scores.find(({ name }) => name === scoreName(role))?.label ?? role}
              </span>
            ))}
          </p>
        )}
        {known.length === 0 && <p class="faint">not measured yet</p>}
        <dl>
          {known.map((info) => [
            <dt key={info.name}>{info.label}</dt>,
            <dd key={`${info.name}.`}>{worded(info.unit, statisticOf(head, info.name, measured) ?? NaN)}</dd>,
          ])}
        </dl>
      </div>
    </div>
  );
}
