//! Reads what the configured API keys see. What can't be read becomes a line `unknown`.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::StreamExt;
use futures_util::future::join3;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::room::Room;
use super::writers::Writers;
use super::{NamedProject, Provider, findings};
use crate::braintrust::ai_provider::AiProvider;
use crate::braintrust::arrival;
use crate::braintrust::client::Braintrust;
use crate::braintrust::listing::{Listed, Organization, Partial, Project, Rest};
use crate::config::{DataPlane, Target};
use crate::deadline::Deadline;
use crate::error::{Error, shortened};
use crate::services::Services;

/// Per API key. The answer has no room for more.
const MAX_AI_SECRETS: usize = 5_500;
/// Per API key. Each project takes one call.
const MAX_PROJECTS: usize = 5_000;
const CONCURRENT_KEYS: usize = 4;
/// Concurrent calls with all API keys: few enough for a data plane's rate limit, and for the function's memory if each
/// answer has 1 MB.
pub(super) const CONCURRENT_CALLS: usize = 16;
const HOSTED: [&str; 2] = ["https://api.braintrust.dev", "https://api-eu.braintrust.dev"];

/// Everything that was read, judged.
pub struct Inventory<'a> {
    pub urls: Vec<&'a str>,
    pub keys: Vec<KeyReading<'a>>,
    pub providers: Vec<Provider>,
    /// The names of the organizations, as far as the API keys see them.
    pub organizations: HashMap<Uuid, String>,
}

/// What one API key sees.
#[derive(Serialize)]
pub struct KeyReading<'a> {
    pub api_url: &'a str,
    pub api_key_secret_id: &'a str,
    pub organizations: usize,
    pub ai_secrets: usize,
    pub projects: usize,
    pub project_providers: usize,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<Unknown>,
}

/// Something that was not read.
#[derive(Clone, Debug, Serialize)]
pub struct Unknown {
    pub what: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Error>,
}

pub(super) struct Read<'a> {
    pub data_plane: &'a DataPlane,
    /// Without those that were already read with another API key.
    pub providers: Vec<Provider>,
    /// The only organization whose `ai_secret`s the API key sees, if all of them were read.
    pub only_organization: Option<Option<Uuid>>,
    pub organizations: Vec<Organization>,
    pub reading: KeyReading<'a>,
}

impl<'a> Inventory<'a> {
    /// Reads with the API keys of the targets `of`. `targets` are all that are configured, because any of them may
    /// write what those API keys see.
    pub async fn read(services: &Services, of: &[&'a Target], targets: &'a [Target], deadline: Deadline) -> Self {
        let mut data_planes: Vec<&DataPlane> = Vec::new();
        let mut seen = HashSet::new();
        for destination in of.iter().flat_map(|target| &target.destinations) {
            if seen.insert(&destination.data_plane) {
                data_planes.push(&destination.data_plane);
            }
        }
        let mut urls: Vec<&str> = data_planes.iter().map(|data_plane| data_plane.url()).collect();
        urls.sort_unstable();
        urls.dedup();
        let (room, calls) = (Room::of_the_answer(), Semaphore::new(CONCURRENT_CALLS));
        // The writers have to be found after that.
        let until = deadline.three_quarters();
        let read = async |data_plane: &'a DataPlane| {
            let url = urls.iter().position(|url| *url == data_plane.url()).unwrap_or_default();
            let (room, calls, is_full) = (&room, &calls, Cell::new(false));
            Reader { services, data_plane, url, deadline: until, calls, room, is_full }.read().await
        };
        let mut reads: Vec<_> =
            stream::iter(data_planes).map(read).buffer_unordered(CONCURRENT_KEYS).collect::<Vec<_>>().await;
        // The order must not depend on which key answers first.
        reads.sort_by_key(|read| (read.data_plane.url(), read.data_plane.api_key_secret_id.as_str()));
        let writers = Writers::find(services, targets, &mut reads, deadline).await;
        let (mut providers, mut keys, mut organizations) = (Vec::new(), Vec::new(), HashMap::new());
        for Read { providers: found, organizations: named, reading, .. } in reads {
            providers.extend(found);
            organizations.extend(named.into_iter().map(|one| (one.id, shortened(&one.name))));
            keys.push(reading);
        }
        providers.sort_by_key(|provider| (provider.url, provider.id));
        for provider in &mut providers {
            writers.add_to(provider, urls.get(provider.url).copied().unwrap_or_default());
        }
        let hosted: Vec<_> = urls.iter().map(|url| HOSTED.contains(url)).collect();
        findings::judge(services.now(), &mut providers, &hosted);
        Self { urls, keys, providers, organizations }
    }
}

/// Reads with one API key.
struct Reader<'s, 'a> {
    services: &'s Services,
    data_plane: &'a DataPlane,
    url: usize,
    deadline: Deadline,
    calls: &'s Semaphore,
    room: &'s Room,
    /// Whether the answer had too little room for what this API key sees.
    is_full: Cell<bool>,
}

