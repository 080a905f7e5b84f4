"""The WebSocket server: who gets in, the plain protocol, and spl.term.v1."""

import hashlib
import json
import random
import socket
import struct
import time

import httpx
import pytest
from server import BOB, PATIENCE, TOKEN, Server, eventually
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

V1 = "spl.term.v1"
SESSIONS = "/api/v1/sessions"
OUTPUT, SNAPSHOT, INPUT, ACK = 0x01, 0x02, 0x11, 0x12


class Terminal:
    """A client of the server, that checks what every client may rely on."""

    def __init__(self, server, query="", token=TOKEN, protocol=None, origin=None, **options):
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self.socket = connect(
            server.ws_url + query, additional_headers=headers, origin=origin, proxy=None,
            subprotocols=[protocol] if protocol else None, compression=None, max_size=None,
            # Tests that do not read for a while answer no pings.
            open_timeout=PATIENCE, ping_interval=None, **options,
        ).__enter__()  # Left by close().
        assert self.socket.subprotocol == protocol
        self.v1 = protocol == V1
        self.acks = False
        self.kinds = []
        self.output = bytearray()
        self.snapshots = []
        self.offset = None  # Of the byte of output that must come next.
        self.typed = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, type, **members):
        self.socket.send(json.dumps({"type": type, **members}))

    def type(self, data: str | bytes):
        data = data.encode() if isinstance(data, str) else data
        if self.v1:
            self.input(self.typed, data)
            self.typed += len(data)
        else:
            self.socket.send(data)

    def input(self, number: int, data: bytes):
        self.socket.send(struct.pack(">BQ", INPUT, number) + data)

    def ack(self):
        try:
            self.socket.send(struct.pack(">BQ", ACK, self.offset))
        except ConnectionClosed:
            pass  # There may be output left to be read.

    def frame(self, timeout=PATIENCE) -> dict:
        message = self.socket.recv(timeout=timeout)
        if isinstance(message, str):
            frame = json.loads(message)
            if frame["type"] == "output":
                assert not self.v1
                self.output += frame["data"].encode()
        else:
            frame = self.binary(message)
        self.kinds.append(frame["type"])
        return frame

    def binary(self, message: bytes) -> dict:
        assert self.v1 and message[0] in (OUTPUT, SNAPSHOT)
        kind, at = struct.unpack_from(">BQ", message)
        if kind == SNAPSHOT:
            size, data = struct.unpack_from(">HH", message, 9), message[13:]
            self.snapshots.append((at, *size, data))
            self.offset = at
            return {"type": "SNAPSHOT", "offset": at, "size": size, "data": data}
        data = message[9:]
        assert self.offset in (None, at), "a gap or a repeat"
        self.offset = at + len(data)
        self.output += data
        if self.acks:
            self.ack()
        return {"type": "OUTPUT", "offset": at, "data": data}

    def until(self, type, **members) -> dict:
        """The next frame of that type, with these members."""
        while True:
            frame = self.frame()
            if frame["type"] == type and members.items() <= frame.items():
                return frame

    def shows(self, wanted: str):
        """Until that is in the output, or in what redraws it."""
        # Only what may be new: there can be megabytes of it.
        seen, drawn = 0, 0
        while self.output.find(wanted.encode(), seen) < 0:
            if any(wanted.encode() in snapshot[3] for snapshot in self.snapshots[drawn:]):
                break
            seen, drawn = max(0, len(self.output) - len(wanted.encode())), len(self.snapshots)
            self.frame()

    def attach(self, session: str, **members) -> dict:
        """The `session` frame of an attachment. All before it is of another one: a client of
        spl.term.v1 that says nothing for a second gets a session of its own."""
        self.send("attach", sessionId=session, **members)
        frame = self.until("session", sessionId=session)
        self.kinds = ["session"]
        self.output.clear()
        self.snapshots.clear()
        self.offset = None
        return frame

    def answered(self):
        """Until the server has taken all that was sent so far."""
        self.send("ping")
        self.until("pong")

    def closed(self) -> int:
        """Its close code, once all before has been read."""
        with pytest.raises(ConnectionClosed) as ended:
            while True:
                self.frame()
        return ended.value.rcvd.code if ended.value.rcvd else 1006


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("terminal") / "server", ws=True)
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server):
    with server.client() as client:
        yield client
        # They outlive their clients, and a user may have so many only.
        for session in client.get(SESSIONS).json()["sessions"]:
            client.delete(f"{SESSIONS}/{session['sessionId']}")


@pytest.fixture
def create(client):
    def create(**members) -> str:
        response = client.post(SESSIONS, json=members)
        assert response.status_code == 201, response.text
        return response.json()["sessionId"]

    return create


