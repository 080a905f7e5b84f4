//! Commands run to their end.

use std::pin::pin;
use std::time::Duration;

use splengine_core::{
    Background, Captured, Gap, LimitKind, Limits, Reason, Request, SlowReader, Stdin,
};

use crate::call::Ask;
use crate::datum::named;
use crate::failure::Failure;
use crate::messages::{long, millis, positive};
use crate::records::{self, Command, ExecutionResult, RunRequest, RunResult};

pub(crate) async fn execute(
    ask: &Ask<'_>,
    command: Command,
) -> Result<(ExecutionResult, Reason), Failure> {
    let Command { command, args, workdir, session_id } = command;
    let mut request = Request::new(command).args(args).slow_reader(SlowReader::Wait);
    if let Some(workdir) = workdir {
        request = request.workdir(workdir);
    }
    if let Some(id) = session_id {
        request = request.session_id(id);
    }
    let (captured, session_id) = perform(ask, request).await?;
    let reason = captured.end.reason;
    let result = ExecutionResult {
        exit_code: captured.end.exit_code,
        stdout: in_text(&captured.stdout, captured.end.stdout_gap),
        stderr: in_text(&captured.stderr, captured.end.stderr_gap),
        duration: millis(captured.end.duration),
        session_id,
    };
    Ok((result, reason))
}

pub(crate) async fn run(ask: &Ask<'_>, asked: RunRequest) -> Result<RunResult, Failure> {
    let mut request = Request::new(asked.command).args(asked.args).slow_reader(SlowReader::Wait);
    if let Some(workdir) = asked.workdir {
        request = request.workdir(workdir);
    }
    if let Some(id) = asked.session_id {
        request = request.session_id(id);
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
    request = request.background(background(asked.background));
    let (captured, session_id) = perform(ask, request).await?;
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

async fn perform(ask: &Ask<'_>, request: Request) -> Result<(Captured, String), Failure> {
    // Pinned here, since moving it costs.
    let run = pin!(ask.engine.execute(&ask.caller, request));
    let run = ask.in_time(run).await?;
    let session_id = run.session_id().as_str().to_owned();
    Ok((ask.whole(run).await, session_id))
}

/// As text, in which a line stands in the place of a gap: its record has no other place for that.
pub(crate) fn in_text(bytes: &[u8], gap: Option<Gap>) -> String {
    let at = gap.and_then(|gap| usize::try_from(gap.at).ok());
    let Some((at, gap)) = at.filter(|at| *at <= bytes.len()).zip(gap) else {
        return String::from_utf8_lossy(bytes).into_owned();
    };
    let (head, tail) = bytes.split_at(at);
    let end = if head.last().is_none_or(|last| *last == b'\n') { "" } else { "\n" };
    let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
    format!("{head}{end}{gap}\n{tail}")
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
    let all = [
        (LimitKind::CpuTime, asked.cpu_time),
        (LimitKind::Memory, asked.memory),
        (LimitKind::OpenFiles, asked.open_files),
        (LimitKind::FileSize, asked.file_size),
        (LimitKind::Processes, asked.processes),
        (LimitKind::AddressSpace, asked.address_space),
    ];
    all.into_iter().try_fold(Limits::default(), |limits, (kind, value)| match value {
        Some(value) => Ok(limits.with(kind, positive(kind.name(), value)?)),
        None => Ok(limits),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_symbol() {
        for known in Reason::ALL {
            assert_ne!(reason(*known), records::Reason::Unknown, "{known:?}");
        }
    }
}
