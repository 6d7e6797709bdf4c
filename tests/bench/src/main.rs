//! Benchmarks: ratios against a peer or a floor in the same run.
//!
//! Machines are noisy, so every figure is a median of interleaved rounds and comes with the spread of its rounds.

#![forbid(unsafe_code)]

mod api;
mod boot;
mod guest;
mod http;
mod peer;
mod process;
mod run;
mod sample;

const USAGE: &str = "Usage: skiff-bench api|boot|run…

  api   calls, lists, output, stats and memory of the engine on this host, beside a dockerd if there is one
  boot  process start to the first /_ping, beside the same kernel with an empty init
  run   create+start+wait+remove of `true` over the API: on this host beside `runc run`, in the guest beside `crun run` and
        `runc run`, all of the same root file system";

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    // The guest's half of `run`.
    if names == ["inside"] {
        return guest::inside();
    }
    if names.is_empty() || !names.iter().all(|name| matches!(name.as_str(), "api" | "boot" | "run")) {
        eprintln!("{USAGE}");
        std::process::exit(2);
    }
    for name in names {
        match name.as_str() {
            "api" => api::bench()?,
            "boot" => boot::bench()?,
            _ => run::bench()?,
        }
    }
    Ok(())
}
