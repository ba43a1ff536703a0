//! A Braintrust service token in a secret: its value, and the creation of its successor. Rotations and revocations both
//! use these.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use uuid::Uuid;

use crate::aws::secrets_manager::{NotStaged, StagedSecret, Stages};
use crate::braintrust::api_keys;
use crate::braintrust::client::Braintrust;
use crate::braintrust::service_tokens::ServiceToken;
use crate::error::{Error, ErrorClass, Service};
use crate::report::{KeyChange, Progress};

/// The value of a secret that can be rotated.
#[derive(Clone, Deserialize, Serialize)]
pub struct TokenSecret {
    #[serde(serialize_with = "expose", deserialize_with = "api_keys::deserialize")]
    pub api_key: SecretString,
    pub service_token_id: Uuid,
    service_account_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    org_name: Option<String>,
    /// Fields that somebody else added. A rotation keeps them.
    ///
    /// Security: they may be secrets, so they are never shown.
    #[serde(flatten)]
    further: BTreeMap<String, Value>,
}

/// The creation of a token in a new version of its secret.
pub struct Creation<'a> {
    pub secret: &'a StagedSecret<'a>,
    pub stages: &'a Stages,
    pub version: &'a str,
    pub rotation_token: Option<&'a SecretString>,
    pub current: &'a TokenSecret,
    /// Called with the current key.
    pub api: Braintrust<'a>,
}

impl Creation<'_> {
    /// createSecret: keeps the token that the version holds, or creates one.
    pub async fn run(&self, progress: &Progress) -> Result<(), Error> {
        let tokens = self.api.list_service_tokens().await?;
        let Some(text) = self.secret.read_text(self.version).await? else {
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
        self.secret.remove_pending(self.version).await?;
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
        let previous = previous.map(|previous| previous.service_token_id);
        let superseded = tokens.iter().filter(|token| self.is_ours(token) || Some(token.id) == previous);
        for token in superseded.filter(|token| token.id != self.current.service_token_id) {
            self.api.delete_service_token(token.id).await?;
            progress.retired(token.id.to_string(), KeyChange::Deleted);
        }
        Ok(())
    }

    /// Whether this secret's rotations created the token.
    pub fn is_ours(&self, token: &ServiceToken) -> bool {
        token.name.starts_with(&self.token_name(""))
    }

    /// Whether the token was created for this version of the secret.
    pub fn is_of_version(&self, token: &ServiceToken, version: &str) -> bool {
        token.name == self.token_name(version)
    }

    /// Creates a token and stages it at once. A token that is known not to be staged is deleted. If that fails too, the
    /// next attempt recognizes it by its name.
    pub async fn create(&self, progress: &Progress) -> Result<(), Error> {
        let current = self.current;
        let (name, org_name) = (self.token_name(self.version), current.org_name.as_deref());
        let token = self.api.create_service_token(&name, &current.service_account_id, org_name).await?;
        let id = token.id;
        progress.service_token(id);
        let staged = match write(&TokenSecret { api_key: token.key, service_token_id: id, ..current.clone() }) {
            Ok(text) => self.secret.put_pending(self.version, self.rotation_token, &text).await,
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
        let secret =
            self.stages.arn.as_deref().unwrap_or(self.secret.id.as_str()).rsplit(':').next().unwrap_or_default();
        format!("{} {secret} {version}", env!("CARGO_PKG_NAME"))
    }
}

pub async fn current(secret: &StagedSecret<'_>, stages: &Stages) -> Result<TokenSecret, Error> {
    let version = stages.current().ok_or_else(not_rotatable)?;
    parse(&secret.read_text(version).await?.ok_or_else(not_rotatable)?)
}

pub fn parse(text: &SecretString) -> Result<TokenSecret, Error> {
    // Security: exposed to the parser. Its error is dropped, because it may quote the text.
    let token = serde_json::from_str(api_keys::trim(text.expose_secret())).ok();
    token.filter(|token: &TokenSecret| api_keys::is_valid(&token.api_key)).ok_or_else(not_rotatable)
}

fn write(token: &TokenSecret) -> Result<SecretString, Error> {
    serde_json::to_string(token).map(SecretString::from).map_err(|_| not_rotatable())
}

// Security: exposed into the JSON, which becomes a secret itself. The allocator zeroizes its buffers.
fn expose<S: Serializer>(key: &SecretString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.expose_secret())
}

fn not_rotatable() -> Error {
    let problem = "the secret holds no Braintrust service token";
    let remedy = "Store a service token in it, as {\"api_key\":\"bt-st-…\",\"service_token_id\":\"…\",\"service_account_id\":\"…\"}. A user API \
                  key (sk-…) can't be created by API: change it by hand, or use a service token";
    Error::new(ErrorClass::Configuration, Service::SecretsManager, "rotation", problem, remedy)
}
