use std::ffi::OsString;
use std::time::Duration;

use crate::execute::cancel::CancelSource;
use crate::execute::output::Queue;
use crate::execute::{
    Background, Cancel, Command, Execute, Limits, Output, SlowReader, Stdin, check_words,
};
use crate::ids::SessionId;
use crate::run::SESSION_VARIABLE;
use crate::terminal::TerminalModes;
use crate::testing::{Observer, Ran};
use crate::user_name::UserName;

/// A command for a test of an [`Execute`], as an engine would make it of a request.
///
/// It is of the user `tester`, in root, with no limits, a grace of 5 s, an empty standard input and no
/// variables but `SPL_SESSION_ID`. Nothing is checked that an engine would check of a request.
///
/// ```
/// use splengine_core::LocalExecutor;
/// use splengine_core::execute::ExitStatus;
/// use splengine_core::testing::TestCommand;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let executor = LocalExecutor::new(".")?;
/// let command = TestCommand::new(["sh", "-c", "tr a-z A-Z; exit $CODE"]);
/// let ran = command.stdin("hello").env("CODE", "3").run(&executor).await;
/// assert_eq!(ran.exit?.status(), ExitStatus::Code(3));
/// assert_eq!((ran.stdout, ran.starts), ("HELLO".into(), 1));
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use]
pub struct TestCommand {
    command: Command,
    stdin: Stdin,
}

impl TestCommand {
    /// Creates a command of a program and its arguments.
    ///
    /// # Panics
    ///
    /// When there are no words, or one has a NUL byte: no executor gets such a command.
    pub fn new(argv: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        let argv: Vec<OsString> = argv.into_iter().map(Into::into).collect();
        assert!(!argv.is_empty(), "a command has at least one word");
        assert!(check_words(&argv).is_ok(), "no word of a command has a NUL byte");
        let user: UserName = "tester".parse().expect("a user name");
        let session_id = SessionId::new(&user);
        let command = Command {
            argv,
            workdir: None,
            env: vec![(SESSION_VARIABLE.to_owned(), session_id.as_str().to_owned())],
            user,
            session_id,
            limits: Limits::default(),
            background: Background::default(),
            terminal_modes: TerminalModes::default(),
            tty_variable: None,
            path_first: None,
            mark: None,
            grace: Duration::from_secs(5),
        };
        Self { command, stdin: Stdin::null() }
    }

    /// Sets the standard input to these bytes; [`stdin_reader`](Self::stdin_reader) takes what comes in
    /// the course of the test.
    pub fn stdin(mut self, bytes: impl Into<bytes::Bytes>) -> Self {
        self.stdin = Stdin::bytes(bytes);
        self
    }

    /// Sets the standard input to what `reader` gives, such as one end of a
    /// [`duplex`](tokio::io::duplex) pipe.
    pub fn stdin_reader(mut self, reader: impl tokio::io::AsyncRead + Send + 'static) -> Self {
        self.stdin = Stdin::reader(reader);
        self
    }

    /// Sets the directory to run in, as a caller would write it. Default: root.
    pub fn workdir(mut self, workdir: impl Into<String>) -> Self {
        self.command.workdir = Some(workdir.into());
        self
    }

    /// Adds a variable of the request.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.command.env.push((name.into(), value.into()));
        self
    }

    /// Changes any member of the command.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::execute::LimitKind;
    /// use splengine_core::testing::TestCommand;
    ///
    /// let command = TestCommand::new(["true"]).with(|command| {
    ///     command.grace = Duration::from_millis(100);
    ///     command.limits = command.limits.with(LimitKind::OpenFiles, 64);
    /// });
    /// assert_eq!(command.command().limits.open_files, Some(64));
    /// ```
    pub fn with(mut self, change: impl FnOnce(&mut Command)) -> Self {
        change(&mut self.command);
        self
    }

    /// Returns the command alone, for a test of [`Execute::check`] or [`Execute::open`].
    #[must_use]
    pub fn command(self) -> Command {
        self.command
    }

    /// Returns the arguments of [`Execute::execute`], and the observer at the other end of them.
    ///
    /// The output is bounded as that of an engine: once 256 KiB are not read, a
    /// [`write`](Output::write) waits.
    ///
    /// ```
    /// use splengine_core::testing::TestCommand;
    /// use splengine_core::{Execute, LocalExecutor};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let executor = LocalExecutor::new(".")?;
    /// let (command, stdin, output, cancel, observer) = TestCommand::new(["sleep", "600"]).parts();
    /// let execution = executor.execute(command, stdin, output, cancel);
    /// observer.stop();
    /// assert!(observer.watch(execution).await.exit?.is_stopped());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn parts(self) -> (Command, Stdin, Output, Cancel, Observer) {
        let (output, queue) = Queue::new(SlowReader::Wait, None, None);
        let (source, cancel) = CancelSource::new();
        (self.command, self.stdin, output, cancel, Observer::new(queue, source))
    }

    /// Runs the command with `executor` to its end, and reads its output.
    ///
    /// # Panics
    ///
    /// When it prints more than 64 MiB, as [`Observer::watch`] does.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future drops that of [`Execute::execute`].
    pub async fn run(self, executor: &impl Execute) -> Ran {
        let (command, stdin, output, cancel, observer) = self.parts();
        observer.watch(executor.execute(command, stdin, output, cancel)).await
    }
}
