"""Opens the desk at which captures are shown: all that a page may ask, and the measuring behind it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attlas.view.desk import Desk
from attlas.view.desk_captures import Exhibit, captures_service, named
from attlas.view.desk_comparisons import ComparisonAnswers
from attlas.view.desk_explanations import ExplanationAnswers
from attlas.view.desk_heads import HeadAnswers
from attlas.view.desk_matrices import MatrixAnswers
from attlas.view.desk_roles import Roles
from attlas.view.desk_spans import spans_service
from attlas.view.desk_statistics import Background
from attlas.view.exporting import page_service
from attlas.view.tiles.matrices import Matrices
from attlas.view.turns import Turns

if TYPE_CHECKING:
    from attlas.heads.role_table import HeadTable


def open_desk(exhibits: Sequence[Exhibit], *, roles: HeadTable | None = None, measure_roles: bool = False) -> Desk:
    """Return a desk that answers what a page asks about captures; it begins to measure them at once.

    Parameters
    ----------
    exhibits : sequence of Exhibit
        What is shown; they are named a, b and so on.
    roles : HeadTable, optional
        What `attlas.heads` measured of the model: the atlas and the cards of its heads show it.
    measure_roles : bool
        Measure the heads of every model that is open and has read what is shown, after the statistics.

    Raises
    ------
    ArgumentError
        There are none, or one of them is empty.
    """
    shown = named(exhibits)
    matrices = Matrices({name: exhibit.capture for name, exhibit in shown.items()})
    answers = MatrixAnswers(matrices)
    turns = Turns()
    known = Roles(shown, roles, measured=measure_roles)
    background = Background(shown, answers, known, turns)
    # In closing, the measuring ends first: the others let go of what it works with.
    services = [
        captures_service(shown),
        answers.service(),
        ComparisonAnswers(matrices).service(),
        spans_service(shown),
        HeadAnswers(shown, known, turns, background.of_head).service(),
        ExplanationAnswers(shown, background.turn).service(),
        page_service(lambda path, query, wanted: desk.answer(path, query, wanted=wanted)),
        background.service(),
    ]
    desk = Desk(services, listen=background.listen, under_way=background.waiting)
    background.start()
    return desk
