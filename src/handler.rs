//! One invocation: reads the event, runs its targets side by side inside the deadline, and reports; it must never let one target stop another.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream;
use jiff::Timestamp;
use lambda_runtime::LambdaEvent;
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::check::Check;
use crate::config::{self, Target};
use crate::deadline::Deadline;
use crate::error::{Error, shortened};
use crate::metrics::Metrics;
use crate::plan;
use crate::report::{self, Failure, Report, TargetReport, iso8601};
use crate::rotation::Rotation;
use crate::status::{State, Status};
use crate::trigger::{Origin, RotationStep, Tick, Trigger};

/// Targets under way at once, of those with the same data planes and API keys: enough that the services' latency is not
/// added up, few enough that neither a data plane's rate limit nor the function's memory suffers.
const SIDE_BY_SIDE: usize = 32;

/// All targets under way at once, as long as there are fewer lanes: each has a few connections, and Lambda allows 1,024.
const AT_MOST: usize = 256;

/// What lives as long as the execution environment.
pub struct Handler {
    /// The configured targets.
    pub targets: Vec<Target>,
    /// The schedule's expression, if it is told: for `check`.
    pub schedule: Option<String>,
    /// Where metrics go.
    pub metrics: Metrics,
    /// The services.
    pub rotation: Rotation,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

impl Handler {
    /// Answers one event.
    ///
    /// # Errors
    /// If the event is refused, or any target failed or was deferred; the others are done then.
    pub async fn handle(&self, event: LambdaEvent<Value>) -> Result<Answer, Failure> {
        let function_name = event.context.env_config.function_name.clone();
        let result = match self.answer(event).await {
            Ok(Answer::Report(report)) if report.has_failed() => Err(Failure::Targets(report)),
            Ok(answer) => Ok(answer),
            Err(error) => Err(Failure::Refused(error)),
        };
        match &result {
            Ok(Answer::Report(report)) | Err(Failure::Targets(report)) => {
                report::log(report);
                report::log_metrics(self.metrics.lines((self.clock)(), &function_name, report));
            }
            Ok(Answer::Status(_) | Answer::Check(_)) => {}
            Err(Failure::Refused(error)) => report::log_error(error, (self.clock)()),
        }
        result
    }

    async fn answer(&self, event: LambdaEvent<Value>) -> Result<Answer, Error> {
        let started_at = (self.clock)();
        let deadline = Deadline::after(remaining(started_at, event.context.deadline));
        let started = Started { at: iso8601(started_at), instant: Instant::now() };
        match Trigger::from_event(event.payload, &event.context.request_id)? {
            Trigger::Tick(tick) => {
                let run = async |target: &Target| self.run(target, &tick, deadline).await;
                let targets = self.side_by_side(&tick.targets, run).await?;
                Ok(started.report(tick.origin, tick.token.clone(), None, tick.dry_run, targets))
            }
            Trigger::Step(step) => {
                let targets = vec![self.step(&step, deadline).await?];
                let (token, name) = (shortened(&step.client_request_token), shortened(&step.step));
                Ok(started.report(Origin::Rotation, token, Some(name), false, targets))
            }
            Trigger::Rollback(rollback) => {
                let run = async |target: &Target| match deadline.allows_a_start() {
                    true => self.rotation.roll_back(target, rollback.dry_run, deadline).await,
                    false => TargetReport::new(target),
                };
                let targets = self.side_by_side(&rollback.targets, run).await?;
                Ok(started.report(Origin::Action, rollback.token.clone(), None, rollback.dry_run, targets))
            }
            Trigger::Status(names) => {
                let run = async |target: &Target| self.rotation.status(target, deadline).await;
                let targets = self.side_by_side(&names, run).await?;
                let ok = targets.iter().all(|target| target.state == State::Ok);
                Ok(Answer::Status(Status { action: "status", ok, started_at: started.at, targets }))
            }
            Trigger::Check(names) => {
                let schedule = self.schedule.as_deref();
                let run = async |target: &Target| self.rotation.check(target, schedule, deadline).await;
                let targets = self.side_by_side(&names, run).await?;
                let ok = targets.iter().all(|target| target.ok);
                Ok(Answer::Check(Check { action: "check", ok, started_at: started.at, targets }))
            }
        }
    }

