use std::os::unix::fs::{PermissionsExt as _, symlink};

use splengine_core::execute::{Program, SplitError, Stdin, split_words};
use splengine_core::ids::SessionId;
use splengine_core::local::{CgroupMode, Environment};
use splengine_core::session::SessionPolicy;
use splengine_core::{
    Caller, Engine, ErrorKind, ExecuteError, LocalExecutor, Request, Scope, SessionRequest,
};

use crate::support::*;

#[tokio::test]
async fn words_come_as_they_were_given() {
    let bench = bench();
    let request = Request::new(r#"printf '%s|' "a b" c\ d $HOME"#).args(["*", "", "e f", "'g'"]);
    assert_eq!(text(&bench.run(request).await.stdout), "a b|c d|$HOME|*||e f|'g'|");
}

#[tokio::test]
async fn the_words_of_an_argv_come_as_they_are() {
    let bench = bench();
    let words = ["printf", "%s|", "it's", "a; b", "$(c)", "", "d\ne"];
    let run = bench.run(Request::argv(words).arg("\"f\"")).await;
    assert_eq!(text(&run.stdout), "it's|a; b|$(c)||d\ne|\"f\"|");
    // The first word is the program, whatever is in it.
    let script = bench.root.path().join("a 'script'");
    std::fs::write(&script, "#!/bin/sh\necho $#").expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("set");
    assert_eq!(text(&bench.run(Request::argv([&script])).await.stdout), "0\n");
    for empty in [Request::argv([""; 0]), Request::argv([""])] {
        assert_eq!(bench.refusal(empty).await.kind(), ErrorKind::Malformed);
    }
}

#[tokio::test]
async fn operators_of_a_shell_are_refused_and_nothing_runs() {
    let bench = bench();
    let kept = bench.root.path().join("kept");
    std::fs::write(&kept, "").expect("written");
    for (command, operator) in [
        ("rm -f kept; true", "`;`"),
        ("rm -f kept && true", "`&`"),
        ("rm -f kept | cat", "`|`"),
        ("rm -f kept > /dev/null", "`>`"),
        ("rm -f kept < /dev/null", "`<`"),
        ("rm -f kept `true`", "a backtick"),
        ("rm -f kept $(true)", "`$(`"),
        ("rm -f kept\ntrue", "a line end"),
    ] {
        let refusal = bench.refusal(Request::new(command)).await;
        assert_eq!(refusal.kind(), ErrorKind::Malformed, "{command}");
        let words = refusal.to_string();
        assert!(words.contains(operator) && words.contains("sh -c"), "{words}");
    }
    assert!(kept.exists(), "nothing ran");
    let run = bench.run(Request::new("exec printf '%s|' 'a; b' \\> ").args(["c & d"])).await;
    assert_eq!(text(&run.stdout), "a; b|>|c & d|");
}

#[tokio::test]
async fn a_shell_runs_commands_where_that_is_allowed() {
    let script = || Request::new("printf '%s|' a 'b c'; echo \"$SPL_SESSION_ID\" | cut -c1-4");
    let refusal = bench().refusal(script().use_shell(true)).await;
    assert_eq!(refusal.kind(), ErrorKind::Impossible);
    assert!(refusal.to_string().contains("`shell`"), "{refusal}");

    let bench = bench_with(CgroupMode::Auto, |builder| {
        builder.shell_commands(true).program(Program::at("/no/such/program"))
    });
    let run = bench.run(script().use_shell(true)).await;
    assert_eq!(text(&run.stdout), "a|b c|spl-\n");
    let run = bench.run(Request::new("printf '%s|'").args(["$HOME", "x; y"]).use_shell(true)).await;
    assert_eq!(text(&run.stdout), "$HOME|x; y|");
    // Who does not ask for one gets none, nor who may not have one.
    assert_eq!(bench.refusal(script()).await.kind(), ErrorKind::Malformed);
    let alice = Caller::new("alice").expect("a name").with(Scope::Execute);
    assert!(!bench.engine.may_use_shell(&alice));
    let refused = bench.engine.execute(&alice, script().use_shell(true)).await;
    assert_eq!(refused.expect_err("refused").kind(), ErrorKind::Forbidden);
    for command in ["", " ", "a\0b"] {
        let refusal = bench.refusal(Request::new(command).use_shell(true)).await;
        assert_eq!(refusal.kind(), ErrorKind::Malformed, "{command:?}");
    }
}

#[tokio::test]
async fn ten_thousand_arguments_pass() {
    let bench = bench();
    let request = sh("echo $#").args((0..=10_000).map(|i| i.to_string()));
    assert_eq!(text(&bench.run(request).await.stdout), "10000\n");
}

#[tokio::test]
async fn more_than_the_host_can_take_is_refused() {
    let bench = bench();
    let refusal = bench.refusal(Request::new("true").arg("x".repeat(3 << 20))).await;
    assert_eq!(refusal.kind(), ErrorKind::Impossible);
    assert!(refusal.to_string().contains("`args`"), "{refusal}");
}

#[tokio::test]
async fn a_program_sees_only_what_it_is_given() {
    let root = tempfile::tempdir().expect("a directory");
    let executor = LocalExecutor::builder(root.path())
        .environment(Environment::minimal().set("GIVEN", "by the host").set("BOTH", "host"))
        .build()
        .expect("set up");
    let engine = Engine::builder(executor).build().expect("built");
    let request = Request::new("env").env("ASKED", "for").env("BOTH", "request");
    let run = engine.execute(&caller("alice"), request).await.expect("starts");
    let session_id = run.session_id().to_string();
    let captured = run.capture().await;
    let mut lines: Vec<&str> = text(&captured.stdout).lines().collect();
    lines.sort_unstable();
    let session = format!("SPL_SESSION_ID={session_id}");
    assert_eq!(
        lines,
        [
            "ASKED=for",
            "BOTH=request",
            "GIVEN=by the host",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            &session
        ]
    );
    let id: SessionId = session_id.parse().expect("well-formed");
    assert!(id.as_str().starts_with("spl-alice-"));
}

#[tokio::test]
async fn a_request_sets_only_the_variables_that_it_may() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder.request_env(["APP_*", "LANG"]));
    assert!(bench.run(sh("true").env("APP_X", "1").env("LANG", "C")).await.end.success());
    let refusal = bench.refusal(sh("true").env("LD_PRELOAD", "x.so")).await;
    assert_eq!(refusal.kind(), ErrorKind::Impossible);
    assert!(refusal.to_string().contains("LD_PRELOAD"), "{refusal}");
}

