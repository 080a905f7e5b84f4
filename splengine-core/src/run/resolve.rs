//! Resolution of a request under the engine's policy: the words, limits and times of its command.

use std::ffi::{OsStr, OsString};
use std::sync::Arc;
use std::time::Duration;

use crate::auth::{Caller, Scope};
use crate::error::Field;
use crate::execute::mask::Secrets;
use crate::execute::{Command, CommandParts, ExecuteError, Request, check_words, split_words};
use crate::ids::SessionId;
use crate::names::any_names;
use crate::os::{LimitKind, Limits};
use crate::quota::InputReservation;
use crate::run::runner::Runner;
use crate::run::supervise;
use crate::run::supervise::Times;
use crate::terminal::TerminalModes;
use crate::user_name::UserName;

/// A session that a command is run in: its id, its present directory, and its variables.
pub(crate) type SessionPlace = (SessionId, Option<String>, Vec<(String, String)>);

/// A request that was checked: its command, and what holds beside it.
pub(crate) struct Terms {
    pub(crate) command: Command,
    pub(crate) times: Times,
    pub(super) secrets: Option<Arc<Secrets>>,
    /// The memory of its words and variables, where that is counted.
    pub(super) held: Option<InputReservation>,
    /// Whose share the memory is of that its output takes.
    pub(super) accounted_user: UserName,
}

impl Runner {
    /// What the request comes to under the engine's policy, in `session` if it names one. Takes the
    /// words, the directory and the variables out of it.
    pub(super) fn resolve(
        &self,
        caller: &Caller,
        session: Option<SessionPlace>,
        request: &mut Request,
    ) -> Result<Terms, ExecuteError> {
        check_counts(&request.command)?;
        check_count(Field::Mask, request.mask.len(), Request::MAX_MASKED_VARIABLES)?;
        let policy = &self.policy;
        let is_shell = request.command.use_shell || request.command.text.is_none();
        let words = match self.words(caller, &mut request.command)? {
            Some(words) => words,
            None => {
                let mut shell = self.shell_words(caller)?;
                shell.append(&mut request.command.args);
                shell
            }
        };
        check_env(&request.command.env, policy.request_env.as_deref())?;
        check_env(&request.server_env, None)?;
        let timeout = check_time(Field::Timeout, request.timeout, policy.max_timeout)?;
        let times = Times {
            timeout: timeout.or(policy.default_timeout).unwrap_or(policy.max_timeout),
            idle_timeout: check_time(Field::IdleTimeout, request.idle_timeout, policy.max_timeout)?,
            obey_within: policy.grace.saturating_add(supervise::ABANDON_AFTER),
        };
        if let Some(limit) = request.output_limit.filter(|limit| *limit > policy.max_output_limit) {
            let problem = format!(
                "of {limit} bytes is over the maximum of {} bytes",
                policy.max_output_limit
            );
            return Err(ExecuteError::Impossible { field: Field::OutputLimit, problem });
        }
        let limits = self.limits(request.limits)?;
        let (session_id, present_dir, mut env) = session.unwrap_or_else(|| {
            let belongs_to = request.belongs_to.take();
            (belongs_to.unwrap_or_else(|| SessionId::new(caller.user())), None, Vec::new())
        });
        env.append(&mut request.command.env);
        env.append(&mut request.server_env);
        let secrets = secrets(&request.mask, &env)?;
        env.push((SESSION_VARIABLE.to_owned(), session_id.as_str().to_owned()));
        let command = Command {
            argv: if is_shell { checked(words)? } else { policy.program.argv(words)? },
            workdir: request.command.workdir.take().or(present_dir),
            env,
            user: caller.user().clone(),
            session_id,
            limits,
            background: request.command.background,
            terminal_modes: TerminalModes::default(),
            tty_variable: None,
            path_first: if is_shell { policy.program.directory() } else { None },
            mark: None,
            grace: policy.grace,
        };
        let accounted_user = caller.accounted_user().clone();
        Ok(Terms { command, times, secrets, held: None, accounted_user })
    }

