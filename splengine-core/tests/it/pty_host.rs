//! Sessions that outlive their engine. The engine of these tests is dropped as a process drops it
//! that is killed: without a word. (`examples/tests` kill a real one.)

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::auth::Access;
use splengine_core::engine::BuildError;
use splengine_core::execute::{Background, ExitStatus, Signal};
use splengine_core::local::PtyHost;
use splengine_core::session::{Attach, Attachment, SessionInfo, SessionPolicy, SessionState};
use splengine_core::terminal::Size;
use splengine_core::{Caller, Engine, LocalExecutor, SessionRequest};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::sessions::read_until;
use crate::support::{caller, eventually};

/// The PTY host's `main`: this very test binary, started with the words of [`start`].
#[test]
#[ignore = "it is not a test, but what the others start"]
fn main_of_the_pty_host() {
    splengine_core::local::run_pty_host().expect("serves");
}

/// An engine in a runtime of its own, with which it ends.
struct Engines {
    root: TempDir,
    alice: Caller,
}

struct Running {
    engine: Engine,
    runtime: Runtime,
    adopted: usize,
}

impl Engines {
    fn new() -> Self {
        Self { root: tempfile::tempdir().expect("a directory"), alice: caller("alice") }
    }

    fn start(&self) -> Running {
        self.start_with(true)
    }

    fn start_with(&self, holds: bool) -> Running {
        let runtime = Runtime::new().expect("a runtime");
        let store = self.root.path().join("runtime/sessions");
        let words = ["--exact", "pty_host::main_of_the_pty_host", "--ignored", "--nocapture"];
        let (engine, adopted) = runtime.block_on(async {
            let build = || {
                let mut executor = LocalExecutor::builder(self.root.path());
                if holds {
                    executor = executor.pty_host(PtyHost::new(&store, words).expect("a directory"));
                }
                Engine::builder(executor.build().expect("set up"))
                    .grace(Duration::from_millis(500))
                    .sessions(SessionPolicy::new().shell(["/bin/sh"]).store(&store))
                    .build()
            };
            // The tasks of the engine before this one may hold its store a moment longer.
            let mut built = build();
            for _ in 0..30 {
                if !matches!(built, Err(BuildError::SessionStoreInUse { .. })) {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                built = build();
            }
            let engine = built.expect("built");
            let adopted = engine.resume().await.sessions;
            (engine, adopted)
        });
        Running { engine, runtime, adopted }
    }

    fn session(&self, running: &Running, script: &str) -> SessionInfo {
        let request =
            SessionRequest::new().command("sh -c").arg(script).size(Size::clamped(60, 10));
        let sessions = running.engine.sessions();
        let session =
            running.runtime.block_on(sessions.create(&self.alice, request)).expect("starts");
        // From here on the engine may die.
        assert!(self.kept(&session, session.id.as_str()), "{session:?} is not written down");
        session
    }

    fn attach(&self, running: &Running, id: &SessionInfo, attach: Attach) -> Attachment {
        let _inside = running.runtime.enter();
        running.engine.sessions().attach(&self.alice, &id.id, attach).expect("attaches")
    }

    fn info(&self, running: &Running, id: &SessionInfo) -> SessionInfo {
        running.engine.sessions().get(&self.alice, &id.id).expect("is there")
    }

    fn screen(&self, running: &Running, id: &SessionInfo) -> String {
        let sessions = running.engine.sessions();
        let shot = running.runtime.block_on(sessions.screen(&self.alice, &id.id));
        shot.expect("a screen").text().to_owned()
    }

    fn file(&self, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(self.root.path().join(name)).ok()?;
        text.ends_with('\n').then(|| text.trim().to_owned())
    }

    /// What a script wrote into a file.
    fn told(&self, name: &str) -> String {
        let mut told = None;
        wait(name, || {
            told = self.file(name);
            told.is_some()
        });
        told.expect("is there")
    }

    fn kept(&self, id: &SessionInfo, needle: &str) -> bool {
        let path = self.root.path().join(format!("runtime/sessions/{}/state", id.id));
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).contains(needle)
    }
}

