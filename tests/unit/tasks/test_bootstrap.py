"""What the embedded tiny model learns from."""

from collections import Counter
from pathlib import Path

import pytest

from data.arithmetic import PEOPLE
from data.rows import Example
from data.storage import read_rows
from flows.spin import Spin
from tasks.policies.base import BootstrapConfig, bootstrap_examples, bootstrap_stage, write_bootstrap_inputs


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


def test_bare_ones_can_be_of_some_people_only() -> None:
    asked = BootstrapConfig(demonstrations=400, bare=0.7, bare_people=11)
    bare, worked = Counter[str](), Counter[str]()
    for row in bootstrap_examples(asked, seed=0):
        name = row.messages[0]["content"].split()[0]
        (bare if row.completion.startswith("#### ") else worked)[name] += 1
    assert set(bare) == set(PEOPLE[:11])
    assert set(worked) == set(PEOPLE)
    assert 0.6 < bare.total() / (bare.total() + sum(worked[name] for name in bare)) < 0.8


def test_bases_of_settings_from_before_are_found_again() -> None:
    asked = BootstrapConfig(bare=0.5)
    assert "bare_people" not in bootstrap_stage(Spin(), asked, 0).identity()["config"]["bootstrap"]
    stage = bootstrap_stage(Spin(), asked.model_copy(update={"bare_people": 3}), 0)
    assert stage.identity()["config"]["bootstrap"]["bare_people"] == 3
