//! A target's destinations: found, read, and compared side by side.

use std::time::Duration;

use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use super::end_to_end;
use super::target_run::TargetRun;
use crate::aws::iam_keys::Key;
use crate::braintrust::ai_provider::{AiProvider, Place};
use crate::braintrust::arrival::{self, Presence};
use crate::braintrust::client::Braintrust;
use crate::braintrust::layout::{self, Layout};
use crate::config::{Claim, Destination, Lookup, ProjectLookup, Region, RoleBased};
use crate::credentials::{Credentials, Lifetime};
use crate::error::{Error, ErrorClass, Service, shortened};
use crate::report::DestinationReport;

/// A destination, and its provider if it was found and this function may know it.
pub struct Reading<'a> {
    pub destination: &'a Destination,
    pub result: Result<Found, Error>,
}

pub enum Found {
    Writable(Writable),
    /// Braintrust assumes a role itself to use this provider, so there is nothing to rotate in it.
    UsesAssumeRole(AiProvider),
}

/// A provider that may be written, as it was read.
pub struct Writable {
    pub provider: AiProvider,
    pub layout: Layout,
    pub(super) read_at: Instant,
}

impl Reading<'_> {
    pub fn writable(&self) -> Option<&Writable> {
        match &self.result {
            Ok(Found::Writable(found)) => Some(found),
            Ok(Found::UsesAssumeRole(_)) | Err(_) => None,
        }
    }

    pub fn uses_assume_role(&self) -> bool {
        matches!(self.result, Ok(Found::UsesAssumeRole(_)))
    }

    /// The provider, if it was found.
    pub fn provider(&self) -> Option<&AiProvider> {
        match self.result.as_ref().ok()? {
            Found::Writable(found) => Some(&found.provider),
            Found::UsesAssumeRole(provider) => Some(provider),
        }
    }

    pub(super) fn report(&self) -> DestinationReport {
        let (writable, error) = (self.writable(), self.result.as_ref().err());
        DestinationReport {
            ai_secret: self.destination.lookup.to_string(),
            project: self.destination.lookup.project().map(ToString::to_string),
            id: self.provider().map(|provider| provider.id),
            layout: writable.map(|found| found.layout),
            updated: false,
            is_mixed: false,
            is_superseded: false,
            uses_assume_role: self.uses_assume_role(),
            end_to_end: None,
            error: error.cloned(),
        }
    }
}

