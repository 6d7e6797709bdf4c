//! Doing vertices: each once in a job, equal ones once in all jobs, independent ones at the same time.
//!
//! A vertex is a task. Whoever needs it holds it by a shared future; when nobody does any more, the task is aborted,
//! which kills what it has started.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared, WeakShared, try_join_all};
use tokio::task::JoinHandle;

use super::cache::Record;
use super::report::{Reporter, describe};
use super::value::{Outputs, Snapshot, Value};
use super::{Inner, Job, cache, exec, file, image, key, merge, names, source};
use crate::error::{Error, Result};
use crate::files::{Selection, checksum};
use crate::graph::pb::op::Op;
use crate::graph::{Graph, Vertex};

/// How the failure begins of a path that is not there.
const NO_CHECKSUM: &str = "failed to calculate checksum";

/// Work that several wait for.
pub(crate) type Work = Shared<BoxFuture<'static, Result<Outputs>>>;

/// Work that ends when nobody waits for it any more.
type Waited = WeakShared<BoxFuture<'static, Result<Outputs>>>;

/// A vertex of a job.
pub(crate) enum Memo {
    Running(Waited),
    Done(Result<Outputs>),
}

/// Work under way in all jobs, by key.
#[derive(Default)]
pub(crate) struct Flights {
    all: Mutex<HashMap<String, (Waited, Reporter)>>,
}

/// A task that ends with whoever waits for it.
struct Tied<T>(JoinHandle<T>);

impl<T> Drop for Tied<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Tied<Result<T>> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T>> {
        self.0.poll_unpin(cx).map(|joined| match joined {
            Ok(result) => result,
            Err(error) if error.is_cancelled() => Err(Error::Cancelled),
            Err(error) => Err(Error::failed(format!("a worker failed: {error}"))),
        })
    }
}

fn spawn(work: impl Future<Output = Result<Outputs>> + Send + 'static) -> Work {
    Tied(tokio::spawn(work)).boxed().shared()
}

/// How an input counts for the key.
pub(crate) enum Counts {
    /// With all that it is.
    Whole,
    /// With these parts.
    Parts(Vec<Selection>),
}

/// What an operation says about its inputs and outputs.
pub(crate) struct Plan {
    pub inputs: Vec<Counts>,
    /// The outputs that it has, by number.
    pub outputs: Vec<usize>,
}

impl Job {
    /// Starts a vertex, or joins what was started.
    pub(crate) fn start(&self, graph: &Arc<Graph>, digest: &str) -> Work {
        let mut memo = self.inner.memo.lock().unwrap_or_else(PoisonError::into_inner);
        match memo.get(digest) {
            Some(Memo::Done(result)) => return futures_util::future::ready(result.clone()).boxed().shared(),
            Some(Memo::Running(work)) => {
                if let Some(work) = work.upgrade() {
                    return work;
                }
            }
            None => {}
        }
        let (job, graph, name) = (self.clone(), Arc::clone(graph), digest.to_owned());
        let work = spawn(async move {
            let result = tokio::select! {
                () = job.inner.cancelled.cancelled() => Err(Error::Cancelled),
                result = job.run(&graph, &name) => result,
            };
            if !matches!(result, Err(Error::Cancelled)) {
                let mut memo = job.inner.memo.lock().unwrap_or_else(PoisonError::into_inner);
                memo.insert(name, Memo::Done(result.clone()));
            }
            result
        });
        if let Some(weak) = work.downgrade() {
            memo.insert(digest.to_owned(), Memo::Running(weak));
        }
        work
    }

    async fn run(&self, graph: &Arc<Graph>, digest: &str) -> Result<Outputs> {
        let Some(vertex) = graph.get(digest) else {
            return Err(Error::invalid(format!("invalid missing input digest {digest}")));
        };
        let inputs: Vec<Work> = vertex.op.inputs.iter().map(|i| self.start(graph, &i.digest)).collect();
        let outputs = try_join_all(inputs).await?;
        let mut values = Vec::with_capacity(outputs.len());
        for (input, outputs) in vertex.op.inputs.iter().zip(outputs) {
            let value = usize::try_from(input.index).ok().and_then(|index| outputs.get(index)?.clone());
            values.push(value.ok_or_else(|| {
                Error::invalid(format!("invalid output index {} of {}", input.index, input.digest))
            })?);
        }
        let progress = Arc::clone(&self.inner.options.progress);
        let reporter = Reporter::new(progress, describe(vertex));
        match self.perform(vertex, values, &reporter).await {
            Ok(outputs) => Ok(outputs),
            Err(cause) => {
                reporter.failed(&cause);
                let cause = match cause {
                    Error::NotFound { message } if message.starts_with(NO_CHECKSUM) => {
                        Error::not_found(format!("failed to compute cache key: {message}"))
                    }
                    cause => cause,
                };
                Err(Error::Vertex {
                    digest: digest.to_owned(),
                    location: vertex.location.clone().map(Box::new),
                    cause: Box::new(cause),
                })
            }
        }
    }

