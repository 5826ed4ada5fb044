"""Progress of an engine, shown while it works."""

import json
import time
from pathlib import Path

from models.progress import Progress


class Meter:
    """Counts finished answers and tokens.

    Args:
        journal: a metrics.jsonl, to which each bar line adds the tokens per second since the last.
    """

    def __init__(self, progress: Progress, journal: Path | None = None) -> None:
        self.progress, self.done, self.tokens, self.spared = progress, progress.initial, 0, 0
        self._journal, self._noted = journal, (progress.start, 0)

    def spare(self, samples: int) -> None:
        """Count answers that are not needed: as far as progress goes, they are done."""
        self.spared += samples
        self.done += samples

    def add(self, samples: int, tokens: int) -> None:
        self.done += samples
        self.tokens += tokens
        due = self.progress.update(self.done, f"{self.tokens / self.progress.elapsed:,.0f} tokens/s")
        if due and self._journal is not None:
            now, (before, counted) = time.monotonic(), self._noted
            rate = (self.tokens - counted) / max(now - before, 1e-9)
            with self._journal.open("a") as file:
                file.write(json.dumps({"step": self.done, "tokens_per_second": round(rate, 1)}) + "\n")
            self._noted = now, self.tokens
