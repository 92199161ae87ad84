/** One of a few, side by side: radio buttons that look like one switch. */

import { useId } from "preact/hooks";

export interface Option<T extends string> {
  readonly value: T;
  readonly label: string;
  readonly meaning?: string;
  readonly disabled?: boolean;
}

interface Props<T extends string> {
  readonly label: string;
  readonly options: readonly Option<T>[];
  readonly value: T;
  readonly onChange: (value: T) => void;
  /** Whether the label can be seen, or is there only for those who hear the page. */
  readonly named?: boolean;
}

export function Choice<T extends string>({ label, options, value, onChange, named = true }: Props<T>) {
  const name = useId();
  return (
    <fieldset class="choice">
      <legend class={named ? undefined : "heard"}>{label}</legend>
      <div>
        {options.map((option) => (
          <label key={option.value} title={option.meaning}>
            <input
              type="radio"
              name={name}
              checked={option.value === value}
              disabled={option.disabled ?? false}
              onChange={() => onChange(option.value)}
            />
            <span>{option.label}</span>
          </label>
        ))}
      </div>
    </fieldset>
  );
}