    /// One step, of the target or of the Braintrust API key whose secret it names.
    async fn step(&self, step: &RotationStep, deadline: Deadline) -> Result<TargetReport, Error> {
        let is_named = |id: &str| config::is_same_secret(id, &step.secret_id);
        if let Some(target) = self.targets.iter().find(|target| target.secret_id.as_deref().is_some_and(is_named)) {
            return Ok(self.rotation.step(target, step, deadline).await);
        }
        let mut ai_secrets = self.targets.iter().flat_map(|target| &target.ai_secrets);
        match ai_secrets.find(|ai_secret| is_named(&ai_secret.api_key_secret_id)) {
            Some(ai_secret) => Ok(self.rotation.step_of_the_api_key(ai_secret, step, deadline).await),
            None => Err(Error::configuration(
                "event",
                "the SecretId is neither a target's secret_id nor a Braintrust API key's secret",
                "Configure a target with that secret_id, or take this function from the secret's rotation",
            )),
        }
    }

    /// Does the same with each target that is named, or with all; answers in the configured order.
    async fn side_by_side<T>(&self, names: &[String], run: impl AsyncFn(&Target) -> T) -> Result<Vec<T>, Error> {
        let selected = plan::select(&self.targets, names)?;
        let run = &run;
        // By data plane and organization: one that throttles or is down has its own, so that the others' targets do not
        // wait for it.
        let mut lanes: HashMap<Vec<_>, Vec<_>> = HashMap::new();
        for (place, target) in selected.into_iter().enumerate() {
            let keys = target.ai_secrets.iter().map(|ai_secret| (&ai_secret.api_url, &ai_secret.api_key_secret_id));
            lanes.entry(keys.collect()).or_default().push((place, target));
        }
        let side_by_side = SIDE_BY_SIDE.min(AT_MOST / lanes.len().max(1)).max(1);
        let lanes = lanes.into_values().map(|targets| {
            let runs = targets.into_iter().map(|(place, target)| async move { (place, run(target).await) });
            // Not `buffered`, where a slow target would keep the finished ones behind it from making room.
            stream::iter(runs).buffer_unordered(side_by_side).collect::<Vec<_>>()
        });
        let mut done: Vec<_> = join_all(lanes).await.into_iter().flatten().collect();
        done.sort_unstable_by_key(|(place, _)| *place);
        Ok(done.into_iter().map(|(_, answer)| answer).collect())
    }

    async fn run(&self, target: &Target, tick: &Tick, deadline: Deadline) -> TargetReport {
        match (deadline.allows_a_start(), tick.dry_run) {
            (false, _) => TargetReport::new(target),
            (true, true) => self.rotation.rehearse(target, tick.force, deadline).await,
            (true, false) => self.rotation.rotate(target, &tick.token, tick.force, deadline).await,
        }
    }
}

/// What an invocation answers.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// Something was done, or rehearsed.
    Report(Report),
    /// What there is.
    Status(Status),
    /// What a rotation would need.
    Check(Check),
}

/// When an invocation began, on the wall and for its duration.
struct Started {
    at: String,
    instant: Instant,
}

impl Started {
    fn report(
        self,
        trigger: Origin,
        token: String,
        step: Option<String>,
        dry_run: bool,
        targets: Vec<TargetReport>,
    ) -> Answer {
        let duration_ms = u64::try_from(self.instant.elapsed().as_millis()).unwrap_or(u64::MAX);
        Answer::Report(Report { trigger, token, step, dry_run, started_at: self.at, duration_ms, targets })
    }
}

/// Lambda gives the deadline in milliseconds since 1970.
fn remaining(now: Timestamp, deadline_ms: u64) -> Duration {
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Duration::from_millis(deadline_ms.saturating_sub(now_ms))
}
