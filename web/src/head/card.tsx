/** What is known of the open head besides its matrix. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";

import { figures, percent, worded } from "../parts/numbers";
import { paths } from "../protocol";
import type { Loaded } from "../state/loaded";
import { WAITING, fill } from "../state/loaded";
import { usePage } from "../state/page";
import { change, compareWith, termOf } from "../state/view";
import type { HeadAnswer, PatternLoss, RoleScore } from "./answer";
import { readHead } from "./answer";
import { Spectra } from "./spectra";

interface Props {
  readonly capture: string;
  readonly layer: number;
  readonly head: number | "mean";
}

export function HeadCard({ capture, layer, head }: Props) {
  const page = usePage();
  const { transport } = page;
  const answer = useSignal<Loaded<HeadAnswer>>(WAITING);
  const { scores, complete } = page.measured(capture).value;
  const shown = useRef("");
  useEffect(() => {
    const place = `${capture}.${layer}.${head}`;
    // roles that come later fill the card in, and take nothing away while they do
    if (shown.current !== place) answer.value = WAITING;
    shown.current = place;
    if (head === "mean") return undefined;
    const controller = new AbortController();
    fill(answer, transport.json(paths.head(capture, layer, head), controller.signal).then(readHead));
    return () => controller.abort();
  }, [capture, layer, head, transport, answer, scores.length, complete]);
  if (head === "mean") return <p class="faint">A mean over heads has no weights and no roles of its own.</p>;
  const loaded = answer.value;
  if (loaded.state === "waiting") return <p class="faint">…</p>;
  const known = loaded.state === "here" ? loaded.value : { ...readHead(null), reason: { roles: loaded.reason } };
  const { roles, spectra, patterns, reason } = known;
  const measured = page.measured(capture).value.layers[String(layer)];
  const at = page.capture(capture)?.layers.find((info) => info.layer === layer)?.heads.indexOf(head) ?? -1;
  // what the atlas has measured serves where the card has nothing of its own
  const statistics =
    known.statistics ??
    (measured ? page.atlas.statistics.map(({ name, label }) => ({ name, label, value: measured[name]?.[at] ?? null, even: null })) : null);
  const term = termOf(capture, layer, head);
  return (
    <div class="card">
      {roles ? <Roles roles={roles} /> : <Missing what="Roles" why={reason["roles"]} />}
      {statistics ? <Statistics statistics={statistics} /> : <Missing what="Statistics" why={reason["statistics"]} />}
      {spectra ? <Spectra {...spectra} /> : <Missing what="Spectra" why={reason["spectra"]} />}
      {patterns ? <Patterns patterns={patterns} term={term} /> : <Missing what="Patterns" why={reason["patterns"]} />}
    </div>
  );
}

function Missing({ what, why }: { readonly what: string; readonly why: string | undefined }) {
  return (
    <p class="faint missing">
      <b>{what}</b>: {why ?? "not measured"}
    </p>
  );
}

function Statistics({ statistics }: { readonly statistics: NonNullable<HeadAnswer["statistics"]> }) {
  const { atlas } = usePage();
  return (
    <table>
      <thead>
        <tr>
          <th scope="col">Statistic</th>
          <th scope="col">here</th>
          <th scope="col" title="what a head gives that attends to all keys alike">even</th>
        </tr>
      </thead>
      <tbody>
        {statistics.map(({ name, label, value, even }) => {
          const info = atlas.statistics.find((known) => known.name === name);
          const said = (number: number | null): string => (number === null ? "–" : worded(info?.unit ?? "", number));
          return (
            <tr key={name} title={info?.meaning}>
              <th scope="row">{label}</th>
              <td>{said(value)}</td>
              <td class="faint">{said(even)}</td>
            </tr>
          );
        })}
      </tbody>
    </table>
  );
}

function Roles({ roles }: { readonly roles: readonly RoleScore[] }) {
  const ends = roles.flatMap(({ low, high, baseline, score }) => [low, high, baseline, score].filter((end) => end !== null));
  const [least, most] = [Math.min(0, ...ends), Math.max(1, ...ends)];
  const at = (value: number): string => `${((100 * (value - least)) / (most - least)).toFixed(1)}%`;
  return (
    <table class="roles">
      <thead>
        <tr>
          <th scope="col">Role</th>
          <th scope="col">score, 95 % interval, baseline</th>
          <th scope="col" />
        </tr>
      </thead>
      <tbody>
        {roles.map(({ label, score, low, high, baseline, passes }) => (
          <tr key={label} class={passes ? "passes" : undefined}>
            <th scope="row">
              {label}
              {passes && <span class="heard"> (this head has it)</span>}
            </th>
            <td>
              <span class="interval">
                {low !== null && high !== null && <i class="span" style={{ left: at(low), right: `calc(100% - ${at(high)})` }} />}
                {baseline !== null && <i class="baseline" style={{ left: at(baseline) }} title={`baseline ${figures(baseline)}`} />}
                {score !== null && <i class="dot" style={{ left: at(score) }} />}
              </span>
            </td>
            <td>{score === null ? "–" : figures(score, 2)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Patterns({ patterns, term }: { readonly patterns: readonly PatternLoss[]; readonly term: string }) {
  return (
    <table>
      <thead>
        <tr>
          <th scope="col" title="attention that each pattern would leave out">Pattern drops</th>
          <th scope="col">mean</th>
          <th scope="col">worst row</th>
        </tr>
      </thead>
      <tbody>
        {patterns.map(({ label, spec, mean, max }) => (
          <tr key={spec}>
            <th scope="row">
              <button type="button" class="link" title="show it beside" onClick={() => change(compareWith(`${term}:${spec}`))}>
                {label}
              </button>
            </th>
            <td>{percent(mean)}</td>
            <td>{percent(max)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
