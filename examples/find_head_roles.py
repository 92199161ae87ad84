"""Which heads of an encoder have which roles, measured on sequences in which the right answer is known."""

import attlas

table = attlas.heads(attlas.load("minilm-l6"))
print(table)
for role in table.roles:
    (best,) = table.best(role.name)  # chosen on one half of the examples, reported on the other
    verdict = "" if best.passes else "  (not above its baseline)"
    print(
        f"{role.label:>24}: layer {best.layer}, head {best.head:2d}: {best.score:.2f} "
        f"[{best.low:.2f}, {best.high:.2f}] against {best.baseline:.2f}{verdict}"
    )
