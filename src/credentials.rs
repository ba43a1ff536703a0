//! The minted credentials as plain data; the secret parts must never be printed, nor live longer than a rotation.

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// How credentials are made, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KindName {
    /// STS temporary credentials: they expire by themselves.
    Temporary,
    /// An IAM user's access key: standing.
    AccessKey,
    /// A presigned Bedrock API key: it expires with the session that signed it.
    ShortTermApiKey,
    /// An IAM user's Bedrock API key: standing.
    LongTermApiKey,
}

/// One set of Bedrock credentials.
pub struct Credentials {
    /// How they were made.
    pub kind: KindName,
    /// The access key id or service-specific credential id: an identifier that may be shown. For a short-term API key
    /// the access key id that signed it.
    pub id: String,
    /// What must not be shown.
    pub secret: Secret,
    /// When they were made.
    pub minted_at: Timestamp,
    /// When they stop working by themselves.
    pub expires_at: Option<Timestamp>,
}

impl Credentials {
    /// When they were made and end.
    pub fn lifetime(&self) -> Lifetime {
        Lifetime { minted_at: self.minted_at, expires_at: self.expires_at }
    }
}

/// From when to when credentials work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// When they were made.
    pub minted_at: Timestamp,
    /// When they stop working by themselves.
    pub expires_at: Option<Timestamp>,
}

/// The secret parts.
pub enum Secret {
    /// What goes with an access key id.
    AccessKey {
        /// The secret access key.
        secret_access_key: SecretString,
        /// The session token, without which temporary credentials are not valid.
        session_token: Option<SecretString>,
    },
    /// A Bedrock API key.
    ApiKey(SecretString),
}
