//! The Lambda API over plain HTTP: every operation, its answers and its refusals.

use std::sync::Arc;

use crate::common::{Answer, Fake, Server, base64, function, zip};
use api::auth::Auth;
use serde_json::{Value, json};
use tempfile::TempDir;

async fn server() -> (TempDir, Server) {
    let data = tempfile::tempdir().expect("a directory");
    let server = Server::start(data.path(), Auth::None, Fake::new(true)).await;
    (data, server)
}

#[tokio::test]
async fn a_function_is_created_read_and_deleted() {
    let (data, server) = server().await;
    let created = server
        .call(
            "POST",
            "/",
            function("hello", json!({"Tags": {"team": "a"}, "Environment": {"Variables": {"STAGE": "dev"}}})),
        )
        .await;
    assert_eq!(created.status, 201, "{}", created.text());
    let document = created.json();
    assert_eq!(document["State"], "Pending");
    assert_eq!(document["StateReasonCode"], "Creating");
    assert_eq!(document["StateReason"], "The function is being created.");
    assert_eq!(document.get("LastUpdateStatus"), None);
    assert_eq!(document["Version"], "$LATEST");
    assert_eq!(document["FunctionArn"], "arn:aws:lambda:us-east-1:000000000000:function:hello");
    assert_eq!(document["SnapStart"], json!({"ApplyOn": "None", "OptimizationStatus": "Off"}));
    assert_eq!(document["LoggingConfig"], json!({"LogFormat": "Text", "LogGroup": "/aws/lambda/hello"}));
    assert_eq!(document["Environment"], json!({"Variables": {"STAGE": "dev"}}));
    for key in [
        "Architectures",
        "CodeSha256",
        "CodeSize",
        "Description",
        "EphemeralStorage",
        "Handler",
        "LastModified",
        "MemorySize",
        "PackageType",
        "RevisionId",
        "Role",
        "Runtime",
        "RuntimeVersionConfig",
        "Timeout",
        "TracingConfig",
    ] {
        assert!(document.get(key).is_some(), "{key} is missing");
    }

    let active = server.settled("/hello").await;
    assert_eq!((&active["State"], &active["LastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    assert_ne!(active["RevisionId"], document["RevisionId"], "changes when the work completes");
    assert_eq!(active.get("StateReason"), None);

    let got = server.call("GET", "/hello", Value::Null).await.json();
    assert_eq!(got["Configuration"], active);
    assert_eq!(got["Tags"], json!({"team": "a"}));
    assert_eq!(got["Code"]["RepositoryType"], "S3");
    let location = got["Code"]["Location"].as_str().expect("an address");
    let path = location.split_once(&server.address.to_string()).expect("our address").1;
    let package = server.send("GET", path, &[], b"").await;
    assert_eq!((package.status, package.body), (200, zip("hello")));
    let forged = path.replace("Expires=1", "Expires=2");
    assert_eq!(server.send("GET", &forged, &[], b"").await.status, 403);

    assert_eq!(server.call("DELETE", "/hello", Value::Null).await.status, 204);
    server.call("GET", "/hello", Value::Null).await.check_error(
        404,
        "ResourceNotFoundException",
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:hello",
    );
    drop(data);
}

#[tokio::test]
async fn creation_is_refused_in_the_words_of_aws() {
    let (_data, server) = server().await;
    server.create("taken", json!({})).await;
    let bomb = {
        let mut bomb = zip("bomb");
        let central = bomb.windows(4).position(|four| four == b"PK\x01\x02").expect("a directory");
        bomb[central + 24..central + 28].copy_from_slice(&400_000_000_u32.to_le_bytes());
        bomb
    };
    let climber = {
        let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        writer.start_file("../../evil", zip::write::SimpleFileOptions::default()).expect("in memory");
        writer.finish().expect("in memory").into_inner()
    };
    for (change, status, exception, text) in [
        (json!({"FunctionName": "taken"}), 409, "ResourceConflictException", "Function already exist: taken"),
        (json!({"FunctionName": "a b"}), 400, "ValidationException", "at 'functionName' failed to satisfy"),
        (json!({"Role": null}), 400, "ValidationException", "Value null at 'role' failed"),
        (json!({"Runtime": "cobol"}), 400, "InvalidParameterValueException", "Value cobol at 'runtime'"),
        (json!({"Runtime": "python3.14"}), 400, "InvalidParameterValueException", "rekindle runtime install"),
        (json!({"Timeout": 901}), 400, "ValidationException", "at 'timeout' failed"),
        (json!({"Timeout": "x"}), 400, "SerializationException", "invalid type"),
        (json!({"Code": {}}), 400, "InvalidParameterValueException", "provide a source"),
        (
            json!({"Code": {"ZipFile": base64(b"no")}}),
            400,
            "InvalidParameterValueException",
            "Could not unzip",
        ),
        (
            json!({"Code": {"ZipFile": base64(&bomb)}}),
            400,
            "InvalidParameterValueException",
            "Unzipped size must be smaller than 262144000 bytes",
        ),
        (
            json!({"Code": {"ZipFile": base64(&climber)}}),
            400,
            "InvalidParameterValueException",
            "Could not unzip",
        ),
        (
            json!({"Environment": {"Variables": {"AWS_REGION": "x"}}}),
            400,
            "InvalidParameterValueException",
            "Reserved keys used in this request: AWS_REGION",
        ),
        (
            json!({"Runtime": "nodejs22.x", "SnapStart": {"ApplyOn": "PublishedVersions"}}),
            400,
            "InvalidParameterValueException",
            "nodejs22.x is not supported for SnapStart enabled functions.",
        ),
        (json!({"PackageType": "Image"}), 400, "InvalidParameterValueException", "PackageType Image"),
    ] {
        let mut document = function("new", json!({}));
        for (key, value) in change.as_object().expect("an object") {
            document[key] = value.clone();
        }
        server.call("POST", "", document).await.check_error(status, exception, text);
    }
    let garbage = server.send("POST", "/2015-03-31/functions", &[], b"{").await;
    garbage.check_error(400, "SerializationException", "Could not parse request body");
    let listed = server.call("GET", "", Value::Null).await.json();
    assert_eq!(listed["Functions"].as_array().map(Vec::len), Some(1), "nothing was left behind");
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused_cleanly() {
    let (_data, server) = server().await;
    server.create("hello", json!({})).await;
    let invoke = server.call("POST", "/hello/invocations", json!("x".repeat(6_291_456))).await;
    invoke.check_error(
        413,
        "RequestEntityTooLargeException",
        "Request must be smaller than 6291456 bytes for the InvokeFunction operation",
    );
    let create = server.send("POST", "/2015-03-31/functions", &[], &vec![b' '; 80_000_000]).await;
    create.check_error(
        413,
        "RequestEntityTooLargeException",
        "Request must be smaller than 70167211 bytes for the CreateFunction operation",
    );
    let zip = base64(&vec![0; 52_428_801]);
    let create = server.call("POST", "", function("big", json!({"Code": {"ZipFile": zip}}))).await;
    create.check_error(
        413,
        "RequestEntityTooLargeException",
        "Zipped size must be smaller than 52428800 bytes",
    );
}

#[tokio::test]
async fn updates_are_fenced_by_revision() {
    let (_data, server) = server().await;
    let created = server.create("hello", json!({})).await;
    let updated = server
        .call("PUT", "/hello/configuration", json!({"Timeout": 9, "RevisionId": created["RevisionId"]}))
        .await
        .json();
    assert_eq!((&updated["State"], &updated["LastUpdateStatus"]), (&json!("Active"), &json!("InProgress")));
    assert_eq!(updated["LastUpdateStatusReasonCode"], "Creating");
    let settled = server.settled("/hello").await;
    assert_eq!((&settled["Timeout"], &settled["LastUpdateStatus"]), (&json!(9), &json!("Successful")));
    for (path, body) in [
        ("/hello/configuration", json!({"RevisionId": created["RevisionId"]})),
        ("/hello/code", json!({"ZipFile": base64(&zip("2")), "RevisionId": created["RevisionId"]})),
    ] {
        let stale = server.call("PUT", path, body).await;
        stale.check_error(412, "PreconditionFailedException", "The Revision Id provided does not match");
    }
    let dry = server.call("PUT", "/hello/code", json!({"ZipFile": base64(&zip("2")), "DryRun": true})).await;
    assert_eq!(dry.status, 200);
    assert_ne!(dry.json()["CodeSha256"], settled["CodeSha256"]);
    assert_eq!(server.settled("/hello").await["CodeSha256"], settled["CodeSha256"], "nothing changed");
    let new = server.call("PUT", "/hello/code", json!({"ZipFile": base64(&zip("2")), "Publish": true})).await;
    assert_eq!((new.status, &new.json()["Version"]), (200, &json!("1")));
    let settled = server.settled("/hello").await;
    assert_eq!(settled["CodeSha256"], dry.json()["CodeSha256"]);
}

#[tokio::test]
async fn versions_are_published_once_and_numbered_for_ever() {
    let (_data, server) = server().await;
    let latest = server.create("hello", json!({})).await;
    let publish = |body: Value| server.call("POST", "/hello/versions", body);
    let wrong = publish(json!({"CodeSha256": "abc"})).await;
    wrong.check_error(
        400,
        "InvalidParameterValueException",
        "CodeSHA256 (abc) is different from current CodeSHA256",
    );
    publish(json!({"RevisionId": "x"})).await.check_error(412, "PreconditionFailedException", "Revision Id");
    let first = publish(json!({"CodeSha256": latest["CodeSha256"], "Description": "one"})).await;
    assert_eq!(first.status, 201);
    let first = first.json();
    assert_eq!((&first["Version"], &first["Description"]), (&json!("1"), &json!("one")));
    assert_eq!((&first["State"], &first["LastUpdateStatus"]), (&json!("Active"), &json!("Successful")));
    assert_eq!(first["FunctionArn"], "arn:aws:lambda:us-east-1:000000000000:function:hello:1");
    let again = publish(json!({"Description": "two"})).await;
    assert_eq!((again.status, again.json()), (201, first), "without a change there is no new version");

    server.call("PUT", "/hello/configuration", json!({"MemorySize": 256})).await;
    server.settled("/hello").await;
    assert_eq!(publish(json!({})).await.json()["Version"], "2");
    let listed = server.call("GET", "/hello/versions", Value::Null).await.json();
    let listed: Vec<_> = listed["Versions"].as_array().expect("a list").iter().collect();
    assert_eq!(listed[0]["FunctionArn"], "arn:aws:lambda:us-east-1:000000000000:function:hello:$LATEST");
    assert_eq!(
        listed.iter().map(|v| v["Version"].as_str().expect("text")).collect::<Vec<_>>(),
        ["$LATEST", "1", "2"]
    );
    assert!(listed.iter().all(|version| version.get("State").is_none()));

    assert_eq!(server.call("DELETE", "/hello?Qualifier=2", Value::Null).await.status, 204);
    server.call("DELETE", "/hello:$LATEST", Value::Null).await.check_error(
        400,
        "InvalidParameterValueException",
        "$LATEST version cannot be deleted without deleting the function.",
    );
    assert_eq!(publish(json!({})).await.json()["Version"], "3");
    server.call("DELETE", "/hello", Value::Null).await;
    server.create("hello", json!({})).await;
    assert_eq!(publish(json!({})).await.json()["Version"], "4", "numbers outlive the function");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let (_data, server) = server().await;
    for name in ["c", "a", "b"] {
        server.create(name, json!({})).await;
    }
    server.call("POST", "/b/versions", json!({})).await;
    let names = |page: &Value| -> Vec<String> {
        let items = page["Functions"].as_array().expect("a list").iter();
        items
            .map(|item| {
                item["FunctionArn"].as_str().expect("text").rsplit("function:").next().expect("one").into()
            })
            .collect()
    };
    let first = server.call("GET", "?MaxItems=2", Value::Null).await.json();
    assert_eq!(names(&first), ["a", "b"]);
    let marker = first["NextMarker"].as_str().expect("there is more");
    let second = server.call("GET", &format!("?Marker={marker}"), Value::Null).await.json();
    assert_eq!((names(&second), second.get("NextMarker")), (vec!["c".to_owned()], None));
    let all = server.call("GET", "/?FunctionVersion=ALL", Value::Null).await.json();
    assert_eq!(names(&all), ["a:$LATEST", "b:$LATEST", "b:1", "c:$LATEST"]);
    server.call("GET", "?MaxItems=0", Value::Null).await.check_error(400, "ValidationException", "maxItems");
    server.call("GET", "?Marker=%25", Value::Null).await.check_error(
        400,
        "InvalidParameterValueException",
        "Invalid Marker",
    );
}

#[tokio::test]
async fn aliases_lead_to_versions() {
    let (_data, server) = server().await;
    server.create("hello", json!({})).await;
    server.call("POST", "/hello/versions", json!({})).await;
    server.call("PUT", "/hello/code", json!({"ZipFile": base64(&zip("2")), "Publish": true})).await;
    server.settled("/hello").await;
    let create = |body: Value| server.call("POST", "/hello/aliases", body);
    let alias = create(json!({"Name": "live", "FunctionVersion": "1"})).await;
    assert_eq!(alias.status, 201, "{}", alias.text());
    let alias = alias.json();
    let arn = "arn:aws:lambda:us-east-1:000000000000:function:hello:live";
    assert_eq!((&alias["AliasArn"], &alias["Description"]), (&json!(arn), &json!("")));
    assert_eq!(alias.get("RoutingConfig"), None);
    create(json!({"Name": "live", "FunctionVersion": "1"})).await.check_error(
        409,
        "ResourceConflictException",
        &format!("Alias already exists: {arn}"),
    );
    create(json!({"Name": "x", "FunctionVersion": "9"})).await.check_error(
        404,
        "ResourceNotFoundException",
        "Function not found: arn:aws:lambda:us-east-1:000000000000:function:hello:9",
    );
    create(json!({"Name": "12", "FunctionVersion": "1"})).await.check_error(
        400,
        "ValidationException",
        "'name'",
    );

    let change =
        json!({"RoutingConfig": {"AdditionalVersionWeights": {"2": 1.0}}, "RevisionId": alias["RevisionId"]});
    let weighted = server.call("PUT", "/hello/aliases/live", change.clone()).await.json();
    assert_eq!(weighted["RoutingConfig"], json!({"AdditionalVersionWeights": {"2": 1.0}}));
    server.call("PUT", "/hello/aliases/live", change).await.check_error(
        412,
        "PreconditionFailedException",
        "Revision",
    );
    let invoked = server.call("POST", "/hello:live/invocations", json!({})).await;
    assert_eq!(invoked.header("x-amz-executed-version"), Some("2"));
    let cleared = server
        .call("PUT", "/hello/aliases/live", json!({"RoutingConfig": {"AdditionalVersionWeights": {}}}))
        .await;
    assert_eq!(cleared.json().get("RoutingConfig"), None);
    let invoked = server.call("POST", "/hello/invocations?Qualifier=live", json!({})).await;
    assert_eq!(invoked.header("x-amz-executed-version"), Some("1"));
    let described = server.call("GET", "/hello/configuration?Qualifier=live", Value::Null).await.json();
    assert_eq!((&described["FunctionArn"], &described["Version"]), (&json!(arn), &json!("1")));

    server.call("DELETE", "/hello?Qualifier=1", Value::Null).await.check_error(
        409,
        "ResourceConflictException",
        "aliases point to it: live",
    );
    let listed = server.call("GET", "/hello/aliases?FunctionVersion=1", Value::Null).await.json();
    assert_eq!(listed["Aliases"][0]["Name"], "live");
    assert_eq!(server.call("DELETE", "/hello/aliases/live", Value::Null).await.status, 204);
    assert_eq!(server.call("DELETE", "/hello/aliases/live", Value::Null).await.status, 204);
    server.call("GET", "/hello/aliases/live", Value::Null).await.check_error(
        404,
        "ResourceNotFoundException",
        &format!("Cannot find alias arn: {arn}"),
    );
    server.call("PUT", "/hello/aliases/live", json!({})).await.check_error(
        404,
        "ResourceNotFoundException",
        &format!("Alias not found: {arn}"),
    );
}

#[tokio::test]
async fn functions_are_invoked() {
    let (_data, server) = server().await;
    server.create("hello", json!({})).await;
    let path = "/2015-03-31/functions/hello/invocations";
    let answer = server.send("POST", path, &[("X-Amz-Log-Type", "Tail")], b"{\"a\": 1}").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "{\"a\": 1}"));
    assert_eq!(answer.header("x-amz-executed-version"), Some("$LATEST"));
    assert_eq!(answer.header("x-amz-function-error"), None);
    assert_eq!(answer.header("x-amz-log-result"), Some(base64(b"START\nREPORT\n").as_str()));
    {
        let invocations = server.fake.invocations.lock().expect("no panic");
        let (spec, invocation) = invocations.last().expect("one");
        assert_eq!(Some(invocation.request_id.as_str()), answer.header("x-amzn-requestid"));
        assert_eq!(invocation.invoked_arn, "arn:aws:lambda:us-east-1:000000000000:function:hello");
        assert_eq!(std::fs::read(spec.task_dir.join("fakes.py")).expect("unpacked"), b"hello");
    }
    let send = |headers: &'static [(&'static str, &'static str)], body: &'static [u8]| {
        server.send("POST", path, headers, body)
    };
    assert_eq!(send(&[], b"").await.text(), "{}", "no event is an empty one");
    send(&[], b"{x}").await.check_error(
        400,
        "InvalidRequestContentException",
        "Could not parse request body into json: Could not parse payload into json: ",
    );
    let dry = send(&[("X-Amz-Invocation-Type", "DryRun")], b"{}").await;
    assert_eq!((dry.status, dry.body.len(), dry.header("x-amz-executed-version")), (204, 0, None));
    let event = send(&[("X-Amz-Invocation-Type", "Event")], b"{\"event\":1}").await;
    assert_eq!((event.status, event.body.len()), (202, 0));
    send(&[("X-Amz-Invocation-Type", "No")], b"{}").await.check_error(
        400,
        "ValidationException",
        "invocationType",
    );
    send(&[("X-Amz-Client-Context", "%")], b"{}").await.check_error(
        400,
        "InvalidRequestContentException",
        "Client context",
    );
    let nope = server.call("POST", "/nope/invocations", json!({})).await;
    nope.check_error(404, "ResourceNotFoundException", "function:nope:$LATEST");

    server.create("fails", json!({"Handler": "fakes.error"})).await;
    let failed = server.call("POST", "/fails/invocations", json!({})).await;
    assert_eq!((failed.status, failed.header("x-amz-function-error")), (200, Some("Unhandled")));
    server.create("hook", json!({"Handler": "fakes.after_restore"})).await;
    let hook = server.call("POST", "/hook/invocations", json!({})).await;
    hook.check_error(400, "SnapStartException", "the hook failed");
    assert_eq!(hook.json()["Type"], "User");
}

#[tokio::test]
async fn snapshots_follow_their_versions() {
    let data = tempfile::tempdir().expect("a directory");
    let server = Server::start(data.path(), Auth::None, Fake::new(false)).await;
    let snap_start = json!({"SnapStart": {"ApplyOn": "PublishedVersions"}});
    let latest = server.create("hello", snap_start.clone()).await;
    assert_eq!(latest["SnapStart"], json!({"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}));
    let version = server.call("POST", "/hello/versions", json!({})).await.json();
    assert_eq!(
        (&version["State"], &version["SnapStart"]["OptimizationStatus"]),
        (&json!("Pending"), &json!("Off"))
    );
    server.call("POST", "/hello/invocations?Qualifier=1", json!({})).await.check_error(
        409,
        "ResourceConflictException",
        "The function is currently in the following state: Pending",
    );
    server.call("POST", "/hello/aliases", json!({"Name": "a", "FunctionVersion": "1"})).await.check_error(
        409,
        "ResourceConflictException",
        "state: Pending",
    );
    server.fake.allow_snapshots();
    let ready = server.settled("/hello:1").await;
    assert_eq!(
        (&ready["State"], &ready["SnapStart"]["OptimizationStatus"]),
        (&json!("Active"), &json!("On"))
    );
    assert_eq!(server.call("POST", "/hello:1/invocations", json!({})).await.status, 200);
    let snapshots = server.fake.snapshots();
    let used =
        server.fake.invocations.lock().expect("no panic").last().and_then(|(spec, _)| spec.snapshot.clone());
    assert_eq!(used.map(|snapshot| vec![snapshot.0]), Some(snapshots));
    assert_eq!(server.settled("/hello").await["SnapStart"]["OptimizationStatus"], "Off");

    server.create("bad", function("bad", snap_start.clone())).await;
    server.call("PUT", "/bad/configuration", json!({"Handler": "fakes.bad_init"})).await;
    server.settled("/bad").await;
    server.call("POST", "/bad/versions", json!({})).await;
    let failed = server.settled("/bad:1").await;
    assert_eq!((&failed["State"], &failed["StateReasonCode"]), (&json!("Failed"), &json!("FunctionError")));
    assert_eq!(
        failed["StateReason"],
        "An error occurred during function initialization. No module named 'fakes'"
    );
    assert_eq!(failed["LastUpdateStatus"], "Failed");
    server.call("POST", "/bad/aliases", json!({"Name": "a", "FunctionVersion": "1"})).await.check_error(
        409,
        "ResourceConflictException",
        "FunctionError",
    );
    assert_eq!(server.call("POST", "/bad/versions", json!({})).await.json()["Version"], "2", "tried again");

    server.call("DELETE", "/hello?Qualifier=1", Value::Null).await;
    for _ in 0..500 {
        if server.fake.snapshots().is_empty() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("the snapshot outlives its version");
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_crash() {
    let data = tempfile::tempdir().expect("a directory");
    let fake = Fake::new(true);
    let server = Server::start(data.path(), Auth::None, fake.clone()).await;
    let snap_start = json!({"SnapStart": {"ApplyOn": "PublishedVersions"}});
    server.create("hello", snap_start).await;
    server.call("POST", "/hello/versions", json!({})).await;
    server.settled("/hello:1").await;
    server.call("PUT", "/hello/configuration", json!({"Timeout": 5})).await;
    server.settled("/hello").await;
    drop(server);

    // A second life that ends while a snapshot is being built.
    let stuck = Fake::new(false);
    *stuck.snapshots.lock().expect("no panic") =
        fake.snapshots().into_iter().chain(["half-made".into()]).collect();
    let server = Server::start(data.path(), Auth::None, stuck.clone()).await;
    assert_eq!(stuck.snapshots(), fake.snapshots(), "what nothing refers to is gone");
    assert_eq!(server.settled("/hello:1").await["SnapStart"]["OptimizationStatus"], "On");
    let second = server.call("POST", "/hello/versions", json!({})).await.json();
    assert_eq!((&second["Version"], &second["State"]), (&json!("2"), &json!("Pending")));
    std::fs::create_dir(data.path().join("code").join("ab".repeat(32))).expect("writable");
    drop(server);

    let third = Fake::new(true);
    let server = Server::start(data.path(), Auth::None, third.clone()).await;
    let rebuilt = server.settled("/hello:2").await;
    assert_eq!(
        (&rebuilt["State"], &rebuilt["SnapStart"]["OptimizationStatus"]),
        (&json!("Active"), &json!("On"))
    );
    assert_eq!(std::fs::read_dir(data.path().join("code")).expect("readable").count(), 1);
    server.stop().await;
}

#[tokio::test]
async fn tags_concurrency_and_what_tools_ask_for() {
    let (_data, server) = server().await;
    server.create("hello", json!({})).await;
    let arn = "arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello";
    let tags = format!("/2017-03-31/tags/{arn}");
    assert_eq!(server.send("POST", &tags, &[], br#"{"Tags":{"a":"1","b":"2"}}"#).await.status, 204);
    assert_eq!(server.send("DELETE", &format!("{tags}?tagKeys=a&tagKeys=x"), &[], b"").await.status, 204);
    assert_eq!(server.send("GET", &tags, &[], b"").await.json(), json!({"Tags": {"b": "2"}}));
    server.send("GET", &format!("{tags}%3A1"), &[], b"").await.check_error(
        400,
        "InvalidParameterValueException",
        "Tags on function aliases and versions",
    );

    let get = |path: &'static str| server.send("GET", path, &[], b"");
    let put = |body: &'static [u8]| server.send("PUT", "/2017-10-31/functions/hello/concurrency", &[], body);
    assert_eq!(get("/2019-09-30/functions/hello/concurrency").await.json(), json!({}));
    put(br#"{"ReservedConcurrentExecutions": 901}"#).await.check_error(
        400,
        "InvalidParameterValueException",
        "below its minimum value of [100]",
    );
    assert_eq!(
        put(br#"{"ReservedConcurrentExecutions": 0}"#).await.json(),
        json!({"ReservedConcurrentExecutions": 0})
    );
    let blocked = server.call("POST", "/hello/invocations", json!({})).await;
    blocked.check_error(429, "TooManyRequestsException", "Rate Exceeded.");
    assert_eq!(blocked.json()["Reason"], "ReservedFunctionConcurrentInvocationLimitExceeded");
    assert_eq!(
        server.call("GET", "/hello", Value::Null).await.json()["Concurrency"],
        json!({"ReservedConcurrentExecutions": 0})
    );
    let deleted = server.send("DELETE", "/2017-10-31/functions/hello/concurrency", &[], b"").await;
    assert_eq!(deleted.status, 204);
    assert_eq!(server.call("POST", "/hello/invocations", json!({})).await.status, 200);

    let account = get("/2016-08-19/account-settings/").await.json();
    assert_eq!(account["AccountLimit"]["CodeSizeUnzipped"], 262_144_000);
    assert_eq!(account["AccountUsage"]["FunctionCount"], 1);
    assert_eq!(
        get("/2020-06-30/functions/hello/code-signing-config").await.json(),
        json!({"FunctionName": "hello"})
    );
    assert_eq!(
        get("/2021-07-20/functions/hello/runtime-management-config").await.json()["UpdateRuntimeOn"],
        "Auto"
    );
    assert_eq!(
        get("/2024-08-31/functions/hello/recursion-config").await.json(),
        json!({"RecursiveLoop": "Terminate"})
    );
    get("/2015-03-31/functions/hello/policy").await.check_error(
        404,
        "ResourceNotFoundException",
        "does not exist",
    );
    let page = server.send("GET", "/2015-03-31/functions", &[("Origin", "http://evil.example")], b"").await;
    page.check_error(403, "AccessDeniedException", "web pages of other places");
    get("/2015-03-31/nonsense").await.check_error(
        404,
        "UnknownOperationException",
        "GET /2015-03-31/nonsense",
    );
}

#[tokio::test]
async fn concurrent_changes_do_not_tear() {
    let (_data, server) = server().await;
    let server = Arc::new(server);
    server.create("hello", json!({})).await;
    let attempts = (0..20).map(|n| {
        let server = server.clone();
        tokio::spawn(
            async move { server.call("PUT", "/hello/configuration", json!({"Timeout": n + 1})).await },
        )
    });
    let mut done = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        let answer: Answer = attempt.await.expect("no panic");
        match answer.status {
            200 => done += 1,
            _ => {
                answer.check_error(409, "ResourceConflictException", "An update is in progress for resource")
            }
        }
    }
    assert!(done >= 1);
    assert_eq!(server.settled("/hello").await["LastUpdateStatus"], "Successful");
}
