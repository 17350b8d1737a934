"""Complete tiny models for tests: weights, tokenizer, chat template, as GGUF file and as artifact."""

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.config import Config, parse
from matura.core.peft_settings import Tuning
from matura.core.raw import RawInput, raw_input
from matura.core.records import Conversation, Document, write_conversations, write_documents
from matura.model import config as c
from matura.model import store
from matura.model.families import decoder_gguf
from matura.model.peft import tuning
from matura.model.peft.leaves import trained
from matura.model.transformer import Transformer
from matura.stages import pull
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_gguf import from_gguf
from tests.gguf_files import Tensor, byte_level_vocabulary, write_gguf

CHATML = (
    "{% if messages[0].role != 'system' %}<|im_start|>system\nYou help.<|im_end|>\n{% endif %}"
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = len(byte_level_vocabulary()["tokenizer.ggml.tokens"])
CONTEXT = 256


def chatml() -> Format:
    """A byte-level tokenizer with a ChatML template that has a default system prompt."""
    tokenizer = from_gguf(byte_level_vocabulary())
    return Format(tokenizer, CHATML, [tokenizer.id("<|im_end|>"), tokenizer.id("<|endoftext|>")])


def network(*, seed: int = 0, tied: bool = True, layers: int = 2, scale: float = 4.0) -> Transformer:
    """A llama of width 32 with random weights in float32; `scale` makes it say definite things."""
    decoder = c.StackConfig(
        layers=layers,
        width=32,
        attention=c.Attention(heads=4, kv_heads=2, head_width=8),
        mlp=c.SwiGLU(hidden=48),
        norm=c.RMSNorm(eps=1e-5),
        position=c.Rope(theta=10_000.0),
    )
    head = c.LanguageHead(tied=tied)
    config = c.ModelConfig(vocabulary=VOCABULARY, context=CONTEXT, decoder=decoder, head=head, family="llama")
    model = Transformer(config).initialize(seed).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(scale)
    return model


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of one head as pairs (0, half), (1, half + 1), ...: how GGUF keeps queries and keys."""
    half = weight.shape[0] // heads // 2
    order = [h * 2 * half + part * half + j for h in range(heads) for j in range(half) for part in (0, 1)]
    return weight[order]


def gguf_parts(model: Transformer, **more: Any) -> tuple[dict[str, Any], list[Tensor]]:
    """Metadata and float32 tensors of a GGUF file with this model and the byte-level tokenizer."""
    decoder = model.config.decoder
    assert decoder is not None
    attention = decoder.attention
    metadata = byte_level_vocabulary(**{"tokenizer.chat_template": CHATML}) | {
        "llama.block_count": decoder.layers,
        "llama.context_length": model.config.context,
        "llama.embedding_length": decoder.width,
        "llama.feed_forward_length": decoder.mlp.hidden,
        "llama.attention.head_count": attention.heads,
        "llama.attention.head_count_kv": attention.kv_heads,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 10_000.0,
    }
    weights, tensors = model.state_dict(), []
    for entry in decoder_gguf.entries(model.config):
        theirs, weight = entry.theirs, weights[entry.ours[0]].float()
        if theirs.endswith(("attn_q.weight", "attn_k.weight")):
            weight = interleaved(weight, attention.heads if "attn_q" in theirs else attention.kv_heads)
        data = np.ascontiguousarray(weight.numpy()).tobytes()
        tensors.append(Tensor(theirs, "F32", tuple(reversed(weight.shape)), data))
    return metadata | more, tensors


def write_gguf_model(path: Path, model: Transformer, **more: Any) -> Path:
    """A complete GGUF file of this model; `more` replaces metadata."""
    return write_gguf(path, *gguf_parts(model, **more))


def pulled(folder: Path, *, model: Transformer | None = None, name: str = "tiny", **more: Any) -> Artifact:
    """A complete tiny model artifact at `folder / name`, pulled from a GGUF file."""
    source = write_gguf_model(folder / f"{name}.gguf", model or network(), **more)
    return run(pull, folder / name, reference=name, files=raw_input(source))


METHOD_GROUPS = ("lora", "prefix", "bottleneck")


def run(stage: ModuleType, folder: Path, /, **settings: Any) -> Artifact:
    """What a stage makes in `folder`; settings that are artifacts or raw inputs are its inputs. Tests share settings
    for all methods of fine-tuning: those of the others, which are refused, are left out."""
    if stage.__name__.endswith(".finetune"):
        method = settings.get("method", "lora")
        settings = {
            name: one for name, one in settings.items() if name not in METHOD_GROUPS or name == method
        }
    inputs = {name: one for name, one in settings.items() if isinstance(one, Artifact | RawInput)}
    values = settings | {name: str(one.path) for name, one in inputs.items()}
    return make(stage, folder, parse(stage.Config, values, "test"), inputs)


def make(stage: ModuleType, folder: Path, config: Config, inputs: Mapping[str, Any]) -> Artifact:
    """What a stage makes in `folder` of checked settings and resolved inputs."""
    name = stage.__name__.rpartition(".")[2]
    draft = artifact.begin(
        folder, kind=stage.KIND, stage=name, version=stage.VERSION, config=config, inputs=inputs
    )
    made = stage.run(config, inputs, draft)
    assert isinstance(made, Artifact)
    return made


def adapted(folder: Path, parent: Artifact, settings: Tuning, *, seed: int = 1, **summary: Any) -> Artifact:
    """An adapter on a pulled `network()`, with tensors that change what it says."""
    model = tuning.apply(tuning.quantize_base(network(), settings.base), settings)
    with torch.no_grad():
        for tensor in trained(model).values():
            tensor.normal_(0, 0.2, generator=torch.Generator().manual_seed(seed))
    draft = artifact.begin(
        folder, kind="model", stage="finetune", version=1, config={}, inputs={"model": parent}
    )
    store.save_adapter(draft.path, model, settings)
    chatml().save(draft.path)
    return draft.commit(summary)


def corpus(folder: Path, documents: int = 12, heldout: int = 2, text: str = "") -> Artifact:
    """A corpus artifact of small made-up documents, or of one text again and again."""
    draft = artifact.begin(folder, kind="corpus", stage="curate", version=1, config={}, inputs={})
    rows = [
        Document(f"d{n}", text or f"Note {n}: hello hello, {n * 7919} is a number. " * 3, f"d{n}.md")
        for n in range(documents)
    ]
    write_documents(draft.path / "train.parquet", rows[heldout:])
    write_documents(draft.path / "heldout.parquet", rows[:heldout])
    return draft.commit({})


def conversations(folder: Path, rows: list[Conversation], heldout: list[Conversation]) -> Artifact:
    """A conversations artifact."""
    draft = artifact.begin(folder, kind="conversations", stage="synthesize", version=1, config={}, inputs={})
    write_conversations(draft.path / "train.jsonl", rows)
    write_conversations(draft.path / "heldout.jsonl", heldout)
    return draft.commit({})


def talk(number: int, answer: str = "hello hello") -> Conversation:
    """A question and its answer."""
    asked = {"role": "user", "content": f"say {number}"}
    return Conversation(f"c{number}", (asked, {"role": "assistant", "content": f"{answer} {number}"}))