    /// The shell of sessions, as words.
    pub(crate) fn shell(&self) -> &[String] {
        &self.policy.shell
    }

    /// The same as a login shell, which reads its user's profile, where the shell is one that is known
    /// to take `-l`. Profiles set the `PATH` anew, so a shell that is to find the engine's program is
    /// none.
    pub(crate) fn login_shell(&self) -> Vec<OsString> {
        const TAKE_L: [&str; 7] = ["sh", "bash", "dash", "zsh", "ksh", "mksh", "fish"];
        let mut words: Vec<OsString> = self.shell().iter().map(OsString::from).collect();
        if let [shell] = self.shell()
            && TAKE_L.contains(&shell.rsplit('/').next().unwrap_or_default())
            && self.policy.program.directory().is_none()
        {
            words.push("-l".into());
        }
        words
    }

    /// Who may have a shell in a terminal may have one without.
    fn shell_words(&self, caller: &Caller) -> Result<Vec<OsString>, ExecuteError> {
        if !caller.may(Scope::Sessions) {
            return Err(ExecuteError::Forbidden {
                user: caller.user().to_string(),
                scope: Scope::Sessions.name(),
            });
        }
        Ok(self.shell().iter().map(OsString::from).collect())
    }

    /// The words of a command with its arguments, which are taken out of it; `None` where it names none.
    pub(crate) fn words(
        &self,
        caller: &Caller,
        command: &mut CommandParts<OsString>,
    ) -> Result<Option<Vec<OsString>>, ExecuteError> {
        let Some(text) = &command.text else { return Ok(None) };
        let mut words = if command.use_shell {
            self.shell_command(caller, text, !command.args.is_empty())?
        } else {
            split_words(text)?
        };
        words.append(&mut command.args);
        Ok(Some(words))
    }

    /// The words of a shell that runs `command`, to which arguments are still to be added.
    fn shell_command(
        &self,
        caller: &Caller,
        command: &OsStr,
        has_args: bool,
    ) -> Result<Vec<OsString>, ExecuteError> {
        if !self.policy.shell_commands {
            let problem = "is not allowed here: commands are run without a shell".to_owned();
            return Err(ExecuteError::Impossible { field: Field::Shell, problem });
        }
        let mut words = self.shell_words(caller)?;
        if command.len() > Request::MAX_COMMAND_BYTES {
            let problem =
                format!("has more than {} bytes, the maximum", Request::MAX_COMMAND_BYTES);
            return Err(ExecuteError::Malformed { field: Field::Command, problem });
        }
        if command.to_string_lossy().trim().is_empty() {
            let problem = "is empty; give at least one word".to_owned();
            return Err(ExecuteError::Malformed { field: Field::Command, problem });
        }
        words.push("-c".into());
        if has_args {
            // The first of what follows is what the shell calls itself.
            let name = words[0].clone();
            let mut command = command.to_owned();
            command.push(" \"$@\"");
            words.extend([command, name]);
        } else {
            words.push(command.to_owned());
        }
        Ok(words)
    }

    fn limits(&self, asked: Limits) -> Result<Limits, ExecuteError> {
        let policy = &self.policy;
        for &kind in LimitKind::ALL {
            let Some(value) = asked.value(kind) else { continue };
            let field = Field::Limit(kind);
            if !self.executor.enforces(kind) {
                let enforced = LimitKind::ALL.iter().filter(|kind| self.executor.enforces(**kind));
                let enforced: Vec<&str> = enforced.map(|kind| kind.name()).collect();
                let enforced =
                    if enforced.is_empty() { "none".into() } else { enforced.join(", ") };
                let problem =
                    format!("can't be enforced here, so it is refused; enforced: {enforced}");
                return Err(ExecuteError::Impossible { field, problem });
            }
            if value == 0 {
                let problem = "must be at least 1; leave it out for the default".to_owned();
                return Err(ExecuteError::Malformed { field, problem });
            }
            if let Some(max) = policy.max_limits.value(kind).filter(|max| value > *max) {
                let problem = format!("of {value} is over the maximum of {max}");
                return Err(ExecuteError::Impossible { field, problem });
            }
        }
        Ok(asked.or(policy.default_limits).or(policy.max_limits))
    }
}

