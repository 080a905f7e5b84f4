use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use splengine_core::engine::BuildError;
use splengine_core::files::{
    FileKind, FileListing, FilePolicy, OpenFile, OpenOptions, SetAttributes,
};
use splengine_core::{Caller, Engine, ErrorKind, FileError, Files, LocalExecutor, Scope};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::support::caller;

pub(crate) struct Bench {
    pub(crate) files: Files,
    pub(crate) alice: Caller,
    /// Holds root, and beside it what must not be reached.
    pub(crate) base: TempDir,
}

pub(crate) fn bench() -> Bench {
    bench_with(|policy| policy)
}

/// Files below `root`, without its `runtime`; `outside` is beside root.
pub(crate) fn bench_with(configure: impl FnOnce(FilePolicy) -> FilePolicy) -> Bench {
    let base = tempfile::tempdir().expect("a directory");
    let root = base.path().join("root");
    for directory in ["root/data/deep", "root/runtime/sessions", "outside"] {
        fs::create_dir_all(base.path().join(directory)).expect("made");
    }
    fs::write(root.join("data/a"), "content").expect("made");
    fs::write(root.join("runtime/sessions/secret"), "secret").expect("made");
    fs::write(base.path().join("outside/secret"), "secret").expect("made");
    let policy = FilePolicy::new().hide("runtime");
    let engine = Engine::builder(LocalExecutor::new(&root).expect("set up"))
        .files(configure(policy))
        .build()
        .expect("built");
    Bench { files: engine.files(), alice: caller("alice"), base }
}

pub(crate) fn path(text: &str) -> &Path {
    Path::new(text)
}

fn read() -> OpenOptions {
    OpenOptions::new().read()
}

fn write() -> OpenOptions {
    OpenOptions::new().write()
}

impl Bench {
    pub(crate) fn root(&self, below: &str) -> PathBuf {
        self.base.path().join("root").join(below)
    }

    pub(crate) fn content(&self, below: &str) -> String {
        fs::read_to_string(self.root(below)).expect("a file")
    }

    pub(crate) fn mode(&self, below: &str) -> u32 {
        fs::metadata(self.root(below)).expect("is there").permissions().mode() & 0o7777
    }

    async fn open(&self, at: &str, options: OpenOptions) -> Result<OpenFile, FileError> {
        self.files.open(&self.alice, path(at), options).await
    }

    async fn names(&self, at: &str) -> HashSet<String> {
        let listing = self.files.list(&self.alice, path(at)).await.expect("a directory");
        all(&listing).await.into_iter().collect()
    }

    /// What each way to touch a path says of it.
    async fn every_refusal(&self, at: &str) -> Vec<(&'static str, Option<FileError>)> {
        let (files, alice, at) = (&self.files, &self.alice, path(at));
        let data = &b"x"[..];
        let all = vec![
            ("stat", files.stat(alice, at).await.err()),
            ("read", files.open(alice, at, read()).await.err()),
            ("write", files.open(alice, at, write()).await.err()),
            ("create", files.open(alice, at, write().create().truncate()).await.err()),
            ("append", files.open(alice, at, OpenOptions::new().append().create()).await.err()),
            ("list", files.list(alice, at).await.err()),
            ("set", files.set(alice, at, SetAttributes::new().mode(0o600).size(0)).await.err()),
            ("space", files.space(alice, at).await.err()),
            ("replace", files.replace(alice, at, data).await.err()),
        ];
        all
    }

    /// The same for those that take a link itself.
    async fn every_refusal_of_the_name(&self, at: &str) -> Vec<(&'static str, Option<FileError>)> {
        let (files, alice, at) = (&self.files, &self.alice, path(at));
        let other = path("data/other");
        let mut all = self.every_refusal(at.to_str().expect("text")).await;
        all.extend([
            ("stat_link", files.stat_link(alice, at).await.err()),
            ("read_link", files.read_link(alice, at).await.err()),
            ("create_new", files.open(alice, at, write().create_new()).await.err()),
            ("make_directory", files.make_directory(alice, at, None).await.err()),
            ("remove_file", files.remove_file(alice, at).await.err()),
            ("remove_directory", files.remove_directory(alice, at).await.err()),
            ("rename from", files.rename(alice, at, other, true).await.err()),
            ("rename to", files.rename(alice, path("data/a"), at, true).await.err()),
            ("rename to new", files.rename(alice, path("data/a"), at, false).await.err()),
            ("symlink", files.symlink(alice, path("a"), at).await.err()),
            ("set_link", files.set_link(alice, at, SetAttributes::new().mode(0)).await.err()),
        ]);
        assert!(!self.root("data/other").exists(), "{at:?}");
        all
    }

