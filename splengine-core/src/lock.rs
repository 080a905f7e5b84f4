//! Locks on files that a killed process may hold a moment longer than it lives.

use std::time::Duration;

/// Tries again for a while what fails since another process has it. A process that was killed while
/// it started a program leaves a copy of its open files to that program, until that is loaded: the
/// next engine must neither take that for another engine, nor look for what is left running before
/// it is over. Blocks.
pub(crate) fn once_free<T, E>(
    mut take: impl FnMut() -> Result<T, E>,
    is_held: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..TRIES {
        match take() {
            Err(error) if is_held(&error) => std::thread::sleep(PAUSE),
            taken => return taken,
        }
    }
    take()
}

const TRIES: u32 = 200;
const PAUSE: Duration = Duration::from_millis(10);
