//! Known answers were computed with botocore 1.43.11 for a fixed time and key.

use http::{HeaderName, HeaderValue};

use super::*;

const AUTHORIZATION_PREFIX: &str =
    "AWS4-HMAC-SHA256 Credential=REKINDLEEXAMPLE00001/20260309/us-east-1/lambda/aws4_request";

struct Case {
    method: &'static str,
    path: &'static str,
    query: &'static str,
    body: &'static [u8],
    headers: Vec<(&'static str, &'static str)>,
    signed: &'static str,
    signature: &'static str,
}

fn invoke() -> Case {
    Case {
        method: "POST",
        path: "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello/invocations",
        query: "Qualifier=%24LATEST",
        body: b"{\"a\": 1}",
        headers: vec![("content-type", "application/json"), ("x-amz-log-type", "Tail")],
        signed: "content-type;host;x-amz-date;x-amz-log-type",
        signature: "3d382f628d36cea64205d6da09588f205413dc36fa7e1eb6a91f45c9ccac2648",
    }
}

fn credentials() -> Credentials {
    Credentials {
        access_key_id: "REKINDLEEXAMPLE00001".into(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".into(),
        region: "us-east-1".into(),
    }
}

fn check_at(case: &Case, now: &str) -> Result<(), ApiError> {
    let mut headers = HeaderMap::new();
    headers.insert("host", HeaderValue::from_static("127.0.0.1:9280"));
    headers.insert("x-amz-date", HeaderValue::from_static("20260309T101112Z"));
    let authorization =
        format!("{AUTHORIZATION_PREFIX}, SignedHeaders={}, Signature={}", case.signed, case.signature);
    headers.insert("authorization", HeaderValue::from_str(&authorization).expect("text"));
    for (name, value) in &case.headers {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let claim = Claim::read(&headers, &credentials(), now.parse().expect("a time"))?;
    let request = Signed { method: case.method, path: case.path, query: case.query, headers: &headers };
    claim.verify(&credentials(), request, digest::digest(&digest::SHA256, case.body).as_ref())
}

fn check(case: &Case) -> Result<(), Exception> {
    check_at(case, "2026-03-09T10:12:00Z").map_err(|error| error.exception)
}

#[test]
fn signatures_of_botocore_are_accepted() {
    let list = Case {
        method: "GET",
        path: "/2015-03-31/functions",
        query: "",
        body: b"",
        headers: vec![],
        signed: "host;x-amz-date",
        signature: "ccaf7b3f447381cbc1e1316e59c1709ac4df9ad9493eb8652a09c9f6e7237c7a",
    };
    let untag = Case {
        method: "DELETE",
        path: "/2017-03-31/tags/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Ahello",
        query: "tagKeys=b%20c&tagKeys=a%2Fb",
        headers: vec![("x-amz-meta", "  two   words ")],
        signed: "host;x-amz-date;x-amz-meta",
        signature: "1559a989ae086bd558de3640335bbf3be5d6b348e041d15838fd64b69994cc73",
        ..list
    };
    for case in [list, untag, invoke()] {
        assert_eq!(check(&case), Ok(()), "{}", case.path);
    }
}

#[test]
fn whatever_is_changed_breaks_the_signature() {
    let wrong = Err(Exception::InvalidSignature);
    assert_eq!(check(&Case { body: b"{\"a\": 2}", ..invoke() }), wrong);
    assert_eq!(check(&Case { method: "PUT", ..invoke() }), wrong);
    assert_eq!(check(&Case { query: "Qualifier=1", ..invoke() }), wrong);
    assert_eq!(check(&Case { path: "/2015-03-31/functions/hello/invocations", ..invoke() }), wrong);
    let header = vec![("content-type", "application/json"), ("x-amz-log-type", "None")];
    assert_eq!(check(&Case { headers: header, ..invoke() }), wrong);
    let zeros = "0000000000000000000000000000000000000000000000000000000000000000";
    assert_eq!(check(&Case { signature: zeros, ..invoke() }), wrong);
    assert_eq!(check(&Case { signature: "abc", ..invoke() }), wrong);
}

#[test]
fn headers_that_matter_must_be_signed() {
    let mut headers = invoke().headers;
    headers.push(("x-amz-invocation-type", "Event"));
    assert_eq!(check(&Case { headers, ..invoke() }), Err(Exception::InvalidSignature));
    let signed = "x-amz-date;x-amz-log-type";
    assert_eq!(check(&Case { signed, ..invoke() }), Err(Exception::InvalidSignature));
}

#[test]
fn clocks_may_be_five_minutes_apart() {
    for now in ["2026-03-09T10:06:12Z", "2026-03-09T10:16:12Z"] {
        assert_eq!(check_at(&invoke(), now), Ok(()), "{now}");
    }
    let late = check_at(&invoke(), "2026-03-09T10:16:13Z").expect_err("expired").message;
    assert_eq!(
        late,
        "Signature expired: 20260309T101112Z is now earlier than 20260309T101113Z (20260309T101613Z - 5 min.)"
    );
    let early = check_at(&invoke(), "2026-03-09T10:00:00Z").expect_err("not yet").message;
    assert!(early.starts_with("Signature not yet current: 20260309T101112Z"), "{early}");
}

#[test]
fn authorizations_are_parsed_or_refused() {
    let whole =
        format!("{AUTHORIZATION_PREFIX}, SignedHeaders=host;x-amz-date, Signature={}", "ab".repeat(32));
    let parsed = parse_authorization(whole.as_bytes()).expect("complete");
    assert_eq!((parsed.region.as_str(), parsed.service.as_str()), ("us-east-1", "lambda"));
    assert_eq!(parsed.signed_headers, ["host", "x-amz-date"]);
    for (broken, want) in [
        ("Basic abc", "Unsupported AWS 'algorithm': 'Basic'"),
        ("AWS4-HMAC-SHA256", "Unsupported AWS 'algorithm'"),
        ("AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request", "requires 'Signature' parameter"),
        ("AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=00", "5 slash-delimited elements"),
    ] {
        let error = parse_authorization(broken.as_bytes()).expect_err(broken);
        assert_eq!(error.exception, Exception::IncompleteSignature, "{broken}");
        assert!(error.message.contains(want), "{broken}: {error}");
    }
    assert!(parse_authorization(&[0xff; 10]).is_err());
    assert!(parse_authorization(&vec![b'a'; 10_000]).is_err());
}

#[test]
fn strangers_and_other_places_are_told_apart() {
    let now = "2026-03-09T10:12:00Z".parse().expect("a time");
    let mut headers = HeaderMap::new();
    let read = |headers: &HeaderMap| {
        Claim::read(headers, &credentials(), now).map(drop).map_err(|error| error.exception)
    };
    assert_eq!(read(&headers), Err(Exception::MissingAuthenticationToken));
    let mut set = |scope: &str| {
        let value =
            format!("AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature={}", "00".repeat(32));
        headers.insert("authorization", HeaderValue::from_str(&value).expect("text"));
        read(&headers)
    };
    let stranger = set("SOMEBODYELSE/20260309/us-east-1/lambda/aws4_request");
    assert_eq!(stranger, Err(Exception::UnrecognizedClient));
    let region = set("REKINDLEEXAMPLE00001/20260309/eu-west-1/lambda/aws4_request");
    assert_eq!(region, Err(Exception::InvalidSignature));
    let service = set("REKINDLEEXAMPLE00001/20260309/us-east-1/s3/aws4_request");
    assert_eq!(service, Err(Exception::InvalidSignature));
    let no_date = set("REKINDLEEXAMPLE00001/20260309/us-east-1/lambda/aws4_request");
    assert_eq!(no_date, Err(Exception::IncompleteSignature));
}
