"""Every error that attlas raises on purpose.

Each one is an `AttlasError` and also the built-in that a caller would catch:

    AttlasError
    ├── ArgumentError (ValueError)            an argument has the wrong shape, dtype, device or value
    │   ├── NonFiniteError                    NaN or infinity where a finite number is needed
    │   └── TooDense (also MemoryError)       a dense tensor above the limit was asked for
    ├── DocumentError (ValueError)            a text cannot be read, or does not fit the model
    ├── ModelNotFound (FileNotFoundError)     no such model, or its package is not installed
    ├── UnsupportedModelError (NotImplementedError)   the model's attention cannot be captured exactly
    ├── MissingPackageError (ImportError)     an optional package is needed for this
    ├── CaptureError (RuntimeError)           a capture is incomplete, or used wrongly
    └── StoreError (OSError)                  a file cannot be written, or is not a whole, untampered capture or model
"""

from __future__ import annotations

from collections.abc import Mapping

_NAMED = 4  # how many modules an error names before it says "and so on"


class AttlasError(Exception):
    """The root of every error that attlas raises on purpose."""


class ArgumentError(AttlasError, ValueError):
    """An argument has the wrong shape, dtype, device or value."""


class NonFiniteError(ArgumentError):
    """NaN or infinity stands where a finite number is needed."""


class TooDense(ArgumentError, MemoryError):  # noqa: N818 - reads as what it says: the answer would be too dense
    """A dense tensor above the limit was asked for."""


class DocumentError(AttlasError, ValueError):
    """A text cannot be read, or does not fit the model."""


class ModelNotFound(AttlasError, FileNotFoundError):  # noqa: N818 - named like the built-in it stands for
    """No such model is known, or the package that carries it is not installed."""


class UnsupportedModelError(AttlasError, NotImplementedError):
    """The model's attention cannot be captured exactly, so it is not captured at all."""


class MissingPackageError(AttlasError, ImportError):
    """What was asked for needs an optional package that is not installed; the message says how to get it."""


class CaptureError(AttlasError, RuntimeError):
    """A capture is incomplete, or is used in a way that would mislead."""


class StoreError(AttlasError, OSError):
    """A file cannot be written, or is not a whole and untampered capture or model."""


def complaint(argument: str, *, wanted: str, got: object, way_out: str = "") -> str:
    """Say in one line which argument is wrong, what was wanted, what came, and the way out.

    Parameters
    ----------
    argument : str
        The argument's name as the caller wrote it.
    wanted : str
        What would have been right.
    got : object
        What came instead; shown with ``str``.
    way_out : str, optional
        What to do about it, as an instruction.
    """
    message = f"{argument}: wanted {wanted}, got {got}"
    return f"{message}; {way_out}" if way_out else message


def by_reason(missed: Mapping[str, str]) -> str:
    """Say which modules are missing and why, those with the same reason together: name -> reason."""
    groups: dict[str, list[str]] = {}
    for name, reason in missed.items():
        groups.setdefault(reason, []).append(name)
    parts = []
    for reason, names in groups.items():
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        parts.append(f"{', '.join(names[:_NAMED])}{more}: {reason}")
    return "; ".join(parts)
