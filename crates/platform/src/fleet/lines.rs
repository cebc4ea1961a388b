//! The platform's lines in function logs, in the plain-text format of Lambda.
//!
//! Fields are separated by a TAB, durations have two decimals (shapes: Lambda Developer Guide,
//! monitoring-cloudwatchlogs-logformat, and published logs).

use std::fmt::Write;
use std::time::Duration;

/// What ended a phase early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status<'a> {
    Timeout,
    /// With its error type, such as `Runtime.ExitError`.
    Error(&'a str),
}

/// In which phase an init ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InitPhase {
    Init,
    /// Again, inside the invocation.
    Invoke,
}

/// What REPORT says of the cold start; only the first invocation of an environment has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum ColdStart {
    Init(Duration),
    Restore {
        whole: Duration,
        /// Without the restoring itself: loading the runtime and after-restore hooks.
        billed: Duration,
    },
}

/// The figures of one invocation.
#[derive(Debug)]
pub(super) struct Report<'a> {
    pub(super) request_id: &'a str,
    pub(super) duration: Duration,
    pub(super) memory_mib: u32,
    pub(super) memory_peak_mib: u32,
    pub(super) cold_start: Option<ColdStart>,
    pub(super) status: Option<Status<'a>>,
}

/// One event before a snapshot.
#[derive(Debug)]
pub(super) struct WarmUpEvent<'a> {
    pub(super) request_id: &'a str,
    /// From 1.
    pub(super) number: u32,
    /// How many there are to be.
    pub(super) events: u32,
    pub(super) duration: Duration,
    pub(super) status: Option<Status<'a>>,
}

pub(super) fn init_start(version: &str, version_arn: &str) -> String {
    format!("INIT_START Runtime Version: {version}\tRuntime Version ARN: {version_arn}")
}

/// The line of a successful init before a snapshot, which is always printed.
pub(super) fn init_report(duration: Duration) -> String {
    format!("INIT_REPORT Init Duration: {}", ms(duration))
}

pub(super) fn init_report_failed(duration: Duration, phase: InitPhase, status: Status<'_>) -> String {
    let phase = match phase {
        InitPhase::Init => "init",
        InitPhase::Invoke => "invoke",
    };
    format!("INIT_REPORT Init Duration: {}\tPhase: {phase}\t{}", ms(duration), status_text(status))
}

/// The line of one warm-up event. Lambda has none; its fields are those of REPORT.
pub(super) fn warm_up(event: &WarmUpEvent<'_>) -> String {
    let WarmUpEvent { request_id, number, events, duration, status } = event;
    let mut line =
        format!("WARM_UP RequestId: {request_id}\tEvent: {number} of {events}\tDuration: {}", ms(*duration));
    if let Some(status) = status {
        line.push('\t');
        line.push_str(&status_text(*status));
    }
    line
}

/// What all warm-up events came to.
pub(super) fn warm_up_report(given: u32, events: u32, failed: u32, duration: Duration) -> String {
    format!("WARM_UP_REPORT Events: {given} of {events}\tFailed: {failed}\tDuration: {}", ms(duration))
}

pub(super) fn restore_start(version: &str, version_arn: &str) -> String {
    format!("RESTORE_START Runtime Version: {version}\tRuntime Version ARN: {version_arn}")
}

pub(super) fn restore_report(duration: Duration, status: Option<Status<'_>>) -> String {
    let mut line = format!("RESTORE_REPORT Restore Duration: {}", ms(duration));
    if let Some(status) = status {
        line.push('\t');
        line.push_str(&status_text(status));
    }
    line
}

pub(super) fn start(request_id: &str, version: &str) -> String {
    format!("START RequestId: {request_id} Version: {version}")
}

pub(super) fn end(request_id: &str) -> String {
    format!("END RequestId: {request_id}")
}

