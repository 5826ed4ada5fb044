"""A stage's program under supervision: its output, its failures, and that nothing of it is left behind."""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tasks.stage import process
from tasks.stage.process import ChildError, StillRunningError, await_children, run_child
from tests.waiting import eventually

# Starts a process in a session of its own, as vLLM and torchrun do, and writes down its pid.
LEAVE_ONE_BEHIND = """
import subprocess, sys, time
from pathlib import Path
left = subprocess.Popen(["sleep", "300"], start_new_session=True)
deep = subprocess.Popen(
    [sys.executable, "-c", "import subprocess; print(subprocess.Popen(['sleep', '300'], start_new_session=True).pid)"],
    start_new_session=True, stdout=subprocess.PIPE, text=True,
)
Path(sys.argv[1]).write_text(f"{left.pid} {deep.stdout.readline()}")
"""
DRIVER = """
import logging, sys
from pathlib import Path
from tasks.stage.process import run_child
folder = Path(sys.argv[1])
run_child([sys.executable, "-c", sys.argv[2], str(folder / "pids")], folder / "log.txt", folder / "lock",
          logging.getLogger())
"""


@pytest.fixture
def start(tmp_path: Path) -> Callable[..., list[str]]:
    """Run Python code as a child, and return what came to the logger."""

    def run(code: str, *arguments: str, environment: dict[str, str] | None = None) -> list[str]:
        logger = logging.Logger("child")
        lines: list[str] = []
        handler = logging.Handler()
        handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        command = [sys.executable, "-c", code, *arguments]
        run_child(command, tmp_path / "log.txt", tmp_path / "lock", logger, environment)
        return lines

    return run


@pytest.fixture
def pids(tmp_path: Path) -> Iterator[Path]:
    """The file of pids that LEAVE_ONE_BEHIND writes; whatever is left of them ends with the test."""
    path = tmp_path / "pids"
    yield path
    for pid in read_pids(path):
        if alive(pid):
            os.kill(pid, signal.SIGKILL)


def read_pids(path: Path) -> list[int]:
    return [int(word) for word in path.read_text().split()] if path.exists() else []


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_output_goes_to_the_log_in_full_and_to_the_logger_line_by_line(start, tmp_path: Path) -> None:
    output = b"one\n10%\r50%\r100% done\n\n   \nnot \xff UTF-8, no newline at the end"
    lines = start(f"import os; os.write(2, b'to stderr\\n'); os.write(1, {output!r})")
    assert lines == ["to stderr", "one", "100% done", "not \ufffd UTF-8, no newline at the end"]
    command, _, rest = (tmp_path / "log.txt").read_bytes().partition(b"\n")
    assert command.startswith(f"$ {sys.executable} -c import os".encode())
    assert rest == b"to stderr\n" + output


def test_what_libraries_say_of_themselves_stays_in_the_log_and_among_the_last_lines_of_a_failure(
    start, tmp_path: Path
) -> None:
    noise = "Failed to load CPU gemm_4bit_forward from kernels-community: No module named 'kernels'."
    code = f"print({noise!r}); print('a warning')"
    assert start(code) == ["a warning"]
    with pytest.raises(ChildError, match="gemm_4bit_forward"):
        start(f"{code}; raise SystemExit(1)")
    assert (tmp_path / "log.txt").read_text().count(f"\n{noise}\n") == 2


def test_the_log_of_an_earlier_attempt_is_kept(start, tmp_path: Path) -> None:
    start("print('first attempt')")
    start("print('second attempt')")
    log = (tmp_path / "log.txt").read_text()
    assert log.index("first attempt") < log.index("second attempt")


