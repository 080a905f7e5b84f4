use axum::body::to_bytes;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http_body::Body as _;
use splengine_core::batch::{BatchPolicy, BatchResults};
use splengine_core::execute::Gap;
use splengine_core::quota::MemoryBudget;
use splengine_core::store::MemoryStore;
use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};

use super::*;

/// Of pieces and reads several, with characters that lie across their ends.
fn script(bytes: usize) -> String {
    format!(
        "printf a; head -c {bytes} /dev/zero | tr '\\0' x | sed 's/xx/ä\"/g; s/äx/\\x01€\\\\/g'; \
         printf '\\377\\342\\202'; printf '\\342\\202' >&2"
    )
}

async fn text(reader: BatchResultReader, encoding: fn(usize) -> EncodingDto) -> (bool, Vec<u8>) {
    let reserved = MemoryBudget::new(1 << 20).reservation();
    let answer = answer(reader, encoding, reserved).await.expect("answered");
    assert_eq!(answer.headers()[CONTENT_TYPE], "application/json");
    let is_whole = answer.body().size_hint().exact().is_some();
    (is_whole, to_bytes(answer.into_body(), usize::MAX).await.expect("it is whole").into())
}

#[tokio::test]
async fn what_is_written_in_pieces_is_what_would_be_written_at_once() {
    let (root, outputs) = [(); 2].map(|()| tempfile::tempdir().expect("a directory")).into();
    let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    let executor = LocalExecutor::new(root.path()).expect("set up");
    let engine = Engine::builder(executor).batches(policy).build().expect("built");
    let (batches, alice) =
        (engine.batches(), Caller::new("alice").expect("a name").with_all_scopes());
    let shell = |script: String| Step::new("sh -c").args([script]);
    let all = [
        Vec::new(),
        vec![shell("echo short".to_owned()), Step::new("true")],
        vec![
            shell(script(100_000)),
            Step::new("true").args([r#""stderr":"""#]),
            shell(script(50_000)),
            // A gap within a character.
            shell(script(90_000)).output_limit(40_000),
        ],
    ];
    for (number, steps) in all.into_iter().enumerate() {
        let request =
            steps.into_iter().fold(BatchRequest::new().name("\"stdout\":\"\""), BatchRequest::step);
        let Ok(submitted) = batches.submit(&alice, request, None).await else {
            assert_eq!(number, 0, "there are steps");
            continue;
        };
        let id = submitted.record.info.id;
        batches.wait(&alice, &id).await.expect("over");
        let encodings: [fn(usize) -> EncodingDto; 3] = [
            |_| EncodingDto::Utf8,
            |_| EncodingDto::Base64,
            |place| if place % 2 == 0 { EncodingDto::Base64 } else { EncodingDto::Utf8 },
        ];
        for encoding in encodings {
            let results = batches.results(&alice, &id).await.expect("read");
            let has_gap = results.steps.iter().any(|step| step.step.stdout_gap.is_some());
            assert_eq!(has_gap, number == 2);
            let expected = serde_json::to_string(&aggregate(results, encoding)).expect("written");
            let reader = batches.result_reader(&alice, &id).await.expect("read");
            let (is_whole, written) = text(reader, encoding).await;
            assert_eq!(is_whole, expected.len() < PIECE_BYTES);
            assert!(written == expected.as_bytes(), "{number}: not the same");
        }
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
