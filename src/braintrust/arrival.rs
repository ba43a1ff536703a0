//! Tells from a provider whether it holds certain credentials. The secret itself can't be read back.

use jiff::{SignedDuration, Timestamp};

use super::ai_provider::{AiProvider, AuthType, Metadata};
use super::layout::Layout;
use crate::config::Region;
use crate::credentials::{Authentication, Credentials, Kind};

/// Clocks differ: a change this long before the credentials were created still counts as theirs.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// Why a provider doesn't show the credentials that were sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotArrived {
    /// Completes the sentence "Braintrust accepted the PATCH, but …".
    pub problem: &'static str,
    /// Whether it shows parts of the new credentials beside parts of the old ones, which don't work together.
    pub is_mixture: bool,
}

/// Checks that `after` holds what was sent: the access key ID of each layout (for an API key, the `auth_type`) reads
/// back, and the secret has changed, if the data plane says when. `before` is the provider before the PATCH; without
/// it, the change must not be older than the credentials.
pub fn arrived(
    layout: Layout,
    credentials: &Credentials,
    before: Option<&AiProvider>,
    after: &AiProvider,
) -> Result<(), NotArrived> {
    let not_arrived = |problem| {
        let is_mixture = before.is_some_and(|before| is_mixture(layout, credentials, before, after));
        Err(NotArrived { problem, is_mixture })
    };
    if before.is_some_and(|before| before.id != after.id) {
        return Err(NotArrived { problem: "the response shows another provider", is_mixture: false });
    }
    if !reads_back(layout, credentials, after) {
        return not_arrived("what reads back is not what was sent");
    }
    // The documented layout does not change the encrypted value.
    if layout.has_gateway_fields() && !has_changed(layout, credentials, before, after) {
        let problem = match before {
            Some(_) => "secret_updated_at shows no change of the secret",
            None => "its secret is older than the credentials",
        };
        return not_arrived(problem);
    }
    Ok(())
}

/// [`arrived`], after a PATCH whose response was lost. An API key does not read back, so only a change of the secret or
/// of the `auth_type` shows that it arrived. An older data plane may show neither.
pub fn arrived_unconfirmed(
    layout: Layout,
    credentials: &Credentials,
    before: &AiProvider,
    after: &AiProvider,
) -> Result<(), NotArrived> {
    let is_same_time = before.secret_updated_at == after.secret_updated_at;
    if credentials.kind().is_api_key() && is_same_time && reads_back(layout, credentials, before) {
        return Err(NotArrived { problem: "nothing shows that the secret changed", is_mixture: false });
    }
    arrived(layout, credentials, Some(before), after)
}

/// Whether credentials have arrived only in part: their metadata is there, or the secret has changed and the metadata
/// hasn't. Metadata that is neither the old nor the new is another writer's.
fn is_mixture(layout: Layout, credentials: &Credentials, before: &AiProvider, after: &AiProvider) -> bool {
    let (was, is) = (&before.metadata, &after.metadata);
    let (has_new_metadata, has_old_metadata) = match credentials.authentication() {
        Authentication::ApiKey(_) => {
            (is.holds_api_key() && !was.holds_api_key(), !is.holds_api_key() && is.auth_type == was.auth_type)
        }
        Authentication::AccessKey { access_key_id, .. } => {
            (is.ids_in(layout).any(|id| id == Some(access_key_id)), is.ids_in(layout).eq(was.ids_in(layout)))
        }
    };
    let secret_has_moved = changed_at(before).zip(changed_at(after)).is_some_and(|(was, is)| is > was);
    has_new_metadata || (secret_has_moved && has_old_metadata)
}

