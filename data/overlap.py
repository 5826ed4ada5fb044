"""Which training prompts say nearly the same, or repeat what is held out. Kept in files: memory does not grow."""

import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from data.rows import Problem, normalise_prompt
from data.storage import read_rows

TRAIN = "train"
NEAR_DUPLICATE, CONTAMINATED = "near_duplicate", "contaminated"
SHOWN = 5
PERMUTATIONS = 128
SHINGLE = 5  # words
GRAM = 8  # words, as in Tülu 3
CHARACTERS = 2 * GRAM  # of scripts without blanks, in which a word has about two
CANDIDATES = 100
AT_ONCE = 4096  # shingles, each of which takes 128 numbers
_HELD = f"SELECT number, position FROM gram WHERE key = ? LIMIT {CANDIDATES}"
FILTER_BITS = 27  # 16 MiB
# A word is a run of letters and digits, a mark (3 + 4 is not 3 - 4), or a character of a script without blanks.
MARKS = r"!-/:-@\[-`{-~\u2010-\u205e\u3001-\u303f"
SCRIPTS = r"\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"  # Thai, Japanese, Chinese, Korean
ALONE = re.compile(rf"[{SCRIPTS}]")
WORDS = re.compile(rf"[{MARKS}{SCRIPTS}]|[^\s{MARKS}{SCRIPTS}]+")


@dataclass(frozen=True)
class Overlap:
    """Another prompt that a prompt overlaps with, by the name it was added under, and how much: from 0 to 1."""

    name: str
    share: float


@dataclass(frozen=True)
class Repeated:
    """A training prompt, and the earlier or held-out one that it repeats, for people to look at."""

    reason: str
    share: float
    prompt: str
    repeats: str
    source: str


@dataclass(frozen=True)
class Rules:
    """Which training problems are left out for what other prompts say.

    Attributes:
        near_duplicates: similarity to an earlier one from which on, above 0, at most 1; None: never.
        contamination: repeated share of a held-out prompt from which on, above 0, at most 1; None: never.
        keep_contaminated: count those, but train on them.
    """

    near_duplicates: float | None = None
    contamination: float | None = None
    keep_contaminated: bool = False


def words(messages: list[dict[str, str]]) -> list[str]:
    """The words of a prompt, without those of its system message, which many prompts share."""
    return [
        word
        for turn in messages
        if turn["role"] != "system"
        for word in WORDS.findall(normalise_prompt(turn["content"]))
    ]


