"""Models without a chat template come in whole: an encoder and a translator."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from matura.core.raw import raw_input
from matura.model import store
from matura.stages import pull
from matura.tokenizer import conversation
from tests import tiny_models
from tests.tokenizer import test_encoder_tokenizers as tokenizers

BERT = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2}


@pytest.mark.parametrize(
    ("write", "model"),
    [
        (
            tokenizers.vocabulary,
            transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=len(tokenizers.BERT), **BERT)),
        ),
        (tokenizers.t5, transformers.T5ForConditionalGeneration(transformers.T5Config(vocab_size=64, **T5))),
    ],
)
def test_pulled(write: Any, model: Any, tmp_path: Path) -> None:
    source = write(tmp_path)
    model.save_pretrained(source)
    made = tiny_models.run(pull, tmp_path / "made", reference="tiny", files=raw_input(source))
    format, ours = conversation.load(made.path), store.load(made.path)
    assert format.template is None
    tokenizer = format.tokenizer
    ids = [*tokenizer.prefix_ids, *tokenizer.encode("the street was"), *tokenizer.suffix_ids]
    x_BS = torch.tensor([ids])
    with torch.no_grad():
        if ours.decoder is None:
            found, expected = ours.logits(ours.encode(x_BS)), model.eval()(x_BS).logits
        else:
            start = torch.tensor([[ours.config.start_id]])
            found = ours.logits(ours.decode(start, memory_BSD=ours.encode(x_BS)))
            expected = model.eval()(x_BS, decoder_input_ids=start).logits
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
