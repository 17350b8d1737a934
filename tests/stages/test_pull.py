"""A model from outside becomes a complete artifact, or is refused with what is wrong."""

import json
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from matura.core import artifact
from matura.core.errors import FormatError
from matura.core.raw import raw_input
from matura.model import store
from matura.stages import pull
from matura.tokenizer import conversation
from tests.tiny_models import CHATML, VOCABULARY, chatml, network, pulled, run, talk, write_gguf_model


def test_a_gguf_file_becomes_a_model_that_needs_nothing_else(tmp_path: Path) -> None:
    made = pulled(tmp_path, name="tiny")
    (tmp_path / "tiny.gguf").unlink()
    artifact.verify(made)
    assert made.kind == "model"
    assert made.summary["reference"] == "tiny"
    assert made.summary["source_quantization"] is None
    assert made.summary["parameters"] == sum(p.numel() for p in network().parameters())
    model, expected = store.load(made.path), network()
    for name, tensor in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    format = conversation.load(made.path)
    assert format.template == CHATML
    assert format.render(talk(1).messages) == chatml().render(talk(1).messages)


def test_the_same_file_gives_the_same_model(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    assert pulled(tmp_path).id == pulled(tmp_path / "other").id
    assert pulled(tmp_path, model=network(seed=1), name="second").id != pulled(tmp_path, name="third").id


def test_a_hugging_face_folder_becomes_the_same_kind_of_model(tmp_path: Path) -> None:
    folder = tmp_path / "hf"
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    chatml().tokenizer.save(folder)
    names = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    made = run(pull, tmp_path / "made", reference="hf", files=raw_input(folder))
    assert store.load(made.path).config.context == 64
    format = conversation.load(made.path)
    assert format.prompt(talk(1).messages) == chatml().prompt(talk(1).messages)


def test_what_is_broken_makes_no_artifact(tmp_path: Path) -> None:
    whole = write_gguf_model(tmp_path / "m.gguf", network()).read_bytes()
    for name, data in {"empty": b"", "text": b"hello" * 20, "cut": whole[:-500], "head": whole[:300]}.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(data)
        with pytest.raises(FormatError, match=path.name):
            run(pull, tmp_path / name, reference=name, files=raw_input(path))
        assert not (tmp_path / name / "artifact.json").exists()
