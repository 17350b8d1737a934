"""datatrove's side of `curation_speed`, run by an interpreter that has it: nothing here imports Matura.

`python curation_peer.py shipped|chained|split DOCUMENTS.jsonl FOLDER` prints JSON: seconds of CPU
and decisions of each step.
"""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

# Sentences of the `split` variant: as cheap as its words.
_SENTENCE = re.compile(r"[^.!?]*[.!?]+(?:\s+|$)|[^.!?]+$")


def main() -> None:
    """Every document through every step; a document that one filter drops is still seen by the others."""
    variant, path, folder = sys.argv[1:]
    if variant == "split":
        _replace_tokenizer()
    with open(path, encoding="utf-8") as file:
        texts = [json.loads(line) for line in file]
    seconds, decisions, kept = _filters(texts, chained=variant == "chained")
    seconds |= _signatures(texts, folder)
    print(json.dumps({"seconds": seconds, "decisions": decisions, "c4_texts": kept, "version": _version()}))


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("datatrove")


def _replace_tokenizer() -> None:
    """Words by str.split and sentences by one regular expression, instead of spaCy."""
    from datatrove.pipeline.dedup import minhash
    from datatrove.utils import word_tokenizers

    class Split:
        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [match.span() for match in _SENTENCE.finditer(text)]

    one = Split()
    word_tokenizers.load_word_tokenizer = lambda *_: one
    minhash.load_word_tokenizer = lambda *_: one


def _filters(texts: list[str], chained: bool) -> tuple[dict[str, float], dict[str, list[str]], list[str]]:
    """One filter for all documents, then the next; `chained`: all filters for one document, then for the next, in the
    order of datatrove's FineWeb example, so that neighbours share its cache of the words of five texts."""
    from datatrove.data import Document
    from datatrove.pipeline.filters import (
        C4QualityFilter,
        FineWebQualityFilter,
        GopherQualityFilter,
        GopherRepetitionFilter,
    )

    filters = {
        "repetition": GopherRepetitionFilter(),
        "gopher": GopherQualityFilter(),
        "c4": C4QualityFilter(),
        "fineweb": FineWebQualityFilter(),
    }
    warm = Document(
        text="The first sentence is here to load what must be loaded. And another one!\n" * 9, id=""
    )
    for one in filters.values():
        one.filter(warm)
    seconds = dict.fromkeys(filters, 0.0)
    decisions: dict[str, list[str]] = {name: [] for name in filters}
    kept: list[str] = []
    names, numbers = list(filters), range(len(texts))
    turns = (
        [(n, name) for n in numbers for name in names]
        if chained
        else [(n, name) for name in names for n in numbers]
    )
    for number, name in turns:
        document = Document(text=texts[number], id=str(number))
        start = time.process_time()
        found: Any = filters[name].filter(document)
        seconds[name] += time.process_time() - start
        decisions[name].append("" if found is True else found[1])
        if name == "c4":
            kept.append(document.text)
    return seconds, decisions, kept


def _signatures(texts: list[str], folder: str) -> dict[str, float]:
    """The first stage of both kinds of deduplication: signatures to files, as they ship."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup import ExactDedupSignature, MinhashDedupSignature
    from datatrove.pipeline.dedup.exact_dedup import ExactDedupConfig

    steps = {
        "exact": ExactDedupSignature(
            f"{folder}/exact", ExactDedupConfig(content_getter=lambda one: one.text)
        ),
        "minhash": MinhashDedupSignature(f"{folder}/minhash"),
    }
    seconds = {}
    for name, step in steps.items():
        documents = [Document(text=text, id=str(number)) for number, text in enumerate(texts)]
        step.word_tokenizer.word_tokenize("warm up") if name == "minhash" else None
        start = time.process_time()
        for _ in step.run(iter(documents), rank=0, world_size=1) or ():
            pass
        seconds[name] = time.process_time() - start
    return seconds


if __name__ == "__main__":
    main()
