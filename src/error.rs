//! Errors, by class. Each names the service and the call, and says what happened and what to do next.
//!
//! Security: no field ever holds a secret or the body of a request or response.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

/// The stable class of an error, which alarms and scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorClass {
    /// The configuration or the event is wrong. A retry can't help.
    Configuration,
    /// The service denies the call.
    Permission,
    NotFound,
    /// The resource's state forbids the change, or several resources match.
    Conflict,
    Throttled,
    /// The service can't be reached or fails, or something else answers in its place.
    Unavailable,
    /// The service doesn't accept the credentials or the API key.
    InvalidCredentials,
    /// What was written doesn't read back, or Braintrust can't use it.
    VerificationFailed,
    Timeout,
}

/// The service that was called, or this function, for its configuration and its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Service {
    Function,
    Iam,
    Sts,
    SecretsManager,
    S3,
    Bedrock,
    Braintrust,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Function => "function",
            Self::Iam => "IAM",
            Self::Sts => "STS",
            Self::SecretsManager => "Secrets Manager",
            Self::S3 => "S3",
            Self::Bedrock => "Bedrock",
            Self::Braintrust => "Braintrust",
        })
    }
}

/// One failed call.
#[derive(Clone, Debug, Serialize, thiserror::Error)]
#[error("{service} {call}: {problem}. {remedy}{}", AwsDetails::suffix(.aws.as_deref()))]
pub struct Error {
    pub class: ErrorClass,
    pub service: Service,
    /// The API operation, as the service names it.
    pub call: &'static str,
    /// What happened, with codes, names and IDs.
    pub problem: String,
    pub remedy: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aws: Option<Box<AwsDetails>>,
    /// Whether the remedy addresses the exact cause, so that a remedy for the class must not replace it.
    #[serde(skip)]
    pub names_cause: bool,
    /// The wait that the service asked for (`Retry-After`).
    #[serde(skip)]
    pub retry_after: Option<Duration>,
    /// Whether no layer above should retry the call: a lower layer has already done so, or a retry would be wrong.
    #[serde(skip)]
    pub is_final: bool,
}

impl Error {
    /// The call of [`Self::rotation_conflict`].
    pub const ROTATION: &str = "rotation";

    pub fn new(
        class: ErrorClass,
        service: Service,
        call: &'static str,
        problem: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let (problem, remedy) = (problem.into(), remedy.into());
        Self {
            class,
            service,
            call,
            problem,
            remedy,
            aws: None,
            names_cause: false,
            retry_after: None,
            is_final: false,
        }
    }

    /// A wrong configuration or event. `subject` is the variable, or `event`.
    pub fn configuration(subject: &'static str, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorClass::Configuration, Service::Function, subject, problem, remedy)
    }

    /// A stage of a secret's rotation that doesn't allow the call.
    pub fn rotation_conflict(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ErrorClass::Conflict, Service::SecretsManager, Self::ROTATION, problem, remedy)
    }

    /// The invocation's deadline passed during the call.
    pub fn deadline(service: Service, call: &'static str) -> Self {
        let remedy = "The next scheduled run tries again. If this happens often, raise the function's timeout (the \
                      parameter TimeoutSeconds) or lower the number of targets";
        Self::new(ErrorClass::Timeout, service, call, "no answer before the function's deadline", remedy)
    }

    /// Whether the same call may succeed a moment later.
    pub fn is_transient(&self) -> bool {
        matches!(self.class, ErrorClass::Throttled | ErrorClass::Unavailable | ErrorClass::Timeout)
    }

    /// Whether the caller should retry: the error is transient, and no lower layer has retried the call.
    pub fn is_retryable(&self) -> bool {
        self.is_transient() && !self.is_final
    }

    /// Marks the error as final, because a lower layer has already retried the call, or because a retry would be wrong.
    pub fn into_final(self) -> Self {
        Self { is_final: true, ..self }
    }

    pub fn with_remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }

    /// Replaces the remedy if the error is of this class and its remedy doesn't name the cause.
    pub fn with_remedy_for(self, class: ErrorClass, remedy: impl Into<String>) -> Self {
        if self.class == class && !self.names_cause { self.with_remedy(remedy) } else { self }
    }

    pub fn with_aws(self, details: AwsDetails) -> Self {
        let is_empty = details.message.is_none() && details.request_id.is_none();
        Self { aws: (!is_empty).then(|| Box::new(details)), ..self }
    }
}

/// What AWS's response adds to an error.
#[derive(Clone, Debug, Default, Serialize)]
pub struct AwsDetails {
    /// AWS's own message about a denied call, which names the principal, the action and the resource.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The ID of the request, which AWS Support asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl AwsDetails {
    fn suffix(details: Option<&Self>) -> String {
        let Some(Self { message, request_id }) = details else { return String::new() };
        let message = message.as_ref().map(|message| format!(". AWS says: {message}"));
        let request_id = request_id.as_ref().map(|id| format!(" (request ID {id})"));
        [message, request_id].into_iter().flatten().collect()
    }
}

/// Shortens a name that somebody else chose, because reports have a size limit and such names may have none.
pub fn shortened(name: &str) -> String {
    const MAX_CHARACTERS: usize = 100;
    match name.char_indices().nth(MAX_CHARACTERS) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_service_the_call_and_what_to_do() {
        let error = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "answered AccessDenied", "Do this");
        assert_eq!(error.to_string(), "STS AssumeRole: answered AccessDenied. Do this");
    }

    #[test]
    fn an_error_of_aws_ends_with_its_message_and_request_id() {
        let text = |message: Option<&str>, request_id: Option<&str>| {
            let details = AwsDetails { message: message.map(str::to_owned), request_id: request_id.map(str::to_owned) };
            Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "a", "b").with_aws(details).to_string()
        };
        assert_eq!(text(Some("c"), Some("d")), "STS AssumeRole: a. b. AWS says: c (request ID d)");
        assert_eq!(text(None, Some("d")), "STS AssumeRole: a. b (request ID d)");
        assert_eq!(text(None, None), "STS AssumeRole: a. b");
    }

    #[test]
    fn a_remedy_for_a_class_does_not_replace_one_that_names_the_cause() {
        let error = Error::new(ErrorClass::Permission, Service::Sts, "AssumeRole", "a", "b");
        let remedy = |error: Error| error.with_remedy_for(ErrorClass::Permission, "c").remedy;
        assert_eq!(remedy(error.clone()), "c");
        assert_eq!(remedy(Error { names_cause: true, ..error }), "b");
    }

    #[test]
    fn a_final_error_is_transient_and_not_retried_again() {
        let error = Error::new(ErrorClass::Throttled, Service::Braintrust, "PATCH", "answered 429", "Wait");
        assert!(error.is_retryable());
        let error = error.into_final();
        assert!(error.is_transient() && !error.is_retryable());
    }
}