    fn nothing_was_touched(&self) {
        for secret in ["outside/secret", "root/runtime/sessions/secret"] {
            let secret = self.base.path().join(secret);
            assert_eq!(fs::read_to_string(&secret).expect("is there"), "secret");
            assert_ne!(
                fs::metadata(&secret).expect("is there").permissions().mode() & 0o777,
                0o600
            );
        }
        let count = |at: &str| fs::read_dir(self.base.path().join(at)).expect("read").count();
        assert_eq!(count("outside"), 1);
        assert_eq!(count("root/runtime"), 1);
        assert_eq!(count("root/runtime/sessions"), 1);
        assert_eq!(self.content("data/a"), "content");
    }
}

async fn all(listing: &FileListing) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let batch = listing.next().await.expect("entries");
        if batch.is_empty() {
            return names;
        }
        assert!(batch.len() <= FileListing::MAX_BATCH);
        names.extend(batch.into_iter().map(|entry| entry.name.into_string().expect("text")));
    }
}

fn assert_kind<T: std::fmt::Debug>(result: Result<T, FileError>, kind: ErrorKind) -> String {
    let error = result.expect_err("refused");
    assert_eq!(error.kind(), kind, "{error}");
    error.to_string()
}

#[tokio::test]
async fn a_file_is_written_and_read() {
    let bench = bench();
    let file = bench.open("/data/new", write().read().create().mode(0o4640)).await.expect("made");
    file.write_at(3, Bytes::from_static(b"def")).await.expect("written");
    file.write_at(0, Bytes::from_static(b"abc")).await.expect("written");
    file.sync().await.expect("on the disk");
    assert_eq!(file.read_at(1, 4).await.expect("read"), "bcde");
    assert_eq!(file.read_at(4, 100).await.expect("read"), "ef");
    for beyond in [6, 7, i64::MAX as u64, u64::MAX] {
        assert!(file.read_at(beyond, 1).await.expect("read").is_empty());
    }
    let info = file.info().await.expect("known");
    assert_eq!((info.kind, info.size, info.links), (FileKind::File, 6, 1));
    assert_eq!(info.mode & 0o7000, 0);
    assert_eq!(info, bench.files.stat(&bench.alice, path("data/new")).await.expect("known"));
    assert!(file.space().await.expect("known").block_size > 0);

    let more = bench.open("data/new", OpenOptions::new().append()).await.expect("opened");
    more.write_at(0, Bytes::from_static(b"ghi")).await.expect("written");
    assert_eq!(bench.content("data/new"), "abcdefghi");
    assert_kind(more.read_at(0, 1).await, ErrorKind::Forbidden);

    let reader = bench.open("data/new", read()).await.expect("opened");
    assert_kind(reader.write_at(0, Bytes::from_static(b"x")).await, ErrorKind::Forbidden);
    assert_kind(reader.set(SetAttributes::new().size(0)).await, ErrorKind::Forbidden);
    drop(bench.open("data/new", write().truncate()).await.expect("opened"));
    assert_eq!(bench.content("data/new"), "");

    assert_kind(bench.open("data/new", write().create_new()).await, ErrorKind::Conflict);
    assert_kind(bench.open("data/none", write()).await, ErrorKind::NotFound);
    assert_kind(bench.open("data/none/x", write().create()).await, ErrorKind::NotFound);
    assert_kind(bench.open("data/a/x", write().create()).await, ErrorKind::Conflict);
    assert_kind(bench.open("data", read()).await, ErrorKind::Conflict);
    assert_kind(bench.open("data/a", OpenOptions::new()).await, ErrorKind::Malformed);
    assert_kind(bench.open("data/a", read().truncate()).await, ErrorKind::Malformed);
}

