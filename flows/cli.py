"""The command `autodidact`: finds the flow or command that is asked for.

Whatever is heavy to import waits until it is known to be needed.
"""

import importlib
import sys
from collections.abc import Sequence

from flows.exits import ended_plainly, raise_on_ctrl_c

FLOWS = {
    "rest-em": ("flows.rest_em", "RestEM", "rest_em", "learn from own correct answers"),
    "sft": ("flows.sft", "SFT", "sft", "learn gold answers"),
    "dpo": ("flows.dpo", "DPO", "dpo", "learn from pairs of a better and a worse answer"),
    "reward-model": ("flows.reward_model", "RewardModel", "reward_model", "learn from pairs to judge answers"),
    "spin": ("flows.spin", "Spin", "spin", "learn to tell gold answers from own ones"),
}
COMMANDS = {
    "data": ("flows.datasets", "data", "look at a data set before a loop takes it, or turn it into rows"),
    "runs": ("flows.history", "runs", "list runs with their state on disk"),
    "trace": ("flows.history", "trace", "follow a training example back to where it came from"),
    "compare": ("flows.history", "compare", "set two runs side by side on the same problems"),
    "verify": ("flows.upkeep", "verify", "compare a run's files with what its stages wrote"),
    "reconcile": ("flows.upkeep", "reconcile", "close what a killed process left open in MLflow and Prefect"),
    "promote": ("flows.upkeep", "promote", "make a version of a registered model its champion"),
    "rollback": ("flows.upkeep", "rollback", "make the champion before it champion again"),
    "up": ("deployments.services", "up", "start Prefect, MLflow and a worker, and register the deployments"),
    "down": ("deployments.services", "down", "stop what `up` started"),
    "status": ("deployments.services", "status", "show which services run"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit code, of which `flows/exits.py` tells."""
    return ended_plainly(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        return _show_help()
    name, *rest = arguments
    if name in COMMANDS:
        module_name, function, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module_name), function)
        raise_on_ctrl_c()
        return int(command(rest))
    return _run_flow(name, rest)


def _run_flow(name: str, arguments: list[str]) -> int:
    from data.errors import UsageError
    from flows.settings import nearest, read_settings, runs_folder
    from tasks.stage.environment import prepare

    if name not in FLOWS:
        known = [*FLOWS, *COMMANDS]
        raise UsageError(
            f"there is no flow or command {name!r}{nearest(name, known)}.", what_next=f"There are {', '.join(known)}."
        )
    prepare(runs_folder(arguments), dry_run="--dry-run" in arguments)
    module_name, config_name, flow_name, _ = FLOWS[name]
    module = importlib.import_module(module_name)
    config, options = read_settings(getattr(module, config_name), arguments, f"autodidact {name}")
    from flows.console import run_flow

    raise_on_ctrl_c()
    return run_flow(module, flow_name, config, options.dry_run, options.on_drift)


def _show_help() -> int:
    print("usage: autodidact FLOW [--config FILE] [--field value …] [--dry-run] [--on-drift …]\n\nflows:")
    for name, (_, _, _, description) in FLOWS.items():
        print(f"  {name:<12} {description}")
    print("\ncommands:")
    for name, (_, _, description) in COMMANDS.items():
        print(f"  {name:<12} {description}")
    print("\nautodidact FLOW --help lists every setting.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
