"""What `attlas.load` returns: a model that can read a document and give back its attention."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any, overload

import torch
from torch import Tensor, nn

from attlas.capture.recorder import capture
from attlas.capture.result import Capture
from attlas.errors import UnsupportedModelError
from attlas.models import Document, Facts, check_length, chunks, open_model, tokenize
from attlas.models.progress import Progress


@dataclass(frozen=True)
class LanguageModel:
    """A model and its tokenizer, ready to read.

    Parameters
    ----------
    model : torch.nn.Module
        The transformers model, unchanged, in evaluation mode.
    tokenizer : PreTrainedTokenizerBase or None
        Its tokenizer.
    facts : Facts
        What the model is made of.
    """

    model: nn.Module
    tokenizer: Any
    facts: Facts

    @property
    def name(self) -> str:
        """The name that the model was asked for by."""
        return self.facts.name

    def tokenize(self, text: str) -> Document:
        """Cut a text into tokens, never shortening it.

        Raises
        ------
        DocumentError
            The text is empty or cannot be encoded.
        """
        return tokenize(self.tokenizer, text)

    @overload
    def read(self, text: str, *, window: None = None, progress: Progress | None = None, **options: Any) -> Capture: ...

    @overload
    def read(self, text: str, *, window: int, progress: Progress | None = None, **options: Any) -> ReadInParts: ...

    def read(
        self, text: str, *, window: int | None = None, progress: Progress | None = None, **options: Any
    ) -> Capture | ReadInParts:
        """Read a text in one ordinary forward pass and return the attention of every layer.

        Parameters
        ----------
        text : str
            The document.
        window : int, optional
            Read it in consecutive parts of at most this many tokens, each on its own, for a text that is longer than
            the model's positions.
        progress : callable, optional
            Called as ``progress(done, total, what)`` after each layer.
        **options
            Those of `attlas.capture`: layers, heads, values, output, device, dtype, disk, unrouted.

        Returns
        -------
        Capture, or ReadInParts with `window`

        Raises
        ------
        DocumentError
            The text is empty, or has more tokens than the model has positions.
        ArgumentError, UnsupportedModelError
            As `attlas.capture`.

        Notes
        -----
        Only what attends is run: no logits over the vocabulary. Of an encoder-decoder model, the encoder reads.
        """
        document = self.tokenize(text)
        if window is None:
            check_length(document, self.facts.positions)
            return self._read(document, progress, (0, 1), options)
        parts = list(chunks(document, window))
        check_length(parts[0], self.facts.positions)
        captures = [self._read(part, progress, (i, len(parts)), options) for i, part in enumerate(parts)]
        return ReadInParts(tuple(captures), tuple(parts))

    def _read(
        self, document: Document, progress: Progress | None, part: tuple[int, int], options: dict[str, Any]
    ) -> Capture:
        index, parts = part
        layers = self.facts.layers or 0

        def tell(done: int, name: str) -> None:
            if progress is not None:
                total = max(layers, done) * parts
                progress(index * max(layers, done) + done, total, f"reading {len(document):,} tokens")

        with capture(self.model, progress=tell, **options) as captured, torch.no_grad():
            run_on(reader_of(self.model), torch.tensor([document.ids]))
        return captured.of_document(document.text, document.tokens, model=self.name, fingerprint=self.facts.fingerprint)


@dataclass(frozen=True)
class ReadInParts(Sequence[Capture]):
    """The captures of a document that was read in parts; each part attends only to itself.

    Parameters
    ----------
    captures : tuple of Capture
        One a part.
    documents : tuple of Document
        What each part holds; `Document.start` is the position of its first token in the whole document.
    """

    captures: tuple[Capture, ...]
    documents: tuple[Document, ...]

    @property
    def spans(self) -> list[tuple[int, int]]:
        """Which tokens of the whole document, from and up to, each part holds, not counting those that were added."""
        return [(part.start, part.start + len(part) - sum(part.added)) for part in self.documents]

    @overload
    def __getitem__(self, index: int) -> Capture: ...

    @overload
    def __getitem__(self, index: slice) -> tuple[Capture, ...]: ...

    def __getitem__(self, index: int | slice) -> Capture | tuple[Capture, ...]:
        return self.captures[index]

    def __len__(self) -> int:
        return len(self.captures)


def load(name: str | PathLike[str], **options: Any) -> LanguageModel:
    """Open a model and its tokenizer.

    Parameters
    ----------
    name : str or path
        A bundled name (``"smollm2-135m"``, ``"minilm-l6"``), a Hugging Face id, or a local folder.
    **options
        Those of `attlas.models.open_model`: dtype, device, attention, remote_code, revision, progress.

    Returns
    -------
    LanguageModel

    Raises
    ------
    ModelNotFound
        There is no such model here; the message says how to get it.
    StoreError, UnsupportedModelError, ArgumentError
        As `open_model`.

    Examples
    --------
    >>> lm = attlas.load("smollm2-135m")  # doctest: +SKIP
    >>> lm.read("The capital of France is")[0].entropy()  # doctest: +SKIP
    """
    opened = open_model(name, **options)
    return LanguageModel(opened.model, opened.tokenizer, opened.facts)


def run_on(module: nn.Module, ids: Tensor) -> Any:
    """Run a module on token ids, (batch, n), without a cache, and return what it returns."""
    inputs: dict[str, Any] = {"input_ids": ids.to(next(module.parameters()).device)}
    if "use_cache" in inspect.signature(module.forward).parameters:
        inputs["use_cache"] = False
    return module(**inputs)


def reader_of(model: nn.Module) -> nn.Module:
    """Return the part of a model that reads text, without what only turns its states into something else."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        whole: Any = model
        return whole.get_encoder()
    for part in ("text_model", "language_model"):
        found = getattr(model, part, None)
        if isinstance(found, nn.Module):
            return found
    found = getattr(model, "base_model", model)
    if not isinstance(found, nn.Module):
        raise UnsupportedModelError(f"{type(model).__name__}: has no part that reads text")
    return found
