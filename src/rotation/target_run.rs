//! One run of one target.

use jiff::Timestamp;
use tokio::sync::OnceCell;

use crate::aws::bedrock::{Proof, Proven};
use crate::aws::bedrock_api_key;
use crate::aws::iam_keys::{Key, UserKeys};
use crate::config::{AssumeRole, RoleBased, RoleBasedKind, SessionNames, Target, UserBased};
use crate::credentials::{Credentials, SessionCredentials};
use crate::deadline::Deadline;
use crate::error::Error;
use crate::event::Origin;
use crate::report::{Progress, TargetReport};
use crate::services::Services;

/// One target in one invocation.
pub struct TargetRun<'a> {
    pub services: &'a Services,
    pub target: &'a Target,
    pub origin: Origin,
    pub deadline: Deadline,
    pub progress: Progress,
    /// Kept, so that a role that manages the IAM user is assumed once in a run.
    user_keys: OnceCell<UserKeys>,
}

impl<'a> TargetRun<'a> {
    pub fn new(services: &'a Services, target: &'a Target, origin: Origin, deadline: Deadline) -> Self {
        let progress = Progress::new(TargetReport::of(target));
        Self { services, target, origin, deadline, progress, user_keys: OnceCell::new() }
    }

    pub fn now(&self) -> Timestamp {
        self.services.now()
    }

    /// Makes role-based credentials: assumes the role, and signs an API key with the session if that is the kind.
    /// Meanwhile, the connections for their proof are opened.
    pub async fn issue(&self, source: &RoleBased) -> Result<Credentials, Error> {
        self.services.bedrock.connect_early(self.target).await;
        let session = self.assume_role(&source.role).await?;
        match source.kind {
            RoleBasedKind::Temporary => Ok(session.into()),
            RoleBasedKind::ShortTermApiKey => bedrock_api_key::sign(&session, &self.target.region, self.now()),
        }
    }

    async fn assume_role(&self, role: &AssumeRole) -> Result<SessionCredentials, Error> {
        let names = SessionNames { target: self.target.name.as_str(), trigger: self.origin.name() };
        self.services.sts.assume_role(role, names, self.deadline, &self.progress.requests).await
    }

    /// Proves against Bedrock that credentials work, and reports a warning for each model that was not proven. New
    /// credentials of an IAM user need more than one success in a row: see [`super::policy::confirmations`].
    pub async fn prove<'c>(&self, credentials: &'c Credentials, confirmations: u32) -> Result<Proven<'c>, Error> {
        let Proof { proven, warnings } = self.probe(credentials, confirmations).await?;
        self.progress.probe_warnings(warnings);
        Ok(proven)
    }

    /// The same, but returns the warnings instead of reporting them.
    pub async fn probe<'c>(&self, credentials: &'c Credentials, confirmations: u32) -> Result<Proof<'c>, Error> {
        self.services.bedrock.prove(credentials, self.target, confirmations, self.deadline).await
    }

    /// The keys of the target's IAM user, managed by the function's own role or by the role that may do so.
    pub async fn user_keys(&self, source: &UserBased) -> Result<&UserKeys, Error> {
        let make = async || {
            let session = match &source.role {
                Some(role) => Some(self.assume_role(role).await?),
                None => None,
            };
            Ok(self.services.iam.user_keys(source, session.as_ref(), self.deadline, &self.progress.requests))
        };
        self.user_keys.get_or_try_init(make).await
    }

    /// Lists the IAM user's keys. Role-based targets have none.
    pub async fn list_keys(&self) -> Result<Vec<Key>, Error> {
        match self.target.user_based() {
            None => Ok(Vec::new()),
            Some(source) => self.user_keys(source).await?.list().await,
        }
    }
}
