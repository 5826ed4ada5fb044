"""Programs are judged rightly, and hostile ones are contained: never correct, in bounded time, nothing left behind."""

import ctypes.util
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from data.rewards import RewardError, prepare_reward
from data.rewards.program import program
from data.rows import Score
from data.sandbox import cgroups, isolation, keyrings, probes, seccomp
from data.sandbox.cgroups import CGROUPS
from data.sandbox.isolation import FIRST_USER, Isolation, IsolationError, Limits
from data.sandbox.judging import LONGEST_REASON, TIMEOUT, Judged, judge_by_output, judge_by_tests
from data.sandbox.values import BROKEN, CANNOT, FAILED, PASSED
from tests.sandbox.hostile import HOSTILE, WRONG
from tests.sandbox.test_reward_program import FUNCTION, MBPP

LIMITS = Limits(memory=256 * 2**20)
HASTE = replace(LIMITS, seconds=1.0)  # for those of which many never end
FALLBACKS = ["bubblewrap+users", "limits+seccomp+users"]
# What nothing but these stops.
OPEN_WITHOUT = {
    "bubblewrap": {
        *("reads the tests from /proc", "reads the environment", "sees the machine's files", "sees other processes"),
        *("network over IPv4", "network over IPv6", "network of this machine", "leaves a file for the next"),
        "finds what is installed",
    },
    "seccomp": {
        *("io_uring", "userfaultfd", "calls of the kernel", "calls of x32", "calls of i386"),
        *("sockets to virtual machines", "sockets of other families", "types at a terminal"),
    },
}
# What they answer equals by rules of their own, which nobody asks, or takes more memory to tell than a program has:
# that is no verdict, but never a right one.
BY_OWN_RULES = {name for name in HOSTILE if "equals everything" in name} | {"nested answer", "answer flood"}
WITH_USERS = Isolation(None, seccomp=False, users=True, pids=False, memory=False)
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="limits of processes hold for every user but root")
DOUBLE = "def double(x):\n    return 2 * x\n"
TESTS = "assert double(2) == 4\nassert double(5) == 10\n"


@pytest.fixture(autouse=True)
def _bubblewrap() -> None:
    if shutil.which("bwrap") is None:
        pytest.skip("there is no bubblewrap: no program was sandboxed")


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    """Other test processes shut programs in as well, but none of those stays."""
    yield
    inside = [p for p in psutil.process_iter() if _pid_namespace(p.pid) not in (None, _pid_namespace(os.getpid()))]
    assert psutil.wait_procs(inside, timeout=30)[1] == []
    deadline = time.monotonic() + 30
    groups = list(CGROUPS.glob("*/**/autodidact-*"))
    while any(group.exists() for group in groups):
        assert time.monotonic() < deadline, groups
        cgroups.remove_abandoned()  # of test processes that were killed
        time.sleep(0.1)
    assert [p for p in psutil.process_iter(["uids"]) if p.info["uids"] and p.info["uids"].real >= FIRST_USER] == []
    for path in Path("/tmp").iterdir():  # programs that nothing but a user keeps apart can write there
        with suppress(FileNotFoundError):  # other test processes tidy up as well
            if path.lstat().st_uid >= FIRST_USER and (path.is_symlink() or not path.is_dir()):
                path.unlink()


def _pid_namespace(pid: int) -> str | None:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return None


@pytest.fixture(autouse=True)
def _found_out_anew() -> Iterator[None]:
    yield
    isolation.require("bubblewrap")
    probes.contained.cache_clear()


def no_filter() -> bytes:
    raise OSError("none is made")


def level(monkeypatch: pytest.MonkeyPatch, name: str) -> str:
    """Sandbox the programs that follow at a lower level than this machine offers; return the level reached."""
    if "users" in name:  # the system's Python, which every user can read
        monkeypatch.setattr(isolation, "PREFIX", Path("/usr"))
        monkeypatch.setattr(isolation, "PYTHON", "bin/python3")
    if "seccomp" not in name:
        monkeypatch.setattr(seccomp, "program", no_filter)
    if "pids" not in name:
        monkeypatch.setattr(cgroups, "controlled", frozenset)
    if "bubblewrap" not in name:
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda program: None if program == "bwrap" else which(program))
    isolation.require("limits" if name.startswith("limits") else "bubblewrap")
    probes.contained.cache_clear()
    return isolation.isolation().level


