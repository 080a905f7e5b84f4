use std::future::ready;

use crate::error::ErrorKind;
use crate::execute::Reason;
use crate::testing::conformance::TestUser;

/// Client of a server that is tested by a [`ServerSuite`](crate::testing::conformance::ServerSuite), in the
/// server's own protocol.
///
/// Each call connects, shows the credentials of its user, asks, and waits for the answer; several are made
/// at once. A call whose future is dropped must close its connection: so a client leaves. What a protocol
/// has no place for is [`Unsupported`](ClientError::Unsupported), which all methods are by default. Implement
/// it with plain `async fn`s:
///
/// ```
/// use std::net::SocketAddr;
/// use splengine_core::ErrorKind;
/// use splengine_core::testing::conformance::{ClientError, Outcome, ServerClient, TestUser, command_line};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
/// use tokio::net::TcpStream;
///
/// /// A protocol of a line that asks, and of an answer that begins with `+CODE`, or with `-` and what is
/// /// wrong. It has one kind of refusal for all that a client can't do.
/// struct LineClient(SocketAddr);
///
/// impl ServerClient for LineClient {
///     async fn execute(
///         &self,
///         user: TestUser,
///         argv: &[&str],
///         stdin: &[u8],
///     ) -> Result<Outcome, ClientError> {
///         if !stdin.is_empty() {
///             return Err(ClientError::Unsupported);
///         }
///         let mut stream = TcpStream::connect(self.0).await.map_err(ClientError::failed)?;
///         let line = format!("{} {}\n", user.token().unwrap_or("-"), command_line(argv));
///         stream.write_all(line.as_bytes()).await.map_err(ClientError::failed)?;
///         let mut answer = String::new();
///         stream.read_to_string(&mut answer).await.map_err(ClientError::failed)?;
///         let (head, rest) = answer.split_once('\n').unwrap_or((&answer, ""));
///         if let Some(problem) = head.strip_prefix('-') {
///             return Err(ClientError::refused(ErrorKind::ALL.iter().copied(), problem));
///         }
///         let code = head.trim_start_matches('+').parse().map_err(ClientError::failed)?;
///         Ok(Outcome::new(code).stdout(rest))
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(note = "implement `ServerClient` as a client of your server")]
pub trait ServerClient: Send + Sync {
    /// Runs a program with arguments and this standard input, and waits for its end. Default: the server
    /// runs no commands.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when it did not run, or its end was not told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    fn execute(
        &self,
        user: TestUser,
        argv: &[&str],
        stdin: &[u8],
    ) -> impl Future<Output = Result<Outcome, ClientError>> + Send {
        let _ = (user, argv, stdin);
        ready(Err(ClientError::Unsupported))
    }

    /// Opens the shell in a terminal, types `input`, and waits for its end: what the terminal has shown is
    /// the [`stdout`](Outcome::stdout). Default: the server has no terminals.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when there was no terminal, or its end was not told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    fn terminal(
        &self,
        user: TestUser,
        input: &str,
    ) -> impl Future<Output = Result<Outcome, ClientError>> + Send {
        let _ = (user, input);
        ready(Err(ClientError::Unsupported))
    }

    /// Writes a file below root, given by its path from there. Default: the server has no files.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when it was not written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    fn write_file(
        &self,
        user: TestUser,
        path: &str,
        data: &[u8],
    ) -> impl Future<Output = Result<(), ClientError>> + Send {
        let _ = (user, path, data);
        ready(Err(ClientError::Unsupported))
    }

    /// Reads a file below root, given by its path from there. Default: the server has no files.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when it was not read.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    fn read_file(
        &self,
        user: TestUser,
        path: &str,
    ) -> impl Future<Output = Result<Vec<u8>, ClientError>> + Send {
        let _ = (user, path);
        ready(Err(ClientError::Unsupported))
    }

    /// Submits a batch of steps that run one after the other, and waits for its end. The outcome has the
    /// exit code of the first step that failed, or 0, and the standard output of all steps in their order.
    /// Default: the server has no batches.
    ///
    /// # Errors
    ///
    /// [`ClientError`] when it was not taken, or its end was not told.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future closes the connection.
    fn batch(
        &self,
        user: TestUser,
        steps: &[&[&str]],
    ) -> impl Future<Output = Result<Outcome, ClientError>> + Send {
        let _ = (user, steps);
        ready(Err(ClientError::Unsupported))
    }
}

/// End of a command, as a client was told it.
///
/// ```
/// use splengine_core::Reason;
/// use splengine_core::testing::conformance::Outcome;
///
/// let outcome = Outcome::new(124).reason(Reason::TimedOut).stdout("before").stderr("");
/// assert_eq!((outcome.exit_code, &outcome.stdout[..]), (124, &b"before"[..]));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// Exit code, as shells tell it: 128 and the signal's number of a program that a signal killed.
    pub exit_code: i32,
    /// Reason for the end, where the protocol tells it.
    pub reason: Option<Reason>,
    /// Standard output of the command.
    pub stdout: Vec<u8>,
    /// Standard error of the command.
    pub stderr: Vec<u8>,
}

impl Outcome {
    /// Creates the outcome of a command that printed nothing.
    #[must_use]
    pub fn new(exit_code: i32) -> Self {
        Self { exit_code, reason: None, stdout: Vec::new(), stderr: Vec::new() }
    }

    /// Sets the reason that was told.
    #[must_use]
    pub fn reason(mut self, reason: Reason) -> Self {
        self.reason = Some(reason);
        self
    }

    /// Sets the standard output.
    #[must_use]
    pub fn stdout(mut self, stdout: impl Into<Vec<u8>>) -> Self {
        self.stdout = stdout.into();
        self
    }

    /// Sets the standard error.
    #[must_use]
    pub fn stderr(mut self, stderr: impl Into<Vec<u8>>) -> Self {
        self.stderr = stderr.into();
        self
    }
}

/// Reason for which a [`ServerClient`] has no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The server does not offer it, or its protocol has no place for it. A check that needs it is skipped.
    #[error("the client does not support this")]
    Unsupported,
    /// The server refused, in the words of its protocol.
    #[error("the server refused: {message} ({})", names(kinds))]
    #[non_exhaustive]
    Refused {
        /// Kinds that the code of the answer may stand for; several where a protocol has one code for
        /// them.
        kinds: Vec<ErrorKind>,
        /// Text that the client was told.
        message: String,
    },
    /// The connection broke, or the answer is malformed.
    #[error("the client got no answer: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl ClientError {
    /// Makes a refusal whose code stands for one of `kinds`.
    pub fn refused(kinds: impl IntoIterator<Item = ErrorKind>, message: impl Into<String>) -> Self {
        Self::Refused { kinds: kinds.into_iter().collect(), message: message.into() }
    }

    /// Makes a failure of the connection, or of reading the answer.
    pub fn failed(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }
}

fn names(kinds: &[ErrorKind]) -> String {
    let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
    names.join(" or ")
}

/// Writes words as a command line that [`Request::new`](crate::Request::new) splits into the same words, for
/// protocols that have a line of text.
///
/// ```
/// use splengine_core::testing::conformance::command_line;
///
/// assert_eq!(command_line(&["echo", "it's", "two words"]), r"'echo' 'it'\''s' 'two words'");
/// ```
#[must_use]
pub fn command_line(argv: &[&str]) -> String {
    let quote = |word: &&str| format!("'{}'", word.replace('\'', r"'\''"));
    argv.iter().map(quote).collect::<Vec<_>>().join(" ")
}
