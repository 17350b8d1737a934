"""Tokenizers of the kinds that BERT, RoBERTa and T5 have."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import transformers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers

from matura.core.errors import FormatError, MaturaError
from matura.tokenizer import conversation
from matura.tokenizer.from_hf import from_hf, tokenizer_files

TEXT = "The animal did not cross the street because it was too tired; the street was wide. "
BERT = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["the", "street", "an", "##im", "##al", "was", "too", "tired", ".", "!", "##s", "cafe", "東"],
]
TEXTS = (
    "The STREETs was too tired!",
    "an animal.",
    "Café  東東 zebra\t!",
    "",
    "[MASK] the [SEP]",
    "the\u200b street",
)


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")


def vocabulary(folder: Path, tokens: list[str] = BERT, **config: Any) -> Path:
    write(folder, "vocab.txt", "\n".join(tokens) + "\n")
    if config:
        write(folder, "tokenizer_config.json", config)
    return folder


@pytest.mark.parametrize(
    "config",
    [{}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False}],
)
def test_bert_from_its_vocabulary_alone(config: dict[str, Any], tmp_path: Path) -> None:
    tokenizer = from_hf(vocabulary(tmp_path, **config))
    reference = transformers.BertTokenizer.from_pretrained(tmp_path, **config)
    for text in TEXTS[:4]:
        assert tokenizer.encode(text) == reference.encode(text, add_special_tokens=False)
        assert tokenizer.decode(tokenizer.encode(text)) == reference.decode(tokenizer.encode(text))
    for text in TEXTS:
        assert tokenizer.encode_markup(text) == reference.encode(text, add_special_tokens=False)
    assert [*tokenizer.prefix_ids, *tokenizer.encode("the"), *tokenizer.suffix_ids] == reference.encode("the")
    ids = (tokenizer.pad_id, tokenizer.unk_id, tokenizer.mask_id, tokenizer.bos_id, tokenizer.eos_id)
    assert ids == (0, 1, 4, None, None)
    assert tokenizer.special_ids == {0, 1, 2, 3, 4}
    assert tokenizer.vocab_size == len(BERT)


def test_what_looks_like_a_mask_in_a_text_is_text(tmp_path: Path) -> None:
    tokenizer = from_hf(vocabulary(tmp_path))
    assert 4 not in tokenizer.encode("[MASK] the")
    assert tokenizer.encode_markup("[MASK] the") == [4, BERT.index("the")]


def test_a_vocabulary_with_windows_lines_and_other_names(tmp_path: Path) -> None:
    tokens = [token.replace("[MASK]", "<m>") for token in BERT]
    write(tmp_path, "vocab.txt", "\r\n".join(tokens))
    write(tmp_path, "special_tokens_map.json", {"mask_token": {"content": "<m>"}})
    tokenizer = from_hf(tmp_path)
    assert (tokenizer.mask_id, tokenizer.encode("tired")) == (4, [BERT.index("tired")])


def test_a_vocabulary_that_is_not_berts(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"unk_token '\[UNK\]' is not in this vocabulary of 2 tokens"):
        from_hf(vocabulary(tmp_path, ["a", "b"]))
    (tmp_path / "vocab.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match=r"vocab\.txt: cannot be read"):
        from_hf(tmp_path)


def roberta(folder: Path) -> Path:
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    backend = tokenizers.Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator([TEXT], trainer)
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True)])
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    backend.save(str(folder / "tokenizer.json"))
    roles = {"bos": "<s>", "eos": "</s>", "pad": "<pad>", "unk": "<unk>", "cls": "<s>", "sep": "</s>"}
    config = {f"{role}_token": token for role, token in roles.items()}
    write(
        folder,
        "tokenizer_config.json",
        config | {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}},
    )
    return folder


def t5(folder: Path) -> Path:
    special = ["<pad>", "</s>", "<unk>", "<extra_id_0>"]
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=60, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([TEXT] * 4, trainer)
    backend.post_processor = processors.TemplateProcessing("$A </s>", "$A </s> $B </s>", [("</s>", 1)])
    backend.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write(folder, "tokenizer_config.json", config | {"additional_special_tokens": ["<extra_id_0>"]})
    return folder


def test_roberta(tmp_path: Path) -> None:
    tokenizer = from_hf(roberta(tmp_path))
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ((0,), (2,))
    assert tokenizer.mask_id == reference.mask_token_id
    assert tokenizer.mask_id in tokenizer.special_ids
    markup = "the <mask> was tired"
    assert tokenizer.encode_markup(markup) == reference.encode(markup, add_special_tokens=False)
    assert tokenizer.mask_id in tokenizer.encode_markup(markup)
    assert tokenizer.mask_id not in tokenizer.encode(markup)
    assert tokenizer.decode(tokenizer.encode(markup)) == markup
    assert tokenizer_files(tmp_path).stop_ids == (2,)


def test_t5(tmp_path: Path) -> None:
    tokenizer = from_hf(t5(tmp_path))
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert (tokenizer.prefix_ids, tokenizer.suffix_ids) == ((), (1,))
    ids = (tokenizer.pad_id, tokenizer.eos_id, tokenizer.unk_id, tokenizer.mask_id, tokenizer.bos_id)
    assert ids == (0, 1, 2, None, None)
    for text in ("the animal was tired", "because; it was wide."):
        assert [*tokenizer.encode(text), 1] == reference.encode(text)
        assert tokenizer.decode(tokenizer.encode(text)) == text
    assert tokenizer.id("<extra_id_0>") in tokenizer.encode_markup("the <extra_id_0> street")
    assert tokenizer.id("<extra_id_0>") not in tokenizer.encode("the <extra_id_0> street")


@pytest.mark.parametrize("kind", [vocabulary, roberta, t5])
def test_a_format_without_a_template(kind: Any, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "ours").mkdir()
    format = conversation.from_files(tokenizer_files(kind(tmp_path / "theirs")))
    format.save(tmp_path / "ours")
    again = conversation.load(tmp_path / "ours")
    assert again.template is None
    assert again.stop_ids == format.stop_ids
    one, other = format.tokenizer, again.tokenizer
    assert other.settings() == one.settings()
    assert (other.mask_id, other.prefix_ids, other.suffix_ids) == (
        one.mask_id,
        one.prefix_ids,
        one.suffix_ids,
    )
    assert other.encode_markup(TEXT) == one.encode_markup(TEXT)
    with pytest.raises(MaturaError, match="no chat template"):
        again.prompt([{"role": "user", "content": "hello"}])
