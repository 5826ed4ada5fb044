"""Runs the ReST-EM loop on the stub programs in a process of its own, for tests that kill it. Argument: the config."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[3]))
from flows.rest_em import RestEM, loop
from tasks.contract import OnDrift
from tasks.loop import run_loop
from tests.flows.conftest import use_stub_programs

use_stub_programs(setattr)
run_loop("ReST-EM", loop, RestEM.model_validate_json(Path(sys.argv[1]).read_text()), OnDrift.REFUSE)
