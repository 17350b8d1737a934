"""Licences of source code: SPDX identifiers from the texts of licence files and from tags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

LICENCE_FILE = re.compile(r"(un)?(licen[cs]e|copying)(\.(txt|md|rst|mit|apache))?$", re.IGNORECASE)
SPDX = re.compile(r"SPDX-License-Identifier:[ \t]*([\w.+ ()-]{2,80})")
HEAD = 2_000  # characters of a file that may say how it was made, or under which licence it is
MAX_LICENCE = 200_000

# What only that licence says, the more special first.
TEXTS: tuple[tuple[str, ...], ...] = (
    ("AGPL-3.0", "gnu affero general public license"),
    ("LGPL-2.1", "gnu lesser general public license version 2.1"),
    ("LGPL-3.0", "gnu lesser general public license"),
    ("GPL-3.0", "gnu general public license version 3"),
    ("GPL-2.0", "gnu general public license version 2"),
    ("Apache-2.0", "apache license version 2.0"),
    ("MPL-2.0", "mozilla public license version 2.0"),
    ("EPL-2.0", "eclipse public license - v 2.0"),
    ("BSL-1.0", "boost software license - version 1.0"),
    ("CC0-1.0", "cc0 1.0 universal"),
    ("Unlicense", "this is free and unencumbered software released into the public domain"),
    ("PSF-2.0", "python software foundation license version 2"),
    ("Zlib", "altered source versions must be plainly marked as such"),
    ("BSD-3-Clause", "redistributions of source code must retain", "neither the name"),
    ("BSD-2-Clause", "redistributions of source code must retain"),
    ("ISC", "permission to use, copy, modify, and/or distribute this software for any purpose"),
    ("MIT", "permission is hereby granted, free of charge, to any person obtaining a copy"),
)


def licence(text: str) -> str:
    """The SPDX identifier of a licence's text, or "" when it is none of those known."""
    if tag := SPDX.search(text[:HEAD]):
        return tag[1].strip()
    words = " ".join(re.sub(r"[,;:\"“”*]", "", text[:MAX_LICENCE]).lower().split())
    for name, *marks in TEXTS:
        # The texts of the GNU licences name each other; only their titles tell them apart.
        where = words[:400] if marks[0].startswith("gnu") else words
        if all(re.sub(r"[,;:]", "", mark) in where for mark in marks):
            return name
    return ""


def licences(files: Iterable[tuple[str, Path]]) -> dict[str, str]:
    """Folder: SPDX identifier, for every folder with a licence file that is known ("" is the root)."""
    found: dict[str, str] = {}
    for name, path in files:
        folder, _, last = name.rpartition("/")
        if LICENCE_FILE.fullmatch(last):
            try:
                with path.open("rb") as file:
                    text = file.read(MAX_LICENCE).decode("utf-8", "replace")
            except OSError:
                continue
            if (spdx := licence(text)) and folder not in found:
                found[folder] = spdx
    return found


def nearest(name: str, known: dict[str, str]) -> str:
    """The licence of the closest folder above a file."""
    folder = name
    while folder:
        folder = folder.rpartition("/")[0]
        if folder in known:
            return known[folder]
    return ""
