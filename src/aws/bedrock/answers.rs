//! What a refusal by Bedrock establishes about the credentials, beside what it says about the model.

use reqwest::header::HeaderMap;
use serde_json::Value;

use super::Operation;
use crate::aws::refusals;
use crate::error::ErrorClass;

/// A refusal, as far as it is understood.
pub(super) struct Refusal {
    pub status: u16,
    pub code: String,
    pub message: String,
    pub request_id: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Evidence {
    /// Bedrock doesn't know the credentials, or not yet.
    NotRecognized,
    /// Bedrock knows the credentials, and a policy denies the call.
    DeniedByPolicy,
    /// Bedrock knows the credentials, and their account has no access to the model.
    NoAccessToModel,
    /// Bedrock knows the credentials, and the model doesn't answer now for a reason that isn't theirs.
    ModelUnproven { may_pass: bool },
    /// The signature's time was refused, which says nothing about the credentials.
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
        // Seen: "AccessDeniedException:http://…" and "com.amazon.coral.service#AccessDeniedException".
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
            // Bedrock's edge may limit an account, which an access key ID tells, before it checks a signature. So only
            // the quotas of a model count: Bedrock applies them to requests that it has accepted.
            ("ThrottlingException" | "ModelNotReadyException", 429) if operation == Operation::Converse => {
                Evidence::ModelUnproven { may_pass: true }
            }
            // Bedrock checks who calls before it looks at the request or for the model. A model that is retired,
            // legacy, or not for a request like the probe's, or that fails, is not the credentials' fault.
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

    /// Bedrock answers AccessDeniedException for an API key that it doesn't know, too: "Authentication failed: Please
    /// make sure your API Key is valid." Only a message that speaks of an action or of a model shows that it knows the
    /// key.
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
    fn a_denial_says_whether_bedrock_knows_the_credentials_and_who_denies() {
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
    fn an_answer_without_a_code_of_bedrock_is_no_evidence() {
        for (status, class) in
            [(429, ErrorClass::Throttled), (503, ErrorClass::Unavailable), (302, ErrorClass::Unavailable)]
        {
            let evidence = refusal(status, "", "").evidence(Operation::Converse, false);
            assert_eq!(evidence, Evidence::Nothing(class), "{status}");
        }
    }

    #[test]
    fn throttling_is_no_evidence_where_no_model_is_asked() {
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
