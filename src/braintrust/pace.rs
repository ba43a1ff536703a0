//! Spaces the calls to a data plane that says 429, and less and less once it does not; it must never hold back one that never said so.
//!
//! Bounding the calls under way would not do: one after another, fast answers exceed any rate.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use reqwest::Url;
use tokio::time::{Instant, sleep_until};

use crate::deadline::Deadline;

/// Between two calls after the first 429: 20 a second, which a second of successes doubles.
const FIRST: Duration = Duration::from_millis(50);

/// The slowest: a few targets still get through in an invocation.
const SLOWEST: Duration = Duration::from_secs(2);

/// Less than this between two calls holds nothing back any more.
const LEAST: Duration = Duration::from_millis(1);

/// A longer `Retry-After` is the one call's own to wait for: it would stop every target.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A pace for each data plane and API key: one organization that is throttled does not slow down the others.
#[derive(Debug, Default)]
pub struct Paces(Mutex<HashMap<(Url, String), Arc<Pace>>>);

impl Paces {
    /// That of the data plane at `api_url`, with the API key in the secret `api_key_secret_id`.
    pub fn of(&self, api_url: &Url, api_key_secret_id: &str) -> Arc<Pace> {
        let mut paces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        paces.entry((api_url.clone(), api_key_secret_id.to_owned())).or_default().clone()
    }
}

/// The pace of one data plane's calls with one API key, for as long as the function is warm.
#[derive(Debug)]
pub struct Pace {
    /// Held by the call whose turn is next, so that turns come in the order in which they were asked for.
    queue: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    between: Duration,
    next: Instant,
    slowed_at: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        let state = State { between: Duration::ZERO, next: Instant::now(), slowed_at: None };
        Self { queue: tokio::sync::Mutex::default(), state: Mutex::new(state) }
    }
}

impl Pace {
    /// Waits for a call's turn; answers when that was, or `None` if it did not come in time.
    pub async fn turn(&self, deadline: Deadline) -> Option<Instant> {
        deadline.wait_for(self.next_turn()).await
    }

    async fn next_turn(&self) -> Instant {
        let _first = self.queue.lock().await;
        loop {
            let (now, next) = (Instant::now(), self.state().next);
            if next <= now {
                let mut state = self.state();
                state.next = now + state.between;
                return now;
            }
            // A 429 meanwhile moves the turn further away.
            sleep_until(next).await;
        }
    }

    /// After a success: a thirty-second part less between two calls.
    pub fn succeeded(&self) {
        let mut state = self.state();
        state.between = state.between * 31 / 32;
        if state.between < LEAST {
            state.between = Duration::ZERO;
        }
    }

    /// After a 429 to the call that had its turn at `turn`: twice the time between two calls, and none before
    /// `retry_after`. Calls that were under way together count as one.
    pub fn throttled(&self, turn: Instant, retry_after: Option<Duration>) {
        let (mut state, now) = (self.state(), Instant::now());
        if state.slowed_at.is_none_or(|slowed| turn > slowed) {
            state.between = (state.between * 2).clamp(FIRST, SLOWEST);
            state.slowed_at = Some(now);
        }
        let pause = retry_after.unwrap_or_default().min(LONGEST_PAUSE).max(state.between);
        state.next = state.next.max(now + pause);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn turn(pace: &Pace) -> Option<Instant> {
        pace.turn(Deadline::after(Duration::from_secs(300))).await
    }

    /// How long so many turns take, one after another.
    async fn turns(pace: &Pace, count: u32) -> Duration {
        let start = Instant::now();
        for _ in 0..count {
            turn(pace).await.unwrap();
        }
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_held_back_without_a_429() {
        let pace = Pace::default();
        pace.succeeded();
        assert_eq!(turns(&pace, 1_000).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_were_throttled_together_slow_down_once() {
        let pace = Pace::default();
        let (one, other) = (turn(&pace).await.unwrap(), turn(&pace).await.unwrap());
        pace.throttled(one, None);
        pace.throttled(other, None);
        assert_eq!(turns(&pace, 20).await.as_secs_f64().round(), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn each_further_429_doubles_the_time_between_two_calls() {
        let pace = Pace::default();
        for slower in [1, 2, 4, 8] {
            let turn = turn(&pace).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
            pace.throttled(turn, None);
            assert_eq!(pace.state().between, FIRST * slower);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_stops_all_calls_but_not_for_long() {
        for (asked, waited) in [(3, 3), (u64::MAX, 5)] {
            let pace = Pace::default();
            let turn = turn(&pace).await.unwrap();
            pace.throttled(turn, Some(Duration::from_secs(asked)));
            assert_eq!(turns(&pace, 1).await, Duration::from_secs(waited));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_429_while_a_call_waits_moves_its_turn() {
        let pace = Pace::default();
        let turn = turn(&pace).await.unwrap();
        pace.throttled(turn, None);
        let waiting = turns(&pace, 1);
        let pause = async { pace.throttled(turn, Some(Duration::from_secs(5))) };
        assert_eq!(futures_util::future::join(waiting, pause).await.0, Duration::from_secs(5));
    }

    #[tokio::test(start_paused = true)]
    async fn a_success_shortens_the_time_between_two_calls_a_little() {
        let pace = Pace::default();
        let turn = turn(&pace).await.unwrap();
        pace.throttled(turn, None);
        for _ in 0..22 {
            pace.succeeded(); // (31/32)^22 is a half
        }
        assert_eq!(pace.state().between.as_millis(), FIRST.as_millis() / 2 - 1);
    }

    #[test]
    fn a_pace_is_one_data_planes_and_one_keys() {
        let (paces, here) = (Paces::default(), Url::parse("https://api.braintrust.dev").unwrap());
        let there = Url::parse("https://api-eu.braintrust.dev").unwrap();
        assert!(Arc::ptr_eq(&paces.of(&here, "key"), &paces.of(&here, "key")));
        for (url, key) in [(&here, "other"), (&there, "key")] {
            assert!(!Arc::ptr_eq(&paces.of(&here, "key"), &paces.of(url, key)));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn successes_end_the_spacing() {
        let pace = Pace::default();
        let turn = turn(&pace).await.unwrap();
        pace.throttled(turn, None);
        for _ in 0..200 {
            pace.succeeded();
        }
        turns(&pace, 2).await; // the first had its place before
        assert_eq!(turns(&pace, 100).await, Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_gets_no_turn_before_the_deadline_is_told_so() {
        let pace = Pace::default();
        for _ in 0..9 {
            let turn = turn(&pace).await.unwrap();
            tokio::time::advance(Duration::from_millis(1)).await;
            pace.throttled(turn, None);
        }
        assert_eq!(pace.state().between, SLOWEST);
        let deadline = Deadline::after(Duration::from_secs(21)); // one of them is the report's
        let all = futures_util::future::join_all((0..32).map(|_| pace.turn(deadline))).await;
        assert_eq!(all.iter().flatten().count(), 10, "one at each two of twenty seconds");
    }
}
