//! How the services of the world answer.

use std::collections::HashMap;

use reqwest::Url;
use serde_json::{Map, Value, json};

use super::state::{IamKey, StagedVersion, State, secret_of};
use super::{Effect, Fault, Inner, in_hours, is_of, now};
use crate::braintrust::test_server::{Answer, Received};

/// One call, as the services understand it.
struct Call {
    name: String,
    /// What it acts on.
    subject: String,
    api: Api,
}

enum Api {
    /// IAM and STS.
    Query(HashMap<String, String>),
    SecretsManager(Value),
    Bedrock {
        caller: String,
    },
    /// Braintrust's AI proxy. The subject is the name of an `ai_secret`.
    Completion,
    Braintrust {
        /// Of the `ai_secret`, from 0.
        index: usize,
        body: Option<Value>,
    },
}

impl Inner {
    pub(super) fn answer(&mut self, received: &Received) -> Answer {
        let call = Call::of(received);
        let made = format!("{} {}", call.name, call.subject).trim_end().to_owned();
        self.calls.push(made.clone());
        let mut fault = None;
        for event in self.events.iter_mut().filter(|event| is_of(&made, event.call)) {
            if event.skip > 0 {
                event.skip -= 1;
                continue;
            }
            match &mut event.effect {
                _ if event.times == 0 => continue,
                // A call fails in one way. A further fault is for the next call.
                Effect::Fault(_) if fault.is_some() => continue,
                Effect::Fault(wrong) => fault = Some(*wrong),
                Effect::Change(change) => change(&mut self.state),
            }
            event.times -= 1;
        }
        let state = &mut self.state;
        match fault {
            None => call.carry_out(state),
            Some(Fault::Status(status)) => Answer::status(status),
            Some(Fault::Code(code)) => call.refuse(code),
            Some(Fault::Throttled(seconds)) => Answer::status(429).with_header(&format!("retry-after: {seconds}")),
            Some(Fault::LostRequest) => Answer::HangUp,
            Some(Fault::LostResponse) => {
                call.carry_out(state);
                Answer::HangUp
            }
            Some(Fault::Ignored) => call.show(state),
            Some(Fault::StaleResponse) => {
                let before = call.show(state);
                call.carry_out(state);
                before
            }
            Some(Fault::OnlyField(field)) => call.with_only(field).carry_out(state),
        }
    }
}

impl Call {
    fn of(received: &Received) -> Self {
        let path = received.target.split('?').next().unwrap();
        let field = |body: &Value, name: &str| body[name].as_str().unwrap_or_default().to_owned();
        let collections = ["/v1/ai_secret/", "/v1/env_var/"];
        if let Some(id) = collections.into_iter().find_map(|collection| path.strip_prefix(collection)) {
            let number = if id.starts_with('1') { 1 } else { id.rsplit('-').next().unwrap().parse().unwrap() };
            let body = (received.method == "PATCH").then(|| received.json());
            let api = Api::Braintrust { index: number - 1, body };
            return Self { name: received.method.clone(), subject: number.to_string(), api };
        }
        if path == "/v1/proxy/chat/completions" {
            let subject = received.endpoint_name.clone();
            return Self { name: "COMPLETION".to_owned(), subject, api: Api::Completion };
        }
        if path == "/foundation-models" {
            let authorization = &received.authorization;
            let key_id = authorization.split_once("Credential=").and_then(|(_, rest)| rest.split('/').next());
            let caller = key_id.or(authorization.strip_prefix("Bearer secret-of-")).unwrap_or(authorization).to_owned();
            let name = "ListFoundationModels".to_owned();
            return Self { name, subject: caller.clone(), api: Api::Bedrock { caller } };
        }
        if let Some(name) = received.amz_target.strip_prefix("secretsmanager.") {
            let body = received.json();
            let subject = match name {
                "GetSecretValue" if body["VersionId"].is_null() => field(&body, "SecretId"),
                "GetSecretValue" => field(&body, "VersionId"),
                "PutSecretValue" => field(&body, "ClientRequestToken"),
                "UpdateSecretVersionStage" => {
                    format!("{} {}", field(&body, "VersionStage"), field(&body, "MoveToVersionId"))
                }
                _ => String::new(),
            };
            return Self { name: name.to_owned(), subject, api: Api::SecretsManager(body) };
        }
        let url = Url::parse(&format!("http://localhost/?{}", received.body)).unwrap();
        let parameters: HashMap<_, _> = url.query_pairs().into_owned().collect();
        let ids = ["AccessKeyId", "ServiceSpecificCredentialId", "RoleArn"];
        let id = ids.iter().find_map(|name| parameters.get(*name)).cloned().unwrap_or_default();
        let subject = format!("{id} {}", parameters.get("Status").cloned().unwrap_or_default());
        Self { name: parameters["Action"].clone(), subject: subject.trim().to_owned(), api: Api::Query(parameters) }
    }

