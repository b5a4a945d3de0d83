"""The core's module: right in several interpreters and imports, no reference lost or kept, odd arguments refused."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import tracemalloc
from array import array
from collections.abc import Callable
from importlib import import_module, machinery, util
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import otel_train
from otel_train import native

core: Any = native.core
pytestmark = pytest.mark.skipif(core is None, reason="the native core is not built, or not chosen")
CALLS = 5000


def longs(*numbers: int) -> array[int]:
    return array("q", numbers or [0] * 8)


def bound(module: Any, twin: Callable[..., Any] = print) -> Any:
    """Return picks of three slots and two sources."""
    picks = module.Picks()
    slots = (array("q", [0] * 3), array("q", [0, 1, 0]), *(array("d", [0.0] * 3) for _ in range(3)))
    picks.bind(slots, tuple(array("d", [0.5] * 2) for _ in range(6)), twin)
    picks.active, picks.horizon = 3.0, 4096.0
    return picks


def second_import() -> ModuleType:
    """Load the build's file once more, as a module of its own."""
    loader = machinery.ExtensionFileLoader(core.__name__, str(core.__file__))
    spec = util.spec_from_loader(core.__name__, loader)
    assert spec is not None
    module = util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_two_imports_share_nothing() -> None:
    """Each import has types of its own, and what one does is nothing to the other."""
    second = second_import()
    assert second is not core
    assert second.Picks is not core.Picks
    first_picks, second_picks = bound(core), bound(second)
    first_picks.pick(0)
    assert (first_picks.total, second_picks.total) == (1.0, 0.0)
    with pytest.raises(TypeError):
        core.Picks.pick(second_picks, 0)


def use_in_subinterpreters() -> None:
    """Use the core here, and between it in interpreters that end."""
    interpreters: Any = import_module("_xxsubinterpreters")
    picks = bound(core)
    for _ in range(3):
        own = interpreters.create(**({"isolated": False} if sys.version_info >= (3, 12) else {}))
        program = f"import sys; sys.path[:] = {sys.path!r}\nfrom otel_train.native import core\n"
        program += "table = core.KeyTable(4, 4, (1, 2))\ntable.clear()\nprint(len(table))"
        interpreters.run_string(own, program)
        interpreters.destroy(own)
        picks.pick(0)
    assert picks.total == 3.0


@pytest.mark.skipif(sys.version_info >= (3, 13), reason="the module of subinterpreters has another name there")
def test_subinterpreter_leaves_core_whole() -> None:
    """An interpreter that has used the core and ended takes nothing of this one's with it.

    In a process of its own: once there was another interpreter, torch takes its autograd to hold the GIL.
    """
    program = "from tests.native.test_core import use_in_subinterpreters\nuse_in_subinterpreters()"
    subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2], check=True)


def calls() -> dict[str, Callable[[], object]]:
    """Return a call of each function: with what is right, with what it refuses, and with what its twin does."""
    picks, odd = bound(core, lambda *_, **__: 1.5), bound(core, lambda *_, **__: 1 / 0)
    table, packing = core.KeyTable(4, 4, (1, 2)), core.Packing(2, 2, 3, 24)
    vector, out = array("d", [0.0] * 24), array("d", [0.0] * 6)
    keys, rows, sources, evicted, report = longs(*range(8)), longs(), longs(), longs(), longs()
    texts, young = ["a", "b", 3], {"a": 1}
    return {
        "pick": lambda: picks.pick(1, tokens=3),
        "pick by the twin": lambda: picks.pick(1.0, tokens=3),
        "pick that raises": lambda: odd.pick("x", 1, 2, 3, more=4),
        "drain": picks.drain,
        "drain of no step": lambda: picks.drain("x"),
        "bind": lambda: bound(core),
        "bind of too few": lambda: picks.bind((keys,), (out,), print),
        "bind of a sequence": lambda: core.Picks().bind(array("d", range(5)), array("d", range(6)), print),
        "table": lambda: core.KeyTable(4, 4, (1, 2)),
        "table of no size": lambda: core.KeyTable(0, 4, ("x",)),
        "table of no bounds": lambda: core.KeyTable(1, 4, (1, "x")),
        "fetch": lambda: table.fetch(keys, 8, rows, 1),
        "store": lambda: table.store(keys, 8, sources, rows, evicted, 1, report),
        "store into one": lambda: table.store(keys, 8, keys, keys, keys, 1, keys),
        "entries": table.entries,
        "ring": table.ring,
        "stale": lambda: table.evict_stale(1),
        "restore": lambda: table.restore(keys, keys, 2, rows),
        "hash": lambda: core.hash_ids(texts, keys, young, {}, 9, 9, lambda _: 2**62),
        "hash of no string": lambda: core.hash_ids([None], keys, young, {}, 9, 9, lambda _: int("4" * 18)),
        "hash that raises": lambda: core.hash_ids([None], keys, young, {}, 9, 9, lambda _: 1 / 0),
        "route": lambda: core.route(keys, 8, rows, sources, evicted, longs(0, 0)),
        "pack": lambda: packing.pack(vector, 7, [1.0, 2, 3.0, 4], 1, False),
        "pack of no numbers": lambda: packing.pack(vector, 7, ["x"], 1, False),
        "unpack": lambda: packing.unpack(vector, 7, out),
        "others": lambda: packing.others(vector, 8),
        "late": lambda: core.late_slots(vector, 8, 4),
        "late outside": lambda: core.late_slots(vector, 8, 40),
    }


