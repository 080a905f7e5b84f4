use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::os::ExitStatus;
use crate::terminal::Size;

/// A program in a terminal: on this host, in a container, on another machine. An
/// [`Execute`](crate::Execute) makes it; the engine keeps its output and screen and lets clients
/// attach, as a session of [`Sessions`](crate::Sessions). Implement it with plain `async fn`s:
///
/// ```
/// use std::io;
/// use splengine_core::Session;
/// use splengine_core::execute::ExitStatus;
/// use splengine_core::terminal::{SessionStatus, Size};
/// use tokio::sync::{Mutex, mpsc};
///
/// /// Says again what is typed.
/// struct Echo(mpsc::Sender<Vec<u8>>, Mutex<mpsc::Receiver<Vec<u8>>>);
///
/// impl Session for Echo {
///     async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
///         let data = self.1.lock().await.recv().await.unwrap_or_default();
///         buffer.extend_from_slice(&data);
///         Ok(data.len())
///     }
///     async fn write(&self, data: &[u8]) -> io::Result<()> {
///         self.0.send(data.to_vec()).await.map_err(io::Error::other)
///     }
///     fn resize(&self, _size: Size) -> io::Result<()> {
///         Ok(())
///     }
///     async fn ended(&self) -> ExitStatus {
///         std::future::pending().await
///     }
///     async fn end(&self) {}
///     fn kill(&self) {}
///     fn status(&self) -> SessionStatus {
///         SessionStatus::default()
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(note = "implement `Session`, or take one from `LocalExecutor`")]
pub trait Session: Send + Sync + 'static {
    /// Waits for what the program prints next and appends it to `buffer`, up to its spare capacity or
    /// 64 KiB. 0 is the end: no process has the terminal's other side open any more.
    ///
    /// # Errors
    ///
    /// When it can't be read; taken for the end.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped.
    fn read(&self, buffer: &mut Vec<u8>) -> impl Future<Output = io::Result<usize>> + Send;

    /// Types `data` on the terminal, all of it, no faster than the program takes it.
    ///
    /// # Errors
    ///
    /// When no process is there to read it.
    ///
    /// # Cancel safety
    ///
    /// The engine polls the future to its end, or until the program has ended.
    fn write(&self, data: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// Tells the program of a new size.
    ///
    /// # Errors
    ///
    /// When there is no terminal any more.
    fn resize(&self, size: Size) -> io::Result<()>;

    /// Resolves when the program has ended, and with it all that it started. May be awaited
    /// several times.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost when the future is dropped: the next call resolves all the same.
    fn ended(&self) -> impl Future<Output = ExitStatus> + Send;

    /// Ends the program and all that it started: asks, waits for its grace, kills.
    /// [`ended`](Self::ended) tells when it is done.
    ///
    /// # Cancel safety
    ///
    /// The engine drops the future where its own shutdown is given up, and may call this again: what was
    /// begun should take its course.
    fn end(&self) -> impl Future<Output = ()> + Send;

    /// Kills the program and all that it started, at once and without waiting.
    fn kill(&self);

    /// Returns the state of the program now: directory, busy, echo.
    fn status(&self) -> SessionStatus;

    /// Returns the text by which an executor finds the program after this process was killed; kept
    /// with the session and given to [`Recover::adopt`](crate::execute::Recover::adopt). Default: nothing.
    fn mark(&self) -> Option<String> {
        None
    }

    /// Returns whether the program goes on without this process, to be
    /// [adopted](crate::execute::Recover::adopt) by the next: the engine then leaves it running when it
    /// shuts down, in place of ending it. Default: no.
    fn outlives(&self) -> bool {
        false
    }
}

/// Activity of a session's program.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionStatus {
    /// The present directory of its shell, where that can be known.
    pub workdir: Option<PathBuf>,
    /// `true` if that lies outside the directory that runs must stay in.
    pub is_outside: bool,
    /// `true` if another program than its shell has the terminal.
    pub busy: bool,
    /// `true` if what is typed is shown: a prompt for a password turns it off.
    pub echo: bool,
}

