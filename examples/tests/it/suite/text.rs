//! A client of the custom adapter.

use std::net::SocketAddr;

use splengine_core::testing::conformance::{
    ClientError, Outcome, ServerClient, TestUser, command_line,
};
use splengine_core::{ErrorKind, Reason};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

use super::custom_adapter::code;

pub(super) struct TextClient(pub(super) SocketAddr);

impl ServerClient for TextClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        let stream = TcpStream::connect(self.0).await.map_err(ClientError::failed)?;
        let login = user.token().map_or_else(String::new, |token| format!("Bearer {token}"));
        let head = format!("{login}\n{} {}\n", stdin.len(), command_line(argv));
        let (read, mut write) = tokio::io::split(stream);
        // What a program does not read of its input must not keep its answer.
        let input = [head.as_bytes(), stdin].concat();
        let send = async {
            let _ = write.write_all(&input).await;
            std::future::pending().await
        };
        tokio::select! {
            outcome = outcome(BufReader::new(read)) => outcome,
            never = send => never,
        }
    }
}

async fn outcome(
    mut it: BufReader<impl tokio::io::AsyncRead + Unpin>,
) -> Result<Outcome, ClientError> {
    let mut outcome = Outcome::new(0);
    loop {
        let mut line = String::new();
        it.read_line(&mut line).await.map_err(ClientError::failed)?;
        let (word, rest) = line.trim_end().split_once(' ').unwrap_or_default();
        match word {
            "stdout" | "stderr" => {
                let mut data = vec![0; rest.parse().map_err(ClientError::failed)?];
                it.read_exact(&mut data).await.map_err(ClientError::failed)?;
                match word {
                    "stdout" => outcome.stdout.extend(data),
                    _ => outcome.stderr.extend(data),
                }
            }
            "refused" => {
                let told = rest.split_once(' ').unwrap_or_default();
                let kinds = ErrorKind::ALL.iter().copied();
                let kinds = kinds.filter(|kind| code(*kind).to_string() == told.0);
                return Err(ClientError::refused(kinds, told.1));
            }
            word => {
                let reason = Reason::ALL.iter().find(|reason| reason.name() == word);
                let reason = reason.ok_or_else(|| ClientError::failed(format!("{line:?}")))?;
                outcome.exit_code = rest.parse().map_err(ClientError::failed)?;
                return Ok(outcome.reason(*reason));
            }
        }
    }
}
