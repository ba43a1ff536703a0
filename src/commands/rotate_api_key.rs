//! One step of the rotation of a Braintrust API key, if its secret holds a service token.

use std::collections::BTreeMap;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::aws::secrets_manager::{NotStaged, StagedSecret, Stages};
use crate::braintrust::api_keys;
use crate::braintrust::client::Braintrust;
use crate::braintrust::service_tokens::ServiceToken;
use crate::config::{DataPlane, Destination};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::event::{RotationStep, Step};
use crate::report::{KeyChange, Outcome, Progress, TargetReport};
use crate::rotation::contract::{self, StepState};
use crate::services::Services;

/// The value of a secret that can be rotated.
#[derive(Clone, Deserialize, Serialize)]
struct TokenSecret {
    #[serde(serialize_with = "expose", deserialize_with = "api_keys::deserialize")]
    api_key: SecretString,
    service_token_id: Uuid,
    service_account_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<String>,
    /// Fields that somebody else added. A rotation keeps them.
    ///
    /// Security: they may be secrets, so they are never shown.
    #[serde(flatten)]
    further: BTreeMap<String, Value>,
}

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
            let current = &current(&secret, &stages).await?;
            let creation = Creation { secret, stages: &stages, command, current, api: with(&current.api_key) };
            creation.run(progress).await
        }
        // Consumers read the secret: the key is set nowhere else.
        Step::Set => Ok(()),
        Step::Test => {
            let tested = match secret.read_text(version).await? {
                Some(text) => parse(&text)?,
                // With RotateImmediately=false, Secrets Manager calls testSecret alone, on a version that never gets a
                // value.
                None => current(&secret, &stages).await?,
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

/// The inputs of createSecret.
struct Creation<'a> {
    secret: StagedSecret<'a>,
    stages: &'a Stages,
    command: &'a RotationStep,
    current: &'a TokenSecret,
    /// Called with the current key.
    api: Braintrust<'a>,
}

impl Creation<'_> {
    async fn run(&self, progress: &Progress) -> Result<(), Error> {
        let tokens = self.api.list_service_tokens().await?;
        let Some(text) = self.secret.read_text(&self.command.client_request_token).await? else {
            self.retire(&tokens, progress).await?;
            return self.create(progress).await;
        };
        self.keep(&parse(&text)?, &tokens).await
    }

    /// Keeps a token that is already staged, unless it no longer exists: then every attempt would fail.
    async fn keep(&self, pending: &TokenSecret, tokens: &[ServiceToken]) -> Result<(), Error> {
        if tokens.iter().any(|token| token.id == pending.service_token_id) {
            return Ok(());
        }
        self.secret.remove_pending(&self.command.client_request_token).await?;
        let problem = "the pending service token no longer exists. Its version was abandoned";
        let remedy = "The next rotation starts a new version";
        Err(Error::new(ErrorClass::Conflict, Service::Braintrust, "rotation", problem, remedy))
    }

    /// Deletes the previous token, and those that earlier attempts created and could not stage.
    async fn retire(&self, tokens: &[ServiceToken], progress: &Progress) -> Result<(), Error> {
        let previous = match self.stages.previous() {
            Some(version) => self.secret.read_text(version).await?.and_then(|text| parse(&text).ok()),
            None => None,
        };
        let (previous, prefix) = (previous.map(|previous| previous.service_token_id), self.token_name(""));
        let superseded = tokens.iter().filter(|token| token.name.starts_with(&prefix) || Some(token.id) == previous);
        for token in superseded.filter(|token| token.id != self.current.service_token_id) {
            self.api.delete_service_token(token.id).await?;
            progress.retired(token.id.to_string(), KeyChange::Deleted);
        }
        Ok(())
    }

    /// Creates a token and stages it at once. A token that is known not to be staged is deleted. If that fails too, the
    /// next attempt recognizes it by its name.
    async fn create(&self, progress: &Progress) -> Result<(), Error> {
        let (command, current) = (self.command, self.current);
        let (name, org_name) = (self.token_name(&command.client_request_token), current.org_name.as_deref());
        let token = self.api.create_service_token(&name, &current.service_account_id, org_name).await?;
        let id = token.id;
        progress.service_token(id);
        let (version, rotation_token) = (&command.client_request_token, command.rotation_token.as_ref());
        let staged = match write(&TokenSecret { api_key: token.key, service_token_id: id, ..current.clone() }) {
            Ok(text) => self.secret.put_pending(version, rotation_token, &text).await,
            Err(error) => Err(NotStaged { error, may_be_staged: false }),
        };
        let Err(not_staged) = staged else { return Ok(()) };
        if not_staged.may_be_staged || self.api.delete_service_token(id).await.is_err() {
            let warning = "may be orphaned. If it is, the next rotation deletes it";
            progress.warning(format!("the service token {id} {warning}"));
        }
        Err(not_staged.error)
    }

    /// The name of the tokens that this secret's rotations create. It ends with the version, by which the next attempt
    /// recognizes a token that could not be staged.
    fn token_name(&self, version: &str) -> String {
        let secret = self.command.secret_id.rsplit(':').next().unwrap_or_default();
        format!("{} {secret} {version}", env!("CARGO_PKG_NAME"))
    }
}

async fn current(secret: &StagedSecret<'_>, stages: &Stages) -> Result<TokenSecret, Error> {
    let version = stages.current().ok_or_else(not_rotatable)?;
    parse(&secret.read_text(version).await?.ok_or_else(not_rotatable)?)
}

fn parse(text: &SecretString) -> Result<TokenSecret, Error> {
    // Security: exposed to the parser. Its error is dropped, because it may quote the text.
    let token = serde_json::from_str(api_keys::trim(text.expose_secret())).ok();
    token.filter(|token: &TokenSecret| api_keys::is_valid(&token.api_key)).ok_or_else(not_rotatable)
}

fn write(token: &TokenSecret) -> Result<SecretString, Error> {
    let mut json = Zeroizing::new(Vec::with_capacity(1 << 10));
    serde_json::to_writer(&mut *json, token).map_err(|_| not_rotatable())?;
    Ok(SecretString::from(&*String::from_utf8_lossy(&json)))
}

// Security: exposed into the JSON, which becomes a secret itself. The buffer is zeroized.
fn expose<S: Serializer>(key: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose_secret())
}

fn not_rotatable() -> Error {
    let problem = "the secret holds no Braintrust service token";
    let remedy = "Store a service token in it, as {\"api_key\":\"bt-st-…\",\"service_token_id\":\"…\",\"service_account_id\":\"…\"}. A user API \
                  key (sk-…) can't be created by API: change it by hand, or use a service token";
    Error::new(ErrorClass::Configuration, Service::SecretsManager, "rotation", problem, remedy)
}
