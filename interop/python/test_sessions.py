"""Terminal sessions over HTTP: made, looked at, typed into, saved, shared, ended, survived."""

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from server import BOB, Server, assert_problem, eventually

SESSIONS = "/api/v1/sessions"
SAVED = "/api/v1/saved-sessions"
MEMBERS = {
    "sessionId", "user", "name", "created", "lastActivity", "cols", "rows", "workdir", "clients",
    "state", "exitCode",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("sessions") / "server", ws=True)
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
        end_all(client)


@pytest.fixture
def bob(server):
    with server.client(BOB) as client:
        yield client


def end_all(client):
    """They outlive their clients, and a user may have so many only."""
    for session in client.get(SESSIONS).json()["sessions"]:
        assert client.delete(f"{SESSIONS}/{session['sessionId']}").status_code == 204


def create(client, **members) -> str:
    response = client.post(SESSIONS, json=members)
    assert response.status_code == 201, response.text
    path = f"{SESSIONS}/{response.json()['sessionId']}"
    assert response.headers["location"] == path
    return path


def get(client, path, **options):
    response = client.get(path, **options)
    assert response.status_code == 200, response.text
    return response


def record(client, path) -> dict:
    return get(client, path).json()


def enter(client, path, line):
    response = client.post(f"{path}/input", content=f"{line}\r".encode())
    assert response.status_code == 204, response.text


def shows(client, path, wanted):
    """Until its screen shows that."""
    return eventually(
        lambda: wanted in (screen := get(client, f"{path}/screen").text) and screen, wanted
    )


def told(client, path, line, file: Path) -> str:
    """What a command line, entered there, writes into the file."""
    enter(client, path, f"({line}) > {file}.part; mv {file}.part {file}")
    eventually(file.exists, line)
    value = file.read_text()
    file.unlink()
    return value


# Records.


def test_a_session_and_all_its_members(client, server):
    (server.root / "data").mkdir(exist_ok=True)
    path = create(client, workdir="data", cols=100, rows=30, name="nightly")
    session = record(client, path)
    assert MEMBERS <= session.keys()
    assert session["sessionId"].startswith("spl-alice-") and session["user"] == "alice"
    assert (session["cols"], session["rows"], session["name"]) == (100, 30, "nightly")
    assert (session["state"], session["exitCode"], session["clients"]) == ("running", None, 0)
    for time in (session["created"], session["lastActivity"]):
        # RFC 3339 in UTC.
        assert time.endswith("Z") and abs(age(time)) < timedelta(minutes=1)
    assert told(client, path, "stty size; pwd", server.root / "told") == (
        f"30 100\n{server.root}/data\n"
    )


def age(time: str) -> timedelta:
    return datetime.now(UTC) - datetime.fromisoformat(time)


def test_every_member_may_be_left_out(client, server):
    path = create(client)
    session = record(client, path)
    assert (session["cols"], session["rows"], session["name"]) == (80, 24, None)
    assert told(client, path, "pwd", server.root / "told") == f"{server.root}\n"
    assert client.post(SESSIONS).status_code == 201


def test_the_list_holds_mine_only(client, bob):
    paths = [create(client), create(client)]
    listed = record(client, SESSIONS)["sessions"]
    assert {f"{SESSIONS}/{session['sessionId']}" for session in listed} == set(paths)
    assert all(MEMBERS <= session.keys() for session in listed)
    assert record(bob, SESSIONS)["sessions"] == []


def test_a_command_of_its_own_and_its_end(client):
    path = create(client, command="sh -c", args=["echo $K $SPL_SESSION_ID; exit 4"],
                  env={"K": "V"}, cols=200)
    session = eventually(lambda: (s := record(client, path))["state"] == "exited" and s, "its end")
    assert session["exitCode"] == 4
    assert get(client, f"{path}/screen").text.split() == ["V", session["sessionId"]]
    path = create(client, command="sh -c 'kill -9 $$'")
    session = eventually(lambda: (s := record(client, path))["state"] == "exited" and s, "its end")
    assert session["exitCode"] == 128 + 9


