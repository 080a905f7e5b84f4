//! Rows of the store of batches, and their keys.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::batch::step_record::StepSpec;
use crate::batch::{BatchInfo, BatchState, StepCounts, StepInfo, StepState};
use crate::execute::{Gap, Reason, Stream};
use crate::ids::BatchId;
use crate::time::{millis, time};
use crate::user_name::UserName;

/// Of a whole batch; rewritten at each of its events.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Summary {
    pub(crate) user: String,
    pub(crate) name: Option<String>,
    pub(crate) kind: String,
    pub(crate) state: String,
    /// Milliseconds since 1970, as all times here.
    pub(crate) created: u64,
    pub(crate) started: Option<u64>,
    pub(crate) ended: Option<u64>,
    /// The total, then the steps in each state, in the order of [`StepState::ALL`]. The length is a part of
    /// the format: with another one a store is not read.
    pub(crate) counts: [u64; 8],
    /// The place and the exit code of the first step that failed.
    pub(crate) failure: Option<(u32, i32)>,
    pub(crate) rerun_of: Option<String>,
    pub(crate) events: u64,
    /// What it takes on disk, without its events.
    pub(crate) bytes: u64,
    /// What its recipe takes of that.
    #[serde(default)]
    pub(crate) recipe_bytes: u64,
    /// What its steps were given takes of it, as long as that is kept.
    #[serde(default)]
    pub(crate) input_bytes: u64,
    /// Under which idempotency key it was submitted.
    pub(crate) key: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) timeout: Option<u64>,
    /// Milliseconds from the start of its first step to its end or the last event, by a clock that
    /// does not jump.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<u64>,
    /// The time under which its end is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) filed: Option<u64>,
    /// Whether its steps were given variables or standard input, which are kept apart.
    #[serde(default)]
    pub(crate) has_inputs: bool,
}

/// Kind of the batches whose job is the engine's own, [`Schedule`](crate::batch::schedule::Schedule).
pub(crate) const PLAN: &str = "plan";

/// What makes its job; never changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct JobSpec {
    pub(crate) kind: String,
    pub(crate) text: String,
}

/// One step that is not as it was at the beginning.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct StepRow {
    /// The index of its state in [`StepState::ALL`], to which new states are appended.
    pub(crate) state: u8,
    pub(crate) attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) problem: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) signal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ended: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) duration: Option<u64>,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) stdout_bytes: u64,
    #[serde(skip_serializing_if = "is_zero")]
    pub(crate) stderr_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdout_gap: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr_gap: Option<u64>,
    /// How much is missing there; not known of runs by earlier versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stdout_lost: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stderr_lost: Option<u64>,
    /// Milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cpu_time: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) peak_memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) processes: Option<u64>,
    /// What it is to run, of a kind whose steps are not known beforehand.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) step: Option<StepSpec>,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct EventRow {
    pub(crate) time: u64,
    pub(crate) what: EventKind,
}

/// What happened; steps by their places.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum EventKind {
    Queued,
    Begun,
    Started {
        step: u32,
        attempt: u32,
        /// What the executor finds its processes by.
        mark: Option<String>,
    },
    /// What became of it is in the row.
    Ended {
        step: u32,
        row: Box<StepRow>,
    },
    Due {
        step: u32,
    },
    Skipped {
        step: u32,
        reason: String,
    },
    Cancelling,
    Aborting,
    TimedOut,
    Finished {
        state: String,
        exit_code: i32,
    },
}

impl Summary {
    /// What it takes on disk with its events, of which there may be many, in bytes.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.bytes.saturating_add(self.events.saturating_mul(EVENT_BYTES))
    }

    pub(crate) fn state(&self) -> BatchState {
        batch_state(&self.state)
    }

    pub(crate) fn counts(&self) -> StepCounts {
        let [total, queued, running, retrying, succeeded, failed, skipped, cancelled] = self.counts;
        StepCounts { total, queued, running, retrying, succeeded, failed, skipped, cancelled }
    }

    pub(crate) fn set_counts(&mut self, counts: StepCounts) {
        let StepCounts { total, queued, running, retrying, succeeded, failed, skipped, cancelled } =
            counts;
        self.counts = [total, queued, running, retrying, succeeded, failed, skipped, cancelled];
    }

    pub(crate) fn exit_code(&self) -> i32 {
        self.failure.map_or(0, |(_, code)| code)
    }

    pub(crate) fn info(&self, id: &BatchId) -> Option<BatchInfo> {
        Some(BatchInfo {
            id: id.clone(),
            user: self.user.parse().ok()?,
            name: self.name.clone(),
            kind: self.kind.clone(),
            state: self.state(),
            created: time(self.created),
            started: self.started.map(time),
            ended: self.ended.map(time),
            duration: self.duration.map(Duration::from_millis),
            labels: self.labels.clone(),
            timeout: self.timeout.map(Duration::from_millis),
            counts: self.counts(),
            exit_code: self.exit_code(),
            rerun_of: self.rerun_of.as_ref().and_then(|id| id.parse().ok()),
            last_event: self.events,
        })
    }
}

