"""Text as it streams: whole characters, and nothing from the first stop string on."""

import random
from collections.abc import Iterator, Sequence

import pytest

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.infer import text as texts
from matura.infer.engine import Request, Token
from matura.infer.text import Answer, StopStrings, answers, stream_text, token_bias
from matura.tokenizer.tokenizer import Tokenizer
from tests.tiny_models import chatml, network


def pieces(text: str, draw: random.Random) -> list[str]:
    cuts = sorted(draw.choices(range(len(text) + 1), k=draw.randrange(6)))
    bounds = zip([0, *cuts], [*cuts, len(text)], strict=True)
    return [text[a:b] for a, b in bounds]


def first_stop(text: str, stops: Sequence[str]) -> str | None:
    """What stands before the stop string that is complete first (of several, the longest); None without one."""
    found = [
        (at + len(stop), at) for stop in stops if stop for at in range(len(text)) if text.startswith(stop, at)
    ]
    return text[: min(found)[1]] if found else None


def test_nothing_is_lost_and_nothing_from_a_stop_string_comes_out_however_the_text_is_cut() -> None:
    draw = random.Random(0)
    for _ in range(6000):
        text = "".join(draw.choices("abc\n", k=draw.randrange(14)))
        stops = ["".join(draw.choices("abc\n", k=draw.randrange(5))) for _ in range(draw.randrange(4))]
        stop = StopStrings(stops)
        out = [stop.push(piece) for piece in pieces(text, draw)]
        expected = first_stop(text, stops)
        assert stop.found == (expected is not None)
        assert "".join([*out, stop.finish()]) == (text if expected is None else expected), (text, stops)


def test_only_what_could_become_a_stop_is_held_back() -> None:
    stop = StopStrings(["\n\nUser:"])
    assert [stop.push(piece) for piece in ("one\n", "two", "\n\n", "Us", "ual", "\n", "\nUser: x", "y")] == [
        "one",
        "\ntwo",
        "",
        "",
        "\n\nUsual",
        "",
        "",
        "",
    ]
    assert stop.found
    assert stop.finish() == ""


def written(monkeypatch: pytest.MonkeyPatch, tokens: list[Token], *stop: str) -> list[str]:
    """What `stream_text` makes of these tokens; the tokens that it never asked for stay in the list."""

    def stream(model: object, requests: Sequence[Request]) -> Iterator[Token]:
        while tokens:
            yield tokens.pop(0)

    monkeypatch.setattr(texts, "stream", stream)
    tokenizer = chatml().tokenizer
    return list(stream_text(None, tokenizer, [1], Sampling(stop=stop), [2]))  # type: ignore[arg-type]


def spelled(tokenizer: Tokenizer, text: str, finish: str, end: Sequence[int] = ()) -> list[Token]:
    ids = [*tokenizer.encode(text), *end]
    return [Token(0, id, finish if n == len(ids) - 1 else None) for n, id in enumerate(ids)]  # type: ignore


TEXT = "naïve 日本語 😀 done"


def test_pieces_are_whole_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chatml().tokenizer
    found = written(monkeypatch, spelled(tokenizer, TEXT, "length"))
    assert "".join(found) == TEXT
    assert found == list(TEXT)
    assert written(monkeypatch, spelled(tokenizer, TEXT, "stop", [2])) == list(TEXT)


def test_a_character_that_never_ends_is_one_replacement_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = chatml().tokenizer
    half = [Token(0, id, None) for id in tokenizer.encode("a😀")[:-1]]
    cut = [*half[:-1], Token(0, half[-1].id, "length")]
    assert "".join(written(monkeypatch, cut)) == "a\ufffd"
    assert "".join(written(monkeypatch, [*half, Token(0, 2, "stop")])) == "a\ufffd"


def test_a_stop_string_ends_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = spelled(chatml().tokenizer, "one END two", "length")
    assert "".join(written(monkeypatch, tokens, "END", "nothing")) == "one "
    assert len(tokens) == len(" two")
    tokens = spelled(chatml().tokenizer, "one EN", "length")
    assert "".join(written(monkeypatch, tokens, "END")) == "one EN"


def test_a_real_model_streams_what_its_ids_say() -> None:
    model, tokenizer = network(), chatml().tokenizer
    settings = Sampling(max_new_tokens=40, seed=1)
    found = list(stream_text(model, tokenizer, [5, 6, 7], settings, [2]))
    assert len(found) > 5
    assert all(found)
    again = "".join(stream_text(model, tokenizer, [5, 6, 7], settings, [2]))
    assert "".join(found) == again
    stop = again[10:12]
    cut = "".join(
        stream_text(model, tokenizer, [5, 6, 7], settings.model_copy(update={"stop": (stop,)}), [2])
    )
    assert cut == again[: again.index(stop)]


def prompts(count: int) -> list[list[int]]:
    draw = random.Random(3)
    return [[draw.randrange(3, 200) for _ in range(draw.randrange(1, 9))] for _ in range(count)]


def alone(request: Request) -> str:
    return "".join(
        stream_text(network().double(), chatml().tokenizer, request.ids, request.sampling, request.stop_ids)
    )


