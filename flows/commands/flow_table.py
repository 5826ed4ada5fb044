"""Every flow, found by its file: the modules of flows/, and the entry points `autodidact.flows` of other packages.

A flow's module is its only declaration. Its name is the command; the first line of its docstring is the help. It has a
Prefect flow of the same name, whose argument `config` is of the settings class, and `loop`, which that flow runs. An
entry point is a module: `kto = "my_package.kto"`. Nothing is imported before a flow is requested.
"""

import ast
import importlib
import inspect
import pkgutil
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import flows
from data.errors import AutodidactError, UsageError

if TYPE_CHECKING:
    from tasks.loop.preflight import Loop
    from tasks.settings.run import RunConfig

GROUP = "autodidact.flows"


@dataclass(frozen=True)
class LoadedFlow:
    """An imported flow: the Prefect flow, its settings class, and the loop that it runs."""

    flow: Any
    settings: "type[RunConfig]"
    loop: "Loop"


@dataclass(frozen=True)
class Flow:
    """A flow whose module has not been imported yet."""

    name: str
    module: str

    @property
    def function(self) -> str:
        return self.module.rsplit(".", 1)[-1]

    @property
    def entrypoint(self) -> str:
        """The flow as a Prefect deployment names it."""
        return f"{self.module}:{self.function}"

    @property
    def help(self) -> str:
        """The first line of the module's docstring."""
        return self._docstring.partition("\n")[0]

    @property
    def about(self) -> str:
        """The first paragraph of the module's docstring."""
        return self._docstring.partition("\n\n")[0]

    @property
    def _docstring(self) -> str:
        try:
            return ast.get_docstring(ast.parse(self._source.read_text(encoding="utf-8"))) or ""
        except (OSError, ValueError, SyntaxError) as error:
            raise self._broken(error) from error

    @property
    def _source(self) -> Path:
        try:
            spec = find_spec(self.module)
        except ImportError:
            spec = None
        except Exception as error:  # this imports the package that has the flow
            raise self._broken(error) from error
        if spec is None or spec.origin is None:
            raise UsageError(
                f"the flow {self.name} should be in the module {self.module}, which does not exist.",
                what_next=f"Reinstall or uninstall the package that names it as an entry point {GROUP}.",
            )
        return Path(spec.origin)

    def _broken(self, error: Exception) -> UsageError:
        return UsageError(
            f"the flow {self.name} cannot be loaded: importing {self.module} raised {type(error).__name__}: {error}.",
            what_next=f"Make `python -c 'import {self.module}'` work first, or uninstall that package.",
        )

    def load(self) -> LoadedFlow:
        """Import the flow.

        Raises:
            UsageError: the module does not exist, or lacks what a flow needs.
        """
        from tasks.settings.run import RunConfig

        assert self._source
        try:
            module = importlib.import_module(self.module)
        except AutodidactError:
            raise
        except Exception as error:
            raise self._broken(error) from error
        flow, loop, settings = getattr(module, self.function, None), getattr(module, "loop", None), None
        with suppress(NameError, TypeError):  # a name that only type checkers import, or not a function
            settings = get_type_hints(getattr(flow, "fn", flow)).get("config")
        if not (inspect.isclass(settings) and issubclass(settings, RunConfig)) or loop is None:
            raise UsageError(
                f"{self.module} is not a flow: it needs a Prefect flow {self.function}(config: Settings, …) and "
                f"loop(run, config).",
                what_next="See flows/sft.py for the shortest one.",
            )
        return LoadedFlow(flow, settings, loop)


def own_flows() -> dict[str, Flow]:
    """The flows of this project, by name."""
    modules = (found.name for found in pkgutil.iter_modules(flows.__path__) if not found.ispkg)
    return {flow.name: flow for flow in (Flow(name.replace("_", "-"), f"flows.{name}") for name in modules)}


def all_flows() -> dict[str, Flow]:
    """The flows of this project, then those of other packages; if two have the same name, the first counts."""
    found = own_flows()
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        found.setdefault(entry.name, Flow(entry.name, entry.module))
    return found


def find_flow(name: str) -> Flow | None:
    """The flow of that name. Other packages are searched only if this project has none."""
    return own_flows().get(name) or all_flows().get(name)
