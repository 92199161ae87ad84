"""The built page: its shell and the files that it loads, read once, so that no request ever names a file's place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from attlas.errors import StoreError

BUILT = Path(__file__).parent.parent / "static"
"""Where the page lies when it has been built."""

SHELL = "index.html"
ASSETS = "assets"
FOREVER = "public, max-age=31536000, immutable"
AFRESH = "no-cache"

_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
    ".woff2": "font/woff2",
}
NOT_BUILT = "The page is not built yet: run scripts/bootstrap in the project's folder, and start this again."


@dataclass(frozen=True)
class Asset:
    """One file of the page.

    Parameters
    ----------
    media_type : str
    caching : str
        How long a browser may keep it: names in ``assets/`` hold a digest of what is in the file.
    content : bytes
    """

    media_type: str
    caching: str
    content: bytes


def assets_in(folder: Path = BUILT) -> Mapping[str, Asset]:
    """Return the page's files by their paths in an address: ``/``, ``/assets/…``; empty if it is not built.

    Raises
    ------
    StoreError
        A file cannot be read.
    """
    if not (folder / SHELL).is_file():
        return {}
    try:
        found = {"/": Asset(_TYPES[".html"], AFRESH, (folder / SHELL).read_bytes())}
        icon = folder / "favicon.ico"
        if icon.is_file():
            found["/favicon.ico"] = Asset(_TYPES[".ico"], AFRESH, icon.read_bytes())
        inside = folder / ASSETS
        for path in sorted(inside.iterdir()) if inside.is_dir() else ():
            # What has no type that a page needs, a source map for example, is not served; nor what lies elsewhere.
            if path.suffix in _TYPES and path.is_file() and not path.is_symlink():
                found[f"/{ASSETS}/{path.name}"] = Asset(_TYPES[path.suffix], FOREVER, path.read_bytes())
    except OSError as error:
        raise StoreError(f"{folder}: the page's files cannot be read ({error.strerror})") from error
    return found
