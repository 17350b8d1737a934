"""GGUF -> Matura -> GGUF -> llama.cpp: does the file load there, read texts the same, and answer the same?"""

from __future__ import annotations

import importlib.metadata
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import record, reference, sides
from benchmarks.options import Options

MODELS = ("smollm2-135m-instruct", "gemma3-270m")
WEIGHTS = ("F32", "F16", "Q8_0", "Q4_0", "Q4_1")
EXACT, HALF, ROUNDED = 5e-3, 0.02, 0.5
"""Largest difference of a token's log-probability in nats, and what another choice may cost: in float32 (llama.cpp
looks GELU up in a table of half precision); with weights of half precision, where it rounds what they are multiplied
with to that too; and with quantized weights, where it rounds that to 8 bits and Matura does not."""
SAME_CHOICE = 0.9  # least share of tokens that both would choose, with quantized weights
COLUMNS = (
    "file",
    "MB",
    "equal tokens",
    "of",
    "same choice",
    "largest dlogp",
    "largest gap",
    "in F32",
    "right",
)
TINY: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "llama": {},
    "llama-3 positions": {"original_max_position_embeddings": 8192, "max_position_embeddings": 16_384},
    "mistral window": {"sliding_window": None},
    "qwen2": {},
    "qwen3": {},
    "gemma2": {"query_pre_attn_scalar": 16},
    "gemma3": {"query_pre_attn_scalar": 16},
    "phi3": {},
}
"""Rows of tiny_families, with what GGUF has a place for."""

QUESTIONS = (
    "What is the capital of France?",
    "Write one sentence about the sea.",
    "How many days does a week have?",
    "Name three colours.",
)
PROMPTS = (
    "Question: What is the capital of France?\nAnswer:",
    "Once upon a time there was a",
    "The three primary colours are red,",
    "def fibonacci(n):\n",
)
CHAT = (
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A model."},
    {"role": "user", "content": "  And 12 more?\n"},
)
TEXTS = (
    "",
    "Hello world",
    " one space before",
    "  two before, one after ",
    "runs  of   spaces    and     more" + " " * 40 + "end",
    "tab\tand\t\ttabs",
    "one\ntwo\n\nthree\n\n\nand" + "\n" * 40 + "more",
    "\n \n  mixed \r\n ends\r\n",
    "1 12 123 1234 12345 3.14159 1,000,000 0x1F",
    "I'll don't we've it's I'LL DON'T",
    "naïve café Ünïcödé Straße",
    "e\u0301 combining, \u00a0no-break\u2003wide\u200bnone",
    "Привет, мир! Καλημέρα κόσμε",
    "你好，世界。こんにちは世界。안녕하세요",
    "مرحبا بالعالم हिन्दी में शब्द ไทย",
    "🙂👍🏽👨‍👩‍👧‍👦🇩🇪 and \U0010ffff",
    "a\x00b\x7f",
    "def f(x):\n    return x ** 2  # square\n",
    "<|im_end|> <|endoftext|> <end_of_turn> <bos> <unk> stay text",
    "<h1>title</h1> <table>\n<td>",
    "▁ already ▁▁ there",
    "CamelCase snake_case kebab-case http://example.com/?q=1&r=2#x",
    "!!!???...;;;---===",
    "a" * 200,
    "ᚠᛇᚻ ꙮ 𝔘𝔫𝔦",
)


