"""Fine-tuning on labelled texts: a head that tells them apart, alone or beside an adapter."""

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import matura
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, FormatError
from matura.core.labelled import read_labelled
from matura.core.metrics import MetricsLog
from matura.core.raw import raw_input
from matura.model import config as c
from matura.model import store
from matura.stages import export, finetune, merge, pull
from tests import tiny_hf
from tests.tiny_models import conversations, corpus, pulled, run, talk

QUICK: dict[str, Any] = {
    "tokens": 12000,
    "tokens_per_step": 128,
    "sequence": 32,
    "save_every": 50,
    "meter_every": 40,
    "meter_tokens": 10_000,
    "lora": {"rank": 2},
    "bottleneck": {"reduction": 4},
    "prefix": {"tokens": 3, "text": "the"},
    "optimizer": {"lr": 1e-2},
}
NEUTRAL = [
    "the",
    "a",
    "on",
    "in",
    "is",
    "was",
    "red",
    "blue",
    "big",
    "small",
    "green",
    "and",
    "of",
    "mat",
    "hat",
]
TELLING = {"animal": ["cat", "dog"], "house": ["house", "tree"]}


def texts(path: Path, rows: int = 240) -> Path:
    """Words in random order, of which one tells the label."""
    draw, lines = random.Random(1), []
    for n in range(rows):
        label = ("animal", "house")[n % 2]
        words = [draw.choice(NEUTRAL) for _ in range(draw.randrange(2, 6))] + [draw.choice(TELLING[label])]
        draw.shuffle(words)
        lines.append(json.dumps({"text": " ".join(words), "label": label}))
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    place = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    source = tiny_hf.bert(place / "bert")
    return run(pull, place / "model", reference="bert", files=raw_input(source))


