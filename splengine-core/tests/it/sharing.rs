//! Whether others are served while something is worked at: for the tests of all servers.

use std::time::Duration;

use tokio::time::Instant;

/// The time of a processor that this thread has used.
pub(crate) fn processor_time() -> Duration {
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(used).expect("not negative")
}

/// Does `work`, and returns whether others were served meanwhile: whether less than one `part` of it went
/// by without them, of which only the time of the processor counts: others may need that, too.
pub(crate) async fn is_shared(work: impl Future<Output = ()>, part: u32) -> bool {
    let (begun, mut last, mut longest) = (Instant::now(), processor_time(), Duration::ZERO);
    let mut others = async || {
        loop {
            tokio::task::yield_now().await;
            let now = processor_time();
            longest = longest.max(now - last);
            last = now;
        }
    };
    tokio::select! {
        () = work => {}
        () = others() => {}
    }
    longest.max(processor_time() - last) < begun.elapsed() / part
}
