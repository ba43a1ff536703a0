//! In a [`World`]: what becomes of the IAM user's keys, and of what Braintrust holds.

use super::*;
use crate::aws::staged_value::VersionValue;
use crate::error::ErrorClass;
use crate::report::{Outcome, TargetReport};
use crate::rotation::test_world::{Fault, State, World};

/// The overlap is over: AKIANOW has been current for a hundred hours, and AKIAOLD was current before.
async fn after_the_overlap() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIANOW");
    })
}

/// AKIANOW has been current since `since`, and an interrupted rotation left AKIALOST.
async fn with_an_orphaned_key(since: i64) -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", since);
        state.add_key("AKIALOST", -50);
        state.store("AKIANOW");
    })
}

async fn retire(world: &World) -> (Result<(), Error>, TargetReport) {
    let staged = world.staged_run();
    let retire = async {
        let snapshot = staged.snapshot().await?;
        staged.retire(&snapshot).await
    };
    let result = world.run(retire).await;
    (result, staged.run.progress.finish(Ok(Outcome::NotDue)))
}

async fn create_key(world: &World) -> Result<String, Error> {
    let create = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await?;
        staged.create_key(world.target.user_based().unwrap(), "new", &snapshot).await
    };
    world.run(create).await.map(|created| created.id)
}

async fn restore_current(world: &World) -> Result<(), Error> {
    world.run(async { world.staged_run().restore_current().await }).await
}

fn class<T>(result: Result<T, Error>) -> ErrorClass {
    result.err().expect("it fails").class
}

fn position(calls: &[String], call: &str) -> usize {
    calls.iter().position(|made| made == call).unwrap_or_else(|| panic!("{call} is not in {calls:?}"))
}

// Retirement

#[tokio::test(start_paused = true)]
async fn the_previous_key_is_deactivated_after_the_overlap_and_deleted_one_run_later() {
    let world = after_the_overlap().await;
    for (expected, how) in [
        (vec!["UpdateAccessKey AKIAOLD Inactive"], vec![report::KeyChange::Deactivated]),
        (vec!["DeleteAccessKey AKIAOLD"], vec![report::KeyChange::Deleted]),
        (vec![], vec![]),
    ] {
        let (result, report) = retire(&world).await;
        result.unwrap();
        assert_eq!(world.changes(), expected);
        let retired: Vec<_> = report.retired.iter().map(|retired| format!("{:?}", retired.how)).collect();
        assert_eq!(retired, how.iter().map(|how| format!("{how:?}")).collect::<Vec<_>>());
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        world.take_calls();
        world.state().end_the_overlap();
    }
    assert_eq!(world.state().key_ids(), ["AKIANOW"]);
}

