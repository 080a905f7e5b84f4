//! Running a batch again.

use sha2::{Digest as _, Sha256};

use crate::auth::Caller;
use crate::batch::graph::dependencies;
use crate::batch::plan::{EarlierRun, PlanData, RunIf, Step};
use crate::batch::records::PLAN;
use crate::batch::submit::{AcceptedBatch, UsedKey, detached};
use crate::batch::{BatchError, Batches, StepState, Submitted};
use crate::blocking::blocking;
use crate::ids::{BatchId, IntoId};
use crate::quota::CallerLargeWork;
use crate::text::hex;

impl Batches {
    /// Runs the steps of a batch that is over again, as a new batch: all, or with `only_failed` those
    /// that did not succeed and all that depend on them, handlers and steps that clean up included.
    /// Other steps that these depend on count as succeeded.
    ///
    /// ```
    /// use splengine_core::batch::BatchPolicy;
    /// use splengine_core::store::MemoryStore;
    /// use splengine_core::{BatchRequest, Caller, Engine, LocalExecutor, Step};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let outputs = tempfile::tempdir()?;
    /// # let policy = BatchPolicy::new(MemoryStore::new(), outputs.path());
    /// # let engine = Engine::builder(LocalExecutor::new(".")?).batches(policy).build()?;
    /// # let alice = Caller::new("alice")?.with_all_scopes();
    /// let batches = engine.batches();
    /// let request = BatchRequest::new()
    ///     .step(Step::new("true").id("fetch"))
    ///     .step(Step::new("false").id("build"));
    /// let id = batches.submit(&alice, request, None).await?.record.info.id;
    /// batches.wait(&alice, &id).await?;
    /// // `fetch` has succeeded, and is not run again.
    /// let again = batches.rerun(&alice, &id, true).await?.record;
    /// assert_eq!(again.info.rerun_of, Some(id));
    /// assert_eq!(again.steps.iter().map(|step| &step.id[..]).collect::<Vec<_>>(), ["build"]);
    /// # batches.wait(&alice, &again.info.id).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`BatchError::NoBatch`]; [`BatchError::Conflict`] when the batch is not over, no step is left to
    /// run, or the variables and standard input of its steps are [kept no
    /// longer](crate::batch::BatchPolicy::keep_inputs_for); [`BatchError::ReadLimit`], as
    /// [`get`](Self::get); and as [`submit`](Self::submit).
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn rerun(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        only_failed: bool,
    ) -> Result<Submitted, BatchError> {
        self.rerun_under(caller, self.id(caller, id)?, only_failed, None).await
    }

    /// Runs a batch again as [`rerun`](Self::rerun) does, and no more than once: with an
    /// `idempotency_key`, as for [`submit`](Self::submit), a repetition gives the batch that was
    /// made first.
    ///
    /// # Errors
    ///
    /// As [`rerun`](Self::rerun); [`BatchError::KeyReused`] when the key was used for something else.
    ///
    /// # Cancel safety
    ///
    /// As [`submit`](Self::submit).
    pub async fn rerun_once(
        &self,
        caller: &Caller,
        id: impl IntoId<BatchId>,
        only_failed: bool,
        idempotency_key: &str,
    ) -> Result<Submitted, BatchError> {
        let id = self.id(caller, id)?;
        let sum = hex(&Sha256::digest(format!("rerun\0{id}\0{only_failed}")));
        let key = self.lock_key(caller, Some(idempotency_key), sum, 0).await?;
        self.rerun_under(caller, id, only_failed, key).await
    }

    async fn rerun_under(
        &self,
        caller: &Caller,
        id: BatchId,
        only_failed: bool,
        key: Option<UsedKey>,
    ) -> Result<Submitted, BatchError> {
        let (this, caller) = (self.clone(), caller.clone());
        detached(async move {
            let work = this.large_work(&caller);
            this.once(&work, &caller, key, async |this: &Self| {
                this.accept_again(&work, &caller, &id, only_failed).await
            })
            .await
        })
        .await
    }

