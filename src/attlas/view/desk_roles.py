"""The roles of heads, one table a model: given, or measured in the background once the statistics are there."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from attlas.errors import ArgumentError, AttlasError
from attlas.heads.roles import NONE
from attlas.view.desk_captures import Exhibit
from attlas.view.encoding import rounded

if TYPE_CHECKING:
    from attlas.capture import Capture, LanguageModel
    from attlas.heads.role_table import HeadTable
    from attlas.models.progress import Progress

NOT_MEASURED = "roles: not measured; attlas view --roles measures them"
UNDER_WAY = "roles: they are being measured"
NOT_OPEN = "roles: not measured; the model that made this capture is not open"
ANOTHER_MODEL = "roles: those that were measured are another model's"

PREFIX = "role:"
"""What the scores of roles are called among the statistics of a layer: a role could be called like a statistic."""


class RoleNumbers(NamedTuple):
    """What the page shows of the roles of a capture's heads, as plain types.

    Parameters
    ----------
    roles : dict
        "layer.head" -> names of the roles that it has, the most telling one first.
    scores : list
        Name, label, meaning and unit of every role's score, named as in `values`.
    values : dict
        Layer -> name -> a number a captured head; None where the table has no row for it.
    """

    roles: dict[str, list[str]]
    scores: list[dict[str, str]]
    values: dict[str, dict[str, list[float | None]]]


class Roles:
    """What is known of the roles of heads; safe to ask from several threads at once.

    Parameters
    ----------
    exhibits : mapping
        Name -> Exhibit.
    table : HeadTable, optional
        What is known from the start.
    measured : bool
        Measure those of every model that is open and has read what is shown.
    """

    def __init__(
        self, exhibits: Mapping[str, Exhibit], table: HeadTable | None = None, *, measured: bool = False
    ) -> None:
        self._lock = threading.Lock()
        self._tables = {} if table is None else {table.provenance.fingerprint: table}
        self._reasons: dict[str, str] = {}
        self._otherwise = NOT_OPEN if measured else NOT_MEASURED if table is None else ANOTHER_MODEL
        self._waiting: dict[str, LanguageModel] = {}
        for exhibit in exhibits.values() if measured else ():
            lm = exhibit.model
            if lm is not None and lm.facts.fingerprint == exhibit.capture.provenance.fingerprint:
                self._waiting[lm.facts.fingerprint] = lm
        self._waiting = {name: lm for name, lm in self._waiting.items() if name not in self._tables}

    def waiting(self) -> list[LanguageModel]:
        """Return the models whose heads are still to be measured."""
        with self._lock:
            return list(self._waiting.values())

    def pending(self, capture: Capture) -> bool:
        """Tell whether the roles of a capture's heads are still to come."""
        with self._lock:
            return capture.provenance.fingerprint in self._waiting

    def table(self, capture: Capture) -> HeadTable:
        """Return what was measured of the model that made a capture.

        Raises
        ------
        ArgumentError
            Nothing was, or not yet; the message says why.
        """
        name = capture.provenance.fingerprint
        with self._lock:
            if name in self._tables:
                return self._tables[name]
            if name in self._waiting:
                raise ArgumentError(UNDER_WAY)
            raise ArgumentError(self._reasons.get(name, self._otherwise))

    def measure(self, lm: LanguageModel, progress: Progress) -> bool:
        """Measure the heads of a model; return whether there is a table now.

        Parameters
        ----------
        lm : LanguageModel
        progress : callable
            As in `attlas.heads`; what it raises ends the measuring.
        """
        from attlas.heads.measuring import heads

        name = lm.facts.fingerprint
        table, reason = None, "roles: they could not be measured"
        try:
            table = heads(lm, progress=progress)
        except AttlasError as error:
            reason = f"{reason}: {error}"
        except (RuntimeError, MemoryError):
            pass  # what is not an error of ours may say anything
        finally:
            with self._lock:
                del self._waiting[name]
                if table is None:
                    self._reasons[name] = reason
                else:
                    self._tables[name] = table
        return table is not None

    def numbers(self, capture: Capture) -> RoleNumbers:
        """Return what the page shows of a capture's heads; nothing where there is no table."""
        try:
            table = self.table(capture)
        except ArgumentError:
            return RoleNumbers({}, [], {})
        return _numbers(table, capture)


def _numbers(table: HeadTable, capture: Capture) -> RoleNumbers:
    at = {head: i for i, head in enumerate(table.heads)}
    roles: dict[str, list[str]] = {}
    values: dict[str, dict[str, list[float | None]]] = {}
    for layer in capture.layers:
        rows = [at.get((layer, head)) for head in capture.heads(layer)]
        values[str(layer)] = {
            PREFIX + name: [None if row is None else rounded(float(found.score[row])) for row in rows]
            for name, found in table.scores.items()
        }
        for head, row in zip(capture.heads(layer), rows, strict=True):
            having = [] if row is None else _roles(table, row)
            if having:
                roles[f"{layer}.{head}"] = having
    scores: list[dict[str, Any]] = [
        {"name": PREFIX + role.name, "label": role.label, "meaning": role.meaning, "unit": role.unit}
        for role in table.roles
    ]
    return RoleNumbers(roles, scores, values)


def _roles(table: HeadTable, row: int) -> list[str]:
    """Return the roles that a head has, first the one that it is called by."""
    having = [name for name, found in table.scores.items() if bool(found.passes[row])]
    called = table.names[row]
    return having if called == NONE else [called, *(name for name in having if name != called)]