def test_its_environment_holds_no_secret_of_the_server(client, server):
    seen = told(client, create(client), "env", server.root / "told")
    assert "CANARY" not in seen and "do-not-tell" not in seen
    assert "SPL_SESSION_ID=spl-alice-" in seen


def test_a_present_directory_is_told(client, server):
    (server.root / "here").mkdir(exist_ok=True)
    path = create(client)
    enter(client, path, "cd here")
    eventually(lambda: record(client, path)["workdir"] == f"{server.root}/here", "the directory")


def test_an_execution_runs_in_the_shells_directory_and_environment(client, server):
    (server.root / "there").mkdir(exist_ok=True)
    path = create(client, env={"K": "V"})
    told(client, path, "true", server.root / "told")
    enter(client, path, "cd there")
    eventually(lambda: record(client, path)["workdir"] == f"{server.root}/there", "the directory")
    result = client.post("/execute", json={
        "command": "sh -c", "args": ["pwd; echo $K $SPL_SESSION_ID"],
        "sessionId": (session := path.rpartition("/")[2]),
    }).json()
    assert result["stdout"] == f"{server.root}/there\nV {session}\n"
    assert result["sessionId"] == session


def test_rename(client):
    path = create(client, name="before")
    response = client.patch(path, json={"name": "after"})
    assert response.status_code == 200 and response.json()["name"] == "after"
    assert record(client, path)["name"] == "after"
    assert client.patch(path, json={"name": None}).json()["name"] is None


# Its terminal.


def test_input_is_bytes(client):
    path = create(client, command="cat -A", cols=80)
    response = client.post(
        f"{path}/input", content=b"\xff\x01\xc3\xa9\r",
        headers={"Content-Type": "application/octet-stream"},
    )
    assert response.status_code == 204
    shows(client, path, "M-^?^AM-CM-)$")


def test_the_screen_as_text_and_as_escape_sequences(client):
    path = create(client, command="printf", args=[r"plain \033[31mred\033[0m é\n"])
    eventually(lambda: record(client, path)["state"] == "exited", "its end")
    for query in ({}, {"format": "text"}):
        screen = get(client, f"{path}/screen", params=query)
        assert screen.headers["content-type"].split(";")[0] == "text/plain"
        assert screen.text.strip() == "plain red é" and "\x1b" not in screen.text
    drawn = get(client, f"{path}/screen", params={"format": "ansi"}).text
    assert "\x1b[31mred" in drawn.replace("\x1b[0;31m", "\x1b[31m") and "plain" in drawn


def test_the_recording_plays_in_stock_players(client):
    path = create(client, command="sh -c", args=["echo one; read x; printf '\\377é\\n'"])
    shows(client, path, "one")
    enter(client, path, "two")
    eventually(lambda: record(client, path)["state"] == "exited", "its end")
    recording = get(client, f"{path}/recording")
    assert recording.headers["content-type"] == "application/x-asciicast"
    header, *rest = map(json.loads, recording.text.splitlines())
    assert header["version"] in (1, 2, 3)
    assert (header["width"], header["height"]) == (80, 24)
    times = [event[0] for event in rest]
    assert times == sorted(times) and all(event[1] in "oirmx" for event in rest)
    output = "".join(event[2] for event in rest if event[1] == "o")
    assert output == "one\r\ntwo\r\n\ufffdé\r\n"


