"""Rules for source code: the line lengths and the alphanumeric share of The Stack (arXiv:2211.15533, section 3), and
headers that say a program wrote the file. Only documents of kind "code" are measured; others pass."""

from __future__ import annotations

import re
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matura.core.corpus_settings import Code
from matura.core.records import Document
from matura.data.filters.rules import Columns, Rule, RuleFilter, columns
from matura.data.steps import Outcome

HEAD = 2000  # characters in which a file says that it was generated
_GENERATED = re.compile(
    r"@generated\b|\bdo not (?:edit|modify)\b|\bauto-?(?:matically )?generated\b|"
    r"\b(?:file|code) (?:was|is|has been) generated\b|\bgenerated (?:by|from|using|with)\b",
    re.IGNORECASE,
)
_ALPHANUMERIC = (string.ascii_letters + string.digits).encode()


def make(**settings: Any) -> CodeStep:
    """The step, from settings of `corpus_settings.Code`; the first rule that is broken is the reason."""
    config = Code(**settings)
    rules = [
        Rule("characters", least=1),
        Rule("max_line_characters", most=config.max_line_characters),
        Rule("mean_line_characters", most=config.max_mean_line_characters),
        Rule("alphanumeric", least=config.min_alphanumeric),
        Rule("generated", most=0.0 if config.drop_generated else None),
    ]

    def measure(texts: Sequence[str]) -> tuple[Columns, Sequence[str]]:
        return columns([measures(text) for text in texts]), texts

    return CodeStep(RuleFilter("code", rules, measure))


@dataclass(frozen=True)
class CodeStep:
    """The rules, for source code only."""

    rules: RuleFilter
    name: str = field(default="code")

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        code = [document.meta.get("kind") == "code" for document in documents]
        outcome = self.rules([document for document, is_code in zip(documents, code, strict=True) if is_code])
        left = iter(outcome.kept)
        following = next(left, None)
        kept: list[Document] = []
        for document, is_code in zip(documents, code, strict=True):
            if not is_code:
                kept.append(document)
            elif document is following:
                kept.append(document)
                following = next(left, None)
        outcome.kept = kept
        return outcome


def measures(text: str) -> dict[str, float]:
    """The numbers that the rules bound. Lines are counted without their ends; `alphanumeric` is a share of all
    characters, spaces too; `generated` is 1 where the first 2,000 characters say so in a comment's words."""
    if not text:
        return {"characters": 0.0}
    lengths = [len(line) for line in text.splitlines()]
    return {
        "characters": float(len(text)),
        "max_line_characters": float(max(lengths)),
        "mean_line_characters": sum(lengths) / len(lengths),
        "alphanumeric": _alphanumeric(text) / len(text),
        "generated": float(_GENERATED.search(text, 0, HEAD) is not None),
    }


def _alphanumeric(text: str) -> int:
    if text.isascii():
        return len(text) - len(text.encode().translate(None, _ALPHANUMERIC))
    return sum(map(str.isalnum, text))
