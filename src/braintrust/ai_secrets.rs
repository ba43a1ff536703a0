//! Finds an organization's `ai_secret` by its name.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::ai_provider::{AiProvider, BEDROCK, MAX_CANDIDATES, Place, Record, candidates};
use super::client::Braintrust;
use crate::config::Lookup;
use crate::error::{Error, ErrorClass, Service, shortened};

const LIST: &str = Place::Organization.list();
pub(super) const OF_TYPE: &str = "ai_secret_type";

/// A provider in a list of `ai_secret`s.
#[derive(Deserialize)]
#[serde(from = "Record")]
pub(super) struct AiSecret(pub AiProvider);

impl From<Record> for AiSecret {
    fn from(record: Record) -> Self {
        Self(AiProvider::of(Place::Organization, record))
    }
}

impl Braintrust<'_> {
    /// Finds the one `ai_secret` of that name.
    pub(super) async fn find_ai_secret(
        &self,
        lookup: &Lookup,
        name: &str,
        org_name: Option<&str>,
    ) -> Result<AiProvider, Error> {
        // An older data plane may ignore the filter.
        let is_named = |ai_secret: &AiProvider| ai_secret.name == name;
        let found = match org_name {
            Some(_) => {
                let is_wanted = |ai_secret: &AiProvider| is_named(ai_secret) && ai_secret.is_bedrock();
                self.list(org_name, "ai_secret_name", name, &is_wanted, MAX_CANDIDATES + 1).await?
            }
            None => self.named_in_the_only_organization(lookup, is_named).await?,
        };
        let failed = |class, problem, remedy| Err(Error::new(class, Service::Braintrust, LIST, problem, remedy));
        if found.len() > 1 {
            let problem = format!("several ai_secrets are named {lookup}: {}", listed(&found));
            let remedy = "Name the ai_secret by its ID (the parameter AiSecretId, or id in the target's ai_secrets)";
            return failed(ErrorClass::Conflict, problem, remedy);
        }
        if let Some(only) = found.first()
            && let (Some(org), Some(org_name)) = (only.owner, org_name)
            && self.is_another_organization(org, org_name).await?
        {
            let problem = format!("{lookup} is not in that organization: {}", listed(&found));
            let remedy = "Correct the names, or name the ai_secret by its ID (the parameter AiSecretId, or id in the \
                          target's ai_secrets)";
            return failed(ErrorClass::Conflict, problem, remedy);
        }
        if let Some(only) = found.into_iter().next() {
            return Ok(only);
        }
        // One of another type is returned, because `layout::choose` refuses it with a better error.
        let others = self.list(org_name, "ai_secret_name", name, &is_named, 1).await?;
        if let Some(other) = others.into_iter().next() {
            return Ok(other);
        }
        let others = self.list(org_name, OF_TYPE, BEDROCK, &AiProvider::is_bedrock, MAX_CANDIDATES + 1).await?;
        let problem = format!("no ai_secret is named {lookup}. Those of type bedrock: {}", listed(&others));
        let remedy = "Name one of them (the parameter AiSecretName, or the target's ai_secrets), or create the \
                      ai_secret in Braintrust first";
        failed(ErrorClass::NotFound, problem, remedy)
    }

    /// A name is unique only within an organization. If the key sees several organizations and the right `ai_secret` is
    /// renamed, the only one with that name would be another organization's.
    async fn named_in_the_only_organization(
        &self,
        lookup: &Lookup,
        is_named: impl Fn(&AiProvider) -> bool,
    ) -> Result<Vec<AiProvider>, Error> {
        let all = self.list(None, OF_TYPE, BEDROCK, &AiProvider::is_bedrock, usize::MAX).await?;
        let organizations: BTreeSet<_> = all.iter().filter_map(|ai_secret| ai_secret.owner).collect();
        let (named, others): (Vec<_>, Vec<_>) = all.into_iter().partition(is_named);
        if organizations.len() <= 1 {
            return Ok(named);
        }
        let candidates = listed(if named.is_empty() { &others } else { &named });
        let problem = format!(
            "the API key sees ai_secrets of {} organizations, and {lookup} could be of any of them: {candidates}",
            organizations.len()
        );
        let remedy = "Name the organization, too (the parameter BraintrustOrgName, or org_name in the target's \
                      ai_secrets), or name the ai_secret by its ID (the parameter AiSecretId, or id)";
        Err(Error::new(ErrorClass::Conflict, Service::Braintrust, LIST, problem, remedy))
    }

    async fn list(
        &self,
        org_name: Option<&str>,
        filter: &str,
        value: &str,
        is_wanted: &dyn Fn(&AiProvider) -> bool,
        enough: usize,
    ) -> Result<Vec<AiProvider>, Error> {
        let mut request = self.request(LIST, None);
        let org_name = org_name.map(|org| ("org_name", org));
        request.url.query_pairs_mut().append_pair(filter, value).extend_pairs(org_name);
        let is_wanted = |ai_secret: &AiSecret| is_wanted(&ai_secret.0);
        let found = self.pages(&request, |ai_secret: &AiSecret| ai_secret.0.id, &is_wanted, enough).await?;
        Ok(found.into_iter().map(|ai_secret| ai_secret.0).collect())
    }
}

