//! The bytes that a caller's files may hold.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::engine::BuildError;
use splengine_core::files::{FilePolicy, OpenOptions, SetAttributes};
use splengine_core::{Caller, Engine, ErrorKind, FileError, Files, LocalExecutor};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::files::path;
use crate::support::caller;

const BLOCK: u64 = 4096;
/// Room for eight blocks of content and files.
const QUOTA: u64 = 8 * BLOCK;

fn serve(root: &TempDir) -> Files {
    let policy = FilePolicy::new().max_caller_bytes(QUOTA);
    let executor = LocalExecutor::new(root.path()).expect("set up");
    Engine::builder(executor).files(policy).build().expect("built").files()
}

fn content(blocks: u64) -> Bytes {
    vec![b'x'; usize::try_from(blocks * BLOCK).expect("few")].into()
}

async fn put(files: &Files, who: &Caller, name: &str, blocks: u64) -> Result<(), FileError> {
    files.replace(who, path(name), &content(blocks)[..]).await.map(drop)
}

fn is_refused<T>(result: Result<T, FileError>, what: &str) {
    match result {
        Err(error @ FileError::OverQuota { .. }) => {
            assert_eq!(error.kind(), ErrorKind::NoRoom);
            assert!(error.to_string().contains("32768 bytes"), "{error}");
        }
        Err(error) => panic!("{what}: {error}"),
        Ok(_) => panic!("{what} was done"),
    }
}

/// How many blocks the files of a caller may still hold, as one file shows.
async fn room(files: &Files, who: &Caller) -> u64 {
    let probe = path("probe");
    let options = OpenOptions::new().write().create();
    let Ok(file) = files.open(who, probe, options).await else { return 0 };
    let mut blocks = 0;
    while file.set(SetAttributes::new().size((blocks + 1) * BLOCK)).await.is_ok() {
        blocks += 1;
    }
    drop(file);
    files.remove_file(who, probe).await.expect("removed");
    blocks + 1
}

#[tokio::test]
async fn files_hold_no_more_than_the_quota_by_whatever_way_they_are_written() {
    let root = tempfile::tempdir().expect("a directory");
    let files = serve(&root);
    let (alice, bob) = (caller("alice"), caller("bob"));
    assert_eq!(room(&files, &alice).await, 8);
    put(&files, &alice, "first", 4).await.expect("there is room");
    assert_eq!(room(&files, &alice).await, 3);

    is_refused(put(&files, &alice, "second", 3).await, "a file");
    is_refused(files.copy(&alice, path("first"), path("second"), false).await, "a copy");
    is_refused(put(&files, &alice, "first", 4).await, "one in place of another, beside it");
    let size = SetAttributes::new().size(8 * BLOCK);
    is_refused(files.set(&alice, path("first"), size.clone()).await, "a size");
    let file = files.open(&alice, path("first"), OpenOptions::new().write()).await.expect("opened");
    is_refused(file.write_at(7 * BLOCK, content(1)).await, "a write beyond the end");
    is_refused(file.set(size).await, "the size of an open file");
    let log = files.open(&alice, path("first"), OpenOptions::new().append()).await.expect("opened");
    let appended = tokio::join!(
        log.write_at(0, content(1)),
        log.write_at(0, content(1)),
        log.write_at(0, content(1)),
        log.write_at(0, content(1)),
    );
    let appended = [appended.0, appended.1, appended.2, appended.3];
    assert_eq!(appended.iter().filter(|result| result.is_ok()).count(), 3, "{appended:?}");
    assert_eq!(fs::metadata(root.path().join("first")).expect("is there").len(), 7 * BLOCK);

    is_refused(files.make_directory(&alice, path("directory"), None).await, "a directory");
    is_refused(put(&files, &alice, "empty", 0).await, "an empty file");
    let create = OpenOptions::new().write().create();
    is_refused(files.open(&alice, path("empty"), create).await, "an empty file");
    let mut names: Vec<_> =
        fs::read_dir(root.path()).expect("read").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(names.pop().as_deref(), Some("first".as_ref()), "{names:?}");
    assert!(names.is_empty(), "{names:?}");
    file.write_at(0, content(7)).await.expect("takes no more room");
    assert_eq!(room(&files, &bob).await, 8);
}

#[tokio::test]
async fn what_is_removed_cut_or_replaced_is_room_again() {
    let root = tempfile::tempdir().expect("a directory");
    let files = serve(&root);
    let alice = caller("alice");
    for round in 0..3 {
        put(&files, &alice, "a", 2).await.expect("there is room");
        put(&files, &alice, "a", 3).await.expect("there is room");
        files.make_directory(&alice, path("d"), Some(0)).await.expect("made");
        assert_eq!(room(&files, &alice).await, 3, "{round}");
        put(&files, &alice, "d/b", 2).await.expect("there is room");
        assert_eq!(room(&files, &alice).await, 0, "{round}");
        files.rename(&alice, path("d/b"), path("a"), true).await.expect("renamed");
        assert_eq!(room(&files, &alice).await, 4, "{round}");
        files.set(&alice, path("a"), SetAttributes::new().size(1)).await.expect("cut");
        assert_eq!(room(&files, &alice).await, 5, "{round}");
        let truncate = OpenOptions::new().write().truncate();
        drop(files.open(&alice, path("a"), truncate).await.expect("emptied"));
        assert_eq!(room(&files, &alice).await, 6, "{round}");
        files.remove_file(&alice, path("a")).await.expect("removed");
        files.remove_directory(&alice, path("d")).await.expect("removed");
        assert_eq!(room(&files, &alice).await, 8, "{round}");
    }
}

