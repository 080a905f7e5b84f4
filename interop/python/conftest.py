import hashlib
import os

import httpx
import pytest

from server import Server
from ssh import Keys


@pytest.fixture
def start(tmp_path):
    """Starts servers that end with the test, well."""
    started: list[Server] = []

    def start(*flags, **options) -> Server:
        server = Server(tmp_path / f"server-{len(started)}", *flags, **options)
        started.append(server)
        return server

    yield start
    assert [server.stop() for server in started] == [0] * len(started)


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """One server for the tests that need nothing special. What one of them does to it, the
    others would suffer."""
    server = Server(tmp_path_factory.mktemp("shared") / "server")
    yield server
    assert server.stop() == 0


@pytest.fixture
def client(server) -> httpx.Client:
    with server.client() as client:
        yield client


@pytest.fixture(scope="session")
def keys(tmp_path_factory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="session")
def blob(tmp_path_factory):
    """A file of 200 MB that nothing shrinks, and its hash."""
    path = tmp_path_factory.mktemp("blob") / "blob"
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for _ in range(200):
            piece = os.urandom(1_000_000)
            digest.update(piece)
            file.write(piece)
    yield path, digest.hexdigest()
    path.unlink()
