//! AWS Signature Version 4, the receiving side (AWS General Reference, "Signature Version 4 signing process").
//!
//! Checking has two steps, so that a stranger's body is never read: [`Claim::read`] looks at the headers alone (is
//! the request signed, by a known key, for this place, now?), and [`Claim::verify`] computes the signature once the
//! body's digest is known. Signatures are compared in constant time. `UNSIGNED-PAYLOAD` is accepted, as AWS does.
//!
//! Deliberately absent: presigned URLs and chunked payload signatures, which no Lambda client sends, and session
//! tokens, because this server has one long-lived key.

use std::fmt::Write as _;

use aws_lc_rs::{constant_time, digest, hmac};
use http::HeaderMap;
use http::header::{AUTHORIZATION, DATE};
use jiff::Timestamp;
use model::error::{ApiError, Exception};
use model::limits;

use crate::auth::Credentials;
use crate::routes::percent_decode;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const SERVICE: &str = "lambda";
const TERMINATOR: &str = "aws4_request";
/// Format of `X-Amz-Date` and of the string to sign.
const BASIC_FORMAT: &str = "%Y%m%dT%H%M%SZ";
/// What a client sends in place of its body's digest when it did not sign the body.
const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// Headers that clients may send unsigned although their names begin with `x-amz-`.
const MAY_BE_UNSIGNED: &[&str] = &["x-amz-user-agent"];

/// A parsed `Authorization` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// Access key id.
    pub access_key_id: String,
    /// Date of the credential scope, `YYYYMMDD`.
    pub date: String,
    /// Region of the credential scope.
    pub region: String,
    /// Service of the credential scope.
    pub service: String,
    /// Names of the headers that are signed, as listed.
    pub signed_headers: Vec<String>,
    /// The signature.
    pub signature: [u8; 32],
}

/// The parts of a request that are signed, except for its body.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// Method, in capitals.
    pub method: &'a str,
    /// Path as it was sent, percent-encoded.
    pub path: &'a str,
    /// Query as it was sent, without the question mark.
    pub query: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
}

/// A request that says it was signed with our key, here and now. Whether that is true, [`Claim::verify`] finds out.
#[derive(Debug, Clone)]
pub struct Claim {
    authorization: Authorization,
    /// `X-Amz-Date`, in its basic format.
    signed_at: String,
    /// `X-Amz-Content-Sha256`, when sent.
    content_sha256: Option<String>,
}

impl Claim {
    /// Reads what the headers say and refuses what cannot be valid.
    ///
    /// # Errors
    /// `MissingAuthenticationTokenException`, `IncompleteSignatureException`, `UnrecognizedClientException` for
    /// another key, `InvalidSignatureException` for another place or time.
    pub fn read(headers: &HeaderMap, credentials: &Credentials, now: Timestamp) -> Result<Self, ApiError> {
        let header = headers.get(AUTHORIZATION).ok_or_else(ApiError::missing_authentication)?;
        let authorization = parse_authorization(header.as_bytes())?;
        let same_key = constant_time::verify_slices_are_equal(
            authorization.access_key_id.as_bytes(),
            credentials.access_key_id.as_bytes(),
        );
        if same_key.is_err() {
            return Err(ApiError::unknown_access_key());
        }
        check_place(&authorization, credentials)?;
        check_coverage(&authorization, headers)?;
        let time = read_date(headers)?;
        check_time(time, now)?;
        let signed_at = time.strftime(BASIC_FORMAT).to_string();
        if !signed_at.starts_with(&authorization.date) {
            return Err(invalid(
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date",
            ));
        }
        let content_sha256 = text_of(headers, "x-amz-content-sha256").map(str::to_owned);
        Ok(Self { authorization, signed_at, content_sha256 })
    }

    /// Computes the signature and compares it. `body_sha256` is the digest of the body as received.
    ///
    /// # Errors
    /// `InvalidSignatureException`.
    pub fn verify(
        &self,
        credentials: &Credentials,
        request: Signed<'_>,
        body_sha256: &[u8],
    ) -> Result<(), ApiError> {
        let body_sha256 = hex(body_sha256);
        let payload = match self.content_sha256.as_deref() {
            Some(UNSIGNED_PAYLOAD) => UNSIGNED_PAYLOAD,
            Some(stated) if stated != body_sha256 => return Err(ApiError::wrong_signature()),
            _ => &body_sha256,
        };
        let canonical = canonical_request(&request, &self.authorization.signed_headers, payload)?;
        let scope =
            format!("{}/{}/{SERVICE}/{TERMINATOR}", self.authorization.date, self.authorization.region);
        let digest = hex(digest::digest(&digest::SHA256, canonical.as_bytes()).as_ref());
        let to_sign = format!("{ALGORITHM}\n{}\n{scope}\n{digest}", self.signed_at);
        let key = signing_key(credentials, &self.authorization.date);
        hmac::verify(&key, to_sign.as_bytes(), &self.authorization.signature)
            .map_err(|_| ApiError::wrong_signature())
    }
}

