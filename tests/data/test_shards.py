"""Token shards: what is written is read, and what was changed is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from matura.core.errors import ArtifactError, FormatError
from matura.data import shards
from tests.token_shards import coding, group, write

DOCUMENTS = [("a", [1, 2, 3]), ("b", [4]), ("a", []), ("b", [5, 6])]


def test_what_is_written_is_read(tmp_path: Path) -> None:
    made = write(tmp_path, [DOCUMENTS, [("b", [7, 8])]], [("c", [9])])
    first, second = made.shards("train")
    mapped = made.open(first)
    assert mapped.ids_N.tolist() == [1, 2, 3, 4, 5, 6]
    assert mapped.ends_D.tolist() == [3, 4, 4, 6]
    assert mapped.bytes_D.tolist() == [9, 3, 0, 6]
    assert [list(first.sources)[i] for i in mapped.sources_D] == ["a", "b", "a", "b"]
    assert made.open(second).ids_N.tolist() == [7, 8]
    assert made.totals("train") == {"documents": 5, "tokens": 8, "bytes": 24}
    assert made.sources("train")["b"] == {"documents": 3, "tokens": 5, "bytes": 15}
    assert made.totals("heldout")["tokens"] == 1
    made.verify()


@pytest.mark.parametrize(("vocabulary", "dtype", "width"), [(1 << 16, "<u2", 2), ((1 << 16) + 1, "<u4", 4)])
def test_type_follows_the_vocabulary(tmp_path: Path, vocabulary: int, dtype: str, width: int) -> None:
    made = write(tmp_path, [[("a", [vocabulary - 1, 258])]], vocabulary=vocabulary)
    assert made.coding.dtype == dtype
    content = (tmp_path / "train-00000.bin").read_bytes()
    assert len(content) == 2 * width
    assert content[width:] == (258).to_bytes(width, "little")
    assert made.open(made.shards("train")[0]).ids_N.tolist() == [vocabulary - 1, 258]


def test_groups_change_no_byte(tmp_path: Path) -> None:
    whole = shards.write_shard(tmp_path, "train-00000", "<u2", [group(DOCUMENTS)])
    parts = [group(DOCUMENTS[:1]), group(DOCUMENTS[1:3]), group(DOCUMENTS[3:])]
    again = shards.write_shard(tmp_path, "train-00001", "<u2", parts)
    assert (whole.sha256, whole.documents_sha256, whole.sources) == (
        again.sha256,
        again.documents_sha256,
        again.sources,
    )


@pytest.mark.parametrize("name", ["train-00001.bin", "train-00001.docs"])
def test_cut_missing_and_altered_files_are_named(tmp_path: Path, name: str) -> None:
    write(tmp_path, [DOCUMENTS, DOCUMENTS])
    path = tmp_path / name
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=rf"{name} has .* bytes instead of"):
        shards.load(tmp_path)
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(ArtifactError, match=rf"{name}: its content was changed") as error:
        shards.load(tmp_path).verify()
    assert "train-00000" not in str(error.value)
    path.unlink()
    with pytest.raises(ArtifactError, match=f"{name} is missing"):
        shards.load(tmp_path)


def test_another_vocabulary_is_refused(tmp_path: Path) -> None:
    made = write(tmp_path, [DOCUMENTS])
    made.check_vocabulary("f" * 64, 1000)
    made.check_vocabulary("f" * 64, 1024)  # padded
    with pytest.raises(FormatError, match="another tokenizer"):
        made.check_vocabulary("e" * 64, 1000)
    with pytest.raises(FormatError, match="only 999 tokens: make it at least 1,000"):
        made.check_vocabulary("f" * 64, 999)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (["schema"], 2),
        (["vocabulary"], 0),
        (["vocabulary"], 70_000),  # then ids have four bytes
        (["begin"], 1000),
        (["splits", "train", "shards", 0, "name"], "../train-00000"),
        (["splits", "train", "shards", 0, "tokens"], -1),
        (["splits", "train", "shards", 0, "tokens"], 1 << 62),
        (["splits", "train", "shards", 0, "sources"], ["a"]),
        (["splits", "train"], None),
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, place: list[Any], value: Any) -> None:
    write(tmp_path, [DOCUMENTS])
    path = tmp_path / shards.INDEX
    index = json.loads(path.read_text())
    inner = index
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(index))
    with pytest.raises(FormatError):
        shards.load(tmp_path)


def test_no_folder_of_tokens(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="matura encode"):
        shards.load(tmp_path)
    made = write(tmp_path, [DOCUMENTS])
    with pytest.raises(FormatError, match="no tokens called 'test'"):
        made.shards("test")


def test_ids_outside_the_vocabulary_are_found(tmp_path: Path) -> None:
    meaning = coding(vocabulary=5)
    made = shards.write_shard(tmp_path, "train-00000", meaning.dtype, [group(DOCUMENTS)])
    shards.write_index(tmp_path, meaning, {"train": [made]})
    with pytest.raises(ArtifactError, match="token 6 is outside"):
        shards.load(tmp_path).verify()


def test_documents_of_text_only_in_numbers(tmp_path: Path) -> None:
    made = write(tmp_path, [[]])
    assert made.totals("train") == {"documents": 0, "tokens": 0, "bytes": 0}
    assert len(made.open(made.shards("train")[0]).ids_N) == 0
    assert isinstance(made.open(made.shards("train")[0]).ids_N, np.ndarray)
