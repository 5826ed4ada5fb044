"""ReST-EM on the stub programs, for a worker to run."""

import os

from flows.rest_em import rest_em
from tests.flows.conftest import use_stub_programs

# Where a program hangs, it is looked for among the processes.
use_stub_programs(setattr, inside="STUB_HANG" not in os.environ)
__all__ = ["rest_em"]
