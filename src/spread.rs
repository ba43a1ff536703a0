//! When each target of a run starts. A run of many targets can be spread over some time, so that neither a data plane
//! nor an account's STS receives all calls at once.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use crate::event::Rotate;

#[derive(Clone, Copy)]
pub struct Spread<'a> {
    over: Duration,
    /// The run's token, so that each run has another order.
    token: &'a str,
}

impl<'a> Spread<'a> {
    pub const NONE: Spread<'static> = Spread { over: Duration::ZERO, token: "" };

    /// A forced run of named targets isn't spread, because somebody is waiting for it.
    pub fn of(command: &'a Rotate, configured: Duration) -> Self {
        if command.force && !command.targets.is_empty() {
            return Self::NONE;
        }
        Self { over: configured, token: &command.token }
    }

    /// Reduces the time for a run of some of the targets to their share of it, and to at most half of the time that the
    /// invocation has left. The other half remains for the targets that start last.
    pub fn among(self, selected: usize, configured: usize, time_left: Duration) -> Self {
        let over = self.over.min(time_left / 2).as_millis() as usize;
        // A single target starts at once.
        let over = over * selected.saturating_sub(1) / configured.max(1);
        Self { over: Duration::from_millis(over as u64), ..self }
    }

    /// How long after the beginning of the run the target starts.
    pub fn delay(self, target: &str) -> Duration {
        let mut hasher = DefaultHasher::new();
        (self.token, target).hash(&mut hasher);
        let share = hasher.finish() >> 32;
        Duration::from_millis((self.over.as_millis() as u64 * share) >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Origin;

    const MINUTE: Duration = Duration::from_secs(60);

    fn rotate(targets: &[&str], force: bool) -> Rotate {
        let targets = targets.iter().map(ToString::to_string).collect();
        Rotate { origin: Origin::Schedule, token: "token".to_owned(), targets, dry_run: false, force }
    }

    fn over(selected: usize, configured: usize, time_left: Duration) -> Duration {
        Spread::of(&rotate(&[], false), MINUTE).among(selected, configured, time_left).over
    }

    #[test]
    fn only_a_forced_run_of_named_targets_is_not_spread() {
        for (targets, force, is_spread) in
            [(&[][..], false, true), (&["a"], false, true), (&[], true, true), (&["a"], true, false)]
        {
            let command = rotate(targets, force);
            assert_eq!(Spread::of(&command, MINUTE).over == MINUTE, is_spread, "{targets:?} {force}");
        }
    }

    #[test]
    fn a_run_of_some_targets_takes_its_share_of_the_time() {
        assert_eq!(over(1, 1, 10 * MINUTE), Duration::ZERO);
        assert_eq!(over(1, 600, 10 * MINUTE), Duration::ZERO);
        assert_eq!(over(101, 600, 10 * MINUTE), Duration::from_secs(10));
        assert_eq!(over(600, 600, 10 * MINUTE), Duration::from_millis(59_900));
    }

    #[test]
    fn the_second_half_of_the_invocation_is_left_to_the_targets_that_start_last() {
        assert_eq!(over(1_001, 1_000, MINUTE), MINUTE / 2);
        assert_eq!(over(1_001, 1_000, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn targets_are_spread_evenly_and_in_another_order_by_another_run() {
        let delays = |token| {
            let spread = Spread { over: MINUTE, token };
            (0..6_000).map(|number| spread.delay(&format!("target-{number}"))).collect::<Vec<_>>()
        };
        let first = delays("first");
        assert_eq!(first, delays("first"));
        assert_ne!(first, delays("second"));
        for second in 0..60 {
            let starts = first.iter().filter(|delay| delay.as_secs() == second).count();
            assert!((50..=150).contains(&starts), "{starts} of 6,000 targets start in second {second}");
        }
        assert!(first.iter().all(|delay| *delay < MINUTE));
    }

    #[test]
    fn without_a_spread_no_target_waits() {
        assert_eq!(Spread::NONE.among(1_000, 1_000, MINUTE).delay("a"), Duration::ZERO);
        assert_eq!(Spread::of(&rotate(&[], false), Duration::ZERO).delay("a"), Duration::ZERO);
    }
}
