//! The socket of a connection, as russh gets it: it can be cut, and tells of its traffic.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use splengine_core::net::Connection;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;
use tokio::time::Instant;

/// A socket between a client and russh, which runs a connection in a task of its own that nothing
/// but an error of its socket ends.
pub(crate) struct GuardedIo {
    connection: Connection,
    /// One for each direction, since each has a waker of its own.
    cut: [Pin<Box<dyn Future<Output = ()> + Send>>; 2],
    traffic: Traffic,
}

/// What the other end of a [`GuardedIo`] is cut by. Cuts it when dropped.
pub(crate) struct AbortHandle(watch::Sender<bool>);

/// When something was last read that nothing was written after.
#[derive(Clone)]
pub(crate) struct Traffic {
    begun: Instant,
    /// In milliseconds since `begun`, and one more; 0 when there is nothing unanswered.
    unanswered: Arc<AtomicU64>,
}

impl GuardedIo {
    pub(crate) fn new(connection: Connection) -> (Self, AbortHandle, Traffic) {
        let (abort, cut) = watch::channel(false);
        let traffic = Traffic { begun: Instant::now(), unanswered: Arc::default() };
        let cut = [cut.clone(), cut].map(|mut cut| -> Pin<Box<dyn Future<Output = ()> + Send>> {
            Box::pin(async move { drop(cut.wait_for(|is_cut| *is_cut).await) })
        });
        (Self { connection, cut, traffic: traffic.clone() }, AbortHandle(abort), traffic)
    }

    fn poll_cut(&mut self, direction: usize, cx: &mut Context<'_>) -> io::Result<()> {
        match self.cut[direction].as_mut().poll(cx) {
            Poll::Ready(()) => {
                // A future that has ended may not be polled again.
                self.cut[direction] = Box::pin(std::future::ready(()));
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AbortHandle {
    pub(crate) fn cut(&self) {
        self.0.send_replace(true);
    }
}

impl Traffic {
    /// For how long the client has waited for an answer.
    pub(crate) fn unanswered_for(&self) -> Duration {
        match self.unanswered.load(Relaxed) {
            0 => Duration::ZERO,
            since => self.begun.elapsed().saturating_sub(Duration::from_millis(since - 1)),
        }
    }

    fn read(&self) {
        let now = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1;
        let _ = self.unanswered.compare_exchange(0, now, Relaxed, Relaxed);
    }

    fn wrote(&self) {
        self.unanswered.store(0, Relaxed);
    }
}

impl AsyncRead for GuardedIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_cut(0, cx)?;
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.connection).poll_read(cx, buffer);
        if buffer.filled().len() > before {
            self.traffic.read();
        }
        read
    }
}

impl AsyncWrite for GuardedIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_cut(1, cx)?;
        let written = Pin::new(&mut self.connection).poll_write(cx, data);
        if written.is_ready() {
            self.traffic.wrote();
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.connection).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, split};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::{advance, timeout};

    use super::*;

    async fn line() -> (TcpStream, GuardedIo, AbortHandle, Traffic) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = listener.local_addr().expect("bound");
        let (peer, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (line, abort, traffic) = GuardedIo::new(accepted.expect("accepted").0.into());
        (peer.expect("connected"), line, abort, traffic)
    }

    #[tokio::test]
    async fn both_directions_are_cut_while_they_wait() {
        for is_dropped in [false, true] {
            let (_peer, line, abort, _) = line().await;
            let (mut reader, mut writer) = split(line);
            let reading = tokio::spawn(async move {
                let first = reader.read_u8().await;
                (first.map_err(|error| error.kind()), reader.read_u8().await.is_err())
            });
            // Nobody reads it.
            let writing = async {
                loop {
                    if let Err(error) = writer.write_all(&[0; 1 << 16]).await {
                        return error.kind();
                    }
                }
            };
            let mut writing = std::pin::pin!(writing);
            assert!(timeout(Duration::from_millis(300), &mut writing).await.is_err());
            assert!(!reading.is_finished());
            match is_dropped {
                true => drop(abort),
                false => abort.cut(),
            }
            assert_eq!(writing.await, io::ErrorKind::ConnectionAborted);
            let read = reading.await.expect("no panic");
            assert_eq!(read, (Err(io::ErrorKind::ConnectionAborted), true));
        }
    }

    #[tokio::test]
    async fn a_client_waits_until_something_is_written() {
        let (mut peer, mut line, _abort, traffic) = line().await;
        tokio::time::pause();
        advance(Duration::from_secs(5)).await;
        assert_eq!(traffic.unanswered_for(), Duration::ZERO, "it has asked nothing");
        for _ in 0..2 {
            peer.write_all(b"?").await.expect("sent");
            line.read_u8().await.expect("read");
            advance(Duration::from_secs(2)).await;
        }
        assert!(traffic.unanswered_for() >= Duration::from_secs(4), "since the first");
        line.write_all(b"!").await.expect("sent");
        advance(Duration::from_secs(2)).await;
        assert_eq!(traffic.unanswered_for(), Duration::ZERO);
    }
}
