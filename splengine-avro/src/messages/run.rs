//! Commands run to their end.

use std::pin::pin;
use std::str::Utf8Chunk;
use std::time::Duration;

use bytes::Bytes;
use splengine_core::execute::{Background, Gap, LimitKind, SlowReader, Stdin};
use splengine_core::quota::LargeWorkPermit;
use splengine_core::{Captured, Limits, Reason, Request};

use crate::context::{CallContext, MIN_ANSWER_BYTES, off_workers};
use crate::datum::named;
use crate::error::Failure;
use crate::messages::{long, millis, positive};
use crate::records::{self, Command, ExecutionResult, RunRequest, RunResult};

/// What a command asks for.
pub(crate) fn command(command: Command) -> Result<Request, Failure> {
    let Command { command, args, workdir, session_id } = command;
    let mut request = Request::new(command).args(args).slow_reader(SlowReader::Wait);
    if let Some(workdir) = workdir {
        request = request.workdir(workdir);
    }
    if let Some(id) = session_id {
        request = request.session_id(&id);
    }
    Ok(request)
}

pub(crate) async fn execute(
    ask: &CallContext<'_>,
    request: Request,
    permit: LargeWorkPermit,
) -> Result<(ExecutionResult, Reason), Failure> {
    let (captured, session_id) = perform(ask, request, permit).await?;
    let Captured { stdout, stderr, end, .. } = captured;
    let reason = end.reason;
    let outputs = vec![(stdout, end.stdout_gap), (stderr, end.stderr_gap)];
    let [stdout, stderr] = in_text(ask, outputs).await?.try_into().unwrap_or_default();
    let (exit_code, duration) = (end.exit_code, millis(end.duration));
    let result = ExecutionResult { exit_code, stdout, stderr, duration, session_id };
    Ok((result, reason))
}

/// What a call of `run` asks for.
pub(crate) fn request(asked: RunRequest) -> Result<Request, Failure> {
    let mut request = Request::new(asked.command).args(asked.args).slow_reader(SlowReader::Wait);
    if let Some(workdir) = asked.workdir {
        request = request.workdir(workdir);
    }
    if let Some(id) = asked.session_id {
        request = request.session_id(&id);
    }
    for (name, value) in asked.env {
        request = request.env(name, value);
    }
    if let Some(stdin) = asked.stdin {
        request = request.stdin(Stdin::bytes(stdin));
    }
    if let Some(timeout) = asked.timeout {
        request = request.timeout(Duration::from_millis(positive("timeout", timeout)?));
    }
    if let Some(limit) = asked.output_limit {
        request = request.output_limit(positive("outputLimit", limit)?);
    }
    if let Some(timeout) = asked.idle_timeout {
        let timeout = positive("idleTimeout", timeout)?;
        request = request.idle_timeout(Duration::from_millis(timeout));
    }
    request = asked.mask.into_iter().fold(request, Request::mask).use_shell(asked.shell);
    if let Some(limits) = asked.limits {
        request = request.limits(self::limits(&limits)?);
    }
    Ok(request.background(background(asked.background)))
}

pub(crate) async fn run(
    ask: &CallContext<'_>,
    request: Request,
    permit: LargeWorkPermit,
) -> Result<RunResult, Failure> {
    let (captured, session_id) = perform(ask, request, permit).await?;
    let length = captured.stdout.len() + captured.stderr.len();
    if length > MIN_ANSWER_BYTES {
        ask.reserve_answer(length).await?;
    }
    let end = captured.end;
    let gap = |gap: Option<Gap>| gap.map(|gap| long(gap.at));
    Ok(RunResult {
        success: end.success(),
        exit_code: end.exit_code,
        stdout: captured.stdout,
        stderr: captured.stderr,
        duration: millis(end.duration),
        session_id,
        reason: reason(end.reason),
        signal: end.signal.map(|signal| signal.to_string()),
        stdout_bytes: long(end.stdout_bytes),
        stderr_bytes: long(end.stderr_bytes),
        stdout_truncated: end.stdout_truncated,
        stderr_truncated: end.stderr_truncated,
        stdout_gap: gap(end.stdout_gap),
        stderr_gap: gap(end.stderr_gap),
        cpu_time: end.usage.cpu_time.map(millis),
        peak_memory: end.usage.peak_memory.map(long),
        processes: end.usage.processes.map(long),
    })
}

async fn perform(
    ask: &CallContext<'_>,
    request: Request,
    permit: LargeWorkPermit,
) -> Result<(Captured, String), Failure> {
    let request = request.large_work_permit(permit);
    // Pinned here, since moving it costs.
    let run = pin!(ask.engine.execute(&ask.caller, request));
    let run = ask.in_time(run).await?;
    let session_id = run.session_id().as_str().to_owned();
    Ok((ask.whole(run).await, session_id))
}

/// An output, and where a part of it is missing.
pub(crate) type Kept = (Bytes, Option<Gap>);

