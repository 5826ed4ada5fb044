"""Which text of a completion is its program. Nothing is run."""

import time

import pytest

from data.rewards.extraction import extract_program

F = "def f(x):\n    return x + 1"
READS = "n = int(input())\nprint(n * 2)"
CLASS = "class Solution:\n    def f(self, x):\n        return x + 1"

ONE_FUNCTION = [
    *(f"```python\n{F}\n```{end}" for end in ("</answer>", "<|im_end|>", "</s>", " This works.", "[DONE]", "\r")),
    f"```python\n{F}\n``` Usage of `f`:\n```python\nprint(f(1))\n```",
    f"Here: ```python\n{F}\n```",
    f"<answer>```python\n{F}\n```</answer>",
    f"<answer>```\n{F}\n```</answer>",
    f"\ufeff```python\n{F}\n```",
    f"\ufeff```\n{F}\n```",
    f"```python\n{F}```",
    f"```python\n{F}``` This works.",
    f"```python\n{F}\n```.",
    f"```python\n{F}\n```**Why**",
    f"Solution: ```\n{F}\n```",
    f"{F}\n```\nThis adds one.",
    f"{F}\n```\nUse:\n```python\nprint(f(1))\n```",
    f"```python\n{F}```\nIt adds one.\n```python\nprint(f(1))\n```",
    f"```\n{F}```</answer>",
    f"```python\n{F}\n```\n```python\nfrom solution import f\nassert f(1) == 2\n```",
    f"```python\n{F}\n```\n```python\nfor f in [1]:\n    print(f)\n```",
    f"```python\n{F}\n```\n```python\ndef f(x):\n    ...\n```",
    f"```python\n{F}\n```\n```python\ndef f(x):\n    '''As above.'''\n```",
    f"<think>\n```python\ndef f(x): return 0\n```\n</think>\n```python\n{F}\n```",
    f"```python\n{F}\n```\n<think>\n```python\ndef f(x): return 0\n```\n</think>",
    f"A draft:\n```python\ndef f(x): return 0\n```\n</think>\n```\n{F}\n```",
    f"<think>\n```python\n{F}\n```\n</think>\nThat is it.",
    f"```\n{F}\n```\n```pycon\n>>> f(1)\n2\n```",
    f"```pycon\n>>> f(1)\n2\n```\n```\n{F}\n```",
    f"```\n{F}\n```\n```python\n>>> f(1)\n2\n```",
    f"```markdown\n# Answer\n```python\n{F}\n```\nDone.\n```",
    f"````md\n# Answer\n```python\n{F}\n```\nDone.\n````\nBye.\n",
    f"```markdown\n# Answer\n```\n```python\n{F}\n```",
    "> ```python\n> " + F.replace("\n", "\n> ") + "\n> ```\n> Done.",
    ">```python\n> " + F.replace("\n", "\n> ") + "\n>\n>```",
    f"<answer>\n{F}\n</answer>",
    f"Sure. <answer>{F}</answer> Done.",
    f"[BEGIN]\n{F}\n[DONE]",
    f"{F}\n[DONE]\nNext task.",
    f"[PYTHON]\n{F}\n[/PYTHON]\n[TESTS]\nassert f(1) == 2\n[/TESTS]",
    f"{F}<|im_end|>",
    f"<think>Add one.</think>\n{F}",
    f"```python\n{F}\n</answer>",
    f"```python\n{F}\n```python\nprint(f(1))\n```",
    f"```{{.python .numberLines}}\n{F}\n```",
]


@pytest.mark.parametrize("completion", ONE_FUNCTION)
def test_of_an_answer_the_function_counts(completion: str) -> None:
    assert extract_program(completion, ["f"]).strip() == F