#[tokio::test]
async fn one_read_is_bounded_and_many_are_done_at_once() {
    let bench = bench();
    let content: Vec<u8> = (0..3_000_000u32).map(|number| (number / 7) as u8).collect();
    fs::write(bench.root("data/large"), &content).expect("written");
    let file = bench.open("data/large", read()).await.expect("opened");
    let whole = file.read_at(0, usize::MAX).await.expect("read");
    assert_eq!(whole.len(), OpenFile::MAX_READ);
    let reads: Vec<_> = (0..40)
        .map(|number| {
            let file = file.clone();
            tokio::spawn(async move { file.read_at(number * 75_000, 75_000).await })
        })
        .collect();
    let mut read = Vec::new();
    for part in reads {
        read.extend_from_slice(&part.await.expect("no panic").expect("read"));
    }
    assert!(read == content);
}

#[tokio::test]
async fn a_large_directory_comes_in_batches() {
    let bench = bench();
    for number in 0..2000 {
        fs::write(bench.root(&format!("data/deep/{number}")), "").expect("written");
    }
    let listing = bench.files.list(&bench.alice, path("data/deep")).await.expect("a directory");
    assert_eq!(listing.next().await.expect("entries").len(), FileListing::MAX_BATCH);
    let rest = all(&listing).await;
    assert_eq!(rest.len(), 2000 - FileListing::MAX_BATCH);
    assert_eq!(bench.names("data/deep").await.len(), 2000);
    assert!(listing.next().await.expect("an end").is_empty());
}

#[tokio::test]
async fn names_are_bytes() {
    let bench = bench();
    let name = Path::new(OsStr::from_bytes(b"data/\xff\xfe \n"));
    bench.files.replace(&bench.alice, name, &b"odd"[..]).await.expect("written");
    let listing = bench.files.list(&bench.alice, path("data")).await.expect("a directory");
    let names = listing.next().await.expect("entries");
    assert!(names.iter().any(|entry| entry.name.as_bytes() == b"\xff\xfe \n"));
    bench.files.remove_file(&bench.alice, name).await.expect("removed");
}

#[tokio::test]
async fn nothing_outside_root_is_reached() {
    let bench = bench();
    symlink("../../outside", bench.root("data/relative")).expect("made");
    symlink(bench.base.path().join("outside"), bench.root("data/absolute")).expect("made");
    symlink("/etc/passwd", bench.root("data/file")).expect("made");
    symlink("..", bench.root("data/deep/up")).expect("made");
    let outside = bench.base.path().join("outside/secret");
    for at in [
        "..",
        "../outside/secret",
        "/../outside/secret",
        "data/../../outside/secret",
        "data/deep/up/up/../../../outside/secret",
        "data/relative",
        "data/relative/secret",
        "data/relative/new",
        "data/absolute",
        "data/absolute/secret",
        "data/file",
        "data/deep/up/relative/secret",
    ] {
        for (what, refusal) in bench.every_refusal(at).await {
            let refusal = refusal.unwrap_or_else(|| panic!("{what} {at} was done"));
            let text = refusal.to_string();
            let is_told = !text.contains(bench.base.path().to_str().expect("text"));
            assert!(is_told && !matches!(refusal, FileError::Internal(_)), "{what} {at}: {text}");
        }
    }
    for at in ["../new", "data/relative/new", "data/absolute/new", "data/absolute/secret", ".."] {
        for (what, refusal) in bench.every_refusal_of_the_name(at).await {
            assert!(refusal.is_some(), "{what} {at} was done");
        }
    }
    assert_kind(bench.files.stat(&bench.alice, &outside).await, ErrorKind::NotFound);
    bench.nothing_was_touched();
}

