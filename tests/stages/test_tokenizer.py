"""Training a tokenizer: the files a model needs, the same bits every time, honest figures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact, wheels
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.raw import raw_input
from matura.core.records import Document, write_documents
from matura.stages import tokenizer
from matura.tokenizer import conversation
from matura.tokenizer.conversation import Format
from tests.made_texts import text
from tests.stages.pictures import MARK
from tests.tiny_models import run

ODD = "Unseen: ½ <|im_end|> [MASK] </s> \U0001f393\u200b tab\there\n\n  two  spaces <0x41>"
QUICK: dict[str, Any] = {"vocabulary": 400, "compare": []}
KINDS = [("bpe", "decoder"), ("unigram", "decoder"), ("wordpiece", "encoder"), ("bpe", "encoder-decoder")]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    place = tmp_path_factory.mktemp("corpus") / "corpus"
    draft = artifact.begin(place, kind="corpus", stage="curate", version=1, config={}, inputs={})
    rows = [
        Document(f"d{n}", text(n), f"d{n}.md", {"origin": "ab"[n % 2], "language": ["en", "de"][n % 2]})
        for n in range(120)
    ]
    write_documents(draft.path / "train.parquet", rows[8:])
    write_documents(draft.path / "heldout.parquet", rows[:8])
    return draft.commit({})


def load(made: Artifact) -> Format:
    return conversation.load(made.path)


@pytest.mark.parametrize(("kind", "model"), KINDS)
def test_the_files_of_a_model(corpus: Artifact, tmp_path: Path, kind: str, model: str) -> None:
    made = run(tokenizer, tmp_path / "out", corpus=corpus, kind=kind, model=model, **QUICK)
    assert set(made.record["files"]) == {
        "tokenizer.json",
        "conversation.json",
        "generation.json",
        "report.json",
        "report.html",
    }
    read = load(made).tokenizer
    assert read.vocab_size <= 400
    assert read.special_ids == set(range(len(read.special_ids)))
    ids = read.encode(ODD)
    assert not read.special_ids - {read.unk_id} & set(ids)
    if kind == "wordpiece":
        assert read.unk_id in ids
        assert read.decode(read.encode("the model learns")) == "the model learns"
    else:
        assert read.decode(ids).replace("½", "1⁄2") == ODD.replace("½", "1⁄2")
        assert read.unk_id not in ids
    digits = read.encode("31415")
    assert len(digits) >= 5


def test_a_decoder_writes_conversations(corpus: Artifact, tmp_path: Path) -> None:
    format = load(run(tokenizer, tmp_path / "out", corpus=corpus, **QUICK))
    messages = [{"role": "user", "content": "the model?"}, {"role": "assistant", "content": "learns"}]
    rendered = format.render(messages)
    trained = [id for id, own in zip(rendered.ids, rendered.mask, strict=True) if own]
    assert format.tokenizer.decode(trained) == "learns<|im_end|>"
    assert trained[-1] in format.stop_ids
    assert format.begin_id in format.stop_ids
    assert format.tokenizer.decode(rendered.ids).count("<|im_start|>") == 2


def test_an_encoder_and_an_encoder_decoder_have_their_tokens(corpus: Artifact, tmp_path: Path) -> None:
    encoder = load(run(tokenizer, tmp_path / "e", corpus=corpus, kind="wordpiece", model="encoder", **QUICK))
    read = encoder.tokenizer
    assert encoder.template is None
    assert [read.token(id) for id in read("the model")][:: len(read("the model")) - 1] == ["[CLS]", "[SEP]"]
    assert read.mask_id == read.id("[MASK]")
    assert (read.pad_id, read.unk_id) == (0, 1)
    both = load(run(tokenizer, tmp_path / "ed", corpus=corpus, model="encoder-decoder", sentinels=3, **QUICK))
    read = both.tokenizer
    assert read("the")[-1] == read.eos_id == read.id("</s>")
    assert [read.token(id) for id in range(6)] == [
        "<pad>",
        "</s>",
        "<unk>",
        "<extra_id_0>",
        "<extra_id_1>",
        "<extra_id_2>",
    ]


@pytest.mark.parametrize("kind", ["bpe", "wordpiece", "unigram"])
def test_another_process_trains_the_same_bits(tmp_path: Path, kind: str) -> None:
    """The library hashes with random keys that are new in every process."""
    code = f"""
