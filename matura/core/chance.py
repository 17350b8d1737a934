"""Lots that are drawn by a hash: the same for the same text, on every machine and in every order."""

from __future__ import annotations

import hashlib


def chance(text: str) -> float:
    """A number from 0 up to 1 that belongs to a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") / 2**64