def run(options: Options) -> bool:
    """Write, reload, compare, print and save; False when something is not as it should be."""
    import torch

    torch.set_num_threads(options.threads)
    cases = [weights for weights in WEIGHTS if weights in (options.cases or WEIGHTS)]
    if not cases:
        raise SystemExit(f"--cases: expected some of {', '.join(WEIGHTS)}")
    if options.quick and not options.cases:
        cases = ["F16", "Q4_0"]
    with tempfile.TemporaryDirectory(prefix="matura-gguf-") as temporary:
        folder = Path(temporary)
        found = _tiny(folder, options.threads)
        for name in MODELS[:1] if options.quick else MODELS:
            made = reference.find_model(name)
            for weights in cases:
                print(f"  {name} {weights}", flush=True)
                new = 8 if options.quick else 64
                found[f"{name} {weights}"] = _case(made, folder, weights, new, options.threads)
    keys = ("megabytes", "equal", "length", "same_choice", "difference", "gap", "difference_in_f32")
    rows = [[case, *(f[key] for key in keys), all(f["checks"].values())] for case, f in found.items()]
    record.table(COLUMNS, [["-" if value is None else value for value in row] for row in rows])
    checks = {f"{case}: {name}": ok for case, f in found.items() for name, ok in f["checks"].items()}
    judge = f"llama.cpp in xllamacpp {importlib.metadata.version('xllamacpp')}"
    record.save("gguf", options, {"judge": judge, "files": found, "checks": checks})
    if failed := [name for name, ok in checks.items() if not ok]:
        print("\n".join(f"NOT so: {name}" for name in failed))
    return all(checks.values())


def _case(made: Any, folder: Path, weights: str, new: int, threads: int) -> dict[str, Any]:
    """Write a real model, have llama.cpp read and answer from it, and read it back."""
    from matura.model import checkpoint, store
    from matura.tokenizer import conversation, reading

    source = conversation.load(made.path)
    file = folder / "model.gguf"
    _write(file, store.load(made.path), source, weights)
    format, model = conversation.from_files(reading.read(file)), store.build(checkpoint.read(file), file)
    prompts = _prompts(format)
    settings = {"texts": TEXTS, "messages": CHAT if format.template else [], "prompts": prompts, "new": new}
    theirs = judge(file, threads, **settings)
    found = _answers(model, format, prompts, theirs["answers"], new)
    megabytes, limit, checks = file.stat().st_size / 1e6, ROUNDED, _texts(source, format, theirs)
    found["difference_in_f32"] = None
    if weights.startswith("Q"):
        # The same weights without rounding in between: are they what llama.cpp takes them for?
        _write(file, model, format, "F32")
        again = judge(file, threads, **settings)
        plain = _answers(model, format, prompts, again["answers"], new)
        found["difference_in_f32"] = plain["difference"]
        checks |= {"in F32: " + name: ok for name, ok in _near(plain, EXACT).items()}
        checks[f"same choice of {SAME_CHOICE:.0%}"] = found["same_choice"] >= SAME_CHOICE
    else:
        limit = EXACT if weights == "F32" else HALF
    if weights == "F16":
        checks["all tokens equal"] = found["equal"] == found["length"]
    checks |= _near(found, limit)
    return {"megabytes": megabytes, "texts": len(TEXTS), **found, "checks": checks}


def _near(found: dict[str, Any], limit: float) -> dict[str, bool]:
    return {
        f"log-probabilities within {limit:g}": found["difference"] is None or found["difference"] <= limit,
        f"another token only at a tie of {limit:g}": found["gap"] <= limit,
    }


def _texts(source: Any, format: Any, theirs: dict[str, Any]) -> dict[str, bool]:
    """Does llama.cpp read every text as we do, and is the format what it was?"""
    tokenizer = format.tokenizer
    ids = [tokenizer.encode(text) for text in TEXTS]
    whole = [[*tokenizer.prefix_ids, *one, *tokenizer.suffix_ids] for one in ids]
    # Without a template of its own llama.cpp shows a general one.
    shown = theirs["template"] if format.template else None
    return {
        "same ids": ids == theirs["ids"],
        "same ids of whole texts": whole == theirs["surrounded"],
        "template kept": format.template == source.template == shown,
        "same ids of a chat": not format.template or theirs["chat"] == format.prompt(CHAT),
        "stop tokens kept": set(format.stop_ids) == set(source.stop_ids),
        "generation defaults kept": format.generation == source.generation,
    }


