"""Many at once, and the end of the server amidst them."""

import asyncio
import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from server import AUTH, NDJSON, assert_problem, checked, eventually, marker, processes, text


def test_two_hundred_callers_and_never_more_than_eight_running(start):
    server = start(config="[limits]\nmax-running = 8\n")
    # Told apart from the tests' other long sleeps by its digits alone.
    mark = "0.3" + marker().replace(".", "")
    highest = {"metrics": 0, "processes": 0}
    answered = {"health": 0}

    async def watch(client, done):
        while not done.is_set():
            health = await client.get("/health")
            assert health.json() == {"status": "healthy"}
            answered["health"] += 1
            metrics = (await client.get("/metrics")).text
            running = next(
                sample.value for family in text_string_to_metric_families(metrics)
                for sample in family.samples if sample.name == "splengine_executions_running"
            )
            highest["metrics"] = max(highest["metrics"], running)
            highest["processes"] = max(highest["processes"], len(processes(mark)))

    async def run():
        done = asyncio.Event()
        options = {"base_url": server.url, "headers": AUTH, "timeout": 100, "trust_env": False}
        limits = httpx.Limits(max_connections=None)
        async with (
            httpx.AsyncClient(limits=limits, **options) as callers,
            httpx.AsyncClient(**options) as watcher,
        ):
            watching = asyncio.create_task(watch(watcher, done))
            answers = await asyncio.gather(
                *(callers.post("/execute", json={"command": f"sleep {mark}"}) for _ in range(200))
            )
            done.set()
            await watching
            return answers

    answers = asyncio.run(run())
    assert [answer.status_code for answer in answers] == [200] * 200
    assert all(answer.json()["success"] for answer in answers)
    # It takes at least 7 s, so that something was seen.
    assert 1 <= highest["metrics"] <= 8 and 1 <= highest["processes"] <= 8, highest
    assert answered["health"] >= 5


def test_over_the_bounds_it_refuses_and_says_when_to_return(start):
    server = start(config="[limits]\nmax-running = 1\nmax-waiting = 1\n")
    with server.client() as client, ThreadPoolExecutor(20) as pool:
        body = {"command": "sh -c 'until [ -e go ]; do sleep 0.05; done'"}
        asked = [pool.submit(client.post, "/execute", json=body) for _ in range(20)]
        try:
            # Nothing that runs ends before all have asked.
            eventually(lambda: sum(each.done() for each in asked) >= 18, "all refusals")
        finally:
            (server.root / "go").touch()
        answers = [each.result() for each in asked]
    by_status = {}
    for answer in answers:
        by_status.setdefault(answer.status_code, []).append(answer)
    assert len(by_status[200]) == 2, {status: len(some) for status, some in by_status.items()}
    for answer in by_status.get(429, []) + by_status.get(503, []):
        assert_problem(answer, answer.status_code)
        assert int(answer.headers["retry-after"]) >= 1
    assert sum(map(len, by_status.values())) == 20 and by_status.keys() <= {200, 429, 503}


def test_the_end_during_load_loses_nothing_that_was_answered(start):
    """Twenty clients in a loop, half of them streaming; SIGTERM after a hundred answers."""
    server = start()
    mark = marker()
    want = "".join(f"{n}\n" for n in range(1, 3001))
    # The mark is an argument that only tells these processes from others.
    body = {"command": "sh -c 'seq 1 3000; sleep 0.05; echo end >&2; exit 9'", "args": [mark]}
    answers, enough, refused = [], threading.Event(), []

    def check(out, err, end):
        assert (out, err, end["exitCode"], end["reason"]) == (want, "end\n", 9, "exited")
        answers.append(end)
        if len(answers) >= 100:
            enough.set()

    def loop(streaming):
        with server.client(headers=NDJSON if streaming else {}) as client:
            while True:
                begun = None
                try:
                    with client.stream("POST", "/execute", json=body) as response:
                        begun = response.status_code
                        data = response.read()
                except (httpx.ConnectError, httpx.ReadError, httpx.RemoteProtocolError) as error:
                    # Only before an answer has begun: one that has begun must be whole.
                    assert begun is None, f"{begun} broke off: {error!r}"
                    refused.append(error)
                    return
                if begun != 200:
                    assert_problem(response, 503)
                    assert int(response.headers["retry-after"]) >= 1
                    refused.append(response)
                    return
                if streaming:
                    seen = checked([json.loads(line) for line in data.splitlines() if line.strip()])
                    check(text(seen, "stdout"), text(seen, "stderr"), seen[-1])
                else:
                    check(response.json()["stdout"], response.json()["stderr"], response.json())

    with ThreadPoolExecutor(20) as pool:
        clients = [pool.submit(loop, number % 2 == 0) for number in range(20)]
        eventually(lambda: enough.is_set() or any(c.done() for c in clients), "a hundred answers")
        server.terminate()
        for client in clients:
            client.result()
    assert server.wait() == 0
    assert len(refused) == 20 and len(answers) >= 100
    assert processes(mark) == []


def is_draining(client) -> bool:
    try:
        response = client.get("/ready")
    except httpx.TransportError:
        return True
    return response.status_code == 503


def test_it_drains(start):
    """What runs may end; what is new is refused; then it exits."""
    server = start("--grace", "60")
    fifo = server.root / "fifo"
    os.mkfifo(fifo)
    mark = marker()
    # Waits for the test, not for a time.
    body = {"command": f"sh -c 'cat fifo; echo last words' {mark}"}
    # Connected before: a draining server may refuse new connections.
    with server.client() as client, server.client() as other, ThreadPoolExecutor(1) as pool:
        assert other.get("/ready").status_code == 200
        running = pool.submit(client.post, "/execute", json=body)
        eventually(lambda: processes(mark), "the run")
        server.terminate()

        eventually(lambda: is_draining(other), "the drain")
        try:
            assert_problem(other.post("/execute", json={"command": "true"}), 503)
        except httpx.TransportError:
            pass
        assert server.process.poll() is None
        fifo.write_text("from the test\n")
        answer = running.result()
    assert answer.status_code == 200
    assert answer.json()["stdout"] == "from the test\nlast words\n"
    assert server.wait() == 0


def test_after_its_grace_it_ends_what_still_runs(start):
    server = start("--grace", "1")
    mark = marker()
    body = {"command": "sh -c", "args": [f"setsid sleep {mark} & sleep {mark}"]}
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        running = pool.submit(client.post, "/execute", json=body)
        eventually(lambda: len(processes(mark)) >= 2, "the run")
        server.terminate()
        answer = running.result()
    assert (answer.status_code, answer.json()["reason"]) == (200, "cancelled")
    assert server.wait() == 0
    assert processes(mark) == []


def test_a_second_sigterm_ends_at_once(start):
    server = start("--grace", "100")
    mark = marker()
    with server.client() as client, server.client() as other, ThreadPoolExecutor(1) as pool:
        assert other.get("/ready").status_code == 200
        running = pool.submit(client.post, "/execute", json={"command": f"sleep {mark}"})
        eventually(lambda: processes(mark), "the run")
        begun = time.monotonic()
        server.terminate()
        # Two signals sent at once may arrive as one.
        eventually(lambda: is_draining(other), "the drain")
        server.terminate()
        server.wait()
        assert time.monotonic() - begun < 50
        try:
            running.result()
        except httpx.TransportError:
            pass
    eventually(lambda: not processes(mark), "the end of the run")
