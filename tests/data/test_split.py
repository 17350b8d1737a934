import pytest

from matura.core.errors import MaturaError
from matura.core.records import Document
from matura.data.split import fingerprint, split


def documents(count: int) -> list[Document]:
    return [Document(f"id{i}", f"text number {i:03}", f"{i}.md") for i in range(count)]


def ids(side: tuple[Document, ...]) -> list[str]:
    return [document.id for document in side]


def test_every_document_is_on_exactly_one_side_in_its_order() -> None:
    made = documents(40)
    result = split(made, heldout=12)
    assert len(result.heldout) == 12
    assert sorted(ids(result.train) + ids(result.heldout)) == sorted(ids(tuple(made)))
    assert ids(result.train) == [d.id for d in made if d in result.train]


def test_the_choice_depends_on_seed_and_ids_not_on_the_order_of_files() -> None:
    made = documents(40)
    chosen = set(ids(split(made, 12).heldout))
    assert set(ids(split(made[::-1], 12).heldout)) == chosen
    assert set(ids(split(made, 12, seed=1).heldout)) != chosen


def test_a_new_file_moves_at_most_one_document_across() -> None:
    made = documents(40)
    before, after = (
        set(ids(split(made, 12).heldout)),
        set(ids(split([*made, *documents(41)[40:]], 12).heldout)),
    )
    assert len(before - after) <= 1


@pytest.mark.parametrize(("count", "heldout"), [(3, 1), (4, 1), (9, 3), (30, 10), (36, 12), (100, 12)])
def test_never_more_than_a_third_is_held_out(count: int, heldout: int) -> None:
    assert len(split(documents(count), 12).heldout) == heldout


@pytest.mark.parametrize("seed", range(8))
def test_never_more_than_a_third_of_the_text_is_held_out(seed: int) -> None:
    made = [Document(f"id{i}", f"{i} " + "word " * 4**i, "a") for i in range(9)]
    result = split(made, 3, seed)
    assert 1 <= len(result.heldout) <= 3
    assert 3 * sum(len(d.text) for d in result.heldout) <= sum(len(d.text) for d in made)


@pytest.mark.parametrize("count", [0, 1, 2])
def test_fewer_than_three_documents_are_an_error_that_says_what_to_do(count: int) -> None:
    with pytest.raises(MaturaError, match=r"at least 3 are needed.*cut a long one"):
        split(documents(count), 12)


def test_three_copies_are_one_document() -> None:
    with pytest.raises(MaturaError, match="only 1 document is"):
        split([Document(f"id{i}", "Same text", "a") for i in range(3)], 1)


@pytest.mark.parametrize("heldout", [1, 2, 5, 12])
@pytest.mark.parametrize("seed", range(5))
def test_copies_never_straddle(heldout: int, seed: int) -> None:
    made = [
        Document(f"{i}-{copy}", f"Text  {i}" + "!" * copy, "a")
        for i in range(20)
        for copy in range(1 + i % 3)
    ]
    result = split(made, heldout, seed)
    assert {fingerprint(d.text) for d in result.train}.isdisjoint(fingerprint(d.text) for d in result.heldout)
    assert 1 <= len(result.heldout) <= heldout


def test_something_is_held_out_even_when_every_text_comes_many_times() -> None:
    made = [Document(f"{i}-{copy}", f"text {i}", "a") for i in range(4) for copy in range(5)]
    assert len(split(made, 1).heldout) == 5


def test_texts_are_the_same_through_case_spacing_and_signs() -> None:
    first, same, other = map(fingerprint, ("Hello,  World.", "hello world", "hello word"))
    assert first == same != other


def test_texts_of_signs_alone_are_not_all_the_same() -> None:
    assert fingerprint("----") != fingerprint("====")
    assert fingerprint("日本") != fingerprint("中国")