/// The REPORT line. It ends with a TAB.
pub(super) fn report(report: &Report<'_>) -> String {
    let billed = report.duration
        + match report.cold_start {
            Some(ColdStart::Init(init)) => init,
            Some(ColdStart::Restore { billed, .. }) => billed,
            None => Duration::ZERO,
        };
    let mut line = format!(
        "REPORT RequestId: {}\tDuration: {}\tBilled Duration: {} ms\tMemory Size: {} MB\tMax Memory Used: {} MB\t",
        report.request_id,
        ms(report.duration),
        whole_ms(billed),
        report.memory_mib,
        report.memory_peak_mib
    );
    // Writing to a string cannot fail.
    let _ = match report.cold_start {
        Some(ColdStart::Init(init)) => write!(line, "Init Duration: {}\t", ms(init)),
        Some(ColdStart::Restore { whole, billed }) => {
            write!(
                line,
                "Restore Duration: {}\tBilled Restore Duration: {} ms\t",
                ms(whole),
                whole_ms(billed)
            )
        }
        None => Ok(()),
    };
    if let Some(status) = report.status {
        line.push_str(&status_text(status));
        line.push('\t');
    }
    line
}

fn status_text(status: Status<'_>) -> String {
    match status {
        Status::Timeout => "Status: timeout".to_owned(),
        Status::Error(error_type) => format!("Status: error\tError Type: {error_type}"),
    }
}

fn ms(duration: Duration) -> String {
    format!("{:.2} ms", duration.as_secs_f64() * 1000.0)
}

fn whole_ms(duration: Duration) -> u128 {
    duration.as_micros().div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cold_start: Option<ColdStart>, status: Option<Status<'_>>, expected: &str) {
        let given = Report {
            request_id: "id",
            duration: Duration::from_micros(12_310),
            memory_mib: 512,
            memory_peak_mib: 88,
            cold_start,
            status,
        };
        assert_eq!(report(&given), expected);
    }

    #[test]
    fn reports_have_the_shapes_of_lambda() {
        check(
            Some(ColdStart::Restore {
                whole: Duration::from_micros(301_550),
                billed: Duration::from_micros(87_000),
            }),
            None,
            "REPORT RequestId: id\tDuration: 12.31 ms\tBilled Duration: 100 ms\tMemory Size: 512 MB\tMax Memory Used: \
             88 MB\tRestore Duration: 301.55 ms\tBilled Restore Duration: 87 ms\t",
        );
        check(
            Some(ColdStart::Init(Duration::from_micros(200_200))),
            None,
            "REPORT RequestId: id\tDuration: 12.31 ms\tBilled Duration: 213 ms\tMemory Size: 512 MB\tMax Memory Used: \
             88 MB\tInit Duration: 200.20 ms\t",
        );
        check(
            None,
            Some(Status::Error("Runtime.ExitError")),
            "REPORT RequestId: id\tDuration: 12.31 ms\tBilled Duration: 13 ms\tMemory Size: 512 MB\tMax Memory Used: \
             88 MB\tStatus: error\tError Type: Runtime.ExitError\t",
        );
    }

    #[test]
    fn phases_have_the_shapes_of_lambda() {
        let duration = Duration::from_micros(812_400);
        assert_eq!(
            init_report_failed(duration, InitPhase::Init, Status::Timeout),
            "INIT_REPORT Init Duration: 812.40 ms\tPhase: init\tStatus: timeout"
        );
        assert_eq!(
            restore_report(duration, Some(Status::Error("Runtime.ExitError"))),
            "RESTORE_REPORT Restore Duration: 812.40 ms\tStatus: error\tError Type: Runtime.ExitError"
        );
        assert_eq!(restore_report(duration, None), "RESTORE_REPORT Restore Duration: 812.40 ms");
        assert_eq!(
            init_start("python:3.12.v1", "arn"),
            "INIT_START Runtime Version: python:3.12.v1\tRuntime Version ARN: arn"
        );
        assert_eq!(start("id", "7"), "START RequestId: id Version: 7");
    }

    #[test]
    fn warm_up_events_have_a_line_each_and_one_for_all() {
        let status = Some(Status::Error("ValueError"));
        let event = WarmUpEvent {
            request_id: "id",
            number: 2,
            events: 3,
            duration: Duration::from_micros(4560),
            status,
        };
        assert_eq!(
            warm_up(&event),
            "WARM_UP RequestId: id\tEvent: 2 of 3\tDuration: 4.56 ms\tStatus: error\tError Type: ValueError"
        );
        assert_eq!(
            warm_up_report(3, 3, 1, Duration::from_micros(9000)),
            "WARM_UP_REPORT Events: 3 of 3\tFailed: 1\tDuration: 9.00 ms"
        );
    }
}
