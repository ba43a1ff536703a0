//! A target, once every rule of the configuration holds; it must never hold a secret.

use std::fmt;
use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::credentials::KindName;

/// One set of Bedrock credentials to keep fresh, and the `ai_secret`s that receive it.
#[derive(Debug)]
pub struct Target {
    /// Its unique name, in events, reports and role session names.
    pub name: String,
    /// How its credentials are made.
    pub kind: Kind,
    /// The Bedrock region, never empty.
    pub region: String,
    /// The Secrets Manager secret that holds the credentials too: standing ones are lost without it.
    pub secret_id: Option<String>,
    /// What proves the credentials.
    pub probe: Probe,
    /// At least one.
    pub ai_secrets: Vec<AiSecret>,
}

/// How the credentials are made.
#[derive(Debug)]
pub enum Kind {
    /// STS temporary credentials.
    Temporary(AssumeRole),
    /// A presigned API key.
    ShortTermApiKey(AssumeRole),
    /// An access key of an IAM user.
    AccessKey(Standing),
    /// An API key of an IAM user.
    LongTermApiKey {
        /// The user and its times.
        standing: Standing,
        /// After how many days the key expires, should nobody rotate it.
        age_days: u16,
    },
}

impl Kind {
    /// The word for it in the configuration and the report.
    pub fn name(&self) -> KindName {
        match self {
            Self::Temporary(_) => KindName::Temporary,
            Self::ShortTermApiKey(_) => KindName::ShortTermApiKey,
            Self::AccessKey(_) => KindName::AccessKey,
            Self::LongTermApiKey { .. } => KindName::LongTermApiKey,
        }
    }

    /// The IAM user and its times, if the credentials do not expire by themselves.
    pub fn standing(&self) -> Option<&Standing> {
        match self {
            Self::Temporary(_) | Self::ShortTermApiKey(_) => None,
            Self::AccessKey(standing) | Self::LongTermApiKey { standing, .. } => Some(standing),
        }
    }
}

/// An IAM user whose credentials are rotated.
#[derive(Debug)]
pub struct Standing {
    /// The IAM user.
    pub user_name: String,
    /// A role that may manage it, in this account or another; the function's own role if there is none.
    pub role: Option<AssumeRole>,
    /// When the current credentials are due.
    pub rotate_after: Duration,
    /// How long the previous ones stay valid: longer than any gateway's cache.
    pub overlap: Duration,
}

/// The parameters of STS `AssumeRole`.
#[derive(Debug)]
pub struct AssumeRole {
    /// The role that may call Bedrock.
    pub role_arn: String,
    /// What its trust policy asks for, if it does.
    pub external_id: Option<String>,
    /// 900–3600 seconds.
    pub duration_seconds: u16,
    /// An inline session policy, compact JSON.
    pub session_policy: Option<String>,
}

/// What proves that credentials work.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probe {
    /// `ListFoundationModels`: free.
    #[default]
    Models,
    /// A one-token `Converse` with this model, at its price.
    Converse(String),
}

/// One `ai_secret` to write to.
#[derive(Debug)]
pub struct AiSecret {
    /// Which one.
    pub lookup: Lookup,
    /// The data plane that holds it.
    pub api_url: Url,
    /// The Secrets Manager secret with the Braintrust API key for it.
    pub api_key_secret_id: String,
    /// Where the credentials go inside it.
    pub layout: LayoutChoice,
}

/// How an `ai_secret` is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// By its id.
    Id(Uuid),
    /// By its name, which must be the only one of type `bedrock` that the key sees.
    Name {
        /// Unique within an organization only.
        name: String,
        /// Needed by a key that sees several organizations.
        org_name: Option<String>,
    },
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name { name, org_name: None } => write!(f, "{name:?}"),
            Self::Name { name, org_name: Some(org) } => write!(f, "{name:?} of {org:?}"),
        }
    }
}

/// `layout` as configured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LayoutChoice {
    /// By the `ai_secret`'s own metadata.
    #[default]
    Auto,
    /// What the gateway reads.
    Gateway,
    /// What the help article shows.
    Documented,
}
