//! The checks that Secrets Manager's contract demands of a rotation function before each step.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use crate::aws::secrets_manager::{StagedSecret, Stages};
use crate::error::Error;

/// What a rotation step has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// The version is current, so the rotation has ended and the step succeeds without doing anything.
    AlreadyDone,
    Pending,
}

/// Checks that a step may run for the version.
pub async fn guard(secret: &StagedSecret<'_>, stages: &Stages, version: &str) -> Result<StepState, Error> {
    let refuse = |problem: &str, remedy: &str| Err(Error::rotation_conflict(problem, remedy));
    if stages.rotation_enabled == Some(false) {
        return refuse(
            "rotation is turned off for the secret",
            "Turn rotation on, or leave the secret to the schedule",
        );
    }
    if stages.stale_pending() == Some(version) {
        secret.remove_pending(version).await?;
        return refuse("the version was current before, and was replaced", "The next rotation starts a new version");
    }
    if stages.current() == Some(version) && !stages.is_first_rotation() {
        return Ok(StepState::AlreadyDone);
    }
    if stages.pending() == Some(version) {
        return Ok(StepState::Pending);
    }
    let problem = if stages.has(version) { "the version is not AWSPENDING" } else { "the secret has no such version" };
    refuse(problem, "Start a new rotation with RotateSecret")
}

/// The error of a step that needs the value that createSecret stages.
pub fn no_pending_value(secret: &StagedSecret<'_>) -> Error {
    Error::rotation_conflict(
        format!("the pending version of the secret {:?} holds no value", secret.id.as_str()),
        "createSecret comes first. Secrets Manager tries the whole rotation again",
    )
}
