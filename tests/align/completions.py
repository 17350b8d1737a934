"""Completions and prompts for the tests of rewards."""

from typing import Any

from matura.align.rewards import Completion
from matura.core.preferences import Ranking


def asked(identity: str = "p", content: str = "What is 40 + 2?", **facts: str) -> Ranking:
    """A prompt of one question."""
    return Ranking(identity, ({"role": "user", "content": content},), facts=facts)


def said(text: str, prompt: Ranking | None = None, **more: Any) -> Completion:
    """An answer to it."""
    return Completion(prompt or asked(), text, more.get("end", "stop"), more.get("tokens", len(text)))
