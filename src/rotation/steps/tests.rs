//! In a [`World`]: the state that the four steps leave behind when a call fails.

use super::*;
use crate::error::ErrorClass;
use crate::report::{Outcome, TargetReport};
use crate::rotation::test_world::{Fault, State, World};

async fn create(world: &World) -> (Result<String, Error>, TargetReport) {
    let staged = world.staged_run();
    let create = async {
        let snapshot = staged.snapshot().await?;
        staged.create("new", VersionValue::Empty, &snapshot).await
    };
    let result = world.run(create).await.map(|created| staged_id(&created));
    (result, staged.run.progress.finish(Ok(Outcome::StepDone)))
}

fn staged_id(created: &Created) -> String {
    match created {
        Created::Staged(credentials) => credentials.id.clone(),
        Created::NotStaged(credentials, error) => panic!("{} is not staged: {error}", credentials.id),
    }
}

async fn test(world: &World) -> Result<(), Error> {
    let test = async {
        let staged = world.staged_run();
        let snapshot = staged.snapshot().await?;
        let credentials = staged.pending(&snapshot).await?;
        staged.test(credentials).await?
    };
    world.run(test).await
}

async fn verify(world: &World) -> (Result<(), Error>, TargetReport) {
    let staged = world.staged_run();
    let verify = async {
        let snapshot = staged.snapshot().await?;
        staged.verify(staged.pending(&snapshot).await?).await
    };
    let result = world.run(verify).await;
    (result, staged.run.progress.finish(Ok(Outcome::StepDone)))
}

/// AKIANOW is current, and AKIANEW is pending and in Braintrust.
async fn in_a_rotation() -> World {
    World::with_access_keys().await.given(|state| {
        state.stage_key("now", "AWSCURRENT", "AKIANOW", -900);
        state.stage_key("new", "AWSPENDING", "AKIANEW", -100);
        state.store("AKIANEW");
    })
}

