//! A target that satisfies every rule of the configuration.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use uuid::Uuid;

use super::values::{
    EndToEnd, ExternalId, LayoutChoice, Probe, Region, RoleArn, SecretId, SessionTags, SourceIdentity, TargetName,
    UserName,
};
use crate::credentials::Kind;

/// One set of Bedrock credentials to keep fresh, and the destinations that receive it, at least one.
#[derive(Debug)]
pub struct Target {
    pub name: TargetName,
    pub region: Region,
    pub source: Source,
    pub probe: Probe,
    /// How the credentials are proven again, through Braintrust, after they have been written.
    pub end_to_end: Option<EndToEnd>,
    pub destinations: Vec<Destination>,
    /// The destinations of all targets, in the configured order. Empty if all are named by their IDs, because then no
    /// two are the same.
    pub claims: Arc<[Claim]>,
}

impl Target {
    pub fn kind(&self) -> Kind {
        match &self.source {
            Source::RoleBased(RoleBased { kind: RoleBasedKind::Temporary, .. }) => Kind::Temporary,
            Source::RoleBased(RoleBased { kind: RoleBasedKind::ShortTermApiKey, .. }) => Kind::ShortTermApiKey,
            Source::UserBased(UserBased { kind: UserBasedKind::AccessKey, .. }) => Kind::AccessKey,
            Source::UserBased(UserBased { kind: UserBasedKind::LongTermApiKey { .. }, .. }) => Kind::LongTermApiKey,
        }
    }

    /// The Secrets Manager secret that stages the credentials.
    pub fn secret_id(&self) -> Option<&SecretId> {
        match &self.source {
            Source::RoleBased(source) => source.secret_id.as_ref(),
            Source::UserBased(source) => Some(&source.secret_id),
        }
    }

    pub fn user_based(&self) -> Option<&UserBased> {
        match &self.source {
            Source::RoleBased(_) => None,
            Source::UserBased(source) => Some(source),
        }
    }
}

#[derive(Debug)]
pub enum Source {
    RoleBased(RoleBased),
    UserBased(UserBased),
}

/// Credentials that expire within the hour. Every scheduled run replaces them.
#[derive(Debug)]
pub struct RoleBased {
    pub kind: RoleBasedKind,
    /// May call Bedrock.
    pub role: AssumeRole,
    /// Whether a revocation ends the role's older sessions with a policy, which the function must be allowed to write.
    pub revoke_sessions: bool,
    pub secret_id: Option<SecretId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RoleBasedKind {
    Temporary,
    ShortTermApiKey,
}

/// Credentials of an IAM user, rotated by age. They are always staged, because a lost key can't be read again.
#[derive(Debug)]
pub struct UserBased {
    pub kind: UserBasedKind,
    pub user_name: UserName,
    /// The role that may manage the user, in this account or another. Without one, the function's own role does.
    pub role: Option<AssumeRole>,
    pub secret_id: SecretId,
    /// The age at which the current credentials are due for rotation.
    pub rotate_after: Duration,
    /// How long the previous credentials stay valid: longer than any reader's cache.
    pub overlap: Duration,
}

/// A long-term API key expires after `credential_age_days` if nobody rotates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserBasedKind {
    AccessKey,
    LongTermApiKey { credential_age_days: u16 },
}

/// The parameters of STS `AssumeRole`.
#[derive(Debug)]
pub struct AssumeRole {
    pub role_arn: RoleArn,
    pub external_id: Option<ExternalId>,
    /// CloudTrail shows it in the events of the session, and of sessions that the session starts.
    pub source_identity: Option<SourceIdentity>,
    pub session_tags: SessionTags,
    /// 900–3600.
    pub duration_seconds: u16,
    /// An inline session policy, as compact JSON.
    pub session_policy: Option<String>,
}

/// A provider in Braintrust that receives the credentials.
#[derive(Debug)]
pub struct Destination {
    pub lookup: Lookup,
    pub data_plane: DataPlane,
    pub layout: LayoutChoice,
    /// How many of the target's claims come before this destination. If one of them turns out to be the same
    /// provider, this destination is refused.
    pub earlier_claims: usize,
}

/// A destination of any target, with which a run finds out whether two destinations are one provider. For a name and
/// an ID, or for equal names with two API keys, only Braintrust can tell.
#[derive(Clone, Debug)]
pub struct Claim {
    pub target: TargetName,
    pub lookup: Lookup,
    pub data_plane: DataPlane,
}

/// Apply to destinations without these fields.
#[derive(Debug)]
pub struct Defaults {
    pub api_url: Url,
    pub api_key_secret_id: Option<SecretId>,
}

/// A Braintrust data plane and the API key with which it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataPlane {
    pub api_url: Url,
    /// The Secrets Manager secret that holds the API key.
    pub api_key_secret_id: SecretId,
}

impl DataPlane {
    /// The URL, in one spelling.
    pub fn url(&self) -> &str {
        self.api_url.as_str().trim_end_matches('/')
    }
}

/// How a provider is found. Of those that the API key sees, exactly one of type `bedrock` must have the name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lookup {
    /// An `ai_secret`.
    Id(Uuid),
    Name {
        name: String,
        org_name: Option<String>,
    },
    /// A project's own provider.
    InProject {
        project: ProjectLookup,
        provider: ProviderLookup,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProjectLookup {
    Id(Uuid),
    Name { name: String, org_name: Option<String> },
}

/// A provider among those of its project.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ProviderLookup {
    Id(Uuid),
    Name(String),
}

impl Lookup {
    pub fn id(&self) -> Option<Uuid> {
        match self {
            Self::Id(id) | Self::InProject { provider: ProviderLookup::Id(id), .. } => Some(*id),
            Self::Name { .. } | Self::InProject { provider: ProviderLookup::Name(_), .. } => None,
        }
    }

    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name { name, .. } | Self::InProject { provider: ProviderLookup::Name(name), .. } => Some(name),
            Self::Id(_) | Self::InProject { provider: ProviderLookup::Id(_), .. } => None,
        }
    }

    /// The project whose provider it is.
    pub fn project(&self) -> Option<&ProjectLookup> {
        match self {
            Self::InProject { project, .. } => Some(project),
            Self::Id(_) | Self::Name { .. } => None,
        }
    }

    /// What it finds, for messages.
    pub fn noun(&self) -> &'static str {
        if self.project().is_some() { "provider" } else { "ai_secret" }
    }
}

impl fmt::Display for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name { name, org_name } => write_name(f, name, org_name.as_deref()),
            Self::InProject { project, provider } => write!(f, "{provider} in the project {project}"),
        }
    }
}

impl fmt::Display for ProjectLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name { name, org_name } => write_name(f, name, org_name.as_deref()),
        }
    }
}

impl fmt::Display for ProviderLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "{id}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

fn write_name(f: &mut fmt::Formatter<'_>, name: &str, org_name: Option<&str>) -> fmt::Result {
    match org_name {
        None => write!(f, "{name:?}"),
        Some(org) => write!(f, "{name:?} of {org:?}"),
    }
}
