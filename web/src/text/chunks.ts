/**
 * A long document in blocks, so that only those near what is in sight need be in the page. Blocks end where lines end
 * wherever that can be, for a block begins a line of its own. Arithmetic only.
 */

export interface Chunk {
  readonly start: number;
  readonly stop: number;
  /** Characters, and how many lines end: what its height is guessed from before it was ever shown. */
  readonly characters: number;
  readonly breaks: number;
}

export const [FEW, MANY] = [120, 320];

/** Cut a document: each block has at least `few` tokens and ends where a line does, or has `many`. */
export function chunksOf(tokens: readonly string[], few = FEW, many = MANY): readonly Chunk[] {
  const chunks: Chunk[] = [];
  let [start, characters, breaks] = [0, 0, 0];
  tokens.forEach((token, i) => {
    characters += token.length;
    const ends = token.includes("\n");
    if (ends) breaks += token.split("\n").length - 1;
    const count = i + 1 - start;
    // a line may end with a token, or within the next one, as where the indent of the next line belongs to it
    const cuts = token.endsWith("\n") || (tokens[i + 1]?.startsWith("\n") ?? false);
    if ((count >= few && cuts) || count >= many || i === tokens.length - 1) {
      chunks.push({ start, stop: i + 1, characters, breaks });
      [start, characters, breaks] = [i + 1, 0, 0];
    }
  });
  return chunks;
}

/** The block that holds a token: the last that begins at or before it. */
export function chunkAt(chunks: readonly Chunk[], token: number): number {
  let [low, high] = [0, chunks.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if ((chunks[middle]?.start ?? Infinity) <= token) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** How high a block will be, in pixels, when lines hold so many characters. */
export function guessedHeight(chunk: Chunk, perLine: number, lineHeight: number): number {
  // short lines are never full: half a line is lost for each that ends
  const lines = Math.max(chunk.breaks + 1, chunk.characters / perLine + chunk.breaks / 2);
  return Math.ceil(lines) * lineHeight;
}
