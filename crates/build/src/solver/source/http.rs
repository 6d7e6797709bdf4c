//! Files from the web.

use std::sync::Arc;

use tokio::io::AsyncReadExt as _;

use crate::error::{Error, Result};
use crate::files::act::{self, Ownership};
use crate::files::read_only_root;
use crate::graph::pb;
use crate::solver::cache::{Record, seconds};
use crate::solver::report::Reporter;
use crate::solver::value::{Snapshot, Value, add_layer};
use crate::solver::{Job, blocking, key};

/// The largest file.
const LARGEST: u64 = 64 << 30;
const BUFFER: usize = 256 << 10;

pub(super) async fn load(job: &Job, op: &pb::SourceOp, reporter: &Reporter) -> Result<(Value, bool)> {
    let url = op.identifier.as_str();
    let attribute = |key: &str| op.attrs.get(key).map(String::as_str).filter(|value| !value.is_empty());
    let inner = &job.inner.solver.inner;
    let wanted = attribute("http.checksum").map(str::to_owned);
    let octal = |text: &str| u32::from_str_radix(text.trim_start_matches("0o"), 8).ok();
    let mode = attribute("http.perm").and_then(octal).unwrap_or(0o600);
    let number = |key: &str| attribute(key).and_then(|text| text.parse::<u32>().ok());
    let owner = (number("http.uid").unwrap_or(0), number("http.gid").unwrap_or(0));
    let name = attribute("http.filename").map(str::to_owned);
    let made_from = |digest: &str, name: &str, time: i64| {
        let text = format!("http {digest} {name} {mode:o} {} {} {time}", owner.0, owner.1);
        let key = crate::graph::digest(text.as_bytes());
        key::output(key.trim_start_matches("sha256:"), 0)
    };
    // What was fetched with this checksum before needs no fetching.
    let alias = wanted.as_ref().map(|wanted| {
        let text = format!("http {url} {wanted} {name:?} {mode:o} {owner:?}");
        key::output(crate::graph::digest(text.as_bytes()).trim_start_matches("sha256:"), 0)
    });
    if let Some((_, record)) = alias.as_ref().and_then(|alias| inner.cache.find(alias))
        && let Some(held) = inner.config.images.hold(&record.layers)
    {
        return Ok((Value::Layers(Snapshot::held(held, None)), true));
    }
    let (mut body, answer) = match url.strip_prefix("http://buildkit-session/") {
        Some(_) => (job.client().contexts.upload(url).await?, None),
        None => {
            let (body, answer) = inner.config.images.download(url).await.map_err(|error| {
                // BuildKit asks for it to find its key.
                Error::unavailable(format!("failed to load cache key: {error}"))
            })?;
            (Box::new(body) as Box<dyn tokio::io::AsyncRead + Send + Unpin>, Some(answer))
        }
    };
    let name = name.or_else(|| answer.as_ref().and_then(|answer| answer.filename.clone()));
    let name = name.unwrap_or_else(|| file_name(url));
    if name.contains('/') || matches!(name.as_str(), "" | "." | "..") {
        return Err(Error::invalid(format!("invalid file name \"{name}\" of {url}")));
    }
    let time = answer.as_ref().and_then(|answer| answer.modified).unwrap_or(0);
    let total = answer.as_ref().and_then(|answer| answer.length).unwrap_or(0);
    let store = Arc::clone(&inner.files);
    let mut incoming = store.begin();
    let (mut received, mut told) = (0u64, 0u64);
    let mut buffer = vec![0; BUFFER];
    loop {
        let failed = |error: std::io::Error| Error::unavailable(format!("{url}: {error}"));
        let got = body.read(&mut buffer).await.map_err(failed)?;
        if got == 0 {
            break;
        }
        received += got as u64;
        if received > LARGEST {
            return Err(Error::invalid(format!("{url} is larger than {LARGEST} bytes")));
        }
        store.write(&mut incoming, &buffer[..got])?;
        if received - told > 1 << 20 {
            told = received;
            reporter.status("downloading", received, total, false);
        }
    }
    if total != 0 && received != total {
        return Err(Error::unavailable(format!("{url}: unexpected EOF after {received} of {total} bytes")));
    }
    reporter.status("downloading", received, total, true);
    let (_, hash) = store.finish(incoming)?;
    let digest = format!("sha256:{hash}");
    if answer.is_some() {
        job.inner.materials.add(url.to_owned(), digest.clone());
    }
    if let Some(wanted) = wanted.filter(|wanted| *wanted != digest) {
        return Err(Error::failed(format!("digest mismatch {digest}: {wanted}")));
    }
    let key = made_from(&digest, &name, time);
    if let Some((id, record)) = inner.cache.find(&key)
        && let Some(held) = inner.config.images.hold(&record.layers)
    {
        if let Some(alias) = &alias {
            inner.cache.alias(&id, alias);
        }
        return Ok((Value::Layers(Snapshot::held(held, None)), false));
    }
    let worker = Arc::clone(inner);
    let held = blocking(move || {
        let tree = worker.config.images.new_tree()?;
        let root = read_only_root(tree.path()).map_err(|error| Error::io("open", tree.path(), error))?;
        let ownership = Ownership { owner: Some(owner), time: Some((time, 0)) };
        let path = worker.files.path(&hash);
        act::make_file(&root, name.as_bytes(), mode, b"", &Ownership::default())?;
        let into = tree.path().join(&name);
        std::fs::copy(&path, &into).map_err(|error| Error::io("copy", &into, error))?;
        act::finish_file(&root, name.as_bytes(), mode, &ownership)?;
        drop(root);
        add_layer(&worker, tree)
    })
    .await?;
    let snapshot = Snapshot::held(held.clone(), None);
    let now = seconds();
    let record = Record {
        kind: "regular".to_owned(),
        description: url.to_owned(),
        parents: Vec::new(),
        keys: std::iter::once(key.clone()).chain(alias).collect(),
        own: 1,
        size: 0,
        created: now,
        last_used: now,
        uses: 1,
        layers: Vec::new(),
    };
    inner.note(&snapshot, &key);
    inner.cache.add(&key, record, held);
    Ok((Value::Layers(snapshot), false))
}

/// The last name of an address, or `download`.
fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').map_or("", |(_, path)| path).rsplit('/').next().unwrap_or("");
    if name.is_empty() { "download".to_owned() } else { name.to_owned() }
}
