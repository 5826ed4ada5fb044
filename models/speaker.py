"""A policy that answers one conversation at a time, token by token: Transformers alone, which starts in seconds.

Prompts are rendered, and answers end, as in generation and evaluation.
"""

import gc
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from data.chat_template import Messages, require_template
from data.errors import RunFailedError
from data.render import PromptTooLongError, prompt_token_ids, stop_token_ids
from models.config import ModelCode, SamplingConfig
from models.loading import load_tokenizer, load_weights, room_of
from models.process import keep_imports


class Speaker:
    """A policy in this process, on the GPU if there is one.

    Raises:
        ModelError: it needs its own code, which is refused.
        TemplateError: its tokenizer has no chat template.
        RunFailedError: the GPU has too little memory.
    """

    def __init__(self, folder: Path, dtype: str, code: ModelCode) -> None:
        gc.disable()  # or the imports would trigger full collections
        import torch

        known = sys.modules.setdefault("sklearn", None)  # type: ignore[arg-type]
        try:  # Transformers would import it, for seconds, for a way of decoding that is not used here
            import transformers.generation  # noqa: F401
        finally:
            if known is None:
                del sys.modules["sklearn"]
        from transformers.utils import logging

        keep_imports()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        self.tokenizer = load_tokenizer(folder, code)
        require_template(self.tokenizer, str(folder))
        device = "cuda" if torch.cuda.is_available() else "cpu"
        with _memory_explained():
            self.model = load_weights("AutoModelForCausalLM", folder, code, dtype=dtype).to(device).eval()
        self.context = room_of(folder, code)

    def answer(self, messages: Messages, sampling: SamplingConfig, seed: int | None = None) -> Generator[str]:
        """Yield an answer in pieces. An iterator that is closed, or interrupted, ends the answer.

        Raises:
            PromptTooLongError: the conversation fills the context.
            TemplateError: the chat template refuses the conversation.
            RunFailedError: the GPU has too little memory.
        """
        from transformers import TextIteratorStreamer

        prompt = prompt_token_ids(self.tokenizer, messages)
        room = self.context - len(prompt)
        if room < 1:
            raise PromptTooLongError(
                f"The conversation has {len(prompt)} tokens, and the model's context is {self.context}.",
                what_next="Say less, or forget the earlier turns.",
            )
        streamer = TextIteratorStreamer(self.tokenizer, skip_prompt=True, skip_special_tokens=True)
        over = threading.Event()
        failures: list[BaseException] = []

        def generate() -> None:
            try:
                self._generate(prompt, sampling, min(sampling.max_tokens, room), seed, streamer, over)
            except BaseException as error:  # raised again where the pieces are read
                failures.append(error)
                streamer.end()

        thread = threading.Thread(target=generate, daemon=True)
        thread.start()
        try:
            yield from (piece for piece in streamer if piece)
        finally:
            over.set()
            thread.join()
        if failures:
            with _memory_explained():
                raise failures[0]

    def _generate(
        self,
        prompt: Sequence[int],
        sampling: SamplingConfig,
        most: int,
        seed: int | None,
        streamer: Any,
        over: threading.Event,
    ) -> None:
        import torch
        from transformers import GenerationConfig, StoppingCriteria, StoppingCriteriaList

        class Stopped(StoppingCriteria):  # type: ignore[misc]
            def __call__(self, ids: Any, scores: Any, **_: Any) -> Any:
                return torch.full((ids.shape[0],), over.is_set(), dtype=torch.bool, device=ids.device)

        if seed is not None:
            torch.manual_seed(seed)
        stop = stop_token_ids(self.tokenizer)
        drawn = {"temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": sampling.top_k}
        # A configuration of its own: the checkpoint's would add, for example, a penalty that generation does not use.
        config = GenerationConfig(
            max_new_tokens=most,
            do_sample=sampling.temperature > 0,
            eos_token_id=stop,
            pad_token_id=stop[0] if stop else 0,
            **(drawn if sampling.temperature > 0 else {}),
        )
        self.model.generation_config = config
        ids = torch.tensor([list(prompt)], device=self.model.device)
        with torch.inference_mode():
            self.model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                generation_config=config,
                streamer=streamer,
                stopping_criteria=StoppingCriteriaList([Stopped()]),
            )


@contextmanager
def _memory_explained() -> Iterator[None]:
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise RunFailedError(
            f"The GPU's memory is full ({str(error).splitlines()[0]})",
            what_next="End other programs on it, or choose another GPU with CUDA_VISIBLE_DEVICES.",
        ) from error