def _tiny(folder: Path, threads: int) -> dict[str, Any]:
    """A tiny random model of every family that has a layout in GGUF, in float32: are names and settings right?"""
    import random

    from benchmarks import tiny_families
    from matura.model import checkpoint, store
    from matura.tokenizer.conversation import Format

    tokenizer = _bytes_only()
    format = Format(tokenizer, None, [tokenizer.eos_id])
    draw = random.Random(0)
    prompts = [[draw.randrange(1, tokenizer.vocab_size) for _ in range(40)] for _ in range(8)]
    found = {}
    for row, more in TINY.items():
        tiny_families.save(row, folder / row, **more)
        model = store.build(checkpoint.read(folder / row), folder / row)
        file = folder / "tiny.gguf"
        _write(file, model, format, "F32")
        theirs = judge(file, threads, texts=[], messages=[], prompts=prompts, new=32)
        one = _answers(store.build(checkpoint.read(file), file), format, prompts, theirs["answers"], 32)
        megabytes = file.stat().st_size / 1e6
        found[f"tiny {row}"] = {
            "megabytes": megabytes,
            **one,
            "difference_in_f32": None,
            "checks": _near(one, EXACT),
        }
    return found


def _bytes_only() -> Any:
    """A tokenizer whose tokens are bytes (and one pair of them: a file without merges is refused)."""
    import tokenizers

    from matura.tokenizer.tokenizer import Roles, Tokenizer, byte_letters

    vocabulary = {token: id for id, token in enumerate(["<|end|>", *byte_letters(), "th"])}
    backend = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=[("t", "h")]))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    return Tokenizer(backend, Roles(eos="<|end|>"))


def judge(file: Path, threads: int, **settings: Any) -> dict[str, Any]:
    """What llama.cpp makes of a file, in a process of its own; see `llama_cpp.judge`."""
    about = {"file": str(file), "context": 512, "threads": threads, **settings}
    return sides.measure("llama_cpp", "judge", about, threads)


def _write(file: Path, model: Any, format: Any, weights: str) -> None:
    from matura.model import gguf_writer
    from matura.tokenizer import to_gguf

    gguf_writer.write(file, model, to_gguf.metadata(format, model.config.vocabulary), weights=weights)


def _prompts(format: Any) -> list[list[int]]:
    """Questions as a chat where there is a template, else texts to go on with."""
    if format.template:
        return [format.prompt([{"role": "user", "content": question}]) for question in QUESTIONS]
    tokenizer = format.tokenizer
    return [[*tokenizer.prefix_ids, *tokenizer.encode(text), *tokenizer.suffix_ids] for text in PROMPTS]


def _answers(
    model: Any, format: Any, prompts: list[list[int]], theirs: list[dict[str, Any]], new: int
) -> dict[str, Any]:
    """Our own greedy answers beside theirs, and what our model says of each of their tokens."""
    import torch

    from matura.core.settings import Sampling
    from matura.infer import engine

    tokenizer = format.tokenizer
    stops = [id for id in (*format.stop_ids, tokenizer.eos_id, format.begin_id) if id is not None]
    ours = engine.generate(model, prompts, Sampling(max_new_tokens=new, temperature=0), stops)
    equal, lengths, agreed, differences, gaps = [], [], [], [], []
    for prompt, mine, made in zip(prompts, ours, theirs, strict=True):
        answer = [id for id in made["ids"] if id not in stops]
        both = enumerate(zip(mine, answer, strict=False))
        equal.append(next((i for i, (a, b) in both if a != b), min(len(mine), len(answer))))
        lengths.append(max(len(mine), len(answer)))
        # Their whole answer in one pass: what our model says of each of their tokens where they wrote it.
        with torch.inference_mode():
            hidden_1TD = model.decode(torch.tensor([[*prompt, *made["ids"]]]))
            logprobs_TV = model.logits(hidden_1TD[0, len(prompt) - 1 : -1]).log_softmax(-1)
        own_T = logprobs_TV.gather(-1, torch.tensor(made["ids"])[:, None])[:, 0]
        gaps += (logprobs_TV.amax(-1) - own_T).tolist()
        agreed += [gap == 0 for gap in gaps[-len(own_T) :]]
        if made["logprobs"] is not None:
            differences += (own_T - torch.tensor(made["logprobs"])).abs().tolist()
    return {
        "equal": sum(equal),
        "length": sum(lengths),
        "equal_of_each": equal,
        "length_of_each": lengths,
        "same_choice": sum(agreed) / len(agreed),
        "difference": max(differences, default=None),
        "gap": max(gaps),
        "answers": [made["text"] for made in theirs],
    }
