from pathlib import Path

from matura import cli
from matura.core import costs, planning, recipe
from matura.core.plan import Estimate
from matura.core.raw import RawInput
from matura.core.workspace import Workspace


def test_a_model_costs_by_its_weights_down_to_a_floor():
    double = Estimate(model_bytes=2 * costs.MEASURED_BYTES)
    assert costs.heaviness(double) == 2
    assert costs.heaviness(None) == costs.heaviness(Estimate()) == 1
    assert costs.heaviness(Estimate(model_bytes=4096)) == costs.LIGHTEST


def test_rows_that_are_not_there_yet_are_as_large_as_their_stage_expects():
    assert costs.row_bytes(Estimate(disk_bytes=700), 5) == 700
    assert costs.row_bytes(Estimate(), 5) == costs.row_bytes(None, 5) == 5


def test_a_plan_passes_the_size_of_a_model_on(tmp_path: Path):
    """A fine-tuning of a model that is not made yet is planned with the size that its stage will give it."""
    text = """
stages:
  lessons: {stage: synthesize, program: arithmetic, count: 10, heldout: 4}
  texts: {stage: curate, sources: {lessons: {made: $lessons}}}
  tokenizer: {stage: tokenizer, corpus: $texts, vocabulary: 300}
  tokens: {stage: encode, corpus: $texts, tokenizer: $tokenizer}
  small: {stage: pretrain, tokens: $tokens, sizes: {tokens: "0"}, shape: {layers: 1, width: WIDTH}}
  tuned: {stage: finetune, model: $small, conversations: $lessons, forgetting: {text: null}}
"""
    seconds = {}
    for width in (64, 4096):
        path = tmp_path / f"{width}.yaml"
        path.write_text(text.replace("WIDTH", str(width)), encoding="utf-8")
        found = planning.plan(recipe.load(path, cli._Modules()), Workspace(tmp_path / "w"))
        seconds[width] = {row.name: row.estimate for row in found}["tuned"].seconds
    assert seconds[4096] > 5 * seconds[64]


def test_a_plan_passes_the_vocabulary_on(tmp_path: Path):
    """Pre-training on tokens that are not made yet is planned with the vocabulary that their tokenizer is asked for."""
    text = """
stages:
  texts: {stage: curate, path: FOLDER/texts.jsonl}
  tokenizer: {stage: tokenizer, corpus: $texts, vocabulary: VOCABULARY}
  tokens: {stage: encode, corpus: $texts, tokenizer: $tokenizer}
  small: {stage: pretrain, tokens: $tokens, shape: {layers: 1, width: 64}}
"""
    (tmp_path / "texts.jsonl").write_text('{"text": "one document"}\n')
    seconds = {}
    for vocabulary in (500, 16_384):
        path = tmp_path / f"{vocabulary}.yaml"
        written = text.replace("VOCABULARY", str(vocabulary)).replace("FOLDER", str(tmp_path))
        path.write_text(written, encoding="utf-8")
        found = planning.plan(recipe.load(path, cli._Modules()), Workspace(tmp_path / "w"))
        small = {row.name: row.estimate for row in found}["small"]
        assert f"a vocabulary of {vocabulary:,}, as" in "\n".join(small.details)
        seconds[vocabulary] = small.seconds
    assert seconds[16_384] > 5 * seconds[500]


def test_raw_rows_are_as_large_as_their_files(tmp_path: Path):
    assert costs.row_bytes(RawInput(tmp_path, "id", {"a": {"bytes": 7}}), 5) == 7
    packed = {"a.jsonl": {"bytes": 10}, "b.jsonl.gz": {"bytes": 100}}
    assert costs.row_bytes(RawInput(tmp_path, "id", packed), 5) == 360
