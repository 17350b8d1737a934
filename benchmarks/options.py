"""What the command line of the benchmarks sets."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.record import RESULTS


@dataclass(frozen=True)
class Options:
    """None means: the benchmark's own default, or its tiny one with `quick`."""

    quick: bool = False
    model: str = "smollm2-135m-instruct"
    text: Path | None = None
    tokens: int | None = None
    pairs: int | None = None
    cases: tuple[str, ...] = ()
    threads: int = 1
    seed: int = 0
    kills: int | None = None
    recipe: Path = Path("recipes/adapt.yaml")
    overrides: tuple[str, ...] = ()
    full: bool = False
    peer: Path | None = None
    nanogpt: Path | None = None
    seconds: int | None = None
    preferences: Path | None = None
    folder: Path | None = None
    base: str = "minilm-l6"
    workspace: Path | None = None
    results: Path = RESULTS

    def default(self, given: int | None, normal: int, quick: int) -> int:
        """What was given, else the value for this kind of run."""
        if given is not None:
            return given
        return quick if self.quick else normal

    @property
    def seeds(self) -> range:
        """`pairs` seeds, three by default and one in a quick run."""
        return range(self.seed, self.seed + self.default(self.pairs, 3, 1))

    @property
    def text_place(self) -> str | None:
        """The text that was given, for settings that travel as JSON; `read_text` takes it there."""
        return None if self.text is None else str(self.text)

    def read_text(self) -> tuple[str, str]:
        """As the function of this name, of the text that was given."""
        return read_text(self.text_place)


def read_text(place: str | None) -> tuple[str, str]:
    """(a name for it, the text): the file of this place, or the language reference that Python ships."""
    if place is not None:
        return Path(place).name, Path(place).read_text(encoding="utf-8")
    import platform
    from pydoc_data.topics import topics

    return f"Python {platform.python_version()} language reference", "\n\n".join(topics.values())
