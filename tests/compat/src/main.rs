//! Runs one suite or all: `tests/compat/run [docker-py|bollard|clients|flags|compose|fuzz]… [--reference]`.
#![forbid(unsafe_code)]

use std::process::ExitCode;

const USAGE: &str = "\
Usage: tests/compat/run [--reference] [docker-py] [bollard] [clients] [flags] [compose] [fuzz]   (default: all)

  docker-py    docker-py's integration suite
  bollard      bollard's integration tests
  clients      testcontainers, docker-py of today, dev containers
  flags        docker run with each flag of its help
  compose      projects of docker compose, step by step
  fuzz         random calls, SKIFF_FUZZ_SECONDS=30 SKIFF_FUZZ_SEED=1
  --reference  the same on Debian's dockerd, and compare";

fn main() -> ExitCode {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let compare = words.iter().any(|word| word == "--reference");
    words.retain(|word| word != "--reference");
    if words.is_empty() {
        words = ["docker-py", "bollard", "clients", "flags", "compose", "fuzz"].map(str::to_owned).into();
    }
    let mut code = ExitCode::SUCCESS;
    for word in words {
        let result = match word.as_str() {
            "docker-py" => skiff_compat::docker_py::check(compare),
            "bollard" => skiff_compat::bollard::check(compare),
            "clients" => skiff_compat::clients::check(compare),
            "flags" => skiff_compat::flags::check(compare),
            "compose" => skiff_compat::compose::check(compare),
            "fuzz" => skiff_compat::fuzz::check(),
            "-h" | "--help" => {
                println!("{USAGE}");
                return code;
            }
            _ => {
                eprintln!("{USAGE}");
                return ExitCode::from(2);
            }
        };
        if let Err(error) = result {
            eprintln!("error: {error:#}");
            code = ExitCode::FAILURE;
        }
    }
    code
}