/// Outputs as text, in which a line stands in the place of a gap: their records have no other place for
/// that. Where they are large, memory for the texts and for an answer of them is reserved before, and they
/// are made off the runtime's workers.
pub(crate) async fn in_text(
    ask: &CallContext<'_>,
    outputs: Vec<Kept>,
) -> Result<Vec<String>, Failure> {
    if outputs.iter().map(|(bytes, _)| bytes.len()).sum::<usize>() <= MIN_ANSWER_BYTES {
        return Ok(outputs.iter().map(text).collect());
    }
    let measured = off_workers(move || (outputs.iter().map(text_length).sum::<usize>(), outputs));
    let (length, outputs) = measured.await?;
    ask.reserve_answer(length.saturating_mul(2)).await?;
    off_workers(move || outputs.iter().map(text).collect()).await
}

/// A line that stands in the place of a gap, and what it stands between.
fn around_gap((bytes, gap): &Kept) -> (&[u8], String, &[u8]) {
    let at = gap.and_then(|gap| usize::try_from(gap.at).ok());
    let Some((at, gap)) = at.filter(|at| *at <= bytes.len()).zip(*gap) else {
        return (bytes, String::new(), &[]);
    };
    let (head, tail) = bytes.split_at(at);
    let end = if head.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    (head, format!("{end}{gap}\n"), tail)
}

fn text_length(output: &Kept) -> usize {
    let (head, line, tail) = around_gap(output);
    let length = |bytes: &[u8]| bytes.utf8_chunks().flat_map(shown).map(str::len).sum::<usize>();
    length(head) + line.len() + length(tail)
}

fn text(output: &Kept) -> String {
    let (head, line, tail) = around_gap(output);
    let mut text = String::with_capacity(text_length(output));
    text.extend(head.utf8_chunks().flat_map(shown));
    text.push_str(&line);
    text.extend(tail.utf8_chunks().flat_map(shown));
    text
}

/// A part of an output as text, in which one character stands for bytes that are no UTF-8.
fn shown(chunk: Utf8Chunk<'_>) -> [&str; 2] {
    [chunk.valid(), if chunk.invalid().is_empty() { "" } else { REPLACEMENT }]
}

pub(crate) fn reason(reason: Reason) -> records::Reason {
    named(reason.name()).unwrap_or(records::Reason::Unknown)
}

pub(crate) fn background(background: records::Background) -> Background {
    match background {
        records::Background::Kill => Background::Kill,
        records::Background::Keep => Background::Keep,
    }
}

pub(crate) fn limits(asked: &records::Limits) -> Result<Limits, Failure> {
    // Each is named, so that none is forgotten.
    let records::Limits { cpu_time, memory, open_files, file_size, processes, address_space } =
        *asked;
    let all = [
        (LimitKind::CpuTime, cpu_time),
        (LimitKind::Memory, memory),
        (LimitKind::OpenFiles, open_files),
        (LimitKind::FileSize, file_size),
        (LimitKind::Processes, processes),
        (LimitKind::AddressSpace, address_space),
    ];
    all.into_iter().try_fold(Limits::default(), |limits, (kind, value)| match value {
        Some(value) => Ok(limits.with(kind, positive(kind.name(), value)?)),
        None => Ok(limits),
    })
}

impl ExecutionResult {
    /// The length of its output.
    pub(crate) fn size(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

impl RunResult {
    /// The length of its output.
    pub(crate) fn size(&self) -> usize {
        self.stdout.len() + self.stderr.len()
    }
}

/// What stands for bytes that are no UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use splengine_core::text::camel_case;

    use super::*;
    use crate::datum::{Datum, Fields as _, Reader};

    proptest! {
        #[test]
        fn an_output_without_a_gap_is_what_it_is_as_text(
            bytes in prop::collection::vec(
                prop_oneof![any::<u8>(), Just(0xe2), Just(0x82), Just(0xac)], 0..40),
        ) {
            let expected = String::from_utf8_lossy(&bytes).into_owned();
            let output = (Bytes::from(bytes), None);
            prop_assert_eq!(text_length(&output), expected.len());
            prop_assert_eq!(text(&output), expected);
        }
    }

    #[test]
    fn every_limit_is_read() {
        let fields: Vec<_> =
            records::Limits::fields().iter().map(|(name, _)| camel_case(name)).collect();
        for &kind in LimitKind::ALL {
            let mut datum = Vec::new();
            for field in &fields {
                (field == kind.name()).then_some(7).write(&mut datum);
            }
            let asked = Datum::read(&mut Reader::new(datum.into())).expect("a record");
            let read = limits(&asked).unwrap_or_else(|failure| panic!("{failure:?}"));
            assert_eq!(read, Limits::default().with(kind, 7), "{kind:?}");
        }
    }

    #[test]
    fn every_reason_has_its_symbol() {
        for known in Reason::ALL {
            assert_ne!(reason(*known), records::Reason::Unknown, "{known:?}");
        }
    }
}
