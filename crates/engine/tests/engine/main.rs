//! A real supervisor with a real engine, which the tests kill.
//!
//! The test's binary plays every part: the tests; the supervisor, which wants a process with one thread; the engine,
//! which the supervisor starts and which answers requests of the test on a unix socket. So this target has its own
//! `main`, which speaks as much of the usual test arguments as cargo and nextest need.

mod cases;
mod image;
mod roles;
mod subject;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

const CASES: &[(&str, fn())] = &[
    ("output_and_exit_code_of_a_run_arrive", cases::output_and_exit_code_of_a_run_arrive),
    ("missing_command_is_told_in_dockers_words", cases::missing_command_is_told_in_dockers_words),
    ("exec_runs_beside_and_reports_its_code", cases::exec_runs_beside_and_reports_its_code),
    ("stdin_reaches_the_container_and_ends", cases::stdin_reaches_the_container_and_ends),
    ("names_are_unique_and_free_again", cases::names_are_unique_and_free_again),
    ("killed_engine_goes_on_rotating", cases::killed_engine_goes_on_rotating),
    (
        "volume_that_is_a_mount_survives_a_killed_engine",
        cases::volume_that_is_a_mount_survives_a_killed_engine,
    ),
    ("volume_is_filled_from_the_image_and_protected", cases::volume_is_filled_from_the_image_and_protected),
    ("killed_engine_loses_no_output_and_no_exit_code", cases::killed_engine_loses_no_output_and_no_exit_code),
    ("killed_engine_loses_no_terminal_output", cases::killed_engine_loses_no_terminal_output),
    ("exit_while_the_engine_is_dead_is_found", cases::exit_while_the_engine_is_dead_is_found),
    ("answered_creations_and_removals_survive_a_kill", cases::answered_creations_and_removals_survive_a_kill),
    ("machine_gone_leaves_exited_containers", cases::machine_gone_leaves_exited_containers),
    ("restart_policy_counts_and_gives_up", cases::restart_policy_counts_and_gives_up),
    ("twenty_containers_at_once", cases::twenty_containers_at_once),
    ("exec_outlives_the_engine_with_its_code", cases::exec_outlives_the_engine_with_its_code),
];

fn main() -> ExitCode {
    match std::env::var(roles::ROLE).as_deref() {
        Ok("supervisor") => return roles::supervisor(),
        Ok("engine") => return roles::engine(),
        _ => {}
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if has("--list") {
        if !has("--ignored") {
            CASES.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
    let picked = |name: &str| {
        wanted.is_empty()
            || wanted
                .iter()
                .any(|wanted| if has("--exact") { name == *wanted } else { name.contains(*wanted) })
    };
    let mut failed = 0;
    for (name, case) in CASES.iter().filter(|(name, _)| picked(name)) {
        let outcome = catch_unwind(AssertUnwindSafe(case));
        failed += usize::from(outcome.is_err());
        println!("test {name} ... {}", if outcome.is_ok() { "ok" } else { "FAILED" });
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
