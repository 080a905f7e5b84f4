use std::ffi::OsStr;
use std::fs;
use std::future::poll_fn;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use splengine_core::files::{FileEvent, FilePolicy, FileWatch, SetAttributes};
use splengine_core::{Caller, ErrorKind, FileError, Scope};
use tokio::time::timeout;

use crate::files::{self, Bench};
use crate::support::caller;

fn bench() -> Bench {
    bench_with(|policy| policy)
}

/// As of the tests of files; `data` in there is what most tests watch.
fn bench_with(configure: impl FnOnce(FilePolicy) -> FilePolicy) -> Bench {
    let bench = files::bench_with(configure);
    fs::write(bench.root("data/old"), "content").expect("made");
    bench
}

impl Bench {
    fn outside(&self, below: &str) -> PathBuf {
        self.base.path().join("outside").join(below)
    }

    async fn watch(&self, at: &str) -> FileWatch {
        self.files.watch(&self.alice, Path::new(at)).await.expect("watched")
    }

    fn write(&self, below: &str) {
        fs::write(self.root(below), "more").expect("written");
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.root(from), self.root(to)).expect("renamed");
    }
}

async fn next(watch: &mut FileWatch) -> Option<FileEvent> {
    timeout(Duration::from_secs(60), watch.next()).await.expect("told in time")
}

/// All that is told until a file is made now in the directory that is watched.
async fn told(watch: &mut FileWatch, directory: PathBuf) -> Vec<String> {
    fs::write(directory.join("end"), "").expect("made");
    let mut all = Vec::new();
    loop {
        let event = shown(next(watch).await.expect("more"));
        if event == "+end" {
            fs::remove_file(directory.join("end")).expect("removed");
            assert_eq!(next(watch).await.map(shown).as_deref(), Some("-end"));
            return all;
        }
        all.push(event);
    }
}

fn shown(event: FileEvent) -> String {
    match event {
        FileEvent::Created { name, is_directory: false } => format!("+{}", name.display()),
        FileEvent::Created { name, is_directory: true } => format!("+{}/", name.display()),
        FileEvent::Modified { name } => format!("={}", name.display()),
        FileEvent::Removed { name } => format!("-{}", name.display()),
        FileEvent::Renamed { from, to } => format!("{}>{}", from.display(), to.display()),
        other => format!("{other:?}"),
    }
}

/// Polls `next` once and drops it.
async fn next_that_is_dropped(watch: &mut FileWatch) -> Option<FileEvent> {
    let mut next = pin!(watch.next());
    poll_fn(|cx| match next.as_mut().poll(cx) {
        Poll::Ready(event) => Poll::Ready(event),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

#[tokio::test]
async fn what_happens_in_a_directory_is_told() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let mut watch = bench.watch("data").await;
    bench.write("data/new");
    files.make_directory(alice, Path::new("data/sub"), None).await.expect("made");
    bench.write("data/old");
    files.remove_directory(alice, Path::new("data/sub")).await.expect("removed");
    files.remove_file(alice, Path::new("data/new")).await.expect("removed");
    let mode = SetAttributes::new().mode(0o700);
    files.set(alice, Path::new("data/deep"), mode).await.expect("set");
    let wanted = ["+new", "+sub/", "=old", "-sub", "-new", "=deep"];
    assert_eq!(told(&mut watch, bench.root("data")).await, wanted);

    // Only of this directory.
    bench.write("data/deep/file");
    bench.write("beside");
    files.set(alice, Path::new("data"), SetAttributes::new().mode(0o700)).await.expect("set");
    assert!(told(&mut watch, bench.root("data")).await.is_empty());
}

#[tokio::test]
async fn a_reader_that_waits_is_woken() {
    let bench = bench();
    let mut watch = bench.watch("/data/").await;
    let make = async {
        tokio::task::yield_now().await;
        bench.write("data/new");
    };
    let (event, ()) = tokio::join!(next(&mut watch), make);
    assert_eq!(event.map(shown).as_deref(), Some("+new"));
}

#[tokio::test]
async fn changes_of_a_name_are_told_once_until_they_are_read() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    for _ in 0..2 {
        for _ in 0..100 {
            bench.write("data/old");
            bench.write("data/other");
        }
        let all = told(&mut watch, bench.root("data")).await;
        assert_eq!(all, ["=old", "+other"]);
        fs::remove_file(bench.root("data/other")).expect("removed");
        assert_eq!(told(&mut watch, bench.root("data")).await, ["-other"]);
    }
}

#[tokio::test]
async fn a_rename_is_told_as_far_as_it_is_in_the_directory() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    bench.rename("data/old", "data/newer");
    let (from, to) = (Path::new("data/newer"), Path::new("data/newest"));
    bench.files.rename(&bench.alice, from, to, false).await.expect("renamed");
    bench.rename("data/deep", "data/deeper");
    assert_eq!(
        told(&mut watch, bench.root("data")).await,
        ["old>newer", "newer>newest", "deep>deeper"]
    );

    // In place of another, which is not told of.
    bench.write("data/other");
    bench.rename("data/newest", "data/other");
    assert_eq!(told(&mut watch, bench.root("data")).await, ["+other", "newest>other"]);

    // Out and in again, with nothing after it that would tell that there is no other half.
    fs::rename(bench.root("data/other"), bench.outside("other")).expect("renamed");
    assert_eq!(next(&mut watch).await.map(shown).as_deref(), Some("-other"));
    fs::rename(bench.outside("other"), bench.root("data/other")).expect("renamed");
    assert_eq!(next(&mut watch).await.map(shown).as_deref(), Some("+other"));
    bench.rename("data/deeper", "deeper");
    bench.rename("deeper", "data/deep");
    assert_eq!(told(&mut watch, bench.root("data")).await, ["-deeper", "+deep/"]);
}

