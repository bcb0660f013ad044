"""Fingerprints of code: did anything change by which a measure computes its value?

A validity card tells how good an evaluator was when it was measured. Whoever changes a function or a constant that the
evaluator rests on makes it another evaluator, and the card an old one. The fingerprint of a function covers it and
every function, class and constant of its package that it can reach; what it does not reach may change freely. Comments,
docstrings, annotations, layout and the wording of formatted messages do not count, nor do the containers that values
travel in. The versions of other packages are recorded beside it (`eval.score.versions`).
"""

import ast
import hashlib
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# They carry clips in and scores out, and compute neither.
CONTAINERS = frozenset({"eval.clip", "eval.errors", "eval.score"})
# Not part of what a function does. `type_params` is new in Python 3.12: fingerprints must not differ between versions.
_IGNORED_FIELDS = frozenset({"annotation", "returns", "type_comment", "type_params", "ctx", "kind"})


@dataclass(frozen=True)
class _Module:
    """A module's top level.

    Attributes:
        definitions: Statements that define each name.
        imports: By local name: the module, and the name in it; no name where the module itself is meant.
    """

    definitions: dict[str, list[ast.stmt]]
    imports: dict[str, tuple[str, str | None]]


def fingerprint(function: Callable[..., object]) -> str:
    """16 hexadecimal digits that change with the code of `function` and of what it reaches in its own package.

    Functions made inside others are covered by their whole module. "unknown" where there is no source to read.
    """
    module, name = function.__module__, function.__qualname__
    return _fingerprint(module, None if "<locals>" in name else name.split(".")[0])


@cache
def _fingerprint(module: str, name: str | None) -> str:
    top = _read(module)
    if top is None:
        return "unknown"
    waiting = {(module, n) for n in (top.definitions if name is None else [name])}
    reached: set[tuple[str, str]] = set()
    texts: list[str] = []
    while waiting:
        key = waiting.pop()
        reached.add(key)
        own, mentioned = _definition(*key)
        texts += own
        waiting |= mentioned - reached
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()[:16]


@cache
def _definition(module: str, name: str) -> tuple[list[str], set[tuple[str, str]]]:
    """What a name of a module stands for, as text, and what that mentions of the package."""
    top, package = _read(module), module.split(".", maxsplit=1)[0]
    if top is None:
        return [], set()
    nodes = top.definitions.get(name, [])
    mentioned = {r for node in nodes for r in _references(node, module, top, package)}
    if name in top.imports:
        mentioned |= set(_resolved(*top.imports[name], package))
    return [_text(n) for n in nodes], mentioned


@cache
def _read(module: str) -> _Module | None:
    """The top level of a module, or None without source."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    definitions: dict[str, list[ast.stmt]] = {}
    imports: dict[str, tuple[str, str | None]] = {}
    for node in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        imports |= _imported(node)
        for name in _defined(node):
            definitions.setdefault(name, []).append(node)
    return _Module(definitions, imports)


def _defined(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    elif not isinstance(node, ast.Import | ast.ImportFrom):
        yield from {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _imported(node: ast.AST) -> dict[str, tuple[str, str | None]]:
    """Names that absolute imports within `node` bind."""
    found: dict[str, tuple[str, str | None]] = {}
    for each in ast.walk(node):
        if isinstance(each, ast.ImportFrom) and each.module is not None and each.level == 0:
            found |= {a.asname or a.name: (each.module, a.name) for a in each.names}
        elif isinstance(each, ast.Import):
            # `import a.b` binds `a`, and with `as` the whole.
            found |= {a.asname or a.name.split(".")[0]: (a.name, None) for a in each.names}
    return found


def _references(node: ast.stmt, module: str, top: _Module, package: str) -> Iterator[tuple[str, str]]:
    """What of the package a definition mentions."""
    found = {**top.imports, **_imported(node)}
    imports = {k: v for k, v in found.items() if v[0].split(".", maxsplit=1)[0] == package}
    for each in ast.walk(node):
        if isinstance(each, ast.Attribute) and isinstance(each.value, ast.Name) and each.value.id in imports:
            base = _as_module(*imports[each.value.id])
            if base is not None:
                yield from _resolved(base, each.attr, package)
        elif isinstance(each, ast.Name) and each.id in imports:
            yield from _resolved(*imports[each.id], package)
        elif isinstance(each, ast.Name) and each.id in top.definitions:
            yield module, each.id


def _resolved(module: str, name: str | None, package: str) -> Iterator[tuple[str, str]]:
    """A name of a module as something to follow; nothing if it lies outside the package or is a module itself."""
    if name is not None and module.split(".", maxsplit=1)[0] == package and module not in CONTAINERS:
        yield module, name


@cache
def _as_module(module: str, name: str | None) -> str | None:
    """The module that `from module import name` gives, or None if it gives something else."""
    whole = module if name is None else f"{module}.{name}"
    return whole if _read(whole) is not None else None


def _text(node: ast.AST) -> str:
    """A definition as text, without what does not count."""
    if isinstance(node, ast.JoinedStr):
        return f"f({','.join(_text(v) for v in node.values if isinstance(v, ast.FormattedValue))})"
    if isinstance(node, ast.Constant):
        return f"{type(node.value).__name__}:{node.value!r}"
    parts = []
    for name, value in ast.iter_fields(node):
        if name in _IGNORED_FIELDS or value is None or value == []:
            continue
        parts.append(f"{name}={_field_text(value)}")
    return f"{type(node).__name__}({','.join(parts)})"


def _field_text(value: object) -> str:
    if isinstance(value, list):
        kept = [v for v in value if not _is_remark(v)]
        return f"[{','.join(_field_text(v) for v in kept)}]"
    return _text(value) if isinstance(value, ast.AST) else repr(value)


def _is_remark(node: object) -> bool:
    """Docstrings and other bare strings."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
