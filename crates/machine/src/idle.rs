//! When a guest that nobody needs is stopped.

use std::time::{Duration, Instant};

/// How often a guest with running containers is asked about them.
const CHECK: Duration = Duration::from_secs(15);

/// What to do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Look again after this time.
    Wait(Duration),
    /// Stop the guest.
    Stop,
}

/// Counts the time in which neither a connection nor a container needed the guest.
#[derive(Debug, Clone)]
pub struct IdlePolicy {
    limit: Duration,
    quiet_since: Option<Instant>,
}

impl IdlePolicy {
    /// Makes a policy that stops a guest after `limit` of quiet.
    pub fn new(limit: Duration) -> Self {
        Self { limit, quiet_since: None }
    }

    /// Takes what is known now and decides.
    pub fn observe(&mut self, now: Instant, connections: u64, containers: u64) -> Decision {
        if connections > 0 || containers > 0 {
            self.quiet_since = None;
            return Decision::Wait(self.limit.min(CHECK));
        }
        let quiet = now.saturating_duration_since(*self.quiet_since.get_or_insert(now));
        if quiet >= self.limit { Decision::Stop } else { Decision::Wait((self.limit - quiet).min(CHECK)) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(300);

    fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    #[test]
    fn guest_is_stopped_after_the_whole_limit_of_quiet() {
        let start = Instant::now();
        let mut policy = IdlePolicy::new(LIMIT);
        assert_eq!(policy.observe(start, 0, 0), Decision::Wait(CHECK));
        assert_eq!(policy.observe(start + seconds(299), 0, 0), Decision::Wait(seconds(1)));
        assert_eq!(policy.observe(start + seconds(300), 0, 0), Decision::Stop);
    }

    #[test]
    fn any_use_starts_the_count_again() {
        for (connections, containers) in [(1, 0), (0, 1)] {
            let start = Instant::now();
            let mut policy = IdlePolicy::new(LIMIT);
            policy.observe(start, 0, 0);
            assert!(matches!(
                policy.observe(start + seconds(299), connections, containers),
                Decision::Wait(_)
            ));
            assert!(matches!(policy.observe(start + seconds(400), 0, 0), Decision::Wait(_)));
            assert!(matches!(policy.observe(start + seconds(699), 0, 0), Decision::Wait(_)));
            assert_eq!(policy.observe(start + seconds(700), 0, 0), Decision::Stop);
        }
    }

    proptest! {
        #[test]
        fn guest_in_use_is_never_stopped_and_a_quiet_one_always(
            steps in proptest::collection::vec((0..100_u64, 0..2_u64, 0..2_u64), 1..50)
        ) {
            let mut now = Instant::now();
            let mut policy = IdlePolicy::new(seconds(60));
            let mut quiet = Duration::ZERO;
            let mut counting = false;
            for (pause, connections, containers) in steps {
                now += seconds(pause);
                quiet = if connections + containers > 0 { Duration::ZERO } else if counting { quiet + seconds(pause) } else { Duration::ZERO };
                counting = connections + containers == 0;
                let decision = policy.observe(now, connections, containers);
                prop_assert_eq!(decision == Decision::Stop, counting && quiet >= seconds(60));
            }
        }
    }
}