#[tokio::test]
async fn the_process_begins_clean() {
    // Whatever this test's process ignores, has blocked, or has open without O_CLOEXEC.
    use rustix::fs::{Mode, OFlags, open};
    let _open = open("/dev/null", OFlags::RDONLY, Mode::empty()).expect("opened");
    let bench = bench();
    // 0, 1, 2 and what ls itself opens.
    let files = bench.run(Request::new("ls /proc/self/fd")).await;
    assert_eq!(text(&files.stdout), "0\n1\n2\n3\n");
    // Of the program itself: a shell blocks signals for a moment while it starts one.
    let signals = bench.run(Request::new("grep -E 'Sig(Blk|Ign)' /proc/self/status")).await;
    let lines: Vec<&str> = text(&signals.stdout).lines().collect();
    assert_eq!(lines, ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000"]);
    // And it leads a session and a group of its own.
    let ids = bench
        .run(sh("read -r pid name state ppid group session rest < /proc/self/stat; \
                            echo $pid $group $session"))
        .await;
    let ids: Vec<&str> = text(&ids.stdout).split_whitespace().collect();
    assert!(ids.len() == 3 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn it_runs_where_it_is_told_below_root() {
    for mode in [CgroupMode::Off, CgroupMode::Auto] {
        let bench = bench_with(mode, |builder| builder);
        let root = bench.root.path().canonicalize().expect("there");
        std::fs::create_dir_all(root.join("runtime/kafka-session")).expect("made");
        std::fs::create_dir_all(root.join("tmp")).expect("made");
        symlink("/tmp", root.join("out")).expect("made");
        let own = root.join("runtime/kafka-session");
        for (workdir, below) in [
            (None, ""),
            (Some("runtime/kafka-session"), "runtime/kafka-session"),
            (Some("/runtime/kafka-session"), "runtime/kafka-session"),
            (Some(own.to_str().expect("text")), "runtime/kafka-session"),
            // Below root, not the host's own.
            (Some("/tmp"), "tmp"),
        ] {
            let mut request = Request::new("pwd -P");
            if let Some(workdir) = workdir {
                request = request.workdir(workdir);
            }
            let captured = bench.run(request).await;
            let expected = root.join(below);
            assert_eq!(
                text(&captured.stdout).trim_end(),
                expected.to_str().expect("text").trim_end_matches('/')
            );
        }
        for workdir in ["..", "/etc", "runtime/../../x", "out", "missing", "/../etc"] {
            let refusal = bench.refusal(Request::new("pwd").workdir(workdir)).await;
            assert_eq!(refusal.kind(), ErrorKind::Impossible, "{workdir}");
            assert!(refusal.to_string().contains("workdir"), "{refusal}");
        }
    }
}

#[tokio::test]
async fn programs_that_cannot_run_are_named() {
    let bench = bench();
    let file = |name: &str, text: &str, mode: u32| {
        let path = bench.root.path().join(name);
        // By another process: what is started here at this moment, by another test, would have it
        // open for writing as well, and then it can't be run.
        let script = "printf %s \"$2\" >\"$1\"";
        let mut writer = std::process::Command::new("sh");
        writer.args(["-c", script, "sh"]).arg(&path).arg(text);
        assert!(writer.status().expect("starts").success());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    };
    file("plain", "x", 0o644);
    file("headless", "echo never a shell\n", 0o755);
    file("nowhere", "#!/no/such/interpreter\n", 0o755);
    file("script", "#!/bin/sh\necho ran\n", 0o755);
    for (program, why) in [
        ("no-such-program", "was not found"),
        ("./missing", "was not found"),
        ("/", "not a file"),
        ("./plain", "not executable"),
        ("./headless", "#!"),
        ("./nowhere", "interpreter"),
    ] {
        let refusal = bench.refusal(Request::new(program)).await;
        assert_eq!(refusal.kind(), ErrorKind::Impossible, "{program}");
        let text = refusal.to_string();
        assert!(text.contains(program) && text.contains(why), "{text}");
    }
    assert_eq!(text(&bench.run(Request::new("./script")).await.stdout), "ran\n");
    assert_eq!(bench.engine.stats().running, 0);
}

#[tokio::test]
async fn what_is_never_right_is_malformed() {
    let bench = bench();
    for (request, culprit) in [
        (Request::new(""), "command"),
        (Request::new("   "), "command"),
        (Request::new("echo 'a"), "single quote"),
        (Request::new("echo").arg("a\0b"), "args"),
        (Request::new("echo\0"), "args"),
        (Request::new("echo").env("", "x"), "env"),
        (Request::new("echo").env("A=B", "x"), "env"),
        (Request::new("echo").env("A", "x\0"), "env"),
        (Request::new("echo").env("SPL_SESSION_ID", "x"), "SPL_SESSION_ID"),
    ] {
        let refusal = bench.refusal(request).await;
        assert_eq!(refusal.kind(), ErrorKind::Malformed, "{refusal}");
        assert!(refusal.to_string().contains(culprit), "{refusal}");
    }
    let refusal = bench.refusal(Request::new("echo").session_id("spl-alice-x")).await;
    assert_eq!(refusal.kind(), ErrorKind::NotFound);
    assert!(refusal.to_string().contains("spl-alice-x"));
}

#[tokio::test]
async fn more_of_a_kind_than_a_request_may_bring_is_refused() {
    let bench = bench();
    let request = || Request::new("true");
    let args = |count| vec![""; count];
    let with_env = |count| (0..count).fold(request(), |it, n| it.env(format!("V{n}"), ""));
    let masked = |count: usize| {
        let names = (0..count).map(|n| format!("V{n}"));
        names.fold(with_env(count), |it, name| it.mask(name))
    };
    for (request, field) in [
        (request().args(args(Request::MAX_ARGS + 1)), "`args` has 131073 elements"),
        (with_env(Request::MAX_VARIABLES + 1), "`env` has 16385 elements"),
        (masked(Request::MAX_MASKED_VARIABLES + 1), "`mask` has 65 elements"),
    ] {
        let refusal = bench.refusal(request).await;
        assert_eq!(refusal.kind(), ErrorKind::Impossible, "{refusal}");
        assert!(refusal.to_string().starts_with(field), "{refusal}");
    }
    let words = |count| "a ".repeat(count);
    let refusal = bench.refusal(Request::new(words(Request::MAX_ARGS + 1))).await;
    assert!(matches!(refusal, ExecuteError::Split(SplitError::TooManyWords)), "{refusal}");
    assert!(split_words(&(words(Request::MAX_ARGS) + "  ")).is_ok());
    bench.run(masked(Request::MAX_MASKED_VARIABLES)).await;

    let session = SessionRequest::new().command("true");
    let session = args(Request::MAX_ARGS + 1).into_iter().fold(session, SessionRequest::arg);
    let refusal = bench.engine.sessions().create(&caller("alice"), session).await;
    let refusal = refusal.expect_err("refused");
    assert!(refusal.to_string().contains("`args` has 131073 elements"), "{refusal}");
}

#[tokio::test]
async fn a_program_is_looked_for_in_so_many_directories_only() {
    let bench = bench();
    let path = |count| "/none:".repeat(count) + "/bin:/usr/bin";
    let refusal = bench.refusal(Request::new("sh").env("PATH", path(1024))).await;
    assert_eq!(refusal.kind(), ErrorKind::Impossible);
    assert!(
        refusal.to_string().starts_with("`env` has a `PATH` whose first 1024 entries"),
        "{refusal}"
    );
    let captured = bench.run(sh("/bin/echo found").env("PATH", path(1023))).await;
    assert_eq!(text(&captured.stdout), "found\n");
    // Entries that are not looked at count as well.
    let refusal = bench.refusal(Request::new("sh").env("PATH", "relative:".repeat(1025))).await;
    assert_eq!(refusal.kind(), ErrorKind::Impossible, "{refusal}");
}

#[tokio::test]
async fn a_program_gets_every_command() {
    let program = Program::at("echo").refuse_arguments(["@@", "\n"]);
    let bench = bench_with(CgroupMode::Auto, |builder| builder.program(program));
    let captured = bench.run(Request::new("data transform").arg("--input=a.csv")).await;
    assert_eq!(text(&captured.stdout), "data transform --input=a.csv\n");
    for word in ["hi @@ there", "a\nb"] {
        let refusal = bench.refusal(Request::new("console log").arg(word)).await;
        assert_eq!(refusal.kind(), ErrorKind::Impossible);
    }
}

#[tokio::test]
async fn rights_are_checked() {
    let bench = bench();
    let nobody = Caller::new("bob").expect("a user name");
    let refusal = bench.engine.execute(&nobody, sh("true")).await.expect_err("refused");
    assert_eq!(refusal.kind(), ErrorKind::Forbidden);
    assert_eq!(refusal.to_string(), "`bob` lacks the scope `execute`");
    let allowed = nobody.with(Scope::Execute);
    assert!(bench.engine.execute(&allowed, sh("true")).await.is_ok());
}

#[tokio::test]
async fn the_shell_reads_commands_without_a_terminal() {
    let policy = SessionPolicy::new().shell(["/bin/sh"]);
    let bench = bench_with(CgroupMode::Auto, |builder| {
        builder.sessions(policy).program(Program::at("/bin/echo"))
    });
    let script = Stdin::bytes("echo $((1 + 2)); pwd; exit 5\n");
    let captured = bench.run(Request::shell().stdin(script)).await;
    let root = bench.root.path().canonicalize().expect("there");
    assert_eq!(text(&captured.stdout), format!("3\n{}\n", root.display()));
    assert_eq!(captured.end.exit_code, 5);

    let alice = Caller::new("alice").expect("a user name").with(Scope::Execute);
    let refused = bench.engine.execute(&alice, Request::shell()).await.expect_err("refused");
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
}

#[tokio::test]
async fn an_engine_tells_which_variables_it_takes() {
    let bench = bench_with(CgroupMode::Auto, |builder| builder.request_env(["LANG", "LC_*"]));
    let takes = |name: &str| bench.engine.accepts_env(name);
    assert!(takes("LANG") && takes("LC_ALL"));
    assert!(!takes("PATH") && !takes("SPL_SESSION_ID") && !takes("A=B") && !takes(""));
}
