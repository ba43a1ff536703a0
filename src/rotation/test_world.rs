//! IAM, STS, Secrets Manager, Bedrock and Braintrust in memory, behind one local HTTP server that the function's real
//! clients call.
//!
//! The tests pause tokio's clock. [`World::run`] serves the calls, and advances the clock while there are none: a
//! minute of retries takes a few milliseconds, and no call times out on a slow machine.

mod answers;
mod state;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use tokio::time::Instant;

pub use self::state::State;
use super::staged_run::StagedRun;
use super::target_run::TargetRun;
use crate::aws::bedrock::{Bedrock, Endpoints};
use crate::aws::iam_keys::Iam;
use crate::aws::s3::S3;
use crate::aws::sdk;
use crate::aws::secrets_manager::SecretsManager;
use crate::aws::sts::Sts;
use crate::braintrust::test_server;
use crate::config::{
    AssumeRole, Destination, Lookup, ProjectLookup, ProviderLookup, Source, Target, UserBasedKind, for_test,
};
use crate::deadline::Deadline;
use crate::event::Origin;
use crate::services::Services;

/// How a call goes wrong.
#[derive(Clone, Copy)]
pub enum Fault {
    Status(u16),
    /// AWS's error code.
    Code(&'static str),
    /// 429 with a `Retry-After`, in seconds.
    Throttled(u16),
    /// The connection is closed before anything is done.
    LostRequest,
    /// The connection is closed after the call was carried out.
    LostResponse,
    /// The call succeeds and shows the state before it, but nothing is done.
    Ignored,
    /// The call is carried out, and shows the state before it.
    StaleResponse,
    /// Only one field of a PATCH is carried out: `secret` (a project's `value`) or `metadata`.
    OnlyField(&'static str),
}

enum Effect {
    Fault(Fault),
    Change(Box<dyn FnMut(&mut State) + Send>),
}

/// What happens at `times` of the calls named `call`, after the first `skip`.
struct Event {
    call: &'static str,
    skip: usize,
    times: usize,
    effect: Effect,
}

struct Inner {
    state: State,
    /// Such as `DeleteAccessKey AKIAOLD` and `PATCH 1`, in order.
    calls: Vec<String>,
    events: Vec<Event>,
}

pub struct World {
    pub services: Services,
    pub target: Target,
    listener: Arc<TcpListener>,
    inner: Arc<Mutex<Inner>>,
}

const LABELS: [&str; 5] = ["PROMOTED_", "RESTORING_", "RESTORED_", "DEACTIVATING", "DELETING"];

/// The time at which all tests start.
pub fn now() -> Timestamp {
    Timestamp::from_second(1_768_478_400).unwrap()
}

thread_local! {
    static START: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// The function's clock, which advances with tokio's.
fn clock() -> Timestamp {
    let waited = START.get().map_or(Duration::ZERO, |start| start.elapsed());
    now() + SignedDuration::try_from(waited).unwrap()
}

pub fn in_hours(hours: i64) -> Timestamp {
    now() + SignedDuration::from_hours(hours)
}

impl World {
    /// An IAM user's access key, rotated after 30 days, with an overlap of one hour.
    pub async fn with_access_keys() -> Self {
        Self::new(for_test::user_based("user")).await
    }

    /// The same with a Bedrock API key that expires after 90 days.
    pub async fn with_api_keys() -> Self {
        let mut target = for_test::user_based("user");
        if let Source::UserBased(source) = &mut target.source {
            source.kind = UserBasedKind::LongTermApiKey { credential_age_days: 90 };
        }
        Self::new(target).await
    }

    /// The temporary credentials of a role.
    pub async fn with_a_role() -> Self {
        Self::new(for_test::role_based("role")).await
    }

    /// The same, staged in a secret.
    pub async fn with_a_staged_role() -> Self {
        let mut target = for_test::role_based("role");
        if let Source::RoleBased(source) = &mut target.source {
            source.secret_id = Some("staged".to_owned().try_into().unwrap());
        }
        Self::new(target).await
    }

    /// The function may end the sessions of the target's role.
    pub fn with_revocable_sessions(mut self) -> Self {
        let Source::RoleBased(source) = &mut self.target.source else { panic!("there is no role") };
        source.revoke_sessions = true;
        self
    }

    async fn new(mut target: Target) -> Self {
        let inner = Inner { state: State::new(&target), calls: Vec::new(), events: Vec::new() };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        for destination in &mut target.destinations {
            destination.data_plane.api_url = url.clone();
        }
        START.set(Some(Instant::now()));
        let http = crate::http::client(None, None).unwrap();
        let aws = sdk::config_for_test(http.clone(), url.as_str());
        let services = Services {
            sts: Sts::new(http.clone(), aws.clone(), clock),
            iam: Iam::new(&aws),
            secrets_manager: SecretsManager::new(&aws),
            s3: S3 { http: http.clone(), config: aws, endpoint: None, clock },
            bedrock: Bedrock {
                http: http.clone(),
                endpoints: Endpoints { control: Some(url), ..Endpoints::default() },
                clock,
            },
            braintrust_http: http,
            api_keys: Default::default(),
            rate_limits: Default::default(),
            clock,
        };
        let world = Self { services, target, listener: Arc::new(listener), inner: Arc::new(Mutex::new(inner)) };
        world.add_destination_of(1);
        world
    }

    /// The target gets as many destinations.
    pub fn with_destinations(mut self, count: u128) -> Self {
        for number in 2..=count {
            let first = &self.target.destinations[0];
            self.target.destinations.push(Destination {
                lookup: Lookup::Id(state::id(number)),
                data_plane: first.data_plane.clone(),
                layout: first.layout,
                earlier_claims: first.earlier_claims,
            });
            self.add_destination_of(number);
        }
        self
    }

    /// The destinations are a project's providers instead of `ai_secret`s.
    pub fn in_a_project(mut self) -> Self {
        for destination in &mut self.target.destinations {
            let provider = ProviderLookup::Id(destination.lookup.id().unwrap());
            destination.lookup = Lookup::InProject { project: ProjectLookup::Id(state::PROJECT), provider };
        }
        self.state().move_to_a_project();
        self
    }

    fn add_destination_of(&self, number: u128) {
        self.state().add_ai_secret(number);
    }

    /// Another role manages the IAM user.
    pub fn with_role_for_the_user(mut self) -> Self {
        let Source::UserBased(source) = &mut self.target.source else { panic!("there is no user") };
        source.role = Some(AssumeRole {
            role_arn: "arn:aws:iam::123456789012:role/keys".to_owned().try_into().unwrap(),
            external_id: None,
            source_identity: None,
            session_tags: Default::default(),
            duration_seconds: 900,
            session_policy: None,
        });
        self
    }

    /// The target asks for the proof through Braintrust.
    pub fn with_the_proof(mut self) -> Self {
        self.target.end_to_end = serde_json::from_value(serde_json::json!({"model": "model"})).unwrap();
        self
    }

    /// Changes the state before the test.
    pub fn given(self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.state());
        self
    }

    /// The call fails once.
    pub fn once(self, call: &'static str, fault: Fault) -> Self {
        self.add(call, 0, 1, Effect::Fault(fault))
    }

    /// The call fails whenever it is made.
    pub fn always(self, call: &'static str, fault: Fault) -> Self {
        self.add(call, 0, usize::MAX, Effect::Fault(fault))
    }

    /// The call fails `count` times.
    pub fn times(self, count: usize, call: &'static str, fault: Fault) -> Self {
        self.add(call, 0, count, Effect::Fault(fault))
    }

    /// The call fails from the nth time on.
    pub fn from(self, call: &'static str, nth: usize, fault: Fault) -> Self {
        self.add(call, nth - 1, usize::MAX, Effect::Fault(fault))
    }

    /// Another run acts just before the call is carried out for the nth time.
    pub fn before(self, call: &'static str, nth: usize, change: impl FnMut(&mut State) + Send + 'static) -> Self {
        self.add(call, nth - 1, 1, Effect::Change(Box::new(change)))
    }

    fn add(self, call: &'static str, skip: usize, times: usize, effect: Effect) -> Self {
        self.inner.lock().unwrap().events.push(Event { call, skip, times, effect });
        self
    }

    /// From now on, nothing goes wrong.
    pub fn settle(&self) {
        self.inner.lock().unwrap().events.clear();
    }

    pub fn state(&self) -> impl std::ops::DerefMut<Target = State> {
        Guard(self.inner.lock().unwrap())
    }

    /// The calls since the start, or since they were taken.
    pub fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.inner.lock().unwrap().calls)
    }

