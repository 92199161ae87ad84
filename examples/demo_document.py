"""Pick a real document that nearly fills the model: a module of Python's standard library of about 7,600 tokens.

Prints its path and nothing else, so that a script can use it:

    attlas map "$(python examples/demo_document.py)" --model smollm2-135m --out atlas

Which module it is depends on the Python that runs this, because the standard library grows.
"""

import sysconfig
from pathlib import Path

import attlas

WANTED, LIMIT = 7_600, 8_192  # tokens; the limit is the number of positions of SmolLM2
PLAUSIBLE = range(20_000, 50_000)  # characters: source code has 3 to 5 of them in a token


def choose(language_model: attlas.LanguageModel) -> Path:
    lengths = {}
    for path in sorted(Path(sysconfig.get_path("stdlib")).glob("[a-z]*.py")):
        if path.stat().st_size in PLAUSIBLE:
            lengths[path] = len(language_model.tokenize(path.read_text(encoding="utf-8")).ids)
    fitting = [path for path, length in lengths.items() if length <= LIMIT]
    return min(fitting, key=lambda path: abs(lengths[path] - WANTED))


if __name__ == "__main__":
    print(choose(attlas.load("smollm2-135m")))
