//! Commands without a terminal.

use std::time::Duration;

use russh::{Sig, client};
use tokio::time::sleep;

use crate::support::{Door, Running, Setup, gone};

#[tokio::test]
async fn a_command_tells_what_it_printed_and_how_it_ended() {
    let door = Door::open().await;
    let client = door.login().await;
    let ran = client.run("sh -c 'echo out; echo err >&2; exit 7'").await;
    assert_eq!(ran.told(), ("out\n", "err\n", "7"));
    assert_eq!(client.run("true").await.told(), ("", "", "0"));
    assert_eq!(client.run("sh -c 'exit 255'").await.told(), ("", "", "255"));
    assert_eq!(client.run("sh -c 'kill -TERM $$'").await.told(), ("", "", "TERM"));
    assert_eq!(client.run("sh -c 'kill -USR2 $$'").await.told(), ("", "", "Custom(\"USR2\")"));
    // No shell has had it before the program.
    let ran = client.run(r#"printf '%s|' 'a  b' $HOME "it's" * ';' a\ b"#).await;
    assert_eq!(ran.told().0, "a  b|$HOME|it's|*|;|a b|");
    let ran = client.run("sh -c 'printf \"\\377\\000\\r\\n\"'").await;
    assert_eq!(ran.stdout, b"\xff\0\r\n", "bytes stay what they are");
}

#[tokio::test]
async fn a_command_reads_what_its_client_sends() {
    let door = Door::open().await;
    let client = door.login().await;
    // Before the command is asked for, and after.
    let mut running = Running(client.channel().await);
    running.types("early ").await;
    running.0.exec(true, "cat").await.expect("sent");
    assert!(running.is_granted().await);
    running.types("late").await;
    running.0.eof().await.expect("sent");
    assert_eq!(running.ended().await.told(), ("early late", "", "0"));
    assert_eq!(client.run("cat").await.told(), ("", "", "0"));
}

#[tokio::test]
async fn what_can_not_run_is_said_in_words() {
    let door = Door::with(Setup { engine: |engine| engine.max_waiting(0), ..Setup::default() });
    let door = door.await;
    std::fs::write(door.root().join("data.txt"), "no program").expect("written");
    let client = door.login().await;
    for (command, code, words) in [
        (&b"no-such-program x"[..], "127", "no-such-program"),
        (b"./data.txt", "126", "data.txt"),
        (b"an 'open quote", "255", "quote"),
        (b"", "255", "there is no command to run"),
        (b"  \n ", "255", "there is no command to run"),
        // A line that goes on, and does not.
        (b"\\\n", "255", ""),
        (b"echo \xff", "255", "UTF-8"),
        (b"scp -t x", "255", "scp"),
    ] {
        let ran = client.run(command).await;
        let (stdout, stderr, exit) = ran.told();
        assert_eq!((stdout, exit), ("", code), "{stderr}");
        assert!(stderr.contains(words) && stderr.ends_with('\n'), "{stderr}");
        assert!(!stderr.contains('\r'), "{stderr}");
    }
    // Only one thing runs on a channel, and it can't be asked for another.
    let mut running = client.start("sh -c 'echo $$; exec sleep 1000'").await;
    let pid = running.line().await;
    for _ in 0..2 {
        running.0.exec(true, "echo again").await.expect("sent");
        assert!(!running.is_granted().await);
    }
    running.0.request_pty(true, "vt100", 80, 24, 0, 0, &[]).await.expect("sent");
    assert!(!running.is_granted().await);
    running.0.set_env(true, "LANG", "C").await.expect("sent");
    assert!(!running.is_granted().await);
    // It still ends with its channel.
    running.0.close().await.expect("sent");
    gone(&pid).await;
}

#[tokio::test]
async fn all_is_read_before_the_end_however_slowly() {
    let door = Door::open().await;
    let config = client::Config {
        window_size: 64 << 10,
        maximum_packet_size: 32 << 10,
        channel_buffer_size: 1,
        ..client::Config::default()
    };
    let mut client = door.connect_with(config).await;
    assert!(client.shows("alice", &door.key).await);
    let script = "head -c 8388608 /dev/zero; head -c 100000 /dev/zero >&2; echo end; exit 3";
    let mut running = client.start(format!("sh -c '{script}'")).await;
    let mut seen = Vec::new();
    // Slowly, and then all that is left.
    while seen.len() < 1 << 20 {
        if let Some(russh::ChannelMsg::Data { data }) = running.next().await {
            seen.extend_from_slice(&data);
        }
        sleep(Duration::from_millis(10)).await;
    }
    let rest = running.ended().await;
    seen.extend_from_slice(&rest.stdout);
    assert_eq!((seen.len(), rest.stderr.len()), (8_388_612, 100_000));
    assert!(seen.ends_with(b"\0end\n"));
    assert_eq!(rest.exit.as_deref(), Some("3"));
}

#[tokio::test]
async fn a_signal_reaches_the_whole_group() {
    let door = Door::open().await;
    let client = door.login().await;
    for (signal, name) in [(Sig::INT, "INT"), (Sig::USR1, "USR1"), (Sig::HUP, "HUP")] {
        // A shell and its child wait for it.
        let child = format!(
            "trap \\\"echo child; exit\\\" {name}; echo ready; while :; do sleep 0.01; done"
        );
        let script = format!("trap 'echo parent; exit 3' {name}; sh -c \"{child}\"; echo no");
        let mut running = client.start(["sh -c ", &quoted(&script)].concat()).await;
        running.shows("ready\n").await;
        running.0.signal(signal).await.expect("sent");
        let ran = running.ended().await;
        let (stdout, _, exit) = ran.told();
        assert_eq!((stdout, exit), ("child\nparent\n", "3"), "{name}");
    }
    let mut running = client.start("sh -c 'echo ready; exec sleep 1000'").await;
    running.shows("ready").await;
    // One that is not known does nothing.
    running.0.signal(Sig::Custom("NONE@nowhere".to_owned())).await.expect("sent");
    running.0.signal(Sig::KILL).await.expect("sent");
    assert_eq!(running.ended().await.told(), ("", "", "KILL"));
}

#[tokio::test]
async fn a_command_ends_with_its_channel_and_its_connection() {
    let door = Door::open().await;
    let client = door.login().await;
    let script = "sh -c 'sleep 1000 & echo $$ $!; wait'";
    let mut first = client.start(script).await;
    let mut second = client.start(script).await;
    let (of_first, of_second) = (first.line().await, second.line().await);
    first.0.close().await.expect("sent");
    for pid in of_first.split(' ') {
        gone(pid).await;
    }
    assert_eq!(client.run("echo others live").await.told().0, "others live\n");
    assert!(std::path::Path::new("/proc").join(of_second.split(' ').next().expect("two")).exists());
    // As by a cable that is pulled: nobody says goodbye.
    drop((first, second, client));
    for pid in of_second.split(' ') {
        gone(pid).await;
    }
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', r"'\''"))
}