/// Handle to a program in a terminal: any [`Session`], with its type erased. Cheap to clone.
///
/// ```
/// use splengine_core::execute::{Cancel, Command, Exit, Output, Stdin};
/// use splengine_core::terminal::{Size, Terminal};
/// use splengine_core::{Execute, ExecuteError, Session};
///
/// /// Opens terminals of one kind, and runs nothing else.
/// struct Consoles<F>(F);
///
/// impl<S, F> Execute for Consoles<F>
/// where
///     S: Session,
///     F: Fn(&Command, Size) -> S + Send + Sync + 'static,
/// {
///     async fn execute(
///         &self,
///         _: Command,
///         _: Stdin,
///         _: Output,
///         _: Cancel,
///     ) -> Result<Exit, ExecuteError> {
///         Err(ExecuteError::internal("there are terminals only"))
///     }
///     async fn open(&self, command: Command, size: Size) -> Result<Terminal, ExecuteError> {
///         Ok(Terminal::new(self.0(&command, size)))
///     }
///     fn has_terminals(&self) -> bool {
///         true
///     }
/// }
/// ```
#[derive(Clone)]
pub struct Terminal(Arc<dyn DynSession>);

impl Terminal {
    /// Takes `session` in.
    pub fn new(session: impl Session) -> Self {
        Self(Arc::new(session))
    }

    pub(crate) async fn read(&self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        self.0.read_boxed(buffer).await
    }

    pub(crate) async fn write(&self, data: &[u8]) -> io::Result<()> {
        self.0.write_boxed(data).await
    }

    pub(crate) fn resize(&self, size: Size) -> io::Result<()> {
        self.0.resize_now(size)
    }

    pub(crate) async fn ended(&self) -> ExitStatus {
        self.0.ended_boxed().await
    }

    pub(crate) async fn end(&self) {
        self.0.end_boxed().await;
    }

    pub(crate) fn kill(&self) {
        self.0.kill_now();
    }

    pub(crate) fn status(&self) -> SessionStatus {
        self.0.status_now()
    }

    pub(crate) fn mark(&self) -> Option<String> {
        self.0.mark_of()
    }

    pub(crate) fn outlives(&self) -> bool {
        self.0.outlives_us()
    }
}

/// What stays of a terminal whose program has ended.
pub(crate) struct Gone(pub(crate) ExitStatus);

impl Session for Gone {
    async fn read(&self, _: &mut Vec<u8>) -> io::Result<usize> {
        Ok(0)
    }

    async fn write(&self, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn resize(&self, _: Size) -> io::Result<()> {
        Ok(())
    }

    async fn ended(&self) -> ExitStatus {
        self.0
    }

    async fn end(&self) {}

    fn kill(&self) {}

    fn status(&self) -> SessionStatus {
        SessionStatus::default()
    }
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Terminal").finish_non_exhaustive()
    }
}

type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The dyn-compatible counterpart of [`Session`].
trait DynSession: Send + Sync {
    fn read_boxed<'a>(&'a self, buffer: &'a mut Vec<u8>) -> BoxFuture<'a, io::Result<usize>>;
    fn write_boxed<'a>(&'a self, data: &'a [u8]) -> BoxFuture<'a, io::Result<()>>;
    fn resize_now(&self, size: Size) -> io::Result<()>;
    fn ended_boxed(&self) -> BoxFuture<'_, ExitStatus>;
    fn end_boxed(&self) -> BoxFuture<'_, ()>;
    fn kill_now(&self);
    fn status_now(&self) -> SessionStatus;
    fn mark_of(&self) -> Option<String>;
    fn outlives_us(&self) -> bool;
}

impl<S: Session> DynSession for S {
    fn read_boxed<'a>(&'a self, buffer: &'a mut Vec<u8>) -> BoxFuture<'a, io::Result<usize>> {
        Box::pin(self.read(buffer))
    }

    fn write_boxed<'a>(&'a self, data: &'a [u8]) -> BoxFuture<'a, io::Result<()>> {
        Box::pin(self.write(data))
    }

    fn resize_now(&self, size: Size) -> io::Result<()> {
        self.resize(size)
    }

    fn ended_boxed(&self) -> BoxFuture<'_, ExitStatus> {
        Box::pin(self.ended())
    }

    fn end_boxed(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }

    fn kill_now(&self) {
        self.kill();
    }

    fn status_now(&self) -> SessionStatus {
        self.status()
    }

    fn mark_of(&self) -> Option<String> {
        self.mark()
    }

    fn outlives_us(&self) -> bool {
        self.outlives()
    }
}
