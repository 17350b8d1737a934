"""People's rankings beside the samples: by prompt and text, several people as one, and what finds no place."""

from matura.core.preferences import Answer, Ranking
from matura.data.preferences.matching import match


def row(name: str, *texts: str, **ranks: int | None) -> Ranking:
    answers = tuple(Answer(text, rank=ranks.get(text)) for text in texts)
    return Ranking(name, ({"role": "user", "content": name},), answers)


def by(annotator: str, name: str, **ranks: int) -> Ranking:
    answers = tuple(Answer(text, rank=rank) for text, rank in ranks.items())
    return Ranking(f"{annotator}-{name}", ({"role": "user", "content": name},), answers, annotator=annotator)


def ranks(one: Ranking) -> dict[str, int | None]:
    return {answer.text: answer.rank for answer in one.answers}


def test_one_persons_ranks_are_kept_whatever_the_order_of_the_answers() -> None:
    found = match([row("p", "a", "b", "c", "d")], [by("anna", "p", c=1, a=2, b=2)])
    assert ranks(found.rows[0]) == {"a": 2, "b": 2, "c": 1, "d": None}
    assert found.rows[0].annotator == "anna"
    assert (found.ranked, found.annotators, found.unknown_answers, found.unknown_prompts) == (
        1,
        ("anna",),
        0,
        (),
    )


def test_people_are_averaged_by_the_shares_of_answers_that_they_prefer() -> None:
    people = [by("anna", "p", a=1, b=2, c=3), by("ben", "p", b=1, a=2, c=3), by("cleo", "p", b=1, c=2)]
    # a: (1 + 1/2) / 2 = .75; b: (1/2 + 1 + 1) / 3 = .83; c: 0
    found = match([row("p", "a", "b", "c")], people)
    assert ranks(found.rows[0]) == {"a": 2, "b": 1, "c": 3}
    assert found.rows[0].annotator == "anna, ben, cleo"
    tied = match([row("p", "a", "b")], [by("anna", "p", a=1, b=2), by("ben", "p", b=1, a=2)])
    assert ranks(tied.rows[0]) == {"a": 1, "b": 1}


def test_scores_and_thumbs_of_people_order_too() -> None:
    scores = Ranking(
        "s", ({"role": "user", "content": "p"},), (Answer("a", score=1.0), Answer("b", score=4.0))
    )
    assert ranks(match([row("p", "a", "b")], [scores]).rows[0]) == {"a": 2, "b": 1}


def test_what_finds_no_place_is_reported() -> None:
    people = [by("anna", "p", a=1, other=2, b=3), by("anna", "q", a=1, b=2)]
    found = match([row("p", "a", "b"), row("r", "a", "b")], people)
    assert ranks(found.rows[0]) == {"a": 1, "b": 2}
    assert ranks(found.rows[1]) == {"a": None, "b": None}
    assert (found.ranked, found.unknown_answers, found.unknown_prompts) == (1, 1, ("anna-q",))


def test_an_answer_that_was_drawn_twice_has_one_rank() -> None:
    found = match([row("p", "a", "a", "b")], [by("anna", "p", b=1, a=2)])
    assert [one.rank for one in found.rows[0].answers] == [2, 2, 1]


def test_old_ranks_of_the_samples_do_not_survive() -> None:
    assert ranks(match([row("p", "a", "b", a=1, b=2)], [by("anna", "q", a=1, b=2)]).rows[0]) == {
        "a": None,
        "b": None,
    }
