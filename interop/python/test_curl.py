"""curl, as people use it in a shell."""

import json
import subprocess

import pytest
from server import AUTH, checked, text


@pytest.fixture
def curl(server):
    def curl(*words, stdin=None):
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "60",
             "-H", f"Authorization: {AUTH['Authorization']}",
             *[word.replace("URL", server.url) for word in words]],
            input=stdin, stdout=subprocess.PIPE, timeout=90,
        )
        assert done.returncode == 0
        return done.stdout

    return curl


JSON = ("-H", "Content-Type: application/json")


def test_the_one_from_the_readme(curl):
    answer = json.loads(curl("URL/execute", *JSON, "-d", '{"command": "echo hello"}'))
    assert (answer["success"], answer["stdout"]) == (True, "hello\n")


@pytest.mark.parametrize("flags, versions", [
    (["--http1.0"], ["1", "1.0"]), (["--http1.1"], ["1.1"]), (["--http2-prior-knowledge"], ["2"]),
    (["--http2"], ["1.1", "2"]),  # An upgrade, which a server may decline.
])
def test_every_version_of_http(curl, flags, versions):
    out = curl(*flags, "URL/execute", *JSON, "-d", '{"command": "echo hello"}', "-w", "\n%{http_version}")
    body, seen = out.decode().rsplit("\n", 1)
    assert json.loads(body)["stdout"] == "hello\n"
    assert seen in versions


@pytest.mark.parametrize("flags", [["--http1.1"], ["--http2-prior-knowledge"]])
def test_ndjson(curl, flags):
    body = '{"command": "sh", "args": ["-c", "seq 1 50000; exit 5"]}'
    out = curl(*flags, "-N", "URL/execute", *JSON, "-H", "Accept: application/x-ndjson", "-d", body)
    seen = checked([json.loads(line) for line in out.splitlines() if line])
    assert text(seen, "stdout").split() == [str(n) for n in range(1, 50_001)]
    assert seen[-1]["exitCode"] == 5


@pytest.mark.parametrize("flags", [["--http1.1"], ["--http2-prior-knowledge"]])
def test_stdin_streamed_in(curl, flags):
    data = b"line\n" * 1_000_000
    out = curl(*flags, "-X", "POST", "-T", "-", "-H", "Content-Type: application/octet-stream",
               "URL/execute?command=wc%20-l&args=-c", stdin=data)
    assert json.loads(out)["stdout"].split() == ["1000000", "5000000"]


@pytest.mark.parametrize("flags", [["--http1.1"], ["--http2-prior-knowledge"]])
def test_an_answer_that_comes_before_all_was_sent_is_not_lost(curl, flags):
    """The program wants none of its input, and the server none of the second body."""
    out = curl(*flags, "-X", "POST", "-T", "-", "-H", "Content-Type: application/octet-stream",
               "URL/execute?command=echo%20no", stdin=b"x" * (64 << 20))
    assert json.loads(out)["stdout"] == "no\n"
    out = curl(*flags, "-X", "POST", "-T", "-", *JSON, "URL/execute", stdin=b" " * (64 << 20))
    assert json.loads(out)["status"] == 413


def test_a_body_of_no_stated_type(curl):
    out = curl("URL/execute", "-d", '{"command": "true"}', "-w", "\n%{http_code} %{content_type}")
    body, seen = out.decode().rsplit("\n", 1)
    assert seen.split(";")[0] == "415 application/problem+json"
    assert "application/json" in json.loads(body)["error"]


def test_one_connection_for_many_requests(curl):
    one = ["-o", "/dev/null", "URL/execute"]
    out = curl(*JSON, "-d", '{"command": "true"}', "-w", "%{http_code} %{num_connects}\n", *one * 3)
    assert out.decode().splitlines() == ["200 1", "200 0", "200 0"]


def test_a_refused_request_leaves_the_connection_usable(curl):
    out = curl("-d", "{}", "-w", "%{http_code} %{num_connects}\n", *["-o", "/dev/null", "URL/execute"] * 2)
    assert out.decode().splitlines() == ["415 1", "415 0"]
