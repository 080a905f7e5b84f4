//! The description of a command that runs, steps of batches and sessions share.

use std::ffi::{OsStr, OsString};

use crate::execute::shell_words::quoted_text;
use crate::execute::{Background, command_bytes};

/// A command that is described once, to be used as a run, as a step of a batch, or as the program of a
/// session: [`Request`](crate::Request), [`Step`](crate::Step) and [`SessionRequest`](crate::SessionRequest)
/// are made of it by [`From`].
///
/// It holds what all three heed. Bounds on time, output and resources are set on a
/// [`Request`](crate::Request) or [`Step`](crate::Step); a session has none of its own. An engine's
/// [program](crate::engine::EngineBuilder::program) stands in front of the command of a run or step, and not
/// of that of a session.
///
/// Words are texts, since a batch stores them as such. Those that are not UTF-8 are given to a
/// [`Request`](crate::Request) or [`SessionRequest`](crate::SessionRequest) itself, which take them as
/// [`OsString`].
///
/// ```
/// use std::time::Duration;
///
/// use splengine_core::batch::BatchPolicy;
/// use splengine_core::store::MemoryStore;
/// use splengine_core::{
///     BatchRequest, Caller, CommandSpec, Engine, LocalExecutor, Request, SessionRequest, Step,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let outputs = tempfile::tempdir()?;
/// let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
/// let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
///
/// let greet = CommandSpec::new("printenv").arg("GREETING").env("GREETING", "hello");
///
/// let request = Request::from(greet.clone()).timeout(Duration::from_secs(30));
/// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "hello\n");
///
/// let batch = BatchRequest::new().step(Step::from(greet.clone()).retries(2));
/// let id = engine.batches().submit(&alice, batch, None).await?.record.info.id;
/// assert_eq!(engine.batches().wait(&alice, &id).await?.info.exit_code, 0);
///
/// let session = engine.sessions().create(&alice, SessionRequest::from(greet)).await?;
/// # engine.sessions().end(&alice, &session.id).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct CommandSpec(pub(crate) CommandParts<String>);

/// The parts of a [`CommandSpec`]. Its words are of `String` where they are stored, and of `OsString` where
/// they need not be UTF-8.
#[derive(Debug, Clone, Default)]
pub(crate) struct CommandParts<T> {
    /// What is split into words, or run by a shell. `None` is the engine's shell itself.
    pub(crate) text: Option<T>,
    pub(crate) use_shell: bool,
    pub(crate) args: Vec<T>,
    pub(crate) workdir: Option<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) background: Background,
}

impl CommandSpec {
    /// Describes `command`, which is split into words by [`split_words`](crate::execute::split_words).
    pub fn new(command: impl Into<String>) -> Self {
        Self(CommandParts::new(command))
    }

    /// Describes the command that consists of these words, verbatim, as
    /// [`Request::argv`](crate::Request::argv) says.
    ///
    /// ```
    /// use splengine_core::{CommandSpec, Step};
    ///
    /// let spec = CommandSpec::argv(["./it's a script", "a; b"]);
    /// assert_eq!(Step::from(spec).command(), r"'./it'\''s a script'");
    /// ```
    pub fn argv(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(CommandParts::argv(words, quoted_text))
    }
}

impl<T: Default> CommandParts<T> {
    pub(crate) fn new(text: impl Into<T>) -> Self {
        Self { text: Some(text.into()), ..Self::default() }
    }

    /// The first of these words is quoted by `quote`, so that it is split into itself.
    pub(crate) fn argv(
        words: impl IntoIterator<Item = impl Into<T>>,
        quote: impl FnOnce(T) -> T,
    ) -> Self {
        let mut words = words.into_iter().map(Into::into);
        let first = words.next().map(quote);
        Self { args: words.collect(), ..Self::new(first.unwrap_or_default()) }
    }
}

