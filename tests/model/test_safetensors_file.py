import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from matura.core.errors import FormatError
from matura.model.safetensors_file import open_tensors, read_header


def raw(header: Any, data: bytes = bytes(16), length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: Any = "F32", shape: Any = (4,), offsets: Any = (0, 16)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "b": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "c": torch.tensor(7),
    "none": torch.zeros(0, 4),
}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path, metadata={"format": "pt"})
    for source in (path, tmp_path):
        opened = open_tensors(source)
        assert set(opened) == set(TENSORS)
        assert len(opened) == 4
        for name, tensor in TENSORS.items():
            torch.testing.assert_close(opened[name], tensor, rtol=0, atol=0)
            assert opened.entries[name].shape == tuple(tensor.shape)
    assert opened.metadata == {"format": "pt"}
    assert opened.entries["b"].dtype == "BF16"


def test_tensors_are_mapped_and_writing_never_changes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    before = path.read_bytes()
    open_tensors(path)["a"].fill_(9)
    assert path.read_bytes() == before


def test_neighbours_in_the_file_are_neighbours_in_memory(tmp_path: Path) -> None:
    save_file(
        {name: torch.full((4,), float(i)) for i, name in enumerate("ab")}, tmp_path / "model.safetensors"
    )
    opened = open_tensors(tmp_path)
    a, b = opened["a"], opened["b"]
    assert a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
    assert b.storage_offset() == a.storage_offset() + 4


def test_tensors_without_alignment_are_copied(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for padding in range(4):
        values = struct.pack("<4f", 1, 2, 3, 4)
        path.write_bytes(raw(json.dumps({"a": entry()}).encode() + b" " * padding, values))
        assert open_tensors(path)["a"].tolist() == [1, 2, 3, 4]


def test_reads_shards_by_their_index(tmp_path: Path) -> None:
    save_file({"a": TENSORS["a"]}, tmp_path / "m-1.safetensors")
    save_file({"b": TENSORS["b"]}, tmp_path / "m-2.safetensors")
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "m-1.safetensors", "b": "m-2.safetensors"}}))
    opened = open_tensors(tmp_path)
    assert sorted(opened) == ["a", "b"]
    assert torch.equal(opened["b"], TENSORS["b"])
    save_file({"a": TENSORS["a"]}, tmp_path / "m-2.safetensors")
    with pytest.raises(FormatError, match="every tensor in one file only, found 'a' again"):
        open_tensors(index)


@pytest.mark.parametrize("name", ["../m.safetensors", "/etc/passwd", "m.bin", "sub/m.safetensors", ""])
def test_an_index_cannot_point_elsewhere(tmp_path: Path, name: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(FormatError, match=r"names of \.safetensors files beside it"):
        open_tensors(tmp_path)


BROKEN = {
    "empty": (b"", "a safetensors header, found a file of 0 bytes"),
    "long header": (raw({}, length=2**63), r"a header of 2 to \d+ bytes"),
    "no json": (raw(b"{nope"), "a header in JSON"),
    "deep json": (raw(b'{"a":' + b"[" * 5000), "a header in JSON"),
    "huge number": (raw(b'{"a": ' + b"9" * 5000 + b"}"), "a header in JSON"),
    "list": (raw([1]), "a JSON object as header, found list"),
    "same name": (raw(b'{"a": 1, "a": 2}'), "a name that occurs twice"),
    "many tensors": (raw(b"{" * 300_000), "a header of at most 200000 tensors"),
    "metadata": (raw({"__metadata__": {"a": 1}}), "'__metadata__' with texts only"),
    "missing key": (raw({"a": {"dtype": "F32"}}), "'a' with dtype, shape and data_offsets"),
    "dtype": (raw({"a": entry("F99")}), "a dtype for 'a' out of F64, "),
    "negative": (raw({"a": entry(shape=(-4,))}), "a shape for 'a'"),
    "fraction": (raw({"a": entry(shape=(4.0,))}), "a shape for 'a'"),
    "true": (raw({"a": entry(shape=(True, 4))}), "a shape for 'a'"),
    "overflow": (raw({"a": entry(shape=(2**62, 2**62))}), r"bytes for 'a' \(F32"),
    "many dims": (raw({"a": entry(shape=(1,) * 50)}), "a shape for 'a' of at most 8"),
    "outside": (raw({"a": entry(shape=(8,), offsets=(0, 32))}), "data_offsets for 'a' between 0 and 16"),
    "backwards": (raw({"a": entry(offsets=(16, 0))}), "data_offsets for 'a'"),
    "size": (raw({"a": entry(shape=(3,))}), r"12 bytes for 'a' \(F32 \[3\]\), found 16"),
    "overlap": (
        raw({"a": entry(), "b": entry(shape=(2,), offsets=(8, 16))}),
        "'b' right after that of 'a', found the two overlap",
    ),
    "hole": (
        raw({"a": entry(shape=(2,), offsets=(8, 16))}),
        "'a' right after that of '', found 8 bytes of nothing",
    ),
    "rest": (
        raw({"a": entry(shape=(2,), offsets=(0, 8))}),
        r"a file of \d+ bytes, as the header says, found",
    ),
    "long name": (raw({"a" * 10**6: entry(offsets=(0, 8))}), "bytes for 'aaaaa"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_says_what_is_broken(tmp_path: Path, case: str) -> None:
    data, message = BROKEN[case]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as error:
        open_tensors(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 1000


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no model\.safetensors and no .*index\.json in this folder"):
        open_tensors(tmp_path)
    with pytest.raises(FormatError, match="cannot be read: No such file"):
        read_header(tmp_path / "model.safetensors")


def test_a_tensor_is_read_into_memory_of_its_own(tmp_path: Path) -> None:
    stored = {
        "a": torch.arange(6.0).view(2, 3),
        "b": torch.ones(3, dtype=torch.float16),
        "c": torch.empty(0, 4),
    }
    save_file(stored, tmp_path / "m.safetensors")
    found = open_tensors(tmp_path / "m.safetensors")
    for name, tensor in stored.items():
        own = found.read(name)
        assert torch.equal(own, tensor)
        assert own.dtype == tensor.dtype
    assert found.read("a").untyped_storage().data_ptr() != found["a"].untyped_storage().data_ptr()
