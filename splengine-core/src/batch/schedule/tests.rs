use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::batch::{BatchRequest, RetryOn};

#[derive(Debug, Clone)]
struct Shape {
    /// Of each step: on which of those before it depends, when it runs, how often again, whether it
    /// is run again when it was lost, and whether it may fail.
    steps: Vec<(Vec<prop::sample::Index>, RunIf, u32, bool, bool)>,
    parallelism: usize,
    fail_fast: FailFast,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let run_if = prop_oneof![
        4 => Just(RunIf::Success),
        1 => Just(RunIf::Failure),
        1 => Just(RunIf::Always),
    ];
    let needs = prop::collection::vec(any::<prop::sample::Index>(), 0..4);
    let step = (needs, run_if, 0u32..3, any::<bool>(), prop::bool::weighted(0.2));
    let fail_fast = prop_oneof![Just(FailFast::Never), Just(FailFast::Soon), Just(FailFast::Now)];
    (prop::collection::vec(step, 1..14), 1usize..5, fail_fast)
        .prop_map(|(steps, parallelism, fail_fast)| Shape { steps, parallelism, fail_fast })
}

impl Shape {
    fn needs(&self, step: usize) -> BTreeSet<usize> {
        let (needs, ..) = &self.steps[step];
        if step == 0 {
            BTreeSet::new()
        } else {
            needs.iter().map(|need| need.index(step)).collect()
        }
    }

    /// Whether it is run however the others end.
    fn cleans_up(&self, step: usize) -> bool {
        self.steps[step].1 == RunIf::Always && !self.needs(step).is_empty()
    }

    fn job(&self) -> Schedule {
        let mut request =
            BatchRequest::new().parallelism(self.parallelism).fail_fast(self.fail_fast);
        for (place, (_, run_if, retries, rerun, allow)) in self.steps.iter().enumerate() {
            let needs = self.needs(place).into_iter().map(|need| (need + 1).to_string());
            let step = Step::new("true").after(needs).run_if(*run_if).retries(*retries);
            request = request.step(step.rerun_on_restart(*rerun).allow_failure(*allow));
        }
        Schedule::new(request.plan, 1).expect("no circle")
    }
}

/// What happens next, of all that may.
#[derive(Debug, Clone)]
struct Choice {
    which: prop::sample::Index,
    outcome: Outcome,
    /// What else happens in its place.
    halts: Option<JobEvent>,
}

fn choices() -> impl Strategy<Value = Vec<Choice>> {
    let outcome = prop_oneof![
        4 => Just(Outcome::Succeeded),
        3 => Just(Outcome::Failed),
        1 => Just(Outcome::Lost),
    ];
    let halts = prop_oneof![
        40 => Just(None),
        1 => Just(Some(JobEvent::TimedOut)),
        2 => Just(Some(JobEvent::Cancelled)),
    ];
    let choice = (any::<prop::sample::Index>(), outcome, halts)
        .prop_map(|(which, outcome, halts)| Choice { which, outcome, halts });
    prop::collection::vec(choice, 200)
}

/// How a step stands, as seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Untouched,
    Running,
    Waiting,
    Good,
    /// It failed and may.
    Allowed,
    Bad,
    Unneeded,
    LeftOut,
}

