"""What is refused before anything is published, and what a hub has after an upload that failed or succeeded."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from data.errors import AutodidactError, RunFailedError, UsageError
from flows.commands.cli import main
from tasks.publishing.hub import upload
from tests.hub import TOKEN, Hub, Repository, serving

Text = pytest.CaptureFixture[str]
FILES = {"README.md": b"---\nlicense: mit\n---\n", "config.json": b"{}", "model.safetensors": b"weights"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as found:
        found.use(monkeypatch, tmp_path / "hub-cache")
        yield found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    for name, content in FILES.items():
        (tmp_path / "folder" / name).write_bytes(content)
    return tmp_path / "folder"


def send(folder: Path, private: bool = False, revision: str | None = None) -> str:
    return upload(folder, "ada/em", TOKEN, "message", private, revision)


def refused(runs: Path, capsys: Text, *arguments: str) -> str:
    """What the command says, which it does without a run."""
    assert main(["publish", "em", *arguments, "--runs-dir", str(runs)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("autodidact: ") and TOKEN not in error
    return error


# --- before anything is opened


@pytest.mark.parametrize("name", ["em", "/em", "ada/", "ada/em/2", "ada/e m", "ada/-em", "ada/em.git", "ada/\x1b[2J"])
def test_a_name_that_no_model_can_have(tmp_path, capsys, name):
    error = refused(tmp_path, capsys, name)
    assert "Give OWNER/NAME, such as ada/arithmetic-1" in error and "\x1b" not in error


def test_a_folder_that_has_something_in_it(tmp_path, capsys):
    (tmp_path / "file").touch()
    error = refused(tmp_path, capsys, "ada/em", "--to", str(tmp_path))
    assert "already has something in it" in error and "Name a new folder" in error
    for path in ("file", "file/in"):
        assert "is a file" in refused(tmp_path, capsys, "ada/em", "--to", str(tmp_path / path))


def test_flags_that_contradict_and_a_license_that_is_none(tmp_path, capsys):
    for flags in (["--private"], ["--revision", "trial"]):
        assert "Leave one out" in refused(tmp_path, capsys, "ada/em", "--to", str(tmp_path / "out"), *flags)
    assert "'Apache 2.0' is not a license identifier" in refused(tmp_path, capsys, "ada/em", "--license", "Apache 2.0")


def test_no_token(tmp_path, hub, monkeypatch, capsys):
    for empty in (lambda: monkeypatch.setenv("HF_TOKEN", " "), lambda: monkeypatch.delenv("HF_TOKEN")):
        empty()
        error = refused(tmp_path, capsys, "ada/em")
        assert "HF_TOKEN is not set" in error and f"{hub.address}/settings/tokens" in error
    assert hub.requests == []


def test_a_network_that_is_away(tmp_path, hub, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE forbids it" in refused(tmp_path, capsys, "ada/em")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    error = refused(tmp_path, capsys, "ada/em")
    assert "The hub cannot be reached: http://127.0.0.1:9 does not answer" in error and "with --to" in error
    assert hub.requests == []


def test_the_hubs_library_keeps_its_files_in_the_cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("AUTODIDACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HOME", raising=False)
    command = f"main(['publish', 'em', 'em', '--runs-dir', {str(tmp_path)!r}])"
    code = (
        f"from flows.commands.cli import main; {command}; from huggingface_hub import constants as c; print(c.HF_HOME)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "'em' has no owner" in done.stderr
    assert done.stdout.strip() == str(tmp_path / "cache" / "huggingface")


# --- on the hub


def test_one_commit_has_everything(hub, folder):
    assert send(folder) == f"{hub.address}/ada/em"
    assert hub.repositories["ada/em"].branches["main"] == [{}, FILES]


def test_what_an_earlier_commit_left_is_not_loaded_with_it(hub, folder):
    old = {"model-00001-of-00002.safetensors": b"old", "adapter_config.json": b"{}", "picture.png": b"mine"}
    hub.repositories["ada/em"] = Repository(branches={"main": [old]})
    send(folder)
    assert hub.repositories["ada/em"].branches["main"][1:] == [FILES | {"picture.png": b"mine"}]


def test_a_branch_and_a_private_repository(hub, folder):
    assert send(folder, private=True, revision="trial") == f"{hub.address}/ada/em/tree/trial"
    repository = hub.repositories["ada/em"]
    assert repository.private and repository.branches == {"main": [{}], "trial": [{}, FILES]}
    repository.private = False
    with pytest.raises(UsageError, match="is there already, and others can see it"):
        send(folder, private=True)
    assert repository.branches["main"] == [{}]


@pytest.mark.parametrize(
    "step", ["POST /api/models/ada/em/preupload/main", "PUT /lfs/", "POST /api/models/ada/em/commit"]
)
def test_a_failed_upload_leaves_no_commit_and_can_be_repeated(hub, folder, step):
    hub.refuse = lambda method, path: 507 if f"{method} {path}".startswith(step) else None
    with pytest.raises(RunFailedError, match="failed under way") as failed:
        send(folder)
    assert "nothing is half published" in failed.value.why and "same command again" in failed.value.what_next
    assert hub.repositories["ada/em"].branches["main"] == [{}]
    hub.refuse = lambda method, path: None
    send(folder)
    assert hub.repositories["ada/em"].branches["main"] == [{}, FILES]


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (401, "The hub does not know the token in HF_TOKEN"),
        (403, "The token in HF_TOKEN has no right to write ada/em"),
        (400, "The hub refuses ada/em"),
    ],
)
def test_a_token_or_a_name_without_right(hub, folder, status, says):
    hub.refuse = lambda method, path: status if path == "/api/repos/create" else None
    with pytest.raises(AutodidactError) as refusal:
        send(folder)
    assert refusal.value.what.startswith(says) and "it was told to refuse" in refusal.value.what
    assert refusal.value.why == "Nothing was published." and TOKEN not in str(refusal.value)
    assert hub.repositories == {}


def test_a_card_that_the_hub_refuses(hub, folder):
    (folder / "README.md").write_text("---\nlicense: unheard-of\n---\n")
    with pytest.raises(UsageError, match=r'The hub refuses ada/em .*"license" must be one of those that are known'):
        send(folder)
    assert hub.repositories["ada/em"].branches["main"] == [{}]
