"""The tag of a row: a number that travels with it through any loader and says where it came from.

It is one int64, since that is what every collator, pinning thread and dispatcher carries: a hash of the source's name
in 28 bits, the number of the pass over the source in 8 (modulo 256), and the row's tokens in 27. A negative one is
padding. The name's hash, not its index: rows that a loader's saved state or a cache on disk holds stay right when
sources are added, removed or ordered anew.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from otel_train.arguments import MAX_SHOWN
from otel_train.exceptions import ConfigurationError
from otel_train.stable_hash import stable_hash

TAG_KEY = "otel_train"
"""Name under which a row that is a mapping has its tag."""
SAMPLE_KEY = "otel_train_sample"
"""Name under which it has the hash of its sample key, where the tag was made with `sample`."""
PADDING = -1
"""Value that stands for no row: what a collator fills a packed row with."""
UNTAGGED = 0
"""Tag of a row that has none, among rows that have: no source has the code 0."""
CODE_BITS, REPEAT_BITS, TOKEN_BITS = 28, 8, 27
REPEATS = 1 << REPEAT_BITS
MAX_TOKENS = (1 << TOKEN_BITS) - 1
CODE_SHIFT, REPEAT_SHIFT = REPEAT_BITS + TOKEN_BITS, TOKEN_BITS

Field = str | int | Callable[[Any], Any]
"""Where a row has a value: a mapping's key, a tuple's index, an object's attribute, or a function of the row."""


class Tagged(NamedTuple):
    """A row that is not a mapping, or a batch of such, beside its tag.

    torch's default collate, its pinning of memory and what moves batches to a device keep a named tuple as it is. The
    tag comes first: whoever takes the first field's length for the batch's (mosaicml-streaming's loader, for its
    position) is right, whatever the rows are.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.SourceMeter({"code": 1})
        >>> row = meter.tag("code")(("text", 3))
        >>> row.sample, meter.count(row)
        (('text', 3), ('text', 3))
    """

    otel_train: Any
    """Tag of the row, or int64 [rows] of the batch."""
    sample: Any
    """The row, or the batch that a collate function made of rows."""
    otel_train_sample: Any = PADDING
    """Hash of the sample key, or int64 [rows]; `PADDING` without one."""


def source_code(source: str) -> int:
    """Return the hash of a source's name, as a tag carries it: 28 bits, the same everywhere."""
    return stable_hash(source) & ((1 << CODE_BITS) - 1) or 1  # 0 is that of `UNTAGGED`


def distinct_codes(sources: Sequence[str]) -> dict[int, str]:
    """Return the sources by their codes.

    Raises:
        ConfigurationError: Two have the same code.
    """
    codes: dict[int, str] = {}
    for source in sources:
        other = codes.setdefault(source_code(source), source)
        if other != source:
            raise ConfigurationError(
                f"the sources {other!r} and {source!r} have the same hash of 28 bits; rename one of them"
            )
    return codes


def sample_code(key: object) -> int:
    """Return the hash of a sample key, 63 bits: of a number, a text, or anything whose `repr` tells it apart.

    Examples:
        >>> from otel_train.mixing import sample_code
        >>> sample_code(("code", 17)) == sample_code(("prose", 17))
        False
    """
    key = _plain(key)
    if isinstance(key, str) or (isinstance(key, int) and not isinstance(key, bool) and -(2**63) <= key < 2**63):
        return stable_hash(key) & (2**63 - 1)
    return stable_hash(repr(key)) & (2**63 - 1)


def pack_tag(source: str, tokens: int = 0, repeat: int = 0) -> int:
    """Return the tag of a row, for rows that no `Tag` sees: what an adapter or a collate function makes itself.

    Examples:
        >>> from otel_train.mixing import SourceMeter, pack_tag
        >>> meter = SourceMeter({"code": 1, "prose": 3})
        >>> meter.count_tags([pack_tag("code", tokens=5), pack_tag("prose", tokens=7)])
        >>> meter.drain_step_metrics()["stream_mixing/tokens/prose"]
        7.0

    Args:
        source: The name of the source.
        tokens: Number of tokens in the row.
        repeat: Number of the pass over the source, from 0.

    Raises:
        ConfigurationError: A number is not a whole one, is negative, or there are too many tokens for one row.
    """
    return _packed(source_code(source), tokens, repeat)


