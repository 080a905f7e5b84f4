"""What is refused, how, and that the server is well afterwards."""

import json
import os
import socket

import httpx
import pytest
from server import AUTH, PATIENCE, TOKEN, assert_problem


@pytest.fixture(autouse=True)
def well_afterwards(client):
    yield
    assert client.get("/health").json() == {"status": "healthy"}
    result = client.post("/execute", json={"command": "echo well"}).json()
    assert result["stdout"] == "well\n"


def post(client, body, **options):
    return client.post("/execute", json=body, **options)


@pytest.mark.parametrize("body", [
    b"", b"{", b"null", b"[]", b'"true"', b"{}", b'{"command": 7}', b'{"command": ["true"]}',
    b'{"command": "true", "args": "x"}', b'{"command": "true", "args": [1]}',
    b'{"command": "true", "timeout": "soon"}', b'{"command": "true", "timeout": -1}',
    b'{"command": "true", "env": ["K"]}', b'{"command": "true", "stdinEncoding": "rot13"}',
    b'{"command": "true", "stdin": "%%%", "stdinEncoding": "base64"}',
    b'{"command": "true"} trailing', b'{"command": "tr\xffue"}', b"[" * 100_000,
    b'{"command": ""}', b'{"command": "echo \'open"}', b'{"command": "true", "timeout": 0}',
    b'{"command": "true", "env": {"A=B": "c"}}',
], ids=lambda body: body[:40].decode(errors="replace") or "empty")
def test_malformed(client, body):
    headers = {"Content-Type": "application/json"}
    assert_problem(client.post("/execute", content=body, headers=headers), 400)


def test_a_member_that_does_not_exist_is_named(client):
    problem = assert_problem(post(client, {"command": "true", "workDir": "data"}), 400)
    assert "workDir" in problem["error"]


@pytest.mark.parametrize("headers", [
    {}, {"Authorization": "Bearer"}, {"Authorization": "Bearer wrong-token-of-some-length"},
    {"Authorization": f"Bearer {TOKEN}x"}, {"Authorization": f"Bearer {TOKEN[:-1]}"},
    {"Authorization": "Basic YWxpY2U6YWxpY2U="},
], ids=["none", "empty", "wrong", "longer", "shorter", "basic"])
def test_no_credentials_or_bad_ones(server, headers):
    response = httpx.post(f"{server.url}/execute", json={"command": "true"}, headers=headers, timeout=60)
    assert_problem(response, 401)
    assert response.headers["www-authenticate"].split()[0] == "Bearer"


def test_a_token_in_the_query_is_no_credential(server):
    response = httpx.post(f"{server.url}/execute?access_token={TOKEN}", json={"command": "true"}, timeout=60)
    assert response.status_code in (400, 401)
    assert TOKEN not in response.text


def test_a_page_of_another_site_is_refused(client):
    response = post(client, {"command": "true"}, headers={"Origin": "https://elsewhere.example"})
    assert_problem(response, 403)


def test_no_such_thing(client):
    assert_problem(client.get("/nothing"), 404)
    assert_problem(post(client, {"command": "true", "sessionId": "spl-alice-none"}), 404)
    response = client.get("/execute")
    assert_problem(response, 405)
    assert response.headers["allow"] == "POST"


def test_an_answer_in_a_form_that_we_do_not_have(client):
    assert_problem(post(client, {"command": "true"}, headers={"Accept": "text/html"}), 406)


@pytest.mark.parametrize("sent", ["announced", "chunked"])
def test_a_huge_body(client, sent):
    body = json.dumps({"command": "cat", "stdin": "x" * (40 << 20)}).encode()
    headers = {"Content-Type": "application/json"}
    pieces = (body[start:start + 65536] for start in range(0, len(body), 65536))
    content = body if sent == "announced" else pieces
    assert_problem(client.post("/execute", content=content, headers=headers), 413)


