//! The findings about providers, tested on plain values.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{NamedProject, Writer};
use super::*;
use crate::braintrust::ai_provider::Metadata;

const NOW: &str = "2026-06-01T00:00:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

fn provider(metadata: Value) -> Provider {
    Provider {
        url: 0,
        id: Uuid::nil(),
        place: Place::Organization,
        name: "AWS Bedrock".to_owned(),
        organization: Some(Uuid::from_u128(1)),
        project: None,
        metadata: serde_json::from_value::<Metadata>(metadata).unwrap(),
        secret_updated_at: Some(now()),
        writers: Vec::new(),
        possible_targets: Vec::new(),
        findings: Vec::new(),
    }
}

fn working() -> Provider {
    provider(json!({"access_key": "AKIA", "region": "us-east-1"}))
}

fn assumes_a_role() -> Provider {
    provider(json!({"auth_type": "assume_role", "role_arn": "x", "region": "us-east-1"}))
}

fn in_a_project(provider: Provider) -> Provider {
    Provider { place: Place::Project, project: of_a_project().project, ..provider }
}

fn of_a_project() -> Provider {
    let project = Some(NamedProject { id: Uuid::max(), name: "support-bot".to_owned() });
    Provider { place: Place::Project, project, ..working() }
}

fn written_by(target: &str, lifetime: Option<u64>, provider: Provider) -> Provider {
    let lifetime = lifetime.map(Duration::from_secs);
    let writer = Writer { target: target.to_owned(), lifetime, by_name: true };
    Provider { writers: vec![writer], id: Uuid::from_u128(7), ..provider }
}

fn judged(mut providers: Vec<Provider>, is_hosted: bool) -> Vec<Vec<Finding>> {
    judge(now(), &mut providers, &[is_hosted]);
    providers.into_iter().map(|provider| provider.findings).collect()
}

/// The findings, except that Braintrust could assume a role itself.
fn found(providers: Vec<Provider>) -> Vec<Vec<Finding>> {
    let mut found = judged(providers, true);
    found.iter_mut().for_each(|findings| findings.retain(|finding| finding.severity() != Severity::Simpler));
    found
}

#[test]
fn what_a_provider_shows_of_itself() {
    use Finding::*;
    for (metadata, expected) in [
        (json!({"access_key": "AKIA", "region": "us-east-1"}), vec![]),
        (json!({"access_key": "AKIA", "session_token": "", "region": "us-east-1"}), vec![]),
        (json!({"access_key": "ASIA", "session_token": "x", "region": "us-east-1"}), vec![]),
        (json!({"auth_type": "api_key", "region": "us-east-1"}), vec![]),
        (json!({"auth_type": "assume_role", "role_arn": "x", "region": "us-east-1"}), vec![]),
        (json!({"access_key": "AKIA"}), vec![NoRegion]),
        (json!({"auth_type": "assume_role", "role_arn": "x"}), vec![NoRegion]),
        (json!({"auth_type": "assume_role", "region": "us-east-1"}), vec![NoRole]),
        (json!({"auth_type": "assume_role"}), vec![NoRegion, NoRole]),
        (json!({}), vec![NoRegion, NoAccessKey]),
        (json!({"auth_type": null, "access_key": "AKIA", "region": "us-east-1"}), vec![UnknownAuthType]),
        (json!({"auth_type": "web", "region": "us-east-1"}), vec![UnknownAuthType]),
        (json!({"access_key": "ASIA", "region": "us-east-1"}), vec![TokenMissing]),
        (json!({"access_key": "AKIA", "session_token": "x", "region": "us-east-1"}), vec![StaleToken]),
        (json!({"access_key": "AKIA", "aws_secret_access_key": "x", "region": "us-east-1"}), vec![SecretInMetadata]),
        (
            json!({"aws_access_key_id": "AKIA", "aws_secret_access_key": "x", "region": "us-east-1"}),
            vec![NoAccessKey, SecretInMetadata],
        ),
        (json!({"auth_type": "api_key", "region": "us-east-1", "api_base": "https://x.example"}), vec![CustomApiBase]),
    ] {
        assert_eq!(found(vec![provider(metadata.clone())]), [expected], "{metadata}");
    }
}