impl Running {
    /// Ends it without a word, as `kill -9` does.
    fn die(self) {
        let Self { engine, runtime, .. } = self;
        runtime.shutdown_timeout(Duration::from_secs(5));
        drop(engine);
    }

    fn read_until(&self, attachment: &mut Attachment, needle: &str) -> Vec<u8> {
        self.runtime.block_on(read_until(attachment, needle))
    }
}

/// Waits outside of any engine, since there may be none.
fn wait(what: &str, condition: impl FnMut() -> bool) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.expect("a runtime").block_on(eventually(what, condition));
}

fn lives(pid: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z')))
}

fn control() -> Attach {
    Attach::new(Access::Control)
}

#[test]
fn a_session_goes_on_in_the_next_engine() {
    let engines = Engines::new();
    let first = engines.start();
    let script = "echo $$ >pid; printf '\\033[1;3Hbefore\\n'; read x; echo one $x; \
                  while [ ! -e go ]; do sleep 0.01; done; echo meanwhile; echo >said; \
                  read y; echo two $y; exit 7";
    let session = engines.session(&first, script);
    let pid = engines.told("pid");
    let mut client = engines.attach(&first, &session, control());
    first.read_until(&mut client, "before");
    let next = first.runtime.block_on(client.input_handle().numbered_input(0, Bytes::from("a\n")));
    assert_eq!(next.expect("typed"), 2);
    first.read_until(&mut client, "one a\r\n");
    let (epoch, offset) = (client.epoch().to_owned(), client.offset());
    wait("it is kept", || engines.kept(&session, "one a"));
    drop(client);
    first.die();

    // Nobody is there, and the program goes on.
    std::fs::write(engines.root.path().join("go"), "").expect("writes");
    wait("it is said", || engines.file("said").is_some());
    assert!(lives(&pid));

    let second = engines.start();
    assert_eq!(second.adopted, 1);
    let info = engines.info(&second, &session);
    assert_eq!(info.state, SessionState::Running);
    let aged = session.created.duration_since(info.created).expect("not younger");
    assert!(aged < Duration::from_millis(1), "{aged:?}");
    let mut watcher = engines.attach(&second, &session, Attach::new(Access::View));
    second.read_until(&mut watcher, "meanwhile\r\n");
    assert_eq!(engines.screen(&second, &session), "  before\na\none a\nmeanwhile");
    // The client comes back as after a broken connection: nothing twice, nothing missing.
    let attach = control().resume(epoch.clone(), offset);
    let mut client = engines.attach(&second, &session, attach);
    assert_eq!(client.epoch(), epoch);
    let seen = second.read_until(&mut client, "meanwhile\r\n");
    assert_eq!(String::from_utf8_lossy(&seen), "meanwhile\r\n");
    // It does not know that its input came, and sends it again.
    let input_handle = client.input_handle();
    let again = second.runtime.block_on(input_handle.numbered_input(0, Bytes::from("a\nb\n")));
    assert_eq!(again.expect("typed"), 4);
    second.read_until(&mut client, "two b");
    let sessions = second.engine.sessions();
    wait("it ends", || engines.info(&second, &session).exit.is_some());
    assert_eq!(engines.info(&second, &session).exit, Some(ExitStatus::Code(7)));

    let recording = sessions.recording(&engines.alice, &session.id);
    let recording = second.runtime.block_on(recording).expect("a recording");
    let data = second.runtime.block_on(recording.read(0, 1 << 20)).expect("reads");
    let played: String = String::from_utf8_lossy(&data)
        .lines()
        .skip(1)
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
        .filter(|event| event[1] == "o")
        .map(|event| event[2].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(played.matches("meanwhile").count(), 1, "{played:?}");
    assert!(played.contains("before") && played.contains("two b"), "{played:?}");
}

#[test]
fn an_end_in_between_is_known_afterwards() {
    let engines = Engines::new();
    let first = engines.start();
    let script = |how: &str| format!("echo >up; while [ ! -e go ]; do sleep 0.01; done; {how}");
    let by_code = engines.session(&first, &script("echo last words; exit 3"));
    let by_signal = engines.session(&first, &script("echo $$ >pid; kill -KILL $$"));
    engines.told("up");
    first.die();
    std::fs::write(engines.root.path().join("go"), "").expect("writes");
    wait("it is killed", || engines.file("pid").is_some_and(|pid| !lives(&pid)));
    let second = engines.start();
    assert_eq!(second.adopted, 2);
    let ended = |session: &SessionInfo| engines.info(&second, session).exit;
    wait("both end", || ended(&by_code).is_some() && ended(&by_signal).is_some());
    assert_eq!(ended(&by_code), Some(ExitStatus::Code(3)));
    assert_eq!(ended(&by_signal), Some(ExitStatus::Signal(Signal::KILL)));
    assert_eq!(engines.screen(&second, &by_code), "last words");
}

#[test]
fn a_drain_leaves_it_running_and_an_end_ends_it() {
    let engines = Engines::new();
    let first = engines.start();
    let session =
        engines.session(&first, "echo $$ >pid; (trap '' HUP TERM; exec sleep 600) & read x");
    let pid = engines.told("pid");
    first.runtime.block_on(first.engine.drain(Duration::ZERO));
    assert!(lives(&pid));
    first.die();
    let second = engines.start();
    assert_eq!(second.adopted, 1);
    let ended = async {
        second.engine.sessions().end(&engines.alice, &session.id).await.expect("ends");
    };
    second.runtime.block_on(ended);
    assert!(!lives(&pid));
    second.die();
    // Forgotten by the PTY host, too.
    assert_eq!(engines.start().adopted, 0);
}

#[test]
fn what_is_printed_beyond_what_is_kept_is_left_out() {
    let engines = Engines::new();
    let first = engines.start();
    let script = "echo >up; while [ ! -e go ]; do sleep 0.01; done; \
                  yes 0123456789012345678901234567890123456789 | head -c 3000000; \
                  printf '\\nthe end\\n'; echo >said; read x";
    let session = engines.session(&first, script);
    engines.told("up");
    let client = engines.attach(&first, &session, control());
    let epoch = client.epoch().to_owned();
    drop(client);
    first.die();
    std::fs::write(engines.root.path().join("go"), "").expect("writes");
    // With nobody attached the program never waits.
    wait("it is said", || engines.file("said").is_some());
    let second = engines.start();
    let mut client = engines.attach(&second, &session, control().resume(epoch.clone(), 0));
    assert_ne!(client.epoch(), epoch);
    second.read_until(&mut client, "the end");
    assert!(client.offset() > 3_000_000, "{}", client.offset());
    assert!(engines.screen(&second, &session).ends_with("\nthe end"));
}

#[test]
fn nothing_is_left_of_what_nobody_goes_on_with() {
    let engines = Engines::new();
    let first = engines.start();
    let stubborn =
        |file: &str| format!("trap '' HUP TERM; echo $$ >{file}; while :; do sleep 1; done");
    let known = engines.session(&first, &stubborn("known"));
    let unknown = engines.session(&first, &stubborn("unknown"));
    let pids = [engines.told("known"), engines.told("unknown")];
    first.die();
    // Its files are gone: no engine will ever ask for it.
    let files = engines.root.path().join(format!("runtime/sessions/{}", unknown.id));
    std::fs::remove_dir_all(files).expect("removes");
    let second = engines.start();
    assert_eq!(second.adopted, 1);
    wait("it is gone", || !lives(&pids[1]));
    assert!(lives(&pids[0]));
    second.die();
    // The switch is off: what was left running is found and ended, and the session is lost.
    let third = engines.start_with(false);
    assert_eq!(third.adopted, 0);
    assert!(!lives(&pids[0]));
    assert_eq!(engines.info(&third, &known).state, SessionState::Lost);
}

#[test]
fn a_program_that_can_not_be_started_is_refused_the_same() {
    let engines = Engines::new();
    let with = engines.start();
    std::fs::write(engines.root.path().join("text"), "no program").expect("writes");
    let mut told = HashSet::new();
    for running in [&with, &Engines::start_with(&Engines::new(), false)] {
        for command in ["./text", "nowhere-to-be-found", "/"] {
            let request = SessionRequest::new().command(command);
            let sessions = running.engine.sessions();
            let made = running.runtime.block_on(sessions.create(&engines.alice, request));
            let error = made.expect_err("refused");
            told.insert(format!("{command}: {error}"));
        }
    }
    assert!(told.len() <= 4, "{told:?}");
}

#[test]
fn what_a_held_program_leaves_in_the_background_stays_where_that_is_wanted() {
    let engines = Engines::new();
    let running = engines.start();
    for (background, stays) in [(Background::Kill, false), (Background::Keep, true)] {
        let request = SessionRequest::new()
            .command("sh -c")
            .arg("trap '' HUP; sleep 1000 </dev/null >/dev/null 2>&1 & echo $! > told$BACKGROUND")
            .env("BACKGROUND", stays.to_string())
            .background(background);
        let sessions = running.engine.sessions();
        let session = running.runtime.block_on(sessions.create(&engines.alice, request));
        let session = session.expect("starts");
        let pid = engines.told(&format!("told{stays}"));
        wait("its end", || {
            let session = sessions.get(&engines.alice, &session.id);
            session.is_ok_and(|session| session.state == SessionState::Exited)
        });
        assert_eq!(lives(&pid), stays);
        if stays {
            let pid = rustix::process::Pid::from_raw(pid.parse().expect("a number"));
            let kill = rustix::process::Signal::KILL;
            rustix::process::kill_process(pid.expect("not zero"), kill).expect("it runs");
        }
    }
}

#[test]
fn a_variable_tells_the_path_of_a_held_terminal() {
    let engines = Engines::new();
    let running = engines.start();
    let request = SessionRequest::new()
        .command("sh -c")
        .arg("echo [$OWN_TTY] [$(tty)] > told; read x")
        .tty_variable("OWN_TTY");
    let sessions = running.engine.sessions();
    running.runtime.block_on(sessions.create(&engines.alice, request)).expect("starts");
    let told = engines.told("told");
    let (variable, tty) = told.split_once(' ').expect("two paths");
    assert!(variable.starts_with("[/dev/pts/") && tty == variable, "{told}");
}

#[test]
fn a_pty_host_that_is_killed_takes_its_programs_along() {
    let engines = Engines::new();
    let running = engines.start();
    let script = "trap '' HUP TERM; echo $$ $PPID >pids; while :; do sleep 1; done";
    let session = engines.session(&running, script);
    let pids = engines.told("pids");
    let (program, host) = pids.split_once(' ').expect("two");
    let host = rustix::process::Pid::from_raw(host.parse().expect("a number"));
    let kill = rustix::process::Signal::KILL;
    rustix::process::kill_process(host.expect("not zero"), kill).expect("is there");
    wait("it is gone", || !lives(program));
    wait("its end is known", || engines.info(&running, &session).exit.is_some());
    assert_eq!(engines.info(&running, &session).exit, Some(ExitStatus::Code(125)));
    // The next session gets a PTY host of its own.
    let again = engines.session(&running, "echo alive; read x");
    let mut client = engines.attach(&running, &again, control());
    running.read_until(&mut client, "alive");
}

/// What a command may try that runs as the engine's user: to have another user's terminal, or to
/// pass for the PTY host. Writes what came of it to a file.
#[test]
#[ignore = "it is not a test, but what the others start"]
fn main_of_the_intruder() {
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, accept, bind, connect,
        listen, recv, send, socket,
    };
    let path = std::env::var("SOCKET").expect("a path");
    let told = std::env::var("TOLD").expect("a path");
    if let Some(limit) = std::env::var("LOCKS").ok().and_then(|limit| limit.parse().ok()) {
        let limit = rustix::process::Rlimit { current: Some(limit), maximum: Some(limit) };
        rustix::process::setrlimit(rustix::process::Resource::Locks, limit).expect("lowered");
    }
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None).expect("a socket");
    let address = SocketAddrUnix::new(path.as_str()).expect("short");
    let mut answer = [0; 4096];
    let said = if let Ok(session) = std::env::var("SESSION") {
        connect(&socket, &address).expect("it listens");
        let asked = format!("{{\"Adopt\":{{\"session\":\"{session}\"}}}}");
        let length = send(&socket, asked.as_bytes(), SendFlags::NOSIGNAL)
            .and_then(|_| recv(&socket, &mut answer[..], RecvFlags::empty()))
            .map_or(0, |(length, _)| length);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    } else {
        std::fs::remove_file(&path).expect("it is there");
        bind(&socket, &address).expect("free");
        listen(&socket, 8).expect("listens");
        std::fs::write(format!("{told}.up"), "up\n").expect("writes");
        let peer = accept(&socket).expect("somebody comes");
        let length = recv(&peer, &mut answer[..], RecvFlags::empty()).map_or(0, |got| got.0);
        String::from_utf8_lossy(&answer[..length]).into_owned()
    };
    std::fs::write(&told, format!("<{said}>\n")).expect("writes");
}

