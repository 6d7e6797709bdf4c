//! `--health-*` and `--no-healthcheck`.

use bollard_stubs::models::HealthConfig;
use clap::Args;

use super::duration::nanoseconds;
use crate::error::Error;

/// Health checks of the container.
#[derive(Debug, Clone, Default, Args)]
pub struct Health {
    /// Command to run to check health
    #[arg(long, value_name = "string")]
    pub health_cmd: Option<String>,
    /// Time between running the check (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = nanoseconds)]
    pub health_interval: Option<i64>,
    /// Consecutive failures needed to report unhealthy
    #[arg(long, value_name = "int")]
    pub health_retries: Option<i64>,
    /// Time between running the check during the start period (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = nanoseconds)]
    pub health_start_interval: Option<i64>,
    /// Start period for the container to initialize before starting health-retries countdown (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = nanoseconds)]
    pub health_start_period: Option<i64>,
    /// Maximum time to allow one check to run (ms|s|m|h)
    #[arg(long, value_name = "duration", value_parser = nanoseconds)]
    pub health_timeout: Option<i64>,
    /// Disable any container-specified HEALTHCHECK
    #[arg(long)]
    pub no_healthcheck: bool,
}

impl Health {
    /// Returns the API's form, or nothing when no flag was given.
    pub fn config(&self) -> Result<Option<HealthConfig>, Error> {
        let numbers = [
            self.health_interval,
            self.health_retries,
            self.health_start_interval,
            self.health_start_period,
            self.health_timeout,
        ];
        let any = self.health_cmd.is_some() || numbers.iter().any(Option::is_some);
        if self.no_healthcheck {
            if any {
                return Err(Error::plain("--no-healthcheck conflicts with --health-* options"));
            }
            return Ok(Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }));
        }
        if !any {
            return Ok(None);
        }
        Ok(Some(HealthConfig {
            test: self.health_cmd.as_ref().map(|command| vec!["CMD-SHELL".to_owned(), command.clone()]),
            interval: self.health_interval,
            timeout: self.health_timeout,
            retries: self.health_retries,
            start_period: self.health_start_period,
            start_interval: self.health_start_interval,
        }))
    }
}
