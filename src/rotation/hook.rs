//! The rotation function that Secrets Manager calls, step by step; it must never act before the guards have passed.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::staged::Staged;
use super::{ONCE, Rotation};
use crate::config::Target;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service, shortened};
use crate::report::{Outcome, TargetReport};
use crate::staging::{Description, Held, Stages, Staging};
use crate::trigger::RotationStep;

impl Rotation {
    /// One step for the target with that secret.
    pub async fn step(&self, target: &Target, step: &RotationStep, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let mut report = TargetReport::new(target);
        // Security: exposed into the PutSecretValue that needs it.
        let rotation_token = step.rotation_token.as_ref().map(ExposeSecret::expose_secret);
        // Not the event's own SecretId: what is acted on is what is configured.
        let configured = target.secret_id.as_deref().unwrap_or_default();
        let staged = self.staged(target, configured, rotation_token, deadline);
        let done = Box::pin(staged.step(&step.step, &step.client_request_token, &mut report)).await;
        report.conclude(done, started)
    }
}

impl Staged<'_> {
    async fn step(&self, step: &str, version: &str, report: &mut TargetReport) -> Result<Outcome, Error> {
        let contents = self.read().await?;
        if !guard(self.staging, &contents.description, version).await? {
            return Ok(Outcome::StepDone);
        }
        match step {
            "createSecret" => {
                // Dead credentials of an earlier attempt are found out before they are kept.
                if !matches!(self.staging.read(version).await?, Held::Nothing) {
                    self.pending(version, &contents).await?;
                }
                self.create(version, report).await?;
            }
            "setSecret" => {
                let credentials = self.pending(version, &contents).await?;
                report.name(&credentials);
                // createSecret did, if it ended well: nobody but Secrets Manager waits for that.
                self.rotation.prove(self.target, &credentials, ONCE, self.deadline).await?;
                self.set(&credentials, report).await?;
            }
            "testSecret" => match (self.staging.read(version).await?, &contents.current) {
                // RotateImmediately=false: testSecret alone, on a version that nobody fills. What there is is tested.
                (Held::Nothing, Some(current)) => self.holds(current, report).await?,
                (Held::Nothing, None) => self.may_set(report).await?,
                _ => {
                    let credentials = self.pending(version, &contents).await?;
                    report.name(&credentials);
                    self.test(&credentials, &contents, report).await?;
                }
            },
            "finishSecret" => {
                let credentials = self.pending(version, &contents).await?;
                report.name(&credentials);
                self.finish(version, &contents).await?;
                report.held = Some(credentials.lifetime());
            }
            _ => return Err(unknown(step)),
        }
        Ok(Outcome::StepDone)
    }
}

/// The contract's guards, in its order. False if the version is current already, so that there is nothing left to do.
pub(super) async fn guard(staging: Staging<'_>, description: &Description, version: &str) -> Result<bool, Error> {
    let refuse = |problem: &str, remedy: &str| {
        Err(Error::new(Cause::Conflict, Service::SecretsManager, "rotation", problem, remedy))
    };
    if description.rotation_enabled == Some(false) {
        return refuse("the secret has no rotation turned on", "Turn it on, or leave the secret to the schedule");
    }
    if description.stale_pending() == Some(version) {
        staging.end_pending(version).await?;
        return refuse("the version was current before, and was replaced", "The next rotation starts afresh");
    }
    match description.stages(version) {
        Stages::Unknown => refuse("the secret has no such version", "Start the rotation anew with RotateSecret"),
        Stages::Current => Ok(false),
        Stages::Other => refuse("the version is not AWSPENDING", "Start the rotation anew with RotateSecret"),
        Stages::Pending => Ok(true),
    }
}

/// A step that needs what createSecret makes.
pub(super) fn empty(secret_id: &str) -> Error {
    Error::new(
        Cause::Conflict,
        Service::SecretsManager,
        "rotation",
        format!("the pending version holds no value (the secret {secret_id:?})"),
        "createSecret comes first; Secrets Manager tries the whole rotation again",
    )
}

pub(super) fn unknown(step: &str) -> Error {
    Error::configuration(
        "event",
        format!("an unknown step, {:?}", shortened(step)),
        "Accepted: createSecret, setSecret, testSecret, finishSecret",
    )
}
