//! What a refusal by Bedrock establishes about the credentials, as opposed to the model.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Operation;
use crate::aws::refusals;
use crate::error::ErrorClass;

/// The parts of a refusal that are evaluated.
pub(super) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub request_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Bedrock doesn't recognize the credentials, or doesn't yet.
    NotRecognized,
    /// Bedrock recognizes the credentials, and a policy denies the call.
    DeniedByPolicy,
    /// Bedrock recognizes the credentials, and their account has no access to the model.
    NoAccessToModel,
    /// Bedrock recognizes the credentials, and they aren't the reason why the model doesn't answer now.
    ModelUnproven { may_pass: bool },
    /// Bedrock refused the time of the signature, which says nothing about the credentials.
    Stale,
    /// The call failed, which says nothing about the credentials.
    Nothing(ErrorClass),
}

impl Refusal {
    pub fn read(status: u16, headers: &HeaderMap, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |field: &str| body.get(field).and_then(Value::as_str).unwrap_or_default();
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let name = header("x-amzn-errortype").unwrap_or_else(|| text("__type"));
        // Bedrock sends "AccessDeniedException:http://…" and "com.amazon.coral.service#AccessDeniedException".
        let name = name.split(':').next().unwrap_or_default();
        let name = name.rsplit('#').next().unwrap_or_default();
        Self {
            status,
            code: name.chars().filter(char::is_ascii_alphanumeric).take(64).collect(),
            // Some services capitalize the field.
            message: [text("message"), text("Message")]
                .into_iter()
                .find(|it| !it.is_empty())
                .unwrap_or_default()
                .into(),
            request_id: header("x-amzn-requestid").map(str::to_owned),
        }
    }

    /// What the refusal of a call with an API key or a signature establishes.
    pub fn evidence(&self, operation: Operation, is_api_key: bool) -> Evidence {
        let (code, message) = (self.code.as_str(), self.message.as_str());
        match (code, self.status) {
            _ if refusals::is_stale_signature(code, message) => Evidence::Stale,
            ("UnrecognizedClientException" | "InvalidClientTokenId" | "InvalidSignatureException", _)
            | ("ExpiredTokenException" | "MissingAuthenticationTokenException", _)
            | (_, 401) => Evidence::NotRecognized,
            ("AccessDeniedException", _) | (_, 403) => self.denial(operation, is_api_key),
            // Bedrock's edge may throttle an account, which it knows from the access key ID, before it checks the
            // signature. So only a model's quotas are evidence: Bedrock applies them to requests that it has accepted.
            ("ThrottlingException" | "ModelNotReadyException", 429) if operation == Operation::Converse => {
                Evidence::ModelUnproven { may_pass: true }
            }
            // Bedrock checks the caller before it validates the request and looks up the model. So the credentials are
            // not the reason if the model is retired or legacy, doesn't support the probe's request, or fails.
            ("ValidationException" | "ServiceQuotaExceededException" | "ResourceNotFoundException", 400..500)
            | ("ModelTimeoutException" | "ModelErrorException", 400..500)
                if operation == Operation::Converse =>
            {
                Evidence::ModelUnproven { may_pass: false }
            }
            ("ThrottlingException", _) | (_, 429) => Evidence::Nothing(ErrorClass::Throttled),
            (_, 500..) => Evidence::Nothing(ErrorClass::Unavailable),
            ("", _) => Evidence::Nothing(ErrorClass::Unavailable),
            _ => Evidence::Nothing(ErrorClass::Configuration),
        }
    }

    /// Bedrock answers AccessDeniedException for an API key that it doesn't recognize, too: "Authentication failed:
    /// Please make sure your API Key is valid." Only a message that mentions an action or a model shows that it
    /// recognizes the key.
    fn denial(&self, operation: Operation, is_api_key: bool) -> Evidence {
        let names_an_action = self.message.contains("not authorized to perform: ");
        let names_a_model = operation == Operation::Converse && self.message.to_ascii_lowercase().contains("model");
        if names_an_action {
            Evidence::DeniedByPolicy
        } else if names_a_model {
            Evidence::NoAccessToModel
        } else if is_api_key && !self.message.contains("not authorized to perform") {
            Evidence::NotRecognized
        } else {
            Evidence::DeniedByPolicy
        }
    }
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;

    const DENIED: &str = "AccessDeniedException";

