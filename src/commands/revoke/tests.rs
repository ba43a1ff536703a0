//! Revocations in a [`World`], alone and beside other runs: what they leave behind.

use super::*;
use crate::credentials::Kind;
use crate::error::{ErrorClass, Service};
use crate::report::KeyChange;
use crate::revocation::Revoked;
use crate::rotation::test_world::{Fault, World};

/// AKIANOW is current and in Braintrust, and AKIAOLD was current before.
async fn rotated() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIANOW");
    })
}

fn command(token: &str) -> Revoke {
    Revoke { token: token.to_owned(), targets: Vec::new(), dry_run: false, force: false, api_key: false }
}

async fn revoke(world: &World, command: &Revoke) -> TargetReport {
    world.run(run(world.target_run(), command)).await
}

fn revoked(report: &TargetReport) -> Vec<(&str, RevokedState)> {
    let state = |revoked: &'_ Revoked| revoked.state;
    report.revocation.iter().flat_map(|it| &it.revoked).map(|it| (it.credential_id.as_str(), state(it))).collect()
}

/// Only the successor is left, in IAM, in Braintrust and in the secret, and the rest is proven dead.
fn assert_ended(world: &World, report: &TargetReport, case: &str) {
    assert_eq!(report.outcome, Outcome::Revoked, "{case}: {:?}", report.error);
    let state = world.state();
    let current = state.staged("AWSCURRENT").unwrap();
    assert_eq!((state.key_ids(), state.in_braintrust()), (vec![current.as_str()], vec![current.as_str()]), "{case}");
    assert_eq!(report.credential_id.as_deref(), Some(current.as_str()), "{case}");
    assert_eq!(state.version_labelled("REVOKING_"), None, "{case}");
    assert_eq!(state.version_with("REVOKED"), state.version_with("AWSPREVIOUS"), "{case}");
    assert!(revoked(report).iter().all(|(_, state)| *state == RevokedState::Dead), "{case}: {:?}", revoked(report));
}

#[tokio::test(start_paused = true)]
async fn the_current_and_the_previous_key_are_deleted_and_proven_dead_after_the_successor_has_arrived() {
    let world = rotated().await;
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "two keys");
    assert_eq!(revoked(&report).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["AKIANOW", "AKIAOLD"]);
    let evidence = report.revocation.as_ref().unwrap().revoked[0].evidence.as_ref().unwrap();
    assert_eq!((evidence.service, evidence.answer.as_str()), (Service::Bedrock, "403 UnrecognizedClientException"));
    let position = |call: &str| world.calls().iter().position(|made| made.starts_with(call)).unwrap();
    assert!(position("PATCH 1") < position("DeleteAccessKey AKIANOW"));
    // The previous key makes room for the successor.
    assert!(position("DeleteAccessKey AKIAOLD") < position("CreateAccessKey"));
    assert!(report.retired.iter().all(|retired| matches!(retired.how, KeyChange::Deleted)));
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_ends_nothing_and_the_next_command_continues() {
    let world = rotated().await.once("PATCH", Fault::Status(403));
    let report = revoke(&world, &command("first")).await;
    let error = report.error.unwrap();
    assert!(error.class == ErrorClass::Permission && error.remedy.contains("still work"), "{error}");
    assert!(world.state().is_active("AKIANOW"));
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    let created = world.state().created;
    let report = revoke(&world, &command("second")).await;
    assert_ended(&world, &report, "the second command");
    assert_eq!(world.state().created, created, "the staged successor is used");
}

#[tokio::test(start_paused = true)]
async fn force_ends_the_keys_although_braintrust_refuses_the_successor() {
    let world = rotated().await.always("PATCH", Fault::Status(403));
    let report = revoke(&world, &Revoke { force: true, ..command("new") }).await;
    let error = report.error.as_ref().unwrap();
    assert!(error.class == ErrorClass::Permission && error.remedy.contains("were ended"), "{error}");
    for id in ["AKIANOW", "AKIAOLD"] {
        assert_eq!(world.state().key(id), None);
        assert!(revoked(&report).contains(&(id, RevokedState::Dead)), "{:?}", revoked(&report));
    }
    world.settle();
    assert_ended(&world, &revoke(&world, &command("later")).await, "once Braintrust accepts it");
}

