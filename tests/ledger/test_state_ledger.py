"""StateLedger on one rank: the same as ordered dicts, whatever is done to it."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch._subclasses import FakeTensorMode

from otel_train.exceptions import ConfigurationError, ShapeMismatchError, StateMismatchError
from otel_train.ledger import StateLedger, stable_hash
from otel_train.ledger.key_table import TABLE, KeyTable
from otel_train.ledger.resharding import merge
from otel_train.ledger.shard import Shard
from tests.support.ledger_model import Model

IDS = st.lists(st.integers(0, 11), max_size=9)
CALLS = st.lists(
    st.one_of(
        st.tuples(st.just("store"), IDS),
        st.tuples(st.just("fetch"), IDS),
        st.tuples(st.sampled_from(["wipe", "end_step", "drain"]), st.just([])),
    ),
    max_size=25,
)
TABLES = list(dict.fromkeys((KeyTable, TABLE)))
SIZES = st.fixed_dictionaries(
    {"capacity": st.integers(1, 6), "ring": st.integers(1, 8), "max_idle_steps": st.none() | st.integers(1, 3)}
)


def make(size: dict[str, Any], table: type[KeyTable] = TABLE, **also: Any) -> StateLedger:
    """Return a ledger of these sizes, with this table of keys."""
    idle: Any = {"max_idle_steps": size["max_idle_steps"], "dtype": torch.float64}
    ledger = StateLedger((2,), capacity=size["capacity"], recently_evicted=size["ring"], **idle, **also)
    ledger._shard = Shard(ledger._interval, (2,), device="cpu", table=table, **idle)
    return ledger


def apply(ledger: StateLedger, call: str, ids: list[int], state: int) -> Any:
    """Make one call; each written state is another one."""
    if call == "store":
        return ledger.store(ids, torch.arange(2 * len(ids), dtype=torch.float64).view(-1, 2) + state)
    if call == "fetch":
        states, is_held = ledger.fetch(ids)
        return [row if held else None for row, held in zip(states.tolist(), is_held.tolist(), strict=True)]
    if call == "end_step":
        return ledger.end_step(ledger.step)
    return ledger.drain_measurements() if call == "drain" else ledger.wipe()


@pytest.mark.parametrize("table", TABLES)
@given(size=SIZES, calls=CALLS)
@example(  # unused for as long as it may be, and a step longer
    size={"capacity": 2, "ring": 2, "max_idle_steps": 1},
    calls=[("store", [1]), ("drain", []), ("drain", []), ("drain", [])],
)
@example(  # a fetch in another order than that of the writes
    size={"capacity": 2, "ring": 2, "max_idle_steps": None}, calls=[("store", [1, 2]), ("fetch", [2, 1])]
)
@example(  # two that come back in one call, the later eviction first
    size={"capacity": 1, "ring": 4, "max_idle_steps": None},
    calls=[("store", [1, 2, 3, 4]), ("store", [3, 1]), ("drain", [])],
)
@example(  # of several writes of one key the last counts, also for the order
    size={"capacity": 4, "ring": 2, "max_idle_steps": None}, calls=[("store", [1, 2, 1, 3]), ("store", [4, 5])]
)
@example(  # what was wiped is not a false eviction
    size={"capacity": 1, "ring": 4, "max_idle_steps": None},
    calls=[("store", [1, 2]), ("wipe", []), ("store", [1]), ("drain", [])],
)
def test_equals_the_model(table: type[KeyTable], size: dict[str, Any], calls: list[tuple[str, list[int]]]) -> None:
    """Results, counts, order of use, states and the ring are those of ordered dicts after every call."""
    ledger, model = make(size, table), Model(**size)

    def apply_to_model(call: str, ids: list[int], state: int) -> Any:
        """Make the same call of the model."""
        if call == "store":
            return model.store([(key, [2.0 * index + state, 2.0 * index + state + 1]) for index, key in enumerate(ids)])
        return model.fetch(ids) if call == "fetch" else getattr(model, call)()

    for number, (call, ids) in enumerate(calls):
        assert apply(ledger, call, ids, 100 * number) == apply_to_model(call, ids, 100 * number)
        saved = ledger.state_dict()
        assert saved["keys"].tolist() == [stable_hash(key) for key in model.entries]
        assert saved["states"].tolist() == list(model.entries.values())
        assert list(ledger._recently_evicted) == [stable_hash(key) for key in model.ring]
    assert ledger.drain_measurements() == model.drain()


@given(SIZES, CALLS, CALLS)
def test_resumes_as_if_never_stopped(size: dict[str, Any], before: list[Any], after: list[Any]) -> None:
    """A ledger that loads a saved state goes on exactly as the one that was saved."""
    first, second = make(size), make(size)
    for call, ids in before:
        apply(first, call, ids, 0)
    second.load_state_dict(first.state_dict())
    for number, (call, ids) in enumerate(after):
        assert apply(first, call, ids, number) == apply(second, call, ids, number)
    assert first.drain_measurements() == second.drain_measurements()


@given(SIZES, SIZES, CALLS, CALLS)
def test_core_equals_its_twin(size: dict[str, Any], later: dict[str, Any], before: list[Any], after: list[Any]) -> None:
    """Results, saved states and events of a job that goes on with other sizes are the same with either table."""
    given_by: list[list[Any]] = []
    for table in (KeyTable, TABLE):
        events: list[Any] = []
        first, second = (make(one, table, events=events.append) for one in (size, later))
        results: list[Any] = [apply(first, call, ids, number) for number, (call, ids) in enumerate(before)]
        halves = [merge([first.state_dict()], rank, 2) | {"rank": rank, "world_size": 2} for rank in (0, 1)]
        second.load_state_dict(halves)
        results += [apply(second, call, ids, number) for number, (call, ids) in enumerate(after)]
        saved = {
            name: getattr(value, "tolist", lambda value=value: value)() for name, value in second.state_dict().items()
        }
        given_by.append([results, saved, second.drain_measurements(second.step + 2), events])
    assert given_by[0] == given_by[1]


@pytest.mark.parametrize("table", TABLES)
@given(size=SIZES, before=CALLS, after=CALLS)
@example(  # as many ids in the first call as in the last one before, in another order
    size={"capacity": 2, "ring": 2, "max_idle_steps": None},
    before=[("store", [1, 2]), ("fetch", [2, 1])],
    after=[("fetch", [1, 2])],
)
def test_deep_copy_is_its_own(table: type[KeyTable], size: dict[str, Any], before: list[Any], after: list[Any]) -> None:
    """A deep copy goes on as the ledger that it was made of, and neither changes the other."""
    first = make(size, table)
    for number, (call, ids) in enumerate(before):
        apply(first, call, ids, number)
    copied, unused = copy.deepcopy(first), copy.deepcopy(first)
    for number, (call, ids) in enumerate(after):
        assert apply(first, call, ids, number) == apply(copied, call, ids, number)
    assert first.drain_measurements() == copied.drain_measurements()
    for number, (call, ids) in enumerate(after):
        apply(unused, call, ids, number)
    assert unused.drain_measurements()[:4] == [copied.last_extra_metrics[key] for key in copied.last_extra_metrics]


@given(SIZES, CALLS)
def test_events_give_the_counts(size: dict[str, Any], calls: list[Any]) -> None:
    """A replay of the events in their order gives the four counters."""
    events: list[dict[str, Any]] = []
    ledger = make(size, events=events.append)
    for number, (call, ids) in enumerate(calls):
        apply(ledger, "end_step" if call == "drain" else call, ids, number)
    values = ledger.drain_measurements()
    held, ring, counts = set[int](), dict[int, None](), [0, 0, 0, 0]
    for event in events:
        if event["event"] == "store" and event["key"] not in held:
            counts[2] += 1
            counts[3] += ring.pop(event["key"], 0) is None
            held.add(event["key"])
        elif event["event"] == "evict":
            counts[event["why"] == "stale"] += 1
            held.discard(event["key"])
            ring[event["key"]] = None
            for oldest in list(ring)[: -size["ring"]]:
                del ring[oldest]
        elif event["event"] == "wipe":
            held.clear()
            ring.clear()
    assert values[:4] == counts


@pytest.mark.modes
def test_drain_gives_wandb_keys() -> None:
    """The drained values have the catalogue's keys, and last_extra_metrics the four counters of that interval."""
    ledger = StateLedger((1,), capacity=1)
    ledger.store(["a", "b"], torch.zeros(2, 1))
    ledger.store(["a"], torch.zeros(1, 1))
    values = ledger.drain_step_metrics()
    assert (values["ledger/evictions"], values["ledger/false_evictions_max"], values["ledger/entries"]) == (2, 1, 1)
    assert ledger.last_extra_metrics == {
        "ledger/evictions": 2.0,
        "ledger/stale_evictions": 0.0,
        "ledger/fresh_writes": 3.0,
        "ledger/false_evictions": 1.0,
    }


