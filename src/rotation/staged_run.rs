//! One run of a target with a staged secret.

use secrecy::SecretString;

use super::snapshot::Snapshot;
use super::target_run::TargetRun;
use crate::aws::secrets_manager::StagedSecret;
use crate::config::SecretId;
use crate::error::Error;

/// The remedy of a run that another run has overtaken.
pub const OTHER_RUN: &str = "See the report of that run";

pub struct StagedRun<'a> {
    pub run: TargetRun<'a>,
    pub secret: StagedSecret<'a>,
    pub(super) rotation_token: Option<&'a SecretString>,
}

impl<'a> StagedRun<'a> {
    pub fn new(run: TargetRun<'a>, secret_id: &'a SecretId, rotation_token: Option<&'a SecretString>) -> Self {
        let secret = run.services.secrets_manager.staged(secret_id, run.deadline, &run.progress.requests);
        Self { run, secret, rotation_token }
    }

    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        Snapshot::read(&self.run, &self.secret).await
    }

    /// A conflict that names the secret.
    pub fn conflict(&self, problem: &str, remedy: &str) -> Error {
        Error::rotation_conflict(format!("{problem} (the secret {:?})", self.secret.id.as_str()), remedy)
    }
}
