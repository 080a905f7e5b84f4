use std::ffi::OsString;
use std::time::Duration;

use crate::execute::shell_words::{self, quoted};
use crate::execute::{Background, CommandParts, CommandSpec, Stdin, command_builders, env_bytes};
use crate::ids::{IntoId, SessionId};
use crate::os::Limits;
use crate::quota::LargeWorkPermit;

/// Behaviour when a run's output is read more slowly than the program writes it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SlowReader {
    /// The program waits.
    #[default]
    Wait,
    /// The program continues; the oldest output not yet read is dropped, and
    /// [`Event::Lost`](crate::Event::Lost) tells how much. The run itself is not
    /// [lost](crate::Reason::Lost).
    Lose,
}

/// A command to run, as a caller asks for it.
///
/// ```
/// use std::time::Duration;
/// use splengine_core::Request;
///
/// let request = Request::new("data transform")
///     .arg("--input=a.csv")
///     .workdir("data")
///     .timeout(Duration::from_secs(30));
/// ```
#[derive(Debug)]
pub struct Request {
    pub(crate) command: CommandParts<OsString>,
    /// A text that is no id names no session.
    pub(crate) session_id: Option<Result<SessionId, String>>,
    /// The session that it is part of, as was found out before.
    pub(crate) belongs_to: Option<SessionId>,
    pub(crate) server_env: Vec<(String, String)>,
    pub(crate) stdin: Stdin,
    pub(crate) timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) mask: Vec<String>,
    pub(crate) output_limit: Option<u64>,
    pub(crate) limits: Limits,
    pub(crate) slow_reader: SlowReader,
    pub(crate) permit: Option<LargeWorkPermit>,
}

impl Request {
    /// Maximum number of words of a command, and of further arguments. Linux passes on fewer than
    /// twice as many, which share 2 MiB with the variables.
    pub const MAX_ARGS: usize = shell_words::MAX_WORDS;
    /// Maximum size in bytes of a command that is to be split into words: 2 MiB, all that Linux takes.
    pub const MAX_COMMAND_BYTES: usize = shell_words::MAX_COMMAND_BYTES;
    /// Maximum number of variables that a request sets.
    pub const MAX_VARIABLES: usize = 1 << 14;
    /// Maximum number of variables whose values are [masked](Self::mask).
    pub const MAX_MASKED_VARIABLES: usize = 64;

    /// Asks for `command`, which is split into words by [`split_words`](crate::execute::split_words).
    pub fn new(command: impl Into<OsString>) -> Self {
        Self { command: CommandParts::new(command), ..Self::shell() }
    }

    /// Asks for the command that consists of these words, verbatim: the program, or what the engine's
    /// [program](crate::engine::EngineBuilder::program) takes for its first argument, and further
    /// arguments. It takes an `argv` as it is: nothing has to be quoted. Where the command is told, as in
    /// [`ExecutionInfo`](crate::engine::ExecutionInfo), its first word is quoted if it has to be. Without a
    /// word it is refused like an empty command.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = Request::argv(["printf", "%s\\n", "it's one; word"]);
    /// let captured = engine.execute(&alice, request).await?.capture().await;
    /// assert_eq!(captured.stdout, "it's one; word\n");
    /// # Ok(())
    /// # }
    /// ```
    pub fn argv(words: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        Self { command: CommandParts::argv(words, quoted), ..Self::shell() }
    }