def test_wiped_keys_are_not_false() -> None:
    """Nothing that was wiped on purpose counts as a false eviction."""
    ledger = StateLedger((1,), capacity=1)
    ledger.store(["a", "b"], torch.zeros(2, 1))
    assert "a" in ledger._recently_evicted
    ledger.wipe()
    ledger.store(["a"], torch.zeros(1, 1))
    assert ledger.drain_measurements()[3] == 0


def test_late_first_step_keeps_entries() -> None:
    """The first step that is told shifts the steps of use, so that resuming at 1000 is no idle time."""
    ledger = StateLedger((1,), capacity=2, max_idle_steps=2)
    ledger.store(["a"], torch.zeros(1, 1))
    entries = [ledger.drain_measurements(step)[4] for step in (1000, 1001, 1002, 1003)]
    assert entries == [1, 1, 1, 0]


RELEASE = tuple(int(part) for part in torch.__version__.split(".")[:2])


@pytest.mark.modes
@pytest.mark.parametrize(
    "dtype",
    [torch.bool, torch.int8, torch.uint16, torch.bfloat16, torch.float8_e4m3fn, torch.float64, torch.complex64],
)
@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (16,)])
def test_keeps_any_dtype_and_shape(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """States come back as they were, one or many, bit for bit, with zeros where there is none."""
    if dtype == torch.uint16 and RELEASE < (2, 15):
        pytest.skip("this torch picks no rows of unsigned integers")
    ledger = StateLedger(shape, capacity=4, dtype=dtype)
    high = 2 if dtype == torch.bool else 256
    generator = torch.Generator().manual_seed(0)
    sizes = (*shape[:-1], shape[-1] * dtype.itemsize) if shape else (dtype.itemsize,)
    states = torch.randint(0, high, (2, *sizes), dtype=torch.uint8, generator=generator).view(dtype).view(2, *shape)

    def bits(values: torch.Tensor) -> torch.Tensor:
        return values.contiguous().view(len(values), -1).view(torch.uint8)

    ledger.store(["a", 7], states)
    given_back = ledger.fetch([7, "b", "a"])
    first, second = bits(states)
    assert given_back.states.shape == (3, *shape)
    assert bits(given_back.states).equal(torch.stack([second, torch.zeros_like(first), first]))
    assert given_back.found.tolist() == [True, False, True]
    assert bits(ledger.state_dict()["states"]).equal(bits(states).flip(0))


@pytest.mark.parametrize(
    "states",
    [
        torch.arange(8, dtype=torch.float32).view(4, 2).t(),
        torch.arange(13, dtype=torch.float32)[5:].view(2, 4),
        torch.arange(4, dtype=torch.float32).expand(2, 4),
        torch.complex(torch.ones(2, 4), torch.ones(2, 4)).conj(),
        torch.complex(torch.ones(2, 4), torch.ones(2, 4)).conj().imag,
        torch.complex(torch.ones(2, 3), torch.ones(2, 3)),
    ],
    ids=["transposed", "not aligned", "expanded", "conjugate", "negative", "odd width"],
)
def test_stores_any_layout(states: torch.Tensor) -> None:
    """States are kept as their numbers, whatever lies in memory."""
    ledger = StateLedger(states.shape[1:], capacity=3, dtype=states.dtype)
    ledger.store(["a", "b"], states)
    assert ledger.fetch(["b", "c", "a"]).states.equal(torch.stack([states[1], torch.zeros_like(states[0]), states[0]]))


def test_slab_is_outside_the_graph() -> None:
    """A stored state that needs a gradient is copied without it, and a later change of it has no effect."""
    ledger, state = StateLedger((1,), capacity=1), torch.ones(1, 1, requires_grad=True)
    ledger.store(["a"], state)
    state.data.zero_()
    fetched = ledger.fetch(["a"]).states
    assert fetched.tolist() == [[1.0]]
    assert not fetched.requires_grad


@pytest.mark.parametrize(
    ("also", "field"),
    [
        ({"capacity": 0}, "^capacity must be a positive whole number, got 0; set it to the number of streams"),
        ({"capacity": 2.5}, r"^capacity must be a positive whole number, got 2\.5"),
        ({"capacity": True}, "^capacity must be"),
        ({"max_idle_steps": 0}, "^max_idle_steps must be a positive whole number, got 0"),
        ({"max_idle_steps": float("nan")}, "^max_idle_steps must be"),
        ({"recently_evicted": 0}, "^recently_evicted must be a positive whole number, got 0"),
        ({"recently_evicted": float("inf")}, "^recently_evicted must be"),
        ({"state_shape": (0,)}, r"^state_shape\[0\] must be a positive whole number, got 0"),
        ({"state_shape": 64}, "^state_shape must be a sequence of whole numbers, got 64"),
        ({"state_shape": (1.5,)}, r"^state_shape\[0\] must be"),
        ({"dtype": "float32"}, "^dtype must be a torch.dtype, got 'float32'"),
        ({"device": "gpu"}, "^device must be one of torch's, got 'gpu'"),
        ({"step": None}, "^step must be"),
    ],
)
def test_wrong_configuration_raises(also: dict[str, Any], field: str) -> None:
    """A value that breaks a rule is refused at once."""
    with pytest.raises(ConfigurationError, match=field):
        StateLedger(**{"state_shape": (1,), "capacity": 1, **also})


@pytest.mark.parametrize(
    ("ids", "states"),
    [
        (["a"], torch.zeros(2, 2)),
        (["a"], torch.zeros(1, 2, dtype=torch.float16)),
        ("a", torch.zeros(1, 2)),
        ([None], torch.zeros(1, 2)),
        ([2**63], torch.zeros(1, 2)),
        (torch.zeros(1), torch.zeros(1, 2)),
        (["a"], torch.zeros(1, 2, device="meta")),
        (["a"], [[0.0, 0.0]]),
        (["a"], torch.zeros(1, 2).to_sparse()),
        ([True], torch.zeros(1, 2)),
        (torch.zeros(1, dtype=torch.int64, device="meta"), torch.zeros(1, 2)),
        (["a"], None),
        (["a"], torch.nested.nested_tensor([torch.zeros(2)], layout=torch.jagged)),
        (torch.nested.nested_tensor([torch.zeros(2, dtype=torch.int64)], layout=torch.jagged), torch.zeros(1, 2)),
    ],
)
def test_wrong_arguments_change_nothing(ids: Any, states: Any) -> None:
    """Ids or states of another form are an error, and the ledger stays as it was."""
    ledger = StateLedger((2,), capacity=1)
    with pytest.raises(ShapeMismatchError, match=r"must be|can't be read"):
        ledger.store(ids, states)
    assert len(ledger) == 0


def test_state_of_other_form_raises() -> None:
    """States of another dtype, and those of another rank, are not loaded."""
    saved = StateLedger((2,), capacity=1, dtype=torch.float16).state_dict()
    with pytest.raises(StateMismatchError, match=r"float32 \[2\].*float16 \[2\]"):
        StateLedger((2,), capacity=1).load_state_dict(saved)
    with pytest.raises(StateMismatchError, match="rank 1 of 2"):
        StateLedger((2,), capacity=1).load_state_dict({**saved, "rank": 1, "world_size": 2})


@pytest.mark.parametrize("call", ["end_step", "drain_measurements"])
def test_stride_keeps_used_entries(call: str) -> None:
    """Entries used since the last step that ended count as used in the next one; the rest goes by its age."""
    ledger = StateLedger((1,), capacity=4, max_idle_steps=5)
    ledger.store(["always", "once"], torch.ones(2, 1))
    for step in (10, 20, 30):
        ledger.fetch(["always"])
        getattr(ledger, call)(step)
        assert ledger.fetch(["always"]).found.all()
    assert not ledger.fetch(["once"]).found.any()


def test_stores_tensor_subclasses_plain() -> None:
    """A tensor of an own class is stored as its numbers; one without data is refused before anything is sent."""

    class Own(torch.Tensor):
        """A user's tensor class, of which no function of torch may be called."""

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            raise RuntimeError(func)

    ledger = StateLedger((1,), capacity=4)
    ledger.store(torch.tensor([1, 2]).as_subclass(Own), torch.tensor([[1.0], [2.0]]).as_subclass(Own))
    assert ledger.fetch([2, 1]).states.tolist() == [[2.0], [1.0]]
    with FakeTensorMode():
        fake = torch.ones(1, 1)
    with pytest.raises(ShapeMismatchError, match="states must be a plain tensor"):
        ledger.store([3], fake)
