//! Amazon Web Services: one module for each service, behind functions that take and return this crate's own types.
//!
//! Only these modules name types of the AWS SDK. The SDK retries throttled and failed calls, so their errors are final,
//! as are those of `AssumeRole` and S3's call, which are retried here.
//! The creation of an IAM user's key is the exception: it is repeated here only if AWS refused the time of its
//! signature, because a lost response leaves a key whose secret nobody has. The caller has to find that key before it
//! tries again.

pub mod bedrock;
pub mod bedrock_api_key;
mod direct;
pub mod iam_keys;
pub mod iam_sessions;
mod refusals;
pub mod requests;
mod retries;
pub mod s3;
pub mod sdk;
pub mod secrets_manager;
mod signature;
pub mod staged_value;
pub mod sts;
