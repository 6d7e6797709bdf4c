//! Directories of the client's.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use crate::client::LocalRequest;
use crate::error::{Error, Result};
use crate::files::{Receiver, Tree};
use crate::graph::pb;
use crate::solver::cache::{Record, seconds};
use crate::solver::report::Reporter;
use crate::solver::value::{Context, Value};
use crate::solver::{Inner, Job, blocking};

/// What clients sent last, by name and shared key.
pub(crate) struct Locals {
    root: PathBuf,
    known: Mutex<HashMap<String, Arc<Tree>>>,
}

/// The record's id for what a client sends under a name.
pub(crate) fn key_of(request: &LocalRequest) -> String {
    let text =
        [request.name.as_str(), &request.shared_key, &request.include.join("\n"), &request.follow.join("\n")];
    let digest = crate::graph::digest(text.join("\0").as_bytes());
    format!("local.{}", digest.trim_start_matches("sha256:"))
}

impl Locals {
    pub fn open(root: PathBuf) -> Result<Locals> {
        std::fs::create_dir_all(&root).map_err(|error| Error::io("create", &root, error))?;
        Ok(Locals { root, known: Mutex::default() })
    }

    /// What was sent last; an unreadable one is none.
    pub fn get(&self, key: &str) -> Arc<Tree> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tree) = known.get(key) {
            return Arc::clone(tree);
        }
        let read = std::fs::read(self.root.join(key)).ok();
        let tree = Arc::new(read.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default());
        known.insert(key.to_owned(), Arc::clone(&tree));
        tree
    }

    pub fn put(&self, key: &str, tree: &Arc<Tree>, inner: &Inner) -> Result<()> {
        if *self.get(key) == **tree {
            return Ok(());
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned(), Arc::clone(tree));
        let bytes = serde_json::to_vec(&**tree).map_err(|error| Error::failed(error.to_string()))?;
        let (staged, path) = (inner.files.stage(), self.root.join(key));
        std::fs::write(&staged, bytes).map_err(|error| Error::io("write", &staged, error))?;
        std::fs::rename(&staged, &path).map_err(|error| Error::io("rename", &path, error))
    }

    pub fn remove(&self, key: &str) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        // One that is not there is what is wanted.
        let _ = std::fs::remove_file(self.root.join(key));
    }

    /// All that are kept.
    pub fn all(&self) -> Vec<(String, Arc<Tree>)> {
        let names = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        names
            .filter_map(|entry| entry.file_name().into_string().ok())
            .map(|key| (key.clone(), self.get(&key)))
            .collect()
    }
}

pub(super) async fn load(
    job: &Job,
    name: &str,
    op: &pb::SourceOp,
    reporter: &Reporter,
) -> Result<(Value, bool)> {
    let attribute = |key: &str| op.attrs.get(key).cloned().unwrap_or_default();
    let list = |key: &str| -> Result<Vec<String>> {
        match op.attrs.get(key).map(String::as_str) {
            None | Some("" | "null") => Ok(Vec::new()),
            Some(text) => serde_json::from_str(text)
                .map_err(|error| Error::invalid(format!("invalid {key} of local source {name}: {error}"))),
        }
    };
    let session = attribute("local.session");
    let shared_key = job.client().contexts.shared_key(&session).await;
    let request = LocalRequest {
        name: name.to_owned(),
        session,
        include: list("local.includepattern")?,
        exclude: list("local.excludepatterns")?,
        follow: list("local.followpaths")?,
        shared_key: format!("{shared_key}\n{}", attribute("local.sharedkeyhint")),
    };
    let inner = &job.inner.solver.inner;
    if let Some(tree) = job.inner.options.contexts.get(name) {
        let tree = Arc::clone(tree);
        let context = blocking(move || {
            let tree = match request.exclude.is_empty() {
                true => tree,
                false => Arc::new(tree.without(&request.exclude)?),
            };
            Ok(Context { digest: tree.digest(), tree })
        })
        .await?;
        return Ok((Value::Context(context), false));
    }
    let key = key_of(&request);
    let mut receiver = Receiver::new(Arc::clone(&inner.files), inner.locals.get(&key));
    let label = format!("transferring {name}:");
    let last = Mutex::new(0);
    let progress = |_: &str, bytes: u64| {
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        // Every message is rendered by the client.
        if bytes >= *last + (256 << 10) {
            *last = bytes;
            reporter.status(&label, bytes, 0, false);
        } else {
            *last = bytes.max(*last);
        }
    };
    job.client().contexts.send(&request, &mut receiver, &progress).await?;
    reporter.status(&label, *last.lock().unwrap_or_else(PoisonError::into_inner), 0, true);
    let worker = Arc::clone(inner);
    let description = format!("local source for {name}");
    let (tree, digest) = blocking(move || {
        let tree = Arc::new(receiver.finish()?);
        let digest = tree.digest();
        worker.keep_context(&key, &tree, description)?;
        Ok((tree, digest))
    })
    .await?;
    Ok((Value::Context(Context { tree, digest }), false))
}

impl Inner {
    /// Keeps a context for the next transfer under the same key. Blocks.
    pub(crate) fn keep_context(
        self: &Arc<Inner>,
        key: &str,
        tree: &Arc<Tree>,
        description: String,
    ) -> Result<()> {
        self.locals.put(key, tree, self)?;
        let (now, old) = (seconds(), self.cache.get(key));
        let record = Record {
            kind: "source.local".to_owned(),
            description,
            parents: Vec::new(),
            keys: Vec::new(),
            own: 0,
            size: tree.size(),
            created: old.as_ref().map_or(now, |old| old.created),
            last_used: now,
            uses: old.map_or(0, |old| old.uses) + 1,
            layers: Vec::new(),
        };
        self.cache.add(key, record, skiff_images::Held::nothing());
        Ok(())
    }

    /// What was sent under a key last.
    pub(crate) fn last_context(&self, key: &str) -> Arc<Tree> {
        self.locals.get(key)
    }
}
