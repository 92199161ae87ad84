/** Numbers as people read them. */

const SUPERSCRIPTS = "⁰¹²³⁴⁵⁶⁷⁸⁹";

/** A number with so many digits that count. */
export function figures(value: number, digits = 3): string {
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "–" : value > 0 ? "∞" : "−∞";
  if (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)) {
    const [digit = "", power = ""] = value.toExponential(digits - 1).split("e");
    return `${digit.replace("-", "−")}·10${raised(Number(power))}`;
  }
  return Number(value.toPrecision(digits)).toLocaleString("en", { maximumSignificantDigits: digits }).replace("-", "−");
}

const raised = (power: number): string =>
  Array.from(String(power), (c) => (c === "-" ? "⁻" : (SUPERSCRIPTS[Number(c)] ?? ""))).join("");

export const whole = (value: number): string => value.toLocaleString("en");

export const percent = (value: number): string => (value > 0 && value < 5e-5 ? "< 0.01 %" : `${figures(100 * value)} %`);

/** An entry of an attention matrix: per cent while that says something. */
export const weight = (value: number): string => (Math.abs(value) >= 1e-3 || value === 0 ? percent(value) : figures(value, 2));

/** A ratio to an even spread. */
export const times = (value: number): string => (value > 0 && value < 0.1 ? `1/${figures(1 / value, 2)}` : `${figures(value)}×`);

/** A statistic in its unit. */
export function worded(unit: string, value: number): string {
  if (unit === "share") return percent(value);
  if (unit === "times") return times(value);
  return unit ? `${figures(value)} ${unit}` : figures(value);
}

/** The end of a colour scale, short enough to stand below it. */
export function tick(kind: "linear" | "log" | "lift", value: number): string {
  if (kind !== "lift") return value >= 1e-3 || value === 0 ? figures(value, 2) : figures(value, 1).replace(/^1·/, "");
  return value < 1 ? `1/${figures(1 / value, 2)}` : `${figures(value, 2)}×`;
}
