"""`autodidact up | down | status`: Prefect server, MLflow server and worker on one machine, kept alive by supervisord.

They keep everything in `runs`, in the folder where they were started. They listen on the loopback address and do not
answer pages of other origins. Prefect, which can start programs, asks for a key.
"""

import base64
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from xmlrpc.client import Fault

import psutil

from data.errors import AutodidactError, UsageError
from data.text import visible
from deployments.notifications import read_notifications
from deployments.supervision import Options, ServiceError, connect, is_stopping, launch, refuse_taken_ports
from flows.commands.parser import Parser, port_number
from tasks.history.reconcile import reconcile
from tasks.stage.environment import (
    Services,
    bypass_proxies,
    key_file,
    prepare,
    read_key,
    running_services,
    services_folder,
)

START_SECONDS = 180
STOP_SECONDS = 90
RUNS = Path("runs")


def up(arguments: Sequence[str]) -> int:
    """Start the services that are not running, wait until they are healthy, register deployments, print addresses."""
    parser = Parser("autodidact up", up.__doc__)
    # Running services keep their addresses.
    at = Options.of(running_services(RUNS)) or Options()
    parser.add_argument("--host", default=at.host, help="address to listen on (default: loopback)")
    parser.add_argument("--prefect-port", type=port_number, default=at.prefect_port, metavar="N", help="default: 4200")
    parser.add_argument("--mlflow-port", type=port_number, default=at.mlflow_port, metavar="N", help="default: 5000")
    parser.add_argument(
        "--gpus", type=int, metavar="N", help="slots of the concurrency limit `gpu`; by default all this machine has"
    )
    told = parser.parse_args(arguments)
    from tasks.stage.devices import count_gpus

    gpus = count_gpus() if told.gpus is None else told.gpus
    options = Options(told.host, told.prefect_port, told.mlflow_port, gpus)
    _refuse(options)
    notifications = read_notifications(os.environ)
    code = start(options)
    if notifications.addresses:
        print(f"Notified: {notifications}.")
    return code


def down(arguments: Sequence[str]) -> int:
    """Stop only what `autodidact up` started. Running flows stop as if cancelled; they can be resumed."""
    Parser("autodidact down", down.__doc__).parse_args(arguments)
    return stop()


def status(arguments: Sequence[str]) -> int:
    """Show which services run, and where."""
    parser = Parser("autodidact status", status.__doc__)
    parser.add_argument("--key", action="store_true", help="print only the key of Prefect's server")
    return show_key() if parser.parse_args(arguments).key else show()


def start(options: Options) -> int:
    """Start every service that is not running.

    Raises:
        ServiceError: a port is taken, or a service does not become healthy; includes the end of its log.
        AutodidactError: the host is not this machine's, or the folder cannot be written.
    """
    prepare(RUNS)
    bypass_proxies(options.host)
    folder = services_folder(RUNS)
    _wait(lambda: not is_stopping(connect(folder)), "the shutdown of earlier services", folder / "supervisord.log")
    found = connect(folder)
    if found is None:
        refuse_taken_ports(options)
        launch(options, folder)
        found = _wait(lambda: connect(folder), "supervisord", folder / "supervisord.log")
    elif (running := running_services(RUNS)) and running != options.addresses:
        raise ServiceError(
            f"The services of {RUNS.absolute()} already run at {running.prefect} and {running.mlflow}.",
            what_next="Stop them first (autodidact down), or leave out the address.",
        )
    for program in ("prefect", "mlflow"):
        _start_program(found, program)
    at = options.addresses
    with _timed("Prefect"):
        _wait(lambda: _answers(f"{at.prefect}/health"), "Prefect", folder / "prefect.log")
    with _timed("MLflow"):
        _wait(lambda: _answers(f"{at.mlflow}/health"), "MLflow", folder / "mlflow.log")
    with _timed("The deployments"):
        _register(options, folder)
    _start_program(found, "worker")
    with _timed("The worker"):
        _wait(lambda: _worker_is_online(at), "the worker", folder / "worker.log")
    print(f"Prefect  {at.prefect.removesuffix('/api')}  (asks once for the key; `autodidact status --key` prints it)")
    print(f"MLflow   {at.mlflow}")
    print(f"Data and logs are in {folder.parent} and {folder}; `autodidact down` stops the services.")
    return 0


