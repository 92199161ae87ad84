/** What a pixel says of its entries, and how that becomes a colour: shared by the atlas and by the view of one head. */

import { Choice } from "../parts/choice";
import { usePage } from "../state/page";
import { change, kindsOf, view, withKind, withReduce } from "../state/view";

const REDUCERS = {
  lift: ["Lift", "attention over what an even spread would give"],
  max: ["Max", "the largest of the entries that a pixel covers"],
  mean: ["Mean", "the mean of the entries that a pixel covers"],
  mass: ["Mass", "the sum of the entries that a pixel covers"],
} as const;

const KINDS = { lift: "Ratio", log: "Log", linear: "Linear" } as const;

export function ShadeControls() {
  const { atlas } = usePage();
  const { reduce, scale, mode } = view.value;
  const reducers = (["lift", "max", "mean", "mass"] as const).filter((name) => atlas.reducers.includes(name));
  return (
    <>
      <Choice
        label="A pixel shows"
        options={reducers.map((name) => ({
          value: name,
          label: REDUCERS[name][0],
          meaning: REDUCERS[name][1],
          disabled: name === "lift" && mode === "difference",
        }))}
        value={reduce}
        onChange={(name) => change(withReduce(name))}
      />
      {reduce !== "lift" && (
        <Choice
          label="Scale"
          options={kindsOf(reduce).map((kind) => ({ value: kind, label: KINDS[kind] }))}
          value={scale.kind}
          onChange={(kind) => change(withKind(kind))}
        />
      )}
    </>
  );
}
