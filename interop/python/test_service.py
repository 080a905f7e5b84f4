"""What the server says of itself."""

import avro.ipc
import avro.protocol
import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from server import NDJSON, TOKEN, events


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
    health = httpx.get(f"{server.url}/health", timeout=60)
    assert (health.status_code, health.json()) == (200, {"status": "healthy"})
    assert httpx.get(f"{server.url}/ready", timeout=60).status_code == 200


def test_the_service_definition(client, document):
    definition = client.get("/api/v1/service").json()
    assert definition == client.get("/info").json()
    assert {"service", "version", "type", "interfaces", "capabilities"} <= definition.keys()
    # What is left out is not told of.
    assert definition["interfaces"] == {"rest": "/api/v1"}
    schema(document, "/api/v1/service", "get").validate(definition)


def test_each_server_tells_of_all(start):
    # Python's Avro client shows no credentials.
    server = start("--anonymous", "guest", tokens=False, ws=True, ssh=True, avro=True)
    others = {
        "websocket": server.ws_url, "ssh": server.ready["ssh"], "avro-rpc": server.ready["avro"],
    }
    for address in (server.ready["http"], server.ready["ws"]):
        definition = httpx.get(f"http://{address}/api/v1/service", trust_env=False, timeout=60).json()
        assert definition["interfaces"] == {"rest": "/api/v1", **others}
    for address in (server.ready["avro"], server.ready["http"]):
        text = httpx.get(f"http://{address}/avro/protocol", trust_env=False, timeout=60).text
        host, port = address.split(":")
        wire = avro.ipc.HTTPTransceiver(host, int(port), "/avro")
        described = avro.ipc.Requestor(avro.protocol.parse(text), wire).request("describe", {})
        assert described["interfaces"] == {"rest": f"{server.url}/api/v1", **others}


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


def test_under_anybodys_name_nobody_is_let_in_without_credentials(start):
    """As a page does whose name leads here for a moment (DNS rebinding): to its browser it is ours."""
    allowed = "http://ours.example:1234"
    origins = f'allow-origins = ["{allowed}"]\n'
    server = start("--anonymous", "guest", ws=True, avro=True, config=f"[http]\n{origins}[ws]\n{origins}")
    port = server.address[1]

    def statuses(host, token=None):
        found = []
        headers = {"Host": host, "Authorization": f"Bearer {token}"} if token else {"Host": host}
        for url, path in [(server.url, "/api/v1/sessions"), (server.url, "/execute"), (server.origin, "/terminal"),
                          (f"http://{server.ready['avro']}", "/avro")]:
            own = {**headers, "Origin": f"http://{host}"}
            if path == "/terminal":
                own |= {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
                        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
            if path == "/api/v1/sessions":
                answer = httpx.get(url + path, headers=headers, trust_env=False, timeout=60)
            elif path == "/terminal":
                answer = httpx.get(url + path, headers=own, trust_env=False, timeout=60)
            else:
                kind = "avro/binary" if path == "/avro" else "application/json"
                content = b"" if path == "/avro" else b'{"command": "true"}'
                answer = httpx.post(url + path, content=content, headers={**own, "Content-Type": kind}, trust_env=False, timeout=60)
            found.append(answer.status_code)
        return found

    # 400 is what the Avro server says of a call that is none.
    for host in [f"127.0.0.1:{port}", "localhost:8080", "box:8080", "[::1]:8080"]:
        assert statuses(host) == [200, 200, 101, 400], host
    for host in ["evil.example", f"evil.example:{port}", f"127.0.0.1.evil.example:{port}"]:
        assert statuses(host) == [403, 403, 403, 403], host
        assert statuses(host, TOKEN) == [200, 200, 101, 400], host
    assert statuses("ours.example:1234")[:3] == [200, 200, 101]
