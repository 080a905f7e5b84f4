//! Requests for batches as they are written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::plan::{PlanData, is_default};
use crate::batch::step_record::{list, text};
use crate::batch::{FailFast, Step};

/// A plan in the form in which it is stored, borrowed from one that is written. The sums of idempotency keys
/// are made of it: the order of its fields must stay.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct PlanRecord<'a> {
    name: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "is_default")]
    labels: Cow<'a, BTreeMap<String, String>>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(with = "list")]
    steps: Cow<'a, [Step]>,
    parallelism: Option<usize>,
    #[serde(with = "FailFastRecord")]
    fail_fast: FailFast,
    workdir: Option<Cow<'a, str>>,
    session_id: Option<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "FailFast", rename_all = "camelCase")]
enum FailFastRecord {
    Never,
    Soon,
    Now,
}

impl PlanData {
    pub(crate) fn to_json(&self) -> String {
        let record = PlanRecord {
            name: text(&self.name),
            labels: Cow::Borrowed(&self.labels),
            timeout: self.timeout,
            steps: Cow::Borrowed(&self.steps),
            parallelism: self.parallelism,
            fail_fast: self.fail_fast,
            workdir: text(&self.workdir),
            session_id: text(&self.session_id),
        };
        // Plain data, which has a form in JSON.
        serde_json::to_string(&record).unwrap_or_default()
    }

    pub(crate) fn from_json(text: &str) -> serde_json::Result<Self> {
        let record: PlanRecord<'_> = serde_json::from_str(text)?;
        Ok(Self {
            name: record.name.map(Cow::into_owned),
            labels: record.labels.into_owned(),
            timeout: record.timeout,
            steps: record.steps.into_owned(),
            parallelism: record.parallelism,
            fail_fast: record.fail_fast,
            workdir: record.workdir.map(Cow::into_owned),
            session_id: record.session_id.map(Cow::into_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As every version has written it.
    const STORED: &str = r#"{"name":"nightly","labels":{"branch":"main"},"timeout":1,"steps":[{"id":"a","command":"make 'x y'","useShell":true,"args":["all"],"workdir":"src","env":[["A","1"]],"stdin":"aGk=","timeout":1,"idleTimeout":2,"mask":["A"],"outputLimit":3,"limits":{"memory":4},"sessionId":"s","keepsBackground":true,"dependsOn":["b"],"runIf":"always","retries":5,"retryDelay":6,"rerunOnRestart":true,"retryOn":{"exitCodes":[7],"reasons":["timed_out"]},"allowFailure":true,"check":"late","stdinFrom":{"step":"b","isStderr":true,"ranIn":{"batch":"c","place":8}},"stdinOpen":true,"envNames":["B"]},{"command":""}],"parallelism":2,"failFast":"soon","workdir":"below","sessionId":"s"}"#;

    fn rewritten(stored: &str) -> String {
        PlanData::from_json(stored).expect("a plan").to_json()
    }

    #[test]
    fn the_stored_form_of_a_plan_stays() {
        assert_eq!(rewritten(STORED), STORED);
        let plain = r#"{"name":null,"steps":[],"parallelism":null,"failFast":"never","workdir":null,"sessionId":null}"#;
        assert_eq!(PlanData::default().to_json(), plain);
        assert_eq!(rewritten(plain), plain);
        // Fields of a later minor version, a step without fields, and what may be missing.
        let short = r#"{"steps":[{"later":1}],"failFast":"now","later":[]}"#;
        let expected = r#"{"name":null,"steps":[{"command":""}],"parallelism":null,"failFast":"now","workdir":null,"sessionId":null}"#;
        assert_eq!(rewritten(short), expected);
        assert!(PlanData::from_json("{}").is_err());
    }
}
