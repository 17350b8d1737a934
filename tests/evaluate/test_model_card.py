"""The card of an exported model: what was recorded, nothing else, and no place of this machine."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.files import write_json
from matura.core.peft_settings import LoraConfig, Tuning
from matura.core.raw import RawInput, raw_input
from matura.core.records import write_conversations
from matura.evaluate import card_usage, model_card
from matura.model import config as c
from matura.model import store
from matura.stages import export, pull
from tests import tiny_models
from tests.evaluate.panels.test_page import FIGURE, PANEL

ROW = {
    "task": "piqa", "metric": "acc_norm", "unit": "share", "better": "higher", "value": 0.625, "low": 0.5, "high": 0.75,
    "stderr": 0.06, "items": 80, "shots": 0, "chance": 0.5, "detectable": 0.1, "published": [],
}  # fmt: skip


def tuned(root: Path) -> Artifact:
    """A model of a recipe: pulled, tuned on conversations."""
    (root / "models").mkdir(exist_ok=True)
    parent = tiny_models.pulled(root / "models")
    talks = tiny_models.conversations(root / "runs" / "r" / "talks-0123456789ab", [tiny_models.talk(1)], [])
    draft = artifact.begin(
        root / "runs" / "r" / "tuned-0123456789ab",
        kind="model",
        stage="finetune",
        version=1,
        config={"optimizer": {"lr": 0.5}, "model": str(parent.path)},
        inputs={"model": parent, "replay": talks},
    )
    store.save(draft.path, tiny_models.network(seed=1))
    tiny_models.chatml().save(draft.path)
    return draft.commit({"line": "lora on 3 talks"})


def from_hub(root: Path, name: str) -> Artifact:
    source = tiny_models.write_gguf_model(root / f"{name}.gguf", tiny_models.network(seed=3))
    return tiny_models.run(pull, root / name, reference=f"hf:some/{name}@main", files=raw_input(source))


def learned(root: Path, name: str, **inputs: Artifact | RawInput) -> Artifact:
    """A model of a recipe that was tuned on whatever is given."""
    draft = artifact.begin(
        root / "runs" / "r" / f"{name}-0123456789ab", kind="model", stage="finetune", version=1,
        config={"optimizer": {"lr": 0.25 if name == "taught" else 0.75}}, inputs=inputs,
    )  # fmt: skip
    store.save(draft.path, tiny_models.network(seed=1))
    tiny_models.chatml().save(draft.path)
    return draft.commit({"line": f"{name} it", "source_quantization": "Q4_0" if name == "teacher" else None})


def examined(root: Path, model: Artifact, name: str, *, passed: bool, **more: object) -> Artifact:
    draft = artifact.begin(
        root / "runs" / "r" / name,
        kind="evaluation",
        stage="evaluate",
        version=2,
        config={},
        inputs={"model": model},
    )
    gate = {"passed": passed, "reasons": [] if passed else ["general.gold_bpb: regressed"]}
    found = {
        "tasks": {"child": [ROW]},
        "gate": gate,
        "notes": ["a note"],
        "metrics": [{}],
        "line": "all of it",
        **more,
    }
    write_json(draft.path / "results.json", found)
    return draft.commit({})


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---\n")[1])


def test_files_of_ones_own_that_were_learned_are_training_data(tmp_path: Path) -> None:
    files = {}
    for name in ("mine", "measured"):
        (tmp_path / f"{name}.jsonl").write_text('{"prompt": "q", "completion": "a"}\n')
        files[name] = raw_input(tmp_path / f"{name}.jsonl")
    given = {"conversations": files["mine"], "forgetting.text": files["measured"]}
    model = learned(tmp_path, "taught", model=tiny_models.pulled(tmp_path), **given)
    told = model_card.text(model, "F32", []).partition("## Training data")[2]
    data = told.partition("## Training")[0]
    assert f"- **files** mine.jsonl (`{files['mine'].id[:12]}`): 35 bytes" in data
    assert "measured" not in data
    assert "None is recorded" not in data


def test_a_card_tells_lineage_settings_and_exams(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    examined(tmp_path, model, "exam-1", passed=False)
    card = model_card.text(model, "F32", list(model_card.exams(model, model_card.around(model))))
    assert "| `optimizer.lr` | 0.5 |" in card
    assert "| piqa | acc_norm | 0.6250 | 0.5000 … 0.7500 | 0.500 | 80 | 0 |" in card
    assert "did not pass. all of it" in card
    assert "- general.gold_bpb: regressed" in card
    assert "- **conversations** r/talks-0123456789ab" in card
    assert "Not written yet: say for what it is meant" in card
    assert str(tmp_path) not in card
    head = front(card)
    assert (head["library_name"], head["pipeline_tag"], head["tags"]) == (
        "transformers",
        "text-generation",
        ["matura", "llama"],
    )
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "acc_norm", "value": 0.625, "name": "acc_norm"}]
    assert "base_model" not in head  # the parent came from a file
    assert (head["license"], "datasets" in head) == ("unknown", False)
    assert "- **licence**: not known, for nothing in its lineage names one" in card
    assert "Data sets of the hub: none is named in its lineage." in card


def test_a_card_names_the_licence_and_the_data_sets_that_lineage_knows(tmp_path: Path) -> None:
    (tmp_path / "talks").write_text("any")
    draft = artifact.begin(
        tmp_path / "tuned", kind="model", stage="finetune", version=1, config={"conversations": "hf:some/talks"},
        inputs={
            "model": tiny_models.pulled(tmp_path, **{"general.license": "llama3.2"}),
            "conversations": raw_input(tmp_path / "talks"),
        },
    )  # fmt: skip
    store.save(draft.path, tiny_models.network(seed=1))
    tiny_models.chatml().save(draft.path)
    card = model_card.text(draft.commit({}), "F32", [])
    assert (front(card)["license"], front(card)["datasets"]) == ("llama3.2", ["some/talks"])
    assert "- **licence**: llama3.2, that of the model it began with" in card
    assert "Data sets of the hub: some/talks." in card


def test_a_teacher_is_no_base_and_its_training_not_that_of_the_model(tmp_path: Path) -> None:
    for parent, base in (("parent", "some/parent"), (None, None)):
        root = tmp_path / str(parent)
        root.mkdir()
        teacher = learned(root, "teacher", model=from_hub(root, "teachers-base"))
        draft = artifact.begin(
            root / "talks",
            kind="conversations",
            stage="synthesize",
            version=1,
            config={},
            inputs={"model": teacher},
        )
        write_conversations(draft.path / "train.jsonl", [tiny_models.talk(1)])
        started = from_hub(root, parent) if parent else tiny_models.pulled(root, name="own")
        model = learned(root, "taught", conversations=draft.commit({"line": "1 talk"}), model=started)
        assert [one.path.name for one in model_card.descent(model)] == [
            parent or "own",
            "taught-0123456789ab",
        ]
        card = model_card.text(model, "F32", [])
        assert front(card).get("base_model") == base
        assert front(card).get("base_model_relation") == ("finetune" if base else None)
        assert "finetune: taught it" in card
        assert "finetune: teacher it" not in card
        assert "(pull → finetune)" in card
        assert "- **weights came from**: full precision" in card
        assert "1 talk" in card


@pytest.mark.parametrize(
    ("changes", "task", "words"),
    [
        ({}, "text-generation", 'pipeline("text-generation"'),
        ({"head": c.Classifier(labels=("a", "b"))}, "text-classification", 'pipeline("text-classification"'),
        ({"encoder": True, "decoder": None}, "fill-mask", "model.tokenizer.mask_token"),
        ({"encoder": True, "decoder": None, "head": c.Pooler()}, "feature-extraction", "feature-extraction"),
        ({"encoder": True}, "text2text-generation", "AutoModelForSeq2SeqLM"),
    ],
)
def test_a_card_opens_a_model_as_what_it_is(changes: dict[str, Any], task: str, words: str) -> None:
    plain = tiny_models.network().config
    if changes.get("encoder"):
        changes = changes | {"encoder": plain.decoder}
    config = plain.model_copy(update=changes)
    use = card_usage.usage(config, chat=False)
    assert (use.library, use.task) == ("transformers", task)
    assert words in use.code
    compile(use.code, "card", "exec")
    assert "Hello!" in card_usage.usage(plain, chat=True).code
    alone = card_usage.usage(config, chat=False, adapter=True, base="some/parent")
    assert alone.library == "peft"
    assert '.from_pretrained("some/parent")' in alone.code
    compile(alone.code, "card", "exec")


def test_an_adapter_alone_has_a_card_that_names_its_base(tmp_path: Path) -> None:
    tuned = tiny_models.adapted(
        tmp_path / "tuned", from_hub(tmp_path, "parent"), Tuning(lora=LoraConfig(rank=2))
    )
    made = tiny_models.run(export, tmp_path / "out", model=tuned, format="peft")
    card = made.file("peft/README.md").read_text("utf-8")
    head = front(card)
    assert (head["library_name"], head["base_model"], head["base_model_relation"]) == (
        "peft",
        "some/parent",
        "adapter",
    )
    assert 'base = AutoModelForCausalLM.from_pretrained("some/parent")' in card
    assert "F32, of the adapter alone" in card


def test_a_card_tells_of_alignment_and_of_judged_answers(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "r"
    draft = artifact.begin(
        run / "aligned-0123456789ab", kind="model", stage="dpo", version=1, config={"loss": {"beta": 0.25}},
        inputs={"model": tuned(tmp_path)},
    )  # fmt: skip
    store.save(draft.path, tiny_models.network(seed=1))
    tiny_models.chatml().save(draft.path)
    model = draft.commit({"line": "on 9 pairs"})
    score = {
        "items": 12, "parent": 0.25, "child": 0.5, "low": 0.125, "high": 0.375, "level": 0.95, "verdict": "improved",
    }  # fmt: skip
    for name, told, source in (
        ("judged", {"score": score}, model),
        ("alone", {}, model),
        ("other", {}, None),
    ):
        samples = artifact.begin(
            run / f"tried_{name}", kind="samples", stage="sample", version=1, config={},
            inputs={"model": source or model.input("model")},
        ).commit({})  # fmt: skip
        told = {"score": score} if name == "other" else told
        artifact.begin(
            run / name, kind="preferences", stage="rank", version=1, config={}, inputs={"samples": samples}
        ).commit({"heldout": {"reward.rule": 0.5}, "gate": {"passed": True}, **told})
    ranked = list(model_card.rankings(model, model_card.around(model)))
    assert [one.path.name for one in ranked] == ["judged"]
    card = model_card.text(model, "F32", [], ranked)
    assert "| `loss.beta` | 0.25 |" in card
    assert (
        "Its answers to 12 held-out prompts: passed. 0.2500 -> 0.5000, improved (+0.1250 … +0.3750, 95% interval)."
    ) in card
    assert "| rule | 0.5000 |" in card
    assert "It has sat no exam" not in card


def test_a_card_says_which_prompt_the_questions_had(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    examined(tmp_path, model, "exam-1", passed=True)
    prompt = {"id": "abcdef0123456789", "about": "", "system": "Be\nbrief.", "template": "Q: {{ input }}"}
    prompts = {"parent": None, "child": {**prompt, "examples": 2, "choose": "similar"}}
    examined(tmp_path, model, "exam-2", passed=True, prompts=prompts)
    card = model_card.text(model, "F32", list(model_card.exams(model, model_card.around(model))))
    assert card.count("asked without a prompt.") == 1
    assert "asked with the prompt `abcdef012345` around every question: the system text `Be brief.`" in card
    assert "the template `Q: {{ input }}`, 2 examples (similar)" in card
    names = [one["dataset"]["name"] for one in front(card)["model-index"][0]["results"]]
    assert names == ["piqa", "piqa (with prompt abcdef012345)"]


def test_panels_are_told_with_what_they_do_not_show(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    examined(tmp_path, model, "exam-1", passed=True, panels=[{**PANEL, "figures": [FIGURE]}])
    card = model_card.text(model, "F32", list(model_card.exams(model, model_card.around(model))))
    assert "preference 60.0% (55.0% … 65.0%, 1,200 items). What this does not show: Fairness." in card


def test_exams_of_other_models_are_not_told_and_those_before_a_merge_are(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    mine = examined(tmp_path, model, "exam-1", passed=True)
    other = tiny_models.pulled(tmp_path / "models", name="other", model=tiny_models.network(seed=5))
    examined(tmp_path, other, "exam-2", passed=True)
    draft = artifact.begin(
        tmp_path / "runs" / "r" / "merged-0123456789ab",
        kind="model",
        stage="merge",
        version=1,
        config={},
        inputs={"model": model},
    )
    store.save(draft.path, tiny_models.network(seed=1))
    tiny_models.chatml().save(draft.path)
    merged = draft.commit({})
    assert [one.id for one in model_card.exams(merged, model_card.around(merged))] == [mine.id]


def test_an_export_has_a_card_that_is_no_part_of_its_id(tmp_path: Path) -> None:
    model = tuned(tmp_path)
    before = tiny_models.run(export, tmp_path / "before", model=model, format="hf")
    assert "Not examined." in before.file("hf/README.md").read_text("utf-8")
    assert "It has sat no exam" in before.file("hf/README.md").read_text("utf-8")
    examined(tmp_path, model, "exam-1", passed=True)
    after = tiny_models.run(export, tmp_path / "after", model=model, format="hf")
    assert "passed. all of it" in after.file("hf/README.md").read_text("utf-8")
    assert before.id == after.id
