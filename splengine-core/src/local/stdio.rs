//! A running process: its pipes, its end, and requests to stop it.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe;
use tokio::time::{Instant, sleep};

use crate::execute::{Cancel, Output, Stdin, Stream};
use crate::process::{Leader, Outcome, Pipes};

/// How a process ended that has ended, but was not reaped yet.
#[derive(Debug)]
pub(crate) struct Attended {
    /// It was told to stop before it ended.
    pub(crate) stopped: bool,
    /// Being asked was not enough.
    pub(crate) killed: bool,
    pub(crate) tree: Outcome,
    /// With what it printed last still in them.
    pub(crate) pipes: [OutputPipe; 2],
}

/// Our end of one of its output streams.
#[derive(Debug)]
pub(crate) struct OutputPipe(pipe::Receiver, Stream);

/// Stays with a process until it has ended and, unless they are to be kept, its tree with it.
pub(crate) async fn attend(
    leader: &Leader,
    pipes: Pipes,
    stdin: Stdin,
    output: &Output,
    cancel: &Cancel,
    grace: Duration,
    keep_background: bool,
) -> io::Result<Attended> {
    let Pipes { stdin: to_child, stdout, stderr } = pipes;
    let pipes = [OutputPipe(stdout, Stream::Stdout), OutputPipe(stderr, Stream::Stderr)];
    let (stopped, killed) = {
        let feeding = async {
            if let Some(to_child) = to_child {
                feed(stdin, to_child).await;
            }
        };
        let streaming = async {
            tokio::join!(pipes[0].pump(output), pipes[1].pump(output));
        };
        let mut serving = std::pin::pin!(async { tokio::join!(feeding, streaming) });
        let mut ending = std::pin::pin!(end(leader, cancel, grace));
        let mut served = false;
        loop {
            tokio::select! {
                biased;
                ended = &mut ending => break ended?,
                signal = cancel.signalled() => leader.tree().pass_on(signal),
                _ = &mut serving, if !served => served = true,
            }
        }
    };
    let tree =
        if keep_background && !stopped { Outcome::default() } else { leader.tree().sweep().await };
    Ok(Attended { stopped, killed, tree, pipes })
}

/// Waits for the end of the process. When it is told to stop: asks the tree to end, waits for the
/// grace, and kills it. Returns whether it was stopped and whether it had to be killed.
async fn end(leader: &Leader, cancel: &Cancel, grace: Duration) -> io::Result<(bool, bool)> {
    tokio::select! {
        biased;
        ended = leader.ended() => {
            ended?;
            return Ok((false, false));
        }
        () = cancel.stop_requested() => {}
    }
    let tree = leader.tree();
    tree.ask_to_end().await;
    let tree_ended = async {
        leader.ended().await?;
        loop {
            let begun = Instant::now();
            if !tree.has_members().await {
                break;
            }
            // On a host with very many processes a look takes its time: a fifth of it at most.
            sleep(TREE_LOOK.max(begun.elapsed() * 4)).await;
        }
        Ok(())
    };
    tokio::select! {
        biased;
        ended = tree_ended => return ended.map(|()| (true, false)),
        () = cancel.kill_requested() => {}
        () = sleep(grace) => {}
    }
    tree.kill().await;
    leader.ended().await?;
    Ok((true, true))
}

impl OutputPipe {
    /// Copies what the program prints to `output`, no faster than that is read, until its end.
    async fn pump(&self, output: &Output) {
        let Self(pipe, stream) = self;
        let mut buffer = BytesMut::new();
        loop {
            output.ready().await;
            if pipe.readable().await.is_err() {
                return;
            }
            buffer.reserve(CHUNK);
            match pipe.try_read_buf(&mut buffer) {
                Ok(0) => return,
                Ok(_) => {
                    // A small piece must not hold a large buffer for as long as it waits.
                    let data = if buffer.len() >= CHUNK / 2 {
                        buffer.split().freeze()
                    } else {
                        let data = Bytes::copy_from_slice(&buffer);
                        buffer.clear();
                        data
                    };
                    // When nobody reads any more the rest is read all the same, so that the
                    // program does not hang on its way out.
                    let _ = output.push(*stream, data);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    buffer = BytesMut::new();
                }
                Err(_) => return,
            }
        }
    }

    /// Moves what is in the pipe now to `output`, at most what a pipe holds, without waiting for
    /// its reader, nor for whoever still holds the other end.
    pub(crate) fn drain(&self, output: &Output) {
        let Self(pipe, stream) = self;
        let left = rustix::io::ioctl_fionread(pipe).unwrap_or(0);
        let mut left = usize::try_from(left).unwrap_or(usize::MAX);
        while left > 0 {
            let mut buffer = BytesMut::zeroed(left.min(CHUNK));
            match rustix::io::read(pipe, &mut buffer[..]) {
                Ok(0) | Err(_) => return,
                Ok(length) => {
                    buffer.truncate(length);
                    left -= length;
                    let _ = output.push(*stream, buffer.freeze());
                }
            }
        }
    }

    /// Whether some process may still write to it.
    pub(crate) fn has_writer(&self) -> bool {
        let mut look = [PollFd::new(&self.0, PollFlags::IN)];
        // Where it can't be known, one may.
        match poll(&mut look, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(_) => !look[0].revents().contains(PollFlags::HUP),
            Err(_) => true,
        }
    }

    /// The pipe itself, in which what was not read is left.
    pub(crate) fn into_fd(self) -> io::Result<OwnedFd> {
        self.0.into_blocking_fd()
    }
}

/// Gives the program its input, no faster than it reads, until either has enough.
async fn feed(stdin: Stdin, mut to_child: pipe::Sender) {
    let mut source = stdin.into_reader();
    let mut buffer = vec![0; CHUNK];
    loop {
        match source.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            // A program need not read all that it is given: a closed pipe is no failure.
            Ok(length) => {
                if to_child.write_all(&buffer[..length]).await.is_err() {
                    return;
                }
            }
        }
    }
}

const CHUNK: usize = 64 * 1024;
/// How often to look whether a tree that was asked to end has.
const TREE_LOOK: Duration = Duration::from_millis(10);
