use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::auth::Access;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::session::{
    Attach, Attachment, Closed, Notice, SessionInfo, SessionPolicy, SessionState, SizePolicy,
    Update,
};
use splengine_core::terminal::{SessionStatus, Size, Terminal, TerminalModes};
use splengine_core::{
    Caller, Engine, ErrorKind, Execute, ExecuteError, LocalExecutor, Request, Scope, Session,
    SessionError, SessionRequest,
};
use tempfile::TempDir;
use tokio::time::{Instant, timeout};

use crate::support::{caller, eventually, sh, text};

struct Bench {
    engine: Engine,
    alice: Caller,
    root: TempDir,
}

fn bench() -> Bench {
    bench_with(|policy| policy)
}

fn bench_with(configure: impl FnOnce(SessionPolicy) -> SessionPolicy) -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    open(root, configure)
}

fn open(root: TempDir, configure: impl FnOnce(SessionPolicy) -> SessionPolicy) -> Bench {
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let store = root.path().join("runtime/sessions");
    let policy = SessionPolicy::new().shell(["/bin/sh"]).store(store);
    let engine = Engine::builder(executor)
        .grace(Duration::from_millis(500))
        .sessions(configure(policy))
        .build()
        .expect("built");
    Bench { engine, alice: caller("alice"), root }
}

/// A session that runs `sh -c script`.
fn script(script: &str) -> SessionRequest {
    SessionRequest::new().command("sh -c").arg(script)
}

impl Bench {
    async fn start(&self, request: SessionRequest) -> SessionInfo {
        self.engine.sessions().create(&self.alice, request).await.expect("starts")
    }

    fn attach(&self, session: &SessionInfo, attach: Attach) -> Attachment {
        self.engine.sessions().attach(&self.alice, &session.id, attach).expect("attaches")
    }

    async fn screen(&self, session: &SessionInfo) -> String {
        let shot = self.engine.sessions().screen(&self.alice, &session.id).await;
        shot.expect("a screen").text().to_owned()
    }

    fn info(&self, session: &SessionInfo) -> SessionInfo {
        self.engine.sessions().get(&self.alice, &session.id).expect("is there")
    }
}

fn control() -> Attach {
    Attach::new(Access::Control)
}

async fn next(attachment: &mut Attachment) -> Option<Update> {
    timeout(Duration::from_secs(60), attachment.next()).await.expect("an update in time")
}

/// Reads until the output holds `needle`, and gives all of it.
pub(crate) async fn read_until(attachment: &mut Attachment, needle: &str) -> Vec<u8> {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(needle) {
        match next(attachment).await {
            Some(Update::Output { data, .. } | Update::Snapshot { data, .. }) => {
                seen.extend_from_slice(&data);
            }
            Some(Update::Exit(status)) => panic!("{needle} never came; {status:?}"),
            Some(_) => {}
            None => panic!("{needle} never came"),
        }
    }
    seen
}

async fn exit_of(attachment: &mut Attachment) -> (Vec<u8>, ExitStatus) {
    let mut seen = Vec::new();
    loop {
        match next(attachment).await {
            Some(Update::Output { data, .. } | Update::Snapshot { data, .. }) => {
                seen.extend_from_slice(&data);
            }
            Some(Update::Exit(status)) => return (seen, status),
            Some(_) => {}
            None => panic!("no exit"),
        }
    }
}

async fn typed(attachment: &Attachment, text: &str) {
    attachment.input_handle().input(Bytes::from(text.to_owned())).await.expect("typed");
}

#[tokio::test]
async fn a_program_outlives_its_clients() {
    let bench = bench();
    let session = bench.start(script("stty -echo; read line; echo got $line; read line")).await;
    {
        let mut first = bench.attach(&session, control());
        typed(&first, "hello\n").await;
        read_until(&mut first, "got hello").await;
    }
    assert_eq!(bench.info(&session).clients, 0);
    assert_eq!(bench.info(&session).state, SessionState::Running);
    let mut second = bench.attach(&session, control());
    let Some(Update::Snapshot { data, .. }) = next(&mut second).await else {
        panic!("no screen first");
    };
    assert!(text(&data).contains("got hello"));
    typed(&second, "\n").await;
    assert_eq!(exit_of(&mut second).await.1, ExitStatus::Code(0));
    assert_eq!(bench.info(&session).exit, Some(ExitStatus::Code(0)));
}

#[tokio::test]
async fn what_was_printed_last_comes_before_the_exit() {
    let bench = bench();
    for _ in 0..100 {
        let session = bench.start(script("printf 'the end'; exit 3")).await;
        let mut client = bench.attach(&session, control());
        let (seen, status) = exit_of(&mut client).await;
        assert!(text(&seen).contains("the end"), "{seen:?}");
        assert_eq!(status, ExitStatus::Code(3));
        assert_eq!(client.next().await, None);
    }
}

#[tokio::test]
async fn a_client_resumes_where_it_broke_off() {
    let bench = bench();
    let session = bench.start(script("stty -opost; read go; seq 1 400000; echo done")).await;
    let mut client = bench.attach(&session, control());
    let epoch = client.epoch().to_owned();
    let id = client.client_id().to_owned();
    while !matches!(next(&mut client).await, Some(Update::Snapshot { .. })) {}
    client.input_handle().ack(client.offset());
    typed(&client, "\n").await;
    let mut seen = Vec::new();
    let base = client.offset();
    let mut pieces = 0;
    'drops: loop {
        loop {
            match next(&mut client).await {
                Some(Update::Output { offset, data }) => {
                    assert_eq!(offset, base + seen.len() as u64, "a hole or a repeat");
                    seen.extend_from_slice(&data);
                    client.input_handle().ack(offset + data.len() as u64);
                    pieces += 1;
                    if pieces % 7 == 0 {
                        break;
                    }
                }
                Some(Update::Snapshot { .. }) => panic!("the client in control is waited for"),
                Some(Update::Exit(_)) => break 'drops,
                Some(_) => {}
                None => panic!("no exit"),
            }
        }
        let offset = base + seen.len() as u64;
        drop(client);
        client = bench.attach(&session, control().resume(&epoch, offset).client(&id));
        assert_eq!(client.client_id(), id);
        client.input_handle().ack(offset);
    }
    let expected: String = (1..=400_000).map(|n| format!("{n}\n")).collect();
    let from = seen.len() - expected.len() - "done\n".len();
    assert!(seen[from..].starts_with(expected.as_bytes()));
}

