"""Models leave for other programs and come back: the same weights, logits, ids, template, stop tokens and defaults."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LlamaConfig, LlamaForCausalLM

from benchmarks import tiny_families
from matura import cli
from matura.core import lineage
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.peft_settings import LoraConfig, PrefixConfig, Tuning
from matura.core.raw import raw_input
from matura.model import checkpoint, store
from matura.model.peft import peft_files
from matura.model.peft.adapter import attach
from matura.stages import export, pull
from matura.tokenizer import conversation, to_hf
from tests.tiny_models import CHATML, VOCABULARY, adapted, chatml, network, pulled, run, talk

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "hello 12, Grüße 🌍"},
    {"role": "assistant", "content": "hello hello"},
    {"role": "user", "content": "  and\n\nagain? "},
]
DEFAULTS = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}


def hf_folder(folder: Path) -> Path:
    """A llama as another project saves it: two stop tokens, sampling defaults, a chat template."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(eos_token_id=[2, 0], pad_token_id=0, **DEFAULTS)
    model.save_pretrained(folder)
    chatml().tokenizer.save(folder)
    settings = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "chat_template": CHATML}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        if isinstance(model, torch.nn.Module) and hasattr(model, "decode"):
            return model.logits(model.decode(torch.tensor([ids])))
        return model(input_ids=torch.tensor([ids])).logits


@pytest.fixture
def from_outside(tmp_path: Path) -> tuple[Path, Artifact, Path]:
    """Hugging Face -> Matura -> Hugging Face."""
    source = hf_folder(tmp_path / "source")
    made = run(pull, tmp_path / "model", reference="source", files=raw_input(source))
    return source, made, run(export, tmp_path / "out", model=made).path / "hf"


def test_hugging_face_to_hugging_face_keeps_everything(from_outside: tuple[Path, Artifact, Path]) -> None:
    """T39: what is exported writes conversations as training does, id for id."""
    source, made, folder = from_outside
    before, after = (AutoModelForCausalLM.from_pretrained(place).eval() for place in (source, folder))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    format = conversation.load(made.path)
    ids = format.prompt(TALK)
    assert tokenizer.apply_chat_template(TALK, add_generation_prompt=True, return_dict=False) == ids
    assert torch.equal(logits(before, ids), logits(after, ids))
    torch.testing.assert_close(logits(store.load(made.path), ids), logits(after, ids), rtol=1e-5, atol=1e-5)
    old, new = before.generation_config, after.generation_config
    for name in (*DEFAULTS, "eos_token_id", "pad_token_id", "bos_token_id"):
        assert getattr(new, name) == getattr(old, name), name
    assert after.config.eos_token_id == [2, 0]
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|endoftext|>",
        None,
    )
    assert tokenizer.chat_template == CHATML


def test_generate_stops_at_every_stop_token(from_outside: tuple[Path, Artifact, Path]) -> None:
    _, made, folder = from_outside
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([conversation.load(made.path).prompt(TALK)])
    for stop in (0, 2):
        with torch.no_grad():  # whatever it reads, this token is next
            model.lm_head.weight.zero_()
            model.model.norm.weight.zero_()
            bias = torch.full((VOCABULARY,), -9.0)
            bias[stop] = 9.0
            model.lm_head.bias = torch.nn.Parameter(bias)
        answer = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            temperature=None,
            top_p=None,
        )
        assert answer[0, ids.shape[1] :].tolist() == [stop]