#[tokio::test]
async fn what_is_hidden_is_not_there() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    symlink("../runtime", bench.root("data/link")).expect("made");
    symlink("../runtime/sessions/secret", bench.root("data/file")).expect("made");
    symlink("../runtime/sessions/new", bench.root("data/dangling")).expect("made");
    assert_eq!(bench.names("/").await, HashSet::from(["data".to_owned()]));

    for at in [
        "runtime",
        "/runtime/",
        "runtime/sessions",
        "runtime/sessions/secret",
        "data/../runtime/sessions/secret",
        "data/link/sessions",
        "data/link/sessions/secret",
    ] {
        for (what, refusal) in bench.every_refusal_of_the_name(at).await {
            let refusal = refusal.unwrap_or_else(|| panic!("{what} {at} was done"));
            let kind = refusal.kind();
            let is_fine = matches!(kind, ErrorKind::NotFound | ErrorKind::Forbidden);
            assert!(is_fine, "{what} {at}: {refusal}");
        }
    }
    for at in ["data/link", "data/file", "data/dangling"] {
        for (what, refusal) in bench.every_refusal(at).await {
            assert!(refusal.is_some(), "{what} {at} was done");
        }
    }
    // Not even whether something is there is told.
    for way in ["runtime/sessions/../../data/a", "data/link/sessions/../../data/a"] {
        assert_kind(files.stat(alice, path(way)).await, ErrorKind::NotFound);
    }
    bench.nothing_was_touched();
}

#[tokio::test]
async fn nothing_hidden_is_moved_with_what_it_is_in() {
    let base = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(base.path().join("a/b/hidden")).expect("made");
    let (files, alice) = (all_but(base.path(), "/a/b/hidden"), caller("alice"));
    for from in ["a", "a/b"] {
        let moved = files.rename(&alice, path(from), path("c"), false).await;
        assert_kind(moved, ErrorKind::Forbidden);
    }
    assert_kind(files.remove_directory(&alice, path("a/b")).await, ErrorKind::Forbidden);
    for wrong in ["..", "", "/", "a/../b"] {
        let executor = LocalExecutor::new(base.path()).expect("set up");
        let policy = FilePolicy::new().hide(wrong);
        let error = Engine::builder(executor).files(policy).build().expect_err(wrong);
        assert!(
            matches!(&error, BuildError::HiddenPath { path, .. } if path == Path::new(wrong)),
            "{error}"
        );
    }
}

#[tokio::test]
async fn nothing_is_put_in_the_place_of_what_is_hidden() {
    let base = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(base.path().join("mine/hidden")).expect("made");
    let (files, alice) = (all_but(base.path(), "not/there/hidden"), caller("alice"));
    fs::create_dir(base.path().join("not")).expect("made");
    for to in ["not", "not/there", "not/there/hidden"] {
        for replace in [false, true] {
            let moved = files.rename(&alice, path("mine"), path(to), replace).await;
            assert!(moved.is_err(), "{to}");
        }
    }
    assert_kind(files.stat(&alice, path("not/there")).await, ErrorKind::NotFound);
}

#[tokio::test]
async fn what_is_made_later_is_hidden_as_well() {
    let bench = bench_with(|policy| policy.hide("data/later"));
    fs::create_dir(bench.root("data/later")).expect("made");
    fs::write(bench.root("data/later/file"), "").expect("written");
    for at in ["data/later", "data/later/file", "data/deep/../later/file"] {
        assert_kind(bench.files.stat(&bench.alice, path(at)).await, ErrorKind::NotFound);
    }
    assert!(!bench.names("data").await.contains("later"));
}

/// The files below `root`, but for what is `hidden`.
fn all_but(root: &Path, hidden: &str) -> Files {
    let policy = FilePolicy::new().hide(hidden);
    let engine = Engine::builder(LocalExecutor::new(root).expect("set up"))
        .files(policy)
        .build()
        .expect("built");
    engine.files()
}

