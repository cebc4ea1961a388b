//! The fleet end to end: the real fleet, the real Runtime API over HTTP and the real protocol, against a host role
//! whose sandboxes are threads.

mod host;
mod runtime;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ::host::protocol::SnapshotId;
use api::runtime_api::RuntimeApi;
use linux::channel::Channel;
use platform::fleet::{Fleet, FleetConfig, FleetParts, InvokeFailure, PublishFailure, RandomCredentials};
use platform::host_client::HostClient;
use platform::invocation::{Invocation, Outcome};
use platform::runtimes::Runtimes;
use platform::version::{VersionKey, VersionSpec};
use serde_json::{Value, json};
use tempfile::TempDir;

use host::TestHost;

struct Setting {
    fleet: Fleet,
    host: Arc<TestHost>,
    dir: TempDir,
}

fn setting(adjust: impl FnOnce(&mut FleetConfig)) -> Setting {
    let dir = tempfile::tempdir().unwrap();
    install_runtime(&dir.path().join("runtimes"));
    let (ours, theirs) = Channel::pair().unwrap();
    let host = TestHost::start(theirs);
    let (client, events) = HostClient::start(ours).unwrap();
    let mut config = FleetConfig::new(dir.path());
    config.memory_budget_mib = 64 * 1024;
    adjust(&mut config);
    let parts = FleetParts {
        host: client,
        events,
        runtimes: Runtimes::open(dir.path().join("runtimes")),
        frontend: Arc::new(RuntimeApi),
        credentials: Arc::new(RandomCredentials),
    };
    Setting { fleet: Fleet::new(config, parts).unwrap(), host, dir }
}

fn install_runtime(dir: &Path) {
    let home = dir.join("python3.12");
    std::fs::create_dir_all(&home).unwrap();
    let description = json!({
        "id": "python3.12", "version": "3.12.1", "language": "python",
        "argv": ["/var/lang/bin/python3.12"], "snap_start": true,
        "env": { "PYTHONPATH": "/var/runtime" },
    });
    std::fs::write(home.join("runtime.json"), description.to_string()).unwrap();
}

fn spec(function: &str, does: &str) -> VersionSpec {
    VersionSpec {
        key: VersionKey { function: function.into(), version: "7".into(), revision: "r".into() },
        arn: format!("arn:aws:lambda:us-east-1:000000000000:function:{function}:7"),
        region: "us-east-1".into(),
        runtime: "python3.12".into(),
        handler: "app.handler".into(),
        environment: BTreeMap::from([("DOES".to_owned(), does.to_owned())]),
        timeout_s: 1,
        memory_mib: 128,
        tmp_mib: 512,
        task_dir: PathBuf::from("/code"),
        log_group: format!("/aws/lambda/{function}"),
        snapshot: None,
    }
}

impl Setting {
    async fn invoke(&self, spec: &VersionSpec, event: Value) -> Result<Outcome, InvokeFailure> {
        let invocation = Invocation {
            request_id: "0f0f".into(),
            invoked_arn: "arn:aws:lambda:us-east-1:000000000000:function:f".into(),
            payload: event.to_string().into(),
            client_context: None,
            trace_id: "Root=1".into(),
            log_tail: true,
        };
        let running = self.fleet.invoke(Arc::new(spec.clone()), invocation);
        tokio::time::timeout(Duration::from_secs(20), running).await.expect("invocations end")
    }

    async fn publish(&self, spec: &mut VersionSpec) -> Result<(), PublishFailure> {
        let snapshot = SnapshotId(format!("snapshot-of-{}", spec.key.function));
        self.fleet.publish(Arc::new(spec.clone()), snapshot.clone()).await?;
        spec.snapshot = Some(snapshot);
        Ok(())
    }

