//! `rekindle doctor`: what this machine can do, and what to do about what it cannot.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use comfy_table::{ContentArrangement, Table, presets};
use platform::runtimes::Runtimes;
use sandbox::{Finding, HostAbilities};

/// Prints the findings. The status is a failure when something is missing.
///
/// # Errors
/// When the findings cannot be printed.
pub fn run(json: bool, data_dir: &Path) -> Result<ExitCode> {
    let mut findings = HostAbilities::probe().findings();
    findings.extend(engine_findings());
    findings.push(runtime_finding(data_dir));
    let whole = findings.iter().all(|finding| finding.present);
    if json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        println!("{}", table(&findings));
    }
    Ok(if whole { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The subjects of what is missing.
pub fn lacks(abilities: &HostAbilities) -> Vec<String> {
    let findings = abilities.findings().into_iter().chain(engine_findings());
    findings.filter(|finding| !finding.present).map(|finding| finding.subject.to_owned()).collect()
}

fn table(findings: &[Finding]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["", "WHAT", "FOUND", "WHAT TO DO"]);
    for finding in findings {
        let sign = if finding.present { "ok" } else { "--" };
        let remedy = finding.remedy.filter(|_| !finding.present).unwrap_or_default();
        table.add_row([sign, finding.subject, &finding.detail, remedy]);
    }
    table
}

/// What the process engine needs of the kernel.
fn engine_findings() -> Vec<Finding> {
    let probes = engine::abilities::probe();
    probes
        .into_iter()
        .map(|probe| Finding {
            subject: probe.subject,
            present: probe.present,
            detail: probe.detail,
            remedy: Some(probe.remedy),
        })
        .collect()
}

fn runtime_finding(data_dir: &Path) -> Finding {
    let all = Runtimes::open(data_dir.join("runtimes")).all();
    let names: Vec<&str> = all.iter().map(|runtime| runtime.id.as_str()).collect();
    Finding {
        subject: "runtimes",
        present: !all.is_empty(),
        detail: if all.is_empty() { "none installed".to_owned() } else { names.join(", ") },
        remedy: Some("rekindle runtime install python3.12"),
    }
}
