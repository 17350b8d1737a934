"""A model that judges documents: its labels that mean keep, and long or empty texts."""

from pathlib import Path

import pytest

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, MaturaError
from matura.infer import quality
from matura.model import config as c
from matura.model import store
from matura.model.transformer import Transformer
from matura.tokenizer import conversation
from tests.tiny_models import VOCABULARY, chatml, pulled

TEXTS = ["hello hello", "a number, and another", "x " * 400, "hello"]


def judge(folder: Path) -> Artifact:
    """A decoder of context 40 with a random head of three labels."""
    decoder = c.StackConfig(
        layers=1,
        width=16,
        attention=c.Attention(heads=2, kv_heads=2, head_width=8),
        mlp=c.GELU(hidden=32),
        norm=c.LayerNorm(),
        position=c.Learned(),
    )
    head = c.Classifier(labels=("good", "fair", "bad"), pool="last")
    config = c.ModelConfig(vocabulary=VOCABULARY, context=40, decoder=decoder, head=head)
    draft = artifact.begin(folder, kind="model", stage="finetune", version=1, config={}, inputs={})
    model = Transformer(config).initialize(3)
    for parameter in model.parameters():
        parameter.data.mul_(8.0)
    store.save(draft.path, model)
    chatml().save(draft.path)
    return draft.commit({})


def test_scores_are_the_probability_of_the_labels_to_keep(tmp_path: Path) -> None:
    made = judge(tmp_path / "judge")
    good, other = (quality.make(folder=str(made.path), labels=one) for one in (["good"], ["fair", "bad"]))
    found = good.scores(TEXTS)
    assert len(set(found)) == len(TEXTS)
    assert [a + b for a, b in zip(found, other.scores(TEXTS), strict=True)] == pytest.approx(
        [1.0] * 4, abs=2e-5
    )
    assert good.about == {"labels": ["good", "fair", "bad"], "kept": ["good"]}
    assert found == [good.scores([text])[0] for text in TEXTS]
    tokenizer = conversation.load(made.path).tokenizer
    begin = tokenizer.decode(tokenizer.encode(TEXTS[2])[:40])
    assert good.scores([begin]) == [found[2]]
    assert good.scores(["", "hello"]) == [0.0, found[3]]


def test_what_cannot_judge_is_told(tmp_path: Path) -> None:
    made = judge(tmp_path / "judge")
    with pytest.raises(ConfigError, match="has no label 'god'; did you mean 'good'"):
        quality.make(folder=str(made.path), labels=["god"])
    with pytest.raises(MaturaError, match="no classification head"):
        quality.make(folder=str(pulled(tmp_path).path), labels=["good"])
