//! Reads secrets, and moves a staged secret's versions through a rotation.
//!
//! <https://docs.aws.amazon.com/secretsmanager/latest/userguide/rotate-secrets_lambda-functions.html>

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::config::Builder;
use aws_sdk_secretsmanager::operation::RequestId;
use aws_sdk_secretsmanager::operation::describe_secret::DescribeSecretOutput;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_types::SdkConfig;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use super::requests::AwsRequests;
use super::retries::{CountAttempts, RepeatRefused};
use super::sdk::SdkResult;
use super::staged_value::{self, VersionValue};
use super::{refusals, sdk};
use crate::config::SecretId;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorClass, Service};

const GET_SECRET_VALUE: &str = "GetSecretValue";
pub const MOVE_STAGE: &str = "UpdateSecretVersionStage";
const CURRENT: &str = "AWSCURRENT";
const PENDING: &str = "AWSPENDING";
const PREVIOUS: &str = "AWSPREVIOUS";

/// A staging label of this function's own. At most one version carries each label, and moving a label is a
/// compare-and-swap. So the labels order simultaneous runs: each run sets its own label first, and looks for the other
/// runs' labels after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Label {
    /// A rollback replaced this version, so a repeated rollback doesn't restore it.
    RolledBack,
    /// A run is deactivating this version's key, or has deactivated it.
    Deactivating,
    /// A run is deleting this version's key, or has deleted it.
    Deleting,
    /// A revocation has ended this version's credentials, so nothing writes them again.
    Revoked,
}

impl Label {
    fn name(self) -> &'static str {
        match self {
            Self::RolledBack => "ROLLED_BACK",
            Self::Deactivating => "DEACTIVATING",
            Self::Deleting => "DELETING",
            Self::Revoked => "REVOKED",
        }
    }
}

/// A label whose name has a time in microseconds since 1970 and the beginning of the version's ID, so that each run has its own
/// and others see how old it is. `LastChangedDate` can't say that, because every label changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimedLabel {
    /// This function made the version current.
    Promoted,
    /// A run is writing this version's credentials to Braintrust again.
    Restoring,
    /// A run has written them again.
    Restored,
    /// A revocation is replacing this version's credentials and ending them. The label stays until that is proven.
    Revoking,
}

impl TimedLabel {
    fn prefix(self) -> &'static str {
        match self {
            Self::Promoted => "PROMOTED_",
            Self::Restoring => "RESTORING_",
            Self::Restored => "RESTORED_",
            Self::Revoking => "REVOKING_",
        }
    }

    fn name(self, at: Timestamp, version: &str) -> String {
        let version: String = version.chars().take(8).collect();
        format!("{}{}_{version}", self.prefix(), at.as_microsecond())
    }
}

pub struct SecretsManager(Client);

impl SecretsManager {
    pub fn new(config: &SdkConfig) -> Self {
        let config = Builder::from(config).interceptor(CountAttempts).retry_classifier(RepeatRefused);
        Self(Client::from_conf(config.build()))
    }

    /// Reads the current text of a secret. A binary secret is a wrong configuration.
    pub async fn current_text(&self, id: &SecretId, deadline: Deadline) -> Result<SecretString, Error> {
        let remedy = format!(
            "Allow secretsmanager:GetSecretValue on the secret {} in the policy of the function's role (the template \
             allows it for the secrets in its parameters, by complete ARN), and kms:Decrypt if the secret is encrypted \
             with a customer managed key (the parameter KmsKeyArn)",
            id.as_str()
        );
        let text = self.staged(id, deadline, &AwsRequests::default()).get(None).await;
        text.map_err(|error| error.with_remedy_for(ErrorClass::Permission, remedy))?.ok_or_else(|| {
            let problem = format!("the secret {:?} is binary", id.as_str());
            let remedy = "Store it as text (SecretString)";
            Error::new(ErrorClass::Configuration, Service::SecretsManager, GET_SECRET_VALUE, problem, remedy)
        })
    }

