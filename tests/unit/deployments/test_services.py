"""The services as commands see them: whether they run, whose they are, what is passed on. No service is started."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from unittest import mock

import pytest

from data.errors import AutodidactError
from deployments import services, supervision
from deployments.supervision import Options, ServiceError
from tasks.stage.environment import Services, child_environment, key_file, prepare, read_key, running_services

HERE = Services("http://127.0.0.1:4200/api", "http://127.0.0.1:5000")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "services"
    folder.mkdir(parents=True)
    (folder / "services.json").write_text(json.dumps(asdict(HERE)))
    return tmp_path / "runs"


@pytest.fixture
def environment(tmp_path: Path):
    """What is set in it is taken back."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_")) and "proxy" not in k.lower()
    }
    with mock.patch.dict(os.environ, clean | {"AUTODIDACT_CACHE": str(tmp_path / "cache")}, clear=True):
        yield os.environ


def pretend(runs: Path, *arguments: str) -> subprocess.Popen[bytes]:
    """A process whose number stands in the supervisor's file."""
    process = subprocess.Popen([sys.executable, "-c", "input()", *arguments], stdin=subprocess.PIPE)
    (runs / "services" / "supervisord.pid").write_text(str(process.pid))
    return process


def test_services_run_where_the_process_is_their_own_supervisor(runs: Path):
    with pretend(runs, "--pidfile", str(runs / "services" / "supervisord.pid")) as process:
        assert running_services(runs) == HERE
        process.communicate(b"\n")
    assert running_services(runs) is None


@pytest.mark.parametrize("number", [None, "", "nonsense", "-1", "0", "99999999999", "mine"])
def test_a_number_that_is_another_process_by_now_is_no_service(runs: Path, number: str | None):
    if number is not None:
        (runs / "services" / "supervisord.pid").write_text(number.replace("mine", str(os.getpid())))
    assert running_services(runs) is None


def test_nothing_is_stopped_where_another_process_has_the_number(runs: Path, capsys: pytest.CaptureFixture[str]):
    with pretend(runs) as process:
        assert services.down([]) == 0
        assert "No services" in capsys.readouterr().out
        assert process.poll() is None
        process.communicate(b"\n")


def test_a_socket_that_another_user_made_is_not_spoken_to(runs: Path, monkeypatch: pytest.MonkeyPatch):
    squatted = runs / "squatted.sock" if os.geteuid() == 0 else Path("/dev/null")
    if os.geteuid() == 0:
        squatted.touch()
        os.chown(squatted, 65534, 65534)
    monkeypatch.setattr(supervision, "_socket", lambda folder: squatted)
    with pytest.raises(ServiceError, match="belongs to another user"):
        services.down([])


def test_own_commands_get_the_key_and_stages_programs_do_not(runs: Path, environment):
    key_file(runs).write_text("autodidact:secret\n")
    with pretend(runs, str(runs / "services" / "supervisord.pid")) as process:
        prepare(runs)
        process.communicate(b"\n")
    assert environment["PREFECT_API_URL"] == HERE.prefect
    assert environment["PREFECT_API_AUTH_STRING"] == "autodidact:secret"
    environment["PREFECT_SERVER_API_AUTH_STRING"] = environment["AUTODIDACT_DATABASE"] = "secret"
    assert not [name for name, value in child_environment().items() if "secret" in value or "PREFECT" in name]


@pytest.mark.parametrize("address", ["http://127.0.0.1:4201/api", "https://api.prefect.cloud/api"])
def test_no_other_server_is_told_the_key(runs: Path, environment, address: str):
    environment["PREFECT_API_URL"] = address
    key_file(runs).write_text("autodidact:secret\n")
    with pretend(runs, str(runs / "services" / "supervisord.pid")) as process:
        prepare(runs)
        process.communicate(b"\n")
    assert "PREFECT_API_AUTH_STRING" not in environment


def test_this_machine_is_reached_past_a_proxy_and_what_the_user_excludes_stays(runs: Path, environment):
    environment |= {"http_proxy": "http://proxy.example:3128", "NO_PROXY": "intern.example"}
    prepare(runs)
    prepare(runs)
    assert environment["no_proxy"] == environment["NO_PROXY"] == "intern.example,127.0.0.1,localhost,::1"


def test_the_key_is_kept_for_its_owner_alone_and_a_users_own_is_respected(runs: Path, environment):
    first = supervision._keep_key(runs)
    assert first.startswith("autodidact:") and len(first) > 40
    assert key_file(runs).stat().st_mode & 0o777 == 0o600
    assert supervision._keep_key(runs) == first
    environment["PREFECT_SERVER_API_AUTH_STRING"] = "me:mine"
    key_file(runs).chmod(0o644)
    assert supervision._keep_key(runs) == read_key(runs) == "me:mine"
    assert key_file(runs).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("up --prt 4", "unrecognized"),
        ("up --prefect-port 0", "not a port"),
        ("up --mlflow-port 70000", "not a port"),
        ("up --prefect-port x", "not a port"),
        ("up --prefect-port 5000", "both listen"),
        ("up --host 0.0.0.0", "all addresses"),
        ("up --host 192.0.2.1", "not an address of this machine"),
        ("up --host name.invalid", "not an address of this machine"),
        ("down now", "unrecognized"),
        ("status --kye", "unrecognized"),
    ],
)
def test_what_cannot_be_asked_is_said_plainly(runs: Path, environment, arguments: str, said: str):
    command, *rest = arguments.split()
    with pytest.raises(AutodidactError, match=said) as raised:
        getattr(services, command)(rest)
    assert raised.value.exit_code == 2


@pytest.mark.parametrize("origin", ["prefect.example.org", "https://prefect.example.org/", "https://*.example.org"])
def test_an_outer_address_that_is_no_origin_is_refused(runs: Path, environment, origin: str):
    environment["AUTODIDACT_ALLOWED_ORIGINS"] = origin
    with pytest.raises(AutodidactError, match="is not an origin"):
        supervision._outer_origins()


def test_an_outer_address_is_one_of_the_servers_own(runs: Path, environment):
    environment["AUTODIDACT_ALLOWED_ORIGINS"] = "https://prefect.example.org, https://mlflow.example.org"
    outer = supervision._outer_origins()
    made = supervision._environment(Options(host="::1"), runs / "services", "me:mine", outer)
    assert made["AUTODIDACT_PREFECT_ORIGINS"].split(",") == [
        *("http://[::1]:4200", "http://127.0.0.1:4200", "http://localhost:4200"),
        *("https://prefect.example.org", "https://mlflow.example.org"),
    ]
    assert "mlflow.example.org" in made["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, environment, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(AutodidactError, match="cannot be used as the folder of runs"):
        services.up([])
