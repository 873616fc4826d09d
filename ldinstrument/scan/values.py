"""What an expression in the source is, as far as literals and the constants of a module tell,
without running it.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from enum import Enum
from types import ModuleType
from typing import Any

MISSING = object()
"""Only running the code would tell."""


class Constants:
    """Evaluates expressions of one module.

    Args:
        namespace: the imported module's names; empty when it could not be imported.
        is_local: whether a name means something else where the expression stands.

    """

    def __init__(self, namespace: Mapping[str, Any], is_local: Callable[[str], bool]) -> None:
        self._namespace = namespace
        self._is_local = is_local
        self._constants: dict[str, str] = {}

    def learn(self, tree: ast.Module) -> None:
        """Remember the strings at the top level, for modules that could not be imported."""
        for node in tree.body:
            if (
                isinstance(node, ast.Assign)
                and isinstance(node.value, ast.Constant)
                and isinstance(node.value.value, str)
            ):
                self._constants |= {
                    target.id: node.value.value
                    for target in node.targets
                    if isinstance(target, ast.Name)
                }

    def of(self, node: ast.expr | None) -> Any:
        """Return what a literal or a module's constant is, or `MISSING`."""
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name) and not self._is_local(node.id):
            return self._namespace.get(node.id, self._constants.get(node.id, MISSING))
        if isinstance(node, ast.Attribute):
            return _attribute(self.of(node.value), node.attr)
        if isinstance(node, ast.Subscript):
            owner, key = self.of(node.value), self.text(node.slice)
            return owner.get(key, MISSING) if type(owner) is dict and key is not None else MISSING
        if isinstance(node, (ast.BinOp, ast.JoinedStr)):
            return self._joined(node)
        return MISSING

    def _joined(self, node: ast.BinOp | ast.JoinedStr) -> Any:
        """`PREFIX + ".size"` and `f"{PREFIX}.size"`."""
        parts: list[ast.expr]
        if isinstance(node, ast.BinOp):
            parts = [node.left, node.right] if isinstance(node.op, ast.Add) else []
        else:
            parts = [_formatted(part) for part in node.values]
        texts = [self.text(part) for part in parts]
        return (
            "".join(text for text in texts if text is not None)
            if texts and None not in texts
            else MISSING
        )

    def text(self, node: ast.expr | None) -> str | None:
        """Return the string that an expression is; None when it is no string, or only running would
        tell.
        """
        value = self.of(node)
        return str.__str__(value) if is_a(value, str) else None

    def texts(self, node: ast.expr | None) -> tuple[str, ...]:
        """Return the strings in a literal or constant; one string counts as one."""
        if isinstance(node, (ast.Tuple, ast.List)):
            return tuple(text for text in map(self.text, node.elts) if text)
        value = self.of(node)
        if is_a(value, str):
            return (value,)
        return tuple(value) if is_a(value, tuple) or is_a(value, list) else ()


def _formatted(part: ast.expr) -> ast.expr:
    """Return the expression in a plain `{...}` of an f-string."""
    if isinstance(part, ast.FormattedValue) and part.conversion == -1 and part.format_spec is None:
        return part.value
    return part


def _attribute(owner: Any, name: str) -> Any:
    """Return an attribute of a plain module, class or member of an Enum.

    Anything else may run code of its own when asked for an attribute.
    """
    if is_a(owner, ModuleType):
        return vars(owner).get(name, MISSING)
    if is_a(owner, Enum):
        return vars(owner).get("_value_", MISSING) if name == "value" else MISSING
    if not is_a(owner, type):
        return MISSING
    for base in type.__getattribute__(owner, "__mro__"):
        held = vars(base)
        if name in (members := held.get("_member_map_", {})):
            return members[name]
        if name in held:
            return held[name]
    return MISSING


def is_a(value: Any, kind: type) -> bool:
    """`isinstance` without the detour over `value.__class__`, which a proxy (Flask's `request`)
    answers by itself.
    """
    return issubclass(type(value), kind)
