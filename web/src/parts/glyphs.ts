/**
 * Text in which every character can be seen: nothing invisible, nothing that reorders or breaks the line it stands in.
 *
 * The same signs as the library's own reports: a space is "·", a line end "⏎", a tab "⇥"; what has no form of its own is
 * its number, as in ⟨U+202E⟩; half a surrogate pair is U+FFFD.
 */

/** A stretch of a token: as it is, or a sign that stands for a character that cannot be seen. */
export interface Piece {
  readonly text: string;
  readonly sign: boolean;
}

const SIGNS: Readonly<Record<string, string>> = {
  " ": "·",
  "\n": "⏎",
  "\t": "⇥",
  "\r": "␍",
  "\x7f": "␡",
  "\u00a0": "⍽",
};

/** Controls, formats (bidi and zero width among them), private and unassigned characters, and every kind of space. */
const UNSEEN = /[\p{C}\p{Z}\s\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\u{e0100}-\u{e01ef}]/u;
const ONE_UNSEEN = new RegExp(`(${UNSEEN.source})`, "u");
const MARK = /^\p{M}/u;

/** The sign for a character that cannot be seen. */
function sign(character: string): string {
  const known = SIGNS[character];
  if (known) return known;
  const code = character.codePointAt(0) ?? 0;
  if (code < 0x20) return String.fromCharCode(0x2400 + code);
  if (code >= 0xd800 && code <= 0xdfff) return "\ufffd";
  return `⟨U+${code.toString(16).toUpperCase().padStart(4, "0")}⟩`;
}

/** A token as it stands by itself, in a list or beside a map: every space is a sign. */
export function pieces(text: string): readonly Piece[] {
  const whole = MARK.test(text) ? `◌${text}` : text;
  if (!UNSEEN.test(whole)) return whole ? [{ text: whole, sign: false }] : [];
  return whole
    .split(ONE_UNSEEN)
    .filter((part) => part !== "")
    .map((part) => (UNSEEN.test(part) ? { text: sign(part), sign: true } : { text: part, sign: false }));
}

/**
 * A token within running text: spaces are spaces, and a line end is its sign and then a new line. At the beginning of a
 * block a line end needs no new line, for it has one.
 */
export function flowing(text: string, begins = false): readonly Piece[] {
  return pieces(text).map((piece, i) => {
    if (!piece.sign) return piece;
    if (piece.text === "·") return { text: " ", sign: false };
    return piece.text === "⏎" && !(begins && i === 0) ? { text: "⏎\n", sign: true } : piece;
  });
}

/** A token in one plain string, for canvases, names and titles. */
export const visible = (text: string): string =>
  pieces(text)
    .map((piece) => piece.text)
    .join("");

/** A title or a file's name on a line: its spaces are spaces, and nothing in it hides or turns what stands beside it. */
export const inLine = (text: string): string =>
  pieces(text)
    .map((piece) => (piece.sign && piece.text === "·" ? " " : piece.text))
    .join("");

/** The string as a programmer would write it, to tell apart what looks alike. */
export const quoted = (text: string): string =>
  JSON.stringify(text).replace(/[^\x20-\x7e]/gu, (character) => {
    if (!UNSEEN.test(character)) return character;
    const code = character.codePointAt(0) ?? 0;
    return code > 0xffff ? `\\u{${code.toString(16)}}` : `\\u${code.toString(16).padStart(4, "0")}`;
  });
