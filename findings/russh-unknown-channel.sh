#!/usr/bin/env bash
# russh 0.65.1 answers a request to open a channel of a type that it does not know twice: with
# SSH_OPEN_UNKNOWN_CHANNEL_TYPE (3) as RFC 4254, section 5.1, has it, and then with another
# SSH_MSG_CHANNEL_OPEN_FAILURE for the same channel, of code 1, when it drops the handle by which a
# handler would have answered. No handler is asked, so that a server can't prevent it. The same holds for
# forwarded-streamlocal@openssh.com and auth-agent@openssh.com. Clients that forget a channel at its first
# answer may take the second for a breach of the protocol.
#
# Seen with russh 0.65.1, by paramiko 4.0.0:
#
#   Secsh channel 0 open FAILED: Unknown channel type: Unknown channel type
#   Secsh channel 0 open FAILED: Administratively prohibited: Administratively prohibited
#
# Runs a server that accepts all and a client that opens such a channel, both in a new folder that is
# removed at the end. Fails when the answers are no longer these two.
set -euo pipefail
dir=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; rm -rf "$dir"' EXIT
cd "$dir"
mkdir -p src
cat > Cargo.toml <<'END'
[package]
name = "seen"
version = "0.0.0"
edition = "2024"

[dependencies]
russh = { version = "=0.65.1", default-features = false, features = ["ring"] }
tokio = { version = "1", features = ["net", "rt-multi-thread", "macros"] }
END
cat > src/main.rs <<'END'
use std::sync::Arc;

use russh::keys::key::safe_rng;
use russh::keys::{Algorithm, PrivateKey};
use russh::server::{Auth, Config, Handler, run_stream};

struct Accepting;

impl Handler for Accepting {
    type Error = russh::Error;

    async fn auth_none(&mut self, _: &str) -> Result<Auth, russh::Error> {
        Ok(Auth::Accept)
    }
}

#[tokio::main]
async fn main() {
    let key = PrivateKey::random(&mut safe_rng(), Algorithm::Ed25519).expect("a key");
    let config = Arc::new(Config { keys: vec![key], ..Config::default() });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bound");
    println!("{}", listener.local_addr().expect("bound").port());
    let (stream, _) = listener.accept().await.expect("a client");
    let session = run_stream(config, stream, Accepting).await.expect("a handshake");
    let _ = session.await;
}
END
cat > client.py <<'END'
import logging
import sys
import time

import paramiko

told = []


class Keep(logging.Handler):
    def emit(self, record):
        if "open FAILED" in record.getMessage():
            told.append(record.getMessage())


logging.getLogger("paramiko").addHandler(Keep())
transport = paramiko.Transport(("127.0.0.1", int(sys.argv[1])))
transport.start_client(timeout=20)
transport.auth_none("anybody")
try:
    transport.open_channel("unheard-of@example.com", timeout=20)
except paramiko.ChannelException:
    pass
deadline = time.monotonic() + 5
while len(told) < 2 and time.monotonic() < deadline:
    time.sleep(0.05)
transport.close()
print("\n".join(line.rstrip(": ") for line in told))
END
cargo build -q
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check paramiko==4.0.0
./target/debug/seen > port &
server=$!
for _ in $(seq 200); do [ -s port ] && break; sleep 0.05; done
venv/bin/python client.py "$(cat port)" | tee seen
cmp seen - <<'END'
Secsh channel 0 open FAILED: Unknown channel type: Unknown channel type
Secsh channel 0 open FAILED: Administratively prohibited: Administratively prohibited
END