#[tokio::test]
async fn a_file_that_is_replaced_is_told_as_created() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    for file in ["old", "new"] {
        let path = Path::new("data").join(file);
        let written = bench.files.replace(&bench.alice, &path, &b"content"[..]).await;
        written.expect("written");
    }
    let mut all = told(&mut watch, bench.root("data")).await;
    // That the old one may be written was tried.
    all.retain(|event| event != "=old");
    assert_eq!(all, ["+old", "+new"]);

    // One that is not finished was never there.
    let broken = broken_off();
    let refused = bench.files.replace(&bench.alice, Path::new("data/old"), broken).await;
    assert!(matches!(refused, Err(FileError::Content(_))));
    let mut all = told(&mut watch, bench.root("data")).await;
    all.retain(|event| event != "=old");
    assert!(all.is_empty(), "{all:?}");
}

/// Content that breaks off.
fn broken_off() -> impl tokio::io::AsyncRead + Send {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> Poll<std::io::Result<()>> {
            Poll::Ready(Err(std::io::ErrorKind::ConnectionReset.into()))
        }
    }
    Broken
}

#[tokio::test]
async fn what_is_hidden_is_not_told_of() {
    let bench = bench();
    let mut watch = bench.watch("/").await;
    bench.write("runtime/file");
    let temporary = format!(".splengine-{}", "a".repeat(26));
    bench.write(&temporary);
    bench.rename("data/old", "from-below");
    bench.rename("from-below", &temporary);
    bench.rename(&temporary, "shown");
    assert_eq!(told(&mut watch, bench.root("")).await, ["+from-below", "-from-below", "+shown"]);

    // A hidden directory under another name, given to it by a program, and one in its place.
    bench.rename("runtime", "elsewhere");
    fs::create_dir(bench.root("another")).expect("made");
    bench.rename("another", "runtime");
    assert_eq!(told(&mut watch, bench.root("")).await, ["+another/", "-another"]);
}

#[tokio::test]
async fn a_name_is_bytes() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    let name = OsStr::from_bytes(b"\xff\xfe");
    fs::create_dir(bench.root("data").join(name)).expect("made");
    let wanted = FileEvent::Created { name: name.to_owned(), is_directory: true };
    assert_eq!(next(&mut watch).await, Some(wanted));
    let longest = "x".repeat(255);
    bench.write(&format!("data/{longest}"));
    assert_eq!(next(&mut watch).await.map(shown), Some(format!("+{longest}")));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_list_anew() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    for number in 0..FileWatch::MAX_PENDING - 1 {
        bench.write(&format!("data/{number}"));
    }
    assert_eq!(told(&mut watch, bench.root("data")).await.len(), FileWatch::MAX_PENDING - 1);

    for number in 0..=FileWatch::MAX_PENDING {
        bench.write(&format!("data/again-{number}"));
    }
    assert_eq!(next(&mut watch).await, Some(FileEvent::Overflow));
    assert!(told(&mut watch, bench.root("data")).await.is_empty());
}

