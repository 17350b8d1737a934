"""Figures of a tokenizer, counted by hand."""

import numpy as np

from matura.tokenizer import report, survey
from matura.tokenizer.survey import Text
from tests.tiny_models import chatml


def test_counts_by_hand() -> None:
    tokenizer = chatml().tokenizer
    texts = [Text("hello you", "a", "en"), Text("grüße", "b", "de"), Text("", "b", "")]
    found = survey.survey(tokenizer, texts)
    tokens = [len(tokenizer.encode(one.text)) for one in texts]
    told = found.told()
    assert told["tokens"] == sum(tokens)
    assert told["bytes"] == 9 + 7
    assert told["tokens_per_word"] == sum(tokens) / 3
    assert told["sources"]["b"]["documents"] == 2
    assert told["languages"]["de"]["bytes_per_token"] == 7 / tokens[1]
    assert told["unknown"] == 0
    assert told["exact"] == 1
    assert found.used.sum() == sum(tokens)


def test_unused_and_longest() -> None:
    tokenizer = chatml().tokenizer
    used = np.ones(tokenizer.vocab_size, dtype=np.int64)
    assert survey.unused(tokenizer, used)["tokens"] == 0
    used[tokenizer.encode("h")[0]] = 0
    used[tokenizer.id("<|im_end|>")] = 0  # special: not counted
    assert survey.unused(tokenizer, used)["examples"] == ["h"]
    sizes = [one["bytes"] for one in survey.longest(tokenizer)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] == max(
        len(tokenizer.token_bytes(id))
        for id in range(tokenizer.vocab_size)
        if id not in tokenizer.special_ids
    )


def test_the_page_escapes_what_it_shows() -> None:
    counts = survey.survey(chatml().tokenizer, [Text("hello", "<b>", "")]).told()
    told = {
        "line": "<i>",
        "tokenizers": {"this one": counts},
        "absent": {"<u>": "\u202e"},
        "unused": {"share": 0.5, "tokens": 1, "examples": ["<s>"]},
        "longest": [{"id": 1, "bytes": 3, "text": "<q>"}],
        "settings": {"kind": "bpe"},
    }
    page = report.render(told)
    for markup in ("<b>", "<i>", "<u>", "<s>", "<q>", "\u202e"):
        assert markup not in page
