"""Tiny random models as folders that `transformers` saved: one for each thing a pipeline does."""

from pathlib import Path
from typing import Any

import tokenizers
import torch
import transformers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from tests.tiny_models import CHATML, chatml

transformers.logging.disable_progress_bar()

WORDS = ["the", "a", "cat", "dog", "sat", "on", "mat", "hat", "in", "is", "was", "red", "blue", "big"]
WORDS += ["small", "house", "tree", "green", "runs", "sleeps", "and", "of"]
PIECES = ["##s", "##ed", "##ing", "s", "i", "n", "g", "e", "d", ".", ",", "!"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def bert_tokenizer() -> Any:
    """WordPiece with [CLS] and [SEP] around a text."""
    names = [*SPECIAL, *WORDS, *PIECES]
    backend = tokenizers.Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )


def bert(folder: Path, kind: str = "ForMaskedLM", **more: Any) -> Path:
    """A BERT with the head of this kind: ForMaskedLM, ForSequenceClassification or Model."""
    tokenizer = bert_tokenizer()
    settings = transformers.BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=40,
        **more,
    )
    return _saved(folder, getattr(transformers, f"Bert{kind}"), settings, tokenizer)


def llama(folder: Path) -> Path:
    """A Llama with a byte-level tokenizer and a chat template; its defaults ask for the likeliest token."""
    backend = tokenizers.Tokenizer.from_str(chatml().tokenizer.backend.to_str())
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=CHATML
    )
    settings = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=160,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
    )
    return _saved(folder, transformers.LlamaForCausalLM, settings, tokenizer)


def t5(folder: Path) -> Path:
    """A T5 with a Unigram tokenizer that ends texts with </s>."""
    names = [
        "<pad>",
        "</s>",
        "<unk>",
        *(f"▁{word}" for word in WORDS),
        "▁",
        *"abcdefghijklmnopqrstuvwxyzEG:.,",
    ]
    backend = tokenizers.Tokenizer(
        models.Unigram([(name, -float(i) / 4) for i, name in enumerate(names)], unk_id=2)
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    settings = transformers.T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=48,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        pad_token_id=0,
        eos_token_id=1,
    )
    return _saved(folder, transformers.T5ForConditionalGeneration, settings, tokenizer, seed=3, scale=0.4)


def _saved(
    folder: Path, kind: Any, settings: Any, tokenizer: Any, *, seed: int = 0, scale: float = 0.3
) -> Path:
    """The model with weights that make it say definite things."""
    torch.manual_seed(seed)
    model = kind(settings).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 1.0 if name == "shared.weight" else scale)
            elif "bias" in name:
                parameter.normal_(0, 0.1)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