#[tokio::test]
async fn what_a_hidden_link_leads_to_is_hidden() {
    let base = tempfile::tempdir().expect("a directory");
    let root = base.path();
    fs::create_dir_all(root.join("real/sub")).expect("made");
    fs::write(root.join("real/sub/file"), "").expect("made");
    symlink("real", root.join("directory")).expect("made");
    symlink("real/sub/file", root.join("file")).expect("made");
    let alice = caller("alice");
    let files = all_but(root, "directory");
    for at in ["directory", "directory/sub", "real", "real/sub"] {
        assert_kind(files.stat(&alice, path(at)).await, ErrorKind::NotFound);
    }
    let files = all_but(root, "file");
    for at in ["file", "real/sub/file", "directory/sub/file"] {
        assert_kind(files.stat(&alice, path(at)).await, ErrorKind::NotFound);
    }
    files.stat(&alice, path("real/sub")).await.expect("what it is in is not hidden");
    // What is made behind a link later.
    let files = all_but(root, "directory/later");
    fs::create_dir(root.join("real/later")).expect("made");
    for at in ["directory/later", "real/later"] {
        assert_kind(files.stat(&alice, path(at)).await, ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn only_regular_files_are_opened() {
    let bench = bench();
    let made = std::process::Command::new("mkfifo").arg(bench.root("data/pipe")).status();
    assert!(made.expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(bench.root("data/socket")).expect("made");
    for at in ["data/pipe", "data/socket"] {
        for options in [read(), write(), read().write(), write().create().truncate()] {
            let opened = timeout(Duration::from_secs(60), bench.open(at, options)).await;
            assert_kind(opened.expect("no wait"), ErrorKind::Impossible);
        }
        let replaced = bench.files.replace(&bench.alice, path(at), &b"x"[..]).await;
        assert_kind(replaced, ErrorKind::Impossible);
        let info = bench.files.stat(&bench.alice, path(at)).await.expect("known");
        assert_eq!(info.kind, FileKind::Other);
        bench.files.remove_file(&bench.alice, path(at)).await.expect("removed");
    }
}

#[tokio::test]
async fn a_name_is_given_and_taken() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    fs::write(bench.root("data/b"), "other").expect("written");
    let renamed = |from: &'static str, to: &'static str, replace| async move {
        files.rename(alice, path(from), path(to), replace).await
    };
    assert_kind(renamed("data/a", "data/b", false).await, ErrorKind::Conflict);
    assert_kind(renamed("data/a", "data/deep", true).await, ErrorKind::Conflict);
    assert_kind(renamed("data", "data/deep/x", true).await, ErrorKind::Impossible);
    let missing = assert_kind(renamed("data/none", "data/x", false).await, ErrorKind::NotFound);
    assert!(missing.contains("data/none"), "{missing}");
    assert_kind(renamed("/", "data/x", true).await, ErrorKind::Malformed);
    renamed("data/a", "/data/c", false).await.expect("renamed");
    renamed("data/c", "data/b", true).await.expect("renamed");
    assert_eq!(bench.content("data/b"), "content");

    files.make_directory(alice, path("data/new"), Some(0o7700)).await.expect("made");
    assert_eq!(bench.mode("data/new"), 0o700);
    assert_kind(files.make_directory(alice, path("data/new"), None).await, ErrorKind::Conflict);
    fs::write(bench.root("data/new/x"), "").expect("written");
    assert_kind(files.remove_directory(alice, path("data/new")).await, ErrorKind::Conflict);
    assert_kind(files.remove_file(alice, path("data/new")).await, ErrorKind::Conflict);
    assert_kind(renamed("data/deep", "data/new", true).await, ErrorKind::Conflict);
    files.remove_file(alice, path("data/new/x")).await.expect("removed");
    renamed("data/deep", "data/new", true).await.expect("renamed");
    files.remove_directory(alice, path("data/new")).await.expect("removed");
    assert_kind(files.remove_file(alice, path("data/new")).await, ErrorKind::NotFound);
    assert_kind(files.remove_directory(alice, path("data/b")).await, ErrorKind::Conflict);
}

#[tokio::test]
async fn of_many_that_want_a_name_one_gets_it() {
    let bench = bench();
    for round in 0..20 {
        let to = format!("data/{round}");
        let tries: Vec<_> = (0..8)
            .map(|number| {
                let from = bench.root(&format!("data/{round}-{number}"));
                fs::write(&from, number.to_string()).expect("written");
                let (files, alice, to) = (bench.files.clone(), bench.alice.clone(), to.clone());
                let from = format!("data/{round}-{number}");
                tokio::spawn(
                    async move { files.rename(&alice, path(&from), path(&to), false).await },
                )
            })
            .collect();
        let mut done = 0;
        for tried in tries {
            match tried.await.expect("no panic") {
                Ok(()) => done += 1,
                Err(error) => assert!(matches!(error, FileError::Exists { .. }), "{error}"),
            }
        }
        assert_eq!(done, 1);
    }
}

#[tokio::test]
async fn a_file_is_replaced_whole_or_not_at_all() {
    let bench = bench_with(|policy| policy.max_file_size(1 << 20));
    let (files, alice) = (&bench.files, &bench.alice);
    let set = fs::set_permissions(bench.root("data/a"), fs::Permissions::from_mode(0o640));
    set.expect("set");
    let old = bench.open("data/a", read()).await.expect("opened");
    let content = vec![7; 600_000];
    let info = files.replace(alice, path("data/a"), &content[..]).await.expect("written");
    assert_eq!((info.size, bench.mode("data/a")), (600_000, 0o640));
    assert_eq!(old.read_at(0, 100).await.expect("read"), "content");

    let too_large = vec![8; (1 << 20) + 1];
    let refused = files.replace(alice, path("data/a"), &too_large[..]).await;
    assert_kind(refused, ErrorKind::NoRoom);
    let broken = broken_reader(&content);
    assert_kind(files.replace(alice, path("data/a"), broken).await, ErrorKind::Malformed);
    assert!(fs::read(bench.root("data/a")).expect("read") == content);
    assert_kind(files.replace(alice, path("data/deep"), &b""[..]).await, ErrorKind::Conflict);

    symlink("a", bench.root("data/link")).expect("made");
    files.replace(alice, path("data/link"), &b"through"[..]).await.expect("written");
    assert_eq!(bench.content("data/a"), "through");
    assert!(fs::symlink_metadata(bench.root("data/link")).expect("is there").is_symlink());
    let left = bench.names("data").await;
    assert!(!left.iter().any(|name| name.starts_with('.')), "{left:?}");

    let file = bench.open("data/a", write()).await.expect("opened");
    for at in [(1 << 20) - 1, u64::MAX] {
        let written = file.write_at(at, Bytes::from_static(b"xy")).await;
        assert_kind(written, ErrorKind::NoRoom);
    }
    let file = bench.open("data/a", OpenOptions::new().append()).await.expect("opened");
    let data = Bytes::from(vec![0; (1 << 20) - 3]);
    assert_kind(file.write_at(0, data).await, ErrorKind::NoRoom);
    assert_eq!(bench.content("data/a"), "through");
    let grown = files.set(alice, path("data/a"), SetAttributes::new().size(1 << 21)).await;
    assert_kind(grown, ErrorKind::NoRoom);
}

/// Some content, and then an error.
fn broken_reader(content: &[u8]) -> impl tokio::io::AsyncRead + Send + use<> {
    struct Broken(std::io::Cursor<Vec<u8>>);
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            mut self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            buffer: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            let read = std::io::Read::read(&mut self.0, buffer.initialize_unfilled())?;
            buffer.advance(read);
            let result =
                if read == 0 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) };
            std::task::Poll::Ready(result)
        }
    }
    Broken(std::io::Cursor::new(content.to_vec()))
}

