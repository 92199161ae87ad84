/** Finding a place in the text: by what stands there, or by its position. Arithmetic only. */

export interface Hit {
  /** Tokens from, and up to. */
  readonly start: number;
  readonly stop: number;
}

/** Where each token begins in the whole text. */
export interface Index {
  readonly text: string;
  readonly starts: Uint32Array;
}

const MOST = 5000;

export function indexOf(tokens: readonly string[]): Index {
  const starts = new Uint32Array(tokens.length + 1);
  let at = 0;
  tokens.forEach((token, i) => {
    starts[i] = at;
    // lower case may be longer or shorter than what it comes from (İ), so places are counted in what is searched
    at += token.toLowerCase().length;
  });
  starts[tokens.length] = at;
  return { text: tokens.map((token) => token.toLowerCase()).join(""), starts };
}

/** The token that holds a character. */
export function tokenAt(index: Index, character: number): number {
  let [low, high] = [0, index.starts.length - 2];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((index.starts[middle] ?? Infinity) <= character) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** All places where the words stand, whatever their case; "#12" and a bare number are a position, too. */
export function search(index: Index, wanted: string): readonly Hit[] {
  const hits: Hit[] = [];
  const position = /^#?(\d{1,9})$/.exec(wanted.trim());
  if (position && Number(position[1]) < index.starts.length - 1) {
    hits.push({ start: Number(position[1]), stop: Number(position[1]) + 1 });
    if (wanted.trim().startsWith("#")) return hits;
  }
  const needle = wanted.toLowerCase();
  if (needle === "") return hits;
  for (let at = index.text.indexOf(needle); at >= 0 && hits.length < MOST; at = index.text.indexOf(needle, at + needle.length)) {
    hits.push({ start: tokenAt(index, at), stop: tokenAt(index, at + needle.length - 1) + 1 });
  }
  return hits;
}

/** The hit after, or before, a token; around the end to the other one. -1 where there is none. */
export function beside(hits: readonly Hit[], token: number, by: 1 | -1): number {
  if (hits.length === 0) return -1;
  const starts = hits.map((hit, i) => [hit.start, i] as const).sort((a, b) => a[0] - b[0]);
  const next = by > 0 ? starts.find(([start]) => start > token) : starts.findLast(([start]) => start < token);
  return (next ?? (by > 0 ? starts[0] : starts.at(-1)))?.[1] ?? -1;
}
