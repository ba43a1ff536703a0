//! The steps of a rotation (create, set, test), joining the services; it must never write credentials that were not proven.

use std::time::Duration;

use aws_sdk_sts as sts;
use futures_util::future::{join, join_all};
use reqwest::Client;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::api_keys::ApiKeys;
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout::{self, Layout};
use crate::braintrust::{AiSecret, client};
use crate::config::{self, Kind, Target};
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::mint;
use crate::probe::Bedrock;
use crate::report::{AiSecretReport, Outcome, TargetReport, iso8601};

/// The services that a rotation calls.
pub struct Rotation {
    /// Mints.
    pub sts: sts::Client,
    /// Proves.
    pub bedrock: Bedrock,
    /// The one HTTP client, for Braintrust.
    pub http: Client,
    /// The Braintrust API keys.
    pub api_keys: ApiKeys,
}

/// An `ai_secret` that may be written, as it was before.
struct Place<'a> {
    configured: &'a config::AiSecret,
    before: AiSecret,
    layout: Layout,
    read_at: Instant,
}

/// A reading older than this is repeated before the PATCH: somebody may have changed the `ai_secret` since.
const STALE: Duration = Duration::from_secs(2);

impl Rotation {
    /// Rotates one target: mints and proves while the `ai_secret`s are read, then writes to all of them side by side.
    /// One `ai_secret` that cannot be written does not keep the others from fresh credentials.
    pub async fn rotate(&self, target: &Target, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let (minted, places) = join(self.create(target, deadline), self.find_all(target, deadline)).await;
        let mut report = TargetReport::new(target, &places);
        match minted {
            Ok(credentials) => {
                report.credential_id = Some(credentials.access_key_id.clone());
                report.expires_at = Some(iso8601(credentials.expires_at));
                let writes = report.ai_secrets.iter_mut().zip(&places).filter_map(|(entry, place)| {
                    let place = place.as_ref().ok()?;
                    Some(self.write(entry, place, &credentials, &target.region, deadline))
                });
                join_all(writes).await;
            }
            Err(error) => report.error = Some(error),
        }
        report.conclude(Outcome::Rotated, started)
    }

    /// Reads what a rotation would read, and says what it would do.
    pub async fn rehearse(&self, target: &Target, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let places = self.find_all(target, deadline).await;
        TargetReport::new(target, &places).conclude(Outcome::WouldRotate, started)
    }

    /// Mints credentials and proves them against Bedrock.
    async fn create(&self, target: &Target, deadline: Deadline) -> Result<Credentials, Error> {
        let credentials = match &target.kind {
            Kind::Temporary(role) => mint::temporary::mint(&self.sts, role, &target.name, deadline).await?,
        };
        self.bedrock.prove(&credentials, &target.region, &target.probe, deadline).await?;
        tracing::debug!(name = target.name, "minted and proven");
        Ok(credentials)
    }

