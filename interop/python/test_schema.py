"""What the OpenAPI document promises, held to by Schemathesis: no answer is a server's error, nor one
that the document does not know or describes otherwise."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from server import TOKEN, Server

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
# Whatever is made up for a command is given to a program that only prints something.
PROGRAM = "#!/bin/sh\necho out\necho error >&2\n"
# Answers of 200 are got for what there is; changes are tried on what is made up.
CONFIG = """
[[operations]]
include-path-regex = "/batches/"
parameters = {{ id = "{batch}", step = "first", stream = "stdout" }}

[[operations]]
include-path-regex = "/sessions/"
parameters = {{ id = "{session}" }}

[[operations]]
include-path-regex = "/saved-sessions/"
parameters = {{ id = "{saved}" }}

[[operations]]
include-path-regex = "/files/"
parameters = {{ path = "file" }}
"""


def things(server: Server) -> dict[str, str]:
    """The ids of one of each."""
    with server.client() as client:
        step = {"id": "first", "command": "run"}
        batch = client.post("/api/v1/batches", params={"wait": "true"}, json={"steps": [step]}).json()
        session = client.post("/api/v1/sessions", json={}).json()
        at = f"/api/v1/sessions/{session['sessionId']}"
        saved = client.post(f"{at}/save").json()
        assert client.post(f"{at}/shares", json={"access": "view", "expiresIn": 60_000}).is_success
        assert client.put("/api/v1/files/file", content=b"content").is_success
    return {"batch": batch["batchId"], "session": session["sessionId"], "saved": saved["savedId"]}


@pytest.fixture
def server(start, tmp_path):
    program = tmp_path / "program"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    return start("--program", str(program), "--shell", "/bin/cat")


def schemathesis(server: Server, home: Path, *options: str) -> str:
    host, port = server.address
    done = subprocess.run(
        [Path(sys.executable).with_name("schemathesis"), "run", f"http://{host}:{port}/openapi.json",
         "-H", f"Authorization: Bearer {TOKEN}", "--workers", "2", "--checks", ",".join(CHECKS), "--seed", "1",
         "--request-timeout", "5", "--continue-on-failure", *options],
        cwd=home, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def test_what_there_is_is_described(server, tmp_path):
    (tmp_path / "schemathesis.toml").write_text(CONFIG.format(**things(server)))
    said = schemathesis(server, tmp_path, "--phases=coverage,fuzzing", "--include-method=GET", "--max-examples=10")
    # Most answers are no refusals.
    assert "Missing test data" not in said, said


def test_no_answer_is_an_error_or_undocumented(server, tmp_path):
    # Tickets are bounded by caller.
    schemathesis(server, tmp_path, "--phases=fuzzing", "--max-examples=10", "--exclude-path-regex=tickets")
