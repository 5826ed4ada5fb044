"""Progress of an engine, shown while it works."""

from models.progress import Progress


class Meter:
    """Counts finished answers and tokens."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.done, self.tokens = progress, progress.initial, 0

    def add(self, samples: int, tokens: int) -> None:
        self.done += samples
        self.tokens += tokens
        self.progress.update(self.done, f"{self.tokens / self.progress.elapsed:,.0f} tokens/s")