/// What is told of a step that never changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct StepFacts {
    pub(crate) id: String,
    pub(crate) command: String,
    pub(crate) args: Vec<String>,
    pub(crate) workdir: Option<String>,
    /// The names of its variables.
    pub(crate) env: Vec<String>,
    pub(crate) depends_on: Vec<String>,
    pub(crate) opens_stdin: bool,
    pub(crate) allow_failure: bool,
}

impl StepRow {
    pub(crate) fn state(&self) -> StepState {
        StepState::ALL.get(usize::from(self.state)).copied().unwrap_or_default()
    }

    pub(crate) fn set_state(&mut self, state: StepState) {
        let place = StepState::ALL.iter().position(|known| *known == state);
        self.state = u8::try_from(place.unwrap_or(0)).unwrap_or(0);
    }

    /// What its last run came to, though it may be run again.
    pub(crate) fn result(&self) -> StepState {
        let reason = self.reason.as_deref();
        if reason == Some(Reason::Cancelled.name()) {
            StepState::Cancelled
        } else if reason == Some(Reason::Exited.name()) && self.exit_code == Some(0) {
            StepState::Succeeded
        } else {
            StepState::Failed
        }
    }

    /// Why its last run ended.
    pub(crate) fn reason(&self) -> Option<Reason> {
        let name = self.reason.as_deref()?;
        Reason::ALL.iter().find(|known| known.name() == name).copied()
    }

    /// Which part its last run's output on a stream lacks.
    pub(crate) fn gap(&self, stream: Stream) -> Option<Gap> {
        let (at, lost) = match stream {
            Stream::Stdout => (self.stdout_gap, self.stdout_lost),
            Stream::Stderr => (self.stderr_gap, self.stderr_lost),
        };
        at.map(|at| Gap { at, bytes: lost.unwrap_or_default() })
    }

    pub(crate) fn info(&self, facts: StepFacts) -> StepInfo {
        StepInfo {
            id: facts.id,
            command: facts.command,
            args: facts.args,
            workdir: facts.workdir,
            env: facts.env,
            allow_failure: facts.allow_failure,
            depends_on: facts.depends_on,
            state: self.state(),
            attempt: self.attempt,
            reason: self.reason(),
            problem: self.problem.clone(),
            exit_code: self.exit_code,
            signal: self.signal.clone(),
            started: self.started.map(time),
            ended: self.ended.map(time),
            duration: self.duration.map(Duration::from_millis),
            stdout_bytes: self.stdout_bytes,
            stderr_bytes: self.stderr_bytes,
            stdout_gap: self.gap(Stream::Stdout),
            stderr_gap: self.gap(Stream::Stderr),
            cpu_time: self.cpu_time.map(std::time::Duration::from_millis),
            peak_memory: self.peak_memory,
            processes: self.processes,
        }
    }
}

pub(crate) fn batch_state(name: &str) -> BatchState {
    BatchState::ALL.iter().find(|known| known.name() == name).copied().unwrap_or(BatchState::Failed)
}

pub(crate) fn now() -> u64 {
    millis(std::time::SystemTime::now())
}

