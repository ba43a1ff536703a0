//! The Braintrust API key's own rotation, for service tokens; it must never delete the token that consumers read, nor the one before it.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Rotation, hook};
use crate::braintrust::client::Braintrust;
use crate::braintrust::service_token::ServiceToken;
use crate::config;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::report::{Outcome, Retired, Retirement, TargetReport};
use crate::staging::{Description, Staging};
use crate::trigger::RotationStep;

/// What the secret holds, if it can be rotated.
#[derive(Deserialize)]
struct Held {
    api_key: SecretString,
    service_token_id: Uuid,
    service_account_id: String,
    org_name: Option<String>,
}

#[derive(Serialize)]
struct Written<'a> {
    api_key: &'a str,
    service_token_id: Uuid,
    service_account_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<&'a str>,
}

impl Rotation {
    /// One step of the rotation of the API key that `configured` uses.
    pub async fn step_of_the_api_key(
        &self,
        configured: &config::AiSecret,
        step: &RotationStep,
        deadline: Deadline,
    ) -> TargetReport {
        let started = Instant::now();
        let mut report = TargetReport::named("braintrust_api_key");
        let staging = Staging { client: &self.secrets_manager, secret_id: &configured.api_key_secret_id, deadline };
        let done = self.api_key_step(configured, staging, step, &mut report, deadline).await;
        report.conclude(done.map(|()| Outcome::StepDone), started)
    }

    async fn api_key_step(
        &self,
        configured: &config::AiSecret,
        staging: Staging<'_>,
        step: &RotationStep,
        report: &mut TargetReport,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let description = staging.describe().await?;
        let version = &step.client_request_token;
        if !hook::guard(staging, &description, version).await? {
            return Ok(());
        }
        let (api_url, pace) = (&configured.api_url, self.paces.of(&configured.api_url, &configured.api_key_secret_id));
        let with = |api_key| Braintrust { http: &self.http, api_url, api_key, pace: &pace, deadline };
        match step.step.as_str() {
            "createSecret" => {
                let current = current(staging, &description).await?;
                let api = with(&current.api_key);
                let tokens = api.list_service_tokens().await?;
                match staging.read_text(version).await? {
                    Some(text) => keep(staging, version, &parse(&text)?, &tokens).await,
                    None => {
                        retire(staging, &description, &current, &api, &tokens, &name_of(step, ""), report).await?;
                        create(staging, &current, &api, step, report).await
                    }
                }
            }
            // Consumers read the secret: there is nowhere else to set it.
            "setSecret" => Ok(()),
            "testSecret" => {
                let tested = match staging.read_text(version).await? {
                    Some(text) => parse(&text)?,
                    // RotateImmediately=false: testSecret alone, on a version that nobody fills.
                    None => current(staging, &description).await?,
                };
                report.credential_id = Some(tested.service_token_id.to_string());
                with(&tested.api_key).find(&configured.lookup).await.map(drop)
            }
            "finishSecret" => match staging.read_text(version).await? {
                Some(_) => staging.promote(version, description.current()).await,
                None => Err(hook::empty(&step.secret_id)),
            },
            other => Err(hook::unknown(other)),
        }
    }
}

/// The names of the tokens that this secret's rotations make. With the version, what an earlier attempt made and could
/// not stage is known by its name.
fn name_of(step: &RotationStep, version: &str) -> String {
    let secret = step.secret_id.rsplit(':').next().unwrap_or_default();
    format!("{} {secret} {version}", env!("CARGO_PKG_NAME"))
}

/// A token that is staged already is kept, unless it is gone: then every attempt would fail.
async fn keep(staging: Staging<'_>, version: &str, pending: &Held, tokens: &[ServiceToken]) -> Result<(), Error> {
    if tokens.iter().any(|token| token.id == pending.service_token_id) {
        return Ok(());
    }
    staging.end_pending(version).await?;
    Err(Error::new(
        Cause::Conflict,
        Service::Braintrust,
        "rotation",
        "the pending service token is gone, so its version was abandoned",
        "The next rotation starts afresh",
    ))
}

/// Deletes the token before the current one, which becomes the one before the previous, and what earlier attempts made
/// and could not stage.
async fn retire(
    staging: Staging<'_>,
    description: &Description,
    current: &Held,
    api: &Braintrust<'_>,
    tokens: &[ServiceToken],
    made_here: &str,
    report: &mut TargetReport,
) -> Result<(), Error> {
    let previous = match description.previous() {
        Some(version) => staging.read_text(version).await?.and_then(|text| parse(&text).ok()),
        None => None,
    };
    let previous = previous.map(|held| held.service_token_id);
    let superseded = tokens.iter().filter(|token| token.name.starts_with(made_here) || Some(token.id) == previous);
    for token in superseded.filter(|token| token.id != current.service_token_id) {
        api.delete_service_token(token.id).await?;
        report.retired.push(Retired { credential_id: token.id.to_string(), how: Retirement::Deleted });
    }
    Ok(())
}

/// Makes a token and stages it at once. What is known not to be staged is deleted; if that fails too, the next attempt
/// finds it by its name.
async fn create(
    staging: Staging<'_>,
    current: &Held,
    api: &Braintrust<'_>,
    step: &RotationStep,
    report: &mut TargetReport,
) -> Result<(), Error> {
    let version = &step.client_request_token;
    let name = name_of(step, version);
    let made = api.create_service_token(&name, &current.service_account_id, current.org_name.as_deref()).await?;
    report.credential_id = Some(made.id.to_string());
    let staged = async {
        let json = write(&made.key, made.id, current)?;
        // Security: exposed into the request.
        let rotation_token = step.rotation_token.as_ref().map(ExposeSecret::expose_secret);
        staging.stage_text(version, rotation_token, &json).await
    };
    let Err(unstaged) = staged.await else { return Ok(()) };
    // If it is not staged, the next attempt finds it by its name.
    if unstaged.may_be_staged || api.delete_service_token(made.id).await.is_err() {
        report.warnings.push(format!("{} may be neither staged nor deleted; the next rotation deletes it", made.id));
    }
    Err(unstaged.error)
}

async fn current(staging: Staging<'_>, description: &Description) -> Result<Held, Error> {
    let text = match description.current() {
        Some(version) => staging.read_text(version).await?,
        None => None,
    };
    text.map_or_else(|| Err(not_rotatable()), |text| parse(&text))
}

fn parse(text: &SecretString) -> Result<Held, Error> {
    // Security: looked at in memory.
    serde_json::from_str(text.expose_secret()).map_err(|_| not_rotatable())
}

fn not_rotatable() -> Error {
    Error::new(
        Cause::Configuration,
        Service::SecretsManager,
        "rotation",
        "the secret holds no Braintrust service token",
        "Store {\"api_key\":\"bt-st-…\",\"service_token_id\":\"…\",\"service_account_id\":\"…\"}. A user API key (sk-…) \
         cannot be made by API: change it by hand, or use a service token",
    )
}

fn write(key: &SecretString, id: Uuid, current: &Held) -> Result<SecretString, Error> {
    // Security: exposed into the JSON, which is a secret itself.
    let written = Written {
        api_key: key.expose_secret(),
        service_token_id: id,
        service_account_id: &current.service_account_id,
        org_name: current.org_name.as_deref(),
    };
    let mut json = Zeroizing::new(Vec::with_capacity(1 << 10));
    serde_json::to_writer(&mut *json, &written)
        .ok()
        .and_then(|()| std::str::from_utf8(&json).ok().map(SecretString::from))
        .ok_or_else(not_rotatable)
}