#[tokio::test]
async fn what_is_not_kept_is_a_screen() {
    let bench = bench_with(|policy| policy.log_bytes(128 << 10));
    let session = bench.start(script("seq 1 100000; read x")).await;
    let mut client = bench.attach(&session, control());
    let epoch = client.epoch().to_owned();
    read_until(&mut client, "100000").await;
    for (epoch, offset) in [(epoch.as_str(), 10), (epoch.as_str(), 1 << 40), ("other", 600_000)] {
        let mut again = bench.attach(&session, control().resume(epoch, offset));
        let first = next(&mut again).await;
        assert!(matches!(first, Some(Update::Snapshot { .. })), "{first:?}");
    }
}

#[tokio::test]
async fn who_does_not_read_holds_up_nobody() {
    let bench = bench();
    let session = bench
        .start(script(
            "stty -opost; read go; head -c 20000000 /dev/zero | tr '\\0' x; echo END; read x",
        ))
        .await;
    let mut sleeper = bench.attach(&session, Attach::new(Access::View));
    let mut reader = bench.attach(&session, control());
    while !matches!(next(&mut reader).await, Some(Update::Snapshot { .. })) {}
    reader.input_handle().ack(reader.offset());
    typed(&reader, "\n").await;
    let mut bytes = 0;
    // The end may come in parts.
    let mut tail = Vec::new();
    loop {
        match next(&mut reader).await {
            Some(Update::Output { offset, data }) => {
                bytes += data.len();
                reader.input_handle().ack(offset + data.len() as u64);
                tail.extend_from_slice(&data[data.len().saturating_sub(4)..]);
                tail.drain(..tail.len().saturating_sub(4));
                if tail == b"END\n" {
                    break;
                }
            }
            Some(Update::Snapshot { .. }) => panic!("it read and said so"),
            Some(_) => {}
            None => panic!("no end"),
        }
    }
    assert!(bytes > 20_000_000);
    let mut told = Vec::new();
    let offset = loop {
        match next(&mut sleeper).await {
            Some(Update::Snapshot { offset, .. }) => break offset,
            Some(update) => told.push(update),
            None => panic!("no screen"),
        }
    };
    assert!(offset > 20_000_000, "{offset} {told:?}");
}

#[tokio::test]
async fn a_client_in_control_that_falls_silent_holds_the_program_for_ten_seconds() {
    let bench = bench();
    let session = bench.start(script("read go; yes; read x")).await;
    let mut client = bench.attach(&session, control());
    while !matches!(next(&mut client).await, Some(Update::Snapshot { .. })) {}
    client.input_handle().ack(client.offset());
    typed(&client, "\n").await;
    let mut viewer = bench.attach(&session, Attach::new(Access::View));
    let begun = tokio::time::Instant::now();
    // Reads on until nothing more comes.
    let mut end = 0;
    loop {
        match timeout(Duration::from_secs(1), viewer.next()).await {
            Ok(Some(Update::Output { offset, data })) => end = offset + data.len() as u64,
            Ok(Some(Update::Snapshot { offset, .. })) => end = offset,
            Ok(_) => {}
            Err(_) if end >= 256 << 10 => break,
            // It has hardly begun.
            Err(_) => assert!(begun.elapsed() < Duration::from_secs(60), "{end}"),
        }
        assert!(end < 2 << 20, "nothing held it");
    }
    client.input_handle().ack(end);
    let acked = tokio::time::Instant::now();
    let released = timeout(Duration::from_secs(60), async {
        loop {
            match viewer.next().await {
                Some(Update::Output { offset, .. }) if offset > end + (4 << 20) => return,
                Some(Update::Snapshot { .. }) => return,
                _ => {}
            }
        }
    });
    released.await.expect("it is not held for ever");
    // It had been held for a second by then: without the acknowledgement it would go on before that.
    assert!(acked.elapsed() >= Duration::from_millis(9500), "{:?}", acked.elapsed());
}

#[tokio::test]
async fn questions_are_answered_once_whoever_is_there() {
    let bench = bench();
    let ask = r#"stty raw -echo; printf '\033[c'; reply=$(dd bs=1 count=7 2>/dev/null | od -An -tx1); stty sane; echo "reply:$reply"; sleep 0.3; stty -icanon min 0 time 0 -echo; rest=$(dd bs=100 count=1 2>/dev/null | od -An -tx1); stty sane; echo "rest:$rest."; read x"#;
    for clients in [0, 1, 5] {
        let session = bench.start(script(ask)).await;
        let mut attached: Vec<Attachment> =
            (0..clients).map(|_| bench.attach(&session, control())).collect();
        for client in &mut attached {
            // Each client's terminal answers as well.
            typed(client, "\x1b[?1;2c").await;
        }
        let mut watcher = bench.attach(&session, Attach::new(Access::View));
        let seen = read_until(&mut watcher, "rest:.").await;
        let seen = String::from_utf8_lossy(&seen).into_owned();
        assert!(seen.contains("reply: 1b 5b 3f"), "{clients} clients: {seen}");
    }
}

