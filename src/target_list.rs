//! The list of targets. It is read at cold start and, if it is an object in S3, again when it has changed.

use std::time::Duration;

use secrecy::ExposeSecret;
use tokio::time::Instant;

use crate::aws::s3::S3;
use crate::aws::secrets_manager::SecretsManager;
use crate::config::{S3Uri, Target, TargetsConfig, TargetsSource};
use crate::deadline::Deadline;
use crate::error::Error;

/// How long a warm function waits for S3. It can also rotate the targets of the list that it has.
const MAX_WAIT: Duration = Duration::from_secs(8);

/// A first invocation within this time uses the list that was just read. Only an environment that was started in
/// advance gets it later.
const NEW_AFTER_START: Duration = Duration::from_secs(10);

pub struct TargetList {
    config: TargetsConfig,
    /// When the list was read at cold start. `None` from the first invocation on.
    read_at_start: Option<Instant>,
    /// The version of the object from which the current targets come.
    etag: Option<String>,
}

impl TargetList {
    pub fn new(config: TargetsConfig) -> Self {
        Self { config, read_at_start: None, etag: None }
    }

    pub async fn read(
        &mut self,
        secrets_manager: &SecretsManager,
        s3: &S3,
        deadline: Deadline,
    ) -> Result<Vec<Target>, Error> {
        match &self.config.source {
            TargetsSource::Inline(json) => self.config.parse(json),
            TargetsSource::Secret(id) => {
                let json = secrets_manager.current_text(id, deadline).await?;
                // Security: exposed to the parser, which repeats nothing of it.
                self.config.parse(json.expose_secret())
            }
            TargetsSource::Object(uri) => {
                let (targets, etag) = newer(&self.config, uri, None, s3, deadline).await?.unwrap_or_default();
                (self.etag, self.read_at_start) = (etag, Some(Instant::now()));
                Ok(targets)
            }
        }
    }

    /// The new targets, if the list has changed since it was read. After an error, the next call reads the list again.
    pub async fn read_if_changed(&mut self, s3: &S3, deadline: Deadline) -> Result<Option<Vec<Target>>, Error> {
        let TargetsSource::Object(uri) = &self.config.source else { return Ok(None) };
        if self.read_at_start.take().is_some_and(|read_at| read_at.elapsed() < NEW_AFTER_START) {
            return Ok(None);
        }
        let deadline = deadline.half().at_most(MAX_WAIT);
        let newer = newer(&self.config, uri, self.etag.as_deref(), s3, deadline).await?;
        Ok(newer.map(|(targets, etag)| {
            self.etag = etag;
            targets
        }))
    }
}

/// The targets in the object, and its ETag. `None` if the object still has the given ETag.
async fn newer(
    config: &TargetsConfig,
    uri: &S3Uri,
    etag: Option<&str>,
    s3: &S3,
    deadline: Deadline,
) -> Result<Option<(Vec<Target>, Option<String>)>, Error> {
    let Some(object) = s3.get(uri, etag, deadline).await? else { return Ok(None) };
    let json = std::str::from_utf8(&object.bytes).map_err(|_| {
        let problem = format!("{uri} is not text in UTF-8");
        Error::configuration("TARGETS_S3_URI", problem, "Save the list of targets as UTF-8, and upload it again")
    })?;
    Ok(Some((config.parse(json)?, object.etag)))
}
