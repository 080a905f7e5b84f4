"""Buffered executions."""

import base64
import hashlib
import random
import threading

import httpx
import pytest
from server import eventually, marker, processes

EVERY_BYTE = bytes(range(256)) * 4


@pytest.fixture(params=["HTTP/1.1", "HTTP/2"])
def connect(server, request):
    """httpx speaks HTTP/2 in clear text when it may speak nothing else."""
    two = request.param == "HTTP/2"
    return lambda: server.client(http1=not two, http2=two)


@pytest.fixture
def client(connect, request):
    with connect() as client:
        assert client.get("/health").http_version in request.node.callspec.id
        yield client


def execute(client, command, *args, path="/execute", **members):
    response = client.post(path, json={"command": command, "args": args, **members})
    assert response.status_code == 200, response.text
    return response.json()


@pytest.mark.parametrize("path", ["/execute", "/api/v1/execute"])
def test_every_member_of_the_answer(client, path):
    script = "printf out; printf error >&2; exit 3"
    result = execute(client, "sh -c", script, path=path)
    assert isinstance(result.pop("duration"), int)
    assert isinstance(result.pop("cpuTime"), int)
    assert isinstance(result.pop("peakMemory"), int | None)
    assert isinstance(result.pop("processes"), int | None)
    assert result.pop("sessionId").startswith("spl-alice-")
    assert result == {
        "success": False, "exitCode": 3, "stdout": "out", "stderr": "error",
        "reason": "exited", "signal": None, "stdoutBytes": 3, "stderrBytes": 5,
        "stdoutTruncated": False, "stderrTruncated": False, "stdoutGap": None, "stderrGap": None,
    }


def test_every_member_of_the_request(client, server):
    (server.root / "data").mkdir(exist_ok=True)
    result = execute(
        client, "sh -c", 'pwd; echo "$K"; cat; echo "$1"', "sh", "$HOME 'as it is'",
        workdir="data", sessionId=None, env={"K": "wert é"}, stdin="eingabe\n",
        stdinEncoding="utf8", timeout=60000, outputLimit=1000, outputEncoding="utf8",
        background="kill",
    )
    assert result["stdout"].splitlines() == [
        str(server.root / "data"), "wert é", "eingabe", "$HOME 'as it is'",
    ]
    assert result["success"] is True and result["exitCode"] == 0


def test_words_are_split_but_nothing_is_expanded(client):
    result = execute(client, r"""printf '[%s]' "Hello from NiFi" '$HOME' a\ b *""")
    assert result["stdout"] == "[Hello from NiFi][$HOME][a b][*]"


def test_exact_bytes_both_ways(client):
    encoded = base64.b64encode(EVERY_BYTE).decode()
    exact = execute(client, "cat", stdin=encoded, stdinEncoding="base64", outputEncoding="base64")
    assert base64.b64decode(exact["stdout"], validate=True) == EVERY_BYTE
    replaced = execute(client, "cat", stdin=encoded, stdinEncoding="base64")
    assert replaced["stdout"] == EVERY_BYTE.decode(errors="replace")
    assert replaced["stdoutBytes"] == exact["stdoutBytes"] == len(EVERY_BYTE)


def test_over_its_output_limit_a_run_goes_on(client):
    result = execute(client, "sh -c", "seq 1 100000; exit 7", outputLimit=1000)
    assert result["exitCode"] == 7
    assert result["stdoutTruncated"] is True and result["stderrTruncated"] is False
    assert result["stdoutBytes"] == len("".join(f"{n}\n" for n in range(1, 100001)))
    assert result["stdout"].startswith("1\n2\n3\n") and result["stdout"].endswith("\n100000\n")
    assert len(result["stdout"]) < 1500  # What was kept, and perhaps a mark of what was not.


def test_who_kills_it_is_told(client):
    result = execute(client, "sh -c", "kill -SEGV $$")
    assert (result["reason"], result["exitCode"]) == ("signaled", 128 + 11)
    assert result["signal"] == "SIGSEGV" and result["success"] is False