    pub fn calls(&self) -> Vec<String> {
        self.inner.lock().unwrap().calls.clone()
    }

    /// How often a call was made.
    pub fn count(&self, call: &str) -> usize {
        self.calls().iter().filter(|made| is_of(made, call)).count()
    }

    /// The calls that change something other than the labels that announce a change to other runs.
    pub fn changes(&self) -> Vec<String> {
        let moved = |made: &String| made.strip_prefix("UpdateSecretVersionStage ").map(str::to_owned);
        let is_label = |made: &String| moved(made).is_some_and(|it| LABELS.iter().any(|label| it.starts_with(label)));
        self.changes_and_labels().into_iter().filter(|made| !is_label(made)).collect()
    }

    /// [`Self::changes_and_labels`], without the times in labels.
    pub fn changes_without_times(&self) -> Vec<String> {
        let is_no_time = |part: &&str| part.parse::<i64>().is_err();
        let without = |made: String| made.split('_').filter(is_no_time).collect::<Vec<_>>().join("_");
        self.changes_and_labels().into_iter().map(without).collect()
    }

    /// The calls that change something.
    pub fn changes_and_labels(&self) -> Vec<String> {
        const READ_ONLY: [&str; 9] = [
            "COMPLETION",
            "DescribeSecret",
            "GetSecretValue",
            "ListAccessKeys",
            "ListServiceSpecificCredentials",
            "ListFoundationModels",
            "AssumeRole",
            "GetRolePolicy",
            "GET",
        ];
        self.calls().into_iter().filter(|made| !READ_ONLY.iter().any(|call| is_of(made, call))).collect()
    }