#[tokio::test]
async fn a_file_without_a_name_counts_as_long_as_it_is_open() {
    let root = tempfile::tempdir().expect("a directory");
    let files = serve(&root);
    let alice = caller("alice");
    put(&files, &alice, "a", 5).await.expect("there is room");
    let reader = files.open(&alice, path("a"), OpenOptions::new().read()).await.expect("opened");
    files.remove_file(&alice, path("a")).await.expect("removed");
    is_refused(put(&files, &alice, "b", 2).await, "a file");
    drop(reader);
    put(&files, &alice, "b", 2).await.expect("there is room");
    let writer = files.open(&alice, path("b"), OpenOptions::new().write()).await.expect("opened");
    files.remove_file(&alice, path("b")).await.expect("removed");
    writer.write_at(0, content(7)).await.expect("there is room");
    is_refused(files.make_directory(&alice, path("d"), None).await, "a directory");
    drop(writer);
    assert_eq!(room(&files, &alice).await, 8);
}

#[tokio::test]
async fn a_file_belongs_to_who_wrote_to_it_last() {
    let root = tempfile::tempdir().expect("a directory");
    let files = serve(&root);
    let (alice, bob) = (caller("alice"), caller("bob"));
    put(&files, &alice, "a", 5).await.expect("there is room");
    put(&files, &bob, "b", 4).await.expect("there is room");
    let write = || OpenOptions::new().write();
    let file = files.open(&bob, path("a"), write()).await.expect("opened");
    is_refused(file.write_at(0, content(1)).await, "a write to another's file");
    drop(file);
    files.remove_file(&bob, path("b")).await.expect("removed");
    let file = files.open(&bob, path("a"), write()).await.expect("opened");
    file.write_at(0, Bytes::from_static(b"mine")).await.expect("there is room");
    assert_eq!((room(&files, &alice).await, room(&files, &bob).await), (8, 2));

    // One of a program's counts once somebody writes to it, holes included.
    let program = fs::File::create(root.path().join("program")).expect("made");
    program.set_len(9 * BLOCK).expect("a size");
    let file = files.open(&alice, path("program"), write()).await.expect("opened");
    is_refused(file.write_at(0, Bytes::from_static(b"x")).await, "a write to a large file");
}

#[tokio::test]
async fn what_is_there_counts_after_a_restart() {
    let root = tempfile::tempdir().expect("a directory");
    let alice = caller("alice");
    let files = serve(&root);
    files.make_directory(&alice, path("d"), Some(0)).await.expect("made");
    put(&files, &alice, "d/a", 2).await.expect("there is room");
    files.set(&alice, path("d/a"), SetAttributes::new().mode(0)).await.expect("set");
    files.set(&alice, path("d"), SetAttributes::new().mode(0)).await.expect("set");
    let open = OpenOptions::new().write().create_new().mode(0o444);
    let file = files.open(&alice, path("d/b"), open).await.expect("made");
    assert_eq!(fs::metadata(root.path().join("d/b")).expect("is there").mode() & 0o777, 0o444);
    drop((file, files));
    fs::hard_link(root.path().join("d/a"), root.path().join("linked")).expect("linked");
    fs::write(root.path().join("of-a-program"), content(20)).expect("written");
    assert_eq!(room(&serve(&root), &alice).await, 3);
}

#[tokio::test]
async fn what_a_program_removes_is_room_again_soon() {
    let root = tempfile::tempdir().expect("a directory");
    let files = serve(&root);
    let alice = caller("alice");
    put(&files, &alice, "a", 5).await.expect("there is room");
    let held = files.open(&alice, path("held"), OpenOptions::new().write().create()).await;
    let held = held.expect("made");
    is_refused(put(&files, &alice, "b", 5).await, "a file");
    fs::remove_file(root.path().join("a")).expect("removed");
    let begun = Instant::now();
    while let Err(error) = put(&files, &alice, "b", 5).await {
        assert!(matches!(error, FileError::OverQuota { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(30), "it is never counted again");
        sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(room(&files, &alice).await, 1);
    drop(held);
}

#[test]
fn a_root_without_attributes_is_refused() {
    let policy = FilePolicy::new().max_caller_bytes(1);
    let executor = LocalExecutor::new("/proc").expect("set up");
    let error = Engine::builder(executor).files(policy).build().expect_err("proc has none");
    assert!(matches!(error, BuildError::CallerBytes { .. }), "{error}");
    assert!(error.to_string().contains("`/proc`"), "{error}");
}
