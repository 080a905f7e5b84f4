//! What policies name is opened when the engine is built, and what that fails with.

use std::error::Error as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use splengine_core::batch::BatchPolicy;
use splengine_core::engine::{BuildError, EngineBuilder};
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, SharedExecutor, Stdin};
use splengine_core::files::FilePolicy;
use splengine_core::local::Workdirs;
use splengine_core::session::SessionPolicy;
use splengine_core::store::{MemoryStore, Store as _};
use splengine_core::{Engine, Execute, ExecuteError, LocalExecutor};
use tempfile::TempDir;

use crate::store::TestStore;
use crate::support::caller;

/// Runs nothing, anywhere.
struct Elsewhere;

impl Execute for Elsewhere {
    async fn execute(
        &self,
        _: Command,
        _: Stdin,
        _: Output,
        _: Cancel,
    ) -> Result<Exit, ExecuteError> {
        Ok(Exit::new(ExitStatus::Code(0)))
    }
}

fn builder(base: &TempDir) -> EngineBuilder {
    Engine::builder(LocalExecutor::new(base.path()).expect("set up"))
}

fn refused(builder: EngineBuilder, words: &[&str]) -> BuildError {
    let error = builder.build().expect_err("refused");
    for word in words {
        assert!(error.to_string().contains(word), "no `{word}` in: {error}");
    }
    error
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).expect("read").next().is_none()
}

#[test]
fn policies_open_nothing() {
    let base = tempfile::tempdir().expect("a directory");
    let at = |name: &str| base.path().join(name);
    let files =
        FilePolicy::new().root(at("none")).hide("..").protect(at("none")).max_caller_bytes(1);
    let sessions = SessionPolicy::new().store(at("sessions"));
    let batches = BatchPolicy::new(MemoryStore::new(), at("outputs"));
    let built = builder(&base).files(files).sessions(sessions).batches(batches);
    assert!(is_empty(base.path()));
    refused(built, &["root of files"]);
    assert!(is_empty(base.path()), "it made something before it looked for the root");
}

#[test]
fn a_root_of_files_must_be_a_directory() {
    let base = tempfile::tempdir().expect("a directory");
    fs::write(base.path().join("file"), "").expect("written");
    for name in ["none", "file"] {
        let root = base.path().join(name);
        let shown = root.display().to_string();
        let error =
            refused(builder(&base).files(FilePolicy::new().root(&root)), &[&shown, "directory"]);
        assert!(matches!(&error, BuildError::FileRoot { path, .. } if *path == root), "{error}");
        assert!(error.source().is_some());
    }
}

#[tokio::test]
async fn files_are_below_the_root_of_commands() {
    let base = tempfile::tempdir().expect("a directory");
    let (root, link) = (base.path().join("root"), base.path().join("link"));
    fs::create_dir(&root).expect("made");
    fs::write(root.join("a"), "content").expect("written");
    // By the name that the executor was given, and by that of the directory.
    symlink(link.join("a"), root.join("by-link")).expect("linked");
    symlink(root.join("a"), root.join("by-root")).expect("linked");
    symlink(&root, &link).expect("linked");
    let local = || LocalExecutor::new(&link).expect("set up");
    for builder in [
        Engine::builder(local()),
        Engine::builder(Arc::new(local())),
        Engine::builder(Box::new(local())),
        Engine::builder(SharedExecutor::new(local())),
        Engine::builder(SharedExecutor::new(Arc::new(local()))),
    ] {
        let files = builder.files(FilePolicy::new()).build().expect("built").files();
        assert!(files.is_root_of_commands());
        for path in ["/a", "/by-link", "/by-root"] {
            let found = files.stat(&caller("alice"), Path::new(path)).await.expect(path);
            assert_eq!(found.size, 7, "{path}");
        }
    }
    assert_eq!(Workdirs::below(&link).expect("opened").root(), link);
}

#[tokio::test]
async fn files_may_be_below_another_root() {
    let base = tempfile::tempdir().expect("a directory");
    let out = base.path().join("out");
    fs::create_dir(&out).expect("made");
    fs::write(out.join("a"), "content").expect("written");
    let policy = || FilePolicy::new().root(&out);
    let elsewhere = || Engine::builder(Elsewhere);
    for builder in [builder(&base).files(policy()), elsewhere().files(policy())] {
        let files = builder.build().expect("built").files();
        assert!(!files.is_root_of_commands());
        let found = files.stat(&caller("alice"), Path::new("/a")).await.expect("there");
        assert_eq!(found.size, 7);
    }
    // The same by another name.
    symlink(base.path(), out.join("link")).expect("linked");
    let same = builder(&base).files(FilePolicy::new().root(out.join("link"))).build();
    assert!(same.expect("built").files().is_root_of_commands());
    let none = refused(elsewhere().files(FilePolicy::new()), &["no root", "FilePolicy::root"]);
    assert!(matches!(none, BuildError::NoFileRoot), "{none}");
    assert!(!elsewhere().build().expect("built").files().is_root_of_commands());
}

#[test]
fn the_root_of_commands_must_be_there_still() {
    let base = tempfile::tempdir().expect("a directory");
    let root = base.path().join("root");
    fs::create_dir(&root).expect("made");
    let builder = Engine::builder(LocalExecutor::new(&root).expect("set up"));
    fs::remove_dir(&root).expect("removed");
    let shown = root.display().to_string();
    refused(builder.files(FilePolicy::new()), &["root of files", &shown]);
}

#[test]
fn directories_of_sessions_and_outputs_must_be_directories() {
    let base = tempfile::tempdir().expect("a directory");
    fs::write(base.path().join("file"), "").expect("written");
    for name in ["file", "file/below"] {
        let directory = base.path().join(name);
        let shown = directory.display().to_string();
        let words = [shown.as_str(), "directory that can be written"];

        let policy = SessionPolicy::new().store(&directory);
        let error = refused(builder(&base).sessions(policy), &words);
        assert!(matches!(&error, BuildError::SessionStore { path, .. } if *path == directory));
        assert!(error.source().is_some());

        let store = TestStore::default();
        let policy = BatchPolicy::new(store.clone(), &directory);
        let error = refused(builder(&base).batches(policy), &words);
        assert!(matches!(&error, BuildError::BatchOutputs { path, .. } if *path == directory));
        assert!(error.source().is_some());
        let rows = store.scan(&[0], &[0xff; 8], false, 1).expect("read");
        assert!(rows.is_empty(), "the store was written");
    }
}

/// Only one engine uses a directory of sessions, and one that could not be built keeps none locked.
#[tokio::test]
async fn a_directory_of_sessions_is_locked_by_engines_that_were_built() {
    let base = tempfile::tempdir().expect("a directory");
    fs::write(base.path().join("file"), "").expect("written");
    let sessions = || SessionPolicy::new().store(base.path().join("sessions"));

    let batches = BatchPolicy::new(MemoryStore::new(), base.path().join("file"));
    let failing = builder(&base).sessions(sessions()).batches(batches);
    assert!(matches!(failing.build(), Err(BuildError::BatchOutputs { .. })));

    let engine = builder(&base).sessions(sessions()).build().expect("nobody uses it");
    let pid = format!("pid {}", std::process::id());
    let error = refused(builder(&base).sessions(sessions()), &["sessions", "in use", &pid]);
    let BuildError::SessionStoreInUse { path, .. } = error else { panic!("{error}") };
    assert_eq!(path, base.path().join("sessions"));
    drop(engine);
}
