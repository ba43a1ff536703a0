//! In a [`World`]: whole runs.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::*;
use crate::event::Origin;
use crate::report::KeyChange;
use crate::rotation::test_world::{Fault, State, World, in_hours, now};

fn command(token: &str) -> Rotate {
    Rotate { origin: Origin::Schedule, token: token.to_owned(), targets: Vec::new(), dry_run: false, force: false }
}

async fn rotate(world: &World, token: &str) -> TargetReport {
    world.run(run(world.target_run(), &command(token))).await
}

/// AKIANOW is due, and Braintrust holds it.
async fn with_a_key_that_is_due() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
        state.store("AKIANOW");
    })
}

/// AKIANOW is not due.
async fn with_a_key_that_is_not_due() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIANOW");
    })
}

/// How often each version was read.
fn reads(world: &World) -> BTreeMap<String, usize> {
    let mut reads = BTreeMap::new();
    for call in world.calls() {
        if let Some(version) = call.strip_prefix("GetSecretValue ") {
            *reads.entry(version.to_owned()).or_default() += 1;
        }
    }
    reads
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_due_is_replaced_everywhere_and_stays_valid_for_the_overlap() {
    let world = with_a_key_that_is_due().await.with_destinations(2);
    world.state().store("AKIANOW");
    let report = rotate(&world, "event-1").await;
    assert_eq!((report.outcome, report.credential_id.unwrap().as_str()), (Outcome::Rotated, "AKIANEW1"));
    let state = world.state();
    assert_eq!(state.in_braintrust(), ["AKIANEW1"; 2]);
    assert_eq!(state.staged("AWSCURRENT").unwrap(), "AKIANEW1");
    assert_eq!(state.staged("AWSPREVIOUS").unwrap(), "AKIANOW");
    assert_eq!(state.version_with("AWSPENDING"), None);
    assert!(state.is_active("AKIANOW") && state.is_active("AKIANEW1"));
}

#[tokio::test(start_paused = true)]
async fn a_key_is_staged_before_it_is_proven_and_proven_before_it_is_written() {
    let world = with_a_key_that_is_due().await;
    rotate(&world, "event-1").await;
    let calls = world.calls();
    let position = |call: &str| calls.iter().position(|made| made == call).expect(call);
    let last_proof = calls.iter().take(position("PATCH 1")).filter(|made| *made == "ListFoundationModels AKIANEW1");
    assert_eq!(last_proof.count(), 2, "{calls:?}");
    assert!(position("PutSecretValue event-1") < position("ListFoundationModels AKIANEW1"), "{calls:?}");
    assert!(position("PATCH 1") < position("UpdateSecretVersionStage AWSCURRENT event-1"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn a_young_key_is_not_replaced_unless_that_is_forced() {
    let world = with_a_key_that_is_not_due().await;
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::NotDue);
    assert_eq!(world.changes(), [""; 0]);
    let forced = Rotate { force: true, ..command("event-2") };
    assert_eq!(world.run(run(world.target_run(), &forced)).await.outcome, Outcome::Rotated);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_rotates_nothing_retires_what_is_no_longer_needed() {
    let world = with_a_key_that_is_not_due().await.given(|state| state.add_key("AKIALOST", -50));
    let report = rotate(&world, "event-1").await;
    assert_eq!(report.outcome, Outcome::NotDue);
    assert!(matches!(report.retired[0].how, KeyChange::Deactivated));
    assert_eq!(world.changes(), ["UpdateAccessKey AKIALOST Inactive"]);
}

#[tokio::test(start_paused = true)]
async fn a_slow_run_without_a_staged_secret_leaves_the_newer_credentials_of_another_run() {
    for (destinations, outcome, id) in [(1, Outcome::NotDue, None), (2, Outcome::Rotated, Some("ASIANEW1"))] {
        // Another run writes while this one waits for Braintrust.
        let newer = |state: &mut State| {
            state.store_in(0, "ASIANEWER");
            state.ai_secrets[0].json["secret_updated_at"] = json!(in_hours(0).to_string());
        };
        let world = World::with_a_role().await.with_destinations(destinations);
        let world = world.once("PATCH 1", Fault::Throttled(4)).before("GET 1", 2, newer);
        let report = rotate(&world, "event-1").await;
        assert_eq!((report.outcome, report.credential_id.as_deref()), (outcome, id));
        assert_eq!(world.state().in_braintrust()[0], "ASIANEWER");
        assert!(report.warnings[0].contains("another run"), "{:?}", report.warnings);
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    for (case, world, outcome) in [
        ("a role", World::with_a_role().await, Outcome::WouldRotate),
        ("a staged role", World::with_a_staged_role().await, Outcome::WouldRotate),
        ("a new user", World::with_access_keys().await, Outcome::WouldRotate),
        ("due", with_a_key_that_is_due().await, Outcome::WouldRotate),
        ("not due", with_a_key_that_is_not_due().await, Outcome::NotDue),
        (
            "something to retire",
            with_a_key_that_is_not_due().await.given(|state| {
                state.add_key("AKIALOST", -50);
                state.store("AKIALOST");
            }),
            Outcome::WouldRepair,
        ),
        (
            "a rotation to resume",
            with_a_key_that_is_due().await.given(|state| state.stage_key("new", "AWSPENDING", "AKIANEW", -1)),
            Outcome::WouldRotate,
        ),
        (
            "a pending key that is dead",
            with_a_key_that_is_due().await.given(|state| state.stage_existing("new", "AWSPENDING", "AKIADEAD")),
            Outcome::WouldRotate,
        ),
        (
            "an event whose own key is dead",
            with_a_key_that_is_due().await.given(|state| state.stage_existing("event-1", "AWSPENDING", "AKIADEAD")),
            Outcome::WouldRepair,
        ),
        (
            "a stale AWSPENDING",
            with_a_key_that_is_not_due().await.given(|state| {
                state.stage_existing("old", "AWSPREVIOUS", "AKIAOLD");
                state.move_stage("AWSPENDING", Some("old"));
            }),
            Outcome::NotDue,
        ),
        (
            "rotated by Secrets Manager",
            with_a_key_that_is_not_due().await.given(|state| state.rotation_enabled = Some(true)),
            Outcome::LeftToSecretsManager,
        ),
    ] {
        let before = world.state().clone();
        let dry_run = Rotate { dry_run: true, ..command("event-1") };
        let report = world.run(run(world.target_run(), &dry_run)).await;
        assert_eq!(report.outcome, outcome, "{case}");
        assert_eq!(world.changes_and_labels(), [""; 0], "{case}");
        assert!(before == *world.state(), "{case}");
        assert_eq!((world.count("AssumeRole"), world.count("ListFoundationModels")), (0, 0), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_fails_where_a_run_could_not_write() {
    for world in [with_a_key_that_is_due().await, World::with_a_role().await] {
        let world = world.with_destinations(2).always("GET 2", Fault::Status(404));
        let dry_run = Rotate { dry_run: true, ..command("event-1") };
        let report = world.run(run(world.target_run(), &dry_run)).await;
        assert_eq!((report.outcome, report.error.unwrap().class), (Outcome::Failed, ErrorClass::NotFound));
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_reads_each_version_once() {
    let previous = |state: &mut State| {
        state.stage_existing("old", "AWSPREVIOUS", "AKIAOLD");
    };
    let rotated = with_a_key_that_is_due().await.given(previous);
    let resumed = with_a_key_that_is_due().await.given(previous);
    let resumed = resumed.given(|state| state.stage_key("event-1", "AWSPENDING", "AKIANEW", 0));
    let not_due = with_a_key_that_is_not_due().await.given(previous);
    for (world, outcome, versions) in [
        (rotated, Outcome::Rotated, vec!["braintrust", "event-1", "now", "old"]),
        (resumed, Outcome::Resumed, vec!["braintrust", "event-1", "now", "old"]),
        (not_due, Outcome::NotDue, vec!["braintrust", "now", "old"]),
    ] {
        assert_eq!(rotate(&world, "event-1").await.outcome, outcome);
        let expected: BTreeMap<_, _> = versions.into_iter().map(|version| (version.to_owned(), 1)).collect();
        assert_eq!(reads(&world), expected, "{outcome:?}");
        assert_eq!(world.count("DescribeSecret"), 1, "{outcome:?}");
        // IAM is asked again for the keys after a promotion.
        assert_eq!(world.count("ListAccessKeys"), if outcome == Outcome::NotDue { 1 } else { 2 }, "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_keys_are_listed_after_the_secret_was_read() {
    let world = with_a_key_that_is_due().await.given(|state| state.stage_key("event-1", "AWSPENDING", "AKIANEW", -1));
    rotate(&world, "event-1").await;
    let calls = world.calls();
    let first_list = calls.iter().position(|call| call == "ListAccessKeys").unwrap();
    let reads =
        calls.iter().filter(|call| ["now", "event-1"].iter().any(|id| **call == format!("GetSecretValue {id}")));
    assert_eq!(reads.count(), 2, "{calls:?}");
    assert!(calls[first_list..].iter().all(|call| !call.ends_with(" event-1") || !call.starts_with("GetSecretValue")));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_made_room_is_not_retired_again() {
    let world = with_a_key_that_is_due().await.given(|state| state.stage_key("old", "AWSPREVIOUS", "AKIAOLD", -900));
    let report = rotate(&world, "event-1").await;
    assert_eq!(report.outcome, Outcome::Rotated);
    let retired: Vec<_> = report.retired.iter().map(|retired| retired.credential_id.as_str()).collect();
    assert_eq!(retired, ["AKIAOLD"]);
    assert_eq!(world.count("DescribeSecret"), 2, "the snapshot, and the confirmation before the deletion");
}

#[tokio::test(start_paused = true)]
async fn a_version_is_read_again_only_before_a_key_is_retired() {
    let world = with_a_key_that_is_not_due().await.given(|state| {
        state.stage_key("old", "AWSPREVIOUS", "AKIAOLD", -900);
        state.deactivate("AKIAOLD");
    });
    rotate(&world, "event-1").await;
    assert_eq!(world.changes(), ["DeleteAccessKey AKIAOLD"]);
    let expected = [("braintrust", 1), ("now", 2), ("old", 2)];
    assert_eq!(reads(&world), expected.map(|(version, times)| (version.to_owned(), times)).into());
}

#[tokio::test(start_paused = true)]
async fn the_role_that_manages_the_user_is_assumed_once_in_a_run() {
    let world = with_a_key_that_is_due().await.with_role_for_the_user().given(|state| state.add_key("AKIALOST", -50));
    let world = world.once("CreateAccessKey", Fault::LostResponse);
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Rotated);
    assert_eq!(world.count("AssumeRole"), 1, "{:?}", world.calls());
    assert!(world.count("ListAccessKeys") + world.count("DeleteAccessKey") + world.count("CreateAccessKey") > 4);
}

#[tokio::test(start_paused = true)]
async fn an_interrupted_rotation_is_resumed_with_the_same_key() {
    for call in ["ListFoundationModels", "PATCH", "UpdateSecretVersionStage"] {
        let world = with_a_key_that_is_due().await.always(call, Fault::Status(500));
        assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Failed, "{call}");
        world.settle();
        assert_eq!(rotate(&world, "event-2").await.outcome, Outcome::Resumed, "{call}");
        assert_eq!(world.state().key_ids(), ["AKIANOW", "AKIANEW1"], "{call}");
        assert_eq!(world.state().staged("AWSCURRENT").unwrap(), "AKIANEW1");
        assert_eq!(world.state().in_braintrust(), ["AKIANEW1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_is_repeated_or_late_changes_nothing() {
    let world = with_a_key_that_is_due().await;
    rotate(&world, "event-1").await;
    world.take_calls();
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::NotDue);
    assert_eq!(world.changes(), [""; 0]);
    let world = with_a_key_that_is_due().await.given(|state| {
        state.stage_existing("event-1", "PASSED", "AKIAFIRST");
        state.stage_key("later", "AWSCURRENT", "AKIALATER", -800);
        state.keys.remove(0);
        state.store("AKIALATER");
        state.secret_changed_at = in_hours(-100);
    });
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::NotDue);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn dead_pending_credentials_are_replaced_and_the_current_ones_serve_if_that_fails() {
    let dead = || async {
        with_a_key_that_is_due().await.given(|state| {
            state.stage_existing("dead", "AWSPENDING", "AKIADEAD");
            state.store("AKIADEAD");
        })
    };
    let world = dead().await;
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Rotated);
    assert_eq!(world.state().in_braintrust(), ["AKIANEW1"]);
    let world = dead().await.always("CreateAccessKey", Fault::Code("AccessDenied"));
    assert_eq!(rotate(&world, "event-1").await.error.unwrap().class, ErrorClass::Permission);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIADEAD");
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_own_pending_credentials_are_dead_abandons_them() {
    let world = with_a_key_that_is_due().await.given(|state| state.stage_existing("event-1", "AWSPENDING", "AKIADEAD"));
    let report = rotate(&world, "event-1").await;
    assert_eq!(report.error.unwrap().class, ErrorClass::Conflict);
    assert_eq!(world.state().version_with("AWSPENDING"), None);
    assert_eq!(rotate(&world, "event-2").await.outcome, Outcome::Rotated);
}

#[tokio::test(start_paused = true)]
async fn a_stale_awspending_is_removed_before_the_rotation() {
    let world = with_a_key_that_is_due().await.given(|state| {
        state.stage_existing("old", "AWSPREVIOUS", "AKIAOLD");
        state.move_stage("AWSPENDING", Some("old"));
        state.secret_changed_at = in_hours(-900);
    });
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Rotated);
    assert_eq!(world.changes()[0], "UpdateSecretVersionStage AWSPENDING");
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_secrets_manager_rotates_is_left_alone_and_its_keys_are_retired() {
    let world = with_a_key_that_is_not_due().await.given(|state| {
        state.rotation_enabled = Some(true);
        state.add_key("AKIALOST", -50);
    });
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::LeftToSecretsManager);
    assert_eq!(world.changes(), ["UpdateAccessKey AKIALOST Inactive"]);
}

#[tokio::test(start_paused = true)]
async fn a_role_based_target_is_rotated_by_every_run() {
    for world in [World::with_a_role().await, World::with_a_staged_role().await] {
        for (token, id) in [("event-1", "ASIANEW1"), ("event-2", "ASIANEW2")] {
            assert_eq!(rotate(&world, token).await.outcome, Outcome::Rotated, "{id}");
            assert_eq!(world.state().in_braintrust(), [id]);
        }
        assert_eq!(world.count("AssumeRole"), 2);
    }
}

/// ASIANOW is current and expires in 40 minutes, and through Braintrust, the role may not call the model.
async fn with_a_role_that_is_denied_through_braintrust() -> World {
    World::with_a_staged_role().await.with_the_proof().given(|state| {
        state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
        state.store("ASIANOW");
        state.denied_through_braintrust.extend(["ASIANOW", "ASIANEW1", "ASIANEW2"].map(str::to_owned));
    })
}

#[tokio::test(start_paused = true)]
async fn role_based_credentials_that_are_denied_are_not_replaced_by_older_ones_of_the_same_role() {
    let world = with_a_role_that_is_denied_through_braintrust().await;
    let report = rotate(&world, "event-1").await;
    let error = report.error.unwrap();
    assert_eq!((report.outcome, error.class), (Outcome::Failed, ErrorClass::Permission));
    assert!(error.remedy.starts_with("Braintrust holds these credentials nevertheless"), "{}", error.remedy);
    assert_eq!(world.state().in_braintrust(), ["ASIANEW1"]);
    assert_eq!(world.state().staged("AWSCURRENT").unwrap(), "ASIANEW1");
    assert_eq!(world.state().staged("AWSPREVIOUS").unwrap(), "ASIANOW");
    assert_eq!(world.state().version_with("AWSPENDING"), None);
    assert_eq!(world.count("PATCH"), 1);
    assert_eq!(report.held.unwrap().expires_at, Some(in_hours(1)));
}

#[tokio::test(start_paused = true)]
async fn a_retry_fails_again_until_the_role_may_call_the_model() {
    let world = with_a_role_that_is_denied_through_braintrust().await;
    rotate(&world, "event-1").await;
    world.take_calls();
    for (outcome, class) in [(Outcome::Failed, Some(ErrorClass::Permission)), (Outcome::NotDue, None)] {
        let report = rotate(&world, "event-1").await;
        assert_eq!((report.outcome, report.error.map(|error| error.class)), (outcome, class));
        world.state().denied_through_braintrust.clear();
    }
    assert_eq!(world.changes(), [""; 0]);
    world.state().denied_through_braintrust.insert("ASIANEW2".to_owned());
    assert_eq!(rotate(&world, "event-2").await.outcome, Outcome::Failed);
    assert_eq!(world.state().in_braintrust(), ["ASIANEW2"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_if_bedrock_refuses_new_credentials() {
    for world in [World::with_a_role().await, World::with_a_staged_role().await, with_a_key_that_is_due().await] {
        let world = world.always("ListFoundationModels", Fault::Code("AccessDeniedException"));
        let report = rotate(&world, "event-1").await;
        assert_eq!(report.error.unwrap().class, ErrorClass::Permission);
        assert_eq!(world.count("PATCH"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_fails_the_run_and_the_others_are_fresh() {
    for (world, id) in [(World::with_a_role().await, "ASIANEW1"), (with_a_key_that_is_due().await, "AKIANEW1")] {
        let world = world.with_destinations(2).always("PATCH 1", Fault::Status(403));
        let report = rotate(&world, "event-1").await;
        assert_eq!(report.error.unwrap().class, ErrorClass::Permission);
        assert_eq!(report.destinations.iter().map(|it| it.updated).collect::<Vec<_>>(), [false, true]);
        assert_eq!(world.state().in_braintrust()[1], id);
        assert_ne!(world.state().staged("AWSCURRENT").as_deref(), Some(id));
    }
}

fn in_minutes(minutes: i64) -> Timestamp {
    now() + SignedDuration::from_mins(minutes)
}

#[tokio::test(start_paused = true)]
async fn a_first_rotation_whose_credentials_are_dead_is_replaced_and_the_new_ones_become_current() {
    let role_based = World::with_a_staged_role().await.given(|state| {
        state.stage_until("first", "AWSCURRENT", "ASIAFIRST", -1, Some(0));
    });
    let user_based = World::with_access_keys().await.given(|state| {
        state.stage_key("first", "AWSCURRENT", "AKIAFIRST", -1);
        state.deactivate("AKIAFIRST");
    });
    for (world, id) in [(role_based, "ASIANEW1"), (user_based, "AKIANEW1")] {
        let world = world.given(|state| state.move_stage("AWSPENDING", Some("first")));
        assert_eq!(rotate(&world, "event-2").await.outcome, Outcome::Rotated);
        assert_eq!(world.state().staged("AWSCURRENT").unwrap(), id);
        assert_eq!(world.state().in_braintrust(), [id]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_api_key_is_replaced_in_braintrust_once_and_retired_after_the_overlap() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -20);
        state.add_key("ACCAORPHAN", -1);
        state.store("ACCANOW");
        state.keys.iter_mut().for_each(|key| key.created_at = in_minutes(-31));
        state.secret_changed_at = in_minutes(-28);
        state.ai_secrets[0].json["secret_updated_at"] = json!(in_minutes(-28).to_string());
    });
    for run in 1..=3 {
        assert_eq!(rotate(&world, &format!("event-{run}")).await.outcome, Outcome::NotDue);
        assert!(world.state().is_active("ACCAORPHAN"), "run {run} is in the overlap");
    }
    assert_eq!(world.count("PATCH"), 1);
    world.state().end_the_overlap();
    rotate(&world, "event-4").await;
    assert!(!world.state().is_active("ACCAORPHAN"));
}

#[tokio::test(start_paused = true)]
async fn somebody_who_overwrites_the_ai_secret_before_every_run_does_not_keep_a_key_from_its_rotation() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -1_000);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
        state.label("PROMOTED_", -900, "now");
    });
    let mut outcomes = Vec::new();
    for run in 1..=3 {
        world.state().store("AKIASTATE");
        outcomes.push(rotate(&world, &format!("event-{run}")).await.outcome);
    }
    assert!(outcomes.contains(&Outcome::Rotated), "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pending_api_key_that_is_dead_stays_pending_until_the_current_one_is_restored() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -100);
        state.stage_key("new", "AWSPENDING", "ACCANEW", -1);
        state.store("ACCANEW");
        state.deactivate("ACCANEW");
        state.unknown_to_bedrock.insert("ACCANOW".to_owned());
    });
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Failed);
    assert_eq!(world.state().version_with("AWSPENDING").unwrap(), "new");
    world.state().unknown_to_bedrock.clear();
    assert_eq!(rotate(&world, "event-2").await.outcome, Outcome::Repaired);
    assert_eq!(world.state().in_braintrust(), ["ACCANOW"]);
}

#[tokio::test(start_paused = true)]
async fn a_label_that_an_ended_run_left_does_not_keep_a_mixture_from_being_mended() {
    let world = World::with_a_staged_role().await.given(|state| {
        state.stage_until("old", "AWSPREVIOUS", "ASIAOLD", -2, Some(-1));
        state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
        state.label("RESTORING_", -1, "old");
        state.store("ASIANOW");
    });
    let world = world.times(2, "PATCH", Fault::OnlyField("metadata"));
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Failed);
    assert_eq!(world.state().in_braintrust(), ["ASIANOW"]);
}

#[tokio::test(start_paused = true)]
async fn a_rotation_removes_the_mark_of_a_rollback_that_did_not_happen() {
    let world = with_a_key_that_is_due().await.given(|state| state.move_stage("ROLLED_BACK", Some("now")));
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Rotated);
    assert_eq!(world.state().version_with("ROLLED_BACK"), None);
}

#[tokio::test(start_paused = true)]
async fn a_resumed_rotation_does_not_take_its_metadata_for_the_whole() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
        state.stage_key("new", "AWSPENDING", "AKIANEW", -2);
        state.store("AKIANOW");
        // The run that created the pending key wrote it, and restored the current one an hour ago.
        state.ai_secrets[0].json["secret_updated_at"] = in_hours(-1).to_string().into();
    });
    let world = world.once("PATCH", Fault::OnlyField("metadata"));
    assert_eq!(rotate(&world, "event-1").await.outcome, Outcome::Resumed);
    assert_eq!(world.state().in_braintrust(), ["AKIANEW"]);
}

/// Braintrust assumes a role itself for all destinations from now on.
fn move_to_assume_role(state: &mut State) {
    state.ai_secrets.iter_mut().for_each(|ai_secret| ai_secret.json["metadata"] = moved());
}

fn moved() -> serde_json::Value {
    json!({"auth_type": "assume_role", "role_arn": "arn:aws:iam::000000000000:role/x", "region": "us-east-1"})
}

#[tokio::test(start_paused = true)]
async fn where_braintrust_assumes_a_role_the_iam_user_the_right_to_list_its_keys_and_the_secret_may_be_gone() {
    for (call, code, warnings) in [
        ("ListAccessKeys", "NoSuchEntity", 0),
        ("ListAccessKeys", "AccessDenied", 1),
        ("DescribeSecret", "ResourceNotFoundException", 1),
    ] {
        let world = World::with_access_keys().await.given(|state| {
            state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
            move_to_assume_role(state);
        });
        let world = world.always(call, Fault::Code(code));
        let report = rotate(&world, &"t".repeat(32)).await;
        assert_eq!((report.outcome, report.warnings.len()), (Outcome::UsesAssumeRole, warnings), "{call} {code}");
        assert_eq!((world.changes(), report.error.is_some()), (vec![], false), "{call} {code}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_before_the_destinations_are_known_to_have_moved_stays_the_error() {
    for has_moved in [true, false] {
        let world =
            World::with_access_keys().await.given(|state| state.stage_key("now", "AWSCURRENT", "AKIANOW", -900));
        if has_moved {
            world.state().ai_secrets[0].json["metadata"] = json!({"auth_type": "assume_role"});
        }
        let world = world.always("ListAccessKeys", Fault::Code("AccessDenied"));
        let report = rotate(&world, &"t".repeat(32)).await;
        assert_eq!(report.error.unwrap().call, "ListAccessKeys", "{has_moved}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_braintrust_assumes_a_role_nothing_is_created_written_or_retired() {
    for hours in [-900, -100] {
        let world = World::with_access_keys().await.given(|state| {
            state.stage_key("old", "AWSCURRENT", "AKIAOLD", -1_000);
            state.stage_key("now", "AWSCURRENT", "AKIANOW", hours);
            state.store("AKIANOW");
            move_to_assume_role(state);
        });
        let report = rotate(&world, &"t".repeat(32)).await;
        assert_eq!((report.outcome, report.error.is_some()), (Outcome::UsesAssumeRole, false), "{hours}");
        assert!(report.destinations[0].uses_assume_role && !report.destinations[0].updated);
        assert!(report.warnings.iter().any(|warning| warning.contains("--access-key-id AKIANOW")));
        assert_eq!(world.changes(), [""; 0], "{hours}");
    }
}

#[tokio::test(start_paused = true)]
async fn where_braintrust_assumes_a_role_the_own_role_may_be_gone() {
    for world in [World::with_a_role().await, World::with_a_staged_role().await] {
        let world = world.given(move_to_assume_role).always("AssumeRole", Fault::Code("AccessDenied"));
        assert_eq!(rotate(&world, &"t".repeat(32)).await.outcome, Outcome::UsesAssumeRole);
        assert_eq!(world.changes(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_has_not_moved_is_still_rotated() {
    let world = World::with_a_role().await.with_destinations(2);
    world.state().ai_secrets[0].json["metadata"] = moved();
    let report = rotate(&world, &"t".repeat(32)).await;
    assert_eq!(report.outcome, Outcome::Rotated);
    let found: Vec<_> = report.destinations.iter().map(|it| (it.uses_assume_role, it.updated)).collect();
    assert_eq!((found, world.count("PATCH 1")), (vec![(true, false), (false, true)], 0));
}
