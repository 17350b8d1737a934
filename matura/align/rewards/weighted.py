"""Several rewards as one: their weighted sum, and each of them for the log."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from matura.align.rewards.completion import Completion, Reward
from matura.core.errors import MaturaError

Values = list[float | None]


@dataclass(frozen=True)
class Part:
    """A reward with its name and weight; weight 0 is measured and not part of the sum."""

    name: str
    weight: float
    reward: Reward


@dataclass(frozen=True)
class Scores:
    """The sum for every completion (None: not judged), and what each reward gave."""

    total: Values
    each: dict[str, Values]

    @property
    def heard(self) -> set[str]:
        """The rewards that judged any of them."""
        return {name for name, values in self.each.items() if _judged(values)}

    def means(self) -> dict[str, float]:
        """`reward.NAME` for each: the mean over what it judged. None is left out, and so is a reward without any."""
        found = {f"reward.{name}": _judged(values) for name, values in self.each.items()}
        return {name: statistics.fmean(values) for name, values in found.items() if values}


def _judged(values: Values) -> list[float]:
    return [one for one in values if one is not None]


@dataclass(frozen=True)
class Weighted:
    """Rewards with weights."""

    parts: tuple[Part, ...]

    def __call__(self, completions: Sequence[Completion]) -> Scores:
        """What every completion gets.

        A reward that judges none of the answers to a prompt adds nothing there. When it judges some of them and not
        others, the others' sums would be of other rewards than their rivals', so they are not judged. Raises
        MaturaError, naming the reward, for one that fails or gives something else than a number for each.
        """
        each = {part.name: _values(part, completions) for part in self.parts}
        total: Values = [None] * len(completions)
        lost = [False] * len(completions)
        for part in self.parts:
            if not part.weight:
                continue
            values = each[part.name]
            known = {
                one.prompt.id for one, value in zip(completions, values, strict=True) if value is not None
            }
            for i, value in enumerate(values):
                if value is not None:
                    total[i] = (total[i] or 0.0) + part.weight * value
                elif completions[i].prompt.id in known:
                    lost[i] = True
        return Scores([None if gone else one for one, gone in zip(total, lost, strict=True)], each)


def _values(part: Part, completions: Sequence[Completion]) -> Values:
    where = f"reward {part.name}"
    try:
        given = list(part.reward(completions))
    except MaturaError as error:
        raise type(error)(f"{where}: {error}") from error
    except Exception as error:
        line = error.__traceback__
        while line is not None and line.tb_next is not None:
            line = line.tb_next
        at = "" if line is None else f" ({line.tb_frame.f_code.co_filename}:{line.tb_lineno})"
        raise MaturaError(f"{where} failed: {type(error).__name__}: {error}{at}") from error
    if len(given) != len(completions):
        raise MaturaError(
            f"{where} gave {len(given)} values for {len(completions)} completions; give one for each"
        )
    return [None if value is None else _number(where, value, i) for i, value in enumerate(given)]


def _number(where: str, value: object, i: int) -> float:
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise MaturaError(f"{where} gave {value!r:.60} for completion {i}; give a finite number, or None")
    return number
