//! A rotation, joining the services; it must never write credentials that were not proven.
//!
//! A target without a staged secret is rotated in memory, here; one with a staged secret in `staged`, by the same four
//! steps that Secrets Manager asks for in `hook`.

mod check;
mod hook;
mod places;
mod retirement;
mod rollback;
mod service_token;
mod staged;
mod status;

use aws_sdk_iam as iam;
use aws_sdk_secretsmanager as secretsmanager;
use aws_sdk_sts as sts;
use futures_util::future::join;
use jiff::Timestamp;
use reqwest::Client;
use secrecy::SecretString;
use tokio::time::Instant;

use crate::api_keys::ApiKeys;
use crate::braintrust::client::Braintrust;
use crate::braintrust::pace::Paces;
use crate::config::{self, Kind, Target};
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Cause, Error};
use crate::mint;
use crate::probe::Bedrock;
use crate::report::{Outcome, TargetReport, iso8601};

/// The services that a rotation calls.
pub struct Rotation {
    /// Mints.
    pub sts: sts::Client,
    /// Mints and retires standing credentials.
    pub iam: iam::Client,
    /// Holds the staged secrets.
    pub secrets_manager: secretsmanager::Client,
    /// Proves.
    pub bedrock: Bedrock,
    /// The one HTTP client, for Braintrust.
    pub http: Client,
    /// The Braintrust API keys.
    pub api_keys: ApiKeys,
    /// How fast each data plane is called.
    pub paces: Paces,
    /// The wall clock.
    pub clock: fn() -> Timestamp,
}

impl Rotation {
    /// One tick of one target. `token` names the version of a staged secret, so that a repeated event goes on with its
    /// own rotation.
    pub async fn rotate(&self, target: &Target, token: &str, force: bool, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let mut report = TargetReport::new(target);
        let done = match &target.secret_id {
            None => self.rotate_in_memory(target, &mut report, deadline).await,
            // Boxed: what is kept for each target under way is then as small as a rotation in memory needs.
            Some(id) => Box::pin(self.staged(target, id, None, deadline).tick(token, force, &mut report)).await,
        };
        report.conclude(done, started)
    }

    /// Reads what a tick would read, and says what it would do.
    pub async fn rehearse(&self, target: &Target, force: bool, deadline: Deadline) -> TargetReport {
        let started = Instant::now();
        let mut report = TargetReport::new(target);
        let plan = async {
            match &target.secret_id {
                None => Ok(Outcome::WouldRotate),
                Some(id) => self.staged(target, id, None, deadline).rehearse(force).await,
            }
        };
        let (planned, places) = join(plan, self.find_all(target, deadline)).await;
        report.enter(&places);
        report.conclude(planned, started)
    }

    /// Mints and proves while the `ai_secret`s are read, then writes to all of them side by side. One that cannot be
    /// written does not keep the others from fresh credentials.
    async fn rotate_in_memory(
        &self,
        target: &Target,
        report: &mut TargetReport,
        deadline: Deadline,
    ) -> Result<Outcome, Error> {
        let (minted, places) = join(self.mint_and_prove(target, deadline), self.find_all(target, deadline)).await;
        report.enter(&places);
        report.held = status::held_by_braintrust(target, &places);
        let credentials = minted?;
        report.name(&credentials);
        self.set_all(&places, &credentials, &target.region, report, deadline).await;
        if report.first_error().is_none() {
            report.held = Some(credentials.lifetime());
        }
        Ok(Outcome::Rotated)
    }

    async fn mint_and_prove(&self, target: &Target, deadline: Deadline) -> Result<Credentials, Error> {
        let credentials = self.mint(target, deadline).await?;
        self.prove(target, &credentials, ONCE, deadline).await?;
        Ok(credentials)
    }

    /// Mints. For standing kinds the caller sees to a free slot first.
    async fn mint(&self, target: &Target, deadline: Deadline) -> Result<Credentials, Error> {
        let now = (self.clock)();
        match &target.kind {
            Kind::Temporary(role) => mint::temporary::mint(&self.sts, role, &target.name, now, deadline).await,
            Kind::ShortTermApiKey(role) => {
                let session = mint::temporary::mint(&self.sts, role, &target.name, now, deadline).await?;
                mint::short_term_api_key::sign_with(&session, &target.region, (self.clock)())
            }
            Kind::AccessKey(standing) => {
                let iam = self.iam_for(target, standing, deadline).await?;
                mint::access_key::mint(&iam, &standing.user_name, now).await
            }
            Kind::LongTermApiKey { standing, age_days } => {
                let iam = self.iam_for(target, standing, deadline).await?;
                mint::long_term_api_key::mint(&iam, &standing.user_name, *age_days, now).await
            }
        }
    }

    async fn prove(
        &self,
        target: &Target,
        credentials: &Credentials,
        in_a_row: u32,
        deadline: Deadline,
    ) -> Result<(), Error> {
        self.bedrock.prove(credentials, &target.region, &target.probe, in_a_row, deadline).await
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
        let pace = self.paces.of(&configured.api_url, id);
        let with = async |api_key: &SecretString| {
            call(Braintrust { http: &self.http, api_url: &configured.api_url, api_key, pace: &pace, deadline }).await
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

/// Successes that prove credentials which are known at once.
const ONCE: u32 = 1;

impl TargetReport {
    /// A target that was not started.
    pub fn new(target: &Target) -> Self {
        let (kind, region) = (Some(target.kind.name()), Some(target.region.clone()));
        Self { kind, region, ..Self::named(&target.name) }
    }

    fn name(&mut self, credentials: &Credentials) {
        self.credential_id = Some(credentials.id.clone());
        self.expires_at = credentials.expires_at.map(iso8601);
    }

    /// The outcome, or the first error of the target or of one of its `ai_secret`s.
    fn conclude(self, done: Result<Outcome, Error>, started: Instant) -> Self {
        let (success, error) = match done {
            Ok(outcome) => (outcome, self.ai_secrets.iter().find_map(|entry| entry.error.clone())),
            Err(error) => (Outcome::Failed, Some(error)),
        };
        Self {
            outcome: if error.is_some() { Outcome::Failed } else { success },
            duration_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            error,
            ..self
        }
    }
}
