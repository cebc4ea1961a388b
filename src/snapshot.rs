//! `rekindle snapshot`: what is kept, and how it would be restored.

use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use comfy_table::{Table, presets};
use meta::{Meta, Sqlite};
use model::snapshot::SnapshotRecord;

/// What `rekindle snapshot` can do.
#[derive(Debug, Clone, Subcommand)]
pub enum SnapshotCommand {
    /// List the snapshots with their sizes.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the plan by which a snapshot is restored: every system call, in order.
    Plan {
        /// The version, as FUNCTION:VERSION.
        version: String,
    },
}

/// Carries out a `rekindle snapshot` command. The server may run meanwhile.
///
/// # Errors
/// When the data directory cannot be read or holds no such snapshot.
pub fn run(command: SnapshotCommand, data_dir: &Path) -> Result<()> {
    let records = records(data_dir)?;
    match command {
        SnapshotCommand::List { json } => list(&records, json),
        SnapshotCommand::Plan { version } => plan(&records, &version, data_dir),
    }
}

fn records(data_dir: &Path) -> Result<Vec<SnapshotRecord>> {
    let path = data_dir.join("meta.db");
    if !path.exists() {
        bail!("{} holds no metadata; has `rekindle serve` been started on it?", data_dir.display());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let meta = Sqlite::open(&path).await.context("open the metadata")?;
        meta.snapshots().await.context("read the snapshots")
    })
}

fn list(records: &[SnapshotRecord], json: bool) -> Result<()> {
    if json {
        let rows: Vec<_> = records
            .iter()
            .map(|record| {
                let measures = record.measures.clone().unwrap_or_default();
                serde_json::json!({
                    "function": record.function.to_string(),
                    "version": record.version.to_string(),
                    "snapshot": record.id.to_string(),
                    "state": format!("{:?}", record.state),
                    "image_bytes": measures.image_bytes,
                    "stored_bytes": measures.stored_bytes,
                    "checkpoint_us": measures.checkpoint_us,
                    "warnings": measures.warnings,
                })
            })
            .collect();
        println!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["FUNCTION", "VERSION", "STATE", "IMAGE", "STORED", "SNAPSHOT"]);
    for record in records {
        let measures = record.measures.clone().unwrap_or_default();
        table.add_row([
            record.function.to_string(),
            record.version.to_string(),
            format!("{:?}", record.state),
            mebibytes(measures.image_bytes),
            mebibytes(measures.stored_bytes),
            record.id.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn plan(records: &[SnapshotRecord], version: &str, data_dir: &Path) -> Result<()> {
    let Some((function, number)) = version.rsplit_once(':') else {
        bail!("name a version as FUNCTION:VERSION, such as hello:1");
    };
    let matches = |record: &&SnapshotRecord| {
        record.function.to_string() == function && record.version.to_string() == number
    };
    let record = records.iter().find(matches).with_context(|| {
        format!("{version} has no snapshot; rekindle snapshot list shows those that exist")
    })?;
    let text = host::inspect::plan(data_dir, &record.id.to_string())
        .map_err(|failure| anyhow::anyhow!("make the plan of {version}: {failure}"))?;
    print!("{text}");
    Ok(())
}
