"""Which family a checkpoint belongs to."""

from __future__ import annotations

import difflib

from matura.core.errors import FormatError
from matura.model.families.family import Family, Gguf
from matura.model.families.llama import LLAMA

FAMILIES = (LLAMA,)


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
    known = {layout.architecture: (family, layout) for family in FAMILIES for layout in family.gguf}
    if not isinstance(architecture, str) or architecture not in known:
        listed = ", ".join(sorted(known))
        raise FormatError(f"general.architecture {architecture!r} is not supported; known: {listed}")
    return known[architecture]


def _listed() -> str:
    return ", ".join(sorted(family.name for family in FAMILIES))
