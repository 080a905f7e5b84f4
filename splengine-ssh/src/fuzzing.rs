//! Entry points of the fuzz targets, in no other build, with the properties that must hold for all
//! input.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, UNIX_EPOCH};

use bytes::Bytes;
use splengine_core::execute::{Cancel, Command, Exit, ExitStatus, Output, Stdin};
use splengine_core::files::FilePolicy;
use splengine_core::{Caller, Engine, Execute, ExecuteError};
use tokio::time::timeout;

use crate::sftp::{MAX_REQUESTS, Options, look_at, serve};
use crate::users::{lines, parse, parse_plain};

/// A file in OpenSSH's authorized_keys format.
///
/// # Panics
///
/// When something does not hold.
pub fn authorized_keys(file: &[u8]) {
    for (number, text) in lines(file) {
        let Ok(text) = text else { continue };
        assert!(!text.contains(['\n', '\0']));
        let alone = parse_plain(text).ok();
        let Ok(entry) = parse(number, text) else { continue };
        let from = [IpAddr::from([10, 0, 0, 1]), "2001:db8::1".parse().unwrap_or([0; 16].into())];
        let _ = from.map(|from| entry.admit(Some(from), UNIX_EPOCH).is_ok());
        // A key alone is an entry without options, and one with options is no key alone.
        let separator = if alone.is_some() { ' ' } else { ',' };
        assert!(alone.is_none_or(|key| key == entry.key));
        // One option more changes what it says, and nothing else.
        let more = parse(number, &format!("view-only{separator}{text}"));
        let mut expected = entry;
        expected.options.view_only = true;
        assert!(more.is_ok_and(|more| more == expected));
    }
}

/// What an SFTP client sends: packets, each after its length.
///
/// # Panics
///
/// When something does not hold.
pub fn sftp(stream: &[u8]) {
    let mut rest = Bytes::copy_from_slice(stream);
    while rest.len() > 4 {
        let length =
            rest.split_to(4).iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
        let packet = rest.split_to(length.min(rest.len()));
        look_at(packet);
    }
}

/// Serves an SFTP client that sends packets, each after two bytes with its length, and begins as the
/// protocol wants it. A packet's length of four bytes is put before it, so that it arrives whole.
///
/// # Panics
///
/// When a property does not hold: the client is answered in packets, in time, and nothing outside of
/// its directory changes.
pub fn sftp_server(mut bytes: &[u8]) {
    let mut stream = vec![0, 0, 0, 5, 1, 0, 0, 0, 3];
    while let Some((length, rest)) = bytes.split_first_chunk() {
        let (packet, after) =
            rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
        stream.extend((packet.len() as u32).to_be_bytes());
        stream.extend(packet);
        bytes = after;
    }
    let directory = Directory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answers = runtime.expect("a runtime").block_on(async {
        let root = directory.0.join("root");
        let serving = serve_from(&root, &stream);
        timeout(Duration::from_secs(5), serving).await.expect("answered in time")
    });
    let mut rest = &answers[..];
    while let Some((length, after)) = rest.split_first_chunk() {
        let packet = after.get(..u32::from_be_bytes(*length) as usize).expect("a whole packet");
        // Of SSH_FXP_VERSION, STATUS, HANDLE, DATA, NAME, ATTRS, EXTENDED_REPLY.
        assert!(matches!(packet[0], 2 | 101..=105 | 201), "an answer of type {}", packet[0]);
        rest = &after[packet.len()..];
    }
    assert!(rest.is_empty(), "an answer that is cut short");
    assert_eq!(std::fs::read(directory.0.join("outside")).expect("read"), b"outside");
    let names = std::fs::read_dir(&directory.0).expect("read").count();
    assert_eq!(names, 2, "something was made outside");
}

/// Gives all that is answered.
async fn serve_from(root: &Path, stream: &[u8]) -> Vec<u8> {
    let files = FilePolicy::new().root(root);
    let engine = Engine::builder(NoExecutor).files(files).build().expect("an engine");
    let caller = Caller::new("fuzzer").expect("a name").with_all_scopes();
    let mut answers = Vec::new();
    // An error ends the connection: the packet could not be answered.
    let _ = serve(
        engine.files(),
        caller,
        Options::default(),
        stream,
        &mut answers,
        MAX_REQUESTS,
        engine.memory_budget(8 << 20),
    )
    .await;
    answers
}

/// A directory with a `root` and a file beside it, removed when dropped.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("splengine-fuzz-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = std::fs::remove_dir_all(&path);
        let made = std::fs::create_dir_all(path.join("root/d"))
            .and_then(|()| std::fs::write(path.join("outside"), "outside"))
            .and_then(|()| std::fs::write(path.join("root/a"), "content"))
            .and_then(|()| std::os::unix::fs::symlink("../outside", path.join("root/l")));
        made.expect("a directory for files");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

struct NoExecutor;

impl Execute for NoExecutor {
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

#[cfg(test)]
mod tests {
    /// A fuzzer's seeds, without the fuzzer.
    fn replay(target: &str, feed: fn(&[u8])) {
        let seeds = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
        let mut count = 0;
        for seed in std::fs::read_dir(seeds).expect("a directory") {
            feed(&std::fs::read(seed.expect("a file").path()).expect("read"));
            count += 1;
        }
        assert!(count > 5, "only {count}");
    }

    #[test]
    fn seeds_do_no_harm() {
        replay("authorized_keys", super::authorized_keys);
        replay("sftp", super::sftp);
        replay("sftp_server", super::sftp_server);
    }
}