def stop() -> int:
    """Stop the services of this folder: the worker first, so the history records how its flows ended.

    Raises:
        ServiceError: they do not stop.
    """
    folder = services_folder(RUNS)
    _wait(lambda: not is_stopping(connect(folder)), "the shutdown of the services", folder / "supervisord.log")
    found = connect(folder)
    if found is None:
        print(f"No services of {RUNS.absolute()} are running.")
        return 0
    if services := running_services(RUNS):  # these, not servers named in the environment
        os.environ.update(PREFECT_API_URL=services.prefect, MLFLOW_TRACKING_URI=services.mlflow)
        os.environ["PREFECT_API_AUTH_STRING"] = read_key(RUNS) or ""
    prepare(RUNS)
    with contextlib.suppress(Fault):
        found.supervisor.stopProcess("worker")
    try:
        for closed in reconcile(RUNS, grace=timedelta()):
            print(visible(closed))
    except AutodidactError as error:  # a server that does not answer must still be stopped
        print(f"autodidact: {visible(str(error))}", file=sys.stderr)
    supervisord = psutil.Process(found.supervisor.getPID())
    ours = [supervisord, *supervisord.children(recursive=True)]
    found.supervisor.shutdown()
    _, alive = psutil.wait_procs(ours, timeout=STOP_SECONDS)
    if alive:
        pids = " ".join(str(process.pid) for process in alive)
        raise ServiceError(f"Still running after {STOP_SECONDS} s: {pids}.", what_next=f"End them: kill -KILL {pids}")
    (folder / "services.json").unlink(missing_ok=True)
    print(f"The services of {RUNS.absolute()} are stopped; their history is kept.")
    return 0


def show() -> int:
    """Print the state of each service. Return 0 if all run, else 1."""
    folder = services_folder(RUNS)
    found, at = connect(folder), running_services(RUNS)
    if found is None or at is None or is_stopping(found):
        print(f"No services of {RUNS.absolute()} are running. `autodidact up` starts them.")
        return 1
    states: Any = found.supervisor.getAllProcessInfo()
    where = {"prefect": at.prefect.removesuffix("/api"), "mlflow": at.mlflow, "worker": ""}
    for state in sorted(states, key=lambda s: list(where).index(s["name"])):
        print(f"{state['name']:<8} {state['statename']:<10} {where[state['name']]:<24} {state['description']}")
    return 0 if all(state["statename"] == "RUNNING" for state in states) else 1


def show_key() -> int:
    """Print the key of Prefect's server, whether or not it runs.

    Raises:
        ServiceError: there is no key, or it belongs to another user.
    """
    if (key := read_key(RUNS)) is None:
        raise ServiceError(
            f"There is no key in {key_file(RUNS)} that this user may read.",
            "`autodidact up` creates it for the user who calls it.",
            "Call this in the folder where `up` was called, as the same user.",
        )
    print(key)
    return 0


def _refuse(options: Options) -> None:
    if options.host in ("0.0.0.0", "::"):
        raise UsageError(
            f"--host {options.host} means all addresses, but browsers and workers need a single one.",
            what_next="Give the address at which they reach this machine.",
        )
    if options.prefect_port == options.mlflow_port:
        raise UsageError(
            f"Prefect and MLflow cannot both listen on port {options.prefect_port}.",
            what_next="Choose another port with --prefect-port or --mlflow-port.",
        )


def _start_program(found: Any, name: str) -> None:
    with contextlib.suppress(Fault):  # it is already running
        found.supervisor.startProcess(name, False)


def _register(options: Options, folder: Path) -> None:
    """Register pool, limits, automations and deployments, in a process that starts with the server's address."""
    at = options.addresses
    key = {"PREFECT_API_AUTH_STRING": read_key(RUNS) or ""}
    environment = dict(os.environ) | key | {"PREFECT_API_URL": at.prefect, "PWD": str(Path.cwd())}
    command = [sys.executable, "-m", "deployments.register", str(options.gpus)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (folder / "register.log").write_text(done.stdout + done.stderr)
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ServiceError(
            "The deployments could not be registered.", f"The end of the log:\n{lines}\n", "Call `autodidact up` again."
        )


def _worker_is_online(at: Services) -> bool:
    headers = {
        "Authorization": f"Basic {base64.b64encode((read_key(RUNS) or '').encode()).decode()}",
        "Content-Type": "application/json",
    }
    request = urllib.request.Request(f"{at.prefect}/work_pools/autodidact/workers/filter", b"{}", headers)
    with contextlib.suppress(OSError), urllib.request.urlopen(request, timeout=5) as answer:
        return any(worker["status"] == "ONLINE" for worker in json.load(answer))
    return False


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5) as answer:
        return bool(answer.status == 200)
    return False


@contextlib.contextmanager
def _timed(name: str) -> Iterator[None]:
    """Say what is waited for, and how long it took."""
    print(f"{name} …", flush=True)
    began = time.monotonic()
    yield
    print(f"{name}: ready after {time.monotonic() - began:.0f} s", flush=True)


def _wait(ready: Callable[[], Any], name: str, log: Path) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while not (found := ready()):
        if time.monotonic() > deadline:
            end = "\n".join(log.read_text(errors="replace").splitlines()[-20:]) if log.exists() else "(nothing)"
            raise ServiceError(
                f"Gave up on {name} after {START_SECONDS} s.",
                f"The end of {log}:\n{end}\n",
                "Call `autodidact up` again.",
            )
        time.sleep(0.25)
    return found
