//! What must hold for any input. The property tests and the fuzzer share it.

#![expect(clippy::indexing_slicing, reason = "indexing a JSON object returns null or adds the field")]

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::aws::bedrock::Proven;
use crate::braintrust::ai_provider::{AiProvider, AuthType, Place};
use crate::braintrust::{arrival, layout};
use crate::config::{Config, LayoutChoice, Region};
use crate::credentials::{Credentials, Kind, Secret};
use crate::event::{Command, Origin};
use crate::json::Payload;

const REQUEST_ID: &str = "0f7b4d52-6a0c-4e0e-9a52-1f6f8d1f3c77";
const KINDS: [Kind; 4] = [Kind::Temporary, Kind::ShortTermApiKey, Kind::AccessKey, Kind::LongTermApiKey];

/// An event is refused, or names targets and says no more than is documented.
///
/// # Panics
/// If that does not hold.
pub fn of_an_event(event: &[u8]) {
    let Ok(payload) = serde_json::from_slice::<Payload>(event) else { return };
    let (event, is_ambiguous) = (payload.value.clone(), payload.duplicate_field.is_some());
    let named = |names: &[String]| {
        let given: Vec<_> = event["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(names, given, "the targets are those that the event names");
        let fields = ["action", "targets", "dry_run", "force", "reactivate", "api_key"];
        assert!(event.as_object().is_some_and(|event| event.keys().all(|key| fields.contains(&key.as_str()))));
    };
    let Ok(command) = Command::parse(payload, REQUEST_ID) else { return };
    assert!(!is_ambiguous, "an event with a field that is given twice is refused");
    match command {
        Command::Rotate(rotate) if rotate.origin == Origin::Schedule => {
            assert!(rotate.targets.is_empty() && !rotate.force && !rotate.dry_run);
            assert!(rotate.token == REQUEST_ID || event["id"] == rotate.token.as_str());
        }
        Command::Rotate(rotate) => {
            named(&rotate.targets);
            assert_eq!((rotate.token.as_str(), &event["action"]), (REQUEST_ID, &json!("rotate")));
        }
        Command::Rollback { targets, .. } => {
            named(&targets);
            assert!(!targets.is_empty());
        }
        Command::Revoke(revoke) => {
            named(&revoke.targets);
            assert!(!revoke.targets.is_empty() || (revoke.api_key && !revoke.force));
        }
        Command::Status(names) | Command::Check(names) => named(&names),
        Command::Inventory => named(&[]),
        Command::RotationStep(step) => assert_eq!(event["SecretId"], step.secret_id.as_str()),
    }
}

/// An `ai_secret` or a project's provider is refused, or it takes all parts of new credentials and then shows that it
/// holds them. No secret in it is ever shown.
///
/// # Panics
/// If that does not hold.
pub fn of_an_ai_provider(answer: &[u8]) {
    of_a_provider(Place::Organization, answer);
    of_a_provider(Place::Project, answer);
}

fn of_a_provider(place: Place, answer: &[u8]) {
    let Ok(before) = AiProvider::from_json(place, answer) else { return };
    let Some(answer) = serde_json::from_slice::<Value>(answer).ok().filter(Value::is_object) else { return };
    for kind in KINDS {
        for choice in [LayoutChoice::Auto, LayoutChoice::Gateway, LayoutChoice::Documented] {
            let Ok(layout) = layout::choose(choice, kind, &before) else { continue };
            assert!(before.is_bedrock());
            assert_ne!(before.metadata.auth_type, AuthType::AssumeRole);
            let _ = (layout::warning(layout, &before), arrival::access_key_id(layout, &before.metadata));
            let credentials = credentials(kind);
            let Ok(region) = Region::try_from("eu-west-1".to_owned()) else { unreachable!("it is a region") };
            let body = layout::patch_body(layout, Proven::assume(&credentials), &region, &before);
            let after = merged(place, &answer, &body.unwrap_or_default());
            assert_eq!(arrival::arrived(layout, &credentials, None, &after), Ok(()));
        }
    }
    assert!(!format!("{before:?}").contains(HIDDEN));
}

/// The value of the secret fields in a generated provider.
pub const HIDDEN: &str = "hidden-from-all";

/// A list of targets is refused, or its targets have unique names.
///
/// # Panics
/// If that does not hold.
pub fn of_targets(json: &str) {
    let variable = |name: &str| match name {
        "TARGETS" => Some(json.to_owned()),
        "BRAINTRUST_API_KEY_SECRET_ID" => Some("braintrust".to_owned()),
        _ => None,
    };
    let Ok(targets) = Config::read(&variable).and_then(|config| config.targets.parse(json)) else { return };
    assert!(!targets.is_empty());
    for (position, target) in targets.iter().enumerate() {
        assert!(!target.destinations.is_empty() && (1..=48).contains(&target.name.as_str().len()));
        assert!(targets.iter().skip(position + 1).all(|other| other.name != target.name));
    }
}

fn credentials(kind: Kind) -> Credentials {
    let secret = Secret::for_test(kind);
    Credentials { id: "AKIANEW".to_owned(), secret, created_at: Timestamp::UNIX_EPOCH, expires_at: None }
}

/// Merges as Braintrust does: deep, and without removing anything.
fn merged(place: Place, answer: &Value, patch: &[u8]) -> AiProvider {
    let (mut after, patch) = (answer.clone(), serde_json::from_slice::<Value>(patch).unwrap_or_default());
    if !after["metadata"].is_object() {
        after["metadata"] = json!({});
    }
    for (field, value) in patch["metadata"].as_object().into_iter().flatten() {
        after["metadata"][field] = value.clone();
    }
    after["secret_updated_at"] = json!("2026-01-01T00:00:00Z");
    AiProvider::from_json(place, after.to_string().as_bytes())
        .unwrap_or_else(|error| unreachable!("merged JSON parses again: {error}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::collection::btree_map;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;
    use crate::aws::iam_keys::{Key, MAX_KEYS};
    use crate::aws::secrets_manager::Stages;
    use crate::aws::staged_value::VersionValue;
    use crate::config::for_test;
    use crate::rotation::policy::{self, Overlap, Retirement};
    use crate::rotation::snapshot::{Snapshot, Version, Versions};

    /// JSON of any shape, with some fields and words that have a meaning.
    fn any_json(fields: &'static [&'static str], words: &'static [&'static str]) -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,60}".prop_map(Value::from),
            proptest::sample::select(words).prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, move |inner| {
            let field = prop_oneof![4 => proptest::sample::select(fields).prop_map(str::to_owned), 1 => ".{0,9}"];
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                proptest::collection::btree_map(field, inner, 0..8)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    const EVENT: [&str; 14] = [
        "action",
        "targets",
        "dry_run",
        "force",
        "Step",
        "SecretId",
        "ClientRequestToken",
        "RotationToken",
        "id",
        "source",
        "detail-type",
        "detail",
        "time",
        "region",
    ];
    const ACTIONS: [&str; 7] =
        ["rotate", "status", "check", "rollback", "createSecret", "aws.events", "Scheduled Event"];

    prop_compose! {
        /// A well-formed action, or one that another field makes invalid.
        fn action()(
            action in proptest::sample::select(&ACTIONS[..4]),
            targets in option::of(proptest::collection::vec("[a-z]{1,9}", 0..4)),
            force in option::of(any::<bool>()),
            other in option::weighted(0.3, (proptest::sample::select(&EVENT[..]), any_json(&EVENT, &ACTIONS))),
        ) -> Value {
            let mut event = json!({"action": action});
            for (field, value) in [("targets", json!(targets)), ("force", json!(force))].into_iter().chain(other) {
                if !value.is_null() {
                    event[field] = value;
                }
            }
            event
        }
    }

    prop_compose! {
        /// An `ai_secret` or a project's provider with any metadata.
        fn ai_provider()(
            type_name in proptest::sample::select(&["bedrock", "bedrock", "openai"][..]),
            auth_type in proptest::sample::select(vec![
                json!(null), json!(""), json!("api_key"), json!("iam_credentials"), json!("assume_role"), json!(7),
            ]),
            metadata in any_json(
                &["access_key", "session_token", "region", "aws_access_key_id", "supported_models", "nested"],
                &["ASIAOLD", "us-east-1", ""],
            ),
            hidden in proptest::collection::vec(
                proptest::sample::select(&["session_token", "aws_secret_access_key", "aws_session_token"][..]), 0..3,
            ),
            moved in any_json(&["a"], &["2026-01-01T00:00:00Z"]),
            category in proptest::sample::select(&[None, Some("env_var"), Some("ai_provider"), Some("ai_provider")][..]),
            object_type in proptest::sample::select(&["organization", "project"][..]),
        ) -> Value {
            let mut metadata = metadata;
            if metadata.is_object() {
                metadata["auth_type"] = auth_type;
                for field in hidden {
                    metadata[field] = json!(HIDDEN);
                }
            }
            json!({
                "id": uuid::Uuid::nil(), "name": "AWS Bedrock", "type": type_name, "metadata": metadata,
                "secret_updated_at": moved.as_str(), "secret_type": type_name, "secret_category": category,
                "object_type": object_type, "object_id": uuid::Uuid::max(),
            })
        }
    }

    const TARGET: [&str; 19] = [
        "name",
        "kind",
        "role_arn",
        "external_id",
        "source_identity",
        "session_tags",
        "duration_seconds",
        "session_policy",
        "user_name",
        "rotate_after",
        "overlap",
        "credential_age_days",
        "secret_id",
        "region",
        "probe",
        "ai_secrets",
        "id",
        "layout",
        "project",
    ];

    prop_compose! {
        /// A valid target, or one with a field that makes it invalid.
        fn target()(
            name in "[a-c]",
            is_user_based in any::<bool>(),
            id in any::<u128>(),
            other in option::of((proptest::sample::select(&TARGET[..]), any_json(&TARGET, &["30d", "1h", "models"]))),
        ) -> Value {
            let mut target = if is_user_based {
                json!({"kind": "access_key", "user_name": format!("user-{id}"), "secret_id": format!("staged-{id}")})
            } else {
                json!({"kind": "temporary", "role_arn": "arn:aws:iam::123456789012:role/x"})
            };
            target["name"] = json!(name);
            target["region"] = json!("us-east-1");
            target["ai_secrets"] = json!([{"id": uuid::Uuid::from_u128(id)}]);
            if let Some((field, value)) = other {
                target[field] = value;
            }
            target
        }
    }

    fn at(hours: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + hours * 3_600).unwrap()
    }

    fn version(id: String, created: i64) -> Version {
        let credentials = Credentials { id, created_at: at(created), ..credentials(Kind::AccessKey) };
        Version { id: credentials.id.clone(), value: VersionValue::Credentials(credentials) }
    }

    /// A secret and an IAM user with few IDs and hours, so that these often coincide.
    #[derive(Clone, Debug)]
    struct Known {
        current: Option<String>,
        pending: Option<String>,
        previous: Option<String>,
        current_created: i64,
        promoted: Option<i64>,
        secret_created: Option<i64>,
        keys: BTreeMap<String, (bool, Option<i64>)>,
        now: i64,
    }

    prop_compose! {
        fn known()(
            (current, pending, previous) in (option::of("[A-C]"), option::of("[A-C]"), option::of("[A-C]")),
            (promoted, secret_created) in (option::of(0..60_i64), option::of(0..60_i64)),
            keys in btree_map("[A-D]", (any::<bool>(), option::of(0..60_i64)), 0..3),
            (current_created, now) in (0..60_i64, 0..90_i64),
        ) -> Known {
            Known { current, pending, previous, current_created, promoted, secret_created, keys, now }
        }
    }

    impl Known {
        fn snapshot(self) -> Snapshot {
            let version = |id: Option<String>| id.map(|id| version(id, self.current_created));
            let mut stages = Stages::for_test(&[]);
            stages.created_at = self.secret_created.map(at);
            let (current, pending, previous) = (version(self.current), version(self.pending), version(self.previous));
            let versions = Versions { stages, current, pending, previous, promoted_at: self.promoted.map(at) };
            let key =
                |(id, (active, hour)): (String, (bool, Option<i64>))| Key { id, active, created_at: hour.map(at) };
            Snapshot { now: at(self.now), versions, keys: self.keys.into_iter().map(key).collect() }
        }
    }

    fn is_ours(snapshot: &Snapshot, key: &Key) -> bool {
        let is_named = [snapshot.versions.previous(), snapshot.versions.pending()];
        is_named.into_iter().flatten().any(|credentials| credentials.id == key.id)
            || key.created_at >= snapshot.versions.stages.created_at
    }

    proptest! {
        #[test]
        fn no_key_that_is_in_use_or_somebody_elses_is_ever_retired(known in known()) {
            let snapshot = known.snapshot();
            let target = for_test::user_based("user");
            let source = target.user_based().unwrap();
            let is_over = Overlap::of(&snapshot, source) == Overlap::Over;
            for (retirement, key) in policy::retirements(&snapshot, source) {
                let expected = match (is_over, key.active) {
                    (true, true) => Retirement::Deactivate,
                    (true, false) => Retirement::Delete,
                    (false, _) => Retirement::ReplaceInBraintrust,
                };
                prop_assert_eq!(retirement, expected);
                prop_assert!(is_over || key.active);
                prop_assert!(!snapshot.versions.references(&key.id));
                prop_assert!(is_ours(&snapshot, key));
            }
        }

        #[test]
        fn no_key_that_works_and_may_be_in_use_makes_room(known in known(), new in "[A-E]") {
            let snapshot = known.snapshot();
            let target = for_test::user_based("user");
            let source = target.user_based().unwrap();
            let listed = snapshot.keys.iter().map(|key| key.id.clone());
            let listed_before: Vec<_> = listed.filter(|id| *id != new).collect();
            let candidates = policy::eviction_candidates(&snapshot, &target, source, &listed_before);
            for (_, key) in candidates.unwrap_or_default() {
                prop_assert_eq!(snapshot.keys.len(), MAX_KEYS);
                prop_assert!(is_ours(&snapshot, key), "somebody else's key stays");
                prop_assert!(snapshot.versions.current().is_none_or(|current| current.id != key.id));
                if key.active {
                    prop_assert!(!snapshot.versions.references(&key.id));
                    let is_running = matches!(Overlap::of(&snapshot, source), Overlap::Running { .. });
                    let may_go = !is_running || policy::is_current_dead(&snapshot, &target);
                    prop_assert!(may_go || key.id == new, "the overlap protects what works");
                }
            }
        }

        #[test]
        fn no_event_defines_anything(event in prop_oneof![any_json(&EVENT, &ACTIONS), action()]) {
            of_an_event(event.to_string().as_bytes());
        }

        #[test]
        fn the_content_of_a_refused_event_is_not_shown(
            marker in "marker-[a-z]{9}", field in proptest::sample::select(&EVENT[..]),
        ) {
            let value = json!({field: marker.clone(), "other": [marker.clone()]});
            let refused = Command::parse(value.into(), REQUEST_ID).unwrap_err();
            let shown = format!("{refused} {refused:?}");
            prop_assert!(!shown.contains(&marker));
        }

        #[test]
        fn any_ai_provider_is_refused_or_takes_new_credentials(answer in ai_provider()) {
            of_an_ai_provider(answer.to_string().as_bytes());
        }

        #[test]
        fn any_list_of_targets_is_refused_or_valid(targets in proptest::collection::vec(target(), 1..4)) {
            of_targets(&Value::from(targets).to_string());
        }

        #[test]
        fn any_json_is_refused_as_targets_or_valid(json in any_json(&TARGET, &["30d", "models"])) {
            of_targets(&json.to_string());
        }
    }
}