@pytest.mark.parametrize(
    ("completion", "names", "program"),
    [
        # Helpers
        ("```python\ndef f(x): return g(x)\n```\n```python\ndef g(x): return x\n```", ["f"],
         "def g(x): return x\n\ndef f(x): return g(x)"),
        ("```python\ndef f(x): return g(x)\n```\n```python\ndef g(x): return x\nprint(f(1))\n```", ["f"],
         "def f(x): return g(x)\n\ndef g(x): return x\nprint(f(1))"),
        ("```python\ndef g(x): return x\n```\n```python\ndef f(x): return g(x)\n```\n```python\ng = abs\n```",
         ["f"], "def g(x): return x\n\ndef f(x): return g(x)"),
        ("```python\nimport math\n```\n```python\ndef f(x): return math.pi\n```", ["f"],
         "import math\n\ndef f(x): return math.pi"),
        ("```python\ntry:\n    from a import f\nexcept ImportError:\n    def f(x): return 1\n```\n```python\nf(1)\n```",
         ["f"], "try:\n    from a import f\nexcept ImportError:\n    def f(x): return 1"),
        # Classes
        (f"```python\n{CLASS}\n```\n```python\nclass Solution: ...\n```", ["f", "Solution"], CLASS),
        (f"```python\n{CLASS}\n```\nSo:\n```python\nclass Solution:\n    def f(self, x):\n        '''Adds.'''\n"
         "        pass\n```", ["f", "Solution"], CLASS),
        ("```python\nclass Solution: pass\n```", ["f", "Solution"], "class Solution: pass"),
        # Scripts
        *((f"```python\n{READS}\n```\n```python\n{more}\n```", [], READS) for more in (
            "assert 1==1", "print(3*2)", "import subprocess\nsubprocess.run(['python', 'a.py'], stdin=None, input='1')",
            "def unused(): return input()")),
        *((f"```python\n{script}\n```\n```python\nprint(4)\n```", [], script) for script in (
            "import sys\nprint(sys.stdin.read())", "print(open(0).read())", "print(open('/dev/stdin').read())")),
        (f"```python\nprint(1)\n```\n```python\n{READS}\n```\n```\n(1, 2)\n```", [], READS),
        ("```python\nprint(1)\n```\n```python\nprint(2)\n```", [], "print(2)"),
        ("```python\ndef read(): return input()\n```\n```python\nprint(read())\n```", [],
         "def read(): return input()\n\nprint(read())"),
        ("```python\nprint(g(input()))\n```\n```python\ndef g(x): return x\n```", [],
         "def g(x): return x\n\nprint(g(input()))"),
        # Bodies, fences and tags within programs
        ("```python\n    return x + 1\n```</answer>", ["f"], "    return x + 1"),
        ("<think>\n```python\ndef f(x): return 0\n```\n</think>\n```python\n    return x\n```", ["f"], "    return x"),
        ("    return x + 1\n", ["f"], "    return x + 1"),
        ("    return x + 1\n</s>", ["f"], "    return x + 1"),
        ('```python\ndef f(x):\n    """\n    ``` text\n    a```\n    """\n    return x\n```', ["f"],
         'def f(x):\n    """\n    ``` text\n    a```\n    """\n    return x'),
        ("```python\ndef f(x):\n    y = x  # ends with ```\n    return y\n```", ["f"],
         "def f(x):\n    y = x  # ends with ```\n    return y"),
        ('```python\ndef f(x):\n    return "<think>"\n```', ["f"], 'def f(x):\n    return "<think>"'),
        ('def f(x):\n    return "<answer>"', ["f"], 'def f(x):\n    return "<answer>"'),
        ('def f(x):\n    """\n    ```python\n    f(1)\n    ```\n    """', ["f"],
         'def f(x):\n    """\n    ```python\n    f(1)\n    ```\n    """'),
        ("~~~python\nprint(1)", [], "print(1)"),
        ("    return x + 1\n```\nDone.", ["f"], "    return x + 1"),
        ("I do not know.", ["f"], "I do not know."),
        ("", ["f"], ""),
    ],
)  # fmt: skip
def test_what_counts_and_what_is_added(completion: str, names: list[str], program: str) -> None:
    assert extract_program(completion, names) == program


@pytest.mark.parametrize(
    "text",
    [
        "`" * 10**5,
        "`" * 10**5 + "python",
        "```python\n" * 10**4,
        "```\n" * 10**5,
        "x```\n" * 10**5,
        "```python\n" + "x```\n" * 10**5,
        "```python\n" + "x = (\n```\n" * 10**4,
        "```python\n" + "(" * 10**5 + "\n```",
        "> ```\n" * 10**5,
        "<answer>" * 10**5,
        "<think>" * 10**5,
        "```python\nif x: f = 1\n" + "elif x: f = 2\n" * 2000 + "```",
        "```python\n" + "".join(f"def f{n}(): return f{n + 1}()\n```\n```python\n" for n in range(2000)),
        "a ~~~ " * 10**5,
        "```" + " " * 10**5 + "python x",
    ],
)
@pytest.mark.parametrize("names", [[], ["f"]])
def test_a_huge_text_costs_bounded_time(text: str, names: list[str]) -> None:
    start = time.thread_time()
    extract_program(text, names)
    assert time.thread_time() - start < 5
