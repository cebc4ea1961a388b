//! The configuration of a function: everything of it that a new version freezes, save the code.
//!
//! [`SettingsRequest`] is what a caller asks for, as sent; [`Settings`] is what holds. The way from one to the other is
//! here: front-end checks first, all collected; then the service's own rules.
//!
//! Deliberately absent: settings of AWS that this server cannot honor (VPC, file systems, layers, images). They are
//! refused where the request is read (`api`), not stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::environment;
use crate::error::ApiError;
use crate::limits::{self, EPHEMERAL_STORAGE_MIB_MAX, EPHEMERAL_STORAGE_MIB_MIN};
use crate::names::{ROLE_PATTERN, is_role_arn};
use crate::runtime::RuntimeId;
use crate::validation::Violations;

/// The configuration that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Language and version.
    pub runtime: RuntimeId,
    /// Kept and given back; no role is assumed.
    pub role: String,
    /// What the runtime calls, such as `app.handler`.
    pub handler: String,
    /// Free text.
    pub description: String,
    /// How long an invocation may take, in seconds.
    pub timeout_s: u32,
    /// Memory of an environment, in MiB.
    pub memory_mib: u32,
    /// Size of `/tmp`, in MiB.
    pub ephemeral_storage_mib: u32,
    /// `None` when never given; AWS tells that apart from an empty map.
    pub environment: Option<BTreeMap<String, String>>,
    /// Tracing mode.
    pub tracing: Tracing,
    /// Processor architecture.
    pub architecture: Architecture,
    /// Whether published versions are snapshotted.
    pub snap_start: ApplyOn,
    /// Where and how logs are written.
    pub logging: Logging,
}

/// The member `SnapStart.ApplyOn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ApplyOn {
    /// Every version that is published from now on gets a snapshot.
    PublishedVersions,
    /// No snapshots.
    None,
}

/// The member `TracingConfig.Mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tracing {
    /// Sample some requests.
    Active,
    /// Do as the caller's header says.
    PassThrough,
}

/// The only member of `Architectures`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Architecture {
    /// Intel and AMD.
    #[serde(rename = "x86_64")]
    X86_64,
    /// 64-bit Arm.
    #[serde(rename = "arm64")]
    Arm64,
}

impl Architecture {
    /// The architecture of this machine.
    pub fn of_this_machine() -> Self {
        if cfg!(target_arch = "aarch64") { Self::Arm64 } else { Self::X86_64 }
    }

    /// The value on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The member `LoggingConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// Plain text or JSON.
    pub format: LogFormat,
    /// Only with JSON.
    pub application_level: Option<String>,
    /// Only with JSON.
    pub system_level: Option<String>,
    /// `None` for the default, `/aws/lambda/<name>`.
    pub log_group: Option<String>,
}

/// The member `LoggingConfig.LogFormat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogFormat {
    /// Lines as the function writes them.
    Text,
    /// One JSON document per line.
    #[serde(rename = "JSON")]
    Json,
}

/// What CreateFunction or UpdateFunctionConfiguration asks for; `None` means not given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the members are those of Settings, as sent")]
pub struct SettingsRequest {
    pub runtime: Option<String>,
    pub role: Option<String>,
    pub handler: Option<String>,
    pub description: Option<String>,
    pub timeout_s: Option<i64>,
    pub memory_mib: Option<i64>,
    pub ephemeral_storage_mib: Option<i64>,
    pub environment: Option<BTreeMap<String, String>>,
    pub tracing_mode: Option<String>,
    pub architectures: Option<Vec<String>>,
    pub snap_start: Option<String>,
    pub logging: Option<LoggingRequest>,
}

/// The member `LoggingConfig` of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the members are those of Logging, as sent")]
pub struct LoggingRequest {
    pub format: Option<String>,
    pub application_level: Option<String>,
    pub system_level: Option<String>,
    pub log_group: Option<String>,
}

const APPLICATION_LEVELS: &[&str] = &["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"];
const SYSTEM_LEVELS: &[&str] = &["DEBUG", "INFO", "WARN"];

impl Settings {
    /// The configuration of a new function.
    ///
    /// # Errors
    /// `ValidationException` or `InvalidParameterValueException`, in AWS's words.
    pub fn create(request: SettingsRequest) -> Result<Self, ApiError> {
        request.check()?;
        let required = |value: &Option<String>, what: &str| match value {
            Some(value) if !value.is_empty() => Ok(value.clone()),
            _ => Err(ApiError::invalid(format!(
                "{what} is mandatory for functions created with deployment packages."
            ))),
        };
        let runtime = RuntimeId::parse(&required(&request.runtime, "Runtime")?)?;
        let handler = required(&request.handler, "Handler")?;
        let fresh = Self {
            runtime,
            role: request.role.clone().unwrap_or_default(),
            handler,
            description: String::new(),
            timeout_s: limits::TIMEOUT_S_DEFAULT,
            memory_mib: limits::MEMORY_MIB_DEFAULT,
            ephemeral_storage_mib: EPHEMERAL_STORAGE_MIB_MIN,
            environment: None,
            tracing: Tracing::PassThrough,
            architecture: Architecture::of_this_machine(),
            snap_start: ApplyOn::None,
            logging: Logging {
                format: LogFormat::Text,
                application_level: None,
                system_level: None,
                log_group: None,
            },
        };
        fresh.update(request)
    }

