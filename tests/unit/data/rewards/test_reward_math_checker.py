"""The killable worker: its limits hold, and it never outlives its parent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import data
from data.rewards.math_checker import MathChecker, MathCheckError, MathCheckTimeoutError

pytestmark = pytest.mark.slow

READY = 'print(\'["ready", ""]\', flush=True); '


def test_a_worker_that_hangs_is_killed_and_replaced() -> None:
    program = "import sys, time\n" + READY + "\nfor line in sys.stdin:\n    time.sleep(60)"
    checker = MathChecker(0.3, [sys.executable, "-c", program])
    pids: list[int] = []
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(MathCheckTimeoutError):
            _remembering_pid(checker, pids)
        assert time.monotonic() - start < 20
    assert len(set(pids)) == 2
    assert not any(map(_alive, pids))


def test_a_power_tower_is_stopped() -> None:
    # It computes in one call that never returns to Python, where no signal handler and no thread would run.
    checker = MathChecker(1.0)
    with pytest.raises(MathCheckTimeoutError):
        checker.compare("3", "9^{9^{9^{9}}}")
    assert checker.compare("x+1", "1+x") == "equal"
    checker.close()


def test_a_worker_killed_while_idle_is_replaced() -> None:
    checker = MathChecker(30.0)
    assert checker.compare("x", "x") == "equal"
    os.kill(checker.pid or 0, signal.SIGKILL)
    psutil.Process(checker.pid).wait(10)
    assert checker.compare("x", "y") == "different"
    checker.close()
    assert checker.pid is None


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "signal 9"),
        ("raise SystemExit(5)", "exit code 5"),
        ('print(\'["error", "no module"]\', flush=True); input()', "no module"),
        (READY + 'input(); print(\'["error", "out of memory"]\', flush=True); input()', "out of memory"),
    ],
)
def test_a_failing_worker_is_an_error_with_its_reason(program: str, reason: str) -> None:
    checker = MathChecker(10.0, [sys.executable, "-c", program])
    with pytest.raises(MathCheckError, match=reason):
        checker.compare("1", "1")
    checker.close()


def test_the_worker_may_not_take_all_memory() -> None:
    limits = "import resource, sys; sys.argv = ['', '5']; import data.rewards.math_worker as w; w.main()"
    worker = subprocess.Popen([sys.executable, "-c", limits], stdin=-1, stdout=-1, env=_environment())
    assert worker.stdin and worker.stdout
    assert json.loads(worker.stdout.readline()) == ["ready", ""]
    assert psutil.Process(worker.pid).rlimit(psutil.RLIMIT_AS)[0] == 2 * 1024**3
    worker.stdin.close()
    assert worker.wait(10) == 0


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_no_worker_is_left_behind_when_its_parent_is_killed(busy: bool) -> None:
    program = f"""
import threading, time
from data.rewards.math_checker import MathChecker
checker = MathChecker(2.0)
checker.compare("x", "x")
if {busy}:
    threading.Thread(target=checker.compare, args=("3", "9^{{9^{{9^{{9}}}}}}")).start()
    time.sleep(0.5)
print(checker.pid, flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, env=_environment())
    assert parent.stdout
    worker = int(parent.stdout.readline())
    assert _alive(worker)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 15
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker)


def test_a_fork_does_not_share_its_parents_worker() -> None:
    program = """
import os
from data.rewards import final_answer as module
module._checker.compare("x", "x")
if os.fork() == 0:
    os._exit(0 if module._checker.pid is None and module._checker.compare("x", "y") == "different" else 1)
status = os.waitstatus_to_exitcode(os.wait()[1])
assert module._checker.compare("x", "x") == "equal"
raise SystemExit(status)
"""
    subprocess.run([sys.executable, "-c", program], env=_environment(), timeout=60, check=True)


def _remembering_pid(checker: MathChecker, pids: list[int]) -> None:
    ask = checker._ask

    def asking(process: subprocess.Popen[bytes], question: str, seconds: float) -> tuple[str, str]:
        if question:
            pids.append(process.pid)
        return ask(process, question, seconds)

    checker._ask = asking  # type: ignore[method-assign]
    try:
        checker.compare("1", "1")
    finally:
        checker._ask = ask  # type: ignore[method-assign]


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
