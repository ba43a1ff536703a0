//! Stands in for AWS in unit tests: answers the SDK's requests from a list, and then repeats the last answer.

use std::sync::{Arc, Mutex};

use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::behavior_version::BehaviorVersion;
use aws_smithy_runtime_api::client::http::{HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::RetryConfig;
use aws_types::SdkConfig;
use aws_types::region::Region;

#[derive(Clone, Debug)]
pub struct Replay {
    responses: Arc<[(u16, String)]>,
    requests: Arc<Mutex<Vec<String>>>,
    request_id: Option<&'static str>,
}

impl Replay {
    /// Answers with these statuses and bodies.
    pub fn of(responses: &[(u16, &str)]) -> Self {
        let responses = responses.iter().map(|&(status, body)| (status, body.to_owned())).collect();
        Self { responses, requests: Arc::default(), request_id: None }
    }

    /// Answers with this as the ID of each request.
    pub fn with_request_id(self, request_id: Option<&'static str>) -> Self {
        Self { request_id, ..self }
    }

    /// The bodies of the requests, each after the action that its header names, if one does.
    pub fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub fn config(&self) -> SdkConfig {
        let connector = SharedHttpConnector::new(self.clone());
        SdkConfig::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .credentials_provider(SharedCredentialsProvider::new(Credentials::new(
                "AKIATEST", "secret", None, None, "test",
            )))
            .retry_config(RetryConfig::standard().with_max_attempts(super::MAX_ATTEMPTS))
            .http_client(http_client_fn(move |_, _| connector.clone()))
            .build()
    }
}

impl HttpConnector for Replay {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let action = request.headers().get("x-amz-target").unwrap_or_default();
        let body = String::from_utf8_lossy(request.body().bytes().unwrap_or_default());
        let mut requests = self.requests.lock().unwrap();
        let (status, response) = &self.responses[requests.len().min(self.responses.len() - 1)];
        requests.push(format!("{action} {body}"));
        let mut response = HttpResponse::new((*status).try_into().unwrap(), SdkBody::from(response.as_str()));
        if let Some(id) = self.request_id {
            response.headers_mut().insert("x-amzn-requestid", id);
        }
        HttpConnectorFuture::ready(Ok(response))
    }
}