impl<'a> Reader<'_, 'a> {
    async fn read(&self) -> Read<'a> {
        let ai_secrets = self.call(async |api| api.bedrock_ai_secrets(MAX_AI_SECRETS).await);
        let projects = self.call(async |api| api.projects(MAX_PROJECTS).await);
        let organizations = self.call(async |api| api.organizations().await);
        let (ai_secrets, projects, organizations) = join3(ai_secrets, projects, organizations).await;
        let mut unknown = Vec::new();
        let ai_secrets = partly(ai_secrets, "the ai_secrets", &mut unknown);
        let owners: BTreeSet<_> = ai_secrets.iter().filter_map(|provider| provider.owner).collect();
        let mut providers = self.take(ai_secrets.iter().map(|provider| self.provider(provider, None)));
        let has_only_one = owners.len() <= 1 && unknown.is_empty() && !self.is_full.get();
        let projects = partly(projects, "the projects and their own providers", &mut unknown);
        let (found, project_providers) = self.read_projects(&projects, &mut unknown).await;
        providers.extend(found);
        if self.is_full.get() {
            unknown.push(Unknown { what: "the providers for which the answer has no room".to_owned(), error: None });
        }
        let organizations = organizations.unwrap_or_else(|error| {
            unknown.push(Unknown { what: "the names of the organizations".to_owned(), error: Some(error) });
            Vec::new()
        });
        let reading = KeyReading {
            api_url: self.data_plane.url(),
            api_key_secret_id: self.data_plane.api_key_secret_id.as_str(),
            organizations: owners.len(),
            ai_secrets: ai_secrets.len(),
            projects: projects.len(),
            project_providers,
            unknown,
        };
        let only_organization = has_only_one.then(|| owners.first().copied());
        Read { data_plane: self.data_plane, providers, only_organization, organizations, reading }
    }

    /// Returns how many providers there are, too.
    async fn read_projects(&self, projects: &[Project], unknown: &mut Vec<Unknown>) -> (Vec<Provider>, usize) {
        let list = async |project: &Project| {
            let listed = self.call(async |api| api.bedrock_providers_of(project.id).await).await;
            // Reduced at once, so that the whole answers don't pile up.
            listed.map(|Listed { providers, is_cut_off }| {
                let found: Vec<_> = providers.iter().map(|found| self.provider(found, Some(project))).collect();
                (found, is_cut_off.then(|| project.name.clone()))
            })
        };
        let mut listing = stream::iter(projects).map(list).buffer_unordered(CONCURRENT_CALLS);
        let (mut found, mut count, mut failed, mut cut_off) = (Vec::new(), 0, Vec::new(), Vec::new());
        while let Some(listed) = listing.next().await {
            match listed {
                Ok((providers, cut_off_project)) => {
                    count += providers.len();
                    found.extend(self.take(providers.into_iter()));
                    cut_off.extend(cut_off_project);
                }
                Err(error) => failed.push(error),
            }
        }
        let what = |count: usize| format!("the own providers of {count} of {} projects", projects.len());
        if let Some(first) = failed.first() {
            unknown.push(Unknown { what: what(failed.len()), error: Some(first.clone()) });
        }
        if !cut_off.is_empty() {
            let what =
                format!("the rest of the variables of these projects, which have too many: {}", cut_off.join(", "));
            unknown.push(Unknown { what: shortened(&what), error: None });
        }
        (found, count)
    }

    async fn call<T>(&self, call: impl AsyncFn(Braintrust<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let _permit = self.calls.acquire().await;
        self.services.braintrust(self.data_plane, self.deadline, call).await
    }

    fn take(&self, found: impl Iterator<Item = Provider>) -> Vec<Provider> {
        let (taken, is_full) = self.room.take(found);
        self.is_full.set(self.is_full.get() || is_full);
        taken
    }

    fn provider(&self, found: &AiProvider, project: Option<&Project>) -> Provider {
        Provider {
            url: self.url,
            id: found.id,
            place: found.place,
            name: found.name.clone(),
            organization: match project {
                Some(project) => project.org_id,
                None => found.owner,
            },
            project: project.map(|project| NamedProject { id: project.id, name: project.name.clone() }),
            metadata: found.metadata.clone(),
            secret_updated_at: arrival::changed_at(found),
            writers: Vec::new(),
            possible_targets: Vec::new(),
            findings: Vec::new(),
        }
    }
}

fn partly<T>(read: Result<Partial<T>, Error>, what: &str, unknown: &mut Vec<Unknown>) -> Vec<T> {
    let (found, error) = match read {
        Ok(Partial { found, rest: None }) => return found,
        Ok(Partial { found, rest: Some(Rest::TooMany) }) => (found, None),
        Ok(Partial { found, rest: Some(Rest::Failed(error)) }) => (found, Some(error)),
        Err(error) => (Vec::new(), Some(error)),
    };
    let what = if found.is_empty() { what.to_owned() } else { format!("{what} after the first {}", found.len()) };
    unknown.push(Unknown { what, error });
    found
}