class NearDuplicates:
    """Prompts of which no two are near-duplicates of each other, kept in an SQLite file.

    Two prompts are near-duplicates if the Jaccard similarity of their sets of five consecutive words, estimated by
    MinHash with 128 permutations (standard error at most 0.045), reaches a threshold. Candidates are found by
    locality-sensitive hashing, which misses one in twenty right at a threshold of 0.8 and one in two hundred at 0.85;
    at most 100 per prompt are compared, the first that were kept.

    Args:
        file: where the index is kept; a new file.
        threshold: similarity from which on two prompts count as the same; above 0, at most 1.
    """

    def __init__(self, file: Path, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        # To miss one is worse than to compare one more: every candidate is compared anyway.
        best = MinHashLSH(threshold, PERMUTATIONS, weights=(0.05, 0.95))
        self.bands, self.rows = int(best.b), int(best.r)
        self.database = scratch_database(file)
        self.database.execute("CREATE TABLE kept (number INTEGER PRIMARY KEY, name TEXT, signature BLOB)")
        self.database.execute(
            "CREATE TABLE band (key INTEGER, number INTEGER, PRIMARY KEY (key, number)) WITHOUT ROWID"
        )

    def add(self, name: str, prompt: list[str], keep: bool = True) -> Overlap | None:
        """Keep a prompt, given as its words; or give the kept one that it is a near-duplicate of.

        Args:
            keep: False to look only.
        """
        if not prompt:
            return None
        signature = _signature(prompt)
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
        asked = ", ".join("?" * len(keys))
        candidates = self.database.execute(
            f"SELECT name, signature FROM kept WHERE number IN (SELECT number FROM band WHERE key IN ({asked})) "
            f"ORDER BY number LIMIT {CANDIDATES}",
            keys,
        )
        best = None
        for name, kept in candidates:
            share = float(np.mean(np.frombuffer(kept, signature.dtype) == signature))
            if share >= self.threshold and (best is None or share > best.share):
                best = Overlap(name, share)
        return best


class HeldOutRuns:
    """Prompts that no training prompt may repeat, by their n-grams of words, kept in an SQLite file.

    A training prompt is contaminated if the n-grams that it shares with one held-out prompt cover a large enough share
    of the words of the latter (Tülu 3, arXiv 2411.15124, section 3.2: 8-grams, half of the tokens). In Chinese and
    other scripts without blanks an n-gram has 16 characters. A held-out prompt that is shorter than one n-gram is too
    common to be looked for in others. Of an n-gram that more than 100 held-out prompts
    have, such as an instruction that stands before all of them, only the first 100 are looked at.

    Args:
        file: where the index is kept; a new file.
        share: of the held-out prompt's words, from which on a prompt is contaminated; above 0, at most 1.
    """

    def __init__(self, file: Path, share: float) -> None:
        self.share = share
        self.database = scratch_database(file)
        self.database.execute("CREATE TABLE held (number INTEGER PRIMARY KEY, name TEXT, words INTEGER)")
        self.database.execute(
            "CREATE TABLE gram (key INTEGER, number INTEGER, position INTEGER, PRIMARY KEY (key, number, position)) "
            "WITHOUT ROWID"
        )
        # Most n-grams of training prompts are in no held-out one; one bit for each hash spares asking the file.
        self.filter = bytearray(1 << FILTER_BITS - 3)

    def add(self, name: str, prompt: list[str]) -> None:
        """Hold out a prompt, given as its words."""
        keys = _grams(prompt)
        if not keys:
            return
        number = self.database.execute("INSERT INTO held (name, words) VALUES (?, ?)", (name, len(prompt))).lastrowid
        for key in keys:
            byte, bit = _place(key)
            self.filter[byte] |= bit
        self.database.executemany(
            "INSERT OR IGNORE INTO gram VALUES (?, ?, ?)", [(key, number, at) for at, key in enumerate(keys)]
        )

    def repeated_by(self, prompt: list[str]) -> Overlap | None:
        """The held-out prompt that a prompt, given as its words, repeats; of several the one it repeats most of."""
        covered: defaultdict[int, set[int]] = defaultdict(set)
        for key in set(_grams(prompt)):
            byte, bit = _place(key)
            if self.filter[byte] & bit:
                for number, at in self.database.execute(_HELD, (key,)):
                    covered[number].update(range(at, at + _gram(prompt)))
        best = None
        for number, positions in covered.items():
            name, length = self.database.execute("SELECT name, words FROM held WHERE number = ?", (number,)).fetchone()
            share = len(positions) / length
            if share >= self.share and (best is None or share > best.share):
                best = Overlap(name, share)
        return best

    def close(self) -> None:
        self.database.close()


class Overlaps:
    """What training prompts repeat: held-out prompts, or each other.

    Args:
        rules: what is looked for.
        scratch: a folder for the indices, which are of no use afterwards.
        files: the Parquet files of Problem rows to look at: of all training prompts under the name "train", if they
            are to be compared with each other; of held-out prompts under other names.
    """

    def __init__(self, rules: Rules, scratch: Path, files: Mapping[str, Path]) -> None:
        self.rules, self.files = rules, files
        self.contaminated = 0
        self._shown: list[tuple[str, str, Overlap]] = []
        self._leaks = self._near = None
        if rules.near_duplicates is not None:
            self._near = NearDuplicates(scratch / "near.sqlite", rules.near_duplicates)
        if rules.contamination is not None:
            self._leaks = HeldOutRuns(scratch / "held-out.sqlite", rules.contamination)
            for name, file in files.items():
                for problem in read_rows(Problem, file) if name != TRAIN else ():
                    prompt = words(problem.messages)
                    self._leaks.add(f"{name}/{problem.id}", prompt)
                    if self._near:
                        self._near.add(f"{name}/{problem.id}", prompt)

    def leave_out(self, identity: str, messages: list[dict[str, str]], dropped: Counter[str]) -> bool:
        """Whether a training prompt is left out; it is counted then, by reason."""
        prompt = words(messages) if self._leaks or self._near else []
        overlap = self._leaks.repeated_by(prompt) if self._leaks else None
        if overlap is None and self._near:
            overlap = self._near.add(f"{TRAIN}/{identity}", prompt, keep=TRAIN in self.files)
        if overlap is None:
            return False
        reason = NEAR_DUPLICATE if overlap.name.startswith(f"{TRAIN}/") else CONTAMINATED
        self.contaminated += reason == CONTAMINATED
        if sum(known == reason for known, *_ in self._shown) < SHOWN:
            self._shown.append((reason, _text(messages), overlap))
        if reason == CONTAMINATED and self.rules.keep_contaminated:
            return False
        dropped[reason] += 1
        return True

    def shown(self) -> list[Repeated]:
        """The first of each reason."""
        wanted = {overlap.name for _, _, overlap in self._shown}
        others: dict[str, Problem] = {}
        for name in sorted({other.partition("/")[0] for other in wanted}):
            for problem in read_rows(Problem, self.files[name]):
                if f"{name}/{problem.id}" in wanted:
                    others.setdefault(f"{name}/{problem.id}", problem)
        found = ((reason, overlap.share, prompt, others[overlap.name]) for reason, prompt, overlap in self._shown)
        return [
            Repeated(reason, share, prompt, _text(other.messages), other.source)
            for reason, share, prompt, other in found
        ]

    def close(self) -> None:
        for index in (self._leaks, self._near):
            if index:
                index.close()


def scratch_database(file: Path) -> sqlite3.Connection:
    """A database that is made anew by whoever is stopped, and so need not survive anything."""
    database = sqlite3.connect(file, isolation_level=None)
    database.execute("PRAGMA journal_mode = OFF")
    database.execute("PRAGMA synchronous = OFF")
    database.execute("PRAGMA cache_size = -16384")  # KiB
    database.execute("BEGIN")
    return database


def _text(messages: list[dict[str, str]]) -> str:
    return "\n".join(turn["content"] for turn in messages if turn["role"] != "system")


def _grams(prompt: list[str]) -> list[int]:
    """Hashes of a prompt's n-grams, as SQLite's integers, which have a sign."""
    return [_signed(xxhash.xxh3_64_intdigest(gram.encode())) for gram in _runs(prompt, _gram(prompt))]


def _gram(prompt: list[str]) -> int:
    """Words of an n-gram in a prompt: more if most of its words are single characters of a script without blanks."""
    characters = sum(1 for word in prompt if ALONE.match(word))
    return CHARACTERS if 2 * characters > len(prompt) else GRAM


def _runs(prompt: list[str], n: int) -> list[str]:
    return [" ".join(prompt[start : start + n]) for start in range(len(prompt) - n + 1)]


def _signature(prompt: list[str]) -> Any:
    sketch = _empty_sketch().copy()
    shingles = [run.encode() for run in _runs(prompt, min(SHINGLE, len(prompt)))]
    for start in range(0, len(shingles), AT_ONCE):
        sketch.update_batch(shingles[start : start + AT_ONCE])
    return sketch.hashvalues


@lru_cache(maxsize=1)
def _empty_sketch() -> Any:
    from datasketch import MinHash

    return MinHash(PERMUTATIONS, seed=1, hashfunc=xxhash.xxh32_intdigest, scheme="affine32")


def _signed(key: int) -> int:
    return key - (1 << 64) if key >= 1 << 63 else key


def _place(key: int) -> tuple[int, int]:
    return (key >> 3) & ((1 << FILTER_BITS - 3) - 1), 1 << (key & 7)
