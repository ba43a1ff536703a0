//! Tries what a rotation would need, for `check`; it must never write anywhere, nor mint what does not expire.

use futures_util::future::join;

use super::places::Found;
use super::staged::{Contents, TOO_SLOW};
use super::{ONCE, Rotation};
use crate::braintrust::layout;
use crate::check::{self, Line, TargetCheck};
use crate::config::{AssumeRole, Kind, Standing, Target};
use crate::credentials::Credentials;
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::iam::{self, Simulation};
use crate::mint;
use crate::plan;

const CURRENT: &str = "current";

const REPLACE: &str =
    "Rotate now; where Secrets Manager rotates, by: aws secretsmanager rotate-secret --secret-id <secret>";

impl Rotation {
    /// One target, a line for each thing.
    pub async fn check(&self, target: &Target, schedule: Option<&str>, deadline: Deadline) -> TargetCheck {
        let contents = async {
            match &target.secret_id {
                Some(id) => Some(self.staged(target, id, None, deadline).read().await),
                None => None,
            }
        };
        let (contents, places) = join(contents, self.find_all(target, deadline)).await;
        let current = contents.as_ref().and_then(|contents| contents.as_ref().ok()?.current.as_ref());
        let (credentials, permissions) = match &target.kind {
            Kind::Temporary(role) | Kind::ShortTermApiKey(role) => {
                (self.check_role(target, role, deadline).await, vec![])
            }
            Kind::AccessKey(standing) | Kind::LongTermApiKey { standing, .. } => {
                let read = contents.as_ref().and_then(|contents| contents.as_ref().ok());
                join(
                    self.check_user(target, standing, current, read, deadline),
                    self.check_permissions(target, standing, deadline),
                )
                .await
            }
        };
        let mut lines = of_braintrust(&places);
        lines.extend(of_the_secret(target, contents.as_ref()));
        lines.extend(credentials);
        lines.extend(permissions);
        lines.extend(check::schedule(target, schedule));
        TargetCheck::new(target, lines)
    }

    /// For kinds that expire: a session is made, as at every tick, and tried.
    async fn check_role(&self, target: &Target, role: &AssumeRole, deadline: Deadline) -> Vec<Line> {
        let what = format!("assume the role {}", role.role_arn);
        let minted = self.mint(target, deadline).await;
        let mut lines = vec![Line::of(what, &minted)];
        if let Ok(credentials) = &minted {
            lines.push(self.check_bedrock(target, credentials, "new", deadline).await);
        }
        lines
    }

    /// For standing kinds: the user's credentials, the room for another, and whether the current one works.
    async fn check_user(
        &self,
        target: &Target,
        standing: &Standing,
        current: Option<&Credentials>,
        read: Option<&Contents>,
        deadline: Deadline,
    ) -> Vec<Line> {
        let mut lines = Vec::new();
        if let Some(role) = &standing.role {
            let session = mint::temporary::mint(&self.sts, role, &target.name, (self.clock)(), deadline).await;
            lines.push(Line::of(format!("assume the role {}", role.role_arn), &session));
            if session.is_err() {
                return lines;
            }
        }
        let listed = self.list(target, deadline).await;
        lines.push(Line::of(format!("list the credentials of the IAM user {}", standing.user_name), &listed));
        if let (Ok(listed), Some(contents)) = (&listed, read) {
            let (now, names) = ((self.clock)(), contents.names());
            let what = format!("room for another credential ({} of 2 are there)", listed.len());
            let is_in_overlap = names.overlap_ends_at(standing).is_some_and(|end| now < end);
            let is_dead = contents.is_current_dead(now, target, listed);
            let is_under_way = listed.iter().any(|found| names.pending.as_ref() == Some(&found.id));
            lines.push(match plan::in_the_way(now, standing, &names, is_dead, listed, |_| false) {
                _ if is_under_way => Line::ok("the rotation that is under way has its credential"),
                // The schedule waits for its end.
                Err(error) if is_in_overlap => Line::warning(what, error.remedy),
                room => Line::of(what, &room),
            });
        }
        match current {
            Some(current) => lines.push(self.check_bedrock(target, current, CURRENT, deadline).await),
            None => lines
                .push(Line::untold("the current credentials call Bedrock", "there are none before the first rotation")),
        }
        lines
    }

