//! What is known about a staged target: the versions of its secret, and the IAM user's keys. A run reads them once, and
//! again before a deletion.

use futures_util::future::join3;
use jiff::Timestamp;

use super::target_run::TargetRun;
use crate::aws::iam_keys::Key;
use crate::aws::secrets_manager::{StagedSecret, Stages, TimedLabel};
use crate::aws::staged_value::VersionValue;
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};

/// One moment of a staged target, for [`super::policy`].
pub struct Snapshot {
    pub now: Timestamp,
    pub versions: Versions,
    /// The IAM user's keys. Role-based targets have none.
    pub keys: Vec<Key>,
}

/// The versions of the staged secret that have a stage, and what they hold.
pub struct Versions {
    pub stages: Stages,
    /// `None` during the secret's first rotation, although Secrets Manager has attached `AWSCURRENT` to its version.
    pub current: Option<Version>,
    /// The version of a rotation under way.
    pub pending: Option<Version>,
    pub previous: Option<Version>,
    /// The last time at which `AWSCURRENT` may have moved.
    pub promoted_at: Option<Timestamp>,
}

pub struct Version {
    pub id: String,
    pub value: VersionValue,
}

impl Version {
    pub fn credentials(&self) -> Option<&Credentials> {
        match &self.value {
            VersionValue::Credentials(credentials) => Some(credentials),
            VersionValue::Empty | VersionValue::Foreign => None,
        }
    }
}

impl Versions {
    /// Reads the stages, and then the versions side by side. The error is a `conflict` if `AWSCURRENT` holds another
    /// application's value, which must not be replaced.
    pub async fn read(secret: &StagedSecret<'_>) -> Result<Self, Error> {
        let stages = secret.describe().await?;
        let read = async |id: Option<&str>| match id {
            Some(id) => Ok(Some(Version { id: id.to_owned(), value: secret.read(id).await? })),
            None => Ok::<_, Error>(None),
        };
        let current = stages.current().filter(|_| !stages.is_first_rotation());
        let (current, pending, previous) = join3(read(current), read(stages.pending()), read(stages.previous())).await;
        let current = current?;
        if matches!(current, Some(Version { value: VersionValue::Foreign, .. })) {
            let problem = format!(
                "AWSCURRENT of the secret {:?} holds a value that this function did not write",
                secret.id.as_str()
            );
            let remedy = format!(
                "Give this target a secret of its own, without a value (the parameter StagedSecretArn, or the target's \
                 secret_id). If nothing needs the value, empty it: `aws secretsmanager put-secret-value --secret-id {} \
                 --secret-string {{}}`",
                secret.id.as_str()
            );
            return Err(Error::new(ErrorClass::Conflict, Service::SecretsManager, "GetSecretValue", problem, remedy));
        }
        // If somebody else moved AWSCURRENT, its version may have no label.
        let labelled = stages.current().and_then(|version| stages.time_of(TimedLabel::Promoted, version));
        let promoted_at = labelled.or(stages.promoted_at);
        Ok(Self { current, pending: pending?, previous: previous?, promoted_at, stages })
    }

    /// The credentials that consumers read, if `AWSCURRENT` holds Bedrock credentials.
    pub fn current(&self) -> Option<&Credentials> {
        self.current.as_ref()?.credentials()
    }

    pub fn pending(&self) -> Option<&Credentials> {
        self.pending.as_ref()?.credentials()
    }

    pub fn previous(&self) -> Option<&Credentials> {
        self.previous.as_ref()?.credentials()
    }

    /// The version of the credentials that consumers read.
    pub fn current_version(&self) -> Option<&str> {
        self.current().and(self.current.as_ref()).map(|version| version.id.as_str())
    }

    /// The pending or previous version, if it holds the key `id`.
    pub fn version_of(&self, id: &str) -> Option<&str> {
        let versions = [&self.previous, &self.pending].into_iter().flatten();
        let mut holding = versions.filter(|version| version.credentials().is_some_and(|found| found.id == id));
        holding.next().map(|version| version.id.as_str())
    }

    /// Whether a run has begun to deactivate or delete the key.
    pub fn is_ending(&self, id: &str) -> bool {
        self.version_of(id).is_some_and(|version| self.stages.is_ending(version))
    }

    /// When this function last wrote the current credentials to Braintrust, according to its labels.
    pub fn last_written(&self) -> Option<Timestamp> {
        let version = self.current_version()?;
        let times = [TimedLabel::Promoted, TimedLabel::Restored].map(|label| self.stages.time_of(label, version));
        times.into_iter().flatten().max()
    }

    /// [`Self::last_written`], or the last time at which the secret changed if there is no label.
    pub fn written_at(&self) -> Option<Timestamp> {
        self.last_written().or(self.stages.changed_at)
    }

    pub fn pending_is_foreign(&self) -> bool {
        matches!(self.pending, Some(Version { value: VersionValue::Foreign, .. }))
    }

    /// Whether the pending version holds no value yet. `true` if there is no such version.
    pub fn pending_is_empty(&self) -> bool {
        matches!(self.pending, None | Some(Version { value: VersionValue::Empty, .. }))
    }

    /// Whether `AWSCURRENT` or `AWSPENDING` names the credentials.
    pub fn references(&self, id: &str) -> bool {
        [self.current(), self.pending()].into_iter().flatten().any(|credentials| credentials.id == id)
    }
}

impl TargetRun<'_> {
    /// The versions of the staged secret, if the target has one.
    pub async fn read_versions(&self) -> Result<Option<Versions>, Error> {
        let Some(id) = self.target.secret_id() else { return Ok(None) };
        let secret = self.services.secrets_manager.staged(id, self.deadline, &self.progress.requests);
        Versions::read(&secret).await.map(Some)
    }
}

impl Snapshot {
    /// Reads the secret, and lists the IAM user's keys after that, so that the keys of all versions are listed.
    pub async fn read(run: &TargetRun<'_>, secret: &StagedSecret<'_>) -> Result<Self, Error> {
        let versions = Versions::read(secret).await?;
        Ok(Self { keys: run.list_keys().await?, versions, now: run.now() })
    }

    /// The snapshot after this run made `credentials` current, with the keys that IAM lists since.
    pub fn after_promotion(mut self, version: &str, credentials: Credentials, now: Timestamp, keys: Vec<Key>) -> Self {
        let promoted = Version { id: version.to_owned(), value: VersionValue::Credentials(credentials) };
        self.versions.previous = self.versions.current.replace(promoted);
        self.versions.pending = None;
        self.versions.promoted_at = Some(now);
        Self { now, keys, ..self }
    }
}
