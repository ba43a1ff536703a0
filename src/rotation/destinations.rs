//! A target's destinations: found, written and verified side by side.

use std::cell::Cell;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::time::Instant;

use super::snapshot::Versions;
use super::target_run::TargetRun;
use super::{end_to_end, policy};
use crate::aws::bedrock::Proven;
use crate::aws::iam_keys::Key;
use crate::braintrust::ai_secret::AiSecret;
use crate::braintrust::arrival::{self, NotArrived, Presence};
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout::{self, Layout, PATCH};
use crate::config::{Claim, Destination, Lookup, Region, RoleBased};
use crate::credentials::{Credentials, Lifetime};
use crate::error::{Error, ErrorClass, Service};
use crate::report::{DestinationReport, iso8601};

/// A reading older than this is repeated before the PATCH, because somebody may have changed the `ai_secret` since.
const MAX_READING_AGE: Duration = Duration::from_secs(2);

/// How long to wait between two attempts to complete a mixture.
const COMPLETION: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .without_max_times()
    .with_jitter();

/// A destination, and its `ai_secret` if it may be written.
pub struct Reading<'a> {
    pub destination: &'a Destination,
    pub result: Result<Writable, Error>,
}

/// An `ai_secret` that may be written, as it was read.
pub struct Writable {
    pub ai_secret: AiSecret,
    pub layout: Layout,
    read_at: Instant,
}

/// The result of a write that didn't fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Update {
    Written,
    /// Nothing was written, because another run has written newer credentials.
    Superseded,
}

struct NotWritten {
    error: Error,
    /// Whether the `ai_secret` was last seen with parts of two credentials.
    is_mixed: bool,
}

impl From<Error> for NotWritten {
    fn from(error: Error) -> Self {
        Self { error, is_mixed: false }
    }
}

impl Reading<'_> {
    pub fn writable(&self) -> Option<&Writable> {
        self.result.as_ref().ok()
    }

    fn report(&self) -> DestinationReport {
        let (writable, error) = (self.writable(), self.result.as_ref().err());
        DestinationReport {
            ai_secret: self.destination.lookup.to_string(),
            id: writable.map(|found| found.ai_secret.id),
            layout: writable.map(|found| found.layout),
            updated: false,
            is_mixed: false,
            is_superseded: false,
            end_to_end: None,
            error: error.cloned(),
        }
    }

    /// Reports the destination as updated, or why it was not. One that could not be read keeps that error.
    fn report_update(&self, update: Option<Result<Update, NotWritten>>) -> DestinationReport {
        let report = self.report();
        match update {
            None => report,
            Some(Ok(Update::Written)) => DestinationReport { updated: true, ..report },
            Some(Ok(Update::Superseded)) => DestinationReport { is_superseded: true, ..report },
            Some(Err(NotWritten { error, is_mixed })) => DestinationReport { is_mixed, error: Some(error), ..report },
        }
    }
}

