//! Tests for which a host may lack something: they say so, or fail where it must not be lacking.

/// What some tests need and not each host has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Need {
    /// To run as root, with other users beside.
    Root,
    /// A cgroup of version 2 below which more can be made.
    Cgroup,
    /// A cgroup of version 1 that bounds memory.
    CgroupV1,
    /// To mount file systems in a namespace.
    Mount,
    /// To be killed for memory later than others.
    OomScore,
    /// To have privileges as a scheduler's and a capability that is handed down.
    Privileges,
}

impl Need {
    const ALL: [Self; 6] =
        [Self::Root, Self::Cgroup, Self::CgroupV1, Self::Mount, Self::OomScore, Self::Privileges];

    fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Cgroup => "cgroup",
            Self::CgroupV1 => "cgroup-v1",
            Self::Mount => "mount",
            Self::OomScore => "oom-score",
            Self::Privileges => "privileges",
        }
    }

    /// Whether this is among the names in `list`, with commas between; one that there is not is a mistake.
    fn is_required(self, list: &str) -> bool {
        let names: Vec<&str> =
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        for name in &names {
            let is_known = Self::ALL.iter().any(|need| need.name() == *name);
            assert!(is_known, "SPLENGINE_TEST_REQUIRE names `{name}`, which no test needs");
        }
        names.contains(&self.name())
    }
}

/// Says that the test, or a part of it, is left out since the host lacks `need`.
///
/// Fails where `SPLENGINE_TEST_REQUIRE`, a list with commas between, names it.
#[expect(clippy::print_stderr, reason = "a test tells why it leaves something out")]
pub(crate) fn skip(need: Need, reason: impl std::fmt::Display) {
    let required = std::env::var("SPLENGINE_TEST_REQUIRE").unwrap_or_default();
    assert!(!need.is_required(&required), "{} is required, but {reason}", need.name());
    eprintln!("skipped: {reason}");
}

#[test]
fn what_is_required_is_named() {
    assert!(Need::Root.is_required("root") && Need::Mount.is_required("root, mount"));
    assert!(!Need::Cgroup.is_required("cgroup-v1") && !Need::Cgroup.is_required(""));
    let mistake = std::panic::catch_unwind(|| Need::Root.is_required("rot"));
    assert!(mistake.is_err(), "a name that is misspelt requires nothing");
}