#[tokio::test]
async fn who_may_only_look_changes_nothing() {
    let bench = bench();
    let session = bench.start(script("stty -echo; read line; echo got $line; read x")).await;
    let mut owner = bench.attach(&session, control().window(Size::clamped(90, 30)));
    let viewer = bench.attach(&session, Attach::new(Access::View).window(Size::clamped(20, 5)));
    let input_handle = viewer.input_handle();
    for done in [
        input_handle.input(Bytes::from_static(b"evil\n")).await,
        input_handle.numbered_input(0, Bytes::from_static(b"evil\n")).await.map(drop),
        input_handle.take_control(),
        input_handle.release_control(),
        input_handle.grant_control(viewer.client_id()),
        owner.input_handle().grant_control(viewer.client_id()),
    ] {
        assert_eq!(done.expect_err("refused").kind(), ErrorKind::Forbidden);
    }
    input_handle.resize(Size::clamped(10, 5));
    typed(&owner, "good\n").await;
    let seen = read_until(&mut owner, "got").await;
    assert!(!text(&seen).contains("evil"));
    eventually("the owner's size", || bench.info(&session).size == Size::clamped(90, 30)).await;
}

#[tokio::test]
async fn input_that_is_sent_again_is_typed_once() {
    let bench = bench();
    let session = bench.start(script("stty raw -echo; echo ready; head -c 26 > out; read x")).await;
    let mut client = bench.attach(&session, control());
    read_until(&mut client, "ready").await;
    let (id, epoch) = (client.client_id().to_owned(), client.epoch().to_owned());
    let letters = Bytes::from_static(b"abcdefghijklmnopqrstuvwxyz");
    let input_handle = client.input_handle();
    assert_eq!(input_handle.numbered_input(0, letters.slice(..10)).await.expect("typed"), 10);
    drop(client);
    let client = bench.attach(&session, control().client(&id));
    assert_eq!(client.input_handle().next_number(), 10);
    let sent = client.input_handle().numbered_input(5, letters.slice(5..15)).await;
    assert_eq!(sent.expect("typed"), 15);
    let gap = client.input_handle().numbered_input(20, letters.slice(20..)).await;
    assert!(matches!(gap, Err(SessionError::Gap { expected: 15 })));
    drop(client);
    // Under no name, it is known by what it sends.
    let client = bench.attach(&session, control().resume(&epoch, 0));
    let sent = client.input_handle().numbered_input(0, letters).await;
    assert_eq!(sent.expect("typed"), 26);
    let out = bench.root.path().join("out");
    eventually("all of it", || std::fs::read(&out).is_ok_and(|data| data.len() == 26)).await;
    assert_eq!(std::fs::read(&out).expect("is there"), b"abcdefghijklmnopqrstuvwxyz");
}

/// Each counts for 256 bytes of the 1 MiB that may wait.
#[tokio::test]
async fn small_pieces_that_wait_for_a_paste_are_few() {
    let bench = bench();
    for _ in 0..20 {
        let session = bench.start(script("echo ready; cat > out")).await;
        let mut one = bench.attach(&session, control());
        let two = bench.attach(&session, control());
        read_until(&mut one, "ready").await;
        let begun = Instant::now();
        one.input_handle().input("\x1b[200~begun".into()).await.expect("typed");
        let input_handle = two.input_handle();
        for _ in 0..4096 {
            input_handle.input("x".into()).await.expect("typed");
        }
        let is_taken =
            timeout(Duration::from_millis(100), input_handle.input("x".into())).await.is_ok();
        // A paste that says nothing more holds others up for two seconds.
        if begun.elapsed() < Duration::from_secs(2) {
            assert!(!is_taken);
            return;
        }
    }
    panic!("the machine is too slow for this");
}

#[tokio::test]
async fn large_pastes_arrive_whole_and_untorn() {
    let bench = bench();
    let session = bench.start(script("echo ready; cat > out")).await;
    let mut one = bench.attach(&session, control());
    let two = bench.attach(&session, control());
    read_until(&mut one, "ready").await;
    let line = "0123456789".repeat(7) + "\n";
    let paste = line.repeat((1 << 20) / line.len());
    let input_handle = one.input_handle();
    let sent = paste.clone();
    let pasting = tokio::spawn(async move {
        let sent = Bytes::from(sent);
        for from in (0..sent.len()).step_by(60_000) {
            let piece = sent.slice(from..(from + 60_000).min(sent.len()));
            input_handle.input(piece).await.expect("typed");
        }
    });
    let draining = tokio::spawn(async move {
        while let Some(update) = one.next().await {
            if let Update::Output { offset, data } = update {
                one.input_handle().ack(offset + data.len() as u64);
            }
        }
    });
    for _ in 0..20 {
        typed(&two, "x\n").await;
        tokio::task::yield_now().await;
    }
    pasting.await.expect("pasted");
    typed(&two, "y\n\x04").await;
    draining.await.expect("drained");
    let out = std::fs::read_to_string(bench.root.path().join("out")).expect("text");
    let without: String =
        out.lines().filter(|l| *l != "x" && *l != "y").map(|l| format!("{l}\n")).collect();
    assert_eq!(without.len(), paste.len());
    assert!(without == paste, "something was torn");
    assert_eq!(out.lines().filter(|line| *line == "x").count(), 20);
}

#[test]
fn who_waits_for_input_to_be_read_hears_of_the_end() {
    let (to, told) = std::sync::mpsc::channel();
    // A runtime whose thread is kept by a task would not tell by a timeout of its own.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let ends = runtime.expect("a runtime").block_on(async {
            let bench = bench();
            let session = bench.start(script("stty raw -echo; echo ready; exec sleep 600")).await;
            let mut client = bench.attach(&session, control().from_start());
            read_until(&mut client, "ready").await;
            let (sessions, input_handle) = (bench.engine.sessions(), client.input_handle());
            // More than may wait to be typed, of which the kernel takes little.
            let much = || Bytes::from(vec![b'x'; 3 << 20]);
            let by_call = sessions.input(&bench.alice, &session.id, much());
            let end = sessions.end(&bench.alice, &session.id);
            tokio::join!(by_call, input_handle.input(much()), end)
        });
        drop(to.send(ends));
    });
    let ends = told.recv_timeout(Duration::from_secs(60));
    let (by_call, by_client, ended) = ends.expect("nobody waits for ever");
    ended.expect("ends");
    assert!(matches!(by_call, Err(SessionError::Ended)), "{by_call:?}");
    assert!(matches!(by_client, Err(SessionError::Ended)), "{by_client:?}");
}

