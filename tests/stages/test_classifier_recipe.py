"""recipes/classifier.yaml at a tiny size: an encoder learns to tell two kinds of texts apart, above the same network
without pre-training or as good, and curation keeps what it is told to keep."""

import json
import random
from pathlib import Path

import pytest

from benchmarks import recipes
from matura import cli
from matura.core.artifact import Artifact
from matura.core.metrics import MetricsLog
from matura.core.records import Document, read_documents
from matura.core.workspace import Workspace
from matura.data.parts import read_dropped

RECIPE = Path(__file__).parents[2] / "recipes" / "classifier.yaml"
WORDS = {
    "ham": "the meeting moves to friday because our server needs a new disk and my notes wait for your review",
    "spam": "free offer win cash now dear friend click this prize claim your money today best price order",
}
FOLDERS = {"easy-ham-1": "ham", "hard-ham-1": "ham", "spam-1": "spam", "easy-ham-2": "ham", "spam-2": "spam"}
FILES = 24
TINY = (
    *("emails.min_characters=20", "clean.min_characters=20", "emails.heldout=16", "clean.heldout=4"),
    *("emails.engine.workers=1", "clean.engine.workers=1", "tokenizer.vocabulary=300"),
    "encoder.shape={kind: encoder, layers: 1, width: 32, head_width: 16}",
    "untrained.shape={kind: encoder, layers: 1, width: 32, head_width: 16}",
    "encoder.sizes={tokens: 4K, step: 512, sequence: 32, rows: 16}",
    "untrained.sizes={tokens: 0, step: 512, sequence: 32, rows: 16}",
    *(
        f"{name}.{setting}"
        for name in ("judge", "scratch")
        for setting in (
            "tokens=6000",
            "tokens_per_step=512",
            "sequence=32",
            "optimizer.lr=1e-2",
            "meter_every=8",
        )
    ),
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    draw = random.Random(0)
    for folder, kind in FOLDERS.items():
        (tmp_path / "package/data" / folder).mkdir(parents=True)
        words = WORDS[kind].split()
        for n in range(FILES):
            text = " ".join(draw.choice(words) for _ in range(30))
            (tmp_path / "package/data" / folder / f"{n:02}.txt").write_text(f"{text}.\n")
            (tmp_path / "package/data" / folder / f"{n:02}.json").write_text(json.dumps({"id": n}))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MATURA_WORKSPACE", raising=False)
    return tmp_path


def made(stage: str) -> Artifact:
    return Workspace("workspace").find(f"classifier/{stage}")


def test_the_recipe_tells_spam_from_mail_and_cleans_a_corpus(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["matura", "run", str(RECIPE), *TINY])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code in (0, None), capsys.readouterr().err
    judge, scratch, clean = made("judge"), made("scratch"), made("clean")
    assert judge.summary["labels"] == ["ham", "spam"]
    assert judge.summary["heldout"] == scratch.summary["heldout"] == len(heldout(made("emails")))
    assert judge.summary["heldout_accuracy"] > 0.9
    first = next(iter(MetricsLog(scratch.path / "metrics.jsonl").rows()))
    assert first["heldout_loss"] > 0.5 > scratch.summary["heldout_loss"]
    assert {one.meta["origin"] for one in heldout(made("emails"))} == {"ham", "spam"}
    stages = {name: made(name) for name in ("emails", "judge", "scratch", "clean")}
    figures, _ = recipes.JUDGES["classifier"](stages, 0)
    assert (figures["heldout"], figures["right"]["judge"] > 0.9) == (judge.summary["heldout"], True)
    kept = [
        one.meta["origin"]
        for side in ("train", "heldout")
        for one in read_documents(clean.file(f"{side}.parquet"))
    ]
    assert kept.count("ham") >= FILES - 3
    assert kept.count("spam") <= 3
    funnel = json.loads(clean.file("funnel.json").read_text())
    (step,) = [one for one in funnel["steps"] if one["name"] == "quality"]
    assert step["documents_in"] == 2 * FILES
    assert step["dropped"] == {"quality": 2 * FILES - len(kept)}
    assert funnel["filters"]["quality"] == {"labels": ["ham", "spam"], "kept": ["ham"]}
    assert {one.reason for one in read_dropped(clean.file("dropped.parquet"))} == {"quality"}


def heldout(corpus: Artifact) -> list[Document]:
    return list(read_documents(corpus.file("heldout.parquet")))
