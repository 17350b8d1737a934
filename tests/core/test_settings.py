"""Settings of generation: what is refused, and what a model's own defaults become."""

from typing import Any

import pytest

from matura.core.config import parse
from matura.core.errors import ConfigError
from matura.core.settings import ORDER, Beams, Sampling, generation_defaults, is_on


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"order": ["temperature", "top_pp"]}, r"order\[1\]: .*did you mean 'top_p'"),
        ({"order": ["top_k", "temperature", "top_k"]}, "order names 'top_k' twice"),
        ({"order": ["temperature"], "top_p": 0.9}, "top_p is set, but order leaves it out"),
        ({"order": [], "temperature": 0}, "temperature is set, but order leaves it out"),
        ({"bad_words": ["a", ""]}, "bad_words has an empty text"),
        ({"logit_bias": {"hello": 1.0}}, "logit_bias"),
        ({"logit_bias": {"3": float("inf")}}, "logit_bias"),
        ({"logprobs": 21}, "logprobs"),
        ({"n": 0}, "n: expected"),
        ({"typical_p": 0}, "typical_p"),
    ],
)
def test_what_cannot_be_is_told(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(Sampling, values, "sampling")


def test_an_order_may_leave_out_what_is_off() -> None:
    assert parse(Sampling, {"order": ["top_p", "temperature"], "top_p": 0.5}, "s").order == (
        "top_p",
        "temperature",
    )
    assert parse(Sampling, {"logit_bias": {"42": -5}}, "s").logit_bias == {42: -5.0}
    assert [name for name in ORDER if is_on(Sampling(), name)] == []
    assert is_on(Sampling(min_p=0.1), "min_p")


def test_one_text_stands_for_a_list_of_one() -> None:
    assert parse(Sampling, {"stop": "ab", "bad_words": "c"}, "s") == Sampling(stop=("ab",), bad_words=("c",))
    with pytest.raises(ConfigError, match="stop"):
        parse(Sampling, {"stop": 3.5j}, "s")


def test_the_defaults_of_a_model_are_followed_or_named() -> None:
    own = {"do_sample": True, "typical_p": 0.5, "no_repeat_ngram": 3, "beams": 4, "length_penalty": 2.0}
    found, unknown = generation_defaults({**own, "min_length": 5, "eta_cutoff": 0.1})
    assert found == {"typical_p": 0.5, "no_repeat_ngram": 3}
    assert unknown == ("eta_cutoff", "min_length")
    assert generation_defaults({"do_sample": False, "temperature": 0.9}) == ({"temperature": 0}, ())


def test_beams_return_no_more_than_they_carry() -> None:
    with pytest.raises(ConfigError, match="n=5 answers need at least as many beams, not 4"):
        parse(Beams, {"n": 5}, "beams")
    with pytest.raises(ConfigError, match="early_stopping"):
        parse(Beams, {"early_stopping": "always"}, "beams")
    assert parse(Beams, {"early_stopping": "never"}, "beams").early_stopping == "never"
