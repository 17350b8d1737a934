from pathlib import Path

import pytest

from matura.core.errors import FormatError, ModelNotFound
from matura.core.hub import choose
from matura.core.modelfiles import ggufs, locate, only_gguf
from matura.core.raw import raw_input

SPLIT = ["s-00001-of-00002.gguf", "s-00002-of-00002.gguf"]
PARTS = ["p.gguf.part9", "p.gguf.part10"]


def test_files_that_are_one_model_are_found_together() -> None:
    names = [*reversed(SPLIT), "m.gguf", *reversed(PARTS), "s-00001-of-00003.gguf", "readme.txt", "x.part1"]
    assert ggufs(names) == {
        "m.gguf": ["m.gguf"],
        "p.gguf.part9": PARTS,
        "s-00001-of-00002.gguf": SPLIT,
        "s-00001-of-00003.gguf": ["s-00001-of-00003.gguf"],
    }


def test_a_folder_may_hold_one_model_in_several_files(tmp_path: Path) -> None:
    for name in SPLIT:
        (tmp_path / name).write_bytes(name.encode())
    assert only_gguf(tmp_path) == locate(tmp_path, "it") == tmp_path / SPLIT[0]
    (tmp_path / "m.gguf").touch()
    with pytest.raises(FormatError, match=r"one GGUF model, found 2 GGUF models: m\.gguf, s-00001"):
        only_gguf(tmp_path)
    with pytest.raises(ModelNotFound, match=r"(?s)it holds 2 models.*m\.gguf\n.*s-00001-of-00002\.gguf"):
        locate(tmp_path, "it")


def test_lineage_covers_all_files_of_a_model(tmp_path: Path) -> None:
    for name in (*SPLIT, "other.gguf"):
        (tmp_path / name).write_bytes(name.encode())
    raw = raw_input(tmp_path / SPLIT[0])
    assert list(raw.files) == SPLIT
    assert [raw.file(name).read_bytes().decode() for name in raw.files] == SPLIT
    (tmp_path / SPLIT[1]).write_bytes(b"changed")
    assert raw_input(tmp_path / SPLIT[0]).id != raw.id
    (tmp_path / SPLIT[1]).unlink()
    with pytest.raises(FormatError, match=r"are missing: s-00002-of-00002\.gguf"):
        raw_input(tmp_path / SPLIT[0])


def test_a_split_model_of_the_hub_is_fetched_whole() -> None:
    assert choose(["config.json", *SPLIT], None, "hf:a/b") == ["config.json", *SPLIT]
    assert choose(["m.gguf", *SPLIT], SPLIT[0], "hf:a/b") == SPLIT
    with pytest.raises(ModelNotFound, match=r"has no GGUF file s-00002-of-00002\.gguf; did you mean s-00001"):
        choose(["m.gguf", *SPLIT], SPLIT[1], "hf:a/b")
