"""A state table whose rows carry the RFC's labels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class UndefinedTransitionError(RuntimeError):
    """The RFC's table has no such transition: a fault of this program, never of a peer."""


@dataclass(frozen=True, slots=True)
class Transition(Generic[S]):
    """One cell of the RFC's table: its label, where it leads from and to, what causes it here."""

    label: str
    source: S
    target: S
    cause: str


class StateTable(Generic[S]):
    """A literal table; ``table.step(state, label)`` is the next state."""

    def __init__(self, name: str, section: str, start: S, rows: Iterable[Transition[S]]) -> None:
        self.name = name
        self.section = section
        self.start = start
        self.rows = tuple(rows)
        self._next = {(row.source, row.label): row for row in self.rows}
        if len(self._next) != len(self.rows):
            raise ValueError(f"{name}: a transition stands twice")

    def step(self, state: S, label: str) -> S:
        """The state after transition ``label``; :class:`UndefinedTransitionError` where the RFC has a dash."""
        row = self._next.get((state, label))
        if row is None:
            raise UndefinedTransitionError(
                f"{self.name}: no transition {label} from {state.name} (RFC 7143 section {self.section})"
            )
        return row.target

    def labels(self, state: S) -> list[str]:
        """The transitions that leave a state."""
        return [row.label for row in self.rows if row.source is state]

    def between(self, source: S, target: S) -> str | None:
        """The label in the cell of the RFC's table, or ``None`` for a dash."""
        return next((row.label for row in self.rows if row.source is source and row.target is target), None)
