//! The staged secret in Secrets Manager, which holds a target's credentials through a rotation; it must never move `AWSCURRENT` but in [`Staging::promote`].
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use std::collections::HashMap;

use aws_sdk_secretsmanager::Client;
use aws_smithy_types::DateTime;
use jiff::Timestamp;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use crate::credentials::{Credentials, KindName, Secret};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};

const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";
const PREVIOUS: &str = "AWSPREVIOUS";
/// A label of our own, on the version that was rolled back from.
const ROLLED_BACK: &str = "ROLLED_BACK";

/// One staged secret, until one deadline. The SDK repeats throttled and failed calls itself; all of them may be.
#[derive(Clone, Copy)]
pub struct Staging<'a> {
    /// Secrets Manager.
    pub client: &'a Client,
    /// The secret's name or ARN.
    pub secret_id: &'a str,
    /// When all calls must have ended.
    pub deadline: Deadline,
}

/// What `DescribeSecret` says.
pub struct Description {
    /// Whether Secrets Manager rotates it; `None` if it was never told to.
    pub rotation_enabled: Option<bool>,
    /// When the secret was made: credentials older than it were made by somebody else.
    pub created_at: Option<Timestamp>,
    /// The last time at which `AWSCURRENT` may have moved.
    pub promoted_at: Option<Timestamp>,
    /// When Secrets Manager rotates it next, if it does.
    pub next_rotation: Option<Timestamp>,
    versions: HashMap<String, Vec<String>>,
}

impl Description {
    /// The version that consumers read.
    pub fn current(&self) -> Option<&str> {
        self.with_stage(CURRENT)
    }

    /// The version before that.
    pub fn previous(&self) -> Option<&str> {
        self.with_stage(PREVIOUS)
    }

    /// A rotation that has not ended. A rotation by Secrets Manager leaves `AWSPENDING` on the version that it made
    /// current, where it stays when somebody puts another value: such a version must not come back.
    pub fn pending(&self) -> Option<&str> {
        self.with_stage(PENDING).filter(|version| ![self.current(), self.previous()].contains(&Some(version)))
    }

    /// The version with `AWSPENDING` that was current already.
    pub fn leftover_pending(&self) -> Option<&str> {
        self.with_stage(PENDING).filter(|_| self.pending().is_none())
    }

    /// The version that a rollback left.
    pub fn rolled_back(&self) -> Option<&str> {
        self.with_stage(ROLLED_BACK)
    }

    /// A version that was current once and kept `AWSPENDING`: left there, it would look like a rotation that has not
    /// ended, and might come back.
    pub fn stale_pending(&self) -> Option<&str> {
        self.with_stage(PENDING).filter(|version| self.previous() == Some(version) && self.current() != Some(version))
    }

    /// The stages of a version; none if it has none or does not exist.
    pub fn stages(&self, version: &str) -> Stages {
        let has = |stage| self.with_stage(stage) == Some(version);
        match (has(CURRENT), has(PENDING)) {
            _ if !self.versions.contains_key(version) => Stages::Unknown,
            (true, _) => Stages::Current,
            (false, true) => Stages::Pending,
            (false, false) => Stages::Other,
        }
    }

    fn with_stage(&self, stage: &str) -> Option<&str> {
        let found = self.versions.iter().find(|(_, stages)| stages.iter().any(|found| found == stage));
        found.map(|(version, _)| version.as_str())
    }
}

/// Where a version stands in a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stages {
    /// No such version.
    Unknown,
    /// It is what consumers read.
    Current,
    /// It is being rotated in.
    Pending,
    /// It is something else, such as the previous one.
    Other,
}

/// What a version holds.
pub enum Held {
    /// No value yet.
    Nothing,
    /// A value that is no set of Bedrock credentials: a placeholder, or somebody else's.
    Foreign,
    /// Credentials.
    Credentials(Credentials),
}

/// Why something is not staged, as far as that can be told.
pub struct Unstaged {
    /// What went wrong.
    pub error: Error,
    /// No answer said that it is not: what it holds must not be deleted.
    pub may_be_staged: bool,
}

impl From<Error> for Unstaged {
    /// Before anything was sent.
    fn from(error: Error) -> Self {
        Self { error, may_be_staged: false }
    }
}

/// The JSON that consumers read.
#[derive(Serialize)]
struct Written<'a> {
    kind: KindName,
    target: &'a str,
    region: &'a str,
    credential_id: &'a str,
    minted_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_access_key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_secret_access_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aws_session_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_key: Option<&'a str>,
}

#[derive(Deserialize)]
struct Read {
    kind: KindName,
    credential_id: String,
    minted_at: Timestamp,
    expires_at: Option<Timestamp>,
    aws_secret_access_key: Option<SecretString>,
    aws_session_token: Option<SecretString>,
    api_key: Option<SecretString>,
}