    /// Asks for the shell that [sessions](crate::session::SessionPolicy::shell) begin with, without a
    /// terminal: it reads its commands from standard input. The engine's
    /// [program](crate::engine::EngineBuilder::program) does not stand in front of it; the caller needs
    /// [`Scope::Sessions`](crate::Scope::Sessions) as well.
    ///
    /// ```
    /// use splengine_core::execute::Stdin;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = Request::shell().stdin(Stdin::bytes("echo $((6 * 7))\n"));
    /// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "42\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn shell() -> Self {
        Self {
            command: CommandParts::default(),
            session_id: None,
            belongs_to: None,
            server_env: Vec::new(),
            stdin: Stdin::null(),
            timeout: None,
            idle_timeout: None,
            mask: Vec::new(),
            output_limit: None,
            limits: Limits::default(),
            slow_reader: SlowReader::default(),
            permit: None,
        }
    }

    /// Sets the permit under which the request was read: the engine also checks the request under it,
    /// and then releases it. Otherwise a request from [64 KiB](crate::quota::LargeWork::MIN_BYTES) on,
    /// without its standard input, waits for a permit of its caller's.
    #[must_use]
    pub fn large_work_permit(mut self, permit: LargeWorkPermit) -> Self {
        self.permit = Some(permit);
        self
    }

    /// About the memory, in bytes, of its words and variables.
    pub(crate) fn bytes(&self) -> usize {
        let masked = self.mask.iter().map(|name| size_of::<String>() + name.len()).sum::<usize>();
        self.command.bytes() + env_bytes(&self.server_env) + masked
    }

    /// Runs it in the present directory and environment of this session. With a text that is no id it is
    /// refused as for a session that is not there.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, ErrorKind, LocalExecutor, Request};
    /// use splengine_core::ids::SessionId;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let unknown = SessionId::new(alice.user());
    /// for request in [Request::new("pwd").session_id(&unknown), Request::new("pwd").session_id("x")] {
    ///     let refused = engine.execute(&alice, request).await.expect_err("no such session");
    ///     assert_eq!(refused.kind(), ErrorKind::NotFound);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn session_id(mut self, session_id: impl IntoId<SessionId>) -> Self {
        self.session_id = Some(session_id.into_id());
        self
    }

    /// Adds a variable that the server sets by itself, such as `SSH_CONNECTION`, in place of one of this
    /// name that the request sets. [`EngineBuilder::request_env`](crate::engine::EngineBuilder::request_env)
    /// does not bound it: a server must not let its client choose the name.
    #[must_use]
    pub fn server_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server_env.push((name.into(), value.into()));
        self
    }

    /// Sets what the command reads on its standard input; default nothing (`/dev/null`).
    #[must_use]
    pub fn stdin(mut self, stdin: Stdin) -> Self {
        self.stdin = stdin;
        self
    }

    /// Sets how long the command may run; time in the queue is not counted. Default and maximum are
    /// the engine's.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Sets how long the command may print nothing before it is ended as one that [timed
    /// out](crate::Reason::TimedOut); at most the engine's longest time limit. Time in which it waits
    /// for the reader of its output does not count. Default: no bound.
    ///
    /// ```
    /// use std::time::Duration;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Reason, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = Request::new("sleep 600").idle_timeout(Duration::from_millis(50));
    /// let end = engine.execute(&alice, request).await?.capture().await.end;
    /// assert_eq!((end.reason, end.exit_code), (Reason::TimedOut, 124));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Replaces the value of this variable by `***` wherever it stands in the output: one of the
    /// request, or of its [session](Self::session_id). Of a value of several lines each line of 8 bytes
    /// and more is replaced, too. What is counted and kept is the output without the values; what may be
    /// the beginning of a value is held back until it is known.
    ///
    /// At most 64 variables, whose values have 64 KiB together. Programs can print a value in another
    /// form, such as Base64: masking protects from accidents, not from programs.
    ///
    /// ```
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = Request::new("sh -c 'echo the token is $TOKEN'")
    ///     .env("TOKEN", "correct-horse")
    ///     .mask("TOKEN");
    /// let captured = engine.execute(&alice, request).await?.capture().await;
    /// assert_eq!(captured.stdout, "the token is ***\n");
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn mask(mut self, name: impl Into<String>) -> Self {
        self.mask.push(name.into());
        self
    }

    /// Sets how many bytes of each stream are kept. Over it the run goes on; the first and the last
    /// half are kept. Default: the engine's for [`Run::capture`](crate::Run::capture), none for
    /// events.
    #[must_use]
    pub fn output_limit(mut self, bytes: u64) -> Self {
        self.output_limit = Some(bytes);
        self
    }

    /// Sets what the command may use; the engine's defaults stand where this sets none.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Sets what happens when the output is read too slowly.
    #[must_use]
    pub fn slow_reader(mut self, slow_reader: SlowReader) -> Self {
        self.slow_reader = slow_reader;
        self
    }
}

command_builders!(Request, OsString, command);

impl From<CommandSpec> for Request {
    fn from(spec: CommandSpec) -> Self {
        Self { command: spec.0.into_os(), ..Self::shell() }
    }
}
