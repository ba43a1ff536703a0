//! The IAM user's credentials: listed, made room for, and retired as `plan` says; it must never choose one itself.

use std::cell::RefCell;

use aws_sdk_iam as iam;
use aws_sdk_iam::config::{Credentials as IamCredentials, SharedCredentialsProvider};
use secrecy::ExposeSecret;

use super::staged::{Contents, Staged, known};
use super::{ONCE, Rotation};
use crate::config::{Kind, Standing, Target};
use crate::credentials::{Credentials, Secret};
use crate::deadline::Deadline;
use crate::error::{Cause, Error, Service};
use crate::mint;
use crate::plan::{self, Retirement};
use crate::report::{self, Retired, TargetReport};

impl Rotation {
    /// IAM, as the function's own role or as the one that may manage the user.
    pub(super) async fn iam_for(
        &self,
        target: &Target,
        standing: &Standing,
        deadline: Deadline,
    ) -> Result<iam::Client, Error> {
        let Some(role) = &standing.role else { return Ok(self.iam.clone()) };
        let session = mint::temporary::mint(&self.sts, role, &target.name, (self.clock)(), deadline).await?;
        let Secret::AccessKey { secret_access_key, session_token } = &session.secret else {
            return Ok(self.iam.clone());
        };
        // Security: exposed to the SDK, which keeps them in zeroized memory.
        let credentials = IamCredentials::new(
            &session.id,
            secret_access_key.expose_secret(),
            session_token.as_ref().map(|token| token.expose_secret().to_owned()),
            None,
            "assumed",
        );
        let provider = SharedCredentialsProvider::new(credentials);
        Ok(iam::Client::from_conf(self.iam.config().to_builder().credentials_provider(provider).build()))
    }

    /// The IAM user's credentials of the target's kind; none for kinds that expire by themselves.
    pub(super) async fn list(&self, target: &Target, deadline: Deadline) -> Result<Vec<mint::Standing>, Error> {
        let Some(standing) = target.kind.standing() else { return Ok(Vec::new()) };
        let iam = self.iam_for(target, standing, deadline).await?;
        deadline.bound(Service::Iam, "list", list(&iam, target, &standing.user_name)).await
    }

    /// Deletes what could not be staged. If that fails too, it is an orphan, and retired later.
    pub(super) async fn discard(
        &self,
        target: &Target,
        credentials: &Credentials,
        report: &mut TargetReport,
        deadline: Deadline,
    ) {
        let Some(standing) = target.kind.standing() else { return };
        let discard = async {
            let iam = self.iam_for(target, standing, deadline).await?;
            delete(&iam, target, &standing.user_name, &credentials.id).await
        };
        if deadline.bound(Service::Iam, "delete", discard).await.is_err() {
            report.warnings.push(format!("{} could not be staged nor deleted; it is retired later", credentials.id));
        }
    }
}

