"""What tests and a program share where Python runs both as one, but not in two sandboxes: files, modules' state.

Tests that use it say nothing about a program that fails them.
"""

import ast

# What they call or read to this end: by its own name, or as an attribute of these modules and classes.
_NAMES = {"open", "mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory", "seed", "environ"}
_BY_NAME = {"eval", "exec", "globals", "locals"}  # which find the program's names, if they know them
_ATTRIBUTES = {
    "os": {"environ", "putenv", "getenv", "chdir", "mkdir", "makedirs", "remove", "unlink", "listdir"},
    "random": {"seed", "setstate"},
    "patch": {"dict", "multiple"},
    "tempfile": {"mkdtemp", "mkstemp", "NamedTemporaryFile", "TemporaryDirectory"},
    "self": {"assertLogs", "assertNoLogs", "assertWarns", "assertWarnsRegex"},
    "warnings": {"catch_warnings"},
    "logging": {"getLogger", "disable"},
}
_CARRIED = ("builtins.input", "sys.stdin", "sys.stdout", "sys.stderr")  # may be patched
_METHODS = {"write_text", "read_text", "write_bytes", "read_bytes", "touch", "exists"}  # of paths


def shared(tests: str, own: list[str]) -> str:
    """The first thing by which tests rely on what is shared; empty if there is none.

    Args:
        own: names that the program supplies, whatever they are.
    """
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and node.id in (_NAMES - {*own}) | _BY_NAME:
            return node.id
        if isinstance(node, ast.MatchClass) and getattr(node.cls, "id", "") in own:
            return "match"
        if isinstance(node, ast.Call) and _is_patch(node.func) and not _is_carried(node.args):
            return "patch"
        if isinstance(node, ast.Attribute):
            owner = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
            if node.attr in _ATTRIBUTES.get(owner, ()) or (node.attr in _METHODS and owner not in own):
                return f"{owner}.{node.attr}"
    return ""


def _is_patch(function: ast.expr) -> bool:
    return getattr(function, "attr", getattr(function, "id", "")) == "patch"


def _is_carried(arguments: list[ast.expr]) -> bool:
    return bool(arguments) and isinstance(arguments[0], ast.Constant) and arguments[0].value in _CARRIED
