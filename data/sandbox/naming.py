"""The names that tests leave undefined, and who supplies them: the candidate or Python's standard library.

In one namespace, which tests are written for, a program could supply anything, including `isclose` and `all`, and so
judge itself. Here a candidate supplies what is required of it, and of the rest only what the standard library lacks.
"""

import ast
import builtins
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

# Names that programs commonly import from the standard library and that tests then use without an import.
LIBRARY = {
    name: module
    for module, names in {
        "math": "isclose isnan isinf isfinite sqrt ceil floor trunc fabs factorial gcd lcm comb perm exp log log2 "
        "log10 sin cos tan asin acos atan atan2 hypot radians degrees pi e inf nan tau prod dist fsum isqrt",
        "collections": "Counter OrderedDict defaultdict deque namedtuple ChainMap",
        "itertools": "accumulate chain combinations combinations_with_replacement count cycle groupby islice "
        "permutations product repeat starmap takewhile dropwhile zip_longest pairwise",
        "functools": "reduce partial cmp_to_key lru_cache cache wraps",
        "operator": "itemgetter attrgetter",
        "fractions": "Fraction",
        "decimal": "Decimal",
        "datetime": "date timedelta timezone",
        "copy": "deepcopy",
        "bisect": "bisect_left bisect_right insort",
        "heapq": "heapify heappush heappop nlargest nsmallest",
        "typing": "Any Callable Deque Dict FrozenSet Generator Generic Iterable Iterator List Mapping NamedTuple "
        "Optional Sequence Set Tuple Type TypeVar Union",
        "statistics": "mean median mode stdev",
        "io": "StringIO BytesIO",
        "contextlib": "redirect_stdout suppress",
        "pathlib": "Path",
    }.items()
    for name in names.split()
}


@dataclass(frozen=True)
class Naming:
    """Names for a candidate to supply, and names of the standard library with their module (empty: a module itself)."""

    names: list[str] = field(default_factory=list)
    library: dict[str, str] = field(default_factory=dict)


# Those that check data against expected values: a program's own version could always return True.
JUDGES = {"isclose", "isnan", "isinf", "isfinite", "fabs", "dist", "hypot", "sqrt", "reduce", "pytest"}


def naming(prelude: str, tests: str, required: list[str], code: str = "") -> Naming:
    """Determine who supplies the names that tests use and nothing there defines.

    Args:
        required: names that the tests call, even if the prelude or Python has them too.
        code: the program. Other names that it defines it supplies even if the library has them, unless the tests call
            them on what others of these return, or they are in `JUDGES`.
    """
    try:
        tree, before = ast.parse(tests), ast.parse(prelude)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Naming(required)  # reported when they are run
    bound = {*_bound(tree), *_bound(before)}
    used = [node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
    free = [name for name in dict.fromkeys(used) if name not in bound and name not in required]
    unknown = [name for name in free if not hasattr(builtins, name)]
    modules = {name for name in unknown if name in sys.stdlib_module_names and _is_used_as_module(tree, name)}
    asked = [name for name in unknown if name not in modules]
    found = defined(code)
    library = _of_library(tree, asked, required, found.names if found else frozenset())
    own = [*required, *(name for name in asked if name not in library)]
    if not own:
        own = _innermost(tree, [name for name in free if hasattr(builtins, name)])
    return Naming(own, {**dict.fromkeys(modules, ""), **library})


def _of_library(tree: ast.AST, asked: list[str], required: list[str], own: frozenset[str]) -> dict[str, str]:
    """The names that the standard library supplies. A task may ask for a function that the library has too."""
    there = [name for name in asked if name in LIBRARY]
    if not required and len(there) == len(asked):
        inner = _innermost(tree, there)
        there = [name for name in there if name not in inner]
    else:
        around = _around(tree, {*required, *asked})
        there = [name for name in there if name not in own or name in around | JUDGES]
    return {name: LIBRARY[name] for name in there}


def _innermost(tree: ast.AST, names: list[str]) -> list[str]:
    """The names that are called, except on what another one of them returns."""
    called = set()
    for call in _calls(tree):
        inside = {inner.func.id for part in (*call.args, *call.keywords) for inner in _calls(part)}  # type: ignore[attr-defined]
        if call.func.id in names and not inside & {*names}:  # type: ignore[attr-defined]
            called.add(call.func.id)  # type: ignore[attr-defined]
    return [name for name in names if name in called - _around(tree, called)]


def _around(tree: ast.AST, names: set[str]) -> set[str]:
    """The functions that are called on what these names return."""
    return {
        call.func.id  # type: ignore[attr-defined]
        for call in _calls(tree)
        for part in (*call.args, *call.keywords)
        for inner in _calls(part)
        if inner.func.id in names  # type: ignore[attr-defined]
    }


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    """The calls of a plain name."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name))


def _is_used_as_module(tree: ast.AST, name: str) -> bool:
    """Whether a name only ever occurs before a dot."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == name]
    before = [node.value for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return all(any(node is value for value in before) for node in nodes)


def _bound(tree: ast.AST) -> Iterator[str]:
    """Every name that the code binds anywhere."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            yield node.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.alias):
            yield (node.asname or node.name).partition(".")[0]
        elif isinstance(node, ast.ExceptHandler | ast.MatchAs | ast.MatchStar) and node.name:
            yield node.name


@dataclass(frozen=True)
class Defined:
    """The interface of a program.

    Attributes:
        names: what it defines at its top level.
        makes: those names that it defines or assigns, rather than imports or uses as loop variables.
        lacks: what it uses and defines nowhere.
        acts: whether it does more than define, import and assign.
    """

    names: frozenset[str]
    makes: frozenset[str]
    lacks: frozenset[str]
    acts: bool


def defined(code: str) -> Defined | None:
    """What a program defines and lacks; None if it is not valid Python."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    known = {*_bound(tree), *dir(builtins), "__file__", "exit", "quit"}
    names = frozenset(name for node in tree.body for name in _bound_by(node))
    return Defined(names, frozenset(_made_by(tree.body)), frozenset(used - known), any(map(_acts, tree.body)))


def _acts(node: ast.stmt) -> bool:
    if isinstance(node, ast.Expr):
        return not isinstance(node.value, ast.Constant)
    quiet = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    return not isinstance(node, quiet)


def _bound_by(node: ast.stmt) -> Iterator[str]:
    """The names that a statement binds in the scope around it."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    else:
        yield from _bound(node)


def _made_by(body: list[ast.stmt]) -> Iterator[str]:
    """The names that statements, including nested ones, define or assign in the scope around them."""
    waiting: list[ast.AST] = [*body]
    while waiting:  # a chain of `elif` can be deeper than Python's stack
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target] if node.value else []
            yield from (name for target in targets for name in _bound(target))
        elif isinstance(node, ast.stmt | ast.ExceptHandler | ast.match_case):
            waiting += ast.iter_child_nodes(node)
