"""The names that tests leave undefined, and who supplies them: the candidate or Python's standard library.

In one namespace, which tests are written for, a program could supply anything, including `isclose` and `all`, and so
judge itself. Here a candidate supplies what is required of it, and of the rest only what the standard library lacks.
"""

import ast
import builtins
import symtable
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
# Usual names of packages, which check data as well. The sandbox has none, so only an impostor could supply them.
PACKAGES = {"np", "numpy", "pd", "pandas", "scipy", "sympy", "torch", "tf"}


def naming(prelude: str, tests: str, required: list[str], code: str = "") -> Naming:
    """Determine who supplies the names that tests use and nothing there defines.

    Args:
        required: names that the tests call, even if the prelude or Python has them too.
        code: the program. Other names that it defines it supplies even if Python has them, unless the tests call them
            on what others of these return, or they are in `JUDGES`.
    """
    try:
        tree, before = ast.parse(tests), ast.parse(prelude)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Naming(required)  # reported when they are run
    bound = {*_bound(before), *required}
    free = [name for name in _free(tests, tree) if name not in bound]
    unknown = [name for name in free if not hasattr(builtins, name)]
    as_modules = {name for name in unknown if _is_used_as_module(tree, name)}
    modules = as_modules & sys.stdlib_module_names
    asked = [name for name in unknown if name not in modules | (as_modules & PACKAGES)]
    found = defined(code)
    makes = found.makes if found else frozenset()
    library = _of_library(tree, asked, required, makes)
    own = [*required, *(name for name in asked if name not in library)]
    python = [name for name in free if hasattr(builtins, name) and name != "print"]  # which tests only report with
    own += _apart(tree, [name for name in python if name in makes], {*own}) if own else _innermost(tree, python)
    return Naming(own, {**dict.fromkeys(modules, ""), **library})


def _free(tests: str, tree: ast.Module) -> list[str]:
    """The names that tests use and do not bind before, in order."""
    tables = [symtable.symtable(tests, "tests.py", "exec")]
    top = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for symbol in tables[0].get_symbols() if symbol.is_referenced()}
    for table in tables:  # which grows
        tables += table.get_children()
        for symbol in table.get_symbols() if table is not tables[0] else ():
            if symbol.is_global():
                (top if symbol.is_assigned() else used).add(symbol.get_name())
    free = (used - top) | _used_before(tree.body)
    return [
        name for name in dict.fromkeys(part.id for part in ast.walk(tree) if isinstance(part, ast.Name)) if name in free
    ]


def _used_before(body: list[ast.stmt]) -> set[str]:
    """The names that simple statements use, and that only they or later ones bind."""
    found, bound = set[str](), set[str]()
    for node in body:
        if isinstance(node, ast.Assert | ast.Assign | ast.Expr):
            found |= _loaded(node) - bound
        bound |= {*_bound(node)}
    return found & bound


def _loaded(node: ast.stmt) -> set[str]:
    """The names that a statement loads, without those of functions and comprehensions in it."""
    own = {name for part in ast.walk(node) if isinstance(part, ast.Lambda | ast.comprehension) for name in _bound(part)}
    loaded = (part for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load))
    return {part.id for part in loaded} - own


def _of_library(tree: ast.AST, asked: list[str], required: list[str], makes: frozenset[str]) -> dict[str, str]:
    """The names that the standard library supplies. A task may ask for a function that the library has too."""
    there = [name for name in asked if name in LIBRARY]
    if not required and len(there) == len(asked):
        inner = _innermost(tree, there)
        return {name: LIBRARY[name] for name in there if name not in inner}
    theirs = {*required, *(name for name in asked if name not in LIBRARY or name in makes)}
    return {
        name: LIBRARY[name]
        for name in there
        if name not in makes or name in JUDGES or name in _around(tree, theirs - {name}, [name])
    }


def _innermost(tree: ast.AST, names: list[str]) -> list[str]:
    """The names that are called, except on what another one of them returns."""
    called = {call.func.id for call in _calls(tree) if isinstance(call.func, ast.Name)} & {*names}
    return [name for name in names if name in called and name not in _around(tree, called - {name}, [name])]


def _apart(tree: ast.AST, names: list[str], theirs: set[str]) -> list[str]:
    """The names that are used only in statements of their own, which bind nothing and in which nothing of theirs is."""
    found = []
    for name in names:
        others = {*theirs, *names} - {name}
        reached = _reached(tree, others)
        statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt) and _own_mentions(node) & {name}]
        if all(isinstance(one, ast.Assert | ast.Expr) and not _mentions(one) & reached for one in statements):
            found.append(name)
    return found


def _around(tree: ast.AST, theirs: set[str], names: list[str]) -> set[str]:
    """Those of the names that are called on, or handed over beside, what comes from theirs."""
    reached, found = _reached(tree, theirs), set[str]()
    for call in _calls(tree):
        given = [*call.args, *call.keywords]
        if any(_mentions(part) & reached for part in given):
            found |= _mentions(call.func)
            if not (isinstance(call.func, ast.Name) and call.func.id in ("isinstance", "issubclass")):
                found |= {part.id for part in given if isinstance(part, ast.Name)}
    return found & {*names}


def _reached(tree: ast.AST, theirs: set[str]) -> set[str]:
    """These names, and those that the tests bind where these, or what comes from them, play a part."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    reached, handed, before = {*theirs}, set[str](), 0
    while len(reached) + len(handed) != before:
        before = len(reached) + len(handed)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                if node.name in handed:
                    reached |= {part.arg for part in ast.walk(node.args) if isinstance(part, ast.arg)}
                if any(_mentions(part) & reached for part in node.body):
                    reached.add(node.name)
            elif isinstance(node, ast.Call) and any(_mentions(part) & reached for part in [*node.args, *node.keywords]):
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                handed |= {function.name for function in functions if function.name == name}
                if isinstance(node.func, ast.Attribute) and not name.startswith("assert"):
                    reached |= _mentions(node.func)  # a method may keep what it is given
            elif any(_mentions(part) & reached for part in _deciding(node)):
                reached |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and _is_target(part, node)}
    return reached


def _deciding(node: ast.AST) -> list[ast.AST]:
    """The parts of a node that decide what is bound in it."""
    if isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        return [node.iter]
    decided = isinstance(node, ast.stmt | ast.NamedExpr) and not isinstance(node, ast.ClassDef)
    return [node] if decided else []


def _is_target(name: ast.Name, node: ast.AST) -> bool:
    """Whether a node binds a name, or an attribute or item of it."""
    targets = [node.target] if isinstance(node, ast.AugAssign) else getattr(node, "targets", [])
    return isinstance(name.ctx, ast.Store) or any(name in [*ast.walk(target)] for target in targets)


def _mentions(node: ast.AST) -> set[str]:
    return {part.id for part in ast.walk(node) if isinstance(part, ast.Name)}


def _own_mentions(node: ast.stmt) -> set[str]:
    """The names in a statement, without the statements in it."""
    parts = (part for part in ast.iter_child_nodes(node) if not isinstance(part, ast.stmt | ast.ExceptHandler))
    return {name for part in parts for name in _mentions(part)}


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


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
    known = {*_bound(tree), *dir(builtins), "__file__", "exit", "quit", "help", "copyright", "credits", "license"}
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
