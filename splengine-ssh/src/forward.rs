//! A connection that is forwarded for a client.

use std::io;
use std::time::Duration;

use russh::ChannelOpenFailure;
use splengine_core::execute::Stream;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::channel_writer::Reply;
use crate::spill_buffer::SpillReader;

/// Where a client wants a connection to.
#[derive(Debug, Clone)]
pub(crate) enum Destination {
    Tcp(String, u16),
    Socket(String),
}

/// The two halves of a connection to a destination.
pub(crate) struct Connected {
    from: Box<dyn AsyncRead + Send + Unpin>,
    to: Box<dyn AsyncWrite + Send + Unpin>,
}

impl Destination {
    pub(crate) async fn connect(&self) -> Result<Connected, ChannelOpenFailure> {
        let connecting = async {
            Ok::<_, io::Error>(match self {
                Self::Tcp(host, port) => {
                    let (from, to) = TcpStream::connect((host.as_str(), *port)).await?.into_split();
                    Connected { from: Box::new(from), to: Box::new(to) }
                }
                Self::Socket(path) => {
                    let (from, to) = UnixStream::connect(path).await?.into_split();
                    Connected { from: Box::new(from), to: Box::new(to) }
                }
            })
        };
        match timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(connected)) => Ok(connected),
            _ => Err(ChannelOpenFailure::ConnectFailed),
        }
    }
}

impl Connected {
    /// Passes on what comes from either side until both have ended, or one is gone.
    pub(crate) async fn serve(mut self, mut input: SpillReader, reply: &Reply) {
        let up = async {
            let copied = tokio::io::copy(&mut input, &mut self.to).await;
            copied.and(self.to.shutdown().await)
        };
        let down = async {
            let mut buffer = bytes::BytesMut::new();
            loop {
                buffer.reserve(CHUNK);
                if self.from.read_buf(&mut buffer).await? == 0 {
                    break;
                }
                let sent = reply.send(Stream::Stdout, buffer.split().freeze()).await;
                sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
            }
            reply.end_output().await;
            Ok::<_, io::Error>(())
        };
        // Whether one of them has failed or both have ended: there is nobody to tell of it.
        let _ = tokio::try_join!(up, down);
        reply.close().await;
    }
}

/// How long a destination may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// In bytes, of what is passed on at a time.
const CHUNK: usize = 32 << 10;