#[tokio::test]
async fn what_ends_in_a_slash_is_no_file() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    assert!(matches!(
        files.stat(alice, path("data/a/")).await,
        Err(FileError::NotDirectory { .. })
    ));
    assert!(bench.open("data/a/", read()).await.is_err());
    assert!(bench.open("data/new/", write().create()).await.is_err());
    assert!(files.replace(alice, path("data/new/"), &b"x"[..]).await.is_err());
    assert_eq!(bench.names("data").await, HashSet::from(["a", "deep"].map(str::to_owned)));
    files.make_directory(alice, path("data/made/"), None).await.expect("made");
    assert_eq!(
        files.stat(alice, path("data/made/")).await.expect("known").kind,
        FileKind::Directory
    );
}

#[tokio::test]
async fn links_are_made_and_read() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    files.symlink(alice, path("../a"), path("data/deep/link")).await.expect("made");
    let target = files.read_link(alice, path("data/deep/link")).await.expect("a link");
    assert_eq!(target, path("../a"));
    assert_eq!(files.stat(alice, path("data/deep/link")).await.expect("known").size, 7);
    let info = files.stat_link(alice, path("data/deep/link")).await.expect("known");
    assert_eq!(info.kind, FileKind::Link);
    for (bad, kind, problem) in [
        ("/data/a", ErrorKind::Impossible, "outside"),
        ("../../../outside", ErrorKind::Impossible, "outside"),
        ("..//./../..", ErrorKind::Impossible, "outside"),
        ("", ErrorKind::Malformed, "is empty"),
        ("a\0b", ErrorKind::Malformed, "NUL"),
    ] {
        let made = files.symlink(alice, path(bad), path("data/deep/bad")).await;
        let refusal = made.expect_err("refused");
        assert_eq!(refusal.kind(), kind, "{refusal}");
        assert!(refusal.to_string().contains(problem), "{refusal}");
    }
    assert_kind(files.read_link(alice, path("data/a")).await, ErrorKind::Impossible);
    symlink(bench.root("data/a"), bench.root("data/own")).expect("made");
    symlink("/etc/passwd", bench.root("data/other")).expect("made");
    let own = files.read_link(alice, path("data/own")).await.expect("below root");
    assert_eq!(own, path("/data/a"));
    assert_kind(files.read_link(alice, path("data/other")).await, ErrorKind::Impossible);
    // One that a program made, with root's own name, leads where it says.
    assert_eq!(files.stat(alice, path("data/own")).await.expect("known").size, 7);
    symlink(bench.root("../outside"), bench.root("data/out")).expect("made");
    symlink(bench.root("runtime"), bench.root("data/hidden")).expect("made");
    symlink(bench.root("data/deep/../own"), bench.root("data/own-own")).expect("made");
    assert_eq!(files.stat(alice, path("data/deep/../own-own")).await.expect("known").size, 7);
    assert_kind(files.stat(alice, path("data/out")).await, ErrorKind::Impossible);
    assert_kind(files.stat(alice, path("data/hidden")).await, ErrorKind::NotFound);
    symlink("loop", bench.root("data/loop")).expect("made");
    assert_kind(files.stat(alice, path("data/loop")).await, ErrorKind::Impossible);

    for (given, canonical) in [
        ("", "/"),
        (".", "/"),
        ("data/./deep/..", "/data"),
        ("data/deep/link", "/data/a"),
        ("/data/none", "/data/none"),
        ("runtime", "/runtime"),
    ] {
        let found = files.canonical(alice, path(given)).await.expect("a path");
        assert_eq!(found, path(canonical), "{given}");
    }
    assert_kind(files.canonical(alice, path("data/none/x")).await, ErrorKind::NotFound);
    assert_kind(files.canonical(alice, path("/..")).await, ErrorKind::Impossible);
    let own_name = files.canonical(alice, &bench.root("data")).await.expect("a path");
    assert_eq!(own_name, path("/data"));
}

