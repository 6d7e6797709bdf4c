//! The solver on hand-made graphs: file operations, the cache, what comes from clients.

use std::collections::BTreeMap;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use skiff_build::graph::pb::{self, file_action::Action, op::Op};
use skiff_build::graph::{Builder, Output};
use skiff_build::{
    Client, Config, ContextEntry, ContextSink, Contexts, EntryKind, Error, Event, Job, JobOptions,
    LocalRequest, Progress, PruneOptions, Result, Silent, Solver, Step, StepRunner, Wanted,
};
use tokio_util::sync::CancellationToken;

/// Runs no commands.
struct NoSteps;

#[async_trait]
impl StepRunner for NoSteps {
    async fn run(&self, _: Step, _: CancellationToken) -> Result<i32> {
        Err(Error::failed("no steps here"))
    }
}

/// A directory of the client's, as paths with contents; `None` is a directory, a target begins with `->`.
#[derive(Clone, Default)]
struct Files {
    entries: BTreeMap<String, Option<String>>,
    mtime: i64,
}

impl Files {
    fn of(entries: &[(&str, Option<&str>)]) -> Files {
        let entries = entries.iter().map(|(path, text)| ((*path).to_owned(), text.map(str::to_owned)));
        Files { entries: entries.collect(), mtime: 1 }
    }
}

#[async_trait]
impl Contexts for Files {
    async fn send(
        &self,
        _: &LocalRequest,
        sink: &mut dyn ContextSink,
        _: &(dyn for<'a> Fn(&'a str, u64) + Send + Sync),
    ) -> Result<()> {
        for (id, (path, text)) in (0..).zip(&self.entries) {
            let kind = match text.as_deref() {
                None => EntryKind::Directory,
                Some(text) => match text.strip_prefix("->") {
                    Some(target) => EntryKind::Symlink { target: target.as_bytes().to_vec() },
                    None => EntryKind::File { size: text.len() as u64 },
                },
            };
            let entry = ContextEntry {
                path: path.as_bytes().to_vec(),
                kind,
                mode: 0o644,
                uid: 0,
                gid: 0,
                mtime: (self.mtime, 0),
                xattrs: Vec::new(),
            };
            if sink.entry(id, entry, false)? == Wanted::Yes {
                sink.data(id, text.as_deref().unwrap_or_default().as_bytes())?;
                sink.end(id)?;
            }
        }
        Ok(())
    }

    async fn upload(&self, url: &str) -> Result<Box<dyn tokio::io::AsyncRead + Send + Unpin>> {
        Err(Error::not_found(url))
    }
}

struct Workspace {
    directory: tempfile::TempDir,
    solver: Solver,
}

impl Workspace {
    fn new() -> Workspace {
        let directory = tempfile::tempdir().unwrap();
        let solver = open(directory.path());
        Workspace { directory, solver }
    }

    fn job(&self, files: Files) -> Job {
        self.job_with(files, Arc::new(Silent))
    }

    fn job_with(&self, files: Files, progress: Arc<dyn Progress>) -> Job {
        let client = Client { contexts: Arc::new(files), ..Client::nothing() };
        self.solver.begin(JobOptions::new(client, progress))
    }
}

fn open(path: &Path) -> Solver {
    let images = skiff_images::Store::open(skiff_images::Config::new(path.join("images"))).unwrap();
    Solver::open(Config {
        root: path.join("build"),
        images,
        runner: Arc::new(NoSteps),
        keep_storage: u64::MAX,
    })
    .unwrap()
}

/// Counts what was done and what was found.
#[derive(Default)]
struct Counts {
    cached: Mutex<Vec<String>>,
    done: Mutex<Vec<String>>,
}

impl Progress for Counts {
    fn event(&self, event: Event) {
        if let Event::Vertex(vertex) = event
            && vertex.completed.is_some()
        {
            let list = if vertex.cached { &self.cached } else { &self.done };
            list.lock().unwrap().push(vertex.name);
        }
    }
}

fn local(builder: &mut Builder) -> Output {
    let source = pb::SourceOp { identifier: "local://context".to_owned(), attrs: BTreeMap::new() };
    builder.add(Op::Source(source), &[], None, pb::OpMetadata::default())
}

fn file(builder: &mut Builder, inputs: &[Output], actions: Vec<pb::FileAction>) -> Output {
    builder.add(Op::File(pb::FileOp { actions }), inputs, None, pb::OpMetadata::default())
}

fn action(input: i64, secondary: i64, output: i64, action: Action) -> pb::FileAction {
    pb::FileAction { input, secondary_input: secondary, output, action: Some(action) }
}