def attack(name: str) -> tuple[Judged, Judged, float]:
    """A hostile program as functions and as a script, and the seconds that both took."""
    start = time.monotonic()
    judged = judge_by_tests(HOSTILE[name], "", TESTS, [], HASTE)
    printed = judge_by_output(HOSTILE[name], [("2", "4")], HASTE)
    return judged, printed, time.monotonic() - start


@pytest.mark.parametrize("wanted", ["", *FALLBACKS])
def test_hostile_programs_are_contained(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if wanted.startswith("limits") and os.geteuid() != 0:
        pytest.skip("without root they would kill whatever this user runs")
    if wanted:
        reached = level(monkeypatch, wanted)
        if os.geteuid() == 0:
            assert reached == wanted
    with ThreadPoolExecutor(4, initializer=_with_a_key) as four:  # most of them wait for their time to be over
        results = dict(zip(HOSTILE, four.map(attack, HOSTILE), strict=True))
    got_through = {
        name: (judged, printed)
        for name, (judged, printed, _) in results.items()
        if not {judged.outcome, printed.outcome} <= {FAILED, TIMEOUT, *([CANNOT] if name in BY_OWN_RULES else [])}
    }
    absent = [part for part in OPEN_WITHOUT if wanted and part not in wanted]
    assert got_through.keys() <= {name for part in absent for name in OPEN_WITHOUT[part]}, got_through
    said = [judged.why for (*both, _) in results.values() for judged in both]
    assert [why for why in said if not why.isprintable() or len(why) > LONGEST_REASON] == []
    assert {name: seconds for name, (*_, seconds) in results.items() if seconds > 2 * (HASTE.seconds + 5)} == {}


def _with_a_key() -> None:
    """Put a key where a login has its keys, for this thread alone."""
    if keyrings.join_fresh():
        keyrings.put_key("autodidact-hostile")


@pytest.mark.parametrize("wanted", ["bubblewrap+seccomp+pids+memory", *FALLBACKS, "limits+users"])
def test_every_level_is_probed_and_named_in_the_verdict(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reached = level(monkeypatch, wanted)
    assert reached.startswith(wanted.partition("+")[0])
    assert probes.contained().level == reached
    assert program(MBPP, FUNCTION).explanation == f"it passes all tests ({reached})"


@pytest.mark.parametrize(
    ("promised", "why"),
    [
        pytest.param({"pids": True}, "it starts 64 processes", marks=ROOT_ONLY),
        ({"seccomp": True}, "it can call io_uring"),
        ({"bubblewrap": "/bin/true"}, "it finds files of this machine"),
    ],
)
def test_a_level_that_does_not_hold_what_it_promises_is_refused(
    promised: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a container pretends to have cgroups, or a program called bwrap does nothing."""
    level(monkeypatch, "limits+users" if os.geteuid() == 0 else "limits")
    weak = replace(isolation.isolation(), users=False)
    ran = isolation._command(weak, LIMITS, None, None)
    monkeypatch.setattr(isolation, "_command", lambda *_: ran)
    monkeypatch.setattr(probes, "isolation", lambda: replace(weak, **promised))
    with pytest.raises(IsolationError, match=f"not contained here as the level .* promises.*{why}"):
        probes.contained()


@pytest.mark.parametrize(
    ("part", "weaker", "why"),
    [
        ("isolation.keyrings", SimpleNamespace(join_fresh=lambda: True), "it finds a key of its parent"),
        ("descriptors.sink", lambda _: nullcontext(subprocess.DEVNULL), "it shares descriptors with others"),
        ("files.python", lambda prefix, _: ["--ro-bind", str(prefix), "/python"], "it finds installed packages"),
    ],
)
def test_bubblewrap_that_lets_something_in_is_refused(
    part: str, weaker: Any, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    level(monkeypatch, "bubblewrap+pids+memory")
    with ThreadPoolExecutor(1) as thread:
        if part == "isolation.keyrings" and not thread.submit(keyrings.join_fresh).result():
            pytest.skip("the kernel has no keyrings")
    monkeypatch.setattr(f"data.sandbox.{part}", weaker)
    with pytest.raises(IsolationError, match=f"not contained here as the level bubblewrap.* promises.*{why}"):
        probes.contained()


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("package", "import of pyseccomp halted"),
        ("library", "Unable to find libseccomp; install it, as with `apt-get install libseccomp2`"),
        ("machine", "there is no system call filter for m68k"),
    ],
)
def test_without_a_filter_of_system_calls_the_level_lacks_it_and_the_log_says_why(
    missing: str, why: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if missing == "package":
        monkeypatch.setitem(sys.modules, "pyseccomp", None)
    elif missing == "library":
        find = ctypes.util.find_library
        monkeypatch.setattr(ctypes.util, "find_library", lambda name: None if name == "seccomp" else find(name))
        monkeypatch.delitem(sys.modules, "pyseccomp", raising=False)
    else:
        monkeypatch.setattr(platform, "machine", lambda: "m68k")
    monkeypatch.setattr(seccomp, "program", cache(seccomp.program.__wrapped__))
    isolation.isolation.cache_clear()
    assert "seccomp" not in isolation.isolation().level
    (said,) = caplog.messages
    assert said.startswith("Programs run without a system call filter: ") and why in said


@ROOT_ONLY
def test_a_folder_of_somebody_else_holds_no_locks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "autodidact-users").mkdir()
    os.chown(tmp_path / "autodidact-users", 65534, 65534)
    with pytest.raises(IsolationError, match="autodidact-users belongs to another user"), isolation._user(WITH_USERS):
        pass


def test_an_honest_program_passes_and_a_wrong_one_does_not() -> None:
    assert judge_by_tests(DOUBLE, "", TESTS, [], LIMITS).outcome == PASSED
    assert judge_by_tests(WRONG, "", TESTS, [], LIMITS).outcome == FAILED
    assert judge_by_output("print(2 * int(input()))", [("2", "4"), ("5", "10")], LIMITS).outcome == PASSED
    wrong = judge_by_output("print(1 + int(input()))", [("1", "2"), ("5", "10")], LIMITS)
    assert (wrong.outcome, wrong.why) == (FAILED, "case 2 of 2: it printed something else")


def test_what_pythons_library_offers_works_under_the_filter() -> None:
    judged = judge_by_output(Path(__file__).with_name("honest.txt").read_text(), [("4\n", "done")], LIMITS)
    assert judged.outcome == PASSED, judged.why


@pytest.mark.parametrize(
    ("code", "tests", "why"),
    [
        ("raise ValueError('\\ud800\\0\\x1b[2J')", "", r"CandidateError: ValueError: \ud800\x00\x1b[2J"),
        ("def f(): raise ValueError('x' * 10**7)", "f()", f"ValueError: {'x' * 300}"),
        ("class E(Exception):\n  __str__ = None\nraise E", "", "CandidateError: E: (cannot be read)"),
        ("class A:\n  __str__ = None\ndef f(): return A()", "raise ValueError(f())", "ValueError: (cannot be read)"),
    ],
)
def test_the_reason_can_be_written_whatever_the_candidate_raises(code: str, tests: str, why: str) -> None:
    assert judge_by_tests(code, "", tests, [], LIMITS) == Judged(FAILED, why)


def test_an_input_that_no_program_can_read_is_a_fault_of_the_tests() -> None:
    judged = judge_by_output("print(input())", [("\ud800", "")], LIMITS)
    assert judged.outcome == BROKEN and "case 1 of 1: no program can read its input" in judged.why


@pytest.mark.parametrize(
    ("printed", "expected", "same"),
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("1  2 3", "1 2\n3\n", True),
        ("1 2", "1 2 3", False),
        ("0.3333333", "0.33333333", True),
        ("0.334", "0.333", False),
        ("4.0", "4", False),
        ("4", "4.0", True),
        ("nan", "1.0", False),
        ("YES", "yes", False),
        ("", "", True),
    ],
)
def test_words_are_compared_and_numbers_with_a_point_may_differ_a_little(
    printed: str, expected: str, same: bool
) -> None:
    outcome = judge_by_output(f"print({printed!r})", [("", expected)], LIMITS).outcome
    assert outcome == (PASSED if same else FAILED)


@pytest.mark.parametrize(
    ("code", "tests"),
    [
        (
            "def f(x): return x",
            "for v in (None, True, 1, -2**70, .5, 1j, 'é', b'a', [1, (2, {3})], {'a': (1,), 2: [None]}):\n"
            "    assert f(v) == v",
        ),
        (
            "def f(x): return x",
            "assert f((1, 2)) != [1, 2] and type(f({1})) is set and f(float('inf')) == float('inf')",
        ),
        ("def f(*a, **k): return sorted(a) + sorted(k)", "assert f(2, 1, z=3) == [1, 2, 'z']"),
        (
            "class P:\n  def __init__(self, a): self.a = a\ndef f(p): return p.a",
            "p = P(3)\nassert f(p) == 3 and p.a == 3\np.a = 4\nassert f(p) == 4",
        ),
        ("def f(x): return iter(x)", "assert next(f([1])) == 1"),
        (
            "def f(x): raise ValueError('no')",
            "try:\n    f(1)\nexcept ValueError as e:\n    assert str(e) == 'no'\nelse:\n    assert False",
        ),
        (
            "from collections import OrderedDict, Counter\ndef f(): return Counter('aab')",
            "assert f() == {'a': 2, 'b': 1}",
        ),
        ("LIMIT = 3\ndef f(): return LIMIT", "import math\nassert math.isclose(f(), 3.0)"),
    ],
)
def test_what_plain_data_can_say_passes_between_tests_and_candidate(code: str, tests: str) -> None:
    judged = judge_by_tests(code, "", tests, [], LIMITS)
    assert judged.outcome == PASSED, judged.why


@pytest.mark.parametrize(
    ("tests", "why"),
    [
        ("assert f(", "SyntaxError"),
        ("assert True", "never ask the program"),
    ],
)
def test_broken_tests_say_nothing_of_the_candidate(tests: str, why: str) -> None:
    judged = judge_by_tests("def f(x): return 1", "", tests, [], LIMITS)
    assert judged.outcome == BROKEN and why in judged.why


@ROOT_ONLY
def test_what_a_killed_process_leaves_in_its_cgroups_ends_with_the_next_process() -> None:
    if not cgroups.controlled():
        pytest.skip("the kernel lets nobody create cgroups here")
    owner = """
import subprocess, sys, time
from data.sandbox import cgroups

with cgroups.limited(10, 2**30) as groups:
    left = subprocess.Popen(["/bin/sh", "-c", cgroups.join(groups, "exec sleep 600")])
    print(left.pid, *groups, flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid, *groups = process.stdout.readline().split()
        cgroups.remove_abandoned()
        assert groups and all(Path(group).exists() for group in groups) and psutil.pid_exists(int(pid))
        process.kill()
    cgroups.remove_abandoned()
    assert not any(Path(group).exists() for group in groups)  # none goes while a process is in it


@ROOT_ONLY
@pytest.mark.parametrize("required", ["bubblewrap", "limits"])
def test_root_runs_nothing_where_a_fork_bomb_could_stop_the_machine(
    required: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "controlled", frozenset)
    which = shutil.which
    monkeypatch.setattr(shutil, "which", lambda program: None if program == "setpriv" else which(program))
    with pytest.raises(RewardError, match=r"does not work here: setpriv is not installed.*As root it needs perm"):
        prepare_reward(program, required)  # type: ignore[arg-type]


def test_without_bubblewrap_no_program_is_run_and_the_message_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    isolation.require("bubblewrap")
    probes.contained.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RewardError, match=r"not installed.*apt-get install bubblewrap"):
        prepare_reward(program, "bubblewrap")
    score: Score = program(MBPP, "import os\nos.mkdir('/tmp/was-run')")
    assert (score.value, score.verdict) == (None, "error")
    assert not Path("/tmp/was-run").exists()
