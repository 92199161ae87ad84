"""Spans of a document's tokens, by path: ``/api/spans/{capture}/{kind}``."""

from __future__ import annotations

from attlas.view.desk import Answer, Request, Service
from attlas.view.desk_captures import Exhibit, exhibit_of
from attlas.view.spans import KINDS, span_record


def spans_service(exhibits: dict[str, Exhibit]) -> Service:
    """Return the service of ``/api/spans``.

    Parameters
    ----------
    exhibits : dict
        Name -> Exhibit.
    """

    def spans(request: Request) -> Answer:
        name, kind = request.expect("capture", "kind")
        exhibit = exhibit_of(exhibits, name)
        return Answer.of(span_record(exhibit.capture, kind, exhibit.model))

    return Service({"spans": spans}, lambda: {"spans": list(KINDS)})
