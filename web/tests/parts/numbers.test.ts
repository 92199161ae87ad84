import { expect, it } from "vitest";

import { figures, percent, times, weight, worded } from "../../src/parts/numbers";

it.each([
  [figures(0), "0"],
  [figures(1234.5), "1,230"],
  [figures(-0.00012345), "−1.23·10⁻⁴"],
  [figures(2.5e7), "2.50·10⁷"],
  [figures(NaN), "–"],
  [figures(-Infinity), "−∞"],
  [percent(0.12345), "12.3 %"],
  [percent(1e-6), "< 0.01 %"],
  [weight(0.5), "50 %"],
  [weight(1.5e-5), "1.5·10⁻⁵"],
  [times(0.05), "1/20"],
  [times(3), "3×"],
  [worded("share", 0.5), "50 %"],
  [worded("tokens", 12), "12 tokens"],
  [worded("", 12), "12"],
])("says a number as people read it: %s", (said, wanted) => expect(said).toBe(wanted));
