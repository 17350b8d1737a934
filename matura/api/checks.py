"""What people hand to a model in Python, looked at before it is used. Each check raises ConfigError."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matura.core.errors import ConfigError
from matura.core.settings import Beams, Sampling


def text(value: Any, name: str = "text") -> str:
    """A text."""
    if not isinstance(value, str):
        raise ConfigError(f"{name}: expected a text, got {value!r:.200}")
    return value


def texts(value: Any, name: str = "texts") -> list[str]:
    """One text or several, as several."""
    if isinstance(value, str):
        return [value]
    return [
        text(one, f"{name}[{i}]") for i, one in enumerate(several(value, name, "a text or a list of texts"))
    ]


def several(value: Any, name: str, expected: str) -> list[Any]:
    """A list, tuple or the like, as a list."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes | bytearray):
        raise ConfigError(f"{name}: expected {expected}, got {value!r:.200}")
    return list(value)


def ids(value: Any) -> list[int]:
    """The ids of a prompt: a flat list, array or tensor. (Whether the model has such tokens, the engine looks at.)"""
    listed = value.tolist() if hasattr(value, "tolist") else value
    flat = isinstance(listed, Sequence) and not isinstance(listed, str | bytes | bytearray)
    if not flat or not all(isinstance(id, int) and not isinstance(id, bool) for id in listed):
        raise ConfigError(
            f"a prompt is a text or a flat list of token ids, not {value!r:.200}; conversations go to `chat`"
        )
    return list(listed)


def messages(value: Any) -> list[Mapping[str, Any]]:
    """A conversation."""
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        raise ConfigError(
            f"messages: a conversation is a list of messages, such as [{{'role': 'user', 'content': 'Hello'}}], not "
            f"{value!r:.200}; a text to go on from goes to `generate`"
        )
    return list(value)


def whole(value: Any, name: str) -> int:
    """A whole number of at least 1."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name}: expected a whole number of at least 1, got {value!r:.200}")
    return value


def no_beams(given: Mapping[str, Any]) -> None:
    """Settings of a draw, among which nothing is that only a beam search knows."""
    if "beams" in given:
        raise ConfigError(
            "beams: `chat`, `stream` and `answers` do not search; use `generate` or `beam_search`"
        )
    if name := next((name for name in given if name in _names(Beams, Sampling)), None):
        raise ConfigError(
            f"{name} is for beam search only: set beams above 1 too (--beams of `matura generate`), or leave it out"
        )


def no_draws(given: Mapping[str, Any]) -> None:
    """Settings of a beam search, among which nothing is that only a draw knows."""
    if name := next((name for name in given if name in _names(Sampling, Beams)), None):
        raise ConfigError(
            f"beam search: {name} is not known there, it is for sampling; leave it or beams out"
        )


def _names(these: type[Any], others: type[Any]) -> set[str]:
    return these.model_fields.keys() - others.model_fields.keys()
