//! A target with a staged secret: one tick, and the four steps that a tick and Secrets Manager share; it must never lose a credential that was minted.

use futures_util::future::join;
use jiff::Timestamp;

use super::{ONCE, Rotation, hook};
use crate::config::Target;
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::mint;
use crate::plan::{self, Decision, Known, Names, Pending, State};
use crate::report::{Outcome, TargetReport};
use crate::staging::{Description, Held, Staging};

/// New IAM credentials are spread from host to host: one success may be followed by a failure.
pub(super) const TWICE: u32 = 2;

/// <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_schedule.html>
pub(super) const TOO_SLOW: &str = "Secrets Manager rotates every four hours at the shortest, and these credentials live an hour: \
                        cancel the secret's rotation, and the schedule rotates it";

/// One target's rotation through its staged secret.
pub(super) struct Staged<'a> {
    pub(super) rotation: &'a Rotation,
    pub(super) target: &'a Target,
    pub(super) staging: Staging<'a>,
    pub(super) rotation_token: Option<&'a str>,
    pub(super) deadline: Deadline,
}

/// What the staged secret holds, read once.
pub(super) struct Contents {
    pub(super) description: Description,
    /// What consumers read, if those are Bedrock credentials.
    pub(super) current: Option<Credentials>,
    pending: Option<Held>,
    /// What `AWSCURRENT` was before.
    pub(super) previous: Option<Credentials>,
}

impl Rotation {
    pub(super) fn staged<'a>(
        &'a self,
        target: &'a Target,
        secret_id: &'a str,
        rotation_token: Option<&'a str>,
        deadline: Deadline,
    ) -> Staged<'a> {
        let staging = Staging { client: &self.secrets_manager, secret_id, deadline };
        Staged { rotation: self, target, staging, rotation_token, deadline }
    }
}

