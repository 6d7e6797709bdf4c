//! The status in words, as in `docker ps`.

use std::time::Duration;

use crate::clock;
use crate::state::{State, Status};

/// `Up 3 minutes`, `Exited (0) 2 hours ago`, `Created` and so on.
pub(crate) fn status_text(state: &State, now: u64) -> String {
    let since = |at: Option<u64>| clock::human(Duration::from_nanos(now.saturating_sub(at.unwrap_or(now))));
    match state.status {
        Status::Created => "Created".to_owned(),
        Status::Running => match &state.health {
            Some(health) => format!("Up {} ({})", since(state.started_at), health.status.text()),
            None => format!("Up {}", since(state.started_at)),
        },
        Status::Paused => format!("Up {} (Paused)", since(state.started_at)),
        Status::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_at)),
        Status::Exited => match state.finished_at {
            None => String::new(),
            finished => format!("Exited ({}) {} ago", state.exit_code, since(finished)),
        },
        Status::Dead => "Dead".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[test]
    fn every_status_reads_as_dockers() {
        let minute = 60_000_000_000;
        let state = |status| State {
            status,
            started_at: Some(10 * minute),
            finished_at: Some(20 * minute),
            exit_code: 137,
            ..State::default()
        };
        let now = 140 * minute;
        assert_eq!(status_text(&state(Status::Created), now), "Created");
        assert_eq!(status_text(&state(Status::Running), 13 * minute), "Up 3 minutes");
        let checked = State { health: Some(Health::begin(None)), ..state(Status::Running) };
        assert_eq!(status_text(&checked, 13 * minute), "Up 3 minutes (health: starting)");
        assert_eq!(status_text(&state(Status::Paused), 13 * minute), "Up 3 minutes (Paused)");
        assert_eq!(status_text(&state(Status::Exited), now), "Exited (137) 2 hours ago");
        assert_eq!(
            status_text(&state(Status::Restarting), 20 * minute),
            "Restarting (137) Less than a second ago"
        );
        assert_eq!(status_text(&state(Status::Dead), now), "Dead");
    }
}
