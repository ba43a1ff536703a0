//! What it means if AWS refuses a call: a class and a remedy for each error code and, if a code has several causes, for
//! its message. `tests/vectors/aws_error_codes.json` lists the codes that AWS declares.

#[cfg(test)]
pub(super) mod codes;

use crate::error::{AwsDetails, Error, ErrorClass, Service};

/// An error response.
#[derive(Clone, Copy)]
pub(super) struct Refusal<'a> {
    pub service: Service,
    pub call: &'static str,
    pub status: u16,
    pub code: &'a str,
    pub message: &'a str,
    pub request_id: Option<&'a str>,
}

/// The messages with which AWS refuses a signature for its time. All services use them, with different codes.
const STALE: [&str; 2] = ["Signature expired", "Signature not yet current"];
pub(super) const CLOCK: &str = "By AWS's clock, the request and its repetition were signed too early or too late. The \
                                clock of the function's environment is wrong: start a new environment by changing \
                                the function's configuration, for example its description";
const KMS: &str = "The secret's KMS key can't be used. Check that the key is enabled and not pending deletion, and \
                   that the key's policy and the policy of the function's role allow kms:Decrypt and \
                   kms:GenerateDataKey";
const DELETED_SECRET: &str =
    "The secret is marked for deletion. Restore it: `aws secretsmanager restore-secret --secret-id <secret>`";
const REPLICA: &str =
    "The secret is a replica, which can't be changed. Configure the ARN of the secret in the primary region";
const TOO_MANY_VERSIONS: &str = "Secrets Manager keeps 100 versions of a secret, and deletes none that is younger than \
                                 a day. Run the schedule every 15 minutes or less often (the parameter \
                                 ScheduleExpression)";
const REGION_DISABLED: &str = "STS is not activated in this region. Activate it in the account settings of the IAM \
                               console, or run the function in another region";
const SESSION_POLICY: &str = "Check the target's session_policy: STS doesn't accept it";
const PACKED_TOO_LARGE: &str =
    "Shorten the target's session_policy, because STS packs it together with the session's tags and limits the size";
const DURATION: &str = "Check the parameter DurationSeconds, or the target's duration_seconds. With role chaining, a session lasts at most 3,600 \
                        seconds, and no session lasts longer than the role's maximum session duration";
const EXPIRED: &str = "The credentials of the function's role have expired. A new environment gets new ones: if the \
                       next run fails, too, change the function's configuration, for example its description";
const OPT_IN: &str = "The account may not use this service. Check that the account is active and that its region is \
                      enabled";
const NO_API_KEYS: &str = "IAM has no Bedrock API keys in this partition. Use another kind of credentials";
const OTHER_REGION: &str = "The bucket is in another region. Use a bucket in the function's region";
const ARCHIVED: &str = "The object is archived. Restore it, or upload it again";
const OBJECT_KMS: &str = "The object's KMS key can't be used. Check that the key is enabled and not pending deletion";
const AGAIN: &str = "The next scheduled run tries again";
const CHANGING: &str = "Something else is changing the same IAM user. The next scheduled run tries again";

pub(super) fn is_stale_signature(code: &str, message: &str) -> bool {
    matches!(code, "RequestExpired" | "RequestTimeTooSkewed") || STALE.iter().any(|stale| message.contains(stale))
}

/// The longest error code that is shown. AWS's have at most some 50 characters.
const MAX_CODE: usize = 64;

/// Classifies an error response, and says what to do about it.
pub(super) fn explain(refusal: Refusal<'_>) -> Error {
    let Refusal { service, call, status, code, .. } = refusal;
    let (class, cause) = meaning(&refusal);
    // Security: whatever answers in AWS's place may repeat the request here.
    let is_code = code.len() <= MAX_CODE && code.chars().all(|c| c.is_ascii_alphanumeric() || ".:_-".contains(c));
    let problem = if code.is_empty() || !is_code { format!("answered {status}") } else { format!("answered {code}") };
    let error = Error::new(class, service, call, problem, cause.unwrap_or_else(|| remedy(class)));
    Error { names_cause: cause.is_some(), ..error }.with_aws(details(class, refusal.message, refusal.request_id))
}

