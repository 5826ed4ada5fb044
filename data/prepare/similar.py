"""Indices of prompts, in files rather than memory: near-duplicates, and overlap with held-out prompts."""

import re
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from data.rows import normalize_prompt

PERMUTATIONS = 128
STEEPEST = 0.9  # above this threshold locality-sensitive hashing has too few bands
SHINGLE = 5  # words
GRAM = 8  # words, as in Tülu 3
CHARACTERS = 2 * GRAM  # in scripts without spaces, where a word has about two
CANDIDATES = 100
COMMON = 10  # an n-gram in more held-out prompts than this is a shared instruction or template
AT_ONCE = 4096  # shingles, each of which takes 128 numbers
FILTER_BITS = 27  # 16 MiB
# A word is a run of letters and digits, a mark (3 + 4 is not 3 - 4), or a character of a script without spaces:
# Thai, Lao, Burmese, Khmer, Japanese, Chinese, Korean.
MARKS = r"!-/:-@\[-`{-~\u2010-\u205e\u3001-\u303f"
SCRIPTS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
ALONE = re.compile(rf"[{SCRIPTS}]")
WORDS = re.compile(rf"[{MARKS}{SCRIPTS}]|[^\s{MARKS}{SCRIPTS}]+")


@dataclass(frozen=True)
class Prompt:
    """A prompt as its words, with its system message separate, since many prompts share it."""

    words: list[str]
    system: str = ""

    @cached_property
    def signature(self) -> Any:
        """MinHash of the five-word shingles; the system message is part of each."""
        sketch = _empty_sketch().copy()
        runs = [f"{self.system}\x1e{run}".encode() for run in _runs(self.words, min(SHINGLE, len(self.words)))]
        for start in range(0, len(runs), AT_ONCE):
            sketch.update_batch(runs[start : start + AT_ONCE])
        return sketch.hashvalues


@dataclass(frozen=True)
class Overlap:
    """Another prompt that a prompt overlaps with, by the name it was added under, and how much, from 0 to 1."""

    name: str
    share: float


def prompt_of(messages: list[dict[str, str]]) -> Prompt:
    """The words of a prompt."""
    said = [turn for turn in messages if turn["role"] != "system"]
    words = [word for turn in said for word in WORDS.findall(normalize_prompt(turn["content"]))]
    return Prompt(words, "".join(turn["content"] for turn in messages if turn["role"] == "system"))


class NearDuplicates:
    """A set of prompts without near-duplicates, kept in an SQLite file.

    Two prompts are near-duplicates if their system messages are equal and the Jaccard similarity of their five-word
    shingles, estimated by MinHash with 128 permutations (standard error at most 0.045), reaches a threshold.
    Candidates are found by locality-sensitive hashing, which misses one in twenty right at a threshold of 0.8 and one
    in two hundred at 0.85. The 100 candidates that share most bands are compared.

    Args:
        file: the file of the index; must not exist.
        threshold: similarity at which two prompts count as the same, in (0, 1].
    """

    def __init__(self, file: Path, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        # A missed duplicate is worse than an extra comparison: every candidate is compared anyway.
        best = MinHashLSH(min(threshold, STEEPEST), PERMUTATIONS, weights=(0.05, 0.95))
        self.bands, self.rows = int(best.b), int(best.r)
        self.database = scratch_database(file)
        self.database.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, name TEXT, signature BLOB)")
        self.database.execute(
            "CREATE TABLE band (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID"
        )
        # A band in very many prompts comes from a shared template; nearer prompts share other bands as well.
        of_a_band = f"SELECT * FROM (SELECT number FROM band WHERE key = ? LIMIT {CANDIDATES})"
        self.candidates = (
            f"SELECT name, signature FROM kept JOIN (SELECT number, count(*) AS bands FROM "
            f"({' UNION ALL '.join([of_a_band] * self.bands)}) GROUP BY number ORDER BY bands DESC LIMIT {CANDIDATES}) "
            f"USING (number) ORDER BY number"
        )

    def add(self, name: str, prompt: Prompt, keep: bool = True) -> Overlap | None:
        """Keep a prompt and return None, or return the nearest kept prompt that it is a near-duplicate of.

        Args:
            keep: False only looks it up.
        """
        if not prompt.words:
            return None
        signature = prompt.signature
        keys = [
            _signed(xxhash.xxh3_64_intdigest(signature[band * self.rows : (band + 1) * self.rows].tobytes(), seed=band))
            for band in range(self.bands)
        ]
        found = self._nearest(signature, keys)
        if found or not keep:
            return found
        row = self.database.execute("INSERT INTO kept (name, signature) VALUES (?, ?)", (name, signature.tobytes()))
        self.database.executemany("INSERT OR IGNORE INTO band VALUES (?, ?)", [(key, row.lastrowid) for key in keys])
        return None

    def close(self) -> None:
        self.database.close()

    def _nearest(self, signature: Any, keys: list[int]) -> Overlap | None:
        best = None
        for name, kept in self.database.execute(self.candidates, keys):
            share = float(np.mean(np.frombuffer(kept, signature.dtype) == signature))
            if share >= self.threshold and (best is None or share > best.share):
                best = Overlap(name, share)
        return best