#[tokio::test(start_paused = true)]
async fn credentials_are_proven_through_each_destination_if_the_target_asks_for_it() {
    let world = in_a_rotation().await.with_the_proof();
    test(&world).await.unwrap();
    assert_eq!((world.count("COMPLETION number 1"), world.changes()), (1, Vec::new()));
    let world = in_a_rotation().await;
    test(&world).await.unwrap();
    assert_eq!(world.count("COMPLETION"), 0);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_are_denied_through_braintrust_are_replaced_by_the_current_ones() {
    let world = in_a_rotation().await.with_the_proof().given(|state| {
        state.denied_through_braintrust.insert("AKIANEW".to_owned());
    });
    let error = test(&world).await.unwrap_err();
    assert_eq!((error.class, error.service), (ErrorClass::Permission, crate::error::Service::Braintrust));
    assert!(error.remedy.starts_with("Braintrust holds the current credentials again. Allow"), "{}", error.remedy);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
    // The refused ones, an `ai_secret` that doesn't exist, and the restored ones.
    assert_eq!(world.count("COMPLETION"), 3);
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_shows_nothing_leaves_the_new_credentials_and_is_a_warning() {
    for fault in [Fault::Status(404), Fault::Status(500), Fault::Throttled(1), Fault::LostRequest] {
        let world = in_a_rotation().await.with_the_proof().always("COMPLETION", fault);
        let (result, report) = verify(&world).await;
        result.unwrap();
        let warning = "it was not proven that Braintrust can use the credentials in the ai_secret";
        assert!(matches!(&report.warnings[..], [found] if found.starts_with(warning)), "{:?}", report.warnings);
        assert_eq!(world.state().in_braintrust(), ["AKIANEW"]);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_if_another_host_than_bedrocks_would_answer() {
    for (api_base, asked) in [("https://bedrock-runtime.us-east-1.amazonaws.com", 1), ("https://x.example", 0)] {
        let world = in_a_rotation().await.with_the_proof();
        world.state().ai_secrets[0].json["metadata"]["api_base"] = serde_json::json!(api_base);
        let (result, report) = verify(&world).await;
        result.unwrap();
        assert_eq!(world.count("COMPLETION"), asked);
        let is_warned = |text: &str| report.warnings.iter().any(|warning| warning.contains(text));
        for text in ["(\"https://x.example\")", "it was not proven"] {
            assert_eq!(is_warned(text), asked == 0, "{:?}", report.warnings);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_proven_through_a_destination_that_does_not_show_the_credentials() {
    let world = in_a_rotation().await.with_the_proof().given(|state| state.store("AKIANOW"));
    assert_eq!(verify(&world).await.0.unwrap_err().class, ErrorClass::VerificationFailed);
    assert_eq!(world.count("COMPLETION"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_key_is_staged_at_once() {
    let world = World::with_access_keys().await;
    let (created, report) = create(&world).await;
    assert_eq!(created.unwrap(), "AKIANEW1");
    assert_eq!(world.changes(), ["CreateAccessKey", "PutSecretValue new"]);
    assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIANEW1");
    assert_eq!(report.credential_id.unwrap(), "AKIANEW1");
}

#[tokio::test(start_paused = true)]
async fn a_value_that_the_version_holds_is_kept_and_a_foreign_one_is_refused() {
    let world = in_a_rotation().await;
    let keep = async {
        let staged = world.staged_run();
        let mut snapshot = staged.snapshot().await.ok().unwrap();
        let pending = snapshot.versions.pending.take().unwrap();
        let kept = staged.create("new", pending.value, &snapshot).await.ok().unwrap();
        let foreign = staged.create("new", VersionValue::Foreign, &snapshot).await;
        (staged_id(&kept), foreign.err().unwrap().class)
    };
    assert_eq!(world.run(keep).await, ("AKIANEW".to_owned(), ErrorClass::Conflict));
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_key_that_is_known_not_to_be_staged_is_deleted() {
    for fault in [Fault::Code("AccessDeniedException"), Fault::LostRequest] {
        let world = World::with_access_keys().await.always("PutSecretValue", fault);
        let (created, report) = create(&world).await;
        assert_eq!(created.unwrap_err().service, crate::error::Service::SecretsManager);
        assert_eq!(world.state().keys, []);
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_may_be_staged_is_not_deleted() {
    let world = World::with_access_keys().await.always("PutSecretValue", Fault::LostResponse);
    let world = world.always("GetSecretValue", Fault::Status(500));
    let (created, report) = create(&world).await;
    assert_eq!(created.unwrap_err().class, ErrorClass::Unavailable);
    assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIANEW1");
    assert_eq!(world.state().key_ids(), ["AKIANEW1"]);
    assert_eq!(
        report.warnings,
        ["it is unknown whether AKIANEW1 is staged. A later run resumes with it or retires it"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_key_is_staged_even_if_every_response_was_lost() {
    for world in [
        World::with_access_keys().await.once("PutSecretValue", Fault::LostResponse),
        World::with_access_keys().await.always("PutSecretValue", Fault::LostResponse),
    ] {
        assert_eq!(create(&world).await.0.unwrap(), "AKIANEW1");
        assert_eq!(world.state().key_ids(), ["AKIANEW1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_that_can_be_neither_staged_nor_deleted_is_warned_of() {
    let world = World::with_access_keys().await.always("PutSecretValue", Fault::LostRequest);
    let (created, report) = create(&world.always("DeleteAccessKey", Fault::Code("AccessDenied"))).await;
    assert_eq!(created.unwrap_err().service, crate::error::Service::SecretsManager);
    assert_eq!(report.warnings, ["AKIANEW1 could be neither staged nor deleted. A later run retires it"]);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_all_destinations_show_pass_the_test() {
    let world = in_a_rotation().await;
    test(&world).await.unwrap();
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn the_current_credentials_are_restored_where_the_pending_ones_do_not_pass_the_test() {
    let world = in_a_rotation().await.with_destinations(2);
    world.state().store_in(0, "AKIANEW");
    let error = test(&world).await.unwrap_err();
    assert_eq!(error.class, ErrorClass::VerificationFailed);
    assert!(error.remedy.starts_with("Braintrust holds the current credentials again"), "{error}");
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"; 2]);
    assert_eq!(world.state().staged("AWSPENDING").unwrap(), "AKIANEW", "for the retry");
}

#[tokio::test(start_paused = true)]
async fn a_failed_test_says_if_the_current_credentials_could_not_be_restored() {
    let world = in_a_rotation().await.always("PATCH", Fault::Status(403));
    world.state().store("AKIAOTHER");
    let error = test(&world).await.unwrap_err();
    assert!(error.remedy.starts_with("The current credentials could not be restored"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_response_that_does_not_arrive_proves_nothing_and_nothing_is_restored() {
    let mut unread = in_a_rotation().await;
    for _ in 0..5 {
        unread = unread.once("GET 1", Fault::Status(500));
    }
    // The current credentials could be proven and written.
    for world in [unread, in_a_rotation().await.always("ListFoundationModels AKIANEW", Fault::Status(500))] {
        assert!(test(&world).await.unwrap_err().is_transient());
        assert_eq!(world.changes(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn awscurrent_moves_only_from_the_version_that_was_current_when_the_run_began() {
    for is_moved in [false, true] {
        let promote = move |state: &mut State| {
            if is_moved {
                state.stage_existing("other", "AWSCURRENT", "AKIAOTHER");
            }
        };
        let world = in_a_rotation().await.before("UpdateSecretVersionStage", 1, promote);
        let finish = async {
            let staged = world.staged_run();
            let snapshot = staged.snapshot().await?;
            staged.finish("new", &snapshot.versions).await
        };
        assert_eq!(world.run(finish).await.is_err(), is_moved);
        let current = world.state().staged("AWSCURRENT").unwrap();
        assert_eq!(current, if is_moved { "AKIAOTHER" } else { "AKIANEW" });
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_without_pending_credentials_or_with_foreign_ones_changes_nothing() {
    for (text, problem) in [(None, "holds no value"), (Some("somebody's".to_owned()), "did not write")] {
        let world = in_a_rotation().await;
        world.state().versions.get_mut("new").unwrap().text = text;
        let error = test(&world).await.unwrap_err();
        assert!(error.class == ErrorClass::Conflict && error.problem.contains(problem), "{error}");
        assert_eq!(world.changes(), [""; 0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_abandons_pending_credentials_that_are_dead() {
    let world = in_a_rotation().await;
    world.state().deactivate("AKIANEW");
    let error = test(&world).await.unwrap_err();
    assert!(error.problem.contains("and the current credentials were restored"), "{error}");
    assert_eq!(world.state().staged("AWSPENDING"), None);
    assert_eq!(world.state().in_braintrust(), ["AKIANOW"]);
}
