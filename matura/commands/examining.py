"""The run doctor in the terminal."""

from __future__ import annotations

from pathlib import Path

from matura.core import planning
from matura.core.artifact import METRICS
from matura.core.errors import ArtifactError
from matura.core.metrics import MetricsLog
from matura.core.reward_settings import penalties_in
from matura.core.workspace import Workspace


def show(run: str, workspace: Workspace) -> int:
    """Print the alarms over a run's metrics; how many there are. A run that is not finished is named by its path.

    Raises ArtifactError for what has no metrics, FormatError for metrics that are broken.
    """
    from matura.align import doctor

    path = Path(run).expanduser()
    if not (path / METRICS).is_file():
        path = workspace.find(run).path
    rows = MetricsLog(path / METRICS).rows()
    if not rows:
        raise ArtifactError(
            f"{path} has no {METRICS}, or nothing is in it yet; the doctor examines training runs"
        )
    alarms = doctor.examine(rows, _penalties(path))
    for alarm in alarms:
        print(f"{alarm.name}, since step {alarm.step}\n  {alarm.found}\n  {alarm.advice}")
    if not alarms:
        print(f"Nothing wrong in {len(rows):,} rows up to step {rows[-1]['step']:,}.")
    return len(alarms)


def _penalties(path: Path) -> frozenset[str]:
    """Rewards whose weight is below 0, by the settings beside the log."""
    made = planning.made_in(path)
    return frozenset() if made is None else penalties_in(made.config.get("rewards"))
