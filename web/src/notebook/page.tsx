/** The page inside of a notebook: waits for the port over which it may ask, and then is the same page as everywhere. */

import { render } from "preact";

import { App } from "../app";
import { CommTransport } from "../transport/comm";
import { allowOnlyEmptyHtml } from "../trusted";

allowOnlyEmptyHtml();

addEventListener("message", ({ source, ports: [port] }) => {
  const place = document.getElementById("app");
  if (source === parent && port && place) render(<App transport={new CommTransport(port)} />, place);
});
