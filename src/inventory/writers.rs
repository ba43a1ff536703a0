//! Which targets write a provider, and which may write it. If a target's API key is refused at the moment, the target's
//! provider must not be reported as one that no target writes.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream;
use uuid::Uuid;

use super::reading::{CONCURRENT_CALLS, Read, Unknown};
use super::{Provider, Writer};
use crate::braintrust::ai_provider::Place;
use crate::braintrust::client::Braintrust;
use crate::config::{Destination, Lookup, ProjectLookup, ProviderLookup, Source, Target};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, shortened};
use crate::services::Services;

pub struct Writers<'a> {
    found: HashMap<(&'a str, Uuid), Vec<Writer>>,
    not_found: Vec<(&'a Target, &'a Destination)>,
}

impl<'a> Writers<'a> {
    pub async fn find(services: &Services, targets: &'a [Target], reads: &mut [Read<'_>], deadline: Deadline) -> Self {
        let destinations = targets.iter().flat_map(|target| target.destinations.iter().map(move |it| (target, it)));
        let is_read = |url: &str| reads.iter().any(|read| read.data_plane.url() == url);
        let destinations: Vec<_> = destinations.filter(|(_, it)| is_read(it.data_plane.url())).collect();
        let find = async |(target, destination): (&'a Target, &'a Destination)| {
            let id = match known_id(destination, reads) {
                Some(id) => Ok(id),
                None => {
                    let find = async |api: Braintrust<'_>| api.find(&destination.lookup).await;
                    services.braintrust(&destination.data_plane, deadline, find).await.map(|found| found.id)
                }
            };
            (target, destination, id)
        };
        let finding: Vec<_> = stream::iter(destinations).map(find).buffered(CONCURRENT_CALLS).collect().await;
        let (mut found, mut not_found) = (HashMap::<_, Vec<_>>::new(), Vec::new());
        let mut failed = BTreeMap::<_, (Vec<&str>, Error)>::new();
        for (target, destination, id) in finding {
            match id {
                Ok(id) => {
                    found.entry((destination.data_plane.url(), id)).or_default().push(writer(target, destination))
                }
                Err(error) => {
                    not_found.push((target, destination));
                    // The check says why there is none.
                    if error.class != ErrorClass::NotFound {
                        let (names, _) = failed.entry(nearest(destination, reads)).or_insert((Vec::new(), error));
                        if names.last() != Some(&target.name.as_str()) {
                            names.push(target.name.as_str());
                        }
                    }
                }
            }
        }
        for (position, (names, error)) in failed {
            let what = shortened(&format!("which providers these targets write: {}", names.join(", ")));
            if let Some(read) = position.and_then(|position| reads.get_mut(position)) {
                read.reading.unknown.push(Unknown { what, error: Some(error) });
            }
        }
        Self { found, not_found }
    }

    /// Adds the targets to a provider of the data plane `url`.
    pub fn add_to(&self, provider: &mut Provider, url: &str) {
        provider.writers = self.found.get(&(url, provider.id)).cloned().unwrap_or_default();
        provider.writers.sort_by(|one, other| one.target.cmp(&other.target));
        let possible = self.not_found.iter().filter(|(_, destination)| could_be(destination, url, provider));
        provider.possible_targets = possible.map(|(target, _)| target.name.to_string()).collect();
        provider.possible_targets.sort();
        provider.possible_targets.dedup();
    }
}

/// The API key of the destination, or another one of its data plane.
fn nearest(destination: &Destination, reads: &[Read<'_>]) -> Option<usize> {
    let exact = reads.iter().position(|read| *read.data_plane == destination.data_plane);
    exact.or_else(|| reads.iter().position(|read| read.data_plane.url() == destination.data_plane.url()))
}

fn writer(target: &Target, destination: &Destination) -> Writer {
    let lifetime = match &target.source {
        Source::RoleBased(source) => Some(Duration::from_secs(source.role.duration_seconds.into())),
        Source::UserBased(_) => None,
    };
    Writer { target: target.name.to_string(), lifetime, by_name: destination.lookup.name().is_some() }
}

/// The ID of a destination, if it needs no call. Otherwise Braintrust decides, exactly as in a rotation.
fn known_id(destination: &Destination, reads: &[Read<'_>]) -> Option<Uuid> {
    match &destination.lookup {
        Lookup::Id(id) => Some(*id),
        Lookup::Name { name, org_name: None } => {
            // A rotation refuses a name that could be of any of several organizations.
            let read = reads.iter().find(|read| *read.data_plane == destination.data_plane)?;
            let organization = read.only_organization?;
            let of_url = reads.iter().filter(|it| it.data_plane.url() == read.data_plane.url());
            let mut named = of_url
                .flat_map(|read| &read.providers)
                .filter(|it| it.place == Place::Organization && it.organization == organization && it.name == *name);
            match (named.next(), named.next()) {
                (Some(only), None) => Some(only.id),
                _ => None,
            }
        }
        // A rotation refuses a provider of another project.
        Lookup::InProject { project: ProjectLookup::Id(_), provider: ProviderLookup::Id(id) } => {
            let url = destination.data_plane.url();
            let of_url = reads.iter().filter(|read| read.data_plane.url() == url);
            of_url.flat_map(|read| &read.providers).any(|it| could_be(destination, url, it)).then_some(*id)
        }
        Lookup::Name { org_name: Some(_), .. } | Lookup::InProject { .. } => None,
    }
}

/// Whether a provider of the data plane `url` could be the one that a destination names.
fn could_be(destination: &Destination, url: &str, provider: &Provider) -> bool {
    let lookup = &destination.lookup;
    let is_named_project = match (lookup.project(), &provider.project) {
        (None, _) => true,
        (Some(ProjectLookup::Id(id)), Some(project)) => project.id == *id,
        (Some(ProjectLookup::Name { name, .. }), Some(project)) => project.name == shortened(name),
        (Some(_), None) => false,
    };
    destination.data_plane.url() == url
        && Place::of(lookup) == provider.place
        && lookup.id().is_none_or(|id| id == provider.id)
        && lookup.name().is_none_or(|name| shortened(name) == provider.name)
        && is_named_project
}
