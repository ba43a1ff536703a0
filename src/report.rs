//! The report of an invocation: its answer, and its log line.

use std::cell::RefCell;

use jiff::Timestamp;
use serde::Serialize;
use tokio::time::Instant;
use uuid::Uuid;

use crate::aws::requests::{AwsRequest, AwsRequests};
use crate::braintrust::layout::Layout;
use crate::config::Target;
use crate::credentials::{Credentials, Kind, Lifetime};
use crate::error::Error;
use crate::event::{Origin, Step};
use crate::limits::{self, LeftOut};
use crate::revocation::Revocation;

/// The report of a run. `T` holds all its targets, or some of them.
#[derive(Debug, Serialize)]
pub struct Report<T = Vec<TargetReport>> {
    pub trigger: Origin,
    /// Identifies a repeated event.
    pub token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Step>,
    pub dry_run: bool,
    pub started_at: String,
    pub duration_ms: u64,
    /// Whether the event named targets to rotate, as that of a state machine's batch does.
    #[serde(skip)]
    pub is_batch: bool,
    /// Why the newest list of targets could not be used. The run used the last good one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets_error: Option<Error>,
    /// How many targets are missing from an answer that would be too long, by their outcome. The log has all targets.
    #[serde(skip_serializing_if = "LeftOut::is_empty")]
    pub left_out: LeftOut,
    /// In the configured order.
    pub targets: T,
}

impl<T: AsRef<[TargetReport]>> Report<T> {
    pub fn has_failed(&self) -> bool {
        // If a step that is done failed, Secrets Manager would repeat it.
        let has_old_targets = self.targets_error.is_some() && self.step.is_none();
        let has_failed = |target: &TargetReport| matches!(target.outcome, Outcome::Failed | Outcome::Deferred);
        has_old_targets || self.targets.as_ref().iter().any(has_failed)
    }
}

impl Report {
    /// The same report, on these targets only.
    pub fn with<'a>(&self, targets: &'a [TargetReport]) -> Report<&'a [TargetReport]> {
        let (token, started_at, targets_error) =
            (self.token.clone(), self.started_at.clone(), self.targets_error.clone());
        let Self { trigger, step, dry_run, duration_ms, is_batch, .. } = *self;
        let left_out = LeftOut::new();
        Report { trigger, token, step, dry_run, started_at, duration_ms, is_batch, targets_error, left_out, targets }
    }

    /// Leaves out targets until the others fit into what may receive the answer: a state machine, or Lambda's record of
    /// an asynchronous invocation, as those of a schedule are. Targets that failed are left out last.
    pub fn into_answer(mut self) -> Self {
        let limit = if self.is_batch && self.has_failed() { limits::CAUSE } else { limits::RECORD };
        self.left_out = limits::shorten(&mut self.targets, limit, |it| it.outcome.rank(), |it| it.outcome);
        self
    }

    #[cfg(test)]
    pub fn for_test(trigger: Origin, targets: Vec<TargetReport>) -> Self {
        Self {
            trigger,
            token: "token".to_owned(),
            step: None,
            dry_run: false,
            started_at: "2026-01-01T00:00:00Z".to_owned(),
            duration_ms: 5,
            is_batch: false,
            targets_error: None,
            left_out: LeftOut::new(),
            targets,
        }
    }
}

#[derive(Debug, Default, Serialize)]
pub struct TargetReport {
    pub name: String,
    pub outcome: Outcome,
    /// The Braintrust API key's own rotation has no kind and no region.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<Kind>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
    /// The lifetime of the credentials that Braintrust holds, as far as it is known. For the metrics.
    #[serde(skip)]
    pub held: Option<Lifetime>,
    #[serde(rename = "ai_secrets", skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<DestinationReport>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<Retired>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub aws_requests: Vec<AwsRequest>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revocation: Option<Box<Revocation>>,
    /// What the operator should know.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    pub duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

impl TargetReport {
    /// Deferred, until a run finishes with another outcome.
    pub fn of(target: &Target) -> Self {
        let (kind, region) = (Some(target.kind()), Some(target.region.to_string()));
        Self { name: target.name.to_string(), kind, region, ..Self::default() }
    }

