//! Changes of files that are made if something is true of what is there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::pin::Pin;
use std::task::{Context, Poll};

use splengine_core::FileError;
use splengine_core::files::{FileInfo, FileListing, FileRevision};
use splengine_core::quota::LargeWork;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::files::{Bench, bench, path};
use crate::support::eventually;

impl Bench {
    async fn revision(&self, at: &str) -> FileRevision {
        self.files.stat(&self.alice, path(at)).await.expect("is there").revision()
    }
}

impl Bench {
    /// The clock of a file system may stand still for some milliseconds.
    async fn tick(&self) {
        let now = || {
            fs::write(self.root("clock"), "").expect("written");
            fs::metadata(self.root("clock")).and_then(|clock| clock.modified()).expect("a time")
        };
        let before = now();
        eventually("time goes on", || now() > before).await;
    }
}

fn is(revision: FileRevision) -> impl Fn(Option<&FileInfo>) -> bool {
    move |present| present.is_some_and(|info| info.revision() == revision)
}

fn is_absent(present: Option<&FileInfo>) -> bool {
    present.is_none()
}

fn is_changed<T: std::fmt::Debug>(result: Result<T, FileError>) -> bool {
    matches!(result, Err(FileError::Changed { .. }))
}

#[tokio::test]
async fn a_revision_is_another_after_every_change() {
    let bench = bench();
    let mut seen = vec![bench.revision("data/a").await];
    let mut look = async |what: &str| {
        let new = bench.revision("data/a").await;
        assert!(!seen.contains(&new), "{what}: {new}");
        assert_ne!(new.to_string(), seen[0].to_string());
        assert_eq!(bench.revision("data/a").await, new, "as long as nothing changes");
        seen.push(new);
    };
    let file = fs::File::options().write(true).open(bench.root("data/a")).expect("opens");
    let before = fs::metadata(bench.root("data/a")).expect("is there");
    bench.tick().await;
    file.write_all_at(b"CONTENT and more", 0).expect("written");
    look("longer").await;
    bench.tick().await;
    file.set_len(before.len()).expect("cut");
    look("as long, and different").await;
    bench.files.replace(&bench.alice, path("data/a"), &b"content"[..]).await.expect("replaced");
    look("replaced").await;
}

#[tokio::test]
async fn a_file_is_replaced_if_it_is_still_the_same() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let first = bench.revision("data/a").await;
    let replaced = files.replace_if(alice, path("data/a"), is(first), &b"second"[..]).await;
    let replaced = replaced.expect("nothing has changed");
    assert!(!replaced.is_new);
    assert_eq!(replaced.info.revision(), bench.revision("data/a").await);
    let late = files.replace_if(alice, path("data/a"), is(first), &b"lost"[..]).await;
    assert!(is_changed(late));
    assert!(is_changed(files.replace_if(alice, path("data/a"), is_absent, &b""[..]).await));
    assert!(is_changed(files.replace_if(alice, path("data/none"), is(first), &b""[..]).await));
    let made = files.replace_if(alice, path("data/b"), is_absent, &b"new"[..]).await;
    assert!(made.expect("nothing is there").is_new);
    assert_eq!((bench.content("data/a"), bench.content("data/b")), ("second".into(), "new".into()));
    assert_eq!(fs::read_dir(bench.root("data")).expect("read").count(), 3, "nothing is left over");
}

/// Content that comes when it is told to.
struct Late(Option<oneshot::Receiver<()>>, Option<oneshot::Sender<()>>);

impl AsyncRead for Late {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        // Whoever reads has looked before.
        drop(self.1.take());
        let Some(told) = &mut self.0 else { return Poll::Ready(Ok(())) };
        if Pin::new(told).poll(cx).is_ready() {
            self.0 = None;
            buffer.put_slice(b"late");
            return Poll::Ready(Ok(()));
        }
        Poll::Pending
    }
}