    pub fn target_run(&self) -> TargetRun<'_> {
        TargetRun::new(&self.services, &self.target, Origin::Schedule, Deadline::after(Duration::from_secs(300)))
    }

    pub fn staged_run(&self) -> StagedRun<'_> {
        StagedRun::new(self.target_run(), self.target.secret_id().unwrap(), None)
    }

    /// Does `work` while its calls are served and time passes.
    pub async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            never = self.serve() => match never {},
            result = Box::pin(work) => result,
        }
    }

    /// Serves the calls one by one, in a blocking task, because tokio does not advance a paused clock by itself while
    /// there is one. When no call comes, the clock advances, only a little at first, because the work may be busy
    /// between two calls.
    async fn serve(&self) -> Infallible {
        const SHORTEST: Duration = Duration::from_millis(1);
        let mut step = SHORTEST;
        loop {
            let (listener, inner) = (self.listener.clone(), self.inner.clone());
            if tokio::task::spawn_blocking(move || serve_one(&listener, &inner)).await.unwrap() {
                step = SHORTEST;
            } else {
                tokio::time::advance(step).await;
                step = (step * 2).min(Duration::from_millis(500));
            }
        }
    }
}

/// Serves a call, if there is one or one comes soon.
fn serve_one(listener: &TcpListener, inner: &Mutex<Inner>) -> bool {
    let Ok((stream, _)) = listener.accept().or_else(|_| {
        std::thread::sleep(Duration::from_micros(200));
        listener.accept()
    }) else {
        return false;
    };
    stream.set_nonblocking(false).unwrap();
    test_server::serve(stream, |received| inner.lock().unwrap().answer(received));
    true
}

struct Guard<'a>(MutexGuard<'a, Inner>);

impl std::ops::Deref for Guard<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0.state
    }
}

impl std::ops::DerefMut for Guard<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.0.state
    }
}

/// Whether a recorded call is `call`, whatever it acted on.
fn is_of(made: &str, call: &str) -> bool {
    made.strip_prefix(call).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
}
