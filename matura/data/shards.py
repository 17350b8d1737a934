"""Token shards: documents as ids in flat files that are mapped into memory, never read whole.

A folder holds `index.json` and, for every shard, two little-endian files: `train-00000.bin`, the ids of its documents
end to end (uint16 where the vocabulary fits, else uint32), and `train-00000.docs`, three columns with one entry for
each document: where it ends in the ids (uint64), its bytes of text (uint64), its source (uint32, an index into the
shard's own list of sources). A document lies in one shard, so shards can be made, checked and copied one by one.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from matura.core.errors import ArtifactError, FormatError
from matura.core.files import atomic_write, hash_file, read_json, write_json

SCHEMA = 1
INDEX = "index.json"
MAX_INDEX_BYTES = 256 << 20
OPEN_SHARDS = 128
"""Shards mapped at a time by one reader: each takes two file descriptors."""
_NAME = re.compile(r"[a-z]+-[0-9]{5,}")
_ENTRY = 20  # bytes of a document in a .docs file

Ids = npt.NDArray[np.integer[Any]]
Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Coding:
    """What the ids mean: size of the vocabulary, SHA-256 of its tokenizer.json, tokens with a role, and the tokens
    that stand before (`begin`) and after (`end`) every document, or None."""

    vocabulary: int
    tokenizer: str
    special: Mapping[str, int | None]
    begin: int | None
    end: int | None

    @property
    def dtype(self) -> str:
        """numpy's name of the type of an id on disk."""
        return "<u2" if self.vocabulary <= 1 << 16 else "<u4"


@dataclass(frozen=True, slots=True)
class Group:
    """Some documents, encoded: their ids end to end, and the tokens, bytes of text and source of each."""

    ids: Ids
    lengths: Numbers
    bytes: Numbers
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Shard:
    """What the index says of a shard; `sources` gives documents, tokens and bytes by source."""

    name: str
    tokens: int
    documents: int
    bytes: int
    sha256: str
    documents_sha256: str
    sources: Mapping[str, Mapping[str, int]]


def write_shard(folder: Path, name: str, dtype: str, groups: Iterable[Group]) -> Shard:
    """Write the two files of a shard, atomically, while the groups come. The same groups give the same bytes, however
    the documents are divided among them. Raises ArtifactError when the disk is full."""
    digest, at = hashlib.sha256(), 0
    ends: list[Numbers] = []
    sizes: list[Numbers] = []
    numbers: list[npt.NDArray[np.uint32]] = []
    names: dict[str, int] = {}
    with atomic_write(folder / f"{name}.bin") as temporary, temporary.open("wb") as file:
        for group in groups:
            data = np.ascontiguousarray(group.ids, dtype=dtype).data.cast("B")
            file.write(data)
            digest.update(data)
            ends.append(at + np.cumsum(group.lengths))
            sizes.append(group.bytes)
            for source in group.sources:
                names.setdefault(source, len(names))
            numbers.append(np.array([names[source] for source in group.sources], dtype=np.uint32))
            at += len(group.ids)
    end, size = (np.concatenate(one) if one else np.zeros(0, np.int64) for one in (ends, sizes))
    number = np.concatenate(numbers) if numbers else np.zeros(0, np.uint32)
    columns = b"".join(
        [end.astype("<u8").tobytes(), size.astype("<u8").tobytes(), number.astype("<u4").tobytes()]
    )
    with atomic_write(folder / f"{name}.docs") as temporary:
        temporary.write_bytes(columns)
    lengths = np.diff(end, prepend=0)
    sources = {
        source: {
            "documents": int((number == i).sum()),
            "tokens": int(lengths[number == i].sum()),
            "bytes": int(size[number == i].sum()),
        }
        for source, i in names.items()
    }
    shas = digest.hexdigest(), hashlib.sha256(columns).hexdigest()
    return Shard(name, at, len(end), int(size.sum()), *shas, sources)


