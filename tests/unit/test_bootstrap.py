"""What the embedded tiny model learns from."""

from pathlib import Path

import pytest

from data.rows import Example
from data.storage import read_rows
from flows.spin import Spin
from tasks.policy import BootstrapConfig, bootstrap_examples, bootstrap_stage, write_bootstrap_inputs


@pytest.mark.parametrize(("share", "least", "most"), [(0.0, 0, 0), (0.5, 80, 120), (0.9, 165, 195)])
def test_a_share_of_the_demonstrations_is_bare_the_same_ones_each_time(
    tmp_path: Path, share: float, least: int, most: int
) -> None:
    written = []
    for name in ("one", "two"):
        bootstrap = BootstrapConfig(demonstrations=200, bare=share)
        (tmp_path / name).mkdir()
        _, examples = write_bootstrap_inputs(tmp_path / name, Spin(), bootstrap, seed=0)
        written.append([row.completion for row in read_rows(Example, examples)])
    assert written[0] == written[1]
    assert least <= sum(text.startswith("#### ") for text in written[0]) <= most


def test_bare_ones_can_be_shown_with_their_steps_as_well() -> None:
    few, many, all_of_them = (
        list(bootstrap_examples(BootstrapConfig(demonstrations=200, bare=0.5, also_worked=share), seed=0))
        for share in (0.0, 0.5, 1.0)
    )
    bare = {row.problem_id for row in all_of_them if row.completion.startswith("#### ")}
    again = {row.problem_id for row in all_of_them if row.index == 1}
    assert len(few) == 200 and again == bare and len(all_of_them) == 200 + len(bare)
    assert 30 <= len(many) - 200 <= 70
    assert all("=" in row.completion and " #### " in row.completion for row in all_of_them if row.index == 1)
    assert len({(row.problem_id, row.index) for row in all_of_them}) == len(all_of_them)


def test_bases_of_settings_from_before_are_found_again() -> None:
    asked = BootstrapConfig(bare=0.5)
    assert "also_worked" not in bootstrap_stage(Spin(), asked, 0).identity()["config"]["bootstrap"]
    stage = bootstrap_stage(Spin(), asked.model_copy(update={"also_worked": 0.5}), 0)
    assert stage.identity()["config"]["bootstrap"]["also_worked"] == 0.5
