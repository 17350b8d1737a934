"""What models learn by the objectives beyond the next token, beside controls that must fail.

`numbers`: an encoder-decoder learns to write numbers in English words and back (`synthesize program=numbers`), and is
asked numbers that it never saw. Control: the same model taught to copy its source; it learns that, and answers no
question. `masks`: an encoder fills masks in held-out text, beside the most frequent token and beside a trigram model
that sees the two true tokens to the left of the mask (the longest context that training had, backing off to shorter).
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers, trainers

from benchmarks import record
from benchmarks.options import Options
from matura.core.records import Conversation
from matura.core.settings import OptimizerConfig, Sampling
from matura.data import shards
from matura.data.synthesis import programs
from matura.infer.engine import Request, stream
from matura.model import config as c
from matura.model.counting import count_parameters
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Roles, Tokenizer
from matura.train.blocks import TokenBatch, TokenBatches
from matura.train.corrupt import Corrupted, Masking, masking
from matura.train.loop import train
from matura.train.objectives import loss
from matura.train.optim import build_optimizer, build_schedule
from matura.train.pairs import PairBatches, from_conversations

PAD, END, MASK = "<pad>", "</s>", "<mask>"
LEAST_EXACT = 0.95
PIECE = 4000  # characters of text that are held out together
ROW = 128  # tokens


def run(options: Options) -> bool:
    """Whether the models learn what they are to learn, and the controls do not."""
    torch.set_num_threads(options.threads)
    cases = {"numbers": _numbers, "masks": _masks}
    figures, fine = {}, True
    for name, case in cases.items():
        if options.cases and name not in options.cases:
            continue
        figures[name], good = case(options)
        fine = fine and good
        print(json.dumps({name: figures[name]}, indent=1), flush=True)
    record.save("objectives", options, figures)
    return fine or options.quick


def _numbers(options: Options) -> tuple[dict[str, Any], bool]:
    rows, heldout = programs.write("numbers", options.default(None, 20_000, 2000), 1000, options.seed)
    tokenizer = _tokenizer((message["content"] for row in rows for message in row.messages), 320)
    steps = options.default(None, 400, 20)
    told = [Conversation(row.id, (row.messages[0], {**row.messages[0], "role": "assistant"})) for row in rows]
    figures: dict[str, Any] = {"train": len(rows), "heldout": len(heldout), "steps": steps}
    for name, lessons in (("taught", rows), ("copying", told)):
        model = Transformer(_pair_config(tokenizer.vocab_size)).initialize(options.seed)
        pairs = from_conversations(lessons, tokenizer, source=64, target=64).pairs
        batches = PairBatches(pairs, tokens=2048, start=0, seed=options.seed)
        figures["parameters"] = count_parameters(model.config)[0]
        figures[name] = _fit(model, batches, steps, 5e-3) | {"epochs": round(batches.epochs, 1)}
        answered = answer(model, tokenizer, [row.messages[0]["content"] for row in heldout])
        figures[name] |= scores(heldout, answered)
        print(f"{name}: {figures[name]}", flush=True)
    good = figures["taught"]["exact"] >= LEAST_EXACT and figures["copying"]["exact"] < 0.01
    return figures, good and figures["copying"]["copied"] >= LEAST_EXACT


def scores(heldout: Sequence[Conversation], answers: Sequence[str]) -> dict[str, float]:
    """Shares of answers that are right (in all and by direction), and of those that only repeat the source."""
    right: defaultdict[str, list[bool]] = defaultdict(list)
    for row, answer in zip(heldout, answers, strict=True):
        source, target = (message["content"] for message in row.messages)
        right["to_words" if source.isdigit() else "to_digits"].append(answer == target)
        right["exact"].append(answer == target)
        right["copied"].append(answer == source)
    return {name: sum(found) / len(found) for name, found in right.items()}


def answer(model: Transformer, tokenizer: Tokenizer, sources: Sequence[str]) -> list[str]:
    """The likeliest answer of an encoder-decoder to each source."""
    assert tokenizer.eos_id is not None
    greedy = Sampling(temperature=0, max_new_tokens=64)
    ids = [[*tokenizer.encode(text), tokenizer.eos_id] for text in sources]
    requests = [Request((), greedy, (tokenizer.eos_id,), source) for source in ids]
    found: list[list[int]] = [[] for _ in sources]
    for token in stream(model, requests, batch=128):
        if token.finish != "stop":
            found[token.request].append(token.id)
    return [tokenizer.decode(one) for one in found]


def _masks(options: Options) -> tuple[dict[str, Any], bool]:
    name, text = options.read_text()
    train_texts, heldout_texts = _divided(text)
    tokenizer = _tokenizer(iter(train_texts), options.default(None, 4096, 512))
    assert tokenizer.eos_id is not None
    learnt, asked = (
        [np.array([*ids, tokenizer.eos_id]) for ids in tokenizer.encode_batch(texts)]
        for texts in (train_texts, heldout_texts)
    )
    tokens = options.default(options.tokens, 12_000_000, 40_000)
    rows = 32
    model = Transformer(_encoder_config(tokenizer.vocab_size)).initialize(options.seed)
    hide = masking(tokenizer, tokenizer.vocab_size, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        found = _shards(Path(folder), tokenizer, learnt)
        batches = TokenBatches(found, rows=rows, length=ROW, seed=options.seed)
        spent = _fit(model, Corrupted(batches, hide), max(1, tokens // (rows * ROW)), 5e-3)
    figures = {
        "text": name,
        "tokens": {"train": sum(map(len, learnt)), "heldout": sum(map(len, asked)), "seen": tokens},
        "vocabulary": tokenizer.vocab_size,
        "parameters": count_parameters(model.config)[0],
        **spent,
        **top1(model, hide, np.concatenate(learnt), np.concatenate(asked)),
    }
    return figures, all(fills(figures).values())


def fills(shares: Mapping[str, float]) -> dict[str, bool]:
    """What an encoder must show beside the counts of `top1`."""
    return {
        "twice as good as the most frequent token": shares["encoder"] >= 2 * shares["unigram"],
        "better than a trigram": shares["encoder"] > shares["trigram"],
    }


def top1(model: Transformer, hide: Masking, learnt: np.ndarray, asked: np.ndarray) -> dict[str, float]:
    """Share of held-out masked tokens that are found, and the binomial standard error of the encoder's."""
    every = Masking(hide.mask_id, hide.special_V, hide.replacements, hide.seed + 1, masked=1.0, random=0.0)
    rows = len(asked) // ROW
    ids_BT = torch.from_numpy(asked[: rows * ROW].astype(np.int64)).view(rows, ROW)
    left = _Left(learnt.tolist())
    right: Counter[str] = Counter()
    for start in range(0, rows, 32):
        part_BT = ids_BT[start : start + 32]
        batch = every(TokenBatch(part_BT, part_BT))
        with torch.inference_mode():
            hidden_ND = model.encode(batch.ids_BT).flatten(0, 1)[batch.where_N]
            guesses = model.logits(hidden_ND).argmax(-1)
        right["asked"] += len(guesses)
        right["encoder"] += int((guesses == batch.targets_N).sum())
        whole = asked.tolist()
        for at, target in zip((batch.where_N + start * ROW).tolist(), batch.targets_N.tolist(), strict=True):
            context = tuple(whole[max(0, at - 2) : at])
            right["trigram"] += left.guess(context) == target
            right["bigram"] += left.guess(context[-1:]) == target
            right["unigram"] += left.guess(()) == target
    asked_for = right.pop("asked")
    shares = {name: right[name] / asked_for for name in ("encoder", "trigram", "bigram", "unigram")}
    spread = math.sqrt(shares["encoder"] * (1 - shares["encoder"]) / asked_for)
    return {**shares, "asked": asked_for, "standard_error": spread}


