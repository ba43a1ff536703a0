//! The Braintrust API key's own rotation, for service tokens; it must never delete the token that consumers read, nor the one before it.

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Rotation, hook};
use crate::braintrust::client::Braintrust;
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
        let mut report = TargetReport {
            name: "braintrust_api_key".to_owned(),
            outcome: Outcome::Deferred,
            kind: None,
            region: None,
            credential_id: None,
            expires_at: None,
            ai_secrets: Vec::new(),
            retired: Vec::new(),
            warnings: Vec::new(),
            duration_ms: 0,
            error: None,
        };
        let staging = Staging { client: &self.secrets_manager, secret_id: &step.secret_id, deadline };
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
        if !hook::guard(&description, version)? {
            return Ok(());
        }
        let with = |key| Braintrust { http: &self.http, api_url: &configured.api_url, api_key: key, deadline };
        match step.step.as_str() {
            "createSecret" => {
                if staging.read_text(version).await?.is_none() {
                    let current = current(staging, &description).await?;
                    create(staging, &description, &current, with(&current.api_key), step, report).await?;
                }
                Ok(())
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
            "finishSecret" => staging.promote(version, description.current()).await,
            other => Err(hook::unknown(other)),
        }
    }
}

/// Makes and stages a token. The one before the current is not needed any more; nor is one that an earlier attempt of
/// this very rotation made and could not stage.
async fn create(
    staging: Staging<'_>,
    description: &Description,
    current: &Held,
    api: Braintrust<'_>,
    step: &RotationStep,
    report: &mut TargetReport,
) -> Result<(), Error> {
    let version = &step.client_request_token;
    let name = format!("{} {version}", env!("CARGO_PKG_NAME"));
    let mut superseded: Vec<_> =
        api.list_service_tokens().await?.into_iter().filter(|token| token.name == name).map(|token| token.id).collect();
    if let Some(previous) = description.previous()
        && let Some(Ok(previous)) = staging.read_text(previous).await?.map(|text| parse(&text))
    {
        superseded.push(previous.service_token_id);
    }
    for id in superseded.into_iter().filter(|id| *id != current.service_token_id) {
        api.delete_service_token(id).await?;
        report.retired.push(Retired { credential_id: id.to_string(), how: Retirement::Deleted });
    }
    let made = api.create_service_token(&name, &current.service_account_id, current.org_name.as_deref()).await?;
    report.credential_id = Some(made.id.to_string());
    let staged = match write(&made.key, made.id, current) {
        // Security: the rotation token and the JSON are exposed into the request.
        Ok(json) => {
            let rotation_token = step.rotation_token.as_ref().map(ExposeSecret::expose_secret);
            staging.stage_text(version, rotation_token, &json).await
        }
        Err(error) => Err(error),
    };
    if staged.is_err() {
        // If this fails too, the next attempt finds the token by its name.
        let _ = api.delete_service_token(made.id).await;
    }
    staged
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
