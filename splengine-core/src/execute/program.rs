use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use regex::bytes::{Regex, RegexBuilder};

use crate::error::Field;
use crate::execute::{ExecuteError, FailureScan, drop_exec};

/// The host program that commands are given to, and the failures that it reports with exit code 0.
///
/// Without a path, a command's first word is itself the executable, looked up on `PATH`.
///
/// ```
/// use splengine_core::execute::Program;
///
/// let spl = Program::at("/usr/local/bin/spl")
///     .failure_in_stdout("^Command completed with errors")?
///     .refuse_arguments(["@@", "\n"]);
/// # Ok::<(), splengine_core::execute::ProgramError>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct Program {
    path: Option<String>,
    failure_in_stdout: Option<Regex>,
    failure_in_stderr: Option<Regex>,
    refused: Vec<String>,
}

/// A pattern that is no regular expression.
#[derive(Debug, thiserror::Error)]
#[error("`{pattern}` is not a regular expression: {problem}")]
#[non_exhaustive]
pub struct ProgramError {
    /// Pattern that is not valid.
    pub pattern: String,
    /// Fault of the pattern.
    pub problem: String,
}

impl Program {
    /// Allows any program: the first word of a command names it.
    #[must_use]
    pub fn any() -> Self {
        Self::default()
    }

    /// Names the program: an absolute path, or a name to look up on `PATH`.
    pub fn at(path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..Self::default() }
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_deref()
    }

    /// The directory of the program, if it was given by its path.
    pub(crate) fn directory(&self) -> Option<String> {
        let (directory, _) = self.path.as_deref()?.rsplit_once('/')?;
        Some(directory.to_owned()).filter(|directory| !directory.is_empty())
    }

    /// A run that exited with 0 but wrote a line to standard output that matches is reported with exit
    /// code 1. The first 4 KiB of each line are matched.
    ///
    /// ```
    /// use splengine_core::execute::Program;
    /// use splengine_core::{Caller, Engine, LocalExecutor, Request};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let program = Program::any().failure_in_stdout("^ERROR")?;
    /// let engine = Engine::builder(LocalExecutor::new(".")?).program(program).build()?;
    /// let alice = Caller::new("alice")?.with_all_scopes();
    /// let request = Request::new("echo ERROR: no input");
    /// let captured = engine.execute(&alice, request).await?.capture().await;
    /// assert_eq!(captured.end.exit_code, 1);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`ProgramError`] when `pattern` is not a regular expression in the syntax of the crate
    /// `regex`, is nested more than 64 deep, or takes more than 1 MiB compiled.
    pub fn failure_in_stdout(mut self, pattern: &str) -> Result<Self, ProgramError> {
        self.failure_in_stdout = Some(compile(pattern)?);
        Ok(self)
    }

    /// Sets the same for standard error.
    ///
    /// # Errors
    ///
    /// As [`failure_in_stdout`](Self::failure_in_stdout).
    pub fn failure_in_stderr(mut self, pattern: &str) -> Result<Self, ProgramError> {
        self.failure_in_stderr = Some(compile(pattern)?);
        Ok(self)
    }

    /// Refuses commands of which any word holds one of these texts, since the program takes it
    /// for syntax.
    #[must_use]
    pub fn refuse_arguments(mut self, texts: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.refused.extend(texts.into_iter().map(Into::into));
        self
    }

    /// The words to run: the program's path, where there is one, before the command's own.
    pub(crate) fn argv(&self, words: Vec<OsString>) -> Result<Vec<OsString>, ExecuteError> {
        if words.is_empty() {
            let problem = "is empty; give at least one word".to_owned();
            return Err(ExecuteError::Malformed { field: Field::Command, problem });
        }
        check_words(&words)?;
        for word in &words {
            if let Some(text) =
                self.refused.iter().find(|text| holds(word.as_bytes(), text.as_bytes()))
            {
                let problem = format!(
                    "holds {text:?}, which this program would take for the start of another command"
                );
                return Err(ExecuteError::Impossible { field: Field::Args, problem });
            }
        }
        let mut argv = words;
        if self.path.is_none() {
            drop_exec(&mut argv);
        }
        if let Some(path) = &self.path {
            argv.insert(0, path.into());
        } else if argv[0].is_empty() {
            let problem = "begins with an empty word; it names the program to run".to_owned();
            return Err(ExecuteError::Malformed { field: Field::Command, problem });
        }
        Ok(argv)
    }

    pub(crate) fn failure_scan(&self) -> Option<FailureScan> {
        FailureScan::new(self.failure_in_stdout.clone(), self.failure_in_stderr.clone())
    }
}

/// Refuses words that the operating system can't pass to a program.
pub(crate) fn check_words(words: &[OsString]) -> Result<(), ExecuteError> {
    if words.iter().any(|word| word.as_bytes().contains(&0)) {
        let problem = "holds a NUL byte, which no argument can".to_owned();
        return Err(ExecuteError::Malformed { field: Field::Args, problem });
    }
    Ok(())
}

fn holds(word: &[u8], text: &[u8]) -> bool {
    text.is_empty() || word.windows(text.len()).any(|part| part == text)
}

fn compile(pattern: &str) -> Result<Regex, ProgramError> {
    RegexBuilder::new(pattern)
        .nest_limit(MAX_PATTERN_DEPTH)
        .size_limit(MAX_PATTERN_BYTES)
        .dfa_size_limit(MAX_PATTERN_BYTES)
        .build()
        .map_err(|error| ProgramError { pattern: pattern.to_owned(), problem: error.to_string() })
}

/// Maximum depth of what lies in each other in a pattern.
const MAX_PATTERN_DEPTH: u32 = 64;
/// Maximum size of a compiled pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    #[test]
    fn the_program_comes_first() {
        let argv = Program::at("/bin/spl").argv(words(&["data", "x"]));
        assert_eq!(argv.expect("fine"), ["/bin/spl", "data", "x"]);
        let argv = Program::any().argv(words(&["data", "x"]));
        assert_eq!(argv.expect("fine"), ["data", "x"]);
        // To a program of its own it may be a command.
        let argv = Program::at("/bin/spl").argv(words(&["exec", "x"]));
        assert_eq!(argv.expect("fine"), ["/bin/spl", "exec", "x"]);
        let argv = Program::any().argv(words(&["exec", "x"]));
        assert_eq!(argv.expect("fine"), ["x"]);
    }

    #[test]
    fn patterns_are_bounded() {
        let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
        Program::any().failure_in_stdout(&nested(60)).expect("not too deep");
        for pattern in [nested(70), "(a{200}){200}".to_owned(), "(".to_owned()] {
            Program::any().failure_in_stdout(&pattern).expect_err(&pattern);
            Program::any().failure_in_stderr(&pattern).expect_err(&pattern);
        }
    }

    #[test]
    fn bad_words_are_refused_with_their_name() {
        let spl = Program::at("spl").refuse_arguments(["@@", "\n"]);
        for (argv, kind) in [
            (words(&[]), ErrorKind::Malformed),
            (words(&["a", "b\0c"]), ErrorKind::Malformed),
            (words(&["a", "hi @@ b"]), ErrorKind::Impossible),
            (words(&["a", "hi\nb"]), ErrorKind::Impossible),
        ] {
            assert_eq!(spl.argv(argv).expect_err("refused").kind(), kind);
        }
        assert!(Program::any().argv(words(&[""])).is_err());
        assert!(Program::any().argv(words(&["a", "@@"])).is_ok());
    }
}
