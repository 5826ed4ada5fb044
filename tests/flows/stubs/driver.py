"""Runs the ReST-EM loop on the stub programs in a process of its own, for tests that kill it. Argument: the config."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[3]))
import tasks.score
from data.storage import write_rows
from flows.rest_em import RestEM, loop
from tasks.contract import OnDrift
from tasks.loop import run_loop
from tests.flows.conftest import use_stub_programs
from tests.flows.stubs.common import obey


def write_and_obey(row_type: Any, path: Path, rows: Iterable[Any]) -> int:
    """Score and select run in this process: they crash or hang once their rows are written."""
    count = write_rows(row_type, path, rows)
    obey(path.parent)
    return count


use_stub_programs(setattr)
tasks.score.write_rows = write_and_obey
run_loop("ReST-EM", loop, RestEM.model_validate_json(Path(sys.argv[1]).read_text()), OnDrift.REFUSE)
