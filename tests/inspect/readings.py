"""Readings of random ids, for tests that need no tokenizer."""

from collections.abc import Sequence

from matura.inspect.reading import Reading


def reading(ids: Sequence[int], added: Sequence[int] = ()) -> Reading:
    """Every token is labelled by its id."""
    return Reading(tuple(ids), tuple(f"t{id}" for id in ids), tuple(added))
