//! Variables and standard input of steps, which may be secret. They are kept apart from the record, in
//! a file of their own, so that they can be taken from the disk when nobody needs them any more.

use std::collections::BTreeSet;
use std::io::{self, Read as _, Write as _};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::batch::outputs::Outputs;
use crate::batch::plan::PlanData;
use crate::batch::step_record::base64_text;
use crate::flat_dir::wipe;
use crate::ids::BatchId;

/// The inputs of a plan's steps, in their order.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Inputs(Vec<StepInputs>);

#[derive(Clone, Default, Serialize, Deserialize)]
struct StepInputs {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    env: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "base64_text")]
    stdin: Option<Bytes>,
}

impl std::fmt::Debug for StepInputs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StepInputs").finish_non_exhaustive()
    }
}

impl Inputs {
    /// Takes them out of a plan; `None` where there are none.
    pub(crate) fn take(plan: &mut PlanData) -> Option<Self> {
        let take = |step: &mut crate::batch::Step| {
            let env = std::mem::take(&mut step.0.command.env);
            // A variable that is set twice has one name.
            let names: BTreeSet<&String> = env.iter().map(|(name, _)| name).collect();
            step.0.env_names = names.into_iter().cloned().collect();
            StepInputs { env, stdin: step.0.stdin.take() }
        };
        let all: Vec<StepInputs> = plan.steps.iter_mut().map(take).collect();
        let has_any = all.iter().any(|one| !one.env.is_empty() || one.stdin.is_some());
        has_any.then_some(Self(all))
    }

    /// Puts them back where they were; `false` when they are of another plan.
    pub(crate) fn put(self, plan: &mut PlanData) -> bool {
        if self.0.len() != plan.steps.len() {
            return false;
        }
        for (step, StepInputs { env, stdin }) in plan.steps.iter_mut().zip(self.0) {
            step.0.command.env = env;
            step.0.env_names.clear();
            step.0.stdin = stdin;
        }
        true
    }

    /// As they are written.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The file of each batch's inputs. All calls block.
impl Outputs {
    /// Writes them down; when it returns they are on disk.
    pub(crate) fn write_inputs(&self, id: &BatchId, bytes: &[u8]) -> io::Result<()> {
        let mut file = self.create(id, NAME)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        self.sync(id)
    }

    /// Reads them; `None` when they are gone.
    pub(crate) fn read_inputs(&self, id: &BatchId) -> io::Result<Option<Inputs>> {
        let mut bytes = Vec::new();
        match self.read(id, NAME) {
            Ok(mut file) => file.read_to_end(&mut bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        Ok(Some(serde_json::from_slice(&bytes)?))
    }

    /// Overwrites them with zeros, and removes them. Does nothing where there are none.
    pub(crate) fn remove_inputs(&self, id: &BatchId) -> io::Result<()> {
        match self.reopen(id, NAME) {
            Ok(file) => {
                // What the file system makes of that is its own; the file is gone in any case.
                let _ = wipe(&file);
                self.unlink(id, NAME)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Beside the files of output, whose names hold a dot.
const NAME: &str = "inputs";
