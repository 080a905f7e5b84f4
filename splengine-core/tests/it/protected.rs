//! Files of the host that callers do not reach, whatever their names.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use splengine_core::engine::BuildError;
use splengine_core::files::{FilePolicy, OpenOptions, SetAttributes};
use splengine_core::{Caller, Engine, ErrorKind, FileError, Files, LocalExecutor, Request};
use tempfile::TempDir;

use crate::files::path;
use crate::support::caller;

struct Bench {
    engine: Engine,
    files: Files,
    alice: Caller,
    root: TempDir,
}

/// `conf/tokens`, with a second name, and `keys` with one file; and `data`, which is free.
fn bench(protect: &[&str]) -> Bench {
    let root = tempfile::tempdir().expect("a directory");
    let at = |path: &str| root.path().join(path);
    for directory in ["conf", "keys/deep", "data", "empty"] {
        fs::create_dir_all(at(directory)).expect("made");
    }
    fs::write(at("conf/tokens"), "secret").expect("written");
    fs::write(at("keys/alice"), "secret").expect("written");
    fs::write(at("data/free"), "free").expect("written");
    fs::hard_link(at("conf/tokens"), at("data/second")).expect("linked");
    fs::hard_link(at("keys/alice"), at("data/third")).expect("linked");
    symlink("../conf/tokens", at("data/link")).expect("linked");
    symlink("../keys", at("data/keys-link")).expect("linked");
    symlink("conf", at("way")).expect("linked");
    let (mut policy, mut executor) = (FilePolicy::new(), LocalExecutor::builder(root.path()));
    for path in protect {
        policy = policy.protect(at(path));
        executor = executor.protect(at(path));
    }
    let executor = executor.build().expect("set up");
    let engine = Engine::builder(executor).files(policy).build().expect("built");
    Bench { files: engine.files(), engine, alice: caller("alice"), root }
}

impl Bench {
    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    async fn is_there(&self, at: &str) -> bool {
        let Self { files, alice, .. } = self;
        let stat = files.stat(alice, path(at)).await;
        let open = files.open(alice, path(at), OpenOptions::new().read()).await;
        if let (Err(a), Err(b)) = (&stat, &open) {
            assert_eq!((a.kind(), b.kind()), (ErrorKind::NotFound, ErrorKind::NotFound), "{at}");
        }
        stat.is_ok()
    }

    async fn names(&self, directory: &str) -> Vec<String> {
        let listing = self.files.list(&self.alice, path(directory)).await.expect("listed");
        let (entries, _) = listing.page(None, 100).await.expect("read");
        entries.into_iter().map(|entry| entry.name.into_string().expect("text")).collect()
    }

    /// What is done to `at` by every way there is to change it.
    async fn changes(&self, at: &str) -> Vec<(&'static str, Result<(), FileError>)> {
        let Self { files, alice, .. } = self;
        let (at, free) = (path(at), path("data/free"));
        let write = OpenOptions::new().write();
        vec![
            ("replace", files.replace(alice, at, &b"mine"[..]).await.map(drop)),
            ("open", files.open(alice, at, write.clone().create()).await.map(drop)),
            ("create", files.open(alice, at, write.create_new()).await.map(drop)),
            ("make directory", files.make_directory(alice, at, None).await),
            ("link", files.symlink(alice, path("free"), at).await),
            ("rename to", files.rename(alice, free, at, true).await),
            ("rename to, new", files.rename(alice, free, at, false).await),
            ("rename from", files.rename(alice, at, path("data/taken"), true).await),
            ("copy to", files.copy(alice, free, at, true).await.map(drop)),
            ("copy from", files.copy(alice, at, path("data/taken"), true).await.map(drop)),
            ("remove", files.remove_file(alice, at).await),
            ("remove directory", files.remove_directory(alice, at).await),
            ("set", files.set(alice, at, SetAttributes::new().mode(0o777)).await),
            ("set link", files.set_link(alice, at, SetAttributes::new().mode(0o777)).await),
            ("watch", files.watch(alice, at).await.map(drop)),
            ("list", files.list(alice, at).await.map(drop)),
            ("read link", files.read_link(alice, at).await.map(drop)),
        ]
    }
}

