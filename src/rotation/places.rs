//! A target's `ai_secret`s: found, written and read back side by side; it must never write to one that was refused.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use super::Rotation;
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout::{self, Holds, Layout};
use crate::braintrust::{AiSecret, client};
use crate::config::{self, Target};
use crate::credentials::{Credentials, KindName};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::mint;
use crate::report::{AiSecretReport, TargetReport};

/// An `ai_secret` that may be written, as it was before.
pub(super) struct Place<'a> {
    configured: &'a config::AiSecret,
    pub(super) before: AiSecret,
    pub(super) layout: Layout,
    read_at: Instant,
}

/// A reading older than this is repeated before the PATCH: somebody may have changed the `ai_secret` since.
const STALE: Duration = Duration::from_secs(2);

/// A place, or why there is none.
pub(super) type Found<'a> = (&'a config::AiSecret, Result<Place<'a>, Error>);

impl Rotation {
    pub(super) async fn find_all<'a>(&self, target: &'a Target, deadline: Deadline) -> Vec<Found<'a>> {
        let kind = target.kind.name();
        join_all(
            target
                .ai_secrets
                .iter()
                .map(|configured| async move { (configured, self.find(configured, kind, deadline).await) }),
        )
        .await
    }

    /// Whether Braintrust holds a standing credential, as far as it shows.
    pub(super) async fn may_hold(
        &self,
        target: &Target,
        found: &mint::Standing,
        deadline: Deadline,
    ) -> Result<Holds, Error> {
        let mut holds = Holds::No;
        for (_, place) in self.find_all(target, deadline).await {
            let (kind, place) = (target.kind.name(), place?);
            holds = holds.max(layout::holds(place.layout, kind, &found.id, found.created_at, &place.before));
        }
        Ok(holds)
    }

    async fn find<'a>(
        &self,
        configured: &'a config::AiSecret,
        kind: KindName,
        deadline: Deadline,
    ) -> Result<Place<'a>, Error> {
        let before = self.braintrust(configured, deadline, async |api| api.find(&configured.lookup).await).await?;
        let layout = layout::choose(configured.layout, kind, &before)?;
        Ok(Place { configured, before, layout, read_at: Instant::now() })
    }

    /// Writes to all places, and enters what became of each.
    pub(super) async fn set_all(
        &self,
        places: &[Found<'_>],
        credentials: &Credentials,
        region: &str,
        report: &mut TargetReport,
        deadline: Deadline,
    ) {
        let writes = report.ai_secrets.iter_mut().zip(places).filter_map(|(entry, (_, place))| {
            let place = place.as_ref().ok()?;
            Some(async move {
                match self.write(place, credentials, region, deadline).await {
                    Ok(()) => entry.updated = true,
                    Err(error) => entry.error = Some(error),
                }
            })
        });
        join_all(writes).await;
    }

    async fn write(
        &self,
        place: &Place<'_>,
        credentials: &Credentials,
        region: &str,
        deadline: Deadline,
    ) -> Result<(), Error> {
        if place.read_at.elapsed() < STALE {
            return self.set(place, credentials, region, deadline).await;
        }
        let read_again = self.find(place.configured, credentials.kind, deadline).await?;
        self.set(&read_again, credentials, region, deadline).await
    }

    /// PATCHes all parts in one request. Braintrust answers with the changed object, which proves that the credentials
    /// arrived; if it does not show it, or was lost, the `ai_secret` is read once more.
    async fn set(
        &self,
        place: &Place<'_>,
        credentials: &Credentials,
        region: &str,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let id = place.before.id;
        let body = layout::patch(place.layout, credentials, region, &place.before.metadata)?;
        let patch = async |api: Braintrust<'_>| {
            api.patch(id, body.clone(), async || is_as_read(&api, place, credentials.kind, region).await).await
        };
        let answer = self.braintrust(place.configured, deadline, patch).await;
        let arrived = |after| layout::arrived(place.layout, credentials, Some(&place.before), after);
        let lost = match answer {
            Ok(answer) if arrived(&answer).is_ok() => return Ok(()),
            Ok(_) => None,
            Err(error) if error.is_transient() => Some(error),
            Err(refused) => return Err(refused),
        };
        let read_again = self.braintrust(place.configured, deadline, async |api| api.get(id).await).await;
        match (lost, read_again) {
            (None, after) => arrived(&after?).map_err(|problem| not_arrived(place, problem)),
            (Some(lost), Ok(after)) => {
                layout::arrived_unseen(place.layout, credentials, &place.before, &after).map_err(|_| lost)
            }
            (Some(lost), Err(_)) => Err(lost),
        }
    }

    /// Proves that each place holds what was sent, some time ago.
    pub(super) fn read_back(places: &[Found<'_>], credentials: &Credentials, report: &mut TargetReport) {
        for (entry, (_, place)) in report.ai_secrets.iter_mut().zip(places) {
            let Ok(place) = place else { continue };
            match layout::arrived(place.layout, credentials, None, &place.before) {
                Ok(()) => entry.updated = true,
                Err(problem) => entry.error = Some(not_arrived(place, problem)),
            }
        }
    }
}

/// Where the PATCH waited for its turn: somebody may have changed the `ai_secret` since. To our own region, it was this
/// PATCH, whose answer was lost.
async fn is_as_read(api: &Braintrust<'_>, place: &Place<'_>, kind: KindName, region: &str) -> Result<(), Error> {
    if place.read_at.elapsed() < STALE {
        return Ok(());
    }
    let now = api.get_in_turn(place.before.id).await?;
    let layout = layout::choose(place.configured.layout, kind, &now)?;
    let found = now.metadata.region.as_deref();
    if layout == place.layout && (found == place.before.metadata.region.as_deref() || found == Some(region)) {
        return Ok(());
    }
    let problem = format!(
        "somebody else changed the ai_secret {} while its rotation waited; it is left like that",
        place.before.id
    );
    let remedy = "The next tick reads it anew. If it goes on, look for another writer";
    Err(Error::new(Cause::Conflict, Service::Braintrust, client::PATCH, problem, remedy))
}

fn not_arrived(place: &Place<'_>, problem: &str) -> Error {
    Error::new(
        Cause::VerificationFailed,
        Service::Braintrust,
        client::PATCH,
        format!("the ai_secret {} was accepted, but {problem}", place.before.id),
        "The next tick tries again. If it goes on, check that nothing else writes to this ai_secret, and that api_url is \
         the data plane that holds it",
    )
}

impl TargetReport {
    /// Enters what was found, and what the operator should know of it.
    pub(super) fn enter(&mut self, places: &[Found<'_>]) {
        self.ai_secrets = places
            .iter()
            .map(|(configured, place)| AiSecretReport {
                ai_secret: configured.lookup.to_string(),
                id: place.as_ref().ok().map(|place| place.before.id),
                layout: place.as_ref().ok().map(|place| place.layout),
                updated: false,
                error: place.as_ref().err().cloned(),
            })
            .collect();
        let found = places.iter().filter_map(|(_, place)| place.as_ref().ok());
        self.warnings = found.flat_map(|place| layout::warnings(place.layout, &place.before)).collect();
    }

    /// The first error of an `ai_secret`.
    pub(super) fn first_error(&self) -> Option<&Error> {
        self.ai_secrets.iter().find_map(|entry| entry.error.as_ref())
    }
}