    /// This configuration with what the request gives in place of what was there.
    ///
    /// # Errors
    /// As [`Settings::create`].
    pub fn update(mut self, request: SettingsRequest) -> Result<Self, ApiError> {
        request.check()?;
        if let Some(runtime) = &request.runtime {
            self.runtime = RuntimeId::parse(runtime)?;
        }
        if let Some(variables) = request.environment {
            environment::check(&variables)?;
            self.environment = Some(variables);
        }
        self.role = request.role.unwrap_or(self.role);
        self.handler = request.handler.unwrap_or(self.handler);
        self.description = request.description.unwrap_or(self.description);
        self.timeout_s = request.timeout_s.map_or(self.timeout_s, checked);
        self.memory_mib = request.memory_mib.map_or(self.memory_mib, checked);
        self.ephemeral_storage_mib =
            request.ephemeral_storage_mib.map_or(self.ephemeral_storage_mib, checked);
        if let Some(mode) = request.tracing_mode {
            self.tracing = if mode == "Active" { Tracing::Active } else { Tracing::PassThrough };
        }
        if let Some(apply_on) = request.snap_start {
            let on = apply_on == "PublishedVersions";
            self.snap_start = if on { ApplyOn::PublishedVersions } else { ApplyOn::None };
        }
        if let Some(architectures) = request.architectures {
            self.architecture = runnable(&architectures)?;
        }
        if let Some(logging) = request.logging {
            self.logging = self.logging.update(logging)?;
        }
        Ok(self)
    }
}

impl Logging {
    fn update(self, request: LoggingRequest) -> Result<Self, ApiError> {
        let format = match request.format.as_deref() {
            Some("JSON") => LogFormat::Json,
            Some(_) => LogFormat::Text,
            None => self.format,
        };
        let levels_given = request.application_level.is_some() || request.system_level.is_some();
        if format == LogFormat::Text && levels_given {
            return Err(ApiError::invalid(
                "Log levels can be set only with LogFormat JSON. Set LogFormat to JSON or leave the levels out.",
            ));
        }
        let level = |given: Option<String>, had: Option<String>| match format {
            LogFormat::Text => None,
            LogFormat::Json => Some(given.or(had).unwrap_or_else(|| "INFO".into())),
        };
        Ok(Self {
            format,
            application_level: level(request.application_level, self.application_level),
            system_level: level(request.system_level, self.system_level),
            log_group: request.log_group.or(self.log_group),
        })
    }
}

impl SettingsRequest {
    /// The front end's checks: everything that is wrong with the values by themselves.
    fn check(&self) -> Result<(), ApiError> {
        let mut found = Violations::default();
        if let Some(role) = &self.role
            && !is_role_arn(role)
        {
            found.pattern("role", role, ROLE_PATTERN);
        }
        if let Some(handler) = &self.handler {
            found.length("handler", handler, 0, limits::HANDLER_CHARS_MAX);
            if handler.is_empty() || handler.chars().any(|c| c.is_whitespace() || c == '\0') {
                found.pattern("handler", handler, r"[^\s]+");
            }
        }
        if let Some(description) = &self.description {
            found.length("description", description, 0, limits::DESCRIPTION_CHARS_MAX);
        }
        self.check_numbers(&mut found);
        if let Some(mode) = &self.tracing_mode {
            check_enum(&mut found, "tracingConfig.mode", mode, &["Active", "PassThrough"]);
        }
        if let Some(apply_on) = &self.snap_start {
            check_enum(&mut found, "snapStart.applyOn", apply_on, &["PublishedVersions", "None"]);
        }
        if let Some(architectures) = &self.architectures {
            check_architectures(&mut found, architectures);
        }
        if let Some(logging) = &self.logging {
            logging.check(&mut found);
        }
        found.into_result()
    }

    fn check_numbers(&self, found: &mut Violations) {
        let number = |found: &mut Violations, field: &str, value: Option<i64>, min: u32, max: u32| {
            if let Some(value) = value {
                found.range(field, value, i64::from(min), i64::from(max));
            }
        };
        number(found, "timeout", self.timeout_s, limits::TIMEOUT_S_MIN, limits::TIMEOUT_S_MAX);
        number(found, "memorySize", self.memory_mib, limits::MEMORY_MIB_MIN, limits::MEMORY_MIB_MAX);
        let (min, max) = (EPHEMERAL_STORAGE_MIB_MIN, EPHEMERAL_STORAGE_MIB_MAX);
        number(found, "ephemeralStorage.size", self.ephemeral_storage_mib, min, max);
    }
}