#[tokio::test]
async fn a_protected_file_is_reached_by_none_of_its_names() {
    let bench = bench(&["conf/tokens", "keys"]);
    for at in [
        "conf/tokens",
        "way/tokens",
        "data/second",
        "data/link",
        "keys",
        "keys/alice",
        "keys/deep",
        "data/third",
        "data/keys-link/alice",
        "data/../keys/alice",
    ] {
        assert!(!bench.is_there(at).await, "{at}");
        for (what, done) in bench.changes(at).await {
            // The link is anybody's, what it leads to is not.
            let is_of_link = ["data/link"].contains(&at)
                && ["rename from", "remove", "read link", "rename to"].contains(&what);
            assert!(done.is_err() || is_of_link, "{what} {at}");
            if is_of_link && done.is_ok() {
                let _ = fs::remove_file(bench.at("data/taken"));
                let _ = fs::remove_file(bench.at(at));
                symlink("../conf/tokens", bench.at(at)).expect("linked");
                fs::write(bench.at("data/free"), "free").expect("written");
            }
        }
    }
    assert_eq!(fs::read(bench.at("conf/tokens")).expect("read"), b"secret");
    assert_eq!(fs::read(bench.at("keys/alice")).expect("read"), b"secret");
    assert_eq!(fs::metadata(bench.at("conf/tokens")).expect("there").nlink(), 2);
    assert!(bench.names("conf").await.is_empty());
    assert_eq!(bench.names("data").await, ["free", "keys-link", "link"]);
    assert_eq!(bench.names("/").await, ["conf", "data", "empty", "way"]);
    assert!(bench.is_there("data/free").await);
}

#[tokio::test]
async fn nothing_is_put_in_the_way_to_what_is_protected() {
    let bench = bench(&["way/tokens", "empty/later/tokens"]);
    let Bench { files, alice, .. } = &bench;
    for at in ["conf", "way", "empty", "empty/later", "EMPTY/../empty/Later"] {
        for (what, done) in bench.changes(at).await {
            let looks = ["watch", "list", "read link", "copy from"].contains(&what);
            assert!(done.is_err() || looks, "{what} {at}");
        }
    }
    assert!(bench.at("empty").is_dir() && bench.at("way").is_symlink());
    // Of directories on the way, all else may be changed.
    files.replace(alice, path("conf/other"), &b"x"[..]).await.expect("written");
    files.make_directory(alice, path("empty/other"), None).await.expect("made");
    files.rename(alice, path("empty/other"), path("other"), false).await.expect("renamed");
    files.remove_directory(alice, path("other")).await.expect("removed");
}

#[tokio::test]
async fn a_file_that_takes_its_place_is_protected_and_so_is_the_old_one() {
    let bench = bench(&["conf/tokens"]);
    assert!(!bench.is_there("data/second").await);
    // As editors write: a new file in its place, the old one stays under another name.
    fs::write(bench.at("conf/new"), "new secret").expect("written");
    fs::rename(bench.at("conf/new"), bench.at("conf/tokens")).expect("renamed");
    assert!(!bench.is_there("conf/tokens").await, "its name is enough");
    assert!(!bench.is_there("data/second").await, "what it was");
    fs::hard_link(bench.at("conf/tokens"), bench.at("data/fourth")).expect("linked");
    let mut tries = 0;
    while bench.is_there("data/fourth").await {
        tries += 1;
        assert!(tries < 6000, "what it is");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(!bench.is_there("data/second").await);
}

#[tokio::test]
async fn what_is_protected_may_lie_anywhere_but_not_be_root() {
    let root = tempfile::tempdir().expect("a directory");
    let outside = tempfile::tempdir().expect("a directory");
    let link = outside.path().join("link");
    symlink(root.path(), &link).expect("linked");
    let build = |path: &Path| {
        let executor = LocalExecutor::new(root.path()).expect("set up");
        Engine::builder(executor).files(FilePolicy::new().protect(path)).build()
    };
    build(outside.path()).expect("it lies elsewhere");
    for is_root in [root.path(), &link] {
        let error = build(is_root).expect_err("root itself");
        let BuildError::ProtectedPath { path, source } = error else { panic!("{error}") };
        assert_eq!(path, is_root);
        assert!(source.to_string().contains("outside root"), "{source}");
    }
}

#[tokio::test]
async fn no_command_is_started_in_a_protected_directory() {
    let bench = bench(&["keys"]);
    for workdir in ["keys", "keys/deep", "data/keys-link", "data/keys-link/deep"] {
        let request = Request::new("pwd").workdir(workdir);
        let refused = bench.engine.execute(&bench.alice, request).await.expect_err(workdir);
        assert_eq!(refused.kind(), ErrorKind::Impossible, "{workdir}");
        assert!(refused.to_string().contains("does not exist"), "{refused}");
    }
    let request = Request::new("pwd").workdir("data");
    bench.engine.execute(&bench.alice, request).await.expect("starts").capture().await;
    for (at, is_hidden) in
        [("keys/none/x", true), ("data/keys-link/x", true), ("data/third", true), ("data/x", false)]
    {
        assert_eq!(bench.files.is_hidden(Path::new(at)).await, is_hidden, "{at}");
    }
}

#[tokio::test]
async fn watchers_are_told_nothing_of_what_is_protected() {
    let bench = bench(&["conf/tokens"]);
    let mut watch = bench.files.watch(&bench.alice, path("conf")).await.expect("watched");
    fs::write(bench.at("conf/tokens"), "changed").expect("written");
    fs::hard_link(bench.at("conf/tokens"), bench.at("conf/second")).expect("linked");
    fs::write(bench.at("conf/last"), "x").expect("written");
    let event = watch.next().await.expect("an event");
    assert!(format!("{event:?}").contains("last"), "{event:?}");
}
