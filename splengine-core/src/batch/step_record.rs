//! Steps as they are written.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::batch::plan::{StdinFrom, StepData, is_default};
use crate::batch::{RetryOn, RunIf, Step, StepCheck};
use crate::execute::{Background, CommandParts};

/// A step in the form in which it is stored, borrowed from one that is written. The sums of idempotency keys
/// are made of it: the order of its fields must stay.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StepRecord<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    command: Cow<'a, str>,
    #[serde(skip_serializing_if = "is_default")]
    use_shell: bool,
    #[serde(skip_serializing_if = "is_empty")]
    args: Cow<'a, [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workdir: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_empty")]
    env: Cow<'a, [(String, String)]>,
    #[serde(skip_serializing_if = "Option::is_none", with = "base64_text")]
    stdin: Option<Bytes>,
    /// Milliseconds, as all times here.
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_timeout: Option<u64>,
    #[serde(skip_serializing_if = "is_empty")]
    mask: Cow<'a, [String]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_limit: Option<u64>,
    #[serde(skip_serializing_if = "is_default")]
    limits: Cow<'a, BTreeMap<String, u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "is_default")]
    keeps_background: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    depends_on: Option<Cow<'a, [String]>>,
    #[serde(skip_serializing_if = "is_default", with = "RunIfRecord")]
    run_if: RunIf,
    #[serde(skip_serializing_if = "is_default")]
    retries: u32,
    #[serde(skip_serializing_if = "is_default")]
    retry_delay: u64,
    #[serde(skip_serializing_if = "is_default")]
    rerun_on_restart: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_on: Option<RetryOnRecord<'a>>,
    #[serde(skip_serializing_if = "is_default")]
    allow_failure: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    check: Option<SetCheck>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin_from: Option<Cow<'a, StdinFrom>>,
    #[serde(skip_serializing_if = "is_default")]
    stdin_open: bool,
    #[serde(skip_serializing_if = "is_empty")]
    env_names: Cow<'a, [String]>,
}

impl<'a> StepRecord<'a> {
    fn of(step: &'a StepData) -> Self {
        let command = &step.command;
        Self {
            id: text(&step.id),
            command: text(&command.text).unwrap_or_default(),
            use_shell: command.use_shell,
            args: command.args.as_slice().into(),
            workdir: text(&command.workdir),
            env: command.env.as_slice().into(),
            stdin: step.stdin.clone(),
            timeout: step.timeout,
            idle_timeout: step.idle_timeout,
            mask: step.mask.as_slice().into(),
            output_limit: step.output_limit,
            limits: Cow::Borrowed(&step.limits),
            session_id: text(&step.session_id),
            keeps_background: command.background == Background::Keep,
            depends_on: step.depends_on.as_deref().map(Cow::Borrowed),
            run_if: step.run_if,
            retries: step.retries,
            retry_delay: step.retry_delay,
            rerun_on_restart: step.rerun_on_restart,
            retry_on: step.retry_on.as_ref().map(RetryOnRecord::of),
            allow_failure: step.allow_failure,
            check: step.check.map(SetCheck),
            stdin_from: step.stdin_from.as_ref().map(Cow::Borrowed),
            stdin_open: step.stdin_open,
            env_names: step.env_names.as_slice().into(),
        }
    }

    fn into_data(self) -> StepData {
        let background =
            if self.keeps_background { Background::Keep } else { Background::default() };
        StepData {
            id: self.id.map(Cow::into_owned),
            command: CommandParts {
                text: Some(self.command.into_owned()),
                use_shell: self.use_shell,
                args: self.args.into_owned(),
                workdir: self.workdir.map(Cow::into_owned),
                env: self.env.into_owned(),
                background,
            },
            stdin: self.stdin,
            timeout: self.timeout,
            idle_timeout: self.idle_timeout,
            mask: self.mask.into_owned(),
            output_limit: self.output_limit,
            limits: self.limits.into_owned(),
            session_id: self.session_id.map(Cow::into_owned),
            depends_on: self.depends_on.map(Cow::into_owned),
            run_if: self.run_if,
            retries: self.retries,
            retry_delay: self.retry_delay,
            rerun_on_restart: self.rerun_on_restart,
            retry_on: self.retry_on.map(RetryOnRecord::into_failures),
            allow_failure: self.allow_failure,
            check: self.check.map(|SetCheck(check)| check),
            stdin_from: self.stdin_from.map(Cow::into_owned),
            stdin_open: self.stdin_open,
            env_names: self.env_names.into_owned(),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "RunIf", rename_all = "camelCase")]
enum RunIfRecord {
    Success,
    Failure,
    Always,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "StepCheck", rename_all = "camelCase")]
enum StepCheckRecord {
    Early,
    Late,
}

/// When a step's program is looked for, where that was set.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(transparent)]
struct SetCheck(#[serde(with = "StepCheckRecord")] StepCheck);

/// [`RetryOn`], borrowed from one that is written.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RetryOnRecord<'a> {
    #[serde(skip_serializing_if = "is_empty")]
    exit_codes: Cow<'a, [i32]>,
    /// By their names.
    #[serde(skip_serializing_if = "is_empty")]
    reasons: Cow<'a, [String]>,
}

impl<'a> RetryOnRecord<'a> {
    fn of(failures: &'a RetryOn) -> Self {
        let RetryOn { exit_codes, reasons } = failures;
        Self { exit_codes: exit_codes.into(), reasons: reasons.into() }
    }

    fn into_failures(self) -> RetryOn {
        let Self { exit_codes, reasons } = self;
        RetryOn { exit_codes: exit_codes.into_owned(), reasons: reasons.into_owned() }
    }
}

/// A step in its stored form, comparable.
#[derive(Debug, Clone)]
pub(crate) struct StepSpec(pub(crate) Step);

impl PartialEq for StepSpec {
    fn eq(&self, other: &Self) -> bool {
        self.0.command() == other.0.command()
    }
}

impl Serialize for StepSpec {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        StepRecord::of(&self.0.0).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StepSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StepRecord::deserialize(deserializer).map(|record| Self(Step(record.into_data())))
    }
}

/// Steps in their order, each in its stored form.
pub(crate) mod list {
    use std::borrow::Cow;

    use serde::{Deserialize as _, Deserializer, Serializer};

    use super::{StepRecord, StepSpec};
    use crate::batch::Step;

    pub(crate) fn serialize<S: Serializer>(
        steps: &[Step],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(steps.iter().map(|step| StepRecord::of(&step.0)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Cow<'static, [Step]>, D::Error> {
        let steps = Vec::<StepSpec>::deserialize(deserializer)?;
        Ok(steps.into_iter().map(|StepSpec(step)| step).collect())
    }
}

pub(crate) fn text(text: &Option<String>) -> Option<Cow<'_, str>> {
    text.as_deref().map(Cow::Borrowed)
}

fn is_empty<T>(list: &[T]) -> bool {
    list.is_empty()
}

/// Bytes as text in Base64.
pub(crate) mod base64_text {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(
        bytes: &Option<Bytes>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => serializer.serialize_some(&BASE64_STANDARD.encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Bytes>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        let bytes = text.map(|text| BASE64_STANDARD.decode(text)).transpose();
        Ok(bytes.map_err(de::Error::custom)?.map(Bytes::from))
    }
}
