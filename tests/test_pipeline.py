"""`matura.pipeline`: calls and results equal those of transformers, and what it does not know is refused by name."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import matura
from matura.api import LanguageModel, Pipeline, pipeline
from matura.core.errors import ConfigError, MaturaError
from matura.core.workspace import Workspace
from tests import tiny_hf

CHAT = [{"role": "user", "content": "say hello"}]
TEXTS = [
    "The cat sat on the mat.",
    "a big dog",
    "the small red house is in the green tree and the cat sleeps",
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    transformers.logging.set_verbosity_error()
    folder = tmp_path_factory.mktemp("models")
    tiny_hf.bert(folder / "masked")
    tiny_hf.bert(folder / "encoder", "Model")
    tiny_hf.bert(folder / "labels", "ForSequenceClassification", id2label={0: "bad", 1: "fair", 2: "good"})
    tiny_hf.bert(folder / "single", "ForSequenceClassification", num_labels=1)
    tiny_hf.llama(folder / "llama")
    tiny_hf.t5(folder / "t5")
    yield folder
    transformers.logging.set_verbosity_warning()


Both = Callable[[str, str], tuple[Pipeline, Any]]


@pytest.fixture(scope="module")
def both(folders: Path) -> Both:
    """Our pipeline and theirs, for a task and a model."""
    made: dict[tuple[str, str], tuple[Pipeline, Any]] = {}

    def pair(task: str, name: str) -> tuple[Pipeline, Any]:
        if (task, name) not in made:
            ours = pipeline(task, model=folders / name, workspace=Workspace(folders / "workspace"))
            made[task, name] = ours, transformers.pipeline(task, model=str(folders / name), device="cpu")
        return made[task, name]

    return pair


@pytest.fixture(scope="module")
def model(folders: Path) -> Callable[[str], LanguageModel]:
    return lambda name: matura.load(folders / name, workspace=Workspace(folders / "workspace"))


def same(ours: Any, theirs: Any) -> None:
    """Equal shapes, names and texts; numbers to 1e-5."""
    if isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-5, rel=1e-5)
    elif isinstance(theirs, list):
        assert isinstance(ours, list)
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name in theirs:
            same(ours[name], theirs[name])
    else:
        assert ours == theirs


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_new_tokens": 12},
        {"max_length": 20},
        {"max_new_tokens": 8, "return_full_text": False},
        {"max_new_tokens": 8, "repetition_penalty": 1.5},
        {"max_new_tokens": 8, "no_repeat_ngram_size": 2, "prefix": "so "},
        {"max_new_tokens": 6, "num_beams": 3, "num_return_sequences": 2, "length_penalty": 0.3},
        {"max_new_tokens": 6, "num_beams": 2, "early_stopping": True},
        {"max_new_tokens": 12, "eos_token_id": 40},
        {"max_new_tokens": 6, "bad_words_ids": [[80], [12]]},
    ],
    ids=str,
)
def test_text_generation(both: Both, arguments: dict[str, Any]) -> None:
    ours, theirs = both("text-generation", "llama")
    for asked in ("hello", ["hello", "a", "some longer text"], CHAT, [CHAT, CHAT * 2]):
        chat = not isinstance(asked, str) and not isinstance(asked[0], str)
        if chat and ("prefix" in arguments or "max_length" in arguments):
            continue  # refused in one case, and longer than that in the other
        same(ours(asked, do_sample=False, **arguments), theirs(asked, do_sample=False, **arguments))


def test_stop_strings_end_a_text_and_stay_in_it(both: Both) -> None:
    ours, theirs = both("text-generation", "llama")
    whole = ours("hello", do_sample=False, max_new_tokens=20, return_full_text=False)[0]["generated_text"]
    stop = "!c"
    for name in ("stop_sequence", "stop_strings"):
        (found,) = ours("hello", do_sample=False, max_new_tokens=20, return_full_text=False, **{name: stop})
        assert found["generated_text"] == whole[: whole.index(stop) + len(stop)]
    same(
        ours("hello", do_sample=False, max_new_tokens=20, stop_sequence=stop),
        theirs("hello", do_sample=False, max_new_tokens=20, stop_sequence=stop),
    )


def test_draws_follow_the_seed_and_not_the_batch(both: Both) -> None:
    ours, _ = both("text-generation", "llama")
    settings: dict[str, Any] = {
        "do_sample": True,
        "temperature": 0.9,
        "top_k": 30,
        "top_p": 0.95,
        "max_new_tokens": 8,
    }
    one = ours(["hello", "a"], seed=3, num_return_sequences=2, batch_size=1, **settings)
    assert ours(["hello", "a"], seed=3, num_return_sequences=2, batch_size=4, **settings) == one
    assert [len(answers) for answers in one] == [2, 2]
    assert one[0][0] != one[0][1]
    assert ours("hello", seed=3, **settings) == one[0][:1]
    assert ours("hello", seed=4, **settings) != one[0][:1]
    assert ours("hello", seed=3, **{**settings, "do_sample": None}) == one[0][:1]


@pytest.mark.parametrize("text", ["the [MASK] sat", "a [MASK] and a [MASK]s", "The [MASK] and [MASK] ."])
def test_fill_mask(both: Both, text: str) -> None:
    ours, theirs = both("fill-mask", "masked")
    for asked in (text, [text], [text, "the cat [MASK] on the big red mat"]):
        for arguments in (
            {},
            {"top_k": 2},
            {"targets": ["cat", "dog", "##s"], "top_k": 9},
            {"targets": "mat"},
        ):
            same(ours(asked, **arguments), theirs(asked, **arguments))


def test_targets_that_are_no_token_are_refused(both: Both) -> None:
    ours, _ = both("fill-mask", "masked")
    with pytest.raises(ConfigError, match="targets: 'giraffe' is not one token"):
        ours("the [MASK]", targets=["cat", "giraffe"])


@pytest.mark.parametrize("name", ["labels", "single"])
def test_text_classification(both: Both, name: str) -> None:
    ours, theirs = both("text-classification", name)
    for asked in (TEXTS[0], TEXTS[:1], TEXTS):
        for arguments in ({}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "none"}):
            same(ours(asked, **arguments), theirs(asked, **arguments))
    long = "the cat " * 40
    same(ours(long, truncation=True), theirs(long, truncation=True, max_length=40))
    with pytest.raises(
        MaturaError, match=r"^the text has 82 tokens .* is 40; shorten it, or set truncation=True"
    ):
        ours(long)


def test_sentiment_analysis_is_its_other_name(both: Both, model: Callable[[str], LanguageModel]) -> None:
    ours, _ = both("text-classification", "labels")
    assert pipeline("sentiment-analysis", model=ours.model)(TEXTS) == ours(TEXTS)


def test_feature_extraction(both: Both) -> None:
    ours, theirs = both("feature-extraction", "encoder")
    for asked in (TEXTS[0], TEXTS):
        same(ours(asked, batch_size=2), theirs(asked))
    tensor = ours(TEXTS[0], return_tensors=True)
    torch.testing.assert_close(tensor, theirs(TEXTS[0], return_tensors=True), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_new_tokens": 8},
        {"max_length": 9},
        {"max_new_tokens": 6, "num_beams": 3},
        {"max_new_tokens": 6, "num_beams": 4, "num_return_sequences": 2, "length_penalty": 2.0},
    ],
    ids=str,
)
def test_text_to_text(
    folders: Path, model: Callable[[str], LanguageModel], arguments: dict[str, Any]
) -> None:
    """Their pipeline for this is gone; `generate` and the tokenizer say what it would answer."""
    theirs = transformers.T5ForConditionalGeneration.from_pretrained(folders / "t5")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders / "t5")
    ours = pipeline("text2text-generation", model=model("t5"))

    def expected(text: str) -> list[str]:
        found = theirs.generate(**tokenizer(text, return_tensors="pt"), do_sample=False, **arguments)
        return tokenizer.batch_decode(found, skip_special_tokens=True)

    assert ours(TEXTS[0], **arguments) == [{"generated_text": text} for text in expected(TEXTS[0])]
    listed = [[{"generated_text": text} for text in expected(one)] for one in TEXTS]
    assert ours(TEXTS, **arguments) == (
        listed if "num_return_sequences" in arguments else [one for (one,) in listed]
    )
    translator = pipeline("translation_en_to_de", model=ours.model)
    assert translator("a cat", **arguments) == [
        {"translation_text": text} for text in expected("translate English to German: a cat")
    ]
    assert pipeline("translation", model=ours.model)("a cat", **arguments)[0].keys() == {"translation_text"}
    assert pipeline("summarization", model=ours.model)("a cat", **arguments) == [
        {"summary_text": text} for text in expected("summarize: a cat")
    ]


def test_what_is_given_first_holds_for_every_call(both: Both) -> None:
    ours, _ = both("text-generation", "llama")
    short = pipeline("text-generation", model=ours.model, max_new_tokens=3, do_sample=False)
    assert short("hello") == ours("hello", max_new_tokens=3, do_sample=False)
    assert short("hello", max_new_tokens=5) == ours("hello", max_new_tokens=5, do_sample=False)
    assert short([]) == []
    assert ours("", max_new_tokens=3, do_sample=False)[0]["generated_text"]


def test_the_models_own_beams_are_used(
    model: Callable[[str], LanguageModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    t5 = model("t5")
    ours = pipeline("text2text-generation", model=t5, max_new_tokens=5)
    wanted, greedy = ours("the cat", num_beams=4), ours("the cat")
    assert wanted != greedy
    monkeypatch.setitem(t5.format.generation, "beams", 4)
    assert ours("the cat") == wanted
    assert ours("the cat", num_beams=1) == greedy
    assert ours("the cat", temperature=0) == greedy


def test_a_long_prompt_is_cut_only_when_asked(both: Both) -> None:
    ours, _ = both("text-generation", "llama")
    long = "abcdefgh" * 40
    with pytest.raises(MaturaError, match="320 tokens and the model's context is 160"):
        ours(long)
    (found,) = ours(long, truncation=True, do_sample=False, max_new_tokens=10, return_full_text=False)
    assert [found] == ours(long[:150], do_sample=False, max_new_tokens=10, return_full_text=False)


def wrong(
    both: Both, task: str, name: str, message: str, asked: Any = "the [MASK]", **arguments: Any
) -> None:
    ours, _ = both(task, name)
    with pytest.raises(ConfigError, match=message):
        ours(asked, **arguments)


def test_unknown_arguments_are_refused_with_the_nearest_name(both: Both) -> None:
    wrong(both, "text-generation", "llama", "max_new_token: .*did you mean 'max_new_tokens'", max_new_token=3)
    wrong(both, "text-generation", "llama", "temperature", temperature="hot")
    wrong(both, "fill-mask", "masked", "topk: .*did you mean 'top_k'", topk=3)
    wrong(
        both, "text-classification", "labels", "functon_to_apply.*function_to_apply", functon_to_apply="none"
    )
    wrong(both, "feature-extraction", "encoder", "return_tensor: .*return_tensors", return_tensor=True)
    wrong(
        both,
        "text-generation",
        "llama",
        "pad_token_id is not taken: padding is always masked",
        pad_token_id=0,
    )


def test_arguments_that_contradict_each_other_are_refused(both: Both) -> None:
    cases: list[tuple[str, dict[str, Any]]] = [
        ("temperature with do_sample=False", {"do_sample": False, "temperature": 0.5}),
        ("max_length and max_new_tokens both", {"max_length": 9, "max_new_tokens": 3}),
        ("temperature=0 with do_sample=True", {"do_sample": True, "temperature": 0}),
        ("num_return_sequences=2 without draws", {"do_sample": False, "num_return_sequences": 2}),
        ("num_return_sequences=3 without draws", {"temperature": 0, "num_return_sequences": 3}),
        ("do_sample=True with num_beams", {"do_sample": True, "num_beams": 3}),
        ("beam search does not know top_k", {"top_k": 3, "num_beams": 3}),
        ("length_penalty is for beam search only", {"length_penalty": 0.5}),
        ("n=3 answers need at least as many beams", {"num_return_sequences": 3, "num_beams": 2}),
    ]
    for message, arguments in cases:
        wrong(both, "text-generation", "llama", message, **arguments)
    wrong(both, "text-generation", "llama", "prefix is for texts", CHAT, prefix="so")
    ending = [*CHAT, {"role": "assistant", "content": "hel"}]
    wrong(both, "text-generation", "llama", "ends with an assistant's message", ending)
    wrong(both, "fill-mask", "masked", "expected a text or a list of texts, got 3", ["the [MASK]", 3])
    wrong(both, "fill-mask", "masked", "expected a text or a list, got 3", 3)
    ours, _ = both("text-generation", "llama")
    with pytest.raises(MaturaError, match="tokens and max_length is 1, which leaves no room"):
        ours("hello", max_length=1)


def test_what_cannot_be_a_pipeline_is_told(folders: Path, model: Callable[[str], LanguageModel]) -> None:
    with pytest.raises(ConfigError, match="no task 'text-generator'; did you mean 'text-generation'"):
        pipeline("text-generator", model="gpt2")
    with pytest.raises(ConfigError, match="which model"):
        pipeline("text-generation")
    with pytest.raises(ConfigError, match="no device 'cuda:99' here; available: cpu"):
        pipeline("text-generation", model="gpt2", device=99)
    for name in ("load_in_4bit", "trust_remote_code", "torch_dtype"):
        with pytest.raises(ConfigError, match=f"{name} is not taken"):
            pipeline("text-generation", model="gpt2", **{name: True})
    with pytest.raises(ConfigError, match=r"max_lenght: .*did you mean 'max_length'"):
        pipeline("text-generation", model="gpt2", max_lenght=3)
    with pytest.raises(ConfigError, match="has an encoder; its task is text2text-generation"):
        pipeline("text-generation", model=model("t5"))
    for task in ("translation", "summarization", "translation_en_to_de", "text2text-generation"):
        with pytest.raises(
            ConfigError, match=f"^{task}: this model has no encoder; its task is text-generation"
        ):
            pipeline(task, model=model("llama"))
    with pytest.raises(ConfigError, match="only an encoder; its task is fill-mask"):
        pipeline("text-generation", model=model("masked"))
    with pytest.raises(ConfigError, match="no scores over its vocabulary; its task is text-classification"):
        pipeline("text-generation", model=model("labels"))
    with pytest.raises(ConfigError, match="T5 knows de, en, fr, ro"):
        pipeline("translation_en_to_cs", model=model("t5"))
    with pytest.raises(MaturaError, match="no classification head"):
        pipeline("text-classification", model=model("masked"))
    with pytest.raises(MaturaError, match="no scores over its vocabulary"):
        pipeline("fill-mask", model=model("encoder"))


def test_a_loaded_model_stays_on_its_device(model: Callable[[str], LanguageModel]) -> None:
    llama = model("llama")
    for device in (None, "cpu", -1):
        assert pipeline("text-generation", model=llama, device=device).model is llama
    llama.device = "cuda:0"
    with pytest.raises(
        ConfigError, match="device='cpu': this model is on 'cuda:0' already; leave device out"
    ):
        pipeline("text-generation", model=llama, device="cpu")
    for device in ("meta", "cpu:0", "gpu"):
        with pytest.raises(ConfigError, match=f"no device '{device}' here; available: cpu"):
            pipeline("text-generation", model="gpt2", device=device)


def test_the_two_line_program(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_WORKSPACE", str(folders / "workspace"))
    generator = matura.pipeline("text-generation", model=str(folders / "llama"), device=-1)
    assert generator("hello", max_new_tokens=2)[0]["generated_text"].startswith("hello")
