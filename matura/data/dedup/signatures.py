"""Signatures of a part: a Parquet file of hashes by document, beside it a file of the documents' shingles.

Columns: id, high and low (the hash of the letters), characters, shingles (how many the document has; 0 if it is
shorter than one), and a 64-bit key for each band. The shingles of all documents follow each other in
`<stem>.shingles`, 32 bits each, little-endian, sorted within a document.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from matura.core.corpus_settings import Fuzzy
from matura.core.errors import FormatError, MaturaError
from matura.core.files import atomic_write
from matura.core.grouping import filled
from matura.core.records import Document, read_documents, text_size
from matura.data.dedup.exact import halves
from matura.data.dedup.shingles import Counts, Short, joined, shingles, spaced
from matura.data.polynomials import Hashes, mixed

if TYPE_CHECKING:
    import pyarrow

BATCH = 1024
CHARACTERS = 4 << 20
AT_ONCE = 128
"""Documents whose words are looked at together: what is made of them stays in the cache of a core."""
_MADE = b"matura.dedup"
_FORM = 2  # of the shingles: 1 hashed words by CRC-32, 2 hashes bytes


@dataclass(frozen=True, slots=True)
class Scheme:
    """What makes signatures comparable. Without bands there are hashes of the letters only."""

    words: int = 0
    bands: int = 0
    rows: int = 0

    @classmethod
    def of(cls, fuzzy: Fuzzy | None) -> Scheme:
        return cls(fuzzy.words, fuzzy.bands, fuzzy.rows) if fuzzy and fuzzy.use == "on" else cls()

    def columns(self) -> list[str]:
        return [f"band_{band}" for band in range(self.bands)]

    def schema(self) -> pyarrow.Schema:
        import pyarrow

        number = pyarrow.uint64()
        fields = [("id", pyarrow.string()), ("high", number), ("low", number)]
        fields += [("characters", pyarrow.int64()), ("shingles", pyarrow.int64())]
        fields += [(name, number) for name in self.columns()]
        made = json.dumps({"form": _FORM, "words": self.words, "bands": self.bands, "rows": self.rows})
        return pyarrow.schema(fields, metadata={_MADE: made.encode()})


def sign(task: dict[str, Any]) -> dict[str, Any]:
    """Write the signatures of one part: {"documents", "signatures" (paths), "scheme" (its three numbers)}.

    Runs in a worker; what is there already is kept.
    """
    import pyarrow
    import pyarrow.parquet

    scheme, target = Scheme(*task["scheme"]), Path(task["signatures"])
    if target.exists() and scheme_of(target) == scheme:
        return {"documents": pyarrow.parquet.read_metadata(target).num_rows}
    target.parent.mkdir(parents=True, exist_ok=True)
    count = 0
    with (
        atomic_write(target) as temporary,
        pyarrow.parquet.ParquetWriter(temporary, scheme.schema(), compression="zstd") as writer,
        atomic_write(shingles_beside(target)) as beside,
        open(beside, "wb") as file,
    ):
        for batch in batches(read_documents(task["documents"])):
            columns, sets = _signed(batch, scheme)
            sets.astype("<u4").tofile(file)
            writer.write_table(pyarrow.table(columns, schema=scheme.schema()))
            count += len(batch)
    return {"documents": count}


def _signed(batch: Sequence[Document], scheme: Scheme) -> tuple[dict[str, Any], Short]:
    words = [spaced(document.text) for document in batch]
    high, low = halves([document.text for document in batch], words)
    columns: dict[str, Any] = {
        "id": [document.id for document in batch],
        "high": high,
        "low": low,
        "characters": [len(document.text) for document in batch],
        "shingles": np.zeros(len(batch), np.int64),
    }
    if not scheme.bands:
        return columns, np.empty(0, np.uint32)
    parts = [_similar(words[at : at + AT_ONCE], scheme) for at in range(0, len(batch), AT_ONCE)]
    sets, columns["shingles"], keys = (np.concatenate(found) for found in zip(*parts, strict=True))
    return columns | {name: keys[:, band] for band, name in enumerate(scheme.columns())}, sets


def _similar(texts: Sequence[bytes], scheme: Scheme) -> tuple[Short, Counts, Hashes]:
    """Shingles, how many each text has, and its band keys; the texts are of `spaced`."""
    words = joined(texts)
    return *shingles(words, scheme.words), band_keys(words.column(), scheme)


def band_keys(texts: Sequence[str] | pyarrow.LargeStringArray, scheme: Scheme) -> Hashes:
    """A key for each text (words with single spaces) and band, of the band's rows of its MinHash signature."""
    # Daft reports its use unless told not to before it is imported (see matura.data.engine).
    os.environ |= {"DO_NOT_TRACK": "true", "DAFT_ANALYTICS_ENABLED": "0"}
    # The kernel alone, without a dataframe: workers of any engine run it, and no runner starts inside another.
    import pyarrow
    from daft.series import Series

    column = texts if isinstance(texts, pyarrow.Array) else pyarrow.array(texts, pyarrow.large_string())
    hashes = Series.from_arrow(column).minhash(
        scheme.bands * scheme.rows, scheme.words, seed=1, hash_function="xxhash3_64"
    )
    flat = hashes.to_arrow().flatten().to_numpy(zero_copy_only=False)
    rows = flat.reshape(len(texts), scheme.bands, scheme.rows).astype(np.uint64)
    keys = np.zeros(rows.shape[:2], np.uint64)
    for row in range(scheme.rows):
        keys = mixed(keys ^ rows[:, :, row]) + np.uint64(0x9E3779B97F4A7C15)
    return keys


def shingles_beside(signatures: Path) -> Path:
    """Where the shingles of a file of signatures are."""
    return signatures.with_suffix(".shingles")


def scheme_of(path: Path) -> Scheme:
    """How a file of signatures was made. Raises FormatError if it is none."""
    import pyarrow
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(path)
        made = json.loads((schema.metadata or {})[_MADE])
        if made.get("form", 1) != _FORM:
            raise ValueError("another version of Matura made it")
        scheme = Scheme(int(made["words"]), int(made["bands"]), int(made["rows"]))
        if not schema.equals(scheme.schema()):
            raise KeyError("columns")
    except (pyarrow.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise FormatError(
            f"{path} holds no signatures of documents: {error}. Curate that corpus anew."
        ) from error
    return scheme


def check_scheme(path: Path, wanted: Scheme) -> None:
    """Raise MaturaError unless the signatures can be compared with those of `wanted`."""
    found = scheme_of(path)
    if wanted.bands and found != wanted:
        raise MaturaError(
            f"{path} was made with words={found.words}, bands={found.bands}, rows={found.rows}, but the settings "
            f"say words={wanted.words}, bands={wanted.bands}, rows={wanted.rows}: signatures of different settings "
            "cannot be compared. Use the same settings, or `against`, which reads the texts."
        )


def batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Lists of documents, bounded in number and in text."""
    return filled(documents, CHARACTERS, text_size, BATCH)