impl Staging<'_> {
    /// Reads the versions and stages.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn describe(self) -> Result<Description, Error> {
        const CALL: &str = "DescribeSecret";
        let request = self.client.describe_secret().secret_id(self.secret_id);
        let answer = self.bound(CALL, request.send()).await?;
        let versions = answer.version_ids_to_stages.unwrap_or_default();
        let described = Description {
            rotation_enabled: answer.rotation_enabled,
            created_at: said(answer.created_date),
            promoted_at: said(answer.last_changed_date),
            next_rotation: said(answer.next_rotation_date),
            versions,
        };
        // Secrets Manager changes the secret at the very start of its rotation. What a rollback moved shortly before it
        // is forgotten by that.
        let is_rotating = described.rotation_enabled == Some(true) && described.pending().is_some();
        let promoted_at = if is_rotating { said(answer.last_rotated_date) } else { described.promoted_at };
        Ok(Description { promoted_at, ..described })
    }

    /// Reads what a version holds.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn read(self, version: &str) -> Result<Held, Error> {
        Ok(self.read_text(version).await?.map_or(Held::Nothing, |text| parse(&text)))
    }

    /// Reads a version's text; `None` if it has no value yet.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn read_text(self, version: &str) -> Result<Option<SecretString>, Error> {
        const CALL: &str = "GetSecretValue";
        let request = self.client.get_secret_value().secret_id(self.secret_id).version_id(version);
        match self.bound(CALL, request.send()).await {
            Ok(answer) => Ok(Some(answer.secret_string.unwrap_or_default().into())),
            Err(error) if error.cause == Cause::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts new credentials into the version `token` as `AWSPENDING`.
    ///
    /// # Errors
    /// Those of [`Staging::stage_text`].
    pub async fn stage(
        self,
        token: &str,
        rotation_token: Option<&str>,
        credentials: &Credentials,
        target: &str,
        region: &str,
    ) -> Result<(), Unstaged> {
        self.stage_text(token, rotation_token, &write(credentials, target, region)?).await
    }

    /// Puts a text into the version `token` as `AWSPENDING`. The same again is no change. What no answer said is read.
    ///
    /// # Errors
    /// `conflict`, if the version holds something else already, and those of an AWS call.
    pub async fn stage_text(
        self,
        token: &str,
        rotation_token: Option<&str>,
        text: &SecretString,
    ) -> Result<(), Unstaged> {
        let request = self
            .client
            .put_secret_value()
            .secret_id(self.secret_id)
            .client_request_token(token)
            .set_rotation_token(rotation_token.map(str::to_owned))
            // Left out, AWSCURRENT would move.
            .version_stages(PENDING)
            // Security: exposed into the request.
            .secret_string(text.expose_secret());
        let Err(error) = self.bound("PutSecretValue", request.send()).await else { return Ok(()) };
        match self.read_text(token).await {
            // Only the answer was lost. Security: compared in memory.
            Ok(Some(held)) if held.expose_secret() == text.expose_secret() => Ok(()),
            read => Err(Unstaged { may_be_staged: read.is_err() && error.is_transient(), error }),
        }
    }

    /// Moves `AWSCURRENT` to the version `token`.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn promote(self, token: &str, from: Option<&str>) -> Result<(), Error> {
        self.move_stage(CURRENT, Some(token), from).await
    }

    /// Takes `AWSPENDING` from a version that is dead or has become current. Secrets Manager takes a removal for a failed
    /// rotation, so in its own rotations the stage stays.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn end_pending(self, version: &str) -> Result<(), Error> {
        self.move_stage(PENDING, None, Some(version)).await
    }

    /// Marks the version that is rolled back from, so that a rollback that is repeated does not bring it back.
    ///
    /// # Errors
    /// Those of an AWS call.
    pub async fn mark_rolled_back(self, description: &Description, version: &str) -> Result<(), Error> {
        match description.rolled_back() {
            Some(marked) if marked == version => Ok(()),
            marked => self.move_stage(ROLLED_BACK, Some(version), marked).await,
        }
    }

    /// A move is refused where the stage is no longer on the version `from`: then it may be where it should be, and only the
    /// answer to an attempt before was lost.
    async fn move_stage(self, stage: &str, to: Option<&str>, from: Option<&str>) -> Result<(), Error> {
        const CALL: &str = "UpdateSecretVersionStage";
        let request = self
            .client
            .update_secret_version_stage()
            .secret_id(self.secret_id)
            .version_stage(stage)
            .set_move_to_version_id(to.map(str::to_owned))
            .set_remove_from_version_id(from.map(str::to_owned));
        let Err(error) = self.bound(CALL, request.send()).await else { return Ok(()) };
        match self.describe().await {
            Ok(now) if now.with_stage(stage) == to => Ok(()),
            _ => Err(error),
        }
    }

    async fn bound<T, E: aws_smithy_types::error::metadata::ProvideErrorMetadata>(
        self,
        call: &'static str,
        answer: impl Future<Output = Result<T, aws_sdk_secretsmanager::error::SdkError<E>>>,
    ) -> Result<T, Error> {
        let explained = async {
            answer.await.map_err(|error| {
                let code = error.as_service_error().and_then(|service| service.code());
                let exists = code == Some("ResourceExistsException");
                let error = Error::aws(Service::SecretsManager, call, &error);
                let cause = if exists { Cause::Conflict } else { error.cause };
                Error { cause, problem: format!("{} for the secret {:?}", error.problem, self.secret_id), ..error }
            })
        };
        self.deadline.bound(Service::SecretsManager, call, explained).await
    }
}

