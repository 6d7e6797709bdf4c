//! `volume browse`, `volume export`, `volume import` and `volume cp`: the files of a volume.
//!
//! Lists are Skiff's own. For the rest, which works with any engine: it gives archives of containers only, so one of the built-in image is made around the volume for the time; it
//! never runs.

use clap::Args;
use http::Method;
use serde_json::json;

use super::container::copy::Place;
use super::{Context, container, name_in_path};
use crate::api::client::{empty, streamed};
use crate::api::{Client, Query};
use crate::download;
use crate::error::Error;
use crate::format::table;
use crate::terminal::{print, warn};

/// The image that is built into the guest …
const IMAGE: &str = "skiff/toolbox";
/// … and one without files for engines that don't have it.
const EMPTY_IMAGE: &str = "skiff/empty";
/// A tar archive of nothing: two blocks of zeros (POSIX.1-2024, pax, ustar Interchange Format).
const EMPTY_ARCHIVE: &[u8] = &[0; 1024];
/// Where the volume is in the container.
const PLACE: &str = "/volume";

/// List the files in a directory of a volume
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume browse VOLUME[:PATH]")]
pub struct Browse {
    /// Volume and directory
    #[arg(value_name = "VOLUME[:PATH]", hide = true)]
    place: String,
}

/// Export the files of a volume as a tar archive
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume export [OPTIONS] VOLUME")]
pub struct Export {
    /// Write to a file, instead of STDOUT
    #[arg(short = 'o', long, value_name = "string")]
    output: Option<String>,
    /// Volume
    #[arg(value_name = "VOLUME", hide = true)]
    name: String,
}

/// Unpack a tar archive into a volume, which is created if it does not exist
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff volume import VOLUME file|-")]
pub struct Import {
    /// Volume
    #[arg(value_name = "VOLUME", hide = true)]
    name: String,
    /// Archive
    #[arg(value_name = "FILE", hide = true)]
    file: String,
}

/// Copy files/folders between a volume and the local filesystem
#[derive(Debug, Clone, Args)]
#[group(skip)]
#[command(
    override_usage = "skiff volume cp [OPTIONS] VOLUME:SRC_PATH DEST_PATH|-\n        skiff volume cp [OPTIONS] SRC_PATH|- VOLUME:DEST_PATH"
)]
pub struct Copy {
    #[command(flatten)]
    copy: container::copy::Copy,
}

/// Carries `browse` out.
pub async fn browse(context: &Context, args: &Browse) -> Result<(), Error> {
    let (name, path) = args.place.split_once(':').unwrap_or((&args.place, "/"));
    let client = context.client().await?;
    let query = Query::new().with("path", path);
    let found = client.get(&format!("/volumes/{}/files", name_in_path(name)), &query).await?;
    let mut lines = vec!["MODE\tOWNER\tSIZE\tMODIFIED\tNAME".to_owned()];
    for file in found.list("Files") {
        let target = match file.text("Target") {
            "" => String::new(),
            target => format!(" -> {}", clean(target)),
        };
        lines.push(format!(
            "{}\t{}:{}\t{}\t{}\t{}{target}",
            mode(file.int("Mode")),
            file.int("Uid"),
            file.int("Gid"),
            file.int("Size"),
            file.text("Modified").split('.').next().unwrap_or_default().trim_end_matches('Z'),
            clean(file.text("Name")),
        ));
    }
    print(&table::align(&lines));
    if found.flag("Cut") {
        warn("there are more files than are listed");
    }
    Ok(())
}

/// A name without what steers terminals.
fn clean(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A mode of stat(2) as `ls -l` writes it.
fn mode(mode: i64) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let special = [(0o4000, 's', 'S'), (0o2000, 's', 'S'), (0o1000, 't', 'T')];
    let mut text = String::from(kind);
    for (shift, (bit, with, without)) in [6, 3, 0].into_iter().zip(special) {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & bit != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Carries `cp` out.
pub async fn copy(context: &Context, args: &Copy) -> Result<(), Error> {
    args.copy
        .run("volume", async |name, wish| {
            let client = context.client().await?;
            client.get(&format!("/volumes/{}", name_in_path(name)), &Query::new()).await?;
            let copying = client.clone();
            with_volume(&client, name, async |container| {
                let place = Place { kind: "volume", name, container, root: PLACE };
                wish.carry_out(copying, &place).await
            })
            .await
        })
        .await
}

/// Carries `export` out.
pub async fn export(context: &Context, args: &Export) -> Result<(), Error> {
    download::check("export", args.output.as_deref())?;
    let client = context.client().await?;
    // A name that is not there is refused here: the container would make it.
    client.get(&format!("/volumes/{}", name_in_path(&args.name)), &Query::new()).await?;
    with_volume(&client, &args.name, async |container| {
        let path = format!("/containers/{container}/archive");
        let query = Query::new().with("path", format!("{PLACE}/."));
        let response = client.send(Method::GET, &path, &query, empty(), &[]).await?;
        download::save(response, args.output.as_deref()).await
    })
    .await
}

/// Carries `import` out.
pub async fn import(context: &Context, args: &Import) -> Result<(), Error> {
    let body = if args.file == "-" {
        streamed(tokio::io::stdin())
    } else {
        streamed(tokio::fs::File::open(&args.file).await.map_err(|error| Error::file(&args.file, error))?)
    };
    let client = context.client().await?;
    let mut body = Some(body);
    with_volume(&client, &args.name, async |container| {
        let path = format!("/containers/{container}/archive");
        let query = Query::new().with("path", PLACE);
        let headers = [("content-type", "application/x-tar")];
        let body = body.take().unwrap_or_else(empty);
        let response = client.send(Method::PUT, &path, &query, body, &headers).await?;
        client.collect(response).await.map(drop)
    })
    .await
}

async fn with_volume(
    client: &Client,
    name: &str,
    work: impl AsyncFnOnce(&str) -> Result<(), Error>,
) -> Result<(), Error> {
    let built_in = client.get(&format!("/images/{IMAGE}/json"), &Query::new()).await.is_ok();
    if !built_in {
        let query = Query::new().with("fromSrc", "-").with("repo", EMPTY_IMAGE).with("tag", "latest");
        let archive = streamed(EMPTY_ARCHIVE);
        let response = client.send(Method::POST, "/images/create", &query, archive, &[]).await?;
        client.collect(response).await?;
    }
    let body = json!({
        "Image": if built_in { IMAGE } else { EMPTY_IMAGE },
        "Cmd": ["never-run"],
        "HostConfig": {
            "Mounts": [{"Type": "volume", "Source": name, "Target": PLACE, "VolumeOptions": {"NoCopy": true}}],
            "NetworkMode": "none",
        },
    });
    let made = client.post_json("/containers/create", &Query::new(), &body).await?;
    let id = made.text("Id").to_owned();
    let result = work(&id).await;
    let removed = client.delete(&format!("/containers/{id}"), &Query::new().flag("force", true)).await;
    if !built_in {
        // Best effort: an image of nothing is in nobody's way.
        let _ = client.delete(&format!("/images/{EMPTY_IMAGE}"), &Query::new()).await;
    }
    result.and(removed.map(drop))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_read_like_those_of_ls() {
        for (bits, text) in [
            (0o100_644, "-rw-r--r--"),
            (0o040_755, "drwxr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o104_755, "-rwsr-xr-x"),
            (0o102_640, "-rw-r-S---"),
            (0o120_777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode(bits), text);
        }
        assert_eq!(clean("a\x1b[31m\n"), "a?[31m?");
    }
}
