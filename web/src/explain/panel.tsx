/** Explaining the document: asking, waiting, and what to think of what was found. */

import { inLine } from "../parts/glyphs";
import { usePage } from "../state/page";
import { change, explain, view } from "../state/view";
import type { Explanation } from "./answer";
import { Curves } from "./curves";
import { ExplainForm } from "./form";
import type { Explaining } from "./jobs";
import { JobList } from "./list";
import { Measures, Trust } from "./verdict";

interface Props {
  readonly capture: string;
  readonly explaining: Explaining;
  readonly tokens: readonly string[] | null;
  /** The token that is selected. */
  readonly selected: number | null;
}

export function ExplainPanel({ capture, explaining, tokens, selected }: Props) {
  const { atlas } = usePage();
  const { explained } = view.value;
  const jobs = explaining.jobs.value.filter((job) => job.capture === capture);
  const found = explaining.find(capture, explained)?.found ?? null;
  if (atlas.excerpt) {
    if (jobs.length === 0) return <p class="faint">This page was saved without an explanation.</p>;
    return (
      <div class="explain">
        <JobList jobs={jobs} />
        {found && <Found found={found} />}
        <p class="faint small">These were saved with the page. The model is not in it, so nothing else can be explained here.</p>
      </div>
    );
  }
  if (atlas.methods.length === 0) return <p class="faint">The model is not open here, and only a model that can be asked again can be explained.</p>;
  const methods = explaining.methods.value;
  if (methods.state === "waiting") return <p class="faint">…</p>;
  if (methods.state === "refused") return <p class="faint">Nothing can be explained: {methods.reason}</p>;
  const reason = methods.value.reasons[capture];
  if (reason) return <p class="faint">Nothing can be explained: {reason}.</p>;
  return (
    <div class="explain">
      <ExplainForm
        methods={methods.value.methods}
        tokens={tokens}
        selected={selected}
        start={explained}
        onAsk={(asked) => {
          change(explain(asked));
          explaining.ask(capture, asked);
        }}
      />
      {jobs.length > 0 && <JobList jobs={jobs} explaining={explaining} />}
      {found && <Found found={found} />}
    </div>
  );
}

function Found({ found }: { readonly found: Explanation }) {
  return (
    <div class="found">
      <Trust found={found} />
      {found.faithfulness && <Curves faithfulness={found.faithfulness} name={found.name} quantity={found.target.quantity} />}
      {found.faithfulness && <Measures faithfulness={found.faithfulness} />}
      <details>
        <summary>How it was made</summary>
        <pre class="faint">{found.description.split("\n").map(inLine).join("\n")}</pre>
      </details>
    </div>
  );
}
