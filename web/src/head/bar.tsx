/** Above an open head: which it is, the way to its neighbours, and what it is compared with. */

import { areAlike, termWords } from "../compare/wanted";
import { Choice } from "../parts/choice";
import { Icon } from "../parts/icon";
import { Switch } from "../parts/switch";
import type { CaptureInfo } from "../protocol";
import { parseTerm } from "../protocol";
import { usePage } from "../state/page";
import type { Mode } from "../state/view";
import { change, compareWith, openAtlas, openHead, view } from "../state/view";

interface Props {
  readonly capture: CaptureInfo;
  readonly onCompare: () => void;
}

/** Open the head that many places further, in the order of layers. */
export function stepHead(capture: CaptureInfo, by: number): void {
  const { layer, head } = view.peek();
  const all = capture.layers.flatMap((info) => info.heads.map((number) => [info.layer, number] as const));
  const at = all.findIndex(([l, h]) => l === layer && (h === head || head === "mean"));
  const next = all[(at + by + all.length) % all.length];
  if (next) change(openHead(next[0], next[1]));
}

export function HeadBar({ capture, onCompare }: Props) {
  const { atlas } = usePage();
  const { layer, head, against, mode } = view.value;
  const info = capture.layers.find((known) => known.layer === layer);
  const term = against === null ? null : parseTerm(against);
  const own = { capture: capture.id, layer: layer ?? 0, head: head ?? 0, pattern: null };
  const alike = term !== null && areAlike(own, term, atlas);
  return (
    <div class="head-bar">
      <div class="where">
        <button type="button" class="button" title="back to all heads (Esc)" onClick={() => change(openAtlas)}>
          <Icon name="grid" /> Atlas
        </button>
        <button type="button" class="plain" aria-label="Previous head" title="previous head ([)" onClick={() => stepHead(capture, -1)}>
          <Icon name="left" />
        </button>
        <h2 title={info?.name}>{head === "mean" ? `Layer ${layer ?? ""}, mean of heads` : `Layer ${layer ?? ""}, head ${head ?? ""}`}</h2>
        <button type="button" class="plain" aria-label="Next head" title="next head (])" onClick={() => stepHead(capture, 1)}>
          <Icon name="right" />
        </button>
        <Switch
          label="mean of heads"
          on={head === "mean"}
          onChange={(on) => change(openHead(layer ?? 0, on ? "mean" : (info?.heads[0] ?? 0)))}
          meaning="the average of all heads of this layer"
        />
      </div>
      <div class="compare">
        <button type="button" class="button" title={against ?? "with another head, another capture or a pattern"} onClick={onCompare}>
          <Icon name="compare" /> {term === null ? "Compare …" : `with ${termWords(term, own, atlas)}`}
        </button>
        {against !== null && (
          <>
            <Choice<Mode>
              label="How the two are shown"
              named={false}
              options={[
                { value: "single", label: "Off" },
                { value: "beside", label: "Beside" },
                { value: "difference", label: "Difference", disabled: !alike },
              ]}
              value={mode}
              onChange={(to) => change(compareWith(against, to))}
            />
            <button type="button" class="plain" aria-label="Compare no more" onClick={() => change(compareWith(null))}>
              <Icon name="close" />
            </button>
          </>
        )}
      </div>
    </div>
  );
}
