"""A corpus to token shards: ids in flat files that training maps into memory."""

import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from matura.core import config, costs
from matura.core.artifact import Artifact, Draft, RawInput
from matura.core.config import Input
from matura.core.corpora import corpora, documents
from matura.core.errors import FormatError, MaturaError
from matura.core.files import hash_file, read_json, write_json
from matura.core.grouping import filled
from matura.core.metrics import progress
from matura.core.plan import Estimate
from matura.core.records import Document, text_size
from matura.core.tokens_settings import Corpus

if TYPE_CHECKING:
    from matura.data.shards import Group, Shard
    from matura.tokenizer.conversation import Format
    from matura.tokenizer.parallel import Encode

KIND = "tokens"
VERSION = 1
SPLITS = {"train": "train.parquet", "heldout": "heldout.parquet"}
GROUP_BYTES, GROUP_DOCUMENTS = 1 << 20, 1024  # what a worker encodes at a time
SMALL = 8 << 20  # bytes of text that are encoded sooner than other processes have started
BYTES_PER_SECOND = 3_000_000  # of text and core


class Config(config.Config):
    """What to encode, with which tokenizer, and what stands around each document."""

    corpus: Annotated[str | None, Input("corpus")] = Field(
        None, description="Documents; each source of `curate` stays a source of its own"
    )
    corpora: dict[str, Corpus] = Field(
        {}, description="Several corpora by name, instead of `corpus`: each is one source"
    )
    tokenizer: Annotated[str, Input("tokenizer", "model")] = Field(
        description="A tokenizer, or a model whose tokenizer is used"
    )
    around: Literal["begin", "end", "both", "none"] = Field(
        "begin",
        description="Which special tokens stand around each document: the begin token before it, the end token after "
        "it, both or none",
    )
    shard_bytes: int = Field(256 << 20, ge=1 << 10, description="Text in one shard, about")
    workers: int = Field(0, ge=0, description="Processes that encode; 0: one for each core. Changes no byte")

    @model_validator(mode="after")
    def _one_or_several(self) -> Self:
        if (self.corpus is None) == (not self.corpora):
            raise ValueError("give `corpus` (one) or `corpora` (several, by name), and not both")
        return self


def estimate(config: Config, inputs: dict[str, Artifact | RawInput | None]) -> Estimate:
    """Time and room from the size of the corpora; Parquet packs text to about half."""
    files = [one.record["files"] for one in corpora(inputs).values()]
    packed = sum(one.get(name, {}).get("bytes", 0) for one in files for name in SPLITS.values())
    text, workers = 2 * packed, _workers(config)
    return Estimate(
        seconds=1 + text / BYTES_PER_SECOND / min(workers, os.cpu_count() or 1),
        memory_bytes=(200 << 20) + workers * (250 << 20),
        disk_bytes=text // 2,
        note=f"about {text / 1e6:,.0f} MB of text" if files else "",
        vocabulary=costs.vocabulary(inputs.get("tokenizer")),
    )