def test_ranges_of_the_recording(client):
    path = create(client, command="echo recorded")
    eventually(lambda: record(client, path)["state"] == "exited", "its end")
    whole = get(client, f"{path}/recording").content
    part = client.get(f"{path}/recording", headers={"Range": "bytes=5-14"})
    assert (part.status_code, part.content) == (206, whole[5:15])
    assert part.headers["content-range"] == f"bytes 5-14/{len(whole)}"
    last = client.get(f"{path}/recording", headers={"Range": "bytes=-7"})
    assert (last.status_code, last.content) == (206, whole[-7:])
    none = client.get(f"{path}/recording", headers={"Range": f"bytes={len(whole)}-"})
    assert_problem(none, 416)
    assert none.headers["content-range"] == f"bytes */{len(whole)}"


# Saving and loading.


def test_save_load_and_forget(client, server):
    (server.root / "kept").mkdir(exist_ok=True)
    path = create(client, cols=90, rows=20, env={"K": "V"})
    enter(client, path, "cd kept; echo seen $((40 + 2))")
    shows(client, path, "seen 42")
    response = client.post(f"{path}/save", json={"name": "friday"})
    assert response.status_code == 201
    saved = response.json()
    place = f"{SAVED}/{saved['savedId']}"
    assert (saved["name"], saved["user"]) == ("friday", "alice")
    assert record(client, place) == saved and saved in record(client, SAVED)["savedSessions"]

    loaded = create(client, **{"from": saved["savedId"]})
    assert loaded != path
    session = record(client, loaded)
    assert (session["cols"], session["rows"], session["state"]) == (90, 20, "running")
    shows(client, loaded, "seen 42")
    assert told(client, loaded, "pwd; echo $K", server.root / "told") == f"{server.root}/kept\nV\n"

    assert client.delete(place).status_code == 204
    for gone in (client.get(place), client.delete(place)):
        assert_problem(gone, 404)
    assert_problem(client.post(SESSIONS, json={"from": saved["savedId"]}), 404)


def test_a_saved_session_outlives_its_session_and_the_server(start):
    server = start(ws=True)
    with server.client() as client:
        path = create(client)
        enter(client, path, "echo seen $((40 + 2))")
        shows(client, path, "seen 42")
        saved = client.post(f"{path}/save", json={}).json()["savedId"]
        assert client.delete(path).status_code == 204
    server.kill()
    server.start()
    with server.client() as client:
        shows(client, create(client, **{"from": saved}), "seen 42")


# Shares and tickets.


@pytest.mark.parametrize("access", ["view", "control"])
def test_a_share(client, server, access):
    path = create(client)
    response = client.post(f"{path}/shares", json={"access": access, "expiresIn": 60000})
    assert response.status_code == 201
    share = response.json()
    # A secret: only behind `#` do browsers and proxies keep it to themselves.
    before, _, behind = share["url"].partition("#")
    assert share["ticket"] in behind and share["ticket"] not in before
    assert before.startswith(server.origin)
    assert share["ticket"] not in get(client, f"{path}/shares").text
    assert client.delete(response.headers["location"]).status_code == 204
    assert_problem(client.delete(response.headers["location"]), 404)
    assert client.delete(f"{path}/shares").status_code == 204


@pytest.mark.parametrize("body", [
    {"access": "own"}, {"access": 1}, {"expiresIn": 0}, {"expiresIn": -1}, {"expiresIn": "soon"},
], ids=str)
def test_a_share_that_cannot_be(client, body):
    path = create(client)
    assert_problem(client.post(f"{path}/shares", json={"access": "view"} | body), 400)


def test_a_ticket_is_no_bearer_token(client, server):
    path = create(client)
    share = client.post(f"{path}/shares", json={"access": "control"}).json()["ticket"]
    ticket = client.post("/api/v1/tickets").json()["ticket"]
    for secret in (share, ticket):
        with server.client(secret) as guest:
            assert_problem(guest.get(SESSIONS), 401)


# Ends and refusals.


