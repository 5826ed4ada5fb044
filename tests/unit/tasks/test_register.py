"""A checkpoint becomes one version of a registered model, whatever was interrupted."""

from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from tasks.stage.contract import Artifact
from tasks.tracking.mlflow import Tracking
from tests.flows.conftest import make_history


class Killed(BaseException):
    """Stands for SIGKILL."""


@pytest.mark.parametrize(
    ("call", "done"),
    [
        ("create_registered_model", True),
        ("finalize_logged_model", False),
        ("finalize_logged_model", True),
        ("create_model_version", False),
        ("create_model_version", True),
    ],
)
def test_a_registration_that_was_killed_is_completed_by_the_next_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, done: bool
) -> None:
    make_history(tmp_path)
    policy = tmp_path / "run" / "policy"
    policy.mkdir(parents=True)

    def register() -> str:
        mlflow.set_tracking_uri(f"sqlite:///{tmp_path / 'elsewhere.db'}")  # as in a new process, it is not ours
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # which that call sets
        tracking = Tracking(tmp_path / "run", "ReST-EM", {})
        return tracking.register("model", 0, Artifact(policy, "d" * 64), {"run": "run"}).number

    original = getattr(MlflowClient, call)

    def killed(*arguments: Any, **named: Any) -> None:
        if done:
            original(*arguments, **named)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, call, killed)
        with pytest.raises(Killed):
            register()
    assert register() == register() == "1"
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    assert len(client.search_model_versions()) == 1
    assert len(client.search_logged_models([e.experiment_id for e in client.search_experiments()])) == 1
