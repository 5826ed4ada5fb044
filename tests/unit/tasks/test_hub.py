"""A name that is on no hub is told quickly, and what it may have been meant as."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants

from data import hub
from data.hub import meant_as_path, why_unreachable
from data.prepare.sources import DataFileError, located_rows
from models.config import JudgeConfig
from models.loading import ModelError
from tasks.datasets.inputs import dataset_artifact
from tasks.policies.model_folder import resolve_model
from tasks.stage.contract import Artifact
from tests.unit.own_code import write

NOBODY = "http://127.0.0.1:9"  # the port of a service that no machine has any more


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "_failed", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", NOBODY)


class Refusing(BaseHTTPRequestHandler):
    """A server that is there."""

    def do_HEAD(self) -> None:
        self.send_error(501)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_whatever_a_hub_says_it_is_there(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert str(why_unreachable()).startswith(f"{NOBODY} does not answer: ")
    monkeypatch.setattr(constants, "ENDPOINT", address)
    assert why_unreachable() is None


def test_it_is_not_asked_again_at_once_nor_where_the_user_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    first = why_unreachable()
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: pytest.fail("it was asked"))
    assert why_unreachable() == first
    monkeypatch.setattr(hub, "_failed", {})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert why_unreachable() is None


def test_a_model_and_a_data_set_that_are_nowhere_are_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "models" / "qwen").mkdir(parents=True)
    (tmp_path / "data").mkdir()
    for library in ("datasets.load_dataset", "huggingface_hub.HfApi.dataset_info"):
        monkeypatch.setattr(library, lambda *_, **__: pytest.fail("it would try for half a minute"))
    with pytest.raises(ModelError) as refused:
        resolve_model("modles/qwen", JudgeConfig())
    assert str(refused.value).startswith(
        "modles/qwen is neither a folder nor in the cache, and the hub cannot be reached."
    )
    assert f"{NOBODY} does not answer" in refused.value.why
    assert "Did you mean models/qwen?" in refused.value.what_next
    for use in (lambda: list(located_rows(Path("data/rows"))), lambda: dataset_artifact(Path("data/rows"))):
        with pytest.raises(
            DataFileError, match=r"There is no file data/rows, .*There is a folder data here, but no data/"
        ):
            use()


def test_a_run_is_planned_on_what_is_not_here_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dataset_artifact(Path("somebody/rows:train"), planning=True) == Artifact(Path("somebody/rows:train"), None)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert dataset_artifact(Path("somebody/rows"), planning=True).digest is None
    assert resolve_model("runs/sft/best/policy", JudgeConfig(), offline=True) is None
    with pytest.raises(ModelError, match="runs/sft/best/policy is neither a folder nor a model"):
        resolve_model("runs/sft/best/policy", JudgeConfig())
    with pytest.raises(ModelError, match="there is no such folder"):
        resolve_model("./policy", JudgeConfig(), offline=True)


def test_a_model_in_the_cache_is_used_without_a_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cached", "llama")
    asked = []

    def fetch(name: str, local_files_only: bool, **_: object) -> str:
        asked.append(local_files_only)
        return str(tmp_path / "cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    assert resolve_model("somebody/model", JudgeConfig()) == tmp_path / "cached"
    assert asked == [True]
    (tmp_path / "cached" / "model.safetensors").unlink()  # as where the hub has the weights in a pickle only
    with pytest.raises(ModelError, match=r"somebody/model is not a model: it has no \*\.safetensors weights"):
        resolve_model("somebody/model", JudgeConfig())


@pytest.mark.parametrize(("name", "hint"), [("somebody/else", ""), ("gpt2", ""), ("modles", "")])
def test_no_path_is_guessed_where_none_is_near(tmp_path: Path, name: str, hint: str) -> None:
    (tmp_path / "unlike").mkdir()
    assert meant_as_path(name) == hint