    /// The rotation of a Braintrust API key, which belongs to no target.
    pub fn of_api_key() -> Self {
        Self { name: "braintrust_api_key".to_owned(), ..Self::default() }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All destinations hold new credentials.
    Rotated,
    /// An interrupted rotation was completed.
    Resumed,
    /// Braintrust held something other than the current credentials, and holds those again.
    Repaired,
    /// The credentials are not old enough, this event was already handled, or another run has just written newer
    /// credentials.
    NotDue,
    /// Braintrust assumes a role itself for every destination, so there is nothing to rotate.
    UsesAssumeRole,
    /// Rotation is turned on for the staged secret, so Secrets Manager rotates it.
    LeftToSecretsManager,
    /// One step of Secrets Manager's rotation is done.
    StepDone,
    /// A dry run found that the destinations can be written, and changed nothing. It created and tried no credentials.
    WouldRotate,
    /// A dry run found that Braintrust does not hold the current credentials.
    WouldRepair,
    /// The previous credentials are current again, and Braintrust holds them.
    RolledBack,
    WouldRollBack,
    /// Braintrust holds new credentials, and services have refused the old ones.
    Revoked,
    /// Braintrust holds new credentials. The old ones work until they expire, or until somebody runs the commands in
    /// the report.
    Replaced,
    WouldRevoke,
    /// Too little time was left to start the target.
    #[default]
    Deferred,
    Failed,
}

impl Outcome {
    /// An answer that would be too long keeps targets of a lower rank first.
    fn rank(self) -> u8 {
        match self {
            Self::Failed => 0,
            // After `Replaced`, the report has the commands that end the old credentials.
            Self::Deferred | Self::Replaced => 1,
            Self::Rotated
            | Self::Resumed
            | Self::Repaired
            | Self::UsesAssumeRole
            | Self::LeftToSecretsManager
            | Self::StepDone
            | Self::WouldRotate
            | Self::WouldRepair
            | Self::RolledBack
            | Self::WouldRollBack
            | Self::Revoked
            | Self::WouldRevoke => 2,
            Self::NotDue => 3,
        }
    }
}

#[derive(Debug, Serialize)]
pub struct Retired {
    pub credential_id: String,
    pub how: KeyChange,
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyChange {
    Deactivated,
    Deleted,
}

#[derive(Debug, Serialize)]
pub struct DestinationReport {
    /// As configured: the ID or the name.
    pub ai_secret: String,
    /// As configured, for a project's own provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
    /// Whether Braintrust shows that it holds the new credentials.
    pub updated: bool,
    /// Whether the provider is known to hold parts of two credentials, which don't work together.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_mixed: bool,
    /// Whether another run had written newer credentials, which were left there.
    #[serde(skip)]
    pub is_superseded: bool,
    /// Whether Braintrust assumes a role itself for this provider, which was therefore not touched.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub uses_assume_role: bool,
    /// Whether Braintrust can use the credentials, if the target asks for that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_to_end: Option<EndToEnd>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

/// The result of the request for one token through Braintrust.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum EndToEnd {
    /// Braintrust called the model with these credentials.
    Proven,
    /// The request showed nothing about these credentials.
    Unproven { reason: String },
    /// Bedrock refused these credentials when Braintrust used them. The destination's error says more.
    Refused,
}

/// What a run of a target has done so far. Write-only until it becomes the report, so that no decision depends on it.
pub struct Progress {
    report: RefCell<TargetReport>,
    destination_warnings: RefCell<Vec<String>>,
    probe_warnings: RefCell<Vec<String>>,
    started: Instant,
    pub requests: AwsRequests,
}

impl Progress {
    pub fn new(report: TargetReport) -> Self {
        let (destination_warnings, probe_warnings, requests) = Default::default();
        Self { report: report.into(), destination_warnings, probe_warnings, started: Instant::now(), requests }
    }

    pub fn credentials(&self, credentials: &Credentials) {
        let mut report = self.report.borrow_mut();
        report.credential_id = Some(credentials.id.clone());
        report.expires_at = credentials.expires_at.map(iso8601);
    }

