"""New heads: what such models have, what is carried over, and what stays."""

import torch

from matura.model import config as c
from matura.model.classifying import head_for, set_head
from matura.model.heads import Classifier, Pooler
from tests.model.tiny import build, gpt_stack, llama_config

NAMES = ("no", "yes")


def encoder(head: c.Head) -> c.ModelConfig:
    return c.ModelConfig(vocabulary=97, context=16, encoder=gpt_stack(causal=False), head=head)


def test_a_pooler_goes_into_the_head() -> None:
    model = build(encoder(c.Pooler()))
    assert isinstance(model.head, Pooler)
    dense = model.head.dense.weight.clone()
    set_head(model, head_for(model.config, NAMES), seed=1)
    assert isinstance(model.head, Classifier)
    assert model.head.dense is not None
    assert torch.equal(model.head.dense.weight, dense)
    assert model.config.head == c.Classifier(labels=NAMES)
    assert not model.head.training


def test_a_head_of_the_same_labels_stays_and_the_seed_decides_a_new_one() -> None:
    model = build(encoder(c.Classifier(labels=NAMES)))
    head = model.head
    assert set_head(model, head_for(model.config, NAMES)).head is head
    new = [set_head(build(llama_config()), head_for(llama_config(), NAMES), seed=s).head for s in (1, 1, 2)]
    weights = [one.out.weight for one in new if isinstance(one, Classifier)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert weights[0].dtype == torch.float64
