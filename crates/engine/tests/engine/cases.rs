//! What must hold.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::subject::Subject;

fn shell(script: &str) -> Value {
    json!({ "Cmd": ["sh", "-c", script] })
}

fn wait(subject: &Subject, id: &str) -> i64 {
    subject.ask(json!({ "op": "wait", "id": id })).as_i64().unwrap()
}

fn logs(subject: &Subject, id: &str) -> String {
    subject.ask(json!({ "op": "logs", "id": id }))["stdout"].as_str().unwrap().to_owned()
}

fn until(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn output_and_exit_code_of_a_run_arrive() {
    let subject = Subject::new();
    let id = subject.create(shell("echo out; echo err >&2; exit 7"));
    let output = subject.ask(json!({ "op": "run", "id": id }));
    assert_eq!(output, json!({ "stdout": "out\n", "stderr": "err\n" }));
    assert_eq!(wait(&subject, &id), 7);
    assert_eq!(subject.ask(json!({ "op": "logs", "id": id })), output);
    let state = subject.state(&id);
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(7)));
    subject.ask(json!({ "op": "remove", "id": id }));
    let missing = subject.refused(json!({ "op": "inspect", "id": id }));
    assert_eq!(missing, format!("No such container: {id}"));
}

pub fn missing_command_is_told_in_dockers_words() {
    let subject = Subject::new();
    let id = subject.create(json!({ "Cmd": ["no-such-command"] }));
    let error = subject.refused(json!({ "op": "start", "id": id }));
    assert_eq!(
        error,
        "failed to create task for container: failed to create shim task: OCI runtime create failed: \
         runc create failed: unable to start container process: exec: \"no-such-command\": executable file not found in $PATH: unknown"
    );
    let state = subject.state(&id);
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("created"), Some(127)));
    assert_eq!(state["Error"], error);
}

pub fn exec_runs_beside_and_reports_its_code() {
    let subject = Subject::new();
    let id = subject.create(shell("sleep 1000"));
    subject.ask(json!({ "op": "start", "id": id }));
    let body =
        json!({ "Cmd": ["sh", "-c", "echo $A; hostname; exit 3"], "Env": ["A=b"], "AttachStdout": true });
    let done = subject.ask(json!({ "op": "exec", "id": id, "body": body }));
    assert_eq!(done["output"]["stdout"], format!("b\n{}\n", &id[..12]));
    assert_eq!((done["code"].as_i64(), done["running"].as_bool()), (Some(3), Some(false)));
    let missing = json!({ "op": "exec", "id": id, "body": { "Cmd": ["nope"] } });
    // Its client is connected by then and reads the error.
    let failed = subject.ask(missing);
    let text = failed["output"]["stdout"].as_str().unwrap();
    assert!(text.contains("exec: \"nope\": executable file not found in $PATH"), "{text}");
    assert_eq!(failed["code"], 127);
    subject.ask(json!({ "op": "stop", "id": id, "timeout": 0 }));
    assert_eq!(wait(&subject, &id), 137);
    let late = subject.refused(json!({ "op": "exec", "id": id, "body": { "Cmd": ["true"] } }));
    assert_eq!(late, format!("container {id} is not running"));
}

pub fn stdin_reaches_the_container_and_ends() {
    let subject = Subject::new();
    let id = subject.create(json!({ "Cmd": ["wc", "-c"], "OpenStdin": true, "StdinOnce": true }));
    let typed = "x".repeat(300_000);
    let output = subject.ask(json!({ "op": "run", "id": id, "input": typed }));
    assert_eq!(output["stdout"], "300000\n");
}

pub fn names_are_unique_and_free_again() {
    let subject = Subject::new();
    let create = json!({ "op": "create", "name": "web", "body": { "Image": "busybox", "Cmd": ["true"] } });
    let id = subject.ask(create.clone());
    let id = id.as_str().unwrap();
    assert_eq!(
        subject.refused(create.clone()),
        format!(
            "Conflict. The container name \"/web\" is already in use by container \"{id}\". You have to remove (or \
             rename) that container to be able to reuse that name."
        )
    );
    subject.kill_engine();
    assert!(subject.refused(create.clone()).starts_with("Conflict."));
    subject.ask(json!({ "op": "remove", "id": "web" }));
    subject.ask(create);
}