    fn carry_out(&self, state: &mut State) -> Answer {
        match &self.api {
            Api::Query(parameters) => self.query(state, parameters),
            Api::SecretsManager(body) => self.secrets_manager(state, body),
            Api::Bedrock { caller } => {
                let is_session = caller.starts_with("ASIA") || caller.starts_with("Bearer bedrock-api-key-");
                let number = caller.strip_prefix("ASIANEW").and_then(|number| number.parse().ok());
                if is_session && state.denied_before.is_some_and(|cut_off| number.unwrap_or(0) < cut_off) {
                    return self.refuse("AccessDeniedException");
                }
                if state.still_accepted.contains(caller) {
                    return Answer::json(&json!({}));
                }
                if (is_session || state.is_active(caller)) && !state.unknown_to_bedrock.contains(caller) {
                    return Answer::json(&json!({}));
                }
                self.refuse("UnrecognizedClientException")
            }
            Api::Completion => self.completion(state),
            Api::Braintrust { index, body } => {
                if let Some(body) = body {
                    state.patch(*index, body);
                }
                self.show(state)
            }
        }
    }

    /// Carries out only one field of a PATCH.
    fn with_only(mut self, field: &str) -> Self {
        match &mut self.api {
            Api::Braintrust { body: Some(Value::Object(body)), .. } => {
                let secret_of_a_project = if field == "secret" { "value" } else { field };
                body.retain(|name, _| name == field || name == secret_of_a_project);
            }
            Api::Braintrust { .. } | Api::Query(_) | Api::SecretsManager(_) | Api::Bedrock { .. } | Api::Completion => {
                panic!("{} is not a PATCH", self.name)
            }
        }
        self
    }

    /// Answers with the state as it is.
    fn show(&self, state: &State) -> Answer {
        match &self.api {
            Api::Braintrust { index, .. } => Answer::json(&state.ai_secrets[*index].json),
            Api::Query(_) | Api::SecretsManager(_) | Api::Bedrock { .. } | Api::Completion => {
                panic!("{} shows no state", self.name)
            }
        }
    }

    fn refuse(&self, code: &str) -> Answer {
        match self.api {
            Api::Query(_) => {
                let xml = format!("<ErrorResponse><Error><Code>{code}</Code></Error></ErrorResponse>");
                Answer::status(400).with_body("text/xml", &xml)
            }
            Api::SecretsManager(_) => {
                Answer::status(400).with_body("application/x-amz-json-1.1", &json!({"__type": code}).to_string())
            }
            Api::Bedrock { .. } => Answer::status(403).with_header(&format!("x-amzn-errortype: {code}")),
            Api::Braintrust { .. } | Api::Completion => panic!("Braintrust has no error codes"),
        }
    }

    /// As the open-source proxy answers.
    fn completion(&self, state: &State) -> Answer {
        let named = state.ai_secrets.iter().position(|ai_secret| ai_secret.json["name"] == *self.subject);
        let refuse = |text| Answer::status(400).with_body("text/plain", text);
        let Some(index) = named else { return refuse("Error: No API keys found (for model).") };
        if state.denied_through_braintrust.contains(state.in_braintrust()[index]) {
            return refuse("AccessDeniedException: User: x is not authorized to perform: bedrock:InvokeModel");
        }
        let completion = json!({"choices": [{"message": {"content": "."}}]});
        Answer::json(&completion).with_header(&format!("x-bt-used-endpoint: {}", self.subject))
    }

