/** One head: its matrix in the middle, the text that it is about beside it, and what is known of it. */

import { useEffect, useMemo, useState } from "preact/hooks";

import { ComparePicker } from "../compare/picker";
import type { Explaining } from "../explain/jobs";
import { ExplainPanel } from "../explain/panel";
import { RankedTokens } from "../explain/ranked";
import { useExplained } from "../explain/reading";
import { MatrixMap } from "../matrix/MatrixMap";
import { Choice } from "../parts/choice";
import { Menu } from "../parts/menu";
import { Panel } from "../parts/panel";
import type { CaptureInfo } from "../protocol";
import { usePage } from "../state/page";
import { follow } from "../state/reading";
import { change, readBy, readExplanation, view, withPanel, withShade, withSpans } from "../state/view";
import type { Finding } from "../text/finding";
import { Text } from "../text/text";
import { TopTokens } from "../text/top";
import { HeadBar } from "./bar";
import { HeadCard } from "./card";

interface Props {
  readonly capture: CaptureInfo;
  readonly finding: Finding;
  readonly explaining: Explaining;
}

export function HeadView({ capture, finding, explaining }: Props) {
  const page = usePage();
  const { layer, head, panels, reading: side, sink, colour, against, mode } = view.value;
  const [picking, setPicking] = useState(false);
  const followed = useMemo(() => follow(page.transport), [page]);
  useEffect(() => followed.stop, [followed]);
  const explained = useExplained(explaining, capture.id);
  const explains = colour === "explanation";
  const reading = explains ? explained.reading : followed.reading.value;
  const tokens = finding.tokens.value;
  const pick = (token: number): void => finding.pick(token);
  /** What is picked in the list is the other side of the entry: where the selected token looks, or what looks at it. */
  const pickPartner = (token: number): void => {
    if (reading?.by === "received") change((from) => ({ ...from, col: token, reading: "col" }));
    else if (side === "row") change((from) => ({ ...from, col: token }));
    else change((from) => ({ ...from, row: Math.max(0, token - finding.shift()) }));
  };
  if (layer === null || head === null) return null;
  return (
    <div class="head-view">
      <HeadBar capture={capture} onCompare={() => setPicking(true)} />
      <div class={["rooms", !panels.text && "without-text", panels.explain && "explains", against !== null && mode === "beside" && "beside"].filter(Boolean).join(" ")}>
        <section class="matrix-room" aria-label="The matrix">
          <MatrixMap />
        </section>
        <aside class="side" aria-label="Text and head">
          <Panel title="Text" open={panels.text} onToggle={(open) => change(withPanel("text", open))} tools={<TextTools />}>
            {tokens ? (
              <div class="text-room">
                <Text tokens={tokens} reading={reading} finding={finding} onSelect={pick} />
                {explains && explained.all.length > 0 && <RankedTokens all={explained.all} tokens={tokens} onPick={pick} />}
                {explains && explained.all.length === 0 && <p class="faint small">No explanation colours the text yet.</p>}
                {!explains && reading && (
                  <TopTokens
                    reading={reading}
                    tokens={tokens}
                    aside={sink && reading.by !== "col"}
                    shift={finding.shift()}
                    onPick={pickPartner}
                  />
                )}
                {!explains && !reading && <div class="top" />}
              </div>
            ) : (
              <p class="faint">{finding.waiting() ? "…" : "This capture has no text, only matrices."}</p>
            )}
          </Panel>
          <div class="cards">
            <Panel title="Explain" open={panels.explain} onToggle={(open) => change(withPanel("explain", open))}>
              <ExplainPanel capture={capture.id} explaining={explaining} tokens={tokens} selected={finding.tokenOf(side, view.value[side])} />
            </Panel>
            <Panel title="Head" open={panels.card} onToggle={(open) => change(withPanel("card", open))}>
              <HeadCard capture={capture.id} layer={layer} head={head} />
            </Panel>
          </div>
        </aside>
      </div>
      <ComparePicker capture={capture} open={picking} onClose={() => setPicking(false)} />
    </div>
  );
}

const EXPLAINED = { value: "explanation", label: "explained", meaning: "the scores of the explanation below" } as const;

/** What colours the text, and how. */
function TextTools() {
  const { atlas } = usePage();
  const { reading, shade, spans, colour, explained, panels } = view.value;
  return (
    <div class="tools">
      <Choice<"row" | "col" | "explanation">
        label="The text is coloured by"
        named={false}
        options={[
          { value: "row", label: "looks at", meaning: "what the selected token attends to: a row" },
          { value: "col", label: "looked at by", meaning: "what attends to the selected token: a column" },
          // while nobody explains anything, there is nothing to choose
          ...(explained === null && !panels.explain ? [] : [{ ...EXPLAINED, disabled: explained === null }]),
        ]}
        value={colour === "explanation" ? colour : reading}
        onChange={(to) => change(to === "explanation" ? readExplanation : readBy(to))}
      />
      {colour === "matrix" && (
        <Choice
          label="Shade"
          named={false}
          options={[
            { value: "log", label: "Log" },
            { value: "linear", label: "Linear" },
          ]}
          value={shade}
          onChange={(to) => change(withShade(to))}
        />
      )}
      {atlas.spans.length > 0 && (
        <Menu
          label="Spans"
          named={false}
          groups={[{ label: null, options: [{ value: "", label: "no spans" }, ...atlas.spans.map((kind) => ({ value: kind, label: `${kind}s` }))] }]}
          value={spans ?? ""}
          onChange={(kind) => change(withSpans(kind || null))}
        />
      )}
    </div>
  );
}