class _Left:
    """The likeliest token after a context of at most two, by counts; an unknown context is shortened."""

    def __init__(self, ids: Sequence[int]) -> None:
        counts: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
        for i, id in enumerate(ids):
            for order in range(min(i, 2) + 1):
                counts[tuple(ids[i - order : i])][id] += 1
        self._best = {context: found.most_common(1)[0][0] for context, found in counts.items()}

    def guess(self, context: tuple[int, ...]) -> int:
        while context not in self._best:
            context = context[1:]
        return self._best[context]


def _fit(model: Transformer, batches: Iterator[Any], steps: int, lr: float) -> dict[str, Any]:
    settings = OptimizerConfig(kind="muon", lr=lr, schedule="wsd", final=0.0)
    optimizer = build_optimizer(model, settings)
    started, seen, last = time.process_time(), 0, math.nan
    for step in train(model, batches, loss, optimizer, build_schedule(settings, steps), steps=steps):
        seen, last = seen + step.tokens, step.loss
        if step.step % 50 == 0:
            print(f"step {step.step}/{steps}: loss {last:.3f}", flush=True)
    model.eval()
    return {
        "loss": round(last, 4),
        "tokens_seen": seen,
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def _stack(width: int, layers: int, *, causal: bool, cross: bool = False) -> c.StackConfig:
    return c.StackConfig(
        layers=layers,
        width=width,
        attention=c.Attention(heads=width // 32, kv_heads=width // 32, head_width=32, qk_norm=c.RMSNorm()),
        mlp=c.SwiGLU(hidden=width * 8 // 3),
        causal=causal,
        cross=cross,
    )


def _pair_config(vocabulary: int) -> c.ModelConfig:
    stacks = {
        "encoder": _stack(96, 2, causal=False),
        "decoder": _stack(96, 2, causal=True, cross=True),
    }
    return c.ModelConfig(vocabulary=vocabulary, context=128, **stacks, start_id=0)


def _encoder_config(vocabulary: int) -> c.ModelConfig:
    return c.ModelConfig(vocabulary=vocabulary, context=ROW, encoder=_stack(192, 4, causal=False))


def _tokenizer(texts: Iterator[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE with single digits."""
    backend = tokenizers.Tokenizer(models.BPE())
    digits, letters = (
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, END, MASK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(texts, trainer)
    return Tokenizer(backend, Roles(pad=PAD, eos=END, mask=MASK))


def _divided(text: str) -> tuple[list[str], list[str]]:
    """Pieces of text to learn from and to be asked from, one in twenty, by hash."""
    pieces = [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
    sides = [hashlib.blake2b(piece.encode(), digest_size=2).digest()[0] % 20 == 0 for piece in pieces]
    return (
        [piece for piece, out in zip(pieces, sides, strict=True) if not out],
        [piece for piece, out in zip(pieces, sides, strict=True) if out],
    )


def _shards(folder: Path, tokenizer: Tokenizer, documents: Sequence[np.ndarray]) -> shards.TokenShards:
    coding = shards.Coding(tokenizer.vocab_size, "0" * 64, {"eos": tokenizer.eos_id}, None, tokenizer.eos_id)
    lengths = np.array([len(ids) for ids in documents])
    group = shards.Group(np.concatenate(documents), lengths, lengths, ("text",) * len(documents))
    made = shards.write_shard(folder, "train-00000", coding.dtype, [group])
    shards.write_index(folder, coding, {"train": [made]})
    return shards.load(folder)
