//! What went wrong, by cause, with the service and call and what to do next; it must never carry a secret or a body.

use std::fmt;
use std::time::Duration;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use serde::Serialize;

/// The stable class of an error: what a reader, an alarm or a script may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The function's own configuration or the event is wrong; a retry cannot help.
    Configuration,
    /// The caller is known and may not do this.
    Permission,
    /// What was named does not exist.
    NotFound,
    /// What was found must not be touched, or is not the only one.
    Conflict,
    /// The service asks for patience.
    Throttled,
    /// The service cannot be reached, fails, or answers what it never should.
    Unavailable,
    /// The service does not know the credentials that it was shown.
    InvalidCredentials,
    /// What was written does not read back.
    VerificationFailed,
    /// The deadline passed first.
    Timeout,
}

/// Who answered, or should have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    /// This function: its configuration and its events.
    Function,
    /// AWS Identity and Access Management.
    Iam,
    /// AWS Security Token Service.
    Sts,
    /// AWS Secrets Manager.
    SecretsManager,
    /// Amazon Bedrock.
    Bedrock,
    /// Braintrust's data plane.
    Braintrust,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function => "function",
            Self::Iam => "IAM",
            Self::Sts => "STS",
            Self::SecretsManager => "Secrets Manager",
            Self::Bedrock => "Bedrock",
            Self::Braintrust => "Braintrust",
        })
    }
}

/// One failed call: where, what happened, and what to do about it.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{service} {call}: {problem}. {remedy}")]
pub struct Error {
    /// Its class.
    #[serde(rename = "class")]
    pub cause: Cause,
    /// The service that was called.
    pub service: Service,
    /// The API call, in the service's own words.
    pub call: &'static str,
    /// What happened: codes, names and ids, never a body.
    pub problem: String,
    /// A sentence on what to do next.
    pub remedy: String,
    /// How long the service asked to be left alone (`Retry-After`).
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Error {
    /// An error without a `Retry-After`.
    pub fn new(
        cause: Cause,
        service: Service,
        call: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { cause, service, call, problem: problem.into(), remedy: remedy.into(), retry_after: None }
    }

    /// Something wrong in the configuration or the event: `call` is the variable or the event.
    pub fn configuration(call: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(Cause::Configuration, Service::Function, call, problem, remedy)
    }

    /// The invocation's deadline passed while this call was under way.
    pub fn deadline(service: Service, call: &'static str) -> Self {
        Self::new(
            Cause::Timeout,
            service,
            call,
            "no answer before the function's deadline",
            "The next tick tries again; if it happens often, raise the function's timeout or lower the number of targets",
        )
    }

    /// Whether the same call may succeed a moment later: throttling, time-outs, 5xx and connection errors, never 400, 401 or 403.
    pub fn is_transient(&self) -> bool {
        matches!(self.cause, Cause::Throttled | Cause::Unavailable | Cause::Timeout)
    }

    /// Classifies an AWS SDK error by its code; AWS's message is left out, because it may echo the request.
    pub fn aws<E>(service: Service, call: &'static str, error: &SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata,
    {
        let (cause, problem) = match error {
            SdkError::ServiceError(refused) => match refused.err().code() {
                Some(code) => (cause_of_code(code, refused.raw().status().as_u16()), format!("answered {code}")),
                None => (Cause::Unavailable, format!("answered {}", refused.raw().status())),
            },
            SdkError::TimeoutError(_) => (Cause::Timeout, "did not answer in time".to_owned()),
            SdkError::DispatchFailure(failure) if failure.is_timeout() => {
                (Cause::Timeout, "did not answer in time".to_owned())
            }
            SdkError::DispatchFailure(failure) if failure.is_io() => {
                (Cause::Unavailable, "could not be reached".to_owned())
            }
            SdkError::ResponseError(refused) => {
                (Cause::Unavailable, format!("answered {} and nothing that can be read", refused.raw().status()))
            }
            // The SDK could not even make the request: no region or no credentials.
            _ => {
                let remedy =
                    "Check AWS_REGION, AWS_ENDPOINT_URL and its siblings, and that the function has credentials";
                return Self::new(Cause::Configuration, service, call, "the request could not be made", remedy);
            }
        };
        Self::new(cause, service, call, problem, remedy_for(cause))
    }

    /// The same error, for what repeats what has repeated it already: no deadline allows the wait that it asks for.
    pub fn repeated_enough(mut self) -> Self {
        self.retry_after = Some(Duration::MAX);
        self
    }

    /// The same error with a remedy that knows more.
    pub fn with_remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }
}

/// AWS's error codes, by what they mean here. A code that is not listed is judged by its status.
fn cause_of_code(code: &str, status: u16) -> Cause {
    match code {
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => Cause::Permission,
        "Throttling" | "ThrottlingException" | "TooManyRequestsException" | "RequestLimitExceeded" => Cause::Throttled,
        "ResourceNotFoundException" | "NoSuchEntity" => Cause::NotFound,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => Cause::InvalidCredentials,
        _ if status == 403 => Cause::Permission,
        _ if status == 429 => Cause::Throttled,
        _ if status >= 500 => Cause::Unavailable,
        _ => Cause::Configuration,
    }
}

fn remedy_for(cause: Cause) -> &'static str {
    match cause {
        Cause::Permission => {
            "Allow the call in the policy of the function's role, and look for a policy that denies it"
        }
        Cause::NotFound => "Check the name or ARN in the configuration, and its region",
        Cause::Throttled => "It was retried; the next tick tries again",
        Cause::Unavailable | Cause::Timeout => {
            "It was retried; the next tick tries again. If it goes on, check the network path and the service's health"
        }
        Cause::InvalidCredentials => "Check that the function runs with its own role's credentials",
        Cause::Configuration | Cause::Conflict | Cause::VerificationFailed => {
            "Check the configuration against the README's tables"
        }
    }
}

/// A name that somebody else chose, short enough for an error: a report has a bound, names may have none.
pub fn shortened(name: &str) -> String {
    const LONGEST: usize = 100;
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aws_code_is_judged_by_its_meaning_and_otherwise_by_its_status() {
        for (code, status, cause) in [
            ("AccessDenied", 403, Cause::Permission),
            ("ThrottlingException", 400, Cause::Throttled),
            ("ResourceNotFoundException", 400, Cause::NotFound),
            ("ExpiredTokenException", 403, Cause::InvalidCredentials),
            ("ValidationError", 400, Cause::Configuration),
            ("InternalFailure", 500, Cause::Unavailable),
            ("RegionDisabledException", 403, Cause::Permission),
            ("SlowDown", 429, Cause::Throttled),
        ] {
            assert_eq!(cause_of_code(code, status), cause, "{code}");
        }
    }

    #[test]
    fn an_error_names_the_service_the_call_and_what_to_do() {
        let error = Error::new(Cause::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "Do this");
        assert_eq!(error.to_string(), "STS AssumeRole: answered AccessDenied. Do this");
        assert!(!error.is_transient());
    }
}