#[tokio::test(start_paused = true)]
async fn the_previous_key_is_kept_during_the_overlap() {
    let world = World::with_access_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "AKIAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", 0);
        state.store("AKIANOW");
    });
    retire(&world).await.0.unwrap();
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_braintrust_holds_is_replaced_there_first_and_deactivated_only_by_a_later_run() {
    for is_previous in [true, false] {
        let world = if is_previous { after_the_overlap().await } else { with_an_orphaned_key(-100).await };
        let id = if is_previous { "AKIAOLD" } else { "AKIALOST" };
        world.state().store(id);
        let (result, report) = retire(&world).await;
        result.unwrap();
        assert_eq!(world.changes(), ["PATCH 1"], "{id}");
        assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
        assert!(report.retired.is_empty());
        assert_eq!(report.warnings, [format!("Braintrust held {id}. This run restored the current credentials")]);
        world.take_calls();
        world.state().end_the_overlap();
        retire(&world).await.0.unwrap();
        assert_eq!(world.changes(), [format!("UpdateAccessKey {id} Inactive")]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_api_key_that_braintrust_may_hold_is_replaced_there_before_it_is_deactivated() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("old", "AWSCURRENT", "ACCAOLD", -900);
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -100);
        state.store("ACCAOLD");
    });
    retire(&world).await.0.unwrap();
    assert_eq!(world.changes(), ["PATCH 1", "UpdateServiceSpecificCredential ACCAOLD Inactive"]);
    assert_eq!(world.state().in_braintrust(), ["ACCANOW"]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_one_of_several_ai_secrets_holds_counts_as_held() {
    let world = after_the_overlap().await.with_destinations(3);
    world.state().store("AKIANOW");
    world.state().store_in(1, "AKIAOLD");
    retire(&world).await.0.unwrap();
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"; 3]);
    assert!(world.state().is_active("AKIAOLD"));
}

#[tokio::test(start_paused = true)]
async fn no_key_is_retired_while_a_destination_cannot_be_read() {
    let world = after_the_overlap().await.with_destinations(2).always("GET 2", Fault::Status(403));
    assert_eq!(class(retire(&world).await.0), ErrorClass::Permission);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_key_is_replaced_in_braintrust_during_the_overlap_and_stays() {
    let world = with_an_orphaned_key(0).await;
    world.state().store("AKIALOST");
    for expected in [vec!["PATCH 1"], vec![]] {
        let (result, report) = retire(&world).await;
        result.unwrap();
        assert_eq!(world.changes(), expected);
        assert_eq!(report.warnings.len(), expected.len());
        world.take_calls();
    }
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    assert!(world.state().is_active("AKIALOST"));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_somebody_else_created_is_never_retired() {
    let world = World::with_access_keys().await.given(|state| {
        state.add_key("AKIAFOREIGN", -2_000);
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.store("AKIAFOREIGN");
    });
    retire(&world).await.0.unwrap();
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_run_stages_meanwhile_is_not_touched() {
    for is_active in [true, false] {
        let world = with_an_orphaned_key(-100).await;
        if !is_active {
            world.state().deactivate("AKIALOST");
        }
        let stage = |state: &mut State| {
            state.stage_existing("new", "AWSPENDING", "AKIALOST");
        };
        let world = world.before("DescribeSecret", 2, stage);
        assert_eq!(class(retire(&world).await.0), ErrorClass::Conflict);
        assert_eq!(world.changes(), [""; 0], "active: {is_active}");
    }
}

#[tokio::test(start_paused = true)]
async fn braintrust_gets_what_another_run_makes_current_meanwhile() {
    for (id, is_active) in [("AKIALOST", true), ("AKIALOST", false), ("AKIAOTHER", true), ("AKIAOTHER", false)] {
        let world = with_an_orphaned_key(-100).await;
        if !is_active {
            world.state().deactivate("AKIALOST");
        }
        let promote = move |state: &mut State| {
            match state.key(id) {
                Some(_) => state.keys.iter_mut().for_each(|key| key.active = true),
                None => state.add_key(id, -1),
            }
            state.stage_existing("new", "AWSCURRENT", id);
        };
        let world = world.before("DescribeSecret", 2, promote);
        assert_eq!(class(retire(&world).await.0), ErrorClass::Conflict);
        assert_eq!(world.changes(), ["PATCH 1"], "{id}, active: {is_active}");
        assert_eq!(world.state().in_braintrust(), [id]);
    }
}

#[tokio::test(start_paused = true)]
async fn current_credentials_that_are_dead_are_not_restored() {
    let world = after_the_overlap().await;
    world.state().store("AKIAOLD");
    world.state().unknown_to_bedrock.insert("AKIANOW".to_owned());
    assert_eq!(retire(&world).await.0.unwrap_err().service, Service::Bedrock);
    assert_eq!(world.changes(), [""; 0]);
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_and_a_deactivation_read_the_stages_again_before_them() {
    for is_active in [true, false] {
        let world = after_the_overlap().await;
        if !is_active {
            world.state().deactivate("AKIAOLD");
        }
        retire(&world).await.0.unwrap();
        let calls = world.calls();
        assert_eq!(world.count("DescribeSecret"), 2, "{calls:?}");
        let last: Vec<_> = calls[calls.len() - 4..].iter().map(String::as_str).collect();
        let change = if is_active { "UpdateAccessKey AKIAOLD Inactive" } else { "DeleteAccessKey AKIAOLD" };
        assert_eq!((last[0], last[3]), ("DescribeSecret", change));
    }
}

#[tokio::test(start_paused = true)]
async fn a_role_based_target_has_no_key_to_retire() {
    let world = World::with_a_staged_role().await.given(|state| state.add_key("AKIALOST", -50));
    retire(&world).await.0.unwrap();
    assert_eq!(world.calls(), ["DescribeSecret"]);
}

// A free slot

#[tokio::test(start_paused = true)]
async fn no_key_makes_room_if_a_slot_is_free() {
    let world = World::with_access_keys().await.given(|state| state.add_key("AKIALOST", -50));
    assert_eq!(create_key(&world).await.unwrap(), "AKIANEW1");
    assert_eq!(world.changes(), ["CreateAccessKey"]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_key_that_braintrust_does_not_hold_makes_room() {
    let world = with_an_orphaned_key(-100).await;
    create_key(&world).await.unwrap();
    assert_eq!(world.changes(), ["DeleteAccessKey AKIALOST", "CreateAccessKey"]);
    let calls = world.calls();
    assert!(position(&calls, "GET 1") < position(&calls, "DeleteAccessKey AKIALOST"), "{calls:?}");
    assert_eq!(world.count("DescribeSecret"), 2, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_key_that_braintrust_holds_is_replaced_there_and_makes_room_only_in_a_later_run() {
    let world = with_an_orphaned_key(-100).await;
    world.state().store("AKIALOST");
    let error = create_key(&world).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::Conflict);
    assert!(error.problem.contains("Braintrust held AKIALOST until this run"), "{error}");
    assert_eq!(world.changes(), ["PATCH 1"]);
    world.take_calls();
    world.state().end_the_overlap();
    create_key(&world).await.unwrap();
    assert_eq!(world.changes(), ["DeleteAccessKey AKIALOST", "CreateAccessKey"]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_key_does_not_make_room_during_the_overlap() {
    let world = with_an_orphaned_key(0).await;
    assert_eq!(class(create_key(&world).await), ErrorClass::Conflict);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_key_makes_room_for_dead_current_credentials_even_during_the_overlap() {
    let world = with_an_orphaned_key(0).await;
    world.state().deactivate("AKIANOW");
    create_key(&world).await.unwrap();
    assert_eq!(world.changes(), ["DeleteAccessKey AKIALOST", "CreateAccessKey"]);
}

#[tokio::test(start_paused = true)]
async fn dead_current_credentials_do_not_replace_a_key_that_braintrust_holds_and_it_stays() {
    let world = with_an_orphaned_key(-100).await;
    world.state().deactivate("AKIANOW");
    world.state().store("AKIALOST");
    let error = create_key(&world).await.unwrap_err();
    assert!(error.problem.contains("Braintrust holds AKIALOST"), "{error}");
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_orphaned_api_key_that_braintrust_may_hold_makes_room_after_the_current_one_was_restored() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -150);
        state.add_key("ACCALOST", -120);
        state.store("ACCALOST");
    });
    create_key(&world).await.unwrap();
    let expected = ["PATCH 1", "DeleteServiceSpecificCredential ACCALOST", "CreateServiceSpecificCredential"];
    assert_eq!(world.changes(), expected);
    assert_eq!(world.state().in_braintrust(), ["ACCANOW"]);
}

#[tokio::test(start_paused = true)]
async fn with_dead_current_credentials_an_api_key_that_braintrust_may_hold_makes_room_and_nothing_is_written() {
    let world = World::with_api_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "ACCANOW", -150);
        state.deactivate("ACCANOW");
        state.add_key("ACCALOST", -120);
        state.store("ACCALOST");
    });
    create_key(&world).await.unwrap();
    let expected = ["DeleteServiceSpecificCredential ACCALOST", "CreateServiceSpecificCredential"];
    assert_eq!(world.changes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_run_stages_meanwhile_does_not_make_room() {
    let stage = |state: &mut State| {
        state.stage_existing("new", "AWSPENDING", "AKIALOST");
    };
    let world = with_an_orphaned_key(-100).await.before("DescribeSecret", 2, stage);
    assert_eq!(class(create_key(&world).await), ErrorClass::Conflict);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn lost_responses_to_the_creation_of_a_key_leave_exactly_one_new_key() {
    for others in [0, 1] {
        for lost in [1, 3] {
            let mut world = World::with_access_keys().await.given(|state| {
                state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
                if others == 1 {
                    state.stage_key("new", "AWSCURRENT", "AKIANEWER", -100);
                    state.keys.remove(0);
                }
                state.store("AKIANOW");
            });
            for _ in 0..lost {
                world = world.once("CreateAccessKey", Fault::LostResponse);
            }
            let created = create_key(&world).await.unwrap();
            let kept = world.state().staged("AWSCURRENT").unwrap();
            assert_eq!(world.state().key_ids(), [kept.as_str(), created.as_str()], "{lost} lost");
            assert_eq!(world.count("CreateAccessKey"), lost + 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_another_run_has_just_staged_does_not_make_room() {
    let world = World::with_access_keys().await.once("CreateAccessKey", Fault::LostRequest).given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
        state.store("AKIANOW");
    });
    let world = world.before("ListAccessKeys", 2, |state| state.add_key("AKIAOTHER", 0));
    let world = world.before("DescribeSecret", 3, |state| state.stage_existing("other", "AWSPENDING", "AKIAOTHER"));
    assert_eq!(create_key(&world).await.unwrap_err().class, ErrorClass::Conflict);
    assert_eq!(world.state().key_ids(), ["AKIANOW", "AKIAOTHER"]);
}

#[tokio::test(start_paused = true)]
async fn creating_a_key_is_repeated_without_a_deletion_if_no_key_was_created() {
    let world = World::with_access_keys().await.once("CreateAccessKey", Fault::LostRequest);
    assert_eq!(create_key(&world).await.unwrap(), "AKIANEW1");
    assert_eq!(world.changes(), ["CreateAccessKey"; 2]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_creation_is_not_repeated() {
    let world = World::with_access_keys().await.always("CreateAccessKey", Fault::Code("AccessDenied"));
    assert_eq!(class(create_key(&world).await), ErrorClass::Permission);
    assert_eq!(world.count("CreateAccessKey"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_always_fails_is_tried_five_times_in_all() {
    let world = with_an_orphaned_key(-100).await.always("DeleteAccessKey", Fault::Status(500));
    assert_eq!(class(create_key(&world).await), ErrorClass::Unavailable);
    assert_eq!(world.count("DeleteAccessKey"), 5);
    assert_eq!(world.count("CreateAccessKey"), 0);
}

#[tokio::test(start_paused = true)]
async fn no_key_makes_room_while_a_destination_cannot_be_read() {
    let world = with_an_orphaned_key(-100).await.always("GET 1", Fault::Status(500));
    assert_eq!(class(create_key(&world).await), ErrorClass::Unavailable);
    assert_eq!((world.changes().len(), world.count("GET 1")), (0, 5));
}

// The current credentials

#[tokio::test(start_paused = true)]
async fn current_credentials_are_proven_before_they_are_restored_to_all_destinations() {
    let world = after_the_overlap().await.with_destinations(2);
    world.state().store("AKIAOLD");
    restore_current(&world).await.unwrap();
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"; 2]);
    let calls = world.calls();
    assert!(position(&calls, "ListFoundationModels AKIANOW") < position(&calls, "PATCH 1"), "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_restored_if_bedrock_refuses_the_current_credentials() {
    for code in ["UnrecognizedClientException", "AccessDeniedException"] {
        let world = after_the_overlap().await.always("ListFoundationModels", Fault::Code(code));
        world.state().store("AKIAOLD");
        assert_eq!(restore_current(&world).await.unwrap_err().service, Service::Bedrock);
        assert_eq!(world.changes(), [""; 0], "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn expired_credentials_are_not_restored() {
    let world = World::with_a_staged_role().await;
    world.state().stage_until("now", "AWSCURRENT", "ASIANOW", -1, Some(0));
    let error = restore_current(&world).await.unwrap_err();
    assert!(error.problem.contains("the current credentials have expired"), "{error}");
    assert_eq!((world.changes().len(), world.count("ListFoundationModels")), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_restored_where_nothing_is_current() {
    let error = restore_current(&World::with_access_keys().await).await.unwrap_err();
    assert!(error.problem.contains("AWSCURRENT holds no credentials"), "{error}");
}

// A pending version with dead credentials

async fn abandon(world: &World) -> Error {
    let abandon = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await.ok().unwrap();
        let pending = snapshot.versions.pending.as_ref().unwrap();
        assert!(matches!(pending.value, VersionValue::Credentials(_)));
        staged.abandon_pending(&pending.id, &snapshot, "Wait").await
    };
    world.run(abandon).await
}

/// Braintrust holds AKIADEAD, which is pending and not in IAM.
async fn with_dead_pending_credentials() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -100);
        state.stage_existing("new", "AWSPENDING", "AKIADEAD");
        state.store("AKIADEAD");
    })
}

#[tokio::test(start_paused = true)]
async fn the_current_credentials_are_restored_before_a_dead_pending_version_is_abandoned() {
    let world = with_dead_pending_credentials().await;
    let error = abandon(&world).await;
    assert!(error.problem.contains("the current credentials were restored"), "{error}");
    assert_eq!(world.changes(), ["PATCH 1", "UpdateSecretVersionStage AWSPENDING"]);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_pending_version_stays_while_braintrust_fails() {
    for status in [403, 500] {
        let world = with_dead_pending_credentials().await.always("PATCH", Fault::Status(status));
        assert_eq!(abandon(&world).await.service, Service::Braintrust);
        assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIADEAD", "{status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_pending_version_is_abandoned_if_the_current_credentials_are_dead_too() {
    let world = with_dead_pending_credentials().await.given(|state| state.deactivate("AKIANOW"));
    let error = abandon(&world).await;
    assert!(!error.problem.contains("restored"), "{error}");
    assert_eq!(world.changes(), ["UpdateSecretVersionStage AWSPENDING"]);
}

#[tokio::test(start_paused = true)]
async fn a_dead_pending_version_stays_while_the_current_credentials_cannot_be_proven() {
    let world = with_dead_pending_credentials().await;
    let world = world.always("ListFoundationModels", Fault::Code("AccessDeniedException"));
    assert_eq!(abandon(&world).await.service, Service::Bedrock);
    assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIADEAD");
}
