"""Which checkpoints stay: the rule as a table, and the setting as people write it."""

from pathlib import Path

import pytest

from data.errors import UsageError
from data.keeping import earlier_kept, kept_iterations
from flows.commands.settings import read_settings
from flows.rest_em import RestEM


@pytest.mark.parametrize(
    ("keep", "iterations", "best", "held", "stay"),
    [
        ("all", [1, 2, 3], 2, {}, [1, 2, 3]),
        ("best", [1, 2, 3], 2, {}, [2]),
        ("best", [1, 2, 3], 0, {}, []),
        ("best", [1, 2, 3], 1, {3: "iter-4/generate needs it"}, [1, 3]),
        ("best", [], 0, {}, []),
        ("last 1", [1, 2, 3], 1, {}, [1, 3]),
        ("last 2", [1, 2, 3, 4], 4, {}, [3, 4]),
        ("last-2", [1, 2, 3, 4], 1, {2: "version 2 names it"}, [1, 2, 3, 4]),
        ("last 2", [1, 4, 7], 7, {}, [4, 7]),
        ("last 12", [1, 2, 3], 1, {}, [1, 2, 3]),
        ("best", [2, 3], 3, {1: "version 1 names it"}, [3]),
    ],
)
def test_what_stays(keep: str, iterations: list[int], best: int, held: dict[int, str], stay: list[int]) -> None:
    assert list(kept_iterations(keep, iterations, best, held)) == stay


def test_what_stays_says_why() -> None:
    why = kept_iterations("last 2", [1, 2, 3, 4], 1, {2: "version 2 names it"})
    assert why == {1: "the best one", 2: "version 2 names it", 3: "one of the last 2", 4: "one of the last 2"}


@pytest.mark.parametrize(("keep", "most"), [("all", None), ("best", 2), ("last 1", 2), ("last 3", 4)])
def test_how_many_stay_while_the_next_is_made(keep: str, most: int | None) -> None:
    assert earlier_kept(keep) == most


@pytest.mark.parametrize("keep", ["all", "best", "last 3", "last-3", "last3"])
def test_the_command_line_and_a_file_take_it(keep: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"keep: {keep}\n")
    for arguments in (["--keep", keep], ["--config", str(file)]):
        assert read_settings(RestEM, arguments, "autodidact rest-em")[0].keep == keep


@pytest.mark.parametrize("keep", ["", "none", "last", "last 0", "last -1", "best 3", "last 3 or so"])
def test_other_values_are_refused(keep: str) -> None:
    with pytest.raises(UsageError, match="keep: String should match pattern"):
        read_settings(RestEM, [f"--keep={keep}"], "autodidact rest-em")
