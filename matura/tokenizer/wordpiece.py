"""BERT's tokenizer out of its vocab.txt, for folders that have no tokenizer.json.

Words are cut at spaces and punctuation, then greedily into the longest pieces of the vocabulary (arXiv:1609.08144,
section 4.1, as BERT uses it).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, processors

from matura.core.errors import FormatError

FILE = "vocab.txt"
SPECIAL = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""What BERT calls its special tokens where tokenizer_config.json says nothing else."""


def from_vocabulary(path: Path, text: str, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """The tokenizer of a vocab.txt (`text`): one token per line, whose number is its id.

    `config` is tokenizer_config.json: names of special tokens, `do_lower_case` (true without it), `strip_accents` and
    `tokenize_chinese_chars`. Raises FormatError when a special token is not in the vocabulary.
    """
    lines = text.replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(lines)}
    names = {role: _name(config, role) for role in SPECIAL}
    for role, name in names.items():
        if name not in vocabulary:
            raise FormatError(
                f"{path}: the {role} {name!r} is not in this vocabulary of {len(lines)} tokens, "
                "so it is not one of BERT's. Save the model with a 'fast' tokenizer (tokenizer.json)."
            )
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=names["unk_token"]))
    backend.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=config.get("tokenize_chinese_chars", True),
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case", True),
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix="##")
    backend.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in names.values()])
    cls, sep = names["cls_token"], names["sep_token"]
    backend.post_processor = processors.BertProcessing((sep, vocabulary[sep]), (cls, vocabulary[cls]))
    return backend


def _name(config: Mapping[str, Any], role: str) -> str:
    value = config.get(role) or SPECIAL[role]
    return str(value.get("content") if isinstance(value, dict) else value)