/// The class, and the remedy if the cause is known more precisely than the class says.
fn meaning(refusal: &Refusal<'_>) -> (ErrorClass, Option<&'static str>) {
    use ErrorClass::{Configuration, Conflict, InvalidCredentials, NotFound, Permission, Throttled, Unavailable};
    let says = |text: &str| refusal.message.contains(text);
    match refusal.code {
        code if is_stale_signature(code, refusal.message) => (InvalidCredentials, Some(CLOCK)),
        "AccessDeniedException" if says("KMS") => (Permission, Some(KMS)),
        "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" | "NotAuthorized" => (Permission, None),
        "OptInRequired" | "SubscriptionRequiredException" => (Permission, Some(OPT_IN)),
        "RegionDisabledException" => (Permission, Some(REGION_DISABLED)),
        "ExpiredToken" | "ExpiredTokenException" => (InvalidCredentials, Some(EXPIRED)),
        "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClientException" => (InvalidCredentials, None),
        "NoSuchBucket" | "NoSuchEntity" | "NoSuchKey" | "ResourceNotFoundException" => (NotFound, None),
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect" => {
            (Configuration, Some(OTHER_REGION))
        }
        "InvalidObjectState" => (Configuration, Some(ARCHIVED)),
        code if code.starts_with("KMS.") => (Configuration, Some(OBJECT_KMS)),
        "LimitExceededException" if refusal.call == "PutSecretValue" => (Configuration, Some(TOO_MANY_VERSIONS)),
        // IAM's limit of two keys, and a version of a secret that already has another value. No other code of Secrets
        // Manager shows that another run has changed the secret.
        "LimitExceeded" | "ResourceExistsException" | "UnmodifiableEntity" => (Conflict, None),
        "InvalidRequestException" if says("marked for deletion") || says("scheduled for deletion") => {
            (Configuration, Some(DELETED_SECRET))
        }
        "InvalidParameterException" if says("replica secret") => (Configuration, Some(REPLICA)),
        "DecryptionFailure" | "EncryptionFailure" => (Configuration, Some(KMS)),
        "MalformedPolicyDocument" if refusal.service == Service::Sts => (Configuration, Some(SESSION_POLICY)),
        "PackedPolicyTooLarge" => (Configuration, Some(PACKED_TOO_LARGE)),
        "ValidationError" if says("DurationSeconds") || says("session limit") => (Configuration, Some(DURATION)),
        "NotSupportedService" => (Configuration, Some(NO_API_KEYS)),
        "ConcurrentModification" | "EntityTemporarilyUnmodifiable" => (Unavailable, Some(CHANGING)),
        "RequestTimeout"
        | "RequestTimeoutException"
        | "InternalFailure"
        | "InternalServiceError"
        | "ServiceFailure"
        | "ServiceUnavailable" => (Unavailable, None),
        "BandwidthLimitExceeded"
        | "PriorRequestNotComplete"
        | "RequestLimitExceeded"
        | "RequestThrottled"
        | "RequestThrottledException"
        | "SlowDown"
        | "ThrottledException"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => (Throttled, None),
        _ => (class_of(refusal.status, refusal.code), None),
    }
}

/// The class of a code that is not listed above. Without a code, something other than AWS has answered.
fn class_of(status: u16, code: &str) -> ErrorClass {
    match status {
        429 => ErrorClass::Throttled,
        _ if code.is_empty() || status >= 500 => ErrorClass::Unavailable,
        401 => ErrorClass::InvalidCredentials,
        403 => ErrorClass::Permission,
        _ => ErrorClass::Configuration,
    }
}

/// What to do about an error if only its class is known.
pub(super) fn remedy(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Permission => {
            "Allow the call in the policy of the function's role, and look for another policy that denies it"
        }
        ErrorClass::NotFound => "Check the name or ARN in the stack's parameters or in the target, and its region",
        ErrorClass::Throttled => AGAIN,
        ErrorClass::Unavailable | ErrorClass::Timeout => {
            "The next scheduled run tries again. If this continues, check the network path and the service's health"
        }
        ErrorClass::InvalidCredentials => "Check that the function runs with the credentials of its own role",
        ErrorClass::Configuration | ErrorClass::Conflict | ErrorClass::VerificationFailed => {
            "Compare the stack's parameters with docs/parameters.md, and the targets with docs/configuration.md"
        }
    }
}

/// The parts of the response that an operator may see. Of the messages, only that of a denial is shown, because others
/// can repeat the request.
pub(super) fn details(class: ErrorClass, message: &str, request_id: Option<&str>) -> AwsDetails {
    let is_denial = class == ErrorClass::Permission;
    let message = is_denial.then(|| harmless(message)).filter(|message| !message.is_empty());
    AwsDetails { message, request_id: self::request_id(request_id) }
}

/// The ID of a request, as its response gives it.
pub(super) fn request_id(found: Option<&str>) -> Option<String> {
    // Security: a request ID is a UUID, or 16 characters for S3. Anything else could be part of the request.
    let is_uuid = |id: &str| id.len() == 36 && id.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let is_of_s3 = |id: &str| id.len() == 16 && id.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit());
    found.filter(|id| is_uuid(id) || is_of_s3(id)).map(str::to_owned)
}

