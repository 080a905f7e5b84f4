//! A client of Avro RPC.

use std::net::SocketAddr;

use splengine_core::testing::conformance::{ClientError, Outcome, ServerClient, TestUser};
use splengine_core::{ErrorKind, Reason};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::conformance::{CODES, Datum, REASONS, avro_answer, avro_request, long, text};

pub(super) struct AvroClient(pub(super) SocketAddr);

impl AvroClient {
    async fn call(&self, user: TestUser, call: &[u8]) -> Result<Datum, ClientError> {
        let mut metadata = Vec::new();
        if let Some(token) = user.token() {
            metadata.push(2);
            text(b"spl-authorization", &mut metadata);
            text(format!("Bearer {token}").as_bytes(), &mut metadata);
        }
        let answer = exchange(self.0, &avro_request(&metadata, call)).await;
        match avro_answer(answer.map_err(ClientError::failed)?) {
            Ok(answer) => Ok(answer),
            // The string that every message may fail with.
            Err((0, mut error)) => {
                let told = error.text();
                let (code, message) = told.split_once(": ").unwrap_or((&told, ""));
                Err(refusal(code, message))
            }
            Err((_, mut error)) => {
                let code = usize::try_from(error.long()).map_err(ClientError::failed)?;
                Err(refusal(CODES[code], &error.text()))
            }
        }
    }
}

async fn exchange(addr: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(addr).await?;
    stream.write_all(request).await?;
    // A serial, and a count.
    stream.read_u64().await?;
    let mut answer = vec![0; stream.read_u32().await? as usize];
    stream.read_exact(&mut answer).await?;
    Ok(answer)
}

impl ServerClient for AvroClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        let mut call = Vec::new();
        text(b"run", &mut call);
        words(argv, &mut call);
        // No workdir, session or variables.
        call.extend_from_slice(&[0; 3]);
        call.push(2);
        text(stdin, &mut call);
        // No times or limits, `kill`, no mask and no shell.
        call.extend_from_slice(&[0; 7]);
        let mut answer = self.call(user, &call).await?;
        answer.byte();
        let code = i32::try_from(answer.long()).map_err(ClientError::failed)?;
        let outcome = Outcome::new(code).stdout(answer.bytes()).stderr(answer.bytes());
        answer.long();
        answer.text();
        let reason = usize::try_from(answer.long()).map_err(ClientError::failed)?;
        let reason = Reason::ALL.iter().find(|known| known.name() == REASONS[reason]);
        Ok(outcome.reason(*reason.ok_or_else(|| ClientError::failed("an unknown reason"))?))
    }

    async fn write_file(&self, user: TestUser, path: &str, data: &[u8]) -> Result<(), ClientError> {
        let mut call = Vec::new();
        for part in [b"writeFile", path.as_bytes(), data] {
            text(part, &mut call);
        }
        // The whole file.
        call.push(0);
        self.call(user, &call).await.map(drop)
    }

    async fn read_file(&self, user: TestUser, path: &str) -> Result<Vec<u8>, ClientError> {
        let mut call = Vec::new();
        text(b"readFile", &mut call);
        text(path.as_bytes(), &mut call);
        long(0, &mut call);
        long(65536, &mut call);
        Ok(self.call(user, &call).await?.bytes())
    }

    async fn batch(&self, user: TestUser, steps: &[&[&str]]) -> Result<Outcome, ClientError> {
        let mut call = Vec::new();
        text(b"executeBatchDetailed", &mut call);
        long(steps.len() as i64, &mut call);
        for argv in steps {
            words(argv, &mut call);
            call.extend_from_slice(&[0; 2]);
        }
        // The end of the commands, no id; it stops at an error; one at a time; and nothing else.
        call.extend_from_slice(&[0, 0, 1, 2, 0, 0, 0, 0]);
        let mut answer = self.call(user, &call).await?;
        answer.text();
        let mut outcome = Outcome::new(0);
        for _ in 0..answer.long() {
            let code = i32::try_from(answer.long()).map_err(ClientError::failed)?;
            if outcome.exit_code == 0 {
                outcome.exit_code = code;
            }
            outcome.stdout.extend(answer.text().into_bytes());
            answer.text();
            answer.long();
            answer.text();
        }
        Ok(outcome)
    }
}

/// A program and its arguments.
fn words(argv: &[&str], to: &mut Vec<u8>) {
    text(argv[0].as_bytes(), to);
    if argv.len() > 1 {
        long(argv.len() as i64 - 1, to);
        argv[1..].iter().for_each(|word| text(word.as_bytes(), to));
    }
    to.push(0);
}

/// What a code stands for.
fn refusal(code: &str, message: &str) -> ClientError {
    let kinds: &[ErrorKind] = match code {
        "INVALID_REQUEST" => &[ErrorKind::Malformed, ErrorKind::Impossible],
        "UNKNOWN_COMMAND" => &[ErrorKind::Impossible],
        "UNAUTHENTICATED" => &[ErrorKind::Unauthenticated],
        "PERMISSION_DENIED" => &[ErrorKind::Forbidden],
        "RESOURCE_EXHAUSTED" => &[ErrorKind::CallerLimit, ErrorKind::NoRoom],
        "UNAVAILABLE" => &[ErrorKind::Unavailable],
        "SESSION_NOT_FOUND" | "NOT_FOUND" => &[ErrorKind::NotFound],
        "CONFLICT" => &[ErrorKind::Conflict],
        "INTERNAL" => &[ErrorKind::Internal],
        code => return ClientError::failed(format!("{code}: {message}")),
    };
    ClientError::refused(kinds.iter().copied(), message)
}