impl Staged<'_> {
    /// One tick: what is due is rotated by the four steps, in order; what nothing uses is retired.
    pub(super) async fn tick(&self, token: &str, force: bool, report: &mut TargetReport) -> Result<Outcome, Error> {
        let contents = self.read().await?;
        if let Some(current) = &contents.current {
            report.name(current);
            report.held = Some(current.lifetime());
        }
        if let Some(stale) = contents.description.stale_pending() {
            self.staging.end_pending(stale).await?;
        }
        let decision = self.decide(token, force, &contents).await?;
        let pending = contents.description.pending().map(str::to_owned);
        let (version, outcome) = match decision {
            Decision::LeaveToSecretsManager => {
                report.warnings.extend(self.target.kind.standing().is_none().then(|| TOO_SLOW.to_owned()));
                (None, Outcome::LeftToSecretsManager)
            }
            Decision::NotDue => (None, Outcome::NotDue),
            Decision::Resume => (pending, Outcome::Resumed),
            Decision::StartAfresh if pending.as_deref() == Some(token) => {
                return Err(self.abandon(token, &contents, "the next tick starts afresh").await);
            }
            // An event that is late: its rotation has ended, and others came after it.
            Decision::Start | Decision::StartAfresh if !matches!(self.staging.read(token).await?, Held::Nothing) => {
                (None, Outcome::NotDue)
            }
            Decision::Start | Decision::StartAfresh => (Some(token.to_owned()), Outcome::Rotated),
        };
        if let Some(version) = &version {
            let created = self.create(version, report).await;
            if created.is_err() && decision == Decision::StartAfresh {
                // Braintrust may hold the dead ones. They stay pending until others are staged, so that the next tick goes
                // on, and the current ones serve until then, if they work.
                let _ = self.put_back(&contents).await;
            }
            let credentials = created?;
            self.set(&credentials, report).await?;
            self.test(&credentials, &contents, report).await?;
            self.finish(version, &contents).await?;
            report.held = Some(credentials.lifetime());
            self.staging.end_pending(version).await?;
        }
        self.retire(report).await?;
        Ok(outcome)
    }

    /// What a tick would do.
    pub(super) async fn rehearse(&self, force: bool) -> Result<Outcome, Error> {
        let contents = self.read().await?;
        Ok(match self.decide("", force, &contents).await? {
            Decision::LeaveToSecretsManager => Outcome::LeftToSecretsManager,
            Decision::NotDue => Outcome::NotDue,
            Decision::Resume | Decision::Start | Decision::StartAfresh => Outcome::WouldRotate,
        })
    }

    /// Reads the secret's stages and what they hold.
    pub(super) async fn read(&self) -> Result<Contents, Error> {
        let description = self.staging.describe().await?;
        let read = async |version: Option<&str>| match version {
            Some(version) => self.staging.read(version).await.map(Some),
            None => Ok(None),
        };
        let (current, (pending, previous)) =
            join(read(description.current()), join(read(description.pending()), read(description.previous()))).await;
        let credentials = |held| match held {
            Some(Held::Credentials(credentials)) => Some(credentials),
            _ => None,
        };
        let (current, pending, previous) = (credentials(current?), pending?, credentials(previous?));
        Ok(Contents { current, pending, previous, description })
    }

    async fn decide(&self, token: &str, force: bool, contents: &Contents) -> Result<Decision, Error> {
        let pending = match &contents.pending {
            None => None,
            Some(Held::Nothing) => Some(Pending::Empty),
            Some(Held::Credentials(credentials)) => Some(Pending::Holds(known(credentials))),
            Some(Held::Foreign) => return Err(self.foreign()),
        };
        let listed = self.rotation.list(self.target, self.deadline).await?;
        let state = State {
            rotation_enabled: contents.description.rotation_enabled == Some(true),
            event_is_done: contents.description.current() == Some(token),
            pending,
            current: contents.current.as_ref().map(known),
            overlap_ends_at: self
                .target
                .kind
                .standing()
                .and_then(|standing| contents.names().overlap_ends_at(standing)),
            listed,
        };
        Ok(plan::decide(self.now(), self.target, force, &state))
    }

    /// createSecret: keeps what the version holds, or mints and stages at once; then proves it. What is known not to be
    /// staged is deleted.
    pub(super) async fn create(&self, version: &str, report: &mut TargetReport) -> Result<Credentials, Error> {
        let credentials = match self.staging.read(version).await? {
            Held::Credentials(credentials) => credentials,
            Held::Foreign => return Err(self.foreign()),
            Held::Nothing => self.mint_and_stage(version, report).await?,
        };
        report.name(&credentials);
        let in_a_row = if self.target.kind.standing().is_some() { TWICE } else { ONCE };
        self.rotation.prove(self.target, &credentials, in_a_row, self.deadline).await?;
        Ok(credentials)
    }

    async fn mint_and_stage(&self, version: &str, report: &mut TargetReport) -> Result<Credentials, Error> {
        let (target, deadline) = (self.target, self.deadline);
        let credentials = match target.kind.standing() {
            None => self.rotation.mint(target, deadline).await?,
            Some(standing) => Box::pin(self.mint_into_a_free_slot(standing, report)).await?,
        };
        let staged = self.staging.stage(version, self.rotation_token, &credentials, &target.name, &target.region).await;
        let Err(unstaged) = staged else { return Ok(credentials) };
        if unstaged.may_be_staged {
            // If it is not, it is an orphan.
            report.warnings.push(format!("{} may not be staged; it is resumed or retired later", credentials.id));
        } else {
            self.rotation.discard(target, &credentials, report, deadline).await;
        }
        Err(unstaged.error)
    }

    /// setSecret: writes to all `ai_secret`s, side by side.
    pub(super) async fn set(&self, credentials: &Credentials, report: &mut TargetReport) -> Result<(), Error> {
        let places = self.rotation.find_all(self.target, self.deadline).await;
        report.enter(&places);
        self.rotation.set_all(&places, credentials, &self.target.region, report, self.deadline).await;
        report.first_error().cloned().map_or(Ok(()), Err)
    }

    /// testSecret: the credentials work, and Braintrust reads them back. If they do not, the current ones are put back; the
    /// pending version stays, for the retry. An answer that did not come proves nothing: the retry asks again.
    pub(super) async fn test(
        &self,
        credentials: &Credentials,
        contents: &Contents,
        report: &mut TargetReport,
    ) -> Result<(), Error> {
        let Err(error) = self.holds(credentials, report).await else { return Ok(()) };
        match &contents.current {
            Some(current) if !error.is_transient() => match self.put_back(contents).await {
                Ok(()) => {
                    let remedy = format!("The current credentials ({}) were put back. {}", current.id, error.remedy);
                    Err(error.with_remedy(remedy))
                }
                Err(_) => {
                    let remedy = format!("The current ones ({}) could not be put back. {}", current.id, error.remedy);
                    Err(error.with_remedy(remedy))
                }
            },
            _ => Err(error),
        }
    }

    /// Writes the current credentials again, if they work and still are: another run may have ended.
    pub(super) async fn put_back(&self, contents: &Contents) -> Result<(), Error> {
        let now = self.staging.describe().await?;
        if now.current() != contents.description.current() {
            return Err(self.conflict("another run has ended this rotation", "Look at its report"));
        }
        Box::pin(self.set_current(contents)).await
    }

    /// Ends a rotation whose credentials are dead. Braintrust may hold them already, so the current ones are put back
    /// first, if they work; where it is Braintrust that fails, the same is tried again.
    async fn abandon(&self, version: &str, contents: &Contents, what_next: &str) -> Error {
        let put_back = match self.put_back(contents).await {
            Ok(()) => "; the current ones were put back",
            Err(error) if error.is_transient() || error.service == Service::Braintrust => return error,
            Err(_) => "",
        };
        let ended = self.staging.end_pending(version).await;
        let problem = format!("the pending credentials have ended or are gone, so the version was abandoned{put_back}");
        ended.err().unwrap_or_else(|| self.conflict(&problem, what_next))
    }

    /// Whether the credentials work and every `ai_secret` reads them back.
    pub(super) async fn holds(&self, credentials: &Credentials, report: &mut TargetReport) -> Result<(), Error> {
        let (proven, places) = join(
            self.rotation.prove(self.target, credentials, ONCE, self.deadline),
            self.rotation.find_all(self.target, self.deadline),
        )
        .await;
        report.enter(&places);
        Rotation::read_back(&places, credentials, report);
        proven?;
        report.first_error().cloned().map_or(Ok(()), Err)
    }

    /// Whether every `ai_secret` is there and may be written.
    pub(super) async fn may_set(&self, report: &mut TargetReport) -> Result<(), Error> {
        report.enter(&self.rotation.find_all(self.target, self.deadline).await);
        report.first_error().cloned().map_or(Ok(()), Err)
    }

    /// finishSecret: moves `AWSCURRENT`.
    pub(super) async fn finish(&self, version: &str, contents: &Contents) -> Result<(), Error> {
        self.staging.promote(version, contents.description.current()).await
    }

    /// The pending version's credentials, if a step may go on with them. Dead ones are abandoned.
    pub(super) async fn pending(&self, version: &str, contents: &Contents) -> Result<Credentials, Error> {
        match self.staging.read(version).await? {
            Held::Credentials(credentials) => {
                let listed = self.rotation.list(self.target, self.deadline).await?;
                if plan::is_alive(self.now(), self.target, &known(&credentials), &listed) {
                    return Ok(credentials);
                }
                Err(self.abandon(version, contents, "the next rotation starts afresh").await)
            }
            Held::Foreign => Err(self.foreign()),
            Held::Nothing => Err(hook::empty(self.staging.secret_id)),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        (self.rotation.clock)()
    }

    fn foreign(&self) -> Error {
        self.conflict(
            "the pending version holds something that this function did not write",
            "Remove the AWSPENDING stage from it, or give this target a secret of its own",
        )
    }

    pub(super) fn conflict(&self, problem: &str, remedy: &str) -> Error {
        let problem = format!("{problem} (the secret {:?})", self.staging.secret_id);
        Error::new(Cause::Conflict, Service::SecretsManager, "rotation", problem, remedy)
    }
}

impl Contents {
    /// Whether the current credentials are known not to work.
    pub(super) fn is_current_dead(&self, now: Timestamp, target: &Target, listed: &[mint::Standing]) -> bool {
        self.current.as_ref().is_some_and(|current| plan::is_dead(now, target, &known(current), listed))
    }

    /// The ids that the secret names.
    pub(super) fn names(&self) -> Names {
        let pending = match &self.pending {
            Some(Held::Credentials(credentials)) => Some(credentials.id.clone()),
            _ => None,
        };
        Names {
            current: self.current.as_ref().map(|current| current.id.clone()),
            current_minted_at: self.current.as_ref().map(|current| current.minted_at),
            promoted_at: self.description.promoted_at,
            pending,
            previous: self.previous.as_ref().map(|previous| previous.id.clone()),
            secret_created_at: self.description.created_at,
        }
    }
}

fn known(credentials: &Credentials) -> Known {
    Known {
        kind: credentials.kind,
        id: credentials.id.clone(),
        minted_at: credentials.minted_at,
        expires_at: credentials.expires_at,
    }
}
