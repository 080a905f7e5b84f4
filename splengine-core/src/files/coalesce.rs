//! Events of the kernel about a directory, merged to the events that watchers get. Pure.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use rustix::fs::inotify::ReadFlags;

use crate::files::FileEvent;

/// An event as the kernel tells it.
pub(crate) struct Raw {
    pub(crate) flags: ReadFlags,
    /// The same of both halves of a rename.
    pub(crate) cookie: u32,
    /// `None`: of the directory itself.
    pub(crate) name: Option<OsString>,
}

/// What is yet to be told. Does no I/O.
#[derive(Default)]
pub(crate) struct Pending {
    events: VecDeque<FileEvent>,
    /// Names of which the last event in there lets its reader look anew: what happens to them
    /// meanwhile needs no event of its own.
    fresh: HashSet<OsString>,
    pub(crate) half: Option<Half>,
    pub(crate) is_gone: bool,
}

/// The first half of a rename.
pub(crate) struct Half {
    cookie: u32,
    name: OsString,
}

impl Pending {
    pub(crate) fn take(&mut self, raw: Raw, is_hidden: bool) {
        let Raw { flags, cookie, name } = raw;
        if self.is_gone {
            return;
        }
        let is_other_half = |half: &mut Half| {
            flags.contains(ReadFlags::MOVED_TO) && !is_hidden && half.cookie == cookie
        };
        let half = self.half.take_if(is_other_half);
        self.give_up_half();
        if flags.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.overflow();
        } else if flags.intersects(gone()) {
            self.is_gone = true;
            self.events.push_back(FileEvent::Gone);
        }
        let Some(name) = name.filter(|_| !is_hidden) else { return };
        if let Some(half) = half {
            self.push(FileEvent::Renamed { from: half.name, to: name });
        } else if flags.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            self.push(FileEvent::Created { name, is_directory: flags.contains(ReadFlags::ISDIR) });
        } else if flags.contains(ReadFlags::MOVED_FROM) {
            self.half = Some(Half { cookie, name });
        } else if flags.contains(ReadFlags::DELETE) {
            self.push(FileEvent::Removed { name });
        } else if flags.intersects(modified()) && !self.fresh.contains(&name) && !is_nameless(&name)
        {
            self.push(FileEvent::Modified { name });
        }
    }

    /// The other half went to another directory, or to a hidden name.
    pub(crate) fn give_up_half(&mut self) {
        if let Some(half) = self.half.take() {
            self.push(FileEvent::Removed { name: half.name });
        }
    }

    fn push(&mut self, event: FileEvent) {
        // The list that its reader makes after that shows this, too.
        if self.events.front() == Some(&FileEvent::Overflow) {
            return;
        }
        if self.events.len() >= MAX_PENDING {
            return self.overflow();
        }
        match &event {
            FileEvent::Created { name, .. } | FileEvent::Modified { name } => {
                self.fresh.insert(name.clone());
            }
            event => self.forget(event),
        }
        self.events.push_back(event);
    }

    fn overflow(&mut self) {
        self.half = None;
        self.fresh.clear();
        self.events.clear();
        self.events.push_back(FileEvent::Overflow);
    }

    pub(crate) fn pop(&mut self) -> Option<FileEvent> {
        let event = self.events.pop_front()?;
        self.forget(&event);
        Some(event)
    }

    fn forget(&mut self, event: &FileEvent) {
        match event {
            FileEvent::Created { name, .. }
            | FileEvent::Modified { name }
            | FileEvent::Removed { name } => {
                self.fresh.remove(name);
            }
            FileEvent::Renamed { from, to } => {
                self.fresh.remove(from);
                self.fresh.remove(to);
            }
            FileEvent::Overflow | FileEvent::Gone => {}
        }
    }
}

/// Files without a name (`O_TMPFILE`) have this one for the kernel.
fn is_nameless(name: &OsStr) -> bool {
    let number = name.as_bytes().strip_prefix(b"#");
    number.is_some_and(|number| !number.is_empty() && number.iter().all(u8::is_ascii_digit))
}

fn modified() -> ReadFlags {
    ReadFlags::MODIFY | ReadFlags::CLOSE_WRITE | ReadFlags::ATTRIB
}

fn gone() -> ReadFlags {
    ReadFlags::DELETE_SELF | ReadFlags::MOVE_SELF | ReadFlags::IGNORED | ReadFlags::UNMOUNT
}