@pytest.fixture
def terminal(server, client):
    """Clients that end with the test. One of spl.term.v1 is attached to what it names."""
    opened = []

    def terminal(query="", session=None, access="control", **options) -> Terminal:
        opened.append(terminal := Terminal(server, query, **options))
        if session:
            terminal.attach(session, access=access)
        return terminal

    yield terminal
    for terminal in opened:
        terminal.socket.close()


@pytest.fixture
def v1(terminal, create):
    """Clients of spl.term.v1, of one session where none is named."""
    one = []

    def v1(session=None, **options) -> Terminal:
        one or one.append(session or create())
        return terminal(session=session or one[0], protocol=V1, **options)

    return v1


def get(client, session) -> dict:
    response = client.get(f"{SESSIONS}/{session}")
    assert response.status_code == 200, response.text
    return response.json()


def refused(server, **options) -> httpx.Response:
    """How the server answers a handshake that it does not take."""
    with pytest.raises(InvalidStatus) as refusal:
        Terminal(server, **options)
    response = refusal.value.response
    problem = json.loads(response.body)
    assert response.headers["content-type"] == "application/problem+json"
    assert problem["status"] == response.status_code and problem["error"] == problem["detail"]
    return response


# Who gets in.


@pytest.mark.parametrize("origin", [
    "https://elsewhere.example", "null", "http://localhost:1", "http://127.0.0.1", "file://",
    "http://127.0.0.1.elsewhere.example",
])
@pytest.mark.parametrize("token", [TOKEN, None], ids=["bearer", "nothing"])
def test_a_page_of_another_site_is_refused_before_the_upgrade(server, origin, token):
    assert refused(server, origin=origin, token=token).status_code == 403


def test_the_ports_of_this_server_are_different_origins(server):
    assert refused(server, origin=server.url).status_code == 403


def test_a_configured_origin(start):
    """`allow-origins` of `[ws]`."""
    other = "https://console.example"
    server = start(ws=True, config=f'[ws]\nallow-origins = ["{other}"]\n')
    with Terminal(server, origin=other) as terminal:
        assert terminal.frame()["type"] == "session"
    assert refused(server, origin=other + ".elsewhere.example").status_code == 403


def test_without_an_origin_the_header_is_needed(server):
    response = refused(server, token=None)
    assert response.status_code == 401
    assert response.headers["www-authenticate"].split()[0] == "Bearer"
    for token in ("wrong", TOKEN[:-1], TOKEN + "x"):
        assert refused(server, token=token).status_code == 401


def test_a_token_in_the_query_is_no_credential(server):
    for name in ("token", "access_token", "ticket"):
        response = refused(server, query=f"?{name}={TOKEN}", token=None)
        assert response.status_code in (400, 401) and TOKEN.encode() not in response.body


def test_a_bearer_token_with_and_without_our_origin(server, terminal):
    for origin in (None, server.origin):
        assert terminal(origin=origin).frame()["type"] == "session"


def ticket(client) -> str:
    return client.post("/api/v1/tickets").json()["ticket"]


def shown(server, terminal, ticket, protocol=None, type="auth", **members) -> Terminal:
    """What a browser's page does with a ticket."""
    guest = terminal(token=None, origin=server.origin, protocol=protocol)
    guest.send(type, ticket=ticket, **members)
    return guest


def test_a_ticket_lets_in_once(server, client, terminal):
    once = ticket(client)
    first = shown(server, terminal, once).frame()
    assert (first["type"], first["access"]) == ("session", "control")
    assert get(client, first["sessionId"])["user"] == "alice"
    assert shown(server, terminal, once).closed() == 4401


def test_a_ticket_in_the_first_frame_of_spl_term_v1(server, client, terminal, create):
    session = create()
    guest = shown(server, terminal, ticket(client), V1, "attach", sessionId=session)
    assert guest.frame()["sessionId"] == session


@pytest.mark.parametrize("protocol", [None, V1])
@pytest.mark.parametrize("frame", [
    '{"type": "ping"}', '{"type": "attach", "sessionId": "x"}', "{", b"x", "[]",
    '{"type": "auth", "ticket": "wrong"}', '{"type": "auth", "ticket": 7}',
], ids=str)
def test_whatever_else_comes_first_is_no_credential(server, client, terminal, frame, protocol):
    guest = terminal(token=None, origin=server.origin, protocol=protocol)
    guest.socket.send(frame)
    assert guest.closed() == 4401
    assert "session" not in guest.kinds
    assert client.get(SESSIONS).json()["sessions"] == []