fn listed(found: &[AiProvider]) -> String {
    candidates(found, |ai_secret| {
        let org = ai_secret.owner.map(|org| format!(" of organization {org}")).unwrap_or_default();
        format!("{} ({:?}{org})", ai_secret.id, shortened(&ai_secret.name))
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::super::test_server::{Answer, TestServer};
    use super::*;

    fn stored(id: u128, name: &str, provider: &str) -> Value {
        json!({"id": Uuid::from_u128(id), "org_id": Uuid::max(), "name": name, "type": provider})
    }

    /// A data plane that pages and, unless it is an old one, filters.
    fn data_plane(ai_secrets: Vec<Value>, filters: bool) -> TestServer {
        TestServer::start(move |received| {
            if received.target.starts_with("/v1/organization") {
                let organizations = [(Uuid::max(), "Acme & Co"), (Uuid::nil(), "Other")];
                let objects = organizations.map(|(id, name)| json!({"id": id, "name": name}));
                return Answer::json(&json!({"objects": objects}));
            }
            let is_in = |ai_secret: &Value, parameter: &str, field: &str| {
                received.query(parameter).is_none_or(|value| !filters || ai_secret[field] == value.as_str())
            };
            let cursor = received.query("starting_after");
            let objects: Vec<_> = ai_secrets
                .iter()
                .skip_while(|it| cursor.as_deref().is_some_and(|last| it["id"] != last))
                .skip(usize::from(cursor.is_some()))
                .filter(|it| is_in(it, "ai_secret_name", "name") && is_in(it, "ai_secret_type", "type"))
                .take(2)
                .collect();
            Answer::json(&json!({"objects": objects}))
        })
    }

    fn by_name(name: &str) -> Lookup {
        Lookup::Name { name: name.to_owned(), org_name: None }
    }

    #[tokio::test]
    async fn the_one_of_type_bedrock_is_found_by_its_name_whether_the_data_plane_filters_or_not() {
        for filters in [true, false] {
            let others = [stored(1, "a", "bedrock"), stored(2, "c", "bedrock"), stored(3, "b", "openai")];
            let server = data_plane(others.into_iter().chain([stored(4, "b", "bedrock")]).collect(), filters);
            assert_eq!(server.api().find(&by_name("b")).await.unwrap().id, Uuid::from_u128(4), "{filters}");
        }
    }

    #[tokio::test]
    async fn the_organization_is_asked_for() {
        let server = data_plane(vec![stored(1, "a", "bedrock")], true);
        let lookup = Lookup::Name { name: "a".to_owned(), org_name: Some("Acme & Co".to_owned()) };
        server.api().find(&lookup).await.unwrap();
        let received = server.received();
        let mut pages = received.iter().filter(|page| page.target.starts_with("/v1/ai_secret"));
        assert!(pages.all(|page| page.query("org_name").as_deref() == Some("Acme & Co")));
    }

    #[tokio::test]
    async fn one_of_another_organization_than_the_named_one_is_refused() {
        let find = async |org_id: Value, org_name: &str| {
            let mut only = stored(1, "b", "bedrock");
            only["org_id"] = org_id;
            let lookup = Lookup::Name { name: "b".to_owned(), org_name: Some(org_name.to_owned()) };
            data_plane(vec![only], false).api().find(&lookup).await
        };
        for (org_id, org_name) in [(Uuid::nil(), "Acme & Co"), (Uuid::max(), "Other"), (Uuid::max(), "Gone")] {
            let error = find(json!(org_id), org_name).await.unwrap_err();
            assert_eq!((error.class, error.call), (ErrorClass::Conflict, LIST), "{org_name}");
            assert!(error.problem.contains(&org_id.to_string()), "{error}");
        }
        // Unless Braintrust says of which organization it is, the filter is trusted.
        for (org_id, org_name) in [(json!(Uuid::max()), "Acme & Co"), (json!(Uuid::from_u128(7)), "Gone")] {
            find(org_id, org_name).await.unwrap();
        }
        find(json!(null), "Acme & Co").await.unwrap();
    }

    #[tokio::test]
    async fn a_name_without_an_organization_is_refused_while_the_key_sees_several() {
        let of = |id: u128, name: &str, org: u128| {
            let mut ai_secret = stored(id, name, "bedrock");
            ai_secret["org_id"] = json!(Uuid::from_u128(org));
            ai_secret
        };
        for (case, ai_secrets) in [
            ("the right one was renamed", vec![of(1, "renamed", 8), of(2, "b", 9)]),
            ("each has one", vec![of(1, "b", 8), of(2, "b", 9)]),
            ("none is named so", vec![of(1, "a", 8), of(2, "c", 9)]),
            ("the other one is on a later page", vec![of(1, "b", 8), of(2, "c", 8), of(3, "d", 8), of(4, "e", 9)]),
        ] {
            for filters in [true, false] {
                let error = data_plane(ai_secrets.clone(), filters).api().find(&by_name("b")).await.unwrap_err();
                assert_eq!(error.class, ErrorClass::Conflict, "{case}");
                assert!(error.problem.contains("of 2 organizations") && error.remedy.contains("org_name"), "{error}");
                assert!(error.problem.contains("00000000-0000-0000-0000-00000000000"), "{error}");
            }
        }
        let mut elsewhere = stored(3, "b", "openai");
        elsewhere["org_id"] = json!(Uuid::nil());
        let of_another_type = data_plane(vec![of(1, "b", 8), elsewhere], true);
        assert_eq!(of_another_type.api().find(&by_name("b")).await.unwrap().id, Uuid::from_u128(1));
        assert_eq!(of_another_type.received().len(), 2, "one page and the end");
    }

    #[tokio::test]
    async fn several_of_one_name_are_a_conflict_that_lists_at_most_ten() {
        for (count, ends_with) in [(2, Uuid::max().to_string()), (12, "…".to_owned())] {
            let server = data_plane((1..=count).map(|id| stored(id, "b", "bedrock")).collect(), true);
            let error = server.api().find(&by_name("b")).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::Conflict);
            assert!(error.problem.trim_end_matches(')').ends_with(&ends_with), "{error}");
            assert_eq!(error.problem.matches("\"b\" of organization").count() as u128, count.min(10), "{error}");
        }
    }

    #[tokio::test]
    async fn one_of_another_type_is_returned_for_the_layout_to_refuse() {
        let server = data_plane(vec![stored(1, "a", "openai")], true);
        assert_eq!(server.api().find(&by_name("a")).await.unwrap().type_name.as_deref(), Some("openai"));
    }

    #[tokio::test]
    async fn an_unknown_name_is_not_found_and_the_error_lists_those_of_type_bedrock() {
        for (ai_secrets, listed) in [
            (vec![stored(1, "a", "bedrock"), stored(2, "c", "openai")], "Those of type bedrock: 00000000-"),
            (vec![stored(2, "c", "openai")], "Those of type bedrock: none"),
        ] {
            let error = data_plane(ai_secrets, true).api().find(&by_name("b")).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::NotFound);
            assert!(error.problem.contains(listed) && !error.problem.contains("\"c\""), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unknown_id_is_named_whether_it_is_answered_with_400_or_404() {
        for status in [400, 404] {
            let server = TestServer::start(move |_| Answer::status(status));
            let error = server.api().find(&Lookup::Id(Uuid::max())).await.unwrap_err();
            assert_eq!(error.class, ErrorClass::NotFound);
            assert!(error.problem.ends_with(&format!("for the ID {}", Uuid::max())), "{error}");
            assert_eq!(server.received()[0].target, format!("/v1/ai_secret/{}", Uuid::max()));
        }
    }
}