@pytest.mark.parametrize("name", calls() if core is not None else [])
def test_calls_keep_nothing(name: str) -> None:
    """Thousands of calls, also such as fail, leave no more memory than a few, and no reference to what they got."""
    call = calls()[name]
    given = [None, print, 1.5, *(cell.cell_contents for cell in getattr(call, "__closure__", None) or ())]

    def repeat(count: int) -> tuple[int, list[int]]:
        for _ in range(count):
            with contextlib.suppress(TypeError, ValueError, ZeroDivisionError):
                call()
        gc.collect()
        return tracemalloc.get_traced_memory()[0], [sys.getrefcount(value) for value in given]

    tracemalloc.start()
    try:
        memory, references = repeat(100)
        later_memory, later_references = repeat(CALLS)
    finally:
        tracemalloc.stop()
    assert later_memory - memory < 8 * CALLS  # the least object takes 16 bytes; other threads may take some too
    assert [b - a for a, b in zip(references, later_references, strict=True) if abs(b - a) >= CALLS // 2] == []


def test_bound_object_is_collected() -> None:
    """An object that its own twin refers to is garbage as any other: its arrays can grow again."""
    numbers = array("d", [0.0] * 3)
    picks = core.Picks()
    slots = (array("q", [0] * 3), array("q", [0] * 3), numbers, array("d", [0.0] * 3), array("d", [0.0] * 3))
    holder: list[Any] = []
    picks.bind(slots, tuple(array("d", [0.5]) for _ in range(6)), lambda holder=holder: holder)
    holder.append(picks)
    with pytest.raises(BufferError):
        numbers.append(1.0)
    del picks, holder
    gc.collect()
    numbers.append(1.0)


def test_meter_may_have_no_slots() -> None:
    """A rank without readers has a meter: what C holds of an empty array would make writing none an error."""
    meter = otel_train.MixingMeter(0, ["code"], {"code": 1})
    meter.set_weights({"code": 2})
    assert meter.drain_measurements()[0] == 0.0


@pytest.mark.parametrize(
    "numbers",
    [
        array("d", [0.0]),
        array("q", [0, 0]),
        array("f", [0.0] * 8),
        bytearray(64),
        memoryview(array("d", [0.0] * 8)).toreadonly(),
        memoryview(array("d", [0.0] * 8))[::2],
        memoryview(array("d", [0.0] * 8)).cast("B").cast("d", (4, 2)),
        memoryview(bytearray(65))[1:].cast("d"),
        [0.0] * 8,
        None,
    ],
    ids=["short", "whole", "single", "bytes", "read-only", "apart", "square", "unaligned", "list", "none"],
)
def test_unfit_buffer_is_refused(numbers: Any) -> None:
    """What is no row of enough aligned float64 that may be written is refused, and the object holds nothing then."""
    picks = core.Picks()
    slots: list[Any] = [array("q", [0, 0]), array("q", [0, 0]), *(array("d", [0.0] * 2) for _ in range(3))]
    sources = [array("d", [0.5] * 2) for _ in range(6)]
    with pytest.raises((TypeError, ValueError, BufferError)):
        picks.bind(tuple(slots), (*sources[:5], numbers), print)
    slots[0].append(0)
    with pytest.raises(RuntimeError):
        picks.pick(0)