/// Of events that are not told yet.
pub(super) const MAX_PENDING: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(flags: ReadFlags, cookie: u32, name: &str) -> Raw {
        Raw { flags, cookie, name: (!name.is_empty()).then(|| name.into()) }
    }

    /// What is told after these, of which names that begin with a dot are hidden.
    fn told(raw_events: &[(ReadFlags, u32, &str)]) -> Vec<String> {
        let mut pending = Pending::default();
        for (flags, cookie, name) in raw_events {
            pending.take(raw(*flags, *cookie, name), name.starts_with('.'));
        }
        pending.give_up_half();
        all(&mut pending)
    }

    fn all(pending: &mut Pending) -> Vec<String> {
        let events = std::iter::from_fn(|| pending.pop());
        let told = events.map(|event| match event {
            FileEvent::Created { name, is_directory: false } => format!("+{}", name.display()),
            FileEvent::Created { name, is_directory: true } => format!("+{}/", name.display()),
            FileEvent::Modified { name } => format!("={}", name.display()),
            FileEvent::Removed { name } => format!("-{}", name.display()),
            FileEvent::Renamed { from, to } => format!("{}>{}", from.display(), to.display()),
            other => format!("{other:?}"),
        });
        let told = told.collect();
        assert!(pending.fresh.is_empty(), "{:?}", pending.fresh);
        told
    }

    #[test]
    fn each_event_is_told_as_what_it_is() {
        use ReadFlags as F;
        for (flags, wanted) in [
            (F::CREATE, "+a"),
            (F::CREATE | F::ISDIR, "+a/"),
            (F::MOVED_TO | F::ISDIR, "+a/"),
            (F::MODIFY, "=a"),
            (F::CLOSE_WRITE, "=a"),
            (F::ATTRIB | F::ISDIR, "=a"),
            (F::DELETE, "-a"),
            (F::MOVED_FROM, "-a"),
        ] {
            assert_eq!(told(&[(flags, 0, "a")]), [wanted], "{flags:?}");
            assert!(told(&[(flags, 0, ".a")]).is_empty(), "{flags:?}");
        }
        // Of a file without a name.
        assert!(told(&[(F::MODIFY, 0, "#123"), (F::CLOSE_WRITE, 0, "#123")]).is_empty());
        assert_eq!(told(&[(F::CREATE, 0, "#123"), (F::MODIFY, 0, "#")]), ["+#123", "=#"]);
        // Of the directory itself.
        assert!(told(&[(F::ATTRIB, 0, "")]).is_empty());
        for flags in [F::DELETE_SELF, F::MOVE_SELF, F::IGNORED, F::UNMOUNT] {
            let events = [(F::MOVED_FROM, 1, "a"), (flags, 0, ""), (F::IGNORED, 0, "")];
            assert_eq!(told(&events), ["-a", "Gone"], "{flags:?}");
        }
    }

    #[test]
    fn a_rename_needs_both_halves_in_sequence() {
        let from = |cookie, name| (ReadFlags::MOVED_FROM, cookie, name);
        let to = |cookie, name| (ReadFlags::MOVED_TO, cookie, name);
        let change = (ReadFlags::MODIFY, 0, "c");
        for (events, wanted) in [
            (&[from(1, "a"), to(1, "b")][..], &["a>b"][..]),
            (&[from(1, "a"), to(2, "b")], &["-a", "+b"]),
            (&[from(1, "a"), change, to(1, "b")], &["-a", "=c", "+b"]),
            (&[from(1, "a"), from(2, "b"), to(2, "c")], &["-a", "b>c"]),
            (&[from(1, "a"), to(1, ".b")], &["-a"]),
            (&[from(1, ".a"), to(1, "b")], &["+b"]),
            (&[from(1, ".a"), to(1, ".b")], &[]),
            (&[to(1, "a"), from(1, "b")], &["+a", "-b"]),
        ] {
            assert_eq!(told(events), wanted);
        }
    }

    #[test]
    fn changes_are_told_once_for_each_name_that_waits() {
        let change = |name| (ReadFlags::MODIFY, 0, name);
        let create = |name| (ReadFlags::CREATE, 0, name);
        let remove = |name| (ReadFlags::DELETE, 0, name);
        let from_to = |from, to| [(ReadFlags::MOVED_FROM, 1, from), (ReadFlags::MOVED_TO, 1, to)];
        let [a, b] = from_to("a", "b");
        for (events, wanted) in [
            (&[change("a"), change("b"), change("a"), change("b")][..], &["=a", "=b"][..]),
            (&[create("a"), change("a"), change("a")], &["+a"]),
            (&[change("a"), remove("a"), create("a"), change("a")], &["=a", "-a", "+a"]),
            (&[create("a"), remove("a"), change("a")], &["+a", "-a", "=a"]),
            // Who knew `a` takes `b` for what that was.
            (&[change("b"), a, b, change("b"), change("b")], &["=b", "a>b", "=b"]),
        ] {
            assert_eq!(told(events), wanted);
        }

        let mut pending = Pending::default();
        pending.take(raw(ReadFlags::MODIFY, 0, "a"), false);
        assert_eq!(all(&mut pending), ["=a"]);
        pending.take(raw(ReadFlags::MODIFY, 0, "a"), false);
        assert_eq!(all(&mut pending), ["=a"]);
    }

    #[test]
    fn too_much_is_told_as_an_overflow() {
        let kernels = [
            (ReadFlags::CREATE, 0, "a"),
            (ReadFlags::MOVED_FROM, 1, "b"),
            (ReadFlags::QUEUE_OVERFLOW, 0, ""),
            (ReadFlags::MOVED_TO, 1, "c"),
            (ReadFlags::DELETE_SELF, 0, ""),
        ];
        assert_eq!(told(&kernels), ["Overflow", "Gone"]);

        let mut pending = Pending::default();
        let fill = |pending: &mut Pending, count| {
            for number in 0..count {
                pending.take(raw(ReadFlags::CREATE, 0, &number.to_string()), false);
            }
        };
        fill(&mut pending, MAX_PENDING);
        assert_eq!(all(&mut pending).len(), MAX_PENDING);
        for count in [MAX_PENDING + 1, 10 * MAX_PENDING] {
            fill(&mut pending, count);
            assert_eq!(all(&mut pending), ["Overflow"]);
        }
        fill(&mut pending, 1);
        assert_eq!(all(&mut pending), ["+0"]);
    }
}
