//! The revocation of a Braintrust API key, if its secret holds a service token: a new token, and the end of the old
//! ones.

use std::time::Duration;

use backon::ExponentialBuilder;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;

use crate::aws::secrets_manager::{StagedSecret, Stages, TimedLabel};
use crate::braintrust::client::Braintrust;
use crate::braintrust::service_tokens::ServiceToken;
use crate::config::{DataPlane, Destination};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::event::Revoke;
use crate::report::{KeyChange, Outcome, Progress, TargetReport, iso8601};
use crate::revocation::{Evidence, RevokedState};
use crate::rotation::service_token::{self, Creation, TokenSecret};
use crate::services::Services;

/// A command continues one that was interrupted less than this ago.
const CONTINUES_WITHIN: SignedDuration = SignedDuration::from_hours(1);
/// Braintrust refuses a deleted token at once, but a data plane may cache it.
const MAX_WAIT: Duration = Duration::from_secs(120);
const UNTIL_REFUSED: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(250))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// Revokes the API key that `destination` uses.
pub async fn run(services: &Services, destination: &Destination, command: &Revoke, deadline: Deadline) -> TargetReport {
    let progress = Progress::new(TargetReport::of_api_key());
    let secret =
        services.secrets_manager.staged(&destination.data_plane.api_key_secret_id, deadline, &progress.requests);
    let revocation = Revocation { services, destination, command, deadline, secret, progress: &progress };
    let result = revocation.run().await;
    progress.finish(result)
}

struct Revocation<'a> {
    services: &'a Services,
    destination: &'a Destination,
    command: &'a Revoke,
    deadline: Deadline,
    secret: StagedSecret<'a>,
    progress: &'a Progress,
}

