"""The benchmark of bases of 4 bits: what it asks of its figures, and what it lets a model learn from."""

from benchmarks import qlora


def seed(before: float, packed: float, plain: float = 2.0) -> dict[str, dict[str, float]]:
    return {
        "float32": {"heldout_loss_before": before, "heldout_loss": plain},
        "int4": {"heldout_loss_before": before, "heldout_loss": packed},
    }


def holds(*seeds: dict[str, dict[str, float]], share: float = 0.4) -> list[bool]:
    return list(qlora.checks({"memory": {"share": share}, "loss": {"seeds": seeds}}).values())


def test_memory_and_every_seed_are_judged() -> None:
    assert holds(seed(3.0, 2.03), seed(3.0, 1.9)) == [True, True, True]
    assert holds(seed(3.0, 2.03), share=0.46) == [False, True, True]
    assert holds(seed(3.0, 2.03), seed(3.0, 2.05)) == [True, False, True]
    assert holds(seed(2.0, 2.01)) == [True, True, False]


def test_rows_end_where_paragraphs_do_and_hold_all_of_the_text() -> None:
    text = "\n\n".join(f"{n} " * 60 for n in range(50))
    rows = qlora.pieces(text)
    assert "".join(rows).strip() == text.strip()
    assert all(row.endswith("\n\n") for row in rows)
    assert max(map(len, rows)) <= qlora.PIECE + 2