pub fn volume_is_filled_from_the_image_and_protected() {
    let subject = Subject::new();
    let body = json!({ "Cmd": ["cat", "/srv/content"], "HostConfig": { "Binds": ["vol:/srv"], "NetworkMode": "none" } });
    let id = subject.create(body);
    assert_eq!(subject.ask(json!({ "op": "run", "id": id }))["stdout"], "from the image\n");
    let refusal = subject.refused(json!({ "op": "remove-volume", "id": "vol" }));
    assert_eq!(refusal, format!("remove vol: volume is in use - [{id}]"));
    subject.ask(json!({ "op": "remove", "id": id }));
    subject.ask(json!({ "op": "remove-volume", "id": "vol" }));
}

const LINES: usize = 30_000;

fn counted() -> String {
    (0..LINES).map(|line| format!("line {line}\n")).collect()
}

fn killed_while_writing(terminal: bool) {
    let subject = Subject::new();
    let script = format!("i=0; while [ $i -lt {LINES} ]; do echo line $i; i=$((i+1)); done; exit 5");
    let mut body = shell(&script);
    body["Tty"] = json!(terminal);
    let id = subject.create(body);
    subject.ask(json!({ "op": "start", "id": id }));
    for pause in [3, 30, 10, 50] {
        std::thread::sleep(Duration::from_millis(pause));
        subject.kill_engine();
        // Until there is another.
        subject.state(&id);
    }
    assert_eq!(wait(&subject, &id), 5);
    let written = logs(&subject, &id).replace('\r', "");
    assert!(written == counted(), "{} bytes instead of {}", written.len(), counted().len());
}

pub fn killed_engine_loses_no_output_and_no_exit_code() {
    killed_while_writing(false);
}

pub fn killed_engine_loses_no_terminal_output() {
    killed_while_writing(true);
}

pub fn killed_engine_goes_on_rotating() {
    let subject = Subject::new();
    let script =
        "i=0; while [ $i -lt 20 ]; do seq $((i*40000+1)) $((i*40000+40000)); sleep 0.02; i=$((i+1)); done";
    let mut body = shell(script);
    let options = json!({ "max-size": "100k", "max-file": "2" });
    body["HostConfig"]["LogConfig"] = json!({ "Type": "json-file", "Config": options });
    let id = subject.create(body);
    subject.ask(json!({ "op": "start", "id": id }));
    for pause in [30, 100, 10, 150] {
        std::thread::sleep(Duration::from_millis(pause));
        subject.kill_engine();
        subject.state(&id);
    }
    assert_eq!(wait(&subject, &id), 0);
    let kept = logs(&subject, &id);
    let numbers: Vec<u32> = kept.lines().map(|line| line.parse().expect("a whole line")).collect();
    assert_eq!(numbers.last(), Some(&800_000));
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "a line is lost or doubled");
    assert!((200_000..400_000).contains(&kept.len()), "{} bytes are kept of 200000", kept.len());
}

pub fn volume_that_is_a_mount_survives_a_killed_engine() {
    let subject = Subject::new();
    let options = json!({ "type": "tmpfs", "device": "tmpfs" });
    let mount = json!({
        "Type": "volume", "Source": "memory", "Target": "/data",
        "VolumeOptions": { "DriverConfig": { "Name": "local", "Options": options } },
    });
    let with = |script: &str| {
        let mut body = shell(script);
        body["HostConfig"]["Mounts"] = json!([mount]);
        body
    };
    let first = subject.create(with("echo here > /data/file; sleep 1000"));
    subject.ask(json!({ "op": "start", "id": first }));
    let file = subject.directory.path().join("root/volumes/memory/_data/file");
    let appears = Instant::now() + Duration::from_secs(10);
    while !file.exists() {
        assert!(Instant::now() < appears, "nothing is written");
        std::thread::sleep(Duration::from_millis(10));
    }
    subject.kill_engine();
    let second = subject.create(with("cat /data/file"));
    assert_eq!(subject.ask(json!({ "op": "run", "id": second }))["stdout"], "here\n");
    // Unmounted with its last user, and only then.
    assert!(file.exists());
    subject.ask(json!({ "op": "remove", "id": first, "force": true }));
    assert!(!file.exists());
}