impl LoggingRequest {
    fn check(&self, found: &mut Violations) {
        if let Some(format) = &self.format {
            check_enum(found, "loggingConfig.logFormat", format, &["JSON", "Text"]);
        }
        if let Some(level) = &self.application_level {
            check_enum(found, "loggingConfig.applicationLogLevel", level, APPLICATION_LEVELS);
        }
        if let Some(level) = &self.system_level {
            check_enum(found, "loggingConfig.systemLogLevel", level, SYSTEM_LEVELS);
        }
        if let Some(group) = &self.log_group {
            found.length("loggingConfig.logGroup", group, 1, limits::LOG_GROUP_CHARS_MAX);
            if !is_log_group(group) {
                found.pattern("loggingConfig.logGroup", group, r"[\.\-_/#A-Za-z0-9]+");
            }
        }
    }
}

/// A log group becomes a path below the log directory, so a segment `..` is refused beyond what the pattern says.
fn is_log_group(text: &str) -> bool {
    text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_/#".contains(c))
        && !text.split('/').any(|segment| segment == ".." || segment == ".")
}

fn check_enum(found: &mut Violations, field: &str, value: &str, values: &[&str]) {
    if !values.contains(&value) {
        found.not_in(field, value, values);
    }
}

fn check_architectures(found: &mut Violations, architectures: &[String]) {
    let shown = format!("[{}]", architectures.join(", "));
    let known = |architecture: &String| architecture == "x86_64" || architecture == "arm64";
    if architectures.len() != 1 {
        found.add("architectures", &shown, "Member must have length less than or equal to 1");
    }
    if !architectures.iter().all(known) {
        let rule = "Member must satisfy constraint: [Member must satisfy enum value set: [x86_64, arm64], Member must \
                    not be null]";
        found.add("architectures", &shown, rule);
    }
}

/// Functions run on this machine's own processor, so its architecture is the only one that can be promised.
fn runnable(architectures: &[String]) -> Result<Architecture, ApiError> {
    let ours = Architecture::of_this_machine();
    if architectures.iter().any(|wanted| wanted != ours.as_str()) {
        return Err(ApiError::unsupported(
            &format!("architecture {}", architectures.join(", ")),
            &format!("it runs on {}; set Architectures to [{}]", ours.as_str(), ours.as_str()),
        ));
    }
    Ok(ours)
}

/// A number that [`SettingsRequest::check`] has found to be in its range.
fn checked(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> SettingsRequest {
        SettingsRequest {
            runtime: Some("python3.12".into()),
            role: Some("arn:aws:iam::000000000000:role/any".into()),
            handler: Some("app.handler".into()),
            ..Default::default()
        }
    }

    fn refusal(change: impl FnOnce(&mut SettingsRequest)) -> String {
        let mut request = request();
        change(&mut request);
        Settings::create(request).expect_err("must be refused").message
    }

    #[test]
    fn a_function_gets_the_defaults_of_aws() {
        let settings = Settings::create(request()).expect("valid");
        assert_eq!((settings.timeout_s, settings.memory_mib, settings.ephemeral_storage_mib), (3, 128, 512));
        assert_eq!((settings.snap_start, settings.tracing), (ApplyOn::None, Tracing::PassThrough));
        assert_eq!(settings.environment, None);
    }

    #[test]
    fn refusals_are_in_the_words_of_aws() {
        let text = refusal(|r| r.timeout_s = Some(0));
        assert!(text.ends_with(
            "'timeout' failed to satisfy constraint: Member must have value greater than or equal to 1"
        ));
        assert!(refusal(|r| r.memory_mib = Some(64)).contains("'memorySize'"));
        assert!(refusal(|r| r.snap_start = Some("x".into())).contains("[PublishedVersions, None]"));
        assert!(refusal(|r| r.role = Some("r".into())).contains("regular expression pattern: arn:(aws"));
        assert!(refusal(|r| r.handler = None).contains("Handler is mandatory"));
        assert!(refusal(|r| r.handler = Some("a b".into())).contains("'handler'"));
        let escape = LoggingRequest { log_group: Some("/a/../../b".into()), ..Default::default() };
        assert!(refusal(|r| r.logging = Some(escape)).contains("loggingConfig.logGroup"));
        let both = refusal(|r| (r.timeout_s, r.memory_mib) = (Some(901), Some(1)));
        assert!(both.starts_with("2 validation errors detected: "), "{both}");
    }

    #[test]
    fn an_update_changes_only_what_it_gives() {
        let settings = Settings::create(request()).expect("valid");
        let change = SettingsRequest {
            snap_start: Some("PublishedVersions".into()),
            logging: Some(LoggingRequest { format: Some("JSON".into()), ..Default::default() }),
            ..Default::default()
        };
        let updated = settings.clone().update(change).expect("valid");
        assert_eq!(updated.snap_start, ApplyOn::PublishedVersions);
        assert_eq!(updated.logging.application_level.as_deref(), Some("INFO"));
        assert_eq!(updated.handler, settings.handler);
    }
}