def looks(made: Artifact) -> list[float]:
    return [
        row["heldout_accuracy"]
        for row in MetricsLog(made.path / "metrics.jsonl").rows()
        if "heldout_accuracy" in row
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_encoder_learns_to_tell_labels_apart(method: str, encoder: Artifact, tmp_path: Path) -> None:
    rows = raw_input(texts(tmp_path / "rows.jsonl"))
    made = run(finetune, tmp_path / "made", model=encoder, labelled=rows, **QUICK, method=method)
    assert made.summary["labels"] == ["animal", "house"]
    assert made.summary["examples"] + made.summary["heldout"] == 240
    assert looks(made)[-1] > 0.9
    model = matura.load(made.path)
    assert isinstance(model.model.config.head, c.Classifier)
    found = model.classify(["a big dog in the hat", "the big house is green"])
    assert [scores[0][0] for scores in found] == ["animal", "house"]
    assert found[0][0][1] > 0.6


def test_a_decoder_reads_its_last_token(tmp_path: Path) -> None:
    rows = raw_input(texts(tmp_path / "rows.jsonl"))
    made = run(finetune, tmp_path / "made", model=pulled(tmp_path), labelled=rows, **QUICK)
    head = store.load(made.path).config.head
    assert isinstance(head, c.Classifier)
    assert (head.pool, head.hidden, head.bias) == ("last", "none", False)
    assert looks(made)[-1] > 0.7
    assert made.summary["heldout_accuracy"] == looks(made)[-1]
    assert f"{looks(made)[-1]:.1%} of held-out labels are right" in made.summary["line"]
    assert "share that is right" in made.file("report.html").read_text()
    whole = run(merge, tmp_path / "merged", model=made)
    assert whole.summary["relative_logit_change"] < 1e-4
    with pytest.raises(ConfigError, match="front measures models that write"):
        run(merge, tmp_path / "front", model=made, front={"alphas": [0.5], "corpus": "c", "replay": "r"})


@pytest.mark.parametrize("method", ["full", "lora", "prefix", "bottleneck"])
def test_what_was_trained_comes_back_with_its_head(method: str, tmp_path: Path) -> None:
    """The loss on the held-out texts that the last look saw, computed again with the loaded model."""
    rows = raw_input(texts(tmp_path / "rows.jsonl"))
    made = run(
        finetune,
        tmp_path / "made",
        model=pulled(tmp_path),
        labelled=rows,
        **QUICK | {"tokens": 400},
        method=method,
    )
    seen = [r["heldout_loss"] for r in MetricsLog(made.path / "metrics.jsonl").rows() if "heldout_loss" in r]
    model = matura.load(made.path)
    kept = [row for row in read_labelled(tmp_path / "rows.jsonl") if row.is_heldout]
    assert len(kept) == made.summary["heldout"]
    scores = [dict(found) for found in model.classify([row.text for row in kept])]
    losses = [-math.log(one[row.label]) for one, row in zip(scores, kept, strict=True)]
    assert sum(losses) / len(losses) == pytest.approx(seen[-1], rel=1e-3)


def test_shuffled_labels_teach_nothing(encoder: Artifact, tmp_path: Path) -> None:
    """The control: what is held out is not learned by heart."""
    lines = [json.loads(line) for line in texts(tmp_path / "rows.jsonl").read_text().splitlines()]
    for n, row in enumerate(lines):
        row["label"] = "animal" if (n * 2654435761) % 7 < 3 else "house"
        row["text"] += f" {n}"
    path = tmp_path / "shuffled.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)))
    made = run(finetune, tmp_path / "made", model=encoder, labelled=raw_input(path), **QUICK, method="full")
    assert looks(made)[-1] < 0.85


def test_merged_and_exported_it_is_a_classifier_elsewhere(encoder: Artifact, tmp_path: Path) -> None:
    rows = raw_input(texts(tmp_path / "rows.jsonl"))
    made = run(finetune, tmp_path / "made", model=encoder, labelled=rows, **QUICK)
    whole = run(merge, tmp_path / "merged", model=made)
    text = "a big dog in the hat"
    one, other = matura.load(made.path), matura.load(whole.path)
    assert dict(one.classify(text)) == pytest.approx(dict(other.classify(text)), rel=1e-5)
    out = run(export, tmp_path / "out", model=whole)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(out.path / "hf").eval()
    with torch.no_grad():
        logits = theirs(torch.tensor([other.tokenizer(text)])).logits[0]
    expected = dict(zip(theirs.config.id2label.values(), logits.softmax(-1).tolist(), strict=True))
    assert dict(other.classify(text)) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(FormatError, match="the adapter has a head of its own; merge it"):
        run(export, tmp_path / "peft", model=made, format="peft")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a", "label": "x"}\n{"text": "b", "label": "x"}', "1 label in 2 rows; expected 2 to 1000"),
        (
            '{"text": "a", "label": "x"}\n{"text": "", "label": "y"}',
            r"rows.jsonl:2: 'text' must be a text that is not",
        ),
        ('{"text": "a", "lable": "x"}', r"rows.jsonl:1: unknown key 'lable'; did you mean 'label'"),
        ('{"text": "a", "label": 1.5}', r"'label' must be a text or a whole number, found 1.5"),
        ("[1]", "found list"),
        ("{", "not valid JSON"),
    ],
)
def test_rows_that_are_none_are_refused_by_line(
    content: str, message: str, encoder: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(FormatError, match=message):
        run(finetune, tmp_path / "made", model=encoder, labelled=raw_input(tmp_path / "rows.jsonl"), **QUICK)


def test_labels_stand_alone(encoder: Artifact, tmp_path: Path) -> None:
    rows = raw_input(texts(tmp_path / "rows.jsonl"))
    replay = conversations(tmp_path / "replay", [talk(1)], [])
    with pytest.raises(ConfigError, match="replay is for a model that writes"):
        run(finetune, tmp_path / "a", model=encoder, labelled=rows, replay=replay, **QUICK)
    with pytest.raises(ConfigError, match="either a corpus or conversations or labelled texts"):
        run(finetune, tmp_path / "b", model=encoder, labelled=rows, conversations=replay, **QUICK)
    for name, given in (("forgetting", {"kl": 0.5, "kl_on": "new"}), ("data", {"turns": "last"})):
        with pytest.raises(ConfigError, match=f"{name} is for a model that writes"):
            run(finetune, tmp_path / "c", model=encoder, labelled=rows, **QUICK | {name: given})
    config = parse(finetune.Config, {"model": "m", "labelled": "rows.jsonl"}, "test")
    assert config.forgetting.text is None
    assert finetune.raw_input(config, "labelled") == Path("rows.jsonl")
    with pytest.raises(ConfigError, match="labelled texts are only read"):
        finetune.audit(config, {"model": encoder, "labelled": rows}, 3)


def test_a_model_that_does_not_write_learns_no_documents(encoder: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="writes no text; give labelled texts"):
        run(finetune, tmp_path / "a", model=encoder, corpus=corpus(tmp_path / "corpus"), **QUICK)
