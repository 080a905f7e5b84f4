//! A client of SSH.

use std::net::SocketAddr;
use std::sync::Arc;

use russh::client::{self, Handle, Msg};
use russh::{Channel, ChannelMsg, Sig};
use russh_sftp::client::SftpSession;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::protocol::StatusCode;
use splengine_core::ErrorKind;
use splengine_core::testing::conformance::{
    ClientError, Outcome, ServerClient, TestUser, command_line,
};

use tokio::io::AsyncWriteExt as _;

use crate::conformance::Trusting;

pub(super) struct SshClient(pub(super) SocketAddr);

impl SshClient {
    /// The connection ends with the client.
    async fn open(&self, user: TestUser) -> Result<(Handle<Trusting>, Channel<Msg>), ClientError> {
        let config = Arc::new(client::Config::default());
        let client = client::connect(config, self.0, Trusting).await;
        let mut client = client.map_err(ClientError::failed)?;
        let shown = match user.token() {
            Some(token) => client.authenticate_password(user.name(), token).await,
            None => client.authenticate_none(user.name()).await,
        };
        if !shown.map_err(ClientError::failed)?.success() {
            return Err(ClientError::refused([ErrorKind::Unauthenticated], "not logged in"));
        }
        let channel = client.channel_open_session().await.map_err(ClientError::failed)?;
        Ok((client, channel))
    }

    async fn sftp(&self, user: TestUser) -> Result<(Handle<Trusting>, SftpSession), ClientError> {
        let (client, mut channel) = self.open(user).await?;
        channel.request_subsystem(true, "sftp").await.map_err(ClientError::failed)?;
        match channel.wait().await {
            Some(ChannelMsg::Success) => {}
            Some(ChannelMsg::Failure) => {
                return Err(outcome(channel)
                    .await
                    .map_or_else(|error| error, |_| ClientError::failed("no subsystem")));
            }
            other => return Err(ClientError::failed(format!("no answer: {other:?}"))),
        }
        let sftp = SftpSession::new(channel.into_stream()).await;
        Ok((client, sftp.map_err(of_sftp)?))
    }
}

fn of_sftp(error: SftpError) -> ClientError {
    let SftpError::Status(status) = &error else { return ClientError::failed(error) };
    let kind = match status.status_code {
        StatusCode::NoSuchFile => ErrorKind::NotFound,
        StatusCode::PermissionDenied => ErrorKind::Forbidden,
        _ => return ClientError::failed(error),
    };
    ClientError::refused([kind], &status.error_message)
}

impl ServerClient for SshClient {
    async fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> Result<Outcome, ClientError> {
        let (_client, channel) = self.open(user).await?;
        channel.exec(true, command_line(argv)).await.map_err(ClientError::failed)?;
        channel.data_bytes(stdin.to_vec()).await.map_err(ClientError::failed)?;
        channel.eof().await.map_err(ClientError::failed)?;
        outcome(channel).await
    }

    async fn terminal(&self, user: TestUser, input: &str) -> Result<Outcome, ClientError> {
        let (_client, channel) = self.open(user).await?;
        let pty = channel.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await;
        pty.map_err(ClientError::failed)?;
        channel.request_shell(true).await.map_err(ClientError::failed)?;
        channel.data_bytes(input.as_bytes().to_vec()).await.map_err(ClientError::failed)?;
        outcome(channel).await
    }

    async fn write_file(&self, user: TestUser, path: &str, data: &[u8]) -> Result<(), ClientError> {
        let (_client, sftp) = self.sftp(user).await?;
        let mut file = sftp.create(path).await.map_err(of_sftp)?;
        file.write_all(data).await.map_err(ClientError::failed)?;
        file.shutdown().await.map_err(ClientError::failed)
    }

    async fn read_file(&self, user: TestUser, path: &str) -> Result<Vec<u8>, ClientError> {
        let (_client, sftp) = self.sftp(user).await?;
        sftp.read(path).await.map_err(of_sftp)
    }
}

async fn outcome(mut channel: Channel<Msg>) -> Result<Outcome, ClientError> {
    let (mut outcome, mut end) = (Outcome::new(0), None);
    while let Some(message) = channel.wait().await {
        match message {
            ChannelMsg::Data { data } => outcome.stdout.extend_from_slice(&data),
            ChannelMsg::ExtendedData { data, .. } => outcome.stderr.extend_from_slice(&data),
            ChannelMsg::ExitStatus { exit_status } => end = i32::try_from(exit_status).ok(),
            ChannelMsg::ExitSignal { signal_name, .. } => {
                end = Some(128 + if matches!(signal_name, Sig::KILL) { 9 } else { 15 });
            }
            _ => {}
        }
    }
    outcome.exit_code = end.ok_or_else(|| ClientError::failed("closed without an end"))?;
    match refusal(&outcome) {
        Some((kind, message)) => Err(ClientError::refused([kind], message)),
        None => Ok(outcome),
    }
}

/// What was refused, of which SSH has an exit status and a text.
fn refusal(outcome: &Outcome) -> Option<(ErrorKind, String)> {
    // In a terminal there is one stream.
    let told = [&outcome.stderr[..], &outcome.stdout].concat();
    let told = String::from_utf8_lossy(&told).into_owned();
    let has = |words: &str| told.contains(words);
    let kind = match outcome.exit_code {
        127 if has("was not found") => ErrorKind::Impossible,
        254 if has("the engine failed") => ErrorKind::Internal,
        255 if has("scope `") => ErrorKind::Forbidden,
        255 if has("is full") || has("is shutting down") => ErrorKind::Unavailable,
        255 if has("your limit") => ErrorKind::CallerLimit,
        _ => return None,
    };
    Some((kind, told))
}
