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
    /// It is being saved.
    Suspending,
    /// It is saved, and nothing of it runs; the next use wakes it.
    Asleep,
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
    /// Somebody wants it to sleep, or nobody has needed it for long enough.
    SleepAsked,
    /// It is saved, or was found so when the daemon started.
    Saved,
    /// It could not be saved and runs on.
    NotSaved,
}

impl Phase {
    /// Gives the next phase, or none where the trigger changes nothing.
    pub fn next(self, trigger: Trigger) -> Option<Self> {
        use Phase::{Asleep, Failed, Running, Starting, Stopped, Stopping, Suspending};
        match (self, trigger) {
            (Stopped | Failed | Asleep, Trigger::Wanted) => Some(Starting),
            (Stopped, Trigger::StopAsked) => None,
            (Failed | Asleep, Trigger::StopAsked) => Some(Stopped),
            (Running, Trigger::SleepAsked) => Some(Suspending),
            (Starting | Suspending, Trigger::Saved) => Some(Asleep),
            (Suspending, Trigger::NotSaved) => Some(Running),
            (Suspending, Trigger::StoppedAfterFailure) => Some(Failed),
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
            // Whoever asks meanwhile waits for its end.
            (Suspending, _) => None,
            // The rest cannot happen: nothing is under way that could report it.
            (_, Trigger::SleepAsked | Trigger::Saved | Trigger::NotSaved) => None,
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
                Stopped | Failed | Asleep,
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
    fn a_save_ends_asleep_or_awake_and_sleep_ends_by_use_or_stop() {
        let phase = Phase::Running.next(Trigger::SleepAsked).unwrap();
        assert_eq!(phase, Phase::Suspending);
        for trigger in [Trigger::Wanted, Trigger::StopAsked, Trigger::Idle, Trigger::Ended] {
            assert_eq!(phase.next(trigger), None, "{trigger:?} waits");
        }
        assert_eq!(phase.next(Trigger::NotSaved), Some(Phase::Running));
        assert_eq!(phase.next(Trigger::Saved), Some(Phase::Asleep));
        assert_eq!(Phase::Asleep.next(Trigger::Wanted), Some(Phase::Starting));
        assert_eq!(Phase::Asleep.next(Trigger::StopAsked), Some(Phase::Stopped));
    }

    #[test]
    fn stop_wins_over_a_boot_that_is_under_way() {
        let phase = Phase::Starting.next(Trigger::StopAsked).unwrap();
        assert_eq!(phase, Phase::Stopping);
        assert_eq!(phase.next(Trigger::BootFailed), Some(Phase::Stopped));
        assert_eq!(phase.next(Trigger::Booted), None, "the stop goes on and takes the guest along");
    }
}
