"""Licence and data sets of a model card: what the lineage names, by the hub's names, and no guess."""

from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.raw import RawInput, raw_input
from matura.evaluate import card_origin
from matura.evaluate.card_origin import Licence
from tests import tiny_models

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy"


def made(
    place: Path, kind: str, stage: str, config: dict[str, Any], **inputs: Artifact | RawInput
) -> Artifact:
    """An artifact without files; dots of names of inputs are written as two underscores."""
    named = {name.replace("__", "."): one for name, one in inputs.items()}
    return artifact.begin(place, kind=kind, stage=stage, version=1, config=config, inputs=named).commit({})


def raw(place: Path, **files: str) -> RawInput:
    place.mkdir()
    for name, text in {"config.json": "{}", **files}.items():
        (place / name).write_text(text)
    return raw_input(place)


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("smollm2-135m-instruct", Licence("apache-2.0")),
        ("hf:openai-community/gpt2@main", Licence("mit")),
        ("hf:some/model", Licence()),
    ],
)
def test_a_short_name_has_a_known_licence(reference: str, expected: Licence, tmp_path: Path) -> None:
    pulled = made(tmp_path / "m", "model", "pull", {"reference": reference}, files=raw(tmp_path / "files"))
    tuned = made(tmp_path / "t", "model", "finetune", {}, model=pulled)
    assert card_origin.licence([pulled, tuned]) == expected
    assert card_origin.licence([tuned]) == Licence()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"README.md": "---\nlicense: Apache-2.0\ntags: [a]\n---\n# A model\n"}, Licence("apache-2.0")),
        ({"README.md": "---\nlicense: gemma\n---\n", "LICENSE": MIT}, Licence("gemma")),
        (
            {"README.md": "---\nlicense: other\nlicense_name: Our *Own* Terms v1.2\n---\n"},
            Licence("other", "our-own-terms-v1.2"),
        ),
        ({"README.md": "---\nlicense: [mit, apache-2.0]\n---\n"}, Licence("other", "mit-and-apache-2.0")),
        ({"README.md": "---\nlicense: unknown\n---\n"}, Licence()),
        ({"README.md": "# license: mit\n", "LICENSE": MIT}, Licence("mit")),
        ({"README.md": "---\n: [broken\n---\n", "LICENSE.txt": "All rights reserved."}, Licence()),
        ({}, Licence()),
    ],
)
def test_the_files_of_a_model_name_its_licence(
    files: dict[str, str], expected: Licence, tmp_path: Path
) -> None:
    source = raw(tmp_path / "files", **files)
    pulled = made(tmp_path / "m", "model", "pull", {"reference": "files"}, files=source)
    found = card_origin.licence([pulled])
    assert found == expected
    assert set(found.front()) == ({"license", "license_name"} if found.name else {"license"})
    for name in files:  # what is no longer what was read says nothing
        (source.path / name).write_text("---\nlicense: cc0-1.0\n---\n")
    assert card_origin.licence([pulled]) == Licence()


def test_a_gguf_file_names_its_licence(tmp_path: Path) -> None:
    pulled = tiny_models.pulled(tmp_path, **{"general.license": "CC-BY-4.0"})
    assert card_origin.licence([pulled]) == Licence("cc-by-4.0")
    assert card_origin.licence([tiny_models.pulled(tmp_path, name="silent")]) == Licence()
    with (tmp_path / "tiny.gguf").open("ab") as file:
        file.write(b"\0")
    assert card_origin.licence([pulled]) == Licence()


def test_files_that_are_gone_say_nothing(tmp_path: Path) -> None:
    files = raw(tmp_path / "files", **{"README.md": "---\nlicense: mit\n---\n"})
    (files.path / "inside").mkdir()
    (files.path / "inside" / "m.gguf").write_bytes(b"GGUF")
    source = raw_input(files.path)
    pulled = made(tmp_path / "m", "model", "pull", {"reference": "files"}, files=source)
    assert card_origin.licence([pulled]) == Licence("mit")
    source.path.rename(tmp_path / "elsewhere")
    assert card_origin.licence([pulled]) == Licence()


def test_data_sets_of_the_hub_are_those_that_were_learned_from(tmp_path: Path) -> None:
    files = raw(tmp_path / "files")
    corpus = made(
        tmp_path / "corpus",
        "corpus",
        "curate",
        {
            "path": None,
            "sources": {"a": {"path": "hf:some/texts@main:en"}, "b": {"path": "/home/me/texts"}},
            "decontaminate": {"problems": "hf:some/exam"},
        },
        sources__a__path=files,
        sources__b__path=files,
        decontaminate__problems=files,
    )
    taught = {"conversations": "hf:teachers/own"}
    teacher = made(tmp_path / "teacher", "model", "finetune", taught, conversations=files)
    replay = made(
        tmp_path / "replay", "conversations", "synthesize", {}, model=teacher, seeds__documents=corpus
    )
    config = {"labelled": None, "forgetting": {"text": "hf:some/prose"}}
    first = made(tmp_path / "first", "model", "finetune", config, replay=replay, forgetting__text=files)
    learned = {"conversations": "hf:other/talks"}
    second = made(tmp_path / "second", "model", "finetune", learned, model=first, conversations=files)
    assert card_origin.data_sets(first) == ["some/texts"]
    assert card_origin.data_sets(second) == ["other/talks", "some/texts"]
    front = {"front": {"conversations": "hf:some/held-out"}}
    merged = made(
        tmp_path / "merged", "model", "merge", front,
        model=second, more__law__model=teacher, front__conversations=files,
    )  # fmt: skip
    assert card_origin.data_sets(merged) == ["other/talks", "some/texts", "teachers/own"]
    pulled = made(tmp_path / "pulled", "model", "pull", {"reference": "hf:some/model"}, files=files)
    assert card_origin.data_sets(pulled) == []
