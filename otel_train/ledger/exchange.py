"""Carry rows between ranks: all-to-all-v, with the counts exchanged first."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
import torch.distributed as dist

from otel_train.arguments import check_ranks_meet
from otel_train.exceptions import ConfigurationError, ShapeMismatchError
from otel_train.ledger.byte_buffer import ByteBuffer
from otel_train.ledger.int_buffer import IntBuffer
from otel_train.stable_hash import stable_hash

_COUNTED = 3
"""Numbers that a rank sends to each: how many rows will come, the code of its call, whether its keys are repeated."""
_TEXT_BYTES = 512
"""Bytes of a rank's message when an exchange can't be made."""


class Exchange:
    """The exchanges of one ledger. Every method is a collective over the group; with one rank nothing is sent.

    Args:
        process_group: The ranks that share the ledger; None for all of torch.distributed, or for one rank without it.
        device: Device of the states.

    Raises:
        ConfigurationError: A group was given that this rank is not in, or without torch.distributed; or none was given
            and the launcher's ranks have not met.
    """

    def __init__(self, process_group: dist.ProcessGroup | None, device: torch.device) -> None:
        self.rank, self.world_size = 0, 1
        self._device = torch.device("cpu")
        self._group = process_group
        self._codes: dict[str, int] = {}
        self._own_counts, self._their_counts = IntBuffer(), IntBuffer()
        self._incoming = ByteBuffer()
        if not (dist.is_available() and dist.is_initialized()):
            if process_group is not None:
                raise ConfigurationError("process_group was given, but torch.distributed is not initialised")
            check_ranks_meet("StateLedger", "set WORLD_SIZE=1 where each process has a ledger of its own")
            return
        if dist.get_rank(process_group) < 0:
            raise ConfigurationError("process_group does not contain this rank; make the ledger on its ranks only")
        backends = dist.get_backend_config(process_group)
        if "fake" in backends:  # a dry run of one rank: nothing comes from the others
            return
        self.rank, self.world_size = dist.get_rank(process_group), dist.get_world_size(process_group)
        if "nccl" in backends and (device.type == "cuda" or "gloo" not in backends):
            self._device = device if device.type == "cuda" else torch.device("cuda", torch.cuda.current_device())

    def agree(
        self, sends: Sequence[int], call: str, problem: str = "", *, repeated: bool = False
    ) -> tuple[list[int], bool]:
        """Send each rank the number of rows that will come to it, or raise on every rank.

        Beside its count goes a code for the call that this rank is about to make, 0 where it can't: so each rank
        knows at no cost whether all of them make the same call.

        Args:
            sends: Number of rows that this rank will send to each.
            call: Name of what is exchanged; must be the same on all ranks.
            problem: Reason why this rank can't take part; empty when it can.
            repeated: Whether this rank's keys are those that it sent in the call before.

        Returns:
            The number of rows that each rank will send to this one, and whether the keys of all ranks are repeated; the
            latter is the same on each of them.

        Raises:
            ShapeMismatchError: A rank, which the message names, has a problem or makes another call.
        """
        if self.world_size == 1:
            self.check_alone(problem)
            return list(sends), False
        code = 0 if problem else self._code_of(call)
        own, theirs, size = self._own_counts, self._their_counts, _COUNTED * self.world_size
        numbers = own.resize(size)
        numbers[:size:_COUNTED] = array("q", sends)
        numbers[1:size:_COUNTED] = array("q", [code]) * self.world_size
        numbers[2:size:_COUNTED] = array("q", [repeated]) * self.world_size
        theirs.resize(size)
        if self._device.type == "cpu":
            dist.all_to_all_single(theirs.tensor, own.tensor, group=self._group)
        else:
            on_device = own.tensor.to(self._device)
            dist.all_to_all_single(arrived := torch.empty_like(on_device), on_device, group=self._group)
            theirs.fill(arrived)
        received = theirs.numbers[:size]
        if problem or received[1::_COUNTED].count(code) < self.world_size:
            self._raise_together(call, problem)
        return received[::_COUNTED].tolist(), all(received[2::_COUNTED])

    def check_alone(self, problem: str) -> None:
        """Raise the problem of the only rank, where it has one.

        Raises:
            ShapeMismatchError: It has.
        """
        if problem:
            raise ShapeMismatchError(problem)

    def _code_of(self, call: str) -> int:
        if call not in self._codes:
            self._codes[call] = stable_hash(call)
        return self._codes[call]

    def _raise_together(self, call: str, problem: str) -> None:
        text = (f"!{problem}" if problem else f"={call}").encode()[:_TEXT_BYTES]
        own = torch.zeros(_TEXT_BYTES, dtype=torch.uint8, device="cpu")
        own[: len(text)] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
        gathered = [torch.empty_like(own, device=self._device) for _ in range(self.world_size)]
        dist.all_gather(gathered, own.to(self._device), group=self._group)
        texts = [bytes(part.tolist()).rstrip(b"\0").decode(errors="replace") for part in gathered]
        for rank, message in enumerate(texts):
            if message.startswith("!"):
                raise ShapeMismatchError(f"rank {rank} of the ledger: {message[1:]}")
        rank = next(rank for rank, message in enumerate(texts) if message != texts[0])
        raise ShapeMismatchError(
            f"rank {rank} of the ledger makes a {texts[rank][1:]}, rank 0 a {texts[0][1:]}; "
            "all ranks must make the same calls, of ledgers with the same state_shape and dtype"
        )

    def swap(self, rows: torch.Tensor, sends: list[int], receives: list[int]) -> torch.Tensor:
        """Send rows to their ranks and return those that come.

        Args:
            rows: Keys, int64 [sum(sends)], or states, uint8 [sum(sends), bytes], sorted by rank.
            sends: Number of rows that go to each rank.
            receives: Number of rows that come from each.

        Returns:
            [sum(receives)] or [sum(receives), bytes] by rank, with the dtype and device of `rows`; states are there
            until the next call.
        """
        if self.world_size == 1:
            return rows
        own = rows.to(self._device)
        if rows.dtype == torch.uint8:
            theirs = self._incoming.rows(sum(receives), rows.shape[1], self._device)
        else:
            theirs = own.new_empty(sum(receives))
        dist.all_to_all_single(theirs, own, receives, sends, group=self._group)
        return theirs.to(rows.device)