impl Revocation<'_> {
    async fn run(&self) -> Result<Outcome, Error> {
        let remedy = "Set the parameter RotateApiKey, which allows that, if the secret holds a service token. Replace a \
                      user API key (sk-…) in Braintrust's settings, and revoke the Bedrock credentials without \
                      API_KEY=true (make revoke) or \"api_key\" in the event";
        let described = self.secret.describe().await;
        let stages = described.map_err(|error| error.with_remedy_for(ErrorClass::Permission, remedy))?;
        let now = self.services.now();
        let current = service_token::current(&self.secret, &stages).await?;
        let is_current_revoked = stages.current().is_some_and(|version| stages.is_revoked(version));
        let is_replaced = !is_current_revoked && self.is_under_way(&stages, now);
        if !is_replaced {
            self.progress.revocation(|revocation| revocation.list(&current.service_token_id.to_string()));
        }
        if self.command.dry_run {
            self.api(&current.api_key, async |api| api.list_service_tokens().await.map(drop)).await?;
            self.progress.revocation(|revocation| {
                revocation.revoked.iter_mut().for_each(|revoked| revoked.state = RevokedState::WouldEnd);
            });
            return Ok(Outcome::WouldRevoke);
        }
        if !is_replaced {
            self.mark(&stages, now).await?;
            self.replace(&current).await?;
        }
        self.end().await
    }

    /// Whether an earlier command, or an earlier delivery of this event, has made the successor current.
    fn is_under_way(&self, stages: &Stages, now: Timestamp) -> bool {
        let marked_at = stages.previous().and_then(|version| stages.time_of(TimedLabel::Revoking, version));
        marked_at.is_some_and(|at| now.duration_since(at) < CONTINUES_WITHIN)
            || stages.current() == Some(self.command.token.as_str())
    }

    /// Marks the versions whose tokens are revoked. A pending one is the successor once the current one is marked, and
    /// the mark of the previous one alone says that the successor is current.
    async fn mark(&self, stages: &Stages, now: Timestamp) -> Result<(), Error> {
        let is_current_revoked = stages.current().is_some_and(|version| stages.is_revoked(version));
        let pending = stages.pending().filter(|_| !is_current_revoked);
        for version in [pending, stages.current(), stages.previous()].into_iter().flatten() {
            if stages.time_of(TimedLabel::Revoking, version).is_none() && self.read(version).await?.is_some() {
                self.secret.add_label(TimedLabel::Revoking, now, version).await?;
            }
        }
        Ok(())
    }

    /// The token in a version. `None` if it holds none.
    async fn read(&self, version: &str) -> Result<Option<TokenSecret>, Error> {
        Ok(self.secret.read_text(version).await?.and_then(|text| service_token::parse(&text).ok()))
    }

    /// Creates a token, tests it, and makes it current. Resumes one that an interrupted command has staged.
    async fn replace(&self, current: &TokenSecret) -> Result<(), Error> {
        let stages = self.secret.describe().await?;
        let staged = match stages.pending().filter(|version| !stages.is_revoked(version)) {
            Some(version) => self.read(version).await?.map(|token| (version, token)),
            None => None,
        };
        let version = match staged {
            Some((version, token)) if self.exists(current, &token).await? => version,
            Some(_) | None => {
                let create = async |_: &Braintrust<'_>, creation: &Creation<'_>| creation.create(self.progress).await;
                self.with_creation(&stages, current, create).await?;
                self.command.token.as_str()
            }
        };
        let Some(new) = self.read(version).await? else {
            let problem = "the new service token was staged, but can't be read";
            return Err(Error::rotation_conflict(problem, "Repeat the command"));
        };
        self.progress.service_token(new.service_token_id);
        let lookup = &self.destination.lookup;
        self.api(&new.api_key, async |api| api.find(lookup).await.map(drop)).await?;
        self.secret.promote(version, stages.current()).await?;
        self.secret.remove_pending(version).await?;
        // The function's other calls read the new key.
        self.services.api_keys.forget().await;
        Ok(())
    }

    async fn exists(&self, current: &TokenSecret, token: &TokenSecret) -> Result<bool, Error> {
        let list = async |api: &Braintrust<'_>| api.list_service_tokens().await;
        let tokens = self.api(&current.api_key, list).await?;
        Ok(tokens.iter().any(|found| found.id == token.service_token_id))
    }

    /// Deletes the revoked tokens, and those that interrupted rotations left, and proves that Braintrust refuses them.
    async fn end(&self) -> Result<Outcome, Error> {
        let stages = self.secret.describe().await?;
        let current = service_token::current(&self.secret, &stages).await?;
        self.progress.service_token(current.service_token_id);
        let mut revoked = Vec::new();
        for (version, _) in stages.times(TimedLabel::Revoking).filter(|(id, _)| stages.current() != Some(id)) {
            revoked.extend(self.read(version).await?);
        }
        let delete = async |api: &Braintrust<'_>, creation: &Creation<'_>| {
            for token in api.list_service_tokens().await? {
                let is_revoked = revoked.iter().any(|revoked| revoked.service_token_id == token.id);
                if token.id == current.service_token_id || !(is_revoked || creation.is_ours(&token)) {
                    continue;
                }
                if !self.is_of_another_rotation(&token, &stages, creation).await? {
                    api.delete_service_token(token.id).await?;
                    let (id, now) = (token.id.to_string(), self.services.now());
                    self.progress.revocation(|revocation| revocation.entry(&id).ended(now));
                    self.progress.retired(id, KeyChange::Deleted);
                }
            }
            Ok(())
        };
        self.with_creation(&stages, &current, delete).await?;
        for token in &revoked {
            let evidence = self.prove_dead(token).await?;
            let id = token.service_token_id.to_string();
            self.progress.revocation(|revocation| revocation.entry(&id).proven(evidence));
        }
        for (version, at) in stages.times(TimedLabel::Revoking) {
            self.secret.remove_label(TimedLabel::Revoking, at, version).await?;
        }
        Ok(Outcome::Revoked)
    }

    /// Whether a rotation that began after the successor became current has created the token. Its version was pending
    /// before that, so it is now, or it has become current.
    async fn is_of_another_rotation(
        &self,
        token: &ServiceToken,
        before: &Stages,
        creation: &Creation<'_>,
    ) -> Result<bool, Error> {
        let stages = self.secret.describe().await?;
        if stages.current() != before.current() {
            let problem = "another run has made another service token current, so the others were not deleted";
            return Err(Error::rotation_conflict(problem, "Repeat the command: it replaces and deletes them"));
        }
        let pending = stages.pending().filter(|version| !stages.is_revoked(version));
        Ok(pending.is_some_and(|version| creation.is_of_version(token, version)))
    }

    /// Calls Braintrust with a deleted token until it refuses it.
    async fn prove_dead(&self, token: &TokenSecret) -> Result<Evidence, Error> {
        const CALL: &str = "GET /v1/ai_secret";
        let attempt = || async {
            let find = async |api: &Braintrust<'_>| api.find(&self.destination.lookup).await.map(drop);
            match self.api(&token.api_key, find).await {
                Err(refused) if refused.class == ErrorClass::InvalidCredentials => {
                    let answer = refused.problem.trim_start_matches("answered ").to_owned();
                    let (call, at) = (refused.call, iso8601(self.services.now()));
                    Ok(Evidence { service: Service::Braintrust, call, answer, at })
                }
                Err(error) => Err(error),
                Ok(()) => {
                    let problem = format!("Braintrust still accepts the service token {}", token.service_token_id);
                    let remedy = "A data plane may cache tokens. Repeat the command: it continues, and proves that the \
                                  token is refused";
                    Err(Error::new(ErrorClass::VerificationFailed, Service::Braintrust, CALL, problem, remedy))
                }
            }
        };
        let may_succeed = |error: &Error| error.is_retryable() || error.class == ErrorClass::VerificationFailed;
        let wait = self.deadline.at_most(MAX_WAIT);
        wait.retry_while(Service::Braintrust, CALL, UNTIL_REFUSED, may_succeed, attempt).await
    }

    /// Calls Braintrust with one of the keys.
    async fn api<T>(
        &self,
        api_key: &SecretString,
        call: impl AsyncFn(&Braintrust<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let DataPlane { api_url, .. } = &self.destination.data_plane;
        let (http, deadline) = (&self.services.braintrust_http, self.deadline);
        let rate_limit = &self.services.rate_limits.of(&self.destination.data_plane);
        call(&Braintrust { http, api_url, api_key, rate_limit, deadline }).await
    }

    async fn with_creation<T>(
        &self,
        stages: &Stages,
        current: &TokenSecret,
        call: impl AsyncFn(&Braintrust<'_>, &Creation<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let DataPlane { api_url, .. } = &self.destination.data_plane;
        let (http, deadline, api_key) = (&self.services.braintrust_http, self.deadline, &current.api_key);
        let rate_limit = &self.services.rate_limits.of(&self.destination.data_plane);
        let new = || Braintrust { http, api_url, api_key, rate_limit, deadline };
        let (secret, version) = (&self.secret, self.command.token.as_str());
        let creation = Creation { secret, stages, version, rotation_token: None, current, api: new() };
        call(&new(), &creation).await
    }
}