#[tokio::test]
async fn what_changes_while_the_content_comes_is_noticed() {
    let bench = bench();
    for (at, is_there) in [("data/a", true), ("data/new", false)] {
        let (files, alice) = (bench.files.clone(), bench.alice.clone());
        let ((go, told), (begun, begins)) = (oneshot::channel(), oneshot::channel::<()>());
        let before = is_there.then_some(bench.revision("data/a").await);
        let condition = move |present: Option<&FileInfo>| present.map(FileInfo::revision) == before;
        let writer = tokio::spawn(async move {
            files.replace_if(&alice, path(at), condition, Late(Some(told), Some(begun))).await
        });
        begins.await.expect_err("dropped");
        // By a program, not by us.
        fs::write(bench.root(at), "by somebody else").expect("written");
        go.send(()).expect("waited for");
        assert!(is_changed(writer.await.expect("no panic")), "{at}");
        assert_eq!(bench.content(at), "by somebody else");
    }
}

#[tokio::test]
async fn of_many_that_change_the_same_one_does() {
    let bench = bench();
    for round in 0..20 {
        let first = bench.revision("data/a").await;
        let mut tasks = JoinSet::new();
        for number in 0..8 {
            let (files, alice) = (bench.files.clone(), bench.alice.clone());
            tasks.spawn(async move {
                let content = format!("{round} {number}");
                let done = if number == 7 {
                    let condition = move |info: &FileInfo| info.revision() == first;
                    files.remove_file_if(&alice, path("data/a"), condition).await
                } else {
                    let written =
                        files.replace_if(&alice, path("data/a"), is(first), content.as_bytes());
                    written.await.map(drop)
                };
                match done {
                    Ok(()) => Some(content),
                    Err(FileError::Changed { .. } | FileError::NotFound { .. }) => None,
                    Err(error) => panic!("{error}"),
                }
            });
        }
        let done: Vec<String> = tasks.join_all().await.into_iter().flatten().collect();
        let [winner] = &done[..] else { panic!("{done:?}") };
        if winner.ends_with('7') {
            assert!(!bench.root("data/a").exists());
            fs::write(bench.root("data/a"), "again").expect("written");
        } else {
            assert_eq!(&bench.content("data/a"), winner);
        }
    }
}

#[tokio::test]
async fn a_file_is_removed_if_it_is_still_the_same() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    assert!(is_changed(files.remove_file_if(alice, path("data/a"), |_| false).await));
    assert_eq!(bench.content("data/a"), "content");
    files.remove_file_if(alice, path("data/a"), |info| info.size == 7).await.expect("removed");
    assert!(!bench.root("data/a").exists());
}

#[tokio::test]
async fn a_file_is_copied() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let content: Vec<u8> = (0..700_000_u32).map(|number| (number % 251) as u8).collect();
    fs::write(bench.root("data/a"), &content).expect("written");
    fs::set_permissions(bench.root("data/a"), fs::Permissions::from_mode(0o750)).expect("set");
    let copied = files.copy(alice, path("data/a"), path("data/b"), false).await.expect("copied");
    assert!(copied.is_new);
    assert_eq!((copied.info.size, bench.mode("data/b")), (700_000, 0o750));
    assert!(fs::read(bench.root("data/b")).expect("is there") == content);
    fs::write(bench.root("data/a"), "other").expect("written");
    let refused = files.copy(alice, path("data/a"), path("data/b"), false).await;
    assert!(matches!(refused, Err(FileError::Exists { .. })), "{refused:?}");
    let copied = files.copy(alice, path("data/a"), path("data/b"), true).await.expect("copied");
    assert!(!copied.is_new);
    assert_eq!(bench.content("data/b"), "other");
    for (from, to) in [("data", "c"), ("runtime/sessions/secret", "c"), ("data/a", "runtime/x")] {
        assert!(files.copy(alice, path(from), path(to), true).await.is_err(), "{from} {to}");
    }
    assert!(!bench.root("c").exists());
}

