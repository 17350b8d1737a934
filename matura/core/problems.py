"""What is wrong with a recipe: each problem with the line it stands on, all of them told at once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from matura.core import config as configs
from matura.core.config import Place
from matura.core.errors import ConfigError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
ABOUT_NAMES = "must be letters, digits, '-' and '_' (at most 64), starting with a letter or a digit"


@dataclass(frozen=True)
class Found:
    """One problem: its line (0: on the command line, or in no file), its text, and what that was made of."""

    line: int
    text: str
    stage: Place = ()  # where the stage it is in is written
    place: Place = ()
    message: str = ""


@dataclass
class Problems:
    """The problems of one file, or of settings from the command line alone (`where` is empty)."""

    where: str
    lines: Mapping[Place, int] = field(default_factory=dict)
    given: set[Place] = field(default_factory=set)  # set on the command line
    origin: dict[str, Place] = field(
        default_factory=dict
    )  # stage that sweep or rounds made -> where it stands
    found: list[Found] = field(default_factory=list)

    def add(self, place: Place, message: str) -> None:
        """A problem of the value at a place: keys and indices from the top of the recipe."""
        named = place
        stage: Place = ()
        if place[:1] == ("stages",) and len(place) > 1:
            named, stage = place[1:], self.origin.get(str(place[1]), place[:2])
            place = (*stage, *place[2:])
            if len(stage) > 2:  # a stage of rounds: said once, as it is written, and not for every round
                named = place[1:]
        text = f"{configs.dotted(named)}: {message}" if named else message
        self._keep(Found(*self._placed(place, text), stage, place, message))

    def say(self, text: str, line: int = 0) -> None:
        """A problem that has no place among the values; `line` 0 is the command line."""
        self._keep(Found(line, f"{self.where}:{line}: {text}" if line else text))

    def aside(self) -> Problems:
        """The same file without what was found in it so far."""
        return Problems(self.where, self.lines)

    def stop_if_any(self) -> None:
        """Raise one ConfigError that tells everything, in the order of the file."""
        if self.found:
            messages = [found.text for found in sorted(self.found, key=lambda found: found.line)]
            heading = self.where or "the settings"
            raise ConfigError(messages[0] if len(messages) == 1 else configs.listing(heading, messages))

    def _keep(self, found: Found) -> None:
        if found not in self.found:
            self.found.append(found)

    def _placed(self, place: Place, text: str) -> tuple[int, str]:
        """The line of a problem, and the message that names it."""
        above = [place[:length] for length in range(len(place), -1, -1)]
        inside = place not in self.lines and any(one[: len(place)] == place for one in self.given)
        if inside or any(one in self.given for one in above):
            return 0, f"on the command line: {text}"
        line = next((self.lines[one] for one in above if one in self.lines), 0)
        if line:
            return line, f"{self.where}:{line}: {text}"
        return 0, f"{self.where}: {text}" if self.where else text