#[tokio::test]
async fn the_client_in_control_owns_the_size() {
    let bench = bench();
    let script_ = "trap 'echo size $(stty size)' WINCH; echo ready; while :; do sleep 0.05; done";
    let session = bench.start(script(script_).size(Size::clamped(70, 20))).await;
    let mut first = bench.attach(&session, control());
    let mut second = bench.attach(&session, control().window(Size::clamped(50, 10)));
    read_until(&mut first, "ready").await;
    for cols in 90..=100 {
        first.input_handle().resize(Size::clamped(cols, 30));
    }
    read_until(&mut first, "size 30 100").await;
    assert_eq!(bench.screen(&session).await.matches("size").count(), 1, "one signal a burst");
    // Whoever comes next in line has the say when it leaves.
    drop(first);
    read_until(&mut second, "size 10 50").await;
    let third = bench.attach(&session, control().window(Size::clamped(60, 15)));
    third.input_handle().take_control().expect("may");
    read_until(&mut second, "size 15 60").await;
    third.input_handle().grant_control(second.client_id()).expect("has it");
    read_until(&mut second, "size 10 50").await;
    let mut sizes = Vec::new();
    while let Some(update) = second.ready() {
        if let Update::Size(size) = update {
            sizes.push(size);
        }
    }
    assert!(sizes.len() <= 1);
}

/// Else nobody who comes would be in control.
#[tokio::test]
async fn who_has_left_takes_no_control() {
    let bench = bench();
    let session = bench.start(SessionRequest::new().command("cat")).await;
    let gone = bench.attach(&session, control()).input_handle();
    let refused = gone.take_control();
    assert!(matches!(refused, Err(SessionError::Ended)), "{refused:?}");
    let mut next_one = bench.attach(&session, control());
    loop {
        if let Some(Update::Control { controller, you }) = next(&mut next_one).await {
            assert_eq!((controller.as_deref(), you), (Some(next_one.client_id()), true));
            break;
        }
    }
    gone.release_control().expect("may, and has none");
    assert!(gone.grant_control(next_one.client_id()).is_err());
}

#[tokio::test]
async fn what_a_new_client_types_at_once_finds_its_size() {
    let bench = bench();
    let session = bench.start(script("while read line; do stty size; done")).await;
    for rows in [11, 22, 33] {
        let mut client = bench.attach(&session, control().window(Size::clamped(100, rows)));
        typed(&client, "\n").await;
        read_until(&mut client, &format!("{rows} 100")).await;
    }
}

#[tokio::test]
async fn the_smallest_window_decides_if_asked_to() {
    let bench = bench_with(|policy| policy.size(SizePolicy::Smallest));
    let session = bench.start(SessionRequest::new().command("cat")).await;
    let _one = bench.attach(&session, control().window(Size::clamped(100, 20)));
    let _two = bench.attach(&session, control().window(Size::clamped(90, 40)));
    let _viewer = bench.attach(&session, Attach::new(Access::View).window(Size::clamped(5, 5)));
    eventually("the smallest", || bench.info(&session).size == Size::clamped(90, 20)).await;
}

#[tokio::test]
async fn idle_sessions_are_warned_and_ended() {
    let bench = bench_with(|policy| {
        policy.idle_timeout(Duration::from_secs(8)).warning(Duration::from_secs(6))
    });
    let busy = bench.start(SessionRequest::new()).await;
    let worker = bench.attach(&busy, control());
    typed(&worker, "sleep 1000\n").await;
    let idle = bench.start(SessionRequest::new()).await;
    let mut client = bench.attach(&idle, control());
    let mut warned = false;
    loop {
        match next(&mut client).await {
            Some(Update::Notice(Notice::IdleWarning { .. })) => warned = true,
            Some(Update::Closed(closed)) => {
                assert_eq!(closed, Closed::Expired);
                break;
            }
            Some(Update::Exit(_)) => panic!("the reason comes first"),
            Some(_) => {}
            None => panic!("not told"),
        }
    }
    assert!(warned);
    eventually("it ends", || bench.info(&idle).state == SessionState::Exited).await;
    assert_eq!(bench.info(&busy).state, SessionState::Running);
}

#[tokio::test]
async fn there_are_only_so_many() {
    let bench = bench_with(|policy| policy.max_sessions_per_caller(2).max_sessions(3));
    let sessions = bench.engine.sessions();
    let cat = || SessionRequest::new().command("cat");
    let first = bench.start(cat()).await;
    bench.start(cat()).await;
    let refused = sessions.create(&bench.alice, cat()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::CallerLimit);
    sessions.create(&caller("bob"), cat()).await.expect("starts");
    let refused = sessions.create(&caller("carol"), cat()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    sessions.end(&bench.alice, &first.id).await.expect("ends");
    bench.start(cat()).await;
    assert_eq!(sessions.list(&bench.alice).len(), 2);
}

/// Opens terminals whose programs have ended already, and can tell how many are still held.
#[derive(Clone, Default)]
struct Brief(Arc<()>);

impl Execute for Brief {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        _: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        Ok(Exit::new(ExitStatus::Code(0)))
    }

    async fn open(&self, _: Command, _: Size) -> Result<Terminal, ExecuteError> {
        Ok(Terminal::new(self.clone()))
    }

    fn has_terminals(&self) -> bool {
        true
    }
}

impl Session for Brief {
    async fn read(&self, _: &mut Vec<u8>) -> io::Result<usize> {
        Ok(0)
    }

    async fn write(&self, _: &[u8]) -> io::Result<()> {
        Ok(())
    }

    fn resize(&self, _: Size) -> io::Result<()> {
        Ok(())
    }

    async fn ended(&self) -> ExitStatus {
        ExitStatus::Code(7)
    }

    async fn end(&self) {}

    fn kill(&self) {}

    fn status(&self) -> SessionStatus {
        SessionStatus::default()
    }
}