#[tokio::test]
async fn the_end_of_the_directory_is_told_last() {
    let bench = bench();
    bench.write("data/deep/file");
    let mut deep = bench.watch("data/deep").await;
    fs::remove_file(bench.root("data/deep/file")).expect("removed");
    let removed = bench.files.remove_directory(&bench.alice, Path::new("data/deep")).await;
    removed.expect("removed");
    for wanted in [Some("-file"), Some("Gone"), None, None] {
        assert_eq!(next(&mut deep).await.map(shown).as_deref(), wanted);
    }

    let mut data = bench.watch("data").await;
    bench.write("data/file");
    bench.rename("data", "moved");
    bench.write("moved/later");
    for wanted in [Some("+file"), Some("Gone"), None, None] {
        assert_eq!(next(&mut data).await.map(shown).as_deref(), wanted);
    }
}

#[tokio::test]
async fn the_end_is_told_after_an_overflow_too() {
    let bench = bench();
    let mut watch = bench.watch("data/deep").await;
    for number in 0..=FileWatch::MAX_PENDING {
        bench.write(&format!("data/deep/{number}"));
    }
    fs::remove_dir_all(bench.root("data/deep")).expect("removed");
    for wanted in [Some("Overflow"), Some("Gone"), None] {
        assert_eq!(next(&mut watch).await.map(shown).as_deref(), wanted);
    }
}

#[tokio::test]
async fn a_next_that_is_dropped_loses_nothing() {
    let bench = bench();
    let mut watch = bench.watch("/").await;
    let mut all = Vec::new();
    for number in 0..200 {
        // Of directories, since those are looked at while `next` waits.
        fs::create_dir(bench.root(&number.to_string())).expect("made");
        all.extend(next_that_is_dropped(&mut watch).await);
        tokio::task::yield_now().await;
        all.extend(next_that_is_dropped(&mut watch).await);
    }
    while all.len() < 200 {
        all.push(next(&mut watch).await.expect("more"));
    }
    let wanted: Vec<_> = (0..200).map(|number| format!("+{number}/")).collect();
    assert_eq!(all.into_iter().map(shown).collect::<Vec<_>>(), wanted);

    // Nor one that waits for the other half of a rename.
    fs::rename(bench.root("0"), bench.outside("0")).expect("renamed");
    let impatient = timeout(Duration::from_millis(2), watch.next()).await;
    let event = match impatient {
        Ok(event) => event,
        Err(_) => next(&mut watch).await,
    };
    assert_eq!(event.map(shown).as_deref(), Some("-0"));
}

#[tokio::test]
async fn only_a_directory_that_may_be_listed_is_watched() {
    let bench = bench();
    std::os::unix::fs::symlink("../outside", bench.root("out")).expect("made");
    for at in ["data/old", "data/none", "runtime", "out", "..", "data/old/", "a\0b"] {
        let listed = bench.files.list(&bench.alice, Path::new(at)).await.err();
        let watched = bench.files.watch(&bench.alice, Path::new(at)).await.err();
        let text = |error: Option<FileError>| error.expect("refused").to_string();
        assert_eq!(text(watched), text(listed), "{at:?}");
    }
    let bob = Caller::new("bob").expect("a name").with(Scope::Execute);
    let refused = bench.files.watch(&bob, Path::new("data")).await.err();
    assert_eq!(refused.map(|error| error.kind()), Some(ErrorKind::Forbidden));
    assert!(bench.files.watch(&bob.with(Scope::Files), Path::new("data")).await.is_ok());
}

#[tokio::test]
async fn watches_are_counted() {
    let bench = bench_with(|policy| policy.max_watches(2));
    let data = Path::new("data");
    let refusal = async |user: &str| {
        let refused = bench.files.watch(&caller(user), data).await.err();
        refused.map(|error| error.kind())
    };
    for _ in 0..3 {
        let gone = bench.files.watch(&bench.alice, Path::new("none")).await.err();
        assert_eq!(gone.map(|error| error.kind()), Some(ErrorKind::NotFound));
    }
    let first = bench.watch("data").await;
    assert_eq!(refusal("alice").await, Some(ErrorKind::CallerLimit));
    let second = bench.files.watch(&caller("bob"), data).await.expect("watched");
    assert_eq!(refusal("carol").await, Some(ErrorKind::Unavailable));
    drop(first);
    assert_eq!(refusal("alice").await, None);
    drop(second);
}

#[tokio::test]
async fn a_watch_may_be_read_by_another_task() {
    let bench = bench();
    let mut watch = bench.watch("data").await;
    let reader = tokio::spawn(async move { next(&mut watch).await });
    bench.write("data/new");
    assert_eq!(reader.await.expect("read").map(shown).as_deref(), Some("+new"));
}
