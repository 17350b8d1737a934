"""The same model in transformers: our weights under its names, our tokenizer.json, our chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from matura import api
from matura.core.artifact import Artifact
from matura.core.errors import ModelNotFound
from matura.core.workspace import Workspace


def find_model(reference: str) -> Artifact:
    """The model in the workspace, pulled when it is not there."""
    place = Workspace()
    try:
        return place.find(reference)
    except ModelNotFound:
        with place.lock(wait=True):
            return api.pull(reference, place)


def tokenizer(made: Artifact) -> Any:
    """transformers' tokenizer around our tokenizer.json, with the template and the roles of the model.

    (Its own conversion from GGUF loses the rule that splits digits, so it is not used.)
    """
    from transformers import PreTrainedTokenizerFast

    from matura.tokenizer import conversation

    format = conversation.load(made.path)
    roles = format.tokenizer.roles
    named = {"bos_token": roles.bos, "eos_token": roles.eos, "pad_token": roles.pad, "unk_token": roles.unk}
    return PreTrainedTokenizerFast(
        tokenizer_file=str(made.file("tokenizer.json")), chat_template=format.template, **named
    )


def model(made: Artifact) -> Any:
    """transformers' LlamaForCausalLM with our weights, in evaluation mode."""
    from transformers import LlamaForCausalLM

    from matura.model import store
    from matura.model.families.llama import LLAMA

    ours = store.load(made.path)
    theirs = LlamaForCausalLM(_config(made)).eval()
    state = ours.state_dict()
    names = {entry.theirs: entry.ours[0] for entry in LLAMA.entries(ours.config)}
    weights = {name: state[mine] for name, mine in names.items()}
    missing, unexpected = theirs.load_state_dict(weights, strict=False)
    if unexpected or set(missing) - {"lm_head.weight"}:
        raise ValueError(f"the names do not match: missing {missing}, unexpected {unexpected}")
    theirs.tie_weights()
    return theirs


def _config(made: Artifact) -> Any:
    from transformers import LlamaConfig

    from matura.model import config as c
    from matura.model import store

    ours = store.read_config(made.path)
    stack = ours.decoder
    assert stack is not None
    assert isinstance(stack.mlp, c.SwiGLU)
    assert isinstance(stack.norm, c.RMSNorm)
    assert isinstance(stack.position, c.Rope)
    return LlamaConfig(
        vocab_size=ours.vocabulary,
        hidden_size=stack.width,
        intermediate_size=stack.mlp.hidden,
        num_hidden_layers=stack.layers,
        num_attention_heads=stack.attention.heads,
        num_key_value_heads=stack.attention.kv_heads,
        head_dim=stack.attention.head_width,
        max_position_embeddings=ours.context,
        rms_norm_eps=stack.norm.eps,
        rope_parameters={"rope_type": "default", "rope_theta": stack.position.theta},
        tie_word_embeddings=ours.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


def folder(made: Artifact) -> Path:
    """A Hugging Face folder with the model, so that the peer loads it the way its users do; written once."""
    place = Workspace().root / "benchmarks" / f"hf-{made.id[:12]}"
    if not (place / "done").is_file():
        place.mkdir(parents=True, exist_ok=True)
        model(made).save_pretrained(place)
        (place / "done").touch()
    return place
