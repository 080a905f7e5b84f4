"""What the server says of itself."""

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from server import NDJSON, events


def schema(document, path, method="post", status="200", media_type="application/json"):
    content = document["paths"][path][method]["responses"][status]["content"]
    return validator(document, content[media_type]["schema"])


def validator(document, part):
    return Draft202012Validator({**part, "components": document["components"]})


@pytest.fixture
def document(client):
    response = client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    return response.json()


def test_the_ready_line(server):
    assert server.ready["ready"] is True
    assert server.ready["http"].startswith("127.0.0.1:")
    assert not {"ws", "ssh", "avro"} & server.ready.keys()


def test_alive_and_ready_for_all(server):
    health = httpx.get(f"{server.url}/health")
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})
    assert httpx.get(f"{server.url}/ready").status_code == 200


def test_the_service_definition(client, document):
    definition = client.get("/api/v1/service").json()
    assert definition == client.get("/info").json()
    assert {"service", "version", "type", "interfaces", "capabilities"} <= definition.keys()
    assert "rest" in definition["interfaces"]
    schema(document, "/api/v1/service", "get").validate(definition)


def test_the_openapi_document_is_valid(document):
    validate(document)
    assert document["openapi"].startswith("3.1")


def test_answers_are_as_the_openapi_document_says(client, document):
    path = "/api/v1/execute"
    for body in [{"command": "true"}, {"command": "sh -c 'echo out; kill -9 $$'"}]:
        accepted = document["paths"][path]["post"]["requestBody"]["content"]
        validator(document, accepted["application/json"]["schema"]).validate(body)
        schema(document, path).validate(client.post(path, json=body).json())
    refused = client.post(path, json={"command": 7})
    schema(document, path, status="400", media_type="application/problem+json").validate(refused.json())
    lines = schema(document, path, media_type="application/x-ndjson")
    body = {"command": "sh -c 'echo a; echo b >&2'"}
    with client.stream("POST", path, json=body, headers=NDJSON) as answer:
        for event in events(answer):
            lines.validate(event)


def test_metrics(client):
    def read():
        response = client.get("/metrics")
        assert response.headers["content-type"].startswith("application/openmetrics-text")
        assert response.text.endswith("# EOF\n")
        families = list(text_string_to_metric_families(response.text))
        names = [family.name for family in families]
        assert len(names) == len(set(names))
        return {(s.name, *s.labels.values()): s.value for f in families for s in f.samples}

    before = read()
    for command in ["true", "false", "sh -c 'printf 12345'", "no-such-program"]:
        client.post("/execute", json={"command": command})
    after = read()
    grown = {key: after[key] - before.get(key, 0) for key in after}
    assert grown["splengine_executions_started_total",] == 3
    assert grown["splengine_executions_ended_total", "exited"] == 3
    assert grown["splengine_execution_output_bytes_total", "stdout"] == 5
    assert after["splengine_executions_running",] == 0
