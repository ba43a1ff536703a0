//! Spaces the calls to a data plane that answers 429, and narrows the spacing again with each success.
//!
//! Calls to a data plane that never answers 429 are never delayed. A limit on concurrent calls would not be enough,
//! because fast answers, one after another, exceed any rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::config::DataPlane;
use crate::deadline::Deadline;

/// The spacing after the first 429: 20 calls a second. A second of successes doubles that rate.
const FIRST_SPACING: Duration = Duration::from_millis(50);
/// With the widest spacing, a few targets still finish in an invocation.
const MAX_SPACING: Duration = Duration::from_secs(2);
/// A spacing below this makes no difference, so it is dropped.
const MIN_SPACING: Duration = Duration::from_millis(1);
/// A longer `Retry-After` is left to the throttled call's own retry, because it would stop every target.
const MAX_PAUSE: Duration = Duration::from_secs(5);

/// One rate limit for each data plane and API key, so that a throttled organization does not slow down the others. It
/// lasts as long as the function is warm.
#[derive(Debug, Default)]
pub struct RateLimits(Mutex<HashMap<DataPlane, Arc<RateLimit>>>);

impl RateLimits {
    pub fn of(&self, data_plane: &DataPlane) -> Arc<RateLimit> {
        let mut limits = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        limits.entry(data_plane.clone()).or_default().clone()
    }
}

#[derive(Debug, Default)]
pub struct RateLimit {
    /// Held by the call that is next, so that permits are given in the order in which calls ask for them.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    spacing: Duration,
    next_permit: Option<Instant>,
    slowed_at: Option<Instant>,
}

impl RateLimit {
    /// Waits until a call may be sent. Returns the time of the permit, or `None` if the deadline passes first.
    pub async fn permit(&self, deadline: Deadline) -> Option<Instant> {
        deadline.wait_for(self.next_permit()).await
    }

    async fn next_permit(&self) -> Instant {
        let _is_next = self.queue.lock().await;
        let next = || self.state().next_permit.filter(|next| *next > Instant::now());
        // In a loop, because a 429 during the sleep postpones the permit.
        while let Some(next) = next() {
            sleep_until(next).await;
        }
        let (now, mut state) = (Instant::now(), self.state());
        state.next_permit = Some(now + state.spacing);
        now
    }

    /// Narrows the spacing by 1/32 after a call that succeeded.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.spacing = state.spacing * 31 / 32;
        if state.spacing < MIN_SPACING {
            state.spacing = Duration::ZERO;
        }
    }

    /// After a 429, doubles the spacing, and gives no permit before `retry_after` has passed. Calls that were under way
    /// together double the spacing once: `permit` is when the throttled call got its permit.
    pub fn throttled(&self, permit: Instant, retry_after: Option<Duration>) {
        let (mut state, now) = (self.state(), Instant::now());
        if state.slowed_at.is_none_or(|slowed| permit > slowed) {
            state.spacing = (state.spacing * 2).clamp(FIRST_SPACING, MAX_SPACING);
            state.slowed_at = Some(now);
        }
        let pause = retry_after.unwrap_or_default().min(MAX_PAUSE).max(state.spacing);
        state.next_permit = state.next_permit.max(Some(now + pause));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::from_value;

    use super::*;

    async fn permit(limit: &RateLimit) -> Instant {
        limit.permit(Deadline::after(Duration::from_secs(300))).await.unwrap()
    }

    /// How long it takes to get this number of permits, one after another.
    async fn permits(limit: &RateLimit, count: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            permit(limit).await;
        }
        start.elapsed()
    }

    async fn throttled_once() -> RateLimit {
        let limit = RateLimit::default();
        let permit = permit(&limit).await;
        limit.throttled(permit, None);
        limit
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_is_delayed_without_a_429() {
        let limit = RateLimit::default();
        limit.succeeded();
        assert_eq!(permits(&limit, 1_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_throttled_together_slow_down_once() {
        let limit = RateLimit::default();
        let (one, other) = (permit(&limit).await, permit(&limit).await);
        limit.throttled(one, None);
        limit.throttled(other, None);
        assert_eq!(permits(&limit, 20).await.as_secs_f64().round(), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_429_doubles_the_spacing() {
        let limit = RateLimit::default();
        for slower in [1, 2, 4, 8] {
            let permit = permit(&limit).await;
            tokio::time::advance(Duration::from_millis(1)).await;
            limit.throttled(permit, None);
            assert_eq!(limit.state().spacing, FIRST_SPACING * slower);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_stops_all_calls_but_not_for_long() {
        for (asked, waited) in [(3, 3), (u64::MAX, 5)] {
            let limit = RateLimit::default();
            let permit = permit(&limit).await;
            limit.throttled(permit, Some(Duration::from_secs(asked)));
            assert_eq!(permits(&limit, 1).await, Duration::from_secs(waited));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_while_a_call_waits_postpones_its_permit() {
        let limit = throttled_once().await;
        let pause = async { limit.throttled(Instant::now(), Some(Duration::from_secs(5))) };
        let waited = futures_util::future::join(permits(&limit, 1), pause).await.0;
        assert_eq!(waited, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_narrows_the_spacing_a_little() {
        let limit = throttled_once().await;
        for _ in 0..22 {
            limit.succeeded(); // (31/32)^22 is a half
        }
        assert_eq!(limit.state().spacing.as_millis(), FIRST_SPACING.as_millis() / 2 - 1);
    }

    #[tokio::test(start_paused = true)]
    async fn successes_end_the_spacing() {
        let limit = throttled_once().await;
        for _ in 0..200 {
            limit.succeeded();
        }
        permits(&limit, 2).await; // The time of the first was fixed before.
        assert_eq!(permits(&limit, 100).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_gets_no_permit_before_the_deadline_is_told_so() {
        let limit = RateLimit::default();
        for _ in 0..9 {
            let permit = permit(&limit).await;
            tokio::time::advance(Duration::from_millis(1)).await;
            limit.throttled(permit, None);
        }
        assert_eq!(limit.state().spacing, MAX_SPACING);
        let deadline = Deadline::after(Duration::from_secs(21)); // One of these seconds is kept for the report.
        let all = futures_util::future::join_all((0..32).map(|_| limit.permit(deadline))).await;
        assert_eq!(all.iter().flatten().count(), 10, "one every two seconds, for twenty seconds");
    }

    #[test]
    fn each_data_plane_and_api_key_has_a_rate_limit_of_its_own() {
        let data_plane = |url: &str, secret: &str| DataPlane {
            api_url: url.parse().unwrap(),
            api_key_secret_id: from_value(secret.into()).unwrap(),
        };
        let (limits, here) = (RateLimits::default(), "https://api.braintrust.dev");
        let of = |url, secret| limits.of(&data_plane(url, secret));
        assert!(Arc::ptr_eq(&of(here, "key"), &of(here, "key")));
        assert!(!Arc::ptr_eq(&of(here, "key"), &of(here, "other")));
        assert!(!Arc::ptr_eq(&of(here, "key"), &of("https://api-eu.braintrust.dev", "key")));
    }
}
