"""Engines that answer prompts: one protocol, and its implementations. vLLM is the only one so far."""

from models.config import EngineConfig
from models.engine.protocol import Completion, Engine, Request, Served, answers_in_order

__all__ = ["Completion", "Engine", "Request", "Served", "answers_in_order", "start"]


def start(served: Served, config: EngineConfig) -> Engine:
    """Start an engine. On the CPU and on one device it runs in this process, which must then end with `leave`."""
    from models.engine.vllm import VLLM

    return VLLM(served, config)