class HeldOutRuns:
    """Held-out prompts that no training prompt may repeat, by their word n-grams, kept in an SQLite file.

    A training prompt is contaminated if the n-grams it shares with one held-out prompt cover a large enough share of
    the held-out prompt's words (Tülu 3, arXiv 2411.15124, section 3.2: 8-grams, half of the tokens). In Chinese and
    other scripts without spaces an n-gram has 16 characters. N-grams in more than ten held-out prompts, and words that
    only those cover, do not count: they are a shared instruction or template. A held-out prompt with nothing left
    after that, or shorter than one n-gram, is not searched for.

    Args:
        file: the file of the index; must not exist.
        prompts: the held-out prompts, each with a name.
        share: of the held-out prompt's words, at which a prompt is contaminated, in (0, 1].
    """

    def __init__(self, file: Path, prompts: Iterable[tuple[str, Prompt]], share: float) -> None:
        self.share = share
        self.database = scratch_database(file)
        self.database.execute("CREATE TABLE held (number INTEGER PRIMARY KEY, name TEXT, words INTEGER)")
        self.database.execute("CREATE TABLE every_gram (key INTEGER, number INTEGER, position INTEGER, n INTEGER)")
        # Most n-grams of training prompts are in no held-out prompt; a bit per hash avoids looking them up in the file.
        self.filter = bytearray(1 << FILTER_BITS - 3)
        self.sizes: set[int] = set()
        for name, prompt in prompts:
            self._add(name, prompt.words)
        self._leave_common_out()

    def repeated_by(self, prompt: Prompt) -> Overlap | None:
        """The held-out prompt that a prompt repeats; of several, the one it repeats most."""
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for n in self.sizes:
            for key in set(_grams(prompt.words, n)):
                byte, bit = _place(key)
                if self.filter[byte] & bit:
                    for number, at in self.database.execute("SELECT number, position FROM gram WHERE key = ?", (key,)):
                        covered[number].update(range(at, at + n))
        best = None
        for number, positions in covered.items():
            name, length = self.database.execute("SELECT name, words FROM held WHERE number = ?", (number,)).fetchone()
            share = len(positions) / length
            if share >= self.share and (best is None or share > best.share):
                best = Overlap(name, share)
        return best

    def close(self) -> None:
        self.database.close()

    def _add(self, name: str, words: list[str]) -> None:
        n = _gram_size(words)
        self.sizes.add(n)
        keys = _grams(words, n)
        number = self.database.execute("INSERT INTO held (name, words) VALUES (?, 0)", (name,)).lastrowid
        self.database.executemany(
            "INSERT INTO every_gram VALUES (?, ?, ?, ?)", [(key, number, at, n) for at, key in enumerate(keys)]
        )

    def _leave_common_out(self) -> None:
        # Copied rather than deleted: to delete rows, SQLite first keeps all their row ids in memory.
        self.database.execute("CREATE INDEX of_key ON every_gram (key, number, position, n)")
        self.database.execute(
            f"CREATE TABLE common AS SELECT key FROM every_gram GROUP BY key HAVING count(DISTINCT number) > {COMMON}"
        )
        self.database.execute(
            "CREATE TABLE gram (key INTEGER, number INTEGER, position INTEGER, n INTEGER, "
            "PRIMARY KEY (key, number, position)) WITHOUT ROWID"
        )
        self.database.execute(
            "INSERT INTO gram SELECT * FROM every_gram WHERE key NOT IN (SELECT key FROM common) "
            "ORDER BY key, number, position"
        )
        self.database.execute("DROP TABLE every_gram")
        for (key,) in self.database.execute("SELECT DISTINCT key FROM gram"):
            byte, bit = _place(key)
            self.filter[byte] |= bit
        rows = self.database.execute("SELECT number, position, n FROM gram ORDER BY number")
        lengths = ((len(_covered(grams)), number) for number, grams in groupby(rows, key=itemgetter(0)))
        self.database.executemany("UPDATE held SET words = ? WHERE number = ?", lengths)


def share_repeated(prompt: Prompt, other: Prompt) -> float:
    """Share of a prompt's words in n-grams that another prompt also has; 0 if it is shorter than one n-gram."""
    n = _gram_size(prompt.words)
    known = set(_runs(other.words, n))
    covered = {word for at, run in enumerate(_runs(prompt.words, n)) if run in known for word in range(at, at + n)}
    return len(covered) / len(prompt.words) if prompt.words else 0.0


def scratch_database(file: Path) -> sqlite3.Connection:
    """A scratch database: after an interruption it is built again, so it need not survive a crash."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -4096")  # KiB
    database.execute("BEGIN")
    return database


def _covered(grams: Iterator[tuple[int, int, int]]) -> set[int]:
    return {word for _, at, n in grams for word in range(at, at + n)}


def _grams(words: list[str], n: int) -> list[int]:
    """Hashes of the n-grams as signed integers, for SQLite."""
    return [_signed(xxhash.xxh3_64_intdigest(gram.encode(), seed=n)) for gram in _runs(words, n)]


def _gram_size(words: list[str]) -> int:
    characters = sum(1 for word in words if ALONE.match(word))
    return CHARACTERS if 2 * characters > len(words) else GRAM


def _runs(words: list[str], n: int) -> list[str]:
    return [" ".join(words[start : start + n]) for start in range(len(words) - n + 1)]


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")


def _signed(key: int) -> int:
    return key - (1 << 64) if key >= 1 << 63 else key


def _place(key: int) -> tuple[int, int]:
    return (key >> 3) & ((1 << FILTER_BITS - 3) - 1), 1 << (key & 7)
