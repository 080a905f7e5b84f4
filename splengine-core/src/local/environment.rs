use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::execute::Command;
use crate::names::any_names;

/// The variables that commands get from their host, before those of their request.
///
/// Nothing of the server's own environment reaches a command unless it is named here, so that commands
/// do not get its secrets.
///
/// ```
/// use splengine_core::local::Environment;
/// use splengine_core::{Caller, Engine, LocalExecutor, Request};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let environment = Environment::minimal().inherit(&["LC_*"]).set("APP", "demo");
/// let executor = LocalExecutor::builder(".").environment(environment).build()?;
/// let engine = Engine::builder(executor).build()?;
/// let alice = Caller::new("alice")?.with_all_scopes();
/// let request = Request::new("sh -c 'echo $APP; echo ${HOME-unset}'");
/// assert_eq!(engine.execute(&alice, request).await?.capture().await.stdout, "demo\nunset\n");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Variables that [`inherited`](Self::inherited) takes over. A `*` at the end stands for any
    /// rest.
    pub const INHERITED: &[&str] =
        &["PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_*", "TZ", "TMPDIR"];

    /// No variables but a `PATH` of the usual directories.
    #[must_use]
    pub fn minimal() -> Self {
        Self { variables: BTreeMap::new() }.set("PATH", "/usr/local/bin:/usr/bin:/bin")
    }

    /// Takes the variables of this process that are named in [`INHERITED`](Self::INHERITED), over the
    /// [`minimal`](Self::minimal) ones, and the [usual](Self::with_usual) ones that it lacks.
    #[must_use]
    pub fn inherited() -> Self {
        Self::minimal().inherit(Self::INHERITED).with_usual()
    }

    /// Adds those variables that a login sets and that are not set yet: `HOME`, `USER`, `LOGNAME` and
    /// `SHELL` as `/etc/passwd` has them for the user of this process, and `LANG` for text in UTF-8.
    ///
    /// Where the user has no entry there, `HOME` is `/`, `USER` the number of the user, and `SHELL`
    /// `/bin/sh`; as it is instead of a shell that only refuses logins.
    #[must_use]
    pub fn with_usual(mut self) -> Self {
        let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
        let user = User::find(&users, rustix::process::geteuid().as_raw());
        for (name, value) in [
            ("HOME", user.home),
            ("USER", user.name.clone()),
            ("LOGNAME", user.name),
            ("SHELL", user.shell),
        ] {
            self.variables.entry(name.into()).or_insert_with(|| value.into());
        }
        if TEXT_VARIABLES.iter().all(|name| !self.variables.contains_key(OsStr::new(name))) {
            self = self.set("LANG", UTF8);
        }
        self
    }

    /// Takes over from this process the variables with these names. A `*` at the end of a name
    /// stands for any rest.
    #[must_use]
    pub fn inherit<'a>(mut self, names: impl IntoIterator<Item = &'a &'a str>) -> Self {
        let patterns: Vec<&str> = names.into_iter().copied().collect();
        let named = |name: &OsStr| any_names(patterns.iter().copied(), name.as_bytes());
        self.variables.extend(std::env::vars_os().filter(|(name, _)| named(name)));
        self
    }

    /// Sets one variable.
    #[must_use]
    pub fn set(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }

    /// Returns all variables that `command` is to get, by name: these, over them those of its request,
    /// and its [`path_first`](Command::path_first) before the rest of `PATH`. For executors that start
    /// programs by themselves; [`LocalExecutor`](crate::LocalExecutor) does the same.
    ///
    /// ```
    /// use splengine_core::execute::Command;
    /// use splengine_core::local::Environment;
    ///
    /// /// A process that runs `command` in a sandbox, with nothing of the server's own environment.
    /// fn process(environment: &Environment, command: &Command) -> std::process::Command {
    ///     let mut process = std::process::Command::new("sandbox");
    ///     process.env_clear().envs(environment.variables(command)).args(&command.argv);
    ///     process
    /// }
    /// ```
    #[must_use]
    pub fn variables(&self, command: &Command) -> BTreeMap<OsString, OsString> {
        let mut all = self.variables.clone();
        all.extend(command.env.iter().map(|(name, value)| (name.into(), value.into())));
        if let Some(first) = &command.path_first {
            all.insert("PATH".into(), self.path_after(first, &command.env).into());
        }
        all
    }

    /// `PATH` with `first` before the rest of it.
    fn path_after(&self, first: &str, request: &[(String, String)]) -> String {
        let rest = self.value(request, "PATH").unwrap_or_default().to_string_lossy();
        format!("{first}:{rest}")
    }

    /// One variable's value.
    pub(crate) fn value<'a>(
        &'a self,
        request: &'a [(String, String)],
        name: &str,
    ) -> Option<&'a OsStr> {
        let asked = request.iter().rev().find(|(asked, _)| asked == name);
        asked
            .map(|(_, value)| OsStr::new(value))
            .or_else(|| self.variables.get(OsStr::new(name)).map(OsString::as_os_str))
    }

    /// All variables as execve(2) takes them, those of the request over these. Names and values
    /// with a NUL byte are left out; the engine refused them before.
    pub(crate) fn block(&self, request: &[(String, String)]) -> Vec<CString> {
        let mut all: BTreeMap<&OsStr, &OsStr> = self
            .variables
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
            .collect();
        all.extend(request.iter().map(|(name, value)| (OsStr::new(name), OsStr::new(value))));
        all.into_iter()
            .filter_map(|(name, value)| {
                let mut entry = name.to_owned();
                entry.push("=");
                entry.push(value);
                CString::new(entry.into_vec()).ok()
            })
            .collect()
    }

    /// The same with `first`, where it is given, before the rest of `PATH`.
    pub(crate) fn block_of_run(
        &self,
        request: &[(String, String)],
        first: Option<&str>,
    ) -> Vec<CString> {
        let Some(first) = first else { return self.block(request) };
        let path = ("PATH".to_owned(), self.path_after(first, request));
        self.block(&[request, &[path]].concat())
    }

    /// The same for a terminal: for text in UTF-8, too, where nothing says otherwise.
    pub(crate) fn block_of_terminal(
        &self,
        request: &[(String, String)],
        first: Option<&str>,
    ) -> Vec<CString> {
        let mut all = request.to_vec();
        if TEXT_VARIABLES.iter().all(|name| self.value(request, name).is_none()) {
            all.push(("LANG".to_owned(), UTF8.to_owned()));
        }
        self.block_of_run(&all, first)
    }
}