@pytest.mark.parametrize("content_type", [
    None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
])
def test_a_body_of_another_type(client, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    body = b'{"command": "true"}'
    assert_problem(client.post("/execute", content=body, headers=headers), 415)


def test_json_with_a_charset_is_json(client):
    headers = {"Content-Type": "Application/JSON; charset=UTF-8"}
    response = client.post("/execute", content=b'{"command": "true"}', headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("command", ["no-such-program", "/no/such/program", "/etc/passwd", "/etc"])
def test_no_such_program(client, command):
    problem = assert_problem(post(client, {"command": command}), 422)
    assert command in problem["error"]


def test_workdirs_that_are_missing_or_outside(client, server):
    (server.root / "inside/deep").mkdir(parents=True)
    (server.root / "file").write_text("")
    (server.root.parent / "outside").mkdir()
    for name, target in {"up": "../outside", "away": "/etc", "round": "round"}.items():
        os.symlink(target, server.root / name)
    for workdir in ["..", "../outside", "inside/../../outside", "/..", "up", "away", "round",
                    "inside/deep/../../up", str(server.root.parent / "outside"), "missing", "file"]:
        assert_problem(post(client, {"command": "pwd", "workdir": workdir}), 422)
    os.symlink("inside", server.root / "link")
    for workdir in ["inside", "inside/deep/..", "link/deep/..", "/inside", f"{server.root}/inside"]:
        result = post(client, {"command": "/bin/pwd", "workdir": workdir}).json()
        assert result["stdout"] == f"{server.root}/inside\n"


def test_a_timeout_over_the_maximum(client):
    problem = assert_problem(post(client, {"command": "true", "timeout": 2**53}), 422)
    assert "timeout" in problem["error"]


@pytest.mark.parametrize("body", [
    {"command": "echo", "args": ["a\0b"]}, {"command": "echo a\0b"}, {"command": "ec\0ho"},
    {"command": "echo", "workdir": "a\0b"}, {"command": "env", "env": {"K": "a\0b"}},
], ids=["args", "command", "program", "workdir", "env"])
def test_nul(client, body):
    response = post(client, body)
    assert_problem(response, response.status_code)
    assert response.status_code in (400, 422)


def test_ten_thousand_arguments(client):
    args = [f"argument {n}" for n in range(10_000)]
    result = post(client, {"command": "printf '%s\\n'", "args": args}).json()
    assert result["stdout"].splitlines() == args


def test_more_arguments_than_a_program_can_be_given(client):
    args = ["x" * 100_000] * 100
    assert_problem(post(client, {"command": "true", "args": args}), 422)


def test_half_a_header_is_not_waited_for(start):
    server = start(config="[http]\nheader-timeout = 2000\n")
    connections = []
    for half in [b"", b"P", b"PRI * HTTP/2", b"POST /execute HTT", b"POST /execute HTTP/1.1\r\nHost: x\r\nX-Half: "]:
        connection = socket.create_connection(server.address, timeout=PATIENCE)
        connection.sendall(half)
        connections.append((half, connection))
    held = []
    for half, connection in connections:
        with connection:
            try:
                # Closed, perhaps after a word why.
                while answer := connection.recv(4096):
                    assert answer.startswith(b"HTTP/1.1 408"), answer
            except ConnectionError:
                pass  # Closed before we had said even that.
            except TimeoutError:
                held.append(half)
    assert held == []


@pytest.mark.parametrize("garbage", [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET\r\n\r\n", b"\0\0\0\0\r\n\r\n",
    b"POST /execute HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nab",
    b"POST /execute HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"x" * 2_000_000,
], ids=["tls", "short", "nul", "two lengths", "chunk", "long header"])
def test_what_is_no_http(server, garbage):
    with socket.create_connection(server.address) as connection:
        connection.settimeout(PATIENCE)
        try:
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while chunk := connection.recv(65536):
                answer += chunk
        except TimeoutError:
            raise
        except OSError:
            return  # Reset, which may also be told as no connection at all.
    assert answer == b"" or answer.split(b" ")[1] in (b"400", b"401", b"431"), answer


def test_credentials_stand_in_no_log(server):
    assert TOKEN not in server.log.read_text()
    # It may be told who has the right to know it, not anybody who can list processes.
    assert AUTH["Authorization"] not in server.log.read_text()
