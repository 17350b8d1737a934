import base64
import hashlib
import zipfile
from pathlib import Path

import pytest

from matura.core import references, wheels
from matura.core.aliases import ALIASES, Alias, HubReference, Weights, Wheel, WheelSet
from matura.core.errors import ArtifactError, FormatError, MaturaError, ModelNotFound
from matura.core.modelfiles import is_model_file
from matura.core.references import (
    NameReference,
    PackageReference,
    PathReference,
    fetch,
    model_name,
    parse,
)
from matura.core.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work")


class Index:
    """Stands for pip and a package index: builds tiny wheels, counts downloads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []
        folder.mkdir()

    def add(self, package: str, files: dict[str, bytes], version: str = "1.0") -> str:
        path = self.folder / f"{package.replace('-', '_')}-{version}-py3-none-any.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
        return sha256(path.read_bytes())

    def download(self, package: str, version: str | None, folder: Path, *, sha256: str | None = None) -> Path:
        if version is None or wheels._present(package, version, folder) is None:
            self.asked.append(package)
            found = sorted(self.folder.glob(f"{package.replace('-', '_')}-{version or '*'}-*.whl"))
            if not found:
                raise MaturaError(f"cannot fetch the wheel {package}: no matching distribution")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / found[-1].name).write_bytes(found[-1].read_bytes())
            version = found[-1].name.split("-")[1]
        return wheels.download(package, version, folder, sha256=sha256)


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return Index(tmp_path / "index")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_form_of_a_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/somebody")
    (tmp_path / "here").mkdir()
    parsed = {
        "~/m.gguf": PathReference(Path("/home/somebody/m.gguf")),
        "./x": PathReference(tmp_path / "x"),
        "here": PathReference(tmp_path / "here"),
        "mine": NameReference("mine"),
        "adapt/tuned": NameReference("adapt/tuned"),
        "hf:org/name": HubReference("org/name"),
        "hf:org/name@refs/pr/1": HubReference("org/name", "refs/pr/1"),
        "hf:org/name/sub/m.Q4_K_M.gguf@v1": HubReference("org/name", "v1", "sub/m.Q4_K_M.gguf"),
        "pypi:thing": PackageReference("thing"),
        "pypi:some-thing==1.0.2": PackageReference("some-thing", "1.0.2"),
        "gpt2": ALIASES["gpt2"],
    }
    assert {text: parse(text) for text in parsed} == parsed


@pytest.mark.parametrize(
    "text",
    [
        "hf:name",
        "hf:org/name@",
        "hf:org/../x",
        "pypi:",
        "pypi:-r x",
        "pypi:a==",
        "pypi:a @ http://b",
        "https://a/b",
        "",
    ],
)
def test_what_cannot_be_a_reference_says_what_can(text: str) -> None:
    with pytest.raises(ModelNotFound, match=r"hf:org/name|pypi:package"):
        parse(text)


def test_names_in_the_workspace_are_safe_and_tell_paths_apart() -> None:
    assert model_name(parse("hf:org/name/sub/m.gguf@refs/pr/1")) == "org--name--sub--m.gguf--refs--pr--1"
    assert model_name(parse("pypi:thing==1.0")) == "thing-1.0"
    assert model_name(parse("smollm2-135m-instruct")) == "smollm2-135m-instruct"
    first, second = model_name(parse("/a/model.gguf")), model_name(parse("/b/model.gguf"))
    assert first != second
    assert first.startswith("model-")


def test_a_path_is_used_as_it_is(workspace: Workspace, tmp_path: Path) -> None:
    model = tmp_path / "model.gguf"
    model.write_bytes(b"GGUF")
    assert fetch(str(model), workspace) == model
    with pytest.raises(ModelNotFound, match=r"no model at .*modl\.gguf; did you mean .*model\.gguf\?"):
        fetch(str(tmp_path / "modl.gguf"), workspace)
    (tmp_path / "weights.bin").write_bytes(b"")
    with pytest.raises(ModelNotFound, match="pickle"):
        fetch(str(tmp_path / "weights.bin"), workspace)


def test_an_unknown_name_gets_the_nearest_and_the_list(workspace: Workspace) -> None:
    (workspace.models / "mine").mkdir(parents=True)
    assert fetch("mine", workspace) == workspace.models / "mine"
    with pytest.raises(
        ModelNotFound, match=r"did you mean smollm2-135m-instruct\?.*workspace: mine.*minilm-l6, gemma3"
    ):
        fetch("smollm-135m", workspace)


def test_a_package_gives_its_model_and_nothing_else(workspace: Workspace, index: Index) -> None:
    index.add(
        "some-model",
        {
            "some_model/__init__.py": b"raise SystemExit",
            "some_model/m/config.json": b"{}",
            "some_model/m/model.safetensors": b"weights",
            "some_model/m/pytorch_model.bin": b"pickle",
            "some_model-1.0.dist-info/top_level.txt": b"some_model",
        },
    )
    folder = fetch("pypi:some-model==1.0", workspace, index.download)
    assert folder == workspace.downloads / "some_model-1.0-py3-none-any" / "some_model" / "m"
    files = [path.name for path in folder.parent.parent.rglob("*") if path.is_file()]
    assert sorted(files) == ["config.json", "model.safetensors"]
    assert fetch("pypi:some-model==1.0", workspace, index.download) == folder
    assert index.asked == ["some-model"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a/code.py": b"x"}, "holds no model"),
        ({"a/pytorch_model.bin": b"x"}, "holds no model.*never pickle"),
        ({"a/one.gguf": b"x", "a/two.gguf": b"y"}, "holds 2 models; give the path.*one.gguf.*two.gguf"),
        ({"a/config.json": b"{}"}, "neither a GGUF file nor config.json"),
    ],
)
def test_a_package_without_one_model_says_so(
    workspace: Workspace, index: Index, files: dict[str, bytes], message: str
) -> None:
    index.add("thing", files)
    with pytest.raises(ModelNotFound, match=f"(?s){message}"):
        fetch("pypi:thing", workspace, index.download)


def test_a_package_that_cannot_be_fetched_is_one_message(workspace: Workspace, index: Index) -> None:
    with pytest.raises(ModelNotFound, match="cannot fetch the wheel nothing"):
        fetch("pypi:nothing", workspace, index.download)


def test_hostile_wheels_are_refused(workspace: Workspace, index: Index, tmp_path: Path) -> None:
    index.add("slip", {"../../../escaped.json": b"{}"})
    with pytest.raises(FormatError, match="leads out of its folder"):
        fetch("pypi:slip", workspace, index.download)
    index.add("bomb", {"a/model.gguf": bytes(65 << 20)})
    with pytest.raises(FormatError, match="unpacks to"):
        fetch("pypi:bomb", workspace, index.download)
    assert not list(tmp_path.rglob("escaped.json"))
    assert not list(workspace.downloads.glob(".partial-*"))


def test_the_disk_is_checked_before_unpacking(
    workspace: Workspace, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.add("thing", {"a/m.gguf": b"x"})
    monkeypatch.setattr("matura.core.workspace.free_bytes", lambda path: 10)
    with pytest.raises(ArtifactError, match=r"The package thing .* needs about"):
        fetch("pypi:thing", workspace, index.download)


@pytest.fixture
def parted(index: Index, monkeypatch: pytest.MonkeyPatch) -> Alias:
    """An alias of two wheels with one half of the weights each."""
    sums = [
        index.add("half-a", {"half_a/data/m.gguf.part00": b"GGUF one "}),
        index.add("half-b", {"half_b/data/m.gguf.part01": b"two", "half_b/data/NOTICE.txt": b"terms"}),
    ]
    source = WheelSet(
        wheels=(
            Wheel("half-a", "1.0", sums[0], "half_a/data"),
            Wheel("half-b", "1.0", sums[1], "half_b/data"),
        ),
        weights=(Weights("m.gguf", sha256(b"GGUF one two"), ("m.gguf.part00", "m.gguf.part01")),),
    )
    alias = Alias("parted", source, "for tests")
    monkeypatch.setitem(references.ALIASES, "parted", alias)
    return alias


def test_an_alias_joins_parts_and_reuses_what_is_there(
    workspace: Workspace, index: Index, parted: Alias
) -> None:
    model = fetch("parted", workspace, index.download)
    assert model == workspace.downloads / "parted" / "m.gguf"
    assert model.read_bytes() == b"GGUF one two"
    assert sorted(path.name for path in model.parent.iterdir()) == ["NOTICE.txt", "m.gguf"]
    model.write_bytes(b"changed by somebody")
    assert fetch(parted, workspace, index.download).read_bytes() == b"GGUF one two"
    assert index.asked == ["half-a", "half-b"]
    assert not list(workspace.downloads.glob(".partial-*"))


def test_half_a_wheel_is_fetched_again(workspace: Workspace, index: Index, parted: Alias) -> None:
    fetch("parted", workspace, index.download)
    wheel = next(workspace.downloads.glob("half_a-*.whl"))
    wheel.write_bytes(wheel.read_bytes()[:40])
    fetch("parted", workspace, index.download)
    assert index.asked == ["half-a", "half-b", "half-a"]


def test_another_wheel_under_the_same_name_is_refused(
    workspace: Workspace, index: Index, parted: Alias
) -> None:
    index.add("half-a", {"half_a/data/m.gguf.part00": b"GGUF bad "})
    with pytest.raises(ModelNotFound, match="is not the file that was pinned"):
        fetch("parted", workspace, index.download)


def test_weights_with_another_checksum_are_refused(
    workspace: Workspace, index: Index, parted: Alias, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(parted.source, WheelSet)
    source = WheelSet(parted.source.wheels, (Weights("m.gguf", "0" * 64, parted.source.weights[0].parts),))
    with pytest.raises(FormatError, match=r"m\.gguf .* is not the file known as parted: its sha256 is"):
        fetch(Alias("parted", source, ""), workspace, index.download)
    assert not (workspace.downloads / "parted").exists()
    source = WheelSet(parted.source.wheels, (Weights("m.gguf", "0" * 64, ("m.gguf.part07",)),))
    with pytest.raises(FormatError, match=r"m\.gguf\.part07, a part of m\.gguf, is not in its package"):
        fetch(Alias("parted", source, ""), workspace, index.download)


def test_the_aliases_are_well_formed() -> None:
    assert {"smollm2-135m-instruct", "minilm-l6", "gemma3-270m", "gpt2", "llama-3.2-1b"} <= ALIASES.keys()
    for name, alias in ALIASES.items():
        assert alias.name == name == model_name(alias)
        if isinstance(alias.source, WheelSet):
            pinned = [wheel.sha256 for wheel in alias.source.wheels]
            pinned += [weights.sha256 for weights in alias.source.weights]
            assert all(len(base64.b16decode(checksum.upper())) == 32 for checksum in pinned)
            assert all(is_model_file(weights.name) for weights in alias.source.weights)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a/model.safetensors", True),
        ("a/m.gguf", True),
        ("a/m.gguf.part00", True),
        ("a/tokenizer.model", True),
        ("a/chat_template.jinja", True),
        ("a/pytorch_model.bin", False),
        ("a/code.py", False),
        ("a/.hidden.json", False),
        ("a-1.0.dist-info/entry_points.txt", False),
    ],
)
def test_which_files_make_a_model(name: str, wanted: bool) -> None:
    assert is_model_file(name) is wanted