pub fn exit_while_the_engine_is_dead_is_found() {
    let subject = Subject::new();
    let id = subject.create(shell("echo before; sleep 0.2; echo after; exit 9"));
    subject.ask(json!({ "op": "start", "id": id }));
    // Quick deaths make the supervisor wait longer and longer between its starts.
    for _ in 0..4 {
        subject.kill_engine();
    }
    assert_eq!(wait(&subject, &id), 9);
    assert_eq!(logs(&subject, &id), "before\nafter\n");
}

pub fn answered_creations_and_removals_survive_a_kill() {
    let subject = Subject::new();
    for round in 0..5 {
        let kept = subject.create(shell("true"));
        let removed = subject.create(shell("true"));
        subject.ask(json!({ "op": "remove", "id": removed }));
        subject.kill_engine();
        let list = subject.ask(json!({ "op": "list" }));
        let ids: Vec<&str> =
            list.as_array().unwrap().iter().filter_map(|entry| entry["Id"].as_str()).collect();
        assert!(ids.contains(&kept.as_str()), "round {round}");
        assert!(!ids.contains(&removed.as_str()), "round {round}");
    }
    let left = std::fs::read_dir(subject.directory.path().join("root/containers")).unwrap().count();
    assert_eq!(left, 5);
}

pub fn machine_gone_leaves_exited_containers() {
    let mut subject = Subject::new();
    let id = subject.create(shell("echo hello; sleep 1000"));
    let again = json!({ "NetworkMode": "none", "RestartPolicy": { "Name": "always" } });
    let always = subject.create(json!({ "Cmd": ["sleep", "1000"], "HostConfig": again }));
    for id in [&id, &always] {
        subject.ask(json!({ "op": "start", "id": id }));
    }
    // What may be written late is written by now.
    std::thread::sleep(Duration::from_millis(300));
    subject.kill_machine();
    let state = subject.state(&id);
    assert_eq!((state["Status"].as_str(), state["ExitCode"].as_i64()), (Some("exited"), Some(255)));
    assert_eq!(logs(&subject, &id), "hello\n");
    until("the policy starts the other again", || subject.state(&always)["Status"] == "running");
    subject.ask(json!({ "op": "start", "id": id }));
}

pub fn restart_policy_counts_and_gives_up() {
    let subject = Subject::new();
    let policy = json!({ "Name": "on-failure", "MaximumRetryCount": 2 });
    let host = json!({ "NetworkMode": "none", "RestartPolicy": policy });
    let id = subject.create(json!({ "Cmd": ["sh", "-c", "echo run; exit 1"], "HostConfig": host }));
    subject.ask(json!({ "op": "start", "id": id }));
    assert_eq!(wait(&subject, &id), 1);
    until("it gives up", || subject.state(&id)["Status"] == "exited");
    let inspected = subject.ask(json!({ "op": "inspect", "id": id }));
    assert_eq!(inspected["RestartCount"], 2);
    assert_eq!(logs(&subject, &id), "run\nrun\nrun\n");
}

pub fn twenty_containers_at_once() {
    let subject = Subject::new();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let subject = &subject;
            scope.spawn(move || {
                let host = json!({ "NetworkMode": "bridge" });
                let command = format!("echo {number}; exit {number}");
                let id = subject.create(json!({ "Cmd": ["sh", "-c", command], "HostConfig": host }));
                let output = subject.ask(json!({ "op": "run", "id": id }));
                assert_eq!(output["stdout"], format!("{number}\n"));
                assert_eq!(wait(subject, &id), number);
                subject.ask(json!({ "op": "remove", "id": id }));
            });
        }
    });
    assert_eq!(subject.ask(json!({ "op": "list" })), json!([]));
    let containers = subject.directory.path().join("root/containers");
    until("directories are gone", || std::fs::read_dir(&containers).unwrap().count() == 0);
}

pub fn exec_outlives_the_engine_with_its_code() {
    let subject = Subject::new();
    let id = subject.create(shell("sleep 1000"));
    subject.ask(json!({ "op": "start", "id": id }));
    let body = json!({ "Cmd": ["sh", "-c", "sleep 0.5; exit 4"] });
    let exec = subject.ask(json!({ "op": "exec", "id": id, "detach": true, "body": body }));
    subject.kill_engine();
    assert_eq!(subject.ask(json!({ "op": "inspect-exec", "id": exec }))["Running"], true);
    until("the exec ends", || {
        subject.ask(json!({ "op": "inspect-exec", "id": exec }))["ExitCode"].as_i64() == Some(4)
    });
}
