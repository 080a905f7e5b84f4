"""Streamed executions."""

import base64
import hashlib
import json
import subprocess
import threading
import time
from pathlib import Path

import httpx_sse
import pytest
from server import AUTH, NDJSON, checked, eventually, events, marker, processes, text

BOTH = "for n in 1 2 3; do echo out $n; sleep 0.05; echo error $n >&2; sleep 0.05; done; exit 4"


def sh(script, **members):
    return {"command": "sh", "args": ["-c", script], **members}


def ndjson(client, body):
    with client.stream("POST", "/execute", json=body, headers=NDJSON) as response:
        return events(response)


def paced(client, place: Path, script: str, *args: str) -> list[dict]:
    """The events of a script that goes on, by `heard N`, only once the events that came here hold
    so many lines or, where it writes none, characters."""
    wait = 'heard() { until [ -e "$place/$1" ]; do sleep 0.01; done; }'
    body = {"command": "sh", "args": ["-c", f"place=$1; shift; {wait}; {script}", "sh", str(place), *args]}
    seen, count = [], 0
    with client.stream("POST", "/execute", json=body, headers=NDJSON) as response:
        assert response.status_code == 200, response.read()
        for line in response.iter_lines():
            if not line.strip():
                continue
            seen.append(event := json.loads(line))
            if data := event.get("data"):
                count += data.count("\n") or len(data)
                (place / str(count)).touch()
    return checked(seen)


def test_ndjson(client, tmp_path):
    seen = paced(client, tmp_path, """
        for n in 1 2 3; do
            echo out $n; heard $((2 * n - 1))
            echo error $n >&2; heard $((2 * n))
        done
        exit 4
    """)
    assert text(seen, "stdout") == "out 1\nout 2\nout 3\n"
    assert text(seen, "stderr") == "error 1\nerror 2\nerror 3\n"
    # One order over both.
    order = [event["type"] for event in seen]
    assert order == ["started", *["stdout", "stderr"] * 3, "exit"]
    end = seen[-1]
    assert (end["success"], end["exitCode"], end["reason"], end["signal"]) == (False, 4, "exited", None)
    assert (end["stdoutBytes"], end["stderrBytes"]) == (18, 24)
    assert isinstance(end["duration"], int) and end["sessionId"].startswith("spl-alice-")
    assert "stdout" not in end and "stderr" not in end


def test_server_sent_events(client):
    with httpx_sse.connect_sse(client, "POST", "/execute", json=sh(BOTH)) as source:
        assert source.response.status_code == 200
        received = list(source.iter_sse())
    seen = checked([event.json() for event in received])
    assert [event.event for event in received] == [event["type"] for event in seen]
    assert text(seen, "stdout") == "out 1\nout 2\nout 3\n"
    assert seen[-1]["exitCode"] == 4


def test_events_come_as_they_happen(client):
    """The program ends only once its first line has arrived here."""
    mark = marker()
    body = sh(f"echo $$; exec sleep {mark}")
    with client.stream("POST", "/execute", headers=NDJSON, json=body) as answer:
        lines = answer.iter_lines()
        pid = next(e["data"] for e in map(json.loads, lines) if e["type"] == "stdout").strip()
        # While it becomes `sleep` it has no command line.
        eventually(lambda: processes(mark) == [int(pid)], "the run")
        client.post("/execute", json={"command": f"kill {pid}"})
        end = [json.loads(line) for line in lines if line.strip()][-1]
    assert (end["type"], end["reason"], end["signal"]) == ("exit", "signaled", "SIGTERM")
    assert end["exitCode"] == 128 + 15


def test_a_character_is_never_split(client, tmp_path):
    """Its bytes are written one by one, with time in between for them to be sent one by one."""
    letters = "é€😀é"
    octal = [" ".join(f"\\0{byte:03o}" for byte in letter.encode()) for letter in letters]
    seen = paced(client, tmp_path, """
        n=0
        for letter; do
            for b in $letter; do printf %b "$b"; sleep 0.03; done
            n=$((n + 1)); heard $n
        done
    """, *octal)
    assert [event["data"] for event in seen if event["type"] == "stdout"] == list(letters)


def test_what_is_no_utf8_is_replaced_or_exact(client):
    script = r"printf 'a\000b\377c\303'"
    assert text(ndjson(client, sh(script)), "stdout") == "a\0b\ufffdc\ufffd"
    seen = ndjson(client, sh(script, outputEncoding="base64"))
    data = b"".join(base64.b64decode(e["data"]) for e in seen if e["type"] == "stdout")
    assert data == b"a\0b\xffc\xc3"


def test_no_tail_is_lost(client):
    want = hashlib.sha256("".join(f"{n}\n" for n in range(1, 200_001)).encode()).hexdigest()
    for _ in range(3):
        seen = ndjson(client, sh("seq 1 200000; exit 7"))
        assert hashlib.sha256(text(seen, "stdout").encode()).hexdigest() == want
        assert seen[-1]["exitCode"] == 7


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_a_client_that_goes_away_cancels_the_run(server, accept):
    mark = marker()
    body = sh(f"setsid sleep {mark} & echo; sleep {mark}")
    with server.client(headers={"Accept": accept}) as client:
        with client.stream("POST", "/execute", json=body) as answer:
            pieces = answer.iter_raw()  # Let go of, it closes the answer.
            next(pieces)
            eventually(lambda: len(processes(mark)) >= 2, "the run")
    eventually(lambda: not processes(mark), "its end")


def test_a_slow_reader_holds_the_program_back_and_not_the_server(server):
    """64 MiB through `cat` and curl, which sends and receives at once."""
    block = bytes(range(256)) * 4096
    blocks = 64
    pid = server.process.pid
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # Forgets the highest memory use so far.
    before = memory(pid, "VmHWM")
    curl = subprocess.Popen(
        ["curl", "-sSN", "--noproxy", "*", "--max-time", "100", "-X", "POST", "-T", "-",
         "-H", "Content-Type: application/octet-stream", "-H", f"Accept: {NDJSON['Accept']}",
         "-H", f"Authorization: {AUTH['Authorization']}",
         f"{server.url}/execute?command=cat&outputEncoding=base64"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )

    def feed():
        for _ in range(blocks):
            curl.stdin.write(block)
        curl.stdin.close()

    feeder = threading.Thread(target=feed)
    feeder.start()
    got, seen, stop_at = hashlib.sha256(), [], 0
    for line in curl.stdout:
        event = json.loads(line) if line.strip() else {"type": None}
        if event["type"] == "stdout":
            data = base64.b64decode(event.pop("data"))
            got.update(data)
            stop_at += len(data)
        if stop_at >= 4 << 20:
            stop_at = 0
            time.sleep(0.1)  # The reader's slowness.
        if event["type"]:
            seen.append(event)
    feeder.join()
    assert curl.wait() == 0
    want = hashlib.sha256()
    for _ in range(blocks):
        want.update(block)
    assert got.hexdigest() == want.hexdigest()
    end = checked(seen)[-1]
    assert end["exitCode"] == 0 and end["stdoutBytes"] == blocks * len(block)
    assert memory(pid, "VmHWM") - before < 32 << 20


def memory(pid: int, what: str) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(what):
            return int(line.split()[1]) * 1024
    raise KeyError(what)