def test_the_program_gets_the_environment_and_no_input(start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FROM_CALLER", "1")
    code = "import os, sys; print(os.environ['FROM_CALLER'], os.environ['GIVEN'], repr(sys.stdin.read()))"
    assert start(code, environment={"GIVEN": "2"}) == ["1 2 ''"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("import sys; sys.exit(3)", ["failed with exit code 3"]),
        ("raise ValueError('the last word')", ["failed with exit code 1", "ValueError: the last word"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", ["was ended by SIGTERM"]),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", ["was ended by SIGSEGV"]),
        ("import os, signal; os.kill(os.getpid(), 9)", ["was ended by SIGKILL (is the machine out of memory?)"]),
        ("import os, signal; os.kill(os.getpid(), 7)", ["was ended by SIGBUS (is /dev/shm or a disk full?)"]),
        ("import sys; sys.exit(200)", ["failed with exit code 200"]),
    ],
)
def test_a_failure_says_how_it_ended_shows_the_last_lines_and_where_the_rest_is(
    start, tmp_path: Path, code: str, says: list[str]
) -> None:
    with pytest.raises(ChildError) as failed:
        start(f"for i in range(30): print('line', i, flush=True)\n{code}")
    message = str(failed.value)
    for words in (*says, "  line 29", str(tmp_path / "log.txt"), "Run the same command again to continue"):
        assert words in message
    assert "\n  line 5\n" not in message
    assert "line 5\n" in (tmp_path / "log.txt").read_text()


def test_a_program_that_is_not_there_is_a_failure_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(ChildError, match="no-such-program"):
        run_child(["no-such-program"], tmp_path / "log.txt", tmp_path / "lock", logging.getLogger())


@pytest.mark.parametrize("ending", ["", "sys.exit(1)", "import os; os.kill(os.getpid(), 9)"])
def test_what_a_finished_or_crashed_leader_left_behind_is_killed(start, pids: Path, ending: str) -> None:
    try:
        start(LEAVE_ONE_BEHIND + ending, str(pids))
    except ChildError:
        assert ending
    left = read_pids(pids)
    assert len(left) == 2
    assert not any(alive(pid) for pid in left)


def test_a_process_left_behind_does_not_hold_up_the_end_by_keeping_the_output_open(start, pids: Path) -> None:
    began = time.monotonic()
    start(LEAVE_ONE_BEHIND + "print('over')", str(pids))
    assert time.monotonic() - began < 30


def test_sigkill_of_the_caller_ends_the_program_and_all_it_started(tmp_path: Path, pids: Path) -> None:
    code = LEAVE_ONE_BEHIND + "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    caller = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), code])
    try:
        eventually(lambda: len(read_pids(pids)) == 2)
        started = [p.pid for p in psutil.Process(caller.pid).children(recursive=True)] + read_pids(pids)
        assert len(set(started)) >= 4  # the supervisor, the program, and what it left in sessions of their own
    finally:
        caller.kill()
        caller.wait()
    eventually(lambda: not any(alive(pid) for pid in started), seconds=12)
    await_children(tmp_path / "lock", wait_seconds=0.5)


@pytest.mark.parametrize("which", [0, 1], ids=["outer", "inner"])
def test_sigkill_of_a_supervisor_ends_the_program_and_all_it_started(tmp_path: Path, pids: Path, which: int) -> None:
    arguments = [sys.executable, "-c", DRIVER, str(tmp_path), LEAVE_ONE_BEHIND + "time.sleep(300)"]
    caller = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: len(read_pids(pids)) == 2)
        below = psutil.Process(caller.pid).children(recursive=True)
        supervisors = [p for p in below if alive(p.pid) and str(process.SUPERVISOR) in p.cmdline()]
        assert len(supervisors) == 2
        supervisors[which].kill()
        _, said = caller.communicate(timeout=120)
    finally:
        caller.kill()
        caller.wait()
    assert "was ended by SIGKILL" in said
    eventually(lambda: not any(alive(pid) for pid in [*read_pids(pids), *(p.pid for p in below)]), seconds=2)


def test_an_interrupted_caller_takes_its_program_along(start, pids: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    main = threading.get_ident()

    def interrupt() -> None:
        eventually(lambda: len(read_pids(pids)) == 2)
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        start(LEAVE_ONE_BEHIND + "time.sleep(300)", str(pids))
    assert len(read_pids(pids)) == 2
    assert not any(alive(pid) for pid in read_pids(pids))


@pytest.mark.parametrize("child", ["sleep 300", "trap '' TERM; while true; do sleep 1; done"])
def test_a_library_s_child_ends_with_this_process_however_that_ends(tmp_path: Path, pids: Path, child: str) -> None:
    code = (
        "import subprocess, sys, time; from pathlib import Path; from tasks.stage import process\n"
        "process.GRACE_SECONDS = 0.5\n"
        "child = subprocess.Popen(['sh', '-c', sys.argv[2]])\n"
        "process.end_with_this_process(child.pid)\n"
        "Path(sys.argv[1]).write_text(str(child.pid))\n"
        "time.sleep(300)"
    )
    caller = subprocess.Popen([sys.executable, "-c", code, str(pids), child], start_new_session=True)
    try:
        eventually(lambda: len(read_pids(pids)) == 1)
        assert alive(read_pids(pids)[0])
    finally:
        caller.kill()
        caller.wait()
    eventually(lambda: not alive(read_pids(pids)[0]), seconds=5)


def test_the_lock_is_held_as_long_as_the_program_runs(tmp_path: Path, pids: Path) -> None:
    caller = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path), LEAVE_ONE_BEHIND + "time.sleep(300)"])
    try:
        eventually(lambda: len(read_pids(pids)) == 2)
        with pytest.raises(StillRunningError):
            await_children(tmp_path / "lock", wait_seconds=0.2)
    finally:
        caller.kill()
        caller.wait()
    await_children(tmp_path / "lock", wait_seconds=15)
    assert not any(alive(pid) for pid in read_pids(pids))


def test_waiting_for_an_earlier_program_ends_when_it_ends(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    holder = subprocess.Popen(["flock", str(lock), "-c", "echo held; sleep 1"], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    began = time.monotonic()
    await_children(lock, wait_seconds=20)
    assert 0.3 < time.monotonic() - began < 10
    assert holder.wait() == 0
    holder.stdout.close()


def test_a_program_that_does_not_end_is_named_by_its_lock_with_what_to_do(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StillRunningError) as refused:
            await_children(lock, wait_seconds=0.3)
    for words in ("is still running after", f"fuser {lock}", "run the same command again"):
        assert words in str(refused.value)
    await_children(lock, wait_seconds=0.3)


@pytest.mark.parametrize(
    ("error", "says"),
    [("AutodidactError('What.', 'Why.', 'What next.')", "What. Why. What next.\n"), ("KeyError(1)", "Traceback")],
)
def test_a_program_ends_plainly_with_an_error_that_says_what_happened(error: str, says: str) -> None:
    code = f"from data.errors import *; from models.process import fail_plainly; fail_plainly(); raise {error}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr[: len(says)]) == (1, says)
    assert ("Traceback" in done.stderr) == (says == "Traceback")