#[tokio::test]
async fn sessions_that_have_ended_hold_no_terminal_and_are_few() {
    let brief = Brief::default();
    let engine = Engine::builder(brief.clone())
        .sessions(SessionPolicy::new().shell(["sh"]).max_sessions_per_caller(2))
        .build()
        .expect("built");
    let (sessions, alice) = (engine.sessions(), caller("alice"));
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(sessions.create(&alice, SessionRequest::new()).await.expect("made").id);
        eventually("it has ended, and its place is free", || engine.stats().sessions == 0).await;
        // The engine's executor, and this one.
        eventually("nothing of it is held", || Arc::strong_count(&brief.0) == 2).await;
    }
    let kept: Vec<_> = sessions.list(&alice).into_iter().map(|info| info.id).collect();
    assert_eq!(kept.len(), 3);
    assert!(ids[3..].iter().all(|id| kept.contains(id)), "the newest");
    let info = sessions.get(&alice, ids[5].as_str()).expect("it is kept");
    assert_eq!(info.exit, Some(ExitStatus::Code(7)));
}

#[tokio::test]
async fn others_know_nothing_of_a_session() {
    let bench = bench();
    let session = bench.start(SessionRequest::new().command("cat")).await;
    let (sessions, bob, id) = (bench.engine.sessions(), caller("bob"), session.id.as_str());
    let nobody = Caller::new("nobody").expect("a name");
    assert!(sessions.list(&bob).is_empty());
    for error in [
        sessions.get(&bob, id).map(drop),
        sessions.attach(&bob, id, control()).map(drop),
        sessions.end(&bob, id).await,
        sessions.save(&bob, id, None).await.map(drop),
        sessions.screen(&bob, id).await.map(drop),
        sessions.recording(&bob, id).await.map(drop),
        sessions.input(&bob, id, Bytes::from_static(b"x")).await,
        sessions.share(&bob, id, Access::View, Duration::from_secs(1)).map(drop),
    ] {
        assert_eq!(error.expect_err("refused").kind(), ErrorKind::NotFound);
    }
    let refused = sessions.create(&nobody, SessionRequest::new()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    let in_session = bench.engine.execute(&bob, sh("pwd").session_id(id)).await;
    assert_eq!(in_session.expect_err("refused").kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn shares_let_guests_in_until_they_are_taken_back() {
    let bench = bench();
    let sessions = bench.engine.sessions();
    let session = bench.start(script("stty -echo; read line; echo got $line; read x")).await;
    let id = session.id.as_str();
    let minute = Duration::from_secs(60);
    let (share, ticket) = sessions.share(&bench.alice, id, Access::View, minute).expect("shared");
    let guest = sessions.redeem(&ticket).expect("valid");
    assert_eq!(sessions.redeem(&ticket).expect_err("used").kind(), ErrorKind::NotFound);
    assert_eq!(sessions.list(&guest).len(), 1);
    let mut view = sessions.attach(&guest, id, control()).expect("attaches");
    assert_eq!(view.access(), Access::View);
    let kind = |error: SessionError| error.kind();
    assert_eq!(sessions.end(&guest, id).await.map_err(kind), Err(ErrorKind::Forbidden));
    let made = sessions.create(&guest, SessionRequest::new()).await;
    assert_eq!(made.map(drop).map_err(kind), Err(ErrorKind::Forbidden));
    let run = bench.engine.execute(&guest, Request::new("true")).await;
    assert_eq!(run.expect_err("refused").kind(), ErrorKind::Forbidden);

    let (_, ticket) = sessions.share(&bench.alice, id, Access::Control, minute).expect("shared");
    let helper = sessions.redeem(&ticket).expect("valid");
    let mut help = sessions.attach(&helper, id, control()).expect("attaches");
    typed(&help, "help\n").await;
    read_until(&mut help, "got help").await;

    sessions.take_back_share(&bench.alice, id, &share.id).expect("taken back");
    loop {
        match next(&mut view).await {
            Some(Update::Closed(closed)) => break assert_eq!(closed, Closed::Revoked),
            Some(_) => {}
            None => panic!("not told"),
        }
    }
    assert!(sessions.attach(&guest, id, control()).is_err());
    assert!(sessions.attach(&helper, id, control()).is_ok());
    let (_, ticket) =
        sessions.share(&bench.alice, id, Access::View, Duration::from_millis(1)).expect("shared");
    eventually("it expires", || sessions.list_shares(&bench.alice, id).is_ok_and(|s| s.len() == 1))
        .await;
    assert!(sessions.redeem(&ticket).is_err());
}

#[tokio::test]
async fn runs_go_where_the_session_is() {
    let bench = bench();
    std::fs::create_dir(bench.root.path().join("data")).expect("made");
    let request = SessionRequest::new().env("COLOUR", "blue");
    let session = bench.start(request).await;
    let mut client = bench.attach(&session, control());
    typed(&client, "cd data; echo mo''ved\n").await;
    read_until(&mut client, "moved").await;
    let run = || sh("pwd; echo $COLOUR $SPL_SESSION_ID").session_id(&session.id);
    let run = bench.engine.execute(&bench.alice, run()).await.expect("starts");
    let out = run.capture().await;
    let dir = bench.root.path().canonicalize().expect("is there").join("data");
    let expected = format!("{}\nblue {}\n", dir.display(), session.id);
    assert_eq!(text(&out.stdout), expected);
    typed(&client, "cd /; echo le''ft\n").await;
    read_until(&mut client, "left").await;
    let refused =
        bench.engine.execute(&bench.alice, sh("pwd").session_id(session.id.as_str())).await;
    let error = refused.expect_err("outside root");
    assert_eq!(error.kind(), ErrorKind::Impossible);
    assert!(error.to_string().contains("outside root"), "{error}");
}

#[tokio::test]
async fn variables_of_sessions_that_end_with_the_engine_are_not_on_disk() {
    let bench = bench();
    let request = SessionRequest::new().env("COLOUR", "a-secret-shade");
    let session = bench.start(request).await;
    let kept = bench.root.path().join("runtime/sessions");
    let has_secret = |path: &std::path::Path| {
        let bytes = std::fs::read(path).unwrap_or_default();
        bytes.windows(14).any(|part| part == b"a-secret-shade")
    };
    let state = kept.join(session.id.as_str()).join("state");
    eventually("it is written down", || state.exists()).await;
    assert!(!has_secret(&state));
    let sessions = bench.engine.sessions();
    let saved = sessions.save(&bench.alice, &session.id, None).await.expect("saved");
    let saved_file = kept.join("saved").join(saved.id.as_str());
    // Without them it could not be loaded.
    assert!(has_secret(&saved_file));
    let linked = kept.join("linked");
    std::fs::hard_link(&saved_file, &linked).expect("linked");
    sessions.remove_saved(&bench.alice, &saved.id).await.expect("removed");
    assert!(!saved_file.exists() && !has_secret(&linked), "it was not overwritten");
    sessions.end(&bench.alice, &session.id).await.expect("ends");
    assert!(!has_secret(&state));
}

#[tokio::test]
async fn a_saved_session_is_loaded_with_its_screen() {
    let bench = bench();
    let sessions = bench.engine.sessions();
    std::fs::create_dir(bench.root.path().join("data")).expect("made");
    let request = SessionRequest::new().env("COLOUR", "blue").size(Size::clamped(60, 10));
    let session = bench.start(request).await;
    let mut client = bench.attach(&session, control());
    // Nothing follows, as a prompt would.
    typed(&client, "cd data; printf 're\\033[31mmember\\033[m\\n.'; read x\n").await;
    read_until(&mut client, "member\x1b[m\r\n.").await;
    let saved =
        sessions.save(&bench.alice, &session.id, Some("mine".to_owned())).await.expect("saved");
    let screen = sessions.screen(&bench.alice, &session.id).await.expect("a screen");
    sessions.end(&bench.alice, &session.id).await.expect("ends");
    assert_eq!(sessions.list_saved(&bench.alice).await.expect("listed").len(), 1);
    assert!(sessions.list_saved(&caller("bob")).await.expect("listed").is_empty());
    let stolen = SessionRequest::new().restore(saved.id.as_str());
    let refused = sessions.create(&caller("bob"), stolen).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::NotFound);

    let loaded = bench.start(SessionRequest::new().restore(&saved.id)).await;
    assert!(loaded.restored);
    assert_eq!(loaded.name.as_deref(), Some("mine"));
    assert_eq!(loaded.size, Size::clamped(60, 10));
    let mut client = bench.attach(&loaded, control().from_start());
    let Some(Update::Snapshot { data, size, .. }) = next(&mut client).await else {
        panic!("no screen first");
    };
    assert_eq!(size, Size::clamped(60, 10));
    let mut drawn = splengine_core::screen::Screen::new(60, 10, 300);
    drawn.feed(&data);
    assert_eq!(drawn.text(), screen.text());
    let shown = bench.screen(&loaded).await;
    assert!(shown.starts_with(screen.text()) && shown.contains("[restored]"), "{shown}");
    typed(&client, "echo $COLOUR; pwd\n").await;
    let seen = read_until(&mut client, "/data").await;
    assert!(text(&seen).contains("blue"));
}

#[tokio::test]
async fn what_is_damaged_is_not_loaded() {
    let bench = bench();
    let sessions = bench.engine.sessions();
    let session = bench.start(SessionRequest::new().command("cat")).await;
    let save = async || {
        let saved = sessions.save(&bench.alice, &session.id, None).await.expect("saved");
        let path = bench.root.path().join("runtime/sessions/saved").join(saved.id.as_str());
        (saved.id, path)
    };
    for (damage, words) in [
        (
            Box::new(|data: Vec<u8>| data[..data.len() - 1].to_vec()) as Box<dyn Fn(_) -> _>,
            "length",
        ),
        (
            Box::new(|mut data: Vec<u8>| {
                let at = data.len() - 2;
                data[at] ^= 1;
                data
            }),
            "checksum",
        ),
        (Box::new(|_| b"garbage".to_vec()), "header"),
        (Box::new(|_| Vec::new()), "header"),
        (
            Box::new(|data: Vec<u8>| {
                String::from_utf8_lossy(&data).replacen("\"version\":1", "\"version\":9", 1).into()
            }),
            "format 9",
        ),
    ] {
        let (id, path) = save().await;
        let data = std::fs::read(&path).expect("is there");
        std::fs::write(&path, damage(data)).expect("written");
        let request = SessionRequest::new().restore(id.as_str());
        let error = sessions.create(&bench.alice, request).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Impossible);
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(sessions.list(&bench.alice).len(), 1, "nothing half-made");
}

#[tokio::test]
async fn a_recording_plays_and_tells_the_screen_at_any_time() {
    let bench = bench();
    let sessions = bench.engine.sessions();
    let session = bench.start(script("echo one; read x; clear; echo two ä; read x")).await;
    let id = session.id.as_str();
    let mut client = bench.attach(&session, control());
    read_until(&mut client, "one").await;
    typed(&client, "\n").await;
    read_until(&mut client, "two").await;
    client.input_handle().resize(Size::clamped(100, 30));
    eventually("the size", || bench.info(&session).size == Size::clamped(100, 30)).await;
    let file = sessions.recording(&bench.alice, id).await.expect("recorded");
    let data = file.read(0, 1 << 20).await.expect("read");
    let mut lines = text(&data).lines();
    let header: serde_json::Value =
        serde_json::from_str(lines.next().expect("a header")).expect("JSON");
    assert_eq!((&header["version"], &header["width"]), (&2.into(), &80.into()));
    let events: Vec<(f64, String, String)> =
        lines.map(|line| serde_json::from_str(line).expect("an event")).collect();
    assert!(events.windows(2).all(|pair| pair[0].0 <= pair[1].0));
    let output: String = events
        .iter()
        .filter(|(_, code, _)| code == "o")
        .map(|(_, _, data)| data.as_str())
        .collect();
    assert!(output.contains("one") && output.contains("two ä"));
    assert!(events.iter().any(|(_, code, data)| code == "r" && data == "100x30"));
    assert!(events.iter().all(|(_, code, _)| code != "i"));
    let one = events.iter().find(|(_, _, data)| data.contains("one")).expect("is there").0;
    let then = sessions.screen_at(&bench.alice, id, Duration::from_secs_f64(one)).await;
    assert_eq!(then.expect("a screen").text(), "one");
    let now = sessions.screen_at(&bench.alice, id, Duration::from_secs(1000)).await;
    assert_eq!(now.expect("a screen").text(), bench.screen(&session).await);
}

#[tokio::test]
async fn draining_saves_sessions_and_sends_clients_away() {
    let bench = bench();
    let session = bench.start(SessionRequest::new()).await;
    let mut client = bench.attach(&session, control());
    typed(&client, "echo re''member\n").await;
    read_until(&mut client, "remember").await;
    bench.engine.drain(Duration::from_secs(20)).await;
    let mut updates = Vec::new();
    while let Some(update) = next(&mut client).await {
        updates.push(update);
    }
    assert!(updates.contains(&Update::Notice(Notice::Restart)));
    assert_eq!(updates.last(), Some(&Update::Closed(Closed::Restart)));
    let saved = bench.engine.sessions().list_saved(&bench.alice).await.expect("listed");
    assert_eq!(saved.len(), 1);
    let refused = bench.engine.sessions().create(&bench.alice, SessionRequest::new()).await;
    assert_eq!(refused.expect_err("shut").kind(), ErrorKind::Unavailable);
}

/// A program that does not want to end takes the grace of the drain and that of the engine, and no more.
#[tokio::test]
async fn draining_takes_little_longer_than_both_graces() {
    // Whatever else this machine does.
    let mut tries = 0..3;
    while drained_within_both_graces().await >= Duration::from_secs(10) {
        tries.next().expect("it takes far longer");
    }
}

/// Returns how long that took.
async fn drained_within_both_graces() -> Duration {
    let bench = bench();
    let stubborn = "sh -c 'trap \"\" HUP TERM INT; echo be''gun; while :; do sleep 1; done'";
    let session = bench.start(SessionRequest::new()).await;
    let mut client = bench.attach(&session, control());
    typed(&client, &format!("{stubborn}\n")).await;
    read_until(&mut client, "begun").await;
    let run = bench.engine.execute(&bench.alice, Request::new(stubborn)).await.expect("runs");
    let begun = Instant::now();
    bench.engine.drain(Duration::from_millis(200)).await;
    let taken = begun.elapsed();
    assert!(taken >= Duration::from_millis(200), "{taken:?}");
    assert_eq!(run.capture().await.end.reason, splengine_core::Reason::Cancelled);
    taken
}

#[tokio::test]
async fn who_ends_within_the_grace_is_heard_to_the_end() {
    let bench = bench();
    let session = bench.start(SessionRequest::new()).await;
    let mut client = bench.attach(&session, control());
    let words = "sh -c 'echo beg''un; read x; seq 20000; echo la''st'; exit 3\n";
    typed(&client, words).await;
    read_until(&mut client, "begun").await;
    let engine = bench.engine.clone();
    let draining = tokio::spawn(async move { engine.drain(Duration::from_secs(20)).await });
    while next(&mut client).await != Some(Update::Notice(Notice::Restart)) {}
    typed(&client, "go on\n").await;
    // It reads only when all is over.
    draining.await.expect("drained");
    read_until(&mut client, "last").await;
    let mut last = None;
    while let Some(update) = next(&mut client).await {
        last = Some(update);
    }
    assert_eq!(last, Some(Update::Exit(ExitStatus::Code(3))));
}

#[tokio::test]
async fn a_bad_request_makes_nothing() {
    let bench = bench();
    let sessions = bench.engine.sessions();
    for (request, kind, words) in [
        (
            SessionRequest::new().command("no-such-program"),
            ErrorKind::Impossible,
            "no-such-program",
        ),
        (SessionRequest::new().command("'open"), ErrorKind::Malformed, "command"),
        (SessionRequest::new().command(""), ErrorKind::Malformed, "command"),
        (SessionRequest::new().command("cat; cat"), ErrorKind::Malformed, "`;` outside of quotes"),
        (SessionRequest::new().command("cat > x"), ErrorKind::Malformed, "`>` outside of quotes"),
        (SessionRequest::new().arg("x"), ErrorKind::Malformed, "args"),
        (SessionRequest::new().workdir("missing"), ErrorKind::Impossible, "missing"),
        (SessionRequest::new().workdir("../.."), ErrorKind::Impossible, "outside root"),
        (SessionRequest::new().env("SPL_SESSION_ID", "x"), ErrorKind::Malformed, "SPL_SESSION_ID"),
        (SessionRequest::new().name("a\nb"), ErrorKind::Malformed, "name"),
        (SessionRequest::new().restore("saved-x"), ErrorKind::NotFound, "saved-x"),
    ] {
        let error = sessions.create(&bench.alice, request).await.expect_err("refused");
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(words), "{error}");
    }
    assert!(sessions.list(&bench.alice).is_empty());
    let left = std::fs::read_dir(bench.root.path().join("runtime/sessions")).expect("is there");
    assert_eq!(
        left.flatten().filter(|e| e.file_name().to_string_lossy().starts_with("spl-")).count(),
        0
    );
}

#[tokio::test]
async fn a_watcher_sees_own_sessions_and_touches_none() {
    let bench = bench();
    let session = bench.start(script("printf 'look'; read line; echo \"got $line\"")).await;
    let id = session.id.as_str();
    let sessions = bench.engine.sessions();
    let watcher = Caller::new("alice").expect("a name").with(Scope::Watch);

    let attach = control();
    let mut attachment = sessions.attach(&watcher, id, attach).expect("attaches");
    assert_eq!(attachment.access(), Access::View);
    read_until(&mut attachment, "look").await;
    assert_eq!(sessions.list(&watcher).len(), 1);
    assert_eq!(sessions.get(&watcher, id).expect("seen").id, session.id);
    assert_eq!(sessions.screen(&watcher, id).await.expect("seen").text(), "look");

    let forbidden = |result: Result<(), SessionError>| {
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Forbidden, "{error}");
    };
    forbidden(sessions.create(&watcher, SessionRequest::new()).await.map(drop));
    forbidden(sessions.input(&watcher, id, Bytes::from_static(b"x\n")).await);
    let input_handle = attachment.input_handle();
    forbidden(input_handle.input(Bytes::from_static(b"x\n")).await);
    forbidden(input_handle.take_control());
    forbidden(sessions.resize(&watcher, id, Size::clamped(10, 10)).map(drop));
    forbidden(sessions.rename(&watcher, id, Some("mine".to_owned())).map(drop));
    forbidden(sessions.save(&watcher, id, None).await.map(drop));
    forbidden(sessions.list_saved(&watcher).await.map(drop));
    forbidden(sessions.recording(&watcher, id).await.map(drop));
    forbidden(sessions.share(&watcher, id, Access::View, Duration::from_secs(9)).map(drop));
    forbidden(sessions.end(&watcher, id).await);
    let run = sh("true").session_id(id);
    let run = bench.engine.execute(&watcher.clone().with(Scope::Execute), run).await;
    assert_eq!(run.expect_err("refused").kind(), ErrorKind::Forbidden);

    let stranger = Caller::new("bob").expect("a name").with(Scope::Watch);
    assert!(sessions.list(&stranger).is_empty());
    let missing = sessions.get(&stranger, id).expect_err("not theirs");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let nobody = Caller::new("alice").expect("a name").with(Scope::Files);
    forbidden(sessions.get(&nobody, id).map(drop));
    assert!(sessions.list(&nobody).is_empty());
    let both = watcher.with(Scope::Sessions);
    sessions.end(&both, id).await.expect("ended");
}

