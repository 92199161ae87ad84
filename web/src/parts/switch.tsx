/** On or off. */

interface Props {
  readonly label: string;
  readonly on: boolean;
  readonly onChange: (on: boolean) => void;
  readonly meaning?: string;
}

export function Switch({ label, on, onChange, meaning }: Props) {
  return (
    <label class="switch" title={meaning}>
      <input type="checkbox" role="switch" checked={on} onChange={(event) => onChange(event.currentTarget.checked)} />
      <span>{label}</span>
    </label>
  );
}
