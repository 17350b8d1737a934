"""From files of signatures to the documents to drop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from matura.core.corpus_settings import Fuzzy
from matura.core.errors import FormatError
from matura.core.files import atomic_write
from matura.data.dedup.bands import Ranks, candidates, unpack
from matura.data.dedup.clusters import Duplicates, Edges, Pair, keepers, no_edges
from matura.data.dedup.exact import representatives
from matura.data.dedup.signatures import shingles_beside
from matura.data.dedup.verify import Shares, Shingles
from matura.data.polynomials import Hashes

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class Ranked:
    """All documents in the order of preference; those of the reference are the first `references` ranks.

    `order` leads from a rank to the document's place in the files, one after the other.
    """

    files: tuple[Path, ...]
    ids: pyarrow.StringArray
    order: Ranks
    references: int
    shingles: Shingles

    def column(self, name: str) -> Hashes:
        """One column of numbers, by rank."""
        values = np.concatenate([_column(path, name).to_numpy() for path in self.files])
        return values[self.order]


def rank(references: Sequence[Path], files: Sequence[Path], keep: Literal["longest", "first"]) -> Ranked:
    """The documents of files of signatures, the best first: the longest (unless `keep` says first), then by id."""
    import pyarrow
    import pyarrow.compute

    paths = (*references, *files)
    ids = pyarrow.chunked_array(
        [chunk for path in paths for chunk in _column(path, "id").chunks], pyarrow.string()
    )
    rows = [len(_column(path, "high")) for path in paths]
    own = np.repeat([path not in set(references) for path in paths], rows)
    characters = np.concatenate(
        [_column(path, "characters").to_numpy() for path in paths] or [np.empty(0, int)]
    )
    table = pyarrow.table(
        {"own": own.astype(np.int8), "length": characters if keep == "longest" else 0 * characters, "id": ids}
    )
    keys = [("own", "ascending"), ("length", "descending"), ("id", "ascending")]
    order = pyarrow.compute.sort_indices(table, sort_keys=keys).to_numpy().astype(np.int64)
    counts = [_column(path, "shingles").to_numpy() for path in paths]
    for path, count in zip(paths, counts, strict=True):
        _check_shingles(path, int(count.sum()))
    offsets = np.concatenate([np.cumsum(count) - count for count in counts])
    numbers = np.repeat(np.arange(len(paths)), rows)
    shingles = Shingles(
        [shingles_beside(path) for path in paths],
        numbers[order],
        offsets[order],
        np.concatenate(counts)[order],
    )
    ranked = ids.combine_chunks().take(pyarrow.array(order))
    return Ranked(paths, ranked, order, int((~own).sum()), shingles)


def duplicates(ranked: Ranked, *, exact: bool, fuzzy: Fuzzy | None) -> Duplicates:
    """What to drop. Hashes alone are in memory: three numbers per document, one band, and the pairs found."""
    count = len(ranked.order)
    same = np.arange(count)
    if exact:
        same = representatives(ranked.column("high"), ranked.column("low"))
        same[: ranked.references] = np.arange(ranked.references)  # a reference stays as it is
    edges = no_edges()
    if fuzzy and fuzzy.use == "on":
        edges = near(ranked, np.flatnonzero((same == np.arange(count)) & (ranked.shingles.counts > 0)), fuzzy)
    keeper, share = keepers(edges, count, ranked.shingles.jaccard, fuzzy.jaccard if fuzzy else 1.0)
    dropped = np.flatnonzero(keeper[same] != np.arange(count))
    return _named(ranked, dropped, same, keeper, share)


def near(ranked: Ranked, ranks: Ranks, fuzzy: Fuzzy) -> Edges:
    """The verified pairs among `ranks`, band by band, so that one band is in memory and a pair is compared once."""
    edges, tried = no_edges(), np.empty(0, np.uint64)
    settled = np.zeros(len(ranked.order), bool)
    for band in range(fuzzy.bands):
        keys = ranked.column(f"band_{band}")[ranks]
        pairs = np.setdiff1d(candidates(keys, ranks, settled, ranked.references), tried, assume_unique=True)
        tried = np.union1d(tried, pairs)
        share = ranked.shingles.jaccard(*unpack(pairs), fuzzy.jaccard)
        alike = share >= fuzzy.jaccard
        edges = edges.joined(pairs[alike], share[alike])
        settled[unpack(pairs[alike])[1]] = True
    return edges


def _named(ranked: Ranked, dropped: Ranks, same: Ranks, keeper: Ranks, share: Shares) -> Duplicates:
    final = keeper[same[dropped]]
    exact = final == same[dropped]
    # Equal to a document that itself goes for a similar one: their words may differ (a hyphen), so look again.
    again = np.flatnonzero((same[dropped] != dropped) & ~exact)
    jaccard = np.where(exact, 1.0, share[same[dropped]])
    jaccard[again] = ranked.shingles.jaccard(dropped[again], final[again])
    found = Duplicates()
    ids = ranked.ids.take(dropped).to_pylist()
    kept = ranked.ids.take(final).to_pylist()
    for at, identity in enumerate(ids):
        found.drop[identity] = Pair(
            kept[at],
            round(float(jaccard[at]), 6),
            "exact" if exact[at] else "near",
            bool(final[at] < ranked.references),
        )
    found.clusters = Counter((np.unique(final, return_counts=True)[1] + 1).tolist())
    return found


def write_pairs(found: Duplicates, path: Path) -> int:
    """The dropped documents as Parquet, in order of id: dropped, kept, jaccard, kind, reference. Returns how many."""
    import pyarrow
    import pyarrow.parquet

    rows = sorted(found.drop.items())
    columns = {
        "dropped": pyarrow.array([identity for identity, _ in rows], pyarrow.string()),
        "kept": pyarrow.array([pair.kept for _, pair in rows], pyarrow.string()),
        "jaccard": pyarrow.array([pair.jaccard for _, pair in rows], pyarrow.float64()),
        "kind": pyarrow.array([pair.kind for _, pair in rows], pyarrow.string()),
        "reference": pyarrow.array([pair.reference for _, pair in rows], pyarrow.bool_()),
    }
    with atomic_write(path) as temporary:
        pyarrow.parquet.write_table(pyarrow.table(columns), temporary, compression="zstd")
    return len(rows)


def _column(path: Path, name: str) -> Any:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=[name]).column(name)


def _check_shingles(path: Path, count: int) -> None:
    beside = shingles_beside(path)
    size = beside.stat().st_size if beside.exists() else -1
    if size != 4 * count:
        raise FormatError(f"{beside} has {size:,} bytes, expected {4 * count:,}. Curate that corpus anew.")


def kept_rows(files: Sequence[Path], left_out: Any) -> Iterator[tuple[Path, Any]]:
    """Of each file the rows whose id is not in `left_out`."""
    for path in files:
        ids = _column(path, "id").to_pylist()
        yield path, np.array([at for at, identity in enumerate(ids) if identity not in left_out], np.int64)
