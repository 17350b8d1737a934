"""A corpus to tokens: the tokenizer's own ids, the same bytes for any workers and after any kill."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core import files as core_files
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ArtifactError, ConfigError, MaturaError
from matura.core.records import Document, write_documents
from matura.data import shards
from matura.data.streams import Stream
from matura.stages import encode
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.tiny_models import chatml, corpus, make, run

SMALL_SHARDS: dict[str, Any] = {"shard_bytes": 1500, "workers": 1}


def tokenizer(folder: Path, format: Format | None = None) -> Artifact:
    """A tokenizer artifact as far as `encode` reads it."""
    draft = artifact.begin(folder, kind="tokenizer", stage="tokenizer", version=1, config={}, inputs={})
    (format or chatml()).save(draft.path)
    return draft.commit({})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    place = tmp_path_factory.mktemp("world")
    return {"corpus": corpus(place / "corpus", documents=60), "tokenizer": tokenizer(place / "tokenizer")}


def files(made: Artifact) -> dict[str, str]:
    return {name: one["sha256"] for name, one in made.record["files"].items()}


def mixed(folder: Path) -> Artifact:
    """Two sources whose documents alternate, one with text beyond ASCII and what looks like markup."""
    draft = artifact.begin(folder, kind="corpus", stage="curate", version=1, config={}, inputs={})
    texts = ["hello <|im_end|> hello", "grüße, 世界 🎓", "x" * 300]
    rows = [
        Document(f"d{n}", texts[n % 3], f"d{n}.md", {"origin": "odd" if n % 2 else "even"}) for n in range(12)
    ]
    write_documents(draft.path / "train.parquet", rows[2:])
    write_documents(draft.path / "heldout.parquet", rows[:2])
    return draft.commit({})


@pytest.mark.parametrize("around", ["begin", "end", "both", "none"])
def test_ids_are_the_tokenizers_own(world: dict[str, Artifact], tmp_path: Path, around: str) -> None:
    documents = mixed(tmp_path / "mixed")
    made = run(encode, tmp_path / "out", corpus=documents, tokenizer=world["tokenizer"], around=around)
    format, found = conversation.load(made.path / "tokenizer"), shards.load(made.path)
    found.verify()
    found.check_vocabulary(made.summary["tokenizer"], format.tokenizer.vocab_size)
    end = format.tokenizer.id("<|endoftext|>") if format.tokenizer.eos_id is None else format.tokenizer.eos_id
    before = [format.begin_id] if around in ("begin", "both") else []
    after = [end] if around in ("end", "both") else []
    from matura.core.records import read_documents

    for split in ("train", "heldout"):
        texts = [one.text for one in read_documents(documents.file(f"{split}.parquet"))]
        read = list(Stream(found, split).each())
        assert [one.ids.tolist() for one in read] == [
            [*before, *format.tokenizer.encode(text), *after] for text in texts
        ]
        assert [one.bytes for one in read] == [len(text.encode()) for text in texts]
    assert set(found.sources("train")) == {"even", "odd"}
    assert format.tokenizer.id("<|im_end|>") not in {
        int(id) for one in Stream(found, "train").each() for id in one.ids
    } - set(after)


def test_workers_change_no_byte(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = run(encode, tmp_path / "one", **world, **SMALL_SHARDS)
    monkeypatch.setattr(encode, "SMALL", 0)
    monkeypatch.setattr(encode, "GROUP_DOCUMENTS", 3)
    several = run(encode, tmp_path / "several", **world, **{**SMALL_SHARDS, "workers": 2})
    assert len([name for name in files(one) if name.startswith("train")]) >= 6
    assert files(one) == files(several)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_killed_and_run_again_gives_the_same_bytes(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    whole = run(encode, tmp_path / "whole", **world, **SMALL_SHARDS)
    write = shards.write_shard
    made: list[str] = []

    def dying(folder: Path, name: str, *rest: Any) -> shards.Shard:
        if len(made) == after:
            raise KeyboardInterrupt
        made.append(name)
        return write(folder, name, *rest)

    monkeypatch.setattr(shards, "write_shard", dying)
    with pytest.raises(KeyboardInterrupt):
        run(encode, tmp_path / "killed", **world, **SMALL_SHARDS)
    kept = list(made)
    if after == 3:  # a file that is not what its marker says is made again
        (tmp_path / "killed" / f"{kept.pop(1)}.bin").write_bytes(b"")

    def counting(folder: Path, name: str, *rest: Any) -> shards.Shard:
        made.append(name)
        return write(folder, name, *rest)

    made.clear()
    monkeypatch.setattr(shards, "write_shard", counting)
    again = run(encode, tmp_path / "killed", **world, **SMALL_SHARDS)
    assert files(again) == files(whole)
    assert again.id == whole.id
    assert not set(kept) & set(made)


def test_a_full_disk_keeps_the_shards_that_are_finished(
    world: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(encode, tmp_path / "whole", **world, **SMALL_SHARDS)
    sync = core_files.sync

    def full(path: Path) -> None:
        if path.name == "train-00001.docs":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(path)

    with monkeypatch.context() as patch:
        patch.setattr(core_files, "sync", full)
        with pytest.raises(ArtifactError, match=r"The disk is full: .* while writing train-00001.docs"):
            run(encode, tmp_path / "full", **world, **SMALL_SHARDS)
    kept = tmp_path / "full" / "train-00000.bin"
    made = kept.stat().st_ino
    again = run(encode, tmp_path / "full", **world, **SMALL_SHARDS)
    assert again.id == whole.id
    assert kept.stat().st_ino == made


def test_several_corpora_are_sources(world: dict[str, Artifact], tmp_path: Path) -> None:
    more = mixed(tmp_path / "mixed")
    inputs = {"corpora.b.path": world["corpus"], "corpora.a.path": more, "tokenizer": world["tokenizer"]}
    groups = {"corpora": {"a": {"path": "x"}, "b": {"path": "y"}}, "tokenizer": "z"}
    config = parse(encode.Config, groups, "test")
    made = make(encode, tmp_path / "out", config, inputs)
    sources = shards.load(made.path).sources("train")
    assert {name: one["documents"] for name, one in sources.items()} == {"a": 10, "b": 58}


def test_a_tokenizer_without_a_begin_token(world: dict[str, Artifact], tmp_path: Path) -> None:
    backend = chatml().tokenizer.backend
    import tokenizers

    plain = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1}, []))
    assert backend is not plain
    bare = tokenizer(tmp_path / "bare", Format(Tokenizer(plain, Roles()), None, ()))
    with pytest.raises(MaturaError, match="no begin token: set around=none"):
        run(encode, tmp_path / "out", corpus=world["corpus"], tokenizer=bare)


def test_settings_that_do_not_fit() -> None:
    for values in ({"tokenizer": "t"}, {"tokenizer": "t", "corpus": "c", "corpora": {"a": {"path": "b"}}}):
        with pytest.raises(ConfigError, match="and not both"):
            parse(encode.Config, values, "test")


def test_an_empty_text_trains_nothing(world: dict[str, Artifact], tmp_path: Path) -> None:
    draft = artifact.begin(tmp_path / "empty", kind="corpus", stage="curate", version=1, config={}, inputs={})
    for split in ("train", "heldout"):
        write_documents(draft.path / f"{split}.parquet", [Document("d", "", "d.md")])
    with pytest.raises(MaturaError, match="no text to train on"):
        run(encode, tmp_path / "out", corpus=draft.commit({}), tokenizer=world["tokenizer"], around="none")
