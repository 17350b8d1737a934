"""Which family a checkpoint belongs to."""

from __future__ import annotations

import difflib

from matura.core.errors import FormatError
from matura.model.config import ModelConfig
from matura.model.families.bert import BERT
from matura.model.families.distilbert import DISTILBERT
from matura.model.families.family import Family, Gguf
from matura.model.families.gemma import GEMMA2, GEMMA3
from matura.model.families.gpt2 import GPT2
from matura.model.families.llama import LLAMA
from matura.model.families.marian import MARIAN
from matura.model.families.mistral import MISTRAL
from matura.model.families.phi3 import PHI3
from matura.model.families.qwen import QWEN2, QWEN3
from matura.model.families.roberta import ROBERTA, XLM_ROBERTA
from matura.model.families.t5 import T5

FAMILIES = (
    GPT2,
    LLAMA,
    MISTRAL,
    QWEN2,
    QWEN3,
    GEMMA2,
    GEMMA3,
    PHI3,
    BERT,
    ROBERTA,
    XLM_ROBERTA,
    DISTILBERT,
    T5,
    MARIAN,
)
OWN = "matura"
"""`ModelConfig.family` of a model that began here, from first weights."""
HOMES = (LLAMA, QWEN3)
"""What a decoder that began here may be written as."""


def home(config: ModelConfig) -> ModelConfig:
    """`config` with the family as which other programs read the model: its own, or where it began here the first that
    has a place for all it uses. Raises FormatError with what each of them has no place for."""
    if config.family != OWN:
        return config
    if config.encoder is not None:
        raise FormatError("of the models that began here only decoders can be written for other programs")
    reasons = []
    for family in HOMES:
        named = config.model_copy(update={"family": family.name})
        try:
            family.to_hf(named)
        except FormatError as error:
            reasons.append(f"{family.name}: {error}")
        else:
            return named
    raise FormatError("no layout of other programs has a place for this model: " + "; ".join(reasons))


def by_name(name: str) -> Family:
    """The family of `ModelConfig.family`. Raises FormatError."""
    found = next((family for family in FAMILIES if family.name == name), None)
    if found is None:
        raise FormatError(f"a model of the family {name!r} has no other layout; known: {_listed()}")
    return found


def by_model_type(model_type: object) -> Family:
    """The family of a `config.json`. Raises FormatError with the nearest known name."""
    for family in FAMILIES:
        if model_type in family.model_types:
            return family
    known = [name for family in FAMILIES for name in family.model_types]
    near = difflib.get_close_matches(str(model_type), known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
    raise FormatError(f"model_type {model_type!r} is not supported; {hint}")


def by_architecture(architecture: object) -> tuple[Family, Gguf]:
    """The family of a GGUF file's `general.architecture`. Raises FormatError."""
    known: dict[object, tuple[Family, Gguf]] = {}
    for family in FAMILIES:
        for layout in family.gguf:
            known.setdefault(layout.architecture, (family, layout))  # Mistral's files say llama
    if not isinstance(architecture, str) or architecture not in known:
        listed = ", ".join(sorted(map(str, known)))
        raise FormatError(f"general.architecture {architecture!r} is not supported; known: {listed}")
    return known[architecture]


def _listed() -> str:
    return ", ".join(sorted(family.name for family in FAMILIES))
