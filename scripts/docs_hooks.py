"""MkDocs hooks for the pages in docs/: formulas, and the configuration reference made from the settings.

Formulas become MathML, which browsers render natively, so no page needs an external script.
"""

import re
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel

from flows.commands.flow_table import all_flows
from flows.commands.help_text import UNGROUPED, Setting, settings_of
from tasks.datasets.format import FormatConfig

FENCED = re.compile(r"^(```.*?^```)", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<![`$\w])\$(?! )([^$`\n]+)\$(?![`\w])")
HEAD = "| setting | value | default | what it is |\n| --- | --- | --- | --- |"


def formula(source: str, *_: Any, **__: Any) -> str:
    """A fenced `math` block as MathML."""
    return f'<div class="math">{convert(source.strip(), display="block")}</div>'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for the settings of every flow, and of `data format`."""
    for name, flow in all_flows().items():
        _add(files, config, name, name, flow.help, flow.load().settings)
    _add(files, config, "data-format", "data format", FormatConfig.__doc__ or "", FormatConfig)
    return files


def _add(files: Files, config: MkDocsConfig, page: str, name: str, about: str, settings: type[BaseModel]) -> None:
    content = reference(name, about, settings)
    files.append(File.generated(config, f"reference/{page}.md", content=content))


def reference(name: str, about: str, settings: type[BaseModel]) -> str:
    """A page of all settings of a class, under their headings. `configuration.md` explains how to set them."""
    tables: dict[str, list[str]] = {}
    for setting in settings_of(settings):
        if not setting.is_group or setting.can_be_none:
            tables.setdefault(setting.heading, []).append(_row(setting))
    parts = [f"# {name}", about, "How to set them: [Configuration](../configuration.md)."]
    parts += ["\n".join([f"## {heading}\n", HEAD, *tables[heading]]) for heading in _in_order(list(tables))]
    return "\n\n".join(parts) + "\n"


def _in_order(headings: list[str]) -> list[str]:
    """Headings in order: settings in no group, then groups as declared, each before its subgroups."""
    groups = [heading.partition(".")[0] for heading in headings if heading not in UNGROUPED]
    grouped = [heading for heading in headings if heading not in UNGROUPED]
    return [heading for heading in UNGROUPED if heading in headings] + sorted(
        grouped, key=lambda heading: (groups.index(heading.partition(".")[0]), heading)
    )


def _row(setting: Setting) -> str:
    values = ", ".join(f"`{choice}`" for choice in setting.choices) or f"`{setting.metavar}`"
    default = setting.standing.strip("()").removeprefix("default: ")
    cells = f"`{setting.name}`", values, f"`{default}`", setting.about
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Convert inline formulas, `$x$`."""
    parts = FENCED.split(markdown)
    return "".join(part if part.startswith("```") else INLINE.sub(_inline, part) for part in parts)


def _inline(found: re.Match[str]) -> str:
    return str(convert(found[1]))
