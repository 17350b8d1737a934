"""Matura in Python: load a model by reference, and write with it."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import matura
from matura.api import LanguageModel, pull
from matura.core.artifact import begin
from matura.core.errors import ArtifactError, ConfigError, MaturaError, ModelNotFound
from matura.core.files import write_json
from matura.core.peft_settings import LoraConfig, PrefixConfig, Tuning
from matura.core.settings import Beams, Sampling
from matura.core.workspace import Workspace
from matura.evaluate import likelihood
from matura.infer import beam, engine
from matura.model import store
from matura.model.peft import peft_files
from tests import tiny_hf
from tests.tiny_models import adapted, chatml, corpus, network, pulled, talk, write_gguf_model

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


def test_ids_are_continued_by_ids(model: LanguageModel) -> None:
    ids = model.tokenizer("hello")
    assert ids == model.tokenizer.encode("hello")
    found = model.generate(ids, **SHORT)
    assert model.tokenizer.decode(found, skip_special=True) == model.generate("hello", **SHORT)
    assert found == engine.generate(network(), [ids], Sampling(**SHORT), [0, 2])[0]
    assert model.generate(torch.tensor(ids), **SHORT) == found
    for wrong in ([ids], ["hello"], [{"role": "user", "content": "a"}]):
        with pytest.raises(
            ConfigError, match=r"a text or a flat list of token ids.*conversations go to `chat`"
        ):
            model.generate(wrong, **SHORT)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.generate([999999]), "^the prompt names token 999999; the model's tokens are 0 to"),
        (lambda m: m.generate([5, -1]), "^the prompt names token -1"),
        (lambda m: m.generate([True]), r"a flat list of token ids, not \[True\]"),
        (lambda m: m.generate(None), "a text or a flat list of token ids, not None"),
        (lambda m: m.generate(b"hi"), "a text or a flat list of token ids, not b'hi'"),
        (lambda m: m.generate([1], beams=2, n=1, batch=0), "batch"),
        (lambda m: m.generate([]), "^the prompt is empty"),
        (lambda m: m.score(None), "text: expected a text, got None"),
        (lambda m: m.score("a", 3), "continuation: expected a text, got 3"),
        (lambda m: m.embed([3]), r"texts\[0\]: expected a text, got 3"),
        (lambda m: m.embed(None), "texts: expected a text or a list of texts, got None"),
        (lambda m: m.embed("a", batch=0), "batch: expected a whole number of at least 1, got 0"),
        (lambda m: m.embed("a", max_tokens=True), "max_tokens: expected a whole number"),
        (lambda m: m.classify(["a", None]), r"texts\[1\]: expected a text, got None"),
        (lambda m: m.fill(3), "text: expected a text, got 3"),
        (lambda m: m.fill("a [MASK]", top_k="2"), "top_k: expected a whole number of at least 1, got '2'"),
        (lambda m: m.answers(["a"], batch=0), "batch: expected a whole number of at least 1, got 0"),
        (lambda m: m.answers(["a"], batch=1.5), "batch: expected a whole number"),
        (lambda m: m.answers("a"), "prompts: expected a list of prompts"),
        (lambda m: m.answers([5, 6]), "a text or a flat list of token ids, not 5"),
        (lambda m: m.answers(["a", [999999]]), "^request 1: the prompt names token 999999"),
        (lambda m: m.chat("hi"), "a conversation is a list of messages.*not 'hi'; .*`generate`"),
        (lambda m: m.chat(None), "a conversation is a list of messages"),
        (lambda m: m.chat({"role": "user", "content": "hi"}), "a conversation is a list of messages"),
    ],
)
def test_what_is_no_prompt_or_number_is_told(model: LanguageModel, call: Any, message: str) -> None:
    with pytest.raises(MaturaError, match=message):
        call(model)


def test_what_belongs_to_the_other_way_of_generating_is_told(model: LanguageModel) -> None:
    for name in ("length_penalty", "early_stopping"):
        with pytest.raises(
            ConfigError, match=rf"{name} is for beam search only: set beams above 1 too \(--beams"
        ):
            model.generate("hello", **{name: True})
    for setting in ({"stop": "x"}, {"top_p": 0.9}, {"seed": 1}):
        with pytest.raises(ConfigError, match=f"beam search: {next(iter(setting))} is not known there"):
            model.generate("hello", beams=2, **setting)
    for call in (lambda: model.chat(HELLO, beams=2), lambda: model.answers(["a"], beams=2)):
        with pytest.raises(
            ConfigError, match="beams: `chat`, `stream` and `answers` do not search; use `generate`"
        ):
            call()
    with pytest.raises(ConfigError, match=r"length_penalt: (.|\n)*did you mean .?length_penalty"):
        model.generate("hello", beams=2, length_penalt=1)


def test_many_answers_at_once(model: LanguageModel) -> None:
    found = model.answers(["hello", model.tokenizer("a b")], n=2, logprobs=0, batch=3, **SHORT)
    assert [answer.text for answer in found[::2]] == [
        model.generate(text, **SHORT) for text in ("hello", "a b")
    ]
    assert all(len(answer.ids) == len(answer.logprobs) for answer in found)
    assert found[0].ids != found[1].ids
    for prompt in ("hello", [5, 6]):
        with pytest.raises(ConfigError, match="generate gives one answer; several come from `answers`"):
            model.generate(prompt, n=2)  # type: ignore[call-overload]


def test_beams_find_the_likeliest_answer(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = model.tokenizer("hello")
    best = beam.search(network(), ids, Beams(beams=3, max_new_tokens=6), [0, 2])[0]
    assert model.generate(ids, beams=3, max_new_tokens=6) == list(best.ids)
    said = model.tokenizer.decode(best.ids, skip_special=True)
    assert model.generate("hello", beams=3, max_new_tokens=6) == said
    assert len(model.beam_search("hello", beams=3, n=2, max_new_tokens=6)) == 2
    with pytest.raises(ConfigError, match="beam search: temperature"):
        model.generate("hello", beams=3, temperature=1)
    monkeypatch.setattr(model.format, "generation", {"beams": 3})
    assert model.generate("hello", max_new_tokens=6) == said
    assert model.generate("hello", max_new_tokens=6, temperature=0) == expected(
        ids, max_new_tokens=6, temperature=0
    )


def test_a_decoder_embeds_and_scores_and_refuses_the_rest(model: LanguageModel) -> None:
    with torch.inference_mode():
        hidden = network().decode(torch.tensor([model.tokenizer("hello")]))[0]
    torch.testing.assert_close(
        model.embed("hello", pool="last", normalize=False), hidden[-1], rtol=1e-5, atol=1e-5
    )
    both = model.score("hello", " more"), model.score("hello more")
    assert both[0].tokens < both[1].tokens
    assert both[0].logprob == pytest.approx(
        likelihood.continuation(network(), chatml(), "hello", " more").logprob
    )
    assert both[1].perplexity > 1
    with pytest.raises(MaturaError, match="no encoder to read a text with; use `generate`"):
        model.translate("hello")
    with pytest.raises(MaturaError, match="fills no masks; use `generate`"):
        model.fill("a [MASK]")
    with pytest.raises(MaturaError, match="no labels"):
        model.classify("a")


def test_an_encoder_fills_embeds_and_classifies(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    masked = matura.load(tiny_hf.bert(tmp_path / "masked"), workspace=workspace)
    first, second = masked.fill("the [MASK] sat on <mask> [MASK]", top_k=3)
    assert [len(first), len(second)] == [3, 3]
    assert first[0].probability > first[1].probability > 0
    assert f"the {first[0].token}" in first[0].text.replace("##", "")
    with pytest.raises(MaturaError, match="no decoder and cannot write; use it to embed, fill or classify"):
        masked.generate("the")
    labels = {0: "bad", 1: "good"}
    judge = matura.load(
        tiny_hf.bert(tmp_path / "judge", "ForSequenceClassification", id2label=labels), workspace=workspace
    )
    (best, p), (worst, q) = judge.classify("the cat")
    assert {best, worst} == {"bad", "good"}
    assert p > q
    assert p + q == pytest.approx(1)
    assert judge.classify(["a dog", "the cat"])[1][0] == (best, pytest.approx(p))
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 4 tokens and were cut there"):
        cut, short = judge.classify(["the cat sat on the mat", "the cat"], max_tokens=4)
    assert cut == short == [(best, pytest.approx(p)), (worst, pytest.approx(q))]
    with pytest.warns(UserWarning, match="longer than 40 tokens"):
        judge.classify("the cat " * 40)


def test_an_encoder_decoder_reads_and_answers(tmp_path: Path) -> None:
    t5 = matura.load(tiny_hf.t5(tmp_path / "t5"), workspace=Workspace(tmp_path / "workspace"))
    source = t5.tokenizer("the cat")
    assert source[-1] == t5.tokenizer.eos_id
    request = engine.Request((), Sampling(temperature=0, max_new_tokens=6), [1], source)
    (new,) = [[token.id for token in engine.stream(t5.model, [request]) if token.finish != "stop"]]
    assert t5.generate(source, max_new_tokens=6) == new
    said = t5.tokenizer.decode(new, skip_special=True)
    assert t5.translate("the cat", max_new_tokens=6) == t5.generate("the cat", max_new_tokens=6) == said
    assert "".join(t5.stream("the cat", max_new_tokens=6)) == said
    assert t5.score("the cat", "a dog").logprob < 0
    assert t5.embed("the cat").shape == (32,)


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
    assert model.generate("hello", max_new_tokens=30, seed=3, stop=stop) == found


@pytest.mark.parametrize(
    ("device", "name"), [("cuda:99", "cuda:99"), ("quantum", "quantum"), (99, "cuda:99")]
)
def test_a_device_that_is_not_there_is_told(device: str | int, name: str, model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match=rf"no device '{name}' here; available: cpu"):
        matura.load(model.artifact.path, device=device)
    with pytest.raises(ConfigError, match=rf"no device '{name}' here"):
        matura.load("a-model-that-would-be-pulled", device=device)


def test_what_loading_cannot_do_is_told(model: LanguageModel) -> None:
    assert matura.load(model.artifact.path, device=-1).device == "cpu"
    with pytest.raises(ConfigError, match="load_in_4bit: models are held in float32"):
        matura.load(model.artifact.path, load_in_4bit=True)


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


def test_a_model_that_an_older_version_pulled_is_pulled_again(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    source = write_gguf_model(tmp_path / "small.gguf", network())
    made = pull(str(source), workspace)
    record = made.path / "artifact.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "stage_version": 0}))
    (made.path / "model.json").write_text("{}")
    again = matura.load(made.path.name, workspace=workspace)
    assert again.artifact.id == made.id
    assert again.generate("hello", max_new_tokens=1)


def test_a_misspelt_stage_and_an_export_lead_to_the_model(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    folder = workspace.runs / "life"
    folder.mkdir(parents=True)
    made = pulled(folder)
    written = begin(
        workspace.runs / "life" / "assistant-0", kind="export", stage="export", version=2, config={},
        inputs={"model": made},
    ).commit({})  # fmt: skip
    stages = {"aligned": {"dir": made.path.name}, "assistant": {"dir": written.path.name}}
    write_json(workspace.runs / "life" / "run.json", {"schema": 1, "stages": stages})
    with pytest.raises(ModelNotFound, match="did you mean life/aligned"):
        matura.load("life/algned", workspace=workspace)
    with pytest.raises(
        ArtifactError, match=f"is an export, not a model; it was written from the model life/{made.path.name}"
    ):
        matura.load("life/assistant", workspace=workspace)


def test_what_is_no_model_is_told(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "workspace")
    with pytest.raises(ArtifactError, match="is a corpus, not a model"):
        matura.load(corpus(tmp_path / "corpus").path, workspace=workspace)
    with pytest.raises(ModelNotFound):
        matura.load(tmp_path / "nothing", workspace=workspace)
    with pytest.raises(ModelNotFound, match="smollm2-135m-instruct"):
        matura.load("smollm2-135m-instuct", workspace=workspace)


def test_adapters_are_chosen_at_each_call(tmp_path: Path) -> None:
    """From artifacts and from a folder of PEFT, beside each other, and none is the model itself."""
    parent = pulled(tmp_path)
    lora = adapted(tmp_path / "lora", parent, Tuning(lora=LoraConfig(rank=2)))
    prefix = adapted(
        tmp_path / "prefix", parent, Tuning(method="prefix", prefix=PrefixConfig(tokens=3)), seed=2
    )
    peft_files.write(tmp_path / "peft", store.read_adapter(lora.path), network().config)
    places = {"a": lora.path, "b": prefix.path, "c": tmp_path / "peft"}
    model = matura.load(parent.path, adapters=places)
    names = [None, "a", "b", "c", "a"]
    found = [one.text for one in model.answers(["hello"] * 5, adapters=names, **SHORT)]
    assert found[1] == found[3] == found[4]
    assert len(set(found)) == 3
    alone = [matura.load(one).generate("hello", **SHORT) for one in (parent.path, lora.path, prefix.path)]
    assert found[:3] == alone
    assert [model.generate("hello", adapter=name, **SHORT) for name in names] == found
    assert model.chat(HELLO, adapter="a", **SHORT) == matura.load(lora.path).chat(HELLO, **SHORT)
    one, other = (
        model.beam_search("hello", adapter=name, beams=2, max_new_tokens=6)[0].text for name in ("a", None)
    )
    assert one == matura.load(lora.path).beam_search("hello", beams=2, max_new_tokens=6)[0].text != other


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    parent, other = pulled(tmp_path), pulled(tmp_path, name="other", model=network(seed=4))
    lora = adapted(tmp_path / "lora", other, Tuning())
    with pytest.raises(ConfigError, match=r"adapter 'a' was trained on .*other, not on .*tiny"):
        matura.load(parent.path, adapters={"a": lora.path})
    with pytest.raises(ConfigError, match=r"other is a whole model; load it by itself"):
        matura.load(parent.path, adapters={"a": other.path})
    model = matura.load(other.path, adapters={"sql": lora.path})
    with pytest.raises(ConfigError, match="there is no adapter 'sqk'; did you mean 'sql'"):
        model.generate("hello", adapter="sqk")
    with pytest.raises(ConfigError, match="adapters: 1 names for 2 prompts"):
        model.answers(["a", "b"], adapters=["sql"])
    with pytest.raises(ConfigError, match="no adapter 'a'; this model was loaded without any"):
        matura.load(parent.path).generate("hello", adapter="a")
