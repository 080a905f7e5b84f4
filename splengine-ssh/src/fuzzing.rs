//! What fuzzers feed, and what must hold whatever they do. In no other build.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use crate::sftp::look_at;
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
        let _ = from.map(|from| entry.admit(from, UNIX_EPOCH).is_ok());
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
    }
}
