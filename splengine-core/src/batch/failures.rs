//! The failures that make a batch fail. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::StepState;
use crate::batch::step_run::LOST_CODE;

/// The steps whose last run was no success, by their places.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// With their exit codes.
    failed: BTreeMap<u32, i32>,
    cancelled: BTreeSet<u32>,
}

impl Failures {
    /// A step has come to this.
    pub(crate) fn note(&mut self, step: u32, state: StepState, exit_code: Option<i32>) {
        match state {
            StepState::Failed => {
                self.failed.insert(step, exit_code.unwrap_or(LOST_CODE));
            }
            StepState::Cancelled => {
                self.cancelled.insert(step);
            }
            _ => {}
        }
    }

    /// That of this step does not count: it is tolerated, or the step is run again.
    pub(crate) fn forget(&mut self, step: u32) {
        self.failed.remove(&step);
        self.cancelled.remove(&step);
    }

    /// The first step that failed, and its exit code.
    pub(crate) fn first(&self) -> Option<(u32, i32)> {
        self.failed.first_key_value().map(|(step, code)| (*step, *code))
    }

    /// Whether none counts.
    pub(crate) fn is_empty(&self) -> bool {
        self.failed.is_empty() && self.cancelled.is_empty()
    }
}
