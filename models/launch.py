"""Commands that start training programs: one process per device, several through PyTorch's launcher."""

import sys
from pathlib import Path

from models.config import LaunchConfig

SUPERVISED, PREFERENCE, LIKELIHOOD = (
    "models.training.supervised",
    "models.training.preference",
    "models.training.likelihood",
)
REWARD, ON_POLICY = "models.training.reward_model", "models.training.on_policy"


def launch_command(module: str, launch: LaunchConfig, config: Path) -> list[str]:
    """The command that runs a training program with the file `config`. A single process needs no launcher."""
    program = ["-m", module, str(config)]
    if launch.processes == 1:
        return [sys.executable, *program]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(launch.processes)]
    return [sys.executable, *launcher, *program]
