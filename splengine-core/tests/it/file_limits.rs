//! What callers may take of the disk, and of what the engine can have open.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use bytes::Bytes;
use splengine_core::batch::BatchPolicy;
use splengine_core::engine::{EngineBuilder, PartState};
use splengine_core::files::{FilePolicy, OpenOptions};
use splengine_core::quota::ReleasedSpace;
use splengine_core::{BatchRequest, Engine, ErrorKind, FileError, LocalExecutor, Step};

use crate::files::{Bench, path};
use crate::store::TestStore;
use crate::support::caller;

fn bench_of(
    policy: impl FnOnce(FilePolicy) -> FilePolicy,
    engine: impl FnOnce(EngineBuilder) -> EngineBuilder,
) -> Bench {
    let base = tempfile::tempdir().expect("a directory");
    let root = base.path().join("root");
    fs::create_dir_all(root.join("data")).expect("made");
    fs::write(root.join("data/a"), "content").expect("made");
    let policy = policy(FilePolicy::new());
    let builder = Engine::builder(LocalExecutor::new(&root).expect("set up")).files(policy);
    let engine = engine(builder).build().expect("built");
    Bench { files: engine.files(), alice: caller("alice"), base }
}

#[tokio::test]
async fn nothing_is_written_below_the_floor_and_all_else_works() {
    let Bench { files, alice, base } =
        bench_of(|policy| policy, |engine| engine.disk_floor(u64::MAX));
    let write = OpenOptions::new().write();
    let open = files.open(&alice, path("data/a"), write.clone()).await.expect("opened");
    let refused = [
        files.replace(&alice, path("data/a"), &b"new"[..]).await.map(drop),
        files.replace(&alice, path("data/new"), &b"new"[..]).await.map(drop),
        files.copy(&alice, path("data/a"), path("data/new"), false).await.map(drop),
        files.open(&alice, path("data/new"), write.create()).await.map(drop),
        files.make_directory(&alice, path("data/new"), None).await,
        files.symlink(&alice, path("a"), path("data/new")).await,
        open.write_at(0, Bytes::from_static(b"new")).await,
    ];
    for (number, refused) in refused.into_iter().enumerate() {
        let error = refused.expect_err("below the floor");
        assert!(matches!(error, FileError::BelowFloor { .. }), "{number}: {error}");
        assert_eq!(error.kind(), ErrorKind::NoRoom, "{number}");
    }
    let data = base.path().join("root/data");
    assert_eq!(fs::read(data.join("a")).expect("read"), b"content");
    assert_eq!(fs::read_dir(&data).expect("read").count(), 1);

    let read = OpenOptions::new().read();
    let file = files.open(&alice, path("data/a"), read).await.expect("opened");
    assert_eq!(file.read_at(0, 100).await.expect("read"), "content");
    assert_eq!(
        files.list(&alice, path("data")).await.expect("listed").next().await.expect("read").len(),
        1
    );
    files.rename(&alice, path("data/a"), path("data/b"), false).await.expect("renamed");
    files.remove_file(&alice, path("data/b")).await.expect("removed");
}

#[tokio::test]
async fn above_the_floor_files_are_written() {
    let Bench { files, alice, base: _base } =
        bench_of(|policy| policy, |engine| engine.disk_floor(1));
    files.replace(&alice, path("data/new"), &b"new"[..]).await.expect("written");
}

#[tokio::test]
async fn what_a_store_gave_back_to_a_full_disk_is_not_for_files() {
    let base = tempfile::tempdir().expect("a directory");
    let (root, store) = (base.path().join("root"), TestStore::default());
    fs::create_dir(&root).expect("made");
    let batches = BatchPolicy::new(store.clone(), base.path().join("outputs"));
    let engine = Engine::builder(LocalExecutor::new(&root).expect("set up"))
        .files(FilePolicy::new())
        .batches(batches)
        .disk_floor(0)
        .build()
        .expect("built");
    let (files, alice) = (engine.files(), caller("alice"));
    let write = async || files.replace(&alice, path("a"), &b"new"[..]).await.map(drop);
    write().await.expect("written");
    assert!(engine.readiness().await.is_ready());

    let device = fs::metadata(&root).expect("there").dev();
    store.release(Some(ReleasedSpace::new(device, u64::MAX)));
    let refused = write().await.expect_err("that space is the store's");
    assert_eq!(refused.kind(), ErrorKind::NoRoom, "{refused}");
    // The first refusal of a batch is told by the readiness at once, however fresh what it knows is.
    let request = BatchRequest::new().step(Step::new("true"));
    let refused = engine.batches().submit(&alice, request, None).await.expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::NoRoom, "{refused}");
    let state = engine.readiness().await.state();
    assert!(matches!(state, PartState::Failing { .. }), "{state:?}");

    store.release(Some(ReleasedSpace::new(device + 1, u64::MAX)));
    write().await.expect("that is another disk");
    store.release(None);
    write().await.expect("it has its reserve again");
}
