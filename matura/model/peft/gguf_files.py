"""LoRA adapters as GGUF files, the format of llama.cpp (src/llama-adapter.cpp there).

The reader multiplies every update by alpha / rank, with one alpha for the file: scales are folded into B, all layers
get one rank, and alpha is that rank. The rows of queries and keys are in the base's own order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from matura.core.errors import FormatError
from matura.core.files import atomic_write
from matura.model.config import ModelConfig
from matura.model.families import registry
from matura.model.peft import layouts
from matura.model.peft.adapter import Adapter, lora_updates


def write(path: str | Path, adapter: Adapter, config: ModelConfig) -> None:
    """Write a LoRA adapter for the GGUF file of a model of these settings, in float32.

    Raises FormatError for other methods, for a family that GGUF has no layout for, and for an updated embedding.
    """
    import gguf

    path = Path(path)
    config = registry.home(config)
    family = registry.by_name(config.family)
    if not family.gguf:
        raise FormatError(
            f"{path}: models of the family {family.name} have no layout in GGUF; write format=peft"
        )
    if adapter.head is not None:
        raise FormatError(f"{path}: the adapter has a head of its own, which GGUF has no place for")
    updates = lora_updates(adapter)
    if any(one.name == "embed" for one in updates):
        raise FormatError(
            f"{path}: adapters in GGUF leave the embedding alone; merge it, and export the model"
        )
    layout = family.gguf[0]
    found = layouts.folded(list(layouts.to_theirs(layouts.layers(layout.entries(config), config), updates)))
    with atomic_write(path) as temporary:
        writer = gguf.GGUFWriter(temporary, layout.architecture)
        writer.add_string("general.type", "adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", float(len(found[0].a_RI)))
        for one in found:
            for part, tensor in (("a", one.a_RI), ("b", one.b_OR)):
                values = np.ascontiguousarray(tensor.float().numpy())
                writer.add_tensor(f"{one.name}.weight.lora_{part}", values)
        try:
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()