    fn refusal(status: u16, code: &str, message: &str) -> Refusal {
        let body = serde_json::json!({"__type": code, "message": message}).to_string();
        Refusal::read(status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn every_code_that_bedrock_declares_is_evidence() {
        let mut tried = 0;
        for row in refusals::codes::all() {
            let operation = match row.service.as_str() {
                "bedrock" => Operation::ListFoundationModels,
                "bedrock-runtime" => Operation::Converse,
                _ => continue,
            };
            let class = match refusal(row.status, &row.code, &row.message).evidence(operation, false) {
                Evidence::NotRecognized => ErrorClass::InvalidCredentials,
                Evidence::DeniedByPolicy | Evidence::NoAccessToModel => ErrorClass::Permission,
                Evidence::Stale => ErrorClass::Unavailable,
                Evidence::Nothing(class) => class,
                Evidence::ModelUnproven { .. } => {
                    assert_eq!(row.class, "recognized", "{}", row.code);
                    tried += 1;
                    continue;
                }
            };
            assert_eq!(serde_json::to_value(class).unwrap(), row.class, "{} {}", row.code, row.message);
            tried += 1;
        }
        assert_eq!(tried, 19);
    }

    #[test]
    fn a_denial_shows_whether_bedrock_recognizes_the_credentials_and_what_denies_the_call() {
        use Evidence::{DeniedByPolicy, NoAccessToModel, NotRecognized};
        use Operation::{Converse, ListFoundationModels};
        let unknown = "Authentication failed: Please make sure your API Key is valid.";
        let policy = "User: arn:aws:iam::1:user/x is not authorized to perform: bedrock:InvokeModel on resource: \
                      arn:aws:bedrock:us-east-1::foundation-model/m";
        let access = "You don't have access to the model with the specified model ID.";
        let marketplace = "Model access is denied due to IAM user or service role is not authorized to perform the \
                           required AWS Marketplace actions";
        for (operation, is_api_key, message, evidence) in [
            (Converse, true, unknown, NotRecognized),
            (Converse, true, "Bearer Token has expired", NotRecognized),
            (Converse, true, "", NotRecognized),
            (Converse, true, policy, DeniedByPolicy),
            (Converse, true, access, NoAccessToModel),
            (Converse, true, marketplace, NoAccessToModel),
            (Converse, false, policy, DeniedByPolicy),
            (Converse, false, access, NoAccessToModel),
            (Converse, false, "", DeniedByPolicy),
            (ListFoundationModels, true, unknown, NotRecognized),
            (ListFoundationModels, true, access, NotRecognized),
            (ListFoundationModels, true, policy, DeniedByPolicy),
            (ListFoundationModels, false, unknown, DeniedByPolicy),
        ] {
            let found = refusal(403, DENIED, message).evidence(operation, is_api_key);
            assert_eq!(found, evidence, "{operation:?} {is_api_key} {message}");
        }
    }

    #[test]
    fn an_answer_without_an_error_code_of_bedrock_is_no_evidence() {
        for (status, class) in
            [(429, ErrorClass::Throttled), (503, ErrorClass::Unavailable), (302, ErrorClass::Unavailable)]
        {
            let evidence = refusal(status, "", "").evidence(Operation::Converse, false);
            assert_eq!(evidence, Evidence::Nothing(class), "{status}");
        }
    }

    #[test]
    fn throttling_is_no_evidence_if_no_model_is_called() {
        let throttled = refusal(429, "ThrottlingException", "Rate exceeded");
        let evidence = |operation| throttled.evidence(operation, false);
        assert_eq!(evidence(Operation::ListFoundationModels), Evidence::Nothing(ErrorClass::Throttled));
        assert_eq!(evidence(Operation::Converse), Evidence::ModelUnproven { may_pass: true });
    }

    #[test]
    fn an_error_is_named_by_the_header_or_by_the_body() {
        let code = |header: Option<&'static str>, body: &[u8]| {
            let header = header.map(HeaderValue::from_static);
            let headers = HeaderMap::from_iter(header.map(|value| ("x-amzn-errortype".parse().unwrap(), value)));
            Refusal::read(403, &headers, body).code
        };
        assert_eq!(code(Some("AccessDeniedException:http://internal.amazon.com/"), b""), DENIED);
        assert_eq!(code(None, br#"{"__type":"com.amazon.coral.service#AccessDeniedException"}"#), DENIED);
        assert_eq!(code(None, b"not JSON"), "");
    }
}