def test_the_end(client, server):
    path = create(client, command="sh -c", args=["trap '' HUP TERM; echo $$; sleep 300; sleep 300"])
    pid = int(eventually(lambda: get(client, f"{path}/screen").text.strip(), "its pid"))
    assert client.delete(path).status_code == 204
    assert not Path(f"/proc/{pid}").exists()
    for gone in (client.get(path), client.delete(path), client.get(f"{path}/screen"),
                 client.get(f"{path}/recording"), client.post(f"{path}/input", content=b"x")):
        assert_problem(gone, 404)


def test_its_background_children_end_with_it(client, server):
    path = create(client)
    pid = int(told(client, path, "setsid sleep 300 & echo $!", server.root / "told"))
    assert client.delete(path).status_code == 204
    eventually(lambda: not alive(pid), "the child's end")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_input_for_what_has_ended(client):
    path = create(client, command="true")
    eventually(lambda: record(client, path)["state"] == "exited", "its end")
    assert_problem(client.post(f"{path}/input", content=b"x"), 409)


@pytest.mark.parametrize("body", [
    b"{", b"[]", b'{"cols": 0}', b'{"rows": 0}', b'{"cols": "wide"}', b'{"cols": -1}',
    b'{"env": ["K"]}', b'{"args": "x"}', b'{"zap": 1}', b'{"command": "echo \'open"}',
], ids=bytes.decode)
def test_malformed(client, body):
    headers = {"Content-Type": "application/json"}
    assert_problem(client.post(SESSIONS, content=body, headers=headers), 400)


def test_a_size_that_is_far_too_large_is_refused_in_the_clients_words(client):
    problem = assert_problem(client.post(SESSIONS, json={"cols": 1_000_000}), 400)
    assert "u16" not in problem["detail"]


@pytest.mark.parametrize("body", [
    {"command": "no-such-program"}, {"workdir": "missing"}, {"workdir": ".."}, {"workdir": "/etc"},
], ids=str)
def test_well_formed_but_impossible(client, body):
    assert_problem(client.post(SESSIONS, json=body), 422)
    assert record(client, SESSIONS)["sessions"] == []


def test_a_form_that_the_screen_does_not_have(client):
    assert_problem(client.get(f"{create(client)}/screen", params={"format": "png"}), 400)


def test_more_sessions_than_a_user_may_have(start):
    server = start(ws=True)
    with server.client() as client, server.client(BOB) as bob:
        for _ in range(1000):
            response = client.post(SESSIONS, json={"command": "cat"})
            if response.status_code != 201:
                break
        assert_problem(response, 429)
        assert int(response.headers["retry-after"]) > 0
        assert bob.post(SESSIONS, json={"command": "cat"}).status_code == 201


def requests_for(path: str, saved: str) -> list[tuple[str, str, dict]]:
    return [
        ("GET", path, {}), ("PATCH", path, {"json": {"name": "mine"}}), ("DELETE", path, {}),
        ("GET", f"{path}/screen", {}), ("GET", f"{path}/recording", {}),
        ("POST", f"{path}/input", {"content": b"x"}), ("POST", f"{path}/save", {"json": {}}),
        ("POST", f"{path}/shares", {"json": {"access": "view"}}), ("DELETE", f"{path}/shares", {}),
        ("GET", f"{SAVED}/{saved}", {}), ("DELETE", f"{SAVED}/{saved}", {}),
        ("POST", SESSIONS, {"json": {"from": saved}}),
        ("POST", "/execute", {"json": {"command": "true", "sessionId": path.rpartition("/")[2]}}),
    ]


def test_what_belongs_to_another_is_not_there(client, bob):
    path = create(client, name="hers")
    saved = client.post(f"{path}/save", json={}).json()["savedId"]
    for method, place, body in requests_for(path, saved):
        assert_problem(bob.request(method, place, **body), 404)
    assert record(client, path)["name"] == "hers" and record(client, f"{SAVED}/{saved}")


def test_nobody_gets_in_without_credentials(client, server):
    path = create(client, name="hers")
    with httpx.Client(base_url=server.url, trust_env=False, timeout=60) as nobody:
        for method, place, body in [*requests_for(path, "saved"), ("POST", "/api/v1/tickets", {})]:
            response = nobody.request(method, place, **body)
            assert_problem(response, 401)
            assert response.headers["www-authenticate"] == "Bearer"


