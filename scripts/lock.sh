#!/usr/bin/env bash
# Make requirements/cpu.txt and requirements/gpu.txt: every package with its exact version, from pyproject.toml.
set -euo pipefail
cd "$(dirname "$0")/.."
compile=(.venv/bin/uv pip compile pyproject.toml --extra postgres --extra services --extra endpoint --extra ui --extra dev --extra docs
    --python-version 3.11 --no-header --annotation-style line --no-emit-find-links --quiet --upgrade)

# uv does not read pip's settings: give it the folder where pip may find the CPU build of torch, else PyTorch's index.
links=${PIP_FIND_LINKS:-$(.venv/bin/pip config get global.find-links 2>/dev/null || true)}
if ls "$links"/torch-*+cpu* >/dev/null 2>&1; then
    torch_from=(--find-links "$links")
else
    torch_from=(--extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match)
fi
"${compile[@]}" --extra cpu --override requirements/override-cpu.txt "${torch_from[@]}" -o requirements/cpu.txt
env -u UV_FIND_LINKS "${compile[@]}" --extra gpu --python-platform x86_64-manylinux_2_28 -o requirements/gpu.txt
wc -l requirements/cpu.txt requirements/gpu.txt
