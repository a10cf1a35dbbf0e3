"""What Prometheus reads, after real work: a whole gateway, its database, a receiver and streams on loopback."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from gateway.app import Gateway
from gateway.filters import Filter
from gateway.http.frames import SseEncoding
from gateway.keys import Scope
from gateway.settings import Settings
from gateway.streams.sinks import NOWHERE, End
from gateway.streams.starting import Since
from gateway.streams.streaming import Wish
from gateway.times import parse_rfc3339
from tests.http.conftest import Api
from tests.sending.receivers import OK, answering, receiving
from tests.until import until

ADMIN = "correct-horse-battery"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
REFUSES = answering(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n")


class Samples:
    """A scrape, read as Prometheus reads it."""

    def __init__(self, text: str) -> None:
        self.families = {family.name: family for family in text_string_to_metric_families(text)}
        self.values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in self.families.values()
            for sample in family.samples
        }

    def __getitem__(self, name: str) -> float:
        return self.of(name)

    def of(self, name: str, **labels: str) -> float:
        return self.values.get((name, frozenset(labels.items())), 0.0)

    def labels(self) -> Mapping[str, set[str]]:
        found: dict[str, set[str]] = {}
        for _, labels in self.values:
            for label, value in labels:
                found.setdefault(label, set()).add(value)
        return found


@asynccontextmanager
async def working(folder: Path, **settings: Any) -> AsyncIterator[tuple[Gateway, httpx.AsyncClient]]:
    gateway = Gateway(
        Settings(
            database_url=f"sqlite:///{folder}/gateway.db",
            admin_key=SecretStr(ADMIN),
            destination_allow=["127.0.0.0/8"],
            **settings,
        )
    )
    app: Any = gateway.app  # Litestar and httpx type ASGI each in their own way
    headers = {"authorization": f"Bearer {ADMIN}"}
    transport = httpx.ASGITransport(app)
    async with gateway.running(), httpx.AsyncClient(transport=transport, base_url="http://g", headers=headers) as http:
        yield gateway, http


async def scrape(http: httpx.AsyncClient) -> Samples:
    answer = await http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return Samples(answer.text)


async def publish(http: httpx.AsyncClient, type_: str = "document.added", **fields: Any) -> None:
    answer = await http.post("/v1/events", json={"type": type_, "library_id": "books", "data": {}, **fields})
    assert answer.status_code in {200, 202}


async def reached(http: httpx.AsyncClient, path: str, field: str, value: int) -> dict[str, Any]:
    """Wait until *field* of what *path* answers is *value*."""
    async with asyncio.timeout(20):
        while True:
            found: dict[str, Any] = (await http.get(path)).json()
            if found["counts"][field] == value:
                return found


async def test_webhooks_are_told_of(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, http), receiving(OK) as well, receiving(REFUSES) as ill:
        for receiver in (well, ill):
            made = await http.post(
                "/v1/subscriptions", json={"url": receiver.url(), "secret": SECRET, "retry_schedule": []}
            )
            last = made.json()["id"]
            if receiver is well:
                first = last
        for _ in range(3):
            await publish(http)
        good = await reached(http, f"/v1/subscriptions/{first}/stats", "delivered", 3)
        bad = await reached(http, f"/v1/subscriptions/{last}/stats", "dead", 3)
        over_time = (await http.get("/v1/stats/deliveries?interval=day&group_by=subscription")).json()["data"]
        samples = await scrape(http)

    assert samples.of("gateway_webhook_attempts_total", outcome="delivered") == 3
    assert samples.of("gateway_webhook_attempts_total", outcome="refused") == 3
    assert samples.of("gateway_webhook_attempts_total", outcome="timeout") == 0
    assert samples["gateway_webhook_delivered_total"] == 3
    assert samples.of("gateway_webhook_dead_total", reason="exhausted") == 3
    assert samples["gateway_webhook_attempt_duration_seconds_count"] == 6
    assert samples.of("gateway_webhook_attempt_duration_seconds_bucket", le="+Inf") == 6
    assert samples["gateway_webhook_publish_to_delivered_seconds_count"] == 3
    assert samples["gateway_webhook_publish_to_delivered_seconds_sum"] > 0
    assert samples.of("gateway_deliveries", status="delivered") == 3
    assert samples.of("gateway_deliveries", status="dead") == 3
    assert samples.of("gateway_deliveries", status="pending") == 0
    assert samples["gateway_webhook_lanes_awake"] == 2
    assert samples["gateway_webhook_circuits_open"] == 0
    assert samples["gateway_webhook_oldest_due_age_seconds"] == 0
    assert (good["success_rate"], good["attempts"]) == (1.0, 3)
    assert good["publish_to_delivered_ms"]["p50"] >= good["attempt_duration_ms"]["p50"] * 0.9
    assert (bad["success_rate"], bad["failed_attempts"], bad["consecutive_failures"]) == (0.0, 3, 3)
    assert {row["subscription_id"]: (row["delivered"], row["dead"]) for row in over_time} == {
        first: (3, 0),
        last: (0, 3),
    }


async def test_publishing_and_the_log_are_told_of(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, http):
        await publish(http, "a")
        await publish(http, "b", id="one")
        await publish(http, "b", id="one")
        await http.get("/v1/events/one")
        await http.get("/v1/events/none")
        await http.get("/v1/events", headers={"authorization": "Bearer wrong-key"})
        samples = await scrape(http)

    assert samples.of("gateway_events_published_total", type="a") == 1
    assert samples.of("gateway_events_published_total", type="b") == 1
    assert samples["gateway_events_duplicate_total"] == 1
    assert samples["gateway_publish_queue_events"] == 0
    assert samples["gateway_database_up"] == 1
    assert (samples["gateway_log_head"], samples["gateway_log_earliest"]) == (2, 1)
    assert samples.of("gateway_http_requests_total", method="POST", route="/v1/events", status="202") == 2
    assert samples.of("gateway_http_requests_total", method="POST", route="/v1/events", status="200") == 1
    by_id = "/v1/events/{event_id}"
    assert samples.of("gateway_http_requests_total", method="GET", route=by_id, status="200") == 1
    assert samples.of("gateway_http_requests_total", method="GET", route=by_id, status="404") == 1
    assert samples.of("gateway_http_requests_total", method="GET", route="/v1/events", status="401") == 1
    assert samples.of("gateway_http_request_duration_seconds_count", route=by_id) == 2


async def test_streams_are_told_of(tmp_path: Path) -> None:
    async with working(tmp_path) as (gateway, http):
        streams = gateway._streams
        for _ in range(4):
            await publish(http)

        def wish(start: Since | None = None) -> Wish:
            return Wish(filter=Filter(), libraries=None, encoding=SseEncoding(), key_id="key_1", start=start)

        # Two begin live and hear of one more; one begins four back.
        live = [(await streams.open(wish())).begin(NOWHERE) for _ in range(2)]
        await publish(http)
        await until(lambda: streams.counts.live_events_delivered == 2)
        past = Since(moment=parse_rfc3339("2020-01-01T00:00:00Z"), text="")
        (await streams.open(wish(past))).begin(NOWHERE)
        live[0].end(End.ENDED, retry_ms=1)
        samples = await scrape(http)

    assert (samples["gateway_streams_open"], samples["gateway_streams_opened_total"]) == (2, 3)
    assert samples.of("gateway_streams_closed_total", reason="ended") == 1
    assert samples["gateway_stream_lag_seconds_count"] == 2
    assert samples["gateway_stream_replay_events_count"] == 1
    assert samples["gateway_stream_replay_events_sum"] == 5
    assert samples.of("gateway_stream_replay_events_bucket", le="1.0") == 0
    assert samples.of("gateway_stream_replay_events_bucket", le="10.0") == 1
    assert samples["gateway_stream_events_total"] == 7
    assert samples["gateway_stream_frames_total"] > 7
    assert samples["gateway_stream_sent_bytes_total"] > 7 * 50
    assert samples["gateway_stream_gaps_total"] == 0


async def test_the_process_is_told_of(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, http):
        samples = await scrape(http)
    for name in ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds"):
        assert samples[name] > 0
    assert [labels for name, labels in samples.values if name == "gateway_build_info"] != []


async def test_labels_name_nothing_that_is_somebodys(tmp_path: Path) -> None:
    """All of a gateway that has worked, and of what is in it nothing but types that publishers chose."""
    async with working(tmp_path) as (_, http), receiving(OK) as receiver:
        made = await http.post(
            "/v1/subscriptions",
            json={"url": receiver.url(), "secret": SECRET, "headers": {"x-token": "hush"}, "types": ["t"]},
        )
        await publish(http, "t", library_id="my-library", id="my-event")
        id_ = made.json()["id"]
        await reached(http, f"/v1/subscriptions/{id_}/stats", "delivered", 1)
        await http.get("/nowhere/my-path")
        answer = (await http.get("/metrics")).text
        labels = Samples(answer).labels()
    for word in (SECRET, ADMIN, "hush", "x-token", "127.0.0.1", id_, "my-library", "my-event", "my-path"):
        assert word not in answer
    assert set(labels) == {"le", "method", "outcome", "reason", "route", "status", "type", "version"}


async def test_names_are_as_prometheus_wants_them(tmp_path: Path) -> None:
    async with working(tmp_path) as (_, http):
        families = (await scrape(http)).families
    for name, family in families.items():
        assert name.startswith(("gateway_", "process_")), name
        assert family.documentation, name
        assert family.type in {"counter", "gauge", "histogram"}, name
        assert not (family.type == "gauge" and name.endswith("_total")), name
        if family.type == "histogram":
            assert name.endswith(("_seconds", "_events")), name


async def test_only_an_admin_may_scrape(api: Api) -> None:
    for scope in set(Scope) - {Scope.ADMIN}:
        assert (await (await api.client(scope)).get("/metrics")).status_code == 403
    assert (await (await api.client()).get("/metrics")).status_code == 401
    assert (await (await api.client(Scope.ADMIN)).get("/metrics")).status_code == 200


@pytest.mark.parametrize("path", ["/metrics", "/metrics/"])
async def test_it_is_found_with_and_without_a_slash(api: Api, path: str) -> None:
    assert (await (await api.client(Scope.ADMIN)).get(path)).status_code == 200
