//! AWS's error codes for the tests, each with the class and remedy that it must get. `tests/test_aws_error_codes.py`
//! compares them with the models of AWS's own SDK.

use serde::Deserialize;

use crate::error::Service;

#[derive(Deserialize)]
struct Codes {
    declared: Vec<Code>,
    common: Vec<Code>,
}

#[derive(Deserialize)]
pub struct Code {
    /// The name of the service's model.
    pub service: String,
    pub code: String,
    pub status: u16,
    #[serde(default)]
    pub operations: Vec<String>,
    #[serde(default)]
    pub message: String,
    /// The class, or `recognized` if Bedrock's answer proves the credentials but not the model.
    pub class: String,
    /// How many times a repeatable call is sent. `None` for S3 and Bedrock, whose calls have rules of their own.
    pub attempts: Option<usize>,
    /// Words that the remedy must contain.
    #[serde(default)]
    pub remedy: String,
}

impl Code {
    /// `None` for Bedrock, whose answers are explained elsewhere.
    pub fn service(&self) -> Option<Service> {
        match self.service.as_str() {
            "sts" => Some(Service::Sts),
            "iam" => Some(Service::Iam),
            "secretsmanager" => Some(Service::SecretsManager),
            "s3" => Some(Service::S3),
            _ => None,
        }
    }
}

pub fn all() -> Vec<Code> {
    let json = include_str!("../../../tests/vectors/aws_error_codes.json");
    let Codes { mut declared, common } = serde_json::from_str(json).unwrap();
    declared.extend(common);
    declared
}