import sys, hashlib
from matura.tokenizer import training
from tests.made_texts import text
texts = lambda: (text(n) for n in range(120))
plan = training.Plan({kind!r}, 400, ("<unk>",), "<unk>", normalization="nfkc")
print(hashlib.sha256(training.train(texts, plan).to_str().encode()).hexdigest())
"""
    runs = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    found = {one.communicate()[0] for one in runs}
    assert len(found) == 1
    assert len(found.pop().strip()) == 64


def test_rerun_gives_the_same_artifact(corpus: Artifact, tmp_path: Path) -> None:
    one, two = (run(tokenizer, tmp_path / name, corpus=corpus, **QUICK) for name in "ab")
    assert one.id == two.id
    assert one.summary == two.summary


@pytest.mark.usefixtures("drawn")
def test_the_figures_are_those_of_the_texts(corpus: Artifact, tmp_path: Path) -> None:
    made = run(tokenizer, tmp_path / "out", corpus=corpus, **QUICK)
    told = json.loads(made.file("report.json").read_text())
    read = load(made).tokenizer
    texts = [text(n) for n in range(8)]
    tokens, size = (sum(map(len, each)) for each in (map(read.encode, texts), map(str.encode, texts)))
    mine = told["tokenizers"]["this one"]
    assert mine["tokens"] == tokens
    assert mine["bytes_per_token"] == pytest.approx(size / tokens)
    assert mine["tokens_per_word"] == pytest.approx(tokens / sum(len(one.split()) for one in texts))
    assert mine["exact"] == 1.0
    assert mine["sources"]["a"]["bytes"] + mine["sources"]["b"]["bytes"] == size
    assert set(mine["languages"]) == {"de", "en"}
    used = {id for n in range(120) for id in read.encode(text(n))}
    assert told["unused"]["tokens"] == read.vocab_size - len(read.special_ids) - len(used)
    assert told["longest"][0]["bytes"] == max(
        len(read.token_bytes(id)) for id in range(read.vocab_size) if id not in read.special_ids
    )
    page = made.file("report.html").read_text()
    assert MARK in page
    assert "Tokens that are not used" in page
    assert "<script" not in page


def test_a_sample_of_much_text(corpus: Artifact, tmp_path: Path) -> None:
    whole = run(tokenizer, tmp_path / "whole", corpus=corpus, **QUICK)
    most = whole.summary["text_bytes"] // 2
    parts = [
        run(tokenizer, tmp_path / name, corpus=corpus, max_bytes=most, seed=seed, **QUICK)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert whole.summary["text_documents"] == 112
    assert 30 < parts[0].summary["text_documents"] < 82
    assert parts[0].summary == parts[1].summary != parts[2].summary


def test_comparison_with_others(corpus: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> Path:
        raise MaturaError("no network")

    monkeypatch.setattr(wheels, "download", offline)
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    first = run(tokenizer, tmp_path / "first", corpus=corpus, **QUICK)
    path = str(first.file("tokenizer.json"))
    names = ["gpt2", "smollm2", path, str(first.path), "nowhere/tokenizer.json"]
    made = run(tokenizer, tmp_path / "out", corpus=corpus, vocabulary=300, compare=names)
    told = json.loads(made.file("report.json").read_text())
    assert list(told["tokenizers"]) == ["this one", path, str(first.path)]
    assert told["tokenizers"][path]["bytes_per_token"] == pytest.approx(first.summary["bytes_per_token"])
    assert told["tokenizers"][path]["bytes_per_token"] > made.summary["bytes_per_token"]
    assert told["absent"]["gpt2"] == "no network"
    assert "matura pull smollm2-135m-instruct" in told["absent"]["smollm2"]
    assert "nowhere" in made.file("report.html").read_text()


def test_a_template_of_ones_own(corpus: Artifact, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(
        "{% for m in messages %}<t>{{ m.role }}:{{ m.content }}</t>{% endfor %}"
        "{% if add_generation_prompt %}<t>assistant:{% endif %}"
    )

    def make(name: str, **chat: Any) -> Artifact:
        chat = {"format": "own", "template": str(template), **chat}
        values = {"corpus": str(corpus.path), **QUICK, "special_tokens": ["<t>", "</t>"], "chat": chat}
        config = parse(tokenizer.Config, values, "test")
        inputs = {"corpus": corpus, "chat.template": raw_input(template)}
        draft = artifact.begin(
            tmp_path / name, kind="tokenizer", stage="tokenizer", version=1, config=config, inputs=inputs
        )
        return tokenizer.run(config, inputs, draft)

    format = load(make("out", stop=["</t>"]))
    assert (
        format.tokenizer.decode(format.prompt([{"role": "user", "content": "hi"}]))
        == "<t>user:hi</t><t>assistant:"
    )
    with pytest.raises(MaturaError, match="'</s>' is no special token"):
        make("bad", stop=["</s>"])
    template.write_text("{% for m in messages %}{{ m.content }}{% endfor %}")
    with pytest.raises(MaturaError, match="the conversation format does not work"):
        make("none", stop=["</t>"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "unigram", "pattern": "qwen2"}, "is for kind=bpe"),
        ({"kind": "unigram", "min_frequency": 5}, "for bpe and wordpiece"),
        ({"sentinels": 8}, "for model=encoder-decoder, not decoder"),
        ({"chat": {"stop": ["x"]}}, "chat.format=own needs"),
        ({"corpora": {"a": {"path": "b"}}}, "and not both"),
    ],
)
def test_settings_that_do_not_fit(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(tokenizer.Config, {"corpus": "c", **settings}, "test")


def test_what_cannot_be_trained_says_why(corpus: Artifact, tmp_path: Path) -> None:
    def refused(**settings: Any) -> str:
        with pytest.raises((MaturaError, FormatError)) as error:
            run(tokenizer, tmp_path / "out", **{"corpus": corpus, **QUICK, **settings})
        return str(error.value)

    assert "at least 260" in refused(vocabulary=200)
    assert "gpt-2" in refused(pattern="gtp-2")
    assert "no regular expression" in refused(pattern="([a-z")
    assert "each must be there once" in refused(special_tokens=["<a>", "<a>"])
    draft = artifact.begin(tmp_path / "empty", kind="corpus", stage="curate", version=1, config={}, inputs={})
    for split in ("train", "heldout"):
        write_documents(draft.path / f"{split}.parquet", [Document("d", " \n", "d.md")])
    assert "no text to train" in refused(corpus=draft.commit({}))
