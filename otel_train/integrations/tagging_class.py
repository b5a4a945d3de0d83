"""Subclass the class of an object that is there already, so that what it yields can be tagged last of all.

A loader's dataset is often of a class of the user's own, whose `__getitem__` tokenizes and drops what it doesn't
expect: a tag must come after that, and `isinstance` must go on holding.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any


def tag_results(instance: Any, method: str, tag: Callable[..., Any]) -> None:
    """Have a method of one object return its results with a tag; the object stays picklable if it was.

    Args:
        instance: Of a class without slots.
        method: Name of the method; it may be a special one, such as `__getitem__`.
        tag: A module's function: gets the object, a result and the method's arguments, and returns the tagged result.

    Examples:
        >>> class Rows(list):
        ...     pass
        >>> rows = Rows(["a", "b"])
        >>> tag_results(rows, "__getitem__", lambda self, row, index: (row, index))
        >>> rows[1], isinstance(rows, Rows)
        (('b', 1), True)
    """
    base: Any = type(instance)
    instance.__class__ = _subclass(base, method, tag)


@cache
def _subclass(base: Any, method: str, tag: Callable[..., Any]) -> type:
    result = getattr(base, method)

    def tagged(self: Any, *arguments: Any) -> Any:
        return tag(self, result(self, *arguments), *arguments)

    def reduce(self: Any, protocol: Any) -> Any:
        # No module has this class: it is made anew where the object is unpickled, as in a worker that is spawned.
        create, (_, *rest), *state = base.__reduce_ex__(self, protocol)
        return _create, (create, base, method, tag, *rest), *state

    names = {"__module__": base.__module__, "__doc__": base.__doc__}
    return type(base.__name__, (base,), {**names, method: tagged, "__reduce_ex__": reduce})


def _create(create: Any, base: Any, method: str, tag: Callable[..., Any], *rest: Any) -> Any:
    return create(_subclass(base, method, tag), *rest)
