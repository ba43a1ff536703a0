//! Reads what the configured API keys see. What can't be read becomes a line `unknown`, and changes nothing else.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use serde::Serialize;
use uuid::Uuid;

use super::{NamedProject, Provider, Writer, findings};
use crate::braintrust::ai_provider::{AiProvider, AuthType, Metadata, Place};
use crate::braintrust::arrival;
use crate::braintrust::client::Braintrust;
use crate::braintrust::listing::{Listed, Partial, Project, Rest};
use crate::config::{DataPlane, Destination, Lookup, Source, Target};
use crate::deadline::Deadline;
use crate::error::{Error, shortened};
use crate::services::Services;

/// The answer has room for this many, because Lambda allows it 6 MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const MAX_PROVIDERS: usize = 5_000;
/// Per API key. Each project takes one call.
const MAX_PROJECTS: usize = 5_000;
const CONCURRENT_KEYS: usize = 8;
/// Concurrent calls with one API key: few enough for a data plane's rate limit.
const CONCURRENT_CALLS: usize = 32;
const HOSTED: [&str; 2] = ["https://api.braintrust.dev", "https://api-eu.braintrust.dev"];

/// Everything that was read, judged.
pub struct Inventory<'a> {
    pub urls: Vec<&'a str>,
    pub keys: Vec<KeyReading<'a>>,
    pub providers: Vec<Provider>,
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

struct Read<'a> {
    data_plane: &'a DataPlane,
    providers: Vec<Provider>,
    reading: KeyReading<'a>,
}

impl<'a> Inventory<'a> {
    /// Reads with the API keys of the targets `of`. `targets` are all that are configured, because any of them may write
    /// what those API keys see.
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
        let room = Cell::new(MAX_PROVIDERS);
        let read = async |data_plane: &'a DataPlane| {
            let url = urls.iter().position(|url| *url == data_plane.url()).unwrap_or_default();
            Reader { services, data_plane, url, deadline, room: &room }.read().await
        };
        let mut reads: Vec<_> =
            stream::iter(data_planes).map(read).buffer_unordered(CONCURRENT_KEYS).collect::<Vec<_>>().await;
        // Which key answers first must not decide about the order.
        reads.sort_by_key(|read| (read.data_plane.url(), read.data_plane.api_key_secret_id.as_str()));
        let writers = Writers::find(services, targets, &mut reads, deadline).await;
        let (mut providers, mut keys) = (Vec::new(), Vec::new());
        for Read { providers: found, reading, .. } in reads {
            providers.extend(found);
            keys.push(reading);
        }
        // Two API keys may see the same provider.
        providers.sort_by_key(|provider| (provider.url, provider.id));
        providers.dedup_by_key(|provider| (provider.url, provider.id));
        for provider in &mut providers {
            provider.writers = writers.of(urls.get(provider.url).copied().unwrap_or_default(), provider.id);
        }
        let hosted: Vec<_> = urls.iter().map(|url| HOSTED.contains(url)).collect();
        findings::judge(services.now(), &mut providers, &hosted);
        Self { urls, keys, providers }
    }
}

/// Reads with one API key.
struct Reader<'s, 'a> {
    services: &'s Services,
    data_plane: &'a DataPlane,
    url: usize,
    deadline: Deadline,
    /// How many more providers the inventory takes.
    room: &'s Cell<usize>,
}

