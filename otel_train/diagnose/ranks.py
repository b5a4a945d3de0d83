"""Find the rank that a job hangs on, and those that died, failed or never started."""

from __future__ import annotations

import signal
from array import array
from collections.abc import Sequence

from otel_train.catalogue import Phase, rows
from otel_train.diagnose.finding import Finding, Severity
from otel_train.number_text import counted
from otel_train.read.curve_points import median_of
from otel_train.read.history import History
from otel_train.read.rank_ring import RankState, RankStatus

STILL = 5.0
"""Seconds without a step below which no rank counts as hanging."""
TIMES_USUAL = 10.0
"""A step that takes so many times the usual one may hang ..."""
TIMES_LONGEST = 2.0
"""... if it also takes so many times the longest that was seen (a checkpoint, an evaluation)."""
MOST_RANKS = 1 << 20
"""Bound on a job's ranks, whatever a ring claims."""
_DIED = 128 + signal.SIGKILL
"""Exit code that stands for each end without a word."""
_SIGNALS = frozenset(signal.Signals.__members__)
_NAMES = {int(number): number.name for number in signal.Signals} | {int(signal.SIGINT): "KeyboardInterrupt"}
"""Name of what ended a process, by its exit code less 128."""
_KILLED = "it was killed (out of memory, a signal, its node) or crashed"
_AFTER_KILL = "Look at dmesg for the OOM killer and at the end of its log; start the job from its last checkpoint."
_NAMED = 8
"""Ranks that are named at most."""
_WHERE = {
    Phase.DATA: "in data wait",
    Phase.COMPUTE: "in its own code or a collective of the job's",
    Phase.LEDGER: "in a ledger exchange",
    Phase.REDUCTION: "in telemetry's reduction",
    Phase.ENDED: "in a session that has ended",
    None: "in a phase that this release does not have",
}
_REMEDIES = {
    Phase.DATA: "Look at its loader: py-spy dump --pid PID shows what it reads; its storage or a worker may hang.",
    Phase.COMPUTE: "Look at its stack (py-spy dump --pid PID): its own code, a device, a collective the others miss.",
}


def find_ranks(states: Sequence[RankState], history: History, now_ns: int) -> list[Finding]:
    """Return whether the ranks whose rings are here go on and, if not, on which of them the job hangs.

    Args:
        states: The present states of the ranks.
        history: The run, for the usual time of a step.
        now_ns: The present time, nanoseconds since the epoch.
    """
    findings = _never_started(states, history)
    dead = [state for state in states if state.status is RankStatus.DIED]
    if dead:
        findings.append(_died(dead, states, now_ns))
    failed = [state for state in states if state.status is RankStatus.FAILED]
    if failed:
        findings.append(_failed(failed, states, now_ns))
    live = [state for state in states if state.status is RankStatus.LIVE]
    limit = patience(history)
    still = [state for state in live if now_ns - state.step_time_ns > limit * 1e9]
    if still:
        findings.append(_hangs(still, states, limit, now_ns))
    if findings:
        return findings
    newest = max(state.step for state in states)
    if not live:
        return [Finding(check="ranks", severity=Severity.OK, summary=f"all {len(states)} have ended, at step {newest}")]
    return [Finding(check="ranks", severity=Severity.OK, summary=f"{len(live)} go on, at step {newest}")]


def find_end(history: History) -> list[Finding]:
    """Return how the job ended, where a source tells its exit code that has no states of the ranks."""
    code, newest = history.exit_code, max(history.cluster.steps, default=0)
    if code is None:
        return []
    if code == 0:
        return [Finding(check="ranks", severity=Severity.OK, summary=f"the job has ended, at step {newest}")]
    died, name = code == _DIED, _NAMES.get(code - 128, f"exit code {code}")
    severity, cause, remedy = (Severity.CRITICAL, _KILLED, _AFTER_KILL) if died else _why([name])
    return [
        Finding(
            check="ranks",
            severity=severity,
            summary="the job ended without a word" if died else f"the job ended after step {newest} with {name}",
            since_step=newest,
            rank=history.failed_rank,
            cause=cause,
            remedy=remedy,
        )
    ]


