//! Writes output and ends to a channel's client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use russh::server::{Handle, Msg};
use russh::{ChannelWriteHalf, Sig};
use splengine_core::execute::{ExitStatus, Signal, Stream};
use splengine_core::{End, Reason};
use tokio::io::AsyncWrite;
use tokio::time::timeout;

/// The client has closed the channel, or is gone.
#[derive(Debug)]
pub(crate) struct Disconnected;

/// The sending side of a channel. What is sent waits for the client's window.
pub(crate) struct Reply {
    channel: ChannelWriteHalf<Msg>,
    handle: Handle,
    /// Whether a terminal is on the other side, for which a line feed is no new line.
    pub(crate) in_terminal: bool,
    /// Whether the end by a signal is told as an exit status.
    pub(crate) signals_as_status: bool,
    /// Set before the client can know of its end.
    pub(crate) is_closed: Arc<AtomicBool>,
}

/// How what ran on a channel has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(u32),
    Signal(Signal),
}

impl Reply {
    pub(crate) fn new(channel: ChannelWriteHalf<Msg>, handle: Handle) -> Self {
        let (in_terminal, signals_as_status) = (false, false);
        Self { channel, handle, in_terminal, signals_as_status, is_closed: Arc::default() }
    }

    pub(crate) async fn send(&self, stream: Stream, data: Bytes) -> Result<(), Disconnected> {
        let sent = match stream {
            Stream::Stdout => self.channel.data_bytes(data).await,
            _ => self.channel.extended_data_bytes(STDERR, data).await,
        };
        sent.map_err(|_| Disconnected)
    }

    /// Standard output as a stream of bytes.
    pub(crate) fn writer(&self) -> impl AsyncWrite + Send + Unpin + 'static {
        Box::pin(self.channel.make_writer())
    }

    /// Says why nothing runs, or no longer, and ends the channel.
    pub(crate) async fn refuse(&self, words: &str, code: u32) -> Exit {
        let _ = self.say(words).await;
        self.finish(Exit::Code(code)).await
    }

    async fn say(&self, words: &str) -> Result<(), Disconnected> {
        let end = if self.in_terminal { "\r\n" } else { "\n" };
        self.send(Stream::Stderr, format!("{words}{end}").into()).await
    }

    /// The same for a client that may not listen any more: its window is not waited for for long.
    pub(crate) async fn cut_off(&self, words: &str) -> Exit {
        let said = self.say(words);
        let _ = timeout(LISTENING, said).await;
        self.finish(Exit::Code(REFUSED)).await
    }

    /// Tells the end, after the last byte and before the channel is closed.
    pub(crate) async fn finish(&self, exit: Exit) -> Exit {
        match &exit {
            Exit::Code(code) => drop(self.channel.exit_status(*code).await),
            Exit::Signal(signal) if self.signals_as_status => {
                let code = 128 + u32::try_from(signal.number()).unwrap_or(0);
                drop(self.channel.exit_status(code).await);
            }
            Exit::Signal(signal) => {
                let name = signal.to_string();
                let name = Sig::Custom(name.strip_prefix("SIG").unwrap_or(&name).to_owned());
                let id = self.channel.id();
                let told =
                    self.handle.exit_signal_request(id, name, false, String::new(), String::new());
                let _ = told.await;
            }
        }
        self.end_output().await;
        self.close().await;
        exit
    }

    /// Tells the client that no more is printed.
    pub(crate) async fn end_output(&self) {
        drop(self.channel.eof().await);
    }

    /// Closes the channel.
    pub(crate) async fn close(&self) {
        self.is_closed.store(true, Relaxed);
        drop(self.channel.close().await);
    }
}

impl From<&End> for Exit {
    fn from(end: &End) -> Self {
        match (end.reason, end.signal) {
            (Reason::Signaled, Some(signal)) => Self::Signal(signal),
            _ => Self::Code(u32::try_from(end.exit_code).unwrap_or(REFUSED)),
        }
    }
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        match status {
            ExitStatus::Signal(signal) => Self::Signal(signal),
            other => Self::Code(u32::try_from(other.exit_code()).unwrap_or(REFUSED)),
        }
    }
}

/// RFC 4254, section 5.2.
const STDERR: u32 = 1;
const LISTENING: Duration = Duration::from_secs(1);
/// What shells exit with that can't read a command.
pub(crate) const MISUSE: u32 = 2;
/// What OpenSSH's client exits with when the connection itself is at fault.
pub(crate) const REFUSED: u32 = 255;