proptest! {
    /// No step starts before what it depends on, none twice at once, never more than may; what
    /// cleans up is run whatever happens, but a second cancellation; what is tolerated has failed,
    /// and may or was handled; every batch ends, and the same events give the same actions again.
    #[test]
    fn every_batch_ends_as_it_should(
        shape in shapes(),
        choices in choices(),
        first in any::<prop::sample::Index>(),
        never_begin in any::<u16>(),
    ) {
        let mut job = shape.job();
        let mut seen = vec![Seen::Untouched; shape.steps.len()];
        let mut runs = vec![0u32; shape.steps.len()];
        let mut stopping = BTreeSet::new();
        let mut withdrawn = VecDeque::new();
        let mut history: Vec<(JobEvent, Vec<JobAction>)> = Vec::new();
        let (mut timed_out, mut cancels) = (false, 0);
        let mut tolerated = BTreeSet::new();
        let mut has_failed = vec![false; shape.steps.len()];
        let mut choices = choices.into_iter();
        let mut event = JobEvent::Begun;
        let mut losses = BTreeMap::new();
        loop {
            let actions = job.on_event(event);
            history.push((event, actions.clone()));
            let mut finished = false;
            for action in actions {
                prop_assert!(!finished, "something after the end");
                match action {
                    JobAction::Start { step } => {
                        prop_assert!(matches!(seen[step], Seen::Untouched | Seen::Waiting));
                        prop_assert!(cancels < 2);
                        prop_assert!(cancels == 0 || shape.cleans_up(step));
                        let is_plain = match shape.steps[step].1 {
                            RunIf::Success => true,
                            RunIf::Failure => false,
                            RunIf::Always => !shape.cleans_up(step),
                        };
                        prop_assert!(!timed_out || !is_plain);
                        let needs = shape.needs(step);
                        let over = |need: &usize| {
                            !matches!(seen[*need], Seen::Untouched | Seen::Running | Seen::Waiting)
                        };
                        prop_assert!(needs.iter().all(over), "too early");
                        let bad = needs.iter().any(|need| {
                            matches!(seen[*need], Seen::Bad | Seen::LeftOut)
                        });
                        match shape.steps[step].1 {
                            RunIf::Success => prop_assert!(!bad),
                            RunIf::Failure => prop_assert!(bad),
                            RunIf::Always => {}
                        }
                        seen[step] = Seen::Running;
                        runs[step] += 1;
                        prop_assert!(
                            runs[step] <= 1 + shape.steps[step].2 + losses.get(&step).unwrap_or(&0),
                            "too often",
                        );
                    }
                    JobAction::Wait { step, .. } => seen[step] = Seen::Waiting,
                    JobAction::Tolerate { step } => {
                        prop_assert!(!matches!(seen[step], Seen::Untouched | Seen::Good));
                        prop_assert!(tolerated.insert(step), "tolerated twice");
                        let was_handled = (step + 1..seen.len()).any(|other| {
                            shape.steps[other].1 == RunIf::Failure && seen[other] == Seen::Good
                        });
                        prop_assert!(seen[step] == Seen::Allowed || was_handled);
                    }
                    JobAction::Skip { step, reason } => {
                        prop_assert!(matches!(seen[step], Seen::Untouched | Seen::Waiting));
                        seen[step] = if reason == "no step before it failed" {
                            Seen::Unneeded
                        } else if shape.steps[step].4 && has_failed[step] {
                            Seen::Allowed
                        } else {
                            Seen::LeftOut
                        };
                    }
                    JobAction::Withdraw { step, .. } => {
                        prop_assert_eq!(seen[step], Seen::Running);
                        if never_begin >> step & 1 == 1 {
                            withdrawn.push_back(step);
                        }
                    }
                    JobAction::Stop { step } => {
                        prop_assert_eq!(seen[step], Seen::Running);
                        stopping.insert(step);
                    }
                    JobAction::Finish => finished = true,
                }
            }
            let running: Vec<usize> =
                (0..seen.len()).filter(|step| seen[*step] == Seen::Running).collect();
            let waiting: Vec<usize> =
                (0..seen.len()).filter(|step| seen[*step] == Seen::Waiting).collect();
            prop_assert!(running.len() <= shape.parallelism);
            let untouched = seen.contains(&Seen::Untouched);
            if finished {
                prop_assert!(running.is_empty() && waiting.is_empty() && !untouched);
                for step in 0..seen.len() {
                    prop_assert!(cancels == 2 || !shape.cleans_up(step) || runs[step] > 0);
                    prop_assert!(seen[step] != Seen::Allowed || tolerated.contains(&step));
                }
                break;
            }
            prop_assert!(!running.is_empty() || !waiting.is_empty(), "it hangs: {seen:?}");
            let choice = choices.next().unwrap_or(Choice {
                which: first,
                outcome: Outcome::Succeeded,
                halts: None,
            });
            event = if let Some(step) = withdrawn.pop_front() {
                stopping.remove(&step);
                let is_allowed = shape.steps[step].4 && has_failed[step];
                seen[step] = if is_allowed { Seen::Allowed } else { Seen::LeftOut };
                ended(step, Outcome::Cancelled)
            } else if choice.halts == Some(JobEvent::TimedOut) && !timed_out && cancels == 0 {
                timed_out = true;
                JobEvent::TimedOut
            } else if choice.halts == Some(JobEvent::Cancelled) && cancels < 2 {
                cancels += 1;
                if cancels == 1 { JobEvent::Cancelled } else { JobEvent::Aborted }
            } else {
                let place = choice.which.index(running.len() + waiting.len());
                match running.get(place) {
                    Some(&step) => {
                        let outcome =
                            if stopping.remove(&step) { Outcome::Cancelled } else { choice.outcome };
                        seen[step] = match outcome {
                            Outcome::Succeeded => Seen::Good,
                            Outcome::Failed | Outcome::Lost if shape.steps[step].4 => Seen::Allowed,
                            _ if shape.steps[step].4 && has_failed[step] => Seen::Allowed,
                            _ => Seen::Bad,
                        };
                        has_failed[step] |= matches!(outcome, Outcome::Failed | Outcome::Lost);
                        if outcome == Outcome::Lost && shape.steps[step].3 {
                            *losses.entry(step).or_insert(0) += 1;
                        }
                        ended(step, outcome)
                    }
                    // A wait that was over before it was given up is told of all the same.
                    None => JobEvent::Due { step: waiting[place - running.len()] },
                }
            };
        }
        let mut again = shape.job();
        for (event, actions) in history {
            prop_assert_eq!(again.on_event(event), actions);
        }
    }
}