#[tokio::test]
async fn a_file_is_changed() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let time = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 500);
    let early = SystemTime::UNIX_EPOCH - Duration::new(3, 250_000_000);
    let changes = SetAttributes::new().size(3).mode(0o6751).modified(time).accessed(early);
    files.set(alice, path("data/a"), changes).await.expect("set");
    let info = files.stat(alice, path("data/a")).await.expect("known");
    assert_eq!((info.size, info.mode), (3, 0o751));
    assert_eq!((info.modified, info.accessed), (time, early));

    let file = bench.open("data/a", write()).await.expect("opened");
    file.set(SetAttributes::new().size(5).modified(early)).await.expect("set");
    let info = file.info().await.expect("known");
    assert_eq!((info.size, info.modified, info.accessed), (5, early, early));

    symlink("a", bench.root("data/link")).expect("made");
    let times = SetAttributes::new().modified(time);
    files.set_link(alice, path("data/link"), times).await.expect("set");
    assert_eq!(files.stat_link(alice, path("data/link")).await.expect("known").modified, time);
    assert_eq!(files.stat(alice, path("data/link")).await.expect("known").modified, early);
    let refused = files.set_link(alice, path("data/link"), SetAttributes::new().mode(0)).await;
    assert_kind(refused, ErrorKind::Impossible);
    let refused = files.set(alice, path("data"), SetAttributes::new().size(0)).await;
    assert_kind(refused, ErrorKind::Conflict);
}