def _packed(code: int, tokens: int, repeat: int) -> int:
    if not 0 <= tokens <= MAX_TOKENS:
        raise ConfigurationError(f"tokens of a row must be 0 to {MAX_TOKENS}, got {tokens}; tag smaller rows")
    if repeat < 0:
        raise ConfigurationError(f"repeat must be the number of the pass, from 0, got {repeat}")
    return code << CODE_SHIFT | repeat % REPEATS << REPEAT_SHIFT | tokens


@dataclass(frozen=True, slots=True)
class Tag:
    """Adds the tag of one source to a row; `SourceMeter.tag` makes it. It can be pickled, for worker processes.

    Examples:
        >>> import otel_train
        >>> meter = otel_train.SourceMeter({"code": 1})
        >>> tag = meter.tag("code", tokens="ids")
        >>> sorted(tag({"ids": [1, 2, 3]}))
        ['ids', 'otel_train']

    Args:
        source: The name of the source.
        tokens: Where the row has its tokens: their number, or something that has a length or a shape.
        repeat: Where it has the number of the pass over the source, from 0.
        sample: Where it has a key that distinguishes it from all other rows of the source.
    """

    source: str
    tokens: Field | None = None
    repeat: Field | None = None
    sample: Field | None = None

    def __call__(self, row: Any) -> Any:
        """Return a row with its tag: a copy of a mapping with one key more, or a `Tagged` of anything else.

        A tag that the row has already is replaced. None stays None: by that a dataset says that it has no such row.

        Raises:
            ConfigurationError: The row lacks a value that the tag was told of, or it is not of the kind that is needed.
        """
        if row is None:
            return None
        bare = row.sample if isinstance(row, Tagged) else row
        tokens = 0 if self.tokens is None else _number_of_tokens(self._value(bare, "tokens", self.tokens))
        repeat = 0 if self.repeat is None else _whole("repeat", self._value(bare, "repeat", self.repeat))
        word = _packed(source_code(self.source), tokens, repeat)
        sample = PADDING
        if self.sample is not None:
            sample = sample_code((self.source, _plain(self._value(bare, "sample", self.sample))))
        if not isinstance(bare, Mapping):
            return Tagged(sample=bare, otel_train=word, otel_train_sample=sample)
        if TAG_KEY in bare and isinstance(bare[TAG_KEY], str | bytes | float | bool | Mapping):
            raise ConfigurationError(
                f"a row of {self.source!r} has {TAG_KEY!r} = {bare[TAG_KEY]!r:.{MAX_SHOWN}}, which is no tag; "
                "rename it: the tag has that key"
            )
        values = {TAG_KEY: word} if self.sample is None else {TAG_KEY: word, SAMPLE_KEY: sample}
        if type(bare) is not dict and isinstance(bare, MutableMapping):
            tagged = copy.copy(bare)
            try:
                tagged.update(values)
            except Exception:  # noqa: BLE001  # it takes no number: a TensorDict of several elements
                return Tagged(sample=bare, otel_train=word, otel_train_sample=sample)
            return tagged
        return {**bare, **values}

    def _value(self, row: Any, name: str, field: Field) -> Any:
        try:
            if callable(field):
                return field(row)
            if isinstance(row, Mapping) or isinstance(field, int):
                return row[field]
            return getattr(row, field)
        except Exception as error:
            keys = f"; it has {', '.join(map(str, row))}"[:200] if isinstance(row, Mapping) else ""
            raise ConfigurationError(
                f"a row of {self.source!r} has no {field!r:.{MAX_SHOWN}}, which tag({name}=…) names "
                f"({type(error).__name__}: {error!s:.{MAX_SHOWN}}){keys}"
            ) from error


def _plain(value: Any) -> Any:
    """Return a tensor's or an array's one number as a number: its `repr` is not its value's."""
    item = getattr(value, "item", None)
    return item() if item is not None and math.prod(getattr(value, "shape", ())) == 1 else value


def _number_of_tokens(value: Any) -> int:
    """Return a number of tokens, or how many there are in a list or a tensor of them."""
    shape = getattr(value, "shape", None)
    if shape:
        return math.prod(shape)
    if hasattr(value, "__len__") and shape is None and not isinstance(value, str | bytes | Mapping):
        return len(value)
    return _whole("tokens", value)


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value if not isinstance(value, bool) else None)  # type: ignore[arg-type]
    except TypeError as error:
        raise ConfigurationError(
            f"{name} of a row must be a whole number, got {value!r:.{MAX_SHOWN}}; give a function of the row"
        ) from error