fn reads_back(layout: Layout, credentials: &Credentials, provider: &AiProvider) -> bool {
    let metadata = &provider.metadata;
    match credentials.authentication() {
        Authentication::ApiKey(_) => metadata.holds_api_key(),
        Authentication::AccessKey { access_key_id, session_token, .. } => {
            let has_ids = metadata.ids_in(layout).all(|id| id == Some(access_key_id));
            has_ids && !metadata.holds_api_key() && (session_token.is_some() || !metadata.has_token_in(layout))
        }
    }
}

fn has_changed(layout: Layout, credentials: &Credentials, before: Option<&AiProvider>, after: &AiProvider) -> bool {
    // An API key does not read back, so its time must be exact after a PATCH.
    let is_exact = before.is_some() && credentials.kind().is_api_key();
    let leeway = if is_exact { SignedDuration::ZERO } else { LEEWAY };
    // Not `created_at - leeway`, which may overflow.
    let is_since_creation = |time: Timestamp| time.duration_since(credentials.created_at) >= -leeway;
    let Some(before) = before else { return changed_at(after).is_none_or(is_since_creation) };
    match (changed_at(before), changed_at(after)) {
        // The same value again changes no time, and an interrupted run may have written it before.
        (Some(was), Some(is)) => is > was || (reads_back(layout, credentials, before) && is_since_creation(is)),
        (Some(_), None) => false,
        // With an older data plane or a first secret, there is nothing to compare with.
        (None, _) => true,
    }
}

/// Whether a PATCH of credentials that were there at `written_at` already has restored them: the same value again changes
/// no time, so only the metadata may have differed.
pub fn has_arrived_again(
    layout: Layout,
    credentials: &Credentials,
    written_at: Timestamp,
    before: &AiProvider,
    after: &AiProvider,
) -> bool {
    let (was, is) = (changed_at(before), changed_at(after));
    let is_ours = was == is && was.is_some_and(|was| was.duration_since(written_at) <= LEEWAY);
    is_ours && arrived(layout, credentials, None, after).is_ok()
}

/// Why a provider doesn't hold the current credentials, as far as it shows. This function wrote them no later than
/// `written_at`. The reason follows "the provider … did not hold the current credentials:".
pub fn differs(
    layout: Layout,
    current: &Credentials,
    region: &Region,
    written_at: Option<Timestamp>,
    provider: &AiProvider,
) -> Option<&'static str> {
    let metadata = &provider.metadata;
    if metadata.holds_api_key() != current.kind().is_api_key() || !metadata.auth_type_is_known() {
        return Some("its auth_type was that of other credentials");
    }
    match current.authentication() {
        Authentication::AccessKey { access_key_id, session_token, .. } => {
            if metadata.ids_in(layout).any(|id| id != Some(access_key_id)) {
                return Some("it showed another access key ID");
            }
            if session_token.is_none() && metadata.has_token_in(layout) {
                return Some("its session token belonged to other credentials");
            }
        }
        Authentication::ApiKey(_) => {}
    }
    if metadata.region.as_deref() != Some(region.as_str()) {
        return Some("its region was not the target's");
    }
    // The documented layout does not change the encrypted value.
    let changed = changed_at(provider).filter(|_| layout.has_gateway_fields());
    // Not `written_at + LEEWAY`, which may overflow.
    let is_later = changed.zip(written_at).is_some_and(|(changed, written)| changed.duration_since(written) > LEEWAY);
    is_later.then_some("its secret was changed after this function had written it")
}

/// Whether another run has written newer credentials than those that this run created at `created_at`. `first` is the
/// provider as this run read it at that time, and `latest` is its present state.
///
/// A change between the two readings is another run's, whatever the clocks show. For a change before the first reading,
/// only the clocks can decide, and they may differ: the change must be clearly later than the credentials, and not in
/// the future.
pub fn is_superseded(created_at: Timestamp, first: &AiProvider, latest: &AiProvider, now: Timestamp) -> bool {
    let Some(changed) = changed_at(latest) else { return false };
    let is_later = changed.duration_since(created_at) > LEEWAY && changed.duration_since(now) <= LEEWAY;
    is_later || changed_at(first).is_some_and(|first| changed > first)
}

