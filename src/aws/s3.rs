//! Reads an object of Amazon S3, unless it is unchanged.
//!
//! One call doesn't need a client of the SDK, which would add megabytes to the binary.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html>

use std::error::Error as StdError;

use aws_credential_types::provider::ProvideCredentials;
use aws_sigv4::http_request::{
    PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings, UriPathNormalizationMode,
};
use aws_types::SdkConfig;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, utf8_percent_encode};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Response, Url};

use super::direct::{self, element, header};
use super::refusals::{self, Refusal};
use super::{sdk, signature};
use crate::config::S3Uri;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};
use crate::http;

const GET_OBJECT: &str = "GetObject";
/// docs/fleet.md says how many targets that is.
const MAX_MEGABYTES: usize = 16;
/// Far more than an error, which is a few lines of XML.
const MAX_REFUSAL_MEGABYTES: usize = 1;
/// The characters of a key that are percent-encoded in its URL and its signature.
const ENCODED: &AsciiSet = &signature::ENCODED.remove(b'/');

pub struct S3 {
    pub http: Client,
    pub config: SdkConfig,
    /// `AWS_ENDPOINT_URL_S3` or `AWS_ENDPOINT_URL`, which replaces the region's endpoint.
    pub endpoint: Option<Url>,
    pub clock: fn() -> Timestamp,
}

pub struct Object {
    pub bytes: Vec<u8>,
    /// Identifies the content.
    pub etag: Option<String>,
}

impl S3 {
    /// `None` if the object still has this ETag.
    pub async fn get(&self, uri: &S3Uri, etag: Option<&str>, deadline: Deadline) -> Result<Option<Object>, Error> {
        // Lambda may have frozen the function after it signed the request, so each attempt has a signature of its own.
        let object = deadline.retry(Service::S3, GET_OBJECT, || self.try_to_get(uri, etag)).await;
        object.map_err(Error::into_final)
    }

    async fn try_to_get(&self, uri: &S3Uri, etag: Option<&str>) -> Result<Option<Object>, Error> {
        let request = self.request(uri, etag).await.map_err(|problem| {
            let remedy = "Check AWS_REGION, and that the function has credentials";
            error(ErrorClass::Configuration, format!("the request for {uri} can't be made: {problem}"), remedy)
        })?;
        let mut response = direct::send(&self.http, request, Service::S3, GET_OBJECT).await?;
        match response.status().as_u16() {
            200 => read(uri, &mut response).await.map(Some),
            304 if etag.is_some() => Ok(None),
            _ => Err(refusal(uri, &mut response).await),
        }
    }

    async fn request(&self, uri: &S3Uri, etag: Option<&str>) -> Result<reqwest::Request, Box<dyn StdError>> {
        let region = self.config.region().ok_or("there is no region")?.as_ref();
        let url = self.url(uri, region).await.ok_or("the region can't be part of a URL")?;
        let mut request = ::http::Request::builder().uri(url.as_str()).body("")?;
        if let Some(etag) = etag {
            request.headers_mut().insert(IF_NONE_MATCH, HeaderValue::try_from(etag)?);
        }
        let signer =
            self.config.credentials_provider().ok_or("there are no credentials")?.provide_credentials().await?;
        // S3 differs from other services: the path is signed exactly as it is in the URL, and a header has the body's
        // hash.
        let mut settings = SigningSettings::default();
        settings.percent_encoding_mode = PercentEncodingMode::Single;
        settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        let signable = SignableRequest::new("GET", url.as_str(), std::iter::empty(), SignableBody::Bytes(b""))?;
        let signature = signature::sign(signable, signer, "s3", region, (self.clock)(), settings)?;
        // Security: the signer marks the header with the session token as sensitive.
        signature.apply_to_request_http1x(&mut request);
        Ok(request.try_into()?)
    }

    async fn url(&self, uri: &S3Uri, region: &str) -> Option<Url> {
        let (bucket, key) = uri.parts();
        let key = utf8_percent_encode(key, ENCODED);
        let text = match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}/{key}", endpoint.as_str().trim_end_matches('/')),
            None => {
                let fips = if self.config.use_fips().unwrap_or_default() { "-fips" } else { "" };
                let dual_stack = if self.config.use_dual_stack().unwrap_or_default() { ".dualstack" } else { "" };
                let host = format!("s3{fips}{dual_stack}.{region}.{}", sdk::domain(region, false).await?);
                // S3's wildcard certificate is not valid for a bucket's name that contains a dot.
                match bucket.contains('.') {
                    true => format!("https://{host}/{bucket}/{key}"),
                    false => format!("https://{bucket}.{host}/{key}"),
                }
            }
        };
        Url::parse(&text).ok()
    }
}

