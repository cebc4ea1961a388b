//! Which operation a request is: one table of methods and paths (Lambda service model, 2015-03-31).
//!
//! Old SDKs send some paths with a trailing slash; all are accepted with and without. Parameters arrive
//! percent-encoded, an ARN as `arn%3Aaws%3A...`.

use http::Method;
use model::limits;

/// An operation of the Lambda API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    CreateAlias,
    CreateFunction,
    DeleteAlias,
    DeleteFunction,
    DeleteFunctionConcurrency,
    GetAccountSettings,
    GetAlias,
    GetFunction,
    GetFunctionCodeSigningConfig,
    GetFunctionConcurrency,
    GetFunctionConfiguration,
    GetFunctionRecursionConfig,
    GetPolicy,
    GetRuntimeManagementConfig,
    Invoke,
    ListAliases,
    ListFunctions,
    ListTags,
    ListVersionsByFunction,
    PublishVersion,
    PutFunctionConcurrency,
    TagResource,
    UntagResource,
    UpdateAlias,
    UpdateFunctionCode,
    UpdateFunctionConfiguration,
}

/// Method, path and operation. A segment `*` is a parameter.
const TABLE: &[(Method, &str, Operation)] = {
    use Operation::*;
    &[
        (Method::POST, "2015-03-31/functions/*/invocations", Invoke),
        (Method::POST, "2015-03-31/functions", CreateFunction),
        (Method::GET, "2015-03-31/functions", ListFunctions),
        (Method::GET, "2015-03-31/functions/*", GetFunction),
        (Method::DELETE, "2015-03-31/functions/*", DeleteFunction),
        (Method::GET, "2015-03-31/functions/*/configuration", GetFunctionConfiguration),
        (Method::PUT, "2015-03-31/functions/*/configuration", UpdateFunctionConfiguration),
        (Method::PUT, "2015-03-31/functions/*/code", UpdateFunctionCode),
        (Method::POST, "2015-03-31/functions/*/versions", PublishVersion),
        (Method::GET, "2015-03-31/functions/*/versions", ListVersionsByFunction),
        (Method::POST, "2015-03-31/functions/*/aliases", CreateAlias),
        (Method::GET, "2015-03-31/functions/*/aliases", ListAliases),
        (Method::GET, "2015-03-31/functions/*/aliases/*", GetAlias),
        (Method::PUT, "2015-03-31/functions/*/aliases/*", UpdateAlias),
        (Method::DELETE, "2015-03-31/functions/*/aliases/*", DeleteAlias),
        (Method::GET, "2015-03-31/functions/*/policy", GetPolicy),
        (Method::GET, "2016-08-19/account-settings", GetAccountSettings),
        (Method::GET, "2017-03-31/tags/*", ListTags),
        (Method::POST, "2017-03-31/tags/*", TagResource),
        (Method::DELETE, "2017-03-31/tags/*", UntagResource),
        (Method::PUT, "2017-10-31/functions/*/concurrency", PutFunctionConcurrency),
        (Method::DELETE, "2017-10-31/functions/*/concurrency", DeleteFunctionConcurrency),
        (Method::GET, "2019-09-30/functions/*/concurrency", GetFunctionConcurrency),
        (Method::GET, "2020-06-30/functions/*/code-signing-config", GetFunctionCodeSigningConfig),
        (Method::GET, "2021-07-20/functions/*/runtime-management-config", GetRuntimeManagementConfig),
        (Method::GET, "2024-08-31/functions/*/recursion-config", GetFunctionRecursionConfig),
    ]
};

/// An operation and the parameters of its path, decoded, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) operation: Operation,
    pub(crate) parameters: Vec<String>,
}

/// Finds the operation of a request, if it is one that this server knows.
pub(crate) fn find(method: &Method, path: &str) -> Option<Route> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    TABLE.iter().filter(|(wanted, ..)| wanted == method).find_map(|(_, pattern, operation)| {
        let parameters = capture(pattern, path)?;
        Some(Route { operation: *operation, parameters })
    })
}

impl Operation {
    /// Largest request body, in bytes.
    pub(crate) fn body_bytes_max(self) -> usize {
        match self {
            Self::CreateFunction | Self::UpdateFunctionCode => limits::CODE_REQUEST_BYTES_MAX,
            Self::Invoke => limits::INVOKE_PAYLOAD_BYTES_MAX,
            _ => limits::REQUEST_BYTES_MAX,
        }
    }

    /// The name in refusals of bodies that are too large; AWS has another one for Invoke than its API model.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Invoke => "InvokeFunction".into(),
            other => format!("{other:?}"),
        }
    }
}

fn capture(pattern: &str, path: &str) -> Option<Vec<String>> {
    let mut parameters = Vec::new();
    let mut segments = path.split('/');
    for wanted in pattern.split('/') {
        let segment = segments.next()?;
        if wanted == "*" && !segment.is_empty() {
            parameters.push(percent_decode(segment)?);
        } else if wanted != segment {
            return None;
        }
    }
    segments.next().is_none().then_some(parameters)
}

/// Decodes `%XX`; `None` for a broken escape or when the result is not UTF-8.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        if first != b'%' {
            bytes.push(first);
            continue;
        }
        let (pair, tail) = rest.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        bytes.push(digit(pair[0])? << 4 | digit(pair[1])?);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: Method, path: &str, want: Option<(Operation, &[&str])>) {
        let got = find(&method, path);
        let got = got.as_ref().map(|route| {
            let parameters: Vec<&str> = route.parameters.iter().map(String::as_str).collect();
            (route.operation, parameters)
        });
        assert_eq!(got, want.map(|(operation, parameters)| (operation, parameters.to_vec())), "{path}");
    }

    #[test]
    fn paths_lead_to_operations() {
        check(Method::GET, "/2015-03-31/functions", Some((Operation::ListFunctions, &[])));
        check(Method::GET, "/2015-03-31/functions/", Some((Operation::ListFunctions, &[])));
        check(Method::GET, "/2015-03-31/functions/f", Some((Operation::GetFunction, &["f"])));
        check(Method::PUT, "/2015-03-31/functions/f/aliases/a", Some((Operation::UpdateAlias, &["f", "a"])));
        check(
            Method::POST,
            "/2015-03-31/functions/arn%3Aaws%3Alambda%3Aus-east-1%3A000000000000%3Afunction%3Af%3A%24LATEST/invocations",
            Some((Operation::Invoke, &["arn:aws:lambda:us-east-1:000000000000:function:f:$LATEST"])),
        );
        check(Method::PATCH, "/2015-03-31/functions", None);
        check(Method::GET, "/2015-03-31/functions//", None);
        check(Method::GET, "/2015-03-31/functions/f/x", None);
        check(Method::GET, "/2015-03-31/functions/%zz", None);
        check(Method::GET, "/2015-03-31/functions/%f", None);
        check(Method::GET, "", None);
    }
}
