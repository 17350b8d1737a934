import math
from types import SimpleNamespace

import pytest

from matura.core.errors import MaturaError
from matura.core.records import CUT, Conversation
from matura.evaluate import score
from matura.evaluate.score import Bits, clip, documents, fitting, pair, windows
from matura.train.examples import from_conversation
from tests.tiny_models import chatml
from tests.tokenizer.test_tools import CALLING, TOOLS, with_template
from tests.tokenizer.test_tools import called as calling


class Words:
    """Tokens are words with the space before them: "a b" -> ["a", " b"]; an id is a number for each."""

    bos_id: int | None = 0
    eos_id: int | None = 1
    prefix_ids = ()

    def __init__(self, prefix_ids=()):
        self.known = {}
        self.prefix_ids = prefix_ids

    def token_bytes(self, id):
        return self.text([id]).encode()

    def encode(self, text):
        words, start = [], 0
        for i in range(1, len(text) + 1):
            if i == len(text) or (text[i] == " " and text[i - 1] != " "):
                words.append(text[start:i])
                start = i
        return [2 + self.known.setdefault(word, len(self.known)) for word in words]

    def text(self, ids):
        back = {2 + n: word for word, n in self.known.items()}
        return "".join(back[i] for i in ids)


class Letters:
    bos_id: int | None = None
    eos_id: int | None = 7
    prefix_ids = ()

    def encode(self, text):
        return [ord(c) for c in text]

    def token_bytes(self, id):
        return chr(id).encode()


def halves(model, rows, *, advance=None):
    """A model that gives every token probability 1/2."""
    return [[math.log(0.5)] * len(continuation) for _, continuation in rows]


def test_a_pair_is_cut_where_the_context_ends():
    words = Words()
    context, continuation = pair(words, "one two", " three four")
    assert words.text(context) == "one two"
    assert words.text(continuation) == " three four"


def test_spaces_at_the_end_of_a_context_go_to_the_continuation():
    words = Words()
    context, continuation = pair(words, "one two  ", "three")
    assert words.text(context) == "one two"
    assert words.text(continuation) == "  three"


def test_line_breaks_at_the_end_of_a_context_go_to_the_continuation_too():
    assert pair(Letters(), "a\n", "b") == ([ord("a")], [ord("\n"), ord("b")])


def test_an_empty_context_is_the_begin_or_else_the_end_of_text():
    assert pair(Words(), "", "one")[0] == [0]
    assert pair(Letters(), "  ", "x") == ([7], [ord(" "), ord(" "), ord("x")])
    with pytest.raises(ValueError, match="neither"):
        pair(SimpleNamespace(bos_id=None, eos_id=None, prefix_ids=()), "", "x")


def test_what_a_model_expects_before_a_text_comes_first():
    words = Words(prefix_ids=(0,))
    assert pair(words, "", "one")[0] == [0]
    context, _ = pair(words, "one two", " three")
    assert (context[0], words.text(context[1:])) == (0, "one two")


def test_a_merge_over_the_whole_boundary_still_leaves_a_continuation():
    merged = SimpleNamespace(prefix_ids=(), encode=lambda text: [5] if text == "ab" else [6])
    assert pair(merged, "a", "b") == ([6], [6])


def test_a_context_too_long_for_the_window_loses_its_beginning():
    assert fitting(([1, 2], [3, 4, 5]), 3) == ([2], [3, 4, 5])  # the input is 2, 3, 4
    assert fitting(([1, 2], [3]), 3) == ([1, 2], [3])
    assert fitting(([1, 2, 3, 4], [5]), 3) == ([2, 3, 4], [5])
    assert fitting(([1, 2], [3, 4, 5, 6]), 3) == ([2], [4, 5, 6])


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
def test_documents_count_every_token_once_whatever_the_window(window):
    text = "a b c d e f g"
    (result,) = documents(None, Words(), [text], begin=0, window=window, logprobs=halves)
    assert result == Bits(pytest.approx(7.0), len(text), 7)


@pytest.mark.parametrize("window", [1, 2, 3, 7, 100])
def test_without_a_begin_token_the_first_token_is_given_and_its_bytes_do_not_count(window):
    (result,) = documents(None, Words(), ["éa b c"], begin=None, window=window, logprobs=halves)
    assert result == Bits(pytest.approx(2.0), len(" b c"), 2)