    async fn find_all<'a>(&self, target: &'a Target, deadline: Deadline) -> Vec<Result<Place<'a>, Error>> {
        join_all(target.ai_secrets.iter().map(|configured| self.find(configured, deadline))).await
    }

    async fn find<'a>(&self, configured: &'a config::AiSecret, deadline: Deadline) -> Result<Place<'a>, Error> {
        let before = self.braintrust(configured, deadline, async |api| api.find(&configured.lookup).await).await?;
        let layout = layout::choose(configured.layout, &before)?;
        Ok(Place { configured, before, layout, read_at: Instant::now() })
    }

    /// Sets and tests one `ai_secret`, and enters what became of it.
    async fn write(
        &self,
        entry: &mut AiSecretReport,
        place: &Place<'_>,
        credentials: &Credentials,
        region: &str,
        deadline: Deadline,
    ) {
        let done = async {
            let read_again;
            let place = if place.read_at.elapsed() < STALE {
                place
            } else {
                read_again = self.find(place.configured, deadline).await?;
                &read_again
            };
            let answer = self.set(place, credentials, region, deadline).await;
            self.test(place, credentials, answer, deadline).await
        };
        match done.await {
            Ok(()) => entry.updated = true,
            Err(error) => entry.error = Some(error),
        }
    }

    /// PATCHes all parts in one request; Braintrust answers with the changed object.
    async fn set(
        &self,
        place: &Place<'_>,
        credentials: &Credentials,
        region: &str,
        deadline: Deadline,
    ) -> Result<AiSecret, Error> {
        let body = layout::patch(place.layout, credentials, region, &place.before.metadata)?;
        self.braintrust(place.configured, deadline, async |api| api.patch(place.before.id, body.clone()).await).await
    }

    /// Proves that the credentials arrived: by the PATCH's answer, or if that does not show it, or was lost, by one more
    /// reading.
    async fn test(
        &self,
        place: &Place<'_>,
        credentials: &Credentials,
        answer: Result<AiSecret, Error>,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let arrived = |after| layout::arrived(place.layout, &credentials.access_key_id, &place.before, after);
        let lost = match answer {
            Ok(answer) if arrived(&answer).is_ok() => return Ok(()),
            Ok(_) => None,
            Err(error) if error.is_transient() => Some(error),
            Err(refused) => return Err(refused),
        };
        let read_again =
            self.braintrust(place.configured, deadline, async |api| api.get(place.before.id).await).await?;
        let not_arrived = |problem| {
            Error::new(
                Cause::VerificationFailed,
                Service::Braintrust,
                client::PATCH,
                format!("the ai_secret {} was accepted, but {problem}", place.before.id),
                "Its credentials may be the old ones, which work until they expire; the next tick tries again. If it goes \
                 on, check that nothing else writes to this ai_secret, and that api_url is the data plane that holds it",
            )
        };
        arrived(&read_again).map_err(|problem| lost.unwrap_or_else(|| not_arrived(problem)))
    }

    /// One call to Braintrust with the key from Secrets Manager, which is read again once if it is refused: it may have
    /// been changed since the function started.
    async fn braintrust<T>(
        &self,
        configured: &config::AiSecret,
        deadline: Deadline,
        call: impl AsyncFn(Braintrust<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let id = &configured.api_key_secret_id;
        let with = async |api_key: &SecretString| {
            call(Braintrust { http: &self.http, api_url: &configured.api_url, api_key, deadline }).await
        };
        let key = self.api_keys.get(id, deadline).await?;
        match with(&key).await {
            Err(refused) if refused.cause == Cause::InvalidCredentials => {
                match self.api_keys.after_refusal(id, &key, deadline).await? {
                    Some(changed) => with(&changed).await,
                    None => Err(refused),
                }
            }
            answer => answer,
        }
    }
}

impl TargetReport {
    fn new(target: &Target, places: &[Result<Place<'_>, Error>]) -> Self {
        let entries = target.ai_secrets.iter().zip(places).map(|(configured, place)| AiSecretReport {
            ai_secret: configured.lookup.to_string(),
            id: place.as_ref().ok().map(|place| place.before.id),
            layout: place.as_ref().ok().map(|place| place.layout),
            updated: false,
            error: place.as_ref().err().cloned(),
        });
        let found = places.iter().flatten();
        Self {
            ai_secrets: entries.collect(),
            warnings: found.flat_map(|place| layout::warnings(place.layout, &place.before)).collect(),
            ..Self::deferred(target)
        }
    }

    /// A target that was not started.
    pub fn deferred(target: &Target) -> Self {
        Self {
            name: target.name.clone(),
            outcome: Outcome::Deferred,
            kind: target.kind.name(),
            region: target.region.clone(),
            credential_id: None,
            expires_at: None,
            ai_secrets: Vec::new(),
            warnings: Vec::new(),
            duration_ms: 0,
            error: None,
        }
    }

    fn conclude(self, success: Outcome, started: Instant) -> Self {
        let error = self.error.or_else(|| self.ai_secrets.iter().find_map(|entry| entry.error.clone()));
        Self {
            outcome: if error.is_some() { Outcome::Failed } else { success },
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            error,
            ..self
        }
    }
}
