"""Results in lm-evaluation-harness's shape."""

from dataclasses import replace

from matura.core.promptfile import PromptFile, Shown
from matura.core.records import Conversation
from matura.evaluate import harness, spec
from matura.evaluate.asking import Scored
from matura.evaluate.score import Bits
from matura.evaluate.sitting import Section
from matura.evaluate.spec import Task
from matura.evaluate.tasks import Item
from matura.tokenizer.prompt import Prompt

PIQA = spec.builtin()["piqa"]
ITEMS = [Item("piqa-0", "Q", ("a", "bb"), 1, "piqa", question="Q")]


def figure(task: str, metric: str, value: float, stderr: float | None, better: str = "higher") -> dict:
    return {"task": task, "metric": metric, "value": value, "stderr": stderr, "better": better}


def test_names_are_theirs() -> None:
    sections = [Section("piqa", PIQA, ITEMS), Section("maths", spec.builtin()["gsm8k"], ITEMS)]
    figures = [
        figure("piqa", "acc", 0.5, 0.1),
        figure("maths", "exact_match.strict-match", 0.25, 0.2),
        figure("maths", "bpb", 1.5, None, "lower"),
    ]
    found = harness.results(sections, figures, {"model": "m"})
    assert found["results"]["piqa"] == {"alias": "piqa", "acc,none": 0.5, "acc_stderr,none": 0.1}
    assert found["results"]["maths"]["exact_match,strict-match"] == 0.25
    assert found["results"]["maths"]["bits_per_byte_stderr,none"] == "N/A"
    assert found["higher_is_better"]["maths"] == {"exact_match": True, "bits_per_byte": False}
    assert found["n-shot"] == {"piqa": 0, "maths": 5}
    assert found["configs"]["maths"]["output_type"] == "generate_until"
    assert found["versions"]["piqa"] != found["versions"]["maths"]


def test_a_sample_has_everything_that_was_asked_and_answered() -> None:
    (row,) = harness.samples(
        Section("piqa", PIQA, ITEMS), [[Scored(-2.0, False, 2, 1), Scored(-1.0, True, 3, 1)]]
    )
    assert row["arguments"] == [["Q", " a"], ["Q", " bb"]]
    assert row["resps"] == [[[-2.0, False]], [[-1.0, True]]]
    assert (row["target"], row["acc"], row["metrics"]) == ("bb", 1.0, ["acc", "acc_norm", "gold_bpb"])
    text = Task(name="p", kind="text", data=("p.txt",))
    (row,) = harness.samples(Section("p", text, [Item("p-0", "whole", (), 0, "p")]), [[Bits(8.0, 5, 2)]])
    assert (row["arguments"], row["resps"], row["bpb"]) == ([["whole"]], [[[8.0]]], 8.0)


def test_a_prompt_stands_in_config_version_and_shots() -> None:
    plain = Section("piqa", PIQA, ITEMS)
    shown = Conversation("e", ({"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}))
    settings = PromptFile(system="Be brief.", template="Q: {{ input }}", examples=Shown(count=1))
    prompt = Prompt(settings, (shown,), "0123456789abcdef")
    asked = replace(plain, prompt=prompt, chat=True)
    before, after = (harness.results([one], [figure("piqa", "acc", 0.5, 0.1)], {}) for one in (plain, asked))
    assert (before["configs"]["piqa"]["prompt"], before["system_instruction"]) == (None, None)
    told = after["configs"]["piqa"]["prompt"]
    assert told == {**prompt.told(), "chat": True}
    assert (told["id"], told["template"], told["examples"]) == ("0123456789abcdef", "Q: {{ input }}", 1)
    assert after["versions"]["piqa"] == f"{before['versions']['piqa']}+prompt-0123456789ab"
    assert (before["n-shot"]["piqa"], after["n-shot"]["piqa"]) == (0, 1)
    assert after["system_instruction"] == "Be brief."