def run(config: Config, inputs: Mapping[str, Artifact | RawInput], draft: Draft) -> Artifact:
    """Make the shards, index.json, and tokenizer/ (the files of the tokenizer that was used). Finished shards are
    kept if the run is killed.

    Raises MaturaError when the corpus has no text, or the tokenizer no token that is to stand around documents.
    """
    from matura.data import shards
    from matura.tokenizer import conversation
    from matura.tokenizer.parallel import Around, encoders

    format = conversation.load(inputs["tokenizer"].path)
    folder = draft.path / "tokenizer"
    folder.mkdir(exist_ok=True)
    format.save(folder)
    coding = _coding(config, format, folder)
    around = Around(*(() if id is None else (id,) for id in (coding.begin, coding.end)))
    size = sum(
        one.path.joinpath(n).stat().st_size for one in corpora(inputs).values() for n in SPLITS.values()
    )
    made: dict[str, list[Shard]] = {}
    with (
        encoders(folder, around, 1 if size < SMALL // 2 else _workers(config)) as encode,
        progress("encode", None, unit="B") as bar,
    ):
        for split in SPLITS:
            made[split] = []
            for number, group in _sharded(documents(inputs, SPLITS[split]), config.shard_bytes):
                name = f"{split}-{number:05d}"
                shard = _finished(draft, name)
                if shard is None:
                    shard = shards.write_shard(draft.path, name, coding.dtype, _encoded(group, encode))
                    write_json(draft.resume / f"{name}.json", _values(shard))
                made[split].append(shard)
                bar.advance(shard.bytes)
    index = shards.write_index(draft.path, coding, made)
    train, heldout = index["splits"]["train"], index["splits"]["heldout"]
    if not train["tokens"]:
        raise MaturaError("the corpus has no text to train on: its documents give no token")
    counts = {split: {key: index["splits"][split][key] for key in _COUNTS} for split in SPLITS}
    summary = {
        "line": f"{train['tokens']:,} tokens of {train['documents']:,} documents in {len(made['train'])} shards, "
        f"{train['bytes'] / train['tokens']:.2f} bytes a token; {heldout['tokens']:,} tokens held out",
        "vocabulary": coding.vocabulary,
        "tokenizer": coding.tokenizer,
        **counts,
        "sources": {name: dict(one) for name, one in train["sources"].items()},
    }
    return draft.commit(summary)


_COUNTS = ("documents", "tokens", "bytes")


def _coding(config: Config, format: "Format", folder: Path) -> Any:
    from matura.data.shards import Coding
    from matura.tokenizer.tokenizer import FILE

    tokenizer = format.tokenizer
    begin = tokenizer.prefix_ids[0] if tokenizer.prefix_ids else format.begin_id
    end = tokenizer.eos_id if tokenizer.eos_id is not None else next(iter(tokenizer.suffix_ids[-1:]), None)
    for which, id in (("begin", begin), ("end", end)):
        if config.around in (which, "both") and id is None:
            raise MaturaError(
                f"this tokenizer has no {which} token: set around=none, or take another tokenizer"
            )
    roles = ("bos", "eos", "pad", "unk", "mask")
    return Coding(
        vocabulary=tokenizer.vocab_size,
        tokenizer=hash_file(folder / FILE),
        special={role: getattr(tokenizer, f"{role}_id") for role in roles},
        begin=begin if config.around in ("begin", "both") else None,
        end=end if config.around in ("end", "both") else None,
    )


def _workers(config: Config) -> int:
    return config.workers or os.cpu_count() or 1


Documents = Iterator[tuple[str, Document]]


def _sharded(rows: Documents, limit: int) -> Iterator[tuple[int, Documents]]:
    """Numbered shards of about `limit` bytes of text; what the caller does not read of one is passed over."""
    used = 0

    def number(one: tuple[str, Document]) -> int:
        nonlocal used
        used += len(one[1].text)
        return (used - len(one[1].text)) // limit

    for count, (_, group) in enumerate(itertools.groupby(rows, key=number)):
        yield count, group


def _encoded(rows: Documents, encode: "Encode") -> "Iterator[Group]":
    """The documents of a shard, encoded group by group."""
    import numpy as np

    from matura.data.shards import Group

    ahead, behind = itertools.tee(filled(rows, GROUP_BYTES, lambda row: text_size(row[1]), GROUP_DOCUMENTS))
    texts = ([document.text for _, document in group] for group in ahead)
    for group, (ids, lengths) in zip(behind, encode(texts), strict=True):
        sizes = np.array([len(document.text.encode()) for _, document in group], dtype=np.int64)
        yield Group(ids, lengths, sizes, tuple(source for source, _ in group))


def _values(shard: "Shard") -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(shard)


def _finished(draft: Draft, name: str) -> "Shard | None":
    """A shard that an earlier try finished, unless its files are not what it wrote."""
    from matura.data.shards import Shard

    try:
        shard = Shard(**read_json(draft.resume / f"{name}.json", limit=1 << 30, what="the marker of a shard"))
        whole = all(
            hash_file(draft.path / f"{name}{suffix}") == sha256
            for suffix, sha256 in ((".bin", shard.sha256), (".docs", shard.documents_sha256))
        )
    except (OSError, FormatError, TypeError):
        return None
    return shard if whole else None