    async fn accept_again(
        &self,
        work: &CallerLargeWork,
        caller: &Caller,
        id: &BatchId,
        only_failed: bool,
    ) -> Result<AcceptedBatch, BatchError> {
        let summary = self.find(caller, id).await?;
        if !summary.state().is_final() {
            return Err(BatchError::Conflict("the batch is not over; cancel it first"));
        }
        let states = match only_failed {
            true => {
                let record = self.get_under(work, caller, id).await?;
                Some(record.steps.iter().map(|step| step.state).collect::<Vec<StepState>>())
            }
            false => None,
        };
        // Beside its recipe, all that its steps were given is read.
        let _memory = self.registry()?.reads.reserve_with_inputs(caller, &summary).await?;
        let journal = &self.registry()?.journal;
        let recipe = journal.recipe(id, work).await?;
        if recipe.kind != PLAN {
            return Err(BatchError::Conflict("a batch of this kind can't be run again"));
        }
        let bytes = summary.parsed_bytes() + usize::try_from(summary.input_bytes).unwrap_or(0);
        let parse = move || PlanData::from_json(&recipe.text).map_err(|_| BatchError::Damaged);
        let plan: PlanData = work.run(bytes, parse).await?;
        let mut given = None;
        if summary.has_inputs {
            let (outputs, of) = (self.registry()?.outputs.clone(), id.clone());
            let inputs = blocking(move || outputs.read_inputs(&of)).await;
            let inputs = inputs.map_err(|error| BatchError::Internal(error.into()))?;
            given = Some(inputs.ok_or(BatchError::Conflict(INPUTS_GONE))?);
        }
        let of = id.clone();
        let choose = move || {
            let mut plan = plan;
            if given.is_some_and(|inputs| !inputs.put(&mut plan)) {
                return Err(BatchError::Damaged);
            }
            if let Some(states) = states {
                let needs = dependencies(&plan.steps)?;
                let again = failed_and_dependents(&plan.steps, &needs, &states);
                keep_only(&of, &mut plan.steps, &needs, &again);
                if plan.steps.is_empty() {
                    return Err(BatchError::Conflict("no step of this batch failed"));
                }
            }
            Ok(plan)
        };
        let plan = work.run(bytes, choose).await?;
        self.accept(work, caller, plan, Some(id.to_string())).await
    }
}

/// Which steps are run again: those that failed, were stopped or left out, and all that depend on
/// one of them. A handler that was left out since nothing had failed is none of them by itself.
fn failed_and_dependents(steps: &[Step], needs: &[Vec<usize>], states: &[StepState]) -> Vec<bool> {
    let mut again = vec![false; steps.len()];
    let mut unneeded = vec![false; steps.len()];
    for step in in_order(needs) {
        let state = states.get(step).copied().unwrap_or_default();
        let after = needs[step].iter().any(|need| again[*need]);
        let is_fine = state == StepState::Succeeded
            || (steps[step].0.run_if == RunIf::Failure
                && state == StepState::Skipped
                && needs[step].iter().all(|need| {
                    unneeded[*need] || states.get(*need) == Some(&StepState::Succeeded)
                }));
        unneeded[step] = is_fine && state == StepState::Skipped;
        again[step] = after || !is_fine;
    }
    again
}

/// The steps, each after those that it depends on.
fn in_order(needs: &[Vec<usize>]) -> Vec<usize> {
    let mut missing: Vec<usize> = needs.iter().map(Vec::len).collect();
    let mut dependents = vec![Vec::new(); needs.len()];
    for (step, needed) in needs.iter().enumerate() {
        for other in needed {
            dependents[*other].push(step);
        }
    }
    let mut order: Vec<usize> = (0..needs.len()).filter(|step| missing[*step] == 0).collect();
    let mut next = 0;
    while let Some(step) = order.get(next).copied() {
        next += 1;
        for &dependent in &dependents[step] {
            missing[dependent] -= 1;
            if missing[dependent] == 0 {
                order.push(dependent);
            }
        }
    }
    order
}

/// Keeps these steps, which depend on each other as before and go by the ids that they had.
fn keep_only(batch: &BatchId, steps: &mut Vec<Step>, needs: &[Vec<usize>], kept: &[bool]) {
    let ids: Vec<String> =
        steps.iter().enumerate().map(|(place, step)| step.id_at(place)).collect();
    for (place, step) in steps.iter_mut().enumerate() {
        let met = needs[place].iter().filter(|need| kept[**need]);
        step.0.depends_on = Some(met.map(|need| ids[*need].clone()).collect());
        step.0.id = Some(ids[place].clone());
        // What a step printed that is not run again is read where it is.
        let source = step.0.stdin_from.as_mut().filter(|source| source.ran_in.is_none());
        if let Some(source) = source
            && let Some(of) = needs[place].iter().find(|need| ids[**need] == source.step)
            && !kept[*of]
        {
            let place = u32::try_from(*of).unwrap_or(u32::MAX);
            source.ran_in = Some(EarlierRun { batch: batch.to_string(), place });
        }
    }
    let mut place = 0;
    steps.retain(|_| {
        place += 1;
        kept[place - 1]
    });
}

