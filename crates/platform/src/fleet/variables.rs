//! The environment variables of a runtime's process.
//!
//! Three layers: what a function may override, the function's own variables, and the reserved ones, which always win
//! (Lambda Developer Guide, configuration-envvars). **An environment that is going to be checkpointed gets neither
//! credentials nor the names of its logs**: both differ in each restored environment, and a process's variables cannot
//! be changed from outside.

use std::collections::BTreeMap;

use host::protocol::RUNTIME_API_PORT;

use crate::runtimes::InstalledRuntime;
use crate::session::credentials::Credentials;
use crate::version::VersionSpec;

/// What an environment is initialized for.
pub(super) enum Purpose<'a> {
    /// To serve invocations right away.
    OnDemand { credentials: &'a Credentials, log_stream: &'a str },
    /// To be checkpointed.
    SnapStart { endpoint_token: &'a str },
}

/// All variables of the process.
pub(super) fn variables(
    spec: &VersionSpec,
    runtime: &InstalledRuntime,
    purpose: &Purpose<'_>,
) -> BTreeMap<String, String> {
    let mut variables: BTreeMap<String, String> =
        OVERRIDABLE.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    variables.extend(runtime.env.clone());
    variables.extend(spec.environment.clone());
    variables.extend(reserved(spec, purpose));
    variables
}

const OVERRIDABLE: &[(&str, &str)] = &[
    ("AWS_XRAY_CONTEXT_MISSING", "LOG_ERROR"),
    ("LANG", "en_US.UTF-8"),
    (
        "LD_LIBRARY_PATH",
        "/var/lang/lib:/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
    ),
    ("PATH", "/var/lang/bin:/usr/local/bin:/usr/bin/:/bin:/opt/bin"),
    ("TZ", ":UTC"),
];

fn reserved(spec: &VersionSpec, purpose: &Purpose<'_>) -> BTreeMap<String, String> {
    let api = format!("127.0.0.1:{RUNTIME_API_PORT}");
    let mut reserved: Vec<(&str, String)> = vec![
        ("AWS_DEFAULT_REGION", spec.region.clone()),
        ("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", spec.runtime)),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", spec.memory_mib.to_string()),
        ("AWS_LAMBDA_FUNCTION_NAME", spec.key.function.clone()),
        ("AWS_LAMBDA_FUNCTION_VERSION", spec.key.version.clone()),
        ("AWS_LAMBDA_RUNTIME_API", api.clone()),
        ("AWS_REGION", spec.region.clone()),
        ("LAMBDA_RUNTIME_DIR", "/var/runtime".to_owned()),
        ("LAMBDA_TASK_ROOT", "/var/task".to_owned()),
        ("PWD", "/var/task".to_owned()),
        ("_HANDLER", spec.handler.clone()),
    ];
    match purpose {
        Purpose::OnDemand { credentials, log_stream } => reserved.extend([
            ("AWS_ACCESS_KEY", credentials.access_key_id.clone()),
            ("AWS_ACCESS_KEY_ID", credentials.access_key_id.clone()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", spec.log_group.clone()),
            ("AWS_LAMBDA_LOG_STREAM_NAME", (*log_stream).to_owned()),
            ("AWS_SECRET_ACCESS_KEY", credentials.secret_access_key.clone()),
            ("AWS_SESSION_TOKEN", credentials.session_token.clone()),
        ]),
        Purpose::SnapStart { endpoint_token } => reserved.extend([
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN", (*endpoint_token).to_owned()),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("http://{api}/2021-04-23/credentials")),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "snap-start".to_owned()),
        ]),
    }
    reserved.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::tests_support::{runtime, spec};
    use crate::session::credentials::{CredentialsSource, RandomCredentials};

    #[test]
    fn functions_override_defaults_but_not_reserved_names() {
        let mut spec = spec("f", None);
        spec.environment.insert("PYTHONPATH".into(), "/opt/mine".into());
        spec.environment.insert("TZ".into(), "Europe/Berlin".into());
        spec.environment.insert("_HANDLER".into(), "evil".into());
        let credentials = RandomCredentials.issue(&spec);
        let purpose = Purpose::OnDemand { credentials: &credentials, log_stream: "s" };
        let variables = variables(&spec, &runtime(), &purpose);
        assert_eq!(variables["PYTHONPATH"], "/opt/mine");
        assert_eq!(variables["TZ"], "Europe/Berlin");
        assert_eq!(variables["_HANDLER"], "app.handler");
        assert_eq!(variables["AWS_LAMBDA_RUNTIME_API"], "127.0.0.1:9001");
        assert_eq!(variables["AWS_LAMBDA_INITIALIZATION_TYPE"], "on-demand");
        assert_eq!(variables["AWS_ACCESS_KEY_ID"], credentials.access_key_id);
    }

    #[test]
    fn nothing_that_differs_between_clones_is_in_a_snapshot() {
        let spec = spec("f", None);
        let variables = variables(&spec, &runtime(), &Purpose::SnapStart { endpoint_token: "t" });
        assert_eq!(variables["AWS_LAMBDA_INITIALIZATION_TYPE"], "snap-start");
        assert_eq!(variables["AWS_CONTAINER_AUTHORIZATION_TOKEN"], "t");
        for absent in ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_LAMBDA_LOG_STREAM_NAME"] {
            assert!(!variables.contains_key(absent), "{absent}");
        }
    }
}
