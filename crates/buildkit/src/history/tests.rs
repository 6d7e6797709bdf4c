use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::{Vertex, VertexLog};
use skiff_build::{Event, Material, Progress};

use super::*;
use crate::status::Status;

fn status() -> Status {
    let status = Status::default();
    let vertex = |digest: &str, cached| {
        Event::Vertex(Vertex {
            digest: digest.to_owned(),
            name: format!("step {digest}"),
            cached,
            completed: Some(skiff_build::now()),
            ..Vertex::default()
        })
    };
    status.event(vertex("a", true));
    status.event(vertex("b", false));
    status.event(Event::Log(VertexLog {
        vertex: "b".to_owned(),
        msg: b"said".to_vec(),
        ..VertexLog::default()
    }));
    status
}

async fn build(history: &History, name: &str, outcome: Result<HashMap<String, String>, Refusal>) {
    let attributes = HashMap::from([("build-arg:A".to_owned(), "1".to_owned())]);
    let recording = Recording::begin(history.clone(), name, "", &attributes, &[], status());
    recording
        .end(Evidence {
            outcome: Some(outcome),
            configuration: Some(b"{}".to_vec()),
            materials: vec![Material { uri: "pkg:docker/a@1".to_owned(), digest: "sha256:12".to_owned() }],
            frontend: Some(("dockerfile.v0".to_owned(), attributes)),
            platform: "linux/amd64".to_owned(),
        })
        .await;
}

async fn list(history: &History, request: BuildHistoryRequest) -> Vec<BuildHistoryEvent> {
    let mut events = history.listen(BuildHistoryRequest { early_exit: true, ..request }).unwrap();
    let mut all = Vec::new();
    while let Some(event) = events.recv().await {
        all.push(event.unwrap());
    }
    all
}

fn names(events: &[BuildHistoryEvent]) -> Vec<&str> {
    events.iter().map(|event| event.record.as_ref().unwrap().r#ref.as_str()).collect()
}

#[tokio::test]
async fn what_a_build_did_is_there_after_a_restart() {
    let root = tempfile::tempdir().unwrap();
    let history = History::open(root.path().to_owned());
    build(&history, "good", Ok(HashMap::from([("containerimage.digest".to_owned(), "x".to_owned())]))).await;
    build(&history, "bad", Err(Refusal::unknown("no"))).await;
    std::fs::create_dir(root.path().join("new-x")).unwrap();
    std::fs::create_dir(root.path().join("foreign")).unwrap();
    drop(history);

    let history = History::open(root.path().to_owned());
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 2, "what is unfinished goes");
    let all = list(&history, BuildHistoryRequest::default()).await;
    assert_eq!(all.len(), 2);
    let record =
        |name: &str| all[names(&all).iter().position(|have| *have == name).unwrap()].record.clone().unwrap();
    let good = record("good");
    assert_eq!((good.num_total_steps, good.num_cached_steps, good.num_completed_steps), (2, 1, 2));
    assert_eq!(good.frontend_attrs["build-arg:A"], "1");
    let result = good.result.unwrap();
    let read = |digest: &str| std::fs::read(history.blob(digest).unwrap().path).unwrap();
    assert_eq!(read(&result.results[&0].digest), b"{}");
    let provenance: serde_json::Value =
        serde_json::from_slice(&read(&result.attestations[0].digest)).unwrap();
    assert_eq!(provenance["materials"][0]["digest"]["sha256"], "12");
    assert_eq!(provenance["invocation"]["parameters"]["args"]["build-arg:A"], "1");
    assert_eq!(record("bad").error.unwrap().message, "no");
    let told = history.told("bad").unwrap();
    assert!(told.iter().flat_map(|part| &part.logs).any(|log| log.msg == b"said"));
    assert_eq!(history.told("unknown"), None);
    assert_eq!(history.blob("sha256:../../etc/passwd"), None);
}

#[tokio::test]
async fn a_listener_hears_beginnings_ends_and_removals() {
    let root = tempfile::tempdir().unwrap();
    let history = History::open(root.path().to_owned());
    build(&history, "before", Ok(HashMap::new())).await;
    let mut events = history.listen(BuildHistoryRequest::default()).unwrap();
    let mut next = async || {
        let event = events.recv().await.unwrap().unwrap();
        (event.r#type(), event.record.unwrap().r#ref)
    };
    assert_eq!(next().await, (BuildHistoryEventType::Complete, "before".to_owned()));
    let recording = Recording::begin(history.clone(), "left", "", &HashMap::new(), &[], status());
    assert_eq!(next().await, (BuildHistoryEventType::Started, "left".to_owned()));
    let active = BuildHistoryRequest { active_only: true, ..BuildHistoryRequest::default() };
    assert_eq!(names(&list(&history, active).await), ["left"]);
    let update =
        |delete| UpdateBuildHistoryRequest { r#ref: "left".to_owned(), delete, ..Default::default() };
    assert!(history.update(&update(true)).is_err(), "it runs");
    drop(recording);
    assert_eq!(next().await, (BuildHistoryEventType::Complete, "left".to_owned()));
    let canceled = BuildHistoryRequest { filter: vec!["status=canceled".to_owned()], ..Default::default() };
    assert_eq!(names(&list(&history, canceled).await), ["left"]);
    history.update(&update(true)).unwrap();
    assert_eq!(next().await, (BuildHistoryEventType::Deleted, "left".to_owned()));
    assert!(history.update(&update(true)).is_err(), "it is gone");
}

#[tokio::test]
async fn the_oldest_builds_go_and_pinned_ones_stay() {
    let root = tempfile::tempdir().unwrap();
    let history = History::open(root.path().to_owned());
    for number in 0..MOST + 3 {
        build(&history, &format!("b{number}"), Ok(HashMap::new())).await;
        if number == 0 {
            let pin =
                UpdateBuildHistoryRequest { r#ref: "b0".to_owned(), pinned: true, ..Default::default() };
            history.update(&pin).unwrap();
        }
    }
    let all = list(&history, BuildHistoryRequest::default()).await;
    let names = names(&all);
    assert_eq!(names.len(), MOST + 1);
    assert!(
        names.contains(&"b0") && !names.contains(&"b1") && !names.contains(&"b2") && names.contains(&"b3")
    );
    assert_eq!(names[0], format!("b{}", MOST + 2), "newest first");
    assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), MOST + 1);
    let history = History::open(root.path().to_owned());
    let limited = BuildHistoryRequest { limit: 2, ..BuildHistoryRequest::default() };
    assert_eq!(list(&history, limited).await.len(), 2);
    assert!(
        list(&history, BuildHistoryRequest { r#ref: "b0".to_owned(), ..Default::default() }).await[0]
            .record
            .as_ref()
            .unwrap()
            .pinned
    );
}
