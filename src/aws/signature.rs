//! Signs requests that are sent without a client of the AWS SDK.

use std::error::Error as StdError;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{self, SignableRequest, SigningInstructions, SigningSettings};
use aws_sigv4::sign::v4::SigningParams;
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// The characters that SigV4 encodes.
pub(super) const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Signs a request to a service with Signature Version 4.
pub(super) fn sign(
    request: SignableRequest<'_>,
    signer: Credentials,
    service: &'static str,
    region: &str,
    now: Timestamp,
    settings: SigningSettings,
) -> Result<SigningInstructions, Box<dyn StdError>> {
    let identity = signer.into();
    let parameters = SigningParams::builder().identity(&identity).region(region).name(service).time(now.into());
    let parameters = parameters.settings(settings).build()?.into();
    Ok(http_request::sign(request, &parameters)?.into_parts().0)
}