def patience(history: History) -> float:
    """Return the seconds that a rank of this run may take for a step before it counts as hanging."""
    durations = all_durations(history)
    log_every = history.facts.get("telemetry.log_every", 1)
    if not durations:
        return STILL
    longest = max(durations) * (log_every if isinstance(log_every, int) else 1)
    return max(STILL, TIMES_USUAL * median_of(durations), TIMES_LONGEST * longest)


def all_durations(history: History) -> array[float]:
    """Return the seconds of each rank's steps, rank after rank, float64."""
    durations = array("d")
    for track in history.ranks.values():
        durations.extend(track.finite_values(rows.STEP_DURATION.wandb_key))
    return durations


def _never_started(states: Sequence[RankState], history: History) -> list[Finding]:
    """Return the ranks of this node that have no ring: a ring is made at the first step."""
    expected = history.facts.get("job.local_world_size")
    here = {state.identity.rank for state in states}
    if not isinstance(expected, int) or isinstance(expected, bool) or not len(here) < expected < MOST_RANKS:
        return []
    first = min(state.identity.rank - state.identity.local_rank for state in states)
    absent = [rank for rank in range(first, first + expected) if rank not in here]
    return [
        Finding(
            check="ranks",
            severity=Severity.CRITICAL,
            summary=f"{ranks_text(absent)} never ended a step: of {expected} on this node {len(here)} have",
            rank=absent[0] if absent else None,
            cause="the process never started, has died, or waits before its first step",
            remedy="Look at its log and at torchrun's: an exception, too little memory, a rendezvous that waits.",
        )
    ]


def _died(dead: Sequence[RankState], states: Sequence[RankState], now_ns: int) -> Finding:
    first = min(dead, key=lambda state: state.step_time_ns)
    ranks = ranks_text([state.identity.rank for state in dead])
    rest = sum(state.status is RankStatus.LIVE for state in states)
    return Finding(
        check="ranks",
        severity=Severity.CRITICAL,
        summary=f"the process of {ranks} is gone without having ended its session"
        + (f", while {rest} others are there" if rest else ""),
        since_step=first.step,
        rank=first.identity.rank,
        evidence=tuple(_line(state, now_ns) for state in _shown(dead)),
        cause=_KILLED,
        remedy=_AFTER_KILL,
    )


def _failed(failed: Sequence[RankState], states: Sequence[RankState], now_ns: int) -> Finding:
    """Return the ranks that an exception or a signal ended, and name the first: the others' mostly follow from it."""
    raised = [state for state in failed if state.error not in _SIGNALS]  # launchers end the others by a signal
    first = min(raised or failed, key=lambda state: state.step_time_ns)
    errors = sorted({state.error for state in failed})
    severity, cause, remedy = _why(errors, f"rank {first.identity.rank}'s")
    rest = len(states) - len(failed)
    return Finding(
        check="ranks",
        severity=severity,
        summary=f"{ranks_text([state.identity.rank for state in failed])} ended after step {first.step} with "
        + " or ".join(errors[:_NAMED])
        + (f", {rest} others without" if rest else ""),
        since_step=first.step,
        rank=first.identity.rank,
        evidence=tuple(f"{_line(state, now_ns)}; it ended with {state.error}" for state in _shown(failed)),
        cause=cause,
        remedy=remedy,
    )


def _why(errors: Sequence[str], whose: str = "its") -> tuple[Severity, str, str]:
    """Return how bad it is that ranks ended with these, why they did, and what to do; and whose log tells more."""
    again = "Start the job from its last checkpoint."
    if errors == ["KeyboardInterrupt"]:
        return Severity.WARNING, "somebody interrupted the job", again
    if _SIGNALS.issuperset(errors):
        return (
            Severity.CRITICAL,
            "a scheduler (time limit, pre-emption), the launcher after another rank's end, or somebody has ended it",
            f"Look at the scheduler's and the launcher's log. {again}",
        )
    return (
        Severity.CRITICAL,
        "its code raised it, and nothing caught it in time",
        f"Look at the traceback at the end of {whose} log; start from the last checkpoint.",
    )


