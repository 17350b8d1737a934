"""A tiny encoder that fills masks, and its tokenizer."""

import tokenizers

from matura.model import config as c
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.model.tiny import build, gpt_stack
from tests.tiny_hf import bert_tokenizer


def word_pieces() -> Tokenizer:
    """Word pieces with [CLS] and [SEP] around a text, and a mask."""
    roles = Roles(unk="[UNK]", pad="[PAD]", mask="[MASK]")
    return Tokenizer(tokenizers.Tokenizer.from_str(bert_tokenizer().backend_tokenizer.to_str()), roles)


def network(vocabulary: int) -> Transformer:
    """Random weights, a context of 24 tokens."""
    head = c.LanguageHead(bias=True, transform=c.LayerNorm())
    return build(c.ModelConfig(vocabulary=vocabulary, context=24, encoder=gpt_stack(causal=False), head=head))
