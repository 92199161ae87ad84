import { render } from "preact";
import { describe, expect, it } from "vitest";

import { flowing, inLine, pieces, quoted, visible } from "../../src/parts/glyphs";
import { Token } from "../../src/parts/token";

describe("what cannot be seen", () => {
  it.each([
    [" a", "·a"],
    ["\n\n", "⏎⏎"],
    ["\t\r\x00\x1b\x7f", "⇥␍␀␛␡"],
    ["\u00a0", "⍽"],
    ["\u202eevil\u202c", "⟨U+202E⟩evil⟨U+202C⟩"],
    ["\u2066x\u2069", "⟨U+2066⟩x⟨U+2069⟩"],
    ["a\u200bb\u200d\ufeff", "a⟨U+200B⟩b⟨U+200D⟩⟨U+FEFF⟩"],
    ["\u2003\u2028\u3000", "⟨U+2003⟩⟨U+2028⟩⟨U+3000⟩"],
    ["\ud83d", "\ufffd"],
    ["x\udc00", "x\ufffd"],
    ["\u{e0041}\u{f0000}", "⟨U+E0041⟩⟨U+F0000⟩"],
    ["\u0301", "◌\u0301"],
    ["é😀漢", "é😀漢"],
    ["", ""],
  ])("has a sign: %j", (text, sign) => expect(visible(text)).toBe(sign));

  it("leaves nothing behind that has no form, whatever the character", () => {
    const wrong: string[] = [];
    for (let code = 0; code < 0x30000; code++) {
      const seen = visible(String.fromCodePoint(code));
      if (seen === "" || /[\p{C}\p{Z}\s]/u.test(seen)) wrong.push(code.toString(16));
    }
    expect(wrong).toEqual([]);
  });

  it("keeps the words of a token in their order", () => {
    expect(pieces(" a b").map(({ text, sign }) => `${text}${sign ? "!" : ""}`)).toEqual(["·!", "a", "·!", "b"]);
  });

  it("flows as text does, and shows where lines end", () => {
    expect(flowing(" a\n  b\u200b").map(({ text }) => text).join("")).toBe(" a⏎\n  b⟨U+200B⟩");
    expect(flowing("\n\n b", true).map(({ text }) => text).join("")).toBe("⏎⏎\n b");
  });

  it("stands in a line of a title without hiding or turning what is beside it", () => {
    expect(inLine("my file\u202etxt.exe\n")).toBe("my file⟨U+202E⟩txt.exe⏎");
  });

  it("tells apart in quotes what looks alike", () => {
    expect(quoted("a\u00a0\u202e\ud83d\n\"")).toBe('"a\\u00a0\\u202e\\ud83d\\n\\""');
    expect(quoted("😀é")).toBe('"😀é"');
  });
});

describe("a token on the page", () => {
  it("is text and never markup", () => {
    const place = document.createElement("div");
    render(<Token text={'<img src=x onerror="alert(1)">\u202e'} position={3} />, place);
    expect(place.querySelector("img")).toBeNull();
    expect(place.textContent).toBe('<img·src=x·onerror="alert(1)">⟨U+202E⟩');
    expect(place.querySelector("span")?.getAttribute("title")).toBe('"<img src=x onerror=\\"alert(1)\\">\\u202e" at position 3');
  });

  it("is seen even if it is empty", () => {
    const place = document.createElement("div");
    render(<Token text="" position={0} />, place);
    expect(place.textContent).toBe("∅");
  });
});
