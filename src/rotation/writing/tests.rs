//! In a [`World`]: destinations are written side by side, and a write counts only if it shows.
//!
//! That nothing unproven is written needs no test: `write_all` takes a [`Proven`], which only the probe makes.

use serde_json::json;
use tokio::time::Instant;

use super::*;
use crate::credentials::Secret;
use crate::rotation::destinations::all_succeeded;
use crate::rotation::test_world::{Fault, State, World, now};

fn credentials() -> Credentials {
    let secret = Secret::AccessKey { secret_access_key: "secret-of-AKIANEW".into() };
    Credentials { id: "AKIANEW".to_owned(), created_at: now(), expires_at: None, secret }
}

const PATCH: &str = "PATCH /v1/ai_secret/{id}";

async fn with_old_credentials(destinations: u128) -> World {
    World::with_access_keys().await.with_destinations(destinations).given(|state| state.store("AKIAOLD"))
}

/// Writes to all destinations, `pause` after they were read.
async fn write_after(world: &World, pause: Duration) -> Vec<DestinationReport> {
    let write = async {
        let run = world.target_run();
        let readings = run.read_destinations().await;
        tokio::time::advance(pause).await;
        let fallback = if world.target.secret_id().is_some() { Fallback::Restore } else { Fallback::Complete };
        run.write_all(&readings, Proven::assume(&credentials()), fallback).await
    };
    world.run(write).await
}

async fn write(world: &World) -> Vec<DestinationReport> {
    write_after(world, Duration::ZERO).await
}

/// The error of the only destination, and what that holds.
async fn failure(world: &World) -> (Error, String) {
    let [DestinationReport { updated: false, error: Some(error), .. }] = &write(world).await[..] else {
        panic!("it does not fail")
    };
    (error.clone(), world.state().in_braintrust()[0].to_owned())
}

