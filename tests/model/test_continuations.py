"""What contexts share is read once, and nothing changes by it."""

import pytest
import torch

from matura.model.continuations import SHARED, plan
from matura.model.logprobs import continuation_logprobs, continuation_scores
from tests.model.tiny import build, llama_config, some_ids

EXAMPLES = some_ids(SHARED + 8, seed=1).tolist()


def questions(count: int, choices: int = 3) -> list[tuple[list[int], list[int]]]:
    """Rows of questions after the same examples."""
    rows = []
    for n in range(count):
        context = [*EXAMPLES, 7, *some_ids(2 + n, seed=10 + n).tolist()]
        rows += [(context, some_ids(1 + c, seed=100 + 7 * n + c).tolist()) for c in range(choices)]
    return rows


def plainly(model, row):
    """One forward pass for one row, all logits."""
    context, continuation = row
    logprobs_TV = torch.log_softmax(
        model.logits(model.decode(torch.tensor([[*context, *continuation]])))[0].float(), -1
    )
    at = [len(context) - 1 + i for i in range(len(continuation))]
    return [logprobs_TV[t, id].item() for t, id in zip(at, continuation, strict=True)], [
        bool(logprobs_TV[t].argmax() == id) for t, id in zip(at, continuation, strict=True)
    ]


def test_examples_before_every_question_are_read_once() -> None:
    readings = plan(questions(5), 10_000)
    assert [len(one.prefix) for one in readings] == [len(EXAMPLES) + 1]
    assert sorted(readings[0].rows) == list(range(15))


@pytest.mark.parametrize("tokens_per_batch", [1, 60, 10_000])
def test_sharing_changes_no_score(tokens_per_batch: int) -> None:
    model = build(llama_config())
    rows = [*questions(5), ([3], [4, 5]), (some_ids(9, seed=3).tolist(), [6])]
    best = int(model.logits(model.decode(torch.tensor([rows[0][0]])))[0, -1].argmax())
    rows.append((rows[0][0], [best]))
    found = continuation_scores(model, rows, tokens_per_batch=tokens_per_batch)
    for row, scored in zip(rows, found, strict=True):
        logprobs, greedy = plainly(model, row)
        assert [value for value, _ in scored] == pytest.approx(logprobs, abs=1e-5)
        assert [one for _, one in scored] == greedy
    assert found[-1][0][1] is True
    assert any(not one for scored in found for _, one in scored)
    alone = continuation_logprobs(model, rows, tokens_per_batch=tokens_per_batch)
    assert alone == [[value for value, _ in scored] for scored in found]


def test_every_row_is_read_in_exactly_one_pass() -> None:
    assert plan([], 100) == plan([([5], [])], 100) == []
    rows = [*questions(9), *[(some_ids(n, seed=n).tolist(), [1, 2]) for n in range(1, 9)], ([5], [])]
    for limit in (1, 50, 120, 10_000):
        seen = [i for one in plan(rows, limit) for i in one.rows]
        assert sorted(seen) == list(range(len(rows) - 1))
        assert all(
            rows[i][0][: len(one.prefix)] == list(one.prefix) for one in plan(rows, limit) for i in one.rows
        )


def test_a_short_beginning_in_common_is_not_worth_it() -> None:
    context = EXAMPLES[: SHARED - 1]
    assert all(not one.prefix for one in plan([([*context, 1, 2], [3]), ([*context, 2, 1], [3])], 1000))


def test_a_distant_relative_does_not_shorten_what_the_others_share() -> None:
    long = some_ids(4 * SHARED, seed=5).tolist()
    rows = [([*long, n, 1], [2]) for n in (20, 21, 22)]
    rows.append(([*long[:SHARED], *[9] * 3], [2]))
    prefixes = {i: len(one.prefix) for one in plan(rows, 10_000) for i in one.rows}
    assert [prefixes[i] for i in range(3)] == [4 * SHARED] * 3
    assert prefixes[3] == 0


def test_a_context_that_is_the_beginning_of_others_keeps_a_token_of_its_own() -> None:
    model = build(llama_config())
    rows = [(EXAMPLES, [3, 4]), ([*EXAMPLES, 5], [6]), ([*EXAMPLES, 5, 6], [7, 8])]
    assert {len(one.prefix) for one in plan(rows, 1000)} == {len(EXAMPLES) - 1}
    for row, scored in zip(rows, continuation_scores(model, rows), strict=True):
        assert [value for value, _ in scored] == pytest.approx(plainly(model, row)[0], abs=1e-5)
