"""A search for names of libraries that are private, or public but not in the library's documentation."""

import ast
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("eas_watcher", "relay")

DOCUMENTED = frozenset({"_asdict", "_exit", "_fields", "_make", "_mapping", "_replace"})
"""Names with an underscore that are no private ones: of named tuples and of processes [Python's library reference,
collections, os], and of rows [SQLAlchemy's documentation, Row]."""

OVERRIDES = frozenset(
    {
        *(("opentelemetry", name) for name in ("export", "generate_span_id", "generate_trace_id")),
        ("prometheus_client", "collect"),
        ("pydantic", "model_config"),
        *(("sqlalchemy", name) for name in ("cache_ok", "impl", "inherit_cache", "name", "self_group", "type")),
        *(("sqlalchemy", name) for name in ("bind_processor", "result_processor")),
    }
)
"""What a library's documentation says to define in a subclass."""

MODULES = {
    "aioapns": {"aioapns"},
    "aiohttp": {"aiohttp", "aiohttp.typedefs", "aiohttp.web"},
    "h2": {f"h2.{name}" for name in ("config", "connection", "errors", "events", "exceptions", "settings")},
    "hpack": {"hpack"},
    "pyfcm": {"pyfcm"},
}
"""The documented modules of the packages that are used most closely."""

GENERIC = {"abc", "builtins", "collections", "enum", "typing"}
"""Modules whose classes work by what a subclass defines."""


def private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def foreign(module: str) -> bool:
    return module.partition(".")[0] not in {*PACKAGES, *GENERIC, "tests"}


def stored(tree: ast.AST) -> set[str]:
    """Return the attributes that methods set on `self`."""
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and of_self(node)
    }


def of_self(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}


def defined(tree: ast.ClassDef) -> set[str]:
    """Return the names that a class body defines, slots included."""
    names: set[str] = set()
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id="__slots__")], value=value):
                names.update(ast.literal_eval(value))
            case ast.Assign(targets=targets):
                names.update(target.id for target in targets if isinstance(target, ast.Name))
            case _:
                pass
    return names


def in_source(tree: ast.AST) -> Iterator[str]:
    """Find private names of other objects, private imports, and modules that no documentation mentions."""
    mine = stored(tree)
    typing_only = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr=name) if private(name) and name not in DOCUMENTED and not of_self(node):
                # Two objects of one class may compare what is private to both.
                if not (ast.unparse(node.value) == "other" and name in mine):
                    yield ast.unparse(node)
            case ast.Call(func=ast.Name(id="getattr" | "setattr" | "hasattr"), args=[_, ast.Constant(str(name)), *_]):
                if private(name) and name not in DOCUMENTED:
                    yield ast.unparse(node)
            case ast.ImportFrom(module=str(module), names=names) if node not in typing_only:
                yield from imported(module)
                yield from (f"{module}.{each.name}" for each in names if private(each.name) and foreign(module))
            case ast.Import(names=names) if node not in typing_only:
                for each in names:
                    yield from imported(each.name)
            case _:
                pass


def imported(module: str) -> Iterator[str]:
    documented = MODULES.get(module.partition(".")[0])
    if (documented is not None and module not in documented) or (
        foreign(module) and any(private(part) for part in module.split("."))
    ):
        yield module


def source_of(kind: type) -> ast.ClassDef | None:
    """Return the source of a class; None for one without source in Python."""
    try:
        return class_definitions(inspect.getfile(kind)).get(kind.__name__)
    except (OSError, SyntaxError, TypeError, UnicodeDecodeError):
        return None


@cache
def class_definitions(file: str) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in ast.walk(ast.parse(Path(file).read_text())) if isinstance(node, ast.ClassDef)}


def in_class(kind: type) -> Iterator[str]:
    """Find what a class uses or overrides of the classes of libraries that it inherits from."""
    theirs = [base for base in kind.__mro__[1:] if foreign(base.__module__)]
    body = source_of(kind)
    if not theirs or body is None:
        return
    own: set[str] = set()
    for base in kind.__mro__:
        found = None if foreign(base.__module__) else source_of(base)
        if found is not None:
            own |= defined(found) | stored(found)
    used = {node.attr for node in ast.walk(body) if isinstance(node, ast.Attribute) and of_self(node)}
    yield from (f"self.{name}" for name in sorted(used - own) if private(name) and name not in DOCUMENTED)
    for base in theirs:
        found = source_of(base)
        names = {*vars(base), *(set() if found is None else stored(found))}
        for name in sorted((defined(body) | stored(body)) & names):
            library = base.__module__.partition(".")[0]
            public = library in sys.stdlib_module_names or (library, name) in OVERRIDES
            if private(name) or not (public or name.startswith("__")):
                yield f"{base.__module__}.{base.__qualname__}.{name}"


def classes(package: str) -> Iterator[type]:
    """Import all modules, but for migrations, which need Alembic's context, and extras that are not installed."""
    for found in pkgutil.walk_packages([str(ROOT / package)], f"{package}."):
        if ".migrations" in found.name or found.name.endswith("__main__"):
            continue
        try:
            module = import_module(found.name)
        except ModuleNotFoundError as error:
            if error.name != "gssapi":
                raise
            continue
        yield from (each for each in vars(module).values() if inspect.isclass(each) and each.__module__ == found.name)