def test_the_console_logs_in_with_a_cookie_that_scripts_cannot_read(server):
    with httpx.Client(base_url=server.origin, trust_env=False, timeout=60) as page:
        assert page.get("/").headers["content-type"].startswith("text/html")
        answer = page.post("/login", json={"token": TOKEN}, headers={"Origin": server.origin})
        assert answer.is_success, answer.text
        cookie = answer.headers["set-cookie"]
        attributes = {word.strip().lower() for word in cookie.split(";")[1:]}
        assert {"httponly", "samesite=strict"} <= attributes
    headers = {"Cookie": cookie.split(";")[0]}
    with connect(server.ws_url, origin=server.origin, additional_headers=headers) as socket:
        assert json.loads(socket.recv(timeout=PATIENCE))["user"] == "alice"
    # What a browser sends of itself proves nothing about who asked it to.
    with pytest.raises(InvalidStatus), connect(server.ws_url, additional_headers=headers):
        pass


def test_a_missing_subprotocol_is_not_made_up(server, terminal):
    with connect(server.ws_url, additional_headers={"Authorization": f"Bearer {TOKEN}"},
                 subprotocols=["elsewhere.v9", V1], proxy=None) as socket:
        assert socket.subprotocol == V1


# Sessions of others.


def test_no_such_session(terminal, create):
    for protocol in (None, V1):
        lost = terminal(protocol=protocol)
        lost.send("attach", sessionId="spl-alice-none")
        lost.until("error")
        # Unless it took so long to say so that it has got a session of its own.
        if protocol and "session" not in lost.kinds:
            assert lost.closed() == 4404
    assert terminal("?session=spl-alice-none").closed() == 4404
    assert terminal(f"?session={create()}", token=BOB).closed() == 4404


def share(client, session, access) -> dict:
    members = {"access": access, "expiresIn": 60000}
    return client.post(f"{SESSIONS}/{session}/shares", json=members).json()


@pytest.mark.parametrize("protocol", [None, V1])
def test_a_guest_may_look(server, client, terminal, create, protocol):
    session = create()
    given = share(client, session, "view")["ticket"]
    guest = shown(server, terminal, given, protocol, "attach", sessionId=session, access="control")
    assert guest.until("session", sessionId=session)["access"] == "view"
    guest.type("echo gu$((1))est\r")
    for frame in ({"op": "take"}, {"op": "grant"}):
        guest.send("control", **frame)
    guest.send("close_session")
    guest.answered()
    owner = terminal(f"?session={session}")
    owner.type("echo ow$((1))ner\r")
    owner.shows("ow1ner")
    assert b"gu1est" not in owner.output and get(client, session)["state"] == "running"
    assert shown(server, terminal, given, protocol, "attach", sessionId=session).closed() == 4401


def test_a_guest_in_control_types(server, client, terminal, create):
    session = create()
    given = share(client, session, "control")["ticket"]
    guest = shown(server, terminal, given, V1, "attach", sessionId=session)
    guest.until("session", access="control")
    guest.type("echo gu$((1))est\r")
    guest.shows("gu1est")


def test_a_guest_gets_nothing_but_what_was_shared(server, client, terminal, create):
    session, other = create(), create()
    given = share(client, session, "control")["ticket"]
    guest = shown(server, terminal, given, V1, "attach", sessionId=other)
    assert guest.closed() in (4403, 4404) and "session" not in guest.kinds
    given = share(client, session, "control")["ticket"]
    guest = shown(server, terminal, given, V1, "new_session")
    assert guest.closed() == 4403 and "session" not in guest.kinds


def test_taken_back_a_share_ends_at_once(server, client, terminal, create):
    session = create()
    one, two = share(client, session, "view"), share(client, session, "control")
    guest = shown(server, terminal, one["ticket"], V1, "attach", sessionId=session)
    guest.until("session")
    assert client.delete(f"{SESSIONS}/{session}/shares").status_code == 204
    assert guest.closed() == 4403
    assert shown(server, terminal, two["ticket"], V1, "attach", sessionId=session).closed() == 4401


def test_a_share_expires(server, client, terminal, create):
    session = create()
    for expires_in in (500, 5000, 20000):
        given = client.post(f"{SESSIONS}/{session}/shares", json={"access": "view", "expiresIn": expires_in})
        guest = shown(server, terminal, given.json()["ticket"], V1, "attach", sessionId=session)
        try:
            guest.until("session")
            break
        except ConnectionClosed:
            pass  # Too late already, on a busy machine.
    assert guest.closed() == 4403


# The plain protocol.


def test_who_names_no_session_gets_a_new_one_at_once(client, terminal):
    first = terminal().frame()
    assert (first["type"], first["access"]) == ("session", "control")
    assert (first["cols"], first["rows"]) == (80, 24)
    assert get(client, first["sessionId"])["state"] == "running"
    assert terminal().frame()["sessionId"] != first["sessionId"]