/// A message on one line, without control characters, and of a bounded length.
///
/// Security: a word that is neither short nor the name of a principal, an action, or a resource is replaced, so that a
/// response that repeats the request shows none of its secrets. The shortest secret, a secret access key, has 40
/// characters.
fn harmless(message: &str) -> String {
    const MAX_WORD: usize = 30;
    const MAX_MESSAGE: usize = 500;
    let printable = |c: char| if c.is_ascii_graphic() { c } else { ' ' };
    let message: String = message.chars().map(printable).collect();
    let words = message.split_whitespace().map(|word| {
        let name = word.trim_matches(|c: char| !c.is_ascii_alphanumeric() && c != '*');
        if word.len() <= MAX_WORD || is_arn(name) || is_action(name) { word } else { "…" }
    });
    let mut shown = String::new();
    for word in words {
        if shown.len() + word.len() >= MAX_MESSAGE {
            return shown + " …";
        }
        shown.extend(if shown.is_empty() { ["", word] } else { [" ", word] });
    }
    shown
}

/// Whether a word is an ARN. Its parts are names, and none is as long as a session token.
fn is_arn(word: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@-_/*".contains(c);
    let parts: Vec<_> = word.split(':').collect();
    let ["arn", partition, _, _, _, _, ..] = parts[..] else { return false };
    let is_partition = partition == "aws" || partition.starts_with("aws-");
    is_partition && parts.iter().all(|part| part.len() <= 150 && part.chars().all(is_name))
}

/// Whether a word is an action, such as `iam:CreateServiceSpecificCredential`.
fn is_action(word: &str) -> bool {
    word.split_once(':').is_some_and(|(service, action)| {
        let is_service = service.len() <= 20 && service.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        is_service && action.len() <= 50 && action.chars().all(|c| c.is_ascii_alphabetic())
    })
}

/// Adds to the error of a call for the secret `id` that its ARN may be incomplete. The policy of the function's role
/// names the complete ARN, and Secrets Manager takes the end of a name such as `team-secret` for the characters that it
/// adds itself.
pub(super) fn about_secret(error: Error, id: &str) -> Error {
    let is_possible = matches!(error.class, ErrorClass::Permission | ErrorClass::NotFound) && !error.names_cause;
    match incomplete_arn(id) {
        Some(why) if is_possible => {
            let remedy = format!("{}. {why}", error.remedy);
            Error { names_cause: true, ..error }.with_remedy(remedy)
        }
        Some(_) | None => error,
    }
}

/// Why the ARN of a secret may be incomplete. Secrets Manager adds six letters or digits, and about one in two hundred
/// of these suffixes has lowercase letters only, like a word.
fn incomplete_arn(id: &str) -> Option<String> {
    let name = id.strip_prefix("arn:")?.rsplit(':').next()?;
    let suffix = name.rsplit_once('-').map(|(_, end)| end).filter(|end| end.len() == 6);
    match suffix.filter(|suffix| suffix.bytes().all(|b| b.is_ascii_alphanumeric())) {
        Some(suffix) if suffix.bytes().all(|b| b.is_ascii_lowercase()) => Some(format!(
            "If the secret's name ends with \"-{suffix}\", the ARN lacks the hyphen and six characters that Secrets \
             Manager adds. Configure the complete ARN"
        )),
        Some(_) => None,
        None => Some(
            "The ARN lacks the hyphen and six characters that Secrets Manager adds to the name. Configure the \
             complete ARN"
                .to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(service: Service, code: &'static str, status: u16, message: &'static str) -> Refusal<'static> {
        Refusal { service, call: "test", status, code, message, request_id: None }
    }

    #[test]
    fn every_code_that_aws_declares_has_a_class_and_a_remedy() {
        let mut tried = 0;
        for row in codes::all() {
            let Some(service) = row.service() else { continue };
            let (code, message) = (row.code.as_str(), row.message.as_str());
            let call = if row.operations.iter().any(|it| it == "PutSecretValue") { "PutSecretValue" } else { "test" };
            let error = explain(Refusal { service, call, status: row.status, code, message, request_id: None });
            assert_eq!(serde_json::to_value(error.class).unwrap(), row.class, "{} {code} {message}", row.service);
            assert!(error.remedy.contains(&row.remedy), "{} {code} {message}: {}", row.service, error.remedy);
            tried += 1;
        }
        assert!(tried > 50, "{tried}");
    }

    #[test]
    fn a_code_that_is_none_is_not_shown() {
        for code in ["a request that is repeated", "{\"SecretString\":\"x\"}", &"x".repeat(MAX_CODE + 1)] {
            let error = explain(Refusal { code, ..refusal(Service::Sts, "", 400, "") });
            assert_eq!(error.problem, "answered 400");
        }
    }

    #[test]
    fn a_code_that_is_not_listed_has_the_class_of_its_status() {
        for (code, status, class) in [
            ("New", 400, ErrorClass::Configuration),
            ("New", 401, ErrorClass::InvalidCredentials),
            ("New", 403, ErrorClass::Permission),
            ("New", 429, ErrorClass::Throttled),
            ("New", 500, ErrorClass::Unavailable),
            ("", 403, ErrorClass::Unavailable),
            ("", 429, ErrorClass::Throttled),
        ] {
            assert_eq!(explain(refusal(Service::Iam, code, status, "")).class, class, "{code} {status}");
        }
    }

    #[test]
    fn the_message_of_a_denial_is_shown_and_that_of_another_error_is_not() {
        const MESSAGE: &str = "User: arn:aws:sts::123456789012:assumed-role/rotator/function is not authorized to \
                               perform: iam:CreateServiceSpecificCredential on resource: user braintrust because no \
                               identity-based policy allows the iam:CreateServiceSpecificCredential action";
        let message = |code| explain(refusal(Service::Iam, code, 400, MESSAGE)).aws.and_then(|aws| aws.message);
        assert_eq!(message("AccessDenied").as_deref(), Some(MESSAGE));
        assert_eq!(message("InvalidClientTokenId"), None);
        assert_eq!(message("ValidationError"), None);
    }

    #[test]
    fn a_message_is_one_bounded_line_without_control_characters() {
        let long = harmless(&"no entry ".repeat(1_000));
        assert!(long.len() <= 510 && long.ends_with(" …"), "{long}");
        assert_eq!(harmless("a\nb\r\tc\u{1b}[31m d\u{202e}e\u{0}"), "a b c [31m d e");
        assert_eq!(harmless(" \n"), "");
    }

    #[test]
    fn a_message_that_repeats_the_request_shows_no_secret_of_it() {
        let secrets = [
            "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            "IQoJb3JpZ2luX2VjEOr".repeat(20),
            format!("ABSK{}", "QmVkcm9jaw".repeat(10)),
            format!("bedrock-api-key-{}", "YmVkcm9jay5hbWF6b25hd3MuY29t".repeat(9)),
            "sk-1f0c9e1d7a7f4a1bb0a3c8f9d2e46b55".to_owned(),
            "bt-st-1f0c9e1d7a7f4a1bb0a3c8f9d2e46b55".to_owned(),
        ];
        for secret in secrets {
            for around in ["{}", "\"{}\"", "X-Amz-Security-Token: {}\nhost: x", "Action=A&Token={}&X=1", "<a>{}</a>"]
                .into_iter()
                .chain(["{\"secret_access_key\":\"{}\"}", "arn:{}", "arn:aws{}", "arn:aws:x={}&y", "iam:{}", "({}),"])
            {
                let message = around.replace("{}", &secret);
                let shown = harmless(&format!("User: x is not authorized: {message}"));
                let leaks =
                    secret.as_bytes().windows(24).any(|part| shown.contains(std::str::from_utf8(part).unwrap()));
                assert!(!leaks, "{message}: {shown}");
            }
        }
    }

    #[test]
    fn a_request_id_is_shown_only_if_it_has_the_form_of_one() {
        let id = |id| details(ErrorClass::Conflict, "", Some(id)).request_id;
        for shown in ["01234567-89ab-cdef-0123-456789abcdef", "7T88HFP23DFETSEW"] {
            assert_eq!(id(shown).as_deref(), Some(shown));
        }
        assert_eq!(id("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"), None);
        assert_eq!(id("wJalrXUtnFEMI-K7MDENG-bPxRfiCYEXAMPL"), None);
    }

    #[test]
    fn an_incomplete_arn_of_a_secret_is_named() {
        let arn = |name: &str| format!("arn:aws:secretsmanager:us-east-1:123456789012:secret:{name}");
        let error = |class| Error::new(class, Service::SecretsManager, "GetSecretValue", "a", "b");
        let remedy = |id: &str, class| about_secret(error(class), id).remedy;
        for class in [ErrorClass::Permission, ErrorClass::NotFound] {
            assert!(remedy(&arn("xyz-secret"), class).contains("If the secret's name ends with \"-secret\""));
            assert!(remedy(&arn("team/xyz"), class).contains("Configure the complete ARN"));
            assert_eq!(remedy(&arn("xyz-secret-AbC1eF"), class), "b");
            assert_eq!(remedy("xyz-secret", class), "b");
        }
        assert_eq!(remedy(&arn("xyz-secret"), ErrorClass::Throttled), "b");
    }
}
