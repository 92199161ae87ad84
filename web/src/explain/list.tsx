/** The explanations of this document: which is shown, which stands beside it, how far the others are. */

import { inLine } from "../parts/glyphs";
import { Icon } from "../parts/icon";
import { targetWords } from "../state/explained";
import { change, explain, explainBeside, explainedName, view } from "../state/view";
import type { Explaining, Job } from "./jobs";
import { isOver } from "./jobs";
import { about } from "./pace";
import { VerdictMark } from "./verdict";

interface Props {
  readonly jobs: readonly Job[];
  /** Who can call them off, take them off the list and make them again; nobody on a page that was saved. */
  readonly explaining?: Explaining;
}

export function JobList({ jobs, explaining }: Props) {
  const { explained, explainedBeside } = view.value;
  const shown = explained && explainedName(explained);
  const beside = explainedBeside && explainedName(explainedBeside);
  return (
    <ul class="explanations" aria-label="Explanations of this document">
      {jobs.map((job) => {
        const name = explainedName(job.asked);
        const label = `${job.asked.method.replaceAll("_", " ")}, ${nameOf(job)}`;
        return (
          <li key={name} class={name === shown ? "shown" : undefined}>
            <label>
              <input type="radio" name="explained" checked={name === shown} onChange={() => change(explain(job.asked))} />
              <span class="method">{job.asked.method.replaceAll("_", " ")}</span>
              <span class="target" dir="auto">
                {nameOf(job)}
              </span>
            </label>
            {job.found && <VerdictMark faithfulness={job.found.faithfulness} />}
            {jobs.length > 1 && name !== shown && job.state === "done" && (
              <button
                type="button"
                class="plain"
                aria-pressed={name === beside}
                aria-label={`Compare with ${label}`}
                title="show its scores beside"
                onClick={() => change(explainBeside(name === beside ? null : job.asked))}
              >
                <Icon name="compare" />
              </button>
            )}
            {explaining && isOver(job) && (
              <button
                type="button"
                class="plain"
                aria-label={`Remove ${label}`}
                title="take it off the list"
                onClick={() => {
                  explaining.remove(job);
                  if (name === shown) change(explain(null));
                  if (name === beside) change(explainBeside(null));
                }}
              >
                <Icon name="close" />
              </button>
            )}
            {explaining && !isOver(job) && <Going job={job} onCancel={() => explaining.cancel(job)} />}
            {job.state === "failed" && (
              <p class="failed" role="alert">
                {job.error !== null && inLine(job.error)}
              </p>
            )}
            {explaining && job.state === "cancelled" && (
              <p class="faint small">
                called off{" "}
                <button type="button" class="link" onClick={() => explaining.ask(job.capture, job.asked)}>
                  again
                </button>
              </p>
            )}
          </li>
        );
      })}
    </ul>
  );
}

/** What is explained: the answer's own name once it is known. */
const nameOf = (job: Job): string => {
  const words = targetWords(job.asked.target);
  const answer = job.found?.target.name;
  return inLine(answer && !words.startsWith("“") ? `${words}: ${answer}` : words);
};

function Going({ job, onCancel }: { readonly job: Job; readonly onCancel: () => void }) {
  const { done, total, what } = job.progress;
  const words = job.state === "waiting" ? "waiting for its turn" : what || "begins";
  return (
    <div class="going">
      <progress aria-label="How far it is" {...(total > 0 ? { max: total, value: done } : {})} />
      <span class="faint small">
        {words}
        {total > 0 && ` · ${done} of ${total}`}
        {job.left !== null && ` · ${about(job.left)} left`}
      </span>
      <button type="button" onClick={onCancel}>
        Cancel
      </button>
    </div>
  );
}
