//! Bedrock credentials as plain data. The secret parts have no `Debug`.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The kind of a target's credentials, as written in the configuration, in staged secrets and in reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// STS temporary credentials of a role.
    Temporary,
    /// A presigned Bedrock API key, which expires with the session that signed it.
    ShortTermApiKey,
    /// An access key of an IAM user.
    AccessKey,
    /// A Bedrock API key of an IAM user.
    LongTermApiKey,
}

impl Kind {
    /// Whether Braintrust and Bedrock receive an API key rather than an access key.
    pub fn is_api_key(self) -> bool {
        match self {
            Self::Temporary | Self::AccessKey => false,
            Self::ShortTermApiKey | Self::LongTermApiKey => true,
        }
    }
}

/// What STS returns for an assumed role.
pub struct SessionCredentials {
    pub access_key_id: String,
    pub secret_access_key: SecretString,
    pub session_token: SecretString,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

pub struct Credentials {
    /// The access key ID or the service-specific credential ID. A short-term API key has the ID of the access key that
    /// signed it. IDs are not secret.
    pub id: String,
    pub created_at: Timestamp,
    /// `None` for access keys, which don't expire.
    pub expires_at: Option<Timestamp>,
    pub secret: Secret,
}

/// The secret part, by kind.
pub enum Secret {
    Temporary { secret_access_key: SecretString, session_token: SecretString },
    ShortTermApiKey(SecretString),
    AccessKey { secret_access_key: SecretString },
    LongTermApiKey(SecretString),
}

#[cfg(any(test, fuzzing))]
impl Secret {
    pub fn for_test(kind: Kind) -> Self {
        let new = || SecretString::from("new");
        match kind {
            Kind::Temporary => Self::Temporary { secret_access_key: new(), session_token: new() },
            Kind::ShortTermApiKey => Self::ShortTermApiKey(new()),
            Kind::AccessKey => Self::AccessKey { secret_access_key: new() },
            Kind::LongTermApiKey => Self::LongTermApiKey(new()),
        }
    }
}

impl Credentials {
    pub fn kind(&self) -> Kind {
        match self.secret {
            Secret::Temporary { .. } => Kind::Temporary,
            Secret::ShortTermApiKey(_) => Kind::ShortTermApiKey,
            Secret::AccessKey { .. } => Kind::AccessKey,
            Secret::LongTermApiKey(_) => Kind::LongTermApiKey,
        }
    }

    /// How Bedrock is called with these credentials, and in what form Braintrust stores them.
    pub fn authentication(&self) -> Authentication<'_> {
        let (secret_access_key, session_token) = match &self.secret {
            Secret::Temporary { secret_access_key, session_token } => (secret_access_key, Some(session_token)),
            Secret::AccessKey { secret_access_key } => (secret_access_key, None),
            Secret::ShortTermApiKey(key) | Secret::LongTermApiKey(key) => return Authentication::ApiKey(key),
        };
        Authentication::AccessKey { access_key_id: &self.id, secret_access_key, session_token }
    }

    pub fn lifetime(&self) -> Lifetime {
        Lifetime { created_at: self.created_at, expires_at: self.expires_at }
    }
}

impl From<SessionCredentials> for Credentials {
    fn from(session: SessionCredentials) -> Self {
        let SessionCredentials { access_key_id: id, secret_access_key, session_token, created_at, expires_at } =
            session;
        let secret = Secret::Temporary { secret_access_key, session_token };
        Self { id, created_at, expires_at: Some(expires_at), secret }
    }
}

/// The two ways to authenticate to Bedrock: Signature Version 4 or a bearer token.
#[derive(Clone, Copy)]
pub enum Authentication<'a> {
    AccessKey { access_key_id: &'a str, secret_access_key: &'a SecretString, session_token: Option<&'a SecretString> },
    ApiKey(&'a SecretString),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
}
