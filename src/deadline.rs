//! The time that an invocation has left, and retries within it.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Service};

/// The time that is reserved for the report, so that a slow service ends in a report and not in a killed function.
const TIME_FOR_REPORT: Duration = Duration::from_millis(1_000);
/// Four retries over three to six seconds: long enough for a service that restarts, short enough for one that is down.
const FEW_RETRIES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(200))
    .with_max_delay(Duration::from_secs(5))
    .with_max_times(4)
    .with_jitter();

/// The moment by which all calls must have ended.
#[derive(Clone, Copy, Debug)]
pub struct Deadline(Instant);

impl Deadline {
    /// The deadline of an invocation that Lambda ends after `remaining`.
    pub fn after(remaining: Duration) -> Self {
        Self(Instant::now() + remaining.saturating_sub(TIME_FOR_REPORT))
    }

    /// This deadline, or `limit` from now if that is earlier.
    pub fn at_most(self, limit: Duration) -> Self {
        Self(self.0.min(Instant::now() + limit))
    }

    /// The time until this deadline.
    pub fn time_left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Half of the time until this deadline, so that the other half remains for what follows.
    pub fn half(self) -> Self {
        Self(Instant::now() + self.time_left() / 2)
    }

    /// Three quarters of the time until this deadline, so that the last quarter remains for what follows.
    pub fn three_quarters(self) -> Self {
        let half = self.half();
        Self(half.0 + self.0.saturating_duration_since(half.0) / 2)
    }

    /// Whether the minimum time that a target needs is left.
    pub fn allows_a_start(self) -> bool {
        self.allows(Duration::from_secs(2))
    }

    /// Whether a wait ends before the deadline.
    pub fn allows(self, wait: Duration) -> bool {
        // Not `now + wait`, which a server's Retry-After could make overflow.
        wait < self.time_left()
    }

    /// Waits for `work` until the deadline. `None` means that the deadline passed first.
    pub async fn wait_for<T>(self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.0, work).await.ok()
    }

    /// Runs one call until the deadline, after which its error is `timeout`.
    pub async fn bound<T>(
        self,
        service: Service,
        call: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Not by `wait_for`: one more future around every call costs memory for each target, and a debug build's stack.
        timeout_at(self.0, work).await.unwrap_or_else(|_| Err(Error::deadline(service, call)))
    }

    /// Runs a call, and retries it up to four times while its error is retryable. See [`Deadline::retry_while`].
    pub async fn retry<T, F: Future<Output = Result<T, Error>>>(
        self,
        service: Service,
        call: &'static str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        self.retry_while(service, call, FEW_RETRIES, Error::is_retryable, attempt).await
    }

    /// Runs a call, and retries it with jittered backoff while `may_succeed` says so and the deadline allows the wait,
    /// which a `Retry-After` lengthens. The error is that of the last attempt.
    pub async fn retry_while<T, F: Future<Output = Result<T, Error>>>(
        self,
        service: Service,
        call: &'static str,
        backoff: ExponentialBuilder,
        may_succeed: impl FnMut(&Error) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        (|| self.bound(service, call, attempt()))
            .retry(backoff)
            .when(may_succeed)
            .adjust(|error, wait| {
                let wait = wait?.max(error.retry_after.unwrap_or_default());
                self.allows(wait).then_some(wait)
            })
            .await
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::error::ErrorClass;

    fn failing(class: ErrorClass, retry_after: Option<Duration>) -> Error {
        Error { retry_after, ..Error::new(class, Service::Braintrust, "test", "", "") }
    }

    async fn attempts(remaining: Duration, error: Error) -> (u32, Error) {
        let count = Cell::new(0);
        let answer: Result<(), _> = Deadline::after(remaining)
            .retry(Service::Braintrust, "test", || {
                count.set(count.get() + 1);
                std::future::ready(Err(error.clone()))
            })
            .await;
        (count.get(), answer.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_error_is_retried_four_times() {
        assert_eq!(attempts(Duration::from_secs(300), failing(ErrorClass::Unavailable, None)).await.0, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_never_retried() {
        for class in [ErrorClass::Permission, ErrorClass::InvalidCredentials, ErrorClass::Configuration] {
            assert_eq!(attempts(Duration::from_secs(300), failing(class, None)).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_is_waited_for() {
        let start = Instant::now();
        attempts(Duration::from_secs(300), failing(ErrorClass::Throttled, Some(Duration::from_secs(20)))).await;
        assert!(start.elapsed() >= Duration::from_secs(80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_past_the_deadline_ends_with_the_error_itself() {
        let error = failing(ErrorClass::Throttled, Some(Duration::from_secs(60)));
        let (count, error) = attempts(Duration::from_secs(30), error).await;
        assert_eq!((count, error.class), (1, ErrorClass::Throttled));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_retry_after_ends_with_the_error_itself() {
        let error = failing(ErrorClass::Throttled, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(attempts(Duration::from_secs(30), error).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn half_of_the_time_remains_after_half_a_deadline() {
        let half = Deadline::after(Duration::from_secs(21)).half(); // One of these seconds is kept for the report.
        assert!(half.allows(Duration::from_millis(9_999)) && !half.allows(Duration::from_secs(10)));
        assert!(!Deadline::after(Duration::ZERO).half().allows(Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_at_the_deadline() {
        let start = Instant::now();
        let answer: Result<(), _> = Deadline::after(Duration::from_secs(5))
            .bound(Service::Bedrock, "ListFoundationModels", std::future::pending())
            .await;
        assert_eq!(answer.unwrap_err().class, ErrorClass::Timeout);
        assert!(start.elapsed() <= Duration::from_secs(5));
    }
}