#[test]
fn temporary_credentials_expire_and_permanent_ones_become_old() {
    let temporary = json!({"access_key": "ASIA", "session_token": "x", "region": "us-east-1"});
    let permanent = json!({"access_key": "AKIA", "region": "us-east-1"});
    let api_key = json!({"auth_type": "api_key", "region": "us-east-1"});
    let (hour, day) = (Some(3_600), 24);
    for (metadata, lifetime, hours, expected) in [
        (&temporary, hour, 1, None),
        (&temporary, hour, 2, Some(Finding::Expired)),
        (&temporary, None, 36, None),
        (&temporary, None, 37, Some(Finding::Expired)),
        (&api_key, hour, 2, Some(Finding::Expired)),
        (&api_key, None, 90 * day, None),
        (&api_key, None, 91 * day, Some(Finding::Old)),
        (&permanent, None, 90 * day, None),
        (&permanent, None, 91 * day, Some(Finding::Old)),
        // A role-based target has not written it yet.
        (&permanent, hour, 2, None),
    ] {
        let changed_at = now() - SignedDuration::from_hours(hours);
        let mut one = Provider { secret_updated_at: Some(changed_at), ..provider(metadata.clone()) };
        if lifetime.is_some() {
            one = written_by("prod", lifetime, one);
        }
        assert_eq!(found(vec![one.clone()]), [Vec::from_iter(expected)], "{metadata} {lifetime:?} {hours}");
        // An older data plane doesn't say when it changed.
        assert_eq!(found(vec![Provider { secret_updated_at: None, ..one }]), [vec![]]);
    }
}

#[test]
fn a_provider_beside_a_targets_own_shares_its_load_or_overrides_it() {
    use Finding::*;
    let elsewhere = |provider: Provider| Provider { organization: Some(Uuid::from_u128(2)), ..provider };
    let without_region = provider(json!({"access_key": "AKIA"}));
    let other_data_plane = Provider { url: 1, ..working() };
    let renamed = |provider: Provider| Provider { name: "Other".to_owned(), ..provider };
    let perhaps_written = |provider: Provider| Provider { possible_targets: vec!["other".to_owned()], ..provider };
    let without_role = provider(json!({"auth_type": "assume_role", "region": "us-east-1"}));
    for (other, expected) in [
        (working(), vec![SharesLoad]),
        (without_region.clone(), vec![NoRegion, SharesLoadBroken]),
        (of_a_project(), vec![OverridesTarget]),
        (elsewhere(working()), vec![Namesake]),
        (renamed(elsewhere(working())), vec![]),
        (
            provider(json!({"access_key": "AKIA", "region": "us-east-1", "api_base": "https://x.example"})),
            vec![CustomApiBase, SharesLoad],
        ),
        (elsewhere(of_a_project()), vec![]),
        (renamed(elsewhere(without_region.clone())), vec![NoRegion]),
        (other_data_plane, vec![]),
        (Provider { organization: None, ..working() }, vec![]),
        // Another target writes it.
        (written_by("other", None, working()), vec![]),
        (written_by("other", None, of_a_project()), vec![]),
        // Another target may write it.
        (perhaps_written(working()), vec![]),
        (perhaps_written(of_a_project()), vec![]),
        (perhaps_written(without_region), vec![NoRegion]),
        // It needs no target.
        (assumes_a_role(), vec![]),
        (in_a_project(assumes_a_role()), vec![]),
        (without_role.clone(), vec![SharesLoadBroken, NoRole]),
        (in_a_project(without_role), vec![NoRole, OverridesTarget]),
    ] {
        let case = format!("{other:?}");
        for (ours, own) in [(working(), vec![]), (assumes_a_role(), vec![UsesAssumeRole])] {
            let found = found(vec![written_by("prod", None, ours), other.clone()]);
            assert_eq!(found, [own, expected.clone()], "{case}");
        }
    }
}

