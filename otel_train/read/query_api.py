"""Ask the query API of a Prometheus, or of a store that answers as one."""

from __future__ import annotations

import json
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

from otel_train.endpoint import Endpoint
from otel_train.read.history import SourceError

MAX_ANSWER = 256 * 2**20
TIMEOUT = 30.0

Sample = tuple[int, float]
"""Milliseconds since the epoch, value."""


@dataclass(frozen=True, slots=True)
class QueryApi:
    """The query API of a Prometheus, or of a store that answers as one.

    Args:
        url: Its address, without `/api/v1`.
        timeout: Seconds that an answer may take.
    """

    url: str
    timeout: float = TIMEOUT

    def get(self, path: str, **parameters: str | float) -> Any:
        """Return the data of an answer.

        Raises:
            SourceError: There is none.
        """
        address = f"{self.url.rstrip('/')}/api/v1/{path}"
        # VictoriaMetrics leaves the newest 30 s out where its cache may be used; others do not know the parameter.
        body = urllib.parse.urlencode({**parameters, "nocache": 1}).encode()
        try:
            # POST: a selector of many names is longer than an address may be.
            with self._opener().open(address, data=body, timeout=self.timeout) as answer:
                data = answer.read(MAX_ANSWER + 1)
        except urllib.error.HTTPError as error:
            raise SourceError(f"{address}: {error.code} {_reason(error)}") from error
        except (OSError, ValueError) as error:
            raise SourceError(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from error
        if len(data) > MAX_ANSWER:
            raise SourceError(f"{address} answers with more than {MAX_ANSWER} bytes; ask about a shorter run")
        try:
            content = json.loads(data)
            if content["status"] == "success":
                return content["data"]
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(f"{address} is not a Prometheus: it answers {data[:80]!r}") from error
        raise SourceError(f"{address}: {content.get('error', 'it refuses')!s:.200}")

    def _opener(self) -> urllib.request.OpenerDirector:
        """Return what opens addresses: a proxy of the environment can't reach this machine's own ones."""
        host = urllib.parse.urlsplit(self.url).hostname or ""
        proxies: dict[str, str] | None = {} if Endpoint(host=host).loopback else None
        return urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    def samples(self, selector: str, window: int, at: float) -> list[tuple[dict[str, str], list[Sample]]]:
        """Return the samples of each series, with their own times: of those at one time the first.

        A store without deduplication, as VictoriaMetrics is by default, has a sample once for each time that it came.
        """
        series = []
        for labels, samples in self.raw_samples(selector, window, at):
            once: dict[int, float] = {}
            for when, value in samples:
                once.setdefault(when, value)
            series.append((labels, list(once.items())))
        return series

    def raw_samples(self, selector: str, window: int, at: float) -> list[tuple[dict[str, str], list[Sample]]]:
        """Return the samples of each series as the store has them, with their own times."""
        answer = self.get("query", query=f"{selector}[{window}s]", time=at)
        return [
            (series["metric"], [(round(float(when) * 1000), float(value)) for when, value in series.get("values", ())])
            for series in answer["result"]
        ]


def _reason(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.loads(error.read(MAX_ANSWER))["error"])[:200]
    except (ValueError, KeyError, TypeError, OSError):
        return str(error.reason)
