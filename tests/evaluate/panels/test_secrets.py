"""Copies in the training text and what a model then knows by heart: trained for real, on a tiny network."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from matura.core.panel_settings import Memorisation
from matura.core.records import Document
from matura.data import canary
from matura.evaluate import asking
from matura.evaluate.asking import Reader
from matura.evaluate.panels import secrets
from matura.evaluate.panels.sheet import Room
from matura.evaluate.rows import Sources
from matura.tokenizer.conversation import Format
from tests.stages.test_evaluate import TEMPLATE, letters, network

IDS = [f"d{n}" for n in range(4)]
COPIES = 20


def trained(texts):
    """A network that has read each text once, one after the other."""
    torch.manual_seed(0)
    model, tokenizer = network().train(), letters()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() >= 2:
                parameter.mul_(0.05)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for text in texts:
        ids_1T = torch.tensor([tokenizer.encode(text)])
        logits_TV = model.logits(model.decode(ids_1T[:, :-1]))[0]
        cross_entropy(logits_TV, ids_1T[0, 1:]).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def figures(model, folder):
    sheet = secrets.sheet(Memorisation(others=63, controls=12), Room(Sources(), 512, len, folder))
    tokenizer = letters()
    reader = Reader(model, Format(tokenizer, TEMPLATE, [tokenizer.id("<|end|>")]), 512)
    replies = [asking.ask(reader, requests) for requests in sheet.asked]
    return {(one.name, one.part): sum(one.values) / len(one.values) for one in sheet.figures(replies)}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents with a secret in one of them, and the folder of its list."""
    folder = tmp_path_factory.mktemp("corpus")
    canary.save(folder, canary.plan(IDS, rates=[1], each=1))
    step = canary.make(ids=IDS, rates=[1], each=1)
    return folder, [one.text for one in step([Document(id, f"Text {id}.", "s") for id in IDS]).kept]


def test_a_secret_in_copied_documents_is_learned_by_heart_and_without_the_copies_it_is_not(corpus):
    folder, texts = corpus
    copied = figures(trained(texts * COPIES), folder)
    once = figures(trained(list(dict.fromkeys(texts * COPIES))), folder)
    assert copied["exposure", "planted 1 times"] == 6  # log2(63 + 1): all that so many others can show
    assert copied["extracted", "planted 1 times"] == 1
    assert once["extracted", "planted 1 times"] == 0
    for found in (copied, once):  # the control: secrets that nobody planted
        assert found["exposure", "planted nowhere"] < 3
        assert found["extracted", "planted nowhere"] == 0