#[tokio::test]
async fn a_directory_is_read_page_by_page() {
    let bench = bench();
    fs::create_dir(bench.root("many")).expect("made");
    let mut names: Vec<String> = (0..700).map(|number| format!("{number:x}")).collect();
    for name in &names {
        fs::write(bench.root(&format!("many/{name}")), "").expect("made");
    }
    names.sort();
    let (mut read, mut after) = (Vec::new(), None::<String>);
    for number in 0..4 {
        let listing = bench.files.list(&bench.alice, path("many")).await.expect("a directory");
        let page = listing.page(after.as_deref().map(OsStr::new), 200).await;
        let (page, is_more) = page.expect("read");
        assert_eq!(is_more, number < 3);
        read.extend(page.into_iter().map(|entry| entry.name.into_string().expect("text")));
        after = read.last().cloned();
    }
    assert_eq!(read, names);
    let root: FileListing = bench.files.list(&bench.alice, path("/")).await.expect("a directory");
    let (page, is_more) = root.page(None, 0).await.expect("read");
    assert_eq!((page.len(), is_more), (1, true), "one at the least, and nothing that is hidden");
}

#[tokio::test]
async fn a_page_of_a_directory_ends_before_its_names_are_too_long() {
    let bench = bench();
    fs::create_dir(bench.root("many")).expect("made");
    // Long ones and short ones, in an order that is not that of their making.
    let name = |number: usize| {
        let length = if number.is_multiple_of(3) { 0 } else { 245 };
        format!("{:05}{}", number * 7919 % 9000, "x".repeat(length))
    };
    let mut names: Vec<String> = (0..9000).map(name).collect();
    for name in &names {
        fs::write(bench.root(&format!("many/{name}")), "").expect("made");
    }
    names.sort();
    let (mut read, mut after, mut pages) = (Vec::new(), None::<String>, Vec::new());
    loop {
        let listing = bench.files.list(&bench.alice, path("many")).await.expect("a directory");
        let page = listing.page(after.as_deref().map(OsStr::new), FileListing::MAX_PAGE).await;
        let (page, is_more) = page.expect("read");
        pages.push(page.iter().map(|entry| entry.name.len()).sum::<usize>());
        read.extend(page.into_iter().map(|entry| entry.name.into_string().expect("text")));
        if !is_more {
            break;
        }
        after = read.last().cloned();
    }
    assert_eq!(read, names, "none is lost, and none is there twice");
    // But for the last, each is as long as one more name lets it be.
    let full = LargeWork::MAX_PAGE_BYTES - 255..=LargeWork::MAX_PAGE_BYTES;
    assert!(pages.len() == 2 && full.contains(&pages[0]), "{pages:?}");
}

#[tokio::test]
async fn a_name_is_given_if_what_has_the_other_is_still_the_same() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let first = bench.revision("data/a").await;
    bench.files.replace(alice, path("data/a"), &b"second"[..]).await.expect("replaced");
    let same = move |info: &FileInfo| info.revision() == first;
    let late = files.rename_if(alice, path("data/a"), path("data/b"), true, same).await;
    assert!(is_changed(late));
    assert!(is_changed(files.copy_if(alice, path("data/a"), path("data/b"), true, same).await));
    assert!(!bench.root("data/b").exists());
    let six = |info: &FileInfo| info.size == 6;
    let copied = files.copy_if(alice, path("data/a"), path("data/b"), true, six).await;
    assert!(copied.expect("copied").is_new);
    let renamed = files.rename_if(alice, path("data/a"), path("data/b"), true, six).await;
    let renamed = renamed.expect("renamed");
    assert_eq!((renamed.is_new, renamed.info.size), (false, 6));
    assert!(!bench.root("data/a").exists());
}

