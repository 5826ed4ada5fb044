"""Problems and demonstrations from a user's data set, in any format that has them."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from data.formats import Message, Use
from data.formats.record import assistant, short
from data.prepare.reading import HAVE_PROMPTS_WRITTEN, Reading, Tally, read_records
from data.prepare.sources import DataFileError, named_splits
from data.prepare.sources.names import HELD_OUT, serving
from data.rewards.final_answer import compared_as_text
from data.rows import Problem, Split, problem_id

VALIDATION_SHARE, TEST_SHARE = 10, 10
NO_FINAL_ANSWER = "no final answer"
AS_TEXT = "a reference answer that cannot be read as mathematics, and is compared as text"


def read_problems(
    reading: Reading,
    split: Split | None,
    has_answer: Callable[[str | None], bool] | None,
    tally: Tally,
    use: Use | None = None,
    source: str | None = None,
    given: Collection[Split] = (),
) -> Iterator[Problem]:
    """Read problems, one after another. The same prompt may occur again.

    Args:
        reading: the data set.
        split: the split of all its problems; in a folder with files of that name, only those are read. None: the split
            given by the rows or file names, else 80/10/10 by the hash of the prompt.
        has_answer: whether a reference has an answer that the reward can read: it ends in `#### n` or is the bare
            answer. None if no reward reads it, as in SFT, where the gold response suffices.
        tally: updated while reading.
        use: what the rows are read as; by default problems, or demonstrations if no reward reads them.
        source: the name of the data set for rows that have none; by default the file's name.
        given: the splits for which there is another data set.

    Raises:
        DataFileError: missing, empty or malformed file; a row of another format, or without the answer required.
    """
    name, rows = source or reading.source.name, tally.rows
    use = use or ("demonstrations" if has_answer is None else "problems")
    if use == "passages":
        raise DataFileError(f"{reading.source} holds texts without prompts.", what_next=HAVE_PROMPTS_WRITTEN)
    named = named_splits(reading.source)
    for at, record in read_records(replace(reading, only=serving(split, named, given)), use, tally):
        reference = record.response if record.reference is None else record.reference
        if has_answer is not None and not has_answer(reference or ""):
            problem = f"{at}: the answer {short(reference)} has no final answer."
            if not reading.drop:
                advice = "Put the bare answer into a column 'answer' beside a worked solution, or end the text in "
                raise DataFileError(problem, what_next=f"{advice}'#### <answer>'.")
            tally.drop(NO_FINAL_ANSWER, problem)
        else:
            if has_answer is not None and use == "problems" and compared_as_text(reference):
                tally.notice(AS_TEXT, f"{at}: {short(reference)}")
            identity = problem_id(record.messages)
            where = split or record.split or split_from(identity, record.file_split, named)
            yield Problem(identity, record.messages, reference, record.response, record.source or name, where)
    if tally.rows == rows:
        raise DataFileError(
            f"{reading.source} is empty.",
            what_next="Give a data set with one problem per row, such as 'question' and 'answer'.",
        )


def split_of(identity: str) -> Split:
    """The split of a problem by the hash of its prompt alone, so it stays the same when rows are added."""
    bucket = int(identity, 16) % 100
    if bucket < VALIDATION_SHARE:
        return "validation"
    return "test" if bucket < VALIDATION_SHARE + TEST_SHARE else "train"


def split_from(identity: str, file_split: str | None, named: Collection[Split]) -> str:
    """A problem's split by its file's; of training files, one tenth by hash for each held-out split without a file."""
    if file_split in HELD_OUT:
        return file_split
    hashed = split_of(identity)
    return "train" if hashed in named else hashed


def read_few_shot(reading: Reading) -> list[Message]:
    """Worked examples to put in front of every problem, as alternating user and assistant turns.

    Raises:
        DataFileError: missing, empty or malformed file; a row without question or answer.
    """
    turns: list[Message] = []
    reading = replace(reading, only=serving("train", named_splits(reading.source)))
    for at, record in read_records(reading, "demonstrations", Tally()):
        if record.messages[0]["role"] == "system":
            raise DataFileError(
                f"{at}: a worked example has a system message.",
                what_next="Set `system` instead, for every problem.",
            )
        turns += [*record.messages, assistant(record.response or "")]
    if not turns:
        raise DataFileError(f"{reading.source} is empty.", what_next="Give a data set of worked examples.")
    return turns


def with_system(problem: Problem, text: str) -> Problem:
    """The problem with this system message, unless it has one. Its id stays."""
    if problem.messages[0]["role"] == "system":
        return problem
    return replace(problem, messages=[{"role": "system", "content": text}, *problem.messages])


def with_prefix(problem: Problem, turns: list[Message]) -> Problem:
    """The problem with few-shot turns before it, after any system message. Its id stays that of the question alone."""
    start = 1 if problem.messages[0]["role"] == "system" else 0
    return replace(problem, messages=[*problem.messages[:start], *turns, *problem.messages[start:]])
