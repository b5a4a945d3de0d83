"""Hash names and numbers to 64 bits that are the same on every rank, in every run and every Python."""

from __future__ import annotations

import hashlib
import operator

from otel_train.exceptions import ShapeMismatchError
from otel_train.splitmix import INCREMENT, mix, signed


def stable_hash(stream_id: str | int) -> int:
    """Return the key of a stream id.

    A string is hashed by BLAKE2b to 8 bytes: two of a million strings share a key with a probability of 3e-8. An
    integer goes through the step and finaliser of SplitMix64, a bijection: no two integers share a key.

    Examples:
        >>> from otel_train.ledger import stable_hash
        >>> stable_hash("doc-17") % 8                          # the rank of eight that owns it
        6

    Args:
        stream_id: A string, or an integer that fits in an int64; one of NumPy's, or a tensor of one, is as good.

    Returns:
        The key, in the range of a signed int64.

    Raises:
        ShapeMismatchError: It is neither.
    """
    if isinstance(stream_id, str):
        digest = hashlib.blake2b(stream_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest, "little", signed=True)
    if type(stream_id) is not int or not -(2**63) <= stream_id < 2**63:
        stream_id = _checked_number(stream_id)
    return signed(mix(stream_id + INCREMENT))


def _checked_number(stream_id: object) -> int:
    try:
        number = operator.index(stream_id if not isinstance(stream_id, bool) else None)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001  # whatever it raises, it is not a number
        number = 2**63
    if not -(2**63) <= number < 2**63:
        raise ShapeMismatchError(
            f"a stream id must be a str or an int of 64 bits, got {type(stream_id).__name__} {stream_id!r:.80}; "
            "use a name or a number"
        )
    return number
