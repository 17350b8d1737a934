"""lm-evaluation-harness's own backend and ours on the same random weights: the same answers to the same requests."""

import warnings
from pathlib import Path
from typing import Any

import pytest

from matura.core import artifact
from matura.core.errors import MaturaError
from matura.core.raw import raw_input
from matura.model import config as c
from matura.model import store
from matura.model.classifying import set_head
from matura.stages import pull
from tests import tiny_hf, tiny_models

with warnings.catch_warnings():  # its dependencies warn of each other
    warnings.simplefilter("ignore")
    instance: Any = pytest.importorskip("lm_eval.api.instance")
    huggingface: Any = pytest.importorskip("lm_eval.models.huggingface")
    from matura.evaluate.lm_eval_model import MaturaLM

pytestmark = pytest.mark.filterwarnings("ignore")
LENGTH = 96
PAIRS = [
    ("Question: what?\nAnswer:", " nothing"),
    ("Question: what?\nAnswer:", " something else"),
    ("", "a text after nothing"),
    ("ends in a line break\n", "x"),
    ("two spaces  ", "moved"),
    ("much too long for this model, " * 12, "is what stands before it"),
]
TEXTS = ["short", "a longer text that needs several windows, " * 8]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("lm-eval")
    source = tiny_hf.llama(folder / "hf")
    made = tiny_models.run(pull, folder / "model", reference="tiny", files=raw_input(source))
    theirs = huggingface.HFLM(
        pretrained=str(source), device="cpu", dtype="float32", batch_size=2, max_length=LENGTH
    )
    return MaturaLM(made.path, max_length=LENGTH), theirs


def asked(kind: str, *arguments: tuple[Any, ...]) -> list[Any]:
    return [
        instance.Instance(request_type=kind, doc={}, arguments=one, idx=i, metadata=("t", i, 1))
        for i, one in enumerate(arguments)
    ]


def test_log_likelihoods_and_greedy_flags_are_those_of_the_harness(both: tuple[Any, Any]) -> None:
    ours, theirs = (one.loglikelihood(asked("loglikelihood", *PAIRS), disable_tqdm=True) for one in both)
    assert [value for value, _ in ours] == pytest.approx([value for value, _ in theirs], abs=1e-3)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]


def test_whole_texts_are_rolled_over_in_the_same_windows(both: tuple[Any, Any]) -> None:
    requests = asked("loglikelihood_rolling", *((text,) for text in TEXTS))
    ours, theirs = (one.loglikelihood_rolling(requests, disable_tqdm=True) for one in both)
    assert ours == pytest.approx(theirs, abs=1e-2, rel=1e-5)


def test_greedy_answers_are_those_of_the_harness(both: tuple[Any, Any]) -> None:
    settings = {"until": ["\n", "e"], "max_gen_toks": 12, "do_sample": False, "temperature": 0.0}
    requests = asked("generate_until", *((text, settings) for text in ("hello", "Question: 1 2", "x " * 90)))
    ours, theirs = (one.generate_until(requests, disable_tqdm=True) for one in both)
    assert ours == theirs
    assert any(ours)


def test_settings_that_are_not_known_are_told(both: tuple[Any, Any]) -> None:
    with pytest.raises(MaturaError, match="not known here: num_beams"):
        both[0].generate_until(asked("generate_until", ("a", {"num_beams": 4})))
    with pytest.raises(MaturaError, match="max_gen_toks: 500 leave no room in 96 tokens"):
        both[0].generate_until(asked("generate_until", ("a", {"max_gen_toks": 500})))


def test_a_model_that_does_not_continue_text_is_refused(tmp_path: Path) -> None:
    draft = artifact.begin(
        tmp_path / "judge", kind="model", stage="finetune", version=1, config={}, inputs={}
    )
    labels = c.Classifier(labels=("a", "b"), pool="last", hidden="none", bias=False)
    store.save(draft.path, set_head(tiny_models.network(), labels))
    tiny_models.chatml().save(draft.path)
    with pytest.raises(MaturaError, match="models that continue text"):
        MaturaLM(draft.commit({}).path)


def test_a_conversation_is_written_by_the_models_own_template(both: tuple[Any, Any]) -> None:
    talk = [{"role": "user", "content": "hi"}]
    ours, theirs = (one.apply_chat_template(talk) for one in both)
    assert ours == theirs
    assert ours.endswith("<|im_start|>assistant\n")
