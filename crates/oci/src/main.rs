//! `skiff-oci`: the runtime for podman, dockerd and others that take a path.

#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    skiff_oci::main()
}
