//! What a batch's steps printed, all of it at once, in the form that is asked for.

use axum::Json;
use axum::extract::{Path, Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use splengine_core::{BatchResults, BatchState, Caller, Gap};

use crate::app::App;
use crate::dto::EncodingDto;
use crate::dto_batches::{BatchResultDto, StepResultDto};
use crate::forms::Form;
use crate::problem::{Problem, ProblemDto};
use crate::routes::batches::Query;
use crate::routes::parameters::{Asker, word};

/// What the steps of a batch that is over printed.
///
/// As one JSON object, or as a file in another form that the server has, by `Accept`. Of each
/// stream it holds 16 MiB, of all steps together.
#[utoipa::path(
    get, path = "/api/v1/batches/{id}/results", operation_id = "getBatchResults", tag = "batches",
    security(("bearer" = [])),
    params(
        ("id" = String, Path),
        ("outputEncoding" = Option<EncodingDto>, Query, description = "How output is encoded in \
            JSON; `utf8` when left out."),
    ),
    responses((status = 200, description = "All of it.", body = BatchResultDto),
        (status = 406, description = "There is no such form.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = 409, description = "It is not over.", body = ProblemDto,
            content_type = "application/problem+json"),
        (status = "4XX", description = "Refused.", body = ProblemDto,
            content_type = "application/problem+json")),
)]
pub(crate) async fn results(
    State(app): State<App>,
    Asker(caller): Asker,
    Path(id): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::of(request.uri().query(), &["outputEncoding"])?;
    let encoding = query.get("outputEncoding").map(|text| word("outputEncoding", text));
    let encoding = encoding.transpose()?.unwrap_or_default();
    let form = Form::wanted(&app.options.forms, request.headers())?;
    if !app.engine.batches().get(&caller, &id).await?.info.state.is_final() {
        return Err(Problem::new(StatusCode::CONFLICT, "the batch is not over"));
    }
    answer(&app, &caller, &id, form, |_| encoding).await
}

/// The results of a batch that is over; in JSON each step's output is encoded as `encoding` says of
/// its place.
pub(crate) async fn answer(
    app: &App,
    caller: &Caller,
    id: &str,
    form: Option<Form>,
    encoding: impl Fn(usize) -> EncodingDto,
) -> Result<Response, Problem> {
    let results = app.engine.batches().results(caller, id).await?;
    match form {
        Some(form) => form.answer(results).await,
        None => Ok(Json(aggregate(results, encoding)).into_response()),
    }
}

fn aggregate(results: BatchResults, encoding: impl Fn(usize) -> EncodingDto) -> BatchResultDto {
    let is_base64 = !results.steps.is_empty()
        && (0..results.steps.len()).all(|place| encoding(place) == EncodingDto::Base64);
    let (mut stdout, mut stderr) = (Whole::default(), Whole::default());
    let mut steps = Vec::with_capacity(results.steps.len());
    for (place, result) in results.steps.into_iter().enumerate() {
        let (step, encoding) = (result.step, encoding(place));
        let out = stdout.add(&result.stdout, step.stdout_gap, result.stdout_cut, encoding);
        let err = stderr.add(&result.stderr, step.stderr_gap, result.stderr_cut, encoding);
        steps.push(StepResultDto { step: step.into(), stdout: out, stderr: err });
    }
    BatchResultDto {
        success: results.info.state == BatchState::Succeeded,
        batch: results.info.into(),
        stdout: stdout.encoded(is_base64),
        stderr: stderr.encoded(is_base64),
        stdout_truncated: stdout.is_truncated,
        stderr_truncated: stderr.is_truncated,
        steps,
    }
}

/// One stream of all steps.
#[derive(Default)]
struct Whole {
    data: Vec<u8>,
    /// What stands between steps, or on either side of a gap, forms no character.
    parts: Vec<usize>,
    is_truncated: bool,
}

impl Whole {
    /// Adds what a step printed, and gives it as text.
    fn add(
        &mut self,
        data: &[u8],
        gap: Option<Gap>,
        is_cut: bool,
        encoding: EncodingDto,
    ) -> String {
        let room = MAX_RESULT_BYTES.saturating_sub(self.data.len());
        self.is_truncated |= gap.is_some() || is_cut || data.len() > room;
        let data = &data[..data.len().min(room)];
        let at = gap.and_then(|gap| usize::try_from(gap.at).ok()).filter(|at| *at < data.len());
        self.parts.extend(at.map(|at| self.data.len() + at));
        self.data.extend_from_slice(data);
        self.parts.push(self.data.len());
        match encoding {
            EncodingDto::Utf8 => in_text(data, at),
            EncodingDto::Base64 => BASE64_STANDARD.encode(data),
        }
    }

    fn encoded(&self, is_base64: bool) -> String {
        if is_base64 {
            return BASE64_STANDARD.encode(&self.data);
        }
        let mut text = String::with_capacity(self.data.len());
        let mut begin = 0;
        for &end in &self.parts {
            text.push_str(&String::from_utf8_lossy(&self.data[begin..end]));
            begin = end;
        }
        text
    }
}

/// As text, in which what stands on either side of a gap forms no character.
fn in_text(data: &[u8], gap: Option<usize>) -> String {
    let (head, tail) = data.split_at(gap.unwrap_or(data.len()));
    String::from_utf8_lossy(head).into_owned() + &String::from_utf8_lossy(tail)
}

/// How much of each stream an answer in JSON holds; what comes after it is left out.
const MAX_RESULT_BYTES: usize = 16 << 20;
