use serde_json::{Value, json};

use super::super::test_server::{Answer, TestServer};
use super::*;

const ACME: u128 = 8;
const OTHER: u128 = 9;

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn project(number: u128, name: &str, org: u128) -> Value {
    json!({"id": id(number), "name": name, "org_id": id(org), "settings": null})
}

fn env_var(number: u128, name: &str, project: u128) -> Value {
    json!({
        "id": id(number), "name": name, "object_type": "project", "object_id": id(project),
        "secret_category": "ai_provider", "secret_type": "bedrock", "used": null, "metadata": {},
    })
}

fn with(mut json: Value, field: &str, value: &str) -> Value {
    json[field] = json!(value);
    json
}

/// A data plane that filters, unless it is an old one. Organization 8 is called Acme.
fn data_plane(projects: Vec<Value>, env_vars: Vec<Value>, filters: bool) -> TestServer {
    TestServer::start(move |received| {
        let is_in = |object: &Value, parameter: &str, field: &str| {
            received.query(parameter).is_none_or(|value| !filters || object[field] == value.as_str())
        };
        let path = received.target.split('?').next().unwrap();
        if let Some(found) = path.strip_prefix("/v1/env_var/") {
            return env_vars.iter().find(|it| it["id"] == found).map_or(Answer::status(404), Answer::json);
        }
        if path == "/v1/organization" {
            let organizations = [json!({"id": id(ACME), "name": "Acme"}), json!({"id": id(OTHER), "name": "Other"})];
            return Answer::json(&json!({"objects": organizations}));
        }
        if path == "/v1/env_var" {
            let parameters = [("env_var_name", "name"), ("object_type", "object_type"), ("object_id", "object_id")];
            let is_listed = |it: &&Value| parameters.iter().all(|(parameter, field)| is_in(it, parameter, field));
            let limit = received.query("limit").unwrap().parse().unwrap();
            let objects: Vec<_> = env_vars.iter().filter(is_listed).take(limit).collect();
            return Answer::json(&json!({"objects": objects}));
        }
        let cursor = received.query("starting_after");
        let is_of_the_organization = |it: &&Value| {
            received
                .query("org_name")
                .is_none_or(|name| !filters || (name == "Acme") == (it["org_id"] == json!(id(ACME))))
        };
        let objects: Vec<_> = projects
            .iter()
            .skip_while(|it| cursor.as_deref().is_some_and(|last| it["id"] != last))
            .skip(usize::from(cursor.is_some()))
            .filter(|it| is_in(it, "project_name", "name") && is_in(it, "ids", "id"))
            .filter(is_of_the_organization)
            .take(2)
            .collect();
        Answer::json(&json!({"objects": objects}))
    })
}

fn by_project_name(name: &str, org_name: Option<&str>) -> ProjectLookup {
    ProjectLookup::Name { name: name.to_owned(), org_name: org_name.map(str::to_owned) }
}

fn in_the_project(project: ProjectLookup, provider: &str) -> Lookup {
    Lookup::InProject { project, provider: ProviderLookup::Name(provider.to_owned()) }
}