fn copy(source: &str, destination: &str) -> pb::FileActionCopy {
    pb::FileActionCopy {
        src: source.to_owned(),
        dest: destination.to_owned(),
        mode: -1,
        follow_symlink: true,
        dir_copy_contents: true,
        create_dest_path: true,
        allow_wildcard: true,
        timestamp: -1,
        ..pb::FileActionCopy::default()
    }
}

/// Copies from the context onto nothing.
fn copied(copy: pb::FileActionCopy) -> pb::Definition {
    let mut builder = Builder::new();
    let context = local(&mut builder);
    let result = file(&mut builder, &[context], vec![action(-1, 0, 0, Action::Copy(copy))]);
    builder.definition(Some(&result))
}

#[tokio::test]
async fn a_copy_hits_when_contents_are_equal_whatever_the_times() {
    let work = Workspace::new();
    let mut files = Files::of(&[("a", Some("one")), ("d", None), ("d/b", Some("two"))]);
    let definition = copied(copy("/d", "/x/"));
    let first = work.job(files.clone()).solve(definition.clone()).unwrap();
    assert_eq!(first.read_file("/x/b", None).await.unwrap(), b"two");
    // Another time, and another file that is not copied.
    files.mtime = 99;
    files.entries.insert("a".to_owned(), Some("changed".to_owned()));
    let counts = Arc::new(Counts::default());
    let again = work.job_with(files.clone(), counts.clone()).solve(definition.clone()).unwrap();
    again.evaluate().await.unwrap();
    assert_eq!(*counts.cached.lock().unwrap(), ["copy /d /x/"]);
    files.entries.insert("d/b".to_owned(), Some("three".to_owned()));
    let changed = work.job(files).solve(definition).unwrap();
    assert_eq!(changed.read_file("/x/b", None).await.unwrap(), b"three");
}

