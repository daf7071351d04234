"""What real Slicer (PythonQt, Python 3.9) refuses, or does wrong in silence, found in the source.

Only what no library looks for: syntax, new names and threads are ruff's (slicer_extension/ruff.toml), who may
import whom is import-linter's (pyproject.toml).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import NamedTuple


class Finding(NamedTuple):
    """A broken rule."""

    line: int
    rule: str
    words: str


_WAITING = {"exec", "exec_", "processEvents", "sleep"}
_STATIC_WAITING = {
    "question",
    "information",
    "warning",
    "critical",
    "getOpenFileName",
    "getExistingDirectory",
    "getText",
}
# Properties of Qt classes: read without parentheses in PythonQt, where calling the value fails.
_PROPERTIES = {
    "text",
    "checked",
    "isChecked",
    "currentText",
    "currentIndex",
    "toolTip",
    "value",
    "maximum",
    "minimum",
    "width",
    "height",
    "plainText",
    "toPlainText",
    "rowCount",
    "objectName",
    "styleSheet",
    "font",
    "sizePolicy",
    "currentPath",
    "collapsed",
    "isEnabled",
    "isVisible",
    "visible",
    "enabled",
    "sizeHint",
    "windowTitle",
}
_NEW_WORDS = {"zip": {"strict"}, "dataclass": {"slots", "kw_only"}}  # arguments that Python 3.9 does not know


def qt_findings(source: str) -> list[Finding]:
    """Return what breaks the rules of PythonQt in a file that uses Qt."""
    tree = ast.parse(source)
    return sorted({*_calls(tree), *_attributes(tree)})


def python_findings(source: str) -> list[Finding]:
    """Return what Python 3.9 cannot run, beside what ruff finds."""
    tree = ast.parse(source)
    annotations = {id(part) for node in ast.walk(tree) for part in _annotation_parts(node)}
    found = []
    for node in ast.walk(tree):
        union = isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr) and id(node) not in annotations
        if isinstance(node, ast.BinOp) and union and any(_is_type(side) for side in (node.left, node.right)):
            found.append(Finding(node.lineno, "python 3.9", f"{ast.unparse(node)} at run time: use Optional or Union"))
        if isinstance(node, ast.Call):
            if _name(node.func) == "isinstance" and any(isinstance(value, ast.BinOp) for value in node.args):
                found.append(Finding(node.lineno, "python 3.9", ast.unparse(node)))
            words = {word.arg for word in node.keywords} & _NEW_WORDS.get(_name(node.func), set())
            found += [Finding(node.lineno, "python 3.9", f"{ast.unparse(node.func)}({word}=)") for word in words]
    return sorted(found)


def imported_modules(source: str) -> dict[str, int]:
    """Return the top names of all modules that a file imports, with the line."""
    found: dict[str, int] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update({alias.name.split(".")[0]: node.lineno for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found[node.module.split(".")[0]] = node.lineno
    return found


def untranslated(source: str) -> list[Finding]:
    """Return texts that are put on a widget without `tr`: literals with two letters or more in setText and its like."""
    setters = {"setText", "setToolTip", "setWindowTitle", "set_text", "addItem", "addAction", "addButton"}
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and _name(node.func) in setters:
            for value in node.args:
                texts = [part.value for part in ast.walk(value) if _is_text(part)] if _literal(value) else []
                found += [
                    Finding(node.lineno, "translate", text)
                    for text in texts
                    if isinstance(text, str) and sum(map(str.isalpha, text)) > 1
                ]
    return found


def _literal(node: ast.AST) -> bool:
    return isinstance(node, (ast.Constant, ast.JoinedStr))


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _name(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _root(node: ast.AST) -> str:
    while isinstance(node, (ast.Attribute, ast.Call, ast.Subscript)):
        node = node.func if isinstance(node, ast.Call) else node.value
    return node.id if isinstance(node, ast.Name) else ""


def _calls(tree: ast.AST) -> Iterator[Finding]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name, root = _name(node.func), _root(node.func)
        if isinstance(node.func, ast.Attribute) and root in ("qt", "ctk") and node.keywords:
            yield Finding(node.lineno, "keywords", f"{ast.unparse(node.func)} takes no keyword arguments")
        if name == "connect" and isinstance(node.func, ast.Attribute):
            yield from _connection(node)
        if isinstance(node.func, ast.Attribute) and name in _WAITING and root != "self":
            yield Finding(node.lineno, "waits", ast.unparse(node.func))
        if name in _STATIC_WAITING and root == "qt":
            yield Finding(node.lineno, "waits", ast.unparse(node.func))
        if name in _PROPERTIES and not node.args and not node.keywords and _is_on_widget(node.func):
            yield Finding(node.lineno, "property", f"{ast.unparse(node)}: a property is read without parentheses")
        if name == "int" and node.args and _root(node.args[0]) in ("qt", "ctk"):
            yield Finding(node.lineno, "enum", f"{ast.unparse(node)}: an enumeration is not a number everywhere")
        doubtful = [
            value for value in node.args if isinstance(value, (ast.BoolOp, ast.Constant)) and not _is_flag(value)
        ]
        if name in ("setEnabled", "setVisible", "setChecked") and doubtful:
            yield Finding(node.lineno, "flag", f"{ast.unparse(node)}: give bool(...)")


def _is_on_widget(function: ast.AST) -> bool:
    """Return whether a method is called on what may be a widget; QSize has methods of the same names."""
    return isinstance(function, ast.Attribute) and _name(function.value) not in ("sizeHint", "minimumSizeHint", "size")


def _is_flag(node: ast.AST) -> bool:
    if isinstance(node, ast.BoolOp):
        return all(_is_flag(value) for value in node.values)
    if isinstance(node, ast.Constant):
        return isinstance(node.value, bool)
    return (
        isinstance(node, ast.Compare)
        or (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not))
        or (isinstance(node, ast.Call) and _name(node.func) == "bool")
    )


def _connection(node: ast.Call) -> Iterator[Finding]:
    if len(node.args) != 2:
        return  # the workflow's own connect
    signal, slot = node.args
    if not (_is_text(signal) and str(signal.value).endswith(")") and "(" in str(signal.value)):  # type: ignore[attr-defined]
        yield Finding(node.lineno, "connect", f"expected 'signal(types)', got {ast.unparse(signal)}")
    if isinstance(slot, (ast.Lambda, ast.Call)):
        yield Finding(node.lineno, "connect", f"expected a method, got {ast.unparse(slot)}")


def _attributes(tree: ast.AST) -> Iterator[Finding]:
    """Signals used as objects, new attributes on widgets, threads of Qt."""
    allowed = {"collapsed", "filters", "enabled", "checked", "text", "toolTip", "visible"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and _name(node.func) == "connect" and len(node.args) == 1:
            yield Finding(node.lineno, "connect", 'use connect("signal(types)", method)')
        if isinstance(node, ast.Assign):
            for target in node.targets:
                on_ui = isinstance(target, ast.Attribute) and (
                    (isinstance(target.value, ast.Attribute) and _name(target.value.value) in ("ui", "_ui"))
                    or (isinstance(target.value, ast.Call) and _name(target.value.func) == "getattr")
                )
                if on_ui and target.attr not in allowed:  # type: ignore[attr-defined]
                    yield Finding(node.lineno, "attribute", f"{ast.unparse(target)} is no property of a widget")
        if isinstance(node, ast.Attribute) and node.attr == "ShortcutOverride":
            yield Finding(node.lineno, "event", "ShortcutOverride: PythonQt makes no QKeyEvent of it, so it has no key")
        if isinstance(node, ast.Attribute) and node.attr in ("QThread", "QRunnable", "QThreadPool"):
            yield Finding(node.lineno, "threads", f"{node.attr}: PythonQt lets no Python thread run")
        if isinstance(node, (ast.FunctionDef, ast.Lambda)) and node.args.vararg and _is_slot(node):
            yield Finding(node.lineno, "arguments", "a slot with *args gets other arguments in PythonQt")


def _is_slot(node: ast.AST) -> bool:
    return isinstance(node, ast.Lambda) or getattr(node, "name", "").startswith("on")


def _annotation_parts(node: ast.AST) -> Iterator[ast.AST]:
    for name in ("annotation", "returns"):
        value = getattr(node, name, None)
        if isinstance(value, ast.AST):
            yield from ast.walk(value)


def _is_type(node: ast.AST) -> bool:
    known = {"str", "int", "float", "bool", "bytes", "list", "dict", "tuple", "set", "Path"}
    return (isinstance(node, ast.Constant) and node.value is None) or (isinstance(node, ast.Name) and node.id in known)
