"""A conversation format as the files of a Hugging Face folder: what `from_hf` reads, in the other direction.

Written are tokenizer.json, tokenizer_config.json (with the chat template), special_tokens_map.json and
generation_config.json, as `AutoTokenizer` and `generate` of transformers read them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matura.core.files import write_json
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_hf import OUR_NAMES
from matura.tokenizer.tokenizer import Tokenizer

# What makes `generate` of transformers draw a token instead of taking the likeliest one.
_DRAWS = ("temperature", "top_k", "top_p", "min_p", "typical_p")


def write(
    folder: str | Path,
    format: Format,
    *,
    context: int,
    inputs: Sequence[str] = ("input_ids", "attention_mask"),
    start_id: int | None = None,
) -> None:
    """Write tokenizer, chat template, special tokens, stop tokens and sampling defaults into `folder`.

    `context` is the model's longest sequence, `inputs` are what the model takes, `start_id` is the token that opens
    what a decoder with encoder writes.
    """
    folder = Path(folder)
    format.tokenizer.save(folder)
    special = special_tokens(format.tokenizer)
    settings: dict[str, Any] = {
        # Any other class would rebuild the tokenizer by rules of its own.
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "model_input_names": list(inputs),
        "clean_up_tokenization_spaces": False,
        "added_tokens_decoder": _added_tokens(format.tokenizer),
        **special,
    }
    if format.template is not None:
        settings["chat_template"] = format.template
    write_json(folder / "tokenizer_config.json", settings)
    write_json(folder / "special_tokens_map.json", special)
    write_json(folder / "generation_config.json", generation_config(format, start_id))


def special_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """Tokens that play a part, as `bos_token`, `eos_token`, ...; `cls_token` and `sep_token` are what surrounds a
    text on both sides."""
    found = {f"{role}_token": token for role, token in tokenizer.settings().items() if token is not None}
    before, after = tokenizer.prefix_ids, tokenizer.suffix_ids
    if len(before) == len(after) == 1:
        names = {"cls_token": tokenizer.token(before[0]), "sep_token": tokenizer.token(after[0])}
        found |= {role: name for role, name in names.items() if name is not None}
    return found


def token_ids(format: Format) -> dict[str, int | list[int] | None]:
    """`bos_token_id`, `pad_token_id` and `eos_token_id` (the stop tokens). What is missing is None: left out, another
    project's default for the family would take its place."""
    stops = list(format.stop_ids)
    return {
        "bos_token_id": format.tokenizer.bos_id,
        "eos_token_id": stops[0] if len(stops) == 1 else stops or None,
        "pad_token_id": format.tokenizer.pad_id,
    }


def generation_config(format: Format, start_id: int | None = None) -> dict[str, Any]:
    """Sampling defaults and stop tokens by the names of transformers.

    Temperature 0 becomes `do_sample: false`; other settings of the draw without `do_sample` set it, because there
    they would be ignored.
    """
    theirs = {ours: name for name, ours in OUR_NAMES.items()}
    found = {theirs.get(name, name): value for name, value in format.generation.items()}
    if found.get("temperature") == 0:
        found = {name: value for name, value in found.items() if name not in _DRAWS} | {"do_sample": False}
    elif any(name in found for name in _DRAWS):
        found.setdefault("do_sample", True)
    found |= {name: value for name, value in token_ids(format).items() if value is not None}
    return found if start_id is None else found | {"decoder_start_token_id": start_id}


def _added_tokens(tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """Every added token with how it is found in a text (a mask may take the space before it)."""
    added = sorted(tokenizer.backend.get_added_tokens_decoder().items())
    names = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {str(id): {name: getattr(token, name) for name in names} for id, token in added}
