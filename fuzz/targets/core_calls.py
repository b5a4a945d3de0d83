"""Calls of each function of the native core, on objects and arguments of all kinds: it raises, or it does something.

What it must not do is crash, read or write outside of a buffer (which a build with sanitizers shows: `make sanitize`),
or return with an error that it did not make (a SystemError).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

from fuzz.choices import Choices
from otel_train.native import core

CALLS = 64
"""The most calls of one input."""
ROOM = 4096
"""The most that a size is taken for: what asks for more memory is no find."""
SIGNATURES: dict[str, str] = {
    "KeyTable": "nnB",
    "KeyTable.fetch": "qcqn",
    "KeyTable.store": "qcqqqnq",
    "KeyTable.move_step": "nn",
    "KeyTable.evict_stale": "n",
    "KeyTable.remembers": "n",
    "KeyTable.remember": "qc",
    "KeyTable.restore": "qqcq",
    "Clock": "",
    "IntervalState": "",
    "IntervalState.bind": "mmeeeqdd",
    "Packing": "cccn",
    "Packing.pack": "dnvco",
    "Packing.everybody": "dn",
    "Packing.unpack": "dnd",
    "Packing.others": "dn",
    "Picks": "",
    "Ring": "",
    "Ring.append": "nncv",
    "Ring.bind": "gzzcz",
    "Steps": "",
    "Steps.bind": "uuIKRPdh",
    "Steps.step": "ns",
    "Picks.bind": "QDh",
    "Picks.pick": "ccc",
    "Picks.drain": "n",
    "add": "dd",
    "alikes": "ccddd",
    "divergences": "ccddd",
    "divide": "ddf",
    "dot": "dd",
    "edge": "dffccc",
    "gather": "gzzcqcccd",
    "hash_ids": "iqmmnnh",
    "history_rows": "bqcqdqcfbbc",
    "index_key": "bqcq",
    "interval_picks": "ccfdddqdd",
    "late_slots": "dcc",
    "leave_signal": "n",
    "median": "d",
    "mix_ids": "qc",
    "multiply": "dd",
    "name_peaks": "dd",
    "note_exit": "n",
    "own_sums": "d",
    "peaks": "dff",
    "rank_weights": "dddq",
    "route": "qcqqqq",
    "row_sums": "ccdd",
    "scale": "dfd",
    "sign_bits": "ccdb",
    "span": "d",
    "take_bets": "cfddddd",
    "tilts": "ccdddddd",
    "watch_signal": "nnn",
    "whole_records": "gzzcccq",
    "whole_sum": "d",
    "window_means": "ccdd",
    "write_rows": "bqqbqqdbbcc",
}
"""A letter for each argument, for what is right; see `Arguments.of`. A function that is not here gets anything."""
OF_LETTER = {"I": "IntervalState", "K": "Clock", "R": "Ring", "P": "Picks"}
KEYS: tuple[Any, ...] = ("train/loss", "tokens", "other", "x" * 300, 3)


class Odd(Exception):  # noqa: N818  # what a user's own code raises is no error of ours
    """Raised by the code of a user that the core calls."""


class Arguments:
    """Objects that calls take and give, which they share: one array may be given twice, or while it changes."""

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self._longs = [array("q", [choices.int64() for _ in range(4)]) * 10 for _ in range(8)]
        self._doubles = [array("d", [choices.real() for _ in range(4)]) * 10 for _ in range(12)]
        self._small = [array("d", [choices.real()] * 4) for _ in range(3)]
        self._turn = 0
        self._texts: list[Any] = ["a", "b", "\udcff", "x" * 300, "", 3, -1, 2**70, True, None, 1.5, b"a"]
        self._maps: list[Any] = [{}, {"a": 1}, {3: "b"}, {"train/loss": 1.5}]
        self.objects: list[Any] = [None, object()]
        """What calls have returned, besides."""
        self.instances: dict[str, list[Any]] = {}
        """The core's own objects, by the name of their type."""

    def of(self, letter: str) -> Any:
        """Return an argument of a kind, or now and then of any other."""
        choices = self._choices
        if choices.rarely():
            letter = choices.one("qdncvihmbotQDBusIKRPgez")
        match letter:
            case "q" | "d":
                return self._numbers(letter)
            case "Q" | "D":
                return tuple(
                    self._numbers("q" if letter == "Q" and at < 2 else "d") for at in range(5 + (letter == "D"))
                )
            case "B":
                return tuple(choices.whole() for _ in range(choices.below(70 if choices.rarely() else 8)))
            case "c":
                return choices.below(64 if choices.rarely() else 8)
            case "n":
                return choices.whole()
            case "v":
                values = [self.of(choices.one("nf")) for _ in range(choices.below(24))]
                forms: list[Callable[..., Any]] = [list, tuple, self._doubles_of]
                return choices.one(forms)(values)
            case "f":
                return choices.real()
            case "i":
                ids = [choices.one(self._texts) for _ in range(choices.below(12))]
                self._maps.append({0: ids})  # so that the hash may change it
                return choices.one([list, tuple])(ids) if choices.below(4) else ids
            case "m":
                return choices.one(self._maps)
            case "h":
                return self.code
            case "u":
                return User(self.code)
            case "s":
                scalars = {choices.one(KEYS): self.of(choices.one("nf")) for _ in range(choices.below(5))}
                return scalars if choices.below(8) else None
            case "I" | "K" | "R" | "P":
                return choices.one(self.instances[OF_LETTER[letter]])
            case "e":
                return choices.one(self._small)
            case "z":
                return choices.one([256, 128, 120, 64, 56, 300])
            case "g":
                return choices.one(self.rings)
            case "b":
                return choices.one([bytearray, bytes, memoryview])(choices.bytes(choices.below(64)))
            case _:
                return choices.one(self.objects)

    def make_instances(self, types: Any) -> None:
        """Make an object of each type, as ours are made, which later calls may bind anew."""
        choices = self._choices
        self.rings = [bytearray(256 + 4 * 128), bytearray(300)]
        interval, ring, steps, picks = types.IntervalState(), types.Ring(), types.Steps(), Sub()
        sums, row = array("d", [0.0] * 4), array("d", [0.0] * 11)
        flat, order = array("d", [0.0] * 40), array("q", range(11))
        interval.bind({"train/loss": 0}, {"tokens": 2}, sums, array("d", [0.0] * 2), sums[:], order, flat, row)
        ring.bind(self.rings[0], 256, 128, 4, 120)
        picks.bind(tuple(self.arrays("qqddd")), tuple(self.arrays("dddddd")), self.code)
        clock, steps.every = types.Clock(), choices.one([1, 1, 1, 3, 10])
        user, used = User(self.code), choices.one([None, None, picks])
        steps.bind(user, user, interval, clock, ring, used, row, self.code)
        steps.plain, steps.alone, steps.given = True, choices.below(4) != 0, -1
        table = types.KeyTable(1 + choices.below(8), choices.below(8), (1, 2, 4))
        packing = types.Packing(choices.below(4), choices.below(4), 1 + choices.below(4), 28 + choices.below(12))
        for made in (interval, ring, steps, clock, table, packing):
            self.instances[type(made).__name__] = [made]
        self.instances["Picks"] = [picks]
        self._longs.append(order)
        self._doubles += [sums, row, flat]

    def arrays(self, letters: str) -> list[Any]:
        """Return whole arrays, of which those of one type differ."""
        pools = {"q": iter(self._longs), "d": iter(self._doubles)}
        return [next(pools[letter]) for letter in letters]

    def _numbers(self, letter: str) -> Any:
        """Return an array, mostly another one than before, or a view, perhaps not aligned or not writable."""
        choices = self._choices
        self._turn += choices.below(8) != 0
        pool = self._longs if letter == "q" else self._doubles
        numbers: Any = pool[self._turn % len(pool)]
        if not choices.rarely():
            return numbers
        view: Any = memoryview(numbers)
        form = 9 + choices.below(7)
        if form == 9:
            return numbers[: choices.below(40)]
        if form == 10:
            return view.toreadonly()
        if form == 11:
            return view.cast("B")
        if form == 12:
            return view[::2]
        if form == 13 and len(numbers) > 1:
            return view.cast("B")[3:-5].cast(letter)
        begin = choices.below(8)
        return view[begin : begin + choices.below(40)]

    @staticmethod
    def _doubles_of(values: list[Any]) -> Any:
        return array("d", [value for value in values if isinstance(value, float)])

    def code(self, *arguments: object) -> Any:
        """Do what a user's hash or twin may do in the middle of a call."""
        choices = self._choices
        match choices.below(12):
            case 0:
                raise Odd
            case 5:
                choices.one(self.instances["Steps"]).unbind()
            case 6:
                choices.one(self.instances["Ring"]).unbind()
            case 7:
                given = [self.of(letter) for letter in SIGNATURES["IntervalState.bind"]]
                choices.one(self.instances["IntervalState"]).bind(*given)
            case 8:
                choices.one(self.instances["Steps"]).step(self.of("n"), self.of("s"))
            case 9 | 10:
                return [1.0] * 28
            case 1:
                for content in self._maps:
                    for ids in content.values():
                        if isinstance(ids, list) and ids:
                            ids.pop()
            case 2:
                choices.one(self._maps).clear()
            case 3:
                numbers = choices.one(self._longs)
                numbers.append(1)  # BufferError while the core has it
            case 4:
                return arguments
        return choices.int64()