/// When the secret itself last changed, if the data plane says so.
pub fn changed_at(provider: &AiProvider) -> Option<Timestamp> {
    provider.secret_updated_at.as_ref()?.parse().ok()
}

/// The access key ID that a provider shows. Beside an API key, an ID is stale and does not count.
pub fn access_key_id(layout: Layout, metadata: &Metadata) -> Option<&str> {
    metadata.ids_in(layout).find_map(|id| id).filter(|_| !metadata.holds_api_key())
}

impl Metadata {
    /// The access key IDs in the fields of the layout: one for each of the two layouts that it comprises.
    fn ids_in(&self, layout: Layout) -> impl Iterator<Item = Option<&str>> {
        let gateway = layout.has_gateway_fields().then_some(self.access_key.as_deref());
        let documented = layout.has_documented_fields().then_some(self.aws_access_key_id.as_deref());
        gateway.into_iter().chain(documented)
    }

    fn has_token_in(&self, layout: Layout) -> bool {
        (layout.has_gateway_fields() && self.has_session_token)
            || (layout.has_documented_fields() && self.has_aws_session_token)
    }

    fn holds_api_key(&self) -> bool {
        self.auth_type == AuthType::ApiKey
    }

    fn auth_type_is_known(&self) -> bool {
        match self.auth_type {
            AuthType::Absent | AuthType::Empty | AuthType::IamCredentials | AuthType::ApiKey => true,
            AuthType::AssumeRole | AuthType::Other(_) => false,
        }
    }
}

/// Whether a provider holds certain credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It holds others, or none.
    Absent,
    /// It holds an API key, which does not read back.
    Unknown,
    /// It shows their ID.
    Present,
}