#[test]
fn beside_one_that_no_target_writes_nothing_is_wrong() {
    assert_eq!(found(vec![working(), of_a_project()]), [vec![], vec![]]);
}

#[test]
fn the_hosted_gateway_could_assume_a_role_and_a_self_hosted_one_might() {
    for (is_hosted, expected) in [(true, Finding::CouldUseAssumeRole), (false, Finding::MightUseAssumeRole)] {
        assert_eq!(judged(vec![working(), assumes_a_role()], is_hosted), [vec![expected], vec![]]);
    }
}

#[test]
fn a_check_names_what_concerns_its_target_and_nothing_else() {
    let with_id = |id, provider: Provider| Provider { id: Uuid::from_u128(id), ..provider };
    let elsewhere = |provider: Provider| Provider { organization: Some(Uuid::from_u128(2)), ..provider };
    let mut providers = vec![
        written_by("prod", None, working()),
        with_id(2, working()),
        with_id(3, of_a_project()),
        with_id(4, elsewhere(working())),
        with_id(5, elsewhere(provider(json!({"access_key": "AKIA"})))),
        with_id(6, Provider { secret_updated_at: None, ..provider(json!({"auth_type": "", "region": "us-east-1"})) }),
    ];
    judge(now(), &mut providers, &[false]);
    let concerning = |target| {
        let found = super::concerning(target, &providers);
        found.into_iter().map(|(provider, finding)| (provider.id.as_u128(), finding)).collect::<Vec<_>>()
    };
    let expected = [
        (6, Finding::UnknownAuthType),
        (6, Finding::SharesLoadBroken),
        (3, Finding::OverridesTarget),
        (2, Finding::SharesLoad),
        (4, Finding::Namesake),
        (5, Finding::Namesake),
    ];
    assert_eq!(concerning("prod"), expected);
    assert_eq!(concerning("other"), []);
}

#[test]
fn a_check_names_what_breaks_its_targets_own_providers_and_no_other_line_says() {
    use Finding::*;
    let in_clear = json!({"aws_secret_access_key": "x", "access_key": "AKIA", "region": "us-east-1"});
    let mut moved = json!({"auth_type": "assume_role", "role_arn": "x", "region": "us-east-1"});
    moved["aws_secret_access_key"] = json!("x");
    for (metadata, expected) in [
        (json!({}), vec![NoRegion, NoAccessKey]),
        (json!({"auth_type": "assume_role", "role_arn": "x"}), vec![NoRegion]),
        (json!({"auth_type": "web", "region": "us-east-1"}), vec![UnknownAuthType]),
        (in_clear, vec![]),
        (moved, vec![SecretInMetadata]),
    ] {
        let mut providers = vec![written_by("prod", None, provider(metadata.clone()))];
        judge(now(), &mut providers, &[true]);
        let found: Vec<_> = super::concerning("prod", &providers).into_iter().map(|(_, finding)| finding).collect();
        assert_eq!(found, expected, "{metadata}");
    }
}

#[test]
fn the_order_of_the_findings_is_that_of_their_severities() {
    let all = [
        Finding::NoRegion,
        Finding::UnknownAuthType,
        Finding::SharesLoadBroken,
        Finding::NoRole,
        Finding::NoAccessKey,
        Finding::TokenMissing,
        Finding::StaleToken,
        Finding::Expired,
        Finding::SecretInMetadata,
        Finding::CustomApiBase,
        Finding::OverridesTarget,
        Finding::SharesLoad,
        Finding::Old,
        Finding::Namesake,
        Finding::UsesAssumeRole,
        Finding::CouldUseAssumeRole,
        Finding::MightUseAssumeRole,
    ];
    assert!(all.is_sorted() && all.is_sorted_by_key(|finding| finding.severity()));
}
