"""Every Python block that the README or the documentation shows is run as it stands there.

A page is one namespace, run from top to bottom in an empty folder. A block that cannot run says why in an HTML comment
just above it: `<!-- not run: the reason -->`.
"""

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^(?P<indent> *)```(?:python|py)\b[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
OPT_OUT = re.compile(r"<!--\s*not run:?(?P<reason>(?:(?!-->).)*)-->\s*\Z", re.DOTALL)
LOADS_A_BUNDLED_MODEL = re.compile(r"""["'](smollm2-135m|minilm-l6)["']""")


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    code: str
    reason: str | None
    """Why it is not run; None for a block that is."""


def blocks_of(text: str, page: str) -> list[Block]:
    found = []
    for match in BLOCK.finditer(text):
        opted_out = OPT_OUT.search(text[: match.start()])
        found.append(
            Block(
                page=page,
                line=text.count("\n", 0, match.start()) + 2,
                code=textwrap.dedent(match["code"]),
                reason=opted_out["reason"].strip() if opted_out else None,
            )
        )
    return found


BLOCKS = {
    page.relative_to(ROOT).as_posix(): blocks_of(page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix())
    for page in PAGES
}
RUN = {page: [block for block in blocks if block.reason is None] for page, blocks in BLOCKS.items()}
WITH_MODEL = {page for page, blocks in RUN.items() if any(LOADS_A_BUNDLED_MODEL.search(block.code) for block in blocks)}


# PEFT asks transformers for something by its older name.
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.bundled if page in WITH_MODEL else ())
        for page, blocks in RUN.items()
        if blocks
    ],
)
def test_the_code_of_a_page_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in RUN[page]:
        # The empty lines let a traceback name the line of the page.
        code = compile("\n" * (block.line - 1) + block.code, str(ROOT / page), "exec")
        exec(code, namespace)  # noqa: S102 - running the documentation's own code is what this test is for


def test_a_block_that_is_not_run_says_why() -> None:
    silent = [f"{block.page}:{block.line}" for blocks in BLOCKS.values() for block in blocks if block.reason == ""]
    assert silent == []


def test_most_blocks_run() -> None:
    total = sum(map(len, BLOCKS.values()))
    assert total > 0
    assert sum(map(len, RUN.values())) >= 0.8 * total


def test_at_most_one_page_pays_for_a_real_model() -> None:
    assert len(WITH_MODEL) <= 1


def test_the_reader_of_pages_finds_blocks_and_opt_outs() -> None:
    text = textwrap.dedent(
        """
        ```python
        a = 1
        ```

        <!-- not run: needs a GPU -->

        ```python
        b = 2
        ```

        <!-- not run -->
        ```py
        c = 3
        ```

        1. in a list

            ```python
            if a:
                d = 4
            ```

        ```bash
        echo no
        ```
        """
    )
    found = blocks_of(text, "page")
    assert [block.reason for block in found] == [None, "needs a GPU", "", None]
    assert found[0].line == 3
    assert found[3].code == "if a:\n    d = 4\n"
