//! The requests of one run that issue or change credentials. CloudTrail has an event with the same ID for each.

use std::cell::RefCell;
use std::rc::Rc;

use aws_sdk_sts::operation::RequestId;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde::Serialize;

use super::refusals;
use super::sdk::{self, SdkResult};
use crate::deadline::Deadline;
use crate::error::{Error, Service};

#[derive(Debug, Serialize)]
pub struct AwsRequest {
    /// The action, as a policy names it.
    call: String,
    /// `None` if AWS didn't answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    /// Whether AWS refused the request or didn't answer it. Without an answer, it may have had its effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    failed: bool,
}

/// Shared by the clients of one run. Write-only until the run ends, so that no decision depends on it.
#[derive(Clone, Default)]
pub struct AwsRequests(Rc<RefCell<Vec<AwsRequest>>>);

impl AwsRequests {
    /// Sends a request that issues or changes credentials, and records it.
    pub(super) fn send<T: RequestId, E: ProvideErrorMetadata>(
        &self,
        service: Service,
        call: &'static str,
        deadline: Deadline,
        request: impl Future<Output = SdkResult<T, E>>,
    ) -> impl Future<Output = Result<T, Error>> {
        self.record(service, call, sdk::send(service, call, deadline, request), T::request_id)
    }

    /// Records such a request, which `response` sends. `id` reads the request's ID.
    pub(super) async fn record<T>(
        &self,
        service: Service,
        call: &'static str,
        response: impl Future<Output = Result<T, Error>>,
        id: impl Fn(&T) -> Option<&str>,
    ) -> Result<T, Error> {
        let position = self.sent(service, call);
        let response = response.await;
        let id = match &response {
            Ok(output) => Ok(id(output)),
            Err(error) => Err(error.aws.as_ref().and_then(|details| details.request_id.as_deref())),
        };
        self.answered(position, id);
        response
    }

    fn sent(&self, service: Service, call: &str) -> usize {
        let mut requests = self.0.borrow_mut();
        let call = format!("{}:{call}", service.to_string().replace(' ', "").to_lowercase());
        requests.push(AwsRequest { call, request_id: None, failed: true });
        requests.len() - 1
    }

    fn answered(&self, position: usize, id: Result<Option<&str>, Option<&str>>) {
        if let Some(request) = self.0.borrow_mut().get_mut(position) {
            request.failed = id.is_err();
            request.request_id = refusals::request_id(id.unwrap_or_else(|id| id));
        }
    }

    /// The requests so far, in the order in which they were sent.
    pub fn take(&self) -> Vec<AwsRequest> {
        self.0.take()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::sdk::replay::Replay;
    use super::super::secrets_manager::SecretsManager;
    use super::*;

    const ID: &str = "6f0c7d1e-2b7a-4c55-9d0e-6a3f0b9c7e21";

    async fn recorded(responses: &[(u16, &str)], id: Option<&'static str>) -> serde_json::Value {
        let (aws, requests) = (Replay::of(responses).with_request_id(id), AwsRequests::default());
        let (client, secret) = (SecretsManager::new(&aws.config()), "staged".to_owned().try_into().unwrap());
        let secret = client.staged(&secret, Deadline::after(Duration::from_secs(300)), &requests);
        let _ = secret.promote("new", Some("old")).await;
        let _ = secret.describe().await;
        json!(requests.take())
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_recorded_with_its_request_id_and_reading_is_not() {
        let change = json!({"call": "secretsmanager:UpdateSecretVersionStage", "request_id": ID});
        assert_eq!(recorded(&[(200, "{}")], Some(ID)).await, json!([change]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_change_is_recorded_as_failed() {
        let change = json!({"call": "secretsmanager:UpdateSecretVersionStage", "request_id": ID, "failed": true});
        let refusal = r#"{"__type": "AccessDeniedException", "message": "no"}"#;
        assert_eq!(recorded(&[(400, refusal)], Some(ID)).await, json!([change]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_without_the_id_of_a_request_adds_none() {
        let change = json!({"call": "secretsmanager:UpdateSecretVersionStage"});
        for id in [None, Some("not a UUID, and perhaps a part of the request")] {
            assert_eq!(recorded(&[(200, "{}")], id).await, json!([change]));
        }
    }
}
