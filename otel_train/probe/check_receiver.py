"""Check a receiver by what it answers, and by what its store has kept: a finding for each setting."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass

from otel_train.diagnose.finding import Finding, Severity
from otel_train.endpoint import Endpoint
from otel_train.otlp.answers import TAKEN, UNREADABLE, Answer, Verdict
from otel_train.otlp.connection import connect
from otel_train.probe.judge_store import judge_older_points, judge_repetition, judge_store
from otel_train.probe.kept_points import Store, first_store
from otel_train.probe.probe_run import ProbeRun
from otel_train.probe.receiver_address import alternatives, query_addresses, receiver_endpoint, settings_of, speaks_tls

GZIP = "gzip"
LONGEST_SEARCH = 10.0
"""Seconds after which no further protocol or path is tried."""
_FOREIGN = (
    "See what answers there: it says success in words of its own, and sidecars take it at its word. Where it is no "
    "receiver, what they send is lost: name the receiver's address in OTEL_EXPORTER_OTLP_ENDPOINT"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiverCheck:
    """Result of a receiver's check."""

    endpoint: Endpoint
    """Receiver that took the points, else the one that was given."""
    run: ProbeRun
    query: str
    """Address that was asked what is kept; empty where nothing was."""
    findings: tuple[Finding, ...]


def check_receiver(url: str = "", query: str = "", environ: Mapping[str, str] = os.environ) -> ReceiverCheck:
    """Send a receiver a few points, ask its store for them, and return what is wrong with its settings.

    Args:
        url: The receiver's address; empty for that of the standard's variables, which say the rest in any case.
        query: Address of what answers PromQL for its store; empty to derive it from the receiver's.
        environ: The environment.

    Raises:
        ConfigurationError: The address or a variable does not hold what it must, or `query` does not answer.
    """
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # it logs each request that fails
    endpoint, run = receiver_endpoint(url, environ), ProbeRun()
    if query:
        Store(query).check()
    reached, first, finding = _reach(endpoint, url or environ.get(endpoint.variable, ""), run)
    if not first.taken:
        return ReceiverCheck(endpoint=endpoint, run=run, query="", findings=(finding,))
    answers = _send(reached, run)
    store = Store(query) if query else first_store(query_addresses(reached))
    kept = store.read_back(run, _expected_times(run, answers)) if store is not None else None
    findings = (
        finding,
        *_judge_rejections([first, *answers.all()]),
        _judge_compression(endpoint, answers.compressed),
        judge_repetition(run, answers.repeated, kept),
        judge_older_points(run, answers.older, kept),
        *judge_store(run, kept, store.url if store is not None else ""),
    )
    return ReceiverCheck(endpoint=reached, run=run, query=store.url if store is not None else "", findings=findings)


@dataclass(frozen=True, slots=True)
class _Answers:
    """Answers to the requests after the first."""

    repeated: Answer
    compressed: Answer
    special: Answer
    older: Mapping[int, Answer]
    """By the age of the point, in seconds."""

    def all(self) -> list[Answer]:
        """Return them."""
        return [self.repeated, self.compressed, self.special, *self.older.values()]


def _ask(endpoint: Endpoint, *bodies: bytes) -> list[Answer]:
    """Send requests over a connection of their own, and return the answers."""
    connection = connect(endpoint)
    try:
        return [connection.send(body, endpoint.timeout) for body in bodies]
    finally:
        connection.close()


def _reach(endpoint: Endpoint, url: str, run: ProbeRun) -> tuple[Endpoint, Answer, Finding]:
    """Return the way in which the receiver takes points, its answer, and what is to be set for it."""
    (answer,) = _ask(endpoint, run.steps())
    if answer.verdict in (Verdict.COMPRESSION, Verdict.DATA) and endpoint.compression != "none":
        plain = endpoint._replace(compression="none")
        (second,) = _ask(plain, run.steps())
        if answer.verdict is Verdict.COMPRESSION or second.taken:
            endpoint, answer = plain, second
    if answer.taken:
        if answer.cause == UNREADABLE:
            return endpoint, answer, _critical("receiver", f"{endpoint} does not speak OTLP", (answer.text,), _FOREIGN)
        return endpoint, answer, Finding(check="receiver", severity=Severity.OK, summary=f"{endpoint} takes points")
    summary = f"{endpoint} answers {answer.cause}"
    evidence = (answer.text,) if answer.text else ()
    if answer.cause in ("UNAUTHENTICATED", "PERMISSION_DENIED", "HTTP 401", "HTTP 403"):
        return endpoint, answer, _critical("credentials", summary, evidence, answer.advice)
    other = None if _is_about_tls(answer) else _other_way(endpoint, url, run)
    if other is None:
        return endpoint, answer, _critical("receiver", summary, evidence, _remedy(answer, endpoint))
    summary = f"{summary}; it takes points as {other}"
    return other, TAKEN, _critical("receiver", summary, evidence, f"Set {settings_of(other)}")