    async fn check_bedrock(&self, target: &Target, credentials: &Credentials, which: &str, deadline: Deadline) -> Line {
        let what = format!("the {which} credentials ({}) call Bedrock in {}", credentials.id, target.region);
        let proven = self.prove(target, credentials, ONCE, deadline).await;
        Line::of(
            what,
            &proven.map_err(|error| match (error.cause, which) {
                (Cause::InvalidCredentials, CURRENT) => error.with_remedy(REPLACE.to_owned()),
                _ => error,
            }),
        )
    }

    /// What cannot be tried without doing it, IAM is asked to simulate: service control policies are looked at too.
    async fn check_permissions(&self, target: &Target, standing: &Standing, deadline: Deadline) -> Vec<Line> {
        let what = format!("make and retire credentials of the IAM user {}", standing.user_name);
        if standing.role.is_some() {
            return vec![Line::untold(what, "the role_arn may do it or not: a rotation tells")];
        }
        let simulated = deadline.bound(Service::Iam, iam::SIMULATE, async {
            let caller = iam::caller(&self.sts).await?;
            let actions = match target.kind {
                Kind::LongTermApiKey { age_days, .. } => Simulation::of_api_keys(age_days),
                _ => Simulation::of_access_keys(),
            };
            actions.run(&self.iam, &caller, &standing.user_name).await
        });
        match simulated.await {
            Ok(denied) if denied.is_empty() => vec![Line::ok(what)],
            Ok(denied) => denied.into_iter().map(|error| Line::of(what.clone(), &Err::<(), _>(error))).collect(),
            Err(error) if error.cause == Cause::Permission => {
                let note = "allow iam:SimulatePrincipalPolicy on the function's own role to be told before a rotation";
                vec![Line::untold(what, note)]
            }
            Err(error) => vec![Line::untold(what, error.to_string())],
        }
    }
}

fn of_braintrust(places: &[Found<'_>]) -> Vec<Line> {
    let mut lines = Vec::new();
    for (configured, place) in places {
        lines.push(Line::of(format!("find the ai_secret {} and its layout", configured.lookup), place));
        let Ok(place) = place else { continue };
        let warnings = layout::warnings(place.layout, &place.before);
        lines.extend(
            warnings.into_iter().map(|note| Line::warning(format!("the ai_secret {}", configured.lookup), note)),
        );
        lines.push(Line::untold(
            format!("update the ai_secret {}", configured.lookup),
            "reading does not tell whether the API key is an organization admin's: a rotation answers 403 if it is not",
        ));
    }
    lines
}

fn of_the_secret(target: &Target, contents: Option<&Result<Contents, Error>>) -> Vec<Line> {
    let (Some(contents), Some(id)) = (contents, &target.secret_id) else { return Vec::new() };
    let mut lines = vec![Line::of(format!("read the secret {id}"), contents)];
    let Ok(contents) = contents else { return lines };
    let note = "reading does not tell whether the function may write it: secretsmanager:PutSecretValue, \
                UpdateSecretVersionStage, and kms:GenerateDataKey with a key of your own";
    lines.push(Line::untold(format!("write the secret {id}"), note));
    if contents.description.rotation_enabled == Some(true) && target.kind.standing().is_none() {
        let error = Error::new(Cause::Conflict, Service::SecretsManager, "rotation", "it is turned on", TOO_SLOW);
        lines.push(Line::of(format!("the rotation of the secret {id}"), &Err::<(), _>(error)));
    }
    if contents.description.pending().is_some() {
        let note = "a rotation was begun and has not ended: the next tick (or Secrets Manager) goes on with it";
        lines.push(Line::warning(format!("the rotation of the secret {id}"), note));
    }
    lines
}