fn said(time: Option<DateTime>) -> Option<Timestamp> {
    time.and_then(|time| Timestamp::from_second(time.secs()).ok())
}

fn write(credentials: &Credentials, target: &str, region: &str) -> Result<SecretString, Error> {
    // Security: the parts are exposed into the JSON, which is a secret itself.
    let (secret_access_key, session_token, api_key) = match &credentials.secret {
        Secret::AccessKey { secret_access_key, session_token } => {
            (Some(secret_access_key.expose_secret()), session_token.as_ref().map(ExposeSecret::expose_secret), None)
        }
        Secret::ApiKey(key) => (None, None, Some(key.expose_secret())),
    };
    let written = Written {
        kind: credentials.kind,
        target,
        region,
        credential_id: &credentials.id,
        minted_at: iso8601(credentials.minted_at),
        expires_at: credentials.expires_at.map(iso8601),
        aws_access_key_id: secret_access_key.map(|_| credentials.id.as_str()),
        aws_secret_access_key: secret_access_key,
        aws_session_token: session_token,
        api_key,
    };
    let mut json = Zeroizing::new(Vec::with_capacity(8 << 10));
    let broken = || {
        Error::new(
            Cause::Configuration,
            Service::SecretsManager,
            "PutSecretValue",
            "no JSON can be made",
            "Report this",
        )
    };
    serde_json::to_writer(&mut *json, &written).map_err(|_| broken())?;
    std::str::from_utf8(&json).map(SecretString::from).map_err(|_| broken())
}

/// To the second: what consumers parse should not vary in length.
fn iso8601(time: Timestamp) -> String {
    format!("{time:.0}")
}

fn parse(text: &SecretString) -> Held {
    // Security: looked at in memory.
    let Ok(read) = serde_json::from_str::<Read>(text.expose_secret()) else { return Held::Foreign };
    let secret = match (read.aws_secret_access_key, read.api_key) {
        (Some(secret_access_key), None) => {
            Secret::AccessKey { secret_access_key, session_token: read.aws_session_token }
        }
        (None, Some(key)) => Secret::ApiKey(key),
        _ => return Held::Foreign,
    };
    Held::Credentials(Credentials {
        kind: read.kind,
        id: read.credential_id,
        secret,
        minted_at: read.minted_at,
        expires_at: read.expires_at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn credentials(kind: KindName, secret: Secret) -> Credentials {
        let minted_at = "2026-01-15T12:00:00.5Z".parse().unwrap();
        Credentials { kind, id: "ID".to_owned(), secret, minted_at, expires_at: None }
    }

    #[test]
    fn what_is_staged_reads_back() {
        let pair = |token: Option<&str>| Secret::AccessKey {
            secret_access_key: "key".into(),
            session_token: token.map(SecretString::from),
        };
        for (kind, secret, parts) in [
            (
                KindName::Temporary,
                pair(Some("token")),
                json!({"aws_access_key_id": "ID", "aws_secret_access_key": "key", "aws_session_token": "token"}),
            ),
            (KindName::AccessKey, pair(None), json!({"aws_access_key_id": "ID", "aws_secret_access_key": "key"})),
            (KindName::LongTermApiKey, Secret::ApiKey("key".into()), json!({"api_key": "key"})),
        ] {
            let json = write(&credentials(kind, secret), "prod", "us-east-1").unwrap();
            let mut expected = json!({"kind": kind, "target": "prod", "region": "us-east-1", "credential_id": "ID", "minted_at": "2026-01-15T12:00:00Z"});
            expected.as_object_mut().unwrap().extend(parts.as_object().unwrap().clone());
            assert_eq!(serde_json::from_str::<Value>(json.expose_secret()).unwrap(), expected);
            let Held::Credentials(read) = parse(&json) else { panic!() };
            assert_eq!((read.kind, read.id.as_str()), (kind, "ID"));
        }
    }

    #[test]
    fn a_placeholder_is_foreign() {
        for text in ["", "{}", "change me", r#"{"username":"x","password":"y"}"#] {
            assert!(matches!(parse(&SecretString::from(text)), Held::Foreign), "{text}");
        }
    }
}