def _other_way(endpoint: Endpoint, url: str, run: ProbeRun) -> Endpoint | None:
    """Return another protocol or path by which the same port takes points; None where there is none."""
    deadline = time.monotonic() + LONGEST_SEARCH
    if not endpoint.listens:
        return None
    for other in alternatives(endpoint, url):
        (answer,) = _ask(other, run.steps())
        if answer.taken and answer.cause != UNREADABLE:
            return other
        if time.monotonic() > deadline:
            break
    return None


def _critical(check: str, summary: str, evidence: tuple[str, ...], remedy: str) -> Finding:
    return Finding(check=check, severity=Severity.CRITICAL, summary=summary, evidence=evidence, remedy=remedy)


def _is_about_tls(answer: Answer) -> bool:
    """Tell whether the certificate, or the endpoint's scheme, is at fault: for each protocol and path alike."""
    return "OTEL_EXPORTER_OTLP_CERTIFICATE" in answer.advice or "OTEL_EXPORTER_OTLP_INSECURE" in answer.advice


def _remedy(answer: Answer, endpoint: Endpoint) -> str:
    if answer.verdict is Verdict.WAIT and not endpoint.secure and endpoint.listens and speaks_tls(endpoint):
        return "It speaks TLS: begin the endpoint with https://"
    if "enable-otlp-receiver" in answer.text or "otlp write receiver" in answer.text.lower():
        return "Start Prometheus with --web.enable-otlp-receiver"
    if not answer.advice and answer.unanswered and endpoint.listens:
        return "It takes connections and does not answer: see what it does, and what is between"
    return answer.advice or "See the receiver's log, and whether the endpoint names the receiver that you mean"


def _send(endpoint: Endpoint, run: ProbeRun) -> _Answers:
    """Send what a job would send in the course of time: a repetition, compressed points, and ever older ones."""
    (compressed,) = _ask(endpoint._replace(compression=GZIP), run.value(run.compressed_time))
    bodies = [run.value(time_ms) for time_ms in run.older_times.values()]
    repeated, special, *older = _ask(endpoint, run.steps(), run.special_values(), *bodies)
    return _Answers(repeated, compressed, special, dict(zip(run.older_times, older, strict=True)))


def _expected_times(run: ProbeRun, answers: _Answers) -> set[int]:
    """Return the times of all points that the receiver says it has taken."""
    times = {*run.step_times}
    if answers.compressed.taken:
        times.add(run.compressed_time)
    if answers.special.taken:
        times |= {*run.special_times.values()}
    return times | {run.older_times[age] for age, answer in answers.older.items() if answer.taken}


def _judge_rejections(answers: list[Answer]) -> list[Finding]:
    """Return what a receiver took only in part, though no point of the check breaks a rule."""
    rejected = sum(answer.rejected for answer in answers)
    if not rejected:
        return []
    texts = dict.fromkeys(answer.text for answer in answers if answer.rejected)
    return [
        Finding(
            check="partial success",
            severity=Severity.WARNING,
            summary=f"{rejected} points are rejected, in requests that are taken otherwise",
            evidence=tuple(text for text in texts if text),
            remedy="Change what the receiver's own words name: sidecars don't repeat such points, they count them",
        )
    ]


def _judge_compression(endpoint: Endpoint, answer: Answer) -> Finding:
    """Return whether gzip is taken, which is a note where nobody has asked for it."""
    if answer.taken:
        return Finding(check="gzip", severity=Severity.OK, summary="gzip is taken")
    asked = endpoint.compression == GZIP
    return Finding(
        check="gzip",
        severity=Severity.NOTE,
        summary=f"gzip is not taken: {answer.cause}",
        evidence=(answer.text,) if answer.text else (),
        remedy="Unset OTEL_EXPORTER_OTLP_COMPRESSION; until then sidecars notice, and send without"
        if asked
        else "Leave OTEL_EXPORTER_OTLP_COMPRESSION unset, as it is",
    )