const INPUTS_GONE: &str = "the variables and standard input of this batch are kept no longer, so it \
    can't be run again; submit it anew";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `ABC` after which it depends, `!` on failure, `*` always; and how it ended.
    fn again(all: &[(&str, &[&str], RunIf, StepState)]) -> Vec<String> {
        let step = |(id, needs, run_if, _): &(&str, &[&str], RunIf, StepState)| {
            Step::new("true").id(*id).after(needs.iter().copied()).run_if(*run_if)
        };
        let mut steps: Vec<Step> = all.iter().map(step).collect();
        let states: Vec<StepState> = all.iter().map(|one| one.3).collect();
        let needs = dependencies(&steps).expect("no circle");
        let kept = failed_and_dependents(&steps, &needs, &states);
        keep_only(&BatchId::new(), &mut steps, &needs, &kept);
        dependencies(&steps).expect("whole");
        let told = |step: Step| {
            let needs = step.0.depends_on.unwrap_or_default().join(" ");
            format!("{}<-{needs}", step.0.id.unwrap_or_default())
        };
        steps.into_iter().map(told).collect()
    }

    #[test]
    fn what_follows_a_failure_is_run_again() {
        use RunIf::{Always, Failure, Success};
        use StepState::{Failed, Skipped, Succeeded};
        let steps: &[(&str, &[&str], RunIf, StepState)] = &[
            ("setup", &[], Success, Succeeded),
            ("unneeded", &["setup"], Failure, Skipped),
            ("after", &["unneeded"], Success, Succeeded),
            ("test", &["setup"], Success, Failed),
            ("teardown", &["test"], Always, Succeeded),
            ("alarm", &["test", "setup"], Failure, Succeeded),
            ("deploy", &["test"], Success, Skipped),
        ];
        let expected = ["test<-", "teardown<-test", "alarm<-test", "deploy<-test"];
        assert_eq!(again(steps), expected);
        assert!(again(&steps[..3]).is_empty());
        // Left out by fail-fast or a cancellation, not by what it depends on.
        let halted: &[(&str, &[&str], RunIf, StepState)] =
            &[("a", &[], Success, Failed), ("b", &[], Success, Skipped)];
        assert_eq!(again(halted), ["a<-", "b<-"]);
    }

    proptest! {
        /// What is run again is closed: whatever depends on a part of it is a part of it; and what
        /// is not did not fail.
        #[test]
        fn what_is_run_again_is_whole(
            shape in prop::collection::vec((
                prop::collection::vec(any::<prop::sample::Index>(), 0..3), 0u8..3, 0usize..4,
            ), 1..12),
        ) {
            let all = [
                StepState::Succeeded, StepState::Failed, StepState::Skipped, StepState::Cancelled,
            ];
            let mut steps = Vec::new();
            for (place, (needs, run_if, _)) in shape.iter().enumerate() {
                let needs = needs.iter().filter(|_| place > 0);
                let needs = needs.map(|need| (need.index(place) + 1).to_string());
                let run_if = [RunIf::Success, RunIf::Failure, RunIf::Always][usize::from(*run_if)];
                steps.push(Step::new("true").after(needs).run_if(run_if));
            }
            let states: Vec<StepState> = shape.iter().map(|(.., state)| all[*state]).collect();
            let needs = dependencies(&steps).expect("no circle");
            let again = failed_and_dependents(&steps, &needs, &states);
            for step in 0..steps.len() {
                let after = needs[step].iter().any(|need| again[*need]);
                prop_assert!(!after || again[step]);
                prop_assert!(again[step]
                    || matches!(states[step], StepState::Succeeded | StepState::Skipped));
                prop_assert!(!again[step] || after || states[step] != StepState::Succeeded);
            }
        }
    }
}
