//! The restoration of the current credentials in a [`World`], alone and beside other runs.

use super::*;
use crate::rotation::test_world::{Fault, State, World};

/// AKIANOW is current, AKIAOLD was current before, and Braintrust holds AKIAOLD.
async fn out_of_step() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIAOLD");
    })
}

async fn restore(world: &World) -> Result<(), Error> {
    world.run(async { world.staged_run().restore_current().await }).await
}

async fn reconcile(world: &World) -> Result<bool, Error> {
    let reconcile = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await?;
        staged.reconcile(&snapshot).await.map(|found| found == Comparison::OutOfStep)
    };
    world.run(reconcile).await
}

#[tokio::test(start_paused = true)]
async fn the_version_is_labelled_while_its_credentials_are_written() {
    let world = out_of_step().await;
    restore(&world).await.unwrap();
    let expected = [
        "UpdateSecretVersionStage RESTORING_now now",
        "PATCH 1",
        "UpdateSecretVersionStage RESTORED_now now",
        "UpdateSecretVersionStage RESTORING_now",
    ];
    assert_eq!(world.changes_without_times(), expected);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_fails_leaves_the_label_and_the_next_reconciliation_completes_it() {
    let world = out_of_step().await.always("PATCH", Fault::Status(500));
    restore(&world).await.unwrap_err();
    assert_eq!(world.state().version_labelled("RESTORING_").unwrap(), "now");
    world.settle();
    // The label alone leads to the repair, whatever Braintrust shows.
    world.state().store("AKIANOW");
    assert!(reconcile(&world).await.unwrap());
    assert_eq!(world.state().version_labelled("RESTORING_").unwrap(), "now", "the run that set it may be under way");
    world.state().end_the_overlap();
    assert!(reconcile(&world).await.unwrap());
    assert_eq!(world.state().version_labelled("RESTORING_"), None);
    assert!(!reconcile(&world).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_become_current_meanwhile_are_the_ones_that_braintrust_gets() {
    for calls_before in 2..=3 {
        let promote = |state: &mut State| state.stage_key("new", "AWSCURRENT", "AKIANEW", 0);
        let world = out_of_step().await.before("DescribeSecret", calls_before, promote);
        restore(&world).await.unwrap();
        assert_eq!(world.state().in_braintrust(), ["AKIANEW"], "before call {calls_before}");
        assert_eq!(world.state().version_labelled("RESTORING_"), None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_an_interrupted_run_may_have_written_is_replaced_once_that_run_has_ended() {
    for (hours, is_repaired) in [(0, false), (-1, true)] {
        let world = out_of_step().await.given(|state| {
            state.store("AKIANOW");
            state.label("RESTORING_", hours, "old");
        });
        assert_eq!(reconcile(&world).await.unwrap(), is_repaired);
        assert_eq!(world.state().version_labelled("RESTORING_").is_none(), is_repaired);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_differs_from_the_current_credentials_is_repaired_once() {
    let overwrite: [fn(&mut State); 4] = [
        |state| state.store("AKIAOTHER"),
        |state| state.ai_secrets[0].json["metadata"]["region"] = "eu-west-1".into(),
        |state| state.ai_secrets[0].json["metadata"]["auth_type"] = "api_key".into(),
        |state| {
            state.ai_secrets[0].secret = "somebody else's".to_owned();
            state.ai_secrets[0].json["secret_updated_at"] = "2026-01-15T11:00:00Z".into();
        },
    ];
    for (case, change) in overwrite.into_iter().enumerate() {
        let world = out_of_step().await.given(|state| {
            state.store("AKIANOW");
            state.label("PROMOTED_", -100, "now");
        });
        let world = world.given(change);
        assert!(reconcile(&world).await.unwrap(), "{case}");
        assert_eq!(world.state().in_braintrust(), ["AKIANOW"], "{case}");
        assert!(!reconcile(&world).await.unwrap(), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_key_that_was_overwritten_is_repaired_once() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -100);
        state.store("ACCANOW");
        state.store("ACCAOTHER");
        state.ai_secrets[0].json["secret_updated_at"] = "2026-01-15T11:00:00Z".into();
    });
    assert!(reconcile(&world).await.unwrap());
    assert_eq!(world.state().in_braintrust(), ["ACCANOW"]);
    assert!(!reconcile(&world).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_loses_its_version_writes_back_what_is_current_and_ends_no_key() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("winner", "AWSCURRENT", "AKIAWINNER", -1);
        state.stage_key("loser", "AWSPENDING", "AKIALOSER", 0);
        state.store("AKIALOSER");
    });
    let give_way = async {
        let staged = world.staged_run();
        staged.give_way("loser", staged.conflict("another run has moved AWSCURRENT", "See its report")).await
    };
    let lost = world.run(give_way).await;
    assert!(lost.remedy.starts_with("Braintrust holds the current credentials again"), "{lost}");
    assert_eq!(world.state().in_braintrust(), ["AKIAWINNER"]);
    assert_eq!(world.state().version_with("AWSPENDING"), None);
    assert!(world.state().is_active("AKIALOSER"), "a gateway may have cached it");
}

#[tokio::test(start_paused = true)]
async fn labels_of_interrupted_restorations_do_not_pile_up() {
    let world = out_of_step().await.always("PATCH", Fault::Status(403));
    for _ in 0..25 {
        reconcile(&world).await.unwrap_err();
        tokio::time::advance(std::time::Duration::from_secs(3_600)).await;
    }
    world.settle();
    assert!(reconcile(&world).await.unwrap());
    assert_eq!(world.state().version_labelled("RESTORING_"), None);
}

#[tokio::test(start_paused = true)]
async fn a_patch_of_which_only_the_metadata_was_carried_out_is_sent_again() {
    let world = out_of_step().await.once("PATCH", Fault::OnlyField("metadata"));
    restore(&world).await.unwrap();
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    assert_eq!(world.count("PATCH"), 2);
}

#[tokio::test(start_paused = true)]
async fn the_label_stays_until_what_became_current_is_written() {
    let promote = |state: &mut State| {
        state.stage_key("new", "AWSCURRENT", "ACCANEW", 0);
        state.label("PROMOTED_", 0, "new");
        state.store("ACCANEW");
    };
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "ACCAOLD", -200);
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -100);
        state.store("ACCAOLD");
    });
    let refusal = Fault::Code("AccessDeniedException");
    let world = world.before("PATCH", 1, promote).always("ListFoundationModels ACCANEW", refusal);
    restore(&world).await.unwrap_err();
    world.settle();
    tokio::time::advance(std::time::Duration::from_secs(1_200)).await;
    assert!(reconcile(&world).await.unwrap());
    assert_eq!(world.state().in_braintrust(), ["ACCANEW"]);
}

#[tokio::test(start_paused = true)]
async fn two_restorations_in_one_second_are_both_remembered() {
    let world = out_of_step().await;
    restore(&world).await.unwrap();
    restore(&world).await.unwrap();
    assert_eq!(world.state().version_labelled("RESTORED_").unwrap(), "now");
}
