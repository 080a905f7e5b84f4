//! Requests in their two forms: a JSON body, or a query beside a body that is the input.

use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as ValueError;
use splengine_core::execute::{LimitKind, Stdin};
use splengine_core::quota::{GatherLimits, Gathered, LargeWorkPermit};
use splengine_core::{Caller, Limits, Request};

use crate::body::read_body;
use crate::context::Context;
use crate::dto::{ExecuteRequestDto, LimitsDto};
use crate::json;
use crate::problem::Problem;

/// Reads a JSON body whole, within the bounds of its size and its time.
pub(crate) async fn read_json<T: DeserializeOwned + Send + 'static>(
    headers: &HeaderMap,
    body: Body,
    context: &Context,
    caller: &Caller,
) -> Result<T, Problem> {
    let body = read_whole(headers, body, context, caller).await?;
    Ok(work_on_body(body, context, caller, |body| json::parse(body)).await?.0)
}

/// Does `work` on a body that was read, apart from the runtime's workers if it is large; and gives the
/// permit under which it was done, for what is still to be done with its result.
pub(crate) async fn work_on_body<T: Send + 'static>(
    body: Gathered,
    context: &Context,
    caller: &Caller,
    work: impl FnOnce(&[u8]) -> Result<T, Problem> + Send + 'static,
) -> Result<(T, LargeWorkPermit), Problem> {
    let permit = context.engine.large_work().permit(caller.accounted_user(), body.len()).await?;
    let done = permit.run(move || work(&body)).await??;
    Ok((done, permit))
}

/// Reads a body whole, within the bounds of its size and its time, and of the memory of the caller and
/// of all.
pub(crate) async fn read_whole(
    headers: &HeaderMap,
    body: Body,
    context: &Context,
    caller: &Caller,
) -> Result<Gathered, Problem> {
    let budget = context.budgets.of(caller.accounted_user());
    let limits = GatherLimits::new(context.options.max_body, context.options.body_timeout, &budget);
    read_body(headers, body, &limits).await.map_err(|error| {
        if error.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("{error}; send a long input as application/octet-stream");
            return Problem::new(error.status(), detail);
        }
        error.into()
    })
}

/// Reads the query that stands beside a body of input. `None` is a name that it does not know.
pub(crate) fn read_query(pairs: &[(String, String)]) -> Result<ExecuteRequestDto, Problem> {
    let mut dto = ExecuteRequestDto::default();
    let mut commands = 0;
    for (name, value) in pairs {
        match name.as_str() {
            "command" => {
                commands += 1;
                dto.command.clone_from(value);
            }
            "args" | "arg" => dto.args.get_or_insert_default().push(value.clone()),
            "workdir" => dto.workdir = Some(value.clone()),
            "sessionId" => dto.session_id = Some(value.clone()),
            "timeout" => dto.timeout = Some(number(name, value)?),
            "idleTimeout" => dto.idle_timeout = Some(number(name, value)?),
            "outputLimit" => dto.output_limit = Some(number(name, value)?),
            "outputEncoding" => dto.output_encoding = Some(word(name, value)?),
            "background" => dto.background = Some(word(name, value)?),
            "shell" => {
                let truth = value
                    .parse()
                    .map_err(|_| Problem::malformed("`shell` must be `true` or `false`"))?;
                dto.shell = Some(truth);
            }
            "slowReader" => dto.slow_reader = Some(word(name, value)?),
            _ => {
                return Err(Problem::malformed(format!(
                    "the query has the unknown parameter `{name}`; there is: command, args, \
                     workdir, sessionId, timeout, idleTimeout, outputLimit, outputEncoding, \
                     background, shell, slowReader, failStatus"
                )));
            }
        }
    }
    match commands {
        1 => Ok(dto),
        0 => Err(Problem::malformed("the query lacks the parameter `command`")),
        _ => Err(Problem::malformed("the query has the parameter `command` more than once")),
    }
}

fn number(name: &str, value: &str) -> Result<u64, Problem> {
    value.parse().map_err(|_| Problem::malformed(format!("`{name}` must be a whole number")))
}

pub(crate) fn word<'de, T: Deserialize<'de>>(name: &str, value: &str) -> Result<T, Problem> {
    T::deserialize(value.to_owned().into_deserializer()).map_err(|error: ValueError| {
        let what = json::in_words(&error.to_string()).what;
        Problem::malformed(format!("`{name}` {what}"))
    })
}

impl ExecuteRequestDto {
    /// The core's request. `input` is what a streamed body gives, if there is one.
    pub(crate) fn into_request(self, input: Option<Stdin>) -> Result<Request, Problem> {
        let stdin = match (input, self.stdin) {
            (Some(input), _) => input,
            (None, None) => Stdin::null(),
            (None, Some(text)) => match self.stdin_encoding.unwrap_or_default() {
                crate::dto::EncodingDto::Utf8 => Stdin::bytes(text),
                crate::dto::EncodingDto::Base64 => {
                    Stdin::bytes(BASE64_STANDARD.decode(text).map_err(|error| {
                        Problem::malformed(format!("`stdin` is not base64: {error}"))
                    })?)
                }
            },
        };
        let mut request = Request::new(self.command)
            .use_shell(self.shell.unwrap_or_default())
            .args(self.args.unwrap_or_default())
            .stdin(stdin)
            .limits(self.limits.unwrap_or_default().into());
        for (name, value) in self.env.unwrap_or_default() {
            request = request.env(name, value);
        }
        if let Some(workdir) = self.workdir {
            request = request.workdir(workdir);
        }
        if let Some(session_id) = self.session_id {
            request = request.session_id(&session_id);
        }
        if let Some(timeout) = self.timeout {
            request = request.timeout(Duration::from_millis(timeout));
        }
        if let Some(timeout) = self.idle_timeout {
            request = request.idle_timeout(Duration::from_millis(timeout));
        }
        request = self.mask.unwrap_or_default().into_iter().fold(request, Request::mask);
        if let Some(limit) = self.output_limit {
            request = request.output_limit(limit);
        }
        if let Some(background) = self.background {
            request = request.background(background.into());
        }
        if let Some(slow_reader) = self.slow_reader {
            request = request.slow_reader(slow_reader.into());
        }
        Ok(request)
    }
}

impl From<LimitsDto> for Limits {
    fn from(dto: LimitsDto) -> Self {
        let mut limits = Self::default();
        for (kind, value) in [
            (LimitKind::CpuTime, dto.cpu_time),
            (LimitKind::Memory, dto.memory),
            (LimitKind::OpenFiles, dto.open_files),
            (LimitKind::Processes, dto.processes),
            (LimitKind::FileSize, dto.file_size),
            (LimitKind::AddressSpace, dto.address_space),
        ] {
            if let Some(value) = value {
                limits = limits.with(kind, value);
            }
        }
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_read() {
        for &kind in LimitKind::ALL {
            let json = format!("{{\"{}\":7}}", kind.name());
            let dto: LimitsDto = serde_json::from_str(&json).expect("a limit");
            assert_eq!(Limits::from(dto), Limits::default().with(kind, 7), "{kind:?}");
        }
    }
}
