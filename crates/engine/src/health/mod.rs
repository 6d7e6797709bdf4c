//! Health checks: what a container says about itself, asked again and again.
//!
//! ```text
//!            start of a run                      retries failures in a row
//!                  │                            ┌──────────────────────────┐
//!                  ▼                            │                          ▼
//!              Starting ──── first success ──► Healthy ◄── success ── Unhealthy
//!                  │                                                       ▲
//!                  └──── retries failures after the start period ──────────┘
//! ```
//!
//! One task per running container, in `monitor`: it ends with the run, and while the container is paused. A probe is
//! an exec of the engine's own (`exec::probe`). The last results are part of the container's record, so that a
//! restarted engine goes on where the last one stopped.

mod monitor;

use std::time::Duration;

use bollard_stubs::models::{
    ContainerConfig, Health as HealthModel, HealthConfig, HealthStatusEnum, HealthcheckResult,
};
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::error::{Error, Result};

/// How many results are kept.
const KEPT: usize = 5;
/// Docker's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: i64 = 3;
/// The exit code of a probe that gave none.
const NO_EXIT: i32 = -1;

/// What the checks of a run have found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    /// No success yet, and not enough failures.
    Starting,
    /// The last check that counts succeeded.
    Healthy,
    /// As many failures in a row as the container may have; or its checks have ended with its run.
    Unhealthy,
}

impl HealthStatus {
    /// The word that the API uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
        }
    }

    /// The words of `docker ps`.
    pub fn text(self) -> &'static str {
        match self {
            Self::Starting => "health: starting",
            other => other.name(),
        }
    }
}

/// One finished check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// When it began, in nanoseconds since the epoch.
    pub start: u64,
    /// When it ended.
    pub end: u64,
    /// Zero is success; -1 stands for a probe that did not end by itself.
    pub exit_code: i32,
    /// The beginning of what it wrote.
    pub output: String,
}

/// A container's health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// The verdict.
    pub status: HealthStatus,
    /// Failures in a row.
    pub failing_streak: i64,
    /// The last checks, oldest first.
    pub log: Vec<Check>,
}

impl Health {
    /// The health of a run that begins; results of earlier runs stay in the log, as with Docker.
    pub fn begin(last: Option<Self>) -> Self {
        let log = last.map(|last| last.log).unwrap_or_default();
        Self { status: HealthStatus::Starting, failing_streak: 0, log }
    }

    /// Takes a check into account that began `age` after the start of the run.
    fn record(&mut self, check: Check, plan: &Plan, age: Duration) {
        let succeeded = check.exit_code == 0;
        self.log.push(check);
        let surplus = self.log.len().saturating_sub(KEPT);
        self.log.drain(..surplus);
        if succeeded {
            self.failing_streak = 0;
            self.status = HealthStatus::Healthy;
        } else if self.status != HealthStatus::Starting || age >= plan.start_period {
            // A container that was never healthy may fail while it starts.
            self.failing_streak += 1;
            if self.failing_streak >= plan.retries {
                self.status = HealthStatus::Unhealthy;
            }
        }
    }

    /// As `inspect` shows it.
    pub fn model(&self) -> HealthModel {
        let status = match self.status {
            HealthStatus::Starting => HealthStatusEnum::STARTING,
            HealthStatus::Healthy => HealthStatusEnum::HEALTHY,
            HealthStatus::Unhealthy => HealthStatusEnum::UNHEALTHY,
        };
        let log = self.log.iter().map(|check| HealthcheckResult {
            start: Some(clock::rfc3339(Some(check.start))),
            end: Some(clock::rfc3339(Some(check.end))),
            exit_code: Some(check.exit_code.into()),
            output: Some(check.output.clone()),
        });
        HealthModel {
            status: Some(status),
            failing_streak: Some(self.failing_streak),
            log: Some(log.collect()),
        }
    }
}

/// How a container is checked: its configuration with Docker's defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Plan {
    command: Vec<String>,
    interval: Duration,
    timeout: Duration,
    start_period: Duration,
    start_interval: Duration,
    retries: i64,
}

impl Plan {
    /// Reads a configuration; `None` when there is nothing to check.
    pub fn of(config: &ContainerConfig) -> Option<Self> {
        let health = config.healthcheck.as_ref()?;
        let (kind, words) = health.test.as_deref()?.split_first()?;
        let command = match kind.as_str() {
            "CMD" if !words.is_empty() => words.to_vec(),
            "CMD-SHELL" if !words.is_empty() => {
                let shell = config.shell.clone().filter(|shell| !shell.is_empty());
                let mut command = shell.unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned()]);
                command.extend_from_slice(words);
                command
            }
            "NONE" => return None,
            other => {
                tracing::warn!(kind = other, "health check of an unknown kind is not run");
                return None;
            }
        };
        let or =
            |value: Option<i64>, default: Duration| match value.and_then(|value| u64::try_from(value).ok()) {
                None | Some(0) => default,
                Some(nanoseconds) => Duration::from_nanos(nanoseconds),
            };
        Some(Self {
            command,
            interval: or(health.interval, INTERVAL),
            timeout: or(health.timeout, TIMEOUT),
            start_period: or(health.start_period, Duration::ZERO),
            start_interval: or(health.start_interval, START_INTERVAL),
            retries: health.retries.filter(|retries| *retries > 0).unwrap_or(RETRIES),
        })
    }

    /// How long to wait for the next check, `age` after the start of the run.
    fn pause(&self, status: HealthStatus, age: Duration) -> Duration {
        if status == HealthStatus::Starting && age < self.start_period {
            self.start_interval
        } else {
            self.interval
        }
    }
}

