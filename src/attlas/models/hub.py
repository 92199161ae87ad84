"""The files of a model on the Hugging Face hub, as a folder on this machine."""

from __future__ import annotations

import re
from pathlib import Path

from attlas.errors import ModelNotFound
from attlas.models.progress import Progress

_SHAPE = re.compile(r"[\w.-]+/[\w.-]+")
# Nothing else is fetched: above all no pickles, which could run code when they are opened.
_WANTED = ["*.json", "*.jinja", "*.model", "*.tiktoken", "*.txt", "model.safetensors", "model-*-of-*.safetensors"]


def looks_like_id(name: str) -> bool:
    """Tell whether a name has the shape of a hub id, ``organisation/name``."""
    return _SHAPE.fullmatch(name) is not None


def fetch(name: str, revision: str | None, *, remote_code: bool, progress: Progress | None) -> Path:
    """Return the folder that holds a hub model's configuration, tokenizer and safetensors weights, fetched if need be.

    Parameters
    ----------
    name : str
        The id, ``organisation/name``.
    revision : str or None
        A branch, tag or commit; None for the main branch.
    remote_code : bool
        Also fetch the model's Python files.
    progress : callable or None
        Called as ``progress(done, total, what)`` with bytes.

    Raises
    ------
    ModelNotFound
        If it is neither on this machine nor to be had.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils import tqdm

    class Reporting(tqdm):
        """The hub's progress bar, told to the caller instead of drawn."""

        def __init__(self, *args, **kwargs) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})
            self.done, self.size = 0, int(kwargs.get("total") or 0)

        def update(self, n: float | None = 1) -> None:
            self.done += int(n or 0)
            if progress is not None and self.size:
                progress(min(self.done, self.size), self.size, "downloading")

    patterns = [*_WANTED, "*.py"] if remote_code else _WANTED
    try:
        folder = snapshot_download(
            name, revision=revision, allow_patterns=patterns, ignore_patterns=["*/*"], tqdm_class=Reporting
        )
    except GatedRepoError as error:
        raise ModelNotFound(
            f"{name}: its owner asks for consent first; accept on the hub's page, then run: hf auth login"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelNotFound(
            f"{name}: the hub has no such model, or it is private; check the spelling, or run: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFound(f"{name}: the hub has no revision {revision!r} of it") from error
    except HFValidationError as error:
        raise ModelNotFound(f"{name}: not a name that the hub allows ({error})") from error
    except (
        OSError
    ) as error:  # every failure of the network arrives here: no name service, no route, a proxy, offline mode
        raise ModelNotFound(
            f"{name}: not on this machine, and the hub cannot be reached; connect to the network, "
            "or give a local folder or a bundled model (attlas models lists them)"
        ) from error
    return Path(folder)
