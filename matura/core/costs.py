"""What estimates of cost share. Rates were measured with one model of 135M parameters in float32; a larger model is as
much slower, and a smaller one faster, until what is not arithmetic takes the time.

What a stage will be given but nobody made yet is told by the estimate of the stage that will make it.
"""

from matura.core.artifact import Artifact
from matura.core.peft_settings import Tuning
from matura.core.plan import Estimate
from matura.core.raw import RawInput

MEASURED_BYTES = 540 << 20
"""Of that model's weights."""
LIGHTEST = 0.02
"""No model costs less than this share of it."""
READ = 450.0
"""Tokens a second that it reads, on 2 cores."""
TRAINED = {"lora": 180.0, "full": 120.0, "prefix": 170.0, "bottleneck": 180.0}
"""Tokens a second that it learns from, there, by what is trained."""
TOKEN_BYTES = 2 << 20
"""Of its activations, for a token that is learned from."""
WEIGHTS = "model.safetensors"
PACKED = (".gz", ".dz", ".bz2", ".xz", ".zst", ".tgz", ".parquet")
EXPANSION = 3.5
"""How many times as long as its packed file a text is."""

Given = Artifact | RawInput | Estimate | None


def weight_bytes(model: Given) -> int:
    """Bytes of a model's weights in float32; those of the measured one where they are not known."""
    if isinstance(model, Estimate):
        return model.model_bytes or MEASURED_BYTES
    if isinstance(model, Artifact) and (file := model.record["files"].get(WEIGHTS)):
        return int(file["bytes"])
    return MEASURED_BYTES


def heaviness(model: Given) -> float:
    """How many times as long as the measured model this one takes for a token."""
    return max(LIGHTEST, weight_bytes(model) / MEASURED_BYTES)


def vocabulary(given: Given) -> int:
    """How many tokens a tokenizer or token shards know; 0 where that is not known."""
    if isinstance(given, Artifact):
        return int(given.summary.get("vocabulary", 0))
    return given.vocabulary if isinstance(given, Estimate) else 0


def is_packed(name: str) -> bool:
    """Whether a file of this name holds more text than bytes."""
    return name.lower().endswith(PACKED)


def row_bytes(given: Given, unknown: int) -> int:
    """Bytes of the rows in JSONL files, or of raw files, packed ones about as long as unpacked; `unknown` where nothing
    is known."""
    if isinstance(given, Artifact):
        return sum(f["bytes"] for name, f in given.record["files"].items() if name.endswith(".jsonl"))
    if isinstance(given, Estimate):
        return given.disk_bytes or unknown
    if given is None:
        return unknown
    sizes = ((name, entry["bytes"]) for name, entry in given.files.items())
    return sum(int(size * EXPANSION) if is_packed(name) else size for name, size in sizes)


def tuning(
    config: Tuning, model: Given, *, seconds: float, tokens: int, note: str, full: float = 4
) -> Estimate:
    """Of a stage that changes a model. `seconds` is what it takes the measured model, `tokens` how many have their
    activations in memory at once, `full` how many times its weights a model needs of which all are trained: with
    gradients and moments it is 4."""
    size, heavier, whole = weight_bytes(model), heaviness(model), config.method == "full"
    held = full if whole else 0.4 if config.base.format == "int4" else 1  # times the weights in float32
    return Estimate(
        seconds=heavier * seconds,
        memory_bytes=int(size * held) + int(heavier * tokens * TOKEN_BYTES),
        disk_bytes=size * 4 if whole else size // 8,
        note=note,
        model_bytes=size,
    )
