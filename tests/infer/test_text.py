"""Text as it streams: whole characters, and nothing from the first stop string on."""

import random
from collections.abc import Iterator, Sequence

import pytest

from matura.core.settings import Sampling
from matura.infer import text as texts
from matura.infer.engine import Request, Token
from matura.infer.text import StopStrings, stream_text
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
