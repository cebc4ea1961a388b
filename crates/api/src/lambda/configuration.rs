//! The document `FunctionConfiguration`, which most operations answer with.
//!
//! Which members appear when follows answers recorded from AWS: unset optional blocks are left out, lists leave out
//! states and the runtime version.

use std::collections::BTreeMap;

use aws_lc_rs::digest;
use model::function::{FunctionRecord, Sha256, format_last_modified};
use model::lifecycle::{Reason, State};
use model::names::Home;
use model::settings::{ApplyOn, LogFormat, Tracing};
use platform::control::Described;
use serde::Serialize;

/// `FunctionConfiguration`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Configuration {
    function_name: String,
    function_arn: String,
    runtime: String,
    role: String,
    handler: String,
    code_size: u64,
    description: String,
    timeout: u32,
    memory_size: u32,
    last_modified: String,
    code_sha256: String,
    version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Environment>,
    tracing_config: TracingConfig,
    revision_id: String,
    package_type: &'static str,
    architectures: [&'static str; 1],
    ephemeral_storage: EphemeralStorage,
    snap_start: SnapStart,
    logging_config: LoggingConfig,
    #[serde(flatten)]
    progress: Option<Progress>,
}

/// The members that lists leave out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Progress {
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state_reason_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_status_reason_code: Option<&'static str>,
    runtime_version_config: RuntimeVersionConfig,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Environment {
    variables: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct TracingConfig {
    mode: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EphemeralStorage {
    size: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct SnapStart {
    apply_on: &'static str,
    optimization_status: &'static str,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct LoggingConfig {
    log_format: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_log_level: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    system_log_level: Option<String>,
    log_group: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct RuntimeVersionConfig {
    runtime_version_arn: String,
}

impl Configuration {
    /// The document for one function or version.
    pub(super) fn full(home: &Home, described: Described) -> Self {
        let progress = Progress::new(home, &described.record);
        Self { progress: Some(progress), ..Self::listed(described) }
    }

    /// The document inside a list.
    pub(super) fn listed(described: Described) -> Self {
        let Described { record, arn } = described;
        let log_group = record.log_group();
        let snapshot_ready = record.ready_snapshot().is_some();
        let settings = record.settings;
        Self {
            function_name: record.name.to_string(),
            function_arn: arn,
            runtime: settings.runtime.to_string(),
            role: settings.role,
            handler: settings.handler,
            code_size: record.code.size_bytes,
            description: settings.description,
            timeout: settings.timeout_s,
            memory_size: settings.memory_mib,
            last_modified: format_last_modified(record.last_modified),
            code_sha256: record.code.sha256.base64(),
            version: record.version.to_string(),
            environment: settings.environment.map(|variables| Environment { variables }),
            tracing_config: TracingConfig {
                mode: match settings.tracing {
                    Tracing::Active => "Active",
                    Tracing::PassThrough => "PassThrough",
                },
            },
            revision_id: record.revision_id.to_string(),
            package_type: "Zip",
            architectures: [settings.architecture.as_str()],
            ephemeral_storage: EphemeralStorage { size: settings.ephemeral_storage_mib },
            snap_start: SnapStart {
                apply_on: match settings.snap_start {
                    ApplyOn::PublishedVersions => "PublishedVersions",
                    ApplyOn::None => "None",
                },
                optimization_status: if snapshot_ready { "On" } else { "Off" },
            },
            logging_config: LoggingConfig {
                log_format: match settings.logging.format {
                    LogFormat::Text => "Text",
                    LogFormat::Json => "JSON",
                },
                application_log_level: settings.logging.application_level,
                system_log_level: settings.logging.system_level,
                log_group,
            },
            progress: None,
        }
    }
}

impl Progress {
    fn new(home: &Home, record: &FunctionRecord) -> Self {
        let status = &record.status;
        let text = |reason: &Option<Reason>| reason.as_ref().map(|reason| reason.text.clone());
        let code = |reason: &Option<Reason>| reason.as_ref().map(|reason| reason.code.as_str());
        Self {
            state: State::as_str(status.state),
            state_reason: text(&status.state_reason),
            state_reason_code: code(&status.state_reason),
            last_update_status: status.last_update.map(|update| update.as_str()),
            last_update_status_reason: text(&status.last_update_reason),
            last_update_status_reason_code: code(&status.last_update_reason),
            runtime_version_config: RuntimeVersionConfig {
                runtime_version_arn: runtime_version_arn(home, record.settings.runtime.as_str()),
            },
        }
    }
}

/// AWS names a patch of a runtime by 64 hex digits; here they are the digest of its identifier.
fn runtime_version_arn(home: &Home, runtime: &str) -> String {
    let digest = digest::digest(&digest::SHA256, runtime.as_bytes());
    let digits = <[u8; 32]>::try_from(digest.as_ref()).map(|bytes| Sha256(bytes).hex()).unwrap_or_default();
    format!("arn:aws:lambda:{}::runtime:{digits}", home.region)
}
