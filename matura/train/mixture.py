"""Several objectives in one training run: their batches in turn, each with a fixed share of the tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from matura.core.errors import ArtifactError
from matura.train.order import Rota, differences


class Resumable(Protocol):
    """An endless iterator of batches whose position can be saved and restored."""

    def __next__(self) -> Any: ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Part:
    """Batches, the share of all tokens that they are to have, and the tokens that equally many of each part have in the
    mean; both in any unit, and the same on every rank."""

    batches: Resumable
    share: float
    tokens: float


class Mixture:
    """Whole batches of its parts in turn. Whose turn it is follows from the shares alone, so all ranks train the same
    objective at a time; after any number of turns each part has had its own to within one batch."""

    def __init__(self, parts: Mapping[str, Part]) -> None:
        """Raises ValueError for no parts, and for shares or tokens that are not positive."""
        if not parts or any(part.tokens <= 0 for part in parts.values()):
            raise ValueError(f"a mixture needs parts with tokens: {dict(parts)}")
        self.parts = dict(parts)
        self._rota = Rota([part.share / part.tokens for part in parts.values()])
        self._identity = {"parts": list(parts), "turns": self._rota.shares}

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(list(self.parts.values())[self._rota.next()].batches)

    def state(self) -> dict[str, Any]:
        """The position, as JSON values."""
        inner = {name: part.batches.state() for name, part in self.parts.items()}
        return {**self._identity, "drawn": list(self._rota.had), "inner": inner}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go to a position that `state` gave. Raises ArtifactError when it belongs to another mixture."""
        if changed := differences(state, self._identity):
            raise ArtifactError(f"the checkpoint was made with another mixture: {'; '.join(changed)}")
        for name, part in self.parts.items():
            part.batches.restore(state["inner"][name])
        self._rota.had = list(state["drawn"])
