"""Which documents go, for which others: exact, near, chains, references, whatever the parts."""

from collections import Counter
from pathlib import Path

import pyarrow.parquet
import pytest

from matura.core.corpus_settings import Engine, Fuzzy
from matura.core.errors import FormatError, MaturaError
from matura.data import dedup
from matura.data.dedup import Duplicates, Pair
from matura.data.dedup.index import reference_files
from tests.data.dedup.making import HERE, edited, jaccard, text, write

FUZZY = Fuzzy(use="on")


def find(
    tmp_path: Path,
    texts: dict[str, str],
    *,
    exact: bool = True,
    fuzzy: Fuzzy | None = FUZZY,
    parts: int = 1,
    against: Path | None = None,
    index: Path | None = None,
    name: str = "a",
) -> Duplicates:
    return dedup.find(
        write(tmp_path / name, texts, parts),
        exact=exact,
        fuzzy=fuzzy,
        against=against,
        index=index,
        folder=tmp_path / f"{name}-work",
        engine=HERE,
    )


def test_equal_letters_are_exact_duplicates(tmp_path: Path) -> None:
    texts = {"a": "One, two three!", "b": "one two   THREE", "c": "One two four", "d": "one-two-three"}
    found = find(tmp_path, texts, fuzzy=None)
    assert found.drop == {
        "b": Pair("a", 1.0, "exact"),
        "d": Pair("a", 1.0, "exact"),
    }  # all have the same letters; of 15, 15 and 13 characters the longest, then the first
    assert found.clusters == Counter({3: 1})
    assert find(tmp_path, texts, exact=False, fuzzy=None, name="none").drop == {}


def test_near_duplicates_name_the_kept_one_and_the_true_index(tmp_path: Path) -> None:
    long, other = text(1, 120), text(2)
    texts = {
        "whole": long,
        "copy": edited(long, 60),
        "other": other,
        "far": edited(other, *range(5, 100, 12)),
    }
    found = find(tmp_path, texts)
    assert set(found.drop) <= {"whole", "copy"}
    ((dropped, pair),) = found.drop.items()
    assert (pair.kind, {dropped, pair.kept}) == ("near", {"whole", "copy"})
    assert len(texts[pair.kept]) >= len(texts[dropped])
    assert pair.jaccard == pytest.approx(jaccard(texts[dropped], texts[pair.kept]), abs=1e-6)


def test_the_longest_or_the_first_stays(tmp_path: Path) -> None:
    short = text(3)
    texts = {"a": short, "b": short + " and a little more"}
    assert find(tmp_path, texts).drop["a"].kept == "b"
    assert find(tmp_path, texts, fuzzy=Fuzzy(use="on", keep="first"), name="first").drop["b"].kept == "a"


def test_an_exact_copy_of_a_dropped_document_names_one_that_stays(tmp_path: Path) -> None:
    short = text(4)
    found = find(tmp_path, {"a": short, "b": short.upper(), "c": short + " with an end"})
    assert {name: pair.kept for name, pair in found.drop.items()} == {"a": "c", "b": "c"}
    assert found.drop["b"].jaccard == found.drop["a"].jaccard == pytest.approx(96 / 99, abs=1e-6)
    assert found.clusters == Counter({3: 1})


def test_a_chain_does_not_pull_its_far_end_in(tmp_path: Path) -> None:
    chain = {"0": text(5, 300)}
    for link in range(1, 9):
        chain[str(link)] = edited(chain[str(link - 1)], *range(30 * link, 30 * link + 15))
    found = find(tmp_path, chain)
    kept = set(chain) - set(found.drop)
    assert 1 < len(kept) < len(chain)
    for name, pair in found.drop.items():
        assert pair.kept in kept
        assert jaccard(chain[name], chain[pair.kept]) >= 0.8


def test_documents_shorter_than_a_shingle_are_compared_by_letters_only(tmp_path: Path) -> None:
    found = find(
        tmp_path, {"a": "Too short!", "b": "too short", "c": "too shore", "d": "", "e": "", "f": "…"}
    )
    assert found.drop == {"b": Pair("a", 1.0, "exact"), "e": Pair("d", 1.0, "exact")}


def test_many_copies_of_one_form_cost_one_document(tmp_path: Path) -> None:
    form = text(6, 200)
    texts = {f"{number:03d}": edited(form, number % 190, (7 * number) % 190) for number in range(150)}
    found = find(tmp_path, texts)
    for name, pair in found.drop.items():
        assert jaccard(texts[name], texts[pair.kept]) >= 0.8
    assert len(texts) - len(found.drop) <= 3


def test_recall_at_the_threshold(tmp_path: Path) -> None:
    texts: dict[str, str] = {}
    for number in range(60):
        texts[f"{number}-a"] = text(100 + number, 104)
        texts[f"{number}-b"] = edited(texts[f"{number}-a"], 30, 70)  # 90 of 110 shingles
    found = find(tmp_path, texts)
    assert jaccard(texts["0-a"], texts["0-b"]) == pytest.approx(90 / 110)
    assert len(found.drop) >= 58


