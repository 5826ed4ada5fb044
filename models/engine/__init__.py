"""Engines that answer prompts: one protocol, and its implementations. Transformers serves what vLLM cannot."""

from dataclasses import replace

from models.adapters.settings import EMBEDDED
from models.config import EngineConfig
from models.engine.protocol import Completion, Engine, Request, Served, answers_in_order
from models.loading import kind_beside, unmerged, virtual_tokens

__all__ = ["Completion", "Engine", "Request", "Served", "answers_in_order", "start"]


def start(served: Served, config: EngineConfig) -> Engine:
    """Start an engine. On the CPU and on one device it runs in this process, which must then end with `leave`.

    vLLM has no adapters that stay beside the weights, but for virtual tokens that are part of the prompt. Of such
    prompts it tells no probabilities.
    """
    adapter = unmerged(served.policy)
    if adapter is not None:
        served = replace(served, adapter=kind_beside(adapter), virtual_tokens=virtual_tokens(served.policy))
    kind = served.adapter
    if kind is None or (kind in EMBEDDED and not served.read):
        from models.engine.vllm import VLLM

        return VLLM(served, config)
    from models.engine.transformers import Transformers

    return Transformers(served, config)
