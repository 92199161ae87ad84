"""A page that is one file: it needs no network, runs only its own script, and shows text as nothing but text."""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from attlas.view.encoding import FLOOR, STEPS
from attlas.view.glyphs import visible

_FRAME = "frame.html"
_ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


def standalone(
    body: str, styles: Sequence[str], scripts: Sequence[str], content: Mapping[str, Any], *, title: str
) -> str:
    """Return a whole HTML document: the frame that all pages share, filled.

    Parameters
    ----------
    body : str
        The name of an HTML file of ``view/page``: what stands on the page before its scripts run.
    styles, scripts : sequence of str
        Names of files there, in the order in which they are joined.
    content : mapping
        What the scripts find in the element ``content``: plain types that JSON can hold.
    title : str
        The document's name; anything may stand in it.
    """
    style, script = (_joined(names) for names in (styles, scripts))
    policy = (
        f"default-src 'none'; style-src '{policy_hash(style)}'; script-src '{policy_hash(script)}'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    coding = {"coding": {"steps": STEPS, "floor": FLOOR}}
    parts = {
        "policy": html.escape(policy, quote=True).replace("&#x27;", "'"),
        "title": html.escape(f"{visible_title(title)} – attlas"),
        "style": style,
        "body": _asset(body),
        "data": _json({**content, **coding}),
        "script": script,
    }
    # One pass over the frame, so that nothing inside a part can be taken for a place to fill.
    pieces = _asset(_FRAME).split("{{")
    filled = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        filled += [parts[name], rest]
    return "".join(filled)


def visible_title(title: str) -> str:
    """Return a name that is fit for a heading: spaces stay spaces."""
    return visible(title).replace("·", " ").strip()


def _joined(names: Sequence[str]) -> str:
    return "\n".join(map(_asset, names))


def _asset(name: str) -> str:
    return resources.files("attlas.view").joinpath("page", name).read_text(encoding="utf-8")


def policy_hash(text: str) -> str:
    """Return what a content policy calls a script or a style that stands in the page itself."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


def _json(content: Mapping[str, Any]) -> str:
    return json_in_html(json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":")))


def json_in_html(text: str) -> str:
    """Return JSON that says the same, and holds nothing that could end the element that it stands in."""
    for character, escape in _ESCAPES.items():
        text = text.replace(character, escape)
    return text
