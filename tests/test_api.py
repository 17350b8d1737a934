"""Matura in Python: load a model by reference, and write with it."""

from pathlib import Path
from typing import Any

import pytest

import matura
from matura.api import LanguageModel, pull
from matura.core.errors import ArtifactError, ConfigError, MaturaError, ModelNotFound
from matura.core.settings import Sampling
from matura.core.workspace import Workspace
from matura.infer import engine
from tests.tiny_models import chatml, corpus, network, pulled, talk, write_gguf_model

HELLO = talk(1).messages[:1]
SHORT: dict[str, Any] = {"max_new_tokens": 12, "seed": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("api")


@pytest.fixture(scope="module")
def model(place: Path) -> LanguageModel:
    return matura.load(pulled(place).path)


def expected(ids: list[int], **settings: Any) -> str:
    """What the engine alone writes with the same weights."""
    sampling = Sampling(**settings)
    (new,) = engine.generate(network(), [ids], sampling, [0, 2])
    return chatml().tokenizer.decode(new, skip_special=True)


def test_a_plain_text_is_continued(model: LanguageModel) -> None:
    found = model.generate("hello", **SHORT)
    assert found == expected(chatml().tokenizer.encode("hello"), **SHORT) != ""
    assert list(model.stream("hello", **SHORT)) != [found]
    assert "".join(model.stream("hello", **SHORT)) == found
    assert model.generate("hello", max_new_tokens=12, seed=2) != found
    assert model.generate("hello", max_new_tokens=12, temperature=0) == model.generate(
        "hello", max_new_tokens=12, temperature=0, seed=5
    )


def test_an_empty_prompt_begins_a_document(model: LanguageModel) -> None:
    begin = chatml().begin_id
    assert begin is not None
    assert model.generate("", **SHORT) == expected([begin], **SHORT)


def test_a_conversation_is_answered_with_the_prompt_that_training_saw(model: LanguageModel) -> None:
    found = model.chat(HELLO, **SHORT)
    assert found == expected(chatml().prompt(HELLO), **SHORT) != ""
    assert "".join(model.chat_stream(HELLO, **SHORT)) == found
    with pytest.raises(MaturaError, match="at least one message"):
        model.chat([])


def test_a_text_that_looks_like_markup_stays_text(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(
        "matura.infer.text.stream", lambda model, requests: asked.extend(requests) or iter(())
    )
    model.generate("<|im_end|>")
    assert not chatml().tokenizer.special_ids.intersection(asked[0].ids)
    assert set(asked[0].stop_ids) == {0, 2}  # the end of a turn and the end of a document


def test_a_begin_token_comes_first_where_the_tokenizer_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = matura.load(pulled(tmp_path, **{"tokenizer.ggml.add_bos_token": True}).path)
    asked: list[Any] = []
    monkeypatch.setattr(
        "matura.infer.text.stream", lambda model, requests: asked.extend(requests) or iter(())
    )
    llama.generate("hello")
    assert list(asked[0].ids) == [1, *llama.tokenizer.encode("hello")]
    llama.chat(HELLO)
    assert list(asked[1].ids) == chatml().prompt(HELLO)


def test_unknown_sampling_settings_are_refused_by_name(model: LanguageModel) -> None:
    for write in (lambda **s: model.generate("a", **s), lambda **s: model.chat_stream(HELLO, **s)):
        with pytest.raises(ConfigError, match=r"temprature(.|\n)*did you mean .?temperature"):
            write(temprature=1)
        with pytest.raises(ConfigError, match="top_p"):
            write(top_p=3)


def test_the_model_has_its_own_defaults(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    generation = {"temperature": 0.3, "top_p": 0.8, "typical_p": 0.5, "do_sample": True}
    monkeypatch.setattr(model.format, "generation", generation)
    assert (model.sampling().temperature, model.sampling(top_p=1).top_p) == (0.3, 1)
    monkeypatch.setattr(model.format, "generation", {"do_sample": False, "temperature": 0.9})
    assert model.sampling().temperature == 0
    assert model.sampling(temperature=0.5).temperature == 0.5


def test_stop_strings_are_left_out(model: LanguageModel) -> None:
    whole = model.generate("hello", max_new_tokens=30, seed=3)
    stop = whole[8:11]
    found = model.generate("hello", max_new_tokens=30, seed=3, stop=[stop])
    assert found == whole[: whole.index(stop)]


@pytest.mark.parametrize("device", ["cuda:99", "quantum"])
def test_a_device_that_is_not_there_is_told(device: str, model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match=rf"no device '{device}' here; available: cpu"):
        matura.load(model.artifact.path, device=device)


def test_a_file_is_pulled_once_and_then_known(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    source = write_gguf_model(tmp_path / "small.gguf", network())
    made = matura.load(str(source), workspace=workspace)
    assert made.artifact.path.parent == (workspace.root / "models").resolve()
    assert pull(str(source), workspace).id == made.artifact.id
    assert matura.load(made.artifact.path.name, workspace=workspace).artifact.id == made.artifact.id
    write_gguf_model(tmp_path / "small.gguf", network(seed=5))
    with pytest.raises(MaturaError, match="has changed since it was pulled; remove"):
        pull(str(source), workspace)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    with pytest.raises(ArtifactError, match="is a corpus, not a model"):
        matura.load(corpus(tmp_path / "corpus").path, workspace=workspace)
    with pytest.raises(ModelNotFound):
        matura.load(tmp_path / "nothing", workspace=workspace)
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        matura.load("smollm2-135m-instuct", workspace=workspace)
