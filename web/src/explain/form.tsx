/** Asking for an explanation: by which method, of what, and whether to measure how far it can be trusted. */

import { useId, useState } from "preact/hooks";

import { Choice } from "../parts/choice";
import { Menu } from "../parts/menu";
import { Token } from "../parts/token";
import { BUDGETS, END, isTarget, travelling } from "../state/explained";
import type { Explained } from "../state/view";
import type { MethodInfo } from "./answer";

interface Props {
  readonly methods: readonly MethodInfo[];
  readonly tokens: readonly string[] | null;
  /** The token that is selected. */
  readonly selected: number | null;
  /** What the form begins with. */
  readonly start: Explained | null;
  readonly onAsk: (asked: Explained) => void;
}

type Place = "end" | "selected" | "written";

const NEEDS: readonly (readonly [needs: MethodInfo["needs"], label: string])[] = [
  ["attention", "from attention alone"],
  ["values", "from what attention passes on"],
  ["gradients", "with gradients"],
  ["passes", "by asking the model again and again"],
  ["nothing", "to compare with"],
];

const FIRST = "chefer";

export function ExplainForm({ methods, tokens, selected, start, onAsk }: Props) {
  const [method, setMethod] = useState(start?.method.split(":")[0] ?? methods.find(({ name }) => name === FIRST)?.name ?? methods[0]?.name ?? "");
  const [preset, setPreset] = useState(start?.method.split(":")[1] ?? "");
  const [place, setPlace] = useState<Place>(start === null || start.target === END ? "end" : "written");
  const [written, setWritten] = useState(start !== null && start.target !== END ? start.target : "");
  const [budget, setBudget] = useState(start?.budget ?? BUDGETS[0].passes);
  const hint = useId();
  const info = methods.find(({ name }) => name === method);
  const missing = methods.filter(({ reason }) => reason !== null);
  // the first preset is what the bare name means, and one without a preset has no other
  const presets = info && info.presets.length > 1 ? info.presets : [];
  const target = place === "end" ? END : place === "written" ? written : selected === null ? "" : String(selected);
  const ready = info?.reason === null && isTarget(target);
  const ask = (event: Event): void => {
    event.preventDefault();
    if (!ready) return;
    const named = presets.includes(preset) && preset !== presets[0] ? `${method}:${preset}` : method;
    onAsk({ method: named, target: travelling(target), budget });
  };
  return (
    <form class="explain-form" onSubmit={ask}>
      <div class="pair">
        <Menu
          label="Method"
          groups={NEEDS.map(([needs, label]) => ({
            label,
            options: methods.filter((one) => one.needs === needs).map((one) => ({ value: one.name, label: one.name.replaceAll("_", " "), disabled: one.reason !== null })),
          })).filter(({ options }) => options.length > 0)}
          value={method}
          onChange={(to) => {
            setMethod(to);
            setPreset("");
          }}
        />
        {presets.length > 0 && (
          <Menu
            label="as in"
            groups={[{ label: null, options: presets.map((name) => ({ value: name, label: name })) }]}
            value={preset || (presets[0] ?? "")}
            onChange={setPreset}
          />
        )}
        <Menu
          label="Faithfulness"
          groups={[{ label: null, options: budgets(budget).map(({ passes, label }) => ({ value: String(passes), label: passes === 0 ? label : `${label} · ${passes} passes` })) }]}
          value={String(budget)}
          onChange={(to) => setBudget(Number(to))}
        />
      </div>
      {info && (
        <p class="faint small">
          {info.summary}
          {info.paper && ` (${info.paper})`}
        </p>
      )}
      <div class="pair">
        <Choice<Place>
          label="Explain what comes"
          options={[
            { value: "end", label: "at the end", meaning: "the model's own prediction behind the last token" },
            { value: "selected", label: "after the selected", meaning: "the model's own prediction behind the selected token", disabled: selected === null },
            { value: "written", label: "written", meaning: "a token of yours, one token rather than another, or a class" },
          ]}
          value={place}
          onChange={setPlace}
        />
        <button type="submit" class="button strong" disabled={!ready}>
          Explain
        </button>
      </div>
      {place === "selected" && selected !== null && (
        <p class="faint small">
          what the model says after token {selected} {tokens && <Token text={tokens[selected] ?? ""} position={selected} />}
        </p>
      )}
      {place === "written" && (
        <div class="written">
          <input
            type="text"
            aria-label="What is explained"
            aria-describedby={hint}
            aria-invalid={written !== "" && !isTarget(written)}
            placeholder="-1: Paris/ Rome"
            spellcheck={false}
            value={written}
            onInput={(event) => setWritten(event.currentTarget.value)}
          />
          <p id={hint} class="faint small">
            <code>-1: Paris</code> this token, its space included; <code>-1: Paris/ Rome</code> rather than that one; <code>next@120</code> the token that
            follows; <code>label:1</code> a class
          </p>
        </div>
      )}
      {missing.length > 0 && (
        <p class="faint small">
          Greyed out: {missing.map(({ name, reason }) => `${name.replaceAll("_", " ")} (${reason ?? ""})`).join("; ")}.
        </p>
      )}
    </form>
  );
}

/** An address may ask for another number of passes than the list has. */
const budgets = (budget: number): readonly { readonly passes: number; readonly label: string }[] =>
  BUDGETS.some(({ passes }) => passes === budget) ? BUDGETS : [...BUDGETS, { passes: budget, label: "as asked for" }];
