//! Writes credentials to a target's destinations, and finds out whether they arrived.

use std::cell::Cell;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::destinations::{Found, Reading, Writable};
use super::policy;
use super::snapshot::Versions;
use super::target_run::TargetRun;
use crate::aws::bedrock::Proven;
use crate::braintrust::ai_provider::{AiProvider, Place};
use crate::braintrust::arrival::{self, NotArrived};
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout;
use crate::config::Destination;
use crate::credentials::Credentials;
use crate::error::{Error, ErrorClass, Service};
use crate::report::{DestinationReport, iso8601};

/// A reading older than this is repeated before the PATCH, because somebody may have changed the provider since.
const MAX_READING_AGE: Duration = Duration::from_secs(2);

/// How long to wait between two attempts to complete a mixture.
const COMPLETION: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// The result of a write that didn't fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    Written,
    /// Nothing was written, because another run has written newer credentials.
    Superseded,
    /// Nothing was written, because Braintrust assumes a role itself for this provider.
    NotNeeded,
}

struct NotWritten {
    error: Error,
    /// Whether the provider was last seen with parts of two credentials.
    is_mixed: bool,
}

impl From<Error> for NotWritten {
    fn from(error: Error) -> Self {
        Self { error, is_mixed: false }
    }
}

impl Reading<'_> {
    /// Reports the destination as updated, or why it was not. One that could not be read keeps that error.
    fn report_update(&self, update: Option<Result<Update, NotWritten>>) -> DestinationReport {
        let report = self.report();
        match update {
            None => report,
            Some(Ok(Update::Written)) => DestinationReport { updated: true, ..report },
            Some(Ok(Update::Superseded)) => DestinationReport { is_superseded: true, ..report },
            Some(Ok(Update::NotNeeded)) => DestinationReport { uses_assume_role: true, ..report },
            Some(Err(NotWritten { error, is_mixed })) => DestinationReport { is_mixed, error: Some(error), ..report },
        }
    }
}

/// Whether the providers show the credentials, whatever they held before.
pub fn verify_all(readings: &[Reading<'_>], credentials: &Credentials) -> Vec<DestinationReport> {
    let verify = |reading: &Reading<'_>| {
        let found = reading.writable()?;
        let arrived = arrival::arrived(found.layout, credentials, None, &found.provider);
        Some(arrived.map(|()| Update::Written).map_err(|why| not_arrived(found, why)))
    };
    readings.iter().map(|reading| reading.report_update(verify(reading))).collect()
}

impl<'a> TargetRun<'a> {
    /// Writes proven credentials to all destinations, side by side. If one can't be written, the others still are.
    /// `fallback` decides what happens to one that shows a mixture.
    pub async fn write_all(
        &self,
        readings: &[Reading<'a>],
        proven: Proven<'_>,
        fallback: Fallback,
    ) -> Vec<DestinationReport> {
        let write = async |reading: &Reading<'a>| {
            let update = match reading.writable() {
                Some(found) => Some(self.write(reading.destination, found, proven, fallback).await),
                None => None,
            };
            reading.report_update(update)
        };
        join_all(readings.iter().map(write)).await
    }

    async fn write(
        &self,
        destination: &Destination,
        first: &Writable,
        proven: Proven<'_>,
        fallback: Fallback,
    ) -> Result<Update, NotWritten> {
        let read_again;
        let latest = if first.read_at.elapsed() < MAX_READING_AGE {
            first
        } else {
            match self.read_destination(destination).await? {
                Found::Writable(found) => read_again = found,
                Found::UsesAssumeRole(_) => return Ok(Update::NotNeeded),
            }
            &read_again
        };
        let write = Write { run: self, destination, first: &first.provider, found: latest, proven, fallback };
        if write.is_superseded(&latest.provider) {
            return Ok(Update::Superseded);
        }
        write.until_complete().await
    }
}

