"""The events that there are, as the OpenAPI document describes them: the fields of each server-sent event,
and the JSON in its data."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import httpx_sse
import pytest
from jsonschema import Draft202012Validator

from server import NDJSON, Server, eventually

SSE = {"Accept": "text/event-stream"}
EXECUTE = "/api/v1/execute"
BATCHES = "/api/v1/batches"


@pytest.fixture
def narrow(start) -> Server:
    """One run at once."""
    return start(config="[limits]\nmax-running = 1\n")


@pytest.fixture
def wire(narrow) -> Iterator[httpx.Client]:
    with narrow.client() as client:
        yield client


class Described:
    """What the document says of one stream of events."""

    def __init__(self, client: httpx.Client, path: str, method: str = "get"):
        document = client.get("/openapi.json").json()
        content = document["paths"][path][method]["responses"]["200"]["content"]
        self.components = document["components"]
        self.event = content["text/event-stream"]["schema"]
        part = self.event["properties"]["data"]
        assert part["contentMediaType"] == "application/json"
        self.data = part["contentSchema"]
        self.lines = content.get("application/x-ndjson", {}).get("schema")

    def validate(self, schema: dict, value):
        """No member is there that is not described, either."""
        whole = {"allOf": [schema], "unevaluatedProperties": False, "components": self.components}
        Draft202012Validator(whole).validate(value)

    def all(self, source: httpx_sse.EventSource) -> Iterator[dict]:
        """The data of the events, as they come."""
        for event in source.iter_sse():
            if not event.data:
                # A comment, of which no browser makes an event.
                continue
            fields = {"event": event.event, "data": event.data} | ({"id": event.id} if event.id else {})
            self.validate(self.event, fields)
            data = json.loads(event.data)
            self.validate(self.data, data)
            assert data["event"] == data["type"] == event.event
            if "seq" in data:
                assert event.id == str(data["seq"])
            yield data


def names(events: list[dict]) -> list[str]:
    return [event["event"] for event in events]


def test_events_of_runs(narrow, wire):
    described = Described(wire, EXECUTE, "post")
    go = narrow.root / "go"
    holds = {"command": "sh", "args": ["-c", f"until [ -e {go} ]; do sleep 0.05; done"]}
    body = {"command": "sh", "args": ["-c", "seq 1000 1999; echo error >&2; kill -9 $$"], "outputLimit": 100}
    with narrow.client() as other:
        holder = other.post(EXECUTE, json=holds | {"async": True}).json()
        eventually(lambda: wire.get(f"{BATCHES}/{holder['batchId']}").json()["counts"]["running"], "its run")
        with httpx_sse.connect_sse(wire, "POST", EXECUTE, json=body) as source:
            events = described.all(source)
            seen = [next(events)]
            go.touch()
            seen += events
    assert names(seen)[:2] == ["queued", "started"] and names(seen)[-1] == "exit"
    assert {"stdout", "stderr"} <= set(names(seen))
    assert (seen[-1]["signal"], seen[-1]["stdoutBytes"]) == ("SIGKILL", 5000)
    assert [event["seq"] for event in seen] == list(range(len(seen)))
    # A line of NDJSON is the same as the data of an event.
    with wire.stream("POST", EXECUTE, json=body, headers=NDJSON) as answer:
        lines = [json.loads(line) for line in answer.iter_lines() if line]
    for line in lines:
        described.validate(described.lines, line)
    assert described.lines == described.data and set(names(lines)) == set(names(seen)) - {"queued"}


def sh(id: str, script: str, **more) -> dict:
    return {"id": id, "command": "sh", "args": ["-c", script], **more}


def follow(wire: httpx.Client, described: Described, batch: str, **headers: str) -> Iterator[dict]:
    with httpx_sse.connect_sse(wire, "GET", f"{BATCHES}/{batch}/events", headers=headers) as source:
        assert source.response.status_code == 200
        yield from described.all(source)


def test_events_of_batches(narrow, wire):
    described = Described(wire, f"{BATCHES}/{{id}}/events")

    def submit(*steps: dict, **more) -> str:
        answer = wire.post(BATCHES, json={"steps": steps, **more})
        assert answer.status_code == 202, answer.text
        return answer.json()["batchId"]

    # It waits, fails, is tried again, and others are left out for it.
    mixed = submit(
        sh("prints", "seq 1000 1999; echo error >&2", outputLimit=100, mask=[]),
        sh("again", "exit 9", retries=1, retryDelay=50), sh("after", "true"), sh("handles", "true", runIf="always"))
    seen = list(follow(wire, described, mixed))
    told = set(names(seen))
    assert [event["seq"] for event in seen] == list(range(1, len(seen) + 1))
    ended = {(event["step"], event["attempt"]): event for event in seen if event["event"] == "ended"}
    assert ended.keys() == {("prints", 1), ("again", 1), ("again", 2), ("handles", 1)}
    assert ended["prints", 1]["stdoutGap"]["bytes"] > 0 and ended["again", 2]["exitCode"] == 9
    # All again from each of them on, and nothing after the last.
    for after in (1, len(seen) // 2, len(seen) - 1):
        assert list(follow(wire, described, mixed, **{"Last-Event-ID": str(after)})) == seen[after:]
    over = wire.get(f"{BATCHES}/{mixed}/events", headers=SSE | {"Last-Event-ID": str(len(seen))})
    assert (over.status_code, over.content) == (204, b"")

    # One that runs out of its time, one that is cancelled, and one that is cancelled twice.
    told |= set(names(list(follow(wire, described, submit(sh("long", "sleep 300"), timeout=200)))))
    batch = submit(sh("long", "exec sleep 300"), sh("tidies", "exec sleep 300", runIf="always"))
    # Who cancels is answered at the end, or after a time.
    with ThreadPoolExecutor() as others:
        answers = []
        for event in follow(wire, described, batch):
            told.add(event["event"])
            if event["event"] == "started":
                answers.append(others.submit(wire.delete, f"{BATCHES}/{batch}"))
        assert [answer.result().status_code for answer in answers] == [200, 200]
    assert event["event"] == "finished" and event["state"] == "cancelled"
    assert told == {"queued", "begun", "started", "ended", "due", "skipped", "cancelling", "aborting", "timedOut",
                    "finished"}


def test_events_of_directories(narrow, wire):
    described = Described(wire, "/api/v1/files/{path}")
    files = "/api/v1/files/watched"
    assert wire.put(f"{files}/").is_success
    with httpx_sse.connect_sse(wire, "GET", f"{files}/?watch=true") as source:
        events = described.all(source)
        with narrow.client() as other:
            assert other.put(f"{files}/a%20b", content=b"content").is_success
            assert other.post(f"{files}/a%20b?move=watched/c").is_success
            assert other.delete(f"{files}/c").is_success
            assert other.delete(f"{files}/").is_success
        seen = {}
        for event in events:
            seen[event["event"]] = event
            if event["event"] == "gone":
                break
    assert {"created", "renamed", "removed", "gone"} <= seen.keys(), seen
    assert (seen["renamed"]["from"], seen["renamed"]["name"], seen["renamed"]["fromHref"]) == ("a b", "c", "a%20b")


def test_lines_of_logs(narrow, wire):
    document = wire.get("/openapi.json").json()
    path = f"{BATCHES}/{{id}}/steps/{{step}}/log"
    line = document["paths"][path]["get"]["responses"]["200"]["content"]["application/x-ndjson"]["schema"]
    whole = {"allOf": [line], "unevaluatedProperties": False, "components": document["components"]}
    step = sh("prints", "seq 1000 1999; echo error >&2; exit 3", outputLimit=100, retries=1, retryDelay=10)
    batch = wire.post(BATCHES, json={"steps": [step]}, params={"wait": "true"}).json()["batchId"]
    log = wire.get(f"{BATCHES}/{batch}/steps/prints/log", headers=NDJSON)
    lines = [json.loads(text) for text in log.text.splitlines() if text]
    for each in lines:
        Draft202012Validator(whole).validate(each)
    assert {each["stream"] for each in lines} == {"stdout", "stderr"}
    assert any(each.get("leftOut") for each in lines)
