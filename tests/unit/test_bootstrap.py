"""What the embedded tiny model learns from."""

from pathlib import Path

import pytest

from data.rows import Example
from data.storage import read_rows
from flows.spin import Spin
from tasks.policy import BootstrapConfig, write_bootstrap_inputs


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
