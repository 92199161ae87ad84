import { render } from "preact";

import { App } from "./app";
import { onlyOnce } from "./state/notices";
import { EmbeddedTransport, LEFT_OUT, embeddedContent } from "./transport/embedded";
import { HttpTransport } from "./transport/http";
import { allowOnlyEmptyHtml } from "./trusted";

allowOnlyEmptyHtml();

const place = document.getElementById("app");
if (!place) throw new Error("the page has no element #app");
const content = embeddedContent();
if (content) {
  onlyOnce(LEFT_OUT);
  // what was on the screen when the page was saved comes first, unless an address asks for something else
  if (location.hash.length < 2 && content.view) location.replace(`#${content.view}`);
}
render(<App transport={content ? new EmbeddedTransport(content) : new HttpTransport()} />, place);
