"""The tokenizer and the chat settings of a model's folder in the Hugging Face layout.

Read are tokenizer.json (or the vocab.txt of BERT), tokenizer_config.json, special_tokens_map.json, chat_template.jinja,
generation_config.json and config.json: only their data, never code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, processors

from matura.core.errors import FormatError
from matura.core.files import read_json
from matura.tokenizer import wordpiece
from matura.tokenizer.tokenizer import FILE, MAX_FILE_BYTES, Roles, Tokenizer, TokenizerFiles, parse

MAX_TEMPLATE_BYTES = 1 << 20
_ROLES = ("bos", "eos", "pad", "unk", "mask")
_GENERATION: dict[str, type | tuple[type, ...]] = {
    "do_sample": bool,
    "temperature": (int, float),
    "top_k": int,
    "top_p": (int, float),
    "min_p": (int, float),
    "typical_p": (int, float),
    "repetition_penalty": (int, float),
    "max_new_tokens": int,
    "no_repeat_ngram_size": int,
    "stop_strings": list,
    "num_beams": int,
    "length_penalty": (int, float),
    "early_stopping": (bool, str),
}
OUR_NAMES = {"no_repeat_ngram_size": "no_repeat_ngram", "stop_strings": "stop", "num_beams": "beams"}
_NEUTRAL: dict[str, Any] = {
    "no_repeat_ngram_size": 0,
    "num_beams": 1,
    "length_penalty": 1.0,
    "early_stopping": False,
    "min_length": 0,
    "min_new_tokens": 0,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "top_h": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "bad_words_ids": None,
    "sequence_bias": None,
    "force_words_ids": None,
    "constraints": None,
    "forced_bos_token_id": None,
    "forced_eos_token_id": None,
    "exponential_decay_length_penalty": None,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
    "guidance_scale": None,
    "penalty_alpha": None,
    "watermarking_config": None,
}
"""Settings that would change answers, with the value at which they do nothing; all are kept where they do something,
those that nobody here follows by their own names."""


def from_hf(folder: str | Path) -> Tokenizer:
    """The tokenizer of a Hugging Face folder. Raises FormatError when a file is missing or broken."""
    return tokenizer_files(folder).tokenizer


def tokenizer_files(folder: str | Path) -> TokenizerFiles:
    """Tokenizer, chat template, stop tokens and generation defaults of a Hugging Face folder.

    Raises FormatError when a file is missing or broken.
    """
    folder = Path(folder)
    config = _json(folder / "tokenizer_config.json")
    special = _json(folder / "special_tokens_map.json")
    if _only_vocabulary(folder):
        config = wordpiece.SPECIAL | special | config
    roles = _roles(config, special, folder)
    backend = _backend(folder, config)
    _mark_special(backend, config)
    _begin(backend, config, roles)
    tokenizer = Tokenizer(backend, roles)
    generation = _json(folder / "generation_config.json")
    stops = _stop_ids(generation, folder) or _stop_ids(_json(folder / "config.json"), folder)
    if not stops and tokenizer.eos_id is not None:
        stops = (tokenizer.eos_id,)
    return TokenizerFiles(tokenizer, _template(folder, config), stops, _defaults(generation))


def _defaults(generation: Mapping[str, Any]) -> dict[str, Any]:
    """How the model's makers generate: settings by our names, and others that would change answers."""
    found: dict[str, Any] = {}
    for name, value in generation.items():
        kind = _GENERATION.get(name)
        if value is None or (name in _NEUTRAL and value in (_NEUTRAL[name], [], {})):
            continue
        if kind is None:
            if name in _NEUTRAL:
                found[name] = value
        elif isinstance(value, kind) and (type(value) is not bool or name in ("do_sample", "early_stopping")):
            found[OUR_NAMES.get(name, name)] = value
    return found


