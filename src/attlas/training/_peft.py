"""The door to PEFT, an optional extra: opened late, with one clear error where it is missing."""

from __future__ import annotations

from typing import Any

from attlas.errors import MissingPackageError


def the_peft() -> Any:
    """Return the package `peft`.

    Raises
    ------
    MissingPackageError
        It is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise MissingPackageError(
            "adapters are made and trained with the package peft, which is not installed; "
            "install it with: pip install 'attlas[lora]'"
        ) from error
    return peft