@pytest.mark.parametrize("frame", ["text", "binary"])
def test_input_and_output(terminal, frame):
    plain = terminal()
    line = "echo é$((40 + 2))\r"
    plain.send("input", data=line) if frame == "text" else plain.type(line)
    plain.shows("é42\r\n")


def stands_still(file) -> int:
    """The size of a file, once nothing is written to it any more."""
    last, size = -1, 0
    while size != last:
        last = size
        time.sleep(1)
        size = file.stat().st_size
    return size


def test_who_is_alone_gets_a_large_output_whole_however_slowly_it_reads(server, terminal):
    """The simplest client that there is: text frames, read when it gets to it, nothing acknowledged."""
    count = 1_500_000
    lines = [f"{number}\n" for number in range(1, count + 1)]
    printed = server.root / "printed"
    printed.write_bytes(b"")
    # What the client's own side holds for it is little.
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    host, port = server.ready["ws"].rsplit(":", 1)
    slow.connect((host, int(port)))
    plain = terminal(sock=slow, max_queue=1)
    plain.send("input", data=f"stty -echo; echo up; seq 1 {count} | tee printed; exit 7\n")
    plain.shows("up\r\n1\r\n")
    # It reads nothing until the program waits, then goes on for a while.
    assert stands_still(printed) < sum(map(len, lines)), "the program did not wait"
    pause = 4 << 20
    while (frame := plain.frame())["type"] != "exit":
        if len(plain.output) > pause:
            pause += 4 << 20
            stands_still(printed)
    assert frame["exitCode"] == 7 and not {"notice", "error"} & set(plain.kinds)
    want = "".join(lines).replace("\n", "\r\n").encode()
    got = bytes(plain.output)
    start = got.index(b"1\r\n2\r\n3\r\n")
    assert len(got) - start >= len(want), "something is missing"
    assert hashlib.sha256(got[start:start + len(want)]).digest() == hashlib.sha256(want).digest()


def test_output_holds_whole_characters(terminal, create):
    """Its bytes are written one by one, with time in between for them to be sent one by one."""
    letters = "é€😀é"
    octal = " ".join(f"\\\\0{byte:03o}" for byte in letters.encode())
    session = create(command="sh -c", args=[
        f"read x; for b in {octal}; do printf %b $b; sleep 0.03; done; printf '\\377'; echo end",
    ])
    plain = terminal(f"?session={session}")
    plain.type("\r")
    plain.shows("end")
    assert letters + "\ufffdend" in plain.output.decode()


def test_resize(client, terminal):
    plain = terminal()
    session = plain.frame()["sessionId"]
    plain.send("resize", cols=101, rows=33)
    plain.type("stty size\r")
    plain.shows("33 101\r\n")
    assert (get(client, session)["cols"], get(client, session)["rows"]) == (101, 33)


def test_session_is_told_again_at_a_change_of_size(terminal):
    plain = terminal()
    plain.until("session")
    plain.send("resize", cols=101, rows=33)
    plain.send("ping")
    plain.type("stty size\r")
    plain.shows("33 101\r\n")
    plain.answered()
    assert "session" in plain.kinds[1:]


def test_ping_and_what_is_unknown(terminal):
    plain = terminal()
    plain.until("session")
    plain.send("from_the_future", data={"x": [1]})
    plain.send("ping", member="from the future")
    plain.until("pong")
    assert "error" not in plain.kinds


def test_a_new_session_lets_the_old_one_run_on(server, client, terminal):
    (server.root / "data").mkdir(exist_ok=True)
    plain = terminal()
    old = plain.frame()["sessionId"]
    plain.send("new_session", workdir="data", cols=50, rows=10)
    new = plain.until("session")
    assert new["sessionId"] != old and (new["cols"], new["rows"]) == (50, 10)
    plain.type("stty size; pwd\r")
    plain.shows("10 50\r\n")
    plain.shows(f"{server.root}/data\r\n")
    assert get(client, old)["state"] == "running"
    plain.send("new_session", workdir="missing")
    plain.until("error")
    plain.type("echo st$((1))ill\r")
    plain.shows("st1ill")


def test_attach_by_the_query_and_by_a_frame(terminal, create):
    one, two = create(), create()
    plain = terminal(f"?session={one}")
    assert plain.frame()["sessionId"] == one
    plain.send("attach", sessionId=two)
    plain.until("session", sessionId=two, access="control")
    plain.send("attach", sessionId=one, access="view")
    plain.until("session", sessionId=one, access="view")