def test_parts_and_workers_change_nothing(tmp_path: Path) -> None:
    texts = {f"{number:02d}": text(number // 3, 60) + f" {number % 2} end" for number in range(30)}
    texts |= {"x": texts["03"].upper(), "y": "zu kurz", "z": "Zu kurz."}
    one = find(tmp_path, texts, name="one")
    three = dedup.find(
        write(tmp_path / "three", texts, 3, backwards=True),
        exact=True,
        fuzzy=FUZZY,
        folder=tmp_path / "work3",
        engine=HERE,
    )
    assert one.drop == three.drop
    assert len(one.drop) > 15
    assert one.clusters == three.clusters


def test_finished_signatures_are_used_again(tmp_path: Path) -> None:
    texts = {"a": text(1), "b": text(1)}
    first = find(tmp_path, texts)
    (signed,) = (tmp_path / "a-work" / "signatures").glob("*.parquet")
    before = signed.stat().st_mtime_ns
    assert find(tmp_path, texts).drop == first.drop
    assert signed.stat().st_mtime_ns == before
    other = Fuzzy(use="on", words=3)
    assert find(tmp_path, texts, fuzzy=other).drop == first.drop
    assert signed.stat().st_mtime_ns != before  # other settings, other signatures


def test_against_and_index_drop_the_same(tmp_path: Path) -> None:
    old = {"old-1": text(1), "old-2": text(2), "old-3": text(2).upper(), "out": text(7)}
    new = {"new-1": text(1) + " " + text(8, 5), "new-2": text(2), "new-3": text(3), "new-4": text(7)}
    found = find(tmp_path, old, name="old")
    kept = write(tmp_path / "corpus", {"old-1": old["old-1"], "old-2": old["old-2"]})
    kept[0].rename(tmp_path / "corpus" / "train.parquet")
    assert dedup.write_index(tmp_path / "old-work", tmp_path / "art", {*found.drop, "out"}) == 2

    by_text = find(tmp_path, new, against=tmp_path / "corpus", name="by-text")
    by_index = find(tmp_path, new, index=tmp_path / "art", name="by-index")
    assert by_text.drop == by_index.drop
    assert by_text.clusters == by_index.clusters == Counter({2: 2})
    assert by_text.drop["new-2"] == Pair("old-2", 1.0, "exact", reference=True)
    assert by_text.drop["new-1"].kept == "old-1"  # although the new one is longer
    assert set(by_text.drop) == {"new-1", "new-2"}


def test_an_index_grows_and_its_bytes_do_not_depend_on_parts(tmp_path: Path) -> None:
    find(tmp_path, {"a": text(1), "b": text(2)}, name="first")
    dedup.write_index(tmp_path / "first-work", tmp_path / "index-1", ())
    second = {f"{n}": text(10 + n) for n in range(6)}
    for name, parts in (("x", 1), ("y", 3)):
        find(tmp_path, second, parts=parts, name=name)
        assert (
            dedup.write_index(
                tmp_path / f"{name}-work", tmp_path / f"out-{name}", {"5"}, index=tmp_path / "index-1"
            )
            == 7
        )
    for file in ("signatures.parquet", "signatures.shingles"):
        assert (tmp_path / "out-x/dedup" / file).read_bytes() == (
            tmp_path / "out-y/dedup" / file
        ).read_bytes()
    third = find(
        tmp_path,
        {"again": text(1), "more": text(13), "fresh": text(15)},
        index=tmp_path / "out-x",
        name="third",
    )
    assert {name: pair.kept for name, pair in third.drop.items()} == {"again": "a", "more": "3"}


def test_an_index_of_other_settings_is_refused(tmp_path: Path) -> None:
    find(tmp_path, {"a": text(1)}, name="old")
    dedup.write_index(tmp_path / "old-work", tmp_path / "art", ())
    with pytest.raises(MaturaError, match=r"words=5, bands=20.*words=5, bands=10"):
        find(tmp_path, {"b": text(1)}, fuzzy=Fuzzy(use="on", bands=10), index=tmp_path / "art", name="new")
    assert set(find(tmp_path, {"b": text(1)}, fuzzy=None, index=tmp_path / "art", name="exact").drop) == {"b"}
    with pytest.raises(MaturaError, match="both cannot be in one index"):
        dedup.write_index(tmp_path / "exact-work", tmp_path / "more", (), index=tmp_path / "art")


def test_broken_references_are_named(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no index of duplicates"):
        find(tmp_path, {"a": "x"}, index=tmp_path)
    with pytest.raises(FormatError, match=r"neither train.parquet nor heldout.parquet"):
        find(tmp_path, {"a": "x"}, against=tmp_path)
    find(tmp_path, {"a": text(1)}, name="old")
    dedup.write_index(tmp_path / "old-work", tmp_path / "art", ())
    shingles = tmp_path / "art/dedup/signatures.shingles"
    shingles.write_bytes(shingles.read_bytes()[:-4])
    with pytest.raises(FormatError, match="expected 384"):
        find(tmp_path, {"b": text(1)}, index=tmp_path / "art", name="new")
    (tmp_path / "art/dedup/signatures.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(FormatError, match="holds no signatures"):
        find(tmp_path, {"b": text(1)}, index=tmp_path / "art", name="new2")


def test_a_reference_is_a_file_or_a_corpus(tmp_path: Path) -> None:
    for name in ("heldout", "train", "dropped"):
        (tmp_path / f"{name}.parquet").touch()
    assert [path.stem for path in reference_files(tmp_path)] == ["train", "heldout"]
    assert reference_files(tmp_path / "dropped.parquet") == [tmp_path / "dropped.parquet"]


def test_pairs_are_a_table(tmp_path: Path) -> None:
    found = find(tmp_path, {"a": text(1), "b": text(1), "c": text(2)})
    assert dedup.write_pairs(found, tmp_path / "pairs.parquet") == 1
    assert pyarrow.parquet.read_table(tmp_path / "pairs.parquet").to_pylist() == [
        {"dropped": "b", "kept": "a", "jaccard": 1.0, "kind": "exact", "reference": False}
    ]


def test_no_parts_no_duplicates(tmp_path: Path) -> None:
    assert dedup.find([], exact=True, fuzzy=FUZZY, folder=tmp_path, engine=Engine()).drop == {}