fn checked(words: Vec<OsString>) -> Result<Vec<OsString>, ExecuteError> {
    check_words(&words)?;
    Ok(words)
}

/// A time that a request asks for, if it can be granted.
fn check_time(
    field: Field,
    asked: Option<Duration>,
    max: Duration,
) -> Result<Option<Duration>, ExecuteError> {
    match asked {
        Some(Duration::ZERO) => {
            let problem = "must be at least 1 ms; leave it out for the default".to_owned();
            Err(ExecuteError::Malformed { field, problem })
        }
        Some(time) if time > max => {
            let (time, max) = (time.as_millis(), max.as_millis());
            let problem = format!("of {time} ms is over the maximum of {max} ms");
            Err(ExecuteError::Impossible { field, problem })
        }
        asked => Ok(asked),
    }
}

/// The values of the variables that are not to be seen in output.
fn secrets(
    names: &[String],
    env: &[(String, String)],
) -> Result<Option<Arc<Secrets>>, ExecuteError> {
    let mut values = Vec::new();
    for name in names {
        // The last one counts, as for the program.
        let Some((_, value)) = env.iter().rev().find(|(given, _)| given == name) else {
            let shown: String = name.chars().take(100).collect();
            let problem =
                format!("names `{shown}`, which is no variable of `env` nor of the session");
            return Err(ExecuteError::Malformed { field: Field::Mask, problem });
        };
        values.push(value.trim_end_matches('\n'));
    }
    let bytes: usize = values.iter().map(|value| value.len()).sum();
    if bytes > MAX_MASKED_BYTES {
        let problem = format!(
            "names variables whose values have {bytes} bytes together; at most {MAX_MASKED_BYTES} bytes \
             can be masked"
        );
        return Err(ExecuteError::Impossible { field: Field::Mask, problem });
    }
    let lines = values.iter().flat_map(|value| value.lines().filter(|line| line.len() >= MIN_LINE));
    let texts = values.iter().copied().chain(lines);
    Ok(Secrets::new(texts.map(str::as_bytes)))
}

/// Refuses more arguments and variables than a request may bring.
pub(crate) fn check_counts(command: &CommandParts<OsString>) -> Result<(), ExecuteError> {
    check_count(Field::Args, command.args.len(), Request::MAX_ARGS)?;
    check_count(Field::Env, command.env.len(), Request::MAX_VARIABLES)
}

fn check_count(field: Field, count: usize, max: usize) -> Result<(), ExecuteError> {
    if count <= max {
        return Ok(());
    }
    let problem = format!("has {count} elements, over the maximum of {max}");
    Err(ExecuteError::Impossible { field, problem })
}

pub(crate) fn check_env(
    env: &[(String, String)],
    allowed: Option<&[String]>,
) -> Result<(), ExecuteError> {
    for (name, value) in env {
        let shown: String = name.chars().take(100).collect();
        let problem = if name.is_empty() || name.contains(['=', '\0']) {
            format!("has the name {shown:?}; a name is not empty and holds neither `=` nor NUL")
        } else if value.contains('\0') {
            format!("has a NUL byte in the value of `{shown}`, which no variable can hold")
        } else if name == SESSION_VARIABLE {
            format!("can't set `{SESSION_VARIABLE}`; the engine does")
        } else if let Some(allowed) = allowed
            && !any_names(allowed.iter().map(String::as_str), name.as_bytes())
        {
            let problem = format!("may not set `{shown}`; allowed here: {}", allowed.join(", "));
            return Err(ExecuteError::Impossible { field: Field::Env, problem });
        } else {
            continue;
        };
        return Err(ExecuteError::Malformed { field: Field::Env, problem });
    }
    Ok(())
}

const MAX_MASKED_BYTES: usize = 64 * 1024;
/// Shorter lines, in bytes, of a value of several stand anywhere: `}` is no secret.
const MIN_LINE: usize = 8;
pub(crate) const SESSION_VARIABLE: &str = "SPL_SESSION_ID";
