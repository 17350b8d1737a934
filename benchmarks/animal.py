"""The example of the animal that didn't cross the street: the figures of docs/inspect.md, in a decoder and an encoder.

A decoder's row for "it" cannot depend on the words after it; an encoder's can, and does.
"""

from __future__ import annotations

from typing import Any

from benchmarks import record, reference
from benchmarks.options import Options

START = "The animal didn't cross the street because it was too "
ENDS = ("tired", "wide")
ENCODER = "minilm-l6"


def run(options: Options) -> bool:
    """Measure, print and save; False when one of the claims does not hold."""
    import torch

    torch.set_num_threads(options.threads)
    decoder, encoder = _figures(options.model), _figures(ENCODER)
    checks = {
        'decoder: the row of "it" is identical, whichever way the sentence ends': decoder["change"] == 0,
        'decoder: most weight of "it" rests on the first token': decoder["mean"]["first"] > 0.5,
        'decoder: some heads say "animal", others "street"': min(
            decoder["strongest"][name][0]["weight"] for name in ("animal", "street")
        )
        > 0.5,
        'encoder: the row of "it" changes with the end of the sentence': encoder["change"] > 0.1,
    }
    for name, figures in (("decoder", decoder), ("encoder", encoder)):
        print(f"{figures['model']} ({name}), {figures['heads']} heads, from {'it'!r}:")
        rows = [
            (key, figures["mean"][key], *(f"{h['layer']}.{h['head']} {h['weight']:.3f}" for h in heads[:3]))
            for key, heads in figures["strongest"].items()
        ]
        record.table(("to", "mean", "strongest", "second", "third"), rows)
        print(f"largest change with another last word: {figures['change']:.3g}\n")
    record.table(("claim", "holds"), [(claim, bool(holds)) for claim, holds in checks.items()])
    record.save("animal", options, {"decoder": decoder, "encoder": encoder, "checks": checks})
    return all(checks.values())


def _figures(name: str) -> dict[str, Any]:
    from matura import api
    from matura.inspect.attention import record as recorded
    from matura.inspect.heads import between, difference
    from matura.inspect.reading import inputs, pick

    made = reference.find_model(name)
    model = api.LanguageModel(made)
    config = model.model.config
    one, other = (recorded(model.model, inputs(config, model.tokenizer, START + end))[-1] for end in ENDS)
    it = pick(one.queries.labels, "it")
    keys = {"first": 0} | {word: pick(one.keys.labels, word) for word in ("animal", "street")}
    if not one.causal:
        keys["tired"] = pick(one.keys.labels, "tired")
    found = {word: between(one, it, key) for word, key in keys.items()}
    return {
        "model": name,
        "artifact": made.id,
        "tokens": one.queries.labels,
        "heads": len(found["first"]),
        "mean": {word: sum(head.weight for head in heads) / len(heads) for word, heads in found.items()},
        "leading": {word: sum(h.strongest == keys[word] for h in heads) for word, heads in found.items()},
        "strongest": {
            word: [{"layer": h.layer, "head": h.head, "weight": h.weight} for h in heads[:5]]
            for word, heads in found.items()
        },
        "change": difference(one, other, it)[0].weight,
    }
