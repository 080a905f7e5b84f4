//! What fuzzers feed, and what must hold whatever they do. In no other build.

use std::net::IpAddr;
use std::time::UNIX_EPOCH;

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

#[cfg(test)]
mod tests {
    /// The fuzzer's seeds, without the fuzzer.
    #[test]
    fn seeds_do_no_harm() {
        let seeds = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/authorized_keys");
        let mut count = 0;
        for seed in std::fs::read_dir(seeds).expect("a directory") {
            super::authorized_keys(&std::fs::read(seed.expect("a file").path()).expect("read"));
            count += 1;
        }
        assert!(count > 5, "only {count}");
    }
}
