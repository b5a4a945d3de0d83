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
        instance: Of a class without slots. What an earlier call had a method return is forgotten.
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
    plain: tuple[Any, Tags] = (type(instance), ())
    base, tags = getattr(type(instance), "otel_train_tags", plain)
    others = [pair for pair in tags if pair[0] != method]
    instance.__class__ = _subclass(base, (*others, (method, tag)))


Tags = tuple[tuple[str, Callable[..., Any]], ...]
"""Methods by name, and what tags their results."""


@cache
def _subclass(base: Any, tags: Tags) -> type:
    def reduce(self: Any, protocol: Any) -> Any:
        # No module has this class: it is made anew where the object is unpickled, as in a worker that is spawned.
        create, arguments, *state = base.__reduce_ex__(self, protocol)
        plain = [base if part is type(self) else part for part in (create, *arguments)]
        return _create, (base, tags, *plain), *state

    names = {"__module__": base.__module__, "__doc__": base.__doc__, "__reduce_ex__": reduce}
    methods = {method: _tagging(getattr(base, method), tag) for method, tag in tags}
    return type(base.__name__, (base,), {**names, **methods, "otel_train_tags": (base, tags)})


def _tagging(result: Callable[..., Any], tag: Callable[..., Any]) -> Callable[..., Any]:
    def tagged(self: Any, *arguments: Any) -> Any:
        return tag(self, result(self, *arguments), *arguments)

    return tagged


def _create(base: Any, tags: Tags, create: Callable[..., Any], *arguments: Any) -> Any:
    instance = create(*arguments)
    instance.__class__ = _subclass(base, tags)
    return instance