/// What the operator should know about the providers.
pub fn warnings(readings: &[Reading<'_>]) -> Vec<String> {
    let found = readings.iter().filter_map(Reading::writable);
    let of = |found: &Writable| [layout::warning(found.layout, &found.provider), api_base_warning(&found.provider)];
    found.flat_map(of).flatten().collect()
}

/// The host may be the operator's own proxy, so it is no error.
fn api_base_warning(provider: &AiProvider) -> Option<String> {
    let origin = shortened(provider.metadata.custom_api_base.as_deref()?);
    Some(format!(
        "the {provider} has an api_base that is not Bedrock's ({origin:?}), so Braintrust sends its requests, and with \
         them an API key itself, there. If you don't know that host, remove the api_base in Braintrust, rotate, and \
         retire the credentials that were there"
    ))
}

/// Whether Braintrust assumes a role itself for every destination, so that the target has nothing left to rotate.
pub fn all_use_assume_role(readings: &[Reading<'_>]) -> bool {
    readings.iter().all(Reading::uses_assume_role)
}

/// How the providers differ from the current credentials, which this function wrote no later than `written_at`.
pub fn differences(
    readings: &[Reading<'_>],
    current: &Credentials,
    region: &Region,
    written_at: Option<Timestamp>,
) -> Vec<String> {
    let found = readings.iter().filter_map(Reading::writable);
    let difference = |found: &Writable| {
        let reason = difference(found, current, region, written_at)?;
        Some(format!("the {} did not hold the current credentials: {reason}", found.provider))
    };
    found.filter_map(difference).collect()
}

/// Why a provider does not hold the current credentials, as far as it shows.
pub fn difference(
    found: &Writable,
    current: &Credentials,
    region: &Region,
    written_at: Option<Timestamp>,
) -> Option<&'static str> {
    let Writable { layout, provider, .. } = found;
    let arrived = arrival::arrived(*layout, current, None, provider);
    arrival::differs(*layout, current, region, written_at, provider).or(arrived.err().map(|error| error.problem))
}

pub fn all_succeeded(reports: &[DestinationReport]) -> Result<(), Error> {
    reports.iter().find_map(|report| report.error.clone()).map_or(Ok(()), Err)
}

/// The destination whose secret changed longest ago. One without a time is returned only if no other has one.
pub fn oldest<'r>(readings: &'r [Reading<'_>]) -> Option<&'r Writable> {
    let found = readings.iter().filter_map(Reading::writable);
    found.min_by_key(|found| arrival::changed_at(&found.provider).map_or((1, None), |time| (0, Some(time))))
}

/// The lifetime of role-based credentials that Braintrust holds. They were created just before they were written, so
/// they expire a few seconds earlier than this says.
pub fn held_lifetime(source: &RoleBased, readings: &[Reading<'_>]) -> Option<Lifetime> {
    let created_at = arrival::changed_at(&oldest(readings)?.provider)?;
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

    pub(super) async fn read_destination(&self, destination: &Destination) -> Result<Found, Error> {
        let find = async |api: Braintrust<'_>| api.find(&destination.lookup).await;
        let provider = self.services.braintrust(&destination.data_plane, self.deadline, find).await?;
        if provider.uses_assume_role() {
            return Ok(Found::UsesAssumeRole(provider));
        }
        let layout = layout::choose(destination.layout, self.target.kind(), &provider)?;
        self.refuse_shared(destination, &provider).await?;
        Ok(Found::Writable(Writable { provider, layout, read_at: Instant::now() }))
    }

    /// Refuses a provider that is also an earlier destination, under another name or another API key. Which of the
    /// two is written depends only on the configuration, so that simultaneous runs agree.
    async fn refuse_shared(&self, destination: &Destination, found: &AiProvider) -> Result<(), Error> {
        let earlier = self.target.claims.get(..destination.earlier_claims).unwrap_or_default();
        let own_project = OnceCell::new();
        for claim in earlier {
            let is_same = match identity(claim, destination, found) {
                Identity::Same => true,
                Identity::Other => false,
                Identity::Unknown if self.is_in_another_project(claim, destination, &own_project).await? => false,
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
                let (target, lookup) = (claim.target.as_str(), &claim.lookup);
                return Err(Error::new(
                    ErrorClass::Conflict,
                    Service::Braintrust,
                    found.place.patch(),
                    format!("the {found} is also {lookup} of the target {target:?}; it was not touched"),
                    "Remove one of the two from the targets, because each would overwrite the other's credentials. \
                     Until then, only the one that is configured first is written",
                ));
            }
        }
        Ok(())
    }

    /// Whether a claim names its project by another name than that of the project whose ID the destination has. That
    /// name is read once, because a lookup of each claim would take a time that grows with their square.
    async fn is_in_another_project(
        &self,
        claim: &Claim,
        destination: &Destination,
        own_project: &OnceCell<Option<String>>,
    ) -> Result<bool, Error> {
        let (Some(ProjectLookup::Name { name, .. }), Some(ProjectLookup::Id(id))) =
            (claim.lookup.project(), destination.lookup.project())
        else {
            return Ok(false);
        };
        let read = async || {
            let read = async |api: Braintrust<'_>| api.project_name(*id).await;
            match self.services.braintrust(&destination.data_plane, self.deadline, read).await {
                // A key that may update the provider needs no right to list projects.
                Err(error) if !error.is_transient() => Ok(None),
                name => name,
            }
        };
        let own_name = own_project.get_or_try_init(read).await?;
        Ok(own_name.as_ref().is_some_and(|own_name| own_name != name))
    }

    /// Whether Braintrust holds a key of the IAM user, as far as it shows.
    pub async fn presence(&self, key: &Key) -> Result<Presence, Error> {
        let mut presence = Presence::Absent;
        for reading in self.read_destinations().await {
            presence = presence.max(match reading.result? {
                Found::Writable(Writable { provider, layout, .. }) => {
                    arrival::presence(layout, self.target.kind(), &key.id, key.created_at, &provider)
                }
                // It was moved during this run, and a reader may have cached the key.
                Found::UsesAssumeRole(_) => Presence::Unknown,
            });
        }
        Ok(presence)
    }
}

/// Whether a claim is the provider that was found for a destination, as far as the configuration shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Identity {
    Same,
    Other,
    /// Only Braintrust knows.
    Unknown,
}

fn identity(claim: &Claim, destination: &Destination, found: &AiProvider) -> Identity {
    if claim.lookup.id().is_some_and(|id| id == found.id) {
        return Identity::Same;
    }
    // Names at another URL are not looked up: if that data plane were down, the rotation would stop at this one, too.
    if claim.data_plane.url() != destination.data_plane.url() {
        return Identity::Other;
    }
    let is_other_name = claim.lookup.name().is_none_or(|name| *name != found.name);
    if Place::of(&claim.lookup) != found.place || is_other_name {
        return Identity::Other;
    }
    match (&claim.lookup, &destination.lookup) {
        (Lookup::Name { org_name: one, .. }, Lookup::Name { org_name: other, .. }) if are_two(one, other) => {
            Identity::Other
        }
        (Lookup::InProject { project: one, .. }, Lookup::InProject { project: other, .. })
            if are_two_projects(one, other, found) =>
        {
            Identity::Other
        }
        _ => Identity::Unknown,
    }
}

fn are_two(one: &Option<String>, other: &Option<String>) -> bool {
    one.as_ref().zip(other.as_ref()).is_some_and(|(one, other)| one != other)
}

/// Whether the provider that was found in `found_in` can't be in the project `claimed`.
fn are_two_projects(claimed: &ProjectLookup, found_in: &ProjectLookup, found: &AiProvider) -> bool {
    match (claimed, found_in) {
        (ProjectLookup::Id(id), _) => found.owner != Some(*id),
        (ProjectLookup::Name { .. }, ProjectLookup::Id(_)) => false,
        (ProjectLookup::Name { name, org_name }, ProjectLookup::Name { name: other_name, org_name: other_org }) => {
            name != other_name || are_two(org_name, other_org)
        }
    }
}

#[cfg(test)]
mod tests;
