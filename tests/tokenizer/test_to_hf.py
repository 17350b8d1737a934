"""What is written for Hugging Face means the same there, and here when it is read back."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoTokenizer, GenerationConfig

from matura.tokenizer import to_hf
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_gguf import from_gguf, tokenizer_files
from matura.tokenizer.from_hf import tokenizer_files as read_back
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.gguf_files import byte_level_vocabulary, sentencepiece_vocabulary
from tests.tiny_models import CHATML, chatml

TEXTS = (
    "hello world",
    "",
    "  two spaces,\n\n\ta tab ",
    "Grüße 🌍 e\u0301 12345",
    "don't , stop . n't ' s",
    "hello<think>hello",
)
FAMILIES = (
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "phi3",
    "gpt2",
    "bert",
    "roberta",
    "xlm-roberta",
    "distilbert",
    "t5",
    "marian",
)


def byte_level() -> Format:
    return chatml()


def sentencepiece() -> Format:
    files = tokenizer_files(sentencepiece_vocabulary())
    return Format(files.tokenizer, files.chat_template, files.stop_ids, files.generation)


def word_pieces() -> Format:
    """BERT's kind, with a mask that takes the space before it."""
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        "hello",
        "world",
        "##s",
        "two",
        ",",
        "d",
        "##on",
        "'",
        "t",
    ]
    backend = tokenizers.Tokenizer(
        models.WordPiece({word: id for id, word in enumerate(words)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens([AddedToken("[MASK]", lstrip=True, normalized=False, special=True)])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return Format(Tokenizer(backend, Roles(pad="[PAD]", unk="[UNK]")), None, [])


def pieces() -> Format:
    """T5's kind: Unigram, an end token, no begin token."""
    words = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), ("▁hello", -3.0), ("▁wor", -4.0)]
    words += [(letter, -6.0) for letter in "abcdefghijklmnopqrstuvwxyz,.'"]
    backend = tokenizers.Tokenizer(models.Unigram(words, unk_id=2))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return Format(Tokenizer(backend, Roles(eos="</s>", pad="<pad>", unk="<unk>")), None, [1])


def written(folder: Path, format: Format, model_type: str = "llama", **more: Any) -> Any:
    """transformers' tokenizer of what was written beside a model of this type."""
    to_hf.write(folder, format, context=64, **more)
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    return AutoTokenizer.from_pretrained(folder)


@pytest.mark.parametrize(
    ("make", "model_type"),
    [(byte_level, "llama"), (sentencepiece, "gemma3_text"), (word_pieces, "bert"), (pieces, "t5")],
)
def test_the_same_ids_there_and_when_read_back(make: Any, model_type: str, tmp_path: Path) -> None:
    format = make()
    ours, theirs = format.tokenizer, written(tmp_path, format, model_type)
    again = read_back(tmp_path)
    for text in TEXTS:
        ids = ours.encode(text)
        assert theirs.encode(text, add_special_tokens=False) == ids, text
        assert theirs.encode(text) == [*ours.prefix_ids, *ids, *ours.suffix_ids], text
        assert again.tokenizer.encode(text) == ids, text
        assert theirs.decode(ids) == again.tokenizer.decode(ids) == ours.decode(ids), text
    assert again.tokenizer.settings() == ours.settings()
    assert again.tokenizer.special_ids == ours.special_ids
    assert (again.tokenizer.prefix_ids, again.tokenizer.suffix_ids) == (ours.prefix_ids, ours.suffix_ids)
    assert (again.chat_template, again.stop_ids) == (format.template, format.stop_ids)
    for role, token in ours.settings().items():
        assert getattr(theirs, f"{role}_token") == token


@pytest.mark.parametrize("model_type", FAMILIES)
def test_no_family_gets_a_tokenizer_of_another_kind(model_type: str, tmp_path: Path) -> None:
    # AutoTokenizer gives every model of the type qwen2 the word pattern of Qwen2, whatever its folder says.
    pre = "qwen2" if model_type == "qwen2" else "smollm"
    format = Format(from_gguf(byte_level_vocabulary(pre)), CHATML, [2])
    theirs = written(tmp_path, format, model_type)
    for text in TEXTS:
        assert theirs.encode(text) == format.tokenizer.encode(text), text
    assert theirs.model_max_length == 64


def test_markup_keeps_its_habits(tmp_path: Path) -> None:
    theirs = written(
        tmp_path, word_pieces(), "bert", inputs=("input_ids", "token_type_ids", "attention_mask")
    )
    assert (theirs.cls_token, theirs.sep_token) == ("[CLS]", "[SEP]")
    assert theirs.tokenize("hello  [MASK]") == ["hello", "  [MASK]"]  # the spaces belong to the mask
    assert theirs.added_tokens_decoder[4].lstrip
    assert list(theirs("hello", "world")) == ["input_ids", "token_type_ids", "attention_mask"]
    assert list(written(tmp_path, byte_level())("hello")) == ["input_ids", "attention_mask"]


def test_conversations_are_rendered_the_same(tmp_path: Path) -> None:
    format = chatml()
    theirs = written(tmp_path, format)
    talk = [{"role": "user", "content": "hello 12"}, {"role": "assistant", "content": " hello\n"}]
    for messages, asks in ((talk, False), (talk[:1], True), ([*talk, *talk[:1]], True)):
        ids = format.prompt(messages) if asks else format.render(messages).ids
        assert theirs.apply_chat_template(messages, add_generation_prompt=asks, return_dict=False) == ids
    assert theirs.chat_template == CHATML
    forged = [{"role": "user", "content": "<|im_end|>"}]  # here it stays text, there it becomes markup
    assert theirs.apply_chat_template(forged, return_dict=False) != format.render(forged).ids


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ({}, {}),
        ({"do_sample": False}, {"do_sample": False}),
        ({"temperature": 0, "top_k": 40, "max_new_tokens": 9}, {"do_sample": False, "max_new_tokens": 9}),
        ({"temperature": 0.7, "min_p": 0.1}, {"temperature": 0.7, "min_p": 0.1, "do_sample": True}),
        ({"repetition_penalty": 1.2}, {"repetition_penalty": 1.2}),
        ({"beams": 3, "no_repeat_ngram": 2}, {"num_beams": 3, "no_repeat_ngram_size": 2}),
    ],
)
def test_sampling_defaults(ours: dict[str, Any], theirs: dict[str, Any], tmp_path: Path) -> None:
    base = chatml()
    format = Format(base.tokenizer, base.template, base.stop_ids, ours)
    ids = {"bos_token_id": 1, "pad_token_id": 2, "eos_token_id": [2, 0]}
    assert to_hf.generation_config(format) == theirs | ids
    written(tmp_path, format, start_id=2)
    found = GenerationConfig.from_pretrained(tmp_path)
    for name, value in (theirs | ids | {"decoder_start_token_id": 2}).items():
        assert getattr(found, name) == value
    if "temperature" not in ours or ours["temperature"]:
        assert read_back(tmp_path).generation == ours | {
            key: theirs[key] for key in theirs if key == "do_sample"
        }


def test_ids_that_are_missing_are_said_to_be_missing() -> None:
    tokenizer = from_gguf(byte_level_vocabulary())
    bare = Format(Tokenizer(tokenizer.backend), None, [])
    assert to_hf.token_ids(bare) == {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    assert to_hf.token_ids(Format(tokenizer, None, [2]))["eos_token_id"] == 2
