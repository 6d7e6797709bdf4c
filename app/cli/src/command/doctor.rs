//! `doctor`: what Skiff needs on this machine, and the way out of what is wrong.

use clap::Args;
use skiff_host::control::{Finding, Grade};
use skiff_host::{diagnose, doctor};

use super::Context;
use super::context::control_failed;
use crate::api::{Client, Endpoint};
use crate::error::Error;
use crate::terminal::{print, print_line, stdout_is_terminal};

/// Check what Skiff needs on this host and tell how to mend it
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff doctor [TOPIC]")]
pub struct Doctor {
    /// What to look at: `network`, or everything on this host; `report` prints all that helps others to find a fault,
    /// without what is private
    #[arg(value_name = "TOPIC", hide = true)]
    topic: Option<Topic>,
}

/// What to look at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Topic {
    /// Ways out, names, subnets and published ports.
    Network,
    /// Everything that helps to find a fault.
    Report,
}

/// Carries `doctor` out; anything bad ends with 1.
pub async fn run(context: &Context, args: &Doctor) -> Result<(), Error> {
    if args.topic == Some(Topic::Network) {
        let findings = context.daemon().await?.network().await.map_err(control_failed)?;
        return report(&findings);
    }
    let paths = context.paths()?;
    if args.topic == Some(Topic::Report) {
        for part in diagnose::report(&paths).await {
            print(&format!("===== {} =====\n{}\n", part.name, part.text.trim_end()));
        }
        return Ok(());
    }
    let mut findings = doctor::check(&paths).await;
    if let Some(host) = context.chosen_host() {
        findings.push(endpoint(&host).await);
    }
    report(&findings)
}

/// Prints what was found out.
pub fn report(findings: &[Finding]) -> Result<(), Error> {
    let colours = stdout_is_terminal();
    for finding in findings {
        print_line(render(finding, colours));
    }
    let bad = findings.iter().filter(|finding| finding.grade == Grade::Bad).count();
    match bad {
        0 => Ok(()),
        1 => Err(Error::plain("\n1 check failed")),
        count => Err(Error::plain(format!("\n{count} checks failed"))),
    }
}

fn render(finding: &Finding, colours: bool) -> String {
    let (sign, colour) = match finding.grade {
        Grade::Good => ("✓", "32"),
        Grade::Note => ("•", "33"),
        Grade::Bad => ("✗", "31"),
    };
    let sign = if colours { format!("\x1b[{colour}m{sign}\x1b[0m") } else { sign.to_owned() };
    match &finding.way_out {
        Some(way_out) => format!("{sign} {}\n    → {way_out}", finding.what),
        None => format!("{sign} {}", finding.what),
    }
}

/// Tries the endpoint that the user has chosen; our own one would wake the guest.
async fn endpoint(host: &str) -> Finding {
    let tried = match Endpoint::parse(host) {
        Ok(endpoint) => Client::connect(endpoint).await,
        Err(error) => Err(error),
    };
    match tried {
        Ok(client) => Finding::good(format!("{host}: answers, API {}", client.api_version())),
        Err(error) => {
            Finding::bad(format!("{host}: {}", error.chain()), "unset DOCKER_HOST to use Skiff's own engine")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_shows_its_sign_and_the_way_out() {
        assert_eq!(render(&Finding::good("a"), false), "✓ a");
        assert_eq!(render(&Finding::bad("a", "b"), false), "✗ a\n    → b");
        assert!(render(&Finding::note("a", "b"), true).starts_with("\x1b[33m•\x1b[0m a"));
    }
}
