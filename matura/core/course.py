"""How a recipe goes on while its stages finish: what each takes, and whether rounds end before the last one.

A round's gate stages judge. With `while`, the first gate that does not pass ends the rounds there and then, and the
round before is the last good one. With `until`, the round whose gate passes is finished, and it is the last good one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, GateFailed
from matura.core.recipe import Step
from matura.core.resolve import Resolved
from matura.core.rounds import Rounds

Inputs = Mapping[str, Resolved | None]


@dataclass
class _Ended:
    """Rounds that ended early: which was the last good one (0: none), from which stage on, and why."""

    good: int
    why: str


@dataclass
class Course:
    """What has been made so far of a recipe with these groups of rounds.

    `made` holds what finished stages made, `taken` every input of the stages asked so far (None: not known yet).
    """

    groups: tuple[Rounds, ...]
    made: dict[str, Artifact] = field(default_factory=dict)
    taken: dict[tuple[str, str], Resolved | None] = field(default_factory=dict)
    _ended: dict[str, _Ended] = field(default_factory=dict)

    def inputs(self, step: Step, outside: Inputs) -> dict[str, Resolved | None]:
        """The inputs of a stage: those from outside, as they are given, and what other stages made (None: not yet)."""
        found = {setting: outside[setting] for setting in step.outside}
        found |= {setting: self._output(name, step.name) for setting, name in step.uses.items()}
        self.taken |= {(step.name, setting): value for setting, value in found.items()}
        return found

    def left_out(self, stage: str) -> str:
        """Why a stage is not run: its rounds have ended. "" when it is."""
        group, number = self._round(stage)
        ended = self._ended.get(group.name) if group else None
        if ended is None or stage in self.made:
            return ""
        assert group is not None
        finishes = group.mode == "until" and number <= ended.good
        return "" if finishes else ended.why

    def finished(self, stage: str, made: Artifact) -> str:
        """Hear what a stage made. "" when the recipe goes on as planned, else why its rounds end here.

        Raises ConfigError for a stage that was to judge and did not. Whether a gate failed that no rounds wait for is
        the caller's to look at: see `decides`.
        """
        self.made[stage] = made
        group, number = self._round(stage)
        if group is None or stage not in group.gates_of(number):
            return ""
        passed = verdict(made)
        if passed is None:
            raise ConfigError(
                f"{group.name}.{group.mode}: {stage} judged nothing (its summary has no gate), so it cannot say "
                "whether there is another round; give it a gate, or name another stage"
            )
        if passed == (group.mode == "while") or group.name in self._ended:
            return ""
        last = len(group.rounds)
        if group.mode == "while":
            good, reasons = number - 1, "; ".join(reasons_of(made)) or "it gave no reason"
            why = f"ended in round {number} of {last}: {stage} did not pass ({reasons})"
        else:
            good, why = number, f"ended with round {number} of {last}: {stage} passed"
        self._ended[group.name] = _Ended(good, f"the rounds {why}")
        kept = (
            f"${group.name} is what round {good} made"
            if good
            else "no round was good: what they started from stays"
        )
        return f"{why}. {kept[0].upper()}{kept[1:]}"

    def decides(self, stage: str) -> bool:
        """Whether a failed gate of this stage ends (or goes on with) rounds instead of ending the recipe."""
        group, number = self._round(stage)
        if group is None or stage not in group.gates_of(number):
            return False
        return group.mode == "while" or number < len(group.rounds)

    def waits_for(self, stage: str) -> list[str]:
        """Gates that must say yes (`while`) or no (`until`) before this stage is run at all, not heard yet."""
        group, number = self._round(stage)
        if group is None or number == 1:
            return []
        return [gate for gate in group.gates_of(number - 1) if gate not in self.made]

    def wanted(self, stage: str) -> str:
        """What those gates must do."""
        group, _ = self._round(stage)
        return "does not pass" if group and group.mode == "until" else "passes"

    def standing(self) -> dict[str, Artifact]:
        """What the stages made, in running order, without rounds after the last good one."""
        ended = {
            group.name: self._ended[group.name].good for group in self.groups if group.name in self._ended
        }
        places = {stage: self._round(stage) for stage in self.made}
        return {
            stage: made
            for stage, made in self.made.items()
            if (group := places[stage][0]) is None
            or places[stage][1] <= ended.get(group.name, len(group.rounds))
        }

    def _round(self, stage: str) -> tuple[Rounds | None, int]:
        for group in self.groups:
            if (place := group.where(stage)) is not None:
                return group, place[0]
        return None, 0

    def _output(self, name: str, user: str) -> Resolved | None:
        """What a stage made, for a user; outside of rounds that ended early, what their last good round made."""
        group, _ = self._round(name)
        inside = group is not None and group.where(user) is not None
        ended = self._ended.get(group.name) if group else None
        if group is None or inside or ended is None:
            return self.made.get(name)
        place = group.where(name)
        assert place is not None
        short = place[1]
        if ended.good:
            return self.made.get(group.rounds[ended.good - 1][short])
        if (start := group.starts.get(short)) is not None:
            return self._output(start, user) if isinstance(start, str) else self.taken[start]
        raise GateFailed(
            f"{user} needs what a round made (${group.name}.{short}), and not even the first was good: {ended.why}.\n"
            f"Everything made so far is kept. With `first: {{{short}: ...}}` the recipe would go on from there."
        )


def verdict(made: Artifact) -> bool | None:
    """What a stage's own gate says; None when it has none."""
    gate = made.summary.get("gate")
    passed = gate.get("passed") if isinstance(gate, Mapping) else None
    return passed if isinstance(passed, bool) else None


def reasons_of(made: Artifact) -> list[str]:
    """Why a gate failed."""
    gate: Any = made.summary.get("gate") or {}
    return [str(reason) for reason in gate.get("reasons", [])]


def known(inputs: Inputs) -> dict[str, Resolved]:
    """Inputs of a stage that is run: all of them are there."""
    missing = [setting for setting, value in inputs.items() if value is None]
    assert not missing, missing
    return {setting: value for setting, value in inputs.items() if value is not None}


def with_rounds(steps: Iterable[Step], groups: Iterable[Rounds], names: set[str]) -> set[str]:
    """The names, and those of the stages on which it hangs whether and from what these are made: all of rounds that
    are used from outside, and of a round the gates of the one before."""
    wanted = set(names)
    users = {step.name: set(step.uses.values()) for step in steps}
    for group in groups:
        inside = {full for one in group.rounds for full in one.values()}
        if any(users[name] & inside for name in names - inside if name in users):
            wanted |= inside
        for number, one in enumerate(group.rounds[1:], 1):
            if names & set(one.values()):
                wanted |= set(group.gates_of(number))
    return wanted
