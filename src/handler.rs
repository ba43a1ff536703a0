//! One invocation: reads the event, runs its targets side by side inside the deadline, and reports; it must never let one target stop another.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use jiff::Timestamp;
use lambda_runtime::LambdaEvent;
use serde_json::Value;
use tokio::time::Instant;

use crate::config::{self, Target};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::plan;
use crate::report::{self, Failure, Report, TargetReport};
use crate::rotation::Rotation;
use crate::trigger::{Origin, RotationStep, Tick, Trigger};

/// Targets under way at once: enough that the services' latency is not added up, few enough that neither a data plane's
/// rate limit nor the function's memory suffers.
const SIDE_BY_SIDE: usize = 32;

/// What lives as long as the execution environment.
pub struct Handler {
    /// The configured targets.
    pub targets: Vec<Target>,
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
    pub async fn handle(&self, event: LambdaEvent<Value>) -> Result<Report, Failure> {
        let result = match self.answer(event).await {
            Ok(report) if report.has_failed() => Err(Failure::Targets(report)),
            Ok(report) => Ok(report),
            Err(error) => Err(Failure::Refused(error)),
        };
        match &result {
            Ok(report) | Err(Failure::Targets(report)) => report::log(report),
            Err(Failure::Refused(error)) => report::log_error(error, (self.clock)()),
        }
        result
    }

    async fn answer(&self, event: LambdaEvent<Value>) -> Result<Report, Error> {
        let started_at = (self.clock)();
        let started = Instant::now();
        let deadline = Deadline::after(remaining(started_at, event.context.deadline));
        let trigger = Trigger::from_event(event.payload, &event.context.request_id)?;
        let report = match trigger {
            Trigger::Tick(tick) => Report {
                targets: self.tick(&tick, deadline).await?,
                trigger: tick.origin,
                token: tick.token,
                step: None,
                dry_run: tick.dry_run,
                started_at: report::iso8601(started_at),
                duration_ms: 0,
            },
            Trigger::Step(step) => Report {
                targets: vec![self.step(&step, deadline).await?],
                trigger: Origin::Rotation,
                token: step.client_request_token,
                step: Some(step.step),
                dry_run: false,
                started_at: report::iso8601(started_at),
                duration_ms: 0,
            },
        };
        let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Report { duration_ms, ..report })
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

    async fn tick(&self, tick: &Tick, deadline: Deadline) -> Result<Vec<TargetReport>, Error> {
        let selected = plan::select(&self.targets, &tick.targets)?;
        let run = |(place, target)| async move { (place, self.run(target, tick, deadline).await) };
        // Not `buffered`, where a slow target would keep the finished ones behind it from making room.
        let mut targets: Vec<_> =
            stream::iter(selected.into_iter().enumerate().map(run)).buffer_unordered(SIDE_BY_SIDE).collect().await;
        targets.sort_unstable_by_key(|(place, _)| *place);
        Ok(targets.into_iter().map(|(_, report)| report).collect())
    }

    async fn run(&self, target: &Target, tick: &Tick, deadline: Deadline) -> TargetReport {
        match (deadline.allows_a_start(), tick.dry_run) {
            (false, _) => TargetReport::new(target),
            (true, true) => self.rotation.rehearse(target, tick.force, deadline).await,
            (true, false) => self.rotation.rotate(target, &tick.token, tick.force, deadline).await,
        }
    }
}

/// Lambda gives the deadline in milliseconds since 1970.
fn remaining(now: Timestamp, deadline_ms: u64) -> Duration {
    let now_ms = u64::try_from(now.as_millisecond()).unwrap_or_default();
    Duration::from_millis(deadline_ms.saturating_sub(now_ms))
}
