/** A number between two ends, on an even or on a logarithmic track. */

interface Props {
  readonly label: string;
  readonly value: number;
  readonly low: number;
  readonly high: number;
  readonly logarithmic?: boolean;
  readonly worded: (value: number) => string;
  readonly onChange: (value: number) => void;
}

const STEPS = 240;

export function Slider({ label, value, low, high, logarithmic = false, worded, onChange }: Props) {
  const [bend, unbend] = logarithmic ? [Math.log, Math.exp] : [same, same];
  const at = ((bend(value) - bend(low)) / (bend(high) - bend(low))) * STEPS;
  return (
    <label class="slider">
      <span class="legend">{label}</span>
      <input
        type="range"
        min={0}
        max={STEPS}
        step={1}
        value={Math.min(STEPS, Math.max(0, Math.round(at)))}
        aria-valuetext={worded(value)}
        onInput={(event) => onChange(unbend(bend(low) + (Number(event.currentTarget.value) / STEPS) * (bend(high) - bend(low))))}
      />
      <output>{worded(value)}</output>
    </label>
  );
}

const same = (value: number): number => value;
