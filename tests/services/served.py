"""ReST-EM on the stub programs, for a worker to run."""

from flows.rest_em import rest_em
from tests.flows.conftest import use_stub_programs

use_stub_programs(setattr)
__all__ = ["rest_em"]
