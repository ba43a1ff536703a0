//! Values for the tests of other modules.

use serde_json::{Value, json};

use super::{Config, Region, Target};

pub fn region(name: &str) -> Region {
    name.to_owned().try_into().unwrap()
}

/// A target with temporary credentials and no staged secret.
pub fn role_based(name: &str) -> Target {
    target(json!({"name": name, "kind": "temporary", "role_arn": "arn:aws:iam::123456789012:role/bedrock"}))
}

/// A target with an access key that is rotated after 30 days and has an overlap of one hour.
pub fn user_based(name: &str) -> Target {
    target(json!({"name": name, "kind": "access_key", "user_name": name, "secret_id": "staged", "overlap": "1h"}))
}

fn target(mut target: Value) -> Target {
    target["region"] = json!("us-east-1");
    target["ai_secrets"] = json!([{"id": "11111111-1111-4111-8111-111111111111"}]);
    let json = json!([target]).to_string();
    let variable = |name: &str| match name {
        "TARGETS" => Some(json.clone()),
        "BRAINTRUST_API_KEY_SECRET_ID" => Some("braintrust".to_owned()),
        _ => None,
    };
    let config = Config::read(&variable).unwrap();
    config.targets.parse(&json).unwrap().pop().unwrap()
}
