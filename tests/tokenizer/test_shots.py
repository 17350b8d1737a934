"""Orders of examples: the near one is found, chance finds it as often as chance does, different ones differ."""

import pytest

from matura.tokenizer import shots

TOPICS = (
    "tea leaves water cup",
    "train rails station ticket",
    "apple tree branch fruit",
    "storm wind rain cloud",
)


def pool(each: int = 10) -> list[str]:
    """Texts of four topics, in turn; each has words of its own too."""
    return [f"why does {TOPICS[n % 4]} matter in place{n} and year{n * 17}" for n in range(4 * each)]


def hits(order: list[int], topic: int, count: int = 4) -> float:
    return sum(number % 4 == topic for number in order[:count]) / count


def test_similar_finds_the_topic_and_chance_does_not() -> None:
    texts = pool()
    index = shots.Index(texts)
    ids = [f"row{n}" for n in range(len(texts))]
    asked = [(topic, f"tell me of {words} please") for topic, words in enumerate(TOPICS)]
    similar = [hits(shots.nearest(index, text), topic) for topic, text in asked]
    chance = [hits(shots.drawn(ids, seed), topic) for topic, _ in asked for seed in range(25)]
    assert similar == [1.0, 1.0, 1.0, 1.0]
    assert 0.15 < sum(chance) / len(chance) < 0.35  # one topic of four


def test_a_text_is_most_like_itself() -> None:
    texts = pool(3)
    index = shots.Index(texts)
    for number, text in enumerate(texts):
        assert shots.nearest(index, text)[0] == number
        assert index.likeness(text)[number] == pytest.approx(1.0)


def test_likeness_is_the_cosine_by_the_formula() -> None:
    index = shots.Index(["tea tea cup", "cup train"])
    rare, often = 1 + 0.4054651081081644, 1.0  # ln((1 + 2) / (1 + n)) + 1
    twice = 1.6931471805599454 * rare  # (1 + ln 2) idf
    first = (twice**2 + often**2) ** 0.5
    assert index.likeness("cup")[0] == pytest.approx(often / first)
    assert index.likeness("nothing known") == pytest.approx([0, 0])


def test_an_order_of_chance_is_kept_when_the_pool_grows() -> None:
    ids = [f"row{n}" for n in range(30)]
    before = [ids[i] for i in shots.drawn(ids[:20], 1)]
    after = [ids[i] for i in shots.drawn(ids, 1) if i < 20]
    assert before == after != ids[:20]
    assert shots.drawn(ids, 1) != shots.drawn(ids, 2)


def test_diverse_takes_every_topic_before_any_twice() -> None:
    texts = [text for topic in TOPICS for text in (topic, f"{topic} again", f"{topic} once more")]
    taken = shots.diverse(texts, 4)
    assert {number // 3 for number in taken} == {0, 1, 2, 3}
    assert sorted(shots.diverse(texts, 100)) == list(range(12))
    assert shots.diverse([], 3) == []


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        ("What is tea?", "what is TEA", True),
        ("What is the capital of Peru?", "Question: What is the capital of Peru?\nAnswer:", True),
        ("open jar 3", "Question: open jar 3\nAnswer:", True),
        ("open jar 3", "Question: open jar 31\nAnswer:", False),
        ("tea", "Tell me everything that you know of tea", False),
        ("", "", False),
        ("茶是什么", "茶是什么？", True),
    ],
)
def test_whether_two_texts_ask_the_same(one: str, other: str, wanted: bool) -> None:
    assert shots.same(one, other) is shots.same(other, one) is wanted


def test_a_text_holds_a_question_only_at_whole_words() -> None:
    question = "which river flows through the old town of Passau and where does it end"
    runs = shots.runs(question)
    assert shots.holds(f"Know this. {question.upper()}? It is the Danube.", runs)
    assert shots.holds("... flows through the old town of Passau and ...", runs)
    assert not shots.holds("which river flows through the new town", runs)
    assert not shots.holds("xopen jar 3", shots.runs("open jar 3"))
    assert shots.runs("two words") == set()
