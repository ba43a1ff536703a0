//! One step of the rotation of a Braintrust API key, if its secret holds a service token.

use crate::braintrust::client::Braintrust;
use crate::config::{DataPlane, Destination};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::event::{RotationStep, Step};
use crate::report::{Outcome, Progress, TargetReport};
use crate::rotation::contract::{self, StepState};
use crate::rotation::service_token::{self, Creation};
use crate::services::Services;

/// Runs one step for the API key that `destination` uses.
pub async fn run(
    services: &Services,
    destination: &Destination,
    command: &RotationStep,
    deadline: Deadline,
) -> TargetReport {
    let progress = Progress::new(TargetReport::of_api_key());
    let result = step(services, destination, command, deadline, &progress).await;
    progress.finish(result.map(|()| Outcome::StepDone))
}

async fn step(
    services: &Services,
    destination: &Destination,
    command: &RotationStep,
    deadline: Deadline,
    progress: &Progress,
) -> Result<(), Error> {
    let DataPlane { api_url, api_key_secret_id } = &destination.data_plane;
    let (http, rate_limit) = (&services.braintrust_http, &services.rate_limits.of(&destination.data_plane));
    let with = |api_key| Braintrust { http, api_url, api_key, rate_limit, deadline };
    let secret = services.secrets_manager.staged(api_key_secret_id, deadline, &progress.requests);
    let (stages, version) = (secret.describe().await?, &command.client_request_token);
    if contract::guard(&secret, &stages, version).await? == StepState::AlreadyDone {
        return Ok(());
    }
    match command.step {
        Step::Create => {
            let current = &service_token::current(&secret, &stages).await?;
            let (rotation_token, api) = (command.rotation_token.as_ref(), with(&current.api_key));
            Creation { secret: &secret, stages: &stages, version, rotation_token, current, api }.run(progress).await
        }
        // Consumers read the secret: the key is set nowhere else.
        Step::Set => Ok(()),
        Step::Test => {
            let tested = match secret.read_text(version).await? {
                Some(text) => service_token::parse(&text)?,
                // With RotateImmediately=false, Secrets Manager calls testSecret alone, on a version that never gets a
                // value.
                None => service_token::current(&secret, &stages).await?,
            };
            progress.service_token(tested.service_token_id);
            with(&tested.api_key).find(&destination.lookup).await.map(drop)
        }
        Step::Finish => match secret.read_text(version).await? {
            Some(_) => secret.promote(version, stages.current()).await,
            None => Err(contract::no_pending_value(&secret)),
        },
    }
}
