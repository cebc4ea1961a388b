//! Request documents, in AWS's spelling. Everything is optional here; what is required is checked later, so that a
//! missing member is refused in AWS's words.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use model::error::{ApiError, Exception};
use model::settings::{LoggingRequest, SettingsRequest};
use serde::Deserialize;
use serde_json::Value;

/// CreateFunction and UpdateFunctionConfiguration.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Function {
    pub(super) function_name: Option<String>,
    pub(super) code: Option<Code>,
    pub(super) publish: Option<bool>,
    pub(super) tags: Option<BTreeMap<String, String>>,
    pub(super) package_type: Option<String>,
    pub(super) revision_id: Option<String>,
    runtime: Option<String>,
    pub(super) role: Option<String>,
    handler: Option<String>,
    description: Option<String>,
    timeout: Option<i64>,
    memory_size: Option<i64>,
    ephemeral_storage: Option<EphemeralStorage>,
    environment: Option<Environment>,
    tracing_config: Option<TracingConfig>,
    architectures: Option<Vec<String>>,
    snap_start: Option<SnapStart>,
    logging_config: Option<LoggingConfig>,
    layers: Option<Vec<String>>,
    code_signing_config_arn: Option<String>,
    #[serde(rename = "KMSKeyArn")]
    kms_key_arn: Option<String>,
    vpc_config: Option<Value>,
    dead_letter_config: Option<Value>,
    file_system_configs: Option<Value>,
    image_config: Option<Value>,
    capacity_provider_config: Option<Value>,
    durable_config: Option<Value>,
    tenancy_config: Option<Value>,
}

/// The member `Code` of CreateFunction; UpdateFunctionCode has the same members at its top.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Code {
    zip_file: Option<String>,
    #[serde(rename = "S3Bucket")]
    s3_bucket: Option<String>,
    #[serde(rename = "S3Key")]
    s3_key: Option<String>,
    image_uri: Option<String>,
    #[serde(rename = "SourceKMSKeyArn")]
    source_kms_key_arn: Option<String>,
}

/// UpdateFunctionCode.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct UpdateCode {
    #[serde(flatten)]
    pub(super) code: Code,
    pub(super) architectures: Option<Vec<String>>,
    pub(super) publish: Option<bool>,
    pub(super) dry_run: Option<bool>,
    pub(super) revision_id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: Option<i64>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    variables: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TracingConfig {
    mode: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig {
    log_format: Option<String>,
    application_log_level: Option<String>,
    system_log_level: Option<String>,
    log_group: Option<String>,
}

impl Function {
    /// The configuration that is asked for.
    ///
    /// # Errors
    /// What AWS offers and this server does not have is refused rather than ignored: a function that believes to be
    /// in a VPC must not run outside of one.
    pub(super) fn settings(self) -> Result<SettingsRequest, ApiError> {
        self.check_absent()?;
        Ok(SettingsRequest {
            runtime: self.runtime,
            role: self.role,
            handler: self.handler,
            description: self.description,
            timeout_s: self.timeout,
            memory_mib: self.memory_size,
            ephemeral_storage_mib: self.ephemeral_storage.and_then(|storage| storage.size),
            environment: self.environment.map(|environment| environment.variables.unwrap_or_default()),
            tracing_mode: self.tracing_config.and_then(|tracing| tracing.mode),
            architectures: self.architectures,
            snap_start: self.snap_start.and_then(|snap_start| snap_start.apply_on),
            logging: self.logging_config.map(|logging| LoggingRequest {
                format: logging.log_format,
                application_level: logging.application_log_level,
                system_level: logging.system_log_level,
                log_group: logging.log_group,
            }),
        })
    }

    fn check_absent(&self) -> Result<(), ApiError> {
        if let Some(layer) = self.layers.iter().flatten().next() {
            return Err(ApiError::layer_not_found(layer));
        }
        if let Some(arn) = &self.code_signing_config_arn {
            return Err(ApiError::code_signing_config_not_found(arn));
        }
        if self.kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty()) {
            return Err(ApiError::unsupported(
                "KMSKeyArn",
                "leave it out; snapshots are sealed with the server's own key",
            ));
        }
        for (member, value) in [
            ("VpcConfig", &self.vpc_config),
            ("DeadLetterConfig", &self.dead_letter_config),
            ("FileSystemConfigs", &self.file_system_configs),
            ("ImageConfig", &self.image_config),
            ("CapacityProviderConfig", &self.capacity_provider_config),
            ("DurableConfig", &self.durable_config),
            ("TenancyConfig", &self.tenancy_config),
        ] {
            if value.as_ref().is_some_and(says_something) {
                return Err(ApiError::unsupported(member, "leave it out"));
            }
        }
        Ok(())
    }
}

impl Code {
    /// The deployment package, decoded.
    ///
    /// # Errors
    /// When there is none, or it is somewhere else, or not base64.
    pub(super) fn into_zip(self) -> Result<Bytes, ApiError> {
        if self.image_uri.is_some() {
            return Err(ApiError::invalid(
                "Please don't provide ImageUri when updating a function with packageType Zip.",
            ));
        }
        if self.s3_bucket.is_some() || self.s3_key.is_some() {
            return Err(ApiError::unsupported("code in S3", "send the package as ZipFile (at most 50 MB)"));
        }
        if self.source_kms_key_arn.as_ref().is_some_and(|arn| !arn.is_empty()) {
            return Err(ApiError::unsupported("SourceKMSKeyArn", "leave it out"));
        }
        let Some(zip_file) = self.zip_file else {
            return Err(ApiError::invalid("Please provide a source for function code."));
        };
        let decoded = BASE64_STANDARD.decode(zip_file.as_bytes()).map_err(|cause| {
            ApiError::new(Exception::Serialization, format!("ZipFile is not base64: {cause}"))
        })?;
        Ok(decoded.into())
    }
}

/// Whether a block holds anything but nulls, empty strings and empty lists: tools send empty blocks to mean "none".
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => items.iter().any(says_something),
        Value::Object(members) => members.values().any(says_something),
        Value::Bool(true) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn empty_blocks_are_none_and_others_are_refused() {
        let read =
            |document: Value| serde_json::from_value::<Function>(document).expect("a document").settings();
        assert!(read(json!({"VpcConfig": {"SubnetIds": [], "SecurityGroupIds": []}})).is_ok());
        assert!(read(json!({"DeadLetterConfig": {"TargetArn": ""}, "KMSKeyArn": "", "Layers": []})).is_ok());
        let refused = read(json!({"VpcConfig": {"SubnetIds": ["subnet-1"]}})).expect_err("a VPC");
        assert!(refused.message.starts_with("VpcConfig is not supported by this server"), "{refused}");
        let refused = read(json!({"Layers": ["arn:x"]})).expect_err("a layer");
        assert_eq!(refused.message, "Layer version arn:x does not exist.");
    }

    #[test]
    fn code_is_base64_in_the_request() {
        let read = |document: Value| serde_json::from_value::<UpdateCode>(document).expect("a document");
        let zip = read(json!({"ZipFile": "UEs=", "Publish": true})).code.into_zip().expect("base64");
        assert_eq!(&zip[..], b"PK");
        assert!(read(json!({"ZipFile": "%"})).code.into_zip().is_err());
        assert!(read(json!({"S3Bucket": "b", "S3Key": "k"})).code.into_zip().is_err());
        assert!(read(json!({})).code.into_zip().is_err());
    }
}
