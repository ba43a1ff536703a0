//! The calls for service tokens, by which a Braintrust API key is rotated.
//!
//! <https://www.braintrust.dev/docs/reference/api/ServiceTokens>

use std::collections::BTreeMap;

use secrecy::SecretString;
use serde::Deserialize;
use serde::de::IgnoredAny;
use uuid::Uuid;

use super::client::{Braintrust, Request};
use crate::error::{Error, ErrorClass, Service};

#[derive(Deserialize)]
pub struct ServiceToken {
    pub id: Uuid,
    #[serde(default)]
    pub name: String,
}

/// What creating a service token returns: the only answer that has its key.
#[derive(Deserialize)]
pub struct NewServiceToken {
    pub id: Uuid,
    pub key: SecretString,
}

impl Braintrust<'_> {
    /// Creates a service token, which needs an API key with owner permission. The call is not retried, because each
    /// lost response leaves a token whose key nobody has.
    pub async fn create_service_token(
        &self,
        name: &str,
        service_account_id: &str,
        org_name: Option<&str>,
    ) -> Result<NewServiceToken, Error> {
        let fields = [("name", name), ("service_account_id", service_account_id)];
        let body: BTreeMap<_, _> = fields.into_iter().chain(org_name.map(|org| ("org_name", org))).collect();
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let request = Request { body: Some(body.into()), ..self.request("POST /v1/service_token", None) };
        let attempt = self.with_permit(request.call, self.exchange(&request));
        self.deadline.bound(Service::Braintrust, request.call, attempt).await
    }

    /// Lists the service tokens that the API key can see.
    pub async fn list_service_tokens(&self) -> Result<Vec<ServiceToken>, Error> {
        let request = self.request("GET /v1/service_token", None);
        self.pages(&request, |token: &ServiceToken| token.id, &|_| true, usize::MAX).await
    }

    /// Deletes a service token, whose key Braintrust refuses from then on. A token that is gone counts as deleted,
    /// because the response to an earlier attempt may have been lost. Data planes answer 400, 403 or 404 for an unknown
    /// ID, so the list of tokens decides what a refusal means.
    pub async fn delete_service_token(&self, id: Uuid) -> Result<(), Error> {
        let request = self.request("DELETE /v1/service_token/{id}", Some(id));
        let Err(error) = self.send::<IgnoredAny>(&request).await else { return Ok(()) };
        match error.class {
            ErrorClass::NotFound => Ok(()),
            ErrorClass::Configuration | ErrorClass::Permission => match self.list_service_tokens().await {
                Ok(tokens) if tokens.iter().all(|token| token.id != id) => Ok(()),
                Ok(_) | Err(_) => Err(error),
            },
            ErrorClass::Conflict
            | ErrorClass::Throttled
            | ErrorClass::Unavailable
            | ErrorClass::InvalidCredentials
            | ErrorClass::VerificationFailed
            | ErrorClass::Timeout => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::test_server::{Answer, TestServer};
    use super::*;

    #[tokio::test]
    async fn a_service_token_is_created_in_the_named_organization() {
        let server = TestServer::start(|_| Answer::json(&json!({"id": Uuid::nil(), "key": "bt-st-new"})));
        for (org_name, body) in [
            (None, json!({"name": "a", "service_account_id": "b"})),
            (Some("c"), json!({"name": "a", "service_account_id": "b", "org_name": "c"})),
        ] {
            let created = server.api().create_service_token("a", "b", org_name).await.unwrap();
            assert_eq!(created.id, Uuid::nil());
            assert_eq!(server.received().pop().unwrap().json(), body);
        }
    }

    #[tokio::test]
    async fn creating_a_service_token_is_not_retried() {
        for first in [Answer::HangUp, Answer::status(500)] {
            let server = TestServer::start_with([first]);
            let error = server.api().create_service_token("a", "b", None).await.err().unwrap();
            assert_eq!((error.class, server.received().len()), (ErrorClass::Unavailable, 1));
        }
    }

    #[tokio::test]
    async fn service_tokens_are_listed_with_or_without_a_name() {
        let page = json!({"objects": [{"id": Uuid::nil()}, {"id": Uuid::max(), "name": "a"}]});
        let server = TestServer::start_with([Answer::json(&page), Answer::json(&json!({"objects": []}))]);
        let tokens = server.api().list_service_tokens().await.unwrap();
        assert_eq!(tokens.iter().map(|token| token.name.as_str()).collect::<Vec<_>>(), ["", "a"]);
    }

    #[tokio::test]
    async fn a_service_token_that_is_gone_counts_as_deleted_whatever_the_data_plane_answers() {
        let tokens = |ids: &[Uuid]| {
            let objects: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
            [Answer::json(&json!({"objects": objects})), Answer::json(&json!({"objects": []}))]
        };
        let other = Uuid::max();
        for status in [400, 403] {
            let answers = |ids: &[Uuid]| [Answer::HangUp, Answer::status(status)].into_iter().chain(tokens(ids));
            let server = TestServer::start_with(answers(&[other]).collect::<Vec<_>>());
            assert!(server.api().delete_service_token(Uuid::nil()).await.is_ok(), "{status}");
            let server = TestServer::start_with(answers(&[other, Uuid::nil()]).collect::<Vec<_>>());
            let error = server.api().delete_service_token(Uuid::nil()).await.unwrap_err();
            assert_eq!(error.problem, format!("answered {status}"), "it is still there");
            let server = TestServer::start_with([Answer::status(status), Answer::status(403)]);
            let error = server.api().delete_service_token(Uuid::nil()).await.unwrap_err();
            assert_eq!(error.problem, format!("answered {status}"), "whether it is there is not known");
        }
        let lost = [Answer::HangUp, Answer::status(404)];
        assert!(TestServer::start_with(lost).api().delete_service_token(Uuid::nil()).await.is_ok());
        let html = Answer::status(404).with_body("text/html", "");
        let error = TestServer::start_with([html]).api().delete_service_token(Uuid::nil()).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Unavailable);
    }
}
