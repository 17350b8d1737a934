"""Signatures that stay with a corpus, so that a later one can leave out what it has.

The index holds hashes only: a text cannot be read from it, nor what was masked in the text after deduplication.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from matura.core.errors import FormatError, MaturaError
from matura.core.files import atomic_write
from matura.data.dedup.search import kept_rows, rank
from matura.data.dedup.signatures import BATCH, scheme_of, shingles_beside

if TYPE_CHECKING:
    import pyarrow

FOLDER = "dedup"
NAME = "signatures.parquet"
PARTS = "signatures"
"""Folder of the working files of the corpus at hand, inside the folder that `find` was given."""


def index_file(path: Path) -> Path:
    """The signatures of an index: of an artifact, or of the folder in it. Raises FormatError if there are none."""
    for file in (path / FOLDER / NAME, path / NAME):
        if file.is_file():
            return file
    raise FormatError(
        f"{path} holds no index of duplicates ({FOLDER}/{NAME}). It is written by a curate stage with "
        "`fuzzy`, or with an `index` of its own; to compare with any other corpus use `against`."
    )


def reference_files(path: Path) -> list[Path]:
    """The documents of a reference: the file itself, or train.parquet and heldout.parquet of a corpus."""
    if path.is_file():
        return [path]
    found = [file for name in ("train", "heldout") if (file := path / f"{name}.parquet").is_file()]
    if not found:
        raise FormatError(
            f"{path} holds no corpus to compare with: it has neither train.parquet nor heldout.parquet."
        )
    return found


def write_index(
    folder: Path, destination: Path, left_out: Container[str], *, index: Path | None = None
) -> int:
    """Keep the signatures of `find` (from its `folder`) in `destination`/dedup for later corpora; returns how many.

    Documents in `left_out` are not part of it; those of the earlier `index` are, so that a chain of corpora knows all
    of its documents. The bytes depend on the documents alone, not on the parts they came in. Raises MaturaError when
    the earlier index was made with other settings.
    """
    files = sorted((folder / PARTS).glob("*.parquet"))
    earlier = [index_file(index)] if index else []
    target = destination / FOLDER / NAME
    target.parent.mkdir(parents=True, exist_ok=True)
    return _write(earlier, files, left_out, target)


def _write(earlier: Sequence[Path], files: Sequence[Path], left_out: Container[str], target: Path) -> int:
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    if not files:
        raise FormatError(f"{target}: there are no signatures to keep; look for duplicates first.")
    scheme = scheme_of(files[0])
    for path in earlier:
        if scheme_of(path) != scheme:
            raise MaturaError(
                f"{path} was made with {scheme_of(path)}, this corpus with {scheme}: both cannot be in one index. "
                "Use the same settings of `fuzzy`."
            )
    ranked = rank(earlier, files, "first")
    chosen = [*((path, None) for path in earlier), *kept_rows(files, left_out)]
    table = pyarrow.concat_tables([_rows(path, rows) for path, rows in chosen]).replace_schema_metadata(
        scheme.schema().metadata
    )
    wanted = np.zeros(len(ranked.order), bool)
    start = 0
    for path, rows in chosen:
        count = pyarrow.parquet.read_metadata(path).num_rows
        wanted[start + (np.arange(count) if rows is None else rows)] = True
        start += count
    # The table has the wanted rows in order of place; they leave in order of rank.
    ranks = np.flatnonzero(wanted[ranked.order])
    place = (np.cumsum(wanted) - 1)[ranked.order[ranks]]
    with atomic_write(target) as temporary, atomic_write(shingles_beside(target)) as beside:
        with open(beside, "wb") as file:
            for each in ranks.tolist():
                ranked.shingles.of(each).tofile(file)
        pyarrow.parquet.write_table(
            table.take(place), temporary, compression="zstd", row_group_size=64 * BATCH
        )
    return len(ranks)


def _rows(path: Path, rows: np.ndarray | None) -> pyarrow.Table:
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path).replace_schema_metadata(None)
    return table if rows is None else table.take(rows)
