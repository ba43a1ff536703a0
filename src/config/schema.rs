//! The JSON Schema of the targets, `docs/targets.schema.json`: made from the types that parse them.

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::parse::{RawTarget, refused_fields};
use super::{Defaults, Target, examples, parse};
use crate::credentials::Kind;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/targets.schema.json");

/// Which fields a kind needs and refuses.
fn rules_of_a_target() -> Value {
    let kinds = [Kind::Temporary, Kind::ShortTermApiKey, Kind::AccessKey, Kind::LongTermApiKey];
    let is = |kind| json!({"required": ["kind"], "properties": {"kind": {"const": kind}}});
    let of_kinds = kinds.into_iter().map(|kind| json!({"if": is(kind), "then": rules_of_a_kind(kind)}));
    let given = |field: &str| json!({"required": [field], "properties": {field: present()}});
    let with_a_role = ["external_id", "source_identity", "session_tags"];
    let of_roles = with_a_role.into_iter().map(|field| json!({"if": given(field), "then": given("role_arn")}));
    of_kinds.chain(of_roles).collect()
}

fn rules_of_a_kind(kind: Kind) -> Value {
    let needed: &[&str] = match kind {
        Kind::Temporary | Kind::ShortTermApiKey => &["role_arn"],
        Kind::AccessKey | Kind::LongTermApiKey => &["user_name", "secret_id"],
    };
    let refused = refused_fields(kind).iter().map(|field| ((*field).to_owned(), absent()));
    let mut properties: Map<_, _> = refused.collect();
    properties.extend(needed.iter().map(|field| ((*field).to_owned(), present())));
    if kind.is_api_key() {
        let layout = json!({"properties": {"layout": {"not": {"const": "documented"}}}});
        properties.insert("ai_secrets".to_owned(), json!({"items": layout}));
    }
    json!({"required": needed, "properties": properties})
}

/// By its ID or by its name.
fn ways_to_find_a_destination() -> Value {
    json!([
        {"required": ["id"], "properties": {"id": present(), "name": absent()}},
        {"required": ["name"], "properties": {"name": present(), "id": absent()}},
    ])
}

/// An organization goes with a name: that of the project if there is one, or else that of the `ai_secret`.
fn rules_of_an_organization() -> Value {
    const UUID: &str = r"^\s*[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\s*$";
    json!([{
        "if": {"required": ["org_name"], "properties": {"org_name": present()}},
        "then": {"anyOf": [
            {"required": ["name"], "properties": {"name": present(), "project": absent()}},
            {"required": ["project"], "properties": {"project": {"type": "string", "not": {"pattern": UUID}}}},
        ]},
    }])
}

fn present() -> Value {
    json!({"not": {"type": "null"}})
}

fn absent() -> Value {
    json!({"type": "null"})
}

