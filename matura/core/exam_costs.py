"""What an exam costs: tokens to read and to write, and from them time, memory and disk.

Time of the default exam. Tokens that one model reads:
    16 HellaSwag x 309 + 50 ARC-Easy x 130 + 50 PIQA x 68     = 14,900   (all choices, each with its question)
    12 held-out documents x 512 + 10 control texts x 240      =  8,600
    12 answers of the parent x about 130                      =  1,600
together 25,100; both models 50,200; at 450 tokens/s 112 s. Three answers of 48 tokens by both models, in batches, about
8 s; loading and the report about 5 s: 125 s.
"""

from collections.abc import Iterable, Sequence

from matura.core import costs
from matura.core.exam_settings import Asked
from matura.core.plan import Estimate

TOKENS_PER_QUESTION = {
    "hellaswag": 309,
    "arc_easy": 130,
    "piqa": 68,
    "boolq": 160,
    "lambada": 90,
    "blimp": 25,
}
TOKENS_PER_OTHER_QUESTION = 150
ALL_ITEMS = 1500  # assumed where all are asked: how many there are is only known once the rows are read
TOKENS_PER_CONTROL = 240
TOKENS_PER_ANSWER = 130
NEW_TOKENS_PER_SECOND = 36.0  # written, in small batches


def questions(asked: Iterable[Asked]) -> int:
    """Tokens of the questions, with all their choices."""
    return sum(
        (one.items or ALL_ITEMS) * TOKENS_PER_QUESTION.get(one.task, TOKENS_PER_OTHER_QUESTION)
        for one in asked
    )


def estimate(*, read: int, written: int, models: Sequence[costs.Given]) -> Estimate:
    """For `models` that each read and write so many tokens; the largest decides how fast."""
    size = max(costs.weight_bytes(one) for one in models)
    heaviness = max(costs.heaviness(one) for one in models)
    seconds = len(models) * (read / costs.READ + written / NEW_TOKENS_PER_SECOND)
    return Estimate(
        seconds=seconds * heaviness + 5,
        memory_bytes=int(len(models) * size + 1e9),
        disk_bytes=1_000_000 + 40 * read,
        note=f"{read:,} tokens read by each model",
    )