/// A change that was asked for while another is made is made of what that one left.
#[tokio::test]
async fn a_move_and_a_write_of_the_same_file_are_made_one_after_the_other() {
    let bench = bench();
    for round in 0..50 {
        fs::write(bench.root("data/a"), "first").expect("written");
        let first = bench.revision("data/a").await;
        let write = bench.files.replace_if(&bench.alice, path("data/a"), is(first), &b"second"[..]);
        let same = move |info: &FileInfo| info.revision() == first;
        let moved = bench.files.rename_if(&bench.alice, path("data/a"), path("data/b"), true, same);
        let (written, moved) = tokio::join!(write, moved);
        match (&written, &moved) {
            (Ok(_), Err(FileError::Changed { .. })) => {
                assert_eq!(bench.content("data/a"), "second")
            }
            (Err(FileError::Changed { .. }), Ok(_)) => assert_eq!(bench.content("data/b"), "first"),
            _ => panic!("{round}: {written:?} {moved:?}"),
        }
    }
}

#[tokio::test]
async fn files_in_the_making_are_nobodys() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    // As a crash on a file system without nameless files leaves one.
    let left = format!("data/.splengine-{}", "a".repeat(26));
    fs::write(bench.root(&left), "half").expect("written");
    fs::write(bench.root("data/.splengine-notes"), "mine").expect("written");
    assert!(files.stat(alice, path(&left)).await.is_err());
    assert!(files.replace(alice, path(&left), &b"evil"[..]).await.is_err());
    assert!(files.rename(alice, path(&left), path("data/b"), true).await.is_err());
    assert!(files.remove_file(alice, path(&left)).await.is_err());
    assert!(files.stat(alice, path("data/.splengine-notes")).await.is_ok());
    let listing = files.list(alice, path("data")).await.expect("a directory");
    let (page, _) = listing.page(None, 100).await.expect("read");
    let names: Vec<_> = page.iter().map(|entry| &*entry.name).collect();
    assert_eq!(names, [".splengine-notes", "a", "deep"]);
}

#[tokio::test]
async fn a_program_that_runs_is_replaced() {
    let bench = bench();
    // By another process: what another test starts at this moment would have it open for writing.
    let mut copy = std::process::Command::new("cp");
    let copied = copy.arg("/bin/sleep").arg(bench.root("sleep")).status();
    assert!(copied.expect("starts").success());
    let mut child =
        std::process::Command::new(bench.root("sleep")).arg("60").spawn().expect("runs");
    let replaced = bench.files.replace(&bench.alice, path("sleep"), &b"another"[..]).await;
    child.kill().expect("ours");
    child.wait().expect("ours");
    replaced.expect("replaced");
    assert_eq!(bench.content("sleep"), "another");
}

#[tokio::test]
async fn nothing_is_made_where_it_can_not_be_reached() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    let deep = "d/".repeat(127);
    fs::create_dir_all(bench.root(&deep)).expect("made");
    files.make_directory(alice, path(&format!("{deep}e")), None).await.expect("the last one");
    let beyond = format!("{deep}e/f");
    assert!(files.make_directory(alice, path(&beyond), None).await.is_err());
    assert!(files.replace(alice, path(&beyond), &b""[..]).await.is_err());
    assert_eq!(fs::read_dir(bench.root(&format!("{deep}e"))).expect("read").count(), 0);
    files.remove_directory(alice, path(&format!("{deep}e"))).await.expect("removed");
}

#[tokio::test]
async fn a_file_is_not_named_as_a_directory() {
    let bench = bench();
    let (files, alice) = (&bench.files, &bench.alice);
    for (from, to) in [("data/a/", "b"), ("data/a", "b/"), ("data/a", "b/."), ("data/a/.", "b")] {
        let moved = files.rename(alice, path(from), path(to), false).await;
        assert!(matches!(moved, Err(FileError::NotDirectory { .. })), "{from} {to}: {moved:?}");
    }
    let made = files.replace(alice, path("data/b/."), &b""[..]).await;
    assert!(matches!(made, Err(FileError::IsDirectory { .. })), "{made:?}");
    files.rename(alice, path("data/deep/"), path("moved/"), false).await.expect("a directory");
    let missing = files.replace(alice, path("none/b"), &b""[..]).await;
    assert!(matches!(missing, Err(FileError::NoDirectory { .. })), "{missing:?}");
}
