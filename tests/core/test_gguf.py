import struct
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import gguf as reference
import numpy as np
import pytest

from matura.core import gguf
from matura.core.errors import FormatError
from tests.gguf_files import Raw, Tensor, byte_level_vocabulary, gguf_bytes, small_tensors, text, write_gguf

ONE = [Tensor("w", "F32", (8,), bytes(32))]


def test_reads_what_the_reference_reader_reads(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", byte_level_vocabulary(), small_tensors())
    ours, theirs = gguf.read(path), reference.GGUFReader(path)
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        info = ours.tensors[tensor.name]
        assert info.shape == tuple(reversed(tensor.shape.tolist()))
        assert (info.type, info.offset) == (tensor.tensor_type.name, tensor.data_offset)
        assert bytes(ours.data(tensor.name)) == tensor.data.tobytes()
    fields = {name: field for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert list(ours.metadata) == list(fields)
    for name, field in fields.items():
        found = ours.metadata[name]
        assert (found.tolist() if isinstance(found, np.ndarray) else found) == field.contents()


def test_reads_every_kind_of_value(tmp_path: Path) -> None:
    nested = Raw(9, struct.pack("<IQIQ2HIQ", 9, 2, 2, 2, 7, 8, 8, 1) + text("é"))
    metadata: dict[str, Any] = {"u8": Raw(0, b"\xff"), "i8": Raw(1, b"\xff"), "i16": Raw(3, b"\xfe\xff")}
    metadata |= {
        "u64": Raw(10, b"\xff" * 8),
        "i64": Raw(11, b"\xff" * 8),
        "f64": Raw(12, struct.pack("<d", 0.1)),
    }
    metadata |= {"yes": True, "f": 0.5, "text": "né", "none": [], "nested": nested}
    metadata |= {"bools": np.array([True, False]), "longs": np.array([-1, 2**40])}
    found = gguf.read(write_gguf(tmp_path / "m.gguf", metadata, [])).metadata
    assert {name: found[name] for name in ("u8", "i8", "i16", "u64", "i64")} == {
        "u8": 255,
        "i8": -1,
        "i16": -2,
        "u64": 2**64 - 1,
        "i64": -1,
    }
    assert (found["f64"], found["yes"], found["f"], found["text"], found["none"]) == (
        0.1,
        True,
        0.5,
        "né",
        [],
    )
    assert found["yes"] is True
    assert found["bools"].tolist() == [True, False]
    assert found["longs"].tolist() == [-1, 2**40]
    assert found["nested"][0].tolist() == [7, 8]
    assert found["nested"][1] == ["é"]


def test_writing_to_the_data_never_changes_the_file(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "m.gguf", {}, ONE)
    before = path.read_bytes()
    gguf.read(path).data("w")[:] = 1
    assert path.read_bytes() == before


def test_honours_another_alignment(tmp_path: Path) -> None:
    tensors = [Tensor("a", "F32", (1,), bytes(4)), Tensor("b", "F32", (1,), b"\1\2\3\4")]
    path = write_gguf(tmp_path / "m.gguf", {"general.alignment": 64}, tensors, alignment=64)
    opened = gguf.read(path)
    assert opened.tensors["b"].offset % 64 == 0
    assert bytes(opened.data("b")) == b"\1\2\3\4"


def split(folder: Path, **more: Any) -> Path:
    """A model of three tensors in three files; the first."""
    for number, tensor in enumerate(small_tensors()):
        metadata = {"split.no": number, "split.count": 3, "split.tensors.count": 3} | more
        write_gguf(folder / f"m-{number + 1:05d}-of-00003.gguf", metadata, [tensor])
    return folder / "m-00001-of-00003.gguf"


def test_opens_a_split_model_whole(tmp_path: Path) -> None:
    opened = gguf.read(split(tmp_path))
    assert [bytes(opened.data(tensor.name)) == tensor.data for tensor in small_tensors()] == [True] * 3


def test_a_split_model_that_is_not_whole_says_what_is_missing(tmp_path: Path) -> None:
    first = split(tmp_path)
    second, third = (tmp_path / f"m-0000{number}-of-00003.gguf" for number in (2, 3))
    with pytest.raises(FormatError, match=r"not the first file of its model\. Give m-00001-of-00003\.gguf"):
        gguf.read(second)
    for path, copy in ((first, tmp_path / "alone.gguf"), (second, tmp_path / "m-00001-of-00001.gguf")):
        copy.write_bytes(path.read_bytes())
        with pytest.raises(FormatError, match=r"one of 3 parts of a model\. Give the first part, named like"):
            gguf.read(copy)
    whole = third.read_bytes()
    third.write_bytes(second.read_bytes())
    with pytest.raises(
        FormatError, match=r"00003-of-00003\.gguf: .*expected part 3 of 3, found 'split.no' 1"
    ):
        gguf.read(first)
    third.unlink()
    with pytest.raises(FormatError, match=r"1 of the 3 files .* are missing: m-00003-of-00003\.gguf"):
        gguf.read(first)
    third.write_bytes(whole)
    split(tmp_path, **{"split.tensors.count": 4})
    with pytest.raises(FormatError, match="4 tensors in all parts together, found 3"):
        gguf.read(first)


@pytest.mark.parametrize("begin", [0, 1])
def test_opens_a_file_that_was_cut_in_parts(tmp_path: Path, begin: int) -> None:
    whole = write_gguf(tmp_path / "m.gguf", byte_level_vocabulary(), small_tensors())
    data = whole.read_bytes()
    cuts = [0, 10, 5000, len(data) - 3, len(data)]
    for number, (start, end) in enumerate(pairwise(cuts), start=begin):
        (tmp_path / f"m.gguf.part{number:02d}").write_bytes(data[start:end])
    first = tmp_path / f"m.gguf.part{begin:02d}"
    opened, expected = gguf.read(first), gguf.read(whole)
    assert opened.metadata["tokenizer.ggml.tokens"] == expected.metadata["tokenizer.ggml.tokens"]
    assert opened.tensors == expected.tensors
    assert all(bytes(opened.data(name)) == bytes(expected.data(name)) for name in expected.tensors)
    with pytest.raises(FormatError, match=rf"not the first file of its model\. Give m\.gguf\.part0{begin}"):
        gguf.read(tmp_path / "m.gguf.part02")
    (tmp_path / "m.gguf.part02").unlink()
    with pytest.raises(FormatError, match=r"1 of the 4 files .* are missing: m\.gguf\.part02\."):
        gguf.read(first)


def twice(name: str) -> Tensor:
    return Tensor(name, "F32", (8,), bytes(32))


DEEP = Raw(9, struct.pack("<IQ", 9, 1) * 5000 + struct.pack("<IQ", 0, 0))
BROKEN = {
    "empty": (b"", "a GGUF header of 24 bytes, found a file of 0 bytes"),
    "another kind": (b"PK\3\4" + bytes(40), "at byte 0: expected the four letters 'GGUF'"),
    "old version": (gguf_bytes({}, [], version=1), "at byte 4: expected GGUF version 2 or 3, found 1"),
    "big-endian": (gguf_bytes({}, [], version=3 << 24), "big-endian"),
    "many tensors": (gguf_bytes({}, [], tensor_count=2**40), r"at byte 8: .*at most \d+ tensors"),
    "many keys": (gguf_bytes({}, [], metadata_count=2**63), r"at byte 16: .*at most \d+ metadata entries"),
    "same key": (gguf_bytes([("k", 1), ("k", 2)], ONE), "a new, non-empty metadata key, found 'k'"),
    "empty key": (gguf_bytes({"": 1}, ONE), "non-empty metadata key"),
    "unknown value": (gguf_bytes({"k": Raw(13, b"")}, ONE), "a value type from 0 to 12 for 'k', found 13"),
    "bad bool": (gguf_bytes({"k": Raw(7, b"\2")}, ONE), "0 or 1 for 'k', found 2"),
    "bad bools": (gguf_bytes({"k": Raw(9, struct.pack("<IQB", 7, 1, 9))}, ONE), "only 0 and 1 in 'k'"),
    "not utf-8": (gguf_bytes({"k": Raw(8, text(b"\xff"))}, ONE), "the text of 'k' in UTF-8"),
    "long text": (gguf_bytes({"k": Raw(8, b"\xff" * 8)}, ONE), "a length of 18446744073709551615"),
    "long array": (gguf_bytes({"k": Raw(9, struct.pack("<IQ", 0, 2**60))}, ONE), "items in 'k'"),
    "deep array": (gguf_bytes({"k": DEEP}, ONE), "arrays nested at most 3 deep in 'k'"),
    "alignment": (gguf_bytes({"general.alignment": 24}, ONE), "'general.alignment' a power of two"),
    "no alignment": (gguf_bytes({"general.alignment": 0}, ONE), "'general.alignment' a power of two"),
    "same tensor": (gguf_bytes({}, [twice("w"), twice("w")]), "every tensor name once, found 'w' again"),
    "overlap": (
        gguf_bytes({}, [twice("v"), Tensor("w", "F32", (8,), bytes(32), offset=0)]),
        "the data of 'w' after that of 'v', found the two overlap",
    ),
    "odd offset": (
        gguf_bytes({}, [Tensor("w", "F32", (2,), bytes(32), offset=4)]),
        "a multiple of 32, found 4",
    ),
    "far offset": (
        gguf_bytes({}, [Tensor("w", "F32", (8,), bytes(32), offset=2**62)]),
        "the data of 'w' inside the file's 96 bytes",
    ),
    "overflow": (gguf_bytes({}, [Tensor("w", "F32", (2**32,) * 4, bytes(32))]), "dimensions of 'w' that fit"),
    "no weights": (gguf_bytes({}, [Tensor("w", "F32", (0,), bytes(32))]), "dimensions of 'w' that fit"),
    "five dims": (gguf_bytes({}, [Tensor("w", "F32", (1,) * 5, bytes(32))]), "at most 4 dimensions"),
    "unknown type": (gguf_bytes({}, [Tensor("w", 99, (8,), bytes(32))]), "a known tensor type .* number 99"),
    "half a block": (gguf_bytes({}, [Tensor("w", "Q8_0", (33,), bytes(68))]), "whole blocks of 32 weights"),
    "too many parts": (gguf_bytes({"split.count": 10**6}, ONE), "'split.count' from 0 to 1000"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_says_what_is_broken_and_where(tmp_path: Path, case: str) -> None:
    data, message = BROKEN[case]
    path = tmp_path / "broken.gguf"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=message) as error:
        gguf.read(path)
    assert str(path) in str(error.value)
    assert "download it again" in str(error.value)


def test_missing_files_and_tensors_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"nowhere\.gguf: cannot be read: No such file"):
        gguf.read(tmp_path / "nowhere.gguf")
    with pytest.raises(FormatError, match="cannot be read"):
        gguf.read(tmp_path)
    with pytest.raises(FormatError, match="no tensor named 'v'"):
        gguf.read(write_gguf(tmp_path / "m.gguf", {}, ONE)).data("v")


def test_a_long_vocabulary_opens_fast(tmp_path: Path) -> None:
    # 100,000 texts in well under a second; the time of one text must not depend on the file's size.
    tokens = [f"token{number}" for number in range(100_000)]
    path = write_gguf(tmp_path / "m.gguf", {"tokens": tokens}, [])
    start = time.process_time()
    assert gguf.read(path).metadata["tokens"] == tokens
    assert time.process_time() - start < 1.0