def test_what_happened_before_is_shown(terminal, create):
    session = create(command="sh -c 'echo be$((1))fore; cat'")
    terminal(f"?session={session}&access=view").shows("be1fore")


@pytest.mark.parametrize("protocol", [None, V1])
def test_who_looks_only_cannot_type(client, terminal, create, protocol):
    session = create()
    if protocol:
        viewer = terminal(session=session, access="view", protocol=V1)
    else:
        viewer = terminal(f"?session={session}&access=view")
        assert viewer.frame()["access"] == "view"
        viewer.send("input", data="echo te$((1))xt\r")
    viewer.type("echo vi$((1))ewer\r")
    viewer.send("resize", cols=20, rows=20)
    viewer.answered()
    typist = terminal(f"?session={session}")
    typist.type("echo ty$((1))pist\r")
    typist.shows("ty1pist")
    viewer.shows("ty1pist")
    assert b"vi1ewer" not in typist.output and b"te1xt" not in typist.output
    assert (get(client, session)["cols"], get(client, session)["rows"]) == (80, 24)


def test_who_looks_only_cannot_end_it(client, terminal, create):
    session = create()
    viewer = terminal(f"?session={session}&access=view")
    viewer.until("session")
    viewer.send("close_session")
    viewer.send("ping")
    while viewer.frame()["type"] not in ("pong", "exit"):
        pass
    assert get(client, session)["state"] == "running"


def test_save_and_load(client, terminal):
    plain = terminal()
    plain.type("echo seen $((40 + 2))\r")
    plain.shows("seen 42")
    plain.send("save_session", name="friday")
    saved = plain.until("saved", name="friday")["savedId"]
    listed = client.get("/api/v1/saved-sessions").json()["savedSessions"]
    assert saved in [session["savedId"] for session in listed]
    fresh = terminal()
    old = fresh.frame()["sessionId"]
    fresh.output.clear()
    fresh.send("load_session", savedId=saved)
    assert fresh.until("session")["sessionId"] != old
    fresh.shows("seen 42")
    fresh.send("load_session", savedId="none")
    assert fresh.until("error")["error"]


@pytest.mark.parametrize("protocol", [None, V1])
@pytest.mark.parametrize(("script", "code", "signal"), [
    ("exit 3", 3, None), ("kill -9 $$", 137, "SIGKILL"),
])
def test_exit(terminal, create, protocol, script, code, signal):
    session = create()
    both = [terminal(session=session, protocol=V1), terminal(f"?session={session}")]
    both[0 if protocol else 1].type(f"{script}\r")
    for client in both:
        end = client.until("exit")
        assert (end["exitCode"], end["signal"]) == (code, signal)
        assert client.closed() == 1000 and client.kinds.count("exit") == 1


def test_the_last_output_comes_before_the_exit(terminal, create):
    session = create(command="sh -c", args=["read x; seq 20000; echo the end"])
    plain = terminal(f"?session={session}")
    plain.type("\r")
    plain.until("exit")
    assert b"the end" in plain.output


def test_who_comes_too_late_is_told_how_it_ended(client, terminal, create):
    session = create(command="sh -c 'echo bye; exit 4'")
    eventually(lambda: get(client, session)["state"] == "exited", "its end")
    late = terminal(f"?session={session}")
    assert late.until("exit")["exitCode"] == 4 and b"bye" in late.output


def test_close_session_ends_it(client, terminal):
    plain = terminal()
    session = plain.frame()["sessionId"]
    plain.send("close_session")
    assert plain.closed() == 1000 and "exit" in plain.kinds
    response = client.get(f"{SESSIONS}/{session}")
    assert response.status_code == 404 or response.json()["state"] == "exited"


def test_closing_the_socket_detaches(server, client, terminal):
    plain = terminal()
    session = plain.frame()["sessionId"]
    plain.type("read x < /dev/tty; echo go$((1))ne\r")
    plain.shows("read x")
    plain.socket.close()
    eventually(lambda: get(client, session)["clients"] == 0, "its leaving")
    assert get(client, session)["state"] == "running"
    again = terminal(f"?session={session}")
    again.type("\r")
    again.shows("go1ne")


def test_clients_are_counted(client, terminal, create):
    session = create()
    first = terminal(f"?session={session}")
    first.until("clients", count=1)
    second = terminal(f"?session={session}&access=view")
    for each in (first, second):
        each.until("clients", count=2)
    assert get(client, session)["clients"] == 2
    second.socket.close()
    first.until("clients", count=1)


@pytest.mark.parametrize("frame", ["{", "[]", "null", '{"data": "x"}', '{"type": 7}'])
def test_what_is_no_frame(terminal, frame):
    plain = terminal()
    plain.until("session")
    plain.socket.send(frame)
    assert plain.until("error")["error"]
    plain.answered()


