"""`matura fill`, `matura embed`, `matura classify` and `matura score`: what a model says of a text, on the terminal."""

import itertools
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError, MaturaError
from matura.core.records import read_lines

TOGETHER = 256
"""Texts that are classified, and printed, at a time."""


def fill(reference: str, text: str, top_k: int) -> None:
    """For each mask a line for each fill: probability, token, and the text with it."""
    from matura import api
    from matura.infer.fill import mask, mask_spelling

    text = _read(text)
    model = api.load(reference)
    found = model.fill(text, top_k=top_k)
    own, used = mask(model.tokenizer), mask_spelling(model.tokenizer, text)
    if used != own:
        print(f"matura: this model's mask is {own}; {used} was taken for it", file=sys.stderr, flush=True)
    for number, fills in enumerate(found, 1):
        if len(found) > 1:
            print(f"{own} {number} of {len(found)}")
        width = max(len(one.token) for one in fills)
        for one in fills:
            print(f"{one.probability:8.4f}  {one.token.ljust(width)}  {one.text}")


def embed(reference: str, texts: Sequence[str], *, as_json: bool, **settings: Any) -> None:
    """The vector of each text, or, without `as_json`, its beginning and how alike the texts are."""
    from matura import api

    texts = list(_texts(texts))
    if not texts:
        raise MaturaError("there is no text: stdin was empty")
    vectors = api.load(reference).embed(texts, **settings)
    if as_json:
        rows = zip(texts, vectors.tolist(), strict=True)
        print(json.dumps([{"text": text, "embedding": row} for text, row in rows], ensure_ascii=False))
        return
    for number, (text, vector) in enumerate(zip(texts, vectors, strict=True), 1):
        numbers = " ".join(f"{value:.4f}" for value in vector[:6].tolist())
        print(f"{number}  {numbers} ... ({len(vector)} numbers)  {_short(text)}")
    if len(texts) > 1:
        unit = vectors / vectors.norm(dim=-1, keepdim=True)
        print("\ncosine" + "".join(f"{number:8}" for number in range(1, len(texts) + 1)))
        for number, row in enumerate((unit @ unit.T).tolist(), 1):
            print(f"{number:6}" + "".join(f"{value:8.4f}" for value in row))


def classify(
    reference: str, texts: Sequence[str], file: Path | None, *, top_k: int, as_json: bool, **settings: Any
) -> None:
    """The likeliest labels of each text, as lines for people or as JSON Lines; texts are read as they are needed."""
    from matura import api

    if (file is None) == (not texts):
        raise MaturaError("give either texts or --file")
    found = iter(_texts(texts) if file is None else _texts_of(file.expanduser()))
    model, told = api.load(reference), False
    while some := list(itertools.islice(found, TOGETHER)):
        for text, scores in zip(some, model.classify(some, **settings), strict=True):
            best = scores[:top_k]
            if as_json:
                print(json.dumps({"text": text, "scores": dict(best)}, ensure_ascii=False), flush=True)
            else:
                print("  ".join(f"{label} {value:.4f}" for label, value in best) + f"  {_short(text)}")
        told = True
    if not told:
        raise MaturaError(f"there is no text: {'stdin was' if file is None else f'{file} is'} empty")


def _texts(given: Sequence[str]) -> Iterable[str]:
    """The texts of the command line, or the lines of stdin for "-"; empty lines are no texts."""
    if "-" not in given:
        return given
    if len(given) > 1:
        raise MaturaError('"-" reads all texts from stdin; leave the others out')
    return (line.rstrip("\r\n") for line in sys.stdin if line.strip())


def _texts_of(file: Path) -> Iterator[str]:
    """The lines of a file, or the `text` of each row of a .jsonl. Raises FormatError with the line."""
    rows = file.suffix in (".jsonl", ".ndjson")
    for number, line in read_lines(file, "texts"):
        try:
            found = json.loads(line)["text"] if rows else line.decode("utf-8-sig").rstrip("\r\n")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            wanted = 'a row such as {"text": ...}' if rows else "text in UTF-8"
            raise FormatError(f"{file}:{number}: expected {wanted} ({error})") from error
        if not isinstance(found, str) or not found.strip():
            raise FormatError(f"{file}:{number}: `text` must be a text that is not empty")
        yield found


def score(reference: str, text: str, continuation: str | None) -> None:
    """Log-probability, perplexity and bits per byte of a text or of its continuation."""
    from matura import api

    text = _read(text)
    found = api.load(reference).score(text, continuation)
    print(f"log-probability  {found.logprob:.4f}  ({found.tokens} tokens, {found.bytes} bytes)")
    print(f"perplexity       {found.perplexity:.4f}")
    print(f"bits per byte    {found.bits_per_byte:.4f}")


def _read(text: str) -> str:
    return sys.stdin.read() if text == "-" else text


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 60 else f"{line[:57]}..."
