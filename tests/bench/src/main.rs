//! Benchmarks: ratios against a peer or a floor in the same run.
//!
//! Machines are noisy, so every figure is a median of interleaved rounds and comes with the spread of its rounds.

#![forbid(unsafe_code)]

mod api;
mod boot;
mod build;
mod client;
mod files;
mod guest;
mod http;
mod image;
mod network;
mod peer;
mod ports;
mod process;
mod registry;
mod run;
mod runtime;
mod sample;
mod wake;

const USAGE: &str = "Usage: skiff-bench api|boot|build|files|image|network|ports|run|runtime|wake…

  api   calls, lists, output, stats and memory of the engine on this host, beside a dockerd if there is one
  boot  process start to the first /_ping, beside the same kernel with an empty init
  build a project from nothing, again, after one change, and a context of 50,000 files, beside dockerd and buildah
  files a shared directory of the host in the guest, beside the guest's own ext4 and tmpfs
  image pull and push of 1 GiB in 12 layers over the loopback, beside dockerd, buildah and `curl | zcat | tar x`
  network  host to container, container to host, to the outside and to another container: throughput, round trips,
        connections and processor time, on this host beside a dockerd if there is one, and in the guest beside slirp and
        passt for the same guest
  ports published ports: on this host beside a dockerd if there is one, and in the guest beside its own link
  run   create+start+wait+remove of `true` over the API: on this host beside `runc run`, in the guest beside `crun run` and
        `runc run`, all of the same root file system
  runtime  `skiff-oci` beside `runc` on this host and beside `crun` and `runc` in the guest: run, exec, and what
        500 containers take, with conmon beside crun; and what the kernel alone takes
  wake  the first answer of a guest that sleeps, beside one that is booted; suspend, memory and disk";

fn main() -> anyhow::Result<()> {
    let names: Vec<String> = std::env::args().skip(1).collect();
    // The guest's half of `run`.
    if names == ["inside"] {
        return guest::inside();
    }
    // That of `runtime`.
    if names == ["runtime-inside"] {
        return runtime::inside();
    }
    // The halves of `network`.
    match &names[..] {
        [half, to] if half == "client" => {
            return network::client(to, &mut |line| {
                println!("{line}");
                Ok(())
            });
        }
        [half, at] if half == "serve" => return network::serve(at),
        _ => {}
    }
    // The guest's half of `files`.
    if names == ["files-inside"] {
        return files::inside();
    }
    let known = ["api", "boot", "build", "files", "image", "network", "ports", "run", "runtime", "wake"];
    if names.is_empty() || !names.iter().all(|name| known.contains(&name.as_str())) {
        eprintln!("{USAGE}");
        std::process::exit(2);
    }
    for name in names {
        match name.as_str() {
            "api" => api::bench()?,
            "boot" => boot::bench()?,
            "build" => build::bench()?,
            "files" => files::bench()?,
            "image" => image::bench()?,
            "network" => network::bench()?,
            "ports" => ports::bench()?,
            "runtime" => runtime::bench()?,
            "wake" => wake::bench()?,
            _ => run::bench()?,
        }
    }
    Ok(())
}
