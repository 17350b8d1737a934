"""What examples begin with alike is computed once: the same losses and gradients, and nothing is shared that is not."""

import random
from dataclasses import replace
from itertools import islice
from typing import Any

import pytest
import torch
from torch import Tensor

from matura.core.forgetting_settings import Forgetting, Part
from matura.core.peft_settings import BottleneckConfig, LoraConfig, PrefixConfig, Tuning
from matura.model import config as c
from matura.model.attention import Packed
from matura.model.blockwise import BLOCK
from matura.model.peft import tuning
from matura.model.transformer import Transformer
from matura.train import anchors
from matura.train.batches import Example, PackedBatches, Rows, joined, pack, packing
from matura.train.beginnings import SHARED, beginnings_once, end_to_end, families, layout_for
from matura.train.objectives import next_token
from matura.train.transforms import checkpoint_activations
from tests.model.tiny import build, gpt_stack, llama_config
from tests.train.test_batches import examples

PROMPT = tuple(range(1, 41))


def changed(**update: Any) -> c.ModelConfig:
    config = llama_config()
    assert config.decoder is not None
    return config.model_copy(update={"decoder": config.decoder.model_copy(update=update)})


def scaled(kind: c.Scaling) -> c.ModelConfig:
    return changed(position=c.Rope(scaling=kind))


CONFIGS = {
    "llama": llama_config(kv_heads=1),
    "window": changed(local=c.Local(window=6, layers=(0,))),
    "relative": changed(position=c.RelativeBias(buckets=8, max_distance=32)),
    "learned": c.ModelConfig(vocabulary=97, context=256, decoder=gpt_stack()),
    "linear": scaled(c.LinearScaling(factor=2.0)),
}
METHODS = {
    "lora": Tuning(lora=LoraConfig(rank=2, targets=("all-linear", "embed"))),
    "prefix": Tuning(method="prefix", prefix=PrefixConfig(tokens=3)),
    "bottleneck": Tuning(method="bottleneck", bottleneck=BottleneckConfig(reduction=4)),
}


def alike(count: int, beginning: tuple[int, ...] = PROMPT, seed: int = 0) -> list[Example]:
    """Examples that begin alike. One is longer than a block of queries; some train the first token of their own, one
    some of what is shared, one everything, and two are equal."""
    draw = random.Random(seed)
    made = []
    for n in range(count):
        own = tuple(draw.randrange(50, 97) for _ in range(BLOCK + 6 if n == 1 else draw.randrange(2, 9)))
        read, trained = (0.0,) * len(beginning), tuple(float(draw.random() < 0.6) for _ in own[1:])
        made.append(Example((*beginning, *own), (*read, n % 2 * 1.5, *trained)))
    some = (0.0,) * 20 + (0.5,) * (len(made[0].ids) - 20)
    return [
        replace(made[0], weights=some),
        replace(made[1], weights=(1.0,) * len(made[1].ids)),
        *made[2:],
        made[2],
    ]


def tuned(method: str, model: Transformer) -> Transformer:
    if method in METHODS:
        tuning.apply(model, METHODS[method], seed=1)
        with torch.no_grad():
            noise = torch.Generator().manual_seed(3)
            for one in (one for one in model.parameters() if one.requires_grad):
                one.add_(torch.randn(one.shape, generator=noise, dtype=one.dtype), alpha=0.05)
    return model.train()


def gradients(loss: Tensor, model: Transformer) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [one for one in model.parameters() if one.requires_grad]))


