//! Lists all Bedrock providers that an API key sees, for the inventory.

use uuid::Uuid;

use super::ai_provider::{AiProvider, AuthType, BEDROCK, Metadata, Place};
use super::ai_secrets::{AiSecret, OF_TYPE};
use super::client::{Braintrust, End};
pub use super::organizations::Organization;
use super::project_providers::LIST_PROJECTS;
pub use super::project_providers::{Listed, Project};
use crate::error::{Error, shortened};

/// A list, as far as it was read.
pub struct Partial<T> {
    pub found: Vec<T>,
    /// Why the list ends early, if it does.
    pub rest: Option<Rest>,
}

/// Why the rest of a list was not read.
pub enum Rest {
    /// The list is longer than the inventory's limit.
    TooMany,
    Failed(Error),
}

impl<T> Partial<T> {
    /// An error at the start of a list is an error of the whole list, so that a refused API key is read again.
    fn of(found: Vec<T>, end: Result<End, Error>) -> Result<Self, Error> {
        let rest = match end {
            Ok(End::Last) => None,
            Ok(End::Enough | End::TooManyPages) => Some(Rest::TooMany),
            Err(error) if found.is_empty() => return Err(error),
            Err(error) => Some(Rest::Failed(error)),
        };
        Ok(Self { found, rest })
    }
}

impl Braintrust<'_> {
    /// The organizations' `ai_secret`s of type `bedrock`.
    pub async fn bedrock_ai_secrets(&self, limit: usize) -> Result<Partial<AiProvider>, Error> {
        let mut request = self.request(Place::Organization.list(), None);
        request.url.query_pairs_mut().append_pair(OF_TYPE, BEDROCK);
        let mut found = Vec::new();
        let take = |page: Vec<AiSecret>| {
            // An older data plane may ignore the filter.
            let bedrock = page.into_iter().map(|AiSecret(provider)| provider).filter(AiProvider::is_bedrock);
            found.extend(bedrock.map(small).take(limit.saturating_sub(found.len())));
            found.len() < limit
        };
        let end = self.each_page(&request, |AiSecret(provider)| provider.id, take).await;
        Partial::of(found, end)
    }

    pub async fn projects(&self, limit: usize) -> Result<Partial<Project>, Error> {
        let mut found = Vec::new();
        let take = |page: Vec<Project>| {
            let existing = page.into_iter().filter(|project| project.deleted_at.is_none());
            let small = existing.map(|project| Project { name: shortened(&project.name), ..project });
            found.extend(small.take(limit.saturating_sub(found.len())));
            found.len() < limit
        };
        let end = self.each_page(&self.request(LIST_PROJECTS, None), |project: &Project| project.id, take).await;
        Partial::of(found, end)
    }

    /// A project's own providers of type `bedrock`.
    pub async fn bedrock_providers_of(&self, project: Uuid) -> Result<Listed, Error> {
        let Listed { providers, is_cut_off } = self.list_in_project(project, None).await?;
        Ok(Listed { providers: providers.into_iter().filter(AiProvider::is_bedrock).map(small).collect(), is_cut_off })
    }
}

/// Shortens the texts, which others chose, because there may be thousands of providers.
fn small(provider: AiProvider) -> AiProvider {
    let short = |text: Option<String>| text.as_deref().map(shortened);
    let Metadata { auth_type, access_key, region, aws_access_key_id, .. } = provider.metadata;
    let auth_type = match auth_type {
        AuthType::Other(other) => AuthType::Other(shortened(&other)),
        AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey | AuthType::AssumeRole => {
            auth_type
        }
    };
    let (access_key, region, aws_access_key_id) = (short(access_key), short(region), short(aws_access_key_id));
    let metadata = Metadata { auth_type, access_key, region, aws_access_key_id, ..provider.metadata };
    AiProvider { name: shortened(&provider.name), metadata, ..provider }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::test_server::{Answer, TestServer};
    use super::*;
    use crate::error::ErrorClass;

    fn page(from: u128, to: u128, more: &Value) -> Answer {
        let objects: Vec<_> = (from..=to)
            .map(|id| {
                let mut object =
                    json!({"id": Uuid::from_u128(id), "name": "x", "org_id": Uuid::max(), "type": "bedrock"});
                object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
                object
            })
            .collect();
        Answer::json(&json!({"objects": objects}))
    }

    fn none() -> Answer {
        Answer::json(&json!({"objects": []}))
    }

    #[tokio::test]
    async fn a_list_is_read_to_its_end_or_to_the_limit_and_says_which() {
        for (limit, found, is_cut_off) in [(1_000, 60, false), (60, 60, true), (55, 55, true)] {
            let server = TestServer::start_with([page(1, 50, &json!({})), page(51, 60, &json!({})), none()]);
            let listed = server.api().bedrock_ai_secrets(limit).await.unwrap();
            assert_eq!(
                (listed.found.len(), matches!(listed.rest, Some(Rest::TooMany))),
                (found, is_cut_off),
                "{limit}"
            );
        }
    }

    #[tokio::test]
    async fn texts_are_shortened() {
        let long = "x".repeat(10_000);
        let more = json!({"name": long, "metadata": {"auth_type": long, "access_key": long, "region": long}});
        let server = TestServer::start_with([page(1, 1, &more), none()]);
        let found = server.api().bedrock_ai_secrets(9).await.unwrap().found;
        assert!(found[0].name.len() < 110 && format!("{:?}", found[0]).len() < 1_000);
        let server = TestServer::start_with([page(1, 1, &more), none()]);
        assert!(server.api().projects(9).await.unwrap().found[0].name.len() < 110);
    }

    #[tokio::test]
    async fn providers_of_another_type_and_deleted_projects_are_left_out() {
        let server = TestServer::start_with([page(1, 3, &json!({"type": "openai"})), none()]);
        assert!(server.api().bedrock_ai_secrets(9).await.unwrap().found.is_empty());
        let server = TestServer::start_with([page(1, 3, &json!({"deleted_at": "2026-01-01T00:00:00Z"})), none()]);
        assert!(server.api().projects(9).await.unwrap().found.is_empty());
    }

    #[tokio::test]
    async fn an_error_at_the_start_is_the_lists_and_a_later_one_leaves_what_was_read() {
        let server = TestServer::start_with([Answer::status(403)]);
        assert_eq!(server.api().projects(9).await.err().unwrap().class, ErrorClass::Permission);
        let server = TestServer::start_with([page(1, 50, &json!({})), Answer::status(403)]);
        let listed = server.api().projects(1_000).await.unwrap();
        assert!(matches!(&listed.rest, Some(Rest::Failed(error)) if error.class == ErrorClass::Permission));
        assert_eq!(listed.found.len(), 50);
    }
}