def _backend(folder: Path, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    if _only_vocabulary(folder):
        path = folder / wordpiece.FILE
        return wordpiece.from_vocabulary(path, _text(path), config)
    path = folder / FILE
    if not path.is_file():
        raise FormatError(
            f"{folder}: no {FILE}. A model that has only vocab.json or tokenizer.model must be saved once "
            "with a 'fast' tokenizer."
        )
    return parse(_text(path), path)


def _only_vocabulary(folder: Path) -> bool:
    """Whether the tokenizer is to be built from BERT's vocab.txt."""
    return not (folder / FILE).is_file() and (folder / wordpiece.FILE).is_file()


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise FormatError(f"{path}: larger than {MAX_FILE_BYTES} bytes.")
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FormatError(f"{path}: cannot be read: {error}.") from error


def _roles(config: Mapping[str, Any], special_map: Mapping[str, Any], folder: Path) -> Roles:
    """Begin, end, padding, unknown and mask tokens; tokenizer_config.json goes before special_tokens_map.json."""
    found: dict[str, str | None] = {}
    for role in _ROLES:
        key = f"{role}_token"
        value = config[key] if key in config else special_map.get(key)
        if isinstance(value, dict):
            value = value.get("content")
        if value is not None and not isinstance(value, str):
            raise FormatError(f"{folder / 'tokenizer_config.json'}: {key!r} must be a text, not {value!r}.")
        found[role] = value
    return Roles(**found)


def _mark_special(backend: tokenizers.Tokenizer, config: Mapping[str, Any]) -> None:
    """Tokens that only tokenizer_config.json calls special become special."""
    added = config.get("added_tokens_decoder")
    values = list(added.values()) if isinstance(added, dict) else []
    names = [value.get("content") for value in values if isinstance(value, dict) and value.get("special")]
    for key in ("additional_special_tokens", "extra_special_tokens"):
        extra = config.get(key)
        extra = list(extra.values()) if isinstance(extra, dict) else extra
        for value in extra if isinstance(extra, list) else []:
            names.append(value.get("content") if isinstance(value, dict) else value)
    known = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
    backend.add_special_tokens(
        [
            AddedToken(name, normalized=False, special=True)
            for name in names
            if isinstance(name, str) and name not in known and backend.token_to_id(name) is not None
        ]
    )


def _begin(backend: tokenizers.Tokenizer, config: Mapping[str, Any], roles: Roles) -> None:
    """tokenizer_config.json may ask for a begin token that tokenizer.json does not add by itself."""
    id = None if roles.bos is None else backend.token_to_id(roles.bos)
    if config.get("add_bos_token") is not True or id is None or backend.num_special_tokens_to_add(False):
        return
    backend.post_processor = processors.TemplateProcessing(
        single=[f"{roles.bos}:0", "$A:0"], special_tokens=[(roles.bos, id)]
    )


def _stop_ids(values: Mapping[str, Any], folder: Path) -> tuple[int, ...]:
    ids = values.get("eos_token_id")
    ids = [] if ids is None else ids if isinstance(ids, list) else [ids]
    if not all(type(id) is int and id >= 0 for id in ids):
        raise FormatError(f"{folder}: 'eos_token_id' must be one or several token ids, not {ids!r}.")
    return tuple(dict.fromkeys(ids))


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        if path.stat().st_size > MAX_TEMPLATE_BYTES:
            raise FormatError(f"{path}: larger than {MAX_TEMPLATE_BYTES} bytes: not a chat template.")
        try:
            return path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FormatError(f"{path}: cannot be read: {error}.") from error
    template = config.get("chat_template")
    if isinstance(template, list):  # several templates by name
        named = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = named.get("default")
    if template is not None and not isinstance(template, str):
        raise FormatError(f"{folder / 'tokenizer_config.json'}: 'chat_template' must be a text.")
    return template


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        return read_json(path, limit=64 << 20, what="a part of a Hugging Face model")
    except OSError as error:
        raise FormatError(f"{path}: cannot be read: {error.strerror or error}.") from error