def test_windows_look_back_as_far_as_they_may():
    assert windows([1, 2, 3, 4, 5, 6, 7], 0, window=3) == [
        ([0], [1, 2, 3]),
        ([3], [4, 5, 6]),
        ([4, 5, 6], [7]),  # the last window's input is 4, 5, 6: as long as the others
    ]
    assert windows([1, 2, 3, 4, 5], None, window=3) == [([1], [2, 3, 4]), ([2, 3, 4], [5])]
    assert windows([], 0) == windows([], None) == windows([1], None) == []


def test_documents_are_scored_on_their_own():
    seen = []

    def spy(model, rows, *, advance=None):
        seen.extend(rows)
        return halves(model, rows)

    found = documents(None, Words(), ["a b", "", "c"], begin=0, logprobs=spy)
    assert [context for context, _ in seen] == [[0], [0]]
    assert [one.tokens for one in found] == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "tokens", "expected"),
    [
        ("one two three", 2, "one two"),
        ("one two three", 3, "one two three"),
        ("one two three ", 9, "one two three"),
        ("", 5, ""),
    ],
)
def test_clip_keeps_whole_words(text, tokens, expected):
    assert clip(Words(), text, tokens) == expected


def test_clip_of_letters_ends_before_the_word_that_does_not_fit():
    assert clip(Letters(), "one two three", 9) == "one two"
    assert clip(Letters(), "onetwothree", 5) == "onetw"
    assert len(Letters().encode(clip(Letters(), "x " * 10_000, 100))) <= 100


def talk(*contents, **more):
    roles = ("user", "assistant") * len(contents)
    turns = tuple({"role": r, "content": c} for r, c in zip(roles, contents, strict=False))
    return Conversation("c", turns, **more)


def test_divergence_is_taken_where_the_model_would_write():
    seen = []

    def spy(parent, child, rows, *, advance=None):
        seen.extend(rows)
        return [[0.25] * len(continuation) for _, continuation in rows]

    format = chatml()
    conversations = [talk("ab", "cd", "e", "f"), Conversation("plain", (), "xy"), talk("only a question")]
    found = score.kl(None, None, score.conversation_rows(format, conversations), divergence=spy)
    decode = format.tokenizer.decode
    assert [decode(continuation) for _, continuation in seen] == ["cd<|im_end|>", "f<|im_end|>", "xy"]
    assert decode(seen[1][0]).endswith("cd<|im_end|>\n<|im_start|>user\ne<|im_end|>\n<|im_start|>assistant\n")
    assert seen[2][0] == [format.begin_id]
    tokens = [len(continuation) for _, continuation in seen]
    assert found == [
        (0.25 * (tokens[0] + tokens[1]), tokens[0] + tokens[1]),
        (0.25 * tokens[2], tokens[2]),
        (0.0, 0),
    ]


def test_divergence_is_taken_at_the_tokens_that_training_would_learn():
    """Tools that may be called stand before the answers, and nobody counts an answer of weight 0 or the end of one
    that was not finished."""
    format = with_template(CALLING)
    called = Conversation("called", (*map(dict, calling(a=1)),), tools=tuple(TOOLS))
    asked = {"role": "user", "content": "hi"}
    first, second = ({"role": "assistant", "content": one} for one in ("first", "second"))
    mixed = Conversation("mixed", (asked, {**first, "weight": 0.0}, asked, {**second, **CUT}))
    for row in (called, mixed):
        (found,) = score.conversation_rows(format, [row])
        ((example,), _) = from_conversation(row, format, 1000)
        assert [id for _, new in found for id in new] == [
            id for id, counts in zip(example.ids, example.mask, strict=True) if counts
        ]
        assert list(found[-1][0]) + list(found[-1][1]) == list(example.ids)
    decode = format.tokenizer.decode
    (rows, (only,)) = score.conversation_rows(format, [called, mixed])
    assert [decode(new) for _, new in rows] == ['<call>add{"a": 1}</call><|im_end|>', "It is 3.<|im_end|>"]
    assert TOOLS[0]["function"]["description"] in decode(rows[0][0])
    assert decode(only[1]) == "second"
    with pytest.raises(MaturaError, match=r"conversation 'called': .* does not write"):
        score.conversation_rows(chatml(), [called])


def test_divergence_never_scores_what_nothing_stands_before():
    row = SimpleNamespace(ids=[3, 4, 5], mask=[1, 1, 0])
    assert score.masked_rows(row, 100) == [([3], [4])]
    assert score.masked_rows(SimpleNamespace(ids=[3], mask=[1]), 100) == []