/// What the types of a target's fields don't say: what a field is for, what its check accepts, and its default.
fn keywords_of_a_target() -> Value {
    json!({
        "name": {
            "description": "The target's unique name in events, reports and role session names.",
            "pattern": "^[A-Za-z0-9_.-]{1,48}$",
        },
        "kind": {
            "description":
                "The kind of credentials. The role-based kinds, `temporary` and `short_term_api_key`, expire within \
                 the hour. The user-based kinds, `access_key` and `long_term_api_key`, belong to an IAM user and are \
                 rotated by age.",
        },
        "role_arn": {
            "description":
                "The role to assume. Role-based kinds need it: it is the role that may call Bedrock. For user-based \
                 kinds, it is the role that may manage the IAM user, by default the function's own role.",
            "pattern": "^arn:aws[^:]*:iam::[0-9]{12}:role/[A-Za-z0-9+=,.@_/-]{1,576}$",
        },
        "external_id": {
            "description": "The external ID that the role's trust policy requires.",
            "pattern": "^[A-Za-z0-9_+=,.@:/-]{2,1224}$",
        },
        "source_identity": {
            "description":
                "The source identity of the role's session, which CloudTrail shows. `{target}` becomes the target's \
                 name, and `{trigger}` what sent the event. The role's trust policy and the function's policy must \
                 allow `sts:SetSourceIdentity`.",
            "pattern": r"^([A-Za-z0-9_+=,.@-]{2,64}|[A-Za-z0-9_+=,.@-]*(\{(target|trigger)\}[A-Za-z0-9_+=,.@-]*)+)$",
        },
        "session_tags": {
            "description":
                "The tags of the role's session, for audits, policies and cost allocation. In a value, `{target}` \
                 becomes the target's name, and `{trigger}` what sent the event. The role's trust policy and the \
                 function's policy must allow `sts:TagSession`.",
            "maxProperties": 50,
            "propertyNames": {
                "pattern": r"^[\p{L}\p{N} _.:/=+@-]+$",
                "maxLength": 128,
                "not": {"pattern": "^[aA][wW][sS]:"},
            },
            "additionalProperties": {
                "type": "string",
                "pattern": r"^([\p{L}\p{N} _.:/=+@-]|\{(target|trigger)\})*$",
                "maxLength": 256,
            },
        },
        "duration_seconds": {
            "description":
                "The lifetime of the role's session. The maximum is one hour because the function's role assumes \
                 another role.",
            "type": ["integer", "null"],
            "minimum": 900,
            "maximum": 3_600,
            "default": 3_600,
        },
        "session_policy": {
            "description":
                "A session policy that further restricts the role: at most 2,048 characters as compact JSON.",
        },
        "revoke_sessions": {
            "description":
                "Whether the action `revoke` ends the sessions of the role that were issued before, with an inline \
                 policy. The function's role must be allowed `iam:GetRolePolicy` and `iam:PutRolePolicy` on the role, \
                 which must be in the function's account. No other role-based target can use the role.",
            "default": false,
        },
        "user_name": {
            "description": "The name of the IAM user, without its path. User-based kinds need it.",
            "pattern": "^[A-Za-z0-9_+=,.@-]{1,64}$",
        },
        "rotate_after": {
            "description": "The age at which the credentials are rotated, in minutes, hours or days.",
            "pattern": "^[0-9]{1,9}[mhd]$",
            "not": {"type": "string", "pattern": "^0+[mhd]$"},
            "default": "30d",
        },
        "overlap": {
            "description":
                "How long the previous credentials keep working after a rotation, in minutes, hours or days. It must \
                 be longer than any reader caches credentials, and shorter than `rotate_after`.",
            "pattern": "^[0-9]{1,9}[mhd]$",
            "default": "2h",
        },
        "credential_age_days": {
            "description":
                "The number of days after which the API key expires if nobody rotates it. It must be more than \
                 `rotate_after` and `overlap` together.",
            "type": ["integer", "null"],
            "minimum": 1,
            "maximum": 36_600,
            "default": 90,
        },
        "secret_id": secret_id(
            "The name or ARN of the Secrets Manager secret that stages the credentials. User-based kinds need it, \
             because a lost key can't be read again.",
        ),
        "region": {"description": "The AWS region in which Bedrock is called.", "pattern": "^[a-z0-9-]+$"},
        "probe": {
            "description": "How new credentials are proven before they are written to Braintrust.",
            "default": "models",
        },
        "end_to_end": {
            "description":
                "After the credentials were written, a request for one token of this model through Braintrust proves \
                 that Braintrust can use them, at the model's price. If they are refused, the rotation fails, and the \
                 credentials that worked before are restored if that helps. By default, no such request is sent.",
        },
        "ai_secrets": {
            "description": "The `ai_secret`s and project-level providers in Braintrust that receive the credentials.",
            "minItems": 1,
        },
    })
}

