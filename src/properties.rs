//! What must hold whatever comes in, for the property tests and the fuzzer; it must never ask more of one than of the other.

#![expect(clippy::indexing_slicing, reason = "of a JSON object, which answers null or takes the field")]

use jiff::Timestamp;
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::braintrust::AiSecret;
use crate::braintrust::layout;
use crate::config::{Config, LayoutChoice};
use crate::credentials::{Credentials, KindName, Secret};
use crate::trigger::{Origin, Trigger};

const REQUEST_ID: &str = "0f7b4d52-6a0c-4e0e-9a52-1f6f8d1f3c77";
const KINDS: [KindName; 4] =
    [KindName::Temporary, KindName::AccessKey, KindName::ShortTermApiKey, KindName::LongTermApiKey];

/// An event is refused, or names targets and says no more than is documented.
///
/// # Panics
/// If that does not hold.
pub fn of_an_event(event: &[u8]) {
    // An array may be read as a struct, too; nobody sends one.
    let Some(event) = serde_json::from_slice::<Value>(event).ok().filter(Value::is_object) else { return };
    let named = |names: &[String]| {
        let given: Vec<_> = event["targets"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(names, given, "the targets are those that the event names");
        let fields = ["action", "targets", "dry_run", "force"];
        assert!(event.as_object().is_some_and(|event| event.keys().all(|key| fields.contains(&key.as_str()))));
    };
    match Trigger::from_event(event.clone(), REQUEST_ID) {
        Ok(Trigger::Tick(tick)) if tick.origin == Origin::Schedule => {
            assert!(tick.targets.is_empty() && !tick.force && !tick.dry_run);
            assert!(tick.token == REQUEST_ID || event["id"] == tick.token.as_str());
        }
        Ok(Trigger::Tick(tick)) => {
            named(&tick.targets);
            assert_eq!((tick.token.as_str(), &event["action"]), (REQUEST_ID, &json!("rotate")));
        }
        Ok(Trigger::Rollback(rollback)) => {
            named(&rollback.targets);
            assert!(!rollback.targets.is_empty());
        }
        Ok(Trigger::Status(names) | Trigger::Check(names)) => named(&names),
        Ok(Trigger::Step(step)) => assert_eq!(event["SecretId"], step.secret_id.as_str()),
        Err(_) => {}
    }
}

/// What Braintrust answers is refused, or takes all parts of new credentials and then shows that it holds them; and no
/// secret that stands in it is ever shown.
///
/// # Panics
/// If that does not hold.
pub fn of_an_ai_secret(answer: &[u8]) {
    let Ok(before) = serde_json::from_slice::<AiSecret>(answer) else { return };
    let Some(answer) = serde_json::from_slice::<Value>(answer).ok().filter(Value::is_object) else { return };
    for kind in KINDS {
        for choice in [LayoutChoice::Auto, LayoutChoice::Gateway, LayoutChoice::Documented] {
            let Ok(layout) = layout::choose(choice, kind, &before) else { continue };
            assert_eq!(before.provider.as_deref(), Some("bedrock"));
            assert_ne!(before.metadata.auth_type.as_deref(), Some("assume_role"));
            let _ = (layout::warnings(layout, &before), layout::access_key_id(layout, &before.metadata));
            let credentials = credentials(kind);
            let body = layout::patch(layout, &credentials, "eu-west-1", &before.metadata).unwrap_or_default();
            let after = merged(&answer, &body);
            assert_eq!(layout::arrived(layout, &credentials, None, &after), Ok(()));
        }
    }
    assert!(!format!("{before:?}").contains(HIDDEN));
}

/// Stands in the secret fields of a generated `ai_secret`.
pub const HIDDEN: &str = "hidden-from-all";

/// A list of targets is refused, or has targets with names of their own.
///
/// # Panics
/// If that does not hold.
pub fn of_targets(json: &str) {
    let variable = |name: &str| match name {
        "TARGETS" => Some(json.to_owned()),
        "BRAINTRUST_API_KEY_SECRET_ID" => Some("braintrust".to_owned()),
        _ => None,
    };
    let Ok(targets) = Config::read(&variable).and_then(|config| config.read_targets(json)) else { return };
    assert!(!targets.is_empty());
    for (place, target) in targets.iter().enumerate() {
        assert!(!target.ai_secrets.is_empty() && (1..=48).contains(&target.name.len()));
        assert!(targets.iter().skip(place + 1).all(|other| other.name != target.name));
        assert!(target.kind.standing().is_none() || target.secret_id.is_some());
    }
}

fn credentials(kind: KindName) -> Credentials {
    let new = || SecretString::from("new");
    let secret = match kind {
        KindName::Temporary => Secret::AccessKey { secret_access_key: new(), session_token: Some(new()) },
        KindName::AccessKey => Secret::AccessKey { secret_access_key: new(), session_token: None },
        KindName::ShortTermApiKey | KindName::LongTermApiKey => Secret::ApiKey(new()),
    };
    Credentials { kind, id: "AKIANEW".to_owned(), secret, minted_at: Timestamp::UNIX_EPOCH, expires_at: None }
}

/// As Braintrust does it: deep, and nothing is removed.
fn merged(answer: &Value, patch: &[u8]) -> AiSecret {
    let (mut after, patch) = (answer.clone(), serde_json::from_slice::<Value>(patch).unwrap_or_default());
    if !after["metadata"].is_object() {
        after["metadata"] = json!({});
    }
    for (field, value) in patch["metadata"].as_object().into_iter().flatten() {
        after["metadata"][field] = value.clone();
    }
    after["secret_updated_at"] = json!("2026-01-01T00:00:00Z");
    serde_json::from_value(after).unwrap_or_else(|error| unreachable!("what was read is read again: {error}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::config::Standing;
    use crate::mint;
    use crate::plan::{self, Names, Retirement, SLOTS};

    /// JSON of any shape, with the fields that mean something among others.
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
        /// A well-formed action, which any other field beside it spoils.
        fn action()(
            action in proptest::sample::select(&ACTIONS[..4]),
            targets in proptest::option::of(proptest::collection::vec("[a-z]{1,9}", 0..4)),
            force in proptest::option::of(any::<bool>()),
            other in proptest::option::weighted(0.3, (proptest::sample::select(&EVENT[..]), any_json(&EVENT, &ACTIONS))),
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
        /// What Braintrust may answer: a known object, with any metadata and any other field.
        fn ai_secret()(
            provider in proptest::sample::select(&["bedrock", "bedrock", "openai"][..]),
            auth_type in proptest::sample::select(vec![
                json!(null), json!("api_key"), json!("iam_credentials"), json!("assume_role"), json!(7),
            ]),
            metadata in any_json(
                &["access_key", "session_token", "region", "aws_access_key_id", "supported_models", "nested"],
                &["ASIAOLD", "us-east-1", ""],
            ),
            hidden in proptest::collection::vec(
                proptest::sample::select(&["session_token", "aws_secret_access_key", "aws_session_token"][..]), 0..3,
            ),
            moved in any_json(&["a"], &["2026-01-01T00:00:00Z"]),
        ) -> Value {
            let mut metadata = metadata;
            if metadata.is_object() {
                metadata["auth_type"] = auth_type;
                for field in hidden {
                    metadata[field] = json!(HIDDEN);
                }
            }
            json!({
                "id": uuid::Uuid::nil(), "name": "AWS Bedrock", "type": provider, "metadata": metadata,
                "secret_updated_at": moved.as_str(),
            })
        }
    }

    const TARGET: [&str; 16] = [
        "name",
        "kind",
        "role_arn",
        "external_id",
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
    ];

    prop_compose! {
        /// A target as it should be, and perhaps one field that is not.
        fn target()(
            name in "[a-c]",
            standing in any::<bool>(),
            id in any::<u128>(),
            other in proptest::option::of((proptest::sample::select(&TARGET[..]), any_json(&TARGET, &["30d", "1h", "models"]))),
        ) -> Value {
            let mut target = if standing {
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

    prop_compose! {
        /// What a staged secret names, and what IAM lists: a few ids and hours, so that they meet.
        fn known()(
            ids in proptest::collection::vec(proptest::option::of("[A-C]"), 3),
            hours in proptest::collection::vec(proptest::option::of(0..60_i64), 3),
            listed in proptest::collection::btree_map("[A-D]", (any::<bool>(), proptest::option::of(0..60_i64)), 0..3),
        ) -> (Names, Vec<mint::Standing>) {
            let time = |place: usize| hours.get(place).copied().flatten().map(at);
            let id = |place: usize| ids.get(place).cloned().flatten();
            let names = Names {
                current: id(0), pending: id(1), previous: id(2),
                current_minted_at: time(0), promoted_at: time(1), secret_created_at: time(2),
            };
            let listed = listed.into_iter().map(|(id, (active, hour))| mint::Standing { id, active, created_at: hour.map(at) });
            (names, listed.collect())
        }
    }

    fn standing() -> Standing {
        let (rotate_after, overlap) = (Duration::from_secs(30 * 86_400), Duration::from_secs(12 * 3_600));
        Standing { user_name: "user".to_owned(), role: None, rotate_after, overlap }
    }

    proptest! {
        #[test]
        fn nothing_in_use_or_made_by_a_human_is_ever_retired(
            (names, listed) in known(), now in (0..90_i64).prop_map(at),
        ) {
            let is_over = names.overlap_ends_at(&standing()).is_some_and(|end| now >= end);
            for (act, found) in plan::retirements(now, &standing(), &names, &listed) {
                let expected = match (is_over, found.active) {
                    (true, true) => Retirement::Deactivate,
                    (true, false) => Retirement::Delete,
                    (false, _) => Retirement::Replace,
                };
                prop_assert_eq!(act, expected);
                prop_assert!(is_over || found.active);
                prop_assert!(!names.is_in_use(&found.id));
                prop_assert!(names.previous.as_ref() == Some(&found.id) || found.created_at >= names.secret_created_at);
            }
        }

        #[test]
        fn a_full_user_gives_up_nothing_that_works_and_may_be_needed(
            (names, listed) in known(), now in (0..90_i64).prop_map(at), new in "[A-E]", is_current_dead in any::<bool>(),
        ) {
            let found = plan::in_the_way(now, &standing(), &names, is_current_dead, &listed, |found| found.id == new);
            for (occupant, found) in found.unwrap_or_default() {
                prop_assert_eq!(listed.len(), SLOTS);
                let is_named = [&names.current, &names.pending, &names.previous].contains(&&Some(found.id.clone()));
                prop_assert!(is_named || found.created_at >= names.secret_created_at, "a human's stays");
                prop_assert!(names.current.as_ref() != Some(&found.id));
                if found.active {
                    prop_assert!(!names.is_in_use(&found.id));
                    let is_over = names.overlap_ends_at(&standing()).is_none_or(|end| now >= end);
                    let is_free = is_over || (is_current_dead && occupant == plan::Occupant::Orphan);
                    prop_assert!(is_free || found.id == new, "the overlap protects what works");
                }
            }
        }

        #[test]
        fn no_event_defines_anything(event in prop_oneof![any_json(&EVENT, &ACTIONS), action()]) {
            of_an_event(event.to_string().as_bytes());
        }

        #[test]
        fn a_refused_event_is_not_repeated(marker in "marker-[a-z]{9}", place in proptest::sample::select(&EVENT[..])) {
            let event = json!({place: marker.clone(), "other": [marker.clone()]});
            let refused = Trigger::from_event(event, REQUEST_ID).unwrap_err();
            let said = format!("{refused} {refused:?}");
            prop_assert!(!said.contains(&marker));
        }

        #[test]
        fn any_ai_secret_is_refused_or_takes_new_credentials(answer in ai_secret()) {
            of_an_ai_secret(answer.to_string().as_bytes());
        }

        #[test]
        fn any_targets_are_refused_or_as_they_should_be(targets in proptest::collection::vec(target(), 1..4)) {
            of_targets(&Value::from(targets).to_string());
        }

        #[test]
        fn any_json_is_no_list_of_targets_or_one_as_it_should_be(json in any_json(&TARGET, &["30d", "models"])) {
            of_targets(&json.to_string());
        }
    }
}
