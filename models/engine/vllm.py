"""The engine vLLM."""

import gc
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from itertools import count
from typing import Any, NoReturn

from models.adapters.settings import BESIDE, NUMBERS, WEIGHTS
from models.config import EngineConfig
from models.engine.meter import Meter
from models.engine.protocol import Completion, Request, Served
from models.loading import engine_arguments, unmerged
from models.process import end, keep_imports

# Log-probabilities of the distribution that is sampled from. One engine per training process, none of its own.
BESIDE_A_TRAINER = {"logprobs_mode": "processed_logprobs", "distributed_executor_backend": "external_launcher"}


class VLLM:
    """A policy in vLLM's engine."""

    _in_front: Any = None  # vectors of virtual tokens, shape (count, size)

    def __init__(self, served: Served, config: EngineConfig) -> None:
        import torch
        from safetensors.torch import load_file

        adapter = unmerged(served.policy)
        if adapter is not None:
            self._in_front = load_file(adapter / WEIGHTS)[NUMBERS]
        self._engine, self._on_gpu = start_engine(served, config), torch.cuda.is_available()
        # As many answers are decoded together; as many again wait, so that each that ends is followed at once.
        self._room = 2 * config.max_num_seqs

    def stream(
        self, requests: Iterable[Request | None], meter: Meter | None = None
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Answer requests in one continuous batch; see the protocol."""
        engine, coming, numbers = self._engine, iter(requests), count()
        while True:
            # vLLM counts every answer of a request, so that a request of which one is long holds up no others.
            while engine.get_num_unfinished_requests() < self._room and (request := next(coming, None)):
                engine.add_request(str(next(numbers)), self._prompt(request.prompt), sampling_parameters(request))
            if not engine.has_unfinished_requests():
                return
            for output in engine.step():
                if output.finished:
                    drawn = sorted(output.outputs, key=lambda o: o.index)
                    answers = [
                        Completion(o.text, list(o.token_ids), o.finish_reason or "", _log_probs(o)) for o in drawn
                    ]
                    if meter:
                        meter.add(len(answers), sum(len(answer.token_ids) for answer in answers))
                    yield int(output.request_id), answers

    def _prompt(self, ids: list[int]) -> dict[str, Any]:
        """vLLM's prompt. Virtual tokens have vectors in place of ids."""
        if self._in_front is None:
            return {"prompt_token_ids": ids}
        import torch

        count, size = self._in_front.shape
        vectors = torch.cat([self._in_front, self._in_front.new_zeros(len(ids), size)])
        known = [False] * count + [True] * len(ids)
        return {"prompt_embeds": vectors, "prompt_token_ids": [0] * count + ids, "prompt_is_token_ids": known}

    def likelihoods(self, texts: Sequence[tuple[list[int], list[int]]], meter: Meter | None = None) -> list[float]:
        """Return the log-probability of each continuation after its prompt; see the protocol.

        vLLM tells the log-probabilities of a prompt's tokens only with an answer, so each gets one token more.
        """
        from vllm import SamplingParams

        told = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=0, detokenize=False)
        engine, found = self._engine, [0.0] * len(texts)
        waiting = iter(enumerate(texts))
        while True:
            while engine.get_num_unfinished_requests() < self._room and (coming := next(waiting, None)):
                number, (prompt, continuation) = coming
                engine.add_request(str(number), {"prompt_token_ids": prompt + continuation}, told)
            if not engine.has_unfinished_requests():
                return found
            for output in engine.step():
                if output.finished:
                    number = int(output.request_id)
                    _, continuation = texts[number]
                    each = output.prompt_logprobs[-len(continuation) :]
                    found[number] = sum(of[token].logprob for of, token in zip(each, continuation, strict=True))
                    if meter:
                        meter.add(1, len(continuation))

    def load(self, weights: Iterable[tuple[str, Any]]) -> None:
        """Answer with these weights from now on; see the protocol."""
        self._engine.collective_rpc("reload_weights", kwargs={"weights_iterator": self._of_the_base(weights)})
        self._engine.reset_prefix_cache()

    def _of_the_base(self, weights: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
        for name, tensor in weights:
            if name == BESIDE + NUMBERS:
                self._in_front = tensor.detach().float().cpu().clone()
            else:
                yield name, tensor

    def sleep(self) -> None:
        """Give a GPU's memory back; see the protocol. On the CPU there is nothing to give."""
        if self._on_gpu:
            self._engine.sleep(level=2)

    def wake(self) -> None:
        """Be ready for `load` again."""
        if self._on_gpu:
            self._engine.wake_up()


def _log_probs(output: Any) -> list[float]:
    """Each token's log-probability, if there are any."""
    return [] if output.logprobs is None else list(output.logprobs.logprobs)


def sampling_parameters(request: Request) -> Any:
    """vLLM's sampling parameters for a request."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind, StructuredOutputsParams

    return SamplingParams(
        n=request.samples,
        temperature=request.temperature,
        top_p=request.top_p,
        top_k=request.top_k,
        max_tokens=request.max_tokens,
        stop_token_ids=list(request.stop),
        seed=request.seed,
        skip_special_tokens=True,
        logprobs=0 if request.log_probs else None,
        flat_logprobs=True,
        structured_outputs=StructuredOutputsParams(json=request.schema) if request.schema else None,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def start_engine(served: Served, config: EngineConfig) -> Any:
    """vLLM's own engine. On the CPU and on one device it runs in this process."""
    import torch

    on_cpu = not torch.cuda.is_available()
    if config.tensor_parallel_size == 1:
        os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    if on_cpu:
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(config.cpu_kv_cache_gib))
        if served.beside_a_trainer:  # whose threads would be bound with the engine's
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
            # For log-probabilities vLLM would compile a function that ranks tokens: many seconds, for nothing here.
            os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    gc.disable()  # or vLLM's imports would trigger full collections
    from vllm import EngineArgs, LLMEngine

    keep_imports()
    if served.beside_a_trainer:
        _look_up_no_tokens()

    # This one of vLLM's backends enforces string patterns and JSON without whitespace.
    constrained: dict[str, Any] = {"backend": "guidance", "disable_any_whitespace": True}
    told = EngineArgs(
        model=str(served.policy),
        **engine_arguments(served.code),
        dtype=served.dtype,
        tensor_parallel_size=config.tensor_parallel_size,
        max_model_len=served.context + served.virtual_tokens,
        enable_prompt_embeds=served.virtual_tokens > 0,
        max_num_seqs=config.max_num_seqs,
        gpu_memory_utilization=config.gpu_memory_utilization,
        enforce_eager=on_cpu if config.enforce_eager is None else config.enforce_eager,
        seed=served.seed % 2**31,
        # On the CPU, seeded sampling fails if a prefill is split ("CPU Generator does not use offset").
        enable_chunked_prefill=False if on_cpu else None,
        max_num_batched_tokens=max(8192, served.context + served.virtual_tokens) if on_cpu else None,
        generation_config="vllm",
        disable_log_stats=True,
        **({"structured_outputs_config": constrained} if served.held_to_schemas else {}),
        **(BESIDE_A_TRAINER | {"enable_sleep_mode": not on_cpu} if served.beside_a_trainer else {}),
    )
    return LLMEngine.from_engine_args(told)


def _look_up_no_tokens() -> None:
    """Leave out the text that vLLM looks up for each token with a log-probability: nobody reads it."""
    from vllm.v1.engine import logprobs, output_processor

    class WithoutText(logprobs.LogprobsProcessor):  # type: ignore[misc]
        @classmethod
        def from_new_request(cls, tokenizer: Any, request: Any) -> Any:
            return super().from_new_request(None, request)

    output_processor.LogprobsProcessor = WithoutText


def leave() -> NoReturn:
    """End a program that may have started an engine."""
    if "vllm" in sys.modules:
        from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()  # or a file would stay in the system's temp folder
        destroy_distributed_environment()
    end()