/// What the operator should know about the `ai_secret`s.
pub fn warnings(readings: &[Reading<'_>]) -> Vec<String> {
    let found = readings.iter().filter_map(Reading::writable);
    found.filter_map(|found| layout::warning(found.layout, &found.ai_secret)).collect()
}

/// How the `ai_secret`s differ from the current credentials, which this function wrote no later than `written_at`.
pub fn differences(
    readings: &[Reading<'_>],
    current: &Credentials,
    region: &Region,
    written_at: Option<Timestamp>,
) -> Vec<String> {
    let found = readings.iter().filter_map(Reading::writable);
    let difference = |found: &Writable| {
        let reason = difference(found, current, region, written_at)?;
        Some(format!("the ai_secret {} did not hold the current credentials: {reason}", found.ai_secret.id))
    };
    found.filter_map(difference).collect()
}

/// Why an `ai_secret` does not hold the current credentials, as far as it shows.
pub fn difference(
    found: &Writable,
    current: &Credentials,
    region: &Region,
    written_at: Option<Timestamp>,
) -> Option<&'static str> {
    let Writable { layout, ai_secret, .. } = found;
    let arrived = arrival::arrived(*layout, current, None, ai_secret);
    arrival::differs(*layout, current, region, written_at, ai_secret).or(arrived.err().map(|error| error.problem))
}

pub fn all_succeeded(reports: &[DestinationReport]) -> Result<(), Error> {
    reports.iter().find_map(|report| report.error.clone()).map_or(Ok(()), Err)
}

/// Whether the `ai_secret`s show the credentials, whatever they held before.
pub fn verify_all(readings: &[Reading<'_>], credentials: &Credentials) -> Vec<DestinationReport> {
    let verify = |reading: &Reading<'_>| {
        let found = reading.writable()?;
        let arrived = arrival::arrived(found.layout, credentials, None, &found.ai_secret);
        Some(arrived.map(|()| Update::Written).map_err(|why| not_arrived(found, why)))
    };
    readings.iter().map(|reading| reading.report_update(verify(reading))).collect()
}

/// The destination whose secret changed longest ago. One without a time is returned only if no other has one.
pub fn oldest<'r>(readings: &'r [Reading<'_>]) -> Option<&'r Writable> {
    let found = readings.iter().filter_map(Reading::writable);
    found.min_by_key(|found| arrival::changed_at(&found.ai_secret).map_or((1, None), |time| (0, Some(time))))
}

/// The lifetime of role-based credentials that Braintrust holds. They were created just before they were written, so
/// they expire a few seconds earlier than this says.
pub fn held_lifetime(source: &RoleBased, readings: &[Reading<'_>]) -> Option<Lifetime> {
    let created_at = arrival::changed_at(&oldest(readings)?.ai_secret)?;
    let expires_at = created_at.checked_add(Duration::from_secs(source.role.duration_seconds.into())).ok();
    Some(Lifetime { created_at, expires_at })
}

impl<'a> TargetRun<'a> {
    /// Reports the state of the destinations, and returns the first error among them.
    pub fn report_destinations(&self, reports: Vec<DestinationReport>, readings: &[Reading<'_>]) -> Result<(), Error> {
        let result = all_succeeded(&reports);
        let warnings = warnings(readings).into_iter().chain(end_to_end::warnings(&reports)).collect();
        self.progress.destinations(reports, warnings);
        result
    }

    /// Reports the destinations of a run that writes nothing.
    pub fn report_readings(&self, readings: &[Reading<'_>]) -> Result<(), Error> {
        self.report_destinations(readings.iter().map(Reading::report).collect(), readings)
    }

    pub async fn read_destinations(&self) -> Vec<Reading<'a>> {
        let read = async |destination| Reading { destination, result: self.read_destination(destination).await };
        join_all(self.target.destinations.iter().map(read)).await
    }

    async fn read_destination(&self, destination: &Destination) -> Result<Writable, Error> {
        let find = async |api: Braintrust<'_>| api.find(&destination.lookup).await;
        let ai_secret = self.services.braintrust(&destination.data_plane, self.deadline, find).await?;
        let layout = layout::choose(destination.layout, self.target.kind(), &ai_secret)?;
        self.refuse_shared(destination, &ai_secret).await?;
        Ok(Writable { ai_secret, layout, read_at: Instant::now() })
    }

    /// Refuses an `ai_secret` that is also an earlier destination, under another name or another API key. Which of the
    /// two is written depends only on the configuration, so that simultaneous runs agree.
    async fn refuse_shared(&self, destination: &Destination, found: &AiSecret) -> Result<(), Error> {
        let earlier = self.target.claims.get(..destination.earlier_claims).unwrap_or_default();
        for claim in earlier {
            let is_same = match identity(claim, destination, found) {
                Identity::Same => true,
                Identity::Other => false,
                Identity::Unknown => {
                    let find = async |api: Braintrust<'_>| api.find(&claim.lookup).await;
                    match self.services.braintrust(&claim.data_plane, self.deadline, find).await {
                        Ok(other) => other.id == found.id,
                        Err(error) if error.is_transient() => return Err(error),
                        // The earlier destination can't be written, so this one may be.
                        Err(_) => false,
                    }
                }
            };
            if is_same {
                let (id, target, lookup) = (found.id, claim.target.as_str(), &claim.lookup);
                return Err(Error::new(
                    ErrorClass::Conflict,
                    Service::Braintrust,
                    PATCH,
                    format!("the ai_secret {id} is also {lookup} of the target {target:?}; it was not touched"),
                    "Remove one of the two from the targets, because each would overwrite the other's credentials. \
                     Until then, only the one that is configured first is written",
                ));
            }
        }
        Ok(())
    }

    /// Whether Braintrust holds a key of the IAM user, as far as it shows.
    pub async fn presence(&self, key: &Key) -> Result<Presence, Error> {
        let mut presence = Presence::Absent;
        for reading in self.read_destinations().await {
            let found = reading.result?;
            let here = arrival::presence(found.layout, self.target.kind(), &key.id, key.created_at, &found.ai_secret);
            presence = presence.max(here);
        }
        Ok(presence)
    }

    /// Writes proven credentials to all destinations, side by side. If one can't be written, the others still are.
    /// `fallback` decides what happens to one that shows a mixture.
    pub async fn write_all(
        &self,
        readings: &[Reading<'a>],
        proven: Proven<'_>,
        fallback: Fallback,
    ) -> Vec<DestinationReport> {
        let write = async |reading: &Reading<'a>| {
            let update = match &reading.result {
                Ok(found) => Some(self.write(reading.destination, found, proven, fallback).await),
                Err(_) => None,
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
            read_again = self.read_destination(destination).await?;
            &read_again
        };
        let write = Write { run: self, destination, first: &first.ai_secret, found: latest, proven, fallback };
        if write.is_superseded(&latest.ai_secret) {
            return Ok(Update::Superseded);
        }
        write.until_complete().await
    }
}

/// One write to a destination.
struct Write<'a> {
    run: &'a TargetRun<'a>,
    destination: &'a Destination,
    /// The `ai_secret` as it was read when the credentials were created.
    first: &'a AiSecret,
    /// The `ai_secret` as it was read last.
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
                    // If the `ai_secret` was a mixture and can no longer be read, it counts as one still.
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
        let written = deadline.retry_while(Service::Braintrust, PATCH, COMPLETION, may_repeat, attempt).await;
        written.map_err(|error| NotWritten { error, is_mixed: is_mixed.get() })
    }

    fn arrived(&self, after: &AiSecret) -> Result<(), NotArrived> {
        let (before, layout, credentials) = (&self.found.ai_secret, self.found.layout, self.proven.credentials());
        let has_arrived_again = || match self.fallback {
            Fallback::Rewrite(at) => arrival::has_arrived_again(layout, credentials, at, before, after),
            Fallback::Restore | Fallback::Complete => false,
        };
        let arrived = arrival::arrived(layout, credentials, Some(before), after);
        arrived.or_else(|why| if has_arrived_again() { Ok(()) } else { Err(why) })
    }

    /// PATCHes all parts in one request. Braintrust's response has the changed object, which shows whether the
    /// credentials arrived. If it doesn't show them or was lost, the `ai_secret` is read once more.
    async fn patch(&self, is_first: bool) -> Result<Update, NotWritten> {
        let Self { run, destination, found, proven, .. } = self;
        let (before, layout, credentials) = (&found.ai_secret, found.layout, proven.credentials());
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
        let get = async |api: Braintrust<'_>| api.get(before.id).await;
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
    /// has changed the `ai_secret` since it was read. The target's own region, or parts of these credentials, come from
    /// an earlier attempt, whose response was lost or of which only a part was carried out.
    async fn check(
        &self,
        api: &Braintrust<'_>,
        is_superseded: &Cell<bool>,
        may_be_superseded: bool,
    ) -> Result<(), Error> {
        let Self { run, found, proven, .. } = self;
        if !policy::is_worth_writing(run.now(), proven.credentials()) {
            return Err(expired(proven.credentials()));
        }
        if found.read_at.elapsed() < MAX_READING_AGE {
            return Ok(());
        }
        let (before, target) = (&found.ai_secret, run.target);
        let now = api.get_under_permit(before.id).await?;
        let layout = layout::choose(self.destination.layout, target.kind(), &now)?;
        let is_own = match arrival::arrived(found.layout, proven.credentials(), Some(before), &now) {
            Ok(()) => true,
            Err(why) => why.is_mixture,
        };
        is_superseded.set(may_be_superseded && self.is_superseded(&now));
        let region = now.metadata.region.as_deref();
        let is_known_region = region == before.metadata.region.as_deref() || region == Some(target.region.as_str());
        if !is_superseded.get() && is_known_region && (layout == found.layout || is_own) {
            return Ok(());
        }
        Err(Error::new(
            ErrorClass::Conflict,
            Service::Braintrust,
            PATCH,
            format!("somebody else changed the ai_secret {} while its rotation waited, so it was not written", now.id),
            "The next scheduled run reads it again. If this continues, look for another writer",
        ))
    }

    /// Whether another run has written newer credentials meanwhile. With a staged secret, its stages order the runs.
    fn is_superseded(&self, latest: &AiSecret) -> bool {
        let (run, created_at) = (self.run, self.proven.credentials().created_at);
        run.target.secret_id().is_none() && arrival::is_superseded(created_at, self.first, latest, run.now())
    }
}

/// Whether a claim is the `ai_secret` that was found for a destination, as far as the configuration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Same,
    Other,
    /// Only Braintrust knows.
    Unknown,
}

fn identity(claim: &Claim, destination: &Destination, found: &AiSecret) -> Identity {
    if claim.data_plane.url() != destination.data_plane.url() {
        return Identity::Other;
    }
    match (&claim.lookup, &destination.lookup) {
        (Lookup::Id(id), _) if *id == found.id => Identity::Same,
        (Lookup::Id(_), _) => Identity::Other,
        (Lookup::Name { name, .. }, _) if *name != found.name => Identity::Other,
        (Lookup::Name { org_name: Some(one), .. }, Lookup::Name { org_name: Some(other), .. }) if one != other => {
            Identity::Other
        }
        (Lookup::Name { .. }, Lookup::Id(_) | Lookup::Name { .. }) => Identity::Unknown,
    }
}

fn expired(credentials: &Credentials) -> Error {
    let end = credentials.expires_at.map(iso8601).unwrap_or_default();
    Error::new(
        ErrorClass::Conflict,
        Service::Braintrust,
        PATCH,
        format!("{} expires at {end}, so soon that it was not written", credentials.id),
        "The next scheduled run writes new credentials. If this continues, find out from duration_ms and the other \
         errors what delays the runs",
    )
}

fn not_arrived(found: &Writable, NotArrived { problem, is_mixture }: NotArrived) -> NotWritten {
    let id = found.ai_secret.id;
    let problem =
        if is_mixture { "it shows parts of the old and of the new credentials, which don't work" } else { problem };
    let error = Error::new(
        ErrorClass::VerificationFailed,
        Service::Braintrust,
        PATCH,
        format!("Braintrust accepted the PATCH of the ai_secret {id}, but {problem}"),
        "The next scheduled run tries again. If this continues, check that nothing else writes to this ai_secret, and \
         that the Braintrust URL (the parameter BraintrustApiUrl, or api_url) is that of the data plane that holds it",
    );
    NotWritten { error, is_mixed: is_mixture }
}

#[cfg(test)]
mod tests;