#[tokio::test]
async fn rights_are_checked() {
    let bench = bench();
    let nobody = Caller::new("bob").expect("a name").with(Scope::Execute);
    let refused = bench.files.stat(&nobody, path("data/a")).await;
    assert!(assert_kind(refused, ErrorKind::Forbidden).contains("`files`"));
    let refused = bench.files.open(&nobody, path("data/a"), read()).await;
    assert_kind(refused, ErrorKind::Forbidden);
    let bob = nobody.with(Scope::Files);
    assert!(bench.files.stat(&bob, path("data/a")).await.is_ok());

    let root = tempfile::tempdir().expect("a directory");
    let engine = Engine::builder(LocalExecutor::new(root.path()).expect("set up")).build();
    let engine = engine.expect("built");
    assert!(!engine.has_files() && !engine.capabilities().contains(&"files".to_owned()));
    assert_kind(engine.files().stat(&bob, path("/")).await, ErrorKind::Impossible);
}

#[tokio::test]
async fn open_files_are_counted() {
    let bench = bench_with(|policy| policy.max_open(3).max_open_per_caller(2));
    let first = bench.open("data/a", read()).await.expect("opened");
    let second = bench.open("data/a", read()).await.expect("opened");
    assert_kind(bench.open("data/a", read()).await, ErrorKind::CallerLimit);
    let copy = first.clone();
    drop(first);
    assert_kind(bench.open("data/a", read()).await, ErrorKind::CallerLimit);
    let bob = caller("bob");
    let third = bench.files.open(&bob, path("data/a"), read()).await.expect("opened");
    assert_kind(bench.files.open(&bob, path("data/a"), read()).await, ErrorKind::Unavailable);
    // Neither keeps anybody from looking or writing.
    bench.files.list(&bob, path("data")).await.expect("opened");
    bench.files.list(&bench.alice, path("data")).await.expect("opened");
    bench.files.replace(&bob, path("data/new"), &b"new"[..]).await.expect("written");
    drop((copy, second));
    assert!(bench.open("data/a", read()).await.is_ok());
    // What failed to open counts no more.
    for _ in 0..5 {
        assert_kind(bench.open("data/none", read()).await, ErrorKind::NotFound);
    }
    drop(third);
}

/// Without any bound of one caller: nobody takes the last places from who has none.
#[tokio::test]
async fn one_callers_downloads_leave_places_to_others() {
    let bench = bench_with(|policy| policy.max_open(8));
    let mut downloads = Vec::new();
    let refused = loop {
        match bench.open("data/a", read()).await {
            Ok(file) => downloads.push(file),
            Err(error) => break error,
        }
        assert!(downloads.len() <= 8, "more than there are");
    };
    assert_eq!((downloads.len(), refused.kind()), (4, ErrorKind::CallerLimit), "{refused}");
    let bob = caller("bob");
    for _ in 0..2 {
        downloads.push(bench.files.open(&bob, path("data/a"), read()).await.expect("opened"));
    }
    assert_kind(bench.files.open(&bob, path("data/a"), read()).await, ErrorKind::CallerLimit);
    let carol = caller("carol");
    bench.files.open(&carol, path("data/a"), read()).await.expect("opened");
}

#[tokio::test]
async fn a_path_is_bounded() {
    let bench = bench();
    let deep = "x/".repeat(200);
    let long = "y".repeat(5000);
    for bad in ["a\0b", long.as_str(), &"z".repeat(300), &"./".repeat(2049)] {
        let refused = bench.files.stat(&bench.alice, path(bad)).await;
        assert!(assert_kind(refused, ErrorKind::Malformed).chars().count() < 300);
    }
    for number in 1..=200 {
        let at = &deep[..2 * number];
        match bench.files.make_directory(&bench.alice, path(at), None).await {
            Ok(()) => assert!(number <= 129, "{number}"),
            Err(error) => {
                assert!(number > 128, "{number}: {error}");
                assert_eq!(error.kind(), ErrorKind::Impossible, "{error}");
                return;
            }
        }
    }
    panic!("200 directories");
}
