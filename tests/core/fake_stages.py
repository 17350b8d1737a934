"""Small stages with the shape of the real ones: they count their calls, can be killed, and can judge."""

from types import SimpleNamespace
from typing import Annotated, Any, Literal

from pydantic import Field

from matura.core import artifact
from matura.core.config import Config, Input
from matura.core.plan import Estimate
from matura.core.workspace import Workspace


class CurateConfig(Config):
    path: Annotated[str, Input("raw")] = Field(description="Folder of documents.")
    heldout: int = Field(2, ge=0, description="Documents kept for the exam.")


class SynthesizeConfig(Config):
    model: Annotated[str, Input("model")] = Field(description="Who writes.")
    count: int = Field(3, description="Texts.")


class Optimizer(Config):
    lr: float = Field(1e-3, gt=0, description="Peak learning rate.")


class FinetuneConfig(Config):
    model: Annotated[str, Input("model")] = Field(description="What to train.")
    corpus: Annotated[str, Input("corpus", "conversations")] = Field(description="What to train on.")
    replay: Annotated[str | None, Input("conversations")] = Field(None, description="General text.")
    method: Literal["lora", "full"] = Field("lora", description="How.")
    steps: int = Field(4, ge=1, description="Updates.")
    optim: Optimizer = Field(Optimizer(), description="Optimizer.")


class EvaluateConfig(Config):
    model: Annotated[str, Input("model")] = Field(description="The child.")
    parent: Annotated[str | None, Input("model")] = Field(None, description="The parent.")
    passes: bool = Field(True, description="The verdict.")


class MergeConfig(Config):
    model: Annotated[str, Input("model")] = Field(description="What to merge.")


def make_stages() -> dict[str, Any]:
    """Fresh stage modules by kind; `finetune.kill_at` raises `finetune.kill_with` at that step."""

    def curate(config, inputs, draft):
        raw = inputs["path"]
        text = "".join(raw.file(name).read_text() for name in raw.files)
        (draft.path / "train.txt").write_text(text)
        return draft.commit({"line": f"{len(raw.files)} documents"})

    def synthesize(config, inputs, draft):
        (draft.path / "train.jsonl").write_text(f"{inputs['model'].id} {config.count}")
        return draft.commit({})

    def finetune(config, inputs, draft):
        module = stages["finetune"]
        checkpoint = draft.resume / "step"
        start = int(checkpoint.read_text()) if checkpoint.exists() else 0
        draft.metrics.rewind(start)
        for step in range(start + 1, config.steps + 1):
            if step == module.kill_at:
                raise module.kill_with
            module.worked.append(step)
            draft.metrics.log(step, loss=1 / step)
            with artifact.atomic_write(checkpoint) as temporary:
                temporary.write_text(str(step))
        ids = " ".join(f"{name}={made.id}" for name, made in sorted(inputs.items()))
        (draft.path / "model.txt").write_text(f"{ids} {config.steps} {config.optim.lr}")
        return draft.commit({"line": "a tuned model"})

    def evaluate(config, inputs, draft):
        (draft.path / "report.html").write_text("<p>report")
        reasons = [] if config.passes else ["accuracy regressed: -9.0 points"]
        return draft.commit({"gate": {"passed": config.passes, "reasons": reasons}}, logs=["report.html"])

    def merge(config, inputs, draft):
        (draft.path / "model.txt").write_text(inputs["model"].file("model.txt").read_text())
        return draft.commit({})

    def stage(kind, config, run, **more):
        calls: list[str] = []

        def counted(settings, inputs, draft):
            calls.append(draft.path.name)
            return run(settings, inputs, draft)

        def estimate(settings, inputs):
            return Estimate(seconds=30, memory_bytes=2_000_000_000, disk_bytes=1_000)

        return SimpleNamespace(
            KIND=kind, VERSION=1, Config=config, run=counted, estimate=estimate, calls=calls, **more
        )

    stages = {
        "curate": stage("corpus", CurateConfig, curate),
        "synthesize": stage("conversations", SynthesizeConfig, synthesize),
        "finetune": stage(
            "model", FinetuneConfig, finetune, kill_at=0, kill_with=KeyboardInterrupt(), worked=[]
        ),
        "evaluate": stage("evaluation", EvaluateConfig, evaluate),
        "merge": stage("model", MergeConfig, merge),
    }
    return stages


def make_model(workspace: Workspace, name: str) -> artifact.Artifact:
    """A model in the workspace, as `matura pull` would leave it."""
    draft = artifact.begin(
        workspace.model(name), kind="model", stage="pull", version=1, config={"reference": name}, inputs={}
    )
    (draft.path / "model.txt").write_text(name)
    return draft.commit({})
