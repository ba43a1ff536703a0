//! Reads what the configured API keys see. What can't be read becomes a line `unknown`.

use std::cell::Cell;
use std::collections::{BTreeSet, HashSet};

use futures_util::StreamExt;
use futures_util::future::join;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::Semaphore;

use super::writers::Writers;
use super::{NamedProject, Provider, findings};
use crate::braintrust::ai_provider::{AiProvider, AuthType};
use crate::braintrust::arrival;
use crate::braintrust::client::Braintrust;
use crate::braintrust::listing::{Listed, Partial, Project, Rest};
use crate::config::{DataPlane, Target};
use crate::deadline::Deadline;
use crate::error::{Error, shortened};
use crate::services::Services;

/// Bytes of the answer for providers. Lambda allows the answer 6 MB.
/// <https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html>
const ROOM: usize = 5_500_000;
/// What a provider takes at most, apart from the texts that somebody else chose.
const FIXED_BYTES: usize = 1_000;
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
    pub providers: Vec<Provider>,
    pub has_all_ai_secrets: bool,
    pub reading: KeyReading<'a>,
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
        let (room, calls) = (Room(Cell::new(ROOM)), Semaphore::new(CONCURRENT_CALLS));
        // The writers have to be found after that.
        let until = deadline.three_quarters();
        let read = async |data_plane: &'a DataPlane| {
            let url = urls.iter().position(|url| *url == data_plane.url()).unwrap_or_default();
            let (room, calls, is_full) = (&room, &calls, Cell::new(false));
            Reader { services, data_plane, url, deadline: until, calls, room, is_full }.read().await
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
            writers.add_to(provider, urls.get(provider.url).copied().unwrap_or_default());
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
    calls: &'s Semaphore,
    room: &'s Room,
    /// Whether there was no room for a provider.
    is_full: Cell<bool>,
}

impl<'a> Reader<'_, 'a> {
    async fn read(&self) -> Read<'a> {
        let ai_secrets = self.call(async |api| api.bedrock_ai_secrets(self.room.0.get() / FIXED_BYTES).await);
        let projects = self.call(async |api| api.projects(MAX_PROJECTS).await);
        let (ai_secrets, projects) = join(ai_secrets, projects).await;
        let mut unknown = Vec::new();
        let ai_secrets = partly(ai_secrets, "the ai_secrets", &mut unknown);
        let mut providers = self.take(ai_secrets.iter().map(|provider| self.provider(provider, None)));
        let has_all_ai_secrets = unknown.is_empty() && !self.is_full.get();
        let projects = partly(projects, "the projects and their own providers", &mut unknown);
        let ai_secrets = providers.len();
        let organizations: BTreeSet<_> = providers.iter().filter_map(|provider| provider.organization).collect();
        providers.extend(self.read_projects(&projects, &mut unknown).await);
        if self.is_full.get() {
            unknown.push(Unknown { what: "the providers for which the answer has no room".to_owned(), error: None });
        }
        let reading = KeyReading {
            api_url: self.data_plane.url(),
            api_key_secret_id: self.data_plane.api_key_secret_id.as_str(),
            organizations: organizations.len(),
            ai_secrets,
            projects: projects.len(),
            project_providers: providers.len() - ai_secrets,
            unknown,
        };
        Read { data_plane: self.data_plane, providers, has_all_ai_secrets, reading }
    }

    async fn read_projects(&self, projects: &[Project], unknown: &mut Vec<Unknown>) -> Vec<Provider> {
        let list = async |project: &Project| {
            let listed = self.call(async |api| api.bedrock_providers_of(project.id).await).await;
            // Reduced at once, so that the whole answers don't pile up.
            listed.map(|Listed { providers, is_cut_off }| {
                let found: Vec<_> = providers.iter().map(|found| self.provider(found, Some(project))).collect();
                (found, is_cut_off.then(|| project.name.clone()))
            })
        };
        let mut listing = stream::iter(projects).map(list).buffer_unordered(CONCURRENT_CALLS);
        let (mut found, mut failed, mut cut_off) = (Vec::new(), Vec::new(), Vec::new());
        while let Some(listed) = listing.next().await {
            match listed {
                Ok((providers, cut_off_project)) => {
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
        found
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

/// The bytes that are left in the answer.
struct Room(Cell<usize>);

impl Room {
    /// Takes providers while there is room, and says whether there was none for some.
    fn take(&self, found: impl Iterator<Item = Provider>) -> (Vec<Provider>, bool) {
        let mut is_full = false;
        let fits = |provider: &Provider| {
            let left = self.0.get().checked_sub(bytes(provider));
            is_full = left.is_none();
            self.0.set(left.unwrap_or_default());
            !is_full
        };
        let taken = found.take_while(fits).collect();
        (taken, is_full)
    }
}

/// How long a provider is in the answer.
fn bytes(provider: &Provider) -> usize {
    let metadata = &provider.metadata;
    let other = match &metadata.auth_type {
        AuthType::Other(other) => Some(other),
        AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey | AuthType::AssumeRole => None,
    };
    let project = provider.project.as_ref().map(|project| &project.name);
    let texts = [Some(&provider.name), project, other, metadata.region.as_ref(), metadata.access_key.as_ref()];
    let texts = texts.into_iter().flatten().chain(&metadata.aws_access_key_id);
    FIXED_BYTES + texts.flat_map(|text| text.chars()).map(bytes_in_json).sum::<usize>()
}

fn bytes_in_json(character: char) -> usize {
    match character {
        '"' | '\\' => 2,
        '\0'..' ' => 6,
        _ => character.len_utf8(),
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::braintrust::ai_provider::Place;

    fn named(name: &str) -> Provider {
        Provider {
            url: 0,
            id: Uuid::nil(),
            place: Place::Organization,
            name: name.to_owned(),
            organization: None,
            project: None,
            metadata: Default::default(),
            secret_updated_at: None,
            writers: Vec::new(),
            possible_targets: Vec::new(),
            findings: Vec::new(),
        }
    }

    #[test]
    fn whoever_finds_no_room_is_told_even_if_it_was_filled_exactly() {
        let three = || (0..3).map(|_| named("x"));
        for (room, expected) in [
            (3_003, [(3, false), (0, true)]),
            (3_002, [(2, true), (0, true)]),
            (5_500, [(3, false), (2, true)]),
            (9_000, [(3, false), (3, false)]),
        ] {
            let room = Room(Cell::new(room));
            let found = expected.map(|_| room.take(three())).map(|(taken, is_full)| (taken.len(), is_full));
            assert_eq!(found, expected);
        }
        assert!(!Room(Cell::new(0)).take([].into_iter()).1);
    }

    #[test]
    fn a_text_counts_as_long_as_it_is_in_json() {
        for text in ["a", "\"\\", "\n\t\u{1}\u{1f}", "\u{7f}\u{2028}", "資", "😀"] {
            let in_json = json!(text).to_string().len() - 2;
            let counted = bytes(&named(text)) - FIXED_BYTES;
            assert!((in_json..=in_json * 3).contains(&counted), "{text:?}: {counted}, not {in_json}");
        }
    }
}
