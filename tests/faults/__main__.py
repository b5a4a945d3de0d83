"""Build what the fault tests run, before their time is bounded: the collector, and the programs of other SDKs."""

from __future__ import annotations

from tests.support import sdk_senders as senders
from tests.support import stack_programs as programs

if __name__ == "__main__":
    programs.collector()
    senders.build_programs()
