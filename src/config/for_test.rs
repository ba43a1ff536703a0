//! Values for the tests and properties of other modules.

use serde_json::{Value, json};

use super::{Config, Region, Target};

pub fn region(name: &str) -> Region {
    parse(json!(name))
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
    let fields = json!({"region": "us-east-1", "ai_secrets": [{"id": "11111111-1111-4111-8111-111111111111"}]});
    if let (Some(target), Some(fields)) = (target.as_object_mut(), fields.as_object()) {
        target.extend(fields.clone());
    }
    let json = json!([target]).to_string();
    let variable = |name: &str| match name {
        "TARGETS" => Some(json.clone()),
        "BRAINTRUST_API_KEY_SECRET_ID" => Some("braintrust".to_owned()),
        _ => None,
    };
    let targets = Config::read(&variable).and_then(|config| config.read_targets(&json));
    targets.ok().and_then(|mut targets| targets.pop()).unwrap_or_else(|| unreachable!("the target is valid"))
}

fn parse<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap_or_else(|error| unreachable!("the value is valid: {error}"))
}