/// The same for a destination's fields.
fn keywords_of_a_destination() -> Value {
    json!({
        "id": {"description": "The ID of the `ai_secret`, or of the project's provider: either this or `name`.", "format": "uuid"},
        "name": {"description": "The name of the `ai_secret`, or of the project's provider: either this or `id`.", "pattern": r"\S"},
        "org_name": {
            "description":
                "The name of the organization. It is needed with the name of an `ai_secret` or a project if the API \
                 key sees several organizations.",
            "pattern": r"\S",
        },
        "project": {
            "description":
                "The name or ID of a project. `id` or `name` is then that of the project's own provider, instead of \
                 an `ai_secret`'s.",
            "pattern": r"\S",
        },
        "api_url": {
            "description":
                "The URL of the Braintrust data plane, by default `BRAINTRUST_API_URL`. It must start with \
                 `https://`, except on a loopback address.",
            "format": "uri",
            "pattern": r"^(https://|http://(localhost|127(\.[0-9]+){3}|\[::1\])(:[0-9]+)?(/|$))[^?#]*$",
        },
        "api_key_secret_id": secret_id(
            "The name or ARN of the secret that holds the Braintrust API key, by default \
             `BRAINTRUST_API_KEY_SECRET_ID`.",
        ),
        "layout": {
            "description": "Which metadata fields of the provider hold the credentials.",
            "default": "auto",
        },
    })
}

fn secret_id(description: &str) -> Value {
    json!({
        "description": description,
        "pattern": r"^\s*[A-Za-z0-9/_+=.@:!-]{1,2048}\s*$",
        "not": {"type": "string", "pattern": r"^\s*(sk-|bt-st-)"},
    })
}

/// Adds its keywords to each field, and fails for a field that has none.
fn extend(object: &mut Value, keywords: &Value) {
    for (field, schema) in object["properties"].as_object_mut().unwrap() {
        let keywords = keywords[field].as_object().unwrap_or_else(|| panic!("{field} is not described"));
        // The schema of a `Value` is `true`.
        let mut described = schema.as_object().cloned().unwrap_or_default();
        described.extend(keywords.clone());
        *schema = Value::Object(described);
    }
}

fn generate() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<Vec<RawTarget>>();
    RecursiveTransform(join_lines).transform(&mut schema);
    let mut schema = schema.to_value();
    schema["title"] = json!("Targets of bedrock-braintrust-rotator");
    schema["description"] =
        json!("The value of TARGETS, of the secret that TARGETS_SECRET_ID names, or of the object at TARGETS_S3_URI.");
    schema["minItems"] = json!(1);
    let target = &mut schema["items"];
    extend(target, &keywords_of_a_target());
    target["description"] =
        json!("One set of Bedrock credentials to keep fresh, and the destinations that receive it.");
    target["allOf"] = rules_of_a_target();
    let destination = &mut target["properties"]["ai_secrets"]["items"];
    extend(destination, &keywords_of_a_destination());
    destination["oneOf"] = ways_to_find_a_destination();
    destination["allOf"] = rules_of_an_organization();
    schema
}

/// A doc comment's line breaks are those of the source file.
fn join_lines(schema: &mut Schema) {
    if let Some(Value::String(description)) = schema.get_mut("description") {
        *description = description.replace('\n', " ");
    }
}

fn read(target: &Value) -> Result<Vec<Target>, String> {
    let api_key_secret_id = Some("braintrust".to_owned().try_into().unwrap());
    let defaults = Defaults { api_url: "https://api.braintrust.dev".parse().unwrap(), api_key_secret_id };
    parse::targets(&json!([target]).to_string(), &defaults, None).map_err(|invalid| invalid.to_string())
}

/// Whether the schema accepts the target.
fn validator() -> impl Fn(&Value) -> bool {
    let (mut schemas, mut compiler) = (boon::Schemas::new(), boon::Compiler::new());
    compiler.enable_format_assertions();
    compiler.add_resource("targets.schema.json", generate()).unwrap();
    let index = compiler.compile("targets.schema.json", &mut schemas).unwrap();
    move |target| schemas.validate(&json!([target]), index).is_ok()
}

