//! The engine's benchmark: real programs, initialized, forked, restored by CRIU and restored by us, in turns.
//!
//! Restores go through the host role's own protocol, as in the tests, so a figure holds everything between the request
//! to the role and the program's answer: lease, fork, memory, threads, release, the request itself. The request lies in
//! the connection before the restore begins, as the server does it.
//!
//! It reads what to measure as JSON from standard input and writes samples as JSON to standard output; `bench/engine`
//! installs the programs, starts this and prints the tables. Deliberately absent: medians, promises, everything that is
//! about showing figures.

mod criu;
mod crowd;
#[path = "../../tests/support/driver.rs"]
mod driver;
mod facts;
mod report;
mod subject;

use anyhow::{Context, Result};

use report::{Report, Spec};
use subject::Subject;

fn main() -> Result<()> {
    driver::become_role();
    if std::env::args().nth(1).is_some_and(|argument| argument == criu::RUNNER) {
        return criu::run();
    }
    let spec: Spec =
        serde_json::from_reader(std::io::stdin().lock()).context("what to measure, from stdin")?;
    raise_open_files_limit();
    let report = measure(&spec)?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

fn measure(spec: &Spec) -> Result<Report> {
    let mut report = Report::default();
    let mut criu = spec.criu.as_deref().map(criu::Runner::start).transpose()?;
    let mut subjects = Vec::new();
    for program in &spec.programs {
        eprintln!("  {}: init, checkpoint, template", program.name);
        let subject = Subject::start(program, spec.standby).with_context(|| program.name.clone())?;
        let refused = criu.as_mut().and_then(|criu| criu.dump(program).err());
        if let Some(error) = refused {
            eprintln!("  {}: no figures of CRIU: {error:#}", program.name);
        }
        subjects.push(subject);
    }
    for round in 0..spec.count {
        eprintln!("  round {} of {}", round + 1, spec.count);
        for subject in &mut subjects {
            subject.round(round < spec.cold_count, criu.as_mut())?;
        }
    }
    for subject in &mut subjects {
        subject.build_templates(spec.template_count)?;
    }
    report.programs = subjects.into_iter().map(Subject::finish).collect();
    let program = |name: &str| spec.programs.iter().find(|program| program.name == name);
    if let Some(program) = spec.burst.as_ref().and_then(|crowd| program(&crowd.program)) {
        eprintln!("  burst");
        report.burst = Some(crowd::burst(program, spec.burst.as_ref().map_or(0, |crowd| crowd.count))?);
    }
    if let Some(program) = spec.idle.as_ref().and_then(|crowd| program(&crowd.program)) {
        eprintln!("  idle clones");
        report.idle = Some(crowd::idle(program, spec.idle.as_ref().map_or(0, |crowd| crowd.count))?);
    }
    Ok(report)
}

/// A thousand sandboxes have thousands of descriptors.
fn raise_open_files_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // Less is no obstacle but to the crowds, which tell what stopped them.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}
