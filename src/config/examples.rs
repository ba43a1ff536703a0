//! Targets to try the parser and the JSON Schema on.

use serde_json::{Value, json};
use uuid::Uuid;

pub const AI_SECRET_ID: &str = "11111111-1111-4111-8111-111111111111";

/// A minimal `temporary` target.
pub fn role_based() -> Value {
    json!({
        "name": "prod",
        "kind": "temporary",
        "role_arn": "arn:aws:iam::123456789012:role/bedrock",
        "region": "us-east-1",
        "ai_secrets": [{"id": AI_SECRET_ID}],
    })
}

/// A minimal `access_key` target.
pub fn user_based() -> Value {
    json!({
        "name": "prod",
        "kind": "access_key",
        "user_name": "braintrust",
        "secret_id": "staged",
        "region": "us-east-1",
        "ai_secrets": [{"id": AI_SECRET_ID}],
    })
}

/// The target with other values in some fields. Null removes the field.
pub fn with(mut target: Value, change: Value) -> Value {
    let Value::Object(change) = change else { panic!("{change}") };
    for (field, value) in change {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&field);
        } else {
            target[field] = value;
        }
    }
    target
}

fn temporary(change: Value) -> Value {
    with(role_based(), change)
}

fn access_key(change: Value) -> Value {
    with(user_based(), change)
}

fn long_term(change: Value) -> Value {
    with(with(user_based(), json!({"kind": "long_term_api_key"})), change)
}

fn destination(value: Value) -> Value {
    temporary(json!({"ai_secrets": [value]}))
}

fn tags(count: usize) -> Value {
    (0..count).map(|number| (number.to_string(), "x".into())).collect::<serde_json::Map<_, _>>().into()
}

pub fn accepted() -> Vec<Value> {
    vec![
        role_based(),
        user_based(),
        temporary(json!({"kind": "short_term_api_key", "secret_id": "staged"})),
        temporary(json!({"name": "x".repeat(48)})),
        temporary(json!({"external_id": "ab"})),
        temporary(json!({"external_id": "_+=,.@:/-".repeat(136)})),
        temporary(json!({"source_identity": "braintrust-rotator@example.com"})),
        temporary(json!({"session_tags": {"team": "ml", "Größe": "", "a b": "_.:/=+-@"}})),
        temporary(json!({"source_identity": "rotator-{target}"})),
        temporary(json!({"source_identity": "{target}"})),
        temporary(json!({"session_tags": {"target": "{target}", "by": "by {trigger} of {target}"}})),
        temporary(json!({"session_tags": {"k".repeat(128): "v".repeat(256)}})),
        temporary(json!({"session_tags": tags(50)})),
        access_key(json!({"role_arn": "arn:aws:iam::123456789012:role/x", "session_tags": {"team": "ml"}})),
        temporary(json!({"session_policy": {"x": "y".repeat(2_048 - 8)}})),
        temporary(json!({"revoke_sessions": true})),
        temporary(json!({"duration_seconds": 900})),
        temporary(json!({"duration_seconds": 3_600})),
        temporary(json!({"role_arn": "arn:aws-us-gov:iam::123456789012:role/path/x"})),
        temporary(json!({"probe": "models"})),
        temporary(json!({"probe": {"converse": "eu.amazon.nova-micro-v1:0"}})),
        temporary(json!({"probe": {"converse": ["a", "b"]}})),
        temporary(json!({"end_to_end": {"model": "us.amazon.nova-micro-v1:0"}})),
        access_key(json!({"end_to_end": {"model": "claude-haiku-4-5"}})),
        access_key(json!({"user_name": "x".repeat(64)})),
        access_key(json!({"role_arn": "arn:aws:iam::123456789012:role/x", "external_id": "ab"})),
        access_key(json!({"rotate_after": "121m"})),
        access_key(json!({"rotate_after": "000000121m"})),
        access_key(json!({"rotate_after": "999999999d"})),
        access_key(json!({"overlap": "0h"})),
        long_term(json!({})),
        long_term(json!({"credential_age_days": 31, "rotate_after": "29d", "overlap": "24h"})),
        long_term(json!({"credential_age_days": 36_600})),
        destination(json!({"name": "x"})),
        destination(json!({"name": "x", "org_name": "y", "layout": "documented"})),
        destination(json!({"name": "x", "layout": "gateway", "api_url": "https://x.example/api"})),
        destination(json!({"name": "x", "api_url": "http://127.0.0.1:8000", "api_key_secret_id": "other"})),
        destination(json!({"name": "x", "api_url": "http://[::1]:8000"})),
        destination(json!({"name": "x", "api_url": "http://localhost"})),
        destination(json!({"name": "x", "project": "support-bot"})),
        destination(json!({"name": "x", "project": "support-bot", "org_name": "y"})),
        destination(json!({"id": AI_SECRET_ID, "project": "support-bot", "org_name": "y", "layout": "gateway"})),
        destination(json!({"name": "x", "project": AI_SECRET_ID})),
        destination(json!({"id": AI_SECRET_ID, "project": AI_SECRET_ID})),
        // A name may look like a UUID without hyphens.
        destination(json!({"name": "x", "project": AI_SECRET_ID.replace('-', ""), "org_name": "y"})),
    ]
}

