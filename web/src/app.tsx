/** The page: asks what there is, then shows the atlas or one head of it. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useMemo } from "preact/hooks";

import { Atlas } from "./atlas/atlas";
import { Holds } from "./exporting/holds";
import { HeadView } from "./head/view";
import { Header } from "./header/header";
import { listenToKeys } from "./header/keys";
import { inLine } from "./parts/glyphs";
import { Help } from "./parts/help";
import { HoverCard } from "./parts/hover";
import { Notices } from "./parts/notice";
import type { AtlasInfo } from "./protocol";
import { paths } from "./protocol";
import { followAddress } from "./state/history";
import type { Loaded } from "./state/loaded";
import { WAITING, fill } from "./state/loaded";
import { open } from "./state/opening";
import { Page, PageContext, usePage } from "./state/page";
import { theme } from "./state/theme";
import { view } from "./state/view";
import { Finding } from "./text/finding";
import type { Transport } from "./transport/transport";
import "./styles/index.css";

export function App({ transport }: { readonly transport: Transport }) {
  const atlas = useSignal<Loaded<AtlasInfo>>(WAITING);
  useEffect(() => fill(atlas, transport.json(paths.atlas()) as Promise<AtlasInfo>), [transport, atlas]);
  const loaded = atlas.value;
  const page = useMemo(() => (loaded.state === "here" ? new Page(transport, loaded.value) : null), [transport, loaded]);
  if (loaded.state === "refused") {
    return (
      <p class="whole" role="alert">
        {loaded.reason}
      </p>
    );
  }
  if (!page) return <p class="whole faint">…</p>;
  return (
    <PageContext.Provider value={page}>
      <Shell />
    </PageContext.Provider>
  );
}

function Shell() {
  const page = usePage();
  const finding = useMemo(() => new Finding(page), [page]);
  const { explaining } = page;
  useEffect(() => () => explaining.stop(), [explaining]);
  // the address is read before anything is drawn, so that nothing is asked for that nobody wants to see
  const stop = useMemo(() => followAddress(page.atlas), [page]);
  useEffect(() => stop, [stop]);
  useEffect(() => listenToKeys(page, finding), [page, finding]);
  const shade = theme.value;
  // before the effects of what it holds: charts read the colours that are in force
  useLayoutEffect(() => void (document.documentElement.dataset["theme"] = shade), [shade]);
  const { capture: id, layer, head } = view.value;
  const capture = page.capture(id) ?? page.atlas.captures[0];
  const last = useSignal<string | undefined>(undefined);
  useEffect(() => {
    if (layer !== null && head !== null) last.value = `${layer}.${head}`;
    document.title = [layer === null ? null : `${layer}.${head ?? ""}`, capture && inLine(capture.title), "attlas"].filter(Boolean).join(" · ");
  }, [layer, head, capture, last]);
  if (!capture) return <p class="whole">There is no document here.</p>;
  return (
    <>
      <Header capture={capture} finding={finding} />
      <Holds atlas={page.atlas} />
      <main>
        {layer === null ? (
          <Atlas key={capture.id} capture={capture} marked={last.value} onPick={(l, h) => open(page.atlas, l, h)} />
        ) : (
          <HeadView key={capture.id} capture={capture} finding={finding} explaining={explaining} />
        )}
      </main>
      <HoverCard />
      <Help />
      <Notices />
    </>
  );
}