/// Parses an `Authorization` header.
///
/// # Errors
/// `IncompleteSignatureException`, which names what is missing.
pub fn parse_authorization(header: &[u8]) -> Result<Authorization, ApiError> {
    if header.len() > limits::AUTHORIZATION_BYTES_MAX {
        return Err(incomplete("the Authorization header is too long".into()));
    }
    let header = std::str::from_utf8(header)
        .map_err(|_| incomplete("the Authorization header is not text".into()))?
        .trim();
    let parameters = header
        .strip_prefix(ALGORITHM)
        .filter(|rest| rest.starts_with(' '))
        .ok_or_else(|| incomplete(format!("Unsupported AWS 'algorithm': '{}'", first_word(header))))?;
    let (mut credential, mut signed_headers, mut signature) = (None, None, None);
    for parameter in parameters.split(',') {
        match parameter.trim().split_once('=') {
            Some(("Credential", value)) => credential = Some(value),
            Some(("SignedHeaders", value)) => signed_headers = Some(value),
            Some(("Signature", value)) => signature = Some(value),
            _ => {}
        }
    }
    let require = |value: Option<&'_ str>, name: &str| match value {
        Some(value) => Ok(value.to_owned()),
        None => Err(incomplete(format!("Authorization header requires '{name}' parameter."))),
    };
    let credential = require(credential, "Credential")?;
    let signature = require(signature, "Signature")?;
    let signed_headers = require(signed_headers, "SignedHeaders")?;
    // An access key id may hold slashes in theory; the scope is always the last four parts.
    let parts: Vec<&str> = credential.rsplitn(5, '/').collect();
    let [TERMINATOR, service, region, date, access_key_id] = parts[..] else {
        return Err(incomplete(format!(
            "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '{credential}'"
        )));
    };
    Ok(Authorization {
        access_key_id: access_key_id.into(),
        date: date.into(),
        region: region.into(),
        service: service.into(),
        signed_headers: read_signed_headers(&signed_headers)?,
        signature: read_hex(&signature).ok_or_else(ApiError::wrong_signature)?,
    })
}

fn read_signed_headers(list: &str) -> Result<Vec<String>, ApiError> {
    let names: Vec<String> = list.split(';').map(str::to_owned).collect();
    let fits = |name: &String| {
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_graphic() && !b.is_ascii_uppercase())
    };
    if names.len() > limits::SIGNED_HEADERS_MAX || !names.iter().all(fits) {
        return Err(incomplete("SignedHeaders must list lower-case header names".into()));
    }
    Ok(names)
}

fn check_place(authorization: &Authorization, credentials: &Credentials) -> Result<(), ApiError> {
    if authorization.region != credentials.region {
        return Err(invalid(&format!(
            "Credential should be scoped to a valid region, not '{}': this server is '{}'.",
            authorization.region, credentials.region
        )));
    }
    if authorization.service != SERVICE {
        return Err(invalid("Credential should be scoped to correct service: 'lambda'."));
    }
    Ok(())
}

/// What decides over the request must be signed: the host and every header of AWS's own.
fn check_coverage(authorization: &Authorization, headers: &HeaderMap) -> Result<(), ApiError> {
    let signed = |name: &str| authorization.signed_headers.iter().any(|signed| signed == name);
    if !signed("host") {
        return Err(invalid("'Host' must be a 'SignedHeader' in the AWS Authorization."));
    }
    let loose = headers
        .keys()
        .map(http::HeaderName::as_str)
        .find(|name| name.starts_with("x-amz-") && !MAY_BE_UNSIGNED.contains(name) && !signed(name));
    match loose {
        None => Ok(()),
        Some(name) => Err(invalid(&format!("'{name}' must be a 'SignedHeader' in the AWS Authorization."))),
    }
}