    pub fn service_token(&self, id: Uuid) {
        self.report.borrow_mut().credential_id = Some(id.to_string());
    }

    /// The lifetime of the credentials that Braintrust holds.
    pub fn held(&self, lifetime: Option<Lifetime>) {
        self.report.borrow_mut().held = lifetime;
    }

    /// Replaces the reports and warnings of the destinations.
    pub fn destinations(&self, reports: Vec<DestinationReport>, warnings: Vec<String>) {
        self.report.borrow_mut().destinations = reports;
        self.destination_warnings.replace(warnings);
    }

    /// Replaces the warnings of the probe, which runs several times.
    pub fn probe_warnings(&self, warnings: Vec<String>) {
        self.probe_warnings.replace(warnings);
    }

    pub fn retired(&self, credential_id: String, how: KeyChange) {
        self.report.borrow_mut().retired.push(Retired { credential_id, how });
    }

    /// Adds to the evidence of a revocation.
    pub fn revocation<T>(&self, add: impl FnOnce(&mut Revocation) -> T) -> T {
        add(self.report.borrow_mut().revocation.get_or_insert_default())
    }

    pub fn warning(&self, warning: String) {
        self.report.borrow_mut().warnings.push(warning);
    }

    pub fn finish(self, result: Result<Outcome, Error>) -> TargetReport {
        let (outcome, error) = match result {
            Ok(outcome) => (outcome, None),
            Err(error) => (Outcome::Failed, Some(error)),
        };
        let report = self.report.into_inner();
        let of_probe = self.probe_warnings.into_inner();
        let warnings = self.destination_warnings.into_inner().into_iter().chain(of_probe).chain(report.warnings);
        let (warnings, aws_requests) = (warnings.collect(), self.requests.take());
        let duration_ms = self.started.elapsed().as_millis() as u64;
        TargetReport { outcome, error, warnings, aws_requests, duration_ms, ..report }
    }
}

/// Formats a time for reports: ISO 8601 in UTC, to the second.
pub fn iso8601(time: Timestamp) -> String {
    format!("{time:.0}")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::config::for_test::role_based;
    use crate::credentials::Secret;
    use crate::error::{ErrorClass, Service};

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn json(report: &TargetReport) -> Value {
        let mut json = serde_json::to_value(report).unwrap();
        assert!(json.as_object_mut().unwrap().remove("duration_ms").is_some_and(|duration| duration.is_u64()));
        json
    }

    fn destination(ai_secret: &str, updated: bool) -> DestinationReport {
        let (id, layout) = (Some(Uuid::nil()), Some(Layout::Gateway));
        DestinationReport {
            ai_secret: ai_secret.to_owned(),
            project: None,
            id,
            layout,
            updated,
            is_mixed: false,
            is_superseded: false,
            uses_assume_role: false,
            end_to_end: None,
            error: None,
        }
    }

    #[test]
    fn a_run_that_wrote_nothing_reports_the_target_and_its_outcome() {
        let report = Progress::new(TargetReport::of(&role_based("prod"))).finish(Ok(Outcome::NotDue));
        let expected = json!({"name": "prod", "outcome": "not_due", "kind": "temporary", "region": "us-east-1"});
        assert_eq!(json(&report), expected);
    }

    #[test]
    fn what_is_written_becomes_the_report() {
        let progress = Progress::new(TargetReport::of(&role_based("prod")));
        let credentials = Credentials {
            id: "ASIANEW".to_owned(),
            created_at: at("2026-01-01T00:00:00Z"),
            expires_at: Some(at("2026-01-01T01:00:00.987Z")),
            secret: Secret::Temporary { secret_access_key: "hidden".into(), session_token: "hidden".into() },
        };
        progress.credentials(&credentials);
        progress.held(Some(credentials.lifetime()));
        progress.destinations(vec![destination("\"Bedrock\"", true)], Vec::new());
        progress.retired("AKIAOLD".to_owned(), KeyChange::Deactivated);
        progress.retired("AKIAOLDER".to_owned(), KeyChange::Deleted);
        let report = progress.finish(Ok(Outcome::Rotated));
        assert_eq!(report.held, Some(credentials.lifetime()));
        let expected = json!({
            "name": "prod",
            "outcome": "rotated",
            "kind": "temporary",
            "region": "us-east-1",
            "credential_id": "ASIANEW",
            "expires_at": "2026-01-01T01:00:00Z",
            "ai_secrets": [{"ai_secret": "\"Bedrock\"", "id": Uuid::nil(), "layout": "gateway", "updated": true}],
            "retired": [
                {"credential_id": "AKIAOLD", "how": "deactivated"},
                {"credential_id": "AKIAOLDER", "how": "deleted"},
            ],
        });
        assert_eq!(json(&report), expected);
    }

    #[test]
    fn the_rotation_of_an_api_key_has_no_kind_and_no_region() {
        let progress = Progress::new(TargetReport::of_api_key());
        progress.service_token(Uuid::max());
        let expected = json!({"name": "braintrust_api_key", "outcome": "step_done", "credential_id": Uuid::max()});
        assert_eq!(json(&progress.finish(Ok(Outcome::StepDone))), expected);
    }

    #[test]
    fn a_failed_run_reports_its_error_and_what_it_did_before() {
        let progress = Progress::new(TargetReport::of(&role_based("prod")));
        progress.retired("AKIAOLD".to_owned(), KeyChange::Deleted);
        let error = Error::new(ErrorClass::Throttled, Service::Iam, "create", "answered Throttling", "Wait");
        let report = progress.finish(Err(error.into_final()));
        let json = json(&report);
        let error = json!({
            "class": "throttled", "service": "iam", "call": "create", "problem": "answered Throttling",
            "remedy": "Wait",
        });
        assert_eq!((&json["outcome"], &json["error"]), (&json!("failed"), &error));
        assert_eq!(json["retired"][0]["credential_id"], "AKIAOLD");
    }

    #[test]
    fn the_warnings_about_destinations_come_first_and_the_last_ones_count() {
        let progress = Progress::new(TargetReport::of(&role_based("prod")));
        progress.warning("of the run".to_owned());
        progress.destinations(vec![destination("a", false)], vec!["as it was read".to_owned()]);
        progress.warning("of its end".to_owned());
        progress.destinations(vec![destination("a", true)], vec!["as it was written".to_owned()]);
        let report = progress.finish(Ok(Outcome::Rotated));
        assert_eq!(report.warnings, ["as it was written", "of the run", "of its end"]);
        assert_eq!(report.destinations.iter().map(|it| it.updated).collect::<Vec<_>>(), [true]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_duration_is_that_of_the_run() {
        let progress = Progress::new(TargetReport::of(&role_based("prod")));
        tokio::time::advance(std::time::Duration::from_millis(1_500)).await;
        assert_eq!(progress.finish(Ok(Outcome::Rotated)).duration_ms, 1_500);
    }

    fn target(number: usize, outcome: Outcome) -> TargetReport {
        TargetReport { name: format!("target-{number}"), outcome, ..TargetReport::default() }
    }

    #[test]
    fn a_failed_or_deferred_target_fails_the_report() {
        let has_failed = |outcome| {
            Report::for_test(Origin::Schedule, vec![target(1, Outcome::Rotated), target(2, outcome)]).has_failed()
        };
        for outcome in [Outcome::Failed, Outcome::Deferred] {
            assert!(has_failed(outcome), "{outcome:?}");
        }
        for outcome in [
            Outcome::Rotated,
            Outcome::NotDue,
            Outcome::UsesAssumeRole,
            Outcome::LeftToSecretsManager,
            Outcome::WouldRotate,
        ] {
            assert!(!has_failed(outcome), "{outcome:?}");
        }
    }

    #[test]
    fn a_run_with_an_old_list_of_targets_has_failed_but_a_step_that_is_done_has_not() {
        let error = || Some(Error::configuration("TARGETS_S3_URI", "problem", "remedy"));
        for (step, targets_error, expected) in
            [(None, error(), true), (Some(Step::Create), error(), false), (None, None, false)]
        {
            let report = Report { step, targets_error, ..Report::for_test(Origin::Schedule, Vec::new()) };
            assert_eq!(report.has_failed(), expected);
        }
    }

    #[test]
    fn an_answer_that_fits_has_every_target() {
        let targets = (0..1_000).map(|number| target(number, Outcome::NotDue)).collect();
        let answer = Report::for_test(Origin::Schedule, targets).into_answer();
        assert_eq!((answer.targets.len(), answer.left_out.len()), (1_000, 0));
        assert!(serde_json::to_value(&answer).unwrap().get("left_out").is_none());
    }

    /// The targets of a fleet, of which most are not due.
    fn fleet(number: usize, some: Outcome) -> Vec<TargetReport> {
        let outcome = |number| if number % 100 == 99 { some } else { Outcome::NotDue };
        let warnings = || vec!["x".repeat(400)];
        (0..number).map(|number| TargetReport { warnings: warnings(), ..target(number, outcome(number)) }).collect()
    }

    #[test]
    fn a_long_answer_leaves_out_targets_that_are_not_due_and_counts_them() {
        let (limit, number) = (256 * 1024, 10_000);
        for trigger in [Origin::Action, Origin::Schedule] {
            let answer = Report::for_test(trigger, fleet(number, Outcome::Rotated)).into_answer();
            assert!((limit * 3 / 4..limit).contains(&serde_json::to_vec(&answer).unwrap().len()));
            let rotated = answer.targets.iter().filter(|target| target.outcome == Outcome::Rotated).count();
            assert_eq!(rotated, number / 100);
            assert_eq!(answer.left_out, LeftOut::from([("not_due".to_owned(), number - answer.targets.len())]));
        }
    }

    #[test]
    fn a_failed_run_fits_into_a_record_with_the_targets_that_failed_first() {
        let error =
            || Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered \"no\"", "x".repeat(500));
        let failed = |number| TargetReport { error: Some(error()), ..target(number, Outcome::Failed) };
        let mut targets: Vec<_> = (0..5_000).map(|number| target(number, Outcome::Deferred)).collect();
        targets.extend(fleet(5_000, Outcome::Rotated));
        targets.extend((0..10).map(failed));
        let answer = Report::for_test(Origin::Schedule, targets).into_answer();
        assert!(json!(limits::json(&answer)).to_string().len() < 256 * 1024);
        let count = |outcome| answer.targets.iter().filter(|target| target.outcome == outcome).count();
        assert_eq!((count(Outcome::Failed), count(Outcome::Rotated)), (10, 0));
        assert_eq!(answer.left_out["deferred"] + count(Outcome::Deferred), 5_000);
        assert_eq!((answer.left_out["rotated"], answer.left_out["not_due"]), (50, 4_950));
    }

    #[test]
    fn credentials_that_were_replaced_but_are_alive_stay_in_the_answer_before_those_that_are_dead() {
        let warnings = || vec!["x".repeat(2_000)];
        let outcome = |number| if number < 200 { Outcome::Revoked } else { Outcome::Replaced };
        let targets =
            (0..210).map(|number| TargetReport { warnings: warnings(), ..target(number, outcome(number)) }).collect();
        let answer = Report::for_test(Origin::Action, targets).into_answer();
        assert_eq!(answer.targets.iter().filter(|target| target.outcome == Outcome::Replaced).count(), 10);
        assert_eq!(answer.left_out, LeftOut::from([("revoked".to_owned(), 210 - answer.targets.len())]));
    }

    #[test]
    fn a_failed_batch_fits_into_the_cause_of_an_error_in_step_functions() {
        let batch = Report { is_batch: true, ..Report::for_test(Origin::Action, fleet(300, Outcome::Failed)) };
        let answer = batch.into_answer();
        assert!(json!(limits::json(&answer)).to_string().len() < 32_768);
        assert_eq!(answer.targets.iter().filter(|target| target.outcome == Outcome::Failed).count(), 3);
        assert_eq!(answer.left_out["not_due"], 300 - answer.targets.len());
    }
}