/// Refuses what makes no sense, in Docker's words.
pub(crate) fn check(health: &HealthConfig) -> Result<()> {
    const LEAST: i64 = 1_000_000;
    let durations = [
        ("Interval", health.interval),
        ("Timeout", health.timeout),
        ("StartPeriod", health.start_period),
        ("StartInterval", health.start_interval),
    ];
    for (name, value) in durations {
        if value.is_some_and(|value| value != 0 && value < LEAST) {
            return Err(Error::invalid(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries.is_some_and(|retries| retries < 0) {
        return Err(Error::invalid("Retries in Healthcheck cannot be negative"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn plan(health: HealthConfig) -> Plan {
        let test = Some(vec!["CMD-SHELL".to_owned(), "true".to_owned()]);
        let healthcheck = Some(HealthConfig { test, ..health });
        Plan::of(&ContainerConfig { healthcheck, ..ContainerConfig::default() }).unwrap()
    }

    fn ended(exit_code: i32, at: u64) -> Check {
        Check { start: at * SECOND, end: at * SECOND + 1, exit_code, output: String::new() }
    }

    #[test]
    fn retries_failures_in_a_row_are_unhealthy_and_one_success_mends_it() {
        let plan = plan(HealthConfig { retries: Some(2), ..HealthConfig::default() });
        let mut health = Health::begin(None);
        health.record(ended(1, 1), &plan, Duration::ZERO);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 1));
        health.record(ended(1, 2), &plan, Duration::ZERO);
        assert_eq!(health.status, HealthStatus::Unhealthy);
        health.record(ended(0, 3), &plan, Duration::ZERO);
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Healthy, 0));
        health.record(ended(1, 4), &plan, Duration::ZERO);
        assert_eq!(health.status, HealthStatus::Healthy);
    }

    #[test]
    fn failures_of_the_start_period_do_not_count() {
        let plan = plan(HealthConfig {
            retries: Some(1),
            start_period: Some(10 * SECOND as i64),
            start_interval: Some(SECOND as i64),
            ..HealthConfig::default()
        });
        let mut health = Health::begin(None);
        health.record(ended(1, 5), &plan, Duration::from_secs(5));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        assert_eq!(plan.pause(health.status, Duration::from_secs(5)), Duration::from_secs(1));
        assert_eq!(plan.pause(health.status, Duration::from_secs(10)), INTERVAL);
        health.record(ended(1, 10), &plan, Duration::from_secs(10));
        assert_eq!(health.status, HealthStatus::Unhealthy);
    }

    #[test]
    fn only_the_last_five_checks_are_kept() {
        let plan = plan(HealthConfig::default());
        let mut health = Health::begin(None);
        for at in 0..8 {
            health.record(ended(0, at), &plan, Duration::ZERO);
        }
        assert_eq!(health.log.iter().map(|check| check.start / SECOND).collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        let again = Health::begin(Some(health));
        assert_eq!((again.status, again.log.len()), (HealthStatus::Starting, 5));
    }

    #[test]
    fn shells_commands_and_none_are_told_apart() {
        let of = |test: &[&str], shell: &[&str]| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
            let healthcheck = Some(HealthConfig { test: Some(owned(test)), ..HealthConfig::default() });
            let config =
                ContainerConfig { healthcheck, shell: Some(owned(shell)), ..ContainerConfig::default() };
            Plan::of(&config).map(|plan| plan.command.join(" "))
        };
        assert_eq!(of(&["CMD", "a", "b"], &[]).as_deref(), Some("a b"));
        assert_eq!(of(&["CMD-SHELL", "a b"], &[]).as_deref(), Some("/bin/sh -c a b"));
        assert_eq!(of(&["CMD-SHELL", "a b"], &["/bin/bash", "-ec"]).as_deref(), Some("/bin/bash -ec a b"));
        for none in [&["NONE"][..], &[], &["CMD"], &["WHAT", "x"]] {
            assert_eq!(of(none, &[]), None, "{none:?}");
        }
    }

    #[test]
    fn times_below_a_millisecond_are_refused() {
        let error = check(&HealthConfig { timeout: Some(999_999), ..HealthConfig::default() }).unwrap_err();
        assert_eq!(error.message, "Timeout in Healthcheck cannot be less than 1ms");
        let error = check(&HealthConfig { retries: Some(-1), ..HealthConfig::default() }).unwrap_err();
        assert_eq!(error.message, "Retries in Healthcheck cannot be negative");
        check(&HealthConfig { interval: Some(1_000_000), ..HealthConfig::default() }).unwrap();
    }
}