fn ended(step: usize, outcome: Outcome) -> JobEvent {
    let exit_code = Some(i32::from(outcome != Outcome::Succeeded));
    JobEvent::Ended { step, outcome, exit_code, reason: Some(Reason::Exited) }
}

fn plan(steps: impl IntoIterator<Item = Step>) -> PlanData {
    steps.into_iter().fold(BatchRequest::new(), BatchRequest::step).plan
}

#[test]
fn what_can_not_be_is_refused_by_name() {
    let refusal =
        |steps: Vec<Step>| Schedule::new(plan(steps), 1).expect_err("refused").to_string();
    let step = |id: &str, after: &[&str]| Step::new("true").id(id).after(after.iter().copied());
    assert_eq!(
        refusal(vec![step("a", &["c"]), step("b", &["a"]), step("c", &["b"])]),
        "step `a`: `depends_on` makes a circle: a -> c -> b -> a"
    );
    assert_eq!(refusal(vec![step("a", &["a"])]), "step `a`: `depends_on` makes a circle: a -> a");
    let text = refusal(vec![step("a", &["nobody"])]);
    assert_eq!(text, "step `a`: `depends_on` names `nobody`, which is no step of this batch");
    assert!(
        refusal(vec![Step::new("a").id("2"), Step::new("b")]).starts_with("step `2`: `id` is that")
    );
    for id in ["a b", "", ".", ".."] {
        assert!(refusal(vec![Step::new("a").id(id)]).contains("is not 1 to 64"), "{id:?}");
    }
    assert!(Schedule::new(plan([Step::new("a").id("...")]), 1).is_ok());
}

/// A chain as long as a batch may be does not end in a stack that is too deep.
#[test]
fn long_chains_are_no_matter() {
    let chain = (0..100_000).map(|_| Step::new("true"));
    let mut job = Schedule::new(plan(chain), 1).expect("no circle");
    assert_eq!(job.on_event(JobEvent::Begun), [JobAction::Start { step: 0 }]);
    let actions = job.on_event(ended(0, Outcome::Failed));
    assert_eq!(actions.len(), 100_000);
    assert_eq!(actions.last(), Some(&JobAction::Finish));
}

