"""A text classifier: hashed words and pairs of words, logistic regression, calibrated probabilities.

Features are hashed as in arXiv:0902.2206, present or absent, and scaled to length 1. The weights minimise the
class-balanced log loss with an L2 penalty. Scores become probabilities by a logistic curve over scores that three
cross-fitted models give to examples they did not see (Platt 1999).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from matura.core.errors import FormatError
from matura.core.files import atomic_write
from matura.data.regression import Rows, fit, logistic, platt, rank_area

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
BITS = 20  # 2^20 weights, 4 MB
WORD = re.compile(r"\w+|[$!?%*]")
MAX_CHARACTERS = 50_000  # of a text that are read; what comes after says little new
MAX_KNOWN = 1 << 20  # words whose hashes are remembered
MAX_EXAMPLE_BYTES = 1 << 30
MAX_LINE_BYTES = 10 << 20
MAX_FILE_BYTES = 64 << 20
LEAST = 10  # examples of each label
FOLDS = 3
PENALTY = 0.1  # of the squared weights, beside the sum of the losses


@dataclass(frozen=True)
class Example:
    """A text and its label, 0 or 1."""

    text: str
    label: int


@dataclass(frozen=True)
class Classifier:
    """`weights` by bucket (float32), a bias, and the curve that makes a score a probability; `about` is its record:
    examples by label, and `auc` of the examples as cross-fitted models score them."""

    weights: NDArray[np.float32]
    bias: float
    slope: float
    offset: float
    about: dict[str, Any]

    def scores(self, texts: Sequence[str]) -> list[float]:
        """Probabilities of label 1, if the labels occur as often as among the examples."""
        hashes = _Hashes()
        raw = [_margin(self.weights, _features(text, hashes)) + self.bias for text in texts]
        return [float(one) for one in logistic(self.slope * np.asarray(raw, dtype=float) + self.offset)]

    def save(self, path: Path) -> None:
        """Write as safetensors, atomically; the same classifier gives the same bytes."""
        from safetensors.numpy import save_file

        numbers = np.array([self.bias, self.slope, self.offset], dtype=np.float64)
        # One entry: the library writes several in an order that changes from file to file.
        metadata = {"classifier": json.dumps({"version": VERSION, "about": self.about}, sort_keys=True)}
        with atomic_write(path) as temporary:
            save_file({"weights": self.weights, "curve": numbers}, temporary, metadata=metadata)


def load(path: Path) -> Classifier:
    """What `save` wrote. Raises FormatError for another or a broken file."""
    from safetensors import SafetensorError, safe_open

    if path.stat().st_size > MAX_FILE_BYTES:
        raise FormatError(f"{path}: larger than any classifier. Remove it, it is made again.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            written = json.loads((file.metadata() or {}).get("classifier", "{}"))
            weights, curve = file.get_tensor("weights"), file.get_tensor("curve")
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"{path}: no classifier ({error}). Remove it, it is made again.") from error
    if written.get("version") != VERSION or weights.shape != (1 << BITS,) or curve.shape != (3,):
        raise FormatError(f"{path}: a classifier of another version. Remove it, it is made again.")
    bias, slope, offset = map(float, curve)
    return Classifier(weights, bias, slope, offset, written["about"])


def train(examples: Sequence[Example]) -> Classifier:
    """Learn from labelled texts; the same examples in the same order give the same classifier.

    Raises FormatError for fewer than 10 examples of a label.
    """
    labels = np.array([one.label for one in examples], dtype=np.float64)
    counts = {"0": int((labels == 0).sum()), "1": int((labels == 1).sum())}
    if min(counts.values()) < LEAST:
        raise FormatError(
            f"the examples have {counts['0']} of label 0 and {counts['1']} of label 1. Give at least {LEAST} of each."
        )
    rows = _rows([one.text for one in examples])
    folds = np.array([_fold(one.text) for one in examples])
    unseen = np.zeros(len(labels))
    for fold in range(FOLDS):
        seen = np.flatnonzero(folds != fold)
        if len({*labels[seen]}) == 2:
            weights = fit(rows.take(seen), labels[seen], PENALTY)
            unseen[folds == fold] = (rows @ weights)[folds == fold]
    slope, offset = platt(unseen, labels)
    weights = fit(rows, labels, PENALTY)
    full = np.zeros(1 << BITS, dtype=np.float32)
    full[rows.columns] = weights[:-1]
    about = {"examples": counts, "auc": round(rank_area(unseen, labels), 6)}
    return Classifier(full, float(weights[-1]), slope, offset, about)


def learned(path: str, folder: str | None = None) -> Classifier:
    """The classifier of a file of examples (JSON Lines of {text, label: 0 or 1}).

    It is trained once for the same bytes and kept in `folder`, where there is one. Raises FormatError naming the line.
    """
    if folder is None:
        return train(list(read_examples(Path(path))))
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    kept = Path(folder) / f"classifier-{VERSION}-{digest[:32]}.safetensors"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        train(list(read_examples(Path(path)))).save(kept)
    return load(kept)


def read_examples(path: Path) -> Iterator[Example]:
    """Examples of a JSON Lines file. Raises FormatError: which line, what is wrong with it."""
    if path.stat().st_size > MAX_EXAMPLE_BYTES:
        raise FormatError(
            f"{path}: more than {MAX_EXAMPLE_BYTES >> 30} GiB of examples. Give a sample of them."
        )
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_BYTES + 1), b""), start=1):
            if line.strip():
                yield _example(line, f"{path}, line {number}")


def _example(line: bytes, place: str) -> Example:
    wanted = 'expected {"text": "...", "label": 0 or 1}'
    if len(line) > MAX_LINE_BYTES:
        raise FormatError(f"{place}: longer than {MAX_LINE_BYTES >> 20} MiB; {wanted}")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{place}: no JSON ({error}); {wanted}") from error
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise FormatError(f"{place}: no text; {wanted}")
    if type(value.get("label")) is not int or value["label"] not in (0, 1):
        raise FormatError(f"{place}: label is {value.get('label')!r}; {wanted}")
    return Example(value["text"], value["label"])


class _Hashes(dict[str, int]):
    """CRC-32 of words, remembered: looking up is several times faster than encoding and hashing again."""

    def __missing__(self, word: str) -> int:
        value = crc32(word.encode("utf-8", "surrogatepass"))
        if len(self) < MAX_KNOWN:
            self[word] = value
        return value


def _features(text: str, hashes: _Hashes) -> NDArray[np.uint32]:
    """Buckets of the words and of the pairs of neighbours, each once, sorted."""
    words = WORD.findall(text[:MAX_CHARACTERS].lower())
    single = np.fromiter(map(hashes.__getitem__, words), dtype=np.uint32, count=len(words))
    both = single[:-1] * np.uint32(0x9E3779B1) + single[1:] * np.uint32(0x85EBCA77)
    mixed = np.concatenate([single, both]) * np.uint32(0xC2B2AE35)  # the high bits depend on all bits
    buckets = np.sort(mixed >> np.uint32(32 - BITS))
    return buckets[np.concatenate([[True], buckets[1:] != buckets[:-1]])] if len(buckets) else buckets


def _margin(weights: NDArray[np.float32], buckets: NDArray[np.uint32]) -> float:
    return float(weights[buckets].sum(dtype=np.float64)) / len(buckets) ** 0.5 if len(buckets) else 0.0


def _rows(texts: Iterable[str]) -> Rows:
    hashes = _Hashes()
    return Rows.of([_features(text, hashes) for text in texts])


def _fold(text: str) -> int:
    """Equal texts share a fold, so none is scored by a model that saw it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[0] % FOLDS