#[test]
#[ignore = "writes docs/targets.schema.json"]
fn write_the_schema() {
    std::fs::write(PATH, format!("{:#}\n", generate())).unwrap();
}

#[test]
fn the_documented_schema_is_that_of_the_types() {
    let documented: Value = serde_json::from_str(&std::fs::read_to_string(PATH).unwrap()).unwrap();
    assert!(
        documented == generate(),
        "docs/targets.schema.json is out of date. Regenerate it: cargo test --lib write_the_schema -- --ignored"
    );
}

#[test]
fn the_schema_accepts_and_refuses_what_the_parser_does() {
    let is_valid = validator();
    for target in examples::accepted() {
        assert!(read(&target).is_ok(), "{target}: {:?}", read(&target));
        assert!(is_valid(&target), "{target}");
    }
    for (target, _) in examples::refused() {
        assert!(read(&target).is_err(), "{target}");
        assert!(!is_valid(&target), "{target}");
    }
    for (target, _) in examples::refused_by_the_parser() {
        assert!(read(&target).is_err(), "{target}");
        assert!(is_valid(&target), "the schema can state this rule: {target}");
    }
}

#[test]
fn null_is_absent_for_every_optional_field() {
    let (schema, is_valid) = (generate(), validator());
    let optional = |schema: &Value| -> Vec<String> {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let fields = schema["properties"].as_object().unwrap().keys().cloned();
        fields.filter(|field| !required.contains(&json!(field))).collect()
    };
    let is_accepted = |target: &Value| read(target).is_ok() && is_valid(target);
    let of_a_target = optional(&schema["items"]);
    assert_eq!(of_a_target.len(), 14);
    for field in of_a_target {
        let long_term = examples::with(examples::user_based(), json!({"kind": "long_term_api_key"}));
        let targets = [examples::role_based(), examples::user_based(), long_term].map(|mut target| {
            target[&field] = Value::Null;
            target
        });
        assert!(targets.iter().any(is_accepted), "{field}");
    }
    let of_a_destination = optional(&schema["items"]["properties"]["ai_secrets"]["items"]);
    assert_eq!(of_a_destination.len(), 7);
    for field in of_a_destination {
        let targets = [json!({"id": examples::AI_SECRET_ID}), json!({"name": "x"})].map(|mut destination| {
            destination[&field] = Value::Null;
            examples::with(examples::role_based(), json!({"ai_secrets": [destination]}))
        });
        assert!(targets.iter().any(is_accepted), "{field}");
    }
}

#[test]
fn the_defaults_of_the_schema_are_those_of_the_parser() {
    let schema = generate();
    let defaults = |schema: &Value| -> Vec<(String, Value)> {
        let fields = schema["properties"].as_object().unwrap().iter();
        fields.filter_map(|(name, field)| Some((name.clone(), field.get("default")?.clone()))).collect()
    };
    let long_term = examples::with(examples::user_based(), json!({"kind": "long_term_api_key"}));
    let mut tried = 0;
    for minimal in [examples::role_based(), long_term] {
        for (field, default) in defaults(&schema["items"]) {
            let given = examples::with(minimal.clone(), json!({&field: default}));
            if let Ok(targets) = read(&given) {
                assert_eq!(format!("{targets:?}"), format!("{:?}", read(&minimal).unwrap()), "{field}");
                tried += 1;
            }
        }
        for (field, default) in defaults(&schema["items"]["properties"]["ai_secrets"]["items"]) {
            let mut given = minimal.clone();
            given["ai_secrets"][0][&field] = default;
            assert_eq!(format!("{:?}", read(&given)), format!("{:?}", read(&minimal)), "{field}");
            tried += 1;
        }
    }
    assert_eq!(
        tried, 9,
        "probe and layout twice, duration_seconds, revoke_sessions, rotate_after, overlap, credential_age_days"
    );
}