#[tokio::test]
async fn a_terminal_begins_with_the_modes_that_are_asked_for() {
    let bench = bench();
    // RFC 4254, section 8: VINTR, ECHO, ONLCR, a speed, and one that nobody knows.
    let modes = TerminalModes::new([(1, 7), (53, 0), (72, 0), (128, 9600), (200, 1)]);
    let session = bench.start(script("stty -a; echo e''nd; read x").terminal_modes(modes)).await;
    let mut attachment = bench.attach(&session, control().from_start());
    let seen = read_until(&mut attachment, "end").await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(seen.contains("intr = ^G;") && seen.contains("-onlcr"), "{seen}");
    assert!(seen.contains(" -echo ") && seen.contains(" echoe "), "{seen}");
}

#[tokio::test]
async fn a_variable_tells_the_path_of_the_terminal() {
    let bench = bench();
    let request = script("echo [$OWN_TTY] [$(tty)]; echo e''nd; read x").env("OWN_TTY", "none");
    let session = bench.start(request.tty_variable("OWN_TTY")).await;
    let mut attachment = bench.attach(&session, control().from_start());
    let seen = read_until(&mut attachment, "end").await;
    let seen = String::from_utf8_lossy(&seen).into_owned();
    let (variable, tty) = seen.split_once(' ').expect("two paths");
    assert!(variable.starts_with("[/dev/pts/") && tty.starts_with(variable), "{seen}");
    let request = script("true").tty_variable("SPL_SESSION_ID");
    let refused = bench.engine.sessions().create(&bench.alice, request).await;
    assert!(matches!(refused, Err(SessionError::Start(_))), "{refused:?}");
}