impl Engines {
    fn socket(&self) -> String {
        // Below 108 bytes, whatever the temporary directory.
        self.root.path().join("runtime/sessions/holder.sock").to_str().expect("text").to_owned()
    }

    /// A request that runs the intruder.
    fn intruder(&self, told: &str) -> splengine_core::Request {
        let own = std::env::current_exe().expect("known");
        let told = self.root.path().join(told);
        splengine_core::Request::new(own.to_str().expect("text"))
            .args(["--exact", "pty_host::main_of_the_intruder", "--ignored", "--nocapture"])
            .env("SOCKET", self.socket())
            .env("TOLD", told.to_str().expect("text"))
    }
}

#[test]
fn no_command_can_have_a_terminal_that_the_pty_host_keeps() {
    let engines = Engines::new();
    let first = engines.start();
    let session = engines.session(&first, "echo >up; read x");
    engines.told("up");
    for (told, limit) in [("as it is", "as it is"), ("lowered", "1000")] {
        let request = engines.intruder(told).env("SESSION", session.id.as_str());
        let request = request.env("LOCKS", limit);
        let run = first.runtime.block_on(first.engine.execute(&engines.alice, request));
        first.runtime.block_on(run.expect("starts").capture());
        assert_eq!(engines.told(told), "<>", "{told}");
    }
    // A program in another terminal of the same PTY host.
    let own = std::env::current_exe().expect("known");
    let script = format!(
        "SESSION={} SOCKET={} TOLD={} {} --exact pty_host::main_of_the_intruder --ignored; read x",
        session.id,
        engines.socket(),
        engines.root.path().join("terminal").display(),
        own.display(),
    );
    engines.session(&first, &script);
    assert_eq!(engines.told("terminal"), "<>");
    // Who was started by no run is served: so the others were refused for what they are.
    let status = std::process::Command::new(own)
        .args(["--exact", "pty_host::main_of_the_intruder", "--ignored", "--nocapture"])
        .env("SOCKET", engines.socket())
        .env("TOLD", engines.root.path().join("beside"))
        .env("SESSION", session.id.as_str())
        .stdout(std::process::Stdio::null())
        .status();
    assert!(status.expect("starts").success());
    assert!(engines.told("beside").contains("Running"));
}

#[test]
fn no_command_can_pass_for_the_pty_host() {
    let engines = Engines::new();
    let running = engines.start();
    let before = engines.session(&running, "echo >up; read x");
    engines.told("up");
    let request = engines.intruder("impostor").timeout(Duration::from_secs(50));
    let run = running.runtime.block_on(running.engine.execute(&engines.alice, request));
    let mut run = run.expect("starts");
    engines.told("impostor.up");
    let session = engines.session(&running, "echo secret; read x");
    let mut client = engines.attach(&running, &session, control());
    running.read_until(&mut client, "secret");
    // Whatever the impostor was told, it was nothing.
    assert!(engines.file("impostor").is_none_or(|told| told == "<>"));
    run.stopper().stop();
    running.runtime.block_on(async { while run.next().await.is_some() {} });
    drop(before);
}
