//! The IAM user's credentials: listed, made room for, and retired as `plan` says; it must never choose one itself.

use std::cell::{OnceCell, RefCell};

use aws_sdk_iam as iam;
use aws_sdk_iam::config::{Credentials as IamCredentials, SharedCredentialsProvider};
use secrecy::ExposeSecret;

use super::staged::{Contents, Staged};
use super::{ONCE, Rotation};
use crate::braintrust::layout::Holds;
use crate::config::{Kind, Standing, Target};
use crate::credentials::{Credentials, Secret};
use crate::deadline::Deadline;
use crate::error::{Error, Service};
use crate::mint;
use crate::plan::{self, Occupant, Retirement};
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
    /// Makes room if there is none, and mints. Begins again after a lost answer, whose credential makes room for the next.
    pub(super) async fn mint_into_a_free_slot(
        &self,
        standing: &Standing,
        report: &mut TargetReport,
    ) -> Result<Credentials, Error> {
        let (target, user) = (self.target, &standing.user_name);
        let iam = self.rotation.iam_for(target, standing, self.deadline).await?;
        let (before, gone) = (OnceCell::new(), RefCell::new(Vec::new()));
        let attempt = || async {
            let listed = list(&iam, target, user).await?;
            let before = before.get_or_init(|| listed.clone());
            let is_new = |found: &mint::Standing| before.iter().all(|known| known.id != found.id);
            if let Some(found) = self.in_the_way(standing, &listed, is_new).await.map_err(Error::repeated_enough)? {
                delete(&iam, target, user, &found.id).await?;
                gone.borrow_mut().push(found.id.clone());
            }
            self.rotation.mint(target, self.deadline).await
        };
        let minted = self.deadline.repeat_a_few_times(Service::Iam, "create", attempt).await;
        let deleted = |credential_id| Retired { credential_id, how: report::Retirement::Deleted };
        report.retired.extend(gone.into_inner().into_iter().map(deleted));
        minted
    }

    /// What is to be deleted, if there is no room: what Braintrust does not hold, before what it may hold.
    async fn in_the_way<'l>(
        &self,
        standing: &Standing,
        listed: &'l [mint::Standing],
        is_new: impl Fn(&mint::Standing) -> bool,
    ) -> Result<Option<&'l mint::Standing>, Error> {
        if listed.len() < plan::SLOTS {
            return Ok(None);
        }
        // Another run may have minted and staged since.
        let contents = self.read().await?;
        let is_current_dead = contents.is_current_dead(self.now(), self.target, listed);
        let mut held = None;
        for (occupant, found) in
            plan::in_the_way(self.now(), standing, &contents.names(), is_current_dead, listed, is_new)?
        {
            if matches!(occupant, Occupant::Dead | Occupant::New) {
                return Ok(Some(found));
            }
            match self.rotation.may_hold(self.target, found, self.deadline).await? {
                Holds::No => return self.is_unused(&found.id, &contents).await.map(|()| Some(found)),
                holds => held = held.or(Some((holds, found))),
            }
        }
        let Some((holds, found)) = held else { return Ok(None) };
        self.give_up(found, holds, is_current_dead, &contents).await.map(|()| Some(found))
    }

    /// Sees to it that Braintrust does not need what works and is to be deleted: a rotation or rollback that was cut off
    /// may have left it there. Where the current ones are dead, there is nothing better to give to it.
    async fn give_up(
        &self,
        found: &mint::Standing,
        holds: Holds,
        is_current_dead: bool,
        contents: &Contents,
    ) -> Result<(), Error> {
        let id = &found.id;
        match (is_current_dead, holds) {
            (true, Holds::Yes) => {
                let problem = format!("Braintrust holds {id}, and the current credentials are dead");
                Err(self.conflict(&problem, "Delete the IAM user's other one, if nothing uses it"))
            }
            (true, _) => self.is_unused(id, contents).await,
            (false, _) => {
                self.replace(found, holds, contents).await?;
                match holds {
                    Holds::Yes => Err(self.conflict(
                        &format!("Braintrust held {id} until now, when the current ones were put back"),
                        "Gateways keep it for some time, so it is deleted by a later run: try again",
                    )),
                    Holds::No | Holds::Perhaps => Ok(()),
                }
            }
        }
    }

    /// That took a while: another run may have staged it, or put it back. What it made current is given to Braintrust, which
    /// may just have got what was current before.
    async fn is_unused(&self, id: &str, contents: &Contents) -> Result<(), Error> {
        let (before, now) = (contents.names(), self.read().await?);
        let names = now.names();
        if names.current != before.current {
            Box::pin(self.set_current(&now)).await?;
        } else if !names.is_in_use(id) {
            return Ok(());
        }
        Err(self.conflict("another run has taken up what was to be retired", "Look at its report"))
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
            for (retirement, found) in plan::retirements(self.now(), standing, &names, &listed) {
                let how = match retirement {
                    Retirement::Delete => {
                        delete(&iam, target, user, &found.id).await?;
                        report::Retirement::Deleted
                    }
                    Retirement::Replace | Retirement::Deactivate => {
                        let holds = self.rotation.may_hold(target, found, self.deadline).await?;
                        self.replace(found, holds, &contents).await?;
                        if holds == Holds::Yes {
                            let warning = format!("Braintrust held {}; the current ones were put back", found.id);
                            report.warnings.push(warning);
                        }
                        // A gateway has it for some time from what Braintrust held until now: not in this tick, then.
                        if holds == Holds::Yes || retirement == Retirement::Replace {
                            continue;
                        }
                        deactivate(&iam, target, user, &found.id).await?;
                        report::Retirement::Deactivated
                    }
                };
                report.retired.push(Retired { credential_id: found.id.clone(), how });
            }
            Ok(())
        };
        self.deadline.bound(Service::Iam, "retire", all).await
    }

    /// Gives the current credentials to Braintrust if it may hold others that are to be retired, which a rotation or
    /// rollback that was cut off may have left there.
    async fn replace(&self, found: &mint::Standing, holds: Holds, contents: &Contents) -> Result<(), Error> {
        if holds != Holds::No {
            Box::pin(self.set_current(contents)).await?;
        }
        self.is_unused(&found.id, contents).await
    }

    /// Gives the current credentials to Braintrust again, if they work: before others go, and after a rotation that failed.
    pub(super) async fn set_current(&self, contents: &Contents) -> Result<(), Error> {
        let Some(current) = &contents.current else {
            let remedy = "Rotate, or put the value back that AWSCURRENT should have";
            return Err(self.conflict("AWSCURRENT holds no credentials to give to Braintrust", remedy));
        };
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
