"""Whether a text is a sentence, which is never a bare answer."""

import re

LONGEST_ANSWER = 10  # words of a text that is an answer and no sentence
# A word, or two signs of a script that is written without blanks. LaTeX's commands and text in its math are none.
_WORD = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]{2}|[^\W\d_\u3040-\u30ff\u4e00-\u9fff]{2,}")
_LATEX = re.compile(r"\$[^$]*\$|\\[A-Za-z]+(?:\{[^{}]*\})?")
_ENDS = (".", "!", "?", "。", "！", "？")


def is_sentence(text: str) -> bool:
    """Whether a text has three words and the sign that ends a sentence, or more words than an answer has."""
    words = len(_WORD.findall(_LATEX.sub(" ", text)))
    return words > LONGEST_ANSWER or (words > 2 and text.rstrip(" \t\n*\"'”").endswith(_ENDS))