def test_its_environment_holds_no_secret_of_the_server(client):
    seen = execute(client, "env")["stdout"]
    assert "CANARY" not in seen and "do-not-tell" not in seen
    assert any(line.startswith("SPL_SESSION_ID=spl-alice-") for line in seen.splitlines())


def test_a_timeout_ends_a_child_in_a_session_of_its_own(client):
    mark = marker()
    script = f"""setsid sh -c 'trap "" TERM; echo up; sleep {mark}' & sleep {mark}"""
    for timeout in (3000, 20000):  # Not always enough for it to be up, on a busy machine.
        result = execute(client, "sh -c", script, timeout=timeout)
        if result["stdout"]:
            break
    assert (result["reason"], result["exitCode"], result["stdout"]) == ("timedOut", 124, "up\n")
    assert result["signal"] in ("SIGTERM", "SIGKILL")
    assert processes(mark) == []


def test_a_background_child_does_not_hold_the_answer(client):
    mark = marker()
    result = execute(client, "sh -c", f"sleep {mark} & echo done")
    assert (result["reason"], result["stdout"]) == ("exited", "done\n")
    assert result["duration"] < 60000 and processes(mark) == []


def test_a_background_child_can_be_kept(client):
    mark = marker()
    result = execute(client, "sh -c", f"sleep {mark} & echo $!", background="keep")
    # While it becomes `sleep` it has no command line.
    eventually(lambda: processes(mark) == [int(result["stdout"])], "what was kept")
    execute(client, "kill", result["stdout"].strip())
    eventually(lambda: not processes(mark), "its end")


def test_stdin_streams_in_from_a_generator(client):
    pieces = random.Random(1)
    total = 16 << 20
    want, got = hashlib.sha256(), 0

    def body():
        left = total
        while left:
            piece = pieces.randbytes(min(left, pieces.randint(1, 100_000)))
            left -= len(piece)
            want.update(piece)
            yield piece

    response = client.post(
        "/execute", params={"command": "sha256sum"}, content=body(),
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 200, response.text
    assert response.json()["stdout"].split()[0] == want.hexdigest()


def test_a_client_that_goes_away_cancels_the_run(connect):
    mark = marker()
    body = {"command": "sh", "args": ["-c", f"setsid sleep {mark} & sleep {mark}"]}
    gone = threading.Event()

    def give_up():
        # Long enough for it to have started on most machines; where not, nothing is shown amiss.
        # Over HTTP/2 httpx tells nobody that it gave up a request, until it closes the connection.
        with connect() as client, pytest.raises(httpx.ReadTimeout):
            client.post("/execute", json=body, timeout=httpx.Timeout(60, read=5))
        gone.set()

    thread = threading.Thread(target=give_up)
    thread.start()
    eventually(lambda: len(processes(mark)) >= 2 or gone.is_set(), "the run")
    thread.join()
    eventually(lambda: not processes(mark), "its end")


def test_fail_status(client):
    def post(command, status):
        return client.post("/execute", params={"failStatus": status}, json={"command": command})

    assert post("true", 500).status_code == 200
    failed = post("false", 500)
    assert failed.status_code == 500
    body = failed.json()
    assert body["exitCode"] == 1 and body["reason"] == "exited" and body["error"]
    assert post("false", 422).status_code == 422


def test_the_bodies_that_nifi_and_kafka_clients_send(server, client):
    """The command's first word is what they name `data`: here a program on a path of its own."""
    (server.root / "runtime/kafka-session").mkdir(parents=True, exist_ok=True)
    result = execute(client, "echo transform", "--input=a b.csv")
    assert result["stdout"] == "transform --input=a b.csv\n"
    result = execute(
        client, "sh -c pwd", "--output=/tmp/processed", workdir="/runtime/kafka-session"
    )
    assert result["stdout"] == f"{server.root}/runtime/kafka-session\n"