/// Whether a provider holds the credentials `id` of a kind. An API key that was created after the secret last
/// changed is not in it.
pub fn presence(
    layout: Layout,
    kind: Kind,
    id: &str,
    created_at: Option<Timestamp>,
    provider: &AiProvider,
) -> Presence {
    let metadata = &provider.metadata;
    let times = changed_at(provider).zip(created_at);
    let is_newer = times.is_some_and(|(changed, created)| created.duration_since(changed) > LEEWAY);
    match kind.is_api_key() {
        true if metadata.holds_api_key() && !is_newer => Presence::Unknown,
        false if !metadata.holds_api_key() && metadata.ids_in(layout).any(|shown| shown == Some(id)) => {
            Presence::Present
        }
        true | false => Presence::Absent,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::config::for_test::region;
    use crate::credentials::Secret;

    const EARLY: Option<&str> = Some("2026-01-01T00:00:00Z");
    const LATE: Option<&str> = Some("2026-01-01T00:00:00.001Z");

    fn at(metadata: Value, time: Option<&str>) -> AiProvider {
        AiProvider::for_test(metadata, time)
    }

    fn created_early(secret: Secret) -> Credentials {
        let created_at = EARLY.unwrap().parse().unwrap();
        Credentials { id: "ASIANEW".to_owned(), created_at, expires_at: None, secret }
    }

    fn temporary() -> Credentials {
        created_early(Secret::Temporary { secret_access_key: "key".into(), session_token: "token".into() })
    }

    fn api_key() -> Credentials {
        created_early(Secret::LongTermApiKey("key".into()))
    }

    fn us_east_1() -> Region {
        region("us-east-1")
    }

    fn shows(id: &str) -> Value {
        json!({"access_key": id})
    }

    fn of_type(auth_type: &str) -> Value {
        json!({"auth_type": auth_type})
    }

    #[test]
    fn credentials_that_arrived_show_their_id_and_a_later_time() {
        let (new, old) = (|| shows("ASIANEW"), || shows("ASIAOLD"));
        for (before, after, has_arrived) in [
            (at(old(), EARLY), at(new(), LATE), true),
            (at(old(), None), at(new(), LATE), true),
            (at(old(), None), at(new(), None), true),
            (at(old(), EARLY), at(new(), EARLY), false),
            (at(old(), EARLY), at(new(), None), false),
            (at(old(), EARLY), AiProvider { id: Uuid::max(), ..at(new(), LATE) }, false),
            (at(old(), LATE), at(new(), EARLY), false),
            (at(old(), EARLY), at(old(), LATE), false),
            (at(old(), EARLY), at(json!({"aws_access_key_id": "ASIANEW"}), LATE), false),
        ] {
            let result = arrived(Layout::Gateway, &temporary(), Some(&before), &after);
            assert_eq!(result.is_ok(), has_arrived, "{before:?} {after:?}");
        }
    }

    #[test]
    fn parts_of_two_credentials_are_a_mixture_and_anything_else_is_not() {
        let (new, old, other) = (|| shows("ASIANEW"), || shows("ASIAOLD"), || shows("ASIAOTHER"));
        let (key, pair) = (|| of_type("api_key"), || of_type("iam_credentials"));
        let documented = |gateway: &str, documented: &str| {
            json!({
                "access_key": gateway, "aws_access_key_id": documented, "session_token": "x",
            })
        };
        for (case, layout, credentials, before, after, expected) in [
            ("nothing arrived", Layout::Gateway, temporary(), at(old(), EARLY), at(old(), EARLY), false),
            ("the secret alone", Layout::Gateway, temporary(), at(old(), EARLY), at(old(), LATE), true),
            ("the metadata alone", Layout::Gateway, temporary(), at(old(), EARLY), at(new(), EARLY), true),
            ("another writer", Layout::Gateway, temporary(), at(old(), EARLY), at(other(), LATE), false),
            ("without a time", Layout::Gateway, temporary(), at(old(), None), at(old(), None), false),
            ("over an empty one", Layout::Gateway, temporary(), at(json!({}), EARLY), at(json!({}), LATE), true),
            ("nothing of a key", Layout::Gateway, api_key(), at(pair(), EARLY), at(pair(), EARLY), false),
            ("a key's secret", Layout::Gateway, api_key(), at(pair(), EARLY), at(pair(), LATE), true),
            ("a key's auth_type", Layout::Gateway, api_key(), at(pair(), EARLY), at(key(), EARLY), true),
            ("no key over a key", Layout::Gateway, api_key(), at(key(), LATE), at(key(), LATE), false),
            (
                "one layout of both",
                Layout::Both,
                temporary(),
                at(documented("ASIAOLD", "ASIAOLD"), EARLY),
                at(documented("ASIANEW", "ASIAOLD"), LATE),
                true,
            ),
        ] {
            // What was written before the API key was created is an older key.
            let credentials = Credentials { created_at: "2026-02-01T00:00:00Z".parse().unwrap(), ..credentials };
            let error = arrived(layout, &credentials, Some(&before), &after).unwrap_err();
            assert_eq!(error.is_mixture, expected, "{case}");
        }
        let twice = at(documented("ASIANEW", "ASIANEW"), LATE);
        assert_eq!(arrived(Layout::Both, &temporary(), Some(&at(json!({}), EARLY)), &twice), Ok(()));
    }

    #[test]
    fn an_access_key_has_not_arrived_while_a_token_or_an_api_key_would_be_used_with_it() {
        let long_term = created_early(Secret::AccessKey { secret_access_key: "key".into() });
        for (more, has_arrived) in [
            (json!({}), true),
            (json!({"session_token": "", "aws_session_token": "stale"}), true),
            (json!({"session_token": "stale"}), false),
            (json!({"auth_type": "api_key"}), false),
        ] {
            let mut metadata = shows("ASIANEW");
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let after = at(metadata, LATE);
            let result = arrived(Layout::Gateway, &long_term, Some(&at(shows("ASIAOLD"), EARLY)), &after);
            assert_eq!(result.is_ok(), has_arrived, "{more}");
        }
    }

    #[test]
    fn the_documented_layout_changes_no_encrypted_value() {
        let documented = at(json!({"aws_access_key_id": "ASIANEW"}), EARLY);
        assert!(arrived(Layout::Documented, &temporary(), Some(&at(json!({}), EARLY)), &documented).is_ok());
    }

    #[test]
    fn the_same_value_again_has_arrived_if_its_change_is_not_older_than_the_credentials() {
        let arrived_again = |credentials, metadata: Value, time| {
            let same = at(metadata, time);
            arrived(Layout::Gateway, &credentials, Some(&same), &same).is_ok()
        };
        let five_minutes = Some("2025-12-31T23:55:00Z");
        assert!(arrived_again(temporary(), shows("ASIANEW"), five_minutes));
        assert!(!arrived_again(temporary(), shows("ASIANEW"), Some("2025-12-31T23:54:59Z")));
        // An API key gets no leeway.
        assert!(arrived_again(api_key(), of_type("api_key"), EARLY));
        assert!(!arrived_again(api_key(), of_type("api_key"), five_minutes));
    }

    #[test]
    fn without_the_provider_before_the_time_alone_decides_about_an_api_key() {
        for (after, has_arrived) in [
            (at(of_type("api_key"), EARLY), true),
            (at(of_type("api_key"), Some("2025-12-31T23:55:00Z")), true),
            (at(of_type("api_key"), Some("2025-12-31T23:54:59Z")), false),
            (at(of_type("api_key"), None), true),
            (at(of_type("iam_credentials"), EARLY), false),
            (at(json!({}), EARLY), false),
        ] {
            assert_eq!(arrived(Layout::Gateway, &api_key(), None, &after).is_ok(), has_arrived, "{after:?}");
        }
    }

    #[test]
    fn the_ends_of_time_cause_no_overflow() {
        let after = at(shows("ASIANEW"), EARLY);
        for created_at in [Timestamp::MIN, Timestamp::MAX] {
            let credentials = Credentials { created_at, ..temporary() };
            assert_eq!(arrived(Layout::Gateway, &credentials, None, &after).is_ok(), created_at == Timestamp::MIN);
        }
    }

    #[test]
    fn a_lost_response_proves_no_api_key_where_one_was_before() {
        let (key, other) = (|| of_type("api_key"), || of_type("iam_credentials"));
        for (before, after, has_arrived) in [
            (at(key(), EARLY), at(key(), EARLY), false),
            (at(key(), EARLY), at(key(), LATE), true),
            (at(key(), None), at(key(), LATE), true),
            (at(key(), None), at(key(), None), false),
            (at(other(), None), at(key(), None), true),
            (at(other(), EARLY), at(key(), EARLY), false),
        ] {
            let result = arrived_unconfirmed(Layout::Gateway, &api_key(), &before, &after);
            assert_eq!(result.is_ok(), has_arrived, "{before:?} {after:?}");
        }
        let (before, after) = (at(shows("ASIAOLD"), None), at(shows("ASIANEW"), None));
        assert!(arrived_unconfirmed(Layout::Gateway, &temporary(), &before, &after).is_ok());
    }

    #[test]
    fn an_access_key_id_is_shown_where_the_layout_has_it_and_not_beside_an_api_key() {
        let both = json!({"access_key": "AKIAGATEWAY", "aws_access_key_id": "AKIADOCUMENTED"});
        let both = at(both, None).metadata;
        assert_eq!(access_key_id(Layout::Gateway, &both), Some("AKIAGATEWAY"));
        assert_eq!(access_key_id(Layout::Documented, &both), Some("AKIADOCUMENTED"));
        let stale = at(json!({"auth_type": "api_key", "access_key": "AKIASTALE"}), None).metadata;
        assert_eq!(access_key_id(Layout::Gateway, &stale), None);
    }

    #[test]
    fn an_access_key_is_present_where_its_id_is_shown_and_an_api_key_may_be_where_one_is() {
        let created = |time: &str| Some(time.parse().unwrap());
        for (kind, created_at, provider, expected) in [
            (Kind::AccessKey, None, at(shows("ASIANEW"), EARLY), Presence::Present),
            (Kind::AccessKey, None, at(shows("ASIAOLD"), EARLY), Presence::Absent),
            (Kind::AccessKey, None, at(of_type("api_key"), EARLY), Presence::Absent),
            (Kind::LongTermApiKey, None, at(shows("ASIANEW"), EARLY), Presence::Absent),
            (Kind::LongTermApiKey, None, at(of_type("api_key"), EARLY), Presence::Unknown),
            (Kind::LongTermApiKey, created("2026-01-01T00:05:00Z"), at(of_type("api_key"), EARLY), Presence::Unknown),
            (Kind::LongTermApiKey, created("2026-01-01T00:05:01Z"), at(of_type("api_key"), EARLY), Presence::Absent),
            (Kind::LongTermApiKey, created("2026-01-01T00:05:01Z"), at(of_type("api_key"), None), Presence::Unknown),
        ] {
            let found = presence(Layout::Gateway, kind, "ASIANEW", created_at, &provider);
            assert_eq!(found, expected, "{kind:?} {created_at:?} {provider:?}");
        }
    }

    #[test]
    fn a_destination_that_does_not_hold_the_current_credentials_is_reported_with_the_reason() {
        const WRITTEN: &str = "2026-01-01T00:00:00Z";
        const LEEWAY_LATER: &str = "2026-01-01T00:05:00Z";
        const TOO_LATE: &str = "2026-01-01T00:05:01Z";
        let long_term = || created_early(Secret::AccessKey { secret_access_key: "key".into() });
        let pair = |more: Value| {
            let mut metadata = json!({"access_key": "ASIANEW", "region": "us-east-1"});
            metadata.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            metadata
        };
        let key = |more: Value| {
            let mut metadata = pair(more);
            metadata["auth_type"] = "api_key".into();
            metadata
        };
        let (same, other_id) = (json!({}), json!({"access_key": "ASIAOLD"}));
        let (auth_type, id, token, region, changed) =
            (Some("auth_type"), Some("access key ID"), Some("session token"), Some("region"), Some("changed"));
        for (credentials, metadata, time, expected) in [
            (long_term(), pair(same.clone()), WRITTEN, None),
            (long_term(), pair(json!({"auth_type": "iam_credentials", "session_token": ""})), WRITTEN, None),
            (long_term(), pair(json!({"auth_type": null})), WRITTEN, None),
            (long_term(), pair(json!({"aws_access_key_id": "AKIASTALE"})), WRITTEN, None),
            (long_term(), pair(other_id.clone()), WRITTEN, id),
            (long_term(), json!({"region": "us-east-1"}), WRITTEN, id),
            (long_term(), json!({"region": "us-east-1", "aws_access_key_id": "ASIANEW"}), WRITTEN, id),
            (long_term(), key(same.clone()), WRITTEN, auth_type),
            (long_term(), pair(json!({"auth_type": "assume_role"})), WRITTEN, auth_type),
            (long_term(), pair(json!({"auth_type": 5})), WRITTEN, auth_type),
            (long_term(), pair(json!({"session_token": "stale"})), WRITTEN, token),
            (temporary(), pair(json!({"session_token": "token"})), WRITTEN, None),
            (long_term(), pair(json!({"region": "eu-west-1"})), WRITTEN, region),
            (long_term(), pair(json!({"region": ""})), WRITTEN, region),
            (long_term(), pair(json!({"region": null})), WRITTEN, region),
            (long_term(), pair(same.clone()), LEEWAY_LATER, None),
            (long_term(), pair(same.clone()), TOO_LATE, changed),
            (api_key(), key(same.clone()), WRITTEN, None),
            (api_key(), key(other_id), LEEWAY_LATER, None),
            (api_key(), key(same.clone()), TOO_LATE, changed),
            (api_key(), pair(same.clone()), WRITTEN, auth_type),
            (api_key(), pair(json!({"auth_type": "iam_credentials"})), WRITTEN, auth_type),
            (api_key(), key(json!({"region": "eu-west-1"})), WRITTEN, region),
        ] {
            let provider = at(metadata, Some(time));
            let written_at = Some(WRITTEN.parse().unwrap());
            let found = differs(Layout::Gateway, &credentials, &us_east_1(), written_at, &provider);
            let is_as_expected = match (found, expected) {
                (None, None) => true,
                (Some(reason), Some(word)) => reason.contains(word),
                (None, Some(_)) | (Some(_), None) => false,
            };
            assert!(is_as_expected, "{found:?}, not {expected:?}: {:?} {provider:?}", credentials.kind());
        }
    }

    #[test]
    fn a_time_differs_only_where_both_are_known_and_the_layout_changes_the_secret() {
        let differs = |layout, written_at: Option<&str>, time| {
            let metadata = json!({"access_key": "ASIANEW", "aws_access_key_id": "ASIANEW", "region": "us-east-1"});
            let written_at = written_at.map(|time| time.parse().unwrap());
            let long_term = created_early(Secret::AccessKey { secret_access_key: "key".into() });
            differs(layout, &long_term, &us_east_1(), written_at, &at(metadata, time)).is_some()
        };
        let later = Some("2026-01-01T01:00:00Z");
        assert!(differs(Layout::Gateway, EARLY, later));
        assert!(!differs(Layout::Gateway, None, later));
        assert!(!differs(Layout::Gateway, EARLY, None));
        assert!(!differs(Layout::Gateway, later, EARLY));
        assert!(!differs(Layout::Documented, EARLY, later));
    }

    #[test]
    fn credentials_that_another_run_wrote_meanwhile_are_newer_whatever_the_clocks_say() {
        const HOUR: &str = "2026-01-01T01:00:00Z";
        // They were created at EARLY.
        for (case, first, latest, now, expected) in [
            ("nobody wrote", Some("2025-12-31T23:30:00Z"), Some("2025-12-31T23:30:00Z"), EARLY, false),
            ("a write between the readings", EARLY, LATE, EARLY, true),
            ("a slow clock of the data plane", Some("2025-12-31T20:00:00Z"), Some("2025-12-31T20:00:01Z"), EARLY, true),
            ("a write just before the first reading", LATE, LATE, EARLY, false),
            (
                "a write before the reading of a slow run",
                Some("2026-01-01T00:05:01Z"),
                Some("2026-01-01T00:05:01Z"),
                Some("2026-01-01T00:06:00Z"),
                true,
            ),
            ("within the leeway", Some("2026-01-01T00:05:00Z"), Some("2026-01-01T00:05:00Z"), Some(HOUR), false),
            // An hour ahead, it would otherwise look newer than every run's credentials.
            ("a fast clock of the data plane", Some(HOUR), Some(HOUR), EARLY, false),
            ("an older data plane", None, None, EARLY, false),
            ("no time at first", None, LATE, EARLY, false),
        ] {
            let at = |time| at(shows("ASIAOTHER"), time);
            let (created_at, now) = (EARLY.unwrap().parse().unwrap(), now.unwrap().parse().unwrap());
            assert_eq!(is_superseded(created_at, &at(first), &at(latest), now), expected, "{case}");
        }
    }

    #[test]
    fn what_is_known_outweighs_what_is_not() {
        assert!(Presence::Absent < Presence::Unknown && Presence::Unknown < Presence::Present);
    }
}
