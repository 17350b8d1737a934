"""Beam search finds the answers, with the scores, that transformers' generate finds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    GenerationConfig,
    GenerationMixin,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)
from transformers.modeling_outputs import CausalLMOutput

from matura.core.errors import MaturaError
from matura.core.settings import Beams, Sampling
from matura.infer.beam import Hypothesis, search
from matura.infer.engine import generate
from matura.model import checkpoint, store
from matura.model import config as c
from matura.model.transformer import Transformer
from tests.model.tiny import build, gpt_stack, llama_config, some_ids

V = 31
SETTINGS = [
    Beams(beams=4, max_new_tokens=8, n=4),
    Beams(beams=3, max_new_tokens=8, n=3, early_stopping=True),
    Beams(beams=3, max_new_tokens=10, n=2, early_stopping="never", length_penalty=2.0),
    Beams(beams=6, max_new_tokens=16, n=6, early_stopping="never", length_penalty=-0.2),
    Beams(beams=5, max_new_tokens=9, n=5, length_penalty=0.0),
    Beams(beams=2, max_new_tokens=12, n=1, length_penalty=0.6, no_repeat_ngram=2),
    Beams(beams=4, max_new_tokens=12, n=4, early_stopping=True, no_repeat_ngram=1),
    Beams(beams=3, max_new_tokens=1, n=3),
    Beams(beams=2, max_new_tokens=12, n=2, early_stopping="never", length_penalty=1.0),
]
MANY = list(range(1, 16))
"""So many stop tokens that beams end early and a step may be full of them."""


def theirs(model: Any, beams: Beams, stop_ids: list[int], **inputs: Any) -> list[tuple[list[int], float]]:
    """What transformers finds: new ids up to the stop token, and the score."""
    settings = GenerationConfig(
        do_sample=False,
        num_beams=beams.beams,
        max_new_tokens=beams.max_new_tokens,
        length_penalty=beams.length_penalty,
        early_stopping=beams.early_stopping,
        num_return_sequences=beams.n,
        no_repeat_ngram_size=beams.no_repeat_ngram,
        eos_token_id=stop_ids or None,
        pad_token_id=0,
        decoder_start_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        use_cache=not isinstance(model, Wrapped),
    )
    out = model.generate(**inputs, generation_config=settings)
    prompt = (
        1 if "decoder_start" in inputs or model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    )
    found = []
    for row, score in zip(out.sequences[:, prompt:].tolist(), out.sequences_scores.tolist(), strict=True):
        end = next((at for at, id in enumerate(row) if id in stop_ids), len(row))
        found.append((row[:end], score))
    return found


def same(ours: list[Hypothesis], expected: list[tuple[list[int], float]]) -> None:
    """Equal ids; scores to 1e-5. (A row of theirs that was never stopped may end in padding.)"""
    assert len(ours) == len(expected)
    for one, (ids, score) in zip(ours, expected, strict=True):
        assert list(one.ids) == ids[: len(one.ids)]
        assert not any(ids[len(one.ids) :])
        assert one.score == pytest.approx(score, rel=1e-5, abs=1e-5)


class Wrapped(PreTrainedModel, GenerationMixin):
    """Our model as transformers generates with any: ids to logits, with a memory that is fixed."""

    config_class = PreTrainedConfig

    def __init__(self, ours: Transformer, source: list[int]) -> None:
        super().__init__(
            PreTrainedConfig(vocab_size=V, num_hidden_layers=1, hidden_size=8, num_attention_heads=1)
        )
        self.ours = ours
        self.memory = ours.encode(torch.tensor([source])) if source else None

    def forward(self, input_ids: torch.Tensor, **_: Any) -> CausalLMOutput:
        memory = None if self.memory is None else self.memory.expand(len(input_ids), -1, -1)
        return CausalLMOutput(logits=self.ours.logits(self.ours.decode(input_ids, memory_BSD=memory)))

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **_: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}


def definite(model: torch.nn.Module, seed: int) -> Any:
    """Random weights that make some tokens much likelier than others."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.35, generator=generator)
    return model.eval()


@pytest.fixture(scope="module")
def llamas(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Transformer]]:
    config = LlamaConfig(
        vocab_size=V,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        eos_token_id=None,  # otherwise it goes on where the settings of a search name none
    )
    return [pair(tmp_path_factory.mktemp("llama"), LlamaForCausalLM(config), seed) for seed in range(2)]


@pytest.fixture(scope="module")
def t5s(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, Transformer]]:
    config = T5Config(
        vocab_size=V,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        decoder_start_token_id=0,
        tie_word_embeddings=False,
        feed_forward_proj="gated-gelu",
    )
    return [
        pair(tmp_path_factory.mktemp("t5"), T5ForConditionalGeneration(config), seed) for seed in range(3)
    ]


