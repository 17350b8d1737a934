"""How different the answers of a model are from each other: what a policy that collapses loses first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def distinct(sequences: Iterable[Sequence[int]], n: int = 2) -> float:
    """Different runs of `n` tokens, as a share of all of them (distinct-n, arXiv:1510.03055, section 5); 0 without any.

    It falls as there is more text, whoever writes it: compare equal numbers of answers of about equal length.
    """
    seen: set[tuple[int, ...]] = set()
    total = 0
    for ids in sequences:
        runs = [tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)]
        seen.update(runs)
        total += len(runs)
    return len(seen) / total if total else 0.0


def repeated(groups: Iterable[Sequence[str]]) -> float:
    """Share of the answers that repeat another one to the same prompt; 0 without any."""
    answers = [list(group) for group in groups]
    total = sum(map(len, answers))
    return 1 - sum(len(set(group)) for group in answers) / total if total else 0.0