    fn query(&self, state: &mut State, parameters: &HashMap<String, String>) -> Answer {
        let is_access_key = self.name.contains("AccessKey");
        let id = self.subject.split(' ').next().unwrap_or_default();
        let index = state.keys.iter().position(|key| key.id == id);
        let verb = ["Create", "List", "Update", "Delete"].into_iter().find(|verb| self.name.starts_with(verb));
        let result = match (verb, index) {
            // Nothing reads the policy's date, because all sessions of this world expire at the same time.
            _ if self.name == "GetRolePolicy" => return self.refuse("NoSuchEntity"),
            _ if self.name == "PutRolePolicy" => {
                state.denied_before = Some(state.created);
                String::new()
            }
            (None, _) => {
                state.created += 1;
                session(state.created)
            }
            (Some("Create"), _) if state.keys.len() >= 2 => return self.refuse("LimitExceeded"),
            (Some("Create"), _) => {
                state.created += 1;
                let prefix = if is_access_key { "AKIANEW" } else { "ACCANEW" };
                let key = IamKey { id: format!("{prefix}{}", state.created), active: true, created_at: now() };
                let xml = key_as_xml(&key, true, is_access_key);
                state.keys.push(key);
                if is_access_key { element("AccessKey", &xml) } else { element("ServiceSpecificCredential", &xml) }
            }
            (Some("List"), _) => {
                let members = state.keys.iter().map(|key| element("member", &key_as_xml(key, false, is_access_key)));
                let list = if is_access_key { "AccessKeyMetadata" } else { "ServiceSpecificCredentials" };
                element(list, &members.collect::<String>()) + "<IsTruncated>false</IsTruncated>"
            }
            (Some(_), None) => return self.refuse("NoSuchEntity"),
            (Some("Delete"), Some(index)) => {
                state.keys.remove(index);
                String::new()
            }
            (Some(_), Some(index)) => {
                state.keys[index].active = parameters["Status"] == "Active";
                String::new()
            }
        };
        let result = element(&format!("{}Result", self.name), &result);
        Answer::status(200).with_body("text/xml", &element(&format!("{}Response", self.name), &result))
    }

    fn secrets_manager(&self, state: &mut State, body: &Value) -> Answer {
        let text = |name: &str| body[name].as_str();
        match self.name.as_str() {
            "DescribeSecret" => Answer::json(&json!({
                "VersionIdsToStages":
                    state.versions.iter().map(|(id, it)| (id.clone(), json!(it.stages))).collect::<Map<_, _>>(),
                "CreatedDate": state.secret_created_at.as_second(),
                "LastChangedDate": state.secret_changed_at.as_second(),
                "RotationEnabled": state.rotation_enabled,
            })),
            "GetSecretValue" if text("SecretId") == Some("braintrust") => {
                Answer::json(&json!({"SecretString": "sk-braintrust"}))
            }
            "GetSecretValue" => match state.versions.get(text("VersionId").unwrap()) {
                Some(StagedVersion { text: Some(text), .. }) => Answer::json(&json!({"SecretString": text})),
                Some(_) | None => self.refuse("ResourceNotFoundException"),
            },
            "PutSecretValue" => {
                let (version, value) = (text("ClientRequestToken").unwrap(), text("SecretString").map(str::to_owned));
                let staged = state.versions.entry(version.to_owned()).or_default();
                if staged.text.is_some() && staged.text != value {
                    return self.refuse("ResourceExistsException");
                }
                staged.text = value;
                assert_eq!(body["VersionStages"], json!(["AWSPENDING"]));
                state.move_stage("AWSPENDING", Some(version));
                // The first version becomes current, whatever stages the request names.
                if state.version_with("AWSCURRENT").is_none() {
                    state.move_stage("AWSCURRENT", Some(version));
                }
                state.secret_changed_at = now();
                Answer::json(&json!({}))
            }
            "UpdateSecretVersionStage" => {
                let stage = text("VersionStage").unwrap();
                let is_elsewhere = state.version_with(stage).as_deref() != text("RemoveFromVersionId");
                if is_elsewhere {
                    return self.refuse("InvalidParameterException");
                }
                let labels: usize = state.versions.values().map(|version| version.stages.len()).sum();
                if labels >= 20 && state.version_with(stage).is_none() {
                    return self.refuse("LimitExceededException");
                }
                state.move_stage(stage, text("MoveToVersionId"));
                state.secret_changed_at = now();
                Answer::json(&json!({}))
            }
            other => panic!("{other} is not known"),
        }
    }
}

fn element(name: &str, content: &str) -> String {
    format!("<{name}>{content}</{name}>")
}

fn session(number: u32) -> String {
    let id = format!("ASIANEW{number}");
    let parts = element("AccessKeyId", &id)
        + &element("SecretAccessKey", &secret_of(&id))
        + &element("SessionToken", "token")
        + &element("Expiration", &in_hours(1).to_string());
    element("Credentials", &parts)
}

fn key_as_xml(key: &IamKey, with_secret: bool, is_access_key: bool) -> String {
    let status = if key.active { "Active" } else { "Inactive" };
    let mut xml =
        element("UserName", "user") + &element("Status", status) + &element("CreateDate", &key.created_at.to_string());
    let (id, secret) = if is_access_key {
        ("AccessKeyId", "SecretAccessKey")
    } else {
        xml += &(element("ServiceName", "bedrock.amazonaws.com") + &element("ServiceUserName", "user"));
        ("ServiceSpecificCredentialId", "ServiceCredentialSecret")
    };
    xml += &element(id, &key.id);
    if with_secret { xml + &element(secret, &secret_of(&key.id)) } else { xml }
}
