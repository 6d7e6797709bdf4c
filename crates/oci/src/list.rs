//! `state` and `list`.

use super::state::{Entry, Record, Status, Store, document};

/// What commands take that need no more.
#[derive(Debug, clap::Args)]
pub struct Id {
    /// Name of the container
    pub id: String,
}

/// What `list` takes.
#[derive(Debug, clap::Args)]
pub struct Options {
    /// How to show them
    #[arg(short, long, default_value = "table")]
    format: Format,
    /// Names only
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// In columns
    Table,
    /// As a list of states
    Json,
}

/// Shows the state of a container.
pub fn state(store: &Store, id: &Id) -> anyhow::Result<()> {
    let entry = store.find(&id.id)?;
    let record = entry.read()?;
    println!("{}", serde_json::to_string_pretty(&describe(&entry, &record))?);
    Ok(())
}

/// Shows all containers.
pub fn list(store: &Store, options: &Options) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for entry in store.all()? {
        // One that is only half made has nothing to show but its name.
        let Ok(Some(record)) = entry.try_read() else { continue };
        rows.push(describe(&entry, &record));
    }
    if options.quiet {
        rows.iter().for_each(|row| println!("{}", row["id"].as_str().unwrap_or_default()));
        return Ok(());
    }
    if options.format == Format::Json {
        println!("{}", serde_json::to_string(&rows)?);
        return Ok(());
    }
    println!("{:<24} {:<8} {:<9} {:<40} CREATED", "ID", "PID", "STATUS", "BUNDLE");
    for row in rows {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        let (id, status, bundle, created) = (text("id"), text("status"), text("bundle"), text("created"));
        println!("{id:<24} {:<8} {status:<9} {bundle:<40} {created}", row["pid"].to_string());
    }
    Ok(())
}

fn describe(entry: &Entry, record: &Record) -> serde_json::Value {
    let status = entry.status(record);
    let pid = match (&record.process, status) {
        (_, Status::Stopped) | (None, _) => 0,
        (Some(process), _) => process.pid,
    };
    let mut document = document(record, pid, &status.to_string());
    document["rootfs"] = record.rootfs.display().to_string().into();
    document["created"] = record.created.clone().into();
    document["owner"] = record.owner.to_string().into();
    document
}
