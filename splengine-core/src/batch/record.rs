//! A batch's record, of what is written of it.

use crate::batch::plan::PlanData;
use crate::batch::records::{EventKind, JobSpec, PLAN, StepFacts, StepRow, Summary, batch_state};
use crate::batch::{BatchError, BatchEventKind, BatchRecord, Step, StepInfo};
use crate::ids::BatchId;

/// The steps of a batch.
pub(crate) struct Names {
    pub(crate) steps: Vec<StepFacts>,
}

/// A batch with its steps, of what is written of it.
pub(crate) fn record(
    id: &BatchId,
    summary: &Summary,
    recipe: &JobSpec,
    rows: Vec<(u32, StepRow)>,
) -> Result<BatchRecord, BatchError> {
    let mut names = Names::of(recipe)?;
    names.learn(&rows);
    let mut all = vec![StepRow::default(); names.steps.len()];
    for (place, row) in rows {
        if let Some(known) = all.get_mut(place as usize) {
            *known = row;
        }
    }
    let steps = all.iter().enumerate().map(|(place, row)| names.info(place, row)).collect();
    let info = summary.info(id).ok_or(BatchError::Damaged)?;
    Ok(BatchRecord { steps, ..info.into() })
}

impl StepFacts {
    fn of(step: Step, id: String) -> Self {
        let data = step.0;
        Self {
            id,
            command: data.command.text.unwrap_or_default(),
            args: data.command.args,
            workdir: data.command.workdir,
            env: data.env_names,
            opens_stdin: data.stdin_open,
            allow_failure: data.allow_failure,
            depends_on: data.depends_on.unwrap_or_default(),
        }
    }
}

impl Names {
    pub(crate) fn of(recipe: &JobSpec) -> Result<Self, BatchError> {
        if recipe.kind != PLAN {
            return Ok(Self { steps: Vec::new() });
        }
        let plan = PlanData::from_json(&recipe.text).map_err(|_| BatchError::Damaged)?;
        let mut before: Option<String> = None;
        let mut steps = Vec::with_capacity(plan.steps.len());
        for (place, step) in plan.steps.into_iter().enumerate() {
            let id = step.id_at(place);
            let needs = step.0.depends_on.clone();
            let mut needs = needs.unwrap_or_else(|| before.into_iter().collect());
            let source = step.0.stdin_from.as_ref().filter(|source| source.ran_in.is_none());
            if let Some(source) = source.filter(|source| !needs.contains(&source.step)) {
                needs.push(source.step.clone());
            }
            before = Some(id.clone());
            steps.push(StepFacts { depends_on: needs, ..StepFacts::of(step, id) });
        }
        Ok(Self { steps })
    }

    /// Returns about how many bytes of memory they take.
    pub(crate) fn memory_bytes(&self) -> usize {
        let of_step = |step: &StepFacts| {
            let texts = [&step.args, &step.env, &step.depends_on].into_iter().flatten();
            let texts = texts.map(|text| size_of::<String>() + text.len());
            let workdir = step.workdir.as_ref().map_or(0, String::len);
            let single = step.id.len() + step.command.len() + workdir;
            size_of::<StepFacts>() + single + texts.sum::<usize>()
        };
        self.steps.iter().map(of_step).sum()
    }

    /// Takes in the steps that only their rows tell of.
    pub(crate) fn learn(&mut self, rows: &[(u32, StepRow)]) {
        for (place, row) in rows {
            let place = *place as usize;
            let Some(step) = &row.step else { continue };
            while self.steps.len() <= place {
                let id = (self.steps.len() + 1).to_string();
                self.steps.push(StepFacts { id, ..StepFacts::default() });
            }
            self.steps[place] = StepFacts::of(step.0.clone(), step.0.id_at(place));
        }
    }

    fn info(&self, place: usize, row: &StepRow) -> StepInfo {
        let unknown = || StepFacts { id: (place + 1).to_string(), ..StepFacts::default() };
        row.info(self.steps.get(place).cloned().unwrap_or_else(unknown))
    }

    fn id(&self, place: u32) -> String {
        let known = self.steps.get(place as usize).map(|step| step.id.clone());
        known.unwrap_or_else(|| (place as usize + 1).to_string())
    }

    pub(crate) fn happening(&self, what: EventKind) -> BatchEventKind {
        match what {
            EventKind::Queued => BatchEventKind::Queued,
            EventKind::Begun => BatchEventKind::Begun,
            EventKind::Started { step, attempt, .. } => {
                BatchEventKind::Started { step: self.id(step), attempt }
            }
            EventKind::Ended { step, row } => {
                BatchEventKind::Ended(Box::new(self.info(step as usize, &row)))
            }
            EventKind::Due { step } => BatchEventKind::Due { step: self.id(step) },
            EventKind::Skipped { step, reason } => {
                BatchEventKind::Skipped { step: self.id(step), reason }
            }
            EventKind::Cancelling => BatchEventKind::Cancelling,
            EventKind::Aborting => BatchEventKind::Aborting,
            EventKind::TimedOut => BatchEventKind::TimedOut,
            EventKind::Finished { state, exit_code } => {
                BatchEventKind::Finished { state: batch_state(&state), exit_code }
            }
        }
    }
}