#[tokio::test]
async fn the_cache_survives_a_restart() {
    let mut work = Workspace::new();
    let files = Files::of(&[("a", Some("one"))]);
    let definition = copied(copy("/a", "/"));
    work.job(files.clone()).solve(definition.clone()).unwrap().evaluate().await.unwrap();
    // Records are written behind the build's back.
    tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            if work.solver.disk_usage(&[]).await.unwrap().len() >= 2 {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let Workspace { directory, solver } = work;
    drop(solver);
    work = Workspace { solver: reopen(directory.path()).await, directory };
    let counts = Arc::new(Counts::default());
    work.job_with(files, counts.clone()).solve(definition).unwrap().evaluate().await.unwrap();
    assert_eq!(*counts.cached.lock().unwrap(), ["copy /a /"]);
}

/// Opens the stores again as soon as the last user of the old ones has let them go.
async fn reopen(path: &Path) -> Solver {
    for _ in 0..500 {
        let opened = skiff_images::Store::open(skiff_images::Config::new(path.join("images")));
        if let Ok(images) = opened {
            let config = Config {
                root: path.join("build"),
                images,
                runner: Arc::new(NoSteps),
                keep_storage: u64::MAX,
            };
            return Solver::open(config).unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the store stays in use");
}

#[tokio::test]
async fn links_lead_nowhere_but_inside() {
    let work = Workspace::new();
    let outside = work.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, work.directory.path().join("unused")).unwrap();
    let target = format!("->{}", outside.display());
    let up = format!("->../../../../../../../../..{}", outside.display());
    let files = Files::of(&[("f", Some("x")), ("l", Some(target.as_str())), ("u", Some(up.as_str()))]);
    // Through a link of the context: it leads to the context's own directory of that name, which there is none of.
    for source in ["/l/secret", "/u/secret"] {
        let reference = work.job(files.clone()).solve(copied(copy(source, "/"))).unwrap();
        let error = reference.evaluate().await.unwrap_err();
        assert!(error.to_string().contains("not found"), "{error}");
    }
    // Through a link of the result.
    let mut builder = Builder::new();
    let context = local(&mut builder);
    let link = pb::FileActionSymlink {
        oldpath: outside.display().to_string(),
        newpath: "/evil".to_owned(),
        owner: None,
        timestamp: -1,
    };
    let actions =
        vec![action(-1, -1, -1, Action::Symlink(link)), action(1, 0, 0, Action::Copy(copy("/f", "/evil/f")))];
    let result = file(&mut builder, &[context], actions);
    let reference = work.job(files).solve(builder.definition(Some(&result))).unwrap();
    let _ = reference.evaluate().await;
    assert!(!outside.join("f").exists());
    let shown = reference.read_file("/evil/secret", None).await;
    assert!(shown.is_err(), "{shown:?}");
}

#[tokio::test]
async fn actions_make_remove_and_overwrite() {
    let work = Workspace::new();
    let files = Files::of(&[("a.txt", Some("a")), ("b.txt", Some("b")), ("c", Some("c"))]);
    let mut builder = Builder::new();
    let context = local(&mut builder);
    let make = pb::FileActionMkDir {
        path: "/dir/sub".to_owned(),
        mode: 0o750,
        make_parents: true,
        owner: None,
        timestamp: 5_000_000_000,
    };
    let base = file(&mut builder, &[], vec![action(-1, -1, 0, Action::Mkdir(make))]);
    let owner = |id| Some(pb::UserOpt { user: Some(pb::user_opt::User::ById(id)) });
    let mut all = copy("/*.txt", "/dir/sub/");
    all.owner = Some(pb::ChownOpt { user: owner(3), group: owner(4) });
    all.mode_str = "u+x".to_owned();
    let remove =
        pb::FileActionRm { path: "/dir/sub/b*".to_owned(), allow_not_found: false, allow_wildcard: true };
    let write = pb::FileActionMkFile {
        path: "/dir/new".to_owned(),
        mode: 0o600,
        data: b"data".to_vec(),
        owner: None,
        timestamp: -1,
    };
    let actions = vec![
        action(0, 1, -1, Action::Copy(all)),
        action(2, -1, -1, Action::Rm(remove)),
        action(3, -1, 0, Action::Mkfile(write)),
    ];
    let result = file(&mut builder, &[base, context], actions);
    let reference = work.job(files).solve(builder.definition(Some(&result))).unwrap();
    let names = |entries: Vec<skiff_build::DirEntry>| entries.into_iter().map(|e| e.path).collect::<Vec<_>>();
    assert_eq!(names(reference.read_dir("/dir/sub", None).await.unwrap()), ["a.txt"]);
    let stat = reference.stat_file("/dir/sub/a.txt").await.unwrap();
    assert_eq!((stat.uid, stat.gid, stat.mode & 0o777, stat.mod_time), (3, 4, 0o744, 1_000_000_000));
    assert_eq!(reference.stat_file("/dir").await.unwrap().mode & 0o777, 0o750);
    assert_eq!(reference.read_file("/dir/new", Some((1, 2))).await.unwrap(), b"at");
    assert!(reference.read_file("/missing", None).await.unwrap_err().to_string().contains("no such file"));
}

#[tokio::test]
async fn a_prune_removes_what_is_not_used() {
    let work = Workspace::new();
    let files = Files::of(&[("a", Some("one"))]);
    let definition = copied(copy("/a", "/"));
    work.job(files.clone()).solve(definition.clone()).unwrap().evaluate().await.unwrap();
    let kept =
        PruneOptions { keep_duration: Some(std::time::Duration::from_secs(3600)), ..PruneOptions::default() };
    assert!(work.solver.prune(kept).await.unwrap().is_empty());
    assert!(!work.solver.disk_usage(&["type==regular".to_owned()]).await.unwrap().is_empty());
    let removed = work.solver.prune(PruneOptions { all: true, ..PruneOptions::default() }).await.unwrap();
    assert_eq!(removed.len(), 2);
    assert!(work.solver.disk_usage(&[]).await.unwrap().is_empty());
    let counts = Arc::new(Counts::default());
    let again = work.job_with(files, counts.clone()).solve(definition).unwrap();
    assert_eq!(again.read_file("/a", None).await.unwrap(), b"one");
    assert!(counts.cached.lock().unwrap().is_empty());
}

#[tokio::test]
async fn malformed_definitions_are_refused() {
    let work = Workspace::new();
    let job = work.job(Files::default());
    let broken = pb::Definition { def: vec![vec![0xff; 9], vec![0xff]], ..pb::Definition::default() };
    assert!(job.solve(broken).is_err());
    let definition = copied(copy("/a", "/"));
    let missing = pb::Definition { def: definition.def[1..].to_vec(), ..definition.clone() };
    assert!(job.solve(missing).unwrap_err().to_string().contains("missing input"));
    assert!(job.solve(pb::Definition::default()).unwrap().is_scratch());
    let error = job.solve(copied(copy("/nope", "/"))).unwrap().evaluate().await.unwrap_err();
    assert!(error.to_string().ends_with("\"/nope\": not found"), "{error}");
}
