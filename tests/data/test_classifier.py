"""A classifier of texts: learns what can be learned, and nothing from shuffled labels."""

import json
import random
from pathlib import Path

import numpy as np
import pytest

from matura.core.errors import FormatError
from matura.data.classifier import Example, learned, load, read_examples, train
from matura.data.regression import Rows, fit, minimise, platt, rank_area

SUBJECTS = [
    "river",
    "garden",
    "teacher",
    "engine",
    "market",
    "winter",
    "letter",
    "harbour",
    "planet",
    "doctor",
]
GOOD = ["explains", "describes", "measures", "compares"]
BAD = ["winner", "prize", "casino", "bargain"]


def examples(count: int, seed: int = 0) -> list[Example]:
    draw = random.Random(seed)
    found = []
    for i in range(count):
        words = [*draw.choices(SUBJECTS, k=12), draw.choice((BAD, GOOD)[i % 2])]
        draw.shuffle(words)
        found.append(Example(" ".join(words), i % 2))
    return found


def area(trained_on: list[Example], asked: list[Example]) -> float:
    scores = train(trained_on).scores([one.text for one in asked])
    return rank_area(np.array(scores), np.array([float(one.label) for one in asked]))


def test_it_tells_unseen_texts_apart() -> None:
    assert area(examples(200), examples(100, seed=1)) > 0.99


def test_shuffled_labels_teach_nothing() -> None:
    real = examples(600)
    labels = [one.label for one in real]
    random.Random(3).shuffle(labels)
    wrong = [Example(one.text, label) for one, label in zip(real, labels, strict=True)]
    assert 0.35 < area(wrong, examples(400, seed=1)) < 0.65
    assert 0.4 < train(wrong).about["auc"] < 0.6


def test_scores_are_calibrated_probabilities() -> None:
    draw = random.Random(5)
    # "often" is right three times in four: no more can be known.
    noisy = [
        Example(
            f"{'often' if i % 2 else 'seldom'} {draw.choice(SUBJECTS)}", int((draw.random() < 0.75) == i % 2)
        )
        for i in range(1200)
    ]
    high, low = train(noisy).scores(["often river", "seldom river"])
    assert high == pytest.approx(0.75, abs=0.08)
    assert low == pytest.approx(0.25, abs=0.08)


def test_the_same_examples_give_the_same_bytes(tmp_path: Path) -> None:
    made = [train(examples(60)) for _ in range(2)]
    for number in range(8):  # the order of entries in the file must not be a matter of chance
        made[number % 2].save(tmp_path / f"{number}")
    assert len({(tmp_path / f"{number}").read_bytes() for number in range(8)}) == 1
    texts = [one.text for one in examples(20, seed=2)] + ["", "né?", "\ud800"]
    assert load(tmp_path / "0").scores(texts) == train(examples(60)).scores(texts)


def test_a_score_does_not_depend_on_its_batch() -> None:
    classifier = train(examples(60))
    texts = [one.text for one in examples(9, seed=2)]
    assert classifier.scores(texts) == [classifier.scores([text])[0] for text in texts]
    assert classifier.scores([]) == []


def test_it_is_trained_once_for_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(json.dumps({"text": e.text, "label": e.label}) + "\n" for e in examples(40)))
    first = learned(str(path), str(tmp_path / "kept"))
    (kept,) = (tmp_path / "kept").iterdir()
    when = kept.stat().st_mtime_ns
    assert learned(str(path), str(tmp_path / "kept")).about == first.about
    assert kept.stat().st_mtime_ns == when
    path.write_text(path.read_text() + '{"text": "one more", "label": 1}\n')
    learned(str(path), str(tmp_path / "kept"))
    assert len(list((tmp_path / "kept").iterdir())) == 2
    assert learned(str(path)).about["examples"] == {"0": 20, "1": 21}


@pytest.mark.parametrize(
    ("line", "wrong"),
    [("{", "no JSON"), ("[1]", "no text"), ('{"text": 3, "label": 1}', "no text"),
     ('{"text": "a", "label": 2}', "label is 2"), ('{"text": "a", "label": true}', "label is True")],
)  # fmt: skip
def test_a_bad_example_is_named_by_its_line(tmp_path: Path, line: str, wrong: str) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"text": "fine", "label": 0}\n\n' + line + "\n")
    with pytest.raises(FormatError, match=f"line 3: {wrong}"):
        list(read_examples(path))


def test_one_label_alone_cannot_be_learned() -> None:
    with pytest.raises(FormatError, match="at least 10 of each"):
        train([Example(f"text {i}", 1) for i in range(50)])


def test_another_file_is_no_classifier(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"not weights at all")
    with pytest.raises(FormatError, match="no classifier"):
        load(tmp_path / "other")


def test_the_gradient_vanishes_at_the_fit() -> None:
    rows = Rows.of([np.array(one, dtype=np.uint32) for one in ([1, 7], [7], [], [1, 9], [9], [2])])
    labels = np.array([1.0, 0, 1, 1, 0, 0])
    weights = fit(rows, labels, 0.5)
    dense = np.zeros((6, 5))
    for i, row in enumerate(([0, 2], [2], [], [0, 3], [3], [1])):
        dense[i, row] = 1 / max(len(row), 1) ** 0.5
    dense[:, 4] = 1
    assert np.allclose(rows @ weights, dense @ weights)
    gradient = (
        dense.T @ (1 / (1 + np.exp(-(dense @ weights))) - labels) + 0.5 * np.array([1, 1, 1, 1, 0]) * weights
    )
    assert np.abs(gradient).max() < 0.01


def test_the_minimum_of_a_bowl() -> None:
    scale = np.array([1.0, 10.0, 100.0])
    found = minimise(lambda x: (float(scale @ (x - 2) ** 2), 2 * scale * (x - 2)), np.zeros(3))
    assert np.allclose(found, 2, atol=0.05)


def test_the_curve_and_the_area() -> None:
    scores, labels = np.array([-2.0, -1, 1, 2]), np.array([0.0, 0, 1, 1])
    slope, offset = platt(scores, labels)
    assert slope > 0
    assert offset == pytest.approx(0, abs=0.01)
    assert rank_area(scores, labels) == 1
    assert rank_area(-scores, labels) == 0
    assert rank_area(np.ones(4), labels) == 0.5