def test_batches_answer_like_streams_with_stop_strings_of_their_own() -> None:
    model, tokenizer = network().double(), chatml().tokenizer
    free = [Request(ids, Sampling(max_new_tokens=30, seed=n), [2]) for n, ids in enumerate(prompts(6))]
    texts = [alone(request) for request in free]
    assert all(len(text) > 12 for text in texts)
    stops: list[tuple[str, ...]] = [(text[6:9], "never") for text in texts]
    stops[1], stops[4] = (), ("never",)
    requests = [
        Request(one.ids, one.sampling.model_copy(update={"stop": stop}), one.stop_ids)
        for one, stop in zip(free, stops, strict=True)
    ]
    for batch in (2, 16):
        found = answers(model, tokenizer, requests, batch=batch)
        assert [one.text for one in found] == [alone(request) for request in requests]
        for one, text, stop in zip(found, texts, stops, strict=True):
            cut = next((text.index(s) for s in stop if s in text), None)
            assert (one.text, one.finish == "stop" or cut is None) == (text[:cut], True)
            whole = tokenizer.decode(one.ids, skip_special=True)
            assert whole.startswith(one.text) if cut is None else stop[0] in whole
            assert len(one.ids) < 30 or cut is None


def test_answers_without_stop_strings_are_what_their_ids_say() -> None:
    model, tokenizer = network(), chatml().tokenizer
    (free,) = answers(model, tokenizer, [Request([5, 6, 7], Sampling(max_new_tokens=20))])
    assert (len(free.ids), free.finish) == (20, "length")
    assert free.text == tokenizer.decode(free.ids, skip_special=True)
    assert (free.logprobs, free.top) == ((), ())
    stop = free.ids[7]
    heard: list[int] = []
    (cut,) = answers(
        model, tokenizer, [Request([5, 6, 7], Sampling(max_new_tokens=20), [stop])], advance=heard.append
    )
    assert cut == Answer(tokenizer.decode(free.ids[:7], skip_special=True), free.ids[:7], "stop")
    assert sum(heard) == 8
    assert answers(model, tokenizer, []) == []


def test_samples_stand_side_by_side_with_their_logprobs() -> None:
    model, tokenizer = network(), chatml().tokenizer
    settings = Sampling(max_new_tokens=6, n=3, logprobs=2)
    found = answers(model, tokenizer, [Request([5], settings), Request([6, 7], settings)])
    again = answers(model, tokenizer, [Request([6, 7], settings)])
    assert [one.ids for one in found[3:]] == [one.ids for one in again]
    assert len({one.ids for one in found}) == 6
    for one in found:
        assert len(one.logprobs) == len(one.top) == len(one.ids) == 6
        assert all(len(top) == 2 and top[0][1] >= top[1][1] for top in one.top)
        assert all(logprob <= top[0][1] for logprob, top in zip(one.logprobs, one.top, strict=True))


def test_bad_words_are_not_written() -> None:
    model, tokenizer = network(), chatml().tokenizer
    settings = Sampling(max_new_tokens=30, seed=5)
    before = "".join(stream_text(model, tokenizer, [5, 6, 7], settings, []))
    bad = tuple(dict.fromkeys(letter for letter in before if letter.isalpha()))[:5]
    assert bad
    forbidding = settings.model_copy(update={"bad_words": bad})
    streamed = "".join(stream_text(model, tokenizer, [5, 6, 7], forbidding, []))
    (answer,) = answers(model, tokenizer, [Request([5, 6, 7], forbidding)])
    assert answer.text == streamed != before
    banned = {id for letter in bad for id in tokenizer.encode(letter)}
    assert not banned.intersection(answer.ids)


def test_bad_words_are_spelled_at_the_start_and_after_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Request] = []
    monkeypatch.setattr(texts, "stream", lambda model, requests: asked.extend(requests) or iter(()))
    tokenizer = chatml().tokenizer
    settings = Sampling(bad_words=("hello", " x"), stop=("END",))
    list(stream_text(None, tokenizer, [1], settings, [2]))  # type: ignore[arg-type]
    spelled = [tuple(tokenizer.encode(text)) for text in ("hello", " hello", " x")]
    assert list(asked[0].bad_words) == spelled
    assert (asked[0].sampling.stop, asked[0].sampling.bad_words) == ((), ())


def test_a_stream_of_text_has_no_place_for_some_settings() -> None:
    for settings, name in ((Sampling(n=2), "n above 1"), (Sampling(logprobs=0), "logprobs")):
        with pytest.raises(MaturaError, match=f"no place for {name}"):
            stream_text(network(), chatml().tokenizer, [1], settings, [])


def test_a_bias_is_named_by_text_or_id() -> None:
    tokenizer = chatml().tokenizer
    (comma,) = tokenizer.encode(",")
    assert token_bias(tokenizer, {",": -5.0, comma + 1: 2.0}) == {comma: -5.0, comma + 1: 2.0}
    with pytest.raises(MaturaError, match=r"'日' is 3 tokens .* not one"):
        token_bias(tokenizer, {"日": 1.0})
    with pytest.raises(MaturaError, match="was named before"):
        token_bias(tokenizer, {",": 1.0, comma: 2.0})


def test_a_character_that_never_ends_is_the_same_with_and_without_stop_strings() -> None:
    model, tokenizer = network().double(), chatml().tokenizer
    plain = [Request([5, 6, 7], Sampling(max_new_tokens=n)) for n in range(1, 31)]
    stopped = [Request([5, 6, 7], Sampling(max_new_tokens=n, stop=("never",))) for n in range(1, 31)]
    found = [one.text for one in answers(model, tokenizer, stopped)]
    assert found == [one.text for one in answers(model, tokenizer, plain)]
    assert 0 < sum(text.endswith("\ufffd") for text in found) < 30
