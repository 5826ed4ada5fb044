"""Whether a text is a sentence, which is never a bare answer."""

import re

LONGEST_ANSWER = 10  # maximum words of an answer that is not a sentence
# A word, or two characters of a script without spaces. LaTeX commands and text inside math do not count.
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]{2}|[^\W\d_\u3040-\u30ff\u4e00-\u9fff]{2,}")
_LATEX = re.compile(r"\$[^$]*\$|\\[A-Za-z]+(?:\{[^{}]*\})?")
_ENDS = (".", "!", "?", "。", "！", "？")


def is_sentence(text: str) -> bool:
    """Whether a text has three words and sentence-ending punctuation, or more words than an answer has."""
    words = len(_WORD.findall(_LATEX.sub(" ", text)))
    return words > LONGEST_ANSWER or (words > 2 and text.rstrip(" \t\n*\"'”").endswith(_ENDS))