fn check_time(signed_at: Timestamp, now: Timestamp) -> Result<(), ApiError> {
    let skew_s = signed_at.as_second() - now.as_second();
    if skew_s.abs() <= limits::SIGNATURE_SKEW_S_MAX {
        return Ok(());
    }
    let basic =
        |second: i64| Timestamp::from_second(second).unwrap_or(now).strftime(BASIC_FORMAT).to_string();
    let (ours, theirs) = (basic(now.as_second()), basic(signed_at.as_second()));
    let minutes = limits::SIGNATURE_SKEW_S_MAX / 60;
    Err(invalid(&if skew_s < 0 {
        let bound = basic(now.as_second() - limits::SIGNATURE_SKEW_S_MAX);
        format!("Signature expired: {theirs} is now earlier than {bound} ({ours} - {minutes} min.)")
    } else {
        let bound = basic(now.as_second() + limits::SIGNATURE_SKEW_S_MAX);
        format!("Signature not yet current: {theirs} is still later than {bound} ({ours} + {minutes} min.)")
    }))
}

/// The time of signing: `X-Amz-Date`, or `Date` for clients that send only that.
fn read_date(headers: &HeaderMap) -> Result<Timestamp, ApiError> {
    if let Some(date) = text_of(headers, "x-amz-date") {
        let time = jiff::civil::DateTime::strptime(BASIC_FORMAT, date).ok();
        let time = time.and_then(|time| time.to_zoned(jiff::tz::TimeZone::UTC).ok());
        return time
            .map(|time| time.timestamp())
            .ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'.".into()));
    }
    let date = text_of(headers, DATE.as_str())
        .and_then(|date| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok());
    date.ok_or_else(|| {
        incomplete(
            "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.".into(),
        )
    })
}

fn canonical_request(request: &Signed<'_>, signed: &[String], payload: &str) -> Result<String, ApiError> {
    let mut text = format!("{}\n", request.method);
    encode(request.path, "/", &mut text);
    text.push('\n');
    text.push_str(&canonical_query(request.query)?);
    text.push('\n');
    for name in signed {
        let values: Vec<String> = request.headers.get_all(name.as_str()).iter().map(trimmed).collect();
        if values.is_empty() {
            return Err(ApiError::wrong_signature());
        }
        text.push_str(name);
        text.push(':');
        text.push_str(&values.join(","));
        text.push('\n');
    }
    text.push('\n');
    text.push_str(&signed.join(";"));
    text.push('\n');
    text.push_str(payload);
    Ok(text)
}

fn canonical_query(query: &str) -> Result<String, ApiError> {
    let mut pairs = Vec::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let mut encoded = (String::new(), String::new());
        encode(&percent_decode(name).ok_or_else(ApiError::wrong_signature)?, "", &mut encoded.0);
        encode(&percent_decode(value).ok_or_else(ApiError::wrong_signature)?, "", &mut encoded.1);
        pairs.push(encoded);
    }
    if pairs.len() > limits::QUERY_PARAMETERS_MAX {
        return Err(ApiError::wrong_signature());
    }
    pairs.sort();
    let joined: Vec<String> = pairs.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(joined.join("&"))
}

/// Percent-encodes all but unreserved characters and those in `keep`. The path is encoded once more on top of what
/// was sent, as for every service but S3.
fn encode(text: &str, keep: &str, out: &mut String) {
    for byte in text.bytes() {
        let character = char::from(byte);
        if byte.is_ascii_alphanumeric() || "-_.~".contains(character) || keep.contains(character) {
            out.push(character);
        } else {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

/// A header's value without outer blanks and with inner runs of blanks made one.
fn trimmed(value: &http::HeaderValue) -> String {
    let text = String::from_utf8_lossy(value.as_bytes());
    text.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn signing_key(credentials: &Credentials, date: &str) -> hmac::Key {
    let secret = format!("AWS4{}", credentials.secret_access_key);
    let mut key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    for part in [date, &credentials.region, SERVICE, TERMINATOR] {
        key = hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref());
    }
    key
}

fn text_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn first_word(text: &str) -> String {
    text.split(' ').next().unwrap_or_default().chars().take(64).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn read_hex(text: &str) -> Option<[u8; 32]> {
    model::function::Sha256::from_hex(text).map(|digest| digest.0)
}

fn incomplete(message: String) -> ApiError {
    ApiError::new(Exception::IncompleteSignature, message)
}

fn invalid(message: &str) -> ApiError {
    ApiError::new(Exception::InvalidSignature, message)
}

#[cfg(test)]
mod tests;