@pytest.mark.parametrize(
    ("name", "method"), [*((name, "full") for name in CONFIGS), *(("llama", method) for method in METHODS)]
)
def test_losses_and_gradients_are_those_of_examples_by_themselves(name: str, method: str) -> None:
    model = tuned(method, build(CONFIGS[name], scale=2.0))
    made = [*alike(5), *examples(3), *alike(3, beginning=PROMPT[::-1], seed=1)]
    apart, shared = pack(made), packing(model)(made)
    assert apart.ids_1T.shape[1] - shared.ids_1T.shape[1] == len(PROMPT) * (5 + 3)
    assert (shared.tokens, shared.weight) == (apart.tokens, apart.weight)
    losses = [next_token(model, batch) for batch in (shared, apart)]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)
    found, expected = (gradients(loss, model) for loss in losses)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    checkpoint_activations(model, 1)
    for mine, again in zip(found, gradients(next_token(model, shared), model), strict=True):
        torch.testing.assert_close(again, mine, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("part", ["replay", "new", "both"])
def test_anchors_find_their_part_of_a_mixture_whose_sources_share(part: Part) -> None:
    parent = build(llama_config())
    child = tuned("full", build(llama_config(), seed=1))
    objective = anchors.objective(Forgetting(kl=0.7, kl_on=part), child, parent)
    sources = alike(4), alike(3, seed=2)
    found, expected = (
        objective(child, joined([pack(one, lay=lay) for one in sources]))
        for lay in (beginnings_once, end_to_end)
    )
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    plain = next_token(child, joined([pack(one) for one in sources]))
    assert abs(float((found - plain).detach())) > 0.1


def test_a_row_holds_a_beginning_once_and_every_example_whole() -> None:
    rows = [(*PROMPT, 90, 91), (7, 8), (*PROMPT, 90), PROMPT]
    layout = beginnings_once(rows)
    assert layout.mask() == Packed((39, 3, 2, 1, 2), (None, 0, 0, 0, None))
    for i, row in enumerate(rows):
        assert tuple(layout.ids[place] for place in layout.places[i]) == row
        assert layout.mask().positions()[0, layout.places[i]].tolist() == list(range(len(row)))


def test_a_trained_token_right_after_what_is_shared_is_predicted_by_its_last_token() -> None:
    made = [Example((*PROMPT, own, 60), (0,) * len(PROMPT) + (1, 1)) for own in (50, 51)]
    batch = pack(made, lay=beginnings_once)
    last = len(PROMPT) - 1
    assert batch.where_N.tolist() == [last, last + 1, last, last + 2]
    assert batch.targets_N.tolist() == [50, 60, 51, 60]


def test_what_does_not_begin_alike_lies_as_it_did() -> None:
    ids = [(*PROMPT[: SHARED - 1], own, 60) for own in (50, 51)]
    made = [*examples(20), *(Example(one, (1.0,) * len(one)) for one in ids)]
    shared, apart = pack(made, lay=beginnings_once), pack(made)
    assert shared.mask == apart.mask == Packed(tuple(one.size for one in made))
    assert torch.equal(shared.ids_1T, apart.ids_1T)
    assert torch.equal(shared.where_N, apart.where_N)
    late = [(5, *PROMPT), (6, *PROMPT)]  # alike, but not from their beginning
    assert beginnings_once(late).mask() == Packed((41, 41))
    enough = [(*PROMPT[:SHARED], own, 99) for own in (50, 51)]
    assert beginnings_once(enough).mask() == Packed((SHARED, 2, 2), (None, 0, 0))


def partitions(rows: list[int]) -> list[list[list[int]]]:
    if not rows:
        return [[]]
    first, found = rows[0], []
    for rest in partitions(rows[1:]):
        found.append([[first], *rest])
        found += [[*rest[:k], [first, *rest[k]], *rest[k + 1 :]] for k in range(len(rest))]
    return found


def test_no_other_grouping_saves_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matura.train.beginnings.SHARED", 2)
    draw = random.Random(0)

    def common(group: list[tuple[int, ...]]) -> int:
        most = min(map(len, group)) - 1
        return next((i for i in range(most) if len({row[i] for row in group}) > 1), most)

    for _ in range(60):
        rows = [tuple(draw.choices((1, 2), (4, 1), k=draw.randrange(1, 9))) for _ in range(6)]
        found = families(rows)
        assert sorted(i for _, members in found for i in members) == list(range(6))
        assert all(shared == 0 or shared == common([rows[i] for i in its]) >= 2 for shared, its in found)
        assert all(len(its) > 1 if shared else len(its) == 1 for shared, its in found)
        saved = sum(shared * (len(its) - 1) for shared, its in found)
        lengths = [
            [(common([rows[i] for i in its]), len(its)) for its in one] for one in partitions([*range(6)])
        ]
        assert saved == max(sum(n * (k - 1) for n, k in one if n >= 2) for one in lengths)


def test_beginnings_are_not_shared_where_that_would_change_something() -> None:
    assert layout_for(build(llama_config())) is beginnings_once
    assert layout_for(build(changed(dropout=0.1))) is end_to_end
    attention = c.Attention(heads=4, kv_heads=2, head_width=8, dropout=0.1)
    assert layout_for(build(changed(attention=attention))) is end_to_end
    dropping = Tuning(lora=LoraConfig(rank=2, dropout=0.1))
    assert layout_for(tuning.apply(build(llama_config()), dropping, seed=0)) is end_to_end
    dynamic = build(scaled(c.DynamicScaling(factor=2.0, original_context=16)), scale=2.0)
    assert layout_for(dynamic) is end_to_end
    losses = [next_token(dynamic, pack(alike(3), lay=lay)) for lay in (beginnings_once, end_to_end)]
    assert abs(float((losses[0] - losses[1]).detach())) > 1e-3  # what it would have changed


def test_the_same_examples_are_seen_in_the_same_order_and_count_the_same() -> None:
    def batches(lay: Any) -> list[Any]:
        rows = [Rows(alike(9), tokens=190, seed=0), Rows(examples(9), tokens=40, seed=1)]
        return list(islice(PackedBatches(rows, pack=lambda *args: pack(*args, lay=lay)), 12))

    shared, apart = batches(beginnings_once), batches(end_to_end)
    assert any(one.mask.parents for one in shared)
    for mine, theirs in zip(shared, apart, strict=True):
        assert torch.equal(mine.targets_N, theirs.targets_N)
        assert torch.equal(mine.weights_N, theirs.weights_N)
        assert (mine.tokens, mine.weight) == (theirs.tokens, theirs.weight)
