/** One of many: the browser's own list, which every reader of screens and every phone knows. */

export interface Group<T extends string> {
  readonly label: string | null;
  readonly options: readonly { readonly value: T; readonly label: string; readonly disabled?: boolean }[];
}

interface Props<T extends string> {
  readonly label: string;
  readonly groups: readonly Group<T>[];
  readonly value: T;
  readonly onChange: (value: T) => void;
  readonly named?: boolean;
}

export function Menu<T extends string>({ label, groups, value, onChange, named = true }: Props<T>) {
  return (
    <label class="menu">
      <span class={named ? "legend" : "heard"}>{label}</span>
      <select value={value} onChange={(event) => onChange(event.currentTarget.value as T)}>
        {groups.map((group) => {
          const options = group.options.map((option) => (
            <option key={option.value} value={option.value} selected={option.value === value} disabled={option.disabled ?? false}>
              {option.label}
            </option>
          ));
          return group.label === null ? options : <optgroup key={group.label} label={group.label}>{options}</optgroup>;
        })}
      </select>
    </label>
  );
}
