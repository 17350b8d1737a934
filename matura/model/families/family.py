"""What a family is: two-way maps of settings and tensor names between the core and other projects' files."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.weights import Entry

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Gguf:
    """A family in GGUF files.

    `from_metadata(metadata, shapes, rope_freqs)` gets all metadata, the shape of every tensor ([rows, columns], as
    ours), and the values of rope_freqs.weight, which are settings in the form of a tensor (None without it).
    An entry without any of our names is such a tensor: written, not read.
    """

    architecture: str
    from_metadata: Callable[[Settings, Mapping[str, tuple[int, ...]], Sequence[float] | None], c.ModelConfig]
    to_metadata: Callable[[c.ModelConfig], dict[str, Any]]
    entries: Callable[[c.ModelConfig], list[Entry]]


@dataclass(frozen=True)
class Family:
    """`from_hf(config.json, tensor names)` and `to_hf` are each other's inverse on everything the core knows.

    Settings that change the result and are not known are errors, raised as FormatError without the file's name.
    `ignored` are beginnings or ends of names of stored tensors that hold nothing of the model.
    """

    name: str
    model_types: tuple[str, ...]
    from_hf: Callable[[Settings, Collection[str]], c.ModelConfig]
    to_hf: Callable[[c.ModelConfig], dict[str, Any]]
    entries: Callable[[c.ModelConfig], list[Entry]]
    gguf: tuple[Gguf, ...] = ()
    ignored: tuple[str, ...] = ()


def expect(settings: Settings, where: str = "config.json", **known: Any) -> None:
    """Refuse settings that the core would have to ignore: each must be missing or have one of the given values."""
    for key, values in known.items():
        accepted = values if isinstance(values, tuple) else (values,)
        if key in settings and settings[key] not in accepted:
            named = " or ".join(map(repr, accepted))
            raise FormatError(f"{where}: {key}={settings[key]!r} is not supported; expected {named}")


def same_settings(config: c.ModelConfig, again: c.ModelConfig) -> None:
    """Refuse to write a model that would be read back as `again`, another one. Raises FormatError with the field."""
    if again != config:
        before, after = config.model_dump(), again.model_dump()
        field, had, got = _difference(before, after, "")
        raise FormatError(
            f"this layout has no place for {field}={had!r} (it would be read back as {got!r}); "
            f"the model cannot be written as {config.family}"
        )


def _difference(before: Any, after: Any, field: str) -> tuple[str, Any, Any]:
    """The first field whose values differ, with both."""
    if isinstance(before, dict) and isinstance(after, dict) and before.get("kind") == after.get("kind"):
        for key, value in before.items():
            if value != after.get(key):
                return _difference(value, after.get(key), f"{field}.{key}".lstrip("."))
    return field, before, after


def rounded(value: float) -> float:
    """A float32 of a GGUF file as the number that was meant (1e-05, not 9.999999747378752e-06)."""
    return float(f"{value:.7g}")
