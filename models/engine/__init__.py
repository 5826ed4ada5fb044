"""What answers prompts: one protocol, and the engines that keep it. vLLM is the one that there is."""

from models.config import EngineConfig
from models.engine.protocol import Completion, Engine, Request, Served

__all__ = ["Completion", "Engine", "Request", "Served", "start"]


def start(served: Served, config: EngineConfig) -> Engine:
    """Start an engine; on the CPU and for one device it lives in this process, which then ends by `leave`."""
    from models.engine.vllm import VLLM

    return VLLM(served, config)