def test_matura_to_hugging_face_and_back_is_bit_for_bit(tmp_path: Path) -> None:
    made = pulled(tmp_path, **{"general.sampling.temp": 0.5})
    folder = run(export, tmp_path / "out", model=made).path / "hf"
    again = run(pull, tmp_path / "again", reference="again", files=raw_input(folder))
    before, after = store.load(made.path), store.load(again.path)
    assert after.config == before.config
    for name, tensor in before.state_dict().items():
        assert torch.equal(after.state_dict()[name], tensor), name
    one, other = conversation.load(made.path), conversation.load(again.path)
    assert other.render(talk(1).messages) == one.render(talk(1).messages)
    assert (other.template, other.stop_ids) == (one.template, one.stop_ids)
    assert other.tokenizer.settings() == one.tokenizer.settings()
    assert other.generation == {"temperature": 0.5, "do_sample": True}
    twice = run(export, tmp_path / "twice", model=again).path / "hf"
    assert (twice / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(("weights", "dtype"), [("F16", torch.float16), ("BF16", torch.bfloat16)])
def test_smaller_weights(tmp_path: Path, weights: str, dtype: torch.dtype) -> None:
    made = run(export, tmp_path / "out", model=pulled(tmp_path), weights=weights)
    stored = load_file(made.path / "hf" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {dtype}
    assert torch.equal(stored["model.embed_tokens.weight"], network().embed.weight.to(dtype))
    assert AutoModelForCausalLM.from_pretrained(made.path / "hf", dtype="auto").dtype is dtype
    assert made.summary["weights"] == weights


def test_weights_too_large_for_f16_are_refused(tmp_path: Path) -> None:
    made = pulled(tmp_path, model=network(scale=1e8))
    with pytest.raises(FormatError, match=r"model\.embed_tokens\.weight holds .*, more than F16 can"):
        run(export, tmp_path / "out", model=made, weights="F16")
    assert not (tmp_path / "out" / "artifact.json").exists()


def test_updates_are_added_into_the_weights(tmp_path: Path) -> None:
    parent = pulled(tmp_path)
    settings = Tuning(lora=LoraConfig(rank=2))
    tuned = adapted(tmp_path / "tuned", parent, settings, source_quantization="Q4_1", line="trained")
    made = run(export, tmp_path / "out", model=tuned)
    ids = chatml().prompt(TALK)
    found = logits(AutoModelForCausalLM.from_pretrained(made.path / "hf").eval(), ids)
    torch.testing.assert_close(found, logits(store.load(tuned.path), ids), rtol=1e-5, atol=1e-4)
    assert (found - logits(store.load(parent.path), ids)).abs().max() > 0.1
    assert made.summary["source_quantization"] == "Q4_1"
    drawn = lineage.draw(lineage.tree(made))
    for name in ("export", "out", "tuned", "tiny.gguf"):
        assert name in drawn


@pytest.mark.parametrize("format", ["peft", "peft-portable", "gguf-adapter"])
def test_an_adapter_is_written_alone(format: str, tmp_path: Path) -> None:
    rank = LoraConfig(rank=2, rank_stabilized=True, alphas={"down": 5})
    tuned = adapted(tmp_path / "tuned", pulled(tmp_path), Tuning(lora=rank))
    made = run(export, tmp_path / "out", model=tuned, format=format)
    assert made.summary["trained_on"] == "float32"
    written = sorted(path.name for path in export.copy_to(made, tmp_path / "mine"))
    if format == "gguf-adapter":
        assert written == ["adapter.gguf"]
        (single,) = export.copy_to(made, tmp_path / "a.gguf")
        assert single.read_bytes() == (tmp_path / "mine" / "adapter.gguf").read_bytes()
        return
    assert written == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    settings = json.loads((tmp_path / "mine" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "tiny"
    assert bool(settings["alpha_pattern"]) is (format == "peft")
    back = peft_files.read(tmp_path / "mine", network().config)
    ids = chatml().prompt(TALK)
    found = logits(attach(network(), back), ids)
    torch.testing.assert_close(found, logits(store.load(tuned.path), ids), rtol=1e-5, atol=1e-4)


def test_what_no_format_has_a_place_for_is_refused(tmp_path: Path) -> None:
    prefix = adapted(
        tmp_path / "tuned", pulled(tmp_path), Tuning(method="prefix", prefix=PrefixConfig(tokens=3))
    )
    for format in ("hf", "gguf"):
        with pytest.raises(ConfigError, match="has a prefix, which no other program's model has a place for"):
            run(export, tmp_path / format, model=prefix, format=format)
    assert run(export, tmp_path / "peft", model=prefix, format="peft").summary["files"] == "peft"
    with pytest.raises(ConfigError, match="is a whole model, so there is no adapter to write"):
        run(export, tmp_path / "none", model=prefix.input("model"), format="peft")


def test_many_bytes_are_cut_into_shards(tmp_path: Path) -> None:
    model = network(tied=False)
    checkpoint.write_hf(tmp_path / "whole", model)
    checkpoint.write_hf(tmp_path / "cut", model, shard_bytes=20_000)
    files = sorted(path.name for path in (tmp_path / "cut").glob("*.safetensors"))
    assert len(files) > 2
    assert files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert all((tmp_path / "cut" / name).stat().st_size < 60_000 for name in files)
    index = json.loads((tmp_path / "cut" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 4 * sum(p.numel() for p in model.parameters())
    one, other = (AutoModelForCausalLM.from_pretrained(tmp_path / name).eval() for name in ("whole", "cut"))
    assert torch.equal(logits(one, [1, 2, 3]), logits(other, [1, 2, 3]))
    again = store.build(checkpoint.read(tmp_path / "cut"), tmp_path)
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_an_export_is_copied_out_and_nothing_is_overwritten(tmp_path: Path) -> None:
    made = run(export, tmp_path / "out", model=pulled(tmp_path))
    place = tmp_path / "elsewhere" / "mine"
    written = export.copy_to(made, place)
    assert sorted(path.name for path in written) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    for path in written:
        assert path.read_bytes() == (made.path / "hf" / path.name).read_bytes()
    times = [path.stat().st_mtime_ns for path in written]
    assert export.copy_to(made, place) == written
    assert [path.stat().st_mtime_ns for path in written] == times
    (place / "config.json").write_text("{}")
    (place / "tokenizer.json").unlink()
    with pytest.raises(MaturaError, match=r"config\.json is there already and differs.*nothing was copied"):
        export.copy_to(made, place)
    assert not (place / "tokenizer.json").exists()
    with pytest.raises(MaturaError, match="there is a file in its place"):
        export.copy_to(made, place / "config.json")
    with pytest.raises(MaturaError, match=r"Cannot write /proc/mine/.*Choose another place with --to"):
        export.copy_to(made, "/proc/mine")


def test_a_format_refuses_weights_that_it_does_not_have() -> None:
    with pytest.raises(ConfigError, match="format=hf has no weights=Q8_0; it has F32, F16, BF16"):
        parse(export.Config, {"model": "m", "weights": "Q8_0"}, "test")
    with pytest.raises(ConfigError, match="format=gguf has no weights=BF16"):
        parse(export.Config, {"model": "m", "format": "gguf", "weights": "BF16"}, "test")


def test_the_command_and_a_recipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made, place = pulled(tmp_path), tmp_path / "mine"
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))

    def matura(*words: str) -> str:
        monkeypatch.setattr("sys.argv", ["matura", *words])
        cli.app(prog_name="matura", standalone_mode=False)
        return capsys.readouterr().out

    assert "export" in matura("export", f"model={made.path}", "--plan", "--to", str(place))
    assert not place.exists()
    printed = matura("export", f"model={made.path}", "--to", str(place))
    assert "Hugging Face folder, llama, F32" in printed
    assert printed.endswith(f"Copied 7 files to {place}\n")
    assert AutoTokenizer.from_pretrained(place).eos_token == "<|im_end|>"
    assert "reused" in matura("export", f"model={made.path}")  # where it is copied to is no setting
    assert "--to PLACE" in matura("export", "--help")
    recipe = tmp_path / "leave.yaml"
    recipe.write_text(f"stages:\n  out: {{stage: export, model: {made.path}, weights: BF16}}\n")
    assert "Exported: " in matura("run", str(recipe))
    assert "tiny.gguf" in matura("lineage", "leave/out")


@pytest.mark.parametrize(("weights", "tolerance"), [(None, 2e-2), ("F32", 0.0)])
def test_a_gguf_file_and_back(tmp_path: Path, weights: str | None, tolerance: float) -> None:
    """T39: the file carries the template and stop tokens of training; its ids are the same."""
    source = pulled(tmp_path)
    made = run(export, tmp_path / "out", model=source, format="gguf", weights=weights)
    copied = export.copy_to(made, tmp_path / "mine" / "small.gguf")
    assert copied == [tmp_path / "mine" / "small.gguf"]
    again = run(pull, tmp_path / "again", reference="again", files=raw_input(copied[0]))
    ids = chatml().prompt(TALK)
    before, after = (logits(store.load(one.path), ids) for one in (source, again))
    assert float((after - before).abs().max() / before.abs().max()) <= tolerance
    one, other = conversation.load(source.path), conversation.load(again.path)
    assert other.render(talk(1).messages) == one.render(talk(1).messages)
    assert (other.template, other.stop_ids) == (one.template, one.stop_ids)
    assert made.summary["weights"] == (weights or "F16")
    assert export.copy_to(made, tmp_path / "folder") == [tmp_path / "folder" / "model.gguf"]


@pytest.mark.parametrize("name", tiny_families.MODELS)
def test_every_family_goes_out_and_comes_back(name: str, tmp_path: Path) -> None:
    theirs = tiny_families.save(name, tmp_path / "theirs")
    model = store.build(checkpoint.read(tmp_path / "theirs"), tmp_path)
    settings = to_hf.token_ids(chatml())
    checkpoint.write_hf(tmp_path / "ours", model, settings=settings)
    again = store.build(checkpoint.read(tmp_path / "ours"), tmp_path)
    assert again.config == model.config
    for key, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], tensor), key
    loaded = type(theirs).from_pretrained(tmp_path / "ours").eval()
    ids = torch.tensor([[5, 9, 17, 33, 65, 129, 257]])
    more = {"decoder_input_ids": ids.flip(1)} if model.encoder and model.decoder else {}
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids, **more).logits, theirs(input_ids=ids, **more).logits)
