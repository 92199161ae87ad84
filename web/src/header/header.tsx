/** The top line of the page: what is looked at, whether it can be trusted, and what concerns the whole page. */

import { SaveMenu } from "../exporting/menu";
import type { CaptureInfo } from "../protocol";
import { inLine } from "../parts/glyphs";
import { helpOpen } from "../parts/help";
import { Icon } from "../parts/icon";
import { Menu } from "../parts/menu";
import { figures, whole } from "../parts/numbers";
import { usePage } from "../state/page";
import type { Theme } from "../state/view";
import { change, openAtlas, openCapture, view, withTheme } from "../state/view";
import type { Finding } from "../text/finding";
import { SearchBox } from "./search";

interface Props {
  readonly capture: CaptureInfo;
  readonly finding: Finding;
}

/** Above this, the matrices are not quite those of the run that was captured. */
const GOOD = 1e-2;
const NEXT: Readonly<Record<Theme, Theme>> = { auto: "light", light: "dark", dark: "auto" };

export function Header({ capture, finding }: Props) {
  const { atlas } = usePage();
  const { theme } = view.value;
  return (
    <header class="top-line">
      <button type="button" class="plain brand" title="All heads" onClick={() => change(openAtlas)}>
        attlas
      </button>
      <div class="document">
        {atlas.captures.length > 1 ? (
          <Menu
            label="Document"
            named={false}
            groups={[{ label: null, options: atlas.captures.map(({ id, title, model }) => ({ value: id, label: inLine(`${id}: ${title} · ${model}`) })) }]}
            value={capture.id}
            onChange={(id) => change(openCapture(id))}
          />
        ) : (
          <h1 dir="auto">{inLine(capture.title)}</h1>
        )}
        <p>
          {factsOf(capture)}
          <Progress capture={capture} />
        </p>
      </div>
      <Trust error={capture.error} />
      <SearchBox finding={finding} />
      <SaveMenu />
      <button
        type="button"
        class="plain"
        aria-label={`Theme: ${theme}; change to ${NEXT[theme]}`}
        title={`theme: ${theme === "auto" ? "as the system" : theme}`}
        onClick={() => change(withTheme(NEXT[theme]))}
      >
        <Icon name={theme} />
      </button>
      <button type="button" class="plain question" aria-label="Help" title="keys and how to read (?)" onClick={() => void (helpOpen.value = true)}>
        ?
      </button>
    </header>
  );
}

function factsOf(capture: CaptureInfo): string {
  const most = Math.max(...capture.layers.map((layer) => layer.heads.length));
  const facts = [inLine(capture.model), `${counted(capture.layers.length, "layer")} × ${counted(most, "head")}`];
  if (capture.tokens !== null) facts.push(`${whole(capture.tokens)} tokens`);
  return facts.join(" · ");
}

const counted = (count: number, what: string): string => `${whole(count)} ${what}${count === 1 ? "" : "s"}`;

/** How far the server has come with measuring the heads; nothing once it is done. */
function Progress({ capture }: { readonly capture: CaptureInfo }) {
  const { done, of } = usePage().measured(capture.id).value;
  if (of === 0 || done >= of) return null;
  return (
    <span class="progress" role="status">
      measured {done} of {of} layers
    </span>
  );
}

function Trust({ error }: { readonly error: number | null }) {
  if (error === null) {
    return (
      <p class="trust" title="The matrices were not compared with the attention output of the model itself.">
        not verified
      </p>
    );
  }
  const good = error < GOOD;
  return (
    <p
      class={good ? "trust good" : "trust bad"}
      title={`Checked against the model's own attention output: A·V differs from it by at most ${figures(error, 2)}, relative.`}
    >
      {good ? "✓ exact to " : "✗ off by "}
      <b>{figures(error, 2)}</b>
    </p>
  );
}
