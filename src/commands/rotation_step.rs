//! One step of a rotation by Secrets Manager, for the target with that staged secret.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use crate::aws::staged_value::VersionValue;
use crate::config::SecretId;
use crate::error::Error;
use crate::event::{RotationStep, Step};
use crate::report::{Outcome, TargetReport};
use crate::rotation::contract::{self, StepState};
use crate::rotation::policy;
use crate::rotation::snapshot::Snapshot;
use crate::rotation::staged_run::{OTHER_RUN, StagedRun};
use crate::rotation::steps::Created;
use crate::rotation::target_run::TargetRun;

/// `secret_id` is the configured one, not the event's: what a step acts on comes from the configuration.
pub async fn run(run: TargetRun<'_>, secret_id: &SecretId, command: &RotationStep) -> TargetReport {
    let staged = StagedRun::new(run, secret_id, command.rotation_token.as_ref());
    let result = Box::pin(step(&staged, command)).await;
    staged.run.progress.finish(result.map(|()| Outcome::StepDone))
}

async fn step(staged: &StagedRun<'_>, command: &RotationStep) -> Result<(), Error> {
    let mut snapshot = staged.snapshot().await?;
    let version = &command.client_request_token;
    if contract::guard(&staged.secret, &snapshot.versions.stages, version).await? == StepState::AlreadyDone {
        return Ok(());
    }
    match command.step {
        Step::Create => {
            if !snapshot.versions.pending_is_empty() {
                // Dead credentials of an earlier attempt must not be kept.
                staged.pending(&snapshot).await?;
            } else if staged.run.uses_assume_role().await {
                let problem =
                    "Braintrust assumes a role itself for every provider of the target, so nothing was created";
                let remedy = format!(
                    "End the secret's rotation: `aws secretsmanager cancel-rotate-secret --secret-id {}`. \
                     docs/assume-role.md says what else remains",
                    staged.secret.id.as_str()
                );
                return Err(staged.conflict(problem, &remedy));
            }
            let value = snapshot.versions.pending.take().map_or(VersionValue::Empty, |pending| pending.value);
            let credentials = match staged.create(version, value, &snapshot).await? {
                Created::Staged(credentials) => credentials,
                Created::NotStaged(_, error) => return Err(error),
            };
            staged.run.prove(&credentials, policy::confirmations(staged.run.target)).await.map(drop)
        }
        Step::Set => {
            let credentials = staged.pending(&snapshot).await?;
            staged.run.progress.credentials(credentials);
            // createSecret has proved them if it succeeded, but only Secrets Manager ensures that.
            let proven = staged.run.prove(credentials, 1).await?;
            staged.set_pending(version, proven, &snapshot.versions).await?;
            stay_pending(staged, version).await
        }
        Step::Test => test(staged, &snapshot).await,
        Step::Finish => {
            let credentials = staged.pending(&snapshot).await?;
            staged.run.progress.credentials(credentials);
            staged.finish(version, &snapshot.versions).await?;
            staged.run.progress.held(Some(credentials.lifetime()));
            Ok(())
        }
    }
}

/// Checks after the write that the version is still pending or has become current. If another run has taken its stage,
/// this step gives way.
async fn stay_pending(staged: &StagedRun<'_>, version: &str) -> Result<(), Error> {
    let stages = staged.secret.describe().await?;
    if [stages.pending(), stages.current()].contains(&Some(version)) {
        return Ok(());
    }
    let lost = staged.conflict("another run rotated the secret during this step", OTHER_RUN);
    Err(staged.give_way(version, lost).await)
}

/// With `RotateImmediately=false`, Secrets Manager calls testSecret alone, on a version that never gets a value. The
/// step then tests the current credentials.
async fn test(staged: &StagedRun<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    match (snapshot.versions.pending_is_empty(), snapshot.versions.current()) {
        (true, Some(current)) => staged.verify(current).await,
        (true, None) => staged.may_set().await,
        (false, _) => {
            let credentials = staged.pending(snapshot).await?;
            staged.run.progress.credentials(credentials);
            // A denial moves no stage here: Secrets Manager tries again, with the version that is pending.
            staged.test(credentials).await?
        }
    }
}
