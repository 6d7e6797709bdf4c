//! `manifest inspect`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;

use super::indent::indent;
use super::store::{Descriptor, Lists, Member};
use super::{Found, document, fetch, missing, parse};
use crate::command::Context;
use crate::command::image::pull::full_name;
use crate::error::Error;
use crate::options::reference;
use crate::terminal::print_line;

/// Display an image manifest, or manifest list
#[derive(Debug, Clone, Args)]
#[command(override_usage = "skiff manifest inspect [OPTIONS] [MANIFEST_LIST] MANIFEST")]
pub struct Inspect {
    /// Allow communication with an insecure registry (the engine's settings name those)
    #[arg(long)]
    insecure: bool,
    /// Output additional info including layers and platform
    #[arg(short = 'v', long)]
    verbose: bool,
    /// List and member, or one of them
    #[arg(required = true, num_args = 1..=2, value_name = "MANIFEST", hide = true)]
    names: Vec<String>,
}

/// Carries the command out.
pub async fn run(context: &Context, args: &Inspect) -> Result<(), Error> {
    let lists = Lists::open()?;
    if let [list, name] = &args.names[..] {
        let full = full_name(name);
        let member = lists.member(&full_name(list), &full)?.ok_or_else(|| missing(&full))?;
        return print_member(&member, args.verbose);
    }
    let full = full_name(args.names.first().map_or("", String::as_str));
    if let Some(members) = lists.list(&full)? {
        return print_list(&members, args.verbose);
    }
    let client = context.client().await?;
    match fetch(&client, &full).await? {
        Found::Image(member) => print_member(&member, args.verbose),
        Found::List(bytes) if !args.verbose => {
            print_line(indent(&text(&bytes)?, "   "));
            Ok(())
        }
        Found::List(bytes) => {
            #[derive(serde::Deserialize)]
            struct List {
                manifests: Vec<Descriptor>,
            }
            let list: List = parse(&bytes)?;
            let mut members = Vec::new();
            for descriptor in list.manifests {
                let name = format!("{}@{}", reference::parts(&full).0, descriptor.digest);
                // What the list says of its members counts, and each is shown as the list's.
                if let Found::Image(mut member) = fetch(&client, &name).await? {
                    member.descriptor = descriptor;
                    members.push(*member);
                }
            }
            print_list(&members, true)
        }
    }
}

fn print_member(member: &Member, verbose: bool) -> Result<(), Error> {
    let shown = if verbose {
        serde_json::to_string(member).map_err(|error| Error::plain(error.to_string()))?
    } else {
        text(&STANDARD.decode(&member.raw).map_err(|error| Error::plain(error.to_string()))?)?
    };
    print_line(indent(&shown, "\t"));
    Ok(())
}

fn print_list(members: &[Member], verbose: bool) -> Result<(), Error> {
    if verbose {
        let shown = serde_json::to_string(members).map_err(|error| Error::plain(error.to_string()))?;
        print_line(indent(&shown, "\t"));
    } else {
        print_line(document(members)?);
    }
    Ok(())
}

fn text(bytes: &[u8]) -> Result<String, Error> {
    String::from_utf8(bytes.to_vec()).map_err(|error| Error::plain(error.to_string()))
}
