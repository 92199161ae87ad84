/**
 * The policy of the server lets no string become HTML unless the page says how. OpenSeadragon empties elements by
 * setting their HTML to nothing; that alone is let through, here and in every library that the page may come to use.
 */

interface Factory {
  createPolicy(name: string, rules: { readonly createHTML: (text: string) => string }): unknown;
}

export function allowOnlyEmptyHtml(): void {
  const { trustedTypes } = globalThis as { readonly trustedTypes?: Factory };
  trustedTypes?.createPolicy("default", {
    createHTML: (text) => {
      if (text === "") return "";
      throw new TypeError("text enters this page as text, never as HTML");
    },
  });
}
