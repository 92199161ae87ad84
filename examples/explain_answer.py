"""Ask a model a question about a text, and find out which of its words made it answer, and how sure that is."""

from __future__ import annotations

import attlas

TEXT = (
    "The garden behind the mill was quiet in the morning. Anna keeps the spare key in the blue box. The river had been "
    "high all week, and nobody had crossed it since Monday. Where does Anna keep the spare key? In the"
)
METHODS = ["attention", "rollout", "rollout_null", "chefer", "attention_gradient", "occlusion", "recency"]


def main() -> None:
    """Explain one answer by several methods, each with its verdict."""
    lm = attlas.load("smollm2-135m")
    found = attlas.explain(lm, TEXT, method=METHODS, target=(-1, " blue"), spans="word", budget=128)
    print(f"log-probability of ' blue': {found[0].value:.2f}\n")
    for one in found:
        words = ", ".join(span.text.strip() for span, _ in one.top(4))
        trust = "not measured" if one.faithfulness is None else one.faithfulness.summary
        print(f"{one.name}: {words}\n  {trust}\n")


if __name__ == "__main__":
    main()
