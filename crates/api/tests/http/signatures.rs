//! Signed requests over plain HTTP. The signatures are made here, from the specification, apart from the code that
//! checks them.

use crate::common::{Answer, Fake, Server, function};
use api::auth::{Auth, Credentials};
use aws_lc_rs::{digest, hmac};
use jiff::Timestamp;
use model::names::Home;
use serde_json::json;

const KEY: &str = "REKINDLEEXAMPLE00001";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

async fn send(server: &Server, secret: &str, age_s: i64, body: &[u8], sent: &[u8]) -> Answer {
    let path = "/2015-03-31/functions";
    let time = Timestamp::from_second(Timestamp::now().as_second() - age_s).expect("near");
    let date = time.strftime("%Y%m%dT%H%M%SZ").to_string();
    let host = server.address.to_string();
    let body_sha256 = hex(digest::digest(&digest::SHA256, body).as_ref());
    let canonical =
        format!("POST\n{path}\n\nhost:{host}\nx-amz-date:{date}\n\nhost;x-amz-date\n{body_sha256}");
    let scope = format!("{}/us-east-1/lambda/aws4_request", &date[..8]);
    let canonical_sha256 = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{canonical_sha256}");
    let mut key = format!("AWS4{secret}").into_bytes();
    for part in scope.split('/').chain([text.as_str()]) {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), part.as_bytes()).as_ref().to_vec();
    }
    let authorization = format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/{scope}, SignedHeaders=host;x-amz-date, Signature={}",
        hex(&key)
    );
    let headers = [("X-Amz-Date", date.as_str()), ("Authorization", authorization.as_str())];
    server.send("POST", path, &headers, sent).await
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn only_the_owner_gets_in() {
    let data = tempfile::tempdir().expect("a directory");
    let keys = Auth::Keys(Credentials::new(&Home::default(), KEY.into(), SECRET.into()));
    let server = Server::start(data.path(), keys, Fake::new(true)).await;
    let body = function("hello", json!({})).to_string().into_bytes();
    let other = function("other", json!({})).to_string().into_bytes();

    let unsigned = server.send("GET", "/2015-03-31/functions", &[], b"").await;
    unsigned.check_error(403, "MissingAuthenticationTokenException", "Missing Authentication Token");
    let wrong = send(&server, "another secret", 0, &body, &body).await;
    wrong.check_error(403, "InvalidSignatureException", "The request signature we calculated does not match");
    let swapped = send(&server, SECRET, 0, &body, &other).await;
    swapped.check_error(
        403,
        "InvalidSignatureException",
        "The request signature we calculated does not match",
    );
    let old = send(&server, SECRET, 600, &body, &body).await;
    old.check_error(403, "InvalidSignatureException", "Signature expired: ");
    let garbage = server.send("GET", "/2015-03-31/functions", &[("Authorization", "Bearer x")], b"").await;
    garbage.check_error(400, "IncompleteSignatureException", "Unsupported AWS 'algorithm'");
    assert_eq!(send(&server, SECRET, 0, &body, &body).await.status, 201);
    let download = server.send("GET", &format!("/rekindle/code/{}", "00".repeat(32)), &[], b"").await;
    assert_eq!(download.status, 403, "an address without permission gives nothing");
}
