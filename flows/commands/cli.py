"""The command `autodidact`: finds the requested flow or command.

Heavy modules are imported only when needed.
"""

import importlib
import sys
from collections.abc import Sequence

from flows.commands.exits import ended_plainly, raise_on_ctrl_c

COMMANDS = {
    "data": ("flows.commands.datasets", "data", "inspect a data set before using it, or convert it to rows"),
    "chat": ("flows.commands.chat", "chat", "talk with a run's policy, or with a model in a folder"),
    "serve": ("deployments.serve", "serve", "serve a run's policy with vLLM, as OpenAI's models are served"),
    "runs": ("flows.commands.history", "runs", "list runs with their state on disk"),
    "trace": ("flows.commands.history", "trace", "trace a training example back to its origin"),
    "compare": ("flows.commands.history", "compare", "compare two runs on the same problems"),
    "verify": ("flows.commands.upkeep", "verify", "check a run's files against their digests"),
    "clean": ("flows.commands.upkeep", "clean", "free the disk of a run's checkpoints, except its best"),
    "publish": ("flows.commands.publish", "publish", "publish a run's best policy with a model card"),
    "reconcile": ("flows.commands.upkeep", "reconcile", "close what killed processes left open in MLflow and Prefect"),
    "promote": ("flows.commands.upkeep", "promote", "make a version of a registered model its champion"),
    "rollback": ("flows.commands.upkeep", "rollback", "make the previous champion the champion again"),
    "up": ("deployments.services", "up", "start Prefect, MLflow and a worker, and register the deployments"),
    "down": ("deployments.services", "down", "stop what `up` started"),
    "status": ("deployments.services", "status", "show which services run"),
    "completion": ("flows.commands.completion", "completion", "print a shell completion script"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code; `flows/commands/exits.py` lists them."""
    return ended_plainly(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        return _show_help()
    if arguments[0] == "--version":
        return _show_version()
    name, *rest = arguments
    if name in COMMANDS:
        module_name, function, _ = COMMANDS[name]
        command = getattr(importlib.import_module(module_name), function)
        raise_on_ctrl_c()
        return int(command(rest))
    return _run_flow(name, rest)


def _run_flow(name: str, arguments: list[str]) -> int:
    from data.errors import UsageError
    from flows.commands.flow_table import all_flows, find_flow
    from flows.commands.settings import first_look, nearest, read_settings
    from tasks.stage.environment import prepare

    flow = find_flow(name)
    if flow is None:
        known = [*all_flows(), *COMMANDS]
        raise UsageError(
            f"there is no flow or command {name!r}{nearest(name, known)}.", what_next=f"Use one of {', '.join(known)}."
        )
    runs, dry_run = first_look(arguments)
    prepare(runs, dry_run=dry_run)
    loaded = flow.load()
    config, options = read_settings(loaded.settings, arguments, f"autodidact {name}", flow=name, about=flow.about)
    from flows.commands.console import run_flow

    raise_on_ctrl_c()
    return run_flow(loaded, config, options.dry_run, options.on_drift)


def _show_version() -> int:
    from importlib.metadata import version
    from platform import python_version

    print(f"autodidact {version('autodidact')}, Python {python_version()}")
    return 0


def _show_help() -> int:
    from data.errors import UsageError
    from flows.commands.flow_table import all_flows

    print("usage: autodidact FLOW [--config FILE] [--SETTING VALUE …] [--dry-run] [--on-drift …]\n\nflows:")
    for name, flow in all_flows().items():
        try:
            print(f"  {name:<12} {flow.help}")
        except UsageError as error:  # of another package
            print(f"  {name:<12} {error.what}")
    print("\ncommands:")
    for name, (_, _, description) in COMMANDS.items():
        print(f"  {name:<12} {description}")
    print("\nautodidact FLOW --help shows the main settings, --help-all shows every one.")
    print("autodidact --version prints the version.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