fn calls(server: &TestServer) -> Vec<String> {
    server.received().iter().map(|it| it.target.split('?').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_provider_is_found_by_its_name_in_its_project_whether_the_data_plane_filters_or_not() {
    for filters in [true, false] {
        let projects = vec![project(1, "search", ACME), project(2, "bot", ACME), project(3, "last", ACME)];
        let env_vars = vec![
            env_var(11, "Bedrock", 1),
            with(env_var(12, "Bedrock", 2), "secret_type", "openai"),
            with(env_var(13, "Bedrock", 2), "object_type", "function"),
            with(env_var(14, "Bedrock", 2), "secret_category", "env_var"),
            env_var(15, "other", 2),
            env_var(16, "Bedrock", 2),
        ];
        let server = data_plane(projects, env_vars, filters);
        for project in [by_project_name("bot", None), by_project_name("bot", Some("Acme")), ProjectLookup::Id(id(2))] {
            let found = server.api().find(&in_the_project(project, "Bedrock")).await.unwrap();
            assert_eq!((found.id, found.owner, found.is_bedrock()), (id(16), Some(id(2)), true), "{filters}");
        }
    }
}

#[tokio::test]
async fn no_more_calls_are_made_than_the_names_need() {
    let server = || data_plane(vec![project(2, "bot", ACME)], vec![env_var(16, "Bedrock", 2)], true);
    let by_id = |project| Lookup::InProject { project, provider: ProviderLookup::Id(id(16)) };
    for (lookup, expected) in [
        (in_the_project(ProjectLookup::Id(id(2)), "Bedrock"), 1),
        (in_the_project(by_project_name("bot", Some("Acme")), "Bedrock"), 3),
        // The second page of the projects is empty.
        (in_the_project(by_project_name("bot", None), "Bedrock"), 3),
        (by_id(ProjectLookup::Id(id(2))), 1),
        (by_id(by_project_name("bot", Some("Acme"))), 3),
    ] {
        let server = server();
        assert_eq!(server.api().find(&lookup).await.unwrap().id, id(16), "{lookup}");
        assert_eq!(server.received().len(), expected, "{lookup}: {:?}", calls(&server));
    }
}

#[tokio::test]
async fn a_project_name_without_an_organization_is_refused_while_the_key_sees_several() {
    for (case, projects) in [
        ("the right one was renamed", vec![project(1, "renamed", ACME), project(2, "bot", OTHER)]),
        ("each has one", vec![project(1, "bot", ACME), project(2, "bot", OTHER)]),
        (
            "the other one is on a later page",
            vec![project(1, "bot", ACME), project(2, "a", ACME), project(3, "b", ACME), project(4, "c", OTHER)],
        ),
    ] {
        let server = data_plane(projects, vec![env_var(16, "Bedrock", 1)], true);
        let error = server.api().find(&in_the_project(by_project_name("bot", None), "Bedrock")).await.unwrap_err();
        assert_eq!((error.class, error.call), (ErrorClass::Conflict, LIST_PROJECTS), "{case}");
        assert!(error.problem.contains("projects of 2 organizations") && error.remedy.contains("org_name"), "{error}");
        let right = in_the_project(by_project_name("bot", Some("Acme")), "Bedrock");
        assert_eq!(server.api().find(&right).await.is_ok(), case != "the right one was renamed", "{case}");
    }
}

#[tokio::test]
async fn a_project_of_another_organization_than_the_named_one_is_refused() {
    let projects = vec![project(1, "renamed", ACME), project(2, "bot", OTHER)];
    let server = data_plane(projects, vec![env_var(16, "Bedrock", 2)], false);
    for provider in [ProviderLookup::Name("Bedrock".to_owned()), ProviderLookup::Id(id(16))] {
        let lookup = Lookup::InProject { project: by_project_name("bot", Some("Acme")), provider };
        let error = server.api().find(&lookup).await.unwrap_err();
        assert_eq!((error.class, error.call), (ErrorClass::Conflict, LIST_PROJECTS));
        assert!(error.problem.contains(&id(OTHER).to_string()) && error.problem.contains("\"Acme\""), "{error}");
    }
}

#[tokio::test]
async fn several_projects_of_one_name_are_a_conflict_that_lists_them() {
    let deleted = with(project(3, "bot", ACME), "deleted_at", "2026-01-01T00:00:00Z");
    let server = data_plane(vec![project(1, "bot", ACME), project(2, "bot", ACME), deleted], vec![], true);
    for org_name in [None, Some("Acme")] {
        let lookup = in_the_project(by_project_name("bot", org_name), "Bedrock");
        let error = server.api().find(&lookup).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Conflict);
        assert!(error.problem.starts_with("several projects are named \"bot\""), "{error}");
        assert!(error.problem.contains(&id(2).to_string()) && !error.problem.contains(&id(3).to_string()), "{error}");
    }
}

#[tokio::test]
async fn an_unknown_project_is_not_found_and_the_error_lists_those_that_the_key_sees() {
    let deleted = with(project(3, "gone", ACME), "deleted_at", "2026-01-01T00:00:00Z");
    let server = data_plane(vec![project(1, "search", ACME), deleted], vec![], true);
    for project in [
        by_project_name("bot", None),
        by_project_name("bot", Some("Acme")),
        by_project_name("gone", None),
        ProjectLookup::Id(id(7)),
    ] {
        let error = server.api().find(&in_the_project(project, "Bedrock")).await.unwrap_err();
        assert_eq!((error.class, error.call), (ErrorClass::NotFound, LIST_PROJECTS));
        assert!(error.problem.contains("It sees: ") && error.problem.contains("\"search\""), "{error}");
        assert!(!error.problem.contains(&id(3).to_string()), "{error}");
    }
    let nothing = data_plane(vec![], vec![], true);
    let error = nothing.api().find(&in_the_project(by_project_name("bot", None), "Bedrock")).await.unwrap_err();
    assert!(error.problem.ends_with("It sees: none") && error.remedy.contains("give the API key's user"), "{error}");
}

#[tokio::test]
async fn an_unknown_provider_is_not_found_and_the_error_lists_the_projects_own() {
    let env_vars = vec![
        env_var(11, "Bedrock", 1),
        env_var(15, "other", 2),
        with(env_var(16, "plain", 2), "secret_category", "env_var"),
    ];
    let server = data_plane(vec![project(1, "search", ACME), project(2, "bot", ACME)], env_vars, true);
    for project in [by_project_name("bot", None), ProjectLookup::Id(id(2))] {
        let error = server.api().find(&in_the_project(project, "Bedrock")).await.unwrap_err();
        assert_eq!((error.class, error.call), (ErrorClass::NotFound, LIST));
        let listed = error.problem.split_once("Those of type bedrock: ").unwrap().1;
        assert_eq!(listed, format!("{} (\"other\")", id(15)));
    }
}

#[tokio::test]
async fn several_providers_of_one_name_are_a_conflict_that_lists_at_most_ten() {
    for (count, ends_with) in [(2, "(\"b\")"), (12, "…")] {
        let env_vars = (11..11 + count).map(|number| env_var(number, "b", 2)).collect();
        let server = data_plane(vec![], env_vars, true);
        let error = server.api().find(&in_the_project(ProjectLookup::Id(id(2)), "b")).await.unwrap_err();
        assert_eq!(error.class, ErrorClass::Conflict);
        assert!(error.problem.ends_with(ends_with), "{error}");
        assert_eq!(error.problem.matches("(\"b\")").count() as u128, count.min(10), "{error}");
    }
}

#[tokio::test]
async fn one_of_another_type_or_category_is_returned_for_the_layout_to_refuse() {
    for (field, value) in [("secret_type", "openai"), ("secret_category", "env_var")] {
        let server = data_plane(vec![], vec![with(env_var(11, "b", 2), field, value)], true);
        let found = server.api().find(&in_the_project(ProjectLookup::Id(id(2)), "b")).await.unwrap();
        assert!(!found.is_bedrock(), "{field}");
    }
}

#[tokio::test]
async fn an_id_of_another_projects_provider_is_refused() {
    let of_a_function = with(env_var(12, "Bedrock", 2), "object_type", "function");
    let server = data_plane(vec![project(2, "bot", ACME)], vec![env_var(11, "Bedrock", 1), of_a_function], true);
    for number in [11, 12] {
        for project in [by_project_name("bot", Some("Acme")), ProjectLookup::Id(id(2))] {
            let lookup = Lookup::InProject { project, provider: ProviderLookup::Id(id(number)) };
            let error = server.api().find(&lookup).await.unwrap_err();
            assert_eq!((error.class, error.call), (ErrorClass::Conflict, "GET /v1/env_var/{id}"));
            assert!(error.problem.contains(&format!("is not one of the project {}", id(2))), "{error}");
        }
    }
}

#[tokio::test]
async fn a_list_that_may_go_on_says_how_much_of_it_was_read() {
    let env_vars = (0..=200).map(|number| env_var(1_000 + number, &format!("number {number}"), 2)).collect();
    let server = data_plane(vec![project(2, "bot", ACME)], env_vars, true);
    let error = server.api().find(&in_the_project(ProjectLookup::Id(id(2)), "b")).await.unwrap_err();
    assert!(error.problem.contains("Those of type bedrock among its first 200: "), "{error}");
}

#[tokio::test]
async fn a_denied_list_is_reported_with_its_call() {
    for (denied, call) in [("/v1/project", LIST_PROJECTS), ("/v1/env_var", LIST)] {
        let server = TestServer::start(move |received| {
            if received.target.starts_with(denied) {
                return Answer::status(403);
            }
            Answer::json(&json!({"objects": [project(2, "bot", ACME)]}))
        });
        let lookup = in_the_project(by_project_name("bot", Some("Acme")), "Bedrock");
        let error = server.api().find(&lookup).await.unwrap_err();
        assert_eq!((error.class, error.call), (ErrorClass::Permission, call));
    }
}