    async fn perform(&self, vertex: &Vertex, inputs: Vec<Value>, reporter: &Reporter) -> Result<Outputs> {
        let inner = &self.inner.solver.inner;
        let plan = match &vertex.op.op {
            Some(Op::Source(op)) => {
                reporter.started();
                let (value, cached) = source::load(self, vertex, op, reporter).await?;
                reporter.completed(cached);
                return Ok(Arc::new(vec![Some(value)]));
            }
            Some(Op::Exec(op)) => exec::plan(op, &inputs)?,
            Some(Op::File(op)) => file::plan(op, inputs.len())?,
            Some(Op::Merge(_) | Op::Diff(_)) => {
                Plan { inputs: inputs.iter().map(|_| Counts::Whole).collect(), outputs: vec![0] }
            }
            Some(Op::Build(_)) => return Err(Error::invalid("nested builds are not supported")),
            None => return Err(Error::invalid("invalid nil op")),
        };
        let ignore = vertex.metadata.ignore_cache;
        let ids: Vec<String> = inputs.iter().map(Value::id).collect();
        let quick = key::of(vertex, &ids);
        if !ignore
            && let Some(outputs) = inner.cached(&quick, &plan.outputs, &inputs)
            && self.may_use(&outputs)
        {
            self.note_used(&[&quick], &outputs);
            reporter.completed(true);
            return Ok(outputs);
        }
        let exact = match plan.inputs.iter().all(|counts| matches!(counts, Counts::Whole)) {
            true => quick.clone(),
            false => key::of(vertex, &contents(inner, &plan.inputs, &inputs, &ids).await?),
        };
        if !ignore
            && exact != quick
            && let Some(outputs) = inner.cached(&exact, &plan.outputs, &inputs)
            && self.may_use(&outputs)
        {
            for &index in &plan.outputs {
                inner.cache.alias(&key::output(&exact, index), &key::output(&quick, index));
            }
            self.note_used(&[&quick, &exact], &outputs);
            reporter.completed(true);
            return Ok(outputs);
        }
        if !ignore && let Some(outputs) = self.imported([&quick, &exact], &plan.outputs).await {
            self.note_used(&[&quick, &exact], &outputs);
            reporter.completed(true);
            return Ok(outputs);
        }
        let work = {
            let (job, vertex, reporter) = (self.clone(), vertex.clone(), reporter.clone());
            let (exact, quick) = (exact.clone(), quick.clone());
            async move { job.make(&vertex, inputs, &plan, [exact, quick], &reporter).await }
        };
        if ignore {
            let outputs = spawn(work).await?;
            self.note_used(&[&quick, &exact], &outputs);
            return Ok(outputs);
        }
        let (work, first) = inner.flights.join(&exact, reporter, work);
        if !first {
            tracing::debug!(vertex = vertex.digest, "joined the work of another build");
        }
        let result = work.await;
        if let Ok(outputs) = &result {
            self.note_used(&[&quick, &exact], outputs);
        }
        if result.is_ok() && !first {
            reporter.completed(false);
        }
        result
    }

    /// Notes results for a cache that is made of this job, with every key that they are found by.
    fn note_used(&self, keys: &[&String], outputs: &Outputs) {
        let inner = &self.inner.solver.inner;
        for (index, value) in outputs.iter().enumerate() {
            let Some(value @ Value::Layers(snapshot)) = value else { continue };
            let record = inner.record_of(value).and_then(|record| inner.cache.get(&record));
            let mut all = record.map(|record| record.keys).unwrap_or_default();
            all.extend(keys.iter().map(|key| key::output(key, index)));
            self.inner.used.add(all, snapshot);
        }
    }

    /// Whether cached results are in images that the client allows.
    fn may_use(&self, outputs: &Outputs) -> bool {
        let Some(images) = &self.inner.options.cache_within else { return true };
        outputs.iter().flatten().all(|value| match value {
            Value::Layers(snapshot) => images.iter().any(|layers| layers.starts_with(&snapshot.layers)),
            Value::Context(_) => true,
        })
    }

    /// Finds all outputs of an operation in images that the client names as caches.
    async fn imported(&self, keys: [&str; 2], outputs: &[usize]) -> Option<Outputs> {
        if self.inner.options.cache_imports.is_empty() {
            return None;
        }
        let known = self.inner.imports.get_or_init(|| image::imports(self)).await;
        let mut values = vec![None; outputs.iter().max().map_or(0, |max| max + 1)];
        for &index in outputs {
            let found = keys.iter().find_map(|key| known.get(&key::output(key, index)))?;
            values[index] = Some(Value::Layers(found.clone()));
        }
        Some(Arc::new(values))
    }