impl<T: AsRef<OsStr>> CommandParts<T> {
    /// About the memory, in bytes, of its words and variables.
    pub(crate) fn bytes(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |text| text.as_ref().len());
        text + command_bytes(&self.args, &self.env)
    }
}

impl CommandParts<String> {
    /// For what takes words that are not UTF-8, too.
    pub(crate) fn into_os(self) -> CommandParts<OsString> {
        let Self { text, use_shell, args, workdir, env, background } = self;
        let args = args.into_iter().map(OsString::from).collect();
        CommandParts { text: text.map(OsString::from), use_shell, args, workdir, env, background }
    }
}

/// Builders of a type that has [`CommandParts`] of these texts in this field.
macro_rules! command_builders {
    ($type:ident, $text:ident, $($field:tt).+) => {
        impl $type {
            /// Has the command run by the shell that [sessions](crate::session::SessionPolicy::shell)
            /// begin with (`shell -c command`), instead of being split into words; default false.
            /// Arguments are appended to it as further words, verbatim (as `"$@"`). The engine's
            /// [program](crate::engine::EngineBuilder::program) does not stand in front of it, but its
            /// directory comes first on the `PATH`. Refused unless the engine
            /// [allows it](crate::engine::EngineBuilder::shell_commands); the caller needs
            /// [`Scope::Sessions`](crate::Scope::Sessions) as well.
            ///
            /// ```
            /// use splengine_core::{Caller, CommandSpec, Engine, LocalExecutor};
            ///
            /// # #[tokio::main(flavor = "current_thread")]
            /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
            /// let engine = Engine::builder(LocalExecutor::new(".")?).shell_commands(true).build()?;
            /// let alice = Caller::new("alice")?.with_all_scopes();
            /// let spec = CommandSpec::new("echo hello | tr a-z").use_shell(true).arg("A-Z");
            /// assert_eq!(engine.execute(&alice, spec.into()).await?.capture().await.stdout, "HELLO\n");
            /// # Ok(())
            /// # }
            /// ```
            #[must_use]
            pub fn use_shell(mut self, use_shell: bool) -> Self {
                self.$($field).+.use_shell = use_shell;
                self
            }

            /// Adds one argument, verbatim, after the command's words.
            #[must_use]
            pub fn arg(mut self, arg: impl Into<$text>) -> Self {
                self.$($field).+.args.push(arg.into());
                self
            }

            /// Adds arguments, verbatim, after the command's words; at most
            /// [`Request::MAX_ARGS`](crate::Request::MAX_ARGS).
            #[must_use]
            pub fn args(mut self, args: impl IntoIterator<Item = impl Into<$text>>) -> Self {
                let args = args.into_iter().map(Into::into);
                // So collected, a list of texts is taken over as it is.
                match self.$($field).+.args.is_empty() {
                    true => self.$($field).+.args = args.collect(),
                    false => self.$($field).+.args.extend(args),
                }
                self
            }

            /// Sets the directory to run the command in. Default: root; for a step the batch's, and for a
            /// session that is restored the one that it was in. An absolute path is taken below root,
            /// unless it begins with root itself.
            #[must_use]
            pub fn workdir(mut self, workdir: impl Into<String>) -> Self {
                self.$($field).+.workdir = Some(workdir.into());
                self
            }

            /// Adds a variable to its environment; at most
            /// [`Request::MAX_VARIABLES`](crate::Request::MAX_VARIABLES).
            #[must_use]
            pub fn env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
                self.$($field).+.env.push((name.into(), value.into()));
                self
            }

            /// Sets what becomes of the processes that the command leaves in the background when it exits
            /// by itself; default [`Background::Kill`](crate::execute::Background::Kill). Those of a
            /// session that stay lose their terminal, and survive that only if they ignore SIGHUP or have
            /// left the terminal (nohup, setsid), as elsewhere.
            #[must_use]
            pub fn background(mut self, background: Background) -> Self {
                self.$($field).+.background = background;
                self
            }
        }
    };
}
pub(crate) use command_builders;

command_builders!(CommandSpec, String, 0);
