//! In a [`World`]: what the destinations hold, and which of them are the same.

use serde_json::json;

use super::*;
use crate::config::{DataPlane, ProviderLookup, Source, for_test};
use crate::rotation::test_world::{World, in_hours};

#[tokio::test(start_paused = true)]
async fn a_keys_presence_is_the_highest_in_any_destination() {
    let key = |id: &str| Key { id: id.to_owned(), active: true, created_at: Some(in_hours(-200)) };
    let world = World::with_access_keys().await.with_destinations(2).given(|state| state.store("AKIAOLD"));
    world.state().store_in(1, "AKIAOTHER");
    for (id, presence) in
        [("AKIAOLD", Presence::Present), ("AKIAOTHER", Presence::Present), ("AKIANEW", Presence::Absent)]
    {
        assert_eq!(world.run(world.target_run().presence(&key(id))).await.unwrap(), presence, "{id}");
    }
    let world = World::with_api_keys().await.with_destinations(2);
    world.state().store_in(1, "ACCAOLD");
    assert_eq!(world.run(world.target_run().presence(&key("ACCAOLD"))).await.unwrap(), Presence::Unknown);
    assert_eq!(world.changes(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn role_based_credentials_live_as_long_as_those_of_the_destination_that_changed_longest_ago() {
    let world = World::with_a_role().await.with_destinations(3);
    for (index, hours) in [(0, json!(null)), (1, json!(in_hours(-3).to_string())), (2, json!(in_hours(-1).to_string()))]
    {
        world.state().ai_secrets[index].json["secret_updated_at"] = hours;
    }
    let readings = world.run(world.target_run().read_destinations()).await;
    let target = for_test::role_based("role");
    let Source::RoleBased(source) = &target.source else { panic!("it is role-based") };
    let held = held_lifetime(source, &readings).unwrap();
    assert_eq!((held.created_at, held.expires_at), (in_hours(-3), Some(in_hours(-2))));
}

#[test]
fn two_destinations_are_one_ai_secret_whatever_they_are_called() {
    const ID: &str = "11111111-1111-4111-8111-111111111111";
    let lookup = |name: &str, org: Option<&str>| match name.parse() {
        Ok(id) => Lookup::Id(id),
        Err(_) => Lookup::Name { name: name.to_owned(), org_name: org.map(str::to_owned) },
    };
    let data_plane = |url: &str| DataPlane {
        api_url: url.parse().unwrap(),
        api_key_secret_id: "braintrust".to_owned().try_into().unwrap(),
    };
    let mut found = AiProvider::for_test(json!({}), None);
    found.id = ID.parse().unwrap();
    found.name = "AWS Bedrock".to_owned();
    let (name, other_id) = ("AWS Bedrock", "22222222-2222-4222-8222-222222222222");
    let (us, eu) = (Some("Acme US"), Some("Acme EU"));
    for (claimed, own, url, expected) in [
        ((ID, None), (name, None), "https://a", Identity::Same),
        ((ID, None), (ID, None), "https://a/", Identity::Same),
        ((ID, None), (name, None), "https://b", Identity::Same),
        ((name, None), (ID, None), "https://b", Identity::Other),
        ((other_id, None), (name, None), "https://b", Identity::Other),
        ((other_id, None), (name, None), "https://a", Identity::Other),
        ((name, None), (ID, None), "https://a", Identity::Unknown),
        ((name, us), (ID, None), "https://a", Identity::Unknown),
        ((name, None), (name, us), "https://a", Identity::Unknown),
        ((name, us), (name, us), "https://a", Identity::Unknown),
        ((name, us), (name, eu), "https://a", Identity::Other),
        (("another name", None), (ID, None), "https://a", Identity::Other),
    ] {
        let claim = Claim {
            target: "other".to_owned().try_into().unwrap(),
            lookup: lookup(claimed.0, claimed.1),
            data_plane: data_plane(url),
        };
        let destination = Destination {
            lookup: lookup(own.0, own.1),
            data_plane: data_plane("https://a"),
            layout: crate::config::LayoutChoice::Auto,
            earlier_claims: 1,
        };
        assert_eq!(identity(&claim, &destination, &found), expected, "{claimed:?} {own:?} {url}");
    }
}

#[test]
fn a_projects_provider_is_compared_by_its_id_its_name_and_its_project() {
    const PROVIDER: &str = "11111111-1111-4111-8111-111111111111";
    const PROJECT: &str = "ffffffff-ffff-ffff-ffff-ffffffffffff";
    const OTHER_ID: &str = "22222222-2222-4222-8222-222222222222";
    let lookup = |project: (&str, Option<&str>), provider: &str| Lookup::InProject {
        project: match project.0.parse() {
            Ok(id) => ProjectLookup::Id(id),
            Err(_) => ProjectLookup::Name { name: project.0.to_owned(), org_name: project.1.map(str::to_owned) },
        },
        provider: match provider.parse() {
            Ok(id) => ProviderLookup::Id(id),
            Err(_) => ProviderLookup::Name(provider.to_owned()),
        },
    };
    let data_plane = DataPlane {
        api_url: "https://a".parse().unwrap(),
        api_key_secret_id: "braintrust".to_owned().try_into().unwrap(),
    };
    let found = AiProvider {
        id: PROVIDER.parse().unwrap(),
        name: "AWS Bedrock".to_owned(),
        ..AiProvider::of_a_project_for_test(json!({}))
    };
    let (name, bot, us, eu) = ("AWS Bedrock", "support-bot", Some("Acme US"), Some("Acme EU"));
    for (claimed, own, expected) in [
        (lookup((PROJECT, None), PROVIDER), lookup((bot, None), name), Identity::Same),
        (lookup((bot, None), PROVIDER), lookup((PROJECT, None), PROVIDER), Identity::Same),
        (lookup((PROJECT, None), OTHER_ID), lookup((PROJECT, None), name), Identity::Other),
        (lookup((PROJECT, None), name), lookup((bot, None), name), Identity::Unknown),
        (lookup((OTHER_ID, None), name), lookup((bot, None), name), Identity::Other),
        (lookup((bot, None), name), lookup((PROJECT, None), name), Identity::Unknown),
        (lookup((bot, us), name), lookup((bot, None), name), Identity::Unknown),
        (lookup((bot, us), name), lookup((bot, eu), name), Identity::Other),
        (lookup(("search", None), name), lookup((bot, None), name), Identity::Other),
        (lookup((bot, None), "another name"), lookup((PROJECT, None), name), Identity::Other),
        (Lookup::Name { name: name.to_owned(), org_name: None }, lookup((bot, None), name), Identity::Other),
    ] {
        let claim =
            Claim { target: "other".to_owned().try_into().unwrap(), lookup: claimed, data_plane: data_plane.clone() };
        let destination = Destination {
            lookup: own,
            data_plane: data_plane.clone(),
            layout: crate::config::LayoutChoice::Auto,
            earlier_claims: 1,
        };
        assert_eq!(identity(&claim, &destination, &found), expected, "{} {}", claim.lookup, destination.lookup);
    }
}
