"""The private interfaces of other packages: what the code uses of them, and where.

A private interface is an underscored name, a module or a method that the documentation of its
package does not name, or a behaviour that it does not promise. Any release may change it. Each is
declared in `tests/private_interfaces.py` by `@private`, with what finds it in the code and with a
check that fails once it is no longer what the code needs. `docs/decisions.md` shows the table.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

CODE = Path(__file__).parents[1]
OWN = ("db", "graph", "migrations")
WATCHED = [
    "alembic",
    "asyncpg",
    "graphql",
    "pydantic",
    "pydantic_core",
    "sqlalchemy",
    "starlette",
    "strawberry",
    "typer",
    "uvicorn",
]

# The modules of those packages that their documentation imports from, beside the packages.
DOCUMENTED = [
    "alembic.autogenerate",
    "alembic.autogenerate.api",
    "alembic.config",
    "alembic.operations",
    "alembic.operations.ops",
    "alembic.runtime.migration",
    "alembic.script",
    "alembic.util",
    "graphql.execution",
    "pydantic.fields",
    "sqlalchemy.dialects",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.engine",
    "sqlalchemy.exc",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
    "sqlalchemy.orm.attributes",
    "sqlalchemy.orm.exc",
    "sqlalchemy.sql",
    "sqlalchemy.types",
    "starlette.applications",
    "starlette.datastructures",
    "starlette.exceptions",
    "starlette.middleware",
    "starlette.middleware.cors",
    "starlette.middleware.errors",
    "starlette.requests",
    "starlette.responses",
    "starlette.routing",
    "starlette.staticfiles",
    "starlette.types",
    "starlette.websockets",
    "strawberry.dataloader",
    "strawberry.exceptions",
    "strawberry.extensions",
    "strawberry.printer",
    "strawberry.pydantic",
    "strawberry.scalars",
    "strawberry.schema",
    "strawberry.schema.config",
    "strawberry.types",
    "strawberry.types.field",
]

# What their documentation tells to override.
TO_OVERRIDE = re.compile(
    r"SchemaExtension\.|BaseSchema\.process_errors|StaticFiles\.get_response"
    r"|TypeDecorator\.process_|TypeEngine\.(comparator_factory|python_type)|ExternalType\.cache_ok"
    r"|MigrateOperation\.(reverse|to_diff_tuple)"
    r"|HasCacheKey\.inherit_cache|Concatenable\.comparator_factory|(Comparator|Operators)\.operate"
)

# What Python documents of named tuples, although the names are underscored.
OF_TUPLES = {"_asdict", "_fields", "_make", "_replace"}

# The names of attributes by which packages keep things on our classes.
DUNDER = re.compile(r"__(strawberry|pydantic)_\w+__")


@dataclass(frozen=True)
class Private:
    """A private interface."""

    name: str
    """What the test of it is called."""
    package: str
    interface: str
    """What it is, in Markdown."""
    why: str
    found_by: tuple[str, ...]
    """The attributes, `module.name` of imports, `Class.method` of overrides and texts (as `repr`
    writes them) that use it."""
    check: Callable[[], object]
    """Fails if it is not what the code needs."""

    def __str__(self) -> str:
        return self.name

    @property
    def used_in(self) -> list[str]:
        """The files that use it."""
        return sorted({file for name in self.found_by for file in used().get(name, ())})


ROWS: list[Private] = []


def private(package: str, interface: str, *found_by: str, why: str) -> Callable[[Any], Any]:
    """Declare a private interface by its check."""

    def declare(check: Callable[[], object]) -> Callable[[], object]:
        ROWS.append(Private(check.__name__, package, interface, why, found_by, check))
        return check

    return declare


# What the code uses


def found() -> set[str]:
    """The private interfaces that are seen in the code without knowing of any."""
    return {name for name in used() if _is_private(name)}


def found_in(text: str) -> set[str]:
    """The same of a module with this text, overrides aside."""
    tree = ast.parse(text)
    return {name for name in _uses(tree, _defined(tree), set()) if _is_private(name)}


@cache
def used() -> dict[str, set[str]]:
    """The files that use a name: attributes, imports from watched packages, overrides of theirs.

    An underscored attribute is left out where it is the code's own.
    """
    names: dict[str, set[str]] = {}
    trees = {path.relative_to(CODE).as_posix(): ast.parse(path.read_bytes()) for path in _files()}
    own = set().union(*map(_defined, trees.values()))
    for file, tree in trees.items():
        here = _defined(tree)
        for name in _uses(tree, here, own):
            names.setdefault(name, set()).add(file)
    for name, file in _overrides():
        names.setdefault(name, set()).add(file)
    return names


def _files() -> Iterator[Path]:
    for root in OWN:
        yield from (
            path for path in (CODE / root).rglob("*.py") if "node_modules" not in path.parts
        )


def _defined(tree: ast.AST) -> set[str]:
    """The names that a module defines: classes, functions, variables, attributes of `self`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_self(node):
            names.add(node.attr)
    return names


