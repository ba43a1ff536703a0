//! A target's `ai_secret`s: found, written and read back side by side; it must never write to one that was refused.

use futures_util::future::join_all;

use super::Rotation;
use crate::braintrust::layout::{self, Layout};
use crate::braintrust::{AiSecret, client};
use crate::config::{self, Target};
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::report::{AiSecretReport, TargetReport};

/// An `ai_secret` that may be written, as it was before.
pub(super) struct Place<'a> {
    configured: &'a config::AiSecret,
    before: AiSecret,
    layout: Layout,
}

/// A place, or why there is none.
pub(super) type Found<'a> = (&'a config::AiSecret, Result<Place<'a>, Error>);

impl Rotation {
    pub(super) async fn find_all<'a>(&self, target: &'a Target, deadline: Deadline) -> Vec<Found<'a>> {
        join_all(target.ai_secrets.iter().map(|configured| async move {
            let find = async {
                let before =
                    self.braintrust(configured, deadline, async |api| api.find(&configured.lookup).await).await?;
                let layout = layout::choose(configured.layout, target.kind.name(), &before)?;
                Ok(Place { configured, before, layout })
            };
            (configured, find.await)
        }))
        .await
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
                match self.set(place, credentials, region, deadline).await {
                    Ok(()) => entry.updated = true,
                    Err(error) => entry.error = Some(error),
                }
            })
        });
        join_all(writes).await;
    }

    /// PATCHes all parts in one request. Braintrust answers with the changed object, which proves that the credentials
    /// arrived; if it does not show it, the `ai_secret` is read once more.
    async fn set(
        &self,
        place: &Place<'_>,
        credentials: &Credentials,
        region: &str,
        deadline: Deadline,
    ) -> Result<(), Error> {
        let id = place.before.id;
        let body = layout::patch(place.layout, credentials, region, &place.before.metadata)?;
        let answer = self.braintrust(place.configured, deadline, async |api| api.patch(id, body.clone()).await).await?;
        let arrived = |after| layout::arrived(place.layout, credentials, Some(&place.before), after);
        if arrived(&answer).is_ok() {
            return Ok(());
        }
        let read_again = self.braintrust(place.configured, deadline, async |api| api.get(id).await).await?;
        arrived(&read_again).map_err(|problem| not_arrived(place, problem))
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