    /// Does the work and records what it yields.
    async fn make(
        &self,
        vertex: &Vertex,
        inputs: Vec<Value>,
        plan: &Plan,
        keys: [String; 2],
        reporter: &Reporter,
    ) -> Result<Outputs> {
        reporter.started();
        let inner = &self.inner.solver.inner;
        let outputs = match &vertex.op.op {
            Some(Op::Exec(op)) => exec::run(self, op, &inputs, reporter).await?,
            Some(Op::File(op)) => file::run(self, op, &inputs, plan).await?,
            Some(Op::Merge(op)) => merge::merge(inner, op, &inputs).await?,
            Some(Op::Diff(op)) => merge::diff(inner, op, &inputs).await?,
            _ => return Err(Error::invalid("invalid op")),
        };
        let now = cache::seconds();
        let [exact, quick] = keys;
        for (index, value) in outputs.iter().enumerate() {
            let Some(Value::Layers(snapshot)) = value else { continue };
            let held = snapshot.realize(inner).await?;
            let below = inputs.first().map_or(0, |input| match input {
                Value::Layers(input) if snapshot.layers.starts_with(&input.layers) => input.layers.len(),
                _ => 0,
            });
            let mut found_by = vec![key::output(&exact, index)];
            if quick != exact {
                found_by.push(key::output(&quick, index));
            }
            let record = Record {
                kind: "regular".to_owned(),
                description: names::name(vertex),
                parents: inputs.iter().filter_map(|input| inner.record_of(input)).collect(),
                keys: found_by,
                own: snapshot.layers.len() - below,
                size: 0,
                created: now,
                last_used: now,
                uses: 1,
                layers: Vec::new(),
            };
            inner.note(snapshot, &key::output(&exact, index));
            inner.cache.add(&key::output(&exact, index), record, held);
        }
        reporter.completed(false);
        inner.collect_soon();
        Ok(outputs)
    }
}

impl Flights {
    /// Joins work of this key that is under way, or begins it; says whether it was begun.
    fn join(
        &self,
        key: &str,
        reporter: &Reporter,
        work: impl Future<Output = Result<Outputs>> + Send + 'static,
    ) -> (Work, bool) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, (work, _)| work.upgrade().is_some());
        if let Some((work, others)) = all.get(key)
            && let Some(work) = work.upgrade()
            && work.peek().is_none()
        {
            others.join(reporter);
            return (work, false);
        }
        let work = spawn(work);
        if let Some(weak) = work.downgrade() {
            all.insert(key.to_owned(), (weak, reporter.clone()));
        }
        (work, true)
    }
}

impl Inner {
    /// Finds all outputs of an operation.
    fn cached(&self, key: &str, outputs: &[usize], inputs: &[Value]) -> Option<Outputs> {
        let base = inputs.iter().find_map(|input| match input {
            Value::Layers(snapshot) => snapshot.base.clone(),
            Value::Context(_) => None,
        });
        let mut values = vec![None; outputs.iter().max().map_or(0, |max| max + 1)];
        for &index in outputs {
            let (id, record) = self.cache.find(&key::output(key, index))?;
            // Layers that are gone make it a record of nothing.
            let held = self.config.images.hold(&record.layers)?;
            let snapshot = Snapshot::held(held, base.clone());
            self.note(&snapshot, &id);
            values[index] = Some(Value::Layers(snapshot));
        }
        Some(Arc::new(values))
    }
}

/// What the inputs of an operation are, as far as they count.
async fn contents(
    inner: &Arc<Inner>,
    counts: &[Counts],
    inputs: &[Value],
    ids: &[String],
) -> Result<Vec<String>> {
    let mut contents = Vec::with_capacity(inputs.len());
    for ((counts, input), id) in counts.iter().zip(inputs).zip(ids) {
        let Counts::Parts(parts) = counts else {
            contents.push(id.clone());
            continue;
        };
        let (viewed, parts, id) = (input.viewed(inner).await?, parts.clone(), id.clone());
        let sums = super::blocking(move || {
            let mut sums = Vec::new();
            for part in &parts {
                missing(&viewed.view, part, &id)?;
                sums.push(checksum(&viewed.view, part)?);
            }
            Ok(sums)
        })
        .await?;
        contents.push(format!("content:{}", sums.join(",")));
    }
    Ok(contents)
}

/// Says in BuildKit's words that a path is not there.
fn missing(view: &crate::files::View, part: &Selection, id: &str) -> Result<()> {
    if part.wildcard && part.path.iter().any(|c| b"*?[\\".contains(c)) {
        return Ok(());
    }
    let shown = String::from_utf8_lossy(&part.path).into_owned();
    let path = view.resolve(&part.path, part.follow).and_then(|path| view.meta(&path));
    match path {
        Ok(Some(_)) => Ok(()),
        Ok(None) => {
            let id = id.rsplit(':').next().unwrap_or(id);
            let short = id.get(..25).unwrap_or(id);
            let shown = format!("/{}", shown.trim_start_matches('/'));
            Err(Error::not_found(format!("{NO_CHECKSUM} of ref {short}: \"{shown}\": not found")))
        }
        Err(error) => Err(Error::failed(format!("{shown}: {error}"))),
    }
}
