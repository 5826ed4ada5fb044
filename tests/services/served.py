"""ReST-EM on the stub programs, for a worker to run: with all its settings, and as a short form."""

import os

from flows.commands.flow_table import own_flows
from flows.commands.forms import short_form
from flows.rest_em import rest_em
from tests.flows.conftest import use_stub_programs

# Where a program hangs, it is looked for among the processes.
use_stub_programs(setattr, inside="STUB_HANG" not in os.environ)
short = short_form(own_flows()["rest-em"])
__all__ = ["rest_em", "short"]
