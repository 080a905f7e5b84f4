//! The rule for whose window sets the size of a terminal. Pure.

use crate::session::SizePolicy;
use crate::terminal::Size;

/// What a client that may type says of its window.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) size: Size,
    pub(crate) in_control: bool,
}

/// The size that a session's terminal should have.
pub(crate) fn decide(
    policy: SizePolicy,
    present: Size,
    windows: impl Iterator<Item = Window> + Clone,
) -> Size {
    let extreme = |pick: fn(u16, u16) -> u16| {
        windows
            .clone()
            .map(|window| window.size)
            .reduce(|a, b| Size::clamped(pick(a.cols(), b.cols()), pick(a.rows(), b.rows())))
    };
    let wanted = match policy {
        SizePolicy::Controller => {
            windows.clone().find(|window| window.in_control).map(|window| window.size)
        }
        SizePolicy::Smallest => extreme(u16::min),
        SizePolicy::Largest => extreme(u16::max),
        SizePolicy::Fixed => None,
    };
    wanted.unwrap_or(present)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_has_its_way() {
        let window =
            |cols, rows, in_control| Window { size: Size::clamped(cols, rows), in_control };
        let windows = [window(100, 20, false), window(90, 50, true)];
        let present = Size::default();
        for (policy, cols, rows) in [
            (SizePolicy::Controller, 90, 50),
            (SizePolicy::Smallest, 90, 20),
            (SizePolicy::Largest, 100, 50),
            (SizePolicy::Fixed, 80, 24),
        ] {
            let size = decide(policy, present, windows.iter().copied());
            assert_eq!((size.cols(), size.rows()), (cols, rows), "{policy:?}");
            assert_eq!(decide(policy, present, std::iter::empty()), present);
        }
    }
}