/// What a user database says of a user.
#[derive(Debug, PartialEq, Eq)]
struct User {
    name: String,
    home: String,
    shell: String,
}

impl User {
    /// The user with this number among `users`, which has the form of passwd(5).
    fn find(users: &str, number: u32) -> Self {
        let entry = users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| {
            fields.len() >= 7 && fields[2].parse() == Ok(number) && !fields[0].is_empty()
        });
        let field = |place: usize| {
            entry.as_ref().map(|fields| fields[place]).filter(|text| text.starts_with('/'))
        };
        let refuses = |shell: &str| shell.ends_with("/nologin") || shell.ends_with("/false");
        let shell = field(6).filter(|shell| !refuses(shell));
        Self {
            name: entry.as_ref().map_or_else(|| number.to_string(), |entry| entry[0].to_owned()),
            home: field(5).unwrap_or("/").to_owned(),
            shell: shell.unwrap_or("/bin/sh").to_owned(),
        }
    }
}

/// Which of these is set says how text is encoded.
const TEXT_VARIABLES: [&str; 3] = ["LC_ALL", "LC_CTYPE", "LANG"];
const UTF8: &str = "C.UTF-8";

/// The names only: values may be secrets.
impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_their_number() {
        let users = "root:x:0:0:root:/root:/bin/bash\nbroken\nspl:x:1000:1000::/home/spl:\n\
                     daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\n";
        let user = |name: &str, home: &str, shell: &str| User {
            name: name.to_owned(),
            home: home.to_owned(),
            shell: shell.to_owned(),
        };
        assert_eq!(User::find(users, 0), user("root", "/root", "/bin/bash"));
        assert_eq!(User::find(users, 1), user("daemon", "/usr/sbin", "/bin/sh"));
        assert_eq!(User::find(users, 1000), user("spl", "/home/spl", "/bin/sh"));
        assert_eq!(User::find(users, 7), user("7", "/", "/bin/sh"));
    }

    #[test]
    fn what_is_set_is_not_overridden() {
        let usual = Environment::minimal().set("HOME", "/srv").set("LC_ALL", "C").with_usual();
        assert_eq!(usual.value(&[], "HOME"), Some(OsStr::new("/srv")));
        assert_eq!(usual.value(&[], "LANG"), None);
        for name in ["USER", "LOGNAME", "SHELL", "PATH"] {
            assert!(usual.value(&[], name).is_some_and(|value| !value.is_empty()), "{name}");
        }
        let usual = Environment::minimal().with_usual();
        assert_eq!(usual.value(&[], "LANG"), Some(OsStr::new("C.UTF-8")));
    }

    #[test]
    fn only_what_is_named_is_inherited() {
        let environment = Environment::minimal().inherit(&["CARGO_PKG_*"]);
        let block = environment.block(&[("PATH".into(), "/x".into())]);
        let names: Vec<String> = block
            .iter()
            .map(|entry| entry.to_string_lossy().split('=').next().unwrap_or_default().to_owned())
            .collect();
        assert!(names.contains(&"CARGO_PKG_NAME".to_owned()));
        assert!(names.iter().all(|name| name == "PATH" || name.starts_with("CARGO_PKG_")));
        assert!(block.contains(&CString::new("PATH=/x").expect("no NUL")));
    }
}
