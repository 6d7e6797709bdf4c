//! `info`.

use clap::Args;

use crate::api::Query;
use crate::command::Context;
use crate::error::Error;
use crate::format::list::object;
use crate::format::units;
use crate::format::value::Value;
use crate::terminal::{print, print_line, warn};

/// Display system-wide information
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff info [OPTIONS]")]
pub struct Info {
    #[doc = include_str!("../format_object.txt")]
    #[arg(short = 'f', long, value_name = "string")]
    format: Option<String>,
}

/// Carries `info` out.
pub async fn run(context: &Context, args: &Info) -> Result<(), Error> {
    let client = context.client().await?;
    let info = client.get("/info", &Query::new()).await?;
    match args.format.as_deref().filter(|format| !format.is_empty()) {
        Some(format) => print_line(object(format, &info)?),
        None => {
            print(&describe(&info));
            for warning in info.list("Warnings") {
                warn(warning);
            }
        }
    }
    Ok(())
}

fn describe(info: &Value) -> String {
    let mut out = format!("Client: Skiff\n Version:    {}\n\nServer:\n", env!("CARGO_PKG_VERSION"));
    let mut line = |indent: usize, key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{:indent$}{key}: {value}\n", ""));
        }
    };
    let text = |key: &str| info.text(key).to_owned();
    let number = |key: &str| info.int(key).to_string();
    line(1, "Containers", number("Containers"));
    line(2, "Running", number("ContainersRunning"));
    line(2, "Paused", number("ContainersPaused"));
    line(2, "Stopped", number("ContainersStopped"));
    line(1, "Images", number("Images"));
    line(1, "Server Version", text("ServerVersion"));
    line(1, "Storage Driver", text("Driver"));
    for pair in info.list("DriverStatus") {
        if let Value::List(pair) = pair
            && let [key, value] = pair.as_slice()
        {
            line(2, &key.to_string(), value.to_string());
        }
    }
    line(1, "Logging Driver", text("LoggingDriver"));
    line(1, "Cgroup Driver", text("CgroupDriver"));
    line(1, "Cgroup Version", text("CgroupVersion"));
    if let Some(plugins) = info.get("Plugins") {
        out.push_str(" Plugins:\n");
        for kind in ["Volume", "Network", "Log"] {
            let names: Vec<String> = plugins.list(kind).iter().map(ToString::to_string).collect();
            if !names.is_empty() {
                out.push_str(&format!("  {kind}: {}\n", names.join(" ")));
            }
        }
    }
    let mut line = |indent: usize, key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!("{:indent$}{key}: {value}\n", ""));
        }
    };
    let runtimes: Vec<&str> = info.entries("Runtimes").iter().map(|(name, _)| name.as_str()).collect();
    line(1, "Swarm", info.at(&["Swarm", "LocalNodeState"]).map(ToString::to_string).unwrap_or_default());
    line(1, "Runtimes", runtimes.join(" "));
    line(1, "Default Runtime", text("DefaultRuntime"));
    line(1, "Init Binary", text("InitBinary"));
    if !info.list("SecurityOptions").is_empty() {
        out.push_str(" Security Options:\n");
        for option in info.list("SecurityOptions") {
            let option = option.to_string();
            let mut parts = option.split(',').map(|part| part.split_once('=').unwrap_or(("", part)));
            out.push_str(&format!("  {}\n", parts.next().map_or("", |(_, name)| name)));
            for (key, value) in parts {
                out.push_str(&format!(
                    "   {}{}: {value}\n",
                    key[..1.min(key.len())].to_uppercase(),
                    &key[1.min(key.len())..]
                ));
            }
        }
    }
    let mut line = |key: &str, value: String| {
        if !value.is_empty() {
            out.push_str(&format!(" {key}: {value}\n"));
        }
    };
    line("Kernel Version", text("KernelVersion"));
    line("Operating System", text("OperatingSystem"));
    line("OSType", text("OSType"));
    line("Architecture", text("Architecture"));
    line("CPUs", number("NCPU"));
    line("Total Memory", units::binary_size(info.int("MemTotal")));
    line("Name", text("Name"));
    line("ID", text("ID"));
    line("Docker Root Dir", text("DockerRootDir"));
    line("Debug Mode", info.flag("Debug").to_string());
    line("HTTP Proxy", text("HttpProxy"));
    line("HTTPS Proxy", text("HttpsProxy"));
    line("No Proxy", text("NoProxy"));
    line("Experimental", info.flag("ExperimentalBuild").to_string());
    if let Some(registry) = info.get("RegistryConfig") {
        let insecure = registry.list("InsecureRegistryCIDRs");
        if !insecure.is_empty() {
            out.push_str(" Insecure Registries:\n");
            insecure.iter().for_each(|item| out.push_str(&format!("  {item}\n")));
        }
        if !registry.list("Mirrors").is_empty() {
            out.push_str(" Registry Mirrors:\n");
            registry.list("Mirrors").iter().for_each(|item| out.push_str(&format!("  {item}\n")));
        }
    }
    out.push_str(&format!(" Live Restore Enabled: {}\n", info.flag("LiveRestoreEnabled")));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_engine_tells_is_shown_and_nothing_is_invented() {
        let info = Value::parse(
            br#"{"Containers":2,"ContainersRunning":1,"Images":3,"ServerVersion":"0.1.0","Driver":"overlay2",
            "SecurityOptions":["name=seccomp,profile=builtin"],"MemTotal":1073741824,"NCPU":2,
            "Runtimes":{"skiff":{}},"Plugins":{"Log":["json-file"]}}"#,
        )
        .unwrap();
        let text = describe(&info);
        for part in [
            " Containers: 2\n  Running: 1\n",
            " Storage Driver: overlay2\n",
            " Security Options:\n  seccomp\n   Profile: builtin\n",
            " Total Memory: 1GiB\n",
            "  Log: json-file\n",
        ] {
            assert!(text.contains(part), "{part:?} in {text}");
        }
        assert!(!text.contains("Kernel Version"));
    }
}