# spl.term.v1.


def test_a_snapshot_first_and_output_from_its_offset(v1):
    """Between the two no byte is missing or comes twice: every client here checks that."""
    first = v1()
    first.until("SNAPSHOT", size=(80, 24))
    first.type("printf 'nul\\0 \\377 end\\n'\r")
    first.shows(" end\r\n")
    assert b"nul\0 \xff end\r\n" in first.output
    late = v1()
    # A prompt may have come in between.
    assert late.until("SNAPSHOT")["offset"] >= first.offset
    first.type("echo bo$((1))th\r")
    for each in (first, late):
        each.shows("bo1th")
        assert each.kinds.count("SNAPSHOT") == 1


def resumed(terminal, session, place, **members) -> Terminal:
    again = terminal(protocol=V1)
    again.attach(session["sessionId"], access="control", **place, **members)
    return again


def test_resuming_goes_on_where_it_was(terminal, create):
    one = terminal(protocol=V1)
    session = one.attach(name := create(), access="control")
    one.type("echo be$((1))fore\r")
    one.shows("be1fore")
    one.answered()
    one.socket.close()
    other = terminal(f"?session={name}")
    other.type("seq 1000; echo mean$((1))while\r")
    other.shows("mean1while")
    again = resumed(terminal, session, {"epoch": session["epoch"], "offset": one.offset})
    again.offset = one.offset
    again.shows("mean1while")
    assert again.snapshots == []
    whole = bytes(one.output + again.output)
    assert whole.count(b"be1fore") == whole.count(b"mean1while") == 1
    assert b"".join(b"%d\r\n" % n for n in range(1, 1001)) in whole


@pytest.mark.parametrize("place", [
    {}, {"epoch": "another", "offset": 0}, {"epoch": "another"}, {"offset": 0},
    {"epoch": None, "offset": 2**53},
], ids=["nothing", "epoch", "epoch alone", "offset alone", "beyond"])
def test_anything_else_gets_a_snapshot(terminal, create, place):
    one = terminal(protocol=V1)
    session = one.attach(create(), access="control")
    one.type("echo be$((1))fore\r")
    one.shows("be1fore\r\n")
    if place.get("epoch", "") is None:
        place = {**place, "epoch": session["epoch"]}
    again = resumed(terminal, session, place)
    first = again.until("SNAPSHOT")
    assert b"be1fore" in first["data"] and "OUTPUT" not in again.kinds
    again.type("echo af$((1))ter\r")
    again.shows("af1ter")


def test_an_offset_no_longer_kept_gets_a_snapshot(terminal, create):
    one = terminal(protocol=V1)
    one.acks = True
    session = one.attach(create(), access="control")
    one.type("head -c 16000000 /dev/zero | tr '\\0' x; echo; echo af$((1))ter\r")
    one.shows("af1ter")
    again = resumed(terminal, session, {"epoch": session["epoch"], "offset": 0})
    assert b"af1ter" in again.until("SNAPSHOT")["data"]
    assert "OUTPUT" not in again.kinds


def test_input_is_acknowledged_and_never_typed_twice(v1):
    one = v1(session=None)
    line = b"echo on$((1))ce\r"
    one.input(0, line)
    one.until("input_ack", number=len(line))
    one.input(0, line)
    one.input(3, line[3:] + b"echo ne$((1))xt\r")
    one.until("input_ack", number=len(line) + 16)
    one.shows("ne1xt")
    assert one.output.count(b"on1ce") == 1 and one.output.count(b"ne1xt") == 1


def test_after_a_drop_a_client_resends_without_typing_twice(terminal, create):
    """A client is known again by `client` of the `session` frame."""
    one = terminal(protocol=V1)
    session = one.attach(create(), access="control")
    line = b"echo on$((1))ce\r"
    one.input(0, line)
    one.shows("on1ce")
    one.socket.close()
    place = {"epoch": session["epoch"], "offset": one.offset}
    again = resumed(terminal, session, place, client=session["client"])
    assert again.until("input_ack")["number"] == len(line)
    again.input(0, line + b"echo ne$((1))xt\r")
    again.shows("ne1xt")
    assert (one.output + again.output).count(b"on1ce") == 1


@pytest.mark.parametrize("frame", [
    b"", b"\x99", b"\x01" + bytes(8), b"\x11", b"\x11\0\0\0", b"\x12\0", b"\x12" + bytes(20),
], ids=bytes.hex)
def test_what_is_no_binary_frame(v1, frame):
    one = v1()
    one.socket.send(frame)
    assert one.closed() == 4400


