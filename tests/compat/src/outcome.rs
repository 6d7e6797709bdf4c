//! How the tests of a suite ended, here and on the reference engine.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::ensure;

use crate::Exceptions;

/// How one test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It passed.
    Passed,
    /// It failed, or its engine kept it waiting.
    Failed,
    /// The suite did not run it.
    Skipped,
}

/// The tests of a suite by their names.
pub type Outcomes = BTreeMap<String, Outcome>;

/// Prints how a run ended: all of it, and what is left without the tests of swarm and plugins.
///
/// # Errors
/// When the exceptions can't be read.
pub fn count(suite: &str, whose: &str, outcomes: &Outcomes) -> anyhow::Result<()> {
    let exceptions = Exceptions::of(suite)?;
    let is_asked = |test: &str| !exceptions.reason(test).is_some_and(|reason| reason.contains("no swarm"));
    let (mut counts, mut asked) = ([0; 3], [0; 3]);
    for (test, outcome) in outcomes {
        counts[*outcome as usize] += 1;
        asked[*outcome as usize] += u32::from(is_asked(test));
    }
    println!("{suite}: {whose}: {} passed, {} failed, {} skipped", counts[0], counts[1], counts[2]);
    println!("{suite}: {whose}: {} of {} without swarm and plugins", asked[0], asked[0] + asked[1]);
    Ok(())
}

/// Compares a run with its exceptions and, where there is one, with the same on the reference engine.
///
/// # Errors
/// When a test fails that is no exception, or an exception is not needed.
pub fn judge(suite: &str, ours: &Outcomes, theirs: Option<&Outcomes>, log: &Path) -> anyhow::Result<()> {
    let exceptions = Exceptions::of(suite)?;
    let mut wrong = Vec::new();
    for (test, _) in ours.iter().filter(|(_, outcome)| **outcome == Outcome::Failed) {
        let there = theirs.and_then(|theirs| theirs.get(test));
        match exceptions.reason(test) {
            Some(reason) => {
                if there == Some(&Outcome::Passed) {
                    println!("{suite}: on dockerd alone: {test}: {reason}");
                }
            }
            None => wrong.push(format!(
                "{test} fails{}",
                if there == Some(&Outcome::Failed) { ", as on dockerd" } else { "" }
            )),
        }
    }
    for (test, _) in theirs.into_iter().flatten().filter(|(_, outcome)| **outcome == Outcome::Failed) {
        if ours.get(test) == Some(&Outcome::Passed) {
            println!("{suite}: on ours alone: {test}");
        }
    }
    wrong.extend(
        exceptions.unused().iter().map(|pattern| format!("the exception {pattern} is not needed any more")),
    );
    ensure!(wrong.is_empty(), "{suite}:\n  {}\n  (log: {})", wrong.join("\n  "), log.display());
    Ok(())
}