def _is_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _uses(tree: ast.AST, here: set[str], own: set[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            is_own = node.attr in here or (_is_self(node) and node.attr in own)
            is_of_python = isinstance(node.value, ast.Name) and node.value.id == "os"
            is_of_python |= node.attr in OF_TUPLES
            if not (node.attr.startswith("_") and (is_own or is_of_python)):
                yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            names = node.args[1:2] if node.func.id in ("getattr", "setattr", "hasattr") else []
            yield from (str(one.value) for one in names if isinstance(one, ast.Constant))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value if DUNDER.fullmatch(node.value) else repr(node.value)
        elif isinstance(node, ast.ImportFrom) and _is_watched(node.module or ""):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if _is_watched(alias.name))


def _is_watched(module: str) -> bool:
    return module.split(".")[0] in WATCHED


def _overrides() -> Iterator[tuple[str, str]]:
    """What classes of ours have in the place of what their bases in watched packages have."""
    for root in OWN[:2]:
        for info in pkgutil.walk_packages(importlib.import_module(root).__path__, f"{root}."):
            if not info.name.endswith("__main__"):
                importlib.import_module(info.name)
    pending: list[type] = [object]
    while pending:
        children: list[type] = type.__subclasses__(pending.pop())
        pending += [child for child in children if child is not type]
        for child in children:
            module = str(child.__module__)
            if module.split(".")[0] not in OWN:
                continue
            for base in child.__mro__[1:]:
                # Models of Pydantic and of the ORM are declarations, which all of theirs fill in.
                if _is_watched(str(base.__module__)) and "pydantic" not in base.__module__:
                    for name in vars(child).keys() & vars(base).keys():
                        if not re.match(r"__|_abc_|_generated_|_is_protocol|_sa_", name):
                            file = Path(inspect.getfile(child)).relative_to(CODE)
                            yield f"{base.__name__}.{name}", file.as_posix()


def _is_private(name: str) -> bool:
    if DUNDER.fullmatch(name):
        return True
    owner, _, last = name.rpartition(".")
    if not owner:
        return bool(re.fullmatch(r"_[a-z]\w*", name)) and name.isidentifier()
    if _is_watched(owner):
        return not _is_documented(owner, last)
    return bool(re.fullmatch(r"[A-Z]\w*\.\w+", name)) and not TO_OVERRIDE.match(name)


def _is_documented(module: str, name: str) -> bool:
    """Whether a documented module has what is imported, from whichever module that is done."""
    if name.startswith("_"):
        return False
    root, target = module.split(".")[0], getattr(importlib.import_module(module), name, None)
    documented = [root, *(one for one in DOCUMENTED if one.split(".")[0] == root)]
    is_module = f"{module}.{name}" in documented
    return is_module or any(
        target is not None and _exported(importlib.import_module(one), name) is target
        for one in documented
    )


def _exported(module: ModuleType, name: str) -> Any:
    exported = getattr(module, "__all__", vars(module))
    return getattr(module, name, None) if name in exported else None


# What the interfaces have to be


def has(owner: Any, *names: str) -> None:
    """Fail unless an object, or the instances of a class, have attributes of these names."""
    source = inspect.getsource(owner) if inspect.isclass(owner) else ""
    for name in names:
        known = hasattr(owner, name) or re.search(rf"\bself\.{name}\b *[:=]", source)
        assert known, f"{owner} has no `{name}`"


def takes(function: Any, *names: str) -> None:
    """Fail unless a function takes parameters of these names first."""
    parameters = [name for name in inspect.signature(function).parameters if name != "self"]
    assert parameters[: len(names)] == list(names), f"{function} takes {parameters}"
