//! Dependencies between steps. Pure.

use std::collections::HashMap;

use crate::batch::{BatchError, Step};
use crate::error::Field;

/// The places of the steps that each step depends on, once the ids were checked.
pub(crate) fn dependencies(steps: &[Step]) -> Result<Vec<Vec<usize>>, BatchError> {
    let mut places = HashMap::new();
    for (place, step) in steps.iter().enumerate() {
        let id = step.id_at(place);
        if !is_id(&id) {
            let shown: String = id.chars().take(80).collect();
            let problem = "is not 1 to 64 of A-Z a-z 0-9 . _ -, or is `.` or `..`".to_owned();
            return Err(BatchError::Step { step: shown, field: Field::Id, problem });
        }
        if let Some(other) = places.insert(id.clone(), place) {
            let problem = format!("is that of step {} already; each needs its own", other + 1);
            return Err(BatchError::Step { step: id, field: Field::Id, problem });
        }
    }
    // By which step each was last seen to be needed.
    let mut needed_by = vec![usize::MAX; steps.len()];
    let resolve = |(place, step): (usize, &Step)| {
        let count = step.0.depends_on.as_ref().map_or(0, Vec::len);
        if count > Step::MAX_DEPENDENCIES {
            let max = Step::MAX_DEPENDENCIES;
            let problem = format!("has {count} elements, over the maximum of {max}");
            return Err(BatchError::Step {
                step: step.id_at(place),
                field: Field::DependsOn,
                problem,
            });
        }
        let before = place.checked_sub(1).filter(|_| step.0.depends_on.is_none());
        let mut found: Vec<usize> = before.into_iter().collect();
        let ids = step.0.depends_on.iter().flatten().map(|id| (id, Field::DependsOn));
        let source = step.0.stdin_from.as_ref().filter(|source| source.ran_in.is_none());
        for (id, field) in ids.chain(source.map(|source| (&source.step, Field::StdinFrom))) {
            let Some(other) = places.get(id) else {
                let shown: String = id.chars().take(80).collect();
                let problem = format!("names `{shown}`, which is no step of this batch");
                return Err(BatchError::Step { step: step.id_at(place), field, problem });
            };
            if std::mem::replace(&mut needed_by[*other], place) != place {
                found.push(*other);
            }
        }
        Ok(found)
    };
    let dependencies = steps.iter().enumerate().map(resolve).collect::<Result<Vec<_>, _>>()?;
    if let Some(cycle) = find_cycle(&dependencies) {
        let names: Vec<String> = cycle.iter().map(|place| steps[*place].id_at(*place)).collect();
        return Err(BatchError::Step {
            step: names[0].clone(),
            field: Field::DependsOn,
            problem: format!("makes a circle: {} -> {}", names.join(" -> "), names[0]),
        });
    }
    Ok(dependencies)
}

/// Steps that wait for each other, if there are any: each depends on the next, the last on the
/// first.
fn find_cycle(dependencies: &[Vec<usize>]) -> Option<Vec<usize>> {
    // How many ways are left to try from each step on the path; without recursion, since a chain
    // may be as long as the batch.
    let mut is_done = vec![false; dependencies.len()];
    let mut on_path = vec![false; dependencies.len()];
    for start in 0..dependencies.len() {
        let mut path = vec![(start, 0)];
        while let Some((step, tried)) = path.last_mut() {
            let step = *step;
            if *tried == 0 {
                if is_done[step] {
                    path.pop();
                    continue;
                }
                on_path[step] = true;
            }
            match dependencies[step].get(*tried) {
                Some(next) if on_path[*next] => {
                    let begin = path.iter().position(|(on, _)| on == next).unwrap_or(0);
                    return Some(path[begin..].iter().map(|(on, _)| *on).collect());
                }
                Some(next) => {
                    *tried += 1;
                    let next = *next;
                    if !is_done[next] {
                        path.push((next, 0));
                    }
                }
                None => {
                    on_path[step] = false;
                    is_done[step] = true;
                    path.pop();
                }
            }
        }
    }
    None
}

fn is_id(text: &str) -> bool {
    // The two that URLs and paths take for a place.
    !matches!(text, "." | "..")
        && (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}
