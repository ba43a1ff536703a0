//! The names of the organizations that an API key sees.

use serde::Deserialize;
use uuid::Uuid;

use super::client::{Braintrust, unavailable};
use crate::error::{Error, ErrorClass};

const LIST: &str = "GET /v1/organization";

#[derive(Deserialize)]
pub struct Organization {
    pub id: Uuid,
    pub name: String,
}

impl Braintrust<'_> {
    pub async fn organizations(&self) -> Result<Vec<Organization>, Error> {
        let request = self.request(LIST, None);
        self.pages(&request, |seen: &Organization| seen.id, &|_| true, usize::MAX).await
    }

    /// Whether `id` is known to be of another organization than the one named `name`. An older data plane may ignore
    /// the filter `org_name`.
    pub(super) async fn is_another_organization(&self, id: Uuid, name: &str) -> Result<bool, Error> {
        let is_either = |seen: &Organization| seen.id == id || seen.name == name;
        let request = self.request(LIST, None);
        match self.pages(&request, |seen: &Organization| seen.id, &is_either, 1).await {
            Ok(either) => Ok(either.iter().any(|seen| seen.id != id || seen.name != name)),
            // A key that may update a provider needs no right to list organizations.
            Err(error) if matches!(error.class, ErrorClass::Permission | ErrorClass::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The name of the organization, if the API key sees several. Without it, the AI proxy would choose among the
    /// `ai_secret`s of all of them, and names are unique only within an organization.
    pub async fn organization_to_name(&self, id: Uuid) -> Result<Option<String>, Error> {
        let seen = self.organizations().await?;
        if seen.len() <= 1 {
            return Ok(None);
        }
        let problem = "its organization is not among those that the API key sees";
        let named = seen.into_iter().find(|seen| seen.id == id).map(|seen| seen.name);
        named.map(Some).ok_or_else(|| unavailable(LIST, problem).into_final())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_server::{Answer, TestServer};
    use super::*;

    async fn organization_of(server: &TestServer, id: u128) -> Result<Option<String>, ErrorClass> {
        server.api().organization_to_name(Uuid::from_u128(id)).await.map_err(|error| error.class)
    }

    #[tokio::test]
    async fn the_organization_is_named_if_the_api_key_sees_several() {
        let seen = |count: u128| {
            let objects: Vec<_> =
                (1..=count).map(|n| json!({"id": Uuid::from_u128(n), "name": format!("Acme {n}")})).collect();
            TestServer::start(move |request| {
                let is_first = request.query("starting_after").is_none();
                Answer::json(&json!({"objects": if is_first { objects.clone() } else { Vec::new() }}))
            })
        };
        assert_eq!(organization_of(&seen(1), 1).await, Ok(None));
        assert_eq!(organization_of(&seen(2), 2).await, Ok(Some("Acme 2".to_owned())));
        assert_eq!(organization_of(&seen(2), 3).await, Err(ErrorClass::Unavailable));
    }
}