impl<'a> Reader<'_, 'a> {
    async fn read(&self) -> Read<'a> {
        let ai_secrets = self.call(async |api| api.bedrock_ai_secrets(self.room.get()).await);
        let projects = self.call(async |api| api.projects(MAX_PROJECTS).await);
        let (ai_secrets, projects) = join(ai_secrets, projects).await;
        let mut unknown = Vec::new();
        let ai_secrets = partly(ai_secrets, "the ai_secrets", &mut unknown);
        let projects = partly(projects, "the projects and their own providers", &mut unknown);
        let mut providers = self.take(ai_secrets.iter().map(|provider| self.provider(provider, None)), &mut unknown);
        let ai_secrets = providers.len();
        let organizations: BTreeSet<_> = providers.iter().filter_map(|provider| provider.organization).collect();
        providers.extend(self.read_projects(&projects, &mut unknown).await);
        let reading = KeyReading {
            api_url: self.data_plane.url(),
            api_key_secret_id: self.data_plane.api_key_secret_id.as_str(),
            organizations: organizations.len(),
            ai_secrets,
            projects: projects.len(),
            project_providers: providers.len() - ai_secrets,
            unknown,
        };
        Read { data_plane: self.data_plane, providers, reading }
    }

    async fn read_projects(&self, projects: &[Project], unknown: &mut Vec<Unknown>) -> Vec<Provider> {
        let list = async |project: &Project| {
            let listed = self.call(async |api| api.bedrock_providers_of(project.id).await).await;
            // Reduced at once, so that the whole answers don't pile up.
            listed.map(|Listed { providers, is_cut_off }| {
                let found: Vec<_> = providers.iter().map(|found| self.provider(found, Some(project))).collect();
                (found, is_cut_off.then(|| shortened(&project.name)))
            })
        };
        let mut listing = stream::iter(projects).map(list).buffer_unordered(CONCURRENT_CALLS);
        let (mut found, mut failed, mut cut_off) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(listed) = listing.next().await {
            match listed {
                Ok((providers, cut_off_project)) => {
                    found.extend(self.take(providers.into_iter(), unknown));
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
        found
    }

    async fn call<T>(&self, call: impl AsyncFn(Braintrust<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.services.braintrust(self.data_plane, self.deadline, call).await
    }

    /// Takes as many as there is room for.
    fn take(&self, found: impl ExactSizeIterator<Item = Provider>, unknown: &mut Vec<Unknown>) -> Vec<Provider> {
        let (count, room) = (found.len(), self.room.get());
        self.room.set(room.saturating_sub(count));
        if count > room && room > 0 {
            let what = format!("all providers after the first {MAX_PROVIDERS}");
            unknown.push(Unknown { what, error: None });
        }
        found.take(room).collect()
    }

    fn provider(&self, found: &AiProvider, project: Option<&Project>) -> Provider {
        Provider {
            url: self.url,
            id: found.id,
            place: found.place,
            name: shortened(&found.name),
            organization: match project {
                Some(project) => project.org_id,
                None => found.owner,
            },
            project: project.map(|project| NamedProject { id: project.id, name: shortened(&project.name) }),
            metadata: small(&found.metadata),
            secret_updated_at: arrival::changed_at(found),
            writers: Vec::new(),
            findings: Vec::new(),
        }
    }
}

/// Somebody else chose the texts.
fn small(metadata: &Metadata) -> Metadata {
    let short = |text: &Option<String>| text.as_deref().map(shortened);
    Metadata {
        auth_type: match &metadata.auth_type {
            AuthType::Other(other) => AuthType::Other(shortened(other)),
            AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey | AuthType::AssumeRole => {
                metadata.auth_type.clone()
            }
        },
        access_key: short(&metadata.access_key),
        region: short(&metadata.region),
        aws_access_key_id: short(&metadata.aws_access_key_id),
        ..metadata.clone()
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

/// Which targets write which provider.
struct Writers<'a>(HashMap<(&'a str, Uuid), Vec<Writer>>);

impl<'a> Writers<'a> {
    async fn find(services: &Services, targets: &'a [Target], reads: &mut [Read<'_>], deadline: Deadline) -> Self {
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
        let finding: Vec<_> = stream::iter(destinations).map(find).buffer_unordered(CONCURRENT_CALLS).collect().await;
        let mut writers: HashMap<_, Vec<Writer>> = HashMap::new();
        for (target, destination, id) in finding {
            match id {
                Ok(id) => {
                    writers.entry((destination.data_plane.url(), id)).or_default().push(writer(target, destination))
                }
                // One that doesn't exist is written by nobody. The check says why.
                Err(error) if !error.is_transient() => {}
                Err(error) => {
                    let what = format!("which provider the target {} writes ({})", target.name, destination.lookup);
                    let read = reads.iter_mut().find(|read| *read.data_plane == destination.data_plane);
                    if let Some(read) = read {
                        read.reading.unknown.push(Unknown { what, error: Some(error) });
                    }
                }
            }
        }
        Self(writers)
    }

    fn of(&self, url: &str, id: Uuid) -> Vec<Writer> {
        let mut writers = self.0.get(&(url, id)).cloned().unwrap_or_default();
        writers.sort_by(|one, other| one.target.cmp(&other.target));
        writers
    }
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
    if let Some(id) = destination.lookup.id() {
        return Some(id);
    }
    let Lookup::Name { name, org_name: None } = &destination.lookup else { return None };
    let read = reads.iter().find(|read| *read.data_plane == destination.data_plane)?;
    let mut named = read.providers.iter().filter(|it| it.place == Place::Organization && it.name == *name);
    match (named.next(), named.next()) {
        // A rotation refuses a name that could be of any of several organizations.
        (Some(only), None) if read.reading.organizations <= 1 && read.reading.unknown.is_empty() => Some(only.id),
        _ => None,
    }
}