def _hangs(still: Sequence[RankState], states: Sequence[RankState], limit: float, now_ns: int) -> Finding:
    """Return the rank that is waited for: one that is behind or, of those at one step, one that waits for nobody."""
    suspects = culprits(still)
    ended = [state for state in states if state.status is not RankStatus.LIVE]
    others = [state for state in still if state not in suspects]
    shown = _shown([*suspects, *others])
    evidence = [_line(state, now_ns) for state in shown]
    evidence.append(f"a step of this run should end within {limit:.0f} s")
    if not suspects:
        where = sorted({_WHERE[state.phase] for state in still})
        cause = (
            f"they wait for {ranks_text([state.identity.rank for state in ended])}, which has left"
            if ended
            else "the exchange itself hangs (network), or a rank on another node is waited for"
        )
        return Finding(
            check="ranks",
            severity=Severity.CRITICAL,
            summary=f"the job hangs at step {max(state.step for state in still) + 1}: each rank here is "
            + " or ".join(where),
            since_step=max(state.step for state in still),
            evidence=tuple(evidence),
            cause=cause,
            remedy="Look at the other nodes' ranks with otel-train doctor, and at the network between them.",
        )
    first = suspects[0]
    rank, ahead = first.identity.rank, max(state.step for state in states) - first.step
    behind = f"{counted(ahead, 'step')} behind and " if ahead else ""
    doing = "stopped (SIGSTOP or a debugger)" if first.stopped else _WHERE[first.phase]
    also = f" (and {ranks_text([state.identity.rank for state in suspects[1:]])})" if suspects[1:] else ""
    summary = f"rank {rank}{also} is {behind}stuck after step {first.step}: {doing} since {_since(first, now_ns)}"
    if others:
        waiting = sorted({_WHERE[state.phase] for state in others})
        summary += f"; {ranks_text([state.identity.rank for state in others])}: {' or '.join(waiting)}"
    pid = str(first.pid) if first.pid else "PID"
    remedy = (
        f"Let it go on: kill -CONT {pid}."
        if first.stopped
        else _REMEDIES.get(first.phase or Phase.COMPUTE, _REMEDIES[Phase.COMPUTE]).replace("PID", pid)
    )
    return Finding(
        check="ranks",
        severity=Severity.CRITICAL,
        summary=summary,
        since_step=first.step,
        rank=rank,
        evidence=tuple(evidence),
        cause="its process is stopped" if first.stopped else _cause(first.phase),
        remedy=remedy,
    )


def culprits(still: Sequence[RankState]) -> list[RankState]:
    """Return the ranks that the others wait for; empty where all of them wait.

    A stopped process first; then those at the oldest step that wait for nobody: for data, or in code of their own. A
    step begins with its data, so of those at the same step one that waits for data has come less far.
    """
    stopped = [state for state in still if state.stopped]
    if stopped:
        return stopped
    oldest = min(state.step for state in still)
    behind = [state for state in still if state.step == oldest]
    for phase in (Phase.DATA, Phase.COMPUTE):
        suspects = [state for state in behind if state.phase is phase]
        if suspects:
            return suspects
    return behind if len(behind) < len(still) else []


def _cause(phase: Phase | None) -> str:
    if phase is Phase.DATA:
        return "its loader hangs"
    if phase is Phase.COMPUTE:
        return "its own code hangs, or waits in a collective that another rank does not call"
    return "the exchange that it is in does not end: another rank left it, or the network hangs"


def _line(state: RankState, now_ns: int) -> str:
    """Return a rank's state in one line."""
    lives = "lives" if state.lives else "is gone"
    if state.stopped:
        lives = "is stopped"
    pid = f" (pid {state.pid})" if state.pid else ""
    ago = max(0.0, (now_ns - state.step_time_ns) / 1e9)
    return (
        f"rank {state.identity.rank} on {state.identity.host or 'this node'}{pid}: step {state.step} ended {ago:.0f} s "
        f"ago, {_WHERE[state.phase]} since {_since(state, now_ns)}; its process {lives}"
    )


def _since(state: RankState, now_ns: int) -> str:
    # A rank that has entered no phase yet has been in its own code since its last step.
    began = max(state.phase_time_ns, state.step_time_ns) if state.phase is Phase.COMPUTE else state.phase_time_ns
    return f"{max(0.0, (now_ns - began) / 1e9):.0f} s"


def _shown(states: Sequence[RankState]) -> Sequence[RankState]:
    return states[:_NAMED]


def ranks_text(ranks: Sequence[int]) -> str:
    """Return ranks in words."""
    named = ", ".join(map(str, ranks[:_NAMED])) + (f" and {len(ranks) - _NAMED} more" if len(ranks) > _NAMED else "")
    return f"rank {named}" if len(ranks) == 1 else f"ranks {named}"