def test_no_such_session(client):
    for method, place, body in requests_for(f"{SESSIONS}/spl-alice-none", "none"):
        assert_problem(client.request(method, place, **body), 404)


def test_a_method_that_is_not_there(client):
    response = client.put(create(client))
    assert_problem(response, 405)
    allowed = {word.strip() for word in response.headers["allow"].split(",")}
    assert {"GET", "PATCH", "DELETE"} <= allowed


def test_errors_are_of_the_type_that_the_openapi_document_says(client):
    paths = client.get("/openapi.json").json()["paths"]
    for path in (SESSIONS, f"{SESSIONS}/{{id}}", SAVED):
        refused = paths[path]["get"]["responses"]["4XX"]["content"]
        assert set(refused) == {"application/problem+json"}


# The server's own end.


def test_killed_it_lists_its_sessions_as_lost_and_they_can_be_loaded(start):
    server = start(ws=True)
    (server.root / "kept").mkdir()
    with server.client() as client:
        path = create(client, name="mine")
        pid = int(told(client, path, "echo $$", server.root / "told"))
        enter(client, path, "cd kept; echo seen $((40 + 2))")
        shows(client, path, "seen 42")
    # How soon a screen is on disk, nothing promises.
    eventually(lambda: on_disk(server, b"seen 42"), "its screen on disk")
    server.kill()
    server.start()
    eventually(lambda: not alive(pid), "the shell's end")
    with server.client() as client:
        session = record(client, path)
        assert (session["state"], session["name"], session["clients"]) == ("lost", "mine", 0)
        assert session in record(client, SESSIONS)["sessions"]
        loaded = create(client, **{"from": session["sessionId"]})
        assert record(client, loaded)["state"] == "running"
        shows(client, loaded, "seen 42")
        assert told(client, loaded, "pwd", server.root / "told") == f"{server.root}/kept\n"


def on_disk(server, what: bytes) -> bool:
    # Not its recording, nor what is yet to be moved to its place: they may be there before.
    return any(what in file.read_bytes() for file in (server.root / "runtime/sessions").glob("*/state"))


def test_drained_it_has_saved_its_sessions(start):
    server = start(ws=True)
    with server.client() as client:
        path = create(client, name="mine")
        enter(client, path, "echo seen $((40 + 2))")
        shows(client, path, "seen 42")
    assert server.stop() == 0
    server.start()
    with server.client() as client:
        saved, = record(client, SAVED)["savedSessions"]
        assert (saved["sessionId"], saved["name"]) == (path.rpartition("/")[2], "mine")
        shows(client, create(client, **{"from": saved["savedId"]}), "seen 42")


@pytest.mark.parametrize("end", ["kill", "stop"])
def test_sessions_that_survive(start, end):
    server = start(ws=True, config="[sessions]\nsurvive = true\n")
    go = server.root / "go"
    with server.client() as client:
        path = create(client, name="mine")
        pid = int(told(client, path, "echo $$", server.root / "told"))
        enter(client, path, "echo up $((40 + 1)); until test -e go; do sleep 0.05; done;"
                            " echo seen $((40 + 2)); touch been")
        shows(client, path, "up 41")
    try:
        getattr(server, end)()
        go.touch()
        eventually((server.root / "been").exists, "it going on with no server there")
        server.start()
        with server.client() as client:
            session = record(client, path)
            assert (session["state"], session["name"]) == ("running", "mine")
            shows(client, path, "seen 42")
            assert int(told(client, path, "echo $$", server.root / "told")) == pid
            assert "seen 42" in get(client, f"{path}/recording").text
            end_all(client)
        assert not alive(pid)
    finally:
        if alive(pid):
            os.kill(pid, 9)