#[tokio::test]
async fn who_attaches_from_the_start_gets_all_that_was_printed() {
    let bench = bench();
    let session = bench.start(script("echo first; read x; echo last; read x")).await;
    eventually("it has printed", || bench.info(&session).last_activity > session.created).await;
    let mut attachment = bench.attach(&session, control().from_start());
    let first = loop {
        match next(&mut attachment).await {
            Some(Update::Output { offset, data }) => break (offset, data),
            Some(Update::Snapshot { .. }) | None => panic!("the output comes first"),
            Some(_) => {}
        }
    };
    assert!(first.0 == 0 && first.1.starts_with(b"first"), "{first:?}");
    drop(attachment);
    let mut attachment = bench.attach(&session, control());
    assert!(matches!(next(&mut attachment).await, Some(Update::Snapshot { .. })));
}

#[tokio::test]
async fn who_is_revoked_is_sent_away_and_types_no_more() {
    let bench = bench();
    let revocation = splengine_core::auth::Revocation::new();
    let session = bench.start(script("cat; exit 3")).await;
    let mut own = bench.attach(&session, Attach::new(Access::Control));
    let revocable = bench.alice.clone().revocable(&revocation);
    let attach = Attach::new(Access::Control);
    let sessions = bench.engine.sessions();
    let mut other = sessions.attach(&revocable, &session.id, attach).expect("attaches");
    let input_handle = other.input_handle();
    input_handle.input(Bytes::from_static(b"typed\n")).await.expect("typed");
    // Until it waits for more.
    let waiting = tokio::spawn(async move {
        let mut last = None;
        while let Some(update) = other.next().await {
            last = Some(update);
        }
        last
    });
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("typed") {
        match timeout(Duration::from_secs(60), own.next()).await.expect("in time") {
            Some(Update::Output { data, .. } | Update::Snapshot { data, .. }) => seen.extend(data),
            Some(_) => {}
            None => panic!("over"),
        }
    }
    revocation.revoke();
    let last = timeout(Duration::from_secs(60), waiting).await.expect("in time").expect("no panic");
    assert_eq!(last, Some(Update::Closed(Closed::CredentialsRevoked)));
    let refused = input_handle.input(Bytes::from_static(b"more\n")).await;
    assert!(matches!(refused, Err(SessionError::Forbidden(_))), "{refused:?}");
    assert!(sessions.attach(&revocable, &session.id, Attach::new(Access::View)).is_err());
    own.input_handle().input(Bytes::from_static(b"\x04")).await.expect("it runs on");
}