fn error(class: ErrorClass, problem: impl Into<String>, remedy: &str) -> Error {
    Error::new(class, Service::S3, GET_OBJECT, problem, remedy)
}

async fn read(uri: &S3Uri, response: &mut Response) -> Result<Object, Error> {
    let length = header(response.headers(), CONTENT_LENGTH.as_str()).and_then(|length| length.parse::<usize>().ok());
    if length.is_some_and(|length| length > MAX_MEGABYTES << 20) {
        let remedy = "Split the list, and deploy a stack for each part";
        let problem = format!("{uri} is larger than {MAX_MEGABYTES} MB");
        return Err(error(ErrorClass::Configuration, problem, remedy));
    }
    let etag = header(response.headers(), ETAG.as_str()).map(str::to_owned);
    let bytes = http::read_body(response, MAX_MEGABYTES).await;
    let class = ErrorClass::Unavailable;
    let bytes = bytes.map_err(|problem| error(class, problem, refusals::remedy(class)))?;
    Ok(Object { bytes, etag })
}

/// Explains an error response.
async fn refusal(uri: &S3Uri, response: &mut Response) -> Error {
    let status = response.status().as_u16();
    let body = http::read_body(response, MAX_REFUSAL_MEGABYTES).await.unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let (code, message) = (&*element(&body, "Code"), &*element(&body, "Message"));
    let request_id = header(response.headers(), "x-amz-request-id");
    if refusals::is_stale_signature(code, message) {
        return error(ErrorClass::Unavailable, format!("answered {code} for {uri}"), refusals::CLOCK);
    }
    let explained =
        refusals::explain(Refusal { service: Service::S3, call: GET_OBJECT, status, code, message, request_id });
    let allow = "Check that the object exists, because S3 also denies access to one that doesn't. Allow s3:GetObject on \
                 it in the policy of the function's role (the template allows it for TargetsBucket and TargetsKey, in \
                 the stack's own account), and kms:Decrypt if the object is encrypted with a customer managed key (the \
                 parameter TargetsKmsKeyArn)";
    let upload = "Upload the list of targets there, or correct the parameters TargetsBucket and TargetsKey";
    let problem = format!("{} for {uri}", explained.problem);
    let explained = explained.with_remedy_for(ErrorClass::Permission, allow);
    Error { problem, ..explained.with_remedy_for(ErrorClass::NotFound, upload) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const KEY: &str = "fleet/targets (EU).json";
    const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    const FOUND: &str = "HTTP/1.1 200 OK\r\netag: \"v2\"\r\ncontent-length: 2\r\n\r\n[]";
    const UNCHANGED: &str = "HTTP/1.1 304 Not Modified\r\netag: \"v1\"\r\n\r\n";

    fn s3(endpoint: Option<Url>, config: SdkConfig) -> S3 {
        S3 { http: http::client(None, None).unwrap(), config, endpoint, clock: || Timestamp::UNIX_EPOCH }
    }

    fn uri(bucket: &str, key: &str) -> S3Uri {
        format!("s3://{bucket}/{key}").try_into().unwrap()
    }

    async fn get(responses: &[&str], etag: Option<&str>) -> (Result<Option<Object>, Error>, Vec<String>) {
        let (url, server) = direct::serve(responses.iter().map(|&response| response.to_owned()).collect());
        let config = sdk::config_for_test(http::client(None, None).unwrap(), "http://unused");
        let deadline = Deadline::after(Duration::from_secs(60));
        let object = s3(Some(url), config).get(&uri("acme-rotator", KEY), etag, deadline).await;
        (object, server.join().unwrap().into_iter().map(|received| received.head).collect())
    }

    fn refused(status: u16, code: &str, message: &str) -> String {
        let xml = format!("<?xml version=\"1.0\"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>");
        let head = format!("HTTP/1.1 {status} Refused\r\nx-amz-request-id: 7T88HFP23DFETSEW");
        format!("{head}\r\ncontent-length: {}\r\n\r\n{xml}", xml.len())
    }

    /// `tests/test_s3_endpoints.py` compares the file with the rules of AWS's own SDK.
    #[tokio::test]
    async fn the_endpoints_are_those_of_the_sdks_rules() {
        let json = include_str!("../../tests/vectors/s3_endpoints.json");
        let rows: Vec<(String, bool, bool, String, String)> = serde_json::from_str(json).unwrap();
        assert!(rows.len() >= 12, "{}", rows.len());
        for (region, fips, dual_stack, bucket, expected) in rows {
            let config = SdkConfig::builder().use_fips(fips).use_dual_stack(dual_stack).build();
            let url = s3(None, config).url(&uri(&bucket, "a/b.json"), &region).await.unwrap();
            assert_eq!(url.as_str(), format!("{expected}/a/b.json"));
        }
    }

    #[tokio::test]
    async fn the_request_is_signed_as_s3_requires_it() {
        let (object, heads) = get(&[FOUND], None).await;
        let object = object.unwrap().unwrap();
        assert_eq!((object.bytes.as_slice(), object.etag.as_deref()), (&b"[]"[..], Some("\"v2\"")));
        let head = heads[0].to_ascii_lowercase();
        assert!(heads[0].starts_with("GET /acme-rotator/fleet/targets%20%28EU%29.json HTTP/1.1"), "{head}");
        assert!(head.contains(&format!("x-amz-content-sha256: {EMPTY_SHA256}")), "{head}");
        assert!(head.contains("credential=akiatest/19700101/us-east-1/s3/aws4_request"), "{head}");
        assert!(!head.contains("if-none-match"), "{head}");
    }

    #[tokio::test]
    async fn an_object_with_the_same_etag_is_not_sent_again() {
        let (object, heads) = get(&[UNCHANGED], Some("\"v1\"")).await;
        assert!(object.unwrap().is_none());
        assert!(heads[0].to_ascii_lowercase().contains("if-none-match: \"v1\""), "{heads:?}");
        let (object, _) = get(&[FOUND], Some("\"v1\"")).await;
        assert!(object.unwrap().is_some());
    }

    #[tokio::test]
    async fn an_error_names_the_object_and_its_cause() {
        for (status, code, class, words) in [
            (403, "AccessDenied", ErrorClass::Permission, "Allow s3:GetObject on it in the policy"),
            (404, "NoSuchKey", ErrorClass::NotFound, "Upload the list of targets"),
            (404, "NoSuchBucket", ErrorClass::NotFound, "TargetsBucket"),
            (301, "PermanentRedirect", ErrorClass::Configuration, "in another region"),
            (400, "AuthorizationHeaderMalformed", ErrorClass::Configuration, "in another region"),
            (403, "InvalidObjectState", ErrorClass::Configuration, "archived"),
            (400, "KMS.DisabledException", ErrorClass::Configuration, "KMS key"),
        ] {
            let error = get(&[&refused(status, code, "a message")], None).await.0.err().unwrap();
            assert_eq!((error.service, error.class), (Service::S3, class), "{error}");
            assert_eq!(error.problem, format!("answered {code} for s3://acme-rotator/{KEY}"));
            assert!(error.remedy.contains(words), "{error}");
            assert_eq!(error.aws.unwrap().request_id.as_deref(), Some("7T88HFP23DFETSEW"));
        }
    }

    #[tokio::test]
    async fn a_passing_error_is_retried_with_a_new_signature_and_a_refusal_is_not() {
        for passing in [
            refused(503, "SlowDown", "Please reduce your request rate."),
            refused(500, "InternalError", ""),
            refused(
                403,
                "RequestTimeTooSkewed",
                "The difference between the request time and the server's is too large.",
            ),
        ] {
            let (object, heads) = get(&[&passing, FOUND], None).await;
            assert!(object.unwrap().is_some_and(|object| object.bytes == b"[]"), "{heads:?}");
        }
        let (object, _) = get(&[&refused(403, "AccessDenied", "Access Denied")], None).await;
        assert!(object.is_err_and(|error| !error.is_retryable()));
    }

    #[tokio::test]
    async fn an_object_that_is_too_large_is_refused_before_it_is_read() {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", (MAX_MEGABYTES << 20) + 1);
        let error = get(&[&head], None).await.0.err().unwrap();
        assert_eq!(error.class, ErrorClass::Configuration);
        assert!(error.problem.ends_with("targets (EU).json is larger than 16 MB"), "{error}");
    }
}