def test_taking_releasing_and_granting_control(v1):
    one, two = v1(), v1()
    mine = one.until("control")["holder"]
    assert two.until("control")["holder"] == mine
    two.send("control", op="take")
    other = two.until("control")["holder"]
    assert other != mine and one.until("control", holder=other)
    two.send("control", op="grant", to=mine)
    for each in (one, two):
        each.until("control", holder=mine)
    one.send("control", op="release")
    for each in (one, two):
        each.until("control", holder=None)
    one.send("control", op="juggle")
    one.until("error")


def test_who_is_there_and_who_leaves(v1):
    one = v1()
    assert len(one.until("presence")["clients"]) == 1
    two = v1(access="view")
    assert len(two.until("presence")["clients"]) == 2
    there = one.until("presence")["clients"]
    assert {who["user"] for who in there} == {"alice"}
    assert {who["access"] for who in there} == {"control", "view"}
    two.socket.close()
    assert len(one.until("presence")["clients"]) == 1


def test_control_is_free_again_when_its_holder_leaves(v1):
    one, two = v1(), v1()
    mine = one.until("control")["holder"]
    two.until("control", holder=mine)
    one.socket.close()
    assert two.until("control")["holder"] != mine


def test_the_client_in_control_owns_the_size(v1, client):
    one, two = v1(), v1()
    one.send("resize", cols=100, rows=30)
    for each in (one, two):
        each.until("size", cols=100, rows=30)
    two.send("resize", cols=50, rows=20)
    two.answered()
    assert two.kinds.count("size") == 1
    two.send("control", op="take")
    two.until("control")
    two.send("resize", cols=60, rows=25)
    for each in (one, two):
        each.until("size", cols=60, rows=25)
    two.type("stty size\r")
    two.shows("25 60\r\n")


def test_titles(v1):
    one, two = v1(), v1(access="view")
    one.type("printf '\\033]2;my %s\\007' title\r")
    for each in (one, two):
        each.until("title", title="my title")
    assert v1().until("title")["title"] == "my title"


def test_a_client_that_may_not_is_noticed(v1):
    v1()
    viewer = v1(access="view")
    viewer.type("x")
    assert viewer.until("notice")["kind"]


# Much at once.


QUERIES = """
import os, sys, termios, tty
tty.setraw(0)
os.write(1, b"\\x1b[6n\\x1b[c\\x1b[6n\\x1b[5n")
answer = b""
while not answer.endswith(b"0n"):
    answer += os.read(0, 1000)
os.write(1, b"ready")
# Whatever else comes: a further answer to the queries, or the word to go.
while not answer.endswith(b"go"):
    answer += os.read(0, 1000)
with open("answer.part", "wb") as file:
    file.write(answer)
os.rename("answer.part", "answer")
"""


@pytest.mark.parametrize("clients", [0, 1, 3])
def test_queries_are_answered_exactly_once(server, client, v1, create, clients):
    (server.root / "queries.py").write_text(QUERIES)
    (answer := server.root / "answer").unlink(missing_ok=True)
    session = create(command="sh -c 'read x; exec python3 queries.py'")
    there = [v1(session=session) for _ in range(clients)]
    path = f"{SESSIONS}/{session}"
    client.post(f"{path}/input", content=b"\r")
    eventually(lambda: "ready" in client.get(f"{path}/screen").text, "the answers")
    for each in there:
        each.shows("ready")
        each.answered()
    client.post(f"{path}/input", content=b"go")
    eventually(answer.exists, "the rest")
    got = answer.read_bytes()
    assert got.count(b"R") == 2 and got.count(b"c") == 1 and got.count(b"\x1b[0n") == 1
    assert got.endswith(b"go") and got.count(b"\x1b") == 4


def lines(size: int) -> bytes:
    """No line longer than a terminal's line discipline takes, and nothing it acts on."""
    alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789"
    rest = bytes(random.Random(1).choices(alphabet, k=size))
    return b"".join(rest[at:at + 99] + b"\r" for at in range(0, size, 99))[:size - 1] + b"\r"


@pytest.mark.parametrize("way", ["plain text", "plain binary", "v1"])
def test_a_mebibyte_pasted_into_cat_arrives_whole(server, terminal, create, way):
    (pasted := server.root / "pasted").unlink(missing_ok=True)
    session = create(command="sh -c", args=["stty -echo; echo up; cat > pasted; echo do$((1))ne"])
    if way == "v1":
        one = terminal(session=session, protocol=V1)
    else:
        one = terminal(f"?session={session}")
    one.shows("up")
    data = lines(1 << 20)
    for at in range(0, len(data), 1 << 16):
        piece = data[at:at + (1 << 16)]
        one.send("input", data=piece.decode()) if way == "plain text" else one.type(piece)
    one.type("\x04")
    one.shows("do1ne")
    want = data.replace(b"\r", b"\n")
    assert len(pasted.read_bytes()) == len(want) and pasted.read_bytes() == want