    /// All log lines of a function, without their times.
    async fn log(&self, function: &str) -> Vec<String> {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut lines = Vec::new();
        let mut dirs = vec![self.dir.path().join("logs/aws/lambda").join(function)];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    dirs.push(entry);
                } else {
                    let text = std::fs::read_to_string(entry).unwrap();
                    lines.extend(text.lines().map(|line| {
                        let (time, message) = line.split_once('\t').unwrap();
                        assert!(time.len() == 24 && time.ends_with('Z'), "{time}");
                        message.to_owned()
                    }));
                }
            }
        }
        lines
    }
}

fn document(outcome: &Outcome) -> Value {
    serde_json::from_slice(&outcome.payload).unwrap()
}

/// The first words of each line of a log tail, with durations cut.
fn words(outcome: &Outcome) -> Vec<String> {
    let tail = String::from_utf8(outcome.log_tail.clone()).unwrap();
    tail.lines().map(|line| line.split([':', '\t']).next().unwrap().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cold_start_initializes_and_the_next_invocation_reuses() {
    let setting = setting(|_| ());
    let spec = spec("hello", "");
    let cold = setting.invoke(&spec, json!({"a": 1})).await.unwrap();
    assert_eq!(document(&cold), json!({"a": 1}));
    assert_eq!(cold.function_error, None);
    let expected = [
        "INIT_START Runtime Version",
        "init",
        "START RequestId",
        "handling nothing",
        "END RequestId",
        "REPORT RequestId",
    ];
    assert_eq!(words(&cold), expected);
    let tail = String::from_utf8(cold.log_tail).unwrap();
    assert!(tail.contains("Max Memory Used: 42 MB\tInit Duration: ") && tail.ends_with("\t\n"), "{tail}");

    let warm = setting.invoke(&spec, json!({"a": 2})).await.unwrap();
    assert_eq!(words(&warm), ["START RequestId", "handling nothing", "END RequestId", "REPORT RequestId"]);
    assert_eq!(setting.host.count("Init"), 1);
    let env = setting.host.env_of("hello");
    assert_eq!(env["AWS_LAMBDA_INITIALIZATION_TYPE"], "on-demand");
    assert!(env.contains_key("AWS_SESSION_TOKEN"));
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_environments_freeze_thaw_and_go() {
    let setting = setting(|config| config.idle_max = Duration::from_millis(1500));
    let spec = spec("f", "");
    setting.invoke(&spec, json!({})).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(setting.host.count("Freeze"), 1);
    setting.invoke(&spec, json!({})).await.unwrap();
    assert_eq!((setting.host.count("Thaw"), setting.host.count("Init")), (1, 1));
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert_eq!((setting.host.count("Kill"), setting.host.leased()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_published_version_restores() {
    let setting = setting(|_| ());
    let mut spec = spec("snappy", "");
    setting.publish(&mut spec).await.unwrap();
    let env = setting.host.env_of("snappy");
    assert_eq!(env["AWS_LAMBDA_INITIALIZATION_TYPE"], "snap-start");
    assert!(!env.contains_key("AWS_ACCESS_KEY_ID"));
    let log = setting.log("snappy").await;
    assert_eq!(log.len(), 4, "{log:?}");
    assert!(log[0].starts_with(
        "INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn:aws:lambda:us-east-1::runtime:"
    ));
    assert!(log[3].starts_with("INIT_REPORT Init Duration: "));

    let outcome = setting.invoke(&spec, json!({"a": 1})).await.unwrap();
    assert_eq!(document(&outcome), json!({"a": 1}));
    let expected = [
        "RESTORE_START Runtime Version",
        "after hook",
        "RESTORE_REPORT Restore Duration",
        "START RequestId",
        "handling nothing",
        "END RequestId",
        "REPORT RequestId",
    ];
    assert_eq!(words(&outcome), expected);
    let tail = String::from_utf8(outcome.log_tail).unwrap();
    assert!(tail.contains("Billed Restore Duration: ") && !tail.contains("Init Duration"), "{tail}");

    let credentials = document(&setting.invoke(&spec, json!({"do": "credentials"})).await.unwrap());
    assert!(credentials["AccessKeyId"].as_str().unwrap().starts_with("ASIA"));
    let expires = credentials["Expiration"].as_str().unwrap();
    assert!(expires.len() == 20 && expires.ends_with('Z'), "{expires}");
    let counters = setting.fleet.counters();
    assert_eq!((counters.restores(), counters.inits(), counters.restore_failures()), (1, 0, 0));
    assert_eq!(setting.host.count("Prepare"), 1);
    setting.fleet.delete_snapshot(spec.snapshot.clone().unwrap()).await.unwrap();
    setting.fleet.retire("snappy", None);
    // The snapshot is gone: a normal init serves.
    assert!(setting.invoke(&spec, json!({})).await.is_ok());
    assert_eq!((counters.restore_failures(), counters.inits()), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_without_the_restore_protocol_is_restored_in_next() {
    let setting = setting(|_| ());
    let mut spec = spec("old", "wait in next");
    setting.publish(&mut spec).await.unwrap();
    for number in 0..2 {
        let outcome = setting.invoke(&spec, json!({"n": number})).await.unwrap();
        assert_eq!(document(&outcome), json!({"n": number}));
    }
    assert_eq!((setting.fleet.counters().restores(), setting.fleet.counters().inits()), (1, 0));
}

/// A version that declares that many warm-up events.
fn warmed(function: &str, does: &str, events: u32, event: Value) -> VersionSpec {
    let mut spec = spec(function, does);
    spec.environment.insert("REKINDLE_WARM_UP_EVENTS".into(), events.to_string());
    spec.environment.insert("REKINDLE_WARM_UP_EVENT".into(), event.to_string());
    spec
}

/// Log lines with identifiers and durations cut out.
fn gist(log: &[String]) -> Vec<String> {
    let varies = |field: &&str| !field.contains("RequestId") && !field.contains("Duration");
    let gist = |line: &String| line.split('\t').filter(varies).collect::<Vec<_>>().join(" ");
    log.iter().skip(1).map(gist).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_up_events_run_before_the_hooks_of_the_snapshot() {
    let setting = setting(|_| ());
    let mut spec = warmed("primed", "", 2, json!({"a": 1}));
    setting.publish(&mut spec).await.unwrap();
    let log = setting.log("primed").await;
    let expected = [
        "init",
        r#"context {"custom":{"rekindle-warm-up":"1"}}"#,
        "handling nothing",
        "Event: 1 of 2",
        r#"context {"custom":{"rekindle-warm-up":"2"}}"#,
        "handling nothing",
        "Event: 2 of 2",
        "before hook",
        "WARM_UP_REPORT Events: 2 of 2 Failed: 0",
        "",
    ];
    assert_eq!(gist(&log), expected, "{log:?}");
    assert!(log[4].starts_with("WARM_UP RequestId: ") && log[10].starts_with("INIT_REPORT Init Duration: "));

    // In clones all is as without events: the hook runs in the restore, and the event is the caller's.
    let outcome = setting.invoke(&spec, json!({"a": 2})).await.unwrap();
    assert_eq!(document(&outcome), json!({"a": 2}));
    assert_eq!(
        words(&outcome)[..3],
        ["RESTORE_START Runtime Version", "after hook", "RESTORE_REPORT Restore Duration"]
    );
    assert_eq!(setting.fleet.counters().invocations(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_without_the_restore_protocol_takes_its_warm_up_events_where_it_waits() {
    let setting = setting(|_| ());
    let mut spec = warmed("old", "wait in next", 3, json!({}));
    setting.publish(&mut spec).await.unwrap();
    let log = gist(&setting.log("old").await);
    assert_eq!(log.iter().filter(|line| *line == "handling nothing").count(), 3, "{log:?}");
    assert_eq!(document(&setting.invoke(&spec, json!({"n": 1})).await.unwrap()), json!({"n": 1}));
    assert_eq!((setting.fleet.counters().restores(), setting.fleet.counters().inits()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn warm_up_events_that_cannot_be_given_or_fail_are_told_and_the_version_stands() {
    let setting = setting(|_| ());
    let mut direct = warmed("direct", "without a shim", 3, json!({}));
    setting.publish(&mut direct).await.unwrap();
    let log = gist(&setting.log("direct").await);
    assert_eq!(log[2], "WARM_UP_REPORT Events: 0 of 3 Failed: 0");
    assert!(
        log[3].starts_with("WARNING 0 of 3 warm-up events ran") && log[3].contains("before-snapshot hook")
    );
    assert!(setting.invoke(&direct, json!({})).await.is_ok());

    let mut raising = warmed("raising", "", 2, json!({"do": "raise"}));
    setting.publish(&mut raising).await.unwrap();
    let log = gist(&setting.log("raising").await);
    assert!(log.contains(&"Event: 2 of 2 Status: error Error Type: ValueError".to_owned()), "{log:?}");
    assert!(log.contains(&"WARNING 2 of 2 warm-up events failed, the first one with ValueError".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_up_that_ends_the_runtime_or_takes_too_long_fails_the_publish() {
    let setting = setting(|config| config.publish_init_min = Duration::from_millis(300));
    let mut exiting = warmed("exiting", "", 3, json!({"do": "exit", "status": 3}));
    let failure = setting.publish(&mut exiting).await.unwrap_err();
    let message = "warm-up event 1 of 3: Runtime exited with error: exit status 3".to_owned();
    assert_eq!(failure, PublishFailure::Exited { message });
    for (function, does) in [("hanging", ""), ("old", "wait in next")] {
        let mut hanging = warmed(function, does, 3, json!({"do": "hang"}));
        let failure = setting.publish(&mut hanging).await.unwrap_err();
        let during = "warm-up event 1 of 3".to_owned();
        assert_eq!(failure, PublishFailure::WarmUpTimeout { seconds: 1, during });
    }
    // The events leave the runtime where its hooks can fail as ever.
    let failure =
        setting.publish(&mut warmed("late", "late before hook error", 1, json!({}))).await.unwrap_err();
    assert_eq!(failure, PublishFailure::HookError { message: "RuntimeError: late".into() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(setting.host.leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_restore_is_served_by_an_init() {
    let setting = setting(|_| ());
    let mut spec = spec("fallback", "");
    setting.publish(&mut spec).await.unwrap();
    for (number, wrong) in [&setting.host.restores_fail, &setting.host.restores_crash].into_iter().enumerate()
    {
        wrong.store(true, Ordering::Relaxed);
        let outcome = setting.invoke(&spec, json!({"a": 1})).await.unwrap();
        assert_eq!((document(&outcome), outcome.function_error), (json!({"a": 1}), None));
        assert_eq!(setting.fleet.counters().restore_failures(), number as u64 + 1);
        assert_eq!(setting.host.env_of("fallback")["AWS_LAMBDA_INITIALIZATION_TYPE"], "on-demand");
        wrong.store(false, Ordering::Relaxed);
        setting.fleet.retire("fallback", Some("7"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(setting.host.leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_that_fail_fail_the_publish_or_the_invocation() {
    let setting = setting(|config| config.restore_max = Duration::from_millis(500));
    let failure = setting.publish(&mut spec("before", "before hook error")).await.unwrap_err();
    assert_eq!(failure, PublishFailure::HookError { message: "RuntimeError: before".into() });
    let log = setting.log("before").await;
    assert!(
        log[2].contains("\tPhase: init\tStatus: error\tError Type: Runtime.BeforeSnapshotError"),
        "{log:?}"
    );

    let mut after = spec("after", "after hook error");
    setting.publish(&mut after).await.unwrap();
    let failure = setting.invoke(&after, json!({})).await.unwrap_err();
    assert_eq!(failure, InvokeFailure::AfterRestoreHook { message: "RuntimeError: after".into() });

    let mut slow = spec("slow", "after hook hang");
    setting.publish(&mut slow).await.unwrap();
    assert_eq!(setting.invoke(&slow, json!({})).await.unwrap_err(), InvokeFailure::RestoreTimeout);
    let log = setting.log("slow").await;
    assert!(log.iter().any(|line| line.starts_with("RESTORE_REPORT") && line.ends_with("\tStatus: timeout")));
    assert_eq!((setting.fleet.counters().inits(), setting.host.leased()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_fail_with_their_reason() {
    let setting = setting(|config| config.publish_init_min = Duration::from_millis(300));
    let failure = setting.publish(&mut spec("a", "init error")).await.unwrap_err();
    assert!(matches!(failure, PublishFailure::InitError { message } if message.contains("no module")));
    let failure = setting.publish(&mut spec("b", "init exit")).await.unwrap_err();
    assert!(matches!(failure, PublishFailure::Exited { message } if message.ends_with("exit status 3")));
    let failure = setting.publish(&mut spec("c", "init hang")).await.unwrap_err();
    assert_eq!(failure, PublishFailure::InitTimeout { seconds: 1 });
    let failure = setting.publish(&mut spec("d", "unsupported")).await.unwrap_err();
    assert_eq!(failure, PublishFailure::Unsupported { message: "an io_uring is open".into() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(setting.host.leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn function_errors_are_outcomes_and_the_environment_lives_on() {
    let setting = setting(|_| ());
    let spec = spec("errors", "");
    let raised = setting.invoke(&spec, json!({"do": "raise"})).await.unwrap();
    assert_eq!(document(&raised)["errorType"], "ValueError");
    assert_eq!(raised.function_error.as_deref(), Some("Unhandled"));
    let large = setting.invoke(&spec, json!({"do": "too much"})).await.unwrap();
    assert_eq!(document(&large)["errorType"], "Function.ResponseSizeTooLarge");
    let twice = setting.invoke(&spec, json!({"do": "answer twice"})).await.unwrap();
    assert_eq!(document(&twice), json!(2));
    assert_eq!(setting.host.count("Init"), 1);
    assert!(setting.log("errors").await.contains(&"statuses 400 202 400".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn timeouts_and_exits_cost_one_environment_and_no_other_invocation() {
    let setting = setting(|_| ());
    let spec = spec("fragile", "");
    let late = setting.invoke(&spec, json!({"do": "hang"})).await.unwrap();
    let message = "RequestId: 0f0f Error: Task timed out after 1.00 seconds";
    assert_eq!(document(&late), json!({"errorType": "Sandbox.Timedout", "errorMessage": message}));
    let tail = String::from_utf8(late.log_tail).unwrap();
    assert!(tail.contains("Duration: 1000.00 ms\t") && tail.ends_with("Status: timeout\t\n"), "{tail}");

    let exited = setting.invoke(&spec, json!({"do": "exit", "status": 0})).await.unwrap();
    let message = "RequestId: 0f0f Error: Runtime exited without providing a reason";
    assert_eq!(document(&exited), json!({"errorType": "Runtime.ExitError", "errorMessage": message}));
    let exited = setting.invoke(&spec, json!({"do": "exit", "status": 3})).await.unwrap();
    assert!(document(&exited)["errorMessage"].as_str().unwrap().ends_with("exit status 3"));
    assert_eq!(document(&setting.invoke(&spec, json!({"ok": 1})).await.unwrap()), json!({"ok": 1}));
    assert_eq!(setting.host.count("Init"), 4);
    assert_eq!(setting.host.leased(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_init_is_done_again_inside_the_invocation() {
    let setting = setting(|config| config.init_max = Duration::from_millis(300));
    let outcome = setting.invoke(&spec("broken", "init error"), json!({})).await.unwrap();
    assert_eq!(document(&outcome)["errorType"], "Runtime.ImportModuleError");
    assert_eq!(document(&outcome)["requestId"], "");
    let expected = [
        "INIT_START Runtime Version",
        "init",
        "INIT_REPORT Init Duration",
        "init",
        "INIT_REPORT Init Duration",
        "START RequestId",
        "END RequestId",
        "REPORT RequestId",
    ];
    assert_eq!(words(&outcome), expected);
    let outcome = setting.invoke(&spec("gone", "init exit"), json!({})).await.unwrap();
    assert_eq!(document(&outcome)["errorType"], "Runtime.ExitError");
    let outcome = setting.invoke(&spec("hung", "init hang"), json!({})).await.unwrap();
    assert_eq!(document(&outcome)["errorType"], "Sandbox.Timedout");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(setting.host.leased(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_cold_invocations_at_once_are_all_answered() {
    let setting = Arc::new(setting(|_| ()));
    let mut spec = spec("many", "");
    setting.publish(&mut spec).await.unwrap();
    spec.timeout_s = 10;
    let mut running = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (setting, spec) = (setting.clone(), spec.clone());
        running.spawn(async move {
            let event = json!({"n": number, "sleep_ms": 300});
            assert_eq!(document(&setting.invoke(&spec, event.clone()).await.unwrap()), event);
        });
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    assert_eq!(setting.fleet.counters().invocations(), 50);
    assert!(setting.fleet.counters().restores() >= 40);
}

#[tokio::test(flavor = "multi_thread")]
async fn capacity_is_limited_and_missing_things_are_named() {
    let setting = Arc::new(setting(|config| {
        config.concurrency_max = 1;
        config.sandbox_wait_max = Duration::from_secs(2);
    }));
    let spec = spec("one", "");
    let first = tokio::spawn({
        let (setting, spec) = (setting.clone(), spec.clone());
        async move { setting.invoke(&spec, json!({"sleep_ms": 300})).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(setting.invoke(&spec, json!({})).await.unwrap_err(), InvokeFailure::Throttled);
    first.await.unwrap().unwrap();
    let mut other = spec.clone();
    other.runtime = "cobol85".into();
    let failure = setting.invoke(&other, json!({})).await.unwrap_err();
    assert!(
        matches!(failure, InvokeFailure::NoRuntime { message } if message.contains("rekindle runtime install cobol85"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_cannot_make_sandboxes_is_reported_at_once() {
    let setting = setting(|config| config.pool_floor = 1);
    setting.host.sandboxes_fail.store(true, Ordering::Relaxed);
    let began = Instant::now();
    // The first takes the sandbox that was ready; from then on there is none.
    let mut failures = 0;
    for number in 0..3 {
        let mut spec = spec("f", "");
        spec.key.revision = number.to_string();
        if let Err(InvokeFailure::Internal { message }) = setting.invoke(&spec, json!({})).await {
            assert!(message.contains("no namespaces on this machine"), "{message}");
            failures += 1;
        }
    }
    assert!(failures >= 1 && began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_runtime_that_lingers_after_its_answer_keeps_nobody_waiting() {
    let setting = setting(|_| ());
    let spec = spec("linger", "");
    setting.invoke(&spec, json!({"do": "linger"})).await.unwrap();
    let began = Instant::now();
    assert_eq!(document(&setting.invoke(&spec, json!({"a": 1})).await.unwrap()), json!({"a": 1}));
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    assert_eq!(setting.host.count("Init"), 2);
    // It comes back when it is done.
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!((setting.host.leased(), setting.host.count("Freeze")), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_death_of_the_host_role_fails_what_runs_and_what_comes() {
    let setting = Arc::new(setting(|_| ()));
    let spec = spec("f", "");
    let running = tokio::spawn({
        let (setting, spec) = (setting.clone(), spec.clone());
        async move { setting.invoke(&spec, json!({"do": "hang"})).await }
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    setting.host.die();
    assert_eq!(document(&running.await.unwrap().unwrap())["errorType"], "Runtime.ExitError");
    let began = Instant::now();
    assert!(matches!(setting.invoke(&spec, json!({})).await, Err(InvokeFailure::Internal { .. })));
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_kills_everything() {
    let setting = setting(|_| ());
    setting.invoke(&spec("f", ""), json!({})).await.unwrap();
    assert_eq!(setting.host.leased(), 1);
    setting.fleet.shutdown().await;
    assert_eq!(setting.host.leased(), 0);
}