    /// The staged secret `id`. All of its calls end by the deadline.
    pub fn staged<'a>(&'a self, id: &'a SecretId, deadline: Deadline, requests: &AwsRequests) -> StagedSecret<'a> {
        StagedSecret { client: &self.0, id, deadline, requests: requests.clone() }
    }
}

/// A secret that holds a target's credentials through a rotation. All of its calls are idempotent.
pub struct StagedSecret<'a> {
    client: &'a Client,
    pub id: &'a SecretId,
    deadline: Deadline,
    requests: AwsRequests,
}

/// Why a value was not staged, as far as that is known.
pub struct NotStaged {
    pub error: Error,
    /// The value may be staged nevertheless, because the response was lost. The credentials in it must not be deleted.
    pub may_be_staged: bool,
}

impl StagedSecret<'_> {
    pub async fn describe(&self) -> Result<Stages, Error> {
        let request = self.client.describe_secret().secret_id(self.id.as_str());
        let described = sdk::send(Service::SecretsManager, "DescribeSecret", self.deadline, request.send()).await;
        described.map(Stages::new).map_err(|error| self.explain(error))
    }

    pub async fn read(&self, version: &str) -> Result<VersionValue, Error> {
        let text = self.read_text(version).await?;
        Ok(text.map_or(VersionValue::Empty, |text| staged_value::parse(&text)))
    }

    /// Reads a version's text. `None` if the version has no value yet.
    pub async fn read_text(&self, version: &str) -> Result<Option<SecretString>, Error> {
        match self.get(Some(version)).await {
            Ok(text) => Ok(Some(text.unwrap_or_default())),
            Err(error) if error.class == ErrorClass::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The text of a version, or of the current one. `None` if it is binary.
    async fn get(&self, version: Option<&str>) -> Result<Option<SecretString>, Error> {
        let request = self.client.get_secret_value().secret_id(self.id.as_str());
        let request = request.set_version_id(version.map(str::to_owned)).send();
        let value = sdk::send(Service::SecretsManager, GET_SECRET_VALUE, self.deadline, request).await;
        value.map(|value| value.secret_string.map(SecretString::from)).map_err(|error| self.explain(error))
    }

    /// Stages a text in `version` as `AWSPENDING`. If the version already has another text, the error is a `conflict`.
    /// After an error, the version is read, because the response may have been lost.
    pub async fn put_pending(
        &self,
        version: &str,
        rotation_token: Option<&SecretString>,
        text: &SecretString,
    ) -> Result<(), NotStaged> {
        let request = self
            .client
            .put_secret_value()
            .secret_id(self.id.as_str())
            .client_request_token(version)
            // Without a stage, Secrets Manager would move AWSCURRENT.
            .version_stages(PENDING)
            // Security: the token and the text are exposed into the request.
            .set_rotation_token(rotation_token.map(|token| token.expose_secret().to_owned()))
            .secret_string(text.expose_secret());
        let put = self.change("PutSecretValue", request.send()).await;
        let Err(error) = put else { return Ok(()) };
        match self.read_text(version).await {
            // Security: compared in memory.
            Ok(Some(found)) if found.expose_secret() == text.expose_secret() => Ok(()),
            read => Err(NotStaged { may_be_staged: read.is_err() && error.is_transient(), error: self.explain(error) }),
        }
    }

    /// Moves `AWSCURRENT` from the version `from` to `version`. Nothing else in this function moves it. The error is a
    /// `conflict` if another run has moved it.
    pub async fn promote(&self, version: &str, from: Option<&str>) -> Result<(), Error> {
        self.move_stage(CURRENT, Some(version), from).await
    }

    /// Removes `AWSPENDING` from a version that is dead or has become current. During a rotation by Secrets Manager the
    /// stage has to stay, because Secrets Manager treats its removal as a failure.
    pub async fn remove_pending(&self, version: &str) -> Result<(), Error> {
        self.move_stage(PENDING, None, Some(version)).await
    }

    /// Moves a label from the version `from`, on which it was found. `None` means no version.
    pub async fn move_label(&self, label: Label, to: Option<&str>, from: Option<&str>) -> Result<(), Error> {
        if to == from { Ok(()) } else { self.move_stage(label.name(), to, from).await }
    }

    pub async fn add_label(&self, label: TimedLabel, at: Timestamp, version: &str) -> Result<(), Error> {
        self.move_stage(&label.name(at, version), Some(version), None).await
    }

    pub async fn remove_label(&self, label: TimedLabel, at: Timestamp, version: &str) -> Result<(), Error> {
        self.move_stage(&label.name(at, version), None, Some(version)).await
    }

    /// Secrets Manager refuses to move a stage that is no longer on the version `from`. The stage may already be where
    /// it should be, if only the response to an earlier attempt was lost. Otherwise another run has moved it.
    async fn move_stage(&self, stage: &str, to: Option<&str>, from: Option<&str>) -> Result<(), Error> {
        let request = self.client.update_secret_version_stage().secret_id(self.id.as_str()).version_stage(stage);
        let request = request.set_move_to_version_id(to.map(str::to_owned));
        let request = request.set_remove_from_version_id(from.map(str::to_owned)).send();
        let moved = self.change(MOVE_STAGE, request).await;
        let Err(error) = moved else { return Ok(()) };
        let Ok(stages) = self.describe().await else { return Err(self.explain(error)) };
        let found = stages.version_with(stage);
        let is_done = if to.is_some() { found == to } else { found != from };
        if is_done {
            return Ok(());
        }
        if found == from {
            return Err(self.explain(error));
        }
        let problem = format!("another run has moved {stage}");
        let remedy = "See the report of that run. The next scheduled run starts from what it left";
        Err(self.explain(Error::new(ErrorClass::Conflict, Service::SecretsManager, MOVE_STAGE, problem, remedy)))
    }

    /// Sends a request that changes the secret.
    fn change<T: RequestId, E: ProvideErrorMetadata>(
        &self,
        call: &'static str,
        request: impl Future<Output = SdkResult<T, E>>,
    ) -> impl Future<Output = Result<T, Error>> {
        self.requests.send(Service::SecretsManager, call, self.deadline, request)
    }

    fn explain(&self, error: Error) -> Error {
        let problem = format!("{} for the secret {:?}", error.problem, self.id.as_str());
        let remedy = error.remedy.replace("<secret>", self.id.as_str());
        refusals::about_secret(Error { problem, remedy, ..error }, self.id.as_str())
    }
}

/// The versions and stages of a secret, as `DescribeSecret` returns them.
#[derive(Default)]
pub struct Stages {
    pub arn: Option<String>,
    /// Whether Secrets Manager rotates the secret. `None` if rotation was never configured.
    pub rotation_enabled: Option<bool>,
    /// Keys of the IAM user that are older than the secret were created by somebody else.
    pub created_at: Option<Timestamp>,
    /// The last time at which `AWSCURRENT` may have moved.
    pub promoted_at: Option<Timestamp>,
    /// The last time at which the secret changed in any way, including its stages and labels.
    pub changed_at: Option<Timestamp>,
    /// When Secrets Manager rotates the secret next, if it does.
    pub next_rotation: Option<Timestamp>,
    stages_by_version: std::collections::HashMap<String, Vec<String>>,
}

impl Stages {
    fn new(secret: DescribeSecretOutput) -> Self {
        let time = |time: Option<_>| time.as_ref().and_then(sdk::timestamp);
        let mut stages = Self {
            arn: secret.arn,
            rotation_enabled: secret.rotation_enabled,
            created_at: time(secret.created_date),
            promoted_at: time(secret.last_changed_date),
            changed_at: time(secret.last_changed_date),
            next_rotation: time(secret.next_rotation_date),
            stages_by_version: secret.version_ids_to_stages.unwrap_or_default(),
        };
        // Secrets Manager changes the secret at the very start of its rotation, so the last change is not a promotion.
        // The time of a rollback since the last rotation is lost.
        if stages.rotation_enabled == Some(true) && stages.pending().is_some() {
            stages.promoted_at = time(secret.last_rotated_date);
        }
        stages
    }

    /// The version that consumers read.
    pub fn current(&self) -> Option<&str> {
        self.version_with(CURRENT)
    }

    /// The version that was current before.
    pub fn previous(&self) -> Option<&str> {
        self.version_with(PREVIOUS)
    }

    /// The version of a rotation under way. Secrets Manager leaves `AWSPENDING` on the version that its rotation made
    /// current, and the stage stays there when somebody puts another value. Such a version must not be promoted again.
    pub fn pending(&self) -> Option<&str> {
        self.version_with(PENDING)
            .filter(|version| self.is_first_rotation() || ![self.current(), self.previous()].contains(&Some(version)))
    }

    /// Whether the rotation under way is the secret's first. Secrets Manager attaches `AWSCURRENT` to the first version
    /// of a secret, whatever stages the request names, so that version is pending and current until its rotation ends.
    /// <https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_PutSecretValue.html>
    pub fn is_first_rotation(&self) -> bool {
        let pending = self.version_with(PENDING);
        pending.is_some() && pending == self.current() && self.previous().is_none()
    }

    /// The version that kept `AWSPENDING` after its rotation ended: it is or was current.
    pub fn pending_on_ended(&self) -> Option<&str> {
        self.version_with(PENDING).filter(|_| self.pending().is_none())
    }

    /// The previous version, if it kept `AWSPENDING`. Once another version became the previous one, this one would look
    /// like a rotation under way, and could be promoted again.
    pub fn stale_pending(&self) -> Option<&str> {
        self.pending_on_ended().filter(|version| self.current() != Some(version))
    }

    /// The versions with a label, and its times.
    pub fn times(&self, label: TimedLabel) -> impl Iterator<Item = (&str, Timestamp)> {
        let time = move |stage: &String| {
            let (microseconds, _) = stage.strip_prefix(label.prefix())?.split_once('_')?;
            Timestamp::from_microsecond(microseconds.parse().ok()?).ok()
        };
        let labelled = self.stages_by_version.iter();
        labelled.flat_map(move |(version, stages)| stages.iter().filter_map(time).map(|at| (version.as_str(), at)))
    }

    /// The last time that a version is labelled with.
    pub fn time_of(&self, label: TimedLabel, version: &str) -> Option<Timestamp> {
        self.times(label).filter(|(labelled, _)| *labelled == version).map(|(_, at)| at).max()
    }

    /// Whether a run has begun to deactivate or delete the version's key.
    pub fn is_ending(&self, version: &str) -> bool {
        [Label::Deactivating, Label::Deleting].into_iter().any(|label| self.labelled(label) == Some(version))
    }

    /// Whether a revocation has begun to end the version's credentials, or has ended them.
    pub fn is_revoked(&self, version: &str) -> bool {
        self.labelled(Label::Revoked) == Some(version) || self.time_of(TimedLabel::Revoking, version).is_some()
    }

    pub fn labelled(&self, label: Label) -> Option<&str> {
        self.version_with(label.name())
    }

    pub fn has(&self, version: &str) -> bool {
        self.stages_by_version.contains_key(version)
    }

    fn version_with(&self, stage: &str) -> Option<&str> {
        let found = self.stages_by_version.iter().find(|(_, stages)| stages.iter().any(|found| found == stage));
        found.map(|(version, _)| version.as_str())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use aws_smithy_types::DateTime;

    use super::super::sdk::replay::Replay;
    use super::*;

    const TEXT: &str = r#"{"SecretString":"text"}"#;
    const OTHER_TEXT: &str = r#"{"SecretString":"other"}"#;
    const FAILURE: (u16, &str) = (500, r#"{"__type":"InternalServiceError"}"#);
    const REFUSED: (u16, &str) = (400, r#"{"__type":"InvalidRequestException"}"#);
    const EXISTS: (u16, &str) = (400, r#"{"__type":"ResourceExistsException"}"#);
    const NOT_FOUND: (u16, &str) = (400, r#"{"__type":"ResourceNotFoundException"}"#);

    impl Stages {
        /// A secret with these versions and their stages.
        pub fn for_test(versions: &[(&str, &[&str])]) -> Self {
            let owned = |stages: &[&str]| stages.iter().map(|&stage| stage.to_owned()).collect();
            let stages_by_version = versions.iter().map(|&(version, stages)| (version.to_owned(), owned(stages)));
            Self { stages_by_version: stages_by_version.collect(), ..Self::default() }
        }
    }

    async fn put_pending(responses: &[(u16, &str)]) -> Result<(), (ErrorClass, bool)> {
        let aws = Replay::of(responses);
        let put = test_secret(&aws).staged().put_pending("version", Some(&"rotation".into()), &"text".into()).await;
        let request = &aws.requests()[0];
        assert!(
            request.contains("PutSecretValue") && request.contains(r#""VersionStages":["AWSPENDING"]"#),
            "{request}"
        );
        assert!(request.contains(r#""RotationToken":"rotation""#), "{request}");
        put.map_err(|not_staged| {
            assert!(!not_staged.error.is_retryable());
            assert!(not_staged.error.problem.ends_with(r#"for the secret "staged""#), "{}", not_staged.error);
            (not_staged.error.class, not_staged.may_be_staged)
        })
    }

    struct TestSecret {
        secrets_manager: SecretsManager,
        id: SecretId,
    }

    impl TestSecret {
        fn staged(&self) -> StagedSecret<'_> {
            self.secrets_manager.staged(&self.id, Deadline::after(Duration::from_secs(300)), &AwsRequests::default())
        }
    }

    fn test_secret(aws: &Replay) -> TestSecret {
        TestSecret { secrets_manager: SecretsManager::new(&aws.config()), id: "staged".to_owned().try_into().unwrap() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_is_staged_if_the_version_has_it_even_if_every_response_was_lost() {
        assert_eq!(put_pending(&[(200, "{}")]).await, Ok(()));
        let lost = [FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, (200, TEXT)];
        assert_eq!(put_pending(&lost).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_text_may_be_staged_only_if_no_response_says_otherwise() {
        assert_eq!(put_pending(&[FAILURE]).await, Err((ErrorClass::Unavailable, true)));
        let failed = [FAILURE, FAILURE, FAILURE, FAILURE, FAILURE, NOT_FOUND];
        assert_eq!(put_pending(&failed).await, Err((ErrorClass::Unavailable, false)));
        assert_eq!(put_pending(&[REFUSED, NOT_FOUND]).await, Err((ErrorClass::Configuration, false)));
        assert_eq!(put_pending(&[REFUSED, FAILURE]).await, Err((ErrorClass::Configuration, false)));
        assert_eq!(put_pending(&[EXISTS, (200, OTHER_TEXT)]).await, Err((ErrorClass::Conflict, false)));
    }

    #[tokio::test]
    async fn a_refused_move_has_succeeded_if_the_stage_is_where_it_should_be() {
        let described = r#"{"VersionIdsToStages":{"new":["AWSCURRENT"],"old":["AWSPREVIOUS"]}}"#;
        let aws = Replay::of(&[REFUSED, (200, described)]);
        assert!(test_secret(&aws).staged().promote("new", Some("old")).await.is_ok());
        let aws = Replay::of(&[REFUSED, (200, described)]);
        let moved = test_secret(&aws).staged().promote("newer", Some("old")).await.unwrap_err();
        assert!(moved.class == ErrorClass::Conflict && moved.problem.contains("another run has moved"), "{moved}");
        let aws = Replay::of(&[REFUSED, (200, described)]);
        let refused = test_secret(&aws).staged().promote("newer", Some("new")).await.unwrap_err();
        assert_eq!(refused.class, ErrorClass::Configuration, "the stage is where it was seen");
        let aws = Replay::of(&[REFUSED, (200, described)]);
        assert!(test_secret(&aws).staged().remove_pending("old").await.is_ok());
    }

    #[tokio::test]
    async fn a_label_moves_from_the_version_on_which_it_was_seen() {
        let aws = Replay::of(&[(200, "{}")]);
        let secret = test_secret(&aws);
        let secret = secret.staged();
        secret.move_label(Label::RolledBack, Some("left"), Some("left")).await.unwrap();
        assert_eq!(aws.requests().len(), 0, "it is there already");
        secret.move_label(Label::RolledBack, Some("left"), Some("before")).await.unwrap();
        let request = &aws.requests()[0];
        assert!(
            request.contains(r#""RemoveFromVersionId":"before""#) && request.contains(r#""MoveToVersionId":"left""#)
        );
    }

    #[tokio::test]
    async fn a_version_without_a_value_is_empty() {
        let aws = Replay::of(&[NOT_FOUND]);
        assert!(matches!(test_secret(&aws).staged().read("version").await, Ok(VersionValue::Empty)));
    }

    #[tokio::test]
    async fn a_binary_secret_and_one_that_may_not_be_read_say_what_to_do() {
        let id = "staged".to_owned().try_into().unwrap();
        for (response, class, remedy) in [
            ((200, r#"{"SecretBinary":"AAAA"}"#), ErrorClass::Configuration, "Store it as text"),
            ((400, r#"{"__type":"AccessDeniedException"}"#), ErrorClass::Permission, "kms:Decrypt"),
        ] {
            let secrets_manager = SecretsManager::new(&Replay::of(&[response]).config());
            let error = secrets_manager.current_text(&id, Deadline::after(Duration::from_secs(60))).await.unwrap_err();
            assert_eq!(error.class, class);
            assert!(error.remedy.contains(remedy) && error.problem.contains("the secret \"staged\""), "{error}");
        }
    }

    #[test]
    fn a_rotation_under_way_is_distinguished_from_a_stage_that_stayed() {
        let stages = |pending_on: &str| {
            let versions = [("old", PREVIOUS), ("now", CURRENT), ("new", "OTHER")];
            let staged = versions.map(|(version, stage)| (version, [stage, PENDING]));
            let only = staged
                .iter()
                .map(|(version, stages)| (*version, if *version == pending_on { &stages[..] } else { &stages[..1] }));
            Stages::for_test(&only.collect::<Vec<_>>())
        };
        for (pending_on, pending, on_ended, stale) in [
            ("new", Some("new"), None, None),
            ("now", None, Some("now"), None),
            ("old", None, Some("old"), Some("old")),
            ("none", None, None, None),
        ] {
            let stages = stages(pending_on);
            assert_eq!(
                (stages.pending(), stages.pending_on_ended(), stages.stale_pending()),
                (pending, on_ended, stale)
            );
        }
    }

    #[test]
    fn a_version_has_one_stage_in_a_rotation() {
        let stages = Stages::for_test(&[("both", &[CURRENT, PENDING]), ("old", &[PREVIOUS]), ("none", &[])]);
        assert_eq!((stages.current(), stages.pending()), (Some("both"), None));
        for (version, exists) in [("both", true), ("old", true), ("none", true), ("unknown", false)] {
            assert_eq!(stages.has(version), exists, "{version}");
        }
        let stages = Stages::for_test(&[("new", &[PENDING])]);
        assert_eq!((stages.current(), stages.pending()), (None, Some("new")));
    }

    #[test]
    fn during_a_rotation_by_secrets_manager_the_last_change_is_not_a_promotion() {
        let describe = |rotation_enabled: bool, stage: &str| {
            let output = DescribeSecretOutput::builder()
                .rotation_enabled(rotation_enabled)
                .last_changed_date(DateTime::from_secs(2_000))
                .last_rotated_date(DateTime::from_secs(1_000))
                .version_ids_to_stages("version", vec![stage.to_owned()]);
            Stages::new(output.build()).promoted_at.unwrap().as_second()
        };
        assert_eq!(describe(true, PENDING), 1_000);
        assert_eq!(describe(false, PENDING), 2_000);
        assert_eq!(describe(true, CURRENT), 2_000);
    }
}
