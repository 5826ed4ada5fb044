"""What forks need (see tests/forks.py), imported into the process that they are forked from."""

import gc
from importlib import import_module

from models.launch import LIKELIHOOD, ON_POLICY, PREFERENCE, REWARD, SUPERVISED
from models.process import keep_imports
from tests.forks import GENERATE, JUDGE, REWARD_SCORE, WRITE_PROMPTS

PROGRAMS = [
    SUPERVISED,
    PREFERENCE,
    LIKELIHOOD,
    REWARD,
    ON_POLICY,
    REWARD_SCORE,
    GENERATE,
    JUDGE,
    WRITE_PROMPTS,
    "models.training.merge",
]
ENGINE = ["vllm.engine.arg_utils", "vllm.v1.engine.llm_engine", "vllm.v1.worker.cpu_worker"]
FLOWS = ["flows.rest_em", "flows.spin", "tasks.report.page", "mlflow"]

gc.disable()
for module in [*PROGRAMS, *ENGINE, *FLOWS]:
    import_module(module)
keep_imports()  # or every fork's collections would copy all of it
