//! The states of the guest and what leads from one to the next.

use serde::{Deserialize, Serialize};

/// Where the guest is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It does not run; the next use starts it.
    Stopped,
    /// It boots, or a running one is looked for.
    Starting,
    /// It runs.
    Running,
    /// It shuts down, or its remains are removed.
    Stopping,
    /// It failed; the next use tries again.
    Failed,
}

/// What happens to a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// Somebody needs it.
    Wanted,
    /// It is up, link and all.
    Booted,
    /// Nothing was found running when the daemon started.
    NothingFound,
    /// It did not come up; nothing is left of it.
    BootFailed,
    /// Somebody wants it stopped.
    StopAsked,
    /// Nobody has needed it for long enough.
    Idle,
    /// It is gone, or cannot be reached any more.
    Ended,
    /// It is gone as intended; nothing is left of it.
    Stopped,
    /// It is gone by a failure; nothing is left of it.
    StoppedAfterFailure,
}

impl Phase {
    /// Gives the next phase, or none where the trigger changes nothing.
    pub fn next(self, trigger: Trigger) -> Option<Self> {
        use Phase::{Failed, Running, Starting, Stopped, Stopping};
        match (self, trigger) {
            (Stopped | Failed, Trigger::Wanted) => Some(Starting),
            (Stopped, Trigger::StopAsked) => None,
            (Failed, Trigger::StopAsked) => Some(Stopped),
            (Starting, Trigger::Booted) => Some(Running),
            (Starting, Trigger::NothingFound) => Some(Stopped),
            (Starting, Trigger::BootFailed) => Some(Failed),
            (Starting | Running, Trigger::StopAsked) => Some(Stopping),
            (Running, Trigger::Idle | Trigger::Ended) => Some(Stopping),
            (Stopping, Trigger::Stopped) => Some(Stopped),
            (Stopping, Trigger::StoppedAfterFailure) => Some(Failed),
            // A boot that was called off comes to its end as the stop that it has become.
            (Stopping, Trigger::BootFailed | Trigger::NothingFound) => Some(Stopped),
            (
                Stopping,
                Trigger::Wanted | Trigger::Booted | Trigger::StopAsked | Trigger::Idle | Trigger::Ended,
            ) => None,
            (Starting, Trigger::Wanted | Trigger::Idle | Trigger::Ended) => None,
            (Running, Trigger::Wanted) => None,
            // The rest cannot happen: nothing is under way that could report it.
            (Starting, Trigger::Stopped | Trigger::StoppedAfterFailure)
            | (
                Running,
                Trigger::Booted
                | Trigger::NothingFound
                | Trigger::BootFailed
                | Trigger::Stopped
                | Trigger::StoppedAfterFailure,
            )
            | (
                Stopped | Failed,
                Trigger::Booted
                | Trigger::NothingFound
                | Trigger::BootFailed
                | Trigger::Idle
                | Trigger::Ended
                | Trigger::Stopped
                | Trigger::StoppedAfterFailure,
            ) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_can_be_left_and_the_resting_ones_only_on_demand() {
        for resting in [Phase::Stopped, Phase::Failed] {
            assert_eq!(resting.next(Trigger::Wanted), Some(Phase::Starting));
            for trigger in [Trigger::Booted, Trigger::Idle, Trigger::Ended, Trigger::Stopped] {
                assert_eq!(resting.next(trigger), None);
            }
        }
        assert_eq!(
            Phase::Failed.next(Trigger::StopAsked),
            Some(Phase::Stopped),
            "a stop forgets the failure"
        );
        assert_eq!(Phase::Running.next(Trigger::Idle), Some(Phase::Stopping));
        assert_eq!(Phase::Stopping.next(Trigger::StoppedAfterFailure), Some(Phase::Failed));
    }

    #[test]
    fn stop_wins_over_a_boot_that_is_under_way() {
        let phase = Phase::Starting.next(Trigger::StopAsked).unwrap();
        assert_eq!(phase, Phase::Stopping);
        assert_eq!(phase.next(Trigger::BootFailed), Some(Phase::Stopped));
        assert_eq!(phase.next(Trigger::Booted), None, "the stop goes on and takes the guest along");
    }
}
