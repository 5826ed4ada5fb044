"""What a dry run prints: every stage, with what it would do and cost."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from data.prepare.sources import hub_name, is_here
from data.wording import duration
from flows.commands.printing import format_bytes, make_console
from models import tiny
from models.estimate import cache_bytes_per_token, generation_bytes_per_device, parameters_of
from tasks.loop.pace import expected_seconds
from tasks.loop.preflight import Loop, keeps, peak_disk, plan_loop
from tasks.policies.model_folder import is_path, resolve_model
from tasks.settings.loop import LoopConfig
from tasks.settings.run import RunConfig
from tasks.stage.contract import OnDrift, Status
from tasks.stage.devices import gpu_memory
from tasks.stage.freed import needed_error
from tasks.stage.run import Planned

GENERATE = "models.generate"  # the program in which the policy answers


def show_plan(loop: Loop, config: RunConfig, on_drift: OnDrift) -> None:
    """Print what every stage would do and cost. Needs no server, GPU or model."""
    plan = plan_loop(loop, config, on_drift)
    table = Table(
        title=f"{config.directory}: {len(plan.plan)} stages (figures but time are upper bounds)", title_justify="left"
    )
    for name in ("stage", "would", "samples or examples", "tokens", "disk", "memory per GPU", "GPUs", "time"):
        table.add_column(name, justify="left" if name in ("stage", "would") else "right")
    seconds = expected_seconds(plan, config)
    for planned in plan.plan:
        table.add_row(
            *_plan_row(planned), _time([seconds[planned.stage.name]]) if planned.stage.name in seconds else ""
        )
    left = [p.stage.estimate for p in plan.plan if p.status is not Status.REUSE]
    table.add_section()
    table.add_row(
        "to do",
        "",
        "",
        _si(sum(e.tokens for e in left)),
        format_bytes(peak_disk(plan.plan, keeps(config))),
        "",
        "",
        _time(list(seconds.values())),
    )
    console = make_console()
    console.print(table)
    answering = (p for p in plan.plan if p.status is not Status.REUSE and GENERATE in p.stage.command)
    if isinstance(config, LoopConfig) and any(answering):
        console.print(cache_line(config), soft_wrap=True)
    if (keep := keeps(config)) != "all":
        without = format_bytes(peak_disk(plan.plan, "all"))
        console.print(f"keep: {keep} frees trained weights on the way; with keep: all, disk would come to {without}")
    for made_by, needed_by in plan.lacking.items():
        console.print(f"missing: {needed_error(needed_by, plan.directory / made_by)}", soft_wrap=True)
    for planned in plan.plan:
        if planned.stage.command:
            console.print(f"{planned.stage.name}: {planned.stage.command}", soft_wrap=True)
    for name, path in config.input_files().items():
        if not is_here(path) and hub_name(path) is None:
            console.print(f"missing: {name} {path}; it must exist before the run starts")
    base = next(planned.stage for planned in plan.plan if planned.stage.name == "base")
    if config.model and base.inputs["model"].digest is None:
        way_on = "it must exist before the run starts" if is_path(config.model) else "it will be fetched"
        console.print(f"missing: model {config.model} is not here; {way_on}")


def _plan_row(planned: Planned) -> tuple[str, ...]:
    estimate = planned.stage.estimate
    would = {
        Status.RUN: "run",
        Status.RESUME: "resume",
        Status.REUSE: "reuse",
        Status.DRIFT: "stop: made with other settings",
        Status.OPEN: "reuse, if its inputs stay the same",
    }[planned.status]
    memory = "unknown" if estimate.gpu_bytes is None else f"≈ {format_bytes(estimate.gpu_bytes)}"
    return (
        planned.stage.name,
        would,
        f"{estimate.samples:,}" if estimate.samples else "",
        _si(estimate.tokens) if estimate.tokens else "",
        format_bytes(estimate.disk_bytes) if estimate.disk_bytes else "",
        memory + (" + KV" if estimate.cached else "") if estimate.devices else "",
        str(estimate.devices) if estimate.devices else "",
    )


def _time(seconds: Sequence[float | None]) -> str:
    """Seconds together; at least those that are known, or "unknown"."""
    known = [one for one in seconds if one is not None]
    if not known:
        return "unknown" if seconds else ""
    return f"{'≥' if len(known) < len(seconds) else '≈'} {duration(sum(known))}"


def _si(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return str(number)


def cache_line(config: LoopConfig) -> str:
    """What is left of a GPU for the KV cache, and what the answers that are decoded together need of it."""
    engine, dtype, longest = config.engine, config.generate.dtype, 2 * config.generate.max_tokens
    tokens, share = min(engine.max_model_len or longest, longest), f"{engine.gpu_memory_utilization:.0%} of each GPU"
    of_a_token = cache_bytes_per_token(_architecture(config), dtype, engine)
    if of_a_token is None:
        return f"KV: vLLM takes {share}; what answers need is unknown without the model's config.json"
    together = f"{engine.max_num_seqs:,} answers of {tokens:,} tokens with their prompts"
    need = f"{together} need {format_bytes(of_a_token * tokens * engine.max_num_seqs)}"
    parameters = parameters_of(config.model) if config.model else tiny.PARAMETERS
    memory, weights = gpu_memory(), generation_bytes_per_device(parameters, dtype, engine)
    if memory is None or weights is None:
        return f"KV: vLLM takes {share} for weights and KV cache; {need}"
    left = max(0, int(memory * engine.gpu_memory_utilization) - weights)
    room = left // (of_a_token * tokens)
    return f"KV: vLLM takes {share}; {format_bytes(left)} are left for the cache, room for {room:,} answers; {need}"


def _architecture(config: LoopConfig) -> dict[str, Any]:
    """The model's config.json; empty if it is not here."""
    if config.model is None:
        return dict(tiny.ARCHITECTURE)
    folder = resolve_model(config.model, config, offline=True)
    try:
        found = json.loads(((folder or Path(config.model)) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