#[tokio::test(start_paused = true)]
async fn all_destinations_are_written_side_by_side() {
    let world = with_old_credentials(3).await;
    let reports = write(&world).await;
    assert!(reports.iter().all(|report| report.updated && report.error.is_none()));
    assert_eq!(world.state().in_braintrust(), ["AKIANEW"; 3]);
    assert_eq!(world.calls().len(), 1 + 3 + 3, "the API key, and a GET and a PATCH for each: {:?}", world.calls());
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_fails_neither_stops_nor_delays_the_others() {
    for status in [403, 500] {
        let world = with_old_credentials(3).await.always("PATCH 1", Fault::Status(status));
        let reports = write(&world).await;
        assert_eq!(reports.iter().map(|report| report.updated).collect::<Vec<_>>(), [false, true, true]);
        assert_eq!(world.state().in_braintrust(), ["AKIAOLD", "AKIANEW", "AKIANEW"]);
        assert!(all_succeeded(&reports).is_err());
        let patches: Vec<_> = world.changes();
        let first_three: std::collections::BTreeSet<_> = patches[..3].iter().map(String::as_str).collect();
        assert_eq!(first_three.len(), 3, "{patches:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_destination_that_cannot_be_read_keeps_its_error_and_the_others_are_written() {
    let world = with_old_credentials(2).await.always("GET 1", Fault::Status(404));
    let reports = write(&world).await;
    assert_eq!(reports[0].error.as_ref().unwrap().class, ErrorClass::NotFound);
    assert_eq!(world.state().in_braintrust(), ["AKIAOLD", "AKIANEW"]);
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_arrived_counts_as_written_even_if_every_response_was_lost() {
    for world in [
        with_old_credentials(1).await.once("PATCH", Fault::LostResponse),
        with_old_credentials(1).await.always("PATCH", Fault::LostResponse),
    ] {
        assert!(write(&world).await[0].updated);
        assert_eq!(world.state().in_braintrust(), ["AKIANEW"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_never_arrived_fails_with_its_own_error() {
    let world = with_old_credentials(1).await.always("PATCH", Fault::LostRequest);
    let (error, held) = failure(&world).await;
    assert_eq!((error.class, error.call, held.as_str()), (ErrorClass::Unavailable, PATCH, "AKIAOLD"));
    assert_eq!((world.count("PATCH"), world.calls().last().unwrap().as_str()), (5, "GET 1"));
}

#[tokio::test(start_paused = true)]
async fn a_lost_patch_fails_with_its_own_error_if_the_ai_secret_cannot_be_read_either() {
    // Braintrust asks for a wait that the deadline doesn't allow, so that there is one PATCH.
    let world = with_old_credentials(1).await.always("PATCH", Fault::Throttled(1_000));
    let world = world.from("GET 1", 2, Fault::Status(403));
    let (error, _) = failure(&world).await;
    assert_eq!((error.class, error.call), (ErrorClass::Throttled, PATCH));
    assert_eq!((world.count("PATCH"), world.count("GET 1")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_refused_patch_is_neither_repeated_nor_read_back() {
    let world = with_old_credentials(1).await.always("PATCH", Fault::Status(403));
    assert_eq!(failure(&world).await.0.class, ErrorClass::Permission);
    assert_eq!((world.count("PATCH"), world.count("GET 1")), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_shows_something_else_is_read_once_more_and_then_fails_the_verification() {
    let world = with_old_credentials(1).await.always("PATCH", Fault::Ignored);
    assert_eq!(failure(&world).await.0.class, ErrorClass::VerificationFailed);
    assert_eq!((world.count("PATCH"), world.count("GET 1")), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn a_response_that_is_merely_late_counts_after_it_was_read_once_more() {
    let world = with_old_credentials(1).await.always("PATCH", Fault::StaleResponse);
    assert!(write(&world).await[0].updated);
    assert_eq!((world.count("PATCH"), world.count("GET 1")), (1, 2));
}

async fn of_a_role(destinations: u128) -> World {
    World::with_a_role().await.with_destinations(destinations).given(|state| state.store("ASIAOLD"))
}

#[tokio::test(start_paused = true)]
async fn a_mixture_is_patched_once_more_and_then_fails_as_one_if_the_target_is_staged() {
    for field in ["secret", "metadata"] {
        let world = with_old_credentials(1).await.once("PATCH", Fault::OnlyField(field));
        let report = &write(&world).await[0];
        assert!(report.updated && !report.is_mixed, "{field}");
        let patches = world.count("PATCH");
        assert_eq!((world.state().in_braintrust(), patches), (vec!["AKIANEW"], 2), "{field}");
        let world = with_old_credentials(1).await.always("PATCH", Fault::OnlyField(field));
        let report = &write(&world).await[0];
        assert!(!report.updated && report.is_mixed, "{field}");
        assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::VerificationFailed);
        assert_eq!(world.count("PATCH"), 2, "{field}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_mixture_is_still_reported_while_braintrust_is_down() {
    let world = with_old_credentials(1).await.once("PATCH", Fault::OnlyField("secret"));
    let world = world.from("PATCH", 2, Fault::Status(503)).from("GET 1", 3, Fault::Status(503));
    let report = &write(&world).await[0];
    assert!(report.is_mixed);
    assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn without_a_staged_secret_a_mixture_is_completed_until_the_deadline() {
    for field in ["secret", "metadata"] {
        let world = of_a_role(1).await.times(9, "PATCH", Fault::OnlyField(field));
        assert!(write(&world).await[0].updated, "{field}");
        let patches = world.count("PATCH");
        assert_eq!((world.state().in_braintrust(), patches), (vec!["AKIANEW"], 10), "{field}");
    }
    let world = of_a_role(1).await.always("PATCH", Fault::OnlyField("secret"));
    let start = Instant::now();
    let report = &write(&world).await[0];
    assert!(report.is_mixed && report.error.is_some());
    assert!(start.elapsed() > Duration::from_secs(280), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_mixture_is_not_completed_after_a_refusal() {
    let world = of_a_role(1).await.once("PATCH", Fault::OnlyField("secret")).from("PATCH", 2, Fault::Status(403));
    let report = &write(&world).await[0];
    assert_eq!(report.error.as_ref().unwrap().class, ErrorClass::Permission);
    assert_eq!(world.count("PATCH"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_patch_without_any_effect_leaves_no_mixture() {
    for world in [with_old_credentials(1).await, of_a_role(1).await] {
        let world = world.always("PATCH", Fault::Ignored);
        assert!(!write(&world).await[0].is_mixed);
        assert_eq!(world.count("PATCH"), 1);
    }
}

/// Another run writes to the first `ai_secret`.
fn write_newer(state: &mut State) {
    state.store_in(0, "ASIANEWER");
    state.ai_secrets[0].json["secret_updated_at"] = json!(now().to_string());
}

#[tokio::test(start_paused = true)]
async fn credentials_that_another_run_wrote_meanwhile_are_left_there() {
    // Once before the reading is repeated, and once while the PATCH waits.
    for (pause, throttled) in [(3, 0), (0, 4)] {
        let world = of_a_role(2).await.before("GET 1", 2, write_newer);
        let world = if throttled > 0 { world.once("PATCH 1", Fault::Throttled(throttled)) } else { world };
        let reports = write_after(&world, Duration::from_secs(pause)).await;
        let became: Vec<_> = reports.iter().map(|it| (it.updated, it.is_superseded, it.error.is_some())).collect();
        assert_eq!(became, [(false, true, false), (true, false, false)]);
        assert_eq!(world.state().in_braintrust(), ["ASIANEWER", "AKIANEW"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_that_may_be_this_runs_own_lost_patch_is_written_again() {
    // Its secret_updated_at has moved, but its response was lost.
    let world = of_a_role(1).await.times(2, "PATCH", Fault::LostResponse);
    let report = &write_after(&world, Duration::from_millis(1_900)).await[0];
    assert!(report.updated && !report.is_superseded);
}

#[tokio::test(start_paused = true)]
async fn a_staged_target_leaves_the_order_of_runs_to_its_secret() {
    let world = with_old_credentials(1).await.before("GET 1", 2, write_newer);
    assert!(write_after(&world, Duration::from_secs(3)).await[0].updated);
}

#[tokio::test(start_paused = true)]
async fn credentials_that_expire_too_soon_are_not_written() {
    let world = of_a_role(1).await;
    let soon = Credentials { expires_at: Some(now() + jiff::SignedDuration::from_mins(4)), ..credentials() };
    let write = async {
        let run = world.target_run();
        let readings = run.read_destinations().await;
        run.write_all(&readings, Proven::assume(&soon), Fallback::Complete).await
    };
    let reports = world.run(write).await;
    assert_eq!(reports[0].error.as_ref().unwrap().class, ErrorClass::Conflict);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_fails_does_not_hide_that_a_patch_was_lost() {
    let world = with_old_credentials(1).await.always("PATCH", Fault::LostRequest).from("GET 1", 2, Fault::Status(403));
    let (error, _) = failure(&world).await;
    assert_eq!((error.class, error.call), (ErrorClass::Unavailable, PATCH));
}

#[tokio::test(start_paused = true)]
async fn an_ai_secret_of_another_type_is_never_written() {
    for type_name in [json!("openai"), json!(null)] {
        let world = with_old_credentials(2).await;
        world.state().ai_secrets[0].json["type"] = type_name;
        let reports = write(&world).await;
        assert_eq!(reports[0].error.as_ref().unwrap().class, ErrorClass::Conflict);
        assert_eq!(world.changes(), ["PATCH 2"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_that_is_some_seconds_old_is_repeated_before_the_patch() {
    let world = with_old_credentials(1).await;
    assert!(write_after(&world, Duration::from_secs(3)).await[0].updated);
    assert_eq!(world.calls(), ["GetSecretValue braintrust", "GET 1", "GET 1", "PATCH 1"]);
    let other_type = |state: &mut State| state.ai_secrets[0].json["type"] = json!("openai");
    let world = with_old_credentials(1).await.before("GET 1", 2, other_type);
    let reports = write_after(&world, Duration::from_secs(3)).await;
    assert_eq!(reports[0].error.as_ref().unwrap().class, ErrorClass::Conflict);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_patch_that_waited_is_sent_only_if_nobody_changed_the_ai_secret_meanwhile() {
    for (field, value, is_written) in [
        ("models", json!(["a"]), true),
        ("region", json!("us-east-1"), true),
        ("region", json!("eu-west-1"), false),
        ("auth_type", json!("assume_role"), false),
    ] {
        let expected = format!("{field} {value}");
        let change = move |state: &mut State| state.ai_secrets[0].json["metadata"][field] = value.clone();
        let world = with_old_credentials(1).await.once("PATCH", Fault::Throttled(4)).before("GET 1", 2, change);
        assert_eq!(write(&world).await[0].updated, is_written, "{expected}");
        assert_eq!(world.count("PATCH"), 1 + usize::from(is_written), "{expected}");
        if !is_written {
            assert_eq!(world.state().in_braintrust(), ["AKIAOLD"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_rename_while_a_patch_waited_is_not_reverted_in_a_project() {
    for (case, world, is_written) in [
        ("an ID", with_old_credentials(1).await, true),
        ("a project's", with_old_credentials(1).await.in_a_project(), false),
    ] {
        let rename = |state: &mut State| state.ai_secrets[0].json["name"] = json!("renamed");
        // The rename comes while the PATCH waits.
        let world = world.once("PATCH", Fault::Throttled(4)).before("PATCH", 1, rename);
        let report = &write(&world).await[0];
        assert_eq!(report.updated, is_written, "{case}");
        assert_eq!(report.error.as_ref().map(|error| error.class), (!is_written).then_some(ErrorClass::Conflict));
        assert_eq!(world.state().ai_secrets[0].json["name"], "renamed", "{case}");
        assert_eq!(world.count("PATCH"), 1 + usize::from(is_written), "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn credentials_are_verified_in_every_destination() {
    let world = with_old_credentials(3).await.always("GET 3", Fault::Status(404));
    world.state().store_in(1, "AKIANEW");
    world.state().ai_secrets[1].json["secret_updated_at"] = json!(now().to_string());
    let readings = world.run(world.target_run().read_destinations()).await;
    let reports = verify_all(&readings, &credentials());
    let classes: Vec<_> = reports.iter().map(|report| report.error.as_ref().map(|error| error.class)).collect();
    assert_eq!(classes, [Some(ErrorClass::VerificationFailed), None, Some(ErrorClass::NotFound)]);
    assert!(!reports[0].updated && reports[1].updated && !reports[2].updated);
}

#[tokio::test(start_paused = true)]
async fn a_projects_provider_is_written_with_its_name_and_read_back_like_an_ai_secret() {
    let world = with_old_credentials(2).await.in_a_project();
    assert!(write(&world).await.iter().all(|report| report.updated && report.project.is_some()));
    assert_eq!(world.state().in_braintrust(), ["AKIANEW"; 2]);
    for fault in [Fault::LostResponse, Fault::StaleResponse] {
        let world = with_old_credentials(1).await.in_a_project().always("PATCH", fault);
        assert!(write(&world).await[0].updated);
        assert_eq!(world.state().in_braintrust(), ["AKIANEW"]);
    }
    let world = with_old_credentials(1).await.in_a_project().always("PATCH", Fault::Ignored);
    let (error, held) = failure(&world).await;
    assert_eq!((error.class, error.call), (ErrorClass::VerificationFailed, "PATCH /v1/env_var/{id}"));
    assert!(error.problem.contains("of the project") && held == "AKIAOLD", "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_mixture_in_a_projects_provider_is_patched_once_more_and_then_reported() {
    for field in ["secret", "metadata"] {
        let world = with_old_credentials(1).await.in_a_project().once("PATCH", Fault::OnlyField(field));
        assert!(write(&world).await[0].updated, "{field}");
        let patches = world.count("PATCH");
        assert_eq!((world.state().in_braintrust(), patches), (vec!["AKIANEW"], 2), "{field}");
        let world = with_old_credentials(1).await.in_a_project().always("PATCH", Fault::OnlyField(field));
        let report = &write(&world).await[0];
        assert!(!report.updated && report.is_mixed, "{field}");
    }
}
