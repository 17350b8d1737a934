"""Duplicates in part files of documents: equal texts, similar texts, and long spans that occur again.

`find` says which documents to drop and for which other document each of them goes; it changes no file. `cut_repeats`
writes the parts anew without the spans that occurred before. Both work part by part in worker processes, hold hashes
of documents in memory but never all their texts, and give the same result however documents are spread over parts.

What `find` does:

1. sign: for each part a file of signatures (hash of the letters, MinHash bands by Daft) and one of shingle hashes;
2. exact: documents with the same letters, whatever their case, punctuation and spacing;
3. bands: documents that share a band are candidates, one band in memory at a time;
4. verify: the true Jaccard index of each candidate pair, from their sets of shingles;
5. clusters: the document to keep goes first (the longest, then the smallest id). A document is dropped only if it is
   itself similar to one that is kept, so a chain of small changes does not pull unlike documents together.

Documents of a reference (`against`, `index`) are never dropped and go before all others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from matura.core.corpus_settings import Engine, Fuzzy
from matura.core.errors import MaturaError
from matura.data.dedup.clusters import Duplicates, Pair
from matura.data.dedup.index import PARTS, index_file, reference_files, write_index
from matura.data.dedup.search import duplicates, rank, write_pairs
from matura.data.dedup.signatures import Scheme, check_scheme, scheme_of
from matura.data.dedup.substring import cut_repeats
from matura.data.engine import run_parts

__all__ = ["Duplicates", "Pair", "check_references", "cut_repeats", "find", "write_index", "write_pairs"]


def check_references(fuzzy: Fuzzy | None, against: Path | None, index: Path | None) -> None:
    """Raise FormatError or MaturaError when `find` cannot compare with the references, or `write_index` not add."""
    if index:
        path, wanted = index_file(index), Scheme.of(fuzzy)
        check_scheme(path, wanted)
        if (found := scheme_of(path)) != wanted:
            raise MaturaError(
                f"{path} holds signatures for near copies, so what is added to it needs them too: "
                f"fuzzy={{use: on, words: {found.words}, bands: {found.bands}, rows: {found.rows}}}"
            )
    if against:
        reference_files(against)


def find(
    parts: Sequence[Path],
    *,
    exact: bool,
    fuzzy: Fuzzy | None,
    against: Path | None = None,
    index: Path | None = None,
    folder: Path,
    engine: Engine,
    advance: Callable[[dict[str, Any]], None] = lambda result: None,
) -> Duplicates:
    """Which documents of `parts` repeat others, of the parts or of a reference.

    `parts` are Parquet files of documents whose ids are unique across them. `fuzzy` None (or `use: off`) finds equal
    texts only. `against` is a Parquet file of documents, or a folder with `train.parquet` and `heldout.parquet`;
    `index` a folder that `write_index` filled, or the artifact that holds it. `folder` takes the working files; what
    is finished there is used again. `advance` hears {"documents": n} for each signed part.

    Raises FormatError for files that are not what they should be, MaturaError for an index made with other settings.
    """
    scheme = Scheme.of(fuzzy)
    references = [index_file(index)] if index else []
    for path in references:
        check_scheme(path, scheme)
    compared = reference_files(against) if against else []
    own = _targets(parts, folder / PARTS)
    other = _targets(compared, folder / "against")
    three = (scheme.words, scheme.bands, scheme.rows)
    tasks = [
        {"documents": str(path), "signatures": str(target), "scheme": three}
        for path, target in zip([*parts, *compared], [*own, *other], strict=True)
    ]
    run_parts("matura.data.dedup.signatures:sign", tasks, engine, advance=advance)
    if not own:
        return Duplicates()
    keep = fuzzy.keep if fuzzy else "longest"
    return duplicates(rank([*references, *other], own, keep), exact=exact, fuzzy=fuzzy)


def _targets(parts: Sequence[Path], folder: Path) -> list[Path]:
    return [folder / f"{number:05d}.parquet" for number in range(len(parts))]