def write_index(folder: Path, coding: Coding, splits: Mapping[str, list[Shard]]) -> dict[str, Any]:
    """Write `index.json`, with totals by split and source, and return it."""
    index = {
        "schema": SCHEMA,
        "dtype": coding.dtype,
        **asdict(coding),
        "splits": {
            split: {
                **_totals(shards),
                "sources": _by_source(shards),
                "shards": [asdict(one) for one in shards],
            }
            for split, shards in splits.items()
        },
    }
    write_json(folder / INDEX, index)
    return index


def _totals(shards: Iterable[Shard]) -> dict[str, int]:
    listed = list(shards)
    return {key: sum(getattr(one, key) for one in listed) for key in ("documents", "tokens", "bytes")}


def _by_source(shards: Iterable[Shard]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for shard in shards:
        for source, counts in shard.sources.items():
            total = found.setdefault(source, dict.fromkeys(counts, 0))
            for key, count in counts.items():
                total[key] += count
    return dict(sorted(found.items()))


@dataclass(frozen=True, slots=True)
class Mapped:
    """A shard in memory: ids [N], and for each document its end in them, its bytes and its source's number."""

    ids_N: Ids
    ends_D: npt.NDArray[np.uint64]
    bytes_D: npt.NDArray[np.uint64]
    sources_D: npt.NDArray[np.uint32]


class TokenShards:
    """The shards of a folder. Opening checks the size of every file, not its content: see `verify`."""

    def __init__(self, folder: Path, coding: Coding, splits: Mapping[str, tuple[Shard, ...]]) -> None:
        self.folder, self.coding, self.splits = folder, coding, splits
        self._map = functools.lru_cache(maxsize=OPEN_SHARDS)(self._mapped)

    def shards(self, split: str) -> tuple[Shard, ...]:
        """The shards of a split ("train", "heldout"). Raises FormatError when there is no such split."""
        if split not in self.splits:
            raise FormatError(
                f"{self.folder} has no tokens called {split!r} (it has: {', '.join(self.splits)})."
            )
        return self.splits[split]

    def totals(self, split: str) -> dict[str, int]:
        """Documents, tokens and bytes of a split."""
        return _totals(self.shards(split))

    def sources(self, split: str) -> dict[str, dict[str, int]]:
        """The same by source."""
        return _by_source(self.shards(split))

    def open(self, shard: Shard) -> Mapped:
        """Map a shard into memory; the last ones stay open."""
        return self._map(shard.name)

    def _mapped(self, name: str) -> Mapped:
        shard = next(one for shards in self.splits.values() for one in shards if one.name == name)
        ids = _map_file(self.folder / f"{name}.bin", self.coding.dtype, 0, shard.tokens)
        count, path = shard.documents, self.folder / f"{name}.docs"
        return Mapped(
            ids,
            _map_file(path, "<u8", 0, count),
            _map_file(path, "<u8", 8 * count, count),
            _map_file(path, "<u4", 16 * count, count),
        )

    def verify(self, rank: int = 0, world: int = 1) -> None:
        """Hash every file and look at every boundary and id; of `world` processes, `rank` looks at every `world`-th
        shard. Raises ArtifactError naming each shard that differs."""
        problems = []
        for shard in [one for shards in self.splits.values() for one in shards][rank::world]:
            for suffix, sha256 in ((".bin", shard.sha256), (".docs", shard.documents_sha256)):
                if hash_file(self.folder / f"{shard.name}{suffix}") != sha256:
                    problems.append(f"{shard.name}{suffix}: its content was changed")
            found = self._mapped(shard.name)
            ends = found.ends_D.astype(np.int64)
            if len(ends) and (ends[-1] != shard.tokens or (np.diff(ends, prepend=0) < 0).any()):
                problems.append(f"{shard.name}.docs: its documents do not end where its tokens do")
            if len(found.ids_N) and int(found.ids_N.max()) >= self.coding.vocabulary:
                problems.append(f"{shard.name}.bin: token {found.ids_N.max()} is outside the vocabulary")
        if problems:
            listed = "\n".join(f"  {problem}" for problem in problems)
            raise ArtifactError(f"{self.folder} was changed after it was made:\n{listed}\n{_REMAKE}")

    def check_vocabulary(self, tokenizer: str, vocabulary: int) -> None:
        """That a model reads these ids as they were meant: the SHA-256 of its tokenizer.json, and the size of its
        vocabulary (which may have unused rows at the end). Raises FormatError."""
        if tokenizer != self.coding.tokenizer:
            raise FormatError(
                f"{self.folder} was encoded with another tokenizer ({self.coding.tokenizer[:12]}, "
                f"{self.coding.vocabulary:,} tokens) than the model's ({tokenizer[:12]}, {vocabulary:,}): the ids "
                "would mean other texts. Encode the corpus with this model's tokenizer, or take a model of this one."
            )
        if vocabulary < self.coding.vocabulary:
            raise FormatError(
                f"{self.folder} has ids up to {self.coding.vocabulary - 1:,}, but the model's vocabulary has only "
                f"{vocabulary:,} tokens: make it at least {self.coding.vocabulary:,}."
            )


_REMAKE = "Delete it and run `matura encode` again."


def _map_file(path: Path, dtype: str, offset: int, count: int) -> Any:
    if count == 0:
        return np.zeros(0, dtype)
    try:
        return np.memmap(path, dtype=dtype, mode="r", offset=offset, shape=(count,))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{path}: cannot be mapped into memory: {error}. {_REMAKE}") from error


def load(folder: str | Path) -> TokenShards:
    """The shards of a folder, every file with the size that the index says.

    Raises FormatError for an index that is broken or newer, ArtifactError for shards that are missing or cut, each
    by its name.
    """
    folder = Path(folder)
    path = folder / INDEX
    try:
        index = read_json(path, limit=MAX_INDEX_BYTES, what="an index of tokens")
    except OSError as error:
        raise FormatError(
            f"{path}: cannot be read: {error.strerror}. Is this what `matura encode` made?"
        ) from error
    if index.get("schema") != SCHEMA:
        raise FormatError(
            f"{path} has schema {index.get('schema')!r}, this version reads {SCHEMA}. {_REMAKE}"
        )
    try:
        coding = Coding(**{key: index[key] for key in Coding.__slots__})
        splits = {
            split: tuple(_shard(one) for one in content["shards"])
            for split, content in index["splits"].items()
        }
        _check_coding(coding, index["dtype"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise FormatError(f"{path} is no index of tokens: {error!r}. {_REMAKE}") from error
    shards = TokenShards(folder, coding, splits)
    _check_sizes(shards)
    return shards


def _shard(values: Mapping[str, Any]) -> Shard:
    shard = Shard(**values)
    if not _NAME.fullmatch(shard.name):
        raise ValueError(f"{shard.name!r} is no name of a shard")
    counts = [shard.tokens, shard.documents, shard.bytes]
    counts += [one[key] for one in shard.sources.values() for key in ("documents", "tokens", "bytes")]
    if not all(type(one) is int and 0 <= one < 1 << 60 for one in counts):
        raise ValueError(f"{shard.name}: a count is no whole number")
    return shard


def _check_coding(coding: Coding, dtype: str) -> None:
    ids = [one for one in (coding.begin, coding.end, *coding.special.values()) if one is not None]
    if type(coding.vocabulary) is not int or not 0 < coding.vocabulary <= 1 << 32 or dtype != coding.dtype:
        raise ValueError(f"a vocabulary of {coding.vocabulary!r} in {dtype!r}")
    if not all(type(one) is int and 0 <= one < coding.vocabulary for one in ids):
        raise ValueError(f"special tokens {ids} outside the vocabulary")


def _check_sizes(shards: TokenShards) -> None:
    width = np.dtype(shards.coding.dtype).itemsize
    problems = []
    for shard in (one for group in shards.splits.values() for one in group):
        for suffix, wanted in ((".bin", width * shard.tokens), (".docs", _ENTRY * shard.documents)):
            path = shards.folder / f"{shard.name}{suffix}"
            found = path.stat().st_size if path.is_file() else None
            if found is None:
                problems.append(f"{path.name} is missing")
            elif found != wanted:
                problems.append(f"{path.name} has {found:,} bytes instead of {wanted:,}")
    if problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise ArtifactError(f"{shards.folder} was changed after it was made:\n{listed}\n{_REMAKE}")
