"""Texts made on the spot, in a module that loads nothing."""

SENTENCE = "the model learns to read and write texts of 1984 or 365 days, naïve café — “quotes” größeren Städten 世界"
WORDS = SENTENCE.split()


def text(number: int) -> str:
    """Some sentences that differ from document to document."""
    return "\n".join(
        " ".join(WORDS[(number * 7 + i * i * 3 + i * number) % len(WORDS)] for i in range(12)).capitalize()
        + "."
        for _ in range(3)
    )