#[tokio::test(start_paused = true)]
async fn keys_that_a_person_created_are_named_and_not_touched() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.add_key("AKIAHAND", -2_000);
        state.store("AKIANOW");
    });
    let report = revoke(&world, &command("new")).await;
    let error = report.error.as_ref().unwrap();
    assert!(error.remedy.contains("AKIAHAND"), "{error}");
    assert_eq!(report.revocation.as_ref().unwrap().foreign_keys, ["AKIAHAND"]);
    assert_eq!(world.state().key_ids(), ["AKIANOW", "AKIAHAND"]);
    // With force, the leaked key makes room itself.
    let report = revoke(&world, &Revoke { force: true, ..command("forced") }).await;
    assert_eq!(report.outcome, Outcome::Revoked, "{:?}", report.error);
    let state = world.state();
    assert!(state.key("AKIAHAND").is_some() && state.key("AKIANOW").is_none());
    assert_eq!(state.in_braintrust(), [state.staged("AWSCURRENT").unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn pending_credentials_are_replaced_because_they_may_be_the_ones_that_leaked() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.stage_key("pending", "AWSPENDING", "AKIAPENDING", -1);
        state.store("AKIANOW");
    });
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "pending");
    assert_eq!(revoked(&report).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["AKIANOW", "AKIAPENDING"]);
}

