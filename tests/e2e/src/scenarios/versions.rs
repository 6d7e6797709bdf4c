//! Who the engine says it is, and to which API version.

use anyhow::ensure;

use crate::{Subject, scenarios};

scenarios![version_and_info_are_told, old_and_new_api_versions_are_spoken];

fn version_and_info_are_told(on: &Subject) -> anyhow::Result<()> {
    let docker = &on.docker;
    docker.run("version")?.ok()?.shows("Server: Skiff")?.shows("(minimum version 1.24)")?.shows("+skiff.")?;
    let text = docker.args(&[
        "version",
        "--format",
        "{{.Server.APIVersion}} {{.Server.MinAPIVersion}} {{.Server.Os}}",
    ])?;
    let text = text.ok()?.out();
    let words: Vec<_> = text.split_whitespace().collect();
    ensure!(words.len() == 3 && words[1] == "1.24" && words[2] == "linux", "version says {text:?}");
    let minor: u32 = words[0].trim_start_matches("1.").parse()?;
    ensure!(minor >= 51, "API version {}", words[0]);

    on.sleeper("informant")?;
    docker.run("info")?.ok()?.shows("Running: 1")?;
    let format = "{{.OSType}} {{.Driver}} {{.ContainersRunning}} {{.Images}} {{.CgroupVersion}}";
    let text = docker.args(&["info", "--format", format])?.ok()?.out();
    ensure!(text.starts_with("linux overlay") && text.split(' ').nth(2) == Some("1"), "info says {text:?}");
    Ok(())
}

fn old_and_new_api_versions_are_spoken(on: &Subject) -> anyhow::Result<()> {
    for version in ["1.24", "1.41", "1.51"] {
        let docker = on.docker.clone().with_api_version(version);
        let name = format!("v{}", version.replace('.', "-"));
        docker
            .args(&["version", "--format", "{{.Client.APIVersion}}"])?
            .ok()?
            .prints(&format!("{version}\n"))?;
        docker.run(&format!("run --rm busybox echo {version}"))?.ok()?.prints(&format!("{version}\n"))?;
        docker
            .command(&format!("run -d --name {name} busybox"))
            .args(["sh", "-c", "echo up; exec sleep 1000"])
            .run()?
            .ok()?;
        docker.run("ps --format {{.Names}}")?.ok()?.prints(&format!("{name}\n"))?;
        docker.run(&format!("exec {name} echo inside"))?.ok()?.prints("inside\n")?;
        docker.feed(&format!("exec -i {name} cat"), "piped")?.ok()?.prints("piped")?;
        docker.run(&format!("logs {name}"))?.ok()?.prints("up\n")?;
        docker.run("images -q")?.ok()?;
        docker.run(&format!("kill {name}"))?.ok()?;
        docker.run(&format!("wait {name}"))?.ok()?.prints("137\n")?;
        docker.run(&format!("rm {name}"))?.ok()?;
    }
    let refused = on.docker.clone().with_api_version("1.23").run("ps")?;
    ensure!(refused.code != 0 && refused.err().contains("1.2"), "1.23 is too old\n{refused}");
    Ok(())
}