def test_the_acking_client_in_control_gets_every_byte(v1, create):
    size = 8 << 20
    command = f"stty -opost; read x; seq 1 {10**7} | head -c {size}"
    one = v1(session=create(command="sh -c", args=[command]))
    one.acks = True
    one.until("SNAPSHOT")
    one.ack()
    start = one.offset
    one.type("\r")
    one.until("exit")
    assert one.kinds.count("SNAPSHOT") == 1
    want = "".join(f"{n}\n" for n in range(1, 1_200_000)).encode()[:size]
    # The typed line is echoed first.
    got = bytes(one.output[-size:])
    assert hashlib.sha256(got).digest() == hashlib.sha256(want).digest()
    assert one.offset - start <= size + 2


def test_a_slow_client_gets_a_snapshot_and_holds_nobody_up(v1, create):
    command = "stty -opost; read x; seq 1 2000000; echo the end; cat"
    session = create(command="sh -c", args=[command])
    slow = v1(session=session, access="view", max_queue=1)
    slow.until("SNAPSHOT")
    fast = v1(session=session)
    fast.acks = True
    fast.type("\r")
    fast.shows("the end")
    slow.shows("the end")
    assert len(slow.snapshots) > 1
    assert len(slow.output) < 14_000_000


def test_who_acks_no_more_paces_the_program_for_so_long_only(server, v1, create):
    (done := server.root / "done").unlink(missing_ok=True)
    session = create(command="sh -c", args=["read x; seq 1 1000000; touch done"])
    one = v1(session=session, max_queue=1)
    one.until("SNAPSHOT")
    one.ack()
    one.type("\r")
    eventually(done.exists, "the program's end")


def test_who_never_acks_does_not_pace_it(server, v1, create):
    (done := server.root / "done").unlink(missing_ok=True)
    session = create(command="sh -c", args=["read x; seq 1 1000000; touch done; cat"])
    one = v1(session=session, max_queue=1)
    one.type("\r")
    eventually(done.exists, "the program's end")


@pytest.mark.parametrize("protocol", [None, V1])
@pytest.mark.parametrize("kind", ["text", "binary"])
def test_a_frame_that_is_too_large(server, client, terminal, create, protocol, kind):
    session = create()
    one = terminal(session=session, protocol=V1) if protocol else terminal(f"?session={session}")
    data = b"x" * (5 << 20)
    try:
        if kind == "binary":
            one.type(data)
        else:
            one.send("input", data=data.decode())
    except ConnectionClosed:
        pass  # It need not hear us out.
    assert one.closed() == 4413
    assert get(client, session)["state"] == "running"


# Ends of the server.


def test_sigterm_tells_all_clients(start):
    server = start(ws=True)
    with Terminal(server) as plain, Terminal(server, protocol=V1) as one:
        session = plain.until("session")["sessionId"]
        one.send("attach", sessionId=session)
        one.until("session")
        server.terminate()
        assert one.closed() == plain.closed() == 1012


def test_more_sessions_than_a_user_may_have(start):
    server = start(ws=True)
    with server.client() as client:
        while client.post(SESSIONS, json={"command": "cat"}).status_code == 201:
            pass
    with Terminal(server) as plain:
        assert plain.closed() == 4429


def test_credentials_stand_in_no_log(server, client, create):
    secret = share(client, create(), "view")["ticket"]
    log = server.log.read_text()
    assert TOKEN not in log and secret not in log and "ticket-" not in log


def test_through_a_restart_a_client_sees_no_gap(start):
    server = start(ws=True, config="[sessions]\nsurvive = true\n")
    with server.client() as client:
        name = client.post(SESSIONS).json()["sessionId"]
    with Terminal(server, f"?session={name}", protocol=V1) as one:
        session = one.until("session")
        one.type("echo be$((1))fore\r")
        one.shows("be1fore\r\n")
        try:
            server.kill()
            one.closed()
        finally:
            server.start()
        with Terminal(server, protocol=V1) as again, server.client() as client:
            place = {"epoch": session["epoch"], "offset": one.offset}
            again.attach(name, access="control", **place)
            again.type("echo af$((1))ter\r")
            again.shows("af1ter\r\n")
            assert b"be1fore" not in again.output
            assert again.snapshots == [] or b"be1fore" in again.snapshots[0][3]
            for each in client.get(SESSIONS).json()["sessions"]:
                assert client.delete(f"{SESSIONS}/{each['sessionId']}").status_code == 204
