"""Files, as curl's users have them."""

import json
import subprocess

import httpx
import pytest
from server import AUTH, TOKEN, assert_problem

FILES = "/api/v1/files"


@pytest.fixture
def curl(server, tmp_path):
    def curl(*words) -> str:
        done = subprocess.run(
            ["curl", "-sS", "--noproxy", "*", "--max-time", "60",
             "-H", f"Authorization: {AUTH['Authorization']}",
             *[str(word).replace("URL", f"{server.url}{FILES}") for word in words]],
            stdout=subprocess.PIPE, timeout=90, cwd=tmp_path,
        )
        assert done.returncode == 0
        return done.stdout.decode()

    return curl


@pytest.mark.parametrize("flags", [["--http1.1"], ["--http2-prior-knowledge"]])
def test_upload_download_resume_and_ask_again(curl, flags, tmp_path):
    content = bytes(range(256)) * 20_000
    (tmp_path / "sent.bin").write_bytes(content)
    place = f"URL/curl{flags[0]}/"
    assert json.loads(curl(*flags, "-X", "PUT", place))["kind"] == "directory"
    made = json.loads(curl(*flags, "-T", "sent.bin", place))
    assert (made["path"], made["size"]) == (f"/curl{flags[0]}/sent.bin", len(content))
    (tmp_path / "got.bin").write_bytes(content[:1_000_000])
    curl(*flags, "-C", "-", "-o", "got.bin", f"{place}sent.bin")
    assert (tmp_path / "got.bin").read_bytes() == content
    assert curl(*flags, "-z", "got.bin", "-w", "%{http_code}", f"{place}sent.bin") == "304"
    etag = curl(*flags, "-I", f"{place}sent.bin").split("etag: ")[1].split("\r")[0]
    assert etag == made["etag"]
    refused = curl(*flags, "-T", "sent.bin", "-H", "If-None-Match: *", f"{place}sent.bin")
    assert json.loads(refused)["status"] == 412
    assert curl(*flags, "-T", "sent.bin", "-H", f"If-Match: {etag}", "-w", "%{http_code}", f"{place}sent.bin").endswith("200")
    assert curl(*flags, "-X", "DELETE", "-w", "%{http_code}", f"{place}sent.bin") == "204"
    assert curl(*flags, "-X", "DELETE", "-w", "%{http_code}", place) == "204"


def test_a_listing_is_reached_by_a_redirect_and_nothing_hidden_is_in_it(curl, server):
    listing = json.loads(curl("-L", "URL"))
    assert listing["path"] == "/" and "runtime" not in [entry["name"] for entry in listing["entries"]]
    assert json.loads(curl("URL/runtime/"))["status"] == 404
    assert json.loads(curl("--path-as-is", "URL/../../../etc/passwd"))["status"] in (400, 404, 422)


def test_what_commands_write_is_there_and_watched(client, server):
    assert client.put(f"{FILES}/watched/").status_code == 201
    url = f"{server.url}{FILES}/watched/"
    with httpx.stream("GET", url, params={"watch": "true"}, headers=AUTH, timeout=60, trust_env=False) as watch:
        lines = watch.iter_lines()
        assert next(lines) == ":"
        script = "echo one >a; mv a b; rm b; echo two >c"
        assert client.post("/execute", json={"command": "sh -c", "args": [script], "workdir": "watched"}).json()["success"]
        seen = []
        while "c" not in [event["name"] for event in seen]:
            line = next(lines)
            if line.startswith("data: "):
                seen.append(json.loads(line.removeprefix("data: ")))
    # How much of it is told in one depends on how fast it is read.
    assert "b" in [event["name"] for event in seen if event["type"] == "removed"]
    assert client.get(f"{FILES}/watched/c").text == "two\n"


def test_each_has_only_its_own_rights(server):
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as nobody:
        assert_problem(nobody.get(f"{FILES}/"), 401)
        assert_problem(nobody.put(f"{FILES}/x", content=b"x"), 401)
    foreign = {**AUTH, "Origin": "http://evil.example"}
    assert_problem(httpx.put(f"{server.url}{FILES}/x", content=b"x", headers=foreign, trust_env=False, timeout=60), 403)
    assert TOKEN not in server.log.read_text()
