//! Runs scenarios and reports on them.

use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::Subject;

/// One thing that must work.
#[derive(Clone, Copy)]
pub struct Scenario {
    /// What must hold, in snake case.
    pub name: &'static str,
    /// Does it, or says what went wrong.
    pub run: fn(&Subject) -> anyhow::Result<()>,
}

/// Lists functions as scenarios of the same name.
#[macro_export]
macro_rules! scenarios {
    ($($name:ident),* $(,)?) => {
        /// The scenarios of this file.
        pub const ALL: &[$crate::Scenario] =
            &[$($crate::Scenario { name: stringify!($name), run: $name }),*];
    };
}

/// Runs the scenarios that `SKIFF_SCENARIO` picks (all without it; commas separate several), one after the other, with no containers at the
/// start of each.
///
/// # Panics
/// At the end, with every failure: the scenario, the command with its output, and the engine's log.
pub fn run_all(subject: &Subject, scenarios: &[Scenario]) {
    let wanted = std::env::var("SKIFF_SCENARIO").unwrap_or_default();
    let picked: Vec<_> = scenarios
        .iter()
        .filter(|scenario| wanted.split(',').any(|part| scenario.name.contains(part)))
        .collect();
    assert!(!picked.is_empty(), "SKIFF_SCENARIO={wanted} picks nothing");
    let mut report = String::new();
    let mut failed = Vec::new();
    for scenario in &picked {
        let started = Instant::now();
        let result = attempt(subject, scenario);
        let seconds = started.elapsed().as_secs_f64();
        match result {
            Ok(()) => eprintln!("ok     {:<56} {seconds:6.2} s", scenario.name),
            Err(text) => {
                eprintln!("FAILED {:<56} {seconds:6.2} s", scenario.name);
                failed.push(scenario.name);
                let _ = writeln!(report, "\n=== {} ===\n{text}\n{}", scenario.name, subject.log_tail());
            }
        }
        if !subject.answers() {
            let _ = writeln!(report, "\nthe engine is gone after {}: the rest was not run", scenario.name);
            break;
        }
    }
    assert!(
        report.is_empty(),
        "{} of {} scenarios failed: {}\n{report}",
        failed.len(),
        picked.len(),
        failed.join(", ")
    );
}

fn attempt(subject: &Subject, scenario: &Scenario) -> Result<(), String> {
    let result = catch_unwind(AssertUnwindSafe(|| (scenario.run)(subject)));
    let mut text = match result {
        Ok(Ok(())) => String::new(),
        Ok(Err(error)) => format!("{error:#}"),
        Err(panic) => panic_text(&*panic),
    };
    if let Err(error) = subject.remove_containers() {
        let _ = write!(text, "\ncleanup afterwards: {error:#}");
    } else if let Err(error) = subject.expect_no_leftovers() {
        let _ = write!(text, "\nafterwards: {error:#}");
    }
    if text.is_empty() { Ok(()) } else { Err(text) }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text =
        panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("?"))
}
