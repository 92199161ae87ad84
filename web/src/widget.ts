/**
 * The widget of a notebook: the page in a frame of its own, connected to Python by messages.
 *
 * A frame, because the page has a whole window's manners (its styles, its keys, its address), and a notebook has more than one of
 * them. It runs as a stranger, without the notebook's rights, and can ask nobody but through its port.
 */

import { script, style } from "virtual:attlas-page";

import type { Model } from "./notebook/bridge";
import { connect } from "./notebook/bridge";

interface Shown {
  readonly model: Model;
  readonly el: HTMLElement;
}

function render({ model, el }: Shown): () => void {
  const frame = document.createElement("iframe");
  frame.title = "attlas";
  frame.setAttribute("sandbox", "allow-scripts allow-downloads");
  frame.style.cssText = `width:100%;height:${Number(model.get("height"))}px;border:1px solid rgba(128,128,128,.4);color-scheme:light dark`;
  const channel = new MessageChannel();
  frame.addEventListener("load", () => frame.contentWindow?.postMessage("attlas", "*", [channel.port2]), { once: true });
  // eslint-disable-next-line no-restricted-properties -- the whole page is this project's own; no text of a document is in it
  frame.srcdoc = pageWith(drawn());
  const disconnect = connect(model, channel.port1);
  el.append(frame);
  return () => {
    disconnect();
    channel.port1.close();
    frame.remove();
  };
}

/** Sixteen random bytes. A notebook may come over plain HTTP, where browsers give no UUIDs. */
const drawn = (): string => Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** The document in the frame; only what bears the nonce may run or colour anything, and nothing is fetched from anywhere. */
function pageWith(nonce: string): string {
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    "img-src blob: data:",
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
  ].join("; ");
  return (
    `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="${policy}">` +
    `<meta name="color-scheme" content="light dark"><title>attlas</title><style nonce="${nonce}">${inside("style", style)}</style></head>` +
    `<body><div id="app"></div><script nonce="${nonce}">${inside("script", script)}</script></body></html>`
  );
}

/** Text that cannot end the element it stands in: in scripts and styles, "<\\/" means what "</" does. */
const inside = (name: string, text: string): string => text.replaceAll(new RegExp(`</(?=${name})`, "gi"), "<\\/");

export default { render };