#[test]
fn a_handler_that_was_not_needed_holds_up_nothing() {
    let steps = [Step::new("true"), Step::new("mend").run_if(RunIf::Failure), Step::new("go on")];
    let mut job = Schedule::new(plan(steps), 1).expect("no circle");
    job.on_event(JobEvent::Begun);
    let actions = job.on_event(ended(0, Outcome::Succeeded));
    let reason = "no step before it failed".to_owned();
    assert_eq!(actions, [JobAction::Skip { step: 1, reason }, JobAction::Start { step: 2 }]);
}

/// The failures of those that a handler runs for are tolerated, those of others are not.
#[test]
fn what_is_handled_is_tolerated() {
    let step = |id: &str, after: &[&str]| Step::new("true").id(id).after(after.iter().copied());
    let steps = [
        step("a", &[]),
        step("b", &["a"]),
        step("mend", &["b"]).run_if(RunIf::Failure),
        step("other", &[]),
        step("after", &["mend"]),
    ];
    let mut job = Schedule::new(plan(steps), 5).expect("no circle");
    job.on_event(JobEvent::Begun);
    let reason = "a step before it failed".to_owned();
    let expected = [JobAction::Skip { step: 1, reason }, JobAction::Start { step: 2 }];
    assert_eq!(job.on_event(ended(0, Outcome::Failed)), expected);
    assert_eq!(job.on_event(ended(3, Outcome::Failed)), []);
    let expected = [JobAction::Tolerate { step: 0 }, JobAction::Start { step: 4 }];
    assert_eq!(job.on_event(ended(2, Outcome::Succeeded)), expected);
    assert_eq!(job.on_event(ended(4, Outcome::Succeeded)), [JobAction::Finish]);
}

/// What cleans up waits for the end of what it cleans up after.
#[test]
fn what_cleans_up_is_run_after_a_cancellation() {
    let steps = [
        Step::new("work"),
        Step::new("more"),
        Step::new("teardown").run_if(RunIf::Always),
        Step::new("alarm").run_if(RunIf::Failure),
    ];
    let mut job = Schedule::new(plan(steps.clone()), 1).expect("no circle");
    job.on_event(JobEvent::Begun);
    assert_eq!(job.on_event(JobEvent::Cancelled), [JobAction::Stop { step: 0 }]);
    let reason = || "the batch was cancelled".to_owned();
    let expected = [JobAction::Skip { step: 1, reason: reason() }, JobAction::Start { step: 2 }];
    assert_eq!(job.on_event(ended(0, Outcome::Cancelled)), expected);
    assert_eq!(job.on_event(JobEvent::Aborted), [JobAction::Stop { step: 2 }]);
    let expected = [JobAction::Skip { step: 3, reason: reason() }, JobAction::Finish];
    assert_eq!(job.on_event(ended(2, Outcome::Cancelled)), expected);

    // When its time is up, handlers are run as well.
    let mut job = Schedule::new(plan(steps), 1).expect("no circle");
    job.on_event(JobEvent::Begun);
    let withdraw =
        JobAction::Withdraw { step: 0, reason: "the time of the batch was up".to_owned() };
    assert_eq!(job.on_event(JobEvent::TimedOut), [withdraw, JobAction::Stop { step: 0 }]);
}

#[test]
fn only_such_failures_are_run_again_as_are_worth_it() {
    let on = RetryOn::new().exit_codes([75]).reasons([Reason::TimedOut]);
    let again = |exit_code, reason| {
        let step = Step::new("true").retries(1).retry_on(on.clone());
        let mut job = Schedule::new(plan([step]), 1).expect("no circle");
        job.on_event(JobEvent::Begun);
        let (step, outcome) = (0, Outcome::Failed);
        let actions = job.on_event(JobEvent::Ended { step, outcome, exit_code, reason });
        matches!(actions[0], JobAction::Wait { .. })
    };
    assert!(again(Some(75), Some(Reason::Exited)));
    assert!(again(Some(124), Some(Reason::TimedOut)));
    assert!(!again(Some(1), Some(Reason::Exited)));
    assert!(!again(Some(127), None));
}