/// What is known of a batch that is over where only its end is looked at.
pub(crate) fn kept(bytes: u64, user: &str) -> Vec<u8> {
    let mut value = bytes.to_be_bytes().to_vec();
    value.extend_from_slice(user.as_bytes());
    value
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// About what an event takes in the store.
const EVENT_BYTES: u64 = 256;

/// The keys of a store. Names of users and ids hold no NUL.
pub(crate) mod key {
    use super::{BatchId, BatchState, UserName};

    /// The format of all that follows.
    pub(crate) const FORMAT: &[u8] = b"format";
    /// The first bytes of the keys of summaries and recipes.
    pub(crate) const SUMMARIES: u8 = b'b';
    pub(crate) const RECIPES: u8 = b'p';

    pub(crate) fn summary(id: &BatchId) -> Vec<u8> {
        join(SUMMARIES, &[id.as_str().as_bytes()])
    }

    pub(crate) fn recipe(id: &BatchId) -> Vec<u8> {
        join(RECIPES, &[id.as_str().as_bytes()])
    }

    pub(crate) fn step(id: &BatchId, step: u32) -> Vec<u8> {
        join(b's', &[id.as_str().as_bytes(), &step.to_be_bytes()])
    }

    pub(crate) fn event(id: &BatchId, seq: u64) -> Vec<u8> {
        join(b'e', &[id.as_str().as_bytes(), &seq.to_be_bytes()])
    }

    pub(crate) fn of_user(user: &str, id: &str) -> Vec<u8> {
        join(b'u', &[user.as_bytes(), id.as_bytes()])
    }

    pub(crate) fn of_user_in(user: &str, state: BatchState, id: &str) -> Vec<u8> {
        join(b'v', &[user.as_bytes(), state.name().as_bytes(), id.as_bytes()])
    }

    /// Of nothing: it is removed to see whether anything can be written.
    pub(crate) fn probe() -> Vec<u8> {
        join(b'!', &[])
    }

    pub(crate) fn open(id: &str) -> Vec<u8> {
        join(b'o', &[id.as_bytes()])
    }

    pub(crate) fn ended(when: u64, id: &str) -> Vec<u8> {
        join(b'd', &[&when.to_be_bytes(), id.as_bytes()])
    }

    /// Of a batch that nobody finds any more, whose steps and events are being removed.
    pub(crate) fn removed(id: &str) -> Vec<u8> {
        join(b'g', &[id.as_bytes()])
    }

    /// Of a batch that is over and whose inputs are kept still.
    pub(crate) fn inputs(when: u64, id: &str) -> Vec<u8> {
        join(b'i', &[&when.to_be_bytes(), id.as_bytes()])
    }

    /// Of the idempotency key of a batch that was over then, and is not kept any more.
    pub(crate) fn orphan(when: u64, user: &str, key: &str) -> Vec<u8> {
        join(b'x', &[&when.to_be_bytes(), user.as_bytes(), key.as_bytes()])
    }

    /// The time in a key that begins with one.
    pub(crate) fn when(key: &[u8]) -> Option<u64> {
        Some(u64::from_be_bytes(*key.get(2..)?.first_chunk()?))
    }

    /// The user and the idempotency key in an [`orphan`].
    pub(crate) fn owner(key: &[u8]) -> Option<(&str, &str)> {
        let text = std::str::from_utf8(key.get(11..)?).ok()?;
        text.split_once('\0')
    }

    pub(crate) fn idempotency(user: &UserName, key: &str) -> Vec<u8> {
        join(b'k', &[user.as_str().as_bytes(), key.as_bytes()])
    }

    /// What follows the last part of such a key.
    pub(crate) fn last_part(key: &[u8]) -> Option<&str> {
        let start = key.iter().rposition(|byte| *byte == 0)? + 1;
        std::str::from_utf8(&key[start..]).ok()
    }

    fn join(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
        let mut key = vec![kind];
        for part in parts {
            key.push(0);
            key.extend_from_slice(part);
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store is read by later versions: what a number in it means never changes.
    #[test]
    fn every_state_of_a_step_keeps_its_stored_index() {
        let states = [
            StepState::Queued,
            StepState::Running,
            StepState::Retrying,
            StepState::Succeeded,
            StepState::Failed,
            StepState::Skipped,
            StepState::Cancelled,
        ];
        assert_eq!(StepState::ALL, states);
        for (index, state) in (0..).zip(states) {
            let mut row = StepRow::default();
            row.set_state(state);
            assert_eq!((row.state, row.state()), (index, state));
        }
    }

    #[test]
    fn every_count_keeps_its_stored_place() {
        let mut summary: Summary = serde_json::from_value(serde_json::json!({
            "user": "alice", "kind": PLAN, "state": "running", "created": 0,
            "counts": [1, 2, 3, 4, 5, 6, 7, 8], "events": 0, "bytes": 0,
        }))
        .expect("a summary");
        let counts = summary.counts();
        let expected = StepCounts {
            total: 1,
            queued: 2,
            running: 3,
            retrying: 4,
            succeeded: 5,
            failed: 6,
            skipped: 7,
            cancelled: 8,
        };
        assert_eq!(counts, expected);
        summary.set_counts(counts);
        assert_eq!(summary.counts, [1, 2, 3, 4, 5, 6, 7, 8]);
        // The total, and one of each state.
        assert_eq!(summary.counts.len(), 1 + StepState::ALL.len());
    }
}
