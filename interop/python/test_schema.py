"""What the OpenAPI document promises, held to by Schemathesis: no answer is a server's error, nor one
that the document does not know."""

import os
import subprocess
import sys
from pathlib import Path

from server import TOKEN

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance"


def test_no_answer_is_an_error_or_undocumented(start, tmp_path):
    # Whatever is made up for a command is given to a program that does nothing.
    server = start("--program", "/bin/true", "--shell", "/bin/cat")
    # Streams have no end to wait for, and tickets are bounded by caller.
    left_out = ["--exclude-path-regex", "events$|tickets"]
    host, port = server.address
    command = [
        str(Path(sys.executable).with_name("schemathesis")), "run",
        f"http://{host}:{port}/openapi.json", "-H", f"Authorization: Bearer {TOKEN}",
        "--phases=fuzzing", "--workers", "2", "--max-examples", "5", "--checks", CHECKS, "--seed", "1",
        "--request-timeout", "5", "--continue-on-failure", *left_out,
    ]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "NO_COLOR": "1"}, capture_output=True, text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