#[tokio::test(start_paused = true)]
async fn a_scheduled_run_continues_an_interrupted_revocation_without_an_overlap() {
    let world = rotated().await;
    let interrupted = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await.ok().unwrap();
        staged.mark_revoked(&snapshot).await.ok().unwrap();
    };
    world.run(interrupted).await;
    let rotate = |token: &str| crate::event::Rotate {
        origin: crate::event::Origin::Schedule,
        token: token.to_owned(),
        targets: Vec::new(),
        dry_run: false,
        force: false,
    };
    for token in ["first", "second", "third"] {
        let command = rotate(token);
        world.run(crate::commands::rotate::run(world.target_run(), &command)).await;
    }
    let keys: Vec<_> = world.state().key_ids().iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(keys, [world.state().staged("AWSCURRENT").unwrap()]);
    assert_ended(&world, &revoke(&world, &command("again")).await, "the command proves it");
    assert_eq!(world.state().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_command_that_was_interrupted_while_it_marked_the_versions_is_repeated_in_full() {
    for marks in 1..=3 {
        let world = World::with_access_keys().await.given(|state| {
            state.stage_until("old", "AWSCURRENT", "AKIAOLD", -900, None);
            state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
            state.stage_key("pending", "AWSPENDING", "AKIAPENDING", -1);
            state.store("AKIANOW");
        });
        let world = world.from("UpdateSecretVersionStage", marks, Fault::Status(400));
        assert_eq!(revoke(&world, &command("first")).await.outcome, Outcome::Failed, "{marks}");
        world.settle();
        let report = revoke(&world, &command("second")).await;
        assert_eq!(report.outcome, Outcome::Revoked, "{marks}: {:?}", report.error);
        let state = world.state();
        assert!(state.key("AKIANOW").is_none() && state.key("AKIAPENDING").is_none(), "{marks}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_bedrock_still_accepts_fails_the_command_and_the_next_one_proves_it() {
    let world = rotated().await;
    world.state().still_accepted.insert("AKIANOW".to_owned());
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::VerificationFailed, "{:?}", report.error);
    assert!(revoked(&report).contains(&("AKIANOW", RevokedState::Ended)));
    world.state().still_accepted.clear();
    assert_ended(&world, &revoke(&world, &command("again")).await, "the second command");
    assert_eq!(world.state().created, 1);
}

#[tokio::test(start_paused = true)]
async fn a_repeated_event_replaces_nothing_again() {
    let world = rotated().await;
    revoke(&world, &command("new")).await;
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "the same event");
    assert_eq!(world.state().created, 1);
    revoke(&world, &command("another")).await;
    assert_eq!(world.state().created, 2, "another event is another leak");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_refuses_revoked_credentials() {
    let world = World::with_a_staged_role().await.given(|state| {
        state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
        state.store("ASIANOW");
    });
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.outcome, Outcome::Replaced, "{:?}", report.error);
    let report = world.run(crate::commands::rollback::run(world.target_run(), false, false)).await;
    assert!(report.error.as_ref().unwrap().problem.contains("ASIANOW were revoked"), "{:?}", report.error);
    let state = world.state();
    assert_eq!(state.in_braintrust(), [state.staged("AWSCURRENT").unwrap()]);
}

#[tokio::test(start_paused = true)]
async fn without_permission_the_report_has_the_command_that_ends_the_sessions() {
    for world in [World::with_a_role().await, World::with_a_staged_role().await] {
        let world = world.given(|state| {
            state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
            state.store("ASIANOW");
        });
        let report = revoke(&world, &command("new")).await;
        assert_eq!(report.outcome, Outcome::Replaced, "{:?}", report.error);
        let remaining = &report.revocation.as_ref().unwrap().remaining[0];
        assert!(remaining.command.starts_with("aws iam put-role-policy --role-name bedrock"), "{}", remaining.command);
        assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Alive)]);
        assert_eq!(world.count("PutRolePolicy"), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn the_sessions_before_the_successor_are_ended_after_it_has_arrived() {
    for (world, dead) in [
        (World::with_a_role().await, vec!["ASIANOW", "ASIANEW1"]),
        (World::with_a_staged_role().await, vec!["ASIANOW"]),
    ] {
        let world = world.with_revocable_sessions().given(|state| {
            state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
            state.store("ASIANOW");
        });
        let report = revoke(&world, &command("new")).await;
        assert_eq!(report.outcome, Outcome::Revoked, "{:?}", report.error);
        let position = |call: &str| world.calls().iter().position(|made| made.starts_with(call)).unwrap();
        assert!(position("PATCH 1") < position("PutRolePolicy"));
        let successor = report.credential_id.clone().unwrap();
        assert_eq!(world.state().in_braintrust(), [successor.as_str()]);
        assert_eq!(revoked(&report).iter().map(|(id, _)| *id).collect::<Vec<_>>(), dead);
        assert_eq!(revoked(&report).last().unwrap().1, RevokedState::Dead);
        assert!(report.revocation.unwrap().remaining.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_may_not_be_written_fails_the_command_with_the_one_to_run() {
    let world = World::with_a_role().await.with_revocable_sessions();
    let world = world.always("PutRolePolicy", Fault::Code("AccessDenied"));
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::Permission);
    assert!(report.revocation.unwrap().remaining[0].command.contains("aws:TokenIssueTime"));
}

/// ASIANOW is in Braintrust: of a target without a staged secret, and of one with it.
async fn with_revocable_sessions() -> [World; 2] {
    [World::with_a_role().await, World::with_a_staged_role().await].map(|world| {
        world.with_revocable_sessions().given(|state| {
            state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
            state.store("ASIANOW");
        })
    })
}

#[tokio::test(start_paused = true)]
async fn force_ends_the_sessions_although_braintrust_refuses_the_successor() {
    for world in with_revocable_sessions().await {
        let world = world.always("PATCH", Fault::Status(403));
        let report = revoke(&world, &command("first")).await;
        assert!(report.error.unwrap().remedy.contains("still work"));
        assert_eq!(world.count("PutRolePolicy"), 0);
        let report = revoke(&world, &Revoke { force: true, ..command("second") }).await;
        let error = report.error.as_ref().unwrap();
        assert!(error.remedy.contains("were ended"), "{error}");
        assert!(revoked(&report).iter().any(|(_, state)| *state == RevokedState::Dead));
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_that_gets_no_new_session_has_the_command_that_ends_all_sessions_of_the_role() {
    for force in [false, true] {
        for world in with_revocable_sessions().await {
            let world = world.always("AssumeRole", Fault::Code("AccessDenied"));
            let report = revoke(&world, &Revoke { force, ..command("new") }).await;
            let (error, revocation) = (report.error.as_ref().unwrap(), report.revocation.as_ref().unwrap());
            assert!(error.remedy.contains("still work") && error.remedy.contains("FORCE") != force, "{error}");
            assert_eq!((revocation.remaining.len(), world.count("PutRolePolicy")), (1, 0));
            let hour = world.services.now().strftime("%Y-%m-%dT%H:").to_string();
            assert!(revocation.remaining[0].command.contains(&hour), "{}", revocation.remaining[0].command);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_with_a_new_session_that_braintrust_refuses_gives_no_command_that_would_end_it() {
    for world in with_revocable_sessions().await {
        let world = world.always("PATCH", Fault::Status(403));
        let report = revoke(&world, &command("new")).await;
        assert!(report.error.as_ref().unwrap().remedy.contains("FORCE=true"));
        assert!(report.revocation.unwrap().remaining.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_after_the_successor_has_become_current_does_not_say_that_the_old_credentials_work() {
    let world = rotated().await.once("DeleteAccessKey AKIANOW", Fault::Status(403));
    revoke(&world, &command("first")).await;
    let world = world.always("GET", Fault::Status(403));
    let report = revoke(&world, &Revoke { dry_run: true, ..command("second") }).await;
    assert!(!report.error.as_ref().unwrap().remedy.contains("still work"), "{:?}", report.error);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing_and_says_what_it_would_end() {
    let with_a_role = async || World::with_a_role().await.given(|state| state.store("ASIANOW"));
    for (world, state, ids) in [
        (rotated().await, RevokedState::WouldEnd, vec!["AKIANOW", "AKIAOLD"]),
        (with_a_role().await.with_revocable_sessions(), RevokedState::WouldEnd, vec!["ASIANOW"]),
        (with_a_role().await, RevokedState::Alive, vec!["ASIANOW"]),
    ] {
        let report = revoke(&world, &Revoke { dry_run: true, ..command("new") }).await;
        assert_eq!((report.outcome, world.changes_and_labels()), (Outcome::WouldRevoke, Vec::new()));
        let expected: Vec<_> = ids.into_iter().map(|id| (id, state)).collect();
        assert_eq!(revoked(&report), expected);
        assert_eq!(report.warnings.len(), usize::from(state == RevokedState::Alive), "{:?}", report.warnings);
    }
}

/// AKIANOW is current, and AKIAPENDING was created so many hours ago.
async fn with_a_rotation_under_way(created: i64) -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.stage_key("pending", "AWSPENDING", "AKIAPENDING", created);
        state.store("AKIANOW");
    })
}

#[tokio::test(start_paused = true)]
async fn new_pending_credentials_become_the_successor_because_another_run_may_be_writing_them() {
    let world = with_a_rotation_under_way(0).await;
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "new pending credentials");
    assert_eq!(report.credential_id.as_deref(), Some("AKIAPENDING"));
    assert_eq!(revoked(&report).iter().map(|(id, _)| *id).collect::<Vec<_>>(), ["AKIANOW"]);
    assert_eq!(world.state().created, 0);
}

#[tokio::test(start_paused = true)]
async fn a_key_of_another_run_that_may_be_writing_it_is_not_ended_before_that_run_has_ended() {
    for (created, is_ended) in [(0, false), (-1, true)] {
        let world = rotated().await.before("PATCH", 1, move |state| state.add_key("AKIAOTHER", created));
        let report = revoke(&world, &command("new")).await;
        assert_eq!(report.outcome, Outcome::Revoked, "{:?}", report.error);
        assert_eq!(world.state().key("AKIAOTHER").is_none(), is_ended);
        assert_eq!(report.warnings.iter().any(|warning| warning.contains("AKIAOTHER")), !is_ended);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_resumes_old_credentials_and_is_overtaken_by_a_revocation_leaves_the_current_ones_in_braintrust() {
    // The revocation comes before the announcement, and between the look after it and the write.
    for (call, nth) in [("UpdateSecretVersionStage", 1), ("PATCH", 1)] {
        let world = with_a_rotation_under_way(-1).await.before(call, nth, move |state| {
            let is_announced = state.version_labelled("RESTORING_").is_some();
            assert_eq!(is_announced, call == "PATCH", "the write is announced");
            state.label("REVOKING_", 0, "pending");
        });
        let overtaken = async {
            let staged = world.staged_run();
            let snapshot = staged.snapshot().await.ok().unwrap();
            let proven = staged.run.prove(snapshot.versions.pending().unwrap(), 1).await.ok().unwrap();
            staged.set_pending("pending", proven, &snapshot.versions).await
        };
        assert_eq!(world.run(overtaken).await.unwrap_err().class, ErrorClass::Conflict, "{call}");
        assert_eq!(world.state().in_braintrust(), ["AKIANOW"], "{call}");
        assert_eq!(world.state().version_labelled("RESTORING_"), None, "{call}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_run_is_writing_is_ended_once_that_run_is_done() {
    for stays in [true, false] {
        let world = World::with_access_keys().await.given(|state| {
            state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
            state.stage_until("pending", "AWSPENDING", "AKIAPENDING", -1, None);
            state.store("AKIANOW");
        });
        // The successor has taken the stage from the version that the other run is writing.
        let world = world.before("PATCH", 1, |state| {
            state.add_key("AKIAPENDING", -1);
            state.label("RESTORING_", 0, "pending");
        });
        let world = world.before("DeleteAccessKey AKIANOW", 1, move |state| {
            if !stays {
                state.versions.get_mut("pending").unwrap().stages.retain(|stage| !stage.starts_with("RESTORING_"));
            }
        });
        let report = revoke(&world, &command("new")).await;
        assert_eq!(world.state().key("AKIAPENDING").is_some(), stays, "{:?}", report.error);
        assert_eq!(report.error.map(|error| error.class), stays.then_some(ErrorClass::Conflict));
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_key_that_another_run_writes_is_replaced_again() {
    let world = rotated().await.before("ListFoundationModels AKIANOW", 1, |state| state.store("AKIANOW"));
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "written again");
}

#[tokio::test(start_paused = true)]
async fn a_label_that_another_run_moves_at_the_same_time_does_not_fail_a_revocation_whose_successor_is_current() {
    let world =
        rotated().await.before("UpdateSecretVersionStage DELETING", 2, |state| state.move_stage("DELETING", None));
    let report = revoke(&world, &command("new")).await;
    assert_ended(&world, &report, "DELETING was moved");
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_session_a_revocation_ends_writes_another_one() {
    let world = World::with_a_role().await.with_revocable_sessions().given(|state| state.store("ASIANOW"));
    let world = world.before("PATCH", 1, |state| state.denied_before = Some(2));
    let rotate = crate::event::Rotate {
        origin: crate::event::Origin::Schedule,
        token: "scheduled".to_owned(),
        targets: Vec::new(),
        dry_run: false,
        force: false,
    };
    let report = world.run(crate::commands::rotate::run(world.target_run(), &rotate)).await;
    assert_eq!(report.outcome, Outcome::Rotated, "{:?}", report.error);
    assert_eq!(world.state().in_braintrust(), ["ASIANEW2"]);
}

#[tokio::test(start_paused = true)]
async fn a_target_for_which_braintrust_assumes_a_role_has_nothing_to_write_and_the_commands_for_its_keys() {
    let world = rotated().await;
    let role = "arn:aws:iam::000000000000:role/x";
    world.state().ai_secrets[0].json["metadata"] =
        serde_json::json!({"auth_type": "assume_role", "role_arn": role, "region": "us-east-1"});
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::Conflict);
    assert!(report.warnings.iter().any(|warning| warning.contains("--access-key-id AKIANOW")), "{:?}", report.warnings);
    assert_eq!(world.changes_and_labels(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn the_successor_is_issued_in_a_later_second_than_the_sessions_that_the_policy_ends() {
    for world in [World::with_a_role().await, World::with_a_staged_role().await] {
        let issued_at = std::sync::Arc::new(std::sync::Mutex::new(None));
        let started_at = tokio::time::Instant::now();
        let world = world.with_revocable_sessions().given(|state| {
            state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
            state.store("ASIANOW");
        });
        let (nth, clock) = (if world.target.secret_id().is_some() { 1 } else { 2 }, issued_at.clone());
        let world = world.before("AssumeRole", nth, move |_| *clock.lock().unwrap() = Some(started_at.elapsed()));
        assert_eq!(revoke(&world, &command("new")).await.outcome, Outcome::Revoked);
        assert!(issued_at.lock().unwrap().unwrap() > Duration::from_secs(1));
    }
}

/// ASIANOW is current. Before that, the target had another kind, and AKIAOLD still works.
async fn with_a_key_of_the_kind_before() -> World {
    World::with_a_staged_role().await.given(|state| {
        state.kind = Kind::AccessKey;
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.kind = Kind::Temporary;
        state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
        state.store("ASIANOW");
    })
}

fn commands(report: &TargetReport) -> Vec<&str> {
    report.revocation.iter().flat_map(|it| &it.remaining).map(|it| it.command.as_str()).collect()
}

const DELETE_OLD: &str = "aws iam delete-access-key --user-name USER --access-key-id AKIAOLD";

#[tokio::test(start_paused = true)]
async fn a_key_of_the_kind_before_is_left_with_the_command_that_deletes_it() {
    let world = with_a_key_of_the_kind_before().await.with_revocable_sessions();
    let report = revoke(&world, &Revoke { dry_run: true, ..command("dry") }).await;
    let would_end = [("ASIANOW", RevokedState::WouldEnd), ("AKIAOLD", RevokedState::Alive)];
    assert_eq!((revoked(&report), commands(&report)), (would_end.to_vec(), vec![DELETE_OLD]));
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.outcome, Outcome::Replaced, "{:?}", report.error);
    assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Dead), ("AKIAOLD", RevokedState::Alive)]);
    assert_eq!(commands(&report), [DELETE_OLD]);
    assert_eq!(world.state().version_labelled("REVOKING_"), None);

    let world = with_a_key_of_the_kind_before().await.with_revocable_sessions().given(|state| state.keys.clear());
    let report = revoke(&world, &command("new")).await;
    assert_eq!((report.outcome, commands(&report).len()), (Outcome::Revoked, 0), "a deleted key: {:?}", report.error);
    assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Dead), ("AKIAOLD", RevokedState::Dead)]);

    let world = with_a_key_of_the_kind_before().await;
    let report = revoke(&world, &command("new")).await;
    assert_eq!((report.outcome, commands(&report).len()), (Outcome::Replaced, 2), "{:?}", report.error);

    let world = with_a_key_of_the_kind_before().await.with_revocable_sessions().always("PATCH", Fault::Status(403));
    let report = revoke(&world, &Revoke { force: true, ..command("new") }).await;
    assert!(report.error.as_ref().unwrap().remedy.contains("were ended"), "{:?}", report.error);
    assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Dead), ("AKIAOLD", RevokedState::Alive)]);
}

#[tokio::test(start_paused = true)]
async fn an_iam_users_target_leaves_what_works_of_the_kind_before_and_proves_that_the_rest_has_expired() {
    for (kind, id, expires, is_left) in [
        (Kind::LongTermApiKey, "ACCAOLD", None, true),
        (Kind::LongTermApiKey, "ACCAOLD", None, false),
        (Kind::Temporary, "ASIAOLD", Some(1), true),
        (Kind::Temporary, "ASIAOLD", Some(-1), false),
    ] {
        let world = World::with_access_keys().await.given(|state| {
            state.kind = kind;
            state.stage_until("old", "AWSCURRENT", id, -2, expires);
            state.kind = Kind::AccessKey;
            state.stage_key("now", "AWSCURRENT", "AKIANOW", -1);
            state.store("AKIANOW");
            if is_left {
                state.still_accepted.insert(id.to_owned());
            } else {
                state.unknown_to_bedrock.insert(id.to_owned());
            }
        });
        let report = revoke(&world, &command("new")).await;
        let (outcome, old) = match is_left {
            true => (Outcome::Replaced, RevokedState::Alive),
            false => (Outcome::Revoked, RevokedState::Dead),
        };
        assert_eq!(report.outcome, outcome, "{kind:?}: {:?}", report.error);
        assert_eq!(revoked(&report), [("AKIANOW", RevokedState::Dead), (id, old)], "{kind:?}");
        assert_eq!(commands(&report).len(), usize::from(is_left), "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_in_braintrust_that_no_policy_ends_is_left_with_the_command_that_deletes_it() {
    for (held, id) in [("AKIAHAND", "AKIAHAND"), ("AKIA1; curl x|sh", "ACCESS_KEY_ID")] {
        let world = World::with_a_role().await.with_revocable_sessions().given(|state| state.store(held));
        let report = revoke(&world, &command("new")).await;
        assert_eq!(report.outcome, Outcome::Replaced, "{:?}", report.error);
        assert_eq!(revoked(&report), [(held, RevokedState::Alive), ("ASIANEW1", RevokedState::Dead)]);
        let expected = format!("aws iam delete-access-key --user-name USER --access-key-id {id}");
        assert_eq!(commands(&report), [expected]);
        assert_eq!(world.state().in_braintrust(), ["ASIANEW2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn no_policy_is_written_if_the_successors_duration_is_not_the_configured_one() {
    let mut world = World::with_a_staged_role().await.with_revocable_sessions().given(|state| {
        state.stage_until("now", "AWSCURRENT", "ASIANOW", 0, Some(1));
        state.store("ASIANOW");
    });
    let Source::RoleBased(source) = &mut world.target.source else { panic!("there is no role") };
    // The sessions of this world expire after an hour.
    source.role.duration_seconds = 900;
    let report = revoke(&world, &command("new")).await;
    assert_eq!((report.outcome, world.count("PutRolePolicy")), (Outcome::Replaced, 0), "{:?}", report.error);
    assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Alive)]);
    let [remaining] = &commands(&report)[..] else { panic!("{:?}", commands(&report)) };
    let issued_at = crate::rotation::test_world::now().to_string();
    assert!(remaining.contains(issued_at.trim_end_matches("0Z")), "{remaining} is not of {issued_at}");
}

#[tokio::test(start_paused = true)]
async fn a_model_that_is_denied_through_braintrust_is_a_warning_once_the_successor_has_arrived() {
    for arrives in [true, false] {
        let world = World::with_a_role().await.with_revocable_sessions().with_the_proof().with_destinations(2);
        let world = world.given(|state| {
            state.store("ASIANOW");
            state.denied_through_braintrust.insert("ASIANEW2".to_owned());
        });
        let world = if arrives { world } else { world.always("PATCH 2", Fault::Status(403)) };
        let report = revoke(&world, &command("new")).await;
        let outcome = if arrives { Outcome::Revoked } else { Outcome::Failed };
        assert_eq!(
            (report.outcome, world.count("PutRolePolicy")),
            (outcome, usize::from(arrives)),
            "{:?}",
            report.error
        );
        if arrives {
            assert_eq!(world.state().in_braintrust(), ["ASIANEW2"; 2]);
            assert!(report.warnings.iter().any(|warning| warning.contains("denied")), "{:?}", report.warnings);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn every_successor_that_has_to_be_replaced_is_proven_dead_too() {
    let world = World::with_a_role().await.with_revocable_sessions().given(|state| state.store("ASIANOW"));
    let world = world.before("PutRolePolicy", 1, |state| state.store("ASIANOW"));
    let report = revoke(&world, &command("new")).await;
    assert_eq!(report.outcome, Outcome::Revoked, "{:?}", report.error);
    let dead = |id| (id, RevokedState::Dead);
    assert_eq!(revoked(&report), [("ASIANOW", RevokedState::Ended), dead("ASIANEW1"), dead("ASIANEW2")]);
    assert_eq!(world.state().in_braintrust(), ["ASIANEW3"]);

    let world = World::with_a_role().await.with_revocable_sessions().given(|state| state.store("ASIANOW"));
    let world = world.before("PutRolePolicy", 1, |state| state.store("ASIANOW")).from("PATCH", 2, Fault::Status(403));
    let error = revoke(&world, &command("new")).await.error.unwrap();
    assert!(error.remedy.contains("were ended"), "the first policy has ended the leaked session: {error}");
}