/// One write to a destination.
struct Write<'a> {
    run: &'a TargetRun<'a>,
    destination: &'a Destination,
    /// The provider as it was read when the credentials were created.
    first: &'a AiProvider,
    /// The provider as it was read last.
    found: &'a Writable,
    proven: Proven<'a>,
    fallback: Fallback,
}

/// What to do if Braintrust keeps showing a mixture of old and new credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// Fail, because the caller restores the credentials that worked before.
    Restore,
    /// The same. These credentials were there at this time already, so perhaps only the metadata differs.
    Rewrite(Timestamp),
    /// Repeat the write until the deadline, because nobody has the old credentials.
    Complete,
}

impl Fallback {
    pub fn of(versions: &Versions) -> Self {
        if versions.current().is_some() { Self::Restore } else { Self::Complete }
    }
}

impl Write<'_> {
    /// Sends the PATCH. If Braintrust then shows a mixture of the old and the new credentials, repeats it once, or
    /// until the deadline if there is no other way out.
    async fn until_complete(&self) -> Result<Update, NotWritten> {
        let (attempts, is_mixed) = (Cell::new(0), Cell::new(false));
        let attempt = async || {
            attempts.set(attempts.get() + 1);
            match self.patch(attempts.get() == 1).await {
                Ok(update) => Ok(update),
                Err(failed) => {
                    // If the provider was a mixture and can no longer be read, it counts as one still.
                    is_mixed.set(failed.is_mixed || (is_mixed.get() && failed.error.is_transient()));
                    Err(failed.error)
                }
            }
        };
        let may_repeat = |error: &Error| {
            let is_passing = error.is_transient() || error.class == ErrorClass::VerificationFailed;
            is_mixed.get() && is_passing && (attempts.get() < 2 || self.fallback == Fallback::Complete)
        };
        let deadline = self.run.deadline;
        let written = deadline.retry_while(Service::Braintrust, self.call(), COMPLETION, may_repeat, attempt).await;
        written.map_err(|error| NotWritten { error, is_mixed: is_mixed.get() })
    }

    fn call(&self) -> &'static str {
        self.found.provider.place.patch()
    }

    fn expired(&self) -> Error {
        let credentials = self.proven.credentials();
        let end = credentials.expires_at.map(iso8601).unwrap_or_default();
        Error::new(
            ErrorClass::Conflict,
            Service::Braintrust,
            self.call(),
            format!("{} expires at {end}, so soon that it was not written", credentials.id),
            "The next scheduled run writes new credentials. If this continues, find out from duration_ms and the other \
             errors what delays the runs",
        )
    }

    fn arrived(&self, after: &AiProvider) -> Result<(), NotArrived> {
        let (before, layout, credentials) = (&self.found.provider, self.found.layout, self.proven.credentials());
        let has_arrived_again = || match self.fallback {
            Fallback::Rewrite(at) => arrival::has_arrived_again(layout, credentials, at, before, after),
            Fallback::Restore | Fallback::Complete => false,
        };
        let arrived = arrival::arrived(layout, credentials, Some(before), after);
        arrived.or_else(|why| if has_arrived_again() { Ok(()) } else { Err(why) })
    }

    /// PATCHes all parts in one request. Braintrust's response has the changed object, which shows whether the
    /// credentials arrived. If it doesn't show them or was lost, the provider is read once more.
    async fn patch(&self, is_first: bool) -> Result<Update, NotWritten> {
        let Self { run, destination, found, proven, .. } = self;
        let (before, layout, credentials) = (&found.provider, found.layout, proven.credentials());
        let is_superseded = Cell::new(false);
        let patch = async |api: Braintrust<'_>| {
            let check = async |may_have_arrived: bool| {
                let may_be_superseded = is_first && !may_have_arrived;
                self.check(&api, &is_superseded, may_be_superseded).await
            };
            api.patch(before, layout, *proven, &run.target.region, check).await
        };
        let response = run.services.braintrust(&destination.data_plane, run.deadline, patch).await;
        let lost = match response {
            Ok(after) if self.arrived(&after).is_ok() => return Ok(Update::Written),
            Ok(_) => None,
            Err(_) if is_superseded.get() => return Ok(Update::Superseded),
            Err(error) if error.is_transient() => Some(error),
            Err(refused) => return Err(refused.into()),
        };
        let get = async |api: Braintrust<'_>| api.get(before.place, before.id).await;
        let after = run.services.braintrust(&destination.data_plane, run.deadline, get).await;
        let arrived = match (lost, after) {
            (None, after) => self.arrived(&after?).map_err(|why| not_arrived(found, why)),
            (Some(lost), Ok(after)) => arrival::arrived_unconfirmed(layout, credentials, before, &after)
                .map_err(|why| if why.is_mixture { not_arrived(found, why) } else { lost.into() }),
            (Some(lost), Err(_)) => Err(lost.into()),
        };
        arrived.map(|()| Update::Written)
    }

    /// Before a PATCH that waited for its permit, checks that the credentials are still worth writing and that nobody
    /// has changed the provider since it was read. The target's own region, or parts of these credentials, come from
    /// an earlier attempt, whose response was lost or of which only a part was carried out.
    async fn check(
        &self,
        api: &Braintrust<'_>,
        is_superseded: &Cell<bool>,
        may_be_superseded: bool,
    ) -> Result<(), Error> {
        let Self { run, found, proven, .. } = self;
        if !policy::is_worth_writing(run.now(), proven.credentials()) {
            return Err(self.expired());
        }
        if found.read_at.elapsed() < MAX_READING_AGE {
            return Ok(());
        }
        let (before, target) = (&found.provider, run.target);
        let now = api.get_under_permit(before.place, before.id).await?;
        let layout = layout::choose(self.destination.layout, target.kind(), &now)?;
        let is_own = match arrival::arrived(found.layout, proven.credentials(), Some(before), &now) {
            Ok(()) => true,
            Err(why) => why.is_mixture,
        };
        is_superseded.set(may_be_superseded && self.is_superseded(&now));
        let region = now.metadata.region.as_deref();
        let is_known_region = region == before.metadata.region.as_deref() || region == Some(target.region.as_str());
        // The PATCH of a project's provider repeats the name.
        let is_by_name = before.place == Place::Project || self.destination.lookup.name().is_some();
        let is_renamed = is_by_name && now.name != before.name;
        if !is_superseded.get() && is_known_region && !is_renamed && (layout == found.layout || is_own) {
            return Ok(());
        }
        Err(Error::new(
            ErrorClass::Conflict,
            Service::Braintrust,
            self.call(),
            format!("somebody else changed the {now} while its rotation waited, so it was not written"),
            "The next scheduled run reads it again. If this continues, look for another writer",
        ))
    }

    /// Whether another run has written newer credentials meanwhile. With a staged secret, its stages order the runs.
    fn is_superseded(&self, latest: &AiProvider) -> bool {
        let (run, created_at) = (self.run, self.proven.credentials().created_at);
        run.target.secret_id().is_none() && arrival::is_superseded(created_at, self.first, latest, run.now())
    }
}

fn not_arrived(found: &Writable, NotArrived { problem, is_mixture }: NotArrived) -> NotWritten {
    let provider = &found.provider;
    let problem =
        if is_mixture { "it shows parts of the old and of the new credentials, which don't work" } else { problem };
    let error = Error::new(
        ErrorClass::VerificationFailed,
        Service::Braintrust,
        provider.place.patch(),
        format!("Braintrust accepted the PATCH of the {provider}, but {problem}"),
        "The next scheduled run tries again. If this continues, check that nothing else writes to this provider, and \
         that the Braintrust URL (the parameter BraintrustApiUrl, or api_url) is that of the data plane that holds it",
    );
    NotWritten { error, is_mixed: is_mixture }
}

#[cfg(test)]
mod tests;