class User:
    """What of ours, and by that of a user's, a step calls in Python: a recording, a recorder, its sources."""

    def __init__(self, code: Callable[..., Any]) -> None:
        self.measure = self.finish = self.leave_out = self.add = self.end_step = self.emit_values = code


class Sub(core.Picks if core is not None else object):  # type: ignore[misc]
    """A type of the core's that is inherited from, as ours are."""


def entries() -> dict[str, Callable[..., Any]]:
    """Return every function, type and method of the core by its name; a method takes its object first."""
    made: dict[str, Callable[..., Any]] = {}
    for name, value in vars(core).items():
        if not name.startswith("__") and callable(value):
            made[name] = value
            if isinstance(value, type):
                methods = {key: method for key, method in vars(value).items() if not key.startswith("_")}
                made |= {f"{name}.{key}": method for key, method in methods.items() if callable(method)}
    return made


def answer(call: Callable[..., Any], *given: Any, **named: Any) -> tuple[str, str]:
    """Return what a call returns or raises, as text that tells NaNs, zeros and types apart."""
    try:
        return "", repr(call(*given, **named))
    except Exception as error:  # noqa: BLE001  # whatever it is: a twin must raise the same
        return type(error).__name__, str(error)


def run(data: bytes) -> None:
    """Make calls; whatever they are given, they return or raise what is documented."""
    if core is None:
        return
    choices, everything = Choices(data), entries()
    names = list(everything)
    arguments = Arguments(choices)
    arguments.make_instances(core)
    instances = arguments.instances
    for _ in range(CALLS):
        if not choices:
            return
        name = choices.one(names)
        owner = name.partition(".")[0]
        given = [arguments.of(letter) for letter in SIGNATURES.get(name, "o" * choices.below(6))]
        if choices.rarely():
            given = given[:-1] if choices.below(2) else [*given, arguments.of("o")]
        if name in {"KeyTable", "Packing"}:
            given = [value if not isinstance(value, int) or value < ROOM or value > 2**41 else ROOM for value in given]
        if "." in name:
            if not instances.get(owner):
                continue
            given.insert(0, choices.one(instances[owner]))
        try:
            result = everything[name](*given)
        except (Odd, TypeError, ValueError, OverflowError, LookupError, AttributeError, RuntimeError, BufferError):
            continue
        except MemoryError:
            continue
        (instances.setdefault(name, []) if isinstance(everything[name], type) else arguments.objects).append(result)
        if choices.rarely():
            _set_attribute(choices, arguments, result)


def _set_attribute(choices: Choices, arguments: Arguments, target: Any) -> None:
    names = [name for name in dir(target) if not name.startswith("_")]
    if not names or isinstance(target, (int, bytearray, list, tuple, dict)):
        return
    try:
        setattr(target, choices.one(names[:256]), arguments.of(choices.one("nfo")))
    except (TypeError, ValueError, OverflowError, AttributeError):
        return