/// What the parser and the schema refuse, with the parser's reason.
pub fn refused() -> Vec<(Value, &'static str)> {
    vec![
        (json!(5), "target number 1: it is not an object"),
        (json!(["prod"]), "target number 1: it is not an object"),
        (temporary(json!({"regoin": "us-east-1"})), "target \"prod\": regoin: unknown field `regoin`, expected one of"),
        (temporary(json!({"name": null})), "target number 1: missing field `name`"),
        (temporary(json!({"name": ""})), "target \"\": name: expected"),
        (temporary(json!({"name": "a b"})), "target \"a b\": name: expected"),
        (temporary(json!({"name": "x".repeat(49)})), "name: expected 1 to 48"),
        (temporary(json!({"name": 5})), "name: invalid type: integer `5`"),
        (temporary(json!({"kind": "forever"})), "kind: unknown variant `forever`, expected one of `temporary`"),
        (temporary(json!({"kind": null})), "target \"prod\": missing field `kind`"),
        (temporary(json!({"region": ""})), "region: found \"\""),
        (temporary(json!({"region": "us-east-1/x"})), "region: found"),
        (temporary(json!({"region": "US-EAST-1"})), "region: found"),
        (temporary(json!({"role_arn": null})), "role_arn: this kind needs it"),
        (temporary(json!({"kind": "short_term_api_key", "role_arn": null})), "role_arn: this kind needs it"),
        (temporary(json!({"role_arn": "arn:aws:iam::123:role/x"})), "role_arn: found \"arn:aws:iam::123:role/x\""),
        (temporary(json!({"role_arn": "arn:aws:iam::123456789012:user/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:iam::123456789012:role/"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:iam::123456789012:role/x y"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:iam::12345678901x:role/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:iam:us-east-1:123456789012:role/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:sts::123456789012:role/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:gcp:iam::123456789012:role/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "nra:aws:iam::123456789012:role/x"})), "role_arn: found"),
        (temporary(json!({"role_arn": "arn:aws:iam::123456789012"})), "role_arn: found"),
        (
            temporary(json!({"duration_seconds": 7200})),
            "duration_seconds: found 7200; expected a whole number from 900 to 3600 (a role that assumes another role",
        ),
        (temporary(json!({"duration_seconds": 899})), "duration_seconds: found 899; expected a whole number"),
        (temporary(json!({"duration_seconds": -900})), "duration_seconds: found -900; expected a whole number"),
        (temporary(json!({"duration_seconds": 900.5})), "duration_seconds: found 900.5"),
        (temporary(json!({"duration_seconds": "3600"})), "duration_seconds: found \"3600\""),
        (temporary(json!({"external_id": "a b"})), "external_id: expected"),
        (temporary(json!({"external_id": "a"})), "external_id: expected"),
        (temporary(json!({"external_id": "a".repeat(1_225)})), "external_id: expected"),
        (temporary(json!({"source_identity": "a"})), "source_identity: found \"a\"; expected 2 to 64"),
        (temporary(json!({"source_identity": "aws:x"})), "source_identity: found"),
        (temporary(json!({"source_identity": "x".repeat(65)})), "source_identity: found"),
        (temporary(json!({"source_identity": "{name}"})), "source_identity: found \"{name}\""),
        (temporary(json!({"source_identity": "{target"})), "source_identity: found \"{target\""),
        (temporary(json!({"session_tags": {"team": "{name}"}})), "session_tags: the tag \"team\" is refused"),
        (temporary(json!({"session_tags": {"{target}": "x"}})), "session_tags: the tag \"{target}\" is refused"),
        (temporary(json!({"session_tags": ["team"]})), "session_tags: invalid type: sequence"),
        (temporary(json!({"session_tags": {"team": 1}})), "session_tags"),
        (temporary(json!({"session_tags": {"": "x"}})), "session_tags: the tag \"\" is refused; expected a key"),
        (temporary(json!({"session_tags": {"team": "a*"}})), "session_tags: the tag \"team\" is refused"),
        (temporary(json!({"session_tags": {"k".repeat(129): "x"}})), "session_tags: the tag \"kkk"),
        (temporary(json!({"session_tags": {"k": "x".repeat(257)}})), "session_tags: the tag \"k\" is refused"),
        (temporary(json!({"session_tags": {"AWS:x": "y"}})), "AWS reserves the prefix aws:"),
        (temporary(json!({"session_tags": tags(51)})), "session_tags: AWS accepts at most 50 tags"),
        (access_key(json!({"external_id": "ab"})), "external_id: it goes with role_arn"),
        (access_key(json!({"source_identity": "ab"})), "source_identity: it goes with role_arn"),
        (access_key(json!({"session_tags": {"team": "ml"}})), "session_tags: it goes with role_arn"),
        (temporary(json!({"session_policy": "{}"})), "session_policy: invalid type: string"),
        (temporary(json!({"user_name": "x"})), "user_name: this kind doesn't accept it"),
        (temporary(json!({"rotate_after": "30d"})), "rotate_after: this kind doesn't accept it"),
        (temporary(json!({"overlap": "1h"})), "overlap: this kind doesn't accept it"),
        (temporary(json!({"secret_id": ""})), "secret_id: it is empty"),
        (temporary(json!({"secret_id": " "})), "secret_id: it is empty"),
        (temporary(json!({"secret_id": " sk-1"})), "secret_id: found what looks like an API key"),
        (temporary(json!({"secret_id": "sk-1"})), "secret_id: found what looks like an API key"),
        (temporary(json!({"secret_id": "a b"})), "secret_id: expected a secret's name or ARN"),
        (temporary(json!({"secret_id": "x".repeat(2_049)})), "secret_id: expected a secret's name or ARN"),
        (temporary(json!({"probe": {"converse": " "}})), "probe.converse: expected a model ID"),
        (temporary(json!({"probe": {"converse": []}})), "probe.converse: expected a model ID"),
        (temporary(json!({"probe": {"converse": ["a", "a"]}})), "probe.converse: expected a model ID"),
        (temporary(json!({"probe": {"converse": ["a", " "]}})), "probe.converse: expected a model ID"),
        (
            temporary(json!({"probe": {"converse": (0..11).map(|n| format!("m{n}")).collect::<Vec<_>>()}})),
            "probe.converse: expected a model ID",
        ),
        (temporary(json!({"probe": {"converse": {"a": "b"}}})), "probe.converse: expected a model ID"),
        (temporary(json!({"end_to_end": {}})), "end_to_end: missing field `model`"),
        (temporary(json!({"end_to_end": {"model": " "}})), "end_to_end.model: expected a model ID"),
        (temporary(json!({"end_to_end": {"model": "a", "url": "b"}})), "end_to_end.url: unknown field `url`"),
        (temporary(json!({"end_to_end": "a"})), "end_to_end: invalid type: string \"a\", expected an object"),
        (temporary(json!({"probe": "ping"})), "probe: unknown variant `ping`"),
        (access_key(json!({"user_name": null})), "user_name: this kind needs it"),
        (access_key(json!({"secret_id": null})), "secret_id: this kind needs it"),
        (access_key(json!({"user_name": "/x"})), "user_name: found \"/x\""),
        (access_key(json!({"user_name": ""})), "user_name: found \"\""),
        (access_key(json!({"user_name": "x".repeat(65)})), "user_name: found \"xxx"),
        (access_key(json!({"duration_seconds": 900})), "duration_seconds: this kind doesn't accept it"),
        (access_key(json!({"session_policy": {}})), "session_policy: this kind doesn't accept it"),
        (access_key(json!({"revoke_sessions": true})), "revoke_sessions: this kind doesn't accept it"),
        (temporary(json!({"revoke_sessions": "true"})), "revoke_sessions: invalid type: string"),
        (access_key(json!({"credential_age_days": 30})), "credential_age_days: this kind doesn't accept it"),
        (access_key(json!({"rotate_after": "30"})), "rotate_after: found \"30\""),
        (access_key(json!({"rotate_after": "0d"})), "rotate_after: it is zero"),
        (access_key(json!({"rotate_after": "0000000121m"})), "rotate_after: found"),
        (access_key(json!({"rotate_after": "1000000000d"})), "rotate_after: found"),
        (access_key(json!({"rotate_after": "€"})), "rotate_after: found"),
        (access_key(json!({"overlap": "-1h"})), "overlap: found \"-1h\""),
        (access_key(json!({"overlap": "0000000001h"})), "overlap: found"),
        (long_term(json!({"user_name": null})), "user_name: this kind needs it"),
        (long_term(json!({"credential_age_days": 0})), "credential_age_days: found 0; expected a whole number"),
        (long_term(json!({"credential_age_days": 36_601})), "credential_age_days: found 36601"),
        (long_term(json!({"credential_age_days": 100_000})), "credential_age_days: found 100000"),
        (
            long_term(json!({"ai_secrets": [{"name": "x", "layout": "documented"}]})),
            "ai_secrets[0].layout: the documented layout can't hold an API key",
        ),
        (
            temporary(json!({
                "kind": "short_term_api_key",
                "ai_secrets": [{"name": "x"}, {"name": "y", "layout": "documented"}],
            })),
            "ai_secrets[1].layout: the documented layout can't hold an API key",
        ),
        (temporary(json!({"ai_secrets": null})), "target \"prod\": missing field `ai_secrets`"),
        (temporary(json!({"ai_secrets": []})), "ai_secrets: at least one is needed"),
        (destination(json!({})), "ai_secrets[0]: neither id nor name"),
        (destination(json!("x")), "ai_secrets[0]: it is not an object"),
        (destination(json!([AI_SECRET_ID, null, null, null, null, null])), "ai_secrets[0]: it is not an object"),
        (destination(json!({"id": "5f1c"})), "ai_secrets[0].id: found \"5f1c\"; expected a UUID"),
        (destination(json!({"id": "sk-live"})), "ai_secrets[0].id: found \"sk-…\"; expected a UUID"),
        (temporary(json!({"role_arn": "sk-live"})), "role_arn: found \"sk-…\""),
        (destination(json!({"id": Uuid::nil(), "name": "x"})), "ai_secrets[0]: both id and name"),
        (destination(json!({"id": Uuid::nil(), "org_name": "x"})), "ai_secrets[0].org_name: it goes with name"),
        (destination(json!({"name": "x", "org_name": ""})), "ai_secrets[0].org_name: it may not be empty"),
        (destination(json!({"project": "x"})), "ai_secrets[0]: neither id nor name"),
        (destination(json!({"project": "x", "id": Uuid::nil(), "name": "y"})), "ai_secrets[0]: both id and name"),
        (destination(json!({"project": " ", "name": "x"})), "ai_secrets[0].project: it may not be empty"),
        (destination(json!({"project": 5, "name": "x"})), "ai_secrets[0].project: invalid type: integer"),
        (
            destination(json!({"project": format!(" {} ", Uuid::nil()), "name": "x", "org_name": "y"})),
            "ai_secrets[0].org_name: it goes with a project's name; a project's ID needs none",
        ),
        (destination(json!({"name": ""})), "ai_secrets[0].name: it may not be empty"),
        (destination(json!({"name": " "})), "ai_secrets[0].name: it may not be empty"),
        (destination(json!({"name": "x", "layout": "new"})), "ai_secrets[0].layout: unknown variant `new`"),
        (destination(json!({"name": "x", "colour": "red"})), "ai_secrets[0].colour: unknown field `colour`"),
        (
            destination(json!({"name": "x", "api_url": "http://x.example"})),
            "ai_secrets[0].api_url: found a URL with http:// to a host that is not loopback",
        ),
        (
            destination(json!({"name": "x", "api_url": "http://127.0.0.1.example.com"})),
            "ai_secrets[0].api_url: found a URL with http:// to a host that is not loopback",
        ),
        (destination(json!({"name": "x", "api_url": "https://x?org=y"})), "a query or a fragment. Expected: an https"),
        (
            destination(json!({"name": "x", "api_key_secret_id": "bt-st-1"})),
            "ai_secrets[0].api_key_secret_id: found what looks like an API key",
        ),
        (
            destination(json!({"name": "x", "api_key_secret_id": "Bearer sk-1"})),
            "ai_secrets[0].api_key_secret_id: expected a secret's name or ARN",
        ),
    ]
}

/// What only the parser refuses: rules that a JSON Schema can't state.
pub fn refused_by_the_parser() -> Vec<(Value, &'static str)> {
    vec![
        (temporary(json!({"session_policy": {"x": "y".repeat(2_048)}})), "session_policy: it has 2056 characters"),
        (
            temporary(json!({"session_tags": {"team": "a", "Team": "b"}})),
            "is given twice: AWS doesn't distinguish case",
        ),
        (
            temporary(json!({"name": "n".repeat(48), "source_identity": format!("{}{{target}}", "x".repeat(17))})),
            "source_identity: it becomes 65 characters long; STS accepts 2 to 64",
        ),
        (
            temporary(json!({"name": "n", "source_identity": "{target}"})),
            "source_identity: it becomes 1 characters long; STS accepts 2 to 64",
        ),
        (
            temporary(json!({"name": "n".repeat(48), "session_tags": {"k": format!("{}{{target}}", "v".repeat(209))}})),
            "session_tags: it becomes 257 characters long; STS accepts 0 to 256",
        ),
        (access_key(json!({"overlap": "30d"})), "overlap: found 30d; it must be shorter than rotate_after, 30d"),
        (
            long_term(json!({"credential_age_days": 30})),
            "credential_age_days: found 30; it must be more than rotate_after and overlap together, 30d and 2h",
        ),
        (
            long_term(json!({"credential_age_days": 30, "rotate_after": "29d", "overlap": "24h"})),
            "credential_age_days: found 30; it must be more than rotate_after and overlap together, 29d and 1d",
        ),
        (destination(json!({"name": "x", "api_url": "https://me@x.example"})), "found a URL with a user"),
    ]
}
