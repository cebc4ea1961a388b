//! Downloads of deployment packages: the address that GetFunction gives as `Code.Location`.
//!
//! The address carries its own permission, an expiry time and a keyed digest, so that `curl` can follow it as it can
//! follow AWS's presigned ones. The key lives as long as the process; addresses live ten minutes.

use std::io;
use std::sync::Arc;

use aws_lc_rs::{hmac, rand};
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use model::error::{ApiError, Exception};
use model::function::Sha256;
use model::limits;

use crate::respond;
use crate::server::Shared;

/// Where packages are served.
pub(crate) const PATH: &str = "/rekindle/code/{sha256}";

/// Makes and checks addresses.
pub(crate) struct Signer(hmac::Key);

impl Signer {
    pub(crate) fn new() -> io::Result<Self> {
        let mut key = [0; 32];
        rand::fill(&mut key).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key)))
    }

    /// An address on `host` that is valid for ten minutes from `now`.
    pub(crate) fn location(&self, host: &str, sha256: &Sha256, now: Timestamp) -> String {
        let expires_s = now.as_second() + limits::CODE_LOCATION_VALID_S as i64;
        let tag = hmac::sign(&self.0, message(sha256, expires_s).as_bytes());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(tag);
        format!("http://{host}/rekindle/code/{}?Expires={expires_s}&Signature={signature}", sha256.hex())
    }

    fn is_valid(&self, sha256: &Sha256, query: &str, now: Timestamp) -> bool {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let expires_s = value("Expires").and_then(|text| text.parse::<i64>().ok());
        let signature = value("Signature").and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
        let (Some(expires_s), Some(signature)) = (expires_s, signature) else { return false };
        let genuine = hmac::verify(&self.0, message(sha256, expires_s).as_bytes(), &signature).is_ok();
        genuine && now.as_second() <= expires_s
    }
}

/// Serves one package.
pub(crate) async fn serve(
    State(shared): State<Arc<Shared>>,
    Path(sha256): Path<String>,
    RawQuery(query): RawQuery,
) -> Response {
    let sha256 = Sha256::from_hex(&sha256);
    let query = query.unwrap_or_default();
    let valid = |sha256: &Sha256| shared.download.is_valid(sha256, &query, Timestamp::now());
    let Some(sha256) = sha256.filter(valid) else {
        return respond::error(&ApiError::new(Exception::AccessDenied, "Request has expired"));
    };
    match tokio::fs::read(shared.control.package(&sha256)).await {
        Ok(zip) => {
            let mut response = respond::response(StatusCode::OK, Body::from(zip));
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/zip"));
            response
        }
        Err(cause) => {
            tracing::warn!(sha256 = sha256.hex(), %cause, "read deployment package failed");
            respond::error(&ApiError::new(Exception::ResourceNotFound, "The package is gone."))
        }
    }
}

fn message(sha256: &Sha256, expires_s: i64) -> String {
    format!("{}\n{expires_s}", sha256.hex())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_valid_for_its_package_and_for_ten_minutes() {
        let signer = Signer::new().expect("random bytes");
        let now = Timestamp::now();
        let at = |s: i64| Timestamp::from_second(now.as_second() + s).expect("near");
        let sha256 = Sha256([1; 32]);
        let location = signer.location("h:1", &sha256, now);
        let (path, query) = location.split_once('?').expect("has a query");
        assert_eq!(path, format!("http://h:1/rekindle/code/{}", sha256.hex()));
        assert!(signer.is_valid(&sha256, query, at(600)));
        assert!(!signer.is_valid(&sha256, query, at(601)));
        assert!(!signer.is_valid(&Sha256([2; 32]), query, now));
        assert!(!signer.is_valid(&sha256, &query.replace("Expires=1", "Expires=2"), now));
        assert!(!Signer::new().expect("random bytes").is_valid(&sha256, query, now));
        assert!(!signer.is_valid(&sha256, "", now));
    }
}
