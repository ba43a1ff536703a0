//! A target's destinations: found, written and verified side by side.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

use super::target_run::TargetRun;
use crate::aws::bedrock::Proven;
use crate::aws::iam_keys::Key;
use crate::braintrust::ai_secret::AiSecret;
use crate::braintrust::arrival::{self, NotArrived, Presence};
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout::{self, Layout, PATCH};
use crate::config::{Destination, Region, RoleBased};
use crate::credentials::{Credentials, Lifetime};
use crate::error::{Error, ErrorClass, Service};
use crate::report::DestinationReport;

/// A reading older than this is repeated before the PATCH, because somebody may have changed the `ai_secret` since.
const MAX_READING_AGE: Duration = Duration::from_secs(2);

/// A destination, and its `ai_secret` if that may be written.
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
            error: error.cloned(),
        }
    }

    /// Reports the destination as updated, or why it was not. One that could not be read keeps that error.
    fn report_update(&self, update: Option<Result<(), Error>>) -> DestinationReport {
        let report = self.report();
        match update {
            None => report,
            Some(Ok(())) => DestinationReport { updated: true, ..report },
            Some(Err(error)) => DestinationReport { error: Some(error), ..report },
        }
    }
}

/// What the operator should know about the `ai_secret`s.
pub fn warnings(readings: &[Reading<'_>]) -> Vec<String> {
    let found = readings.iter().filter_map(Reading::writable);
    found.filter_map(|found| layout::warning(found.layout, &found.ai_secret)).collect()
}

/// How the `ai_secret`s differ from the current credentials, which were last written before `written_at`.
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
        Some(arrived.map_err(|NotArrived { problem, .. }| not_arrived(found, problem)))
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
        self.progress.destinations(reports, warnings(readings));
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
        Ok(Writable { ai_secret, layout, read_at: Instant::now() })
    }

    /// Whether Braintrust holds a key of the IAM user, as far as it shows.
    pub async fn presence(&self, key: &Key) -> Result<Presence, Error> {
        self.presence_within(key, None).await
    }

    /// The same for an orphaned key. Only the run that created it has written it, and that run has ended within
    /// `longest_run`. An API key doesn't read back, so what was written later counts as something else.
    pub async fn presence_of_orphaned(&self, key: &Key, longest_run: SignedDuration) -> Result<Presence, Error> {
        self.presence_within(key, Some(longest_run)).await
    }

    async fn presence_within(&self, key: &Key, longest_run: Option<SignedDuration>) -> Result<Presence, Error> {
        let mut presence = Presence::Absent;
        for reading in self.read_destinations().await {
            let found = reading.result?;
            let here = arrival::presence(found.layout, self.target.kind(), &key.id, key.created_at, &found.ai_secret);
            let is_other = here == Presence::Unknown
                && longest_run.is_some_and(|longest| arrival::is_later(key.created_at, longest, &found.ai_secret));
            presence = presence.max(if is_other { Presence::Absent } else { here });
        }
        Ok(presence)
    }

    /// Writes proven credentials to all destinations, side by side. If one can't be written, the others still are.
    pub async fn write_all(&self, readings: &[Reading<'a>], proven: Proven<'_>) -> Vec<DestinationReport> {
        let write = async |reading: &Reading<'a>| {
            let update = match &reading.result {
                Ok(found) => Some(self.write(reading.destination, found, proven).await),
                Err(_) => None,
            };
            reading.report_update(update)
        };
        join_all(readings.iter().map(write)).await
    }

    async fn write(&self, destination: &Destination, found: &Writable, proven: Proven<'_>) -> Result<(), Error> {
        if found.read_at.elapsed() < MAX_READING_AGE {
            return self.patch(destination, found, proven).await;
        }
        let read_again = self.read_destination(destination).await?;
        self.patch(destination, &read_again, proven).await
    }

    /// PATCHes all parts in one request. Braintrust's response has the changed object, which shows whether the
    /// credentials arrived. If it doesn't show them or was lost, the `ai_secret` is read once more.
    async fn patch(&self, destination: &Destination, found: &Writable, proven: Proven<'_>) -> Result<(), Error> {
        let (before, id, credentials) = (&found.ai_secret, found.ai_secret.id, proven.credentials());
        let patch = async |api: Braintrust<'_>| {
            let check = async || self.is_as_read(&api, destination, found).await;
            api.patch(before, found.layout, proven, &self.target.region, check).await
        };
        let response = self.services.braintrust(&destination.data_plane, self.deadline, patch).await;
        let lost = match response {
            Ok(after) if arrival::arrived(found.layout, credentials, Some(before), &after).is_ok() => return Ok(()),
            Ok(_) => None,
            Err(error) if error.is_transient() => Some(error),
            Err(refused) => return Err(refused),
        };
        let get = async |api: Braintrust<'_>| api.get(id).await;
        let after = self.services.braintrust(&destination.data_plane, self.deadline, get).await;
        match (lost, after) {
            (None, after) => arrival::arrived(found.layout, credentials, Some(before), &after?)
                .map_err(|NotArrived { problem, .. }| not_arrived(found, problem)),
            (Some(lost), Ok(after)) => {
                arrival::arrived_unconfirmed(found.layout, credentials, before, &after).map_err(|_| lost)
            }
            (Some(lost), Err(_)) => Err(lost),
        }
    }

    /// Before a PATCH that waited for its permit, checks that nobody has changed the `ai_secret` since it was read. A
    /// change to the target's own region is this PATCH's, whose response was lost.
    async fn is_as_read(&self, api: &Braintrust<'_>, destination: &Destination, found: &Writable) -> Result<(), Error> {
        if found.read_at.elapsed() < MAX_READING_AGE {
            return Ok(());
        }
        let id = found.ai_secret.id;
        let now = api.get_under_permit(id).await?;
        let layout = layout::choose(destination.layout, self.target.kind(), &now)?;
        let region = now.metadata.region.as_deref();
        let is_known =
            region == found.ai_secret.metadata.region.as_deref() || region == Some(self.target.region.as_str());
        if layout == found.layout && is_known {
            return Ok(());
        }
        Err(Error::new(
            ErrorClass::Conflict,
            Service::Braintrust,
            PATCH,
            format!("somebody else changed the ai_secret {id} while its rotation waited, so it was not written"),
            "The next scheduled run reads it again. If this continues, look for another writer",
        ))
    }
}

fn not_arrived(found: &Writable, problem: &str) -> Error {
    Error::new(
        ErrorClass::VerificationFailed,
        Service::Braintrust,
        PATCH,
        format!("Braintrust accepted the PATCH of the ai_secret {}, but {problem}", found.ai_secret.id),
        "The next scheduled run tries again. If this continues, check that nothing else writes to this ai_secret, and \
         that api_url is the data plane that holds it",
    )
}

#[cfg(test)]
mod tests;
