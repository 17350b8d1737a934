import pytest

from matura.commands import examining
from matura.core import artifact
from matura.core.errors import ArtifactError, ModelNotFound
from matura.core.metrics import MetricsLog
from matura.core.workspace import Workspace


def logged(folder, **series):
    folder.mkdir()
    log = MetricsLog(folder / "metrics.jsonl")
    for step, values in enumerate(zip(*series.values(), strict=True), 1):
        log.log(step, **dict(zip(series, values, strict=True)))
    return folder


def test_the_doctor_reads_a_run_that_is_not_finished(tmp_path, capsys):
    sick = logged(tmp_path / "sick", ended=[0.1] * 6)
    assert examining.show(str(sick), Workspace(tmp_path)) == 1
    told = capsys.readouterr().out
    assert "no end, since step 2" in told
    assert "Raise max_new_tokens" in told
    sound = logged(tmp_path / "sound", ended=[0.9] * 6)
    assert examining.show(str(sound), Workspace(tmp_path)) == 0
    assert "Nothing wrong in 6 rows up to step 6." in capsys.readouterr().out


def test_the_doctor_knows_the_weights_of_rewards_from_the_settings_beside_the_log(tmp_path, capsys):
    for weight, alarms in ((-1.0, 0), (1.0, 1)):
        place = tmp_path / str(alarms)
        settings = {"rewards": {"repetition": {"weight": weight}}}
        draft = artifact.begin(place, kind="model", stage="grpo", version=1, config=settings, inputs={})
        for step in range(1, 31):
            draft.metrics.log(step, reward=step / 30, **{"heldout_reward.repetition": 1 - step / 30})
        assert examining.show(str(place), Workspace(tmp_path)) == alarms
    assert "heldout_reward.repetition fell" in capsys.readouterr().out


def test_what_has_no_metrics_is_an_error(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "metrics.jsonl").touch()
    with pytest.raises(ArtifactError, match="nothing is in it yet"):
        examining.show(str(tmp_path / "empty"), Workspace(tmp_path))
    with pytest.raises(ModelNotFound):
        examining.show("nothing-here", Workspace(tmp_path))