impl Staged<'_> {
    /// Makes room if there is none, and mints. Begins again after a lost answer, whose credential is an orphan then, and
    /// makes room for the next.
    pub(super) async fn mint_into_a_free_slot(
        &self,
        standing: &Standing,
        contents: &Contents,
        report: &mut TargetReport,
    ) -> Result<Credentials, Error> {
        let (rotation, target, user) = (self.rotation, self.target, &standing.user_name);
        let iam = rotation.iam_for(target, standing, self.deadline).await?;
        let gone = RefCell::new(Vec::new());
        let attempt = || async {
            let listed = list(&iam, target, user).await?;
            if listed.len() >= plan::SLOTS {
                // Another run may have minted and staged since.
                let names = self.read().await?.names();
                if let Some(id) = plan::in_the_way(self.now(), standing, &names, &listed)? {
                    if !names.is_previous(&id) {
                        self.give_up(&id, contents, &listed).await.map_err(Error::repeated_enough)?;
                    }
                    delete(&iam, target, user, &id).await?;
                    gone.borrow_mut().push(id);
                }
            }
            rotation.mint(target, self.deadline).await
        };
        let minted = self.deadline.repeat_a_few_times(Service::Iam, "create", attempt).await;
        let deleted = |credential_id| Retired { credential_id, how: report::Retirement::Deleted };
        report.retired.extend(gone.into_inner().into_iter().map(deleted));
        minted
    }

    /// Sees to it that Braintrust does not need an orphan, which a rotation that was cut off may have left there. If the
    /// current ones are dead, there is nothing better to give to it.
    async fn give_up(&self, id: &str, contents: &Contents, listed: &[mint::Standing]) -> Result<(), Error> {
        let is_dead = |current| plan::is_dead(self.now(), self.target, &known(current), listed);
        if !contents.current.as_ref().is_none_or(is_dead) {
            match Box::pin(self.set_current(contents)).await {
                Err(dead) if (dead.service, dead.cause) == (Service::Bedrock, Cause::InvalidCredentials) => {}
                set => set?,
            }
        }
        self.is_unused(id).await
    }

    /// That took a while: another run may have staged it, or put it back.
    async fn is_unused(&self, id: &str) -> Result<(), Error> {
        match self.read().await?.names().is_in_use(id) {
            true => Err(self.conflict("another run has taken up what was to be retired", "Look at its report")),
            false => Ok(()),
        }
    }

    /// Retires what nothing uses, by what the secret names now, as far as it goes.
    pub(super) async fn retire(&self, report: &mut TargetReport) -> Result<(), Error> {
        let Some(standing) = self.target.kind.standing() else { return Ok(()) };
        let (target, user) = (self.target, &standing.user_name);
        let contents = self.read().await?;
        let names = contents.names();
        let all = async {
            let iam = self.rotation.iam_for(target, standing, self.deadline).await?;
            let listed = list(&iam, target, user).await?;
            for retirement in plan::retirements(self.now(), standing, &names, &listed) {
                let (id, how) = match retirement {
                    Retirement::Deactivate(id) => {
                        // A rotation or rollback that was cut off may have left it with Braintrust.
                        Box::pin(self.set_current(&contents)).await?;
                        self.is_unused(&id).await?;
                        deactivate(&iam, target, user, &id).await?;
                        (id, report::Retirement::Deactivated)
                    }
                    Retirement::Delete(id) => {
                        delete(&iam, target, user, &id).await?;
                        (id, report::Retirement::Deleted)
                    }
                };
                report.retired.push(Retired { credential_id: id, how });
            }
            Ok(())
        };
        self.deadline.bound(Service::Iam, "retire", all).await
    }

    /// Gives the current credentials to Braintrust again, if they work: before an orphan goes, which a rotation that was
    /// cut off may have left there, and after a rotation that failed.
    pub(super) async fn set_current(&self, contents: &Contents) -> Result<(), Error> {
        let Some(current) = &contents.current else { return Ok(()) };
        if !plan::lasts(self.now(), current.expires_at) {
            return Err(self.conflict("the current credentials have ended", "The next rotation replaces them"));
        }
        self.rotation.prove(self.target, current, ONCE, self.deadline).await?;
        self.set(current, &mut TargetReport::new(self.target)).await
    }
}

impl Rotation {
    /// Activates a credential that was retired but not deleted yet.
    pub(super) async fn activate(&self, target: &Target, id: &str, deadline: Deadline) -> Result<(), Error> {
        let Some(standing) = target.kind.standing() else { return Ok(()) };
        let activate = async {
            let iam = self.iam_for(target, standing, deadline).await?;
            match target.kind {
                Kind::LongTermApiKey { .. } => mint::long_term_api_key::activate(&iam, &standing.user_name, id).await,
                _ => mint::access_key::activate(&iam, &standing.user_name, id).await,
            }
        };
        deadline.bound(Service::Iam, "activate", activate).await
    }
}

async fn list(iam: &iam::Client, target: &Target, user: &str) -> Result<Vec<mint::Standing>, Error> {
    match target.kind {
        Kind::LongTermApiKey { .. } => mint::long_term_api_key::list(iam, user).await,
        _ => mint::access_key::list(iam, user).await,
    }
}

async fn deactivate(iam: &iam::Client, target: &Target, user: &str, id: &str) -> Result<(), Error> {
    match target.kind {
        Kind::LongTermApiKey { .. } => mint::long_term_api_key::deactivate(iam, user, id).await,
        _ => mint::access_key::deactivate(iam, user, id).await,
    }
}

async fn delete(iam: &iam::Client, target: &Target, user: &str, id: &str) -> Result<(), Error> {
    match target.kind {
        Kind::LongTermApiKey { .. } => mint::long_term_api_key::delete(iam, user, id).await,
        _ => mint::access_key::delete(iam, user, id).await,
    }
}