def pair(folder: Path, model: Any, seed: int) -> tuple[Any, Transformer]:
    """A model of transformers, and what we read from its folder."""
    definite(model, seed).save_pretrained(folder)
    return model, store.build(checkpoint.read(folder), folder)


@pytest.mark.parametrize("beams", SETTINGS, ids=range(len(SETTINGS)))
@pytest.mark.parametrize("stop_ids", [[2], MANY, []], ids=len)
def test_a_decoder_equals_transformers(
    llamas: list[tuple[Any, Transformer]], beams: Beams, stop_ids: list[int]
) -> None:
    for seed, (model, ours) in enumerate(llamas):
        ids = some_ids(1 + 3 * seed, vocabulary=V, seed=seed)
        expected = theirs(
            model, beams, stop_ids, input_ids=ids[None], attention_mask=torch.ones_like(ids)[None]
        )
        same(search(ours, ids.tolist(), beams, stop_ids), expected)


@pytest.mark.parametrize("at", range(len(SETTINGS)))
def test_t5_equals_transformers(t5s: list[tuple[Any, Transformer]], at: int) -> None:
    for seed, (model, ours) in enumerate(t5s):
        source, stop_ids = some_ids(4 + 3 * seed, vocabulary=V, seed=seed), (MANY, [2])[(at + seed) % 2]
        mask = torch.ones_like(source)[None]
        expected = theirs(model, SETTINGS[at], stop_ids, input_ids=source[None], attention_mask=mask)
        same(search(ours, [], SETTINGS[at], stop_ids, source.tolist()), expected)


def own(seed: int) -> Transformer:
    """An encoder and a decoder that belong to no family."""
    encoder = gpt_stack(causal=False).model_copy(update={"position": c.Sinusoidal()})
    decoder = gpt_stack(cross=True, placement="post")
    config = c.ModelConfig(vocabulary=V, context=40, encoder=encoder, decoder=decoder, start_id=3)
    return definite(build(config), seed)


@pytest.mark.parametrize("at", range(4))
def test_a_model_of_our_own_equals_transformers(at: int) -> None:
    ours, source = own(at), some_ids(9, vocabulary=V, seed=at).tolist()
    expected = theirs(Wrapped(ours, source), SETTINGS[at], [2, 5], input_ids=torch.tensor([[3]]))
    same(search(ours, [], SETTINGS[at], [2, 5], source), expected)


def test_a_penalty_on_length_judges_open_beams_by_their_present_length() -> None:
    """A rare case in which imagining the longest answer would end the search too early."""
    ours = definite(build(llama_config(vocabulary=V), dtype=torch.float32), 2)
    beams = Beams(beams=2, n=2, max_new_tokens=16, early_stopping="never", length_penalty=-0.5)
    expected = theirs(Wrapped(ours, []), beams, MANY, input_ids=torch.tensor([[4]]))
    same(search(ours, [4], beams, MANY), expected)


def test_the_settings_make_a_difference(llamas: list[tuple[Any, Transformer]]) -> None:
    """Without this, equality above could hold between searches that never had to decide anything."""
    results = {str(search(ours, [4], beams, MANY[:3])) for _, ours in llamas for beams in SETTINGS}
    assert len(results) > 2 * len(SETTINGS) - 4
    found = [one for _, ours in llamas for one in search(ours, [4], SETTINGS[0], MANY)]
    assert {one.finish for one in found} == {"stop", "length"}


def test_one_beam_is_greedy_and_more_find_likelier_answers() -> None:
    model = build(llama_config(), scale=12.0)
    gains = []
    for prompt in some_ids(6, 2).tolist():
        greedy = generate(model, [prompt], Sampling(temperature=0, max_new_tokens=6))[0]
        (one,) = search(model, prompt, Beams(beams=1, max_new_tokens=6))
        assert list(one.ids) == greedy
        (best,) = search(model, prompt, Beams(beams=8, max_new_tokens=6))
        with torch.no_grad():
            logprobs = model.logits(model.decode(torch.tensor([[*prompt, *best.ids]]))).log_softmax(-1)[0]
        mean = sum(float(logprobs[1 + at, id]) for at, id in enumerate(best.ids)) / 6
        assert best.score == pytest.approx(mean, abs=1e-10)
        gains.append(best.score - one.score)
    assert min(gains) >= 0
    assert max(gains) > 0.01


def test_the_context_ends_an_answer() -> None:
    model = build(llama_config())
    prompt = [1] * (model.config.context - 3)
    found = search(model, prompt, Beams(beams=3, n=3))
    assert [(len(one.ids), one.finish) for one in found] == [(3, "length")] * 3
    with pytest.raises(MaturaError, match="beam search: the prompt has 128 tokens"):
        search(model, [1] * 128, Beams())
    with pytest.raises(MaturaError, match="stop_ids names token 97; the model's tokens are 0 to 96"):
        search(model, [1], Beams(), [97])
