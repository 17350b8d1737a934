"""Which heads do what: on hand-made weights, and what a later word can change."""

import pytest
import torch

from matura.core.errors import MaturaError
from matura.inspect.attention import Attentions, record
from matura.inspect.heads import between, difference, patterns, without_sinks
from matura.inspect.reading import Inputs
from matura.model import config as c
from tests.inspect.readings import reading
from tests.model import tiny

IDS = [5, 6, 7, 5, 6]


def made(weights_LHTS: torch.Tensor, *, causal: bool = True) -> Attentions:
    L, H, T, _ = weights_LHTS.shape
    text = reading(IDS[:T])
    return Attentions("decoder", tuple(range(L)), tuple(range(H)), weights_LHTS, text, text, causal, H, H)


def pointing(*keys: int) -> torch.Tensor:
    """Every query puts all its weight on one key."""
    return torch.eye(len(keys))[list(keys)]


def test_heads_are_sorted_by_the_weight_between_two_tokens() -> None:
    weights = torch.zeros(2, 2, 3, 3)
    weights[0, 0, 2] = torch.tensor([0.2, 0.5, 0.3])
    weights[0, 1, 2] = torch.tensor([0.9, 0.1, 0.0])
    weights[1, 0, 2] = torch.tensor([0.0, 0.4, 0.6])
    weights[1, 1, 2] = torch.tensor([0.0, 1.0, 0.0])
    found = between(made(weights), 2, 1)
    assert [(one.layer, one.head) for one in found] == [(1, 1), (0, 0), (1, 0), (0, 1)]
    assert [one.weight for one in found] == pytest.approx([1, 0.5, 0.4, 0.1])
    assert [one.strongest for one in found] == [1, 1, 2, 0]
    with pytest.raises(MaturaError, match=r"token 1 \('t6'\) cannot see the later token 2 \('t7'\)"):
        between(made(weights), 1, 2)
    assert between(made(weights, causal=False), 1, 2)[0].weight == 0


def test_sinks_go_and_the_rest_sums_to_one() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.6, 0.4, 0.0], [0.5, 0.3, 0.2]])[None, None]
    left, removed = without_sinks(weights, (0,))
    torch.testing.assert_close(removed[0, 0], torch.tensor([1.0, 0.6, 0.5]))
    expected = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.6, 0.4]])
    torch.testing.assert_close(left[0, 0], expected)
    both, removed = without_sinks(weights, (0, 2))
    torch.testing.assert_close(removed[0, 0], torch.tensor([1.0, 0.6, 0.7]))
    assert both[0, 0, 2].tolist() == [0, 1, 0]
    assert weights[0, 0, 0, 0] == 1  # what was given stays


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("previous", pointing(0, 0, 1, 2, 3)),
        ("first", pointing(0, 0, 0, 0, 0)),
        ("duplicate", pointing(0, 1, 2, 0, 1)),  # tokens 3 and 4 are copies of 0 and 1
        ("induction", pointing(0, 1, 2, 1, 2)),
    ],
)
def test_a_perfect_head_scores_one_and_only_in_its_pattern(name: str, head: torch.Tensor) -> None:
    scores = patterns(made(head[None, None]))
    assert set(scores) == {"previous", "first", "duplicate", "induction"}
    assert scores[name].shape == (1, 1)
    assert float(scores[name]) == pytest.approx(1)
    assert all(float(score) < 0.8 for other, score in scores.items() if other != name)


def test_an_even_head_scores_what_chance_gives() -> None:
    even = torch.ones(5, 5).tril()
    scores = patterns(made((even / even.sum(-1, keepdim=True))[None, None]))
    assert float(scores["first"]) == pytest.approx((1 / 2 + 1 / 3 + 1 / 4 + 1 / 5) / 4)
    assert float(scores["duplicate"]) == pytest.approx((1 / 4 + 1 / 5) / 2)


def test_patterns_that_no_token_can_follow_are_left_out() -> None:
    assert set(patterns(made(torch.eye(3)[None, None]))) == {"previous", "first"}
    assert patterns(made(torch.ones(1, 1, 1, 1))) == {}


def text_and_variant(config: c.ModelConfig) -> tuple[Attentions, Attentions]:
    """The same text but for its last token."""
    model = tiny.build(config)
    ends = [[*IDS, 9, 20], [*IDS, 9, 21]]
    side = "target" if config.decoder else "source"
    one, other = (record(model, Inputs(**{side: reading(ids)}))[0] for ids in ends)
    return one, other


def test_a_causal_row_cannot_depend_on_what_comes_later() -> None:
    one, other = text_and_variant(tiny.llama_config())
    assert all(difference(one, other, query)[0].weight < 1e-12 for query in range(6))
    assert difference(*text_and_variant(tiny.llama_config()), 5)[-1].strongest == 0


def test_an_encoder_row_can() -> None:
    stack = tiny.gpt_stack(causal=False)
    one, other = text_and_variant(c.ModelConfig(vocabulary=97, context=128, encoder=stack))
    found = difference(one, other, 2)
    assert found[0].weight > 1e-3
    changes = (one.weights_LHTS - other.weights_LHTS)[found[0].layer, found[0].head, 2].abs()
    assert found[0].weight == float(changes.max())
    assert found[0].strongest == int(changes.argmax())


def test_rows_of_different_texts_are_not_compared() -> None:
    model = tiny.build(tiny.llama_config())
    texts = ([5, 6, 7], [5, 6, 7, 8], [9, 6, 7])
    one, longer, other = (record(model, Inputs(target=reading(ids)))[0] for ids in texts)
    with pytest.raises(MaturaError, match="the texts have 3 and 4 tokens"):
        difference(one, longer, 1)
    with pytest.raises(MaturaError, match="token 0 is 't5' in one text and 't9' in the other"):
        difference(one, other, 0)
