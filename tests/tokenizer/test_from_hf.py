import json
from pathlib import Path
from typing import Any

import pytest

from matura.core.errors import FormatError
from matura.tokenizer.from_gguf import from_gguf
from matura.tokenizer.from_hf import from_hf, tokenizer_files
from tests.gguf_files import byte_level_vocabulary

CONFIG: dict[str, Any] = {
    "bos_token": "<|im_start|>",
    "eos_token": {"content": "<|im_end|>"},
    "unk_token": None,
}


def write(folder: Path, name: str, values: Any) -> None:
    (folder / name).write_text(values if isinstance(values, str) else json.dumps(values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    from_gguf(byte_level_vocabulary()).save(tmp_path)
    write(tmp_path, "tokenizer_config.json", CONFIG)
    return tmp_path


def test_reads_everything_a_folder_says(folder: Path) -> None:
    write(folder, "special_tokens_map.json", {"pad_token": "<|endoftext|>", "eos_token": "<think>"})
    write(folder, "chat_template.jinja", "{{ messages }}")
    generation = {"eos_token_id": [2, 0], "temperature": 0.6, "top_k": 50, "do_sample": True, "top_p": None}
    write(folder, "generation_config.json", generation | {"transformers_version": "5", "min_p": True})
    files = tokenizer_files(folder)
    reference = from_gguf(byte_level_vocabulary())
    assert files.tokenizer.encode("hello <|im_end|>") == reference.encode("hello <|im_end|>")
    assert (files.tokenizer.bos_id, files.tokenizer.eos_id, files.tokenizer.pad_id) == (1, 2, 0)
    assert files.tokenizer.unk_id is None
    assert files.chat_template == "{{ messages }}"
    assert files.stop_ids == (2, 0)
    assert files.generation == {"do_sample": True, "temperature": 0.6, "top_k": 50}


def test_generation_defaults_are_kept_by_our_names_and_none_that_changes_answers_is_lost(
    folder: Path,
) -> None:
    generation = {
        "typical_p": 0.9,
        "no_repeat_ngram_size": 3,
        "num_beams": 4,
        "length_penalty": 1.0,
        "early_stopping": "never",
        "stop_strings": ["END"],
        "forced_bos_token_id": 0,
        "min_length": 0,
        "suppress_tokens": [],
        "bad_words_ids": None,
        "pad_token_id": 0,
        "use_cache": True,
        "cache_implementation": "hybrid",
    }
    write(folder, "generation_config.json", generation)
    assert tokenizer_files(folder).generation == {
        "typical_p": 0.9,
        "no_repeat_ngram": 3,
        "beams": 4,
        "early_stopping": "never",
        "stop": ["END"],
        "forced_bos_token_id": 0,
    }


def test_stop_tokens_fall_back_to_the_model_then_to_the_tokenizer(folder: Path) -> None:
    assert tokenizer_files(folder).stop_ids == (2,)
    write(folder, "config.json", {"eos_token_id": 0})
    assert tokenizer_files(folder).stop_ids == (0,)


def test_templates_by_name_and_inline(folder: Path) -> None:
    assert tokenizer_files(folder).chat_template is None
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    for template, expected in (("inline", "inline"), (named, "d"), (named[:1], None)):
        write(folder, "tokenizer_config.json", CONFIG | {"chat_template": template})
        assert tokenizer_files(folder).chat_template == expected


def test_tokens_that_only_the_config_calls_special(folder: Path) -> None:
    assert from_hf(folder).id("<think>") in from_hf(folder).encode("<think>")
    write(folder, "tokenizer_config.json", CONFIG | {"additional_special_tokens": ["<think>"]})
    tokenizer = from_hf(folder)
    assert tokenizer.id("<think>") in tokenizer.special_ids
    assert tokenizer.id("<think>") not in tokenizer.encode("<think>")
    added = {"268": {"content": "<think>", "special": True}}
    write(folder, "tokenizer_config.json", CONFIG | {"added_tokens_decoder": added})
    assert from_hf(folder).id("<think>") in from_hf(folder).special_ids


def test_a_begin_token_that_only_the_config_asks_for(folder: Path) -> None:
    assert from_hf(folder).prefix_ids == ()
    write(folder, "tokenizer_config.json", CONFIG | {"add_bos_token": True})
    assert from_hf(folder).prefix_ids == (1,)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("tokenizer.json", "{}", "not a tokenizer that can be read"),
        ("tokenizer_config.json", "{", "not valid JSON"),
        ("tokenizer_config.json", {"eos_token": 3}, "'eos_token' must be a text, not 3"),
        ("tokenizer_config.json", {"eos_token": "</s>"}, "eos token '</s>' is not in its vocabulary"),
        ("tokenizer_config.json", {"chat_template": 3}, "'chat_template' must be a text"),
        ("generation_config.json", {"eos_token_id": "2"}, "'eos_token_id' must be one or several token ids"),
        ("chat_template.jinja", "x" * (2 << 20), "not a chat template"),
    ],
)
def test_broken_files_are_named(folder: Path, name: str, values: Any, message: str) -> None:
    write(folder, name, values)
    with pytest.raises(FormatError, match=message):
        tokenizer_files(folder)


def test_a_folder_without_a_tokenizer_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"no tokenizer\.json"):
        from_hf(tmp_path)
