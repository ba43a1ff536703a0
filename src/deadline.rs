//! Keeps every call inside the invocation's time and repeats what may succeed a moment later; it must never repeat a refusal.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};
use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Service};

/// Left of Lambda's time for the report, so that a slow service ends in a report and not in a killed function.
const REPORT: Duration = Duration::from_millis(1_000);

/// A target that has less than this is not started: what is cut off half-way helps nobody.
const START: Duration = Duration::from_secs(2);

/// Four repetitions over three to six seconds outlast a restart and leave a dead service quickly.
const A_FEW_TIMES: ExponentialBuilder = ExponentialBuilder::new()
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
        Self(Instant::now() + remaining.saturating_sub(REPORT))
    }

    /// This deadline, or `limit` from now if that is earlier.
    pub fn at_most(self, limit: Duration) -> Self {
        Self(self.0.min(Instant::now() + limit))
    }

    /// Whether there is time to start a target.
    pub fn allows_a_start(self) -> bool {
        self.allows(START)
    }

    fn allows(self, wait: Duration) -> bool {
        // Not `now + wait`, which a server's Retry-After could make overflow.
        wait < self.0.saturating_duration_since(Instant::now())
    }

    /// Waits for something until the deadline; `None` if it did not come.
    pub async fn wait_for<T>(self, work: impl Future<Output = T>) -> Option<T> {
        timeout_at(self.0, work).await.ok()
    }

    /// Runs one call to its end or to the deadline.
    ///
    /// # Errors
    /// The call's own, or a `timeout` that names the service and the call.
    pub async fn bound<T>(
        self,
        service: Service,
        call: &'static str,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        // Not by wait_for: a future more around every call is memory for each target, and overflows a debug build's stack.
        timeout_at(self.0, work).await.unwrap_or_else(|_| Err(Error::deadline(service, call)))
    }

    /// Runs a call, and again up to four times while its error is transient: see [`Deadline::repeat`].
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn repeat_a_few_times<T, F: Future<Output = Result<T, Error>>>(
        self,
        service: Service,
        call: &'static str,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        self.repeat(service, call, A_FEW_TIMES, Error::is_transient, attempt).await
    }

    /// Runs a call, and again with jittered backoff while its error is `worth_repeating` and the deadline allows the
    /// wait. A `Retry-After` lengthens the wait.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn repeat<T, F: Future<Output = Result<T, Error>>>(
        self,
        service: Service,
        call: &'static str,
        backoff: ExponentialBuilder,
        worth_repeating: impl FnMut(&Error) -> bool,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, Error> {
        (|| self.bound(service, call, attempt()))
            .retry(backoff)
            .when(worth_repeating)
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
    use crate::error::Cause;

    fn failing(cause: Cause, retry_after: Option<Duration>) -> Error {
        Error { retry_after, ..Error::new(cause, Service::Braintrust, "test", "", "") }
    }

    async fn attempts(remaining: Duration, error: Error) -> (u32, Error) {
        let count = Cell::new(0);
        let answer: Result<(), _> = Deadline::after(remaining)
            .repeat_a_few_times(Service::Braintrust, "test", || {
                count.set(count.get() + 1);
                std::future::ready(Err(error.clone()))
            })
            .await;
        (count.get(), answer.unwrap_err())
    }

    #[tokio::test(start_paused = true)]
    async fn a_transient_error_is_repeated_four_times() {
        assert_eq!(attempts(Duration::from_secs(300), failing(Cause::Unavailable, None)).await.0, 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_never_repeated() {
        for cause in [Cause::Permission, Cause::InvalidCredentials, Cause::Configuration] {
            assert_eq!(attempts(Duration::from_secs(300), failing(cause, None)).await.0, 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_retry_after_is_waited_for() {
        let start = Instant::now();
        attempts(Duration::from_secs(300), failing(Cause::Throttled, Some(Duration::from_secs(20)))).await;
        assert!(start.elapsed() >= Duration::from_secs(80));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_past_the_deadline_ends_with_the_error_itself() {
        let error = failing(Cause::Throttled, Some(Duration::from_secs(60)));
        let (count, error) = attempts(Duration::from_secs(30), error).await;
        assert_eq!((count, error.cause), (1, Cause::Throttled));
    }

    #[tokio::test(start_paused = true)]
    async fn an_absurd_retry_after_ends_with_the_error_itself() {
        let error = failing(Cause::Throttled, Some(Duration::from_secs(u64::MAX)));
        assert_eq!(attempts(Duration::from_secs(30), error).await.0, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_hangs_ends_at_the_deadline() {
        let start = Instant::now();
        let answer: Result<(), _> = Deadline::after(Duration::from_secs(5))
            .bound(Service::Bedrock, "ListFoundationModels", std::future::pending())
            .await;
        assert_eq!(answer.unwrap_err().cause, Cause::Timeout);
        assert!(start.elapsed() <= Duration::from_secs(5));
    }
}
