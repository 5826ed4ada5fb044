"""Progress of a stage's program, as lines that survive a log: a bar, the rate, the time left."""

import time

from tqdm import tqdm


class Progress:
    """Prints a bar line at most every `seconds`, and at the end."""

    def __init__(self, label: str, total: int, unit: str, done: int = 0, seconds: float = 5.0) -> None:
        self.label, self.total, self.unit, self.seconds = label, total, unit, seconds
        self.start = self.printed = time.monotonic()
        self.initial = self.done = done

    def update(self, done: int, note: str = "") -> bool:
        """Report that `done` of the total are done; `note` is shown after the bar. Return whether a line was due."""
        self.done = done
        now = time.monotonic()
        if due := now - self.printed >= self.seconds or done == self.total:
            self.printed = now
            meter = tqdm.format_meter(
                done,
                self.total,
                self.elapsed,
                ncols=100,
                prefix=self.label,
                unit=self.unit,
                initial=self.initial,
                postfix=note,
            )
            print(meter, flush=True)
        return due

    @property
    def elapsed(self) -> float:
        return max(time.monotonic() - self.start, 1e-9)
